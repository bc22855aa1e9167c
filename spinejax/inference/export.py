"""One file of a trained run that predicts with JAX and NumPy alone: StableHLO and what it needs.

  python -m spinejax.inference.export --workdir=runs/seam_quick [--output=seam.zip] [--checkpoint=best]

Writes WORKDIR/model.zip with program.bin, the network with its weights as `jax.export` stores it
(StableHLO for CPU, CUDA and TPU), and metadata.json: classes, preparation, angle, versions, step.
Anyone with jax, numpy and flatbuffers (which `jax.export` reads with) predicts by

    import json, zipfile
    import jax, jax.export
    import numpy as np
    with zipfile.ZipFile('model.zip') as file:
      metadata = json.loads(file.read('metadata.json'))
      program = jax.export.deserialize(bytearray(file.read('program.bin')))
    predict = jax.jit(program.call)
    image = np.load('image.npy').astype(np.float32)  # [height, width, channels], prepared
    probs = np.asarray(predict(image[None])['probs'])[0]  # [height, width, classes]
    mask = probs.argmax(-1)

and of volumes [depth, height, width, 1] in the same way. Prepared means as metadata['prepare'] says
in words, mostly gray levels 0 to 255 resized to metadata['image_size']; the program subtracts the
mean and divides by the deviation itself. It takes any number of images at once and, where
metadata['any_size'], images of any size. It returns 'logits' too, which runs with
metadata['resize'] 'logits' bring to the original size of the image before they classify.

On CPU probabilities are those of the run to 1e-5; other devices multiply with the precision that
JAX has there by default, as the run does. JAX reads the file for at least six months after the
version that wrote it, older ones cannot; `program.mlir_module_serialized` is the StableHLO alone,
for other tools. A wave_ct network is exported without its style transfer. An export made on a
machine without an accelerator computes 3-D and depthwise convolutions in the forms that suit CPUs.

ONNX, for a fixed batch and size, with jax2onnx 0.17 and onnxruntime 1.31 in an environment of their
own, since jax2onnx asks for an older Orbax than spinejax (pip says so, and both work):

    pip install jax2onnx onnxruntime && pip install -e .

    from jax2onnx import to_onnx
    from spinejax import export
    network = export.load_network('runs/seam_quick')
    to_onnx(network.logits, [(1, *network.image_size, network.channels)], return_mode='file',
            output_path='model.onnx')

Its logits are those of the run to 1e-5 of the largest. PSANet is not converted. tf2onnx is no way
around: jax2tf writes no operations of TensorFlow any more.
"""
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple
import zipfile

from absl import flags

from spinejax import devices
from spinejax.commands import cli

PROGRAM, METADATA = 'program.bin', 'metadata.json'
PLATFORMS = ('cpu', 'cuda', 'tpu')
_NOTICE = 'Research software, not a medical device.'
_STEPS = {  # of config.data.preparation, in words
    'crop_top_layer': 'remove the bright layer next to the skin ({top_layer}; last axis)',
    'crop_to_column': 'keep {column_width:g} mm about the spinous processes (second axis)',
    'rescale': 'resize to image_size linearly, with half-pixel centers and, where it shrinks, a '
               'triangle filter as wide as the scale',
    'rescale_nearest': 'resize to image_size by the nearest pixel',
    'fit': 'resize linearly, with a triangle filter where it shrinks, to the largest size within '
           'image_size with the same aspect ratio; zeros after the last row or column at the end',
    'z_score': 'subtract the mean of the image and divide by its standard deviation',
}


class Network(NamedTuple):
  """A restored network without anything around it.

  Attributes:
    logits: traceable; maps float32 [N, *S, C], gray levels of prepared images of any size, to
      logits float32 [N, *S, K].
    image_size: the size it was trained at.
    channels: C.
    multiple: what axes are extended to multiples of inside; None where that is unknown.
    config, info, step: config and dataset.json of the run, step of the checkpoint.
  """
  logits: Callable[[Any], Any]
  image_size: tuple[int, ...]
  channels: int
  multiple: int | None
  config: Any
  info: dict[str, Any]
  step: int


class Exported(NamedTuple):
  """A file of `export_run`, loaded.

  Attributes:
    predict: maps prepared images [N, *S, C] to {'logits': float32 [N, *S, K], 'probs': float32
      [N, *S, max(K, 2)]}; compiled once for each shape.
    metadata: what `export_run` returned.
  """
  predict: Callable[[Any], dict[str, Any]]
  metadata: dict[str, Any]


