"""HTML pages of runs, comparisons, agreements and measured cases.

A page contains its figures and its style: the file can be moved, sent and printed by itself.
"""
import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from rich.console import Console

from spinejax import colors, logs, runs
from spinejax.measurement.results import AngleResult
from spinejax.metrics.comparison import Comparison
from spinejax.metrics.paired_tables import TableAgreement
from spinejax.metrics.results import CaseResult, ComparedCase, Evaluation, ShownCase
from spinejax.metrics.robustness import Stress
from spinejax.report import compared_case, curves, formats, maps, overlays, style, terminal
from spinejax.version import __version__

METRICS = {'dice': 'Dice', 'iou': 'IoU', 'recall': 'Recall', 'precision': 'Precision',
           'accuracy': 'Accuracy'}
METHODS = {'uca': 'ultrasound curve angle (UCA)', 'spa': 'spinous process angle (SPA)',
           'center of lamina': 'center-of-lamina angle', 'centerline Cobb': 'centerline Cobb angle',
           'landmark Cobb': 'Cobb angle of landmarks'}
STATUSES = {'ok': 'measured', 'partial': 'use with care', 'fail': 'no angle'}
FACTS = {'command': 'Command', 'date': 'Date', 'seed': 'Seed', 'num_parameters': 'Parameters',
         'devices': 'Devices', 'host': 'Host', 'fingerprint': 'Hash of the data',
         'mean': 'Mean gray level', 'std': 'SD of gray levels', 'durations': 'Durations',
         'versions': 'Versions'}


def report_run(workdir: str | os.PathLike, config: ConfigDict, evaluation: Evaluation) -> None:
  """Prints the results of a test, writes the report of the run and prints its path."""
  console = Console()
  terminal.print_results(evaluation.result, tuple(config.data.classes), console)
  page = write_run_report(workdir, config, evaluation)
  console.print(f'Report: {page}', highlight=False, soft_wrap=True)


def write_run_report(workdir: str | os.PathLike, config: ConfigDict, evaluation: Evaluation
                     ) -> pathlib.Path:
  """Writes report/index.html of a run and returns its path.

  The training history, the manifest and the split are read from the run folder.
  """
  workdir = os.fspath(workdir)
  result, classes = evaluation.result, tuple(config.data.classes)
  dataset, manifest = runs.load_dataset_info(workdir), runs.read_manifest(workdir)
  *earlier_starts, start = manifest['starts'] or [{}]
  command = re.search(r'--config[= ](\S+)', start.get('command', ''))
  has_transfer = 'style_transfer' in config.model and config.model.style_transfer
  network = config.model.name + (' after style transfer' if has_transfer else '')
  facts = {'seed': config.seed, **manifest, **dataset, **start}
  hidden = ('starts', 'split', 'patients')
  shown_facts = {FACTS.get(key, key.replace('_', ' ').capitalize()): facts[key]
                 for key in dict.fromkeys((*FACTS, *facts))
                 if key not in hidden and facts.get(key) not in (None, {}, [])}
  return write_page(
      pathlib.Path(workdir) / 'report' / 'index.html', 'report.html',
      title=f'{network}, step {result.step}', is_phantom='phantom' in config.data.name,
      variant=command[1] if command else '', start=start, earlier_starts=earlier_starts,
      facts=shown_facts, dataset=dataset, config=json.dumps(runs.plain(config), indent=2),
      result=result, classes=classes, rows=formats.result_rows(result, classes),
      metrics={key: name for key, name in METRICS.items()
               if key in result.per_image or key in result.pooled},
      cases=sorted(result.cases.values(), key=_rank),
      areas=', '.join(f'{name.replace("_", " ")} AUC {formats.format_value(curve.auc)}'
                      for name, curve in evaluation.roc.items()),
      figures=_run_figures(logs.read_metrics(workdir), evaluation, classes),
      shown_cases=[(case, _case_figures(case, classes)) for case in evaluation.shown_cases])


