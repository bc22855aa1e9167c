"""Files of masks, of any program, measured into a folder."""
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from spinejax import handoff, measurement
from spinejax.handoff import tables
from spinejax.measurement import AngleResult
from spinejax.readers import corner_tables, images, landmarks, layouts, masks, volumes
from spinejax.readers.orientation import Geometry
from spinejax.report import pages


@dataclasses.dataclass(frozen=True)
class Settings:
  """How files are measured and what is written of them.

  `method` is one of `measurement.METHODS`, 'spa' or 'landmark_cobb'; None takes
  `measurement.choose_method`.
  """
  method: str | None = None
  classes: tuple[str, ...] = ()  # names by index, background first; () takes those of the method
  spacing: tuple[float, ...] = ()  # mm per pixel (y, x) of images; () where unknown
  axes: str = ''  # directions of the axes of volumes, and of images in `formats`
  rule: str = 'extremes'  # of `measurement.measure_landmarks`
  formats: tuple[str, ...] = ()  # keys of `handoff.FORMATS`
  options: measurement.Options = measurement.Options()


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What became of the file of a case."""
  path: pathlib.Path
  name: str
  fault: str = ''  # a sentence if the file could not be read
  notes: tuple[str, ...] = ()  # what was done to the file or could not be written
  angle: AngleResult | None = None  # None if the file is at fault or a run measures no angles


@dataclasses.dataclass(frozen=True)
class _Case:
  """A mask [H,W] or [D,H,W] with its image [H,W,1], or an image with its corners [68,2]."""
  mask: np.ndarray
  spacing: Sequence[float] | None
  image: np.ndarray | None = None
  corners: np.ndarray | None = None
  geometry: Geometry | None = None


def measure_files(paths: Sequence[pathlib.Path], settings: Settings,
                  image: pathlib.Path | None = None,
                  output: pathlib.Path | None = None) -> Iterator[Outcome]:
  """Measures masks, or tables of corners, and yields one outcome for each.

  `image` is the image of the masks, or a folder of images with the same names. A folder `output`
  that exists gets NAME_angle.json, .png and .html and the formats of every case, and the files of
  `write_tables`.

  Raises:
    FileNotFoundError, ValueError: there is no image at `image`.
  """
  named, results = None, {}
  if image is not None and image.is_dir():
    named = {name: path for path, name in layouts.unique_names(layouts.list_images(image)).items()}
  for path, name in layouts.unique_names(paths).items():
    try:
      if named is not None and name not in named:
        raise ValueError(f'{path}: {image} holds no image called {name}.')
      case = _read_case(path, image if named is None else named[name], settings)
      angle = _measure_case(case, settings)
      notes = () if output is None else _write_case(output, name, case, angle, settings)
    except (ValueError, OSError) as error:
      yield Outcome(path, name, str(error))
    else:
      results[name] = angle
      yield Outcome(path, name, notes=notes, angle=angle)
  if output is not None:
    write_tables(output, results)


def write_tables(output: pathlib.Path, results: Mapping[str, AngleResult]) -> None:
  """Writes angles.csv, angles_curves.csv and index.html of cases by name, if there are any."""
  if results:
    tables.write_summary(output / 'angles.csv', results)
    tables.write_curves(output / 'angles_curves.csv', results)
    pages.write_index(output, results)


def write_case(output: pathlib.Path, case: handoff.Case, image: np.ndarray | None,
               formats: Sequence[str]) -> tuple[str, ...]:
  """Writes the page of a case and its files in `formats`; returns what could not be written.

  Of a volume, NAME_laminae.csv has the laminae of the result.
  """
  pages.write_case(output, case.name, image, case.mask, case.result, case.classes)
  if case.geometry is not None and case.result.laminae:
    laminae = [vars(lamina) for lamina in case.result.laminae]
    points = np.array([[lamina[axis] for axis in ('row', 'column', 'depth')] for lamina in laminae])
    landmarks.write_landmarks(
        output / f'{case.name}_laminae.csv', points, case.geometry,
        {name: [lamina[name] for lamina in laminae]
         for name in ('level', 'side', 'confidence', 'found')})
  return handoff.write_formats(output, case, formats)


def _read_case(path: pathlib.Path, image: pathlib.Path | None, settings: Settings) -> _Case:
  """Reads a mask or a table of corners, and its image if there is one."""
  if settings.method in ('spa', 'landmark_cobb') and image is None:
    raise ValueError(f'{path}: {settings.method} needs the image, by --image.')
  spacing, pixels, geometry = settings.spacing or None, None, None
  if image is not None:
    pixels, known, _ = images.read_picture(image)
    spacing = known if spacing is None and np.isfinite(known).all() else spacing
    if settings.method == 'landmark_cobb':
      corners, _ = corner_tables.read_corners(path, pixels.shape[:2])
      return _Case(np.zeros(pixels.shape[:2], np.uint8), spacing, pixels,
                   corners[..., ::-1].reshape(-1, 2))
  if volumes.is_volume(path):
    mask, steps, geometry = volumes.read_labels(path, settings.axes)
    spacing = tuple(steps.tolist())
  else:
    mask, _ = masks.read_mask(path)
  if pixels is not None and pixels.shape[:2] != mask.shape[:2]:
    sizes = ['{} x {}'.format(*shape) for shape in (mask.shape, pixels.shape)]
    raise ValueError(f'{path}: the mask is {sizes[0]} (height x width), its image {sizes[1]}.')
  return _Case(mask, spacing, pixels, geometry=geometry)


def _measure_case(case: _Case, settings: Settings) -> AngleResult:
  """The angles of a case by the method of the settings."""
  if case.corners is not None:
    return measurement.measure_landmarks(case.corners, case.spacing, rule=settings.rule,
                                         height=len(case.mask), options=settings.options)
  if settings.method == 'spa' and case.image is not None:
    return measurement.measure_spa(case.image[..., 0], case.spacing, case.mask,
                                   options=settings.options)
  return measurement.measure_mask(case.mask, case.spacing, settings.method, settings.classes,
                                  options=settings.options)


def _write_case(output: pathlib.Path, name: str, case: _Case, result: AngleResult,
                settings: Settings) -> tuple[str, ...]:
  classes = settings.classes
  if not classes and case.corners is None:
    method = settings.method or measurement.choose_method(case.mask)
    classes = measurement.default_classes(method, case.mask)
  written = handoff.Case(
      name, case.mask, result, classes, spacing=None if case.geometry else case.spacing,
      axes=settings.axes or handoff.AXES, geometry=case.geometry)
  return write_case(output, written, case.image, settings.formats)
