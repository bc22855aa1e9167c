"""Results of tests survive their JSON file; damaged files are refused."""
import copy
import json

import pytest

from spinejax import runs
from spinejax.metrics import agreement
from spinejax.metrics.results import (
    AngleSummary, CaseAngle, CaseResult, LaminaeSummary, NetworkScores, SecondsPerImage,
    TestResult)

TABLE = {'dice': {'rib': 0.5, 'lump': None, 'mean_foreground': 0.5}, 'dice_sd': {'rib': None}}
REGIONS = {'missed': {'all': 1, 'lumbar': 1}, 'd3d_mean': {'all': 2.5, 'lumbar': None}}
FULL = TestResult(
    7, TABLE, TABLE, {
        'a': CaseResult('a', TABLE, REGIONS, CaseAngle(20.0, 21.5, None, 'mild', 'ok', ())),
        'b': CaseResult('b', TABLE, REGIONS, CaseAngle(12.0, None, None, None, 'fail', ('few',)))},
    {'rib': 0.9, 'lump': None}, NetworkScores(0.25, 0.875),
    LaminaeSummary(REGIONS, REGIONS, {'0.5': 0.65}),
    AngleSummary('uca', 'true masks', 1, agreement.agree([20.0, 12.0], [21.5, None]), None),
    SecondsPerImage(0.2, 0.125, 8))


@pytest.mark.parametrize('result', [FULL, TestResult(1, {}, {}, {}, {})])
def test_a_result_survives_its_file(tmp_path, result):
  runs.write_json(tmp_path / 'test_metrics.json', result.to_json())
  assert TestResult.from_json(runs.read_json(tmp_path / 'test_metrics.json')) == result


def test_the_file_holds_tables_by_kind_and_case():
  content = json.loads(json.dumps(FULL.to_json(), allow_nan=False))
  assert list(content) == ['step', 'per_image', 'pooled', 'cases', 'auc', 'at_network_size',
                           'seconds_per_image', 'angles', 'laminae']
  assert content['cases']['a'] == TABLE and content['laminae']['cases']['b'] == REGIONS
  assert content['angles']['cases']['b']['flags'] == ['few']
  assert content['angles']['agreement']['bands']['at_least']['mild']['from_deg'] == 10.0
  assert 'from_deg' not in content['angles']['agreement']['bands']['each']['mild']
  assert set(TestResult(1, {}, {}, {}, {}).to_json()) == {'step', 'per_image', 'pooled', 'cases',
                                                          'auc'}


@pytest.mark.parametrize('path, value, sentence', [
    ((), [1], 'expected the result of a test'),
    (('cases',), None, 'expected the result of a test'),
    (('per_image', 'dice'), 0.5, 'expected the result of a test'),
    (('angles', 'cases', 'a'), {'flags': []}, 'expected the result of a test'),
    (('angles', 'agreement', 'bands'), {}, 'expected the result of a test'),
    (('cases', 'a', 'dice', 'rib'), 'high', "expected a number for rib, got 'high'"),
    (('cases', 'a', 'dice', 'rib'), float('nan'), 'expected a number for rib, got nan'),
    (('laminae', 'cases', 'a', 'missed', 'all'), True, 'expected a number for all, got True'),
])
def test_another_file_is_refused(path, value, sentence):
  content = copy.deepcopy(runs.plain(FULL.to_json()))
  parent = content
  for key in path[:-1]:
    parent = parent[key]
  if path:
    parent[path[-1]] = value
  with pytest.raises(ValueError, match=sentence):
    TestResult.from_json(content if path else value)
