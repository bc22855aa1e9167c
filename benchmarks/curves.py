"""Programs whose work grows with one quantity: a builder for each curve of `growth`."""
import functools
import math
import tracemalloc
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import spinejax_side
from benchmarks.compiled import jitted
from benchmarks.programs import Ops, Program
from spinejax import losses
from spinejax import phantoms
from spinejax import steps
from spinejax.data import examples
from spinejax.losses import centroid
from spinejax.losses import components
from spinejax.measurement import laminae
from spinejax.metrics import segmentation
from spinejax.models import create_model

Point = tuple[Program, int]  # a program and the bytes it needs

_UNET = dict(name='unet', features=8, levels=1)
_UNET_3D = dict(_UNET, upsample='nearest', negative_slope=0.01)
_SEAM = dict(name='seam', backbone='resnet50_v1c', backbone_width=16, neck_features=32,
             head_features=16, query_features=8, dropout=0.0)
_VOLUME = (160, 32, 24)


def build_point(curve: str, value: int):
  """Operation: builds the program of a curve for a value of its quantity; replies its `bytes`."""
  built, num_bytes = BUILDERS[curve](value)
  return {'bytes': num_bytes}, {'': built}


def _step(model: nn.Module, shape: tuple[int, ...], num_classes: int = 2) -> Point:
  """A training step on images [N, *S, C], on one device so that its memory is the program's."""
  rng = np.random.default_rng(0)
  mesh = steps.create_mesh(shape[0], shape[1:-1], jax.devices()[:1])
  batch = dict(image=rng.standard_normal(shape, np.float32),
               label=rng.integers(0, num_classes, shape[:-1]).astype(np.int32))
  variables = spinejax_side.load_variables(model, shape, None)
  built, _, num_bytes, _ = spinejax_side.train(
      model, variables, steps.place(batch, steps.batched(mesh)), mesh, None)
  return built, num_bytes


def _network_step(fields: dict[str, Any], shape: tuple[int, ...], num_classes: int) -> Point:
  model = create_model({**fields, 'num_classes': num_classes, 'dtype': 'float32'})
  return _step(model, shape, max(num_classes, 2))


def _attention_step(kind: str, positions: int) -> Point:
  shape = (1, *_sides(positions, 2), 32)
  return _step(spinejax_side.Attention(kind, query_features=8), shape)


def _sides(pixels: int, rank: int) -> tuple[int, ...]:
  """Sides of a grid of so many pixels: equal, or powers of 2 that differ by a factor of 2 at most.
  """
  side = round(pixels ** (1 / rank))
  if side ** rank == pixels:
    return (side,) * rank
  power = pixels.bit_length() - 1
  return tuple(2 ** ((power + axis) // rank) for axis in reversed(range(rank)))


def _counts(num_classes: int) -> Point:
  rng = np.random.default_rng(0)
  label, prediction = rng.integers(0, num_classes, (2, 4, 256, 256)).astype(np.int32)
  counts = functools.partial(segmentation.confusion_counts, num_classes=num_classes)
  return jitted(counts, prediction, label)


def _seam_loss(num_classes: int) -> Point:
  """Value and gradient of SEAM's loss for squares of 32x32 pixels in alternating classes."""
  rng = np.random.default_rng(0)
  square = np.arange(64).reshape(8, 8) % num_classes
  label = np.kron(square, np.ones((32, 32), int)).astype(np.int32)[None]
  batch = dict(label=label, cells=examples.component_cells(label[0], num_classes)[None])
  outputs = {name: rng.standard_normal((1, size, size, num_classes), np.float32)
             for name, size in (('logits', 256), ('key_logits', 64))}

  def loss(outputs, batch):
    return jnp.mean(losses.LOSSES['seam'](outputs, batch)[0])

  return jitted(jax.value_and_grad(loss), outputs, batch)


def _boxes(count: int) -> np.ndarray:
  """A volume bool [1, *_VOLUME] with so many cubes of 3x3x3 voxels in two columns."""
  volume = np.zeros((1, *_VOLUME), bool)
  for i in range(count):
    row, column = 4 * (i // 2), 8 + 12 * (i % 2)
    volume[0, row:row + 3, column:column + 3, 10:13] = True
  return volume


def _centroid_loss(count: int) -> Point:
  """Value and gradient of the centroid loss for laminae that are all found one voxel too low."""
  target = _boxes(count).astype(np.float32)
  probs = 0.9 * np.roll(target, 1, 1) + np.float32(0.05)

  def loss(probs, target):
    return jnp.mean(centroid.centroid_dice(probs, target)[0])

  return jitted(jax.value_and_grad(loss), probs, target)


def _measurement(count: int) -> Point:
  """Measurement on the host of the 34 laminae of a phantom, then of false ones among them."""
  case = phantoms.volume(0, (48, 16, 8))
  true, rng = case.landmarks, np.random.default_rng(0)
  false = rng.uniform(true.min(0), true.max(0), (max(count - len(true), 0), 3))
  points = np.concatenate([true, false])[:count]
  measure = functools.partial(laminae.measure_laminae, points, case.truth.spacing)
  tracemalloc.start()
  measure()
  _, num_bytes = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  return Program(measure), num_bytes


def _components(mask: np.ndarray) -> Point:
  return jitted(components.label_components, mask)


def spiral(size: int, turns: int) -> np.ndarray:
  """A mask bool [size, size] of one path of one pixel that winds inwards; turns <= size / 4."""
  mask, pitch = np.zeros((size, size), bool), size // (2 * turns)
  for first in range(0, turns * pitch, pitch):
    last = size - 1 - first
    mask[first, max(first - pitch, 0):last + 1] = True
    mask[first:last + 1, last] = True
    mask[last, first:last + 1] = True
    mask[first + pitch:last + 1, first] = True
  return mask


BUILDERS: dict[str, Callable[[int], Point]] = {
    'unet_pixels': lambda n: _network_step(_UNET, (1, *_sides(n, 2), 1), 2),
    'seam_pixels': lambda n: _network_step(_SEAM, (1, *_sides(n, 2), 1), 4),
    'unet_3d_voxels': lambda n: _network_step(_UNET_3D, (1, *_sides(n, 3), 1), 1),
    'components_pixels': lambda n: _components(spiral(math.isqrt(n), math.isqrt(n) // 4)),
    'unet_batch': lambda n: _network_step(_UNET, (n, 64, 64, 1), 2),
    'unet_classes': lambda n: _network_step(_UNET, (1, 128, 128, 1), n),
    'counts_classes': _counts,
    'seam_loss_classes': _seam_loss,
    'centroid_laminae': _centroid_loss,
    'components_laminae': lambda n: _components(_boxes(n)[0]),
    'measure_laminae': _measurement,
    'criss_cross': functools.partial(_attention_step, 'criss_cross'),
    'position': functools.partial(_attention_step, 'position'),
    'channel': functools.partial(_attention_step, 'channel'),
    'components_winding': lambda n: _components(spiral(256, n)),
}
OPS: Ops = {'build_point': build_point}
