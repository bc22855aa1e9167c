"""The papers' test protocol: whole images, at their original size, to tables, figures and masks."""
import pathlib
import time
from typing import Any, NamedTuple

from ml_collections import ConfigDict
import numpy as np
from PIL import Image
from rich.console import Console

from spinejax.inference import predictor as inference
from spinejax import logs
from spinejax import runs
from spinejax.inference import styles
from spinejax.data import datasets
from spinejax.data import resize
from spinejax import phantoms
from spinejax.metrics import agreement
from spinejax.metrics import laminae
from spinejax.metrics import roc
from spinejax.metrics import segmentation
from spinejax.report import figures
from spinejax.report import html
from spinejax.report import tables

CORONAL = 'coronal projection'
LABEL_NOISE = (0.5, 0.7, 1.0)  # voxels along each axis, of annotators who place cubes


def evaluate(config: ConfigDict, workdir: str, *, checkpoint: str = 'best') -> dict[str, Any]:
  """Tests a run and writes test_metrics.json, predictions/NAME.png and report/index.html.

  With config.angle also predictions/NAME_angle.json; a wave_ct network leaves styles.npz behind,
  the styles of its training images.

  Args:
    config: the run's config; it must be the one in `workdir`.
    workdir: the run folder.
    checkpoint: 'best' by validation score (the last one where there are no validation cases), or
      'last'.

  Returns:
    What test_metrics.json holds: `per_image` and `pooled` as `segmentation.summarize`, `cases`
    {name: `segmentation.case_metrics`}, each with `any_foreground` where there are several, the classes
    above 0 as one; `auc` {class: area}; `at_network_size` with the mean `cross_entropy` and the
    `accuracy` over pixels of the network's own images; and the `step` of the checkpoint; of
    volumes also `laminae`, as `laminae.summarize`, with `localizer_dice` {noise in voxels: Dice of
    a perfect localizer} where the labels are cubes; with config.angle also `angles`: method,
    reference ('phantom truth' or 'true masks'), number of cases failed, `agreement` and `naive`
    (largest angle between the lines themselves) as `agreement.agree`, and `cases`. Without
    test cases the tables are empty and the report says so.

  Raises:
    ValueError: the run has another config or its data changed; FileNotFoundError: nothing trained.
  """
  console, started = Console(), time.perf_counter()
  folder = pathlib.Path(workdir)
  runs.check(workdir, 'config', config)
  styles.uses_style_transfer(config)
  inference.angle_options(config)
  cases = datasets.load_dataset(config.data)
  info = runs.load_dataset_info(workdir)
  runs.check(workdir, 'dataset', {**info, **datasets.describe(cases)})
  predictor = inference.load_predictor(workdir, checkpoint=checkpoint, training=cases['train'])
  classes, test = tuple(config.data.classes), cases['test']

  results: dict[str, Any] = {
      'step': predictor.step, 'per_image': {}, 'pooled': {}, 'cases': {}, 'auc': {}}
  curves, shown = {}, []
  if len(test):
    tested = _test(predictor, test, classes, folder / 'predictions', console)
    curves = roc.summarize(tested.histograms)
    results |= _overlap(tested.counts, test.names, classes)
    if len(classes) > 2:
      _add_any_foreground(results, _overlap(tested.any_foreground, test.names, (classes[0], 'any_foreground')))
    results['auc'] = {name: curve['auc'] for name, curve in curves.items()}
    results['at_network_size'] = {
        'cross_entropy': float(np.mean(tested.cross_entropies)),
        'accuracy': float(np.sum(tested.correct) / np.sum(tested.seen))}
    if tested.angles:
      results['angles'] = _compare_angles(tested)
    if tested.laminae:
      results['laminae'] = laminae.summarize(tested.laminae)
      if config.data.get('labels', 'cubes') == 'cubes':
        results['laminae']['localizer_dice'] = {
            f'{noise:g}': float(phantoms.localizer_dice(noise)) for noise in LABEL_NOISE}
    shown = _shown_cases(predictor, test, results['cases'], tested.angles)
  runs.write_json(folder / 'test_metrics.json', results)
  runs.add_durations(workdir, {'test': time.perf_counter() - started})
  how = ' after style transfer' if predictor.transfer is not None else ''
  page = html.write_report(
      folder / 'report', title=f'{config.model.name}{how}, step {predictor.step}',
      config=runs.plain(config), manifest={**runs.read_manifest(workdir), **info},
      history=logs.read_metrics(workdir), results=results if len(test) else None,
      roc=curves, cases=shown, classes=classes)
  if len(test):
    tables.print_results(results, classes, console=console)
    tables.print_laminae(results.get('laminae'), console=console)
    tables.print_angles(results.get('angles'), console=console)
  else:
    console.print('There are no test cases: nothing was tested.')
  console.print(f'Report: {page}', highlight=False, soft_wrap=True)
  return results


