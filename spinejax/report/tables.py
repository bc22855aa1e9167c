"""Numbers of a run as text: fractions to three decimals, and each mean by its full name."""
import collections
import math
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

MEANS = {'mean_foreground': 'mean of foreground', 'mean_all': 'mean of all classes'}
UNDEFINED = '–'
ANGLE_COLUMNS = ('MAD ± sd', 'bias', '95 % limits', 'within 5°', 'r', 'ICC(2,1)')
NAIVE_NOTE = 'Naive: the largest angle between the lines themselves, without the fitted spine.'
UNDEFINED_NOTE = ('– undefined: class absent in truth and prediction '
                  '(recall: in truth; precision: in prediction).')
LAMINAE_ROWS = {'all': 'all laminae', 'thoracic': 'thoracic', 'lumbar': 'lumbar'}
LAMINAE_COLUMNS = {'true': ('True', 1), 'missed': ('Missed', 1), 'false': ('False', 1),
                   'delta': ('Δ', 1), 'd3d_mean': ('Mean d₃D, voxels', 2),
                   'd3d_sum': ('Total d₃D, voxels', 1), 'd3d_mean_mm': ('Mean d₃D, mm', 2),
                   'd3d_sum_mm': ('Total d₃D, mm', 1), 'dice': ('Dice', 3)}  # name, decimals


def format_value(value: float | None, digits: int = 3) -> str:
  """`digits` decimals; None, NaN and infinity (undefined) as an en dash."""
  if value is None or not math.isfinite(value):
    return UNDEFINED
  return f'{value:.{digits}f}'


def format_probability(value: float | None) -> str:
  """Three decimals, never rounded to 0 or 1; None as an en dash."""
  if value is None or 0.001 <= value <= 0.999:
    return format_value(value)
  return '<0.001' if value < 0.5 else '>0.999'


def format_difference(value: float | None, digits: int = 3) -> str:
  """As `format_value` with a real minus sign, and none at 0."""
  text = format_value(value, digits)
  return text.replace('-', '−' if text.strip('-0.') else '')


def cell(table: Mapping, metric: str, key: str, digits: int = 3) -> str:
  """`table[metric][key]` as text; empty if the metric has no such entry, a dash if undefined."""
  values = table.get(metric) or {}
  return format_value(values[key], digits) if key in values else ''


def spread_cell(table: Mapping, metric: str, key: str, digits: int = 3) -> str:
  """`cell` with ' ± ' and the standard deviation over images, where one is defined."""
  text = cell(table, metric, key, digits)
  spread = cell(table, f'{metric}_sd', key, digits)
  return text if not text or spread in ('', UNDEFINED) else f'{text} ± {spread}'


def result_rows(results: Mapping, classes: Sequence[str]) -> list[tuple[str, str]]:
  """Rows of a result table as (key, name): bones, their mean, background if rated, mean of all."""
  rated = {key for average in ('per_image', 'pooled')
           for values in (results.get(average) or {}).values()
           if isinstance(values, Mapping) for key in values}
  background = [(classes[0], classes[0])] if classes and classes[0] in rated else []
  bones = [(name, name) for name in classes[1:]]
  together = ' + '.join(classes[1:])
  together = [('any_foreground', f'{together if len(together) < 25 else "foreground"} as one')]
  return [*bones, ('mean_foreground', MEANS['mean_foreground']),
          *(together if 'any_foreground' in rated else []), *background,
          ('mean_all', MEANS['mean_all'])]


