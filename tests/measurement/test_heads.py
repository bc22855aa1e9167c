"""What every method must do with masks: shifts, flips, samplings, spacings and hostile input."""
import json

import numpy as np
import pytest

from spinejax import measurement


OTHER = {'left': 'right', 'right': 'left'}


def variants(images):
  """(kind, images, factor of the size) of images [n,H,W] with other places and samplings."""
  rows, columns = (np.flatnonzero(images.any((0, axis))) for axis in (2, 1))
  yield 'shift', images[:, rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1], 1
  yield 'shift', np.pad(images, ((0, 0), (7, 0), (11, 3))), 1
  yield 'flip', images[..., ::-1], 1
  yield 'sampling', images.repeat(2, 1).repeat(2, 2), 2
  yield 'sampling', images.repeat(3, 1), np.array([3, 1])


@pytest.mark.parametrize('name, tolerances', [
    ('vpi', (0.02, 0.7, 0.7)), ('xray', (0.02, 0.7, 0.7)), ('spa', (0.3, 0.3, 1.0))])
def test_shift_flip_and_resampling_change_what_they_must(
    name, tolerances, vpi_cases, xray_cases, spa_case):
  function, case, images = {
      'vpi': (measurement.measure_vpi, vpi_cases[0], [vpi_cases[0].label]),
      'xray': (measurement.measure_xray, xray_cases[0], [xray_cases[0].label == 1]),
      'spa': (measurement.measure_spa, spa_case, [spa_case.image, spa_case.label])}[name]
  images, spacing = np.array(images), np.array(case.truth.spacing)
  plain = function(images[0], spacing, *images[1:])
  for kind, changed, factor in variants(images):
    result = function(changed[0], spacing / factor, *changed[1:])
    tolerance = dict(zip(('shift', 'flip', 'sampling'), tolerances))[kind]
    assert abs(result.major_deg - plain.major_deg) < tolerance, kind
    assert [curve.side for curve in result.curves] == [
        OTHER[curve.side] if kind == 'flip' else curve.side for curve in plain.curves], kind


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
    yield f'{number} lumps', np.where(np.arange(900)[:, None] < 22 * number, many, 0)
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
      sound = kind is not function or name == 'floats with NaN'  # which miss a diagonal
      assert result.flags or sound and result.status == 'ok', name
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
  with pytest.raises(ValueError, match=r'must be (\[|rows of|one size)|\[H,W\]'):
    function(np.zeros((2, 2, 2, 2)), 1.0)
