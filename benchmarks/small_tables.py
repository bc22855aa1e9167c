"""Tables of the small protocol, and sentences on what the papers claim."""
import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence

from benchmarks import finished_runs, markdown, papers, small_protocol
from benchmarks.markdown import number
from benchmarks.small_protocol import METRICS, System
from benchmarks.statistics import Difference
from spinejax.metrics.comparison import holm
from spinejax.metrics.results import mean_sd

FILE = 'small_runs.jsonl'
LEVEL = 0.05  # of the adjusted p values
UNET = 'seam:unet,small'  # whose Dice calibrates the phantoms
Found = Sequence[finished_runs.FinishedRun]


@functools.cache
def read() -> tuple[finished_runs.FinishedRun, ...]:
  """All runs of the results file; none where there is no file."""
  return tuple(finished_runs.read_file(markdown.RESULTS / FILE))


def results(table: papers.Table, found: Found) -> str:
  """One line for each system: its metrics, and their differences to the first row."""
  systems = [small_protocol.select(found, row) for row in table.rows]
  metrics = [METRICS[name] for name in table.metrics]
  columns = [_differences(systems, metric) for metric in metrics]
  header = ['system', *table.classes.values()]
  for metric in metrics:
    header += [metric.title, 'difference, p']
  cells = [_result_cells(table, system, [column[place] for column in columns])
           for place, system in enumerate(systems)]
  return markdown.table([*header, 'seeds', 'parameters', table.printed], cells, _source(systems))


def _differences(systems: Sequence[System], metric: small_protocol.Metric
                 ) -> list[Difference | None]:
  """Each system minus the first, with the p values of the metric adjusted by Holm."""
  proposed, *others = systems
  found = [small_protocol.difference(system, proposed, metric) for system in others]
  adjusted = holm(_p_values(found))
  return [None, *(difference and dataclasses.replace(difference, p_value=p_value)
                  for difference, p_value in zip(found, adjusted))]


def _p_values(differences: Iterable[Difference | None]) -> list[float | None]:
  return [difference.p_value if difference else None for difference in differences]


def _result_cells(table: papers.Table, system: System, differences: Sequence[Difference | None]
                  ) -> list[str]:
  metrics = [METRICS[name] for name in table.metrics]
  if not system.runs:
    count = len(table.classes) + 2 * len(metrics) + 1
    return [system.row.title, 'not run', *['–'] * count, system.row.printed]
  dice = [number(mean_sd([run.dice[name] for run in system.runs])[0], 3) for name in table.classes]
  cells = [system.row.title, *dice]
  for metric, difference in zip(metrics, differences):
    cells += [_mean_cell(system, metric),
              '–' if difference is None else describe(difference, metric.digits)]
  return [*cells, str(len(system.runs)), f'{system.runs[0].parameters:,}', system.row.printed]


def _mean_cell(system: System, metric: small_protocol.Metric) -> str:
  """Mean and deviation over seeds, and the number of cases of all runs where it is undefined."""
  spread = small_protocol.spread(system, metric)
  deviation = '' if spread.sd is None else f' ± {number(spread.sd, metric.digits)}'
  undefined = sum(value is None for run in system.runs for value in metric.read(run))
  return (number(spread.mean, metric.digits) + deviation
          + (f' ({undefined} undefined)' if undefined else ''))


def describe(difference: Difference, digits: int) -> str:
  """'+0.012 [0.004, 0.020], p 0.003'; less where interval or p are undefined."""
  parts = [('+' if difference.value > 0 else '') + number(difference.value, digits)]
  if difference.low is not None and difference.high is not None:
    parts.append(f' [{number(difference.low, digits)}, {number(difference.high, digits)}]')
  if difference.p_value is not None:
    parts.append(', p ' + ('< 0.001' if difference.p_value < 0.001
                           else number(difference.p_value, 3)))
  return ''.join(parts)


def calibration(found: Found) -> str:
  """Dice of the plain U-Net by difficulty of the phantoms, beside that of the papers."""
  groups = collections.defaultdict(list)
  for run in found:
    if run.config == UNET and not run.changed:
      groups[run.difficulty, run.num_steps, run.learning_rate].append(run)
  cells = [[f'{difficulty:g}', str(steps), f'{rate:g}', str(len(of_group)),
            *_dice_cells(mean_sd([run.dice[name] for run in of_group])[0]
                         for name in (*papers.BONES, 'mean_foreground'))]
           for (difficulty, steps, rate), of_group in sorted(groups.items())]
  printed = [*papers.UNET_DICE.values(), mean_sd(papers.UNET_DICE.values())[0]]
  cells.append(['U-Net of the papers', '–', '–', '–', *_dice_cells(printed)])
  return markdown.table(['difficulty', 'steps', 'learning rate', 'seeds', *papers.BONES.values(),
                         'Dice'], cells, _source_of_runs(run for of_group in groups.values()
                                                         for run in of_group))


def _dice_cells(values: Iterable[float | None]) -> list[str]:
  return [number(value, 3) for value in values]


