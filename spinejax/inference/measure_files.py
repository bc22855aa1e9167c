"""Files of masks, of any program, measured into a folder."""
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from spinejax import handoff, measurement
from spinejax.handoff import tables
from spinejax.measurement import AngleResult
from spinejax.readers import corner_tables, images, layouts, masks, volumes
from spinejax.readers.orientation import Geometry
from spinejax.report import pages

@dataclasses.dataclass(frozen=True)
class Settings:
  """How files are measured and what is written of them.

  Attributes:
    method: one of `measure.METHODS`, 'spa' or 'landmark_cobb'; None takes `measure.choose_method`.
    classes: names by index, background first; () takes those of the method.
    spacing: mm per pixel (y, x) of images; () where unknown.
    axes: directions of the axes of volumes, and of images in `formats`; '' for the default.
    rule: of `measure.measure_landmarks`.
    formats: keys of `handoff.FORMATS`.
    options: curves, bands and calibration.
  """
  method: str | None = None
  classes: tuple[str, ...] = ()
  spacing: tuple[float, ...] = ()
  axes: str = ''
  rule: str = 'extremes'
  formats: tuple[str, ...] = ()
  options: measurement.Options = measurement.Options()


@dataclasses.dataclass(frozen=True)
class Case:
  """A mask with its image.

  Attributes:
    mask: class indices [H,W] or [D,H,W]; all 0 if the file holds corners.
    spacing: mm along each axis; None or NaN where unknown.
    image: gray levels [H,W,1], or None.
    corners: [68,2] (row, column) of vertebral bodies, or None.
    geometry: of a volume, or None.
  """
  mask: np.ndarray
  spacing: Sequence[float] | None
  image: np.ndarray | None = None
  corners: np.ndarray | None = None
  geometry: Geometry | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What became of a file.

  Attributes:
    name: of the case.
    result: the angles; None if the file could not be read.
    notes: sentences for the user; of a file that could not be read, the reason.
  """
  name: str
  result: AngleResult | None
  notes: tuple[str, ...] = ()


def measure_files(paths: Sequence[pathlib.Path], settings: Settings,
                  image: pathlib.Path | None = None,
                  output: pathlib.Path | None = None) -> Iterator[Outcome]:
  """Measures files one by one and writes what was found.

  Args:
    paths: of masks, or of tables of corners.
    settings: see `Settings`.
    image: the image of the masks, or a folder of images with the same names.
    output: a folder that exists, for NAME_angle.json, .png and .html and the formats of every case,
      and for angles.csv, angles_curves.csv and index.html of all. None writes nothing.

  Raises:
    FileNotFoundError, ValueError: there is no image at `image`.
  """
  named = None
  if image is not None and image.is_dir():
    named = {name: path for path, name in layouts.unique_names(layouts.list_images(image)).items()}
  results = {}
  for path, name in layouts.unique_names(paths).items():
    try:
      case = read_case(path, _image_of(path, name, image, named), settings)
      result = measure_case(case, settings)
      notes = () if output is None else _write_case(output, name, case, result, settings)
    except (ValueError, OSError) as error:
      yield Outcome(name, None, (f'skipped: {error}',))
    else:
      results[name] = result
      yield Outcome(name, result, tuple(f'{path.name}: {note}' for note in notes))
  if output is not None and results:
    tables.write_summary(output / 'angles.csv', results)
    tables.write_curves(output / 'angles_curves.csv', results)
    pages.write_index(output, results)


def read_case(path: pathlib.Path, image: pathlib.Path | None, settings: Settings) -> Case:
  """Reads a mask or a table of corners, and its image if there is one.

  Raises:
    FileNotFoundError, ValueError: a file that cannot be read; no image although the method needs
      it; an image of another size than its mask.
  """
  if settings.method in ('spa', 'landmark_cobb') and image is None:
    raise ValueError(f'{path}: {settings.method} needs the image, by --image.')
  spacing, pixels, geometry = settings.spacing or None, None, None
  if image is not None:
    pixels, known, _ = images.read_picture(image)
    spacing = known if spacing is None and np.isfinite(known).all() else spacing
    if settings.method == 'landmark_cobb':
      corners, _ = corner_tables.read_corners(path, pixels.shape[:2])
      return Case(np.zeros(pixels.shape[:2], np.uint8), spacing, pixels,
                  corners[..., ::-1].reshape(-1, 2))
  if volumes.is_volume(path):
    mask, steps, geometry = volumes.read_labels(path, settings.axes)
    spacing = tuple(steps.tolist())
  else:
    mask, _ = masks.read_mask(path)
  if pixels is not None and pixels.shape[:2] != mask.shape[:2]:
    sizes = ['{} x {}'.format(*shape) for shape in (mask.shape, pixels.shape)]
    raise ValueError(f'{path}: the mask is {sizes[0]} (height x width), its image {sizes[1]}.')
  return Case(mask, spacing, pixels, geometry=geometry)


def measure_case(case: Case, settings: Settings) -> AngleResult:
  """The angles of a case by the method of the settings."""
  if case.corners is not None:
    return measurement.measure_landmarks(case.corners, case.spacing, rule=settings.rule,
                                     height=len(case.mask), options=settings.options)
  if settings.method == 'spa' and case.image is not None:
    return measurement.measure_spa(case.image[..., 0], case.spacing, case.mask,
                               options=settings.options)
  return measurement.measure_mask(case.mask, case.spacing, settings.method, settings.classes,
                              options=settings.options)


def _image_of(path: pathlib.Path, name: str, image: pathlib.Path | None,
              named: Mapping[str, pathlib.Path] | None) -> pathlib.Path | None:
  """The image of a case: the one of its name in a folder, or the only one."""
  if named is None:
    return image
  if name not in named:
    raise ValueError(f'{path}: {image} holds no image called {name}.')
  return named[name]


def _write_case(output: pathlib.Path, name: str, case: Case, result: AngleResult,
                settings: Settings) -> tuple[str, ...]:
  """Writes a case; returns a sentence for each format that could not be written."""
  classes = settings.classes
  if not classes and case.corners is None:
    method = settings.method or measurement.choose_method(case.mask)
    classes = measurement.default_classes(method, case.mask)
  pages.write_case(output, name, case.image, case.mask, result, classes)
  return handoff.write_formats(output, handoff.Case(
      name, case.mask, result, classes, spacing=None if case.geometry else case.spacing,
      axes=settings.axes or handoff.AXES, geometry=case.geometry), settings.formats)
