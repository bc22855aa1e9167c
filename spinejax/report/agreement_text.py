"""The agreement of two tables of angles as rows and sentences, for the terminal and for pages."""
from spinejax.metrics.paired_tables import TableAgreement
from spinejax.metrics.results import Agreement, BandAgreement, Decision
from spinejax.report import formats

MAX_NAMES = 5  # cases that a note names
LEFT_OUT = {'only_in_reference': 'only in {reference}', 'only_in_other': 'only in {other}',
            'failed_in_reference': 'failed in {reference}', 'failed_in_other': 'failed in {other}',
            'without_angle': 'without an angle in one of them'}
NAMES = {'mad': 'mean absolute difference', 'mad_sd': 'sd of the absolute difference',
         'bias': 'the bias', 'within': 'share within', 'sd': 'sd of the difference',
         'limits': 'limits of agreement',
         'lower_limit': 'the lower limit', 'upper_limit': 'the upper limit',
         'sem': 'standard error', 'mdc95': 'detectable change', 'r': 'r', 'r2': 'R²',
         'icc2_1': 'ICC(2,1)', 'icc3_1': 'ICC(3,1)', 'smape': 'SMAPE'}


def titles(found: TableAgreement) -> list[str]:
  """A title for each angle: both columns and the number of cases."""
  return [f'{found.other.name}: {other} against {found.reference.name}: {column}, '
          f'{formats.count_cases(angle.pairs)}'
          for (column, angle), other in zip(found.angles.items(), found.other.columns)]


def value_rows(agreement: Agreement) -> list[tuple[str, str, str]]:
  """(name, value, interval) of every statistic but the bands; '' where there is no interval."""
  signed, interval = formats.format_difference, formats.format_interval

  def degrees(value, form=formats.format_value):
    return formats.with_unit(form(value, 1), '°')

  lower, upper = agreement.limits or (None, None)
  mad = degrees(agreement.mad)
  if agreement.mad_sd is not None:
    mad = f'{formats.format_value(agreement.mad, 1)} ± {degrees(agreement.mad_sd)}'
  within = formats.format_percent(agreement.within)
  if agreement.pairs:
    within += f', {agreement.num_within} of {agreement.pairs}'
  return [
      ('Mean absolute difference ± sd', mad, ''),
      (f'Within {agreement.limit:g}°', within, ''),
      ('Bias', degrees(agreement.bias, signed), interval(agreement.bias_ci, 1)),
      ('Standard deviation of differences', degrees(agreement.sd), ''),
      ('Lower limit of agreement', degrees(lower, signed), interval(agreement.lower_limit_ci, 1)),
      ('Upper limit of agreement', degrees(upper, signed), interval(agreement.upper_limit_ci, 1)),
      ('Pearson r', signed(agreement.r), interval(agreement.r_ci, 3)),
      ('R²', formats.format_value(agreement.r2), ''),
      ('ICC(2,1), absolute agreement', signed(agreement.icc2_1), interval(agreement.icc2_1_ci, 3)),
      ('ICC(3,1), consistency', signed(agreement.icc3_1), interval(agreement.icc3_1_ci, 3)),
      ('Standard error of measurement', degrees(agreement.sem), ''),
      ('Minimal detectable change, 95 %', degrees(agreement.mdc95), ''),
      ('SMAPE', formats.with_unit(formats.format_value(agreement.smape, 1), ' %'), '')]


def band_rows(bands: BandAgreement) -> list[tuple[str, tuple[int, ...], str, str]]:
  """(band of the reference, cases by band of the other, sensitivity, specificity)."""
  return [(name, counts, *_decision_cells(bands.each[name]))
          for name, counts in zip(bands.names, bands.confusion)]


def threshold_rows(bands: BandAgreement) -> list[tuple[str, str, str]]:
  """(decision, sensitivity, specificity) of every 'this band or a higher one'."""
  return [(f'{decision.from_deg:g}° and more', *_decision_cells(decision))
          for decision in bands.at_least.values()]


def bands_note(bands: BandAgreement) -> str:
  """How often both measurements give the same band."""
  return (f'Same band: {formats.format_percent(bands.accuracy)}; kappa with linear weights '
          f'{formats.format_difference(bands.kappa, 2)}.')


def notes(found: TableAgreement) -> list[str]:
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
        name = NAMES[base] if key == base else f'interval of {NAMES[base]}'
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


def _decision_cells(decision: Decision) -> tuple[str, str]:
  """Sensitivity and specificity with the numbers of cases they come from."""
  def share(value, hits, misses):
    return formats.UNDEFINED if value is None else f'{value:.2f} ({hits}/{hits + misses})'

  return (share(decision.sensitivity, decision.tp, decision.fn),
          share(decision.specificity, decision.tn, decision.fp))
