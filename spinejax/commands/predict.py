"""Masks at original size for images or volumes a trained run has never seen.

  python -m spinejax.commands.predict --workdir=runs/seam_quick --input=my_images --output=my_masks

Writes NAME_mask.png (class indices) and NAME_overlay.png for every image. For every volume (NIfTI,
NRRD, MetaImage or NPZ) NAME_mask in the same format and geometry, NAME_centroids.csv with the
laminae in voxels of the file and in LPS millimeters, and NAME_overlay.png, its coronal and sagittal
projections as the network saw them. The angles, as config.angle of the run says: NAME_angle.json,
NAME_angle.png and the page NAME_angle.html of every case, index.html and angles.csv of all; they
need the size of a pixel, from the file or by --spacing. --formats adds files for 3D Slicer and
others.

A file that cannot be read is reported and skipped, and the exit status is then 1. Volumes are
prepared as in training, or as --axes, --preparation, --top_layer and --column_width say. Images are
brought to the size of the run's images first; where that takes more memory than there is, --memory
finds out how many images, or which parts of one, to segment at a time. A wave_ct
network segments an image after a transfer to the style of the training image nearest to it, as its
config says or --[no]style_transfer; NAME_styled.png is then what it segmented.
"""
import pathlib
import sys
from typing import Any

from absl import flags

from spinejax import devices
from spinejax.commands import cli

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of a trained run.', required=True)
_INPUT = flags.DEFINE_string('input', None, 'An image, or a folder of images.', required=True)
_OUTPUT = flags.DEFINE_string('output', None, 'Folder for the masks; made if absent.',
                              required=True)
_CHECKPOINT = flags.DEFINE_enum('checkpoint', 'best', ('best', 'last'), 'Which checkpoint to use.')
_TILE = flags.DEFINE_list(
    'tile', [], 'Size of overlapping parts to segment one at a time where memory is short, in '
    "pixels of the network's image, such as 128,96,48 (blended); empty: the whole at once.")
_MEMORY = flags.DEFINE_string(
    'memory', '', 'How much memory the network may take, such as 4GB or 800MB, on each GPU or on '
    'all CPU cores together: fewer images at a time and then the largest parts (see --tile) that '
    'fit. The program itself and the files come on top, below 1 GB.')
_STYLE_TRANSFER = flags.DEFINE_boolean(
    'style_transfer', None, 'Whether a wave_ct network brings images to a style of its training '
    'images first; by default as config.evaluation.style_transfer of the run says.')

_FORMATS = flags.DEFINE_list(
    'formats', [], 'What to write of every case for other programs, out of nifti, seg_nrrd and '
    'markups (3D Slicer, ITK-SNAP) and dicom_seg (of DICOM files).')
_SPACING = flags.DEFINE_list(
    'spacing', None, 'Millimeters per pixel, vertical and horizontal, of images whose files do not '
    'say, such as 0.25,0.25; 1,1 if all that is known is that pixels are square.')

_VOLUMES = {  # fields of config.data
    'axes': flags.DEFINE_string(
        'axes', None, 'Volumes: where the axes of the files grow to, such as RAS, if not as they '
        'say themselves. Images in --formats: where columns, rows and the slice grow to, LIP by '
        'default; LPS lays files on a PNG as 3D Slicer loads it.'),
    'preparation': flags.DEFINE_list(
        'preparation', None, 'Volumes: steps out of crop_top_layer, crop_to_column, rescale and '
        'z_score, in this order.'),
    'top_layer': flags.DEFINE_string(
        'top_layer', None, 'Volumes: millimeters that crop_top_layer takes, or interface.'),
    'column_width': flags.DEFINE_float(
        'column_width', None, 'Volumes: millimeters that crop_to_column keeps.'),
}


def main(argv) -> int:
  del argv
  from spinejax.readers import files, memory
  from spinejax.handoff import files as handoff

  source, output = pathlib.Path(_INPUT.value), pathlib.Path(_OUTPUT.value)
  paths = files.list_images(source)
  tile = cli.numbers('tile', _TILE.value, int)
  limit = memory.parse(_MEMORY.value) if _MEMORY.value else None
  if output.resolve() == source.resolve():
    raise ValueError(f'--output must be another folder than --input, both are {source}.')
  handoff.require_formats(_FORMATS.value)
  devices.configure_jax()
  from rich.console import Console

  from spinejax.inference import predictor as inference, outputs
  from spinejax import logs

  console = Console()
  predictor = inference.load_predictor(_WORKDIR.value, checkpoint=_CHECKPOINT.value,
                                       style_transfer=_STYLE_TRANSFER.value, tile=tile,
                                       memory_limit=limit, overrides=_overrides())
  if limit:
    size = ' x '.join(map(str, predictor.tile or predictor.config.data.image_size))
    what = f'in parts of {size}' if predictor.tile else f'of {size}'
    console.print(f'Within {_MEMORY.value} of memory: {predictor.batch_size} at a time {what} '
                  f'pixels, which need {predictor.num_bytes / 1e9:.3g} GB.', highlight=False,
                  soft_wrap=True)
  output.mkdir(parents=True, exist_ok=True)
  faults = 0
  with logs.progress_of('predicting', len(paths), console) as progress:
    for outcome in outputs.predict_files(predictor, paths, output, _FORMATS.value):
      progress.advance()
      for note in outcome.notes:
        print(f'{outcome.path.name}: {note}', file=sys.stderr)
      if outcome.fault:
        faults += 1
        print(f'skipped: {outcome.fault}', file=sys.stderr)
  how = ' after style transfer' if predictor.transfer is not None else ''
  console.print(f'{len(paths) - faults} of {len(paths)} files predicted{how} with the checkpoint '
                f'of step {predictor.step}; masks and overlays are in {output}.', highlight=False,
                soft_wrap=True)
  return 1 if faults else 0


def _overrides() -> dict[str, Any]:
  """The config's fields that flags were given for, lists as the tuples that configs have."""
  values: dict[str, Any] = {
      f'data.{name}': flag.value for name, flag in _VOLUMES.items() if flag.value is not None}
  if _SPACING.value is not None:
    values['angle.spacing'] = cli.numbers('spacing', _SPACING.value)
  return {name: tuple(value) if isinstance(value, list) else value
          for name, value in values.items()}


if __name__ == '__main__':
  cli.run(main)
