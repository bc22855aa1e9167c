"""A trained run applied to images: restored network, style transfer, original size, mask files."""
import functools
import hashlib
import itertools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from rich.console import Console

from spinejax import checkpoints
from spinejax import logs
from spinejax import runs
from spinejax import steps
from spinejax.data import augment
from spinejax.data import batches
from spinejax.data import datasets
from spinejax.data import files
from spinejax.data import resize
from spinejax.metrics import segmentation
from spinejax.models import create_model
from spinejax.models import wave_ct
from spinejax.report import figures

STYLES_FILE = 'styles.npz'


class Predictor(NamedTuple):
  """A restored network and how its run prepares and classifies images.

  Attributes:
    config: the run's config.
    info: the run's dataset.json.
    step: the step of the checkpoint.
    batch_size: images per call of `logits`.
    logits: maps images float32 [batch_size, H, W, C], gray levels at the network's size, to
      logits float32 [batch_size, H, W, K].
    transfer: maps such images to the style of the training image nearest to each, in gray levels
      too; None where images are segmented as they are.
  """
  config: Any
  info: dict[str, Any]
  step: int
  batch_size: int
  logits: Callable[[np.ndarray], np.ndarray]
  transfer: Callable[[np.ndarray], np.ndarray] | None = None


class Prediction(NamedTuple):
  """One image's result at its original size.

  Attributes:
    mask: uint8 [H, W].
    probs: float32 [H, W, K].
    styled: what was segmented after a style transfer, gray levels float32 [H, W, C], or None.
  """
  mask: np.ndarray
  probs: np.ndarray
  styled: np.ndarray | None = None


def load_predictor(workdir: str, *, checkpoint: str = 'best', style_transfer: bool | None = None,
                   training: datasets.Source | None = None) -> Predictor:
  """Restores a run for inference; the config and the gray-level statistics are the run's own.

  Args:
    workdir: the run folder.
    checkpoint: 'best' or 'last'.
    style_transfer: segment images after a transfer to the style of the training image nearest to
      each (see `models.wave_ct`); None does as `config.evaluation.style_transfer` says.
    training: the training cases of the run, where they are at hand. Styles are kept in styles.npz
      of the run folder, so that predictions elsewhere need no training data: with `training` it is
      brought up to date for any network that can transfer, else for a transfer only, from the
      data that the config names.

  Raises:
    FileNotFoundError: nothing trained; no styles and no training data to compute them from.
    ValueError: a transfer by a network without an autoencoder; training data that have changed.
  """
  config, info = runs.load_config(workdir), runs.load_dataset_info(workdir)
  transfers = uses_style_transfer(config, style_transfer)
  model = create_model(config.model)
  data = config.data
  image = jax.ShapeDtypeStruct((1, *data.image_size, data.channels), jnp.float32)
  rngs = {'params': jax.random.key(0), 'dropout': jax.random.key(0)}
  template = dict(jax.eval_shape(functools.partial(model.init, train=True), rngs, image))
  mesh = steps.create_mesh(config.eval_batch_size, data.image_size)
  place = steps.replicated(mesh)
  template = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), template)
  variables, step = checkpoints.restore_variables(workdir, template, which=checkpoint)

  normalize = functools.partial(augment.normalize, mean=info['mean'], std=info['std'])

  def compiled(step_function, state):
    run = steps.parallelize_eval_step(
        functools.partial(step_function, model=model, normalize_fn=normalize), mesh)
    return lambda images: jax.device_get(run(state, images))

  predictor = Predictor(config, info, step, config.eval_batch_size,
                        compiled(functools.partial(steps.predict_step, mesh=mesh), variables))
  if transfers or (isinstance(model, wave_ct.WaveCT) and training is not None):
    styles = _load_styles(workdir, predictor, _digest(variables['params']['autoencoder']),
                          compiled(style_step, variables), training)
  if not transfers:
    return predictor
  transfer = compiled(transfer_step, (variables, jax.device_put(styles, place)))
  mean, std = np.float32(info['mean']), np.maximum(np.float32(info['std']), np.float32(1e-6))
  return predictor._replace(transfer=lambda images: transfer(images) * std + mean)


