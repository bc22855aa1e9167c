"""The TFDS builder of pairs of images and masks; needs no TensorFlow."""
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

Records = Iterable[dict[str, Any]]


class SpinePairs(tfds.core.GeneratorBasedBuilder):
  """Records of `spinejax.readers.pairs` at their original size, one array_record file a split.

  Features: name and patient, text; image [H,W,channels] uint8, or float32 if any file has 16 bits;
  label uint8 [H,W], source labels before any label_map; spacing float32 [2] mm per pixel, NaN where
  unknown. Of volumes: image float32 [D,H,W,1], label uint8 [D,H,W], spacing float32 [3], landmarks
  float32 [P,3] and region int8 [P].
  """

  code_path = None  # nothing is downloaded: TFDS need not look for checksums beside this file
  VERSION = tfds.core.Version('1.0.0')

  def __init__(self, data_dir: str | os.PathLike, splits: Mapping[str, Records], *, channels: int,
               image_dtype: np.dtype, are_volumes: bool, metadata: Mapping[str, Any]):
    """Takes the records of every split (none of them empty) and JSON-safe metadata."""
    self._splits = splits
    axes = (None,) * (2 + are_volumes)
    arrays = dict(image=((*axes, channels), image_dtype), label=(axes, np.uint8),
                  spacing=((len(axes),), np.float32))
    if are_volumes:
      arrays.update(landmarks=((None, 3), np.float32), region=((None,), np.int8))
    self._arrays = {
        name: tfds.features.Tensor(shape=shape, dtype=dtype, encoding='zlib')
        for name, (shape, dtype) in arrays.items()}
    self._metadata = tfds.core.MetadataDict(metadata)
    super().__init__(data_dir=data_dir, file_format='array_record')

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
        builder=self,
        description='Images with class masks, or volumes with laminae, checked and split by '
                    'patient.',
        features=tfds.features.FeaturesDict({
            'name': tfds.features.Text(),
            'patient': tfds.features.Text(),
            **self._arrays,
        }),
        metadata=self._metadata,
        disable_shuffling=True)

  def _split_generators(self, dl_manager):
    del dl_manager
    return {name: enumerate(records) for name, records in self._splits.items()}

  def _generate_examples(self):
    raise NotImplementedError('the records are handed to the constructor')
