"""Numbers and results as text, for the terminal and for pages."""
import collections
import math
from collections.abc import Mapping, Sequence

from spinejax.measurement.results import AngleResult, Curve
from spinejax.metrics.comparison import ComparedMetric, RunFact
from spinejax.metrics.paired_tables import TableAgreement
from spinejax.metrics.robustness import Level, Stress
from spinejax.metrics.results import (
    Agreement, AngleSummary, BandAgreement, ClassTable, LaminaeSummary, TestResult)

NOTICE = 'Research software, not a medical device.'
MEANS = {'mean_foreground': 'mean of the foreground classes', 'mean_all': 'mean of all classes'}
UNDEFINED = '–'
UNDEFINED_NOTE = ('– means undefined: the class is absent from truth and prediction (recall: from '
                  'the truth; precision: from the prediction).')
ANGLE_COLUMNS = ('MAD ± sd', 'bias', '95 % limits', 'within 5°', 'r', 'ICC(2,1)')
NAIVE_NOTE = 'The naive angle is the largest one between the lines, without the fitted midline.'
FACTS_NOTE = ('Seconds per image: mean time of a prediction in the test. Training: time of the '
              'steps, without compilation and validation. Both are those of the machine of the '
              'run. Step: of the checkpoint that was tested.')
LAMINAE_ROWS = {'all': 'all laminae', 'thoracic': 'thoracic', 'lumbar': 'lumbar'}
LAMINAE_COLUMNS = {'true': ('True', 1), 'missed': ('Missed', 1), 'false': ('False', 1),
                   'missed_cleaned': ('Missed, cleaned', 1), 'false_cleaned': ('False, cleaned', 1),
                   'delta': ('Δ', 1), 'd3d_mean': ('Mean d₃D, voxels', 2),
                   'd3d_sum': ('Total d₃D, voxels', 1), 'd3d_mean_mm': ('Mean d₃D, mm', 2),
                   'd3d_sum_mm': ('Total d₃D, mm', 1), 'dice': ('Dice', 3)}  # name, decimals
MAX_NAMES = 5  # cases that a note names
LEFT_OUT = {'only_in_reference': 'only in {reference}', 'only_in_other': 'only in {other}',
            'failed_in_reference': 'failed in {reference}', 'failed_in_other': 'failed in {other}',
            'without_angle': 'without an angle in one of them'}
STRESS_METRICS = {'dice': ('Dice, mean of the foreground classes', 3),  # name, decimals
                  'bone_dice': ('Dice, all bones as one class', 3),
                  'auc': ('AUC, bone against background', 3),
                  'error_deg': ('Angle error, degrees', 1)}
STATISTICS = {'mad': 'mean absolute difference', 'mad_sd': 'sd of the absolute difference',
              'bias': 'the bias', 'within': 'share within', 'sd': 'sd of the difference',
              'limits': 'limits of agreement', 'lower_limit': 'the lower limit',
              'upper_limit': 'the upper limit', 'sem': 'standard error',
              'mdc95': 'detectable change', 'r': 'r', 'r2': 'R²', 'icc2_1': 'ICC(2,1)',
              'icc3_1': 'ICC(3,1)', 'smape': 'SMAPE'}


def format_value(value: float | None, digits: int = 3) -> str:
  """`digits` decimals; an en dash for undefined values (None, NaN, infinity)."""
  return UNDEFINED if value is None or not math.isfinite(value) else f'{value:.{digits}f}'


def format_difference(value: float | None, digits: int = 3) -> str:
  """As `format_value`, with a typographic minus sign, and no sign for zero."""
  text = format_value(value, digits)
  return text.replace('-', '−' if text.strip('-0.') else '')


def format_probability(value: float | None) -> str:
  """As `format_value`, but never rounded to 0 or 1."""
  if value is None or 0.001 <= value <= 0.999:
    return format_value(value)
  return '<0.001' if value < 0.5 else '>0.999'


def format_percent(share: float | None) -> str:
  """A share from 0 to 1 as whole percent."""
  return UNDEFINED if share is None else f'{100 * share:.0f} %'