def load_network(workdir: str | os.PathLike, checkpoint: str = 'best') -> Network:
  """Restores the network of a run with its weights as constants; 'best' or 'last' checkpoint.

  Raises:
    FileNotFoundError: no run, or nothing trained.
    ValueError: a checkpoint that is damaged or does not fit.
  """
  import functools  # late, here and below: --help needs none of it

  import jax

  from spinejax.inference import predictor as inference
  from spinejax import runs, steps
  from spinejax.data import augment
  from spinejax.models import create_model

  workdir = os.fspath(workdir)
  config, info = runs.load_config(workdir), runs.load_dataset_info(workdir)
  model = create_model(config.model)
  variables, step = inference.restore_variables(workdir, config, model, checkpoint)
  logits = functools.partial(
      steps.predict_step, jax.device_get(variables), model=model,
      normalize_fn=functools.partial(augment.normalize, mean=info['mean'], std=info['std']))
  return Network(logits, tuple(config.data.image_size), config.data.channels,
                 _size_multiple(model), config, info, step)


def export_run(workdir: str | os.PathLike, path: str | os.PathLike | None = None,
               checkpoint: str = 'best') -> dict[str, Any]:
  """Writes the network of a run to one file; the module's docstring says how to read it.

  Where the network cannot be traced for a symbolic size, the file takes images of the run's size
  only, and metadata['notes'] says so.

  Args:
    workdir: the run folder.
    path: of the file; None: model.zip in the run folder. A file that is there is replaced.
    checkpoint: 'best' or 'last'.

  Returns:
    The metadata, JSON values only.

  Raises:
    FileNotFoundError, ValueError: as `load_network`.
    OSError: the file cannot be written.
  """
  path = pathlib.Path(workdir) / 'model.zip' if path is None else pathlib.Path(path)
  from spinejax import runs

  runs.load_config(os.fspath(workdir))  # first of all: is there a run
  _check_writable(path)
  network = load_network(workdir, checkpoint)
  program, any_size = _export(network)
  metadata = _describe(network, checkpoint, any_size)
  temporary = path.with_name(path.name + '.writing')
  try:
    with zipfile.ZipFile(temporary, 'w') as file:  # not compressed: weights are noise
      file.writestr(METADATA, json.dumps(metadata, indent=1, allow_nan=False))
      file.writestr(PROGRAM, program)
    os.replace(temporary, path)
  except OSError as error:
    temporary.unlink(missing_ok=True)
    raise OSError(f'{path} could not be written ({error.strerror or error}).') from error
  return metadata


def load_exported(path: str | os.PathLike) -> Exported:
  """Reads a file of `export_run`; needs nothing of the run.

  Raises:
    FileNotFoundError: no such file.
    ValueError: another file, a damaged one, or one of a newer JAX.
  """
  import jax
  from jax import export

  path = pathlib.Path(path)
  if not path.is_file():
    raise FileNotFoundError(f'there is no file {path}.')
  try:
    with zipfile.ZipFile(path) as file:
      metadata = json.loads(file.read(METADATA))
      program = export.deserialize(bytearray(file.read(PROGRAM)))
    shape = ('N', *metadata['image_size'], metadata['channels'])
    any_size = metadata['any_size']
  except Exception as error:  # zipfile, json, flatbuffers and MLIR each raise their own
    raise ValueError(f'{path} is no export of spinejax, or damaged, or of a newer JAX '
                     f'({_first_line(error)}).') from error
  compiled = jax.jit(program.call)

  def predict(images):
    fits = len(images.shape) == len(shape) and images.shape[-1] == shape[-1] and (
        any_size or images.shape[1:] == shape[1:])
    if not fits:
      raise ValueError(f'images must be {list(shape)}{" or of other sizes" * any_size}, not '
                       f'{list(images.shape)}.')
    return jax.device_get(compiled(images.astype('float32')))

  return Exported(predict, metadata)


def _size_multiple(model: Any) -> int | None:
  """What a network extends the axes of an image to multiples of; None where that is not known."""
  from spinejax.models import baselines, fpn, unet, xception_unet

  if isinstance(model, xception_unet.XceptionUNet):
    return 2 ** (model.levels + 1)
  if isinstance(model, unet.UNet):
    return 2 ** model.levels
  if isinstance(model, fpn.FPN):
    return 32
  if isinstance(model, baselines.UNetS5D16):
    return 16
  return model.output_stride if isinstance(model, baselines.DilatedFCN) else None


