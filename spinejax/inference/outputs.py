"""Files of the user, predicted into a folder: masks, overlays, angles, files for other programs."""
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from spinejax.inference import predictor as inference
from spinejax.readers import files
from spinejax.readers import landmarks
from spinejax.readers import volumes
from spinejax.report import cases
from spinejax.report import figures
from spinejax.handoff import files as handoff


class Outcome(NamedTuple):
  """What became of a file.

  Attributes:
    path: of the file.
    fault: a sentence if it could not be predicted.
    notes: what there is to say.
    angle: result of `measure`, None where none was asked for.
  """
  path: pathlib.Path
  fault: str = ''
  notes: tuple[str, ...] = ()
  angle: dict[str, Any] | None = None


def predict_files(predictor: inference.Predictor, paths: Sequence[pathlib.Path],
                  output: pathlib.Path, formats: Sequence[str] = ()) -> Iterator[Outcome]:
  """Predicts files into `output`, one outcome for each; a file at fault is left out.

  Of an image: NAME_mask.png, NAME_overlay.png, NAME_interlaced.png where the config asks for it,
  and NAME_styled.png after a style transfer. Of a volume: NAME_mask in its own format and geometry,
  NAME_centroids.csv (voxels of the file and, if its spacing is known, LPS millimeters) and
  NAME_overlay.png, coronal and sagittal projection. With config.angle also NAME_angle.json, .png
  and .html, and at the end angles.csv, angles_curves.csv and index.html of all of them.

  Args:
    predictor: of the run.
    paths: the files.
    output: a folder that exists.
    formats: of `handoff.FORMATS`, to be written of every case too.
  """
  names, results = files.unique_names(paths), {}
  predict = _predict_volume_files if len(predictor.config.data.image_size) == 3 else (
      _predict_image_files)
  for outcome in predict(predictor, paths, output, names, formats):
    if outcome.angle is not None:
      results[names[outcome.path]] = outcome.angle
    yield outcome
  if results:
    cases.write_index(output, results)


def _predict_image_files(predictor, paths, output, names, formats) -> Iterator[Outcome]:
  for start in range(0, len(paths), predictor.batch_size):
    pictures = {}
    for path in paths[start:start + predictor.batch_size]:
      try:
        if files.is_volume(path):
          raise ValueError(f'{path}: this is a volume, but the run was trained on images.')
        pictures[path] = files.read_picture(path, predictor.config.data.channels)
      except (ValueError, OSError) as error:
        yield Outcome(path, str(error))
    images = [picture.pixels for picture in pictures.values()]
    for (path, picture), prediction in zip(
        pictures.items(), inference.predict_images(predictor, images)):
      _write_image_files(predictor, prediction, picture.pixels, output, names[path])
      result = inference.measure_prediction(
          predictor, prediction.mask, picture.spacing, probs=prediction.probs)
      notes = tuple(picture.notes)
      if result is not None:
        notes += cases.write_case(
            output, names[path], picture.pixels, prediction.mask, result,
            tuple(predictor.config.data.classes), formats=formats, source=path,
            spacing=inference.known_spacing(predictor.config, picture.spacing),
            axes=predictor.config.data.get('axes') or handoff.AXES)
      yield Outcome(path, '', notes, result)


def _predict_volume_files(predictor, paths, output, names, formats) -> Iterator[Outcome]:
  for path in paths:
    try:
      yield _predict_volume_file(predictor, path, output, names[path], formats)
    except (ValueError, OSError) as error:
      yield Outcome(path, str(error))


def _write_image_files(predictor: inference.Predictor, prediction: inference.Prediction,
                       image: np.ndarray, output: pathlib.Path, name: str) -> None:
  Image.fromarray(prediction.mask.astype(np.uint8)).save(output / f'{name}_mask.png')
  figures.save_overlay(output / f'{name}_overlay.png', image[..., 0], prediction.mask,
                       classes=tuple(predictor.config.data.classes))
  if predictor.config.evaluation.get('interlaced', False):
    Image.fromarray(figures.interlace(image, prediction.mask)).save(
        output / f'{name}_interlaced.png')
  if prediction.styled is not None:
    gray = np.clip(np.rint(prediction.styled), 0, 255).astype(np.uint8)
    Image.fromarray(gray[..., 0] if gray.shape[-1] == 1 else gray).save(
        output / f'{name}_styled.png')


def _predict_volume_file(predictor: inference.Predictor, path: pathlib.Path, output: pathlib.Path,
                         name: str, formats: Sequence[str]) -> Outcome:
  """Writes the files of a volume."""
  data = predictor.config.data
  if not files.is_volume(path):
    raise ValueError(f'{path}: this is no volume ({", ".join(volumes.KINDS)}), but the run was '
                     'trained on volumes.')
  volume = volumes.read_volume(path, data.get('axes', ''))
  try:
    result = inference.predict_volume(predictor, volume.array, volume.spacing)
  except ValueError as error:
    raise ValueError(f'{path}: {error}') from None
  volumes.write_mask(output / f'{name}_mask{volumes.suffix_of(path)}', result.mask, volume.geometry)
  landmarks.write_landmarks(output / f'{name}_centroids.csv', result.centroids, volume.geometry)
  image, mask = result.grid
  side_by_side = lambda array: np.concatenate([array.max(2), array.max(1)], axis=1)
  figures.save_overlay(output / f'{name}_overlay.png', side_by_side(figures.stretch(image)),
                       side_by_side(mask), classes=tuple(data.classes))
  angle = inference.measure_prediction(
      predictor, result.mask, volume.spacing, points=result.centroids)
  notes = result.notes
  if angle is not None:
    notes += cases.write_case(
        output, name, figures.stretch(volume.array), result.mask, angle, tuple(data.classes),
        formats=formats, geometry=volume.geometry, points=result.centroids)
  return Outcome(path, '', notes, angle)
