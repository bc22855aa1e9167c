"""Pages on a run and on a comparison: HTML that needs nothing else, on screen or on paper."""
import base64
import io
import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import matplotlib
import numpy as np
from markupsafe import escape
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from spinejax.report import agreement_figures
from spinejax.report import angle_figures
from spinejax.report import figures
from spinejax.report import tables

METRICS = {'dice': 'Dice', 'iou': 'IoU', 'recall': 'Recall', 'precision': 'Precision',
           'accuracy': 'Accuracy'}
ROLES = ('best', 'median', 'worst')
LABELS = {'command': 'Command', 'date': 'Date', 'seed': 'Seed', 'num_parameters': 'Parameters',
          'devices': 'Devices', 'host': 'Host', 'fingerprint': 'Hash of the data',
          'mean': 'Mean gray level', 'std': 'SD of gray levels', 'durations': 'Durations',
          'versions': 'Versions'}
_SHOWN_APART = ('starts', 'split', 'patients', 'variant', 'config')
_THEME = {figures.INK: 'var(--ink)', figures.MUTED: 'var(--muted)', figures.RULE: 'var(--rule)'}


def write_report(directory: str | os.PathLike, *, title: str, config: Mapping, manifest: Mapping,
                 history: Sequence[Mapping], results: Mapping | None, roc: Mapping | None,
                 cases: Sequence[Mapping], classes: Sequence[str]) -> pathlib.Path:
  """Writes index.html with every figure and table inside, and returns its path.

  Args:
    directory: folder of the page, made if absent; an older page is replaced at the end.
    title: heading of the page.
    config: nested dictionary of plain values; `config['data']['name']` containing 'phantom' puts
      the notice on computer-made cases at the top.
    manifest: what was run. Every entry is shown; known by name are `starts` [one dictionary per
      start of the program, the last one counts], `variant`, `command`, `date`, `seed`,
      `num_parameters`, `devices`, `host`, `versions` {package: version}, `durations` {phase:
      seconds}, `fingerprint` {split: hash}, `split` {split: [case names]} and `patients`.
    history: rows of metrics.jsonl (see `figures.loss_curves`), possibly empty.
    results: content of test_metrics.json, or None if nothing was tested.
    roc: {class: {'fpr', 'tpr', 'auc'}} or None.
    cases: pictured cases: name, role ('best', 'median' or 'worst'), image [H,W] or [H,W,C],
      label int [H,W] or None, prediction int [H,W], probs float [H,W,K] or None, dice (mean of
      bones, None if undefined), angle (result of `spinejax.measure`, None or absent).
      Cases of one name are shown once with all their roles.
    classes: class names by index, background first.
  """
  starts = list(manifest.get('starts') or [])
  facts = {'seed': config.get('seed'), **manifest, **(starts[-1] if starts else {})}
  results = results or {}
  scores = results.get('cases') or {}
  per_image, pooled = results.get('per_image') or {}, results.get('pooled') or {}
  metrics = {key: name for key, name in METRICS.items() if key in per_image or key in pooled}
  laminae, angles = results.get('laminae'), results.get('angles')
  laminae_columns = tables.laminae_columns(laminae)
  return write_page(
      pathlib.Path(directory) / 'index.html', 'report.html', title=title,
      config=json.dumps(config, indent=2, default=str), classes=classes,
      date=facts.get('date'), variant=_variant(facts), starts=starts[:-1],
      versions={name: version for name, version in (facts.get('versions') or {}).items()
                if name in ('spinejax', 'jax', 'python')},
      is_phantom='phantom' in str((config.get('data') or {}).get('name', '')),
      run=_describe_run(facts), splits=_describe_splits(facts),
      per_image=per_image, pooled=pooled, auc=results.get('auc') or {}, metrics=metrics,
      rows=tables.result_rows(results, classes), network_note=tables.network_note(results),
      scores=_sorted_scores(scores),
      has_undefined=tables.has_undefined([per_image, pooled, scores]),
      laminae=laminae, laminae_rows=tables.laminae_rows(laminae), laminae_columns=laminae_columns,
      laminae_scores=[metric for metric in ('missed', 'false', 'd3d_sum')
                      if metric in laminae_columns],
      localizer=next(iter(((laminae or {}).get('localizer_dice') or {}).items()), None),
      localizer_note=tables.localizer_note(laminae), angles=angles,
      angle_rows=tables.angle_rows(angles), angle_columns=tables.ANGLE_COLUMNS,
      angle_note=tables.angle_note(angles) if angles else '', naive_note=tables.NAIVE_NOTE,
      **_angle_charts(angles), **_charts(history, scores, roc, classes),
      cases=[_picture(index, case, scores, classes)
             for index, case in enumerate(_merge_roles(cases))])