def _export(network: Network) -> tuple[bytes, bool]:
  """The serialized program, and whether it takes any size."""
  import jax
  from jax import export
  import jax.numpy as jnp

  from spinejax.metrics import segmentation

  def predict(images, logits_fn):
    logits = logits_fn(images)
    return {'logits': logits, 'probs': segmentation.class_probs(logits)}

  def exported(logits_fn, size):
    shape = export.symbolic_shape(', '.join(['n', *map(str, size), str(network.channels)]))
    program = export.export(jax.jit(lambda images: predict(images, logits_fn)),
                            platforms=PLATFORMS)(jax.ShapeDtypeStruct(shape, jnp.float32))
    return bytes(program.serialize())

  if network.multiple is not None:
    try:
      return exported(lambda images: _extended(network, images), 'dhw'[-len(network.image_size):]
                      ), True
    except Exception:  # what asks for the number behind a symbol raises many kinds
      pass
  return exported(network.logits, network.image_size), False


def _extended(network: Network, images: Any) -> Any:
  """Logits of images of any symbolic size: extended by the last rows as the network itself does.

  JAX does not know that h + (-h mod m) is a multiple of m, but that m * ceil(h / m) is.
  """
  import jax.numpy as jnp

  def resized(x, axis, size):
    return jnp.take(x, jnp.arange(size), axis=axis, mode='clip')

  size, multiple = images.shape[1:-1], network.multiple
  for axis, pixels in enumerate(size, 1):
    images = resized(images, axis, (pixels + multiple - 1) // multiple * multiple)
  logits = network.logits(images)
  for axis, pixels in enumerate(size, 1):
    logits = resized(logits, axis, pixels)
  return logits


def _describe(network: Network, checkpoint: str, any_size: bool) -> dict[str, Any]:
  """The metadata of an export."""
  import jax

  from spinejax import __version__, runs

  config, data = network.config, network.config.data
  preparation = tuple(data.get('preparation', ('rescale',)))
  is_phantom = 'phantom' in data.name
  notes = []
  if not any_size:
    notes.append(f'This network takes images of {" x ".join(map(str, network.image_size))} pixels '
                 'only: what it computes depends on the number of pixels.')
  if config.evaluation.get('style_transfer', False):
    notes.append('The run brings images to a style of its training images first; the export does '
                 'not, as --nostyle_transfer.')
  return runs.plain({
      'format': 'spinejax export 1',
      'notice': _NOTICE + ' Trained on computer-made phantoms.' * is_phantom,
      'network': config.model.name,
      'dataset': data.name,
      'checkpoint': checkpoint,
      'step': network.step,
      'classes': data.classes,
      'image_size': network.image_size,
      'channels': network.channels,
      'any_size': any_size,
      'axes': data.get('axes', ''),
      'prepare': [_STEPS[step].format(**{'top_layer': 'interface', 'column_width': 60.0, **data})
                  for step in preparation],
      'preparation': preparation,
      'mean': network.info['mean'],
      'std': network.info['std'],
      'resize': config.evaluation.resize,
      'angle': config.get('angle') or {},
      'platforms': PLATFORMS,
      'versions': {'spinejax': __version__, 'jax': jax.__version__},
      'notes': notes,
  })


def _check_writable(path: pathlib.Path) -> None:
  """Raises OSError with a sentence where a file cannot be written."""
  if path.is_dir():
    raise IsADirectoryError(f'--output must be a file, {path} is a folder.')
  if not path.parent.is_dir():
    raise FileNotFoundError(f'--output must be in a folder that exists, there is no {path.parent}.')
  if not os.access(path.parent, os.W_OK):
    raise PermissionError(f'{path.parent} cannot be written to; choose another --output.')


def _first_line(error: Exception) -> str:
  return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def main(argv) -> None:
  del argv
  devices.configure_jax()
  path = flags.FLAGS.output or os.path.join(flags.FLAGS.workdir, 'model.zip')
  metadata = export_run(flags.FLAGS.workdir, path, flags.FLAGS.checkpoint)
  for note in metadata['notes']:
    print(note)
  size = os.path.getsize(path) / 1e6
  print(f'{metadata["network"]} of step {metadata["step"]} is in {path} ({size:.1f} MB); '
        'python -m spinejax.inference.export --help shows how to load it without spinejax.')


if __name__ == '__main__':  # flags are defined here, so that others may import the functions above
  flags.DEFINE_string('workdir', None, 'Folder of a trained run.', required=True)
  flags.DEFINE_string('output', None, 'File to write; by default model.zip in the run folder.')
  flags.DEFINE_enum('checkpoint', 'best', ('best', 'last'), 'Which checkpoint to use.')
  cli.run(main)