def format_duration(seconds: float) -> str:
  """Hours and minutes, minutes and seconds, or seconds."""
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours} h {minutes:02d} min'
  return f'{minutes} min {rest:02d} s' if minutes else f'{seconds:.1f} s'


def format_interval(interval: Sequence[float] | None, digits: int) -> str:
  """'low to high', '' without an interval."""
  return ' to '.join(format_difference(end, digits) for end in interval or ())


def interval_name(confidence: float) -> str:
  """Heading of a column of intervals, such as '95 % interval'."""
  return f'{100 * confidence:g} % interval'


def count_cases(count: int) -> str:
  """'1 case', '2 cases'."""
  return f'{count} case' if count == 1 else f'{count} cases'


def cell(table: ClassTable, metric: str, key: str, digits: int = 3) -> str:
  """`table[metric][key]` as text; '' if the table does not have it."""
  values = table.get(metric, {})
  return format_value(values[key], digits) if key in values else ''


def spread_cell(table: ClassTable, sd: ClassTable, metric: str, key: str, digits: int = 3) -> str:
  """`cell` of a mean, followed by ± and its standard deviation if that is defined."""
  text, spread = cell(table, metric, key, digits), cell(sd, metric, key, digits)
  return text if not text or spread in ('', UNDEFINED) else f'{text} ± {spread}'


def deviations(table: ClassTable) -> ClassTable:
  """The standard deviations of a table of means, by metric."""
  return {metric.removesuffix('_sd'): values for metric, values in table.items()
          if metric.endswith('_sd')}


def result_rows(result: TestResult, classes: Sequence[str]) -> dict[str, str]:
  """Rows of a table of results, {key: name}: foreground classes, means, background if rated."""
  rated = {key for table in (result.per_image, result.pooled) for values in table.values()
           for key in values}
  rows = {name: name for name in classes[1:]}
  rows['mean_foreground'] = MEANS['mean_foreground']
  if 'any_foreground' in rated:
    joined = ' + '.join(classes[1:])
    rows['any_foreground'] = f'{joined if len(joined) < 25 else "foreground"} as one'
  if classes[0] in rated:
    rows[classes[0]] = classes[0]
  return rows | {'mean_all': MEANS['mean_all']}


def result_notes(result: TestResult) -> list[str]:
  """Sentences below a table of results."""
  notes, scores = [], result.at_network_size
  if scores:
    notes.append(f"At the network's size: cross entropy {format_value(scores.cross_entropy)}, "
                 f'pixel accuracy {format_value(scores.accuracy)}.')
  seconds = result.seconds_per_image
  if seconds:
    notes.append(f'Prediction: {seconds.mean:.3g} seconds per image (median {seconds.median:.3g}, '
                 f'{seconds.images} images after the first batch), without reading and measuring.')
  tables = (result.per_image, result.pooled, {'auc': result.auc},
            *(case.overlap for case in result.cases.values()))
  if any(format_value(value) == UNDEFINED for table in tables for metric, values in table.items()
         if not metric.endswith('_sd') for value in values.values()):
    notes.append(UNDEFINED_NOTE)
  return notes


def laminae_rows(laminae: LaminaeSummary | None) -> dict[str, str]:
  """Rows of a table of laminae, {region: name}; none without volumes."""
  rated = laminae.mean.get('missed', {}) if laminae else {}
  return {region: name for region, name in LAMINAE_ROWS.items() if region in rated}


def laminae_columns(laminae: LaminaeSummary | None) -> dict[str, tuple[str, int]]:
  """Columns of a table of laminae that are defined in some case, {metric: (name, decimals)}."""
  return {metric: column for metric, column in LAMINAE_COLUMNS.items()
          if laminae and any(value is not None for value in laminae.mean.get(metric, {}).values())}


def cleaned_note(laminae: LaminaeSummary) -> str:
  """A sentence on the laminae missed and falsely found after `metrics.laminae.clean`, or ''."""
  missed, false = (laminae.mean.get(f'{metric}_cleaned', {}).get('all')
                   for metric in ('missed', 'false'))
  if missed is None or false is None:
    return ''
  return (f'Cleaned by levels: {missed:.1f} missed and {false:.1f} false laminae a volume, without '
          'those that belong to no level and with proposals for missing ones.')


