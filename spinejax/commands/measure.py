"""Angles of masks from any program, or of the 68 corners of the vertebrae.

  python -m spinejax.measure mask.png --spacing=0.25,0.25
  python -m spinejax.measure masks --spacing=0.25,0.25 --image=images --output=angles
  python -m spinejax.measure laminae.nii.gz

A mask is an image of class indices (PNG, TIFF), or a volume or a single slice (NIfTI, NRRD,
MetaImage, NPZ), which brings its own spacing; --classes names the indices. Of images the method is
centerline_cobb where one region is most of the mask, else uca; of volumes it is center_of_lamina.
Prints a table; --output=DIR gets what `spinejax.predict` writes of every case: NAME_angle.json,
.png and .html, angles.csv and index.html. A file that cannot be read is reported and skipped, and
the exit status is then 1.
"""
import pathlib
import sys
from typing import Any, NamedTuple

from absl import flags

from spinejax.commands import cli

_METHODS = ('uca', 'spa', 'center_of_lamina', 'centerline_cobb', 'landmark_cobb')
_CLASSES = {'center_of_lamina': ('background', 'lamina'),
            'centerline_cobb': ('background', 'spine', 'border')}
_VPI = ('background', 'rib', 'thoracic process', 'lump')

_SPACING = flags.DEFINE_list(
    'spacing', [], 'Millimeters per pixel of images, vertical and horizontal, such as 0.25,0.25; '
    '1,1 if all that is known is that pixels are square. Volumes bring their own.')
_METHOD = flags.DEFINE_enum(
    'method', None, _METHODS, 'What to measure; by default what the mask looks like. spa reads the '
    'image itself, landmark_cobb a table of 68 corners; both need --image.')
_NAMES = flags.DEFINE_list(
    'classes', [], 'Names of the indices of the mask, background first; by default '
    f'{",".join(_VPI)} for uca, and background,bone where there is no index above 1.')
_IMAGE = flags.DEFINE_string(
    'image', None, 'The image of the mask, or a folder of images of the same names.')
_OUTPUT = flags.DEFINE_string('output', None, 'Folder for pages, pictures and tables.')
_FORMATS = flags.DEFINE_list(
    'formats', [], 'What to write of every case for other programs, out of nifti, seg_nrrd and '
    'markups (3D Slicer, ITK-SNAP), into --output.')
_AXES = flags.DEFINE_string(
    'axes', '', 'Volumes: where their axes grow to, such as RAS, if not as they say themselves. '
    'Images in --formats: where columns, rows and the slice grow to, LIP by default; LPS lays '
    'files on a PNG as 3D Slicer loads it.')
_RULE = flags.DEFINE_enum(
    'rule', 'extremes', ('extremes', 'challenge'), 'Of landmark_cobb: our rule, or that of the '
    'AASCE challenge.')
_MIN_DEG = flags.DEFINE_float('min_deg', 5.0, 'Degrees below which a swing is no curve.')
_BANDS = flags.DEFINE_list(
    'bands', ['10', '25', '40'], 'Degrees between none, mild, moderate and severe.')
_CALIBRATION = flags.DEFINE_list(
    'calibration', [], 'Slope, intercept and source of your own calibration, such as '
    '1.1,2.0,our hospital; the calibrated angle is shown beside the measured one.')


class Case(NamedTuple):
  """A mask as read: array [H,W] or [D,H,W], mm along its axes, geometry of a volume or None."""
  mask: Any
  spacing: Any
  geometry: Any = None


def read_case(path: pathlib.Path, spacing: tuple[float, ...], axes: str = '') -> Case:
  """Reads a mask; a volume of a single slice becomes an image, in the axes of the volume.

  Args:
    path: of the mask.
    spacing: mm per pixel (y, x) of an image, () where unknown.
    axes: of volumes, as `volumes.read_volume`.

  Raises:
    FileNotFoundError, ValueError: as `files.read_mask` and `volumes.read_labels`.
  """
  from spinejax.readers import files
  from spinejax.readers import volumes

  if files.is_volume(path):
    return Case(*volumes.read_labels(path, axes))
  return Case(files.read_mask(path), spacing or None)


def choose_method(mask) -> str:
  """'center_of_lamina' of a volume, 'centerline_cobb' of one large region, 'uca' of many."""
  import numpy as np
  from scipy import ndimage

  if mask.ndim == 3:
    return 'center_of_lamina'
  labels, number = ndimage.label(mask, np.ones((3, 3)))
  areas = np.bincount(labels.reshape(-1))[1:]
  return 'centerline_cobb' if number and areas.max() > 0.6 * areas.sum() else 'uca'


