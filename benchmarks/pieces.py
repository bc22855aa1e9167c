"""Parts without a PyTorch counterpart: input pipeline, losses, components, phantoms, prediction."""
import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
from PIL import Image
from scipy import ndimage

from benchmarks import layer_forms
from benchmarks import spinejax_side
from benchmarks import systems
from benchmarks.compiled import jitted, queued
from benchmarks.programs import Ops, Program
from spinejax import phantoms
from spinejax import steps
from spinejax.configs import common
from spinejax.data import augment
from spinejax.data import batches
from spinejax.data import datasets
from spinejax.inference import load
from spinejax.inference import predict
from spinejax.losses import centroid
from spinejax.losses import components
from spinejax.losses import dice

Shape = tuple[int, ...]

_NUM_CASES = 8  # files of the input pipeline
_BATCH = {'tiny': 2, 'quick': 4, 'paper': 12}
_IMAGE: dict[str, Shape] = {'tiny': (64, 32), 'quick': (512, 128), 'paper': (1024, 256)}
_PATCH: dict[str, Shape] = {'tiny': (32, 32), 'quick': (256, 128), 'paper': (512, 256)}
_VOLUME: dict[str, Shape] = {
    'tiny': (48, 16, 8), 'quick': (192, 48, 24), 'paper': (384, 96, 48)}
_XRAY: dict[str, Shape] = {'tiny': (200, 75), 'quick': (400, 150), 'paper': (1200, 450)}


@dataclasses.dataclass(frozen=True)
class Piece:
  """Programs to compare.

  Attributes:
    programs: by name; the first is ours.
    items: images, batches or volumes per call.
    distance: between the results of the first two programs; None if they differ by nature.
    tolerance: largest distance allowed.
  """
  programs: dict[str, Program]
  items: int = 1
  distance: float | None = None
  tolerance: float = 0.0


def build(piece: str, size: str, folder: str):
  """Operation: builds a piece of `systems.PIECES`. `folder` is an empty folder for its files."""
  built = _BUILDERS[piece](size, pathlib.Path(folder))
  return ({'names': list(built.programs), 'items': built.items, 'distance': built.distance,
           'tolerance': built.tolerance}, built.programs)


def _config(size: str, folder: pathlib.Path, cache: str) -> ConfigDict:
  return common.create_config(common.ultrasound(), {
      'batch_size': _BATCH[size], 'data.name': 'folder', 'data.directory': str(folder),
      'data.image_size': _IMAGE[size], 'data.patch_size': _PATCH[size], 'data.cache': cache,
      'data.num_train': float(_NUM_CASES), 'data.num_test': 0.0,
      'augment.flip_vertical': 0.5, 'augment.rotation': 10.0, 'augment.translation': 0.05,
      'augment.scale': (0.9, 1.1)})


