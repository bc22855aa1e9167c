"""What readers return: a picture, a case in memory, a pair of files, and the options of reading."""
import dataclasses
import hashlib
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from spinejax.readers import trimaps

Palette = Sequence[Sequence[int]]  # RGB by label, or (value,) by label for gray masks


class Picture(NamedTuple):
  """An image file as gray levels.

  Attributes:
    pixels: uint8 or float32 [H,W,1] or [H,W,3], 0..255; of an X-ray bones are bright.
    spacing: mm per pixel, vertical and horizontal, if a DICOM file gives it; else NaN.
    notes: what was done to the pixels and where the spacing is from, in words.
  """
  pixels: np.ndarray
  spacing: tuple[float, float]
  notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
  """A case in memory.

  Attributes:
    name, patient: of the case; sets are split by patient.
    image: uint8 or float32 [H,W,C] in 0..255; of a volume float32 [D,H,W,1], any gray scale.
    label: uint8 [H,W] or [D,H,W], classes from 0 (background); None for an image to predict.
    spacing: float32 [2] or [3] mm along the axes of the image, NaN where unknown.
    landmarks: of a volume, float32 [P,3] voxels, centers at whole numbers; else None.
    region: int8 [P] of the landmarks: 0 thoracic, 1 lumbar, -1 unknown; else None.
    true_angles: of a phantom, {method of `spinejax.measure`: degrees of the largest true curve}.
    notes: what reading did to the files, such as 'NAME.png: inverted (white is 0)'.
  """
  name: str
  patient: str
  image: np.ndarray
  label: np.ndarray | None
  spacing: np.ndarray
  landmarks: np.ndarray | None = None
  region: np.ndarray | None = None
  true_angles: Mapping[str, float] | None = None
  notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Pair:
  """An image file and the file of its label. `pairs.check_pairs` fills in the facts.

  Attributes:
    image: file of the image or volume.
    mask: file of the mask, table of landmarks or corners, or the NPZ file of the volume itself.
    split: 'train', 'validation' or 'test'; '' where the folder has no splits.
    spacing: mm per pixel of cases.csv, vertical and horizontal; NaN where unknown.
    line: line of the image in `mask`, a table of many images, from 1; 0: the table has one image.
    size, is_float, counts: of the record: shape of the label, whether the image is float32, pixels
      of each class.
    digest, notes: of the record.
  """
  name: str
  patient: str
  image: pathlib.Path
  mask: pathlib.Path
  split: str = ''
  spacing: tuple[float, ...] = (math.nan, math.nan)
  line: int = 0
  size: tuple[int, ...] = ()
  is_float: bool = False
  counts: tuple[int, ...] = ()
  digest: str = ''
  notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ReadOptions:
  """How a pair of files becomes a record; ValueError for a value that no file can be read with.

  Attributes:
    channels: of images, 1 (gray) or 3 (color).
    palette: color or gray value of each source label in masks; () if pixels are the labels.
    label_map: class of each source label; () leaves labels as they are.
    num_classes: classes of the records, background included; None allows any label.
    axes: where the axes of a volume file point, such as 'RAS'; '': as the file says.
    labels: what masks or corners of vertebrae become, see `trimaps.LABELS`; '' reads masks as they
      are and chooses by the number of labels for corners.
    border: width of the border of a trimap, as a fraction of the width of the image.
  """
  channels: int = 1
  palette: Palette = ()
  label_map: Sequence[int] = ()
  num_classes: int | None = None
  axes: str = ''
  labels: str = ''
  border: float = trimaps.BORDER_WIDTH

  def __post_init__(self) -> None:
    if self.channels not in (1, 3):
      raise ValueError(f'data.channels must be 1 (gray) or 3 (color), not {self.channels}.')
    if self.labels and self.labels not in trimaps.LABELS:
      raise ValueError(f"data.labels must be one of {', '.join(trimaps.LABELS)}, or '' to choose "
                       f'by the number of classes, not {self.labels!r}.')
    if not 0 < self.border <= 0.5:
      raise ValueError("data.border is the width of the border as a fraction of the image's width, "
                       f'above 0 and at most 0.5, not {self.border}.')

  @property
  def num_labels(self) -> int | None:
    """Number of source labels; None if any label is allowed."""
    return len(self.label_map) or self.num_classes


def digest(record: Record) -> str:
  """Hexadecimal digest of a record: changes with any pixel, landmark, name, patient or spacing."""
  code = hashlib.blake2b(digest_size=16)
  code.update(repr((record.name, record.patient, record.image.shape)).encode())
  for array, dtype in ((record.image, np.float32), (record.label, np.uint8),
                       (record.spacing, np.float32), (record.landmarks, np.float32),
                       (record.region, np.int8)):
    code.update(np.ascontiguousarray(() if array is None else array, dtype).tobytes())
  return code.hexdigest()
