"""A trained run applied to images and volumes: restored network, original size, angles."""
import bisect
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from spinejax import checkpoints
from spinejax import measure
from spinejax import runs
from spinejax import steps
from spinejax.inference import styles
from spinejax.data import augment
from spinejax.data import batches
from spinejax.data import datasets
from spinejax.readers import memory
from spinejax.data import preparation
from spinejax.data import resize
from spinejax.inference import tiles
from spinejax.measure.angles import Numbers
from spinejax.metrics import laminae
from spinejax.metrics import segmentation
from spinejax.models import create_model
from spinejax.models import wave_ct


class Predictor(NamedTuple):
  """A restored network and how its run prepares and classifies images.

  Attributes:
    config: the run's config.
    info: the run's dataset.json.
    step: the step of the checkpoint.
    batch_size: images per call of `logits`.
    logits: maps images float32 [batch_size, *S, C], gray levels at the network's size, to logits
      float32 [batch_size, *S, K].
    transfer: maps such images to the style of the training image nearest to each, in gray levels
      too; None where images are segmented as they are.
    tile: size of the parts that `logits` segments one at a time; () the whole at once.
    num_bytes: memory that the compiled network needs, its weights included; 0 where unknown.
  """
  config: Any
  info: dict[str, Any]
  step: int
  batch_size: int
  logits: Callable[[np.ndarray], np.ndarray]
  transfer: Callable[[np.ndarray], np.ndarray] | None = None
  tile: tuple[int, ...] = ()
  num_bytes: int = 0


class Prediction(NamedTuple):
  """One image's result at its original size.

  Attributes:
    mask: uint8 [*S].
    probs: float32 [*S, K].
    logits: float32 [*s, K] of the image at the network's size.
    styled: what was segmented after a style transfer, gray levels float32 [*S, C], or None.
  """
  mask: np.ndarray
  probs: np.ndarray
  logits: np.ndarray
  styled: np.ndarray | None = None


class VolumePrediction(NamedTuple):
  """One volume's result on its own grid.

  Attributes:
    mask: uint8 [D, H, W], 0 where the preparation cropped.
    centroids: float64 [P, 3] voxels of the volume, of every predicted lamina.
    grid: image float32 and mask uint8, each [*image_size], as the network saw them.
    notes: what steps of the preparation could not do, a sentence each.
  """
  mask: np.ndarray
  centroids: np.ndarray
  grid: tuple[np.ndarray, np.ndarray]
  notes: tuple[str, ...]