def write_comparison(directory: str | os.PathLike, *, comparison: Mapping,
                     workdirs: Mapping[str, str], is_phantom: bool) -> pathlib.Path:
  """Writes index.html and the box plots as box_METRIC.png, and returns the path of the page.

  Args:
    directory: folder of the page, made if absent; box plots of an older page are removed.
    comparison: of `metrics.comparison.compare`.
    workdirs: {run: its folder}.
    is_phantom: whether the cases are computer-made.
  """
  folder = pathlib.Path(directory)
  folder.mkdir(parents=True, exist_ok=True)
  for old in folder.glob('box_*.png'):
    old.unlink()
  plots: list[dict[str, Any]] = []
  for metric in comparison['metrics']:
    if metric['main']:
      figure = figures.box_plot(metric['values'], metric['name'])
      name = re.sub(r'\W+', '_', metric['key'])
      figure.savefig(folder / f'box_{name}.png', dpi=150, facecolor='white')
      medians = ', '.join(f'{run} {tables.format_value(_median(values), metric["digits"])}'
                          for run, values in metric['values'].items())
      plots.append(embed(figure, f'box{len(plots)}',
                          f'{metric["name"]} of each run; medians: {medians}'))
  runs = comparison['runs']
  title = f'{runs[0]} against {", ".join(runs[1:])}'
  return write_page(
      folder / 'index.html', 'comparison.html', title=title, is_phantom=is_phantom,
      comparison=comparison, workdirs=workdirs, plots=plots,
      localizer_note=tables.localizer_note(comparison))


def _median(values: Sequence[float | None]) -> float | None:
  defined = [value for value in values if value is not None]
  return float(np.median(defined)) if defined else None


def write_page(path: pathlib.Path, template: str, **values: Any) -> pathlib.Path:
  """Writes a page, whole or not at all, into a folder made if absent; returns its path."""
  page = _environment().get_template(template).render(**values)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f'{path.name}.partial')
  try:
    partial.write_text(page, encoding='utf-8')
    partial.replace(path)
  finally:
    partial.unlink(missing_ok=True)
  return path


def figure_to_svg(figure: Figure, prefix: str, description: str) -> str:
  """A figure as an <svg> element that follows the page's colors and fonts.

  Args:
    figure: drawn with the colors INK, MUTED and RULE of `figures` where it should follow the page.
    prefix: put before every id, so that several figures fit in one page.
    description: read aloud in place of the picture.
  Pictures inside are stored losslessly, as gray or palette PNG where they have at most 256 colors.
  """
  text = io.StringIO()
  settings: Any = {'svg.fonttype': 'none', 'svg.hashsalt': prefix, 'image.composite_image': False}
  with matplotlib.rc_context(settings):
    figure.savefig(text, format='svg', facecolor='none', metadata={'Date': None})
  svg = text.getvalue()
  svg = svg[svg.index('<svg'):]
  svg = re.sub(r'<metadata>.*?</metadata>|<style.*?</style>', '', svg, flags=re.DOTALL)
  svg = re.sub(r' xmlns(:\w+)?="[^"]*"| version="[^"]*"', '', svg)
  svg = re.sub(r' (width|height)="[\d.]+pt"', '', svg)
  svg = re.sub(r' font-family: [^;"]*;', '', svg)
  used = set(re.findall(r'(?:url\(|href=")#([^")]*)', svg))
  svg = re.sub(r' id="([^"]*)"',
               lambda found: f' id="{prefix}-{found[1]}"' if found[1] in used else '', svg)
  svg = re.sub(r'(url\(|href=")#', rf'\1#{prefix}-', svg)
  svg = re.sub(r'xlink:href', 'href', svg)
  svg = re.sub(r'(?<=data:image/png;base64,)[^"]*', lambda found: base64.b64encode(
      shrink_png(base64.b64decode(found[0]))).decode(), svg)
  svg = re.sub(r'(?<=[ML] )(-?[\d.]+) (-?[\d.]+) *\n', _shorten_point, svg)
  for color, variable in _THEME.items():
    svg = svg.replace(color, variable)
  return svg.replace('<svg', f'<svg role="img" aria-label="{escape(description)}"', 1)


