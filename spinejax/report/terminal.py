"""Tables in the terminal, at most 80 columns wide; `console` is the terminal by default."""
from collections.abc import Container, Iterable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spinejax.measurement.results import AngleResult
from spinejax.metrics.comparison import Comparison, RunFact
from spinejax.metrics.paired_tables import TableAgreement
from spinejax.metrics.results import TestResult
from spinejax.metrics.robustness import Stress
from spinejax.report import formats

MAX_WIDTH = 80  # columns
MAX_STRENGTHS = 7  # columns of a table; more go to the next one


def print_results(result: TestResult, classes: Sequence[str],
                  console: Console | None = None) -> None:
  """Prints the results of a test: overlap by class, and laminae and angles if there are any."""
  console = console or Console()
  if not result.cases:
    console.print('There are no test cases: nothing was tested.')
    return
  per_image, pooled = result.per_image, result.pooled
  sd = formats.deviations(per_image)
  rows: list[tuple[str, ...]] = [
      (name, formats.spread_cell(per_image, sd, 'dice', key),
       *(formats.cell(per_image, metric, key) for metric in ('iou', 'recall', 'precision')),
       formats.cell(pooled, 'dice', key), formats.cell({'auc': result.auc}, 'auc', key))
      for key, name in formats.result_rows(result, classes).items()]
  _print_table(console, f'Test results, {formats.count_cases(len(result.cases))}',
               ('Dice ± sd', 'IoU', 'recall', 'precision', 'pooled\nDice', 'AUC'), rows,
               bold=formats.MEANS.values())
  _print_notes(console, ['Dice to precision: mean over images. Pooled: all pixels together.',
                         *formats.result_notes(result)])
  laminae = result.laminae
  if laminae and formats.laminae_rows(laminae):
    columns = {metric: formats.LAMINAE_COLUMNS[metric]
               for metric in ('missed', 'false', 'delta', 'd3d_mean', 'd3d_sum')}
    rows = [(name, *(formats.spread_cell(laminae.mean, laminae.sd, metric, region, digits)
                     for metric, (_, digits) in columns.items()))
            for region, name in formats.laminae_rows(laminae).items()]
    _print_table(console, 'Laminae of a volume, mean ± sd', [name for name, _ in columns.values()],
                 rows)
    _print_notes(console, [
        'd₃D: distance from each true centroid to the nearest predicted one.',
        formats.cleaned_note(laminae), formats.localizer_note(laminae.localizer_dice)])
  rows = [(name, *cells) for name, cells in formats.angle_rows(result.angles).items()]
  if rows:
    _print_table(console, 'Angle errors, degrees', formats.ANGLE_COLUMNS, rows)
  _print_notes(console, [formats.angle_note(result), formats.NAIVE_NOTE if len(rows) > 1 else ''])


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
  """Prints how runs compare: the main metrics, and the missed laminae."""
  console = console or Console()
  first = comparison.runs[0]
  rows: list[tuple[str, ...]] = []
  headings = []
  for metric in comparison.metrics:
    if metric.main:
      headings.append(f'{metric.name} {"↑" if metric.better == "higher" else "↓"}')
      rows.append((headings[-1],))
      rows += [(f'  {run}', *formats.comparison_cells(metric, run)) for run in comparison.runs]
  title = f'{len(comparison.runs)} runs on {formats.count_cases(len(comparison.cases))}'
  columns = 'mean ± sd', 'difference', formats.interval_name(comparison.confidence), 'p', 'Holm'
  _print_table(console, title, columns, rows, bold=headings)
  facts = [fact for fact in comparison.facts
           if not fact.key.startswith('auc/') or fact is _widest_auc(comparison)]
  _print_table(console, 'Whole runs', [fact.name.replace(' ', '\n', 1) for fact in facts], [
      (run, *(formats.fact_cell(fact, run) for fact in facts)) for run in comparison.runs])
  if comparison.missed:
    _print_table(
        console, 'Missed laminae, all cases together',
        [formats.LAMINAE_ROWS[region] for region in comparison.missed],
        [(run, *(f'{counts[run].missed} of {counts[run].true}'
                 for counts in comparison.missed.values())) for run in comparison.runs])
  _print_notes(console, [
      '↑ higher is better, ↓ lower is better.',
      f'Difference: {first} minus the run. p: one-tailed paired t-test that {first} is better. '
      'Holm: p corrected for the number of runs, within each metric.', formats.FACTS_NOTE,
      formats.localizer_note(comparison.localizer_dice), *comparison.notes])