def localizer_note(localizer_dice: Mapping[str, float]) -> str:
  """A sentence on the Dice that a perfect localizer reaches; '' if the labels are not cubes."""
  if not localizer_dice:
    return ''
  scores, noises = (' or '.join(filter(None, (', '.join(words[:-1]), words[-1]))) for words in (
      [f'{value:.2f}' for value in localizer_dice.values()], list(localizer_dice)))
  return (f'A perfect localizer reaches a Dice of {scores} against cubes of 3x3x3 voxels that were '
          f'placed with a noise of {noises} voxel along each axis.')


def angle_rows(angles: AngleSummary | None) -> dict[str, list[str]]:
  """Cells of ANGLE_COLUMNS of the measured and, where there is one, the naive angle."""
  def cells(of: Agreement) -> list[str]:
    mad = format_value(of.mad, 1)
    return [mad if of.mad_sd is None else f'{mad} ± {of.mad_sd:.1f}',
            format_difference(of.bias, 1), format_interval(of.limits, 1) or UNDEFINED,
            format_percent(of.within), format_value(of.r, 2), format_value(of.icc2_1, 2)]

  named = {'measured': angles.agreement, 'naive': angles.naive} if angles else {}
  return {name: cells(of) for name, of in named.items() if of and of.pairs}


def angle_note(result: TestResult) -> str:
  """What was measured, in how many cases, against what, and why it failed in the others."""
  angles = result.angles
  if not angles:
    return ''
  cases = [case.angle for case in result.cases.values() if case.angle]
  reference = {'phantom truth': 'the exact angles of the phantoms',
               'true masks': 'the same measurement on the true masks'}[angles.reference]
  note = (f'Largest angle ({angles.method}) in {len(cases) - angles.failed} of {len(cases)} cases, '
          f'compared with {reference}.')
  if angles.failed:
    reason, count = collections.Counter(
        case.flags[0] for case in cases if case.status == 'fail').most_common(1)[0]
    note += f' Failed: {angles.failed}. Most common reason ({count} of {angles.failed}): {reason}.'
  without = sum(case.reference_deg is None for case in cases)
  return note + (f' True masks without an angle: {without}.' if without else '')


def curve_angle(curve: Curve) -> str:
  """Angle of a curve in whole degrees."""
  return f'{curve.angle_deg:.0f}°'


def curve_interval(curve: Curve) -> str:
  """Interval of a curve in brackets, and its lower bound if it is cut off; '' without them."""
  parts = [interval(curve.ci95)]
  if curve.truncated and curve.lower_bound_deg is not None:
    parts.append(f'at least {curve.lower_bound_deg:.0f}°')
  return ', '.join(filter(None, parts))


def interval(ci95: tuple[float, float] | None) -> str:
  """An interval in whole degrees in brackets; '' for None."""
  return '({:.0f} to {:.0f})'.format(*ci95) if ci95 else ''


def curve_end(curve: Curve, end: str) -> str:
  """Level of an end ('upper', 'lower' or 'apex') of a curve, else its row in the image."""
  return getattr(curve, end) or f'row {getattr(curve, f"{end}_row"):.0f}'


def largest_angle(result: AngleResult) -> tuple[str, str]:
  """The largest angle of a case and its interval; an en dash if the measurement failed."""
  if result.status == 'fail':
    return UNDEFINED, ''
  curve = result.major_curve
  return (curve_angle(curve), curve_interval(curve)) if curve else (
      'no curve', interval(result.ci95))


def comparison_cells(metric: ComparedMetric, run: str) -> tuple[str, str, str, str, str]:
  """Mean ± deviation; difference, interval, p and adjusted p of the first run against the run."""
  summary, digits, test = metric.runs[run], metric.digits, metric.against.get(run)
  mean = format_value(summary.mean, digits)
  if summary.sd is not None:
    mean += f' ± {format_value(summary.sd, digits)}'
  if test is None:
    return mean, '', '', '', ''
  interval = (UNDEFINED if test.low is None or test.high is None
              else format_interval((test.low, test.high), digits))
  return (mean, format_difference(test.difference, digits), interval,
          format_probability(test.p_value), format_probability(test.adjusted_p))