def shrink_png(data: bytes) -> bytes:
  """The same pixels as a smaller PNG: gray, a palette of at most 256 colors, or RGB if opaque."""
  image = Image.open(io.BytesIO(data)).convert('RGBA')
  if image.getchannel('A').getextrema() == (255, 255):
    image = image.convert('RGB')
    pixels = np.asarray(image).astype(np.int32)
    codes, indices = np.unique(pixels @ (1 << 16, 1 << 8, 1), return_inverse=True)
    if (pixels == pixels[..., :1]).all():
      image = Image.fromarray(pixels[..., 0].astype(np.uint8))
    elif len(codes) <= 256:
      image = Image.fromarray(indices.reshape(pixels.shape[:2]).astype(np.uint8), mode='P')
      image.putpalette(np.stack([codes >> 16, codes >> 8 & 255, codes & 255], -1)
                       .astype(np.uint8).tobytes())
  out = io.BytesIO()
  image.save(out, format='PNG', optimize=True)
  return out.getvalue()


def embed(figure: Figure, prefix: str, description: str) -> dict[str, Any]:
  """A figure as a template shows it: its `figure_to_svg` and its width in inches."""
  return {'svg': Markup(figure_to_svg(figure, prefix, description)),
          'width': float(figure.get_size_inches()[0])}


def _charts(history, scores, roc, classes) -> dict:
  """The page's four charts by name, None where there is nothing to draw."""
  areas = ', '.join(f'{name} AUC {tables.format_value(curve.get("auc"))}'
                    for name, curve in (roc or {}).items())
  has_loss = any(row.get('phase') in ('train', 'validation') for row in history)
  has_dice = any(str(key).startswith('dice/') for row in history for key in row)
  return {
      'loss_figure': embed(
          figures.loss_curves(history), 'loss',
          'Training and validation loss, and the learning rate, by step') if has_loss else None,
      'validation_figure': embed(
          figures.validation_curves(history, classes), 'validation',
          'Validation Dice by step, per class and mean') if has_dice else None,
      'roc_figure': embed(
          figures.roc_curves(roc, classes), 'roc',
          f'ROC curve per class: {areas}') if roc else None,
      'dice_figure': embed(
          figures.dice_by_case(scores, classes), 'dice',
          'Dice of every case by class as dots, median as a line') if scores else None,
  }


def _angle_charts(angles) -> dict:
  """The page's two charts of angles, None where there is nothing to draw."""
  if not tables.angle_rows(angles):
    return {'scatter_figure': None, 'bland_altman_figure': None}
  true, measured = ([case[key] for case in angles['cases'].values()]
                    for key in ('reference_deg', 'angle_deg'))
  agreement, names = angles['agreement'], ('true', 'measured')
  errors = f'mean absolute deviation {tables.format_value(agreement["mad"], 1)} degrees'
  return {
      'scatter_figure': embed(
          agreement_figures.scatter(true, measured, agreement, names), 'scatter',
          f'Measured against true angle of each case; {errors}'),
      'bland_altman_figure': embed(
          agreement_figures.bland_altman(true, measured, agreement, names), 'bland',
          f'Difference of measured and true angle over their mean; {errors}')}


def _shorten_point(match) -> str:
  return f'{float(match[1]):.2f} {float(match[2]):.2f}\n'


def _environment() -> jinja2.Environment:
  environment = jinja2.Environment(
      loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent), autoescape=True,
      trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
  environment.filters['fixed'] = tables.format_value
  environment.filters['signed'] = tables.format_difference
  environment.globals.update(
      cell=tables.cell, means=tables.MEANS, undefined_note=tables.UNDEFINED_NOTE,
      class_color=figures.class_color, run_colors=figures.RUN_COLORS,
      region_names=tables.LAMINAE_ROWS, comparison_cells=tables.comparison_cells,
      interval_name=tables.interval_name)
  return environment


