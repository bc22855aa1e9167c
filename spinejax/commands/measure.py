"""Measures angles of masks from any program, or of the 68 corners of the vertebrae.

  spinejax measure mask.png --spacing=0.25,0.25
  spinejax measure masks --spacing=0.25,0.25 --image=images --output=angles
  spinejax measure laminae.nii.gz

MASK is a file or a folder. A mask is an image of class indices (PNG, TIFF), or a volume or a single
slice (NIfTI, NRRD, MetaImage, NPZ), which contains its own spacing. --classes names the indices.
Without --method, volumes are measured by center_of_lamina, images by centerline_cobb if one region
is most of the mask, and by uca otherwise.

Prints a table. --output=DIR gets NAME_angle.json, .png and .html of every case, angles.csv,
angles_curves.csv and index.html. A file that cannot be read is reported and skipped; the exit
status is then 1.
"""
import pathlib

from absl import flags

from spinejax.commands import cli

POSITIONALS = ('MASK',)

_SPACING, _FORMATS, _AXES = cli.define_files()
_METHOD = flags.DEFINE_enum(
    'method', None, ('uca', 'spa', 'center_of_lamina', 'centerline_cobb', 'landmark_cobb'),
    'What to measure. spa reads the image itself, landmark_cobb a table of 68 corners; both need '
    '--image.')
_CLASSES = flags.DEFINE_list(
    'classes', [], 'Names of the indices of the mask, background first. The default for uca is '
    'background,rib,thoracic process,lump, or background,bone if no index is above 1.')
_IMAGE = flags.DEFINE_string(
    'image', None, 'The image of the mask, or a folder of images with the names of the masks.')
_OUTPUT = flags.DEFINE_string('output', None, 'Folder for pages, pictures and tables.')
_RULE = flags.DEFINE_enum('rule', 'extremes', ('extremes', 'challenge'),
                          'Rule of landmark_cobb: ours, or that of the AASCE challenge.')
_MIN_DEG = flags.DEFINE_float('min_deg', 5.0, 'Smallest angle of a curve, degrees.')
_BANDS = cli.define_bands()
_CALIBRATION = flags.DEFINE_list(
    'calibration', [], 'Slope, intercept and source of your own calibration, such as '
    '1.1,2.0,our hospital. The calibrated angle is shown beside the measured angle.')


def main(argv) -> int:
  from rich.console import Console

  from spinejax import handoff, measurement
  from spinejax.inference import measure_files
  from spinejax.readers import layouts
  from spinejax.report import terminal

  source, output = pathlib.Path(argv[1]), pathlib.Path(_OUTPUT.value) if _OUTPUT.value else None
  settings = measure_files.Settings(
      method=_METHOD.value, classes=tuple(_CLASSES.value), axes=_AXES.value, rule=_RULE.value,
      spacing=cli.numbers('spacing', _SPACING.value or []), formats=tuple(_FORMATS.value),
      options=measurement.Options(_MIN_DEG.value, cli.numbers('bands', _BANDS.value),
                                  tuple(_CALIBRATION.value)))
  handoff.require_formats(settings.formats)
  paths = layouts.list_images(source)
  if output:
    if output.resolve() == source.resolve():
      raise ValueError(f'--output must be another folder than the masks, both are {source}.')
    output.mkdir(parents=True, exist_ok=True)
  console, image = Console(), pathlib.Path(_IMAGE.value) if _IMAGE.value else None
  done = cli.report_files(measure_files.measure_files(paths, settings, image, output), 'measuring',
                          len(paths), console)
  terminal.print_cases({outcome.name: outcome.angle for outcome in done}, console)
  if output and done:
    console.print(f'Pages and tables: {output / "index.html"}', highlight=False, soft_wrap=True)
  return int(len(done) < len(paths))
