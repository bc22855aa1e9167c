"""Segments and measures new images or volumes with a trained run.

  spinejax predict --workdir=runs/seam_quick --input=my_images --output=my_masks
  spinejax predict --workdir=runs/c_unet_quick --input=scan.nii.gz --output=out --formats=markups

For every image it writes NAME_mask.png (class indices) and NAME_overlay.png. For every volume
(NIfTI, NRRD, MetaImage or NPZ) it writes NAME_mask in the format and geometry of the file,
NAME_centroids.csv with the predicted laminae in voxels and in mm (LPS), and NAME_overlay.png with
the coronal and sagittal projections. NAME_preparation.png shows what each step of the preparation
kept. NAME_laminae.csv has the laminae that make levels and
proposals for missing ones, with level, side and confidence. Angles are in NAME_angle.json,
NAME_angle.png and NAME_angle.html of each case, and in index.html and angles.csv of all cases. They
need the size of a pixel, from the file or from --spacing.

A file that cannot be read is reported and skipped. The exit status is then 1.
"""
import pathlib
from typing import Any

from absl import flags

from spinejax import devices
from spinejax.commands import cli

POSITIONALS = ()

_WORKDIR, _CHECKPOINT = cli.define_workdir(), cli.define_checkpoint('use')
_INPUT = flags.DEFINE_string('input', None, 'A file, or a folder of files.', required=True)
_OUTPUT = flags.DEFINE_string('output', None, 'Folder for the results; created if it does not '
                              'exist.', required=True)
_SPACING, _FORMATS, _AXES = cli.define_files()
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


def main(_) -> int:
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

  from spinejax.inference import files, load

  console = Console(highlight=False, soft_wrap=True)
  predictor = load.load_predictor(
      _WORKDIR.value, checkpoint=_CHECKPOINT.value, overrides=overrides,
      style_transfer=_STYLE_TRANSFER.value, tile=tile, memory_limit=limit)
  if limit:
    size = ' x '.join(map(str, predictor.tile or predictor.config.data.image_size))
    console.print(f'Within {_MEMORY.value} of memory: {predictor.batch_size} at a time, '
                  f'{"tiles" if predictor.tile else "images"} of {size} pixels, with '
                  f'{predictor.num_bytes / 1e9:.3g} GB.')
  output.mkdir(parents=True, exist_ok=True)
  outcomes = files.predict_files(predictor, paths, output, _FORMATS.value, _AXES.value)
  done = cli.report_files(outcomes, 'predicting', len(paths), console)
  how = ' after style transfer' if predictor.transfer is not None else ''
  console.print(f'{len(done)} of {len(paths)} files predicted{how} with the checkpoint of step '
                f'{predictor.step}; the results are in {output}.')
  return int(len(done) < len(paths))