def _sorted_scores(scores):
  """(name, metrics) of every case, best Dice first and undefined last."""
  def worst_first(item):
    dice = (item[1].get('dice') or {}).get('mean_foreground')
    return dice is None, -(dice or 0.0), item[0]
  return sorted(scores.items(), key=worst_first)


def _merge_roles(cases) -> list[dict]:
  merged: dict[str, dict] = {}
  for case in sorted(cases, key=lambda case: ROLES.index(case['role'])
                     if case.get('role') in ROLES else len(ROLES)):
    kept = merged.setdefault(case['name'], dict(case, roles=[]))
    if case.get('role'):
      kept['roles'].append(case['role'])
  return list(merged.values())


def _picture(index, case, scores, classes) -> dict:
  dice = tables.format_value(case.get('dice'))
  truth = 'image, ' if case.get('label') is None else 'image, true mask, '
  name = case['name']
  pictures = [embed(
      figures.overlay(case['image'], case.get('label'), case['prediction'], classes,
                      interlaced=case.get('interlaced', False)),
      f'case{index}', f'Case {name}: {truth}predicted mask and contours; Dice {dice}')]
  if case.get('probs') is not None:
    pictures.append(embed(figures.probability_maps(case['probs'], classes), f'map{index}',
                           f'Case {name}: predicted probability of each class'))
  if case.get('angle') is not None:
    pictures.append(embed(
        angle_figures.angle_figure(case['image'], case['prediction'], case['angle'], classes),
        f'angle{index}', f'Case {name}: predicted mask with levels, midline and angle '
        + tables.angle_cells(case['angle'])[0]))
  by_class = (scores.get(name) or {}).get('dice') or {}
  return {'name': name, 'roles': case['roles'], 'dice': dice, 'figures': pictures,
          'is_coarse': max(np.shape(case['image'])[:2]) < 256,
          'by_class': [(label, figures.class_color(i), tables.format_value(by_class[label]))
                       for i, label in enumerate(classes) if i and label in by_class]}


def _variant(facts) -> str | None:
  """The config and variant, as given or as the command line names them."""
  found = re.search(r'--config[= ](\S+)', str(facts.get('command') or ''))
  return facts.get('variant') or (found[1] if found else None)


def _describe_run(facts) -> list[tuple[str, str]]:
  """(label, text) of every fact but those shown apart."""
  shown = {key: value for key, value in facts.items()
           if key not in _SHOWN_APART and value not in (None, {}, [])}
  rows = []
  for key in [key for key in LABELS if key in shown] + [key for key in shown if key not in LABELS]:
    value = shown[key]
    if key == 'durations' and isinstance(value, Mapping):
      value = {phase: _duration(seconds) for phase, seconds in value.items()}
    elif key == 'num_parameters' and isinstance(value, int):
      value = f'{value:,}'
    rows.append((LABELS.get(key, key.replace('_', ' ').capitalize()), _plain(value)))
  return rows


def _describe_splits(facts) -> list[tuple[str, list[str]]]:
  """(name, ids) of the cases of each split, and of their patients where these differ."""
  splits = []
  for name, ids in (facts.get('split') or {}).items():
    splits.append((f'{name}, {len(ids)} cases' if len(ids) != 1 else f'{name}, 1 case', ids))
    patients = (facts.get('patients') or {}).get(name)
    if patients and sorted(patients) != sorted(set(ids)):
      splits.append((f'patients of {name}, {len(patients)}', patients))
  return splits


def _plain(value) -> str:
  if isinstance(value, Mapping):
    return ' · '.join(f'{key} {_plain(entry)}' for key, entry in value.items())
  if isinstance(value, (list, tuple)):
    return ', '.join(_plain(entry) for entry in value)
  return f'{value:.6g}' if isinstance(value, float) else str(value)


def _duration(seconds) -> str:
  if not isinstance(seconds, (int, float)):
    return _plain(seconds)
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours} h {minutes:02d} min'
  return f'{minutes} min {rest:02d} s' if minutes else f'{seconds:.1f} s'
