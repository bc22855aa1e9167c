"""Comparison of runs: numbers by hand, and everything that has no number."""
import dataclasses
import json
import math

import numpy as np
import pytest
from scipy import stats

from spinejax.metrics import comparison
from spinejax.metrics.comparison import MissedLaminae, RunSummary
from spinejax.metrics import agreement
from spinejax.metrics.results import (
    AngleSummary, CaseAngle, CaseResult, LaminaeSummary, TestResult)

CLASSES = ('background', 'rib', 'lump')


def result(dice, laminae=None):
  """Result of cases with these Dice values of rib; lump is 0.5 everywhere."""
  cases = {}
  for i, value in enumerate(dice):
    overlap = {'dice': {'rib': value, 'lump': 0.5, 'mean_foreground': value}}
    cases[f'case_{i}'] = CaseResult(f'case_{i}', overlap, laminae and laminae[i])
  return TestResult(1, {}, {}, cases, {}, laminae=laminae and LaminaeSummary({}, {}, {'0.5': 0.65}))


def angles(measured, reference, method='uca'):
  """Result with these angles of its cases."""
  cases = {name: dataclasses.replace(case, angle=CaseAngle(true, angle, None, 'mild', 'ok', ()))
           for (name, case), angle, true in zip(result([0.5] * 3).cases.items(), measured,
                                                reference)}
  summary = AngleSummary(method, 'phantom truth', 0, agreement.agree(reference, measured), None)
  return TestResult(1, {}, {}, cases, {}, angles=summary)


def lamina_case(missed, true=(24, 10), d3d=1.0):
  thoracic, lumbar = missed
  regions = {'all': sum(missed), 'thoracic': thoracic, 'lumbar': lumbar}
  return {'missed': regions, 'false': dict.fromkeys(regions, 0), 'delta': dict(regions),
          'true': {'all': sum(true), 'thoracic': true[0], 'lumbar': true[1]},
          'd3d_mean': dict.fromkeys(regions, d3d), 'd3d_mean_mm': dict.fromkeys(regions),
          'd3d_sum': dict.fromkeys(regions, d3d and 34 * d3d), 'dice': dict.fromkeys(regions, 0.6)}


def compare(**results):
  """The comparison, and its metrics by key."""
  found = comparison.compare(results, CLASSES)
  return found, {metric.key: metric for metric in found.metrics}


def test_means_deviations_and_a_t_test_by_hand():
  found, metrics = compare(a=result([0.9, 0.7, 0.8, 0.8]), b=result([0.6, 0.6, 0.7, 0.5]))
  assert found.runs == ('a', 'b') and found.cases == tuple(f'case_{i}' for i in range(4))
  assert list(metrics) == ['dice/rib', 'dice/lump', 'dice/mean_foreground']
  rib = metrics['dice/rib']
  assert rib.values == {'a': (0.9, 0.7, 0.8, 0.8), 'b': (0.6, 0.6, 0.7, 0.5)}
  assert rib.runs['a'] == RunSummary(pytest.approx(0.8), pytest.approx(math.sqrt(0.02 / 3)), 4)
  test = rib.against['b']
  # Differences 0.3 0.1 0.1 0.3: mean 0.2, deviation sqrt(0.04 / 3), t = 2 sqrt(3), 3 degrees.
  assert test.difference == pytest.approx(0.2)
  assert test.p_value == pytest.approx(stats.t.sf(2 * math.sqrt(3), 3))
  assert 0.099 < test.low < 0.2 < test.high < 0.301 and test.note == ''
  stored = json.loads(json.dumps(found.to_json(), allow_nan=False))
  assert stored['metrics'][0]['against']['b']['p_value'] == test.p_value


def test_the_tail_is_that_of_the_better_run():
  worse, better = [1.0, 2.0, 4.0], [0.5, 1.0, 1.0]
  down = comparison.paired_test(better, worse, better='lower')
  up = comparison.paired_test(better, worse, better='higher')
  assert down.p_value < 0.1 and up.p_value == pytest.approx(1 - down.p_value)
  assert down.difference == pytest.approx(-4.5 / 3) and down.high < 0


