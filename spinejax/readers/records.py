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
  """An image file as gray levels or colors."""
  pixels: np.ndarray  # uint8 or float32 [H,W,1] or [H,W,3], 0..255; of an X-ray bones are bright
  spacing: tuple[float, float]  # mm per pixel (y, x) if a DICOM file gives it; else NaN
  notes: tuple[str, ...]  # what was done to the pixels and where the spacing is from


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
  """A case in memory."""
  name: str
  patient: str  # sets are split by patient
  image: np.ndarray  # uint8 or float32 [H,W,C] in 0..255; float32 [D,H,W,1] of any gray scale
  label: np.ndarray | None  # uint8 [H,W] or [D,H,W], 0 is background; None of an image to predict
  spacing: np.ndarray  # float32 [2] or [3] mm along the axes of the image, NaN where unknown
  landmarks: np.ndarray | None = None  # of a volume, float32 [P,3] voxels, centers at whole numbers
  region: np.ndarray | None = None  # int8 [P] of the landmarks: 0 thoracic, 1 lumbar, -1 unknown
  # Of a phantom, {method of `spinejax.measure`: degrees of the largest true curve}.
  true_angles: Mapping[str, float] | None = None
  hole_fraction: float | None = None  # of a VPI phantom, share that the sweep missed
  notes: tuple[str, ...] = ()  # what reading did, such as 'NAME.png: inverted (white is 0)'


@dataclasses.dataclass(frozen=True)
class Pair:
  """An image file and the file of its label. `pairs.check_pairs` fills in the facts."""
  name: str
  patient: str
  image: pathlib.Path
  mask: pathlib.Path  # mask, table of landmarks or corners, or the NPZ file of the volume itself
  split: str = ''  # 'train', 'validation' or 'test'; '' where the folder has no splits
  spacing: tuple[float, ...] = (math.nan, math.nan)  # mm per pixel (y, x) of cases.csv, or NaN
  line: int = 0  # of the image in a table of many images, from 1; 0: the table has one image
  size: tuple[int, ...] = ()  # shape of the label
  is_float: bool = False  # whether the image is float32, as images of more than 8 bits are
  counts: tuple[int, ...] = ()  # pixels of each class
  digest: str = ''  # of the record, as are the notes
  notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ReadOptions:
  """How a pair of files becomes a record; ValueError for a value that no file can be read with."""
  channels: int = 1  # of images, 1 (gray) or 3 (color)
  palette: Palette = ()  # color or gray value of each source label; () if pixels are the labels
  label_map: Sequence[int] = ()  # class of each source label; () leaves labels as they are
  num_classes: int | None = None  # of the records, with background; None allows any label
  axes: str = ''  # where the axes of a volume file point, such as 'RAS'; '': as the file says
  # What masks or corners of vertebrae become, see `trimaps.LABELS`. '' reads masks as they are and
  # chooses by the number of labels for corners.
  labels: str = ''
  border: float = trimaps.BORDER_WIDTH  # of a trimap, as a fraction of the width of the image

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
