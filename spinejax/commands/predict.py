"""Segments and measures new images or volumes with a trained run.

  spinejax predict --workdir=runs/seam_quick --input=my_images --output=my_masks
  spinejax predict --workdir=runs/c_unet_quick --input=scan.nii.gz --output=out --formats=markups

For every image it writes NAME_mask.png (class indices) and NAME_overlay.png. For every volume
(NIfTI, NRRD, MetaImage or NPZ) it writes NAME_mask in the format and geometry of the file,
NAME_centroids.csv with the laminae in voxels and in mm (LPS), and NAME_overlay.png with the coronal
and sagittal projections. Angles are in NAME_angle.json, NAME_angle.png and NAME_angle.html of each
case, and in index.html and angles.csv of all cases. They need the size of a pixel, from the file or
from --spacing.

A file that cannot be read is reported and skipped. The exit status is then 1.
"""
import pathlib
import sys
from typing import Any

from absl import flags

from spinejax import devices
from spinejax.commands import cli

POSITIONALS = ()

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of a trained run.', required=True)
_INPUT = flags.DEFINE_string('input', None, 'A file, or a folder of files.', required=True)
_OUTPUT = flags.DEFINE_string('output', None, 'Folder for the results; created if it does not '
                              'exist.', required=True)
_CHECKPOINT = flags.DEFINE_enum(
    'checkpoint', 'best', ('best', 'last'), 'Checkpoint to use: the best by validation, or the '
    'last.')
_SPACING = flags.DEFINE_list(
    'spacing', None, 'Millimeters per pixel, vertical and horizontal, of images whose files do not '
    'say, such as 0.25,0.25; 1,1 if all that is known is that pixels are square.')
_FORMATS = flags.DEFINE_list(
    'formats', [], 'Further files for each case with an angle: nifti, seg_nrrd and markups (3D '
    'Slicer, ITK-SNAP), dicom_seg (DICOM viewers; the input must be DICOM).')
_AXES = flags.DEFINE_string(
    'axes', '', 'Volumes: directions of the axes of the files, such as RAS, if the files are '
    'wrong. Images: directions of columns, rows and slice in --formats, LIP by default; with LPS '
    'the files lie on a PNG as 3D Slicer loads it.')
_STYLE_TRANSFER = flags.DEFINE_boolean(
    'style_transfer', None, 'Whether a wave_ct network transfers images to the style of the '
    'nearest training image before it segments them, and writes NAME_styled.png; by default as '
    'config.model.style_transfer says.')
_TILE = flags.DEFINE_list(
    'tile', [], "Size of overlapping tiles in pixels of the network's image, such as 128,96,48, "
    'to segment one at a time if memory is short; by default whole images.')
_MEMORY = flags.DEFINE_string(
    'memory', '', 'Memory for the network, such as 4GB or 800MB, on each GPU or on all CPU cores '
    'together: fewer images at a time, or the largest tiles that fit. The program itself needs up '
    'to 1 GB more.')
_PREPARATION = {  # overrides of fields of config.data
    'preparation': flags.DEFINE_list(
        'preparation', None, 'Volumes: steps of the preparation, out of crop_top_layer, '
        'crop_to_column, rescale and z_score, in this order; by default as in training.'),
    'top_layer': flags.DEFINE_string(
        'top_layer', None, 'Volumes: millimeters that crop_top_layer removes, or interface.'),
    'column_width': flags.DEFINE_float(
        'column_width', None, 'Volumes: millimeters that crop_to_column keeps.'),
}


def main(argv) -> int:
  del argv
  from spinejax import handoff
  from spinejax.readers import layouts, memory

  source, output = pathlib.Path(_INPUT.value), pathlib.Path(_OUTPUT.value)
  handoff.require_formats(_FORMATS.value)
  overrides: dict[str, Any] = {
      f'data.{name}': tuple(flag.value) if isinstance(flag.value, list) else flag.value
      for name, flag in _PREPARATION.items() if flag.value is not None}
  if _SPACING.value is not None:
    overrides['angle.spacing'] = cli.numbers('spacing', _SPACING.value)
  tile = cli.numbers('tile', _TILE.value, int)
  limit = memory.parse(_MEMORY.value) if _MEMORY.value else None
  paths = layouts.list_images(source)
  if output.resolve() == source.resolve():
    raise ValueError(f'--output must be another folder than --input, but both are {source}.')
  devices.configure_jax()
  from rich.console import Console

  from spinejax import logs
  from spinejax.inference import files
  from spinejax.inference.load import load_predictor

  console = Console()
  predictor = load_predictor(
      _WORKDIR.value, checkpoint=_CHECKPOINT.value, overrides=overrides,
      style_transfer=_STYLE_TRANSFER.value, tile=tile, memory_limit=limit)
  if limit:
    size = ' x '.join(map(str, predictor.tile or predictor.config.data.image_size))
    what = f'tiles of {size}' if predictor.tile else f'images of {size}'
    console.print(f'Within {_MEMORY.value} of memory: {predictor.batch_size} at a time, {what} '
                  f'pixels, with {predictor.num_bytes / 1e9:.3g} GB.', highlight=False,
                  soft_wrap=True)
  output.mkdir(parents=True, exist_ok=True)
  faults = 0
  with logs.progress_of('predicting', len(paths), console) as progress:
    for outcome in files.predict_files(predictor, paths, output, _FORMATS.value, _AXES.value):
      progress.advance()
      for note in outcome.notes:
        print(f'{outcome.path.name}: {note}', file=sys.stderr)
      if outcome.fault:
        faults += 1
        print(f'skipped: {outcome.fault}', file=sys.stderr)
  how = ' after style transfer' if predictor.transfer is not None else ''
  console.print(f'{len(paths) - faults} of {len(paths)} files predicted{how} with the checkpoint '
                f'of step {predictor.step}; the results are in {output}.', highlight=False,
                soft_wrap=True)
  return 1 if faults else 0