def measure_file(path: pathlib.Path, name: str, output: pathlib.Path | None = None, *,
                 method: str | None = None, classes: tuple[str, ...] = (),
                 spacing: tuple[float, ...] = (), image: pathlib.Path | None = None,
                 axes: str = '', rule: str = 'extremes', formats: tuple[str, ...] = (),
                 **options: Any) -> dict[str, Any]:
  """Measures a file and writes what was found.

  Args:
    path: of the mask, or of the table of corners.
    name: of the case.
    output: a folder for the files of `report.cases.write_case`; None writes nothing.
    method: one of the flag's; None takes `choose_method`.
    classes: names by index; () takes those of the method.
    spacing: mm per pixel (y, x) of images.
    image: as `image_of`.
    axes: as the flag.
    rule: of `measure.measure_landmarks`.
    formats: of `report.handoff.FORMATS`.
    **options: min_deg, bands and calibration of `measure.measure_mask`.

  Raises:
    FileNotFoundError, ValueError: as `read_case`; a missing image, or one of another size.
  """
  import numpy as np

  from spinejax import measure
  from spinejax.readers import trimaps
  from spinejax.report import cases
  from spinejax.handoff import files as handoff

  picture = image_of(image, path, name)
  pixels: Any = None if picture is None else picture.pixels
  if method in ('spa', 'landmark_cobb') and picture is None:
    raise ValueError(f'{path}: {method} needs the image, by --image.')
  if picture is not None and not spacing and np.isfinite(picture.spacing).all():
    spacing = picture.spacing
  if method == 'landmark_cobb':
    corners, _ = trimaps.read_corners(path, pixels.shape[:2])
    case = Case(np.zeros(pixels.shape[:2], np.uint8), spacing)
    result = measure.measure_landmarks(
        corners[..., ::-1].reshape(-1, 2), spacing or None, rule=rule, height=pixels.shape[0],
        **measure.make_options(**options))
  else:
    case = read_case(path, spacing, axes)
    if pixels is not None and pixels.shape[:2] != case.mask.shape[:2]:
      sizes = ['{} x {}'.format(*shape) for shape in (case.mask.shape, pixels.shape)]
      raise ValueError(f'{path}: the mask is {sizes[0]} (height x width), its image {sizes[1]}.')
    method = method or choose_method(case.mask)
    classes = classes or _CLASSES.get(method) or (
        _VPI if case.mask.max(initial=0) > 1 else ('background', 'bone'))
    if method == 'spa':
      result = measure.measure_spa(pixels[..., 0], case.spacing, case.mask,
                                   **measure.make_options(**options))
    else:
      result = measure.measure_mask(case.mask, case.spacing, method=method, classes=classes,
                                    **options)
  if output is not None:
    place = {'geometry': case.geometry} if case.geometry else {
        'spacing': case.spacing, 'axes': axes or handoff.AXES}
    for note in cases.write_case(output, name, pixels, case.mask, result, classes,
                                 formats=formats, **place):
      print(f'{path.name}: {note}', file=sys.stderr)
  return result


def image_of(folder: pathlib.Path | None, path: pathlib.Path, name: str):
  """The image of a mask: the file given, or the one of that name in a folder; None if none is."""
  from spinejax.readers import files

  if folder is None:
    return None
  if folder.is_dir():
    named = files.unique_names(files.list_images(folder))
    found = [image for image, other in named.items() if other == name]
    if not found:
      raise ValueError(f'{path}: {folder} holds no image called {name}.')
    folder = found[0]
  return files.read_picture(folder)


def main(argv) -> int:
  from rich.console import Console

  from spinejax import logs
  from spinejax import measure
  from spinejax.readers import files
  from spinejax.report import cases
  from spinejax.handoff import files as handoff
  from spinejax.report import tables

  source, output = pathlib.Path(argv[1]), None
  settings: dict[str, Any] = dict(
      method=_METHOD.value, classes=tuple(_NAMES.value), axes=_AXES.value, rule=_RULE.value,
      spacing=cli.numbers('spacing', _SPACING.value), formats=tuple(_FORMATS.value),
      image=pathlib.Path(_IMAGE.value) if _IMAGE.value else None, min_deg=_MIN_DEG.value,
      bands=cli.numbers('bands', _BANDS.value), calibration=tuple(_CALIBRATION.value))
  handoff.require_formats(settings['formats'])
  measure.make_options(*(settings[name] for name in ('min_deg', 'bands', 'calibration')))
  paths = files.list_images(source)
  if _OUTPUT.value:
    output = pathlib.Path(_OUTPUT.value)
    if output.resolve() == source.resolve():
      raise ValueError(f'--output must be another folder than the masks, both are {source}.')
    output.mkdir(parents=True, exist_ok=True)
  console, results, faults, names = Console(), {}, 0, files.unique_names(paths)
  with logs.progress_of('measuring', len(paths), console) as progress:
    for path in paths:
      progress.advance()
      try:
        results[names[path]] = measure_file(path, names[path], output, **settings)
      except (ValueError, OSError) as error:
        faults += 1
        print(f'skipped: {error}', file=sys.stderr)
  tables.print_cases(results, console)
  if output is not None and results:
    page = cases.write_index(output, results)
    console.print(f'Pages and tables: {page}', highlight=False, soft_wrap=True)
  return 1 if faults else 0


if __name__ == '__main__':
  cli.run(main, ('MASK',))
