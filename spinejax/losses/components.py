"""Connected components on the device, with fixed shapes and for any number of components."""
import functools
import itertools
from typing import Literal

import jax
from jax import lax
import jax.numpy as jnp

from spinejax.losses import objective

Array = jax.Array
Connectivity = Literal['face', 'full']


def label_components(mask: Array, *, connectivity: Connectivity = 'face') -> Array:
  """Labels every foreground pixel with its component's root, the smallest flat index in it.

  Every pixel keeps a pointer to a pixel of its component with a smaller or equal index. Each
  iteration takes the smallest pointer among a pixel and its neighbors, assigns it to the pixel that
  this pixel points to, and then follows all pointers twice. Iteration stops when no pointer
  changes, after about log(path length) iterations: 8 for a spiral of 128x128 pixels.

  Takes bool [*S] and returns int32 [*S]; background is mask.size. Two pixels have the same root if
  and only if `scipy.ndimage.label` gives them the same label. `connectivity` is 'face' (4 neighbors
  in two dimensions, 6 in three) or 'full' (8, 26); ValueError on another one.
  """
  objective.check_choice('connectivity', connectivity, Connectivity)
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
  start = jnp.append(start, jnp.int32(size))  # the background points to this entry
  roots, _ = lax.while_loop(lambda state: state[1], turn, (start, jnp.bool_(True)))
  return roots[:-1].reshape(mask.shape)


def shift(x: Array, offset: tuple[int, ...], fill) -> Array:
  """The value of x at p + offset for every pixel p, or `fill` outside of x."""
  config = [(-step, step, 0) for step in offset]
  return lax.pad(x, jnp.asarray(fill, x.dtype), config)


def grow_components(roots: Array, radius: int) -> Array:
  """Extends every component to the background pixels within `radius` of it.

  Takes and returns roots of `label_components`. A pixel goes to the nearest component (Euclidean),
  at equal distances to the smallest root.
  """
  size = roots.size
  shells: dict[int, list[tuple[int, ...]]] = {}  # offsets by squared distance
  for offset in itertools.product(range(-radius, radius + 1), repeat=roots.ndim):
    square = sum(step * step for step in offset)
    if 0 < square <= radius * radius:
      shells.setdefault(square, []).append(offset)
  grown = roots
  for _, offsets in sorted(shells.items()):
    nearest = functools.reduce(jnp.minimum, [shift(roots, offset, size) for offset in offsets])
    grown = jnp.where(grown == size, nearest, grown)
  return grown


def sums_by_root(values: Array, roots: Array) -> Array:
  """Sums of values [*S, ...] over each component: [size, ...], with row r for root r."""
  size = roots.size
  flat = values.reshape(size, *values.shape[roots.ndim:])
  return jax.ops.segment_sum(flat, roots.ravel(), size + 1)[:-1]


def centroids(roots: Array) -> tuple[Array, Array]:
  """Centroids [size, d] in pixels, with row r for root r, and bool [size]: where there is one."""
  counts = sums_by_root(jnp.ones(roots.shape, jnp.float32), roots)
  totals = sums_by_root(grid(roots.shape), roots)
  return totals / jnp.maximum(counts, 1)[:, None], counts > 0


def grid(shape: tuple[int, ...]) -> Array:
  """Coordinates of every pixel, float32 [*shape, d]."""
  return jnp.stack(jnp.meshgrid(*(jnp.arange(n, dtype=jnp.float32) for n in shape),
                                indexing='ij'), -1)