def fact_cell(fact: RunFact, run: str) -> str:
  """The value of a run as text."""
  value = fact.values[run]
  if value is None or fact.key.startswith('auc/'):
    return format_value(value)
  if fact.key == 'training_seconds':
    return format_duration(value)
  return f'{value:.3g}' if fact.key == 'seconds_per_image' else f'{value:,.0f}'


def stress_name(artifact: str) -> str:
  """An artifact of the stress suite in words."""
  return artifact.replace('_', ' ')


def stress_cell(level: Level, metric: str, interval: bool = False) -> str:
  """Mean of a run at a strength, with its interval if asked for, and (n) angles that failed."""
  digits, spread = STRESS_METRICS[metric][1], level.metrics[metric]
  text = format_value(spread.mean, digits)
  if interval and spread.low is not None and spread.high is not None:
    text += f', {format_interval((spread.low, spread.high), digits)}'
  return text + (f' ({level.failed})' if metric == 'error_deg' and level.failed else '')


def stress_rows(found: Stress, metric: str, interval: bool = False) -> list[tuple[str, ...]]:
  """Rows (name, cell of each strength): an artifact, its runs, and beside the Dice of holes the
  fraction of missing pixels.
  """
  rows: list[tuple[str, ...]] = []
  for artifact, stressed in found.artifacts.items():
    rows.append((stress_name(artifact),))
    rows += [(f'  {run}', *(stress_cell(level, metric, interval) for level in levels))
             for run, levels in stressed.levels.items()]
    if artifact == 'holes' and metric == found.dice:
      shares = [f'{100 * share:.1f} %' for share in stressed.hole_fraction]
      rows.append(('  missing pixels', *shares))
  return rows


def stress_differences(found: Stress) -> list[tuple[str, ...]]:
  """Rows (name, mean over the strengths, interval, slope, interval): an artifact, its metrics."""
  rows: list[tuple[str, ...]] = []
  others = list(found.workdirs)[1:]
  for artifact, stressed in found.artifacts.items():
    rows.append((stress_name(artifact),))
    for run in others:
      for metric in found.shown_metrics:
        difference, digits = stressed.against[run][metric], STRESS_METRICS[metric][1]
        name = STRESS_METRICS[metric][0].partition(',')[0]
        cells: list[str] = []
        for test, places in ((difference.mean, digits), (difference.slope, digits + 1)):
          ends = (test.low, test.high) if test.low is not None and test.high is not None else None
          cells += [format_difference(test.difference, places),
                    format_interval(ends, places) or UNDEFINED]
        rows.append((f'  {name}' + (f', {run}' if len(others) > 1 else ''), *cells))
  return rows


def stress_notes(found: Stress) -> list[str]:
  """Sentences on the numbers of a stress suite and on what they leave out."""
  first, *others = found.workdirs
  notes = ['Strength: factor of the difficulty; 1 is the usual phantom, 0 is without the artifact.']
  if 'error_deg' in found.shown_metrics:
    notes.append('Angle error: mean absolute difference of the largest angle from that of the '
                 'phantom; in brackets the cases without an angle, which it leaves out.')
  if others:
    notes.append(f'Differences: {first} minus {others[0] if len(others) == 1 else "the run"}; the '
                 'mean over the strengths and the least-squares slope per unit of strength of each '
                 'case that is defined at all strengths, with bootstrap intervals over cases.')
  return [*notes, *found.notes]


def agreement_titles(found: TableAgreement) -> list[str]:
  """A title for each angle: both columns and the number of cases."""
  return [f'{found.other.name}: {other} against {found.reference.name}: {column}, '
          f'{count_cases(angle.pairs)}'
          for (column, angle), other in zip(found.angles.items(), found.other.columns)]