def _widest_auc(comparison: Comparison) -> RunFact | None:
  """The area of all foreground classes together, or that of the one class."""
  return next((fact for fact in reversed(comparison.facts) if fact.key.startswith('auc/')), None)


def print_stress(found: Stress, console: Console | None = None) -> None:
  """Prints every metric by artifact, run and strength, and the differences of the first run."""
  console = console or Console()
  headings = [formats.stress_name(artifact) for artifact in found.artifacts]
  for metric in found.shown_metrics:
    title = f'{formats.STRESS_METRICS[metric][0]}, {formats.count_cases(len(found.cases))}'
    rows = formats.stress_rows(found, metric)
    for start in range(0, len(found.strengths), MAX_STRENGTHS):
      part = slice(start, start + MAX_STRENGTHS)
      _print_table(console, title, [f'{strength:g}' for strength in found.strengths[part]],
                   [(name, *cells[part]) for name, *cells in rows], bold=headings)
  if len(found.workdirs) > 1:
    interval = formats.interval_name(found.confidence)
    _print_table(console, f'{next(iter(found.workdirs))} minus the others',
                 ('mean', interval, 'slope', interval), formats.stress_differences(found),
                 bold=headings)
  _print_notes(console, formats.stress_notes(found))


def print_agreement(found: TableAgreement, console: Console | None = None) -> None:
  """Prints the agreement of two tables of angles: statistics and bands of every angle."""
  console = console or Console()
  for title, agreement in zip(formats.agreement_titles(found), found.angles.values()):
    _print_table(console, title, ('', formats.interval_name(agreement.confidence)),
                 formats.agreement_rows(agreement))
    bands = agreement.bands
    rows = [(name, *(map(str, counts) if counts else [''] * len(bands.names)), *cells)
            for name, counts, *cells in formats.band_rows(bands)]
    title = f'Bands of {found.other.name} (columns) and of {found.reference.name} (rows)'
    _print_table(console, title, (*bands.names, 'sensitivity', 'specificity'), rows)
    _print_notes(console, [formats.bands_note(bands)])
  _print_notes(console, [*formats.agreement_notes(found), formats.NOTICE])


def print_cases(results: Mapping[str, AngleResult], console: Console | None = None) -> None:
  """Prints a line for each measured case, then the flags of all cases."""
  console = console or Console()
  table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
  table.add_column('case', overflow='fold')
  table.add_column('angle', justify='right', no_wrap=True)
  for name in ('95 % interval', 'band', 'from, to, apex', 'status'):
    table.add_column(name, no_wrap=True)
  for name, result in results.items():
    case, band, status = name, result.band or formats.UNDEFINED, result.status
    for curve in sorted(result.curves, key=lambda curve: -curve.angle_deg):
      ends = ', '.join(formats.curve_end(curve, end) for end in ('upper', 'lower', 'apex'))
      table.add_row(Text(case), formats.curve_angle(curve), formats.curve_interval(curve), band,
                    ends, status)
      case = band = status = ''  # only in the first line of a case
    if not result.curves:
      angle, interval = formats.largest_angle(result)
      table.add_row(Text(case), angle, interval, band, '', status)
  if results:
    console.print(table)
    for name, result in results.items():
      for flag in result.flags:
        console.print(Text(f'{name}: {flag}'), soft_wrap=True)
    methods = sorted({result.method for result in results.values()})
    console.print(Text(f'{" and ".join(methods)}. {formats.NOTICE}', style='dim'))


def _print_table(console: Console, title: str, columns: Iterable[str],
                 rows: Iterable[Sequence[str]], bold: Container[str] = ()) -> None:
  """Prints a table with a column of names, as wide as the others leave, and columns of numbers."""
  table = Table(title=Text(title), title_justify='left', title_style='bold', box=SIMPLE_HEAD,
                pad_edge=False, padding=(0, 1, 0, 0), width=min(console.width, MAX_WIDTH))
  table.add_column('', ratio=1, overflow='fold')
  for name in columns:
    table.add_column(Text(name), justify='right', no_wrap=True)
  for name, *cells in rows:
    table.add_row(Text(name), *cells, style='bold' if name in bold else None)
  console.print(table)


def _print_notes(console: Console, notes: Iterable[str]) -> None:
  text = '\n'.join(filter(None, notes))
  if text:
    console.print(Text(text, style='dim'), width=min(console.width, MAX_WIDTH))
