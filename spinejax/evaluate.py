"""The test protocol of the papers: whole images, at their original size."""
import dataclasses
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict
from PIL import Image
from rich.console import Console

from spinejax import colors, logs, phantoms, runs
from spinejax.config import check_config
from spinejax.data import datasets, resize
from spinejax.inference import load, maps, predict
from spinejax.measurement.results import AngleResult
from spinejax.metrics import agreement, laminae, roc, segmentation
from spinejax.metrics.results import (
    AngleSummary, CaseAngle, CaseResult, Evaluation, NetworkScores, RegionTable, SecondsPerImage,
    ShownCase, TestResult, best_median_worst)
from spinejax.readers.records import Record
from spinejax.report import overlays

CORONAL = 'coronal projection'
LABEL_NOISE = (0.5, 0.7, 1.0)  # voxels along each axis, of annotators who place cubes


@dataclasses.dataclass(frozen=True)
class ScoredCase:
  """What one test case contributes to the result."""
  name: str
  counts: np.ndarray          # int64 [K,3] at the original size
  cross_entropy: float        # mean over the pixels at the network's size
  num_correct: int            # pixels of the right class at the network's size
  num_pixels: int             # at the network's size
  laminae: RegionTable | None
  angle: AngleResult | None   # of the predicted mask, if the config asks for it
  reference_deg: float | None  # exact angle of a phantom, else that of the true mask
  is_exact: bool              # whether the reference is that of a phantom
  seconds: float | None = None  # of the prediction, see `SecondsPerImage`; None if not timed


def evaluate(config: ConfigDict, workdir: str, *, checkpoint: str = 'best',
             interlaced: bool = False) -> Evaluation:
  """Tests the 'best' (by validation score) or 'last' checkpoint of a run on its test cases.

  Writes test_metrics.json, roc.json and predictions/NAME.png (NAME.npz of volumes), with
  config.angle also predictions/NAME_angle.json and, if asked for, predictions/NAME_interlaced.png
  of each image (see `overlays.interlace`). A wave_ct network writes styles.npz, the styles of its
  training images. Without test cases the tables of the result are empty.

  Raises:
    ValueError: the run has another config or its data changed.
    FileNotFoundError: nothing was trained.
  """
  started = time.perf_counter()
  folder = pathlib.Path(workdir)
  runs.check(workdir, 'config', config)
  check_config(config)
  cases = datasets.load_dataset(config.data)
  info = runs.load_dataset_info(workdir)
  runs.check(workdir, 'dataset', {**info, **datasets.describe(cases)})
  predictor = load.load_predictor(workdir, checkpoint=checkpoint, training=cases['train'])

  classes, tested = tuple(config.data.classes), []
  histograms: dict[str, np.ndarray] = {}
  for record, prediction, seconds in _predict_cases(predictor, cases['test']):
    tested.append(dataclasses.replace(score_case(predictor, record, prediction), seconds=seconds))
    _write_prediction(folder / 'predictions', tested[-1], prediction.mask, record.spacing)
    if interlaced and prediction.mask.ndim == 2:
      Image.fromarray(overlays.interlace(record.image, prediction.mask)).save(
          folder / 'predictions' / f'{record.name}_interlaced.png')
    for name, histogram in roc.class_histograms(
        prediction.probs, _label_of(record), classes).items():
      histograms[name] = histograms.get(name, 0) + histogram
  curves = {name: roc.roc_curve(histogram) for name, histogram in histograms.items()}
  result = _summarize(predictor.step, tested, config)
  result = dataclasses.replace(result, auc={name: curve.auc for name, curve in curves.items()})
  shown = _show_cases(predictor, cases['test'], tested, result)
  roc.write_curves(folder / 'roc.json', curves)
  runs.write_json(folder / 'test_metrics.json', result.to_json())
  runs.add_durations(workdir, {'test': time.perf_counter() - started})
  return Evaluation(result, curves, shown)


def _predict_cases(predictor: load.Predictor, test: datasets.Source
                   ) -> Iterator[tuple[Record, predict.Prediction, float | None]]:
  """Each test case with its prediction and the seconds of `ScoredCase`, behind a progress bar."""
  if not len(test):
    return
  size = predictor.batch_size
  with logs.progress_of('testing', len(test), Console()) as progress:
    for start in range(0, len(test), size):
      records = [test[i] for i in range(start, min(start + size, len(test)))]
      began = time.perf_counter()
      predictions = list(predict.predict_images(predictor, [record.image for record in records]))
      is_timed = start > 0 and len(records) == size
      seconds = (time.perf_counter() - began) / size if is_timed else None
      for record, prediction in zip(records, predictions):
        yield record, prediction, seconds
        progress.advance()


def score_case(predictor: load.Predictor, record: Record, prediction: predict.Prediction
                ) -> ScoredCase:
  """Compares the prediction of a labelled case with its label, and measures its angle."""
  config, label, mask = predictor.config, _label_of(record), prediction.mask
  small = resize.resize_nearest(label, prediction.logits.shape[:-1])
  angle = predict.measure_prediction(predictor, mask, record.spacing, probs=prediction.probs)
  true_angles, reference = record.true_angles or {}, None
  is_exact = config.angle.method in true_angles
  if angle is not None and is_exact:
    reference = true_angles[config.angle.method]
  elif angle is not None:
    truth = predict.measure_prediction(predictor, label, record.spacing)
    reference = truth.major_deg if truth else None
  return ScoredCase(
      name=record.name,
      counts=segmentation.confusion_counts(mask[None], label[None], len(config.data.classes))[0],
      cross_entropy=segmentation.cross_entropy(prediction.logits, small),
      num_correct=int(np.sum(segmentation.predict_labels(prediction.logits) == small)),
      num_pixels=small.size,
      laminae=laminae.case_metrics(
          mask, label, cleaned=None if angle is None else laminae.clean(mask, angle.laminae),
          spacing=record.spacing, landmarks=record.landmarks, region=record.region)
      if label.ndim == 3 else None,
      angle=angle, reference_deg=reference, is_exact=is_exact)


