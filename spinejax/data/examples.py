"""From records and images of any size to arrays of the network's size."""
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from spinejax.data import resize
from spinejax.readers.records import Record

Config = Mapping[str, Any]
Arrays = dict[str, np.ndarray]

STEPS = ('rescale', 'rescale_nearest', 'fit', 'z_score')  # of images
MAX_COMPONENTS = 255  # of a class; cells are uint8


def prepare_case(record: Record, config: Config, cells: bool = False) -> Arrays:
  """Brings a record to the size of the network by config.data.

  Returns image [*image_size,C] of `prepare_image`. A record with a label has label uint8
  [*image_size] of `prepare_label` too and, if asked for, cells uint8 [*image_size,K-1] of
  `component_cells` at the new size.
  """
  case = dict(image=prepare_image(record.image, config))
  if record.label is not None:
    case['label'] = prepare_label(record.label, config)
    if cells:
      case['cells'] = component_cells(case['label'], len(config['classes']))
  return case


def prepare_image(image: np.ndarray, config: Config) -> np.ndarray:
  """An image [*S,C] at the network's size, by the steps of config.data.preparation.

  'rescale' resizes it to image_size, linearly and with antialiasing where it shrinks.
  'rescale_nearest' takes the nearest pixel. 'fit' is 'rescale' with the aspect ratio kept and zeros
  after the last row or column. These steps keep the dtype. 'z_score' then gives float32 of mean 0
  and standard deviation 1 (0 for a constant image), with zeros around a fitted image. Steps that
  crop volumes are applied when their records are read, see `preparation`.

  Raises:
    ValueError: see `network_size`.
  """
  steps, size = config['preparation'], network_size(image.shape[:-1], config)
  if 'rescale_nearest' in steps:
    image = resize.resize_nearest(image, size)
  else:
    image = resize.resize_bilinear(image, size, antialias=True)
  if 'z_score' in steps:
    image = image.astype(np.float32)
    image = (image - image.mean()) / np.maximum(image.std(), np.float32(1e-6))
  return _fill(image, config)


def prepare_label(label: np.ndarray, config: Config) -> np.ndarray:
  """A label [*S] where `prepare_image` puts its image, to the nearest pixel; background around."""
  return _fill(resize.resize_nearest(label, network_size(label.shape, config)), config)


def network_size(size: Sequence[int], config: Config) -> tuple[int, ...]:
  """Pixels that an image of `size` takes at the network: image_size, or less after a 'fit'.

  Raises:
    ValueError: another size than image_size, and no step that rescales.
  """
  steps, whole = config['preparation'], tuple(config['image_size'])
  if 'fit' in steps:
    factor = min(new / old for new, old in zip(whole, size))
    return tuple(min(max(round(factor * old), 1), new) for new, old in zip(whole, size))
  if not {'rescale', 'rescale_nearest'} & set(steps) and tuple(size) != whole:
    raise ValueError(f"an image of {tuple(size)} pixels does not fit data.image_size {whole}; "
                     "add 'rescale' to data.preparation.")
  return whole


def _fill(array: np.ndarray, config: Config) -> np.ndarray:
  """Adds zeros after the last row and column up to the network's size."""
  missing = [new - old for new, old in zip(config['image_size'], array.shape)]
  return np.pad(array, [(0, n) for n in missing] + [(0, 0)] * (array.ndim - len(missing)))


def component_cells(label: np.ndarray, num_classes: int) -> np.ndarray:
  """The nearest component of each class at every pixel: R_m of SEAM (Zhao et al., 2021, eq. 7).

  Components are connected over faces, edges and corners (8 neighbors in two dimensions) and
  numbered from 1 in scan order. Nearest is by Euclidean distance in pixels. Component m of class n
  is `(label == n) & (cells[..., n - 1] == m)`. If a class has more than 255 components, the
  smallest ones get no number and their pixels belong to the nearest numbered one.

  `label` holds integers [...] of two or more dimensions, and K = `num_classes` counts the
  background. Returns uint8 [...,K-1]; cells[..., n - 1] is 0 everywhere if class n is absent.
  """
  label = np.asarray(label)
  cells = np.zeros((*label.shape, num_classes - 1), np.uint8)
  for n in range(1, num_classes):
    components, count = ndimage.label(label == n, np.ones((3,) * label.ndim))
    if count > MAX_COMPONENTS:
      sizes = np.bincount(components.reshape(-1))
      largest = 1 + np.argsort(-sizes[1:], kind='stable')[:MAX_COMPONENTS]
      number = np.zeros(count + 1, components.dtype)
      number[np.sort(largest)] = np.arange(1, MAX_COMPONENTS + 1)
      components = number[components]
    if count:
      nearest = ndimage.distance_transform_edt(
          components == 0, return_distances=False, return_indices=True)
      cells[..., n - 1] = components[tuple(nearest)]
  return cells


def image_batches(images: Iterable[np.ndarray], config: Config, batch_size: int
                  ) -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
  """Batches of images [*S,C] of any sizes.

  Yields the original images of a batch, and float32 [batch_size,*image_size,C] of `prepare_image`.
  The last batch is filled up with copies of its first image.
  """
  images = iter(images)
  while chunk := list(itertools.islice(images, batch_size)):
    batch = np.stack([prepare_image(image, config) for image in chunk])
    filling = np.repeat(batch[:1], batch_size - len(batch), 0)
    yield chunk, np.concatenate([batch, filling]).astype(np.float32)
