"""Options, and results as JSON."""
import json

import numpy as np
import pytest

from benchmarks import measure_laminae
from spinejax import measurement
from spinejax.measurement import AngleResult, Options


@pytest.mark.parametrize('options, sentence', [
    ({'bands': (10.0, 25.0)}, 'bands must be 3 rising limits'),
    ({'bands': (25.0, 10.0, 40.0)}, 'bands must be 3 rising limits'),
    ({'bands': (0.0, 10.0, 40.0)}, 'bands must be 3 rising limits'),
    ({'min_deg': 0.0}, 'min_deg must be degrees above 0'),
    ({'min_deg': float('nan')}, 'min_deg must be degrees above 0'),
    ({'calibration': (1.0, 2.0)}, 'calibration must be'),
    ({'calibration': ('steep', 2.0, 'us')}, 'calibration must be'),
])
def test_wrong_options_are_one_sentence(options, sentence):
  with pytest.raises(ValueError, match=sentence):
    Options(**options)


def results(vpi_cases, xray_cases):
  calibrated = Options(calibration=(1.1, 2.0, 'a test'))
  vpi, xray = vpi_cases[0], xray_cases[0]
  points, _ = measure_laminae.draw((11, 0))
  yield measurement.measure_vpi(vpi.label, vpi.truth.spacing, options=calibrated)
  yield measurement.measure_spa(vpi.image, vpi.truth.spacing)
  yield measurement.measure_xray(xray.label > 0, xray.truth.spacing)
  yield measurement.measure_landmarks(xray.truth.landmarks, 1.0)
  yield measurement.measure_laminae(np.delete(points, 15, 0), 1.0)
  yield measurement.measure_vpi(vpi.label, None)


def test_results_are_json_and_come_back(vpi_cases, xray_cases):
  keys = ['schema', 'method', 'status', 'curves', 'major_deg', 'band', 'ci95',
          'expected_error_deg', 'lower_bound_deg', 'levels_found', 'level_confidence', 'flags',
          'spacing', 'model', 'checkpoint', 'version']
  found = {result.method if result.curves else 'fail': result
           for result in results(vpi_cases, xray_cases)}
  for result in found.values():
    entries = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert entries == result.to_json() and list(entries)[:16] == keys
    assert AngleResult.from_json(entries) == result
    largest = result.major_curve and result.major_curve.angle_deg
    assert largest == result.major_deg
  entries = {method: result.to_json() for method, result in found.items()}
  assert list(entries['fail']) == keys
  assert list(entries['uca'])[16:] == ['levels', 'midline', 'midline_sd', 'naive_deg',
                                       'calibration', 'calibrated_deg']
  assert list(entries['centerline Cobb'])[16:] == ['midline', 'midline_sd', 'cross_check_deg']
  assert list(entries['landmark Cobb'])[16:] == ['levels', 'midline', 'rule', 'pt_mt_tl_deg']
  assert list(entries['uca']['levels'][0]) == [
      'name', 'kind', 'row', 'column', 'tilt_deg', 'line_deg', 'left', 'right', 'confidence']
  assert list(entries['landmark Cobb']['levels'][0]) == [
      'name', 'row', 'column', 'tilt_deg', 'left', 'right', 'corners', 'confidence']
  lone, = (level for level in entries['center of lamina']['levels'] if level['left'] is None)
  assert lone['line_deg'] is None and lone['rotation_deg'] is None and lone['right']
  assert 'pmc_deg' in entries['center of lamina']['curves'][0]
  assert 'pmc_deg' not in entries['uca']['curves'][0]


@pytest.mark.parametrize('entries', [[], {}, {'schema': 'spinejax.measure/1', 'curves': [{}]},
                                     {'schema': 'spinejax.measure/0', 'method': 'uca'}])
def test_other_json_is_refused(entries):
  with pytest.raises(ValueError, match='angle result'):
    AngleResult.from_json(entries)
