"""Numbers of a run as text: three decimals everywhere, and each mean by its full name."""
import math
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

MEANS = {'mean_bones': 'mean of bones', 'mean_all': 'mean of all classes'}
UNDEFINED = '–'
UNDEFINED_NOTE = ('– undefined: class absent in truth and prediction '
                  '(recall: in truth; precision: in prediction).')


def format_value(value: float | None) -> str:
  """Three decimals; None, NaN and infinity (undefined) as an en dash."""
  if value is None or not math.isfinite(value):
    return UNDEFINED
  return f'{value:.3f}'


def cell(table: Mapping, metric: str, key: str) -> str:
  """`table[metric][key]` as text; empty if the metric has no such entry, a dash if undefined."""
  values = table.get(metric) or {}
  return format_value(values[key]) if key in values else ''


def spread_cell(table: Mapping, metric: str, key: str) -> str:
  """`cell` with ' ± ' and the standard deviation over images, where one is defined."""
  text = cell(table, metric, key)
  spread = cell(table, f'{metric}_sd', key)
  return text if not text or spread in ('', UNDEFINED) else f'{text} ± {spread}'


def result_rows(results: Mapping, classes: Sequence[str]) -> list[tuple[str, str]]:
  """Rows of a result table as (key, name): bones, their mean, background if rated, mean of all."""
  rated = {key for average in ('per_image', 'pooled')
           for values in (results.get(average) or {}).values()
           if isinstance(values, Mapping) for key in values}
  background = [(classes[0], classes[0])] if classes and classes[0] in rated else []
  bones = [(name, name) for name in classes[1:]]
  return [*bones, ('mean_bones', MEANS['mean_bones']), *background,
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
  if len(classes) > 2 and 'bone' in auc and 'bone' not in classes:
    notes.append(f'AUC of any bone against the background: {format_value(auc["bone"])}.')
  if has_undefined(results):
    notes.append(UNDEFINED_NOTE)
  console.print(Text('\n'.join(notes), style='dim'), width=min(console.width, 80))


def has_undefined(results) -> bool:
  """Whether a number within nested dictionaries is None or not finite, deviations apart."""
  if isinstance(results, Mapping):
    return any(has_undefined(value) for key, value in results.items()
               if not str(key).endswith('_sd'))
  return results is None or isinstance(results, float) and not math.isfinite(results)