def print_results(results: Mapping | None, classes: Sequence[str],
                  console: Console | None = None) -> None:
  """Prints the test results at the end of a run, within 80 columns.

  Args:
    results: content of test_metrics.json, or None if nothing was tested.
    classes: class names by index, background first.
    console: where to print; the terminal by default.
  """
  console = console or Console()
  if not results:
    console.print('No test results.')
    return
  per_image, pooled = results.get('per_image') or {}, results.get('pooled') or {}
  auc = results.get('auc') or {}
  count = len(results.get('cases') or {})
  table = Table(
      title=f'Test results, {count} case{"s" * (count != 1)}', title_justify='left',
      title_style='bold', box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0),
      width=min(console.width, 80))
  table.add_column('', ratio=1, no_wrap=True, overflow='ellipsis')
  for name in ('Dice ± sd', 'IoU', 'recall', 'precision', 'pooled\nDice', 'AUC'):
    table.add_column(name, justify='right', no_wrap=True)
  for key, name in result_rows(results, classes):
    table.add_row(
        Text(name), spread_cell(per_image, 'dice', key), cell(per_image, 'iou', key),
        cell(per_image, 'recall', key), cell(per_image, 'precision', key),
        cell(pooled, 'dice', key), cell({'auc': auc}, 'auc', key),
        style='bold' if key in MEANS else None)
  console.print(table)
  notes = ['Dice to precision: mean over images; pooled: all pixels together.']
  if 'any_foreground' in auc:
    notes.append('AUC of any foreground class against the background: '
                 f'{format_value(auc["any_foreground"])}.')
  if 'at_network_size' in results:
    notes.append(network_note(results))
  if has_undefined(results):
    notes.append(UNDEFINED_NOTE)
  console.print(Text('\n'.join(notes), style='dim'), width=min(console.width, 80))


def network_note(results: Mapping) -> str:
  """One sentence on loss and accuracy at the network's size; '' without them."""
  scores = results.get('at_network_size')
  return '' if not scores else (
      f"At the network's size: cross entropy {format_value(scores['cross_entropy'])}, "
      f"pixel accuracy {format_value(scores['accuracy'])}.")


def has_undefined(results) -> bool:
  """Whether a number in nested dictionaries and lists is None or not finite, deviations apart."""
  if isinstance(results, Mapping):
    return any(has_undefined(value) for key, value in results.items()
               if not str(key).endswith('_sd'))
  if isinstance(results, list):
    return any(map(has_undefined, results))
  return results is None or isinstance(results, float) and not math.isfinite(results)


def laminae_rows(laminae: Mapping | None) -> list[tuple[str, str]]:
  """(key, name) of the regions that a table of laminae has; none without volumes."""
  rated = ((laminae or {}).get('mean') or {}).get('missed') or {}
  return [(key, name) for key, name in LAMINAE_ROWS.items() if key in rated]


def laminae_columns(laminae: Mapping | None) -> dict[str, tuple[str, int]]:
  """(name, decimals) of the metrics of laminae that are defined in some case, by their key."""
  mean = (laminae or {}).get('mean') or {}
  return {key: column for key, column in LAMINAE_COLUMNS.items()
          if any(value is not None for value in (mean.get(key) or {}).values())}


def localizer_note(laminae: Mapping | None) -> str:
  """One sentence on the Dice that a perfect localizer reaches, '' where the labels are no cubes."""
  reached = (laminae or {}).get('localizer_dice') or {}
  if not reached:
    return ''
  scores = _listed([f'{value:.2f}' for value in reached.values()])
  return (f'A perfect localizer reaches a Dice of {scores} against cubes of 3x3x3 voxels that were '
          f'placed with a noise of {_listed(list(reached))} voxel along each axis.')


