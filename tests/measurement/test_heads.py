"""What every method must do with masks: shifts, flips, samplings, spacings and hostile input."""
import json

import numpy as np
import pytest

from spinejax import measurement


def variants(mask):
  rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
  yield 'crop', mask[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1], 1
  yield 'shift', np.pad(mask, ((7, 0), (11, 3))), 1
  yield 'flip', mask[:, ::-1], 1
  yield 'resample', np.repeat(np.repeat(mask, 2, 0), 2, 1), 2
  yield 'stretch', np.repeat(mask, 3, 0), np.array([3, 1])


@pytest.mark.parametrize('kind', ['vpi', 'xray'])
def test_shift_flip_and_resampling_change_what_they_must(kind, vpi_cases, xray_cases):
  case = {'vpi': vpi_cases, 'xray': xray_cases}[kind][0]
  function = {'vpi': measurement.measure_vpi, 'xray': measurement.measure_xray}[kind]
  mask = case.label if kind == 'vpi' else case.label == 1
  spacing = np.array(case.truth.spacing)
  plain = function(mask, spacing)
  for name, changed, factor in variants(mask):
    result = function(changed, spacing / factor)
    assert abs(result.major_deg - plain.major_deg) < (
        0.02 if name in ('shift', 'crop') else 0.7), name
    sides = [curve.side for curve in result.curves]
    expected = [curve.side for curve in plain.curves]
    if name == 'flip':
      expected = [{'left': 'right', 'right': 'left'}[side] for side in expected]
    assert sides == expected


def hostile_vpi(label):
  yield 'empty', np.zeros_like(label)
  for value in (1, 2, 3):
    yield f'all {value}', np.full_like(label, value)
  blob = np.zeros_like(label)
  blob[100:110, 50:60] = 2
  yield 'one component', blob
  yield 'upside down', label[::-1]
  yield 'left side only', np.where(np.arange(label.shape[1]) < 64, label, 0)
  yield 'one pixel', np.eye(1, 1, dtype=np.uint8)
  yield 'no pixel', np.zeros((0, 0), np.uint8)
  yield 'noise', np.random.default_rng(0).integers(0, 4, label.shape)
  many = np.zeros((900, 120), np.uint8)
  for i in range(40):
    many[10 + 22 * i:20 + 22 * i, 30:90] = 3
  yield '40 lumps', many
  for number in (2, 6):
    few = np.where(np.arange(900)[:, None] < 22 * number, many, 0)
    yield f'{number} lumps', few
  yield 'specks', np.random.default_rng(1).random((1024, 256)) < 0.05
  yield 'specks of two', 2 * (np.random.default_rng(1).random((1024, 256)) < 0.05)
  yield 'NaN', np.full(label.shape, np.nan)
  yield 'floats with NaN', np.where(np.eye(*label.shape) > 0, np.nan, label)
  yield 'negative', -label.astype(int)
  yield 'bool', label > 0
  yield 'straight', np.where(np.arange(label.shape[1]) // 10 == 6, 2, 0) + 0 * label


def hostile_xray(mask):
  yield 'empty', np.zeros_like(mask)
  yield 'full', np.ones_like(mask)
  yield 'no pixel', np.zeros((0, 5), bool)
  yield 'one pixel', np.eye(1, dtype=bool)
  yield 'one row', np.ones((1, 400), bool) & (np.arange(400) > 3)
  yield 'disk', np.hypot(*(np.mgrid[:200, :200] - 100)) < 60
  yield 'lying', mask.T
  yield 'noise', np.random.default_rng(0).random(mask.shape) < 0.5
  yield 'specks', np.random.default_rng(0).random(mask.shape) < 0.01
  yield 'beads', np.arange(600)[:, None] % 20 + 0 * mask < 3
  yield 'two spines', np.concatenate([mask, mask], 1)
  yield 'cross', mask | (np.abs(np.arange(600)[:, None] - 300) < 12)


@pytest.mark.parametrize('function', [measurement.measure_vpi, measurement.measure_xray])
def test_hostile_masks_give_a_status_and_words(function, vpi_cases, xray_cases):
  masks = {measurement.measure_vpi: dict(hostile_vpi(vpi_cases[0].label)),
           measurement.measure_xray: dict(hostile_xray(xray_cases[0].label > 0))}
  for kind, named in masks.items():
    for name, mask in named.items():
      result = function(mask, 0.8)
      json.dumps(result.to_json(), allow_nan=False)
      assert (result.major_deg is None) == (result.status == 'fail'), name
      assert result.flags or kind is not function and result.status == 'ok', name
      assert result.status != 'fail' or not result.curves, name


@pytest.mark.parametrize('function, shape', [
    (measurement.measure_vpi, (40, 20)), (measurement.measure_xray, (40, 20)),
    (measurement.measure_spa, (40, 20)), (measurement.measure_laminae, (34, 3)),
    (measurement.measure_lamina_volume, (9, 8, 7)), (measurement.measure_landmarks, (68, 2))])
def test_unknown_spacing_is_refused(function, shape):
  ndim = 3 if 'lamina' in function.__name__ else 2
  for spacing in (None, float('nan'), (0.5, float('nan'), 0.5)[:ndim], (0.0, 1.0, 1.0)[:ndim],
                  (0.4, -1.0, 0.4)[:ndim]):
    result = function(np.zeros(shape), spacing)
    assert result.status == 'fail' and 'spacing is unknown' in result.flags[0]
  with pytest.raises(ValueError, match='one per axis'):
    function(np.zeros(shape), (1, 1, 1, 1))
  with pytest.raises(ValueError, match='numbers in mm'):
    function(np.zeros(shape), 'wide')
  with pytest.raises(ValueError, match=r'must be (\[|68 rows|rows of|one size)|\[H,W\]'):
    function(np.zeros((2, 2, 2, 2)), 1.0)
