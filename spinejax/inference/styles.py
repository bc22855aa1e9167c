"""Styles of the training images of a wave_ct network, which a new image is transferred to.

Styles are statistics of the features of the network's autoencoder. They are stored in styles.npz of
the run folder, so that prediction elsewhere needs no training data.
"""
import hashlib
import io
import pathlib
from collections.abc import Callable
from typing import Any
import zipfile

import flax.linen as nn
import jax
import numpy as np
from rich.console import Console

from spinejax import logs, runs, steps
from spinejax.data import datasets, examples
from spinejax.inference.restore import Run
from spinejax.models import wave_ct

FILE = 'styles.npz'


def uses_style_transfer(model: nn.Module, asked: bool | None = None) -> bool:
  """Whether a network segments after a style transfer: `asked`, or its own field if that is None.

  Raises:
    ValueError: a transfer is asked of a network that is not wave_ct.
  """
  if isinstance(model, wave_ct.WaveCT):
    return model.style_transfer if asked is None else asked
  if asked:
    raise ValueError('style transfer needs the autoencoder of a wave_ct network, but this run '
                     f'trained a {type(model).__name__}; leave out --style_transfer.')
  return False


def style_step(variables: steps.Variables, image: jax.Array, *, model: wave_ct.WaveCT,
               normalize_fn: Callable) -> wave_ct.Style:
  """Styles of images [N, H, W, C] in gray levels."""
  style: Any = model.apply(variables, normalize_fn(image), method='style_statistics')
  return style


def transfer_step(state: tuple[steps.Variables, wave_ct.Style], image: jax.Array, *,
                  model: wave_ct.WaveCT, normalize_fn: Callable) -> jax.Array:
  """Transfers images [N, H, W, C] in gray levels to the nearest style of a bank.

  `state` holds the variables and the bank. Returns normalized images.
  """
  variables, bank = state
  own = style_step(variables, image, model=model, normalize_fn=normalize_fn)
  nearest = wave_ct.nearest_style(bank, own)
  styled: Any = model.apply(variables, normalize_fn(image),
                            tuple(level[nearest] for level in bank), method='transfer')
  return styled


def load_styles(run: Run, compute_style: Callable[[np.ndarray], wave_ct.Style], batch_size: int,
                training: datasets.Source | None) -> wave_ct.Style:
  """The styles of the training cases, read from styles.npz if they belong to this autoencoder.

  Otherwise they are computed and written: `compute_style` maps `batch_size` images at the network's
  size to their styles. `training` None loads what the config names if the cases are needed.

  Raises:
    FileNotFoundError: no styles, and no training data to compute them from.
  """
  path = pathlib.Path(run.workdir) / FILE
  params = jax.device_get(run.variables['params']['autoencoder'])
  weights = b''.join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(params))
  digest = hashlib.blake2b(weights, digest_size=16).hexdigest()
  styles = _read(path, digest)
  if styles is not None:
    return styles
  training = _training_cases(run) if training is None else training
  images = (training[i].image for i in range(len(training)))
  found = []
  with logs.progress_of('reading styles', len(training), Console()) as progress:
    for chunk, batch in examples.image_batches(images, run.config.data, batch_size):
      found.append([level[:len(chunk)] for level in compute_style(batch)])
      progress.advance(len(chunk))
  levels: Any = tuple(np.concatenate(level) for level in zip(*found))
  arrays: Any = {f'level_{i}': level for i, level in enumerate(levels)}
  file = io.BytesIO()
  np.savez(file, step=run.step, autoencoder=digest, names=training.names, **arrays)
  runs.write_bytes(path, file.getvalue())
  return levels


def _training_cases(run: Run) -> datasets.Source:
  """The training cases that the config names; FileNotFoundError if they cannot be loaded."""
  try:
    cases = datasets.load_dataset(run.config.data)
    runs.check(run.workdir, 'dataset', {**run.info, **datasets.describe(cases)})
  except (ValueError, OSError) as error:
    cause = str(error).splitlines()[0].rstrip('.:')
    raise FileNotFoundError(
        f'{run.workdir} has no {FILE} of its checkpoint of step {run.step}, and its training data '
        f'cannot be loaded ({cause}); run spinejax test --workdir={run.workdir} where the data '
        'are, or use --nostyle_transfer.') from error
  return cases['train']


def _read(path: pathlib.Path, digest: str) -> wave_ct.Style | None:
  """The stored styles; None if there are none of this autoencoder or the file is damaged."""
  try:
    with np.load(path) as stored:
      if str(stored['autoencoder']) != digest:
        return None
      levels = sum(name.startswith('level_') for name in stored.files)
      return tuple(stored[f'level_{i}'] for i in range(levels))
  except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
    return None