def write_comparison(folder: str | os.PathLike, found: Comparison,
                     cases: Sequence[ComparedCase] = ()) -> pathlib.Path:
  """Writes index.html and its pictures, and returns the path of the page.

  The pictures are box_METRIC.png, roc.png if the curves are known, and case_NAME.png. The folder is
  made if absent; pictures of an older page are removed.
  """
  folder = open_folder(folder, 'box_*.png', 'roc.png', 'case_*.png')
  plots = []
  for metric in found.metrics:
    if metric.main:
      figure = curves.box_figure(metric.values, metric.name)
      style.save_png(folder / f'box_{_file_name(metric.key)}.png', figure)
      medians = ', '.join(f'{run} {_median(values, metric.digits)}'
                          for run, values in metric.values.items())
      plots.append((figure, f'{metric.name} of each run; medians: {medians}'))
  roc = curves.joint_roc_figure(found.roc, found.classes) if found.roc else None
  if roc:
    style.save_png(folder / 'roc.png', roc)
  pictures = [(case, compared_case.compared_figure(case, found.classes)) for case in cases]
  for i, (case, figure) in enumerate(pictures):
    style.save_png(folder / f'case_{i + 1}_{_file_name(case.name)}.png', figure, tight=True)
  first, *others = found.runs
  return write_page(folder / 'index.html', 'comparison.html', is_phantom=found.is_phantom,
                    title=f'{first} against {", ".join(others)}', comparison=found, plots=plots,
                    roc=roc, pictures=pictures)


def write_stress(folder: str | os.PathLike, found: Stress, sample: str,
                 images: Mapping[str, Sequence[np.ndarray]]) -> pathlib.Path:
  """Writes stress.png, stress_samples.png and index.html, and returns the path of the page.

  `images` are the phantom called `sample` at every strength, uint8 [H,W], by artifact.
  """
  folder = open_folder(folder)
  figure = curves.stress_figure(found)
  samples = overlays.samples_figure(
      {formats.stress_name(artifact): pictures for artifact, pictures in images.items()},
      [f'strength {strength:g}' for strength in found.strengths])
  style.save_png(folder / 'stress.png', figure)
  style.save_png(folder / 'stress_samples.png', samples)
  return write_page(folder / 'index.html', 'stress.html', is_phantom=True, found=found,
                    title=f'Stress suite of {", ".join(found.workdirs)}', figure=figure,
                    sample=sample, samples=samples)


def write_agreement(folder: str | os.PathLike, found: TableAgreement) -> pathlib.Path:
  """Writes agreement.json, bland_altman.png, scatter.png and index.html; returns the page's path.

  With several angles each has its pictures, bland_altman_NUMBER_COLUMN.png and so on. The folder is
  made if absent; pictures of an older page are removed.
  """
  folder = open_folder(folder, 'bland_altman*.png', 'scatter*.png')
  runs.write_json(folder / 'agreement.json', found.to_json())
  names, pictures = (found.reference.name, found.other.name), []
  for i, (column, agreement) in enumerate(found.angles.items()):
    first, second = ([case[of][i] for case in found.cases.values()]
                     for of in ('reference', 'other'))
    pictures.append({'bland_altman': curves.bland_altman(first, second, agreement, names),
                     'scatter': curves.scatter(first, second, agreement, names)})
    suffix = f'_{i + 1}_{_file_name(column)}' if len(found.angles) > 1 else ''
    for kind, figure in pictures[-1].items():
      style.save_png(folder / f'{kind}{suffix}.png', figure)
  titles = formats.agreement_titles(found)
  return write_page(folder / 'index.html', 'agreement.html', is_phantom=False, found=found,
                    title=f'{names[1]} against {names[0]}', version=__version__,
                    angles=list(zip(titles, found.angles.values(), pictures)))


def write_case(folder: str | os.PathLike, name: str, image: np.ndarray | None, mask: np.ndarray,
               result: AngleResult, classes: Sequence[str]) -> None:
  """Writes NAME_angle.json (the result), NAME_angle.png and NAME_angle.html of a measured case.

  Volumes [D,H,W] are shown as their coronal projections. The folder must exist; the other arguments
  are those of `overlays.angle_figure`.
  """
  folder = pathlib.Path(folder)
  if mask.ndim == 3:
    image, mask = None if image is None else image.max(2), mask.max(2)
  runs.write_json(folder / f'{name}_angle.json', result.to_json())
  figure = overlays.angle_figure(image, mask, result, classes)
  style.save_png(folder / f'{name}_angle.png', figure, tight=True)
  write_page(folder / f'{name}_angle.html', 'case.html', title=name, is_phantom=False,
             figure=figure, result=result, method=METHODS.get(result.method, result.method),
             status=STATUSES[result.status],
             curves=sorted(result.curves, key=lambda curve: -curve.angle_deg))