def agreement_rows(found: Agreement) -> list[tuple[str, str, str]]:
  """(name, value, interval) of every statistic but the bands; '' where there is no interval."""
  signed, interval = format_difference, format_interval

  def degrees(value, form=format_value):
    text = form(value, 1)
    return text if text == UNDEFINED else f'{text}°'

  lower, upper = found.limits or (None, None)
  mad, within = degrees(found.mad), format_percent(found.within)
  if found.mad_sd is not None:
    mad = f'{format_value(found.mad, 1)} ± {degrees(found.mad_sd)}'
  if found.pairs:
    within += f', {found.num_within} of {found.pairs}'
  return [
      ('Mean absolute difference ± sd', mad, ''),
      (f'Within {found.limit:g}°', within, ''),
      ('Bias', degrees(found.bias, signed), interval(found.bias_ci, 1)),
      ('Standard deviation of differences', degrees(found.sd), ''),
      ('Lower limit of agreement', degrees(lower, signed), interval(found.lower_limit_ci, 1)),
      ('Upper limit of agreement', degrees(upper, signed), interval(found.upper_limit_ci, 1)),
      ('Pearson r', signed(found.r), interval(found.r_ci, 3)),
      ('R²', format_value(found.r2), ''),
      ('ICC(2,1), absolute agreement', signed(found.icc2_1), interval(found.icc2_1_ci, 3)),
      ('ICC(3,1), consistency', signed(found.icc3_1), interval(found.icc3_1_ci, 3)),
      ('Standard error of measurement', degrees(found.sem), ''),
      ('Minimal detectable change, 95 %', degrees(found.mdc95), ''),
      ('SMAPE', UNDEFINED if found.smape is None else f'{found.smape:.1f} %', '')]


def band_rows(bands: BandAgreement) -> list[tuple[str, tuple[int, ...], str, str]]:
  """(band of the reference, cases by band of the other, sensitivity, specificity).

  Below them are the decisions 'this band or a higher one', which have no cases by band.
  """
  decisions = [(name, counts, bands.each[name])
               for name, counts in zip(bands.names, bands.confusion)]
  decisions += [(f'{decision.from_deg:g}° and more', (), decision)
                for decision in bands.at_least.values()]

  def share(value: float | None, hits: int, misses: int) -> str:
    return UNDEFINED if value is None else f'{value:.2f} ({hits}/{hits + misses})'

  return [(name, counts, share(found.sensitivity, found.tp, found.fn),
           share(found.specificity, found.tn, found.fp)) for name, counts, found in decisions]


def bands_note(bands: BandAgreement) -> str:
  """How often both measurements give the same band."""
  return (f'Same band: {format_percent(bands.accuracy)}; kappa with linear weights '
          f'{format_difference(bands.kappa, 2)}.')


def agreement_notes(found: TableAgreement) -> list[str]:
  """Sentences on cases left out, undefined statistics, and the meaning of the numbers."""
  names = {'reference': found.reference.name, 'other': found.other.name}
  sentences = []
  for why, cases in found.left_out.items():
    if cases:
      shown = ', '.join(cases[:MAX_NAMES]) + (', …' if len(cases) > MAX_NAMES else '')
      sentences.append(f'Left out, {LEFT_OUT[why].format(**names)}: {len(cases)} ({shown}).')
  for column, agreement in found.angles.items():
    reasons: dict[str, list[str]] = {}
    for key, reason in agreement.undefined.items():
      base = key.removesuffix('_ci')
      if key == base or base not in agreement.undefined:
        name = STATISTICS[base] if key == base else f'interval of {STATISTICS[base]}'
        reasons.setdefault(reason, []).append(name)
    prefix = f'{column}: ' if len(found.angles) > 1 else ''
    sentences += [f'{prefix}{", ".join(of) if agreement.pairs else "all"} undefined: {reason}.'
                  for reason, of in reasons.items()]
  smape = found.case_smape
  if smape and smape.smape is not None:
    sentences.append(f'SMAPE over the {len(found.angles)} angles of a case: {smape.smape:.1f} % '
                     f'(mean of {smape.smape_cases} cases).')
  return [*sentences, *found.notes,
          f'Differences are {names["other"]} minus {names["reference"]}. ICC(3,1), the standard '
          'error and the detectable change ignore the bias.']
