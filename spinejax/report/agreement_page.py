"""What two tables of angles have in common, in words and numbers: on the terminal and as a page."""
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spinejax.report import agreement_figures
from spinejax.report import html
from spinejax.report import tables

MAX_NAMES = 5
LEFT_OUT = {'only_in_reference': 'only in {reference}', 'only_in_other': 'only in {other}',
            'failed_in_reference': 'failed in {reference}', 'failed_in_other': 'failed in {other}',
            'without_angle': 'without an angle in one of them'}

_NAMES = {
    'mad': 'mean absolute difference', 'mad_sd': 'its sd', 'bias': 'bias', 'within': 'share within',
    'bias_ci': 'interval of the bias', 'sd': 'sd', 'limits': 'limits of agreement',
    'lower_limit_ci': 'interval of the lower limit', 'upper_limit_ci': 'that of the upper limit',
    'sem': 'standard error', 'mdc95': 'detectable change', 'r': 'r', 'r2': 'R²',
    'r_ci': 'interval of r', 'icc2_1': 'ICC(2,1)', 'icc2_1_ci': 'interval of ICC(2,1)',
    'icc3_1': 'ICC(3,1)', 'icc3_1_ci': 'interval of ICC(3,1)', 'smape': 'SMAPE'}


def value_rows(agreement: Mapping[str, Any]) -> list[tuple[str, str, str]]:
  """(name, value, interval) of all but the bands, '–' where undefined, '' without interval.

  Args:
    agreement: of `metrics.agreement.agree`.
  """
  signed = tables.format_difference

  def degrees(key, sign=False):
    return _with_unit((signed if sign else tables.format_value)(agreement[key], 1), '°')

  def interval(key, digits):
    low, high = agreement[key] or (None, None)
    return '' if low is None else f'{signed(low, digits)} to {signed(high, digits)}'

  lower, upper = agreement['limits'] or (None, None)
  mad = degrees('mad')
  if agreement['mad_sd'] is not None:
    mad = f'{tables.format_value(agreement["mad"], 1)} ± {degrees("mad_sd")}'
  within = tables.UNDEFINED
  if agreement['pairs']:
    within = (f'{100 * agreement["within"]:.0f} %, {agreement["num_within"]} of '
              f'{agreement["pairs"]}')
  return [
      ('Mean absolute difference ± sd', mad, ''),
      (f'Within {agreement["limit"]:g}°', within, ''),
      ('Bias', degrees('bias', sign=True), interval('bias_ci', 1)),
      ('Standard deviation of differences', degrees('sd'), ''),
      ('Lower limit of agreement', _with_unit(signed(lower, 1), '°'),
       interval('lower_limit_ci', 1)),
      ('Upper limit of agreement', _with_unit(signed(upper, 1), '°'),
       interval('upper_limit_ci', 1)),
      ('Pearson r', signed(agreement['r']), interval('r_ci', 3)),
      ('R²', tables.format_value(agreement['r2']), ''),
      ('ICC(2,1), absolute agreement', signed(agreement['icc2_1']), interval('icc2_1_ci', 3)),
      ('ICC(3,1), consistency', signed(agreement['icc3_1']), interval('icc3_1_ci', 3)),
      ('Standard error of measurement', degrees('sem'), ''),
      ('Minimal detectable change, 95 %', degrees('mdc95'), ''),
      ('SMAPE', _with_unit(tables.format_value(agreement['smape'], 1), ' %'), '')]


def band_rows(bands: Mapping[str, Any]) -> list[tuple[str, list[int], str, str]]:
  """(band of the reference, cases by band of the other, sensitivity, specificity) of each band."""
  return [(name, counts, *_decision_cells(bands['each'][name]))
          for name, counts in zip(bands['names'], bands['confusion'])]


def threshold_rows(bands: Mapping[str, Any]) -> list[tuple[str, str, str]]:
  """(decision, sensitivity, specificity) of every 'this band or a higher one'."""
  return [(f'{decision["from_deg"]:g}° and more', *_decision_cells(decision))
          for decision in bands['at_least'].values()]


def notes(found: Mapping[str, Any]) -> list[str]:
  """Sentences on which cases are left out, what is undefined, and what the numbers mean.

  Args:
    found: of `agreement.compare_tables`.
  """
  names = {of: found[of]['name'] for of in ('reference', 'other')}
  several = len(found['angles']) > 1
  sentences = []
  for key, words in LEFT_OUT.items():
    if cases := found['left_out'][key]:
      shown = ', '.join(cases[:MAX_NAMES]) + (', …' if len(cases) > MAX_NAMES else '')
      sentences.append(f'Left out, {words.format(**names)}: {len(cases)} ({shown}).')
  for column, agreement in found['angles'].items():
    reasons: dict[str, list[str]] = {}
    for key, reason in agreement['undefined'].items():
      if not (key.endswith('_ci') and key.removesuffix('_ci') in agreement['undefined']):
        reasons.setdefault(reason, []).append(_NAMES.get(key, key))
    sentences += [f'{column}: ' * several + f'{", ".join(of) if agreement["pairs"] else "all"} '
                  f'undefined: {reason}.' for reason, of in reasons.items()]
  if (smape := found['case_smape']) and smape['smape'] is not None:
    sentences.append(f'SMAPE over the {len(found["angles"])} angles of a case: '
                     f'{smape["smape"]:.1f} % (mean of {smape["smape_cases"]} cases).')
  return [*sentences, *found['notes'],
          f'Differences are {names["other"]} less {names["reference"]}. ICC(3,1), the standard '
          'error and the detectable change do not count the bias.']