def _overlap(counts: np.ndarray, names: tuple[str, ...], classes: tuple[str, ...]
             ) -> dict[str, Any]:
  """`per_image`, `pooled` and `cases` of counts [cases, K, 3]."""
  pixels = counts[:, :, [0, 2]].sum(axis=(1, 2))
  return {**segmentation.summarize(counts, pixels, classes),
          'cases': {name: segmentation.case_metrics(*case, classes)
                    for name, case in zip(names, zip(counts, pixels))}}


def _add_any_foreground(results: dict[str, Any], binary: dict[str, Any]) -> None:
  """Puts the class 'any_foreground' of a binary table into the tables of all classes."""
  tables_of = lambda table: [table['per_image'], table['pooled'], *table['cases'].values()]
  for table, other in zip(tables_of(results), tables_of(binary)):
    for metric, values in other.items():
      if 'any_foreground' in values:
        table[metric]['any_foreground'] = values['any_foreground']


class _Tested(NamedTuple):
  """What the test cases gave, in their order.

  Attributes:
    counts: int64 [cases, K, 3] at the original size, as `segmentation.confusion_counts`.
    any_foreground: int64 [cases, 2, 3], of the classes above 0 as one.
    histograms: of scores, by class.
    laminae: metrics of volumes, by case.
    angles: results of `measure`, by case, and the angles they are compared with: exact ones of
      phantoms, else those of the true masks, None where these have none.
    cross_entropies, correct, seen: at the network's size, of each case: mean over pixels, pixels
      of the right class, pixels.
  """
  counts: np.ndarray
  any_foreground: np.ndarray
  histograms: dict[str, np.ndarray]
  laminae: dict[str, Any]
  angles: dict[str, Any]
  true_angles: dict[str, float | None]
  are_exact: bool
  cross_entropies: list[float]
  correct: list[int]
  seen: list[int]


def _test(predictor: inference.Predictor, test: datasets.Source, classes: tuple[str, ...],
          folder: pathlib.Path, console: Console) -> _Tested:
  """Predicts the test cases and writes their masks."""
  folder.mkdir(parents=True, exist_ok=True)
  counts, any_foreground, found, entropies, correct, seen = [], [], {}, [], [], []
  histograms: dict[str, np.ndarray] = {}
  angles, true_angles, are_exact = {}, {}, False
  with logs.progress_of('testing', len(test), console) as progress:
    for start in range(0, len(test), predictor.batch_size):
      records = [test[i] for i in range(start, min(start + predictor.batch_size, len(test)))]
      images = [record['image'] for record in records]
      for record, prediction in zip(records, inference.predict_images(predictor, images)):
        label, mask, logits = record['label'], prediction.mask, prediction.logits
        counts.append(segmentation.confusion_counts(mask[None], label[None], len(classes))[0])
        any_foreground.append(segmentation.confusion_counts(
            (mask > 0).astype(np.uint8)[None], label[None], 1)[0])
        for name, histogram in roc.class_histograms(prediction.probs, label, classes).items():
          histograms[name] = histograms.get(name, 0) + histogram
        small = resize.resize_nearest(label, logits.shape[:-1])
        entropies.append(segmentation.cross_entropy(logits, small))
        correct.append(int(np.sum(segmentation.predict_labels(logits) == small)))
        seen.append(small.size)
        if label.ndim == 3:
          found[record['name']] = laminae.case_metrics(
              mask, label, spacing=record['spacing'],
              landmarks=record.get('landmarks'), region=record.get('region'))
        result = inference.measure_prediction(
            predictor, mask, record['spacing'], probs=prediction.probs)
        if result is not None:
          name, method = record['name'], predictor.config.angle.method
          angles[name], are_exact = result, method in record.get('true_angles', {})
          if are_exact:
            true_angles[name] = record['true_angles'][method]
          else:
            truth: Any = inference.measure_prediction(predictor, label, record['spacing'])
            true_angles[name] = truth['major_deg']
          runs.write_json(folder / f'{name}_angle.json', result)
        _write_mask(folder / record['name'], mask, record['spacing'])
        progress.advance()
  return _Tested(np.stack(counts), np.stack(any_foreground), histograms, found, angles, true_angles,
                 are_exact, entropies, correct, seen)