def print_laminae(laminae: Mapping | None, console: Console | None = None) -> None:
  """Prints what was found of the laminae by region, within 80 columns; nothing without volumes.

  Args:
    laminae: `laminae` of test_metrics.json, or None.
    console: where to print; the terminal by default.
  """
  rows = laminae_rows(laminae)
  if not laminae or not rows:
    return
  console = console or Console()
  table = Table(title='Laminae of a volume, mean ± sd', title_justify='left', title_style='bold',
                box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
  table.add_column('', no_wrap=True)
  columns = {'missed': 'missed', 'false': 'false', 'delta': 'Δ', 'd3d_mean': 'mean d₃D',
             'd3d_sum': 'total d₃D'}
  for name in columns.values():
    table.add_column(name, justify='right', no_wrap=True)
  spread = {f'{metric}_sd': values for metric, values in laminae['sd'].items()}
  for key, name in rows:
    table.add_row(name, *(spread_cell({**laminae['mean'], **spread}, metric, key,
                                      LAMINAE_COLUMNS[metric][1]) for metric in columns))
  console.print(table)
  notes = ['d₃D: from each true centroid to the nearest predicted one, in voxels.',
           localizer_note(laminae)]
  console.print(Text('\n'.join(filter(None, notes)), style='dim'), width=min(console.width, 80))


def angle_rows(angles: Mapping | None) -> list[tuple[str, list[str]]]:
  """(name, cells of ANGLE_COLUMNS) of the measured and, where there is one, the naive angle."""
  def cells(agreement):
    degrees = lambda key: format_value(agreement[key], 1)
    limits = agreement['limits']
    return [f'{degrees("mad")} ± {degrees("mad_sd")}' if agreement['mad_sd'] is not None
            else degrees('mad'), format_difference(agreement['bias'], 1),
            UNDEFINED if limits is None else ' to '.join(format_difference(x, 1) for x in limits),
            UNDEFINED if agreement['within'] is None else f'{100 * agreement["within"]:.0f} %',
            format_value(agreement['r'], 2), format_value(agreement['icc2_1'], 2)]

  angles = angles or {}
  named = {'agreement': 'measured', 'naive': 'naive'}
  return [(name, cells(angles[key])) for key, name in named.items()
          if angles.get(key) and angles[key]['pairs']]


def angle_note(angles: Mapping) -> str:
  """What was measured in how many cases, against what, and why not in the others."""
  cases = angles['cases'].values()
  found = sum(case['status'] != 'fail' for case in cases)
  reference = {'phantom truth': 'the exact angles of the phantoms',
               'true masks': 'the same measurement on the true masks'}[angles['reference']]
  note = f'Largest angle ({angles["method"]}) of {found} of {len(cases)} cases against {reference}.'
  reasons = collections.Counter(case['flags'][0] for case in cases if case['status'] == 'fail')
  if reasons:
    reason, count = reasons.most_common(1)[0]
    note += f' Failed: {len(cases) - found}, of these {count}: {reason}.'
  without = sum(case['reference_deg'] is None for case in cases)
  return note + (f' {without} true masks give no angle.' if without else '')


def print_angles(angles: Mapping | None, console: Console | None = None) -> None:
  """Prints how well the measured angles agree with the true ones, within 80 columns.

  Args:
    angles: `angles` of test_metrics.json, or None.
    console: where to print; the terminal by default.
  """
  if not angles:
    return
  console = console or Console()
  rows = angle_rows(angles)
  if rows:
    table = Table(title='Angle errors, degrees', title_justify='left', title_style='bold',
                  box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column('', no_wrap=True)
    for name in ANGLE_COLUMNS:
      table.add_column(name, justify='right', no_wrap=True)
    for name, cells in rows:
      table.add_row(name, *cells)
    console.print(table)
  notes = [angle_note(angles), NAIVE_NOTE if len(rows) > 1 else '']
  console.print(Text('\n'.join(filter(None, notes)), style='dim'), width=min(console.width, 80))


def print_comparison(comparison: Mapping, console: Console | None = None) -> None:
  """Prints how runs compare, within 80 columns: the main metrics and the missed laminae.

  Args:
    comparison: of `metrics.comparison.compare`.
    console: where to print; the terminal by default.
  """
  console = console or Console()
  width, first = min(console.width, 80), comparison['runs'][0]
  count = len(comparison['cases'])
  table = Table(title=f'{len(comparison["runs"])} runs on {count} case{"s" * (count != 1)}',
                title_justify='left', title_style='bold', box=SIMPLE_HEAD, pad_edge=False,
                padding=(0, 1, 0, 0), width=width)
  table.add_column('', ratio=1, no_wrap=True, overflow='ellipsis')
  for name in ('mean ± sd', 'difference', interval_name(comparison), 'p'):
    table.add_column(name, justify='right', no_wrap=True)
  for metric in comparison['metrics']:
    if metric['main']:
      arrow = '↑' if metric['better'] == 'higher' else '↓'
      table.add_row(Text(f'{metric["name"]} {arrow}', style='bold'))
      for run in comparison['runs']:
        table.add_row(Text(f'  {run}'), *comparison_cells(metric, run))
  console.print(table)
  if comparison['missed']:
    table = Table(title='Missed laminae, all cases together', title_justify='left',
                  title_style='bold', box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column('', no_wrap=True, overflow='ellipsis')
    for key in comparison['missed']:
      table.add_column(LAMINAE_ROWS[key], justify='right', no_wrap=True)
    for run in comparison['runs']:
      table.add_row(Text(run), *(f'{counts[run]["missed"]} of {counts[run]["true"]}'
                                 for counts in comparison['missed'].values()))
    console.print(table)
  notes = ['↑ higher is better, ↓ lower is better.',
           f'Difference: {first} less the run; p: that {first} is better, one-tailed paired '
           't-test, not corrected for their number.', localizer_note(comparison),
            *comparison['notes']]
  console.print(Text('\n'.join(filter(None, notes)), style='dim'), width=width)


def print_cases(results: Mapping[str, Mapping], console: Console | None = None) -> None:
  """Prints a line for each measured case, and beneath it what a reader must know.

  Args:
    results: name -> result of `spinejax.measure`.
    console: where to print; the terminal by default.
  """
  console = console or Console()
  table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
  table.add_column('case', overflow='fold')
  table.add_column('angle', justify='right', no_wrap=True)
  for name in ('95 % interval', 'band', 'from, to, apex', 'status'):
    table.add_column(name, no_wrap=True)
  for name, result in results.items():
    curves = sorted(result['curves'], key=lambda curve: -curve['angle_deg']) or [None]
    for i, curve in enumerate(curves):
      angle, interval = (angle_of(curve), interval_of(curve)) if curve else angle_cells(result)
      ends = ', '.join(curve[end] or f'row {curve[f"{end}_row"]:.0f}'
                       for end in ('upper', 'lower', 'apex')) if curve else ''
      first = [Text(name), result['band'] or UNDEFINED, result['status']] if not i else ['', '', '']
      table.add_row(first[0], angle, interval, first[1], ends, first[2])
  if results:
    console.print(table)
    for name, result in results.items():
      for flag in result['flags']:
        console.print(Text(f'{name}: {flag}'), soft_wrap=True)
    methods = sorted({result['method'] for result in results.values()})
    console.print(Text(f'{" and ".join(methods)}. Research software, not a medical device.',
                       style='dim'))


def angle_of(curve: Mapping) -> str:
  """Angle of a curve of `spinejax.measure` in whole degrees; '≥' where it is a lower bound."""
  return f'{"≥ " if curve["truncated"] else ""}{curve["angle_deg"]:.0f}°'


def interval_of(curve: Mapping) -> str:
  """Interval of a curve, '' without one."""
  return '({:.0f} to {:.0f})'.format(*curve['ci95']) if curve['ci95'] else ''


def angle_cells(result: Mapping) -> tuple[str, str]:
  """Largest angle of a result of `spinejax.measure`, and its interval; an en dash on failure."""
  if result['status'] == 'fail':
    return UNDEFINED, ''
  largest = max(result['curves'], key=lambda curve: curve['angle_deg'], default=None)
  return ('no curve', '') if largest is None else (angle_of(largest), interval_of(largest))


def interval_name(comparison: Mapping) -> str:
  """Name of the column of intervals, such as '95 % interval'."""
  return f'{100 * comparison["confidence"]:g} % interval'


def comparison_cells(metric: Mapping, run: str) -> tuple[str, str, str, str]:
  """Mean ± deviation, difference, interval and p of a run; empty where there is nothing to say."""
  of_run, digits = metric['runs'][run], metric['digits']
  text = format_value(of_run['mean'], digits)
  if of_run['sd'] is not None:
    text += f' ± {format_value(of_run["sd"], digits)}'
  test = metric['against'].get(run)
  if test is None:
    return text, '', '', ''
  difference, low, high = (format_difference(test[key], digits)
                           for key in ('difference', 'low', 'high'))
  interval = UNDEFINED if test['low'] is None else f'{low} to {high}'
  return text, difference, interval, format_probability(test['p_value'])


def _listed(words: Sequence[str]) -> str:
  return f'{", ".join(words[:-1])} or {words[-1]}' if len(words) > 1 else ''.join(words)
