"""Pictures of what the attention of a trained network looks at.

  spinejax maps --workdir=runs/seam_quick
  spinejax maps --workdir=runs/sadanet_quick --image=image.png --pixel=120,40

For every case it writes NAME_maps.png: image, truth, prediction, the key map of each bone, the
length of the features that are rebuilt from it, and the weights of all pixels in one pixel. It
writes NAME_weights.png: the weights of the classes in each channel, and of the channels in each
other. It prints how many rows of these weights are one-hot. A network has some of these, a U-Net
and an FPN none.

The report of a run shows the same pictures of its best, median and worst case.
"""
import pathlib
from collections.abc import Iterator
from typing import Any

from absl import flags

from spinejax import devices
from spinejax.commands import cli

POSITIONALS = ()

_WORKDIR, _CHECKPOINT = cli.define_workdir(), cli.define_checkpoint('use')
_CASES = flags.DEFINE_list('cases', [], 'Names of test cases; by default the first three.')
_IMAGE = flags.DEFINE_string('image', None, 'An image file instead of test cases.')
_PIXEL = flags.DEFINE_list(
    'pixel', [], 'Row and column in the image, from 0, of the pixel whose attention is shown; by '
    'default the middle of the bone farthest from the middle of the image.')
_OUTPUT = flags.DEFINE_string('output', None, 'Folder for the pictures, by default WORKDIR/maps.')


def main(_) -> None:
  pixel = cli.numbers('pixel', _PIXEL.value, int) or None
  if pixel and len(pixel) != 2:
    raise ValueError(f'--pixel takes a row and a column, not {",".join(_PIXEL.value)}.')
  if _IMAGE.value and _CASES.value:
    raise ValueError('--image and --cases exclude each other.')
  devices.configure_jax()
  from spinejax.inference import maps, restore
  from spinejax.report import maps as pictures, style

  run = restore.restore_run(_WORKDIR.value, _CHECKPOINT.value)
  cases = list(_read_cases(run))
  mapper = maps.create_mapper(run)
  if mapper is None:
    raise ValueError(f'the network {run.config.model.name} of {run.workdir} has no attention to '
                     'show.')
  folder = pathlib.Path(_OUTPUT.value or f'{_WORKDIR.value}/maps')
  folder.mkdir(parents=True, exist_ok=True)
  classes = tuple(run.config.data.classes)
  for name, image, label in cases:
    found = maps.attention_maps(mapper, image, label, pixel)
    figure = pictures.maps_figure(image, label, found, classes)
    style.save_png(folder / f'{name}_maps.png', figure)
    if found.affinity is not None or found.channels is not None:
      style.save_png(folder / f'{name}_weights.png', pictures.weights_figure(found, classes))
    print(f'{name}: {pictures.maps_note(found) or "key map alone"}')
  print(f'Maps: {folder}')


def _read_cases(run: Any) -> Iterator[tuple[str, Any, Any]]:
  """Name, image [H,W,C] and label [H,W], or None, of the file or of the test cases."""
  from spinejax.data import datasets
  from spinejax.readers import images, layouts

  data = run.config.data
  if _IMAGE.value:
    path = pathlib.Path(_IMAGE.value)
    yield layouts.unique_names([path])[path], images.read_picture(path, data.channels).pixels, None
    return
  test = datasets.load_dataset(data)['test']
  names = test.names
  for name in _CASES.value or names[:3]:
    if name not in names:
      raise ValueError(f'the run has no test case {name!r}; they are {", ".join(names[:5])}'
                       f'{", ..." if len(names) > 5 else ""}.')
    record = test[names.index(name)]
    yield name, record.image, record.label