def _compare_angles(tested: _Tested) -> dict[str, Any]:
  """The largest angle of each case against its reference, and the naive angle too."""
  naive = {name: result.get('naive_deg') if result['status'] != 'fail' else None
           for name, result in tested.angles.items()}
  cases = {name: {'reference_deg': tested.true_angles[name], 'angle_deg': result['major_deg'],
                  'naive_deg': naive[name], 'band': result['band'], 'status': result['status'],
                  'flags': result['flags']}
           for name, result in tested.angles.items()}
  columns = lambda key: [case[key] for case in cases.values()]
  reference = columns('reference_deg')
  return {
      'method': next(iter(tested.angles.values()))['method'],
      'reference': 'phantom truth' if tested.are_exact else 'true masks',
      'failed': columns('status').count('fail'),
      'agreement': agreement.agree(reference, columns('angle_deg')),
      'naive': agreement.agree(reference, columns('naive_deg'))
               if any(value is not None for value in naive.values()) else None,
      'cases': cases}


def _write_mask(path: pathlib.Path, mask: np.ndarray, spacing: np.ndarray) -> None:
  """NAME.png of a mask [H, W]; NAME.npz of a volume [D, H, W], with its spacing in mm."""
  mask = mask.astype(np.uint8)
  if mask.ndim == 2:
    Image.fromarray(mask).save(f'{path}.png')
  else:
    np.savez_compressed(f'{path}.npz', mask=mask, spacing=spacing)


def _views(image: np.ndarray, *others: np.ndarray) -> dict[str, list[np.ndarray]]:
  """Pictures of arrays [H, W, ...], or of volumes [D, H, W, ...] from three sides.

  Coronal and sagittal views are maximum projections, along the third axis and the second; the slice
  is the coronal plane with the most of the second array, the truth.
  """
  if others[0].ndim == 2:
    return {'': [image, *others]}
  arrays = [figures.stretch(image), *others]
  plane = int(np.argmax((others[0] > 0).sum((0, 1))))
  return {CORONAL: [array.max(2) for array in arrays],
          'sagittal projection': [array.max(1) for array in arrays],
          f'coronal slice {plane}': [array[:, :, plane] for array in arrays]}


def _shown_cases(predictor: inference.Predictor, test: datasets.Source,
                 metrics: dict[str, Any], angles: dict[str, Any]) -> list[dict[str, Any]]:
  """The best, the median and the worst test case by mean Dice of the bones, with their pictures."""
  dice = [metrics[name]['dice']['mean_foreground'] for name in test.names]
  order = sorted((i for i, value in enumerate(dice) if value is not None), key=lambda i: -dice[i])
  if not order:
    return []
  chosen = {order[0]: 'best', order[-1]: 'worst', order[len(order) // 2]: 'median'}
  if len(order) < 3:
    chosen = {index: role for index, role in zip(order, ('best', 'worst'))}
  shown = []
  for index, role in sorted(chosen.items(), key=lambda item: -dice[item[0]]):
    record = test[index]
    prediction, = inference.predict_images(predictor, [record['image']])
    views = _views(record['image'][..., 0], record['label'], prediction.mask, prediction.probs)
    for view, (image, label, mask, probs) in views.items():
      name = f'{record["name"]}, {view}' if view else record['name']
      shown.append({'name': name, 'role': role, 'image': image, 'label': label,
                    'prediction': mask, 'probs': probs, 'dice': dice[index],
                    'angle': angles.get(record['name']) if view in ('', CORONAL) else None,
                    'interlaced': predictor.config.evaluation.get('interlaced', False)})
  return shown