def uses_style_transfer(config: Mapping[str, Any], asked: bool | None = None) -> bool:
  """Whether a run segments after a style transfer: `asked`, or its config where that is None.

  Raises ValueError when its network cannot transfer a style.
  """
  wanted = config['evaluation'].get('style_transfer', False) if asked is None else asked
  if wanted and config['model']['name'] != 'wave_ct':
    raise ValueError(
        f'style transfer needs the autoencoder of a wave_ct network and {config["model"]["name"]} '
        'has none; train with config.evaluation.style_transfer=False, predict with '
        '--nostyle_transfer.')
  return wanted


def style_step(variables: steps.Variables, image: jax.Array, *, model: wave_ct.WaveCT,
               normalize_fn: Callable) -> wave_ct.Style:
  """Style statistics of images [N, H, W, C] in gray levels."""
  return model.apply(variables, normalize_fn(image), method='style_statistics')


def transfer_step(state: tuple[steps.Variables, wave_ct.Style], image: jax.Array, *,
                  model: wave_ct.WaveCT, normalize_fn: Callable) -> jax.Array:
  """Images [N, H, W, C] in gray levels -> normalized, each in the nearest style of the bank."""
  variables, styles = state
  image = normalize_fn(image)
  nearest = wave_ct.nearest_style(
      styles, model.apply(variables, image, method='style_statistics'))
  style = tuple(level[nearest] for level in styles)
  return model.apply(variables, image, style, method='transfer')


def _load_styles(workdir: str, predictor: Predictor, digest: str, style: Callable,
                 training: datasets.Source | None) -> wave_ct.Style:
  """Styles of the training cases, from styles.npz if they are of this autoencoder, else anew."""
  path = pathlib.Path(workdir) / STYLES_FILE
  styles = _read_styles(path, digest)
  if styles is None:
    if training is None:
      training = _training_cases(workdir, predictor)
    styles = _compute_styles(predictor, style, training)
    _write_styles(path, styles, step=predictor.step, autoencoder=digest, names=training.names)
  return styles


def _training_cases(workdir: str, predictor: Predictor) -> datasets.Source:
  """The training cases of a run for its styles; a sentence where they are not to be had."""
  try:
    cases = datasets.load_dataset(predictor.config.data)
    runs.check(workdir, 'dataset', {**predictor.info, **datasets.describe(cases)})
  except (ValueError, OSError) as error:
    cause = str(error).splitlines()[0].rstrip('.:')
    raise FileNotFoundError(
        f'{workdir} has no {STYLES_FILE} of its checkpoint of step {predictor.step} and its '
        f'training data cannot be loaded ({cause}); run python -m spinejax.main --mode=evaluate '
        f'--workdir={workdir} where the data are, or predict with --nostyle_transfer.') from error
  return cases['train']


def _compute_styles(predictor: Predictor, style: Callable,
                    training: datasets.Source) -> wave_ct.Style:
  images = (training[i]['image'] for i in range(len(training)))
  styles = []
  with logs.progress_of('reading styles', len(training), Console()) as progress:
    for chunk, batch in _network_batches(predictor, images):
      styles.append([level[:len(chunk)] for level in style(batch)])
      progress.advance(len(chunk))
  return tuple(np.concatenate(level) for level in zip(*styles))


def _digest(params: Any) -> str:
  """Hash of the parameters that styles depend on."""
  arrays = (np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(jax.device_get(params)))
  return hashlib.blake2b(b''.join(arrays), digest_size=16).hexdigest()


def _write_styles(path: pathlib.Path, styles: wave_ct.Style, **facts: Any) -> None:
  """Writes styles.npz atomically."""
  temporary = path.with_name(path.name + '.writing')
  with temporary.open('wb') as file:
    np.savez(file, **facts, **{f'level_{i}': level for i, level in enumerate(styles)})
  os.replace(temporary, path)


