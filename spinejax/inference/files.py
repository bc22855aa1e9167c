"""Prediction of the user's files: masks, overlays, angles, and files for other programs."""
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from spinejax import colors, handoff
from spinejax.inference.load import Predictor
from spinejax.inference.measure_files import Outcome, write_case, write_tables
from spinejax.inference.predict import (Prediction, known_spacing, measure_prediction,
                                        predict_images, predict_volume)
from spinejax.readers import contents, images, landmarks, layouts, volumes
from spinejax.report import overlays, stages, style


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
      results[outcome.name] = outcome.angle
    yield outcome
  write_tables(output, results)


def _predict_images(predictor: Predictor, names: dict[pathlib.Path, str], output: pathlib.Path,
                    formats: Sequence[str], axes: str) -> Iterator[Outcome]:
  """Predicts image files, as many at a time as the predictor takes."""
  paths, classes = list(names), tuple(predictor.config.data.classes)
  for start in range(0, len(paths), predictor.batch_size):
    pictures = {}
    for path in paths[start:start + predictor.batch_size]:
      try:
        if volumes.is_volume(path):
          raise ValueError(f'{path}: this is a volume, but the run was trained on images.')
        pictures[path] = images.read_picture(path, predictor.config.data.channels)
      except (ValueError, OSError) as error:
        yield Outcome(path, names[path], str(error))
    predictions = predict_images(predictor, [picture.pixels for picture in pictures.values()])
    for (path, picture), prediction in zip(pictures.items(), predictions):
      name, notes = names[path], tuple(picture.notes)
      _write_pictures(predictor, prediction, picture.pixels, output, name)
      angle = measure_prediction(predictor, prediction.mask, picture.spacing,
                                 probs=prediction.probs)
      if angle is not None:
        spacing = known_spacing(predictor, picture.spacing)
        case = handoff.Case(name, prediction.mask, angle, classes, spacing=spacing,
                            axes=axes or handoff.AXES, source=path)
        notes += write_case(output, case, picture.pixels, formats)
      yield Outcome(path, name, notes=notes, angle=angle)


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
      yield Outcome(path, name, str(error))


def _predict_volume(predictor: Predictor, path: pathlib.Path, output: pathlib.Path, name: str,
                    formats: Sequence[str], axes: str) -> Outcome:
  """Predicts a volume file and writes its files."""
  data, classes = predictor.config.data, tuple(predictor.config.data.classes)
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
  # Coronal and sagittal projections side by side.
  image, mask = (np.concatenate([array.max(2), array.max(1)], axis=1)
                 for array in (colors.stretch(found.grid_image), found.grid_mask))
  overlays.save_overlay(output / f'{name}_overlay.png', image, mask, classes)
  style.save_png(output / f'{name}_preparation.png', stages.preparation_figure(
      volume.array, found.steps, volume.spacing))
  angle, notes = measure_prediction(
      predictor, found.mask, volume.spacing, points=found.centroids), found.notes
  if angle is not None:
    case = handoff.Case(name, found.mask, angle, classes, geometry=volume.geometry,
                        points=found.centroids)
    notes += write_case(output, case, colors.stretch(volume.array), formats)
  return Outcome(path, name, notes=notes, angle=angle)
