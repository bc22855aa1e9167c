"""Shows what the surrogate gradient of the centroid loss does: six blobs beside their laminae.

  python -m benchmarks.centroid_toy --output=toy.png

Blobs with free centers start 7 voxels from their laminae and move by Adam on the Dice loss, on the
centroid loss with its published gradient, and on the centroid loss with the straight-through
surrogate. At first prediction and truth do not overlap, so the first two do not move. The figure
shows the mean distance over the steps and the paths of the blobs in the coronal projection.
"""
from collections.abc import Mapping

from absl import flags
import jax
import jax.numpy as jnp
from matplotlib.figure import Figure
import numpy as np
import optax

from spinejax import colors
from spinejax import devices
from spinejax.commands import cli
from spinejax.losses import centroid
from spinejax.losses import components
from spinejax.report import style

SHAPE = (48, 32, 16)
CENTERS = np.array([[8, 10, 8], [8, 22, 8], [24, 9, 7], [24, 21, 7], [40, 11, 9], [40, 23, 9]],
                   np.float32)
LOSSES = {'dice': 'Dice', 'published': 'centroid, as published',
          'straight_through': 'centroid, straight-through'}


def blobs(centers: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Probabilities float32 [*shape]: the maximum of soft balls of radius 1.8 around centers [P, d].
  """
  offsets = components.grid(shape)[None] - jnp.expand_dims(centers, range(1, len(shape) + 1))
  return jnp.max(jax.nn.sigmoid(3.2 - jnp.sum(jnp.square(offsets), -1)), 0)


def laminae() -> np.ndarray:
  """The truth float32 [1, *SHAPE]: a cube of 3x3x3 voxels around each of CENTERS."""
  target = np.zeros((1, *SHAPE), np.float32)
  for z, y, x in CENTERS.astype(int):
    target[0, z - 1:z + 2, y - 1:y + 2, x - 1:x + 2] = 1
  return target


def start(seed: int = 3, distance: float = 7.0) -> np.ndarray:
  """Centers at a distance in voxels from the true ones, in random directions, less along the depth.

  With seed 3 every lamina has a nearest blob of its own. With seed 1 two laminae share one: eq. 2
  then moves it between them and leaves another blob alone, with any gradient.
  """
  offset = np.random.default_rng(seed).normal(size=CENTERS.shape) * [1, 1, 0.4]
  offset = distance * offset / np.linalg.norm(offset, axis=1, keepdims=True)
  return (CENTERS + offset).astype(np.float32)


def descend(loss: str, centers: np.ndarray, steps: int, rate: float = 0.1) -> np.ndarray:
  """Centers float32 [steps + 1, P, 3] after each step of Adam on a loss of LOSSES."""
  target, tx = jnp.asarray(laminae()), optax.adam(rate)

  def objective(centers):
    probs = blobs(centers, SHAPE)[None]
    gradient = 'published' if loss == 'dice' else loss
    total, parts = centroid.centroid_dice(probs, target, gradient=gradient, distance_floor=0.0)
    return (parts['dice'] if loss == 'dice' else total)[0]

  @jax.jit
  def step(centers, state):
    updates, state = tx.update(jax.grad(objective)(centers), state)
    return optax.apply_updates(centers, updates), state

  centers = jnp.asarray(centers)
  state, path = tx.init(centers), [centers]
  for _ in range(steps):
    centers, state = step(centers, state)
    path.append(centers)
  return np.stack(path)


def error(centers: np.ndarray) -> np.ndarray:
  """Mean distance to the true centers in voxels, [...] for centers [..., P, 3]."""
  return np.linalg.norm(centers - CENTERS, axis=-1).mean(-1)


def draw(paths: Mapping[str, np.ndarray]) -> Figure:
  """Mean distance over the steps, and the paths in the coronal projection.

  Args:
    paths: centers [steps + 1, P, 3] by name of the loss.
  """
  figure = Figure(figsize=(10, 4.2), layout='constrained')
  curve, *planes = figure.subplots(
      1, len(paths) + 1, gridspec_kw={'width_ratios': [2.2] + [1] * len(paths)})
  for index, (name, path) in enumerate(paths.items()):
    color = colors.class_color(index + 1)
    curve.plot(error(path), color=color, label=name, linewidth=2, linestyle=('-', '--')[index % 2])
    axis = planes[index]
    axis.imshow(laminae()[0].max(2), cmap='gray', vmin=0, vmax=2.5)
    axis.plot(path[:, :, 1], path[:, :, 0], color=color, linewidth=1.5)
    axis.plot(path[-1, :, 1], path[-1, :, 0], 'o', color=color, markersize=6)
    axis.set(title=name.replace(', ', ',\n'), xticks=[], yticks=[])
    axis.title.set_fontsize(style.FONT)
  style.finish_axes(curve, 'step', 'mean distance to the laminae, voxels', legend=True)
  curve.set_ylim(bottom=0)
  return figure


def main(argv) -> None:
  del argv
  devices.configure_jax()
  steps = flags.FLAGS.steps
  paths = {label: descend(loss, start(), steps) for loss, label in LOSSES.items()}
  draw(paths).savefig(flags.FLAGS.output)
  for name, path in paths.items():
    print(f'{name}: {error(path)[0]:.2f} voxels at first, {error(path)[-1]:.2f} after {steps} '
          'steps')
  print(f'Figure: {flags.FLAGS.output}')


if __name__ == '__main__':  # other modules import the functions without the flags
  flags.DEFINE_string('output', None, 'PNG, PDF or SVG file to write.', required=True)
  flags.DEFINE_integer('steps', 150, 'Steps of Adam.', lower_bound=1)
  cli.run(main)
