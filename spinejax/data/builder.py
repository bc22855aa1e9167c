"""The TFDS builder of records; it needs no TensorFlow."""
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from spinejax.readers.records import Record

_ARRAYS = ('image', 'label', 'spacing', 'landmarks', 'region')


def to_features(record: Record, image_dtype: np.dtype) -> dict[str, Any]:
  """The record as `SpinePairs` stores it; landmarks and region only if it has them."""
  arrays = {name: getattr(record, name) for name in _ARRAYS if getattr(record, name) is not None}
  return {'name': record.name, 'patient': record.patient, **arrays,
          'image': record.image.astype(image_dtype)}


class SpinePairs(tfds.core.GeneratorBasedBuilder):
  """Records at their original size, one array_record file per split.

  Features: name and patient, text; image [H,W,channels] uint8, or float32 if any file has 16 bits;
  label uint8 [H,W], source labels before any label_map; spacing float32 [2] mm per pixel, NaN if
  unknown. Of volumes: image float32 [D,H,W,1], label uint8 [D,H,W], spacing float32 [3], landmarks
  float32 [P,3] and region int8 [P].
  """

  code_path = None  # nothing is downloaded, so TFDS need not look for checksums beside this file
  VERSION = tfds.core.Version('1.0.0')

  def __init__(self, data_dir: str | os.PathLike,
               splits: Mapping[str, Iterable[dict[str, Any]]], *, channels: int,
               image_dtype: np.dtype, are_volumes: bool, metadata: Mapping[str, Any]):
    """`splits` are `to_features` of the records of every split; none of them is empty."""
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
    raise NotImplementedError('the records are passed to the constructor')
