"""Random crops, flips and affine maps of image, label, cells and landmarks, on the device."""
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy import ndimage

Example = dict[str, jax.Array]

_ARRAYS = ('image', 'label', 'cells')


def normalize(image: jax.Array, mean: float | Sequence[float], std: float | Sequence[float]
              ) -> jax.Array:
  """(image - mean) / max(std, 1e-6) in float32, of an image [...,C] in gray levels.

  `mean` and `std` are numbers, or have one entry, or one per channel.
  """
  mean, std = (jnp.asarray(value, jnp.float32).reshape((1,) * (image.ndim - 1) + (-1,))
               for value in (mean, std))
  return (image.astype(jnp.float32) - mean) / jnp.maximum(std, 1e-6)


def augment(key: jax.Array, batch: Example, config: Mapping[str, Any], patch_size: Sequence[int]
            ) -> Example:
  """Cuts a random patch out of every example: x_in = A (x - c) + c + corner - shift.

  x is a pixel of the patch, c its center, and A = R F / zoom with a rotation R and flips F. Crop,
  flips, rotation, scale and translation are one resampling, linear for the image and nearest for
  the label and the cells, with 0 (background) outside of the image. Pixels around the patch move
  into it. Without rotation, scale and translation pixels are copied. What an example gets depends
  only on `key` and its slot, so the numbers of devices and processes do not change a batch.

  Args:
    key: of the step.
    batch: image [N,H,W,C] in gray levels; label [N,H,W]; optionally cells [N,H,W,K-1] (see
      `examples.component_cells`); landmarks float32 [N,P,2], pixel coordinates (row, column) with
      pixel centers at whole numbers; position int32 [N,2], first pixel of the patch, drawn
      uniformly if absent; slot int32 [N], place of the example in the global batch, 0..N-1 if
      absent. In three dimensions [N,D,H,W,C] and so on. Other entries do not change.
    config: config.augment: flip_horizontal and flip_vertical, probabilities (axes 1 and 0 of the
      image); rotation, degrees in both directions, in every plane; translation, fraction of the
      patch in both directions; scale, (low, high) magnification.
    patch_size: (h, w), at most the size of the image.

  Returns:
    The batch without position and slot: image float32 [N,h,w,C]; label int32 [N,h,w]; cells
    [N,h,w,K-1]; landmarks [N,P,2] in pixels of the patch, also those outside of it.
  """
  batch = dict(batch)
  slot = batch.pop('slot', jnp.arange(len(batch['image']), dtype=jnp.int32))
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, slot)
  moved: Example = {name: batch.pop(name) for name in (*_ARRAYS, 'landmarks', 'position')
                    if name in batch}
  patch = functools.partial(_cut_patch, config=config, patch_size=tuple(patch_size))
  return {**batch, **jax.vmap(patch)(keys, moved)}


def _cut_patch(key: jax.Array, example: Example, config: Mapping[str, Any],
               patch_size: tuple[int, ...]) -> Example:
  """`augment` of one example; arrays have no leading axis."""
  size = example['image'].shape[:-1]
  dims = len(size)
  crop_key, flip_key, rotation_key, shift_key, zoom_key = jax.random.split(key, 5)
  room = jnp.array(size, jnp.int32) - jnp.array(patch_size, jnp.int32)
  corner = example.get('position', jax.random.randint(crop_key, (dims,), 0, room + 1))
  chance = jnp.array([config['flip_vertical'], config['flip_horizontal']] + [0.0] * (dims - 2))
  flipped = jax.random.uniform(flip_key, (dims,)) < chance
  rotation = _rotation(jnp.deg2rad(config['rotation']) * jax.random.uniform(
      rotation_key, (dims * (dims - 1) // 2,), minval=-1.0))
  shift = config['translation'] * jax.random.uniform(shift_key, (dims,), minval=-1.0)
  low, high = config['scale']
  zoom = jax.random.uniform(zoom_key, minval=low, maxval=high)

  extent = jnp.array(patch_size, jnp.float32)
  center = (extent - 1) / 2
  matrix = rotation * jnp.where(flipped, -1.0, 1.0)[None] / zoom
  offset = center + corner.astype(jnp.float32) - shift * extent
  if config['rotation'] == 0 and config['translation'] == 0 and low == high == 1:
    result = {name: _copy(example[name], corner, flipped, patch_size)
              for name in _ARRAYS if name in example}
  else:
    axes = [jnp.arange(n, dtype=jnp.float32) - center[k] for k, n in enumerate(patch_size)]
    relative = jnp.meshgrid(*axes, indexing='ij', sparse=True)
    coordinates = [sum((matrix[i, j] * relative[j] for j in range(dims)), offset[i])
                   for i in range(dims)]
    result = {name: _resample(example[name], coordinates, order=int(name == 'image'))
              for name in _ARRAYS if name in example}
  result['image'] = result['image'].astype(jnp.float32)
  result['label'] = result['label'].astype(jnp.int32)
  if 'landmarks' in example:
    inverse = matrix.T * zoom**2  # R F is orthogonal
    moved = example['landmarks'] - offset[None]
    result['landmarks'] = jnp.sum(inverse[None] * moved[:, None], -1) + center[None]
  return result


def _rotation(angles: jax.Array) -> jax.Array:
  """Product of the rotations by angles [d (d-1) / 2] in the planes of every two axes: [d,d]."""
  dims = 2 if len(angles) == 1 else 3
  rotation = jnp.eye(dims)
  for angle, (i, j) in zip(angles, itertools.combinations(range(dims), 2)):
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    plane = jnp.eye(dims).at[i, i].set(cos).at[j, j].set(cos).at[i, j].set(-sin).at[j, i].set(sin)
    rotation = rotation @ plane
  return rotation


def _resample(array: jax.Array, coordinates: list[jax.Array], order: int) -> jax.Array:
  """Values of [*size] or [*size,C] at the coordinates, 0 outside; keeps the dtype at order 0."""
  sample = functools.partial(
      ndimage.map_coordinates, coordinates=coordinates, order=order, mode='constant')
  for _ in range(array.ndim - len(coordinates)):
    sample = jax.vmap(sample, -1, -1)
  values = sample(array.astype(jnp.float32))
  return values if order else values.astype(array.dtype)


def _copy(array: jax.Array, corner: jax.Array, flipped: jax.Array, patch_size: tuple[int, ...]
          ) -> jax.Array:
  """The patch of [*size] or [*size,C] at `corner`, reversed along the flipped axes."""
  rest = array.shape[len(patch_size):]
  patch = jax.lax.dynamic_slice(array, [*corner, *(jnp.int32(0) for _ in rest)],
                                (*patch_size, *rest))
  for axis in range(len(patch_size)):
    patch = jnp.where(flipped[axis], jnp.flip(patch, axis), patch)
  return patch