def _read_styles(path: pathlib.Path, digest: str) -> wave_ct.Style | None:
  """Styles of the autoencoder with this digest; None where the file is absent, other or damaged."""
  try:
    with np.load(path) as stored:
      if str(stored['autoencoder']) != digest:
        return None
      levels = sum(name.startswith('level_') for name in stored.files)
      return tuple(stored[f'level_{i}'] for i in range(levels))
  except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
    return None


def predict_images(predictor: Predictor, images: Iterable[np.ndarray]) -> Iterator[Prediction]:
  """Predicts images [*S, C] of any sizes, in order; resized as the run's protocol says.

  Each is resized to the network's size and, where the predictor transfers, brought to the nearest
  style. `config.evaluation.resize='logits'` brings the logits back to the original size bilinearly
  and classifies there (SEAM, section 3.1); `'mask'` classifies at the network's size and resizes
  the mask to the nearest (RSN-U-net, section III.A).
  """
  for chunk, batch in _network_batches(predictor, images):
    if predictor.transfer is not None:
      batch = predictor.transfer(batch)
    for image, seen, logits in zip(chunk, batch, predictor.logits(batch)):
      size = image.shape[:-1]
      prediction = to_original_size(logits, size, predictor.config.evaluation.resize)
      if predictor.transfer is not None:
        prediction = prediction._replace(styled=resize.resize_bilinear(seen, size))
      yield prediction


def _network_batches(predictor: Predictor, images: Iterable[np.ndarray]
                     ) -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
  """Images by the batch, and the same at the network's size, float32, the last batch filled up."""
  images = iter(images)
  while chunk := list(itertools.islice(images, predictor.batch_size)):
    batch = np.stack([batches.prepare_image(image, predictor.config.data) for image in chunk])
    filling = np.repeat(batch[:1], predictor.batch_size - len(batch), 0)
    yield chunk, np.concatenate([batch, filling]).astype(np.float32)


def to_original_size(logits: np.ndarray, size: tuple[int, int], how: str) -> Prediction:
  """Mask and probabilities of logits [h, w, K] at `size`; `how` as in `predict_images`."""
  if how == 'logits':
    logits = resize.resize_bilinear(logits, size)
    probs = segmentation.class_probs(logits)
    return Prediction(segmentation.predict_labels(logits), probs)
  if how != 'mask':
    raise ValueError(f"config.evaluation.resize must be 'logits' or 'mask', not {how!r}.")
  mask = resize.resize_nearest(segmentation.predict_labels(logits), size)
  return Prediction(mask, resize.resize_bilinear(segmentation.class_probs(logits), size))


def predict_files(predictor: Predictor, paths: Sequence[pathlib.Path], output: pathlib.Path
                  ) -> Iterator[tuple[pathlib.Path, str]]:
  """Predicts image files into `output`; yields every path with what was wrong with it, or ''."""
  channels, classes = predictor.config.data.channels, tuple(predictor.config.data.classes)
  names = _output_names(paths)
  for start in range(0, len(paths), predictor.batch_size):
    images = {}
    for path in paths[start:start + predictor.batch_size]:
      try:
        images[path] = files.read_image(path, channels)
      except (ValueError, OSError) as error:
        yield path, str(error)
    for path, prediction in zip(images, predict_images(predictor, list(images.values()))):
      Image.fromarray(prediction.mask.astype(np.uint8)).save(output / f'{names[path]}_mask.png')
      figures.save_overlay(output / f'{names[path]}_overlay.png', images[path][..., 0],
                           prediction.mask, classes=classes)
      if prediction.styled is not None:
        gray = np.clip(np.rint(prediction.styled), 0, 255).astype(np.uint8)
        Image.fromarray(gray[..., 0] if channels == 1 else gray).save(
            output / f'{names[path]}_styled.png')
      yield path, ''


def _output_names(paths: Sequence[pathlib.Path]) -> dict[pathlib.Path, str]:
  """The stem of each file, or its whole name where two files share a stem."""
  stems = [path.stem for path in paths]
  return {path: path.stem if stems.count(path.stem) == 1 else path.name for path in paths}
