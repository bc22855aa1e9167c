"""Styles of a run's training images, which a wave_ct network brings new images to.

They are statistics of its autoencoder's features and are kept in styles.npz of the run folder, so
that predictions elsewhere need no training data.
"""
import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any
import zipfile

import jax
import numpy as np
from rich.console import Console

from spinejax import logs
from spinejax import runs
from spinejax import steps
from spinejax.data import batches
from spinejax.data import datasets
from spinejax.models import wave_ct

FILE = 'styles.npz'


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
  style: Any = model.apply(variables, normalize_fn(image), method='style_statistics')
  return style


def transfer_step(state: tuple[steps.Variables, wave_ct.Style], image: jax.Array, *,
                  model: wave_ct.WaveCT, normalize_fn: Callable) -> jax.Array:
  """Images [N, H, W, C] in gray levels -> normalized, each in the nearest style of the bank."""
  variables, styles = state
  image = normalize_fn(image)
  own: Any = model.apply(variables, image, method='style_statistics')
  nearest = wave_ct.nearest_style(styles, own)
  moved: Any = model.apply(
      variables, image, tuple(level[nearest] for level in styles), method='transfer')
  return moved


def load_styles(
    workdir: str, config: Mapping[str, Any], params: Mapping[str, Any], step: int,
    style: Callable[[np.ndarray], wave_ct.Style], training: datasets.Source | None
) -> wave_ct.Style:
  """Styles of the training cases, from styles.npz if they are of this autoencoder, else anew.

  Args:
    workdir: the run folder.
    config: the run's config.
    params: the network's parameters, of the checkpoint of `step`.
    style: statistics of a batch of config.eval_batch_size images at the network's size.
    training: the training cases where they are at hand; None loads what the config names.

  Raises:
    FileNotFoundError: no styles and no training data to compute them from.
  """
  path = pathlib.Path(workdir) / FILE
  digest = _digest(params['autoencoder'])
  styles = _read(path, digest)
  if styles is None:
    if training is None:
      training = _training_cases(workdir, config, step)
    styles = _compute(config, style, training)
    _write(path, styles, step=step, autoencoder=digest, names=training.names)
  return styles


def _training_cases(workdir: str, config: Mapping[str, Any], step: int) -> datasets.Source:
  """The training cases of a run for its styles; a sentence where they are not to be had."""
  try:
    cases = datasets.load_dataset(config['data'])
    runs.check(workdir, 'dataset',
               {**runs.load_dataset_info(workdir), **datasets.describe(cases)})
  except (ValueError, OSError) as error:
    cause = str(error).splitlines()[0].rstrip('.:')
    raise FileNotFoundError(
        f'{workdir} has no {FILE} of its checkpoint of step {step} and its training data cannot be '
        f'loaded ({cause}); run python -m spinejax.main --mode=evaluate --workdir={workdir} where '
        'the data are, or predict with --nostyle_transfer.') from error
  return cases['train']


def _compute(config: Mapping[str, Any], style: Callable, training: datasets.Source
             ) -> wave_ct.Style:
  images = (training[i]['image'] for i in range(len(training)))
  styles = []
  with logs.progress_of('reading styles', len(training), Console()) as progress:
    for chunk, batch in batches.image_batches(images, config['data'], config['eval_batch_size']):
      styles.append([level[:len(chunk)] for level in style(batch)])
      progress.advance(len(chunk))
  levels: Any = (np.concatenate(level) for level in zip(*styles))
  return tuple(levels)


def _digest(params: Any) -> str:
  """Hash of the parameters that styles depend on."""
  arrays = (np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(jax.device_get(params)))
  return hashlib.blake2b(b''.join(arrays), digest_size=16).hexdigest()


def _write(path: pathlib.Path, styles: wave_ct.Style, **facts: Any) -> None:
  """Writes styles.npz atomically."""
  temporary = path.with_name(path.name + '.writing')
  with temporary.open('wb') as file:
    np.savez(file, **facts | {f'level_{i}': level for i, level in enumerate(styles)})
  os.replace(temporary, path)


def _read(path: pathlib.Path, digest: str) -> wave_ct.Style | None:
  """Styles of the autoencoder with this digest; None where the file is absent, other or damaged."""
  try:
    with np.load(path) as stored:
      if str(stored['autoencoder']) != digest:
        return None
      levels = sum(name.startswith('level_') for name in stored.files)
      return tuple(stored[f'level_{i}'] for i in range(levels))
  except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
    return None