def load_predictor(workdir: str, *, checkpoint: str = 'best', style_transfer: bool | None = None,
                   training: datasets.Source | None = None, tile: Sequence[int] = (),
                   memory_limit: float | None = None,
                   overrides: Mapping[str, Any] | None = None) -> Predictor:
  """Restores a run for inference; the config and the gray-level statistics are the run's own.

  Args:
    workdir: the run folder.
    checkpoint: 'best' or 'last'.
    style_transfer: segment images after a transfer to the style of the training image nearest to
      each (see `models.wave_ct`); None does as `config.evaluation.style_transfer` says.
    training: the training cases of the run, where they are at hand: with them styles.npz is
      brought up to date for any network that can transfer, else for a transfer only, from the
      data that the config names.
    tile: size of overlapping parts to segment one at a time, where memory is short; (): the whole.
    memory_limit: bytes that the compiled network may need, on each device or, on CPU, on all of
      them together. Fewer images at a time are segmented where that helps, which changes nothing;
      then, unless `tile` says which, the largest parts of `tiles.tile_sizes` that fit. None: all
      that is left, without parts.
    overrides: dotted fields of the config with other values than in training, for images of another
      machine: data.axes, data.preparation, data.top_layer, data.column_width, angle.spacing, ...

  Raises:
    FileNotFoundError: nothing trained; no styles and no training data to compute them from.
    ValueError: a transfer by a network without an autoencoder; training data that have changed; a
      tile that does not fit; too little memory.
  """
  config, info = runs.load_config(workdir), runs.load_dataset_info(workdir)
  transfers = styles.uses_style_transfer(config, style_transfer)
  model = create_model(config.model)
  _override(config, overrides or {})
  angle_options(config)  # refuses early
  data, size = config.data, tuple(config.data.image_size)
  part = tuple(tile) or size
  tiles.tile_starts(size, part)  # refuses early
  variables, step = restore_variables(workdir, config, model, checkpoint)
  shared: dict[str, Any] = dict(model=model, normalize_fn=functools.partial(
      augment.normalize, mean=info['mean'], std=info['std']))

  @functools.cache
  def compile_network(batch_size, part):
    mesh = steps.create_mesh(batch_size, part, jax.local_devices())
    predict = functools.partial(steps.predict_step, mesh=mesh, **shared)
    return _compile(predict, variables, (batch_size, *part, data.channels), mesh)

  batch_size = config.eval_batch_size
  if memory_limit is not None:
    batch_size, part = _largest_that_fits(
        lambda *option: compile_network(*option).num_bytes, memory_limit, batch_size,
        [part] if tile else tiles.tile_sizes(size))
  network = compile_network(batch_size, part)
  smaller = ','.join(str(max(n // 2, 1)) for n in part)
  _require_memory(network, f'segmenting {batch_size} x {" x ".join(map(str, part))} pixels at once',
                  f'give --tile={smaller} or smaller')
  variables = jax.device_put(variables, steps.replicated(network.mesh))
  predict = functools.partial(_call, network, variables)
  if part != size:
    predict = functools.partial(tiles.predict_in_tiles, predict, tile=part)
  predictor = Predictor(config, info, step, batch_size, predict,
                        tile=part if part != size else (), num_bytes=network.num_bytes)

  def whole_images(step_function, state):
    program = _compile(functools.partial(step_function, **shared), state,
                       (batch_size, *size, data.channels), network.mesh)
    _require_memory(program, 'a style transfer of whole images', 'leave it out '
                    '(--nostyle_transfer) or free some', memory_limit)
    return functools.partial(_call, program, state)

  if transfers or (isinstance(model, wave_ct.WaveCT) and training is not None):
    bank = styles.load_styles(workdir, config, variables['params'], step,
                              whole_images(styles.style_step, variables), training)
  if not transfers:
    return predictor
  bank = jax.device_put(bank, steps.replicated(network.mesh))
  transfer = whole_images(styles.transfer_step, (variables, bank))
  mean, std = np.float32(info['mean']), np.maximum(np.float32(info['std']), np.float32(1e-6))
  return predictor._replace(transfer=lambda images: transfer(images) * std + mean)


def restore_variables(workdir: str, config: Any, model: nn.Module, checkpoint: str = 'best'
                      ) -> tuple[dict[str, Any], int]:
  """Variables of a run's network on the first device, and the step they were saved at."""
  data = config.data
  shapes = steps.variable_shapes(model, (1, *data.image_size, data.channels))
  place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  template = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes)
  return checkpoints.restore_variables(workdir, template, which=checkpoint)


class _Program(NamedTuple):
  """A compiled step, its devices, and the bytes it needs; without its arguments in `num_new`."""
  call: jax.stages.Compiled
  mesh: jax.sharding.Mesh
  num_bytes: int
  num_new: int


def _compile(step_function: Callable, state: Any, shape: tuple[int, ...], mesh: jax.sharding.Mesh
             ) -> _Program:
  """Compiles step_function(state, images) for images of a shape; on CPU devices share a memory."""
  run = steps.parallelize_eval_step(step_function, mesh)
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
  compiled = run.lower(shapes, jax.ShapeDtypeStruct(shape, jnp.float32)).compile()
  analysis = compiled.memory_analysis()
  if analysis is None:  # not every backend tells
    return _Program(compiled, mesh, 0, 0)
  copies = 1 if mesh.devices.flat[0].memory_stats() else mesh.size
  new = copies * (analysis.temp_size_in_bytes + analysis.output_size_in_bytes)
  return _Program(compiled, mesh, new + copies * analysis.argument_size_in_bytes, new)


def _call(program: _Program, state: Any, images: np.ndarray) -> Any:
  return jax.device_get(program.call(state, images))


def _largest_that_fits(num_bytes: Callable[..., int], limit: float, batch_size: int,
                       parts: Sequence[tuple[int, ...]]) -> tuple[int, tuple[int, ...]]:
  """Images at a time and size of their parts: the largest of which `num_bytes` is within a limit.

  Fewer images come before smaller parts, of which there is one image at a time.
  """
  batch_sizes = [batch_size >> k for k in range(batch_size.bit_length())]
  options = [(n, parts[0]) for n in batch_sizes] + [(1, part) for part in parts[1:]]
  if not num_bytes(*options[0]):
    raise ValueError('this device does not tell how much memory a program needs; give --tile in '
                     'place of --memory.')
  fits = lambda option: num_bytes(*option) <= limit
  if fits(options[0]):
    return options[0]
  place = bisect.bisect_left(options, True, lo=1, key=fits)
  if place == len(options):
    smallest = ' x '.join(map(str, options[-1][1]))
    raise ValueError(
        f'even {smallest} pixels at a time need {num_bytes(*options[-1]) / 2**30:.3g} GiB of '
        f'memory and --memory allows {limit / 2**30:.3g} GiB; give more.')
  return options[place]


def _override(config: Any, overrides: Mapping[str, Any]) -> None:
  for name, value in overrides.items():
    group, _, field = name.rpartition('.')
    if group not in config or field not in config[group]:
      raise ValueError(f'the run has no setting config.{name}: it was made before there was one; '
                       'train again.')
    config[group].update({field: value})


def _require_memory(program: _Program, what: str, remedy: str, limit: float | None = None) -> None:
  """Raises ValueError where a program needs more memory than its devices have left or a limit."""
  stats = program.mesh.devices.flat[0].memory_stats()  # None on CPU
  memory.require(program.num_new, what, remedy,
                 stats['bytes_limit'] - stats['bytes_in_use'] if stats else None)
  if limit is not None:
    memory.require(program.num_bytes, what, remedy, int(limit))


def predict_images(predictor: Predictor, images: Iterable[np.ndarray]) -> Iterator[Prediction]:
  """Predicts images [*S, C] of any sizes, in order; resized as the run's protocol says.

  Each is resized to the network's size and, where the predictor transfers, brought to the nearest
  style. `config.evaluation.resize='logits'` brings the logits back to the original size bilinearly
  and classifies there (SEAM, section 3.1); `'mask'` classifies at the network's size and resizes
  the mask to the nearest (RSN-U-net, section III.A).
  """
  config = predictor.config
  for chunk, batch in batches.image_batches(images, config.data, predictor.batch_size):
    if predictor.transfer is not None:
      batch = predictor.transfer(batch)
    for image, seen, logits in zip(chunk, batch, predictor.logits(batch)):
      size = image.shape[:-1]
      taken = tuple(slice(n) for n in batches.network_size(size, config.data))
      prediction = to_original_size(logits[taken], size, config.evaluation.resize)
      if predictor.transfer is not None:
        prediction = prediction._replace(styled=resize.resize_bilinear(seen[taken], size))
      yield prediction


def to_original_size(logits: np.ndarray, size: tuple[int, ...], how: str) -> Prediction:
  """Mask and probabilities of logits [*s, K] at `size`; `how` as in `predict_images`."""
  if how == 'logits':
    resized = resize.resize_bilinear(logits, size)
    return Prediction(
        segmentation.predict_labels(resized), segmentation.class_probs(resized), logits)
  if how != 'mask':
    raise ValueError(f"config.evaluation.resize must be 'logits' or 'mask', not {how!r}.")
  mask = resize.resize_nearest(segmentation.predict_labels(logits), size)
  return Prediction(mask, resize.resize_bilinear(segmentation.class_probs(logits), size), logits)


def measure_prediction(predictor: Predictor, mask: np.ndarray, spacing: Numbers,
                       **evidence: Any) -> dict[str, Any] | None:
  """The angles of a predicted mask [*S], with network and step; None where config.angle has none.

  Args:
    spacing: mm per pixel along each axis; config.angle.spacing is taken where it is not finite.
    **evidence: probs or points of `measure.measure_mask`.
  """
  options = angle_options(predictor.config)
  if options is None:
    return None
  result = measure.measure_mask(mask, known_spacing(predictor.config, spacing), **evidence,
                                **options)
  return result | {'model': predictor.config.model.name, 'checkpoint': predictor.step}


def angle_options(config: Any) -> dict[str, Any] | None:
  """Keywords of `measure.measure_mask` of a config; None where no angle is asked for.

  Raises ValueError naming the setting that is wrong.
  """
  options = dict(config.get('angle') or {})  # older runs have none
  if not options.get('method'):
    return None
  spacing = tuple(options.pop('spacing'))
  if spacing and (len(spacing) != len(config.data.image_size) or not all(
      0 < step < math.inf for step in spacing)):
    raise ValueError(f'config.angle.spacing must be {len(config.data.image_size)} numbers of mm, '
                     f'one per axis, not {spacing}.')
  if options['method'] not in measure.METHODS:
    raise ValueError(f'config.angle.method must be one of {", ".join(measure.METHODS)}, or empty, '
                     f'not {options["method"]!r}.')
  try:
    measure.make_options(*(options[name] for name in ('min_deg', 'bands', 'calibration')))
  except ValueError as error:
    raise ValueError(f'config.angle: {error}') from None
  return {**options, 'classes': tuple(config.data.classes)}


def known_spacing(config: Any, spacing: Numbers) -> Numbers:
  """The spacing of a file, or that of config.angle where the file does not say."""
  return spacing if np.isfinite(spacing).all() else tuple(config.angle.spacing)


def predict_volume(predictor: Predictor, array: np.ndarray, spacing: Numbers
                   ) -> VolumePrediction:
  """Laminae of a volume of any size, prepared as the run's config says, on the volume's own grid.

  The probability of a lamina is brought back linearly and the mask is where it reaches one half.
  Centroids are those of the components on the grid of the network.

  Args:
    predictor: of a run on volumes.
    array: gray levels [D, H, W] in our axes; see `data.orientation`.
    spacing: [3] mm, NaN where unknown.

  Raises:
    ValueError: as `preparation.prepare`.
  """
  options = preparation.options_of(predictor.config.data)
  options.pop('labels')
  image, prepared = preparation.prepare(array, spacing, **options)
  prediction, = predict_images(predictor, [image[..., None]])
  probability = preparation.from_grid(prediction.probs[..., 1], prepared)
  centroids = laminae.find_components(prediction.mask).centroids
  return VolumePrediction(
      (probability >= 0.5).astype(np.uint8), preparation.points_from_grid(centroids, prepared),
      (image, prediction.mask), tuple(step.note for step in prepared.steps if step.note))