def _label_of(record: Record) -> np.ndarray:
  """The true classes, which every test case has."""
  assert record.label is not None
  return record.label


def _write_prediction(folder: pathlib.Path, case: ScoredCase, mask: np.ndarray,
                      spacing: np.ndarray) -> None:
  """Writes NAME.png of a mask [H,W], or NAME.npz of a volume [D,H,W] with its spacing in mm."""
  folder.mkdir(parents=True, exist_ok=True)
  mask = mask.astype(np.uint8)
  if mask.ndim == 2:
    Image.fromarray(mask).save(folder / f'{case.name}.png')
  else:
    np.savez_compressed(folder / f'{case.name}.npz', mask=mask, spacing=spacing)
  if case.angle is not None:
    runs.write_json(folder / f'{case.name}_angle.json', case.angle.to_json())


def _summarize(step: int, cases: Sequence[ScoredCase], config: ConfigDict) -> TestResult:
  """The result of a test, without the areas under the ROC curves."""
  if not cases:
    return TestResult(step, {}, {}, {}, {})
  classes = tuple(config.data.classes)
  per_image, pooled = segmentation.summarize(
      np.stack([case.counts for case in cases]), classes, any_foreground=True)
  angles = {case.name: CaseAngle(
      reference_deg=case.reference_deg, angle_deg=case.angle.major_deg,
      naive_deg=case.angle.naive_deg if case.angle.status != 'fail' else None,
      band=case.angle.band, status=case.angle.status, flags=tuple(case.angle.flags))
            for case in cases if case.angle is not None}
  tables = [case.laminae for case in cases if case.laminae is not None]
  reached = {f'{noise:g}': float(phantoms.localizer_dice(noise))
             for noise in LABEL_NOISE} if tables and config.data.labels == 'cubes' else {}
  return TestResult(
      step, per_image, pooled, auc={},
      cases={case.name: CaseResult(
          case.name, segmentation.case_metrics(case.counts, classes, any_foreground=True),
          case.laminae, angles.get(case.name)) for case in cases},
      at_network_size=NetworkScores(
          cross_entropy=float(np.mean([case.cross_entropy for case in cases])),
          accuracy=sum(case.num_correct for case in cases) / sum(
              case.num_pixels for case in cases)),
      laminae=dataclasses.replace(laminae.summarize(tables), localizer_dice=reached)
      if tables else None, angles=_summarize_angles(cases, angles),
      seconds_per_image=_summarize_seconds(cases))


def _summarize_seconds(cases: Sequence[ScoredCase]) -> SecondsPerImage | None:
  seconds = [case.seconds for case in cases if case.seconds is not None]
  return SecondsPerImage(float(np.mean(seconds)), float(np.median(seconds)), len(seconds)
                         ) if seconds else None


def _summarize_angles(cases: Sequence[ScoredCase], angles: Mapping[str, CaseAngle]
                      ) -> AngleSummary | None:
  if not angles:
    return None
  reference = [angle.reference_deg for angle in angles.values()]
  measured = [angle.angle_deg for angle in angles.values()]
  naive = [angle.naive_deg for angle in angles.values()]
  return AngleSummary(
      method=next(case.angle.method for case in cases if case.angle),
      reference='phantom truth' if cases[0].is_exact else 'true masks',
      failed=sum(angle.status == 'fail' for angle in angles.values()),
      agreement=agreement.agree(reference, measured),
      naive=agreement.agree(reference, naive) if any(
          value is not None for value in naive) else None)


def _show_cases(predictor: load.Predictor, test: datasets.Source,
                cases: Sequence[ScoredCase], result: TestResult) -> tuple[ShownCase, ...]:
  """Pictures of the best, the median and the worst case by mean Dice of the foreground."""
  mapper = maps.create_mapper(predictor.run) if predictor.run else None
  scores = [result.cases[case.name].overlap['dice']['mean_foreground'] for case in cases]
  shown = []
  for index, role in best_median_worst(scores).items():
    case, record = cases[index], test[index]
    prediction, = predict.predict_images(predictor, [record.image])
    for view, (image, label, mask, probs) in _views(record, prediction).items():
      shown.append(ShownCase(
          f'{case.name}, {view}' if view else case.name, role, image, label, mask, probs,
          scores[index], case.angle if view in ('', CORONAL) else None,
          interlaced=not view and predictor.config.evaluation.interlaced,
          maps=maps.attention_maps(mapper, record.image, label) if mapper else None))
  return tuple(shown)


def _views(record: Record, prediction: predict.Prediction) -> dict[str, tuple[np.ndarray, ...]]:
  """Image, label, mask and probabilities of a case by view; an image has the one view ''.

  A volume has two maximum projections, and the coronal and the axial slice with the most
  foreground; the axial one has the skin on top.
  """
  image, label = record.image[..., 0], _label_of(record)
  if label.ndim == 2:
    return {'': (image, label, prediction.mask, prediction.probs)}
  arrays = colors.stretch(image), label, prediction.mask, prediction.probs
  plane, row = (int(np.argmax((label > 0).sum(axes))) for axes in ((0, 1), (1, 2)))
  return {CORONAL: tuple(array.max(2) for array in arrays),
          'sagittal projection': tuple(array.max(1) for array in arrays),
          f'coronal slice {plane}': tuple(array[:, :, plane] for array in arrays),
          f'axial slice {row}': tuple(array[row].swapaxes(0, 1) for array in arrays)}