def test_the_interval_is_paired_and_seeded():
  rng = np.random.default_rng(0)
  level = rng.normal(0, 100, 30)
  first, other = level + rng.normal(1, 1, 30), level + rng.normal(0, 1, 30)
  test = comparison.paired_test(first, other, better='higher')
  assert test == comparison.paired_test(first, other, better='higher')
  spread = np.std(first - other, ddof=1) / math.sqrt(30)
  assert test.high - test.low == pytest.approx(2 * 1.96 * spread, rel=0.2)


@pytest.mark.parametrize('first, other, cases, difference, words', [
    ([0.5, 0.6, 0.9], [0.5, 0.6, 0.9], 3, 0.0, 'same in every case'),
    ([0.1, 0.2, 0.3], [0.2, 0.3, 0.4], 3, -0.1, 'same in every case'),
    ([0.5], [0.4], 1, 0.1, 'at least two cases'),
    ([0.5, None, 0.3], [0.4, 0.2, None], 1, 0.1, 'at least two cases'),
    ([None, None], [0.4, 0.2], 0, None, 'at least two cases'),
])
def test_a_note_says_what_cannot_be_tested(first, other, cases, difference, words):
  test = comparison.paired_test(first, other, better='higher')
  assert test.cases == cases and words in test.note
  assert test.difference == (None if difference is None else pytest.approx(difference))
  assert test.p_value is test.low is test.high is None


def test_cases_that_differ_in_one_alone_have_finite_numbers():
  test = comparison.paired_test([0.0] * 9 + [1.0], [0.0] * 10, better='lower')
  assert 0 < test.p_value < 1 and (test.low is None or 0 <= test.low <= test.high <= 1)


@pytest.mark.parametrize('p_values, adjusted', [
    # Times 4, 3, 2 and 1; 2 * 0.03 is raised to 3 * 0.025, and 0.04 to it.
    ((0.04, 0.01, 0.03, 0.025), (0.075, 0.04, 0.075, 0.075)),
    ((0.2, None, 0.2, 0.9), (0.6, None, 0.6, 0.9)), ((0.6, 0.7), (1.0, 1.0)),
    ((0.03,), (0.03,)), ((None,), (None,)), ((), ())])
def test_holm_by_hand(p_values, adjusted):
  assert comparison.holm(p_values) == tuple(
      p if p is None else pytest.approx(p) for p in adjusted)


def test_undefined_values_are_left_out_with_a_note():
  found, metrics = compare(a=result([0.9, None, 0.8, 0.4]), b=result([0.6, 0.5, None, 0.3]))
  rib = metrics['dice/rib']
  assert rib.runs['a'].cases == 3 and rib.against['b'].cases == 2
  assert rib.against['b'].difference == pytest.approx(0.2)
  assert ('Dice, rib; Dice, mean of foreground: undefined in some of the 4 cases, 1 of a, 1 of b.'
          in found.notes)
  assert any('Dice, lump (b): the difference is the same' in note for note in found.notes)
  _, metrics = compare(a=result([None, None]), b=result([None, None]))
  assert list(metrics) == ['dice/lump']


def test_overlap_accuracy_and_angle_errors_are_compared():
  def tested(value, measured):
    of = angles(measured, [10.0, 20.0, 30.0])
    cases = {name: dataclasses.replace(case, overlap={
        metric: {'rib': value, 'lump': None, 'mean_foreground': value, 'mean_all': value}
        for metric in ('dice', 'iou', 'recall', 'precision', 'accuracy')})
             for name, case in of.cases.items()}
    return dataclasses.replace(of, cases=cases)

  _, metrics = compare(a=tested(0.5, [11.0, 18.0, None]), b=tested(0.25, [14.0, 14.0, 30.0]))
  assert list(metrics) == [
      'dice/rib', 'dice/mean_foreground', 'iou/rib', 'iou/mean_foreground', 'recall/rib',
      'recall/mean_foreground', 'precision/rib', 'precision/mean_foreground', 'accuracy/mean_all',
      'angle_error']
  assert [key for key, metric in metrics.items() if metric.main] == [
      'dice/rib', 'dice/mean_foreground', 'accuracy/mean_all', 'angle_error']
  error = metrics['angle_error']
  assert error.values == {'a': (1, 2, None), 'b': (4, 6, 0)} and error.better == 'lower'
  assert error.against['b'].difference == -3.5 and error.against['b'].cases == 2


