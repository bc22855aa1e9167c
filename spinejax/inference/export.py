"""Export of a trained network to one file for JAX and NumPy; `spinejax export --help` says how to
read it.

The file is a ZIP archive of program.bin, the network with its weights as `jax.export` serializes it
(StableHLO for CPU, CUDA and TPU), and metadata.json, the metadata that `export_run` returns. Each
platform gets its own form of the layers, whatever machine the export is made on. The program takes
any number of images, and images of any size unless metadata['any_size'] is false.
"""
import dataclasses
import functools
import io
import json
import os
import pathlib
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import export
import jax.numpy as jnp
import numpy as np

from spinejax import runs, steps
from spinejax.data import augment
from spinejax.inference import restore
from spinejax.metrics import segmentation
from spinejax.version import __version__

PROGRAM, METADATA = 'program.bin', 'metadata.json'
PLATFORMS = ('cpu', 'cuda', 'tpu')
_STEPS = {  # config.data.preparation in words
    'crop_top_layer': 'remove the bright layer next to the skin ({top_layer}; last axis)',
    'crop_to_column': 'keep {column_width:g} mm around the spinous processes (second axis)',
    'rescale': 'resize to image_size linearly, with half-pixel centers and, where it shrinks, a '
               'triangle filter as wide as the scale',
    'rescale_nearest': 'resize to image_size by the nearest pixel',
    'fit': 'resize linearly, with a triangle filter where it shrinks, to the largest size within '
           'image_size with the same aspect ratio; then add zeros after the last row or column',
    'z_score': 'subtract the mean of the image and divide by its standard deviation',
}


@dataclasses.dataclass(frozen=True)
class Network:
  """A restored network as a function.

  Attributes:
    logits: traceable; maps prepared images in gray levels, float32 [N, *S, C] of any size, to
      logits float32 [N, *S, K].
    image_size: the size it was trained at.
    channels: C.
    run: the run. Its style transfer is not part of `logits`.
  """
  logits: Callable[[Any], Any]
  image_size: tuple[int, ...]
  channels: int
  run: restore.Run


@dataclasses.dataclass(frozen=True)
class Exported:
  """A loaded file of `export_run`, with the metadata that it returned.

  `predict` maps prepared images [N, *S, C] to {'logits': float32 [N, *S, K], 'probs': float32
  [N, *S, max(K, 2)]}; it is compiled once per shape.
  """
  predict: Callable[[np.ndarray], dict[str, np.ndarray]]
  metadata: dict[str, Any]


def load_network(workdir: str | os.PathLike, checkpoint: str = 'best') -> Network:
  """Restores the network of a run with its weights as constants; raises as `restore.restore_run`.
  """
  run = restore.restore_run(os.fspath(workdir), checkpoint)
  normalize_fn = functools.partial(augment.normalize, mean=run.info['mean'], std=run.info['std'])
  logits = functools.partial(steps.predict_step, jax.device_get(run.variables), model=run.model,
                             normalize_fn=normalize_fn)
  return Network(logits, tuple(run.config.data.image_size), run.config.data.channels, run)


def export_run(workdir: str | os.PathLike, path: str | os.PathLike | None = None,
               checkpoint: str = 'best') -> dict[str, Any]:
  """Writes the network of a run to one file, without the style transfer of a wave_ct network.

  The file is `path`, or model.zip in the run folder; an existing file is replaced. Returns the
  metadata, JSON values only. Its `notes` are sentences about what the file cannot do.

  Raises:
    FileNotFoundError, ValueError: as `load_network`.
    OSError: if the file cannot be written.
  """
  path = pathlib.Path(workdir) / 'model.zip' if path is None else pathlib.Path(path)
  runs.load_config(os.fspath(workdir))  # refuses a folder without a run before anything else
  if path.is_dir():
    raise IsADirectoryError(f'--output must be a file, {path} is a folder.')
  if not path.parent.is_dir():
    raise FileNotFoundError(f'--output must be in an existing folder, there is no {path.parent}.')
  if not os.access(path.parent, os.W_OK):
    raise PermissionError(f'{path.parent} cannot be written to; choose another --output.')
  network = load_network(workdir, checkpoint)
  program, any_size = _serialize(network)
  metadata = _describe(network, checkpoint, any_size)
  content = io.BytesIO()
  with zipfile.ZipFile(content, 'w') as file:  # weights hardly compress
    file.writestr(METADATA, json.dumps(metadata, indent=1, allow_nan=False))
    file.writestr(PROGRAM, program)
  runs.write_bytes(path, content.getvalue())
  return metadata


