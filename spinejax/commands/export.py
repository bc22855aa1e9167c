"""Exports a trained network to one file that predicts with JAX and NumPy alone.

  spinejax export --workdir=runs/seam_quick
  spinejax export --workdir=runs/seam_quick --output=seam.zip --checkpoint=last

Writes WORKDIR/model.zip: the network with its weights for CPU, CUDA and TPU, and metadata: classes,
preparation, angle, versions. To predict with jax, numpy and flatbuffers, without spinejax:

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

Volumes [depth, height, width, 1] work in the same way. metadata['prepare'] says how to prepare an
image, mostly gray levels 0 to 255 resized to metadata['image_size']. The program normalizes them
itself. It takes any number of images and, if metadata['any_size'] is true, images of any size. It
also returns 'logits'. If metadata['resize'] is 'logits', the run resizes these to the original
size of the image before it classifies.

On CPU the probabilities equal those of the run to 1e-5. Other devices use JAX's default precision
of matrix products there, as the run does. JAX reads the file for at least six months after the
version that wrote it. A wave_ct network is exported without its style transfer.

docs/export.md shows how to convert a network to ONNX.
"""
import os

from absl import flags

from spinejax import devices
from spinejax.commands import cli

POSITIONALS = ()

_WORKDIR, _CHECKPOINT = cli.define_workdir(), cli.define_checkpoint('export')
_OUTPUT = flags.DEFINE_string(
    'output', None, 'File to write; by default model.zip in the run folder.')


def main(_) -> None:
  devices.configure_jax()
  from spinejax.inference import export  # late: --help needs no JAX

  path = _OUTPUT.value or os.path.join(_WORKDIR.value, 'model.zip')
  metadata = export.export_run(_WORKDIR.value, path, _CHECKPOINT.value)
  for note in metadata['notes']:
    print(note)
  size = os.path.getsize(path) / 1e6
  print(f'{metadata["network"]} of step {metadata["step"]} is in {path} ({size:.1f} MB). spinejax '
        'export --help shows how to load it without spinejax.')