def write_index(folder: str | os.PathLike, results: Mapping[str, AngleResult]) -> pathlib.Path:
  """Writes index.html with a line and a link for every case of `write_case`; returns its path."""
  return write_page(pathlib.Path(folder) / 'index.html', 'cases.html', title='Angles',
                    is_phantom=False, results=results)


def write_page(path: pathlib.Path, template: str, **values: Any) -> pathlib.Path:
  """Renders a file of templates/ to `path`, atomically, and returns the path."""
  environment = jinja2.Environment(
      loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent / 'templates'),
      autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
  environment.filters.update(fixed=formats.format_value, signed=formats.format_difference)
  environment.globals.update(formats=formats, colors=colors, embed=style.embed,
                             maps_note=maps.maps_note)
  page = environment.get_template(template).render(**values)
  path.parent.mkdir(parents=True, exist_ok=True)
  runs.write_text(path, page)
  return path


def open_folder(folder: str | os.PathLike, *old: str) -> pathlib.Path:
  """The folder, made if absent, without the files of an older page."""
  folder = pathlib.Path(folder)
  if folder.exists() and not folder.is_dir():
    raise ValueError(f'--output must be a folder; {folder} is a file.')
  folder.mkdir(parents=True, exist_ok=True)
  for pattern in old:
    for file in folder.glob(pattern):
      file.unlink()
  return folder


def _file_name(text: str) -> str:
  return '_'.join(re.findall(r'[A-Za-z0-9]+', text))


def _median(values: Sequence[float | None], digits: int) -> str:
  defined = [value for value in values if value is not None]
  return formats.format_value(float(np.median(defined)) if defined else None, digits)


def _rank(case: CaseResult) -> tuple[bool, float, str]:
  """Sorts cases by Dice, the best first and undefined ones last."""
  dice = case.overlap.get('dice', {}).get('mean_foreground')
  return dice is None, -(dice or 0.0), case.name


def _run_figures(history: curves.History, evaluation: Evaluation, classes: Sequence[str]
                 ) -> dict[str, Figure]:
  """The charts of a run, without those that have nothing to show."""
  figures, result = {}, evaluation.result
  if history:
    figures['loss'] = curves.loss_figure(history)
  if any(key.startswith('dice/') for row in history for key in row):
    figures['validation'] = curves.validation_figure(history, classes)
  if any('accuracy/mean_all' in row for row in history):
    figures['accuracy'] = curves.accuracy_figure(history)
  if evaluation.roc:
    figures['roc'] = curves.roc_figure(evaluation.roc, classes)
  if result.cases:
    figures['dice'] = curves.case_dice_figure(result.cases, classes)
  if result.angles and result.angles.agreement.pairs:
    cases = [case.angle for case in result.cases.values() if case.angle]
    angles = [case.reference_deg for case in cases], [case.angle_deg for case in cases]
    for name, draw in (('scatter', curves.scatter), ('bland_altman', curves.bland_altman)):
      figures[name] = draw(*angles, result.angles.agreement, ('true', 'measured'))
  return figures


def _case_figures(case: ShownCase, classes: Sequence[str]) -> dict[str, Figure]:
  figures = {'overlay': overlays.overlay_figure(case.image, case.label, case.prediction, classes,
                                                interlaced=case.interlaced),
             'probabilities': overlays.probability_figure(case.probs, classes)}
  if case.angle:
    figures['angle'] = overlays.angle_figure(case.image, case.prediction, case.angle, classes)
  if case.maps:
    figures['attention'] = maps.maps_figure(case.image, case.label, case.maps, classes)
    if case.maps.affinity is not None or case.maps.channels is not None:
      figures['weights'] = maps.weights_figure(case.maps, classes)
  return figures
