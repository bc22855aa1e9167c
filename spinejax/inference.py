"""A trained run applied to images: restored network, original size, mask files."""
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from spinejax import checkpoints
from spinejax import runs
from spinejax import steps
from spinejax.data import augment
from spinejax.data import files
from spinejax.data import resize
from spinejax.metrics import segmentation
from spinejax.models import create_model
from spinejax.report import figures


class Predictor(NamedTuple):
  """A restored network and how its run prepares and classifies images.

  Attributes:
    config: the run's config.
    info: the run's dataset.json.
    step: the step of the checkpoint.
    batch_size: images per call of `logits`.
    logits: maps images float32 [batch_size, H, W, C], gray levels at the network's size, to
      logits float32 [batch_size, H, W, K].
  """
  config: Any
  info: dict[str, Any]
  step: int
  batch_size: int
  logits: Callable[[np.ndarray], np.ndarray]


class Prediction(NamedTuple):
  """One image's result at its original size: mask uint8 [H, W], probs float32 [H, W, K]."""
  mask: np.ndarray
  probs: np.ndarray


def load_predictor(workdir: str, *, checkpoint: str = 'best') -> Predictor:
  """Restores a run for inference; the config and the gray-level statistics are the run's own."""
  config, info = runs.load_config(workdir), runs.load_dataset_info(workdir)
  model = create_model(config.model)
  data = config.data
  image = jax.ShapeDtypeStruct((1, *data.image_size, data.channels), jnp.float32)
  rngs = {'params': jax.random.key(0), 'dropout': jax.random.key(0)}
  template = dict(jax.eval_shape(functools.partial(model.init, train=True), rngs, image))
  mesh = steps.create_mesh(config.eval_batch_size)
  place = steps.replicated(mesh)
  template = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), template)
  variables, step = checkpoints.restore_variables(workdir, template, which=checkpoint)
  run = steps.parallelize_eval_step(
      functools.partial(steps.predict_step, model=model, normalize_fn=functools.partial(
          augment.normalize, mean=info['mean'], std=info['std'])), mesh)
  return Predictor(config, info, step, config.eval_batch_size,
                   lambda images: np.asarray(run(variables, images)))


def predict_images(predictor: Predictor, images: Sequence[np.ndarray]) -> Iterator[Prediction]:
  """Predicts images [H, W, C] of any sizes, in order; resized as the run's protocol says.

  Each is resized to the network's size. `config.evaluation.resize='logits'` brings the logits
  back to the original size bilinearly and classifies there (SEAM, section 3.1); `'mask'`
  classifies at the network's size and resizes the mask to the nearest (RSN-U-net, section III.A).
  """
  size = tuple(predictor.config.data.image_size)
  for start in range(0, len(images), predictor.batch_size):
    chunk = [images[i] for i in range(start, min(start + predictor.batch_size, len(images)))]
    batch = np.stack([resize.resize_image(image, size) for image in chunk])
    padded = np.concatenate([batch, np.repeat(batch[:1], predictor.batch_size - len(batch), 0)])
    for image, logits in zip(chunk, predictor.logits(padded.astype(np.float32))):
      yield to_original_size(logits, image.shape[:2], predictor.config.evaluation.resize)


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
      yield path, ''


def _output_names(paths: Sequence[pathlib.Path]) -> dict[pathlib.Path, str]:
  """The stem of each file, or its whole name where two files share a stem."""
  stems = [path.stem for path in paths]
  return {path: path.stem if stems.count(path.stem) == 1 else path.name for path in paths}
