"""Connected components on the device: fixed shapes, no callback, no limit on their number."""
import functools
import itertools
import math

import jax
from jax import lax
import jax.numpy as jnp

Array = jax.Array


def label_components(mask: Array, *, connectivity: str = 'face') -> Array:
  """Root of every foreground pixel's component: the smallest flat index in it.

  Every pixel points to a pixel of its component that is no later than itself. In turns the smallest
  pointer among a pixel and its neighbors is hooked onto the pixel it points to, and pointers are
  followed twice, until none changes: about log(path length) turns, 8 on a spiral of 128x128.

  Args:
    mask: bool [*S], any number of axes.
    connectivity: 'face' (4 neighbors in two dimensions, 6 in three) or 'full' (8, 26).

  Returns:
    int32 [*S]; background has mask.size. Two pixels have the same root where, and only where,
    `scipy.ndimage.label` gives them the same label.

  Raises:
    ValueError: another connectivity.
  """
  if connectivity not in ('face', 'full'):
    raise ValueError(f"connectivity must be 'face' or 'full', not {connectivity!r}.")
  size = mask.size
  if not size:
    return jnp.zeros(mask.shape, jnp.int32)
  offsets = [offset for offset in itertools.product((-1, 0, 1), repeat=mask.ndim)
             if any(offset) and (connectivity == 'full' or sum(map(abs, offset)) == 1)]

  def turn(state):
    pointers, _ = state
    grid = pointers[:-1].reshape(mask.shape)
    lowest = functools.reduce(jnp.minimum, [shift(grid, offset, size) for offset in offsets], grid)
    lowest = jnp.where(mask, lowest, size).ravel()
    hooked = pointers.at[pointers[:-1]].min(lowest)
    followed = hooked[hooked[hooked]]
    return followed, jnp.any(followed != pointers)

  start = jnp.where(mask.ravel(), jnp.arange(size, dtype=jnp.int32), size)
  start = jnp.append(start, jnp.int32(size))  # what the background points to
  roots, _ = lax.while_loop(lambda state: state[1], turn, (start, jnp.bool_(True)))
  return roots[:-1].reshape(mask.shape)


def shift(x: Array, offset: tuple[int, ...], fill) -> Array:
  """x at p + offset for every pixel p; `fill` where that is outside."""
  config = [(-step, step, 0) for step in offset]
  return lax.pad(x, jnp.asarray(fill, x.dtype), config)


def grow_components(roots: Array, radius: int) -> Array:
  """Gives background within `radius` pixels (Euclidean) of a component its nearest root.

  Of components equally near the one with the smallest root takes the pixel.

  Args:
    roots: int32 [*S] of `label_components`.
    radius: in pixels; 0 returns `roots`.
  """
  size = roots.size
  steps = range(-radius, radius + 1)
  shells: dict[int, list[tuple[int, ...]]] = {}
  for offset in itertools.product(steps, repeat=roots.ndim):
    square = sum(step * step for step in offset)
    if 0 < square <= radius * radius:
      shells.setdefault(square, []).append(offset)
  grown = roots
  for _, offsets in sorted(shells.items()):
    nearest = functools.reduce(jnp.minimum, [shift(roots, offset, size) for offset in offsets])
    grown = jnp.where(grown == size, nearest, grown)
  return grown


def sums_by_root(values: Array, roots: Array) -> Array:
  """Sums of values [*S,...] over the pixels of each root: [size,...], row r for the root r."""
  size = roots.size
  flat = values.reshape(size, *values.shape[roots.ndim:])
  return jax.ops.segment_sum(flat, roots.ravel(), size + 1)[:-1]


def centroids(roots: Array) -> tuple[Array, Array]:
  """Centroid of every component in pixels: float32 [size,d] and bool [size], true at its root.

  The centroid of a component stands in the row of its root; other rows are undefined.
  """
  places = grid(roots.shape)
  counts = sums_by_root(jnp.ones(roots.shape, jnp.float32), roots)
  totals = sums_by_root(places, roots)
  return totals / jnp.maximum(counts, 1)[:, None], counts > 0


def grid(shape: tuple[int, ...]) -> Array:
  """Coordinates of every pixel, float32 [*shape,d]."""
  return jnp.stack(jnp.meshgrid(*(jnp.arange(n, dtype=jnp.float32) for n in shape),
                                indexing='ij'), -1)


def diagonal(shape: tuple[int, ...]) -> float:
  """Length of the diagonal of a grid in pixels."""
  return math.sqrt(sum(n * n for n in shape))
