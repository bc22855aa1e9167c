"""Prediction of the user's files: masks, overlays, angles, and files for other programs."""
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from spinejax import colors, handoff
from spinejax.handoff import tables
from spinejax.inference.load import Predictor
from spinejax.inference.predict import (Prediction, known_spacing, measure_prediction,
                                        predict_images)
from spinejax.inference.volumes import predict_volume
from spinejax.measurement import AngleResult
from spinejax.readers import contents, images, landmarks, layouts, volumes
from spinejax.report import overlays, pages


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What became of a file.

  Attributes:
    path: of the file.
    fault: a sentence if the file could not be predicted, else ''.
    notes: sentences about what was done to the file or could not be written.
    angle: of the mask; None if config.angle has no method.
  """
  path: pathlib.Path
  fault: str = ''
  notes: tuple[str, ...] = ()
  angle: AngleResult | None = None


def predict_files(predictor: Predictor, paths: Sequence[pathlib.Path], output: pathlib.Path,
                  formats: Sequence[str] = (), axes: str = '') -> Iterator[Outcome]:
  """Predicts files into a folder and yields one outcome for each; a file at fault is skipped.

  `spinejax predict --help` lists what is written for each file. NAME_interlaced.png is written if
  config.evaluation.interlaced asks for it, and NAME_styled.png after a style transfer.

  Args:
    predictor: of the run.
    paths: the files.
    output: must exist.
    formats: of `handoff.FORMATS`, written for each case with an angle.
    axes: directions of the axes of volume files, '' for config.data.axes; of images, directions
      in `formats`, '' for `handoff.AXES`.
  """
  names, results = layouts.unique_names(paths), {}
  predict = _predict_volumes if len(predictor.config.data.image_size) == 3 else _predict_images
  for outcome in predict(predictor, names, output, formats, axes):
    if outcome.angle is not None:
      results[names[outcome.path]] = outcome.angle
    yield outcome
  if results:
    tables.write_summary(output / 'angles.csv', results)
    tables.write_curves(output / 'angles_curves.csv', results)
    pages.write_index(output, results)


def _predict_images(predictor: Predictor, names: dict[pathlib.Path, str], output: pathlib.Path,
                    formats: Sequence[str], axes: str) -> Iterator[Outcome]:
  """Predicts image files, as many at a time as the predictor takes."""
  paths = list(names)
  for start in range(0, len(paths), predictor.batch_size):
    pictures = {}
    for path in paths[start:start + predictor.batch_size]:
      try:
        if volumes.is_volume(path):
          raise ValueError(f'{path}: this is a volume, but the run was trained on images.')
        pictures[path] = images.read_picture(path, predictor.config.data.channels)
      except (ValueError, OSError) as error:
        yield Outcome(path, str(error))
    predictions = predict_images(predictor, [picture.pixels for picture in pictures.values()])
    for (path, picture), prediction in zip(pictures.items(), predictions):
      name, notes = names[path], tuple(picture.notes)
      _write_pictures(predictor, prediction, picture.pixels, output, name)
      angle = measure_prediction(predictor, prediction.mask, picture.spacing,
                                 probs=prediction.probs)
      if angle is not None:
        case = handoff.Case(
            name, prediction.mask, angle, tuple(predictor.config.data.classes),
            spacing=known_spacing(predictor, picture.spacing), axes=axes or handoff.AXES,
            source=path)
        notes += _write_case(output, case, picture.pixels, formats)
      yield Outcome(path, '', notes, angle)


def _write_pictures(predictor: Predictor, prediction: Prediction, image: np.ndarray,
                    output: pathlib.Path, name: str) -> None:
  """Writes the mask and the pictures of an image."""
  Image.fromarray(prediction.mask).save(output / f'{name}_mask.png')
  overlays.save_overlay(output / f'{name}_overlay.png', image[..., 0], prediction.mask,
                        tuple(predictor.config.data.classes))
  if predictor.config.evaluation.interlaced:
    interlaced = overlays.interlace(image, prediction.mask)
    Image.fromarray(interlaced).save(output / f'{name}_interlaced.png')
  if prediction.styled is not None:
    Image.fromarray(colors.to_bytes(prediction.styled)).save(output / f'{name}_styled.png')


def _predict_volumes(predictor: Predictor, names: dict[pathlib.Path, str], output: pathlib.Path,
                     formats: Sequence[str], axes: str) -> Iterator[Outcome]:
  """Predicts volume files one after the other."""
  for path, name in names.items():
    try:
      yield _predict_volume(predictor, path, output, name, formats, axes)
    except (ValueError, OSError) as error:
      yield Outcome(path, str(error))


def _predict_volume(predictor: Predictor, path: pathlib.Path, output: pathlib.Path, name: str,
                    formats: Sequence[str], axes: str) -> Outcome:
  """Predicts a volume file and writes its files."""
  data = predictor.config.data
  if not volumes.is_volume(path):
    raise ValueError(f'{path}: this is not a volume ({", ".join(volumes.KINDS)}), but the run was '
                     'trained on volumes.')
  volume = volumes.read_volume(path, axes or data.axes)
  try:
    found = predict_volume(predictor, volume.array, volume.spacing)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None
  suffix = contents.suffix_of(path, volumes.KINDS)
  volumes.write_mask(output / f'{name}_mask{suffix}', found.mask, volume.geometry)
  landmarks.write_landmarks(output / f'{name}_centroids.csv', found.centroids, volume.geometry)
  overlays.save_overlay(output / f'{name}_overlay.png', _project(colors.stretch(found.grid_image)),
                        _project(found.grid_mask), tuple(data.classes))
  angle = measure_prediction(predictor, found.mask, volume.spacing, points=found.centroids)
  notes = found.notes
  if angle is not None:
    case = handoff.Case(name, found.mask, angle, tuple(data.classes), geometry=volume.geometry,
                        points=found.centroids)
    notes += _write_case(output, case, colors.stretch(volume.array), formats)
  return Outcome(path, '', notes, angle)


def _project(array: np.ndarray) -> np.ndarray:
  """Coronal and sagittal projection of [D,H,W] side by side, [D,H+W]."""
  return np.concatenate([array.max(2), array.max(1)], axis=1)


def _write_case(output: pathlib.Path, case: handoff.Case, image: np.ndarray,
                formats: Sequence[str]) -> tuple[str, ...]:
  """Writes the page of a measured case and its files in `formats`; returns their notes."""
  pages.write_case(output, case.name, image, case.mask, case.result, case.classes)
  return handoff.write_formats(output, case, formats)