def training(found: Found) -> str:
  """Validation Dice of every learning rate, and its rise over the last third of the steps."""
  systems = [small_protocol.select(found, row) for row in papers.ROWS.values()]
  systems = [system for system in systems if system.tried]
  rates = sorted({rate for system in systems for rate in system.tried})
  cells = [[f'`{system.row.key}`', *(_trial(system, rate) for rate in rates),
            *_convergence(system)] for system in systems]
  return markdown.table(['config', *(f'rate {rate:g}' for rate in rates), 'rise', 'converged',
                         'minutes'], cells, _source(systems))


def _trial(system: System, rate: float) -> str:
  run = system.tried.get(rate)
  if run is None:
    return '–'
  dice = number(dict(run.validation).get(run.step), 3)
  return f'**{dice}**' if rate == system.learning_rate else dice


def _convergence(system: System) -> list[str]:
  rise = mean_sd([small_protocol.rise(run) for run in system.runs])[0]
  minutes = mean_sd([sum(run.durations.values()) / 60 for run in system.runs])[0]
  state = '–' if rise is None else 'no' if rise > small_protocol.CONVERGED else 'yes'
  return [number(rise, 3), state, number(minutes, 0)]


def claims(found: Found) -> str:
  """The claims of each paper, each with a difference and a verdict."""
  groups: dict[str, list[papers.Claim]] = collections.defaultdict(list)
  for table in papers.TABLES.values():
    groups[table.name.partition(',')[0]] += table.claims
  lines = []
  for paper, of_paper in groups.items():
    weakest = [_weakest(claim, found) for claim in of_paper]
    adjusted = holm(_p_values(difference for _, difference in weakest))
    lines += [f'**{paper}**', '', *(
        f'- {sentence(claim, *of_claim, p_value)}'
        for claim, of_claim, p_value in zip(of_paper, weakest, adjusted)), '']
  return '\n'.join([*lines, _source_of_runs(found)]) + '\n'


def _weakest(claim: papers.Claim, found: Found) -> tuple[str, Difference | None]:
  """The rival with the smallest improvement over it, and the improvement.

  If it is positive, its p value is the largest of all rivals, which tests that there is an
  improvement over each. Without one of the systems there is no difference.
  """
  metric = METRICS[claim.metric]
  better = small_protocol.select(found, papers.ROWS[claim.better])
  rivals = [small_protocol.select(found, papers.ROWS[key]) for key in claim.than]
  pairs = [(rival.row.title, small_protocol.difference(better, rival, metric)) for rival in rivals]
  known = [(title, _improvement(difference, metric.sign)) for title, difference in pairs
           if difference is not None]
  if len(known) < len(pairs):
    return '', None
  title, smallest = min(known, key=lambda pair: pair[1].value)
  p_values = [difference.p_value for _, difference in known if difference.p_value is not None]
  if smallest.value <= 0 or len(p_values) < len(known):
    return title, smallest
  return title, dataclasses.replace(smallest, p_value=max(p_values))


def _improvement(difference: Difference, sign: int) -> Difference:
  """The difference with the sign that is positive for better."""
  if sign > 0:
    return difference
  low, high = difference.low, difference.high
  return dataclasses.replace(difference, value=-difference.value,
                             low=None if high is None else -high,
                             high=None if low is None else -low)


def judge(improvement: Difference | None, p_value: float | None, negligible: float) -> str:
  """The verdict on a claim, from the improvement over its closest rival and its adjusted p.

  A claim holds if the improvement is above 0 and p below LEVEL. It does not hold if the whole
  interval is below a `negligible` improvement. Otherwise it is undecided, also with one seed.
  """
  if improvement is None:
    return 'not run'
  if improvement.seeds < 2 or p_value is None or improvement.high is None:
    return 'undecided'
  if improvement.value > 0 and p_value < LEVEL:
    return 'holds on phantoms'
  return 'does not hold on phantoms' if improvement.high < negligible else 'undecided'


def sentence(claim: papers.Claim, rival: str, improvement: Difference | None,
             p_value: float | None) -> str:
  """The claim, its figures and the verdict."""
  metric = METRICS[claim.metric]
  verdict = judge(improvement, p_value, metric.negligible)
  printed = f' (paper: {claim.printed})' if claim.printed else ''
  if improvement is None:
    return f'{claim.sentence}{printed}: {verdict}.'
  figures = describe(dataclasses.replace(improvement, p_value=p_value), metric.digits)
  closest = f' over {rival}' if len(claim.than) > 1 else ''
  return f'{claim.sentence}{printed}: improvement {figures}{closest}; {verdict}.'


def _source(systems: Sequence[System]) -> str:
  return _source_of_runs(run for system in systems for run in system.runs)


def _source_of_runs(found: Iterable[finished_runs.FinishedRun]) -> str:
  return markdown.source_of(FILE, [vars(run) for run in found])


TABLES: dict[str, Callable[[Found], str]] = {
    **{name: functools.partial(results, table) for name, table in papers.TABLES.items()},
    'calibration': calibration, 'training': training, 'claims': claims}
