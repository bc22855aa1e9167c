"""What is measured without PyTorch: input pipeline, losses, components, phantoms, prediction."""
import functools
import itertools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np
from PIL import Image
from scipy import ndimage

from spinejax.inference import predictor as inference
from spinejax import steps
from benchmarks import layer_forms
from benchmarks import spinejax_side
from benchmarks import systems
from benchmarks.worker import Program
from spinejax.data import augment
from spinejax.data import batches
from spinejax.data import datasets
from spinejax import phantoms
from spinejax.losses import centroid
from spinejax.losses import components
from spinejax.losses import dice

_CASES = 8
_BATCH = {'tiny': 2, 'quick': 4, 'paper': 12}
_IMAGE = {'tiny': (64, 32), 'quick': (512, 128), 'paper': (1024, 256)}
_PATCH = {'tiny': (32, 32), 'quick': (256, 128), 'paper': (512, 256)}
_VOLUME = {'tiny': (48, 16, 8), 'quick': (192, 48, 24), 'paper': (384, 96, 48)}
_XRAY = {'tiny': (200, 75), 'quick': (400, 150), 'paper': (1200, 450)}


class Piece(NamedTuple):
  """Programs by name, the first ours and the second what it is held against; items of a call.

  `distance` says how far the results of the two are apart, of which `tolerance` is allowed; None
  where they differ by nature.
  """
  programs: dict[str, Program]
  items: int
  distance: float | None = None
  tolerance: float = 0.0


def build(piece: str, size: str, folder: str):
  """Builds a piece of `systems.PIECES`; `folder` is empty, for the files it reads."""
  built = _MAKERS[piece](size, pathlib.Path(folder))
  return ({'names': list(built.programs), 'items': built.items, 'distance': built.distance,
           'tolerance': built.tolerance}, built.programs)


def _config(size: str, folder: pathlib.Path, cache: str) -> ConfigDict:
  data = dict(
      name='folder', directory=str(folder), channels=1, label_map=(), palette='', labels='',
      border=0.02, axes='', classes=('background', 'rib', 'thoracic process', 'lump'),
      image_size=_IMAGE[size], patch_size=_PATCH[size], patch_stride=(0, 0), split_file='',
      split_seed=0, num_train=_CASES, num_validation=0, num_test=0, mean=(75.99,), std=(84.15,),
      preparation=('rescale',), cache=cache)
  flips = dict(flip_horizontal=0.5, flip_vertical=0.5, rotation=10.0, translation=0.05,
               scale=(0.9, 1.1))
  return ConfigDict(dict(seed=0, batch_size=_BATCH[size], data=data, augment=flips))


def _input_pipeline(size: str, folder: pathlib.Path, cache: str) -> Piece:
  """Batches from PNG files, half as large again as the network's images, augmented on the device.
  """
  shape = tuple(n * 3 // 2 for n in _IMAGE[size])
  for kind in ('images', 'masks'):
    (folder / kind).mkdir()
  for seed in range(_CASES):
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
  return Piece({'spinejax': spinejax_side.program(call)}, _BATCH[size])


def _centroid_loss(size: str, folder: pathlib.Path) -> Piece:
  """Value and gradient of the centroid loss against those of Dice, with laminae half found."""
  del folder
  case = phantoms.volume(0, _VOLUME[size])
  target = jnp.asarray(case.label[None] > 0, jnp.float32)
  noise = jax.random.uniform(jax.random.key(0), target.shape, jnp.float32)
  probs = jnp.clip(0.8 * jnp.roll(target, 1, 1) + 0.3 * noise, 0.0, 1.0)
  loss = lambda p: jnp.mean(centroid.centroid_dice(p, target)[0])
  overlap = lambda p: jnp.mean(dice.dice(p[..., None], target[..., None]))
  return Piece({name: spinejax_side.jitted(jax.value_and_grad(function), probs)[0]
                for name, function in (('centroid', loss), ('dice', overlap))}, 1)


def _components(size: str, folder: pathlib.Path) -> Piece:
  """Labels of a lamina's projection and of random specks, on the device against SciPy's."""
  del folder
  shape = _VOLUME[size][:2]
  mask = np.random.default_rng(0).random(shape) < 0.35
  label = jax.jit(components.label_components)
  roots, (labels, count) = np.asarray(label(mask)), ndimage.label(mask)
  pairs = len(set(zip(roots[mask].tolist(), labels[mask].tolist())))
  distance = abs(pairs - count) + abs(len(np.unique(roots[mask])) - count)
  return Piece({'spinejax': spinejax_side.jitted(components.label_components, mask)[0],
                'scipy': Program(lambda: ndimage.label(mask))}, 1, float(distance))


def _phantom(size: str, folder: pathlib.Path, draw: Callable, shapes: dict[str, Any]) -> Piece:
  del folder
  seeds = itertools.count()
  return Piece({'spinejax': Program(lambda: draw(next(seeds), shapes[size]))}, 1)


def _prediction(size: str, folder: pathlib.Path, system: str) -> Piece:
  """One image from gray levels to mask and probabilities at its size, through `inference`."""
  del folder
  shape = _IMAGE[size]
  model = spinejax_side.create_network(system, size, 'float32')
  variables = spinejax_side.load_variables(model, (1, *shape, 1), None)
  mesh = steps.create_mesh(1, shape)
  variables = steps.place(variables, steps.replicated(mesh))
  predict = steps.parallelize_eval_step(functools.partial(
      steps.predict_step, model=model, mesh=mesh,
      normalize_fn=functools.partial(augment.normalize, mean=(75.99,), std=(84.15,))), mesh)
  config = ConfigDict(dict(data=dict(image_size=shape), evaluation=dict(resize='logits')))
  predictor = inference.Predictor(
      config, {}, 0, 1, lambda images: jax.device_get(predict(variables, images)))
  image = phantoms.vpi(0, shape).image[..., None]
  call = lambda: list(inference.predict_images(predictor, [image]))
  call()
  return Piece({'spinejax': Program(call)}, 1)


def _layer(size: str, folder: pathlib.Path, name: str) -> Piece:
  """A layer against its plain form, at the same shape in 'quick' and 'paper'."""
  del folder
  programs, distance = layer_forms.build(name, shrink=8 if size == 'tiny' else 1)
  return Piece(programs, 1, distance, layer_forms.TOLERANCE)


_MAKERS: dict[str, Callable[[str, pathlib.Path], Piece]] = {
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
assert set(_MAKERS) == set(systems.PIECES)
OPS: dict[str, Callable] = {'build_piece': build}