def _input_pipeline(size: str, folder: pathlib.Path, cache: str) -> Piece:
  """Batches from PNG files of 1.5 times the network's image size, augmented on the device."""
  shape = tuple(n * 3 // 2 for n in _IMAGE[size])
  for kind in ('images', 'masks'):
    (folder / kind).mkdir()
  for seed in range(_NUM_CASES):
    case = phantoms.vpi(seed, shape)
    for kind, array in (('images', case.image), ('masks', case.label)):
      Image.fromarray(array).save(folder / kind / f'{seed}.png')
  config = _config(size, folder, cache)
  feed = batches.create_feed(datasets.load_dataset(config.data)['train'], config)
  key = jax.random.key(0)

  @jax.jit
  def finish(key, batch):
    batch = augment.augment(key, batch, config.augment, _PATCH[size])
    return {**batch, 'image': augment.normalize(batch['image'], feed.mean, feed.std)}

  count = itertools.count()

  def call():
    step = next(count)
    return finish(jax.random.fold_in(key, step), feed.batch_at(step))

  jax.block_until_ready(call())
  return Piece({'spinejax': queued(call)}, _BATCH[size])


def _centroid_loss(size: str, folder: pathlib.Path) -> Piece:
  """Value and gradient of the centroid loss and of Dice, for laminae that are partly found."""
  del folder
  case = phantoms.volume(0, _VOLUME[size])
  target = jnp.asarray(case.label[None] > 0, jnp.float32)
  noise = jax.random.uniform(jax.random.key(0), target.shape, jnp.float32)
  probs = jnp.clip(0.8 * jnp.roll(target, 1, 1) + 0.3 * noise, 0.0, 1.0)

  def centroid_loss(probs):
    return jnp.mean(centroid.centroid_dice(probs, target)[0])

  def dice_loss(probs):
    return jnp.mean(dice.dice(probs[..., None], target[..., None]))

  losses = {'centroid': centroid_loss, 'dice': dice_loss}
  return Piece({name: jitted(jax.value_and_grad(loss), probs)[0] for name, loss in losses.items()})


def _components(size: str, folder: pathlib.Path) -> Piece:
  """Components of random specks in a lamina's projection, on the device and by SciPy."""
  del folder
  mask = np.random.default_rng(0).random(_VOLUME[size][:2]) < 0.35
  roots = np.asarray(jax.jit(components.label_components)(mask))
  labels, count = ndimage.label(mask)
  pairs = len(set(zip(roots[mask].tolist(), labels[mask].tolist())))
  distance = abs(pairs - count) + abs(len(np.unique(roots[mask])) - count)
  return Piece({'spinejax': jitted(components.label_components, mask)[0],
                'scipy': Program(lambda: ndimage.label(mask))}, distance=float(distance))


def _phantom(size: str, folder: pathlib.Path, draw: Callable, shapes: Mapping[str, Sequence[int]]
             ) -> Piece:
  del folder
  seeds = itertools.count()
  return Piece({'spinejax': Program(lambda: draw(next(seeds), shapes[size]))})


def _prediction(size: str, folder: pathlib.Path, system: str) -> Piece:
  """One image from gray levels to mask and probabilities at its size."""
  del folder
  shape = _IMAGE[size]
  model = spinejax_side.create_network(system, size, 'float32')
  mesh = steps.create_mesh(1, shape)
  variables: Any = steps.place(
      spinejax_side.load_variables(model, (1, *shape, 1), None), steps.replicated(mesh))
  normalize_fn = functools.partial(augment.normalize, mean=(75.99,), std=(84.15,))
  step = steps.parallelize_eval_step(functools.partial(
      steps.predict_step, model=model, mesh=mesh, normalize_fn=normalize_fn), mesh)
  config = common.create_config(common.ultrasound(), {'data.image_size': shape})
  predictor = load.Predictor(config, info={}, step=0, batch_size=1,
                             logits=lambda images: jax.device_get(step(variables, images)))
  image = phantoms.vpi(0, shape).image[..., None]

  def call():
    return list(predict.predict_images(predictor, [image]))

  call()
  return Piece({'spinejax': Program(call)})


def _layer(size: str, folder: pathlib.Path, name: str) -> Piece:
  """A layer and its native form, of the same shape in 'quick' and 'paper'."""
  del folder
  programs, distance = layer_forms.build(name, shrink=8 if size == 'tiny' else 1)
  return Piece(programs, distance=distance, tolerance=layer_forms.TOLERANCE)


_BUILDERS: dict[str, Callable[[str, pathlib.Path], Piece]] = {
    'input_device': functools.partial(_input_pipeline, cache='device'),
    'input_stream': functools.partial(_input_pipeline, cache='stream'),
    'centroid_loss': _centroid_loss,
    'components': _components,
    'phantom_vpi': functools.partial(_phantom, draw=phantoms.vpi, shapes=_IMAGE),
    'phantom_volume': functools.partial(_phantom, draw=phantoms.volume, shapes=_VOLUME),
    'phantom_xray': functools.partial(_phantom, draw=phantoms.xray, shapes=_XRAY),
    'predict_unet': functools.partial(_prediction, system='unet'),
    'predict_seam': functools.partial(_prediction, system='seam'),
    **{name: functools.partial(_layer, name=name) for name in layer_forms.LAYERS},
}
assert set(_BUILDERS) == set(systems.PIECES)
OPS: Ops = {'build_piece': build}
