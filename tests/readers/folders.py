"""Tiny folders of images and masks, or of volumes, as users have them, written for tests."""
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

PALETTE = ((0, 0, 0), (230, 60, 40), (40, 200, 90), (50, 80, 220), (240, 220, 60), (120, 40, 160))


def save(path: pathlib.Path, array: np.ndarray, **options: Any) -> pathlib.Path:
  """Saves an array as an image in a folder that is made; returns the path."""
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(array).save(path, **options)
  return path


def sentence(call: Callable, *args: Any, **options: Any) -> str:
  """The one sentence with which a call is refused."""
  with pytest.raises((ValueError, FileNotFoundError)) as error:
    call(*args, **options)
  message = str(error.value)
  assert message[-1] in '.?' and '\n' not in message
  return message


def draw_case(rng: np.random.Generator, size: tuple[int, int], num_classes: int, bits: int = 8,
              channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
  """An image of speckle with one bright ellipse per class, and its mask.

  Class n stands in the n-th of num_classes - 1 bands from top to bottom; the higher the class, the
  brighter. Returns uint8 (or uint16) [H,W] or [H,W,3] and uint8 [H,W].
  """
  height, width = size
  rows, columns = np.mgrid[:height, :width]
  label = np.zeros(size, np.uint8)
  band = height / (num_classes - 1)
  for n in range(1, num_classes):
    center = (n - 0.5 + rng.uniform(-0.1, 0.1)) * band, rng.uniform(0.35, 0.65) * width
    axes = 0.35 * band, rng.uniform(0.2, 0.3) * width
    label[((rows - center[0]) / axes[0])**2 + ((columns - center[1]) / axes[1])**2 <= 1] = n
  levels = np.linspace(40, 220, num_classes)
  image = np.clip(levels[label] + rng.normal(0, 12, size), 0, 255)
  image = (image * 257).astype(np.uint16) if bits == 16 else image.astype(np.uint8)
  return (np.repeat(image[..., None], 3, -1) if channels == 3 else image), label


def save_mask(path: pathlib.Path, label: np.ndarray, coding: str) -> None:
  """Saves a mask as 'index', '255' (two classes), 'color' (RGB of PALETTE) or 'palette' (PNG P)."""
  colors = np.array(PALETTE, np.uint8)
  if coding == '255':
    label = label * np.uint8(255)
  image = Image.fromarray(colors[label] if coding == 'color' else label)
  if coding == 'palette':
    image.putpalette(colors.reshape(-1).tolist())
  image.save(path)


def write_folder(
    path: str | pathlib.Path, n: int = 6, size: tuple[int, int] = (64, 32), num_classes: int = 4, *,
    layout: str = 'images', num_test: int = 0, coding: str = 'index', suffix: str = '.png',
    bits: int = 8, channels: int = 1, patients: Sequence[str] = (), spacing: float | None = None,
    seed: int = 0) -> list[str]:
  """Writes a folder of n learnable cases that `find_pairs` accepts; returns the names in order.

  Every case shows every class. The layout is 'images' (images/, masks/) or 'dataset'
  (dataset/SPLIT, groundtruth/SPLIT), where the last `num_test` cases go to test. The coding is that
  of `save_mask`. Patients and spacing in mm are written to cases.csv if given.
  """
  path = pathlib.Path(path)
  rng = np.random.default_rng(seed)
  names = [f'case_{i:02d}' for i in range(n)]
  for i, name in enumerate(names):
    split = 'test' if i >= n - num_test else 'train'
    images, masks, end = ((path / 'images', path / 'masks', '') if layout == 'images' else
                          (path / 'dataset' / split, path / 'groundtruth' / split, '_bone_3'))
    image, label = draw_case(rng, size, num_classes, bits, channels)
    masks.mkdir(parents=True, exist_ok=True)
    save(images / f'{name}{suffix}', image)
    save_mask(masks / f'{name}{end}.png', label, coding)
  if patients or spacing:
    lines = [f'{name},{patient},{spacing or ""},{spacing or ""}'
             for name, patient in zip(names, patients or names)]
    (path / 'cases.csv').write_text(
        'name,patient,spacing_y_mm,spacing_x_mm\n' + '\n'.join(lines) + '\n')
  return names


def write_dicom(path: pathlib.Path, pixels: np.ndarray, bits: int = 0, signed: bool = False,
                photometric: str = 'MONOCHROME2', **tags: Any) -> pathlib.Path:
  """Writes an array [H,W] or [H,W,3] as a DICOM file that names a patient; None omits a tag."""
  pydicom = pytest.importorskip('pydicom')
  data = pydicom.Dataset()
  data.file_meta = pydicom.dataset.FileMetaDataset()
  data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
  allocated, content = 8 * pixels.dtype.itemsize, pixels.tobytes()
  bits = bits or allocated
  for name, value in {**dict(
      SOPClassUID='1.2.840.10008.5.1.4.1.1.1.1', SOPInstanceUID='1.2.3', StudyInstanceUID='1.2.4',
      SeriesInstanceUID='1.2.5', PatientName='Doe^Jane', PatientID='SECRET77',
      PatientBirthDate='19990101', Rows=pixels.shape[0], Columns=pixels.shape[1],
      SamplesPerPixel=3 if pixels.ndim == 3 else 1, PhotometricInterpretation=photometric,
      PlanarConfiguration=0 if pixels.ndim == 3 else None, BitsAllocated=allocated, BitsStored=bits,
      HighBit=bits - 1, PixelRepresentation=int(signed),
      PixelData=content + b'\0' * (len(content) % 2)), **tags}.items():
    if value is not None:
      setattr(data, name, value)
  path.parent.mkdir(parents=True, exist_ok=True)
  data.save_as(path, enforce_file_format=True)
  return path


def draw_volume(rng: np.random.Generator, shape: tuple[int, int, int]
                ) -> tuple[np.ndarray, np.ndarray]:
  """Speckle float32 [D,H,W] with two bright voxels, and their places int64 [2,3]."""
  image = rng.uniform(10, 60, shape).astype(np.float32)
  points = np.array([[rng.integers(1, n - 1) for n in shape] for _ in range(2)])
  points[:, 0] = shape[0] // 4, shape[0] * 3 // 4  # apart
  image[tuple(points.T)] = 200
  return image, points


def write_volumes(
    path: str | pathlib.Path, n: int = 4, shape: tuple[int, int, int] = (12, 8, 6), *,
    labels: str = 'inside', patients: Sequence[str] = (), spacing: float = 1.5, seed: int = 0,
) -> list[str]:
  """Writes n NPZ volumes in our axes with two laminae each; returns the names in order.

  The laminae are in the file of the volume (labels 'inside'), in masks/NAME.npz ('masks') or in
  landmarks/NAME.csv ('landmarks').
  """
  path, rng = pathlib.Path(path), np.random.default_rng(seed)
  names = [f'case_{i:02d}' for i in range(n)]
  (path / 'images').mkdir(parents=True, exist_ok=True)
  if labels != 'inside':
    (path / labels).mkdir()
  for name in names:
    image, points = draw_volume(rng, shape)
    inside = dict(landmarks=points, region=np.array([0, 1])) if labels == 'inside' else {}
    np.savez(path / 'images' / f'{name}.npz', image=image, spacing=np.full(3, spacing), **inside)
    if labels == 'masks':
      np.savez(path / 'masks' / f'{name}.npz', label=image == 200)
    elif labels == 'landmarks':
      rows = (','.join(map(str, point)) for point in points)
      (path / 'landmarks' / f'{name}.csv').write_text('i,j,k\n' + '\n'.join(rows) + '\n')
  if patients:
    rows = (f'{name},{patient}' for name, patient in zip(names, patients, strict=True))
    (path / 'cases.csv').write_text('name,patient\n' + '\n'.join(rows) + '\n')
  return names


def volume_config(directory: str | pathlib.Path, **fields) -> dict:
  """config.data of a folder of `write_volumes` as a plain dict."""
  return data_config(directory, **{**dict(
      classes=('background', 'lamina'), image_size=(12, 8, 6), patch_size=(12, 8, 6),
      patch_stride=(0, 0, 0), top_layer='interface', column_width=60.0, labels='cubes', axes=''),
      **fields})


def write_split(path: str | pathlib.Path, **sets: Sequence[str]) -> str:
  """Writes a split file of train=[...], validation=[...], test=[...]; returns its path."""
  pathlib.Path(path).write_text(json.dumps(sets))
  return str(path)


def data_config(directory: str | pathlib.Path, **fields) -> dict:
  """config.data of a folder of `write_folder` as a plain dict; X-rays add labels and border."""
  return dict(dict(
      name='folder', directory=str(directory), classes=('background', 'a', 'b', 'c'), label_map=(),
      palette='', channels=1, image_size=(64, 32), patch_size=(32, 32), patch_stride=(16, 32),
      num_train=0, num_validation=0, num_test=0, split_file='', split_seed=0, difficulty=1.0,
      render_size=(128, 32), mean=(0.0,), std=(0.0,), preparation=('rescale',), cache='auto'),
      **fields)