def print_agreement(found: Mapping[str, Any], console: Console | None = None) -> None:
  """Prints every angle's agreement and bands within 80 columns.

  Args:
    found: of `agreement.compare_tables`.
    console: where to print; the terminal by default.
  """
  console = console or Console()
  width = min(console.width, 80)
  for title, agreement in _titled(found):
    table = _table(title, width)
    table.add_column('', ratio=1, no_wrap=True, overflow='ellipsis')
    for name in ('', tables.interval_name(agreement)):
      table.add_column(name, justify='right', no_wrap=True)
    for row in value_rows(agreement):
      table.add_row(*row)
    console.print(table)
    _print_bands(agreement['bands'], found, width, console)
  lines = [*notes(found), found['notice']]
  console.print(Text('\n'.join(lines), style='dim'), width=width)


def _print_bands(bands, found, width, console) -> None:
  table = _table(f'Bands of {found["other"]["name"]} (columns) and of '
                 f'{found["reference"]["name"]} (rows)', width)
  table.add_column('', ratio=1, no_wrap=True, overflow='ellipsis')
  for name in bands['names']:
    table.add_column(Text(name, overflow='ellipsis'), justify='right', max_width=12)
  for name in ('sensitivity', 'specificity'):
    table.add_column(name, justify='right', no_wrap=True)
  for name, counts, *cells in band_rows(bands):
    table.add_row(Text(name), *map(str, counts), *cells)
  for name, *cells in threshold_rows(bands):
    table.add_row(name, *[''] * len(bands['names']), *cells)
  console.print(table)
  console.print(Text(f'Same band: {_share(bands["accuracy"])}; kappa with linear weights '
                     f'{tables.format_difference(bands["kappa"], 2)}.\n', style='dim'), width=width)


def write_agreement(directory: str | os.PathLike, found: Mapping[str, Any]) -> pathlib.Path:
  """Writes bland_altman.png and scatter.png, and index.html with both; returns its path.

  Of several angles each has its pictures, bland_altman_COLUMN.png; older pictures are removed.

  Args:
    directory: made if absent.
    found: of `agreement.compare_tables`.
  """
  folder = pathlib.Path(directory)
  folder.mkdir(parents=True, exist_ok=True)
  for kind in ('bland_altman', 'scatter'):
    for old in (folder / f'{kind}.png', *folder.glob(f'{kind}_*.png')):
      old.unlink(missing_ok=True)
  names = found['reference']['name'], found['other']['name']
  angles = []
  for i, (title, agreement) in enumerate(_titled(found)):
    first, second = ([case[of][i] for case in found['cases'].values()]
                     for of in ('reference', 'other'))
    words = re.findall('[A-Za-z0-9]+', found['reference']['columns'][i])
    suffix = '_'.join(['', str(i + 1), *words]) if len(found['angles']) > 1 else ''
    pictures = []
    for kind, draw, name in (
        ('bland_altman', agreement_figures.bland_altman, 'Bland-Altman plot'),
        ('scatter', agreement_figures.scatter, 'scatter plot')):
      figure = draw(first, second, agreement, names)
      figure.savefig(folder / f'{kind}{suffix}.png', dpi=150, facecolor='white')
      pictures.append(html.embed(figure, f'{kind}{i}', f'{name}: {title}'))
    angles.append({'title': title, 'anchor': f'angle-{i}', 'rows': value_rows(agreement),
                   'interval_name': tables.interval_name(agreement), 'bands': agreement['bands'],
                   'band_rows': band_rows(agreement['bands']), 'pictures': pictures,
                   'threshold_rows': threshold_rows(agreement['bands']),
                   'accuracy': _share(agreement['bands']['accuracy']),
                   'kappa': tables.format_difference(agreement['bands']['kappa'], 2)})
  return html.write_page(folder / 'index.html', 'agreement.html', found=found, angles=angles,
                         title=f'{names[1]} against {names[0]}', is_phantom=False,
                         notes=notes(found))


def _titled(found: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
  """(title, agreement) of each angle: the two columns and the number of pairs."""
  titled = []
  for (column, agreement), other in zip(found['angles'].items(), found['other']['columns']):
    count = agreement['pairs']
    titled.append((f'{found["other"]["name"]}: {other} against {found["reference"]["name"]}: '
                   f'{column}, {count} case{"s" * (count != 1)}', agreement))
  return titled


def _table(title: str, width: int) -> Table:
  return Table(title=Text(title), title_justify='left', title_style='bold', box=SIMPLE_HEAD,
               pad_edge=False, padding=(0, 1, 0, 0), width=width)


def _decision_cells(decision: Mapping[str, Any]) -> tuple[str, str]:
  """Sensitivity and specificity with the counts they come from, '–' where undefined."""
  cell = lambda share, of, others: (tables.UNDEFINED if share is None
                                    else f'{share:.2f} ({of}/{of + others})')
  return (cell(decision['sensitivity'], decision['tp'], decision['fn']),
          cell(decision['specificity'], decision['tn'], decision['fp']))


def _share(value: float | None) -> str:
  return tables.UNDEFINED if value is None else f'{100 * value:.0f} %'


def _with_unit(text: str, unit: str) -> str:
  return text if text == tables.UNDEFINED else f'{text}{unit}'