def load_exported(path: str | os.PathLike) -> Exported:
  """Reads a file of `export_run`; the run folder is not needed.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if it is another file, damaged, or of a newer JAX.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'there is no file {path}.')
  try:
    with zipfile.ZipFile(path) as file:
      metadata = json.loads(file.read(METADATA))
      program = export.deserialize(bytearray(file.read(PROGRAM)))
    shape = ('N', *metadata['image_size'], metadata['channels'])
    any_size = metadata['any_size']
  except Exception as error:  # zipfile, json, flatbuffers and MLIR raise errors of many types
    raise ValueError(f'{path} is not an export of spinejax, is damaged, or needs a newer JAX '
                     f'({runs.first_line(error)}).') from error
  compiled = jax.jit(program.call)

  def predict(images: np.ndarray) -> dict[str, np.ndarray]:
    fits = len(images.shape) == len(shape) and images.shape[-1] == shape[-1] and (
        any_size or images.shape[1:] == shape[1:])
    if not fits:
      raise ValueError(f'images must be {list(shape)}{" or of other sizes" * any_size}, not '
                       f'{list(images.shape)}.')
    return jax.device_get(compiled(images.astype('float32')))

  return Exported(predict, metadata)


def _serialize(network: Network) -> tuple[bytes, bool]:
  """The serialized program, and whether it takes images of any size."""

  def serialize(logits_fn: Callable, size: Sequence[Any]) -> bytes:
    def predict(images):
      logits = logits_fn(images)
      return {'logits': logits, 'probs': segmentation.class_probs(logits)}

    shape = export.symbolic_shape(', '.join(['n', *map(str, size), str(network.channels)]))
    program = export.export(jax.jit(predict), platforms=PLATFORMS)(
        jax.ShapeDtypeStruct(shape, jnp.float32))
    return bytes(program.serialize())

  multiple = getattr(network.run.model, 'size_multiple', None)
  if multiple is not None:
    logits_fn = functools.partial(_extend_and_segment, network.logits, multiple)
    try:
      return serialize(logits_fn, 'dhw'[-len(network.image_size):]), True
    except Exception:  # a network that needs the size as a number raises errors of many types
      pass
  return serialize(network.logits, network.image_size), False


def _extend_and_segment(logits_fn: Callable, multiple: Any, images: jax.Array) -> jax.Array:
  """Logits of images of any symbolic size, with edges repeated up to a multiple of `multiple`.

  JAX does not know that h + (-h mod m) is a multiple of m, but knows that m * ceil(h / m) is.
  """
  def resize(x, axis, size):
    return jnp.take(x, jnp.arange(size), axis=axis, mode='clip')

  size = images.shape[1:-1]
  for axis, pixels in enumerate(size, 1):
    images = resize(images, axis, (pixels + multiple - 1) // multiple * multiple)
  logits = logits_fn(images)
  for axis, pixels in enumerate(size, 1):
    logits = resize(logits, axis, pixels)
  return logits


def _describe(network: Network, checkpoint: str, any_size: bool) -> dict[str, Any]:
  """The metadata of an export."""
  run, config, data = network.run, network.run.config, network.run.config.data
  notes = []
  if not any_size:
    notes.append(f'This network takes images of {" x ".join(map(str, network.image_size))} pixels '
                 'only: its computation depends on the number of pixels.')
  if getattr(run.model, 'style_transfer', False):
    notes.append('The run transfers images to a style of its training images first. The export '
                 'does not, like --nostyle_transfer.')
  is_phantom = 'phantom' in data.name
  return runs.plain({
      'format': 'spinejax export 1',
      'notice': 'Research software, not a medical device.'
                + ' Trained on computer-made phantoms.' * is_phantom,
      'network': config.model.name, 'dataset': data.name, 'checkpoint': checkpoint,
      'step': run.step, 'classes': data.classes, 'image_size': network.image_size,
      'channels': network.channels, 'any_size': any_size,
      'axes': data.axes if 'axes' in data else '',
      'prepare': [_STEPS[step].format(**data) for step in data.preparation],
      'preparation': data.preparation, 'mean': run.info['mean'], 'std': run.info['std'],
      'resize': config.evaluation.resize, 'angle': config.angle, 'platforms': PLATFORMS,
      'versions': {'spinejax': __version__, 'jax': jax.__version__}, 'notes': notes,
  })