@pytest.mark.parametrize('other, words', [
    (result([0.5] * 3), 'b was tested without angles'),
    (angles([1.0, 2.0, 3.0], [10.0, 21.0, 30.0], 'spa'),
     'other references, such as in case_1 (a: uca, phantom truth; b: spa, phantom truth)'),
    (angles([1.0, 2.0, 3.0], [None, 20.0, 30.0]), 'other references, such as in case_0')])
def test_angles_against_other_references_are_left_out(other, words):
  found, metrics = compare(a=angles([11.0, 18.0, 30.0], [10.0, 20.0, 30.0]), b=other)
  assert 'angle_error' not in metrics and words in found.notes[0]


def test_p_values_are_adjusted_within_a_metric():
  found, metrics = compare(a=result([0.9, 0.7, 0.8, 0.8]), b=result([0.6, 0.6, 0.7, 0.5]),
                           c=result([0.8, 0.7, 0.8, 0.7]), d=result([0.9, 0.7, 0.8, 0.8]))
  tests = metrics['dice/rib'].against
  assert tests['b'].adjusted_p == pytest.approx(2 * tests['b'].p_value)
  assert tests['c'].adjusted_p == tests['c'].p_value > tests['b'].adjusted_p
  assert tests['d'].adjusted_p is None  # the same run cannot be tested and is not counted


def test_cases_are_chosen_by_the_dice_of_the_first_run():
  found, _ = compare(a=result([0.6, 0.9, None, 0.7]), b=result([0.1, 0.2, 0.3, 0.4]))
  assert comparison.case_dice(found, 'b')['case_2'] == 0.3
  assert list(comparison.choose_cases(found).items()) == [
      ('case_0', 'worst'), ('case_3', 'median'), ('case_1', 'best')]
  assert comparison.choose_cases(found, ['case_2', 'case_1']) == {'case_2': '', 'case_1': 'best'}
  assert list(comparison.choose_cases(found, ['all'])) == list(found.cases)
  with pytest.raises(ValueError, match='case_33 is not one of the 4 .* nearest name is case_3'):
    comparison.choose_cases(found, ['case_33'])
  found, _ = compare(a=result([None]), b=result([0.1]))
  assert comparison.choose_cases(found) == {}


def test_one_case_has_means_alone():
  found, metrics = compare(a=result([0.9]), b=result([0.6]))
  assert found.notes == ('One case has no deviation, test or interval.',)
  assert metrics['dice/rib'].runs['a'] == RunSummary(0.9, None, 1)
  assert metrics['dice/rib'].against['b'].difference == pytest.approx(0.3)


def test_laminae_are_compared_and_misses_added_by_region():
  a = result([0.9, 0.8], [lamina_case((0, 1)), lamina_case((1, 2))])
  b = result([0.9, 0.7], [lamina_case((2, 4), d3d=3.0), lamina_case((0, 4), d3d=2.0)])
  found, metrics = compare(a=a, b=b, c=a)
  assert found.missed == {
      region: {run: MissedLaminae(*counts) for run, counts in zip('abc', (of_a, of_b, of_a))}
      for region, of_a, of_b in (('all', (4, 68), (10, 68)), ('thoracic', (1, 48), (2, 48)),
                                 ('lumbar', (3, 20), (8, 20)))}
  assert metrics['d3d_mean/all'].better == 'lower' and metrics['d3d_mean/all'].main
  assert metrics['d3d_mean/all'].against['b'].p_value < 0.25
  assert metrics['missed/lumbar'].main and not metrics['false/lumbar'].main
  assert not any(key.startswith('d3d_mean_mm') for key in metrics)
  assert found.localizer_dice == {'0.5': 0.65}


def test_laminae_are_left_out_if_a_run_has_none():
  a, b = result([0.9, 0.8], [lamina_case((0, 1))] * 2), result([0.9, 0.7])
  found, metrics = compare(a=a, b=b)
  assert found.missed == {} and list(metrics)[-1] == 'dice/mean_foreground'
  assert 'Laminae are left out: b was tested without them' in found.notes[0]
