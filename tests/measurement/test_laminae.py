"""Center-of-lamina angles of phantoms and by hand; misses, false laminae and hostile volumes."""
import json

import numpy as np
import pytest

from benchmarks import angle_errors, measure_laminae
from benchmarks.measure_laminae import benchmark, largest
from spinejax import measurement
from spinejax.measurement import course, curves, fit, proposals


@pytest.fixture(scope='module')
def cases():
  return [measure_laminae.draw((11, i)) for i in range(12)]


@pytest.fixture(scope='module')
def spine(cases):
  """A case with a clear curve: centers [34,3] in mm."""
  return cases[int(np.argmax([largest(t.cobb) for _, t in cases]))][0]


def planar(plane: float, amplitude: float = 12.0) -> np.ndarray:
  """34 laminae of a spine that bends as amplitude sin(pi u) in a plane, degrees from coronal."""
  rows = 20 + np.cumsum(np.linspace(20, 34, 17))
  bend = amplitude * np.sin(np.pi * (rows - rows[0]) / np.ptp(rows))
  slope = np.gradient(bend, rows) * np.cos(np.radians(plane))
  turn = np.stack([-slope, np.ones(17), np.zeros(17)], -1) / np.hypot(1, slope)[:, None]
  middle = np.stack([rows, 40 + bend * np.cos(np.radians(plane)),
                     20 + bend * np.sin(np.radians(plane))], -1)
  return np.stack([middle - 10 * turn, middle + 10 * turn], 1).reshape(34, 3)


@pytest.mark.parametrize('noise, missed, false, limit', [
    (0.0, 0, 0, 0.8), (0.7, 0, 0, 1.2), (0.7, 3, 3, 2.4)])
def test_laminae_of_phantoms(noise, missed, false, limit):
  rows = benchmark(noise, missed, false, 12)
  errors = angle_errors.summarize([row['case'] for row in rows])
  assert errors['mad'] < limit and errors['naive'] > 2 * errors['mad']
  if not missed:
    assert all(row['case'].result.levels_found == 17 for row in rows) and not errors['fail']
    rotation = np.concatenate([row['rotation'] for row in rows])
    assert np.abs(rotation).mean() < 1 + 3 * noise


def test_many_misses_are_flagged():
  rows = benchmark(0.7, 8, 8, 12)
  results = [row['case'].result for row in rows]
  assert all(result.status in ('partial', 'fail') for result in results)
  sure = [row['case'] for row in rows if row['sure']]
  assert len(sure) >= 4 and angle_errors.summarize(sure)['mad'] < 1.5
  assert angle_errors.summarize([row['case'] for row in rows])['covered'] > 0.8
  near: dict[float, list[bool]] = {}  # by confidence, which is their share in many more cases
  for i, result in enumerate(results):
    truth, _ = measure_laminae.draw((11, i))
    for x in result.laminae:
      away = np.linalg.norm(truth - (x.row, x.column, x.depth), axis=1).min()
      near.setdefault(x.confidence, []).append(away < 3)
  assert near.keys() == {proposals.FOUND, proposals.OPPOSITE, proposals.BETWEEN}
  for confidence, within in near.items():
    assert np.mean(within) == pytest.approx(confidence, abs=0.25)


def test_a_zigzag_of_lone_laminae_is_followed_to_the_end(cases):
  right, left = 0, 1
  gone = [2 * 12 + right, 2 * 13 + left, 2 * 14 + right, 2 * 15 + left, 2 * 16 + right]
  for points, truth in cases:
    result = measurement.measure_laminae(np.delete(points, gone, 0), 1.0)
    assert result.levels_found == 17
    assert abs(result.major_deg - largest(truth.cobb)) < 12


def test_false_laminae_are_left_out_and_missing_ones_proposed(spine):
  steps = np.array([2.0, 1.0, 0.5])
  level, right, left = 7, 2 * 11, 2 * 4 + 1  # both of T8, the right one of T12, the left one of T5
  given = np.delete(spine, [2 * level, 2 * level + 1, right, left], 0)
  false = spine[[10, 25]] + [4, 25, 8]
  result = measurement.measure_laminae(np.concatenate([given, false]) / steps, steps)
  assert len(result.laminae) == 34
  places = np.array([(x.row, x.column, x.depth) for x in result.laminae]) * steps
  away = np.linalg.norm(places - spine, axis=1)
  proposed = {i for i, x in enumerate(result.laminae) if not x.found}
  assert proposed == {2 * level, 2 * level + 1, right, left}
  assert max(away[i] for i in proposed) < 4 and np.delete(away, sorted(proposed)).max() < 0.02
  assert [(x.level, x.side) for x in result.laminae] == [
      (level, side) for level in curves.LEVELS for side in ('right', 'left')]
  of = [x.confidence for x in result.laminae]
  assert (of[0], of[right], of[2 * level]) == (
      proposals.FOUND, proposals.OPPOSITE, proposals.BETWEEN)
  entries = json.loads(json.dumps(result.to_json()))
  assert measurement.AngleResult.from_json(entries) == result
  del entries['laminae']  # as files were before
  assert measurement.AngleResult.from_json(entries).laminae == ()


def test_the_smoothing_follows_the_roughness():
  pairs = np.arange(34).reshape(17, 2)
  straight, bent = (course.follow(points, pairs)
                    for points in (planar(0.0, 0.0), planar(0.0, 25.0)))
  assert straight.smoothing == pytest.approx((fit.NUM_JOINT - 1) / course.ROUGHNESS, rel=1e-3)
  rough = (np.diff(bent.left.coefficients / np.median(bent.places.apart), 3)**2).sum()
  assert bent.smoothing == pytest.approx((fit.NUM_JOINT - 1) / (rough + course.ROUGHNESS), rel=0.02)
  assert bent.smoothing < straight.smoothing - 2


@pytest.mark.parametrize('plane', [0.0, 30.0, -40.0])
def test_the_plane_of_maximum_curvature_by_hand(plane):
  result = measurement.measure_laminae(planar(plane), 1.0)
  curve, = result.curves
  slope = 12 * np.pi / (np.linspace(20, 34, 17)[1:].sum())
  whole = 2 * np.degrees(np.arctan(slope))
  coronal = 2 * np.degrees(np.arctan(slope * np.cos(np.radians(plane))))
  assert curve.pmc_deg == pytest.approx(plane, abs=1)
  assert curve.pmc_angle_deg == pytest.approx(whole, abs=0.5)
  assert curve.angle_deg == pytest.approx(coronal, abs=0.5)
  assert (curve.side, curve.upper, curve.lower) == ('left', 'T1', 'L5')


def test_rotation_is_positive_where_the_left_side_lies_nearer_the_skin():
  points = planar(0.0)
  points[1::2, 2] -= 20 * np.tan(np.radians(10))
  result = measurement.measure_laminae(points, 1.0)
  assert result.curves[0].rotation_deg == pytest.approx(10, abs=0.2)
  upright = [level.rotation_deg for level in result.levels]
  np.testing.assert_allclose(upright, 10, atol=0.2)


def test_order_shift_spacing_and_mirror_change_what_they_must(spine):
  plain = measurement.measure_laminae(spine, 1.0)
  assert [level.name for level in plain.levels] == list(curves.LEVELS)
  assert plain.level_confidence == 'high' and plain.status == 'ok'
  low, high = plain.major_curve.ci95
  assert low < plain.major_deg < high
  shuffled = np.random.default_rng(0).permutation(spine)
  steps = np.array([1.2, 0.9, 0.95])
  for points, spacing in ((shuffled, 1.0), (spine + [30, -7, 4], 1.0), (spine / steps, steps)):
    assert measurement.measure_laminae(points, spacing).major_deg == pytest.approx(
        plain.major_deg, abs=0.02)
  mirrored = measurement.measure_laminae(spine * [1, -1, 1], 1.0)
  other = {'left': 'right', 'right': 'left'}
  assert mirrored.major_deg == pytest.approx(plain.major_deg, abs=0.02)
  assert [c.side for c in mirrored.curves] == [other[c.side] for c in plain.curves]
  for one, two in zip(mirrored.levels, plain.levels):
    assert one.rotation_deg == pytest.approx(-two.rotation_deg, abs=0.02)


def test_what_is_missing_is_flagged(spine):
  whole = measurement.measure_laminae(spine, 1.0)
  crop = measurement.measure_laminae(spine[8:], 1.0)
  assert crop.status == 'partial' and '13 levels of 17' in crop.flags[0]
  apart = np.subtract([level.tilt_deg for level in crop.levels],
                      [level.tilt_deg for level in whole.levels[4:]])
  assert np.abs(apart).max() < 3 and crop.levels[0].name == 'level 1'

  lone = measurement.measure_laminae(np.delete(spine, 15, 0), 1.0)
  assert lone.levels_found == 17 and lone.level_confidence == 'high'
  level, = (level for level in lone.levels if level.line_deg is None)
  assert level.name == 'T8' and level.left is None
  assert any('only one lamina' in flag for flag in lone.flags)

  gap = measurement.measure_laminae(np.delete(spine, [14, 15], 0), 1.0)
  assert gap.status == 'partial' and gap.levels_found == 16
  assert f'missing between rows {spine[12:14, 0].mean():.0f}' in gap.flags[0]
  assert [level.name for level in gap.levels][6:8] == ['T7', 'T9']

  alternate = measurement.measure_laminae(spine.reshape(17, 2, 3)[::2].reshape(-1, 3), 1.0)
  assert alternate.levels_found == 9 and alternate.status == 'partial'
  assert sum('seems to be missing' in flag for flag in alternate.flags) == 8


def test_components_of_a_volume_fall_between_voxels(spine):
  steps = np.array([1.2, 0.9, 0.95])
  volume = np.zeros((384, 160, 48), np.float32)
  places = spine / steps
  for place in places:
    low = np.floor(place).astype(int) - 1
    grid = np.stack(np.meshgrid(*(np.arange(s, s + 4) for s in low), indexing='ij'), -1)
    volume[tuple(slice(s, s + 4) for s in low)] = (1 - 0.45 * np.abs(grid - place)).clip(0).prod(-1)
  volume[2, 2, 40] = 1.0  # a speck of one voxel
  exact = measurement.measure_laminae(places, steps)
  found = measurement.measure_lamina_volume(volume, steps, threshold=0.05)
  assert found.levels_found == 17
  assert found.major_deg == pytest.approx(exact.major_deg, abs=1.0)
  mask = measurement.measure_lamina_volume((volume > 0.05).astype(np.uint8), steps)
  assert mask.major_deg == pytest.approx(exact.major_deg, abs=2.0)


def hostile(spine):
  rng = np.random.default_rng(0)
  yield 'none', np.zeros((0, 3))
  yield 'one', spine[:1]
  yield 'five levels', spine[:10]
  yield 'right side only', spine[::2]
  yield 'one place', np.repeat(spine[:1], 34, 0)
  yield 'not finite', np.where(np.arange(34)[:, None] == 3, np.nan, spine)
  yield 'upside down', (spine * [-1, 1, 1] + [470, 0, 0])
  yield 'noise', rng.uniform((0, 0, 0), (460, 90, 40), (60, 3))
  yield 'too many', rng.uniform((0, 0, 0), (460, 90, 40), (300, 3))
  yield '40 levels', np.stack([np.repeat(np.arange(40) * 11.0, 2), np.tile([30.0, 50], 40),
                               np.full(80, 20.0)], -1)


def test_hostile_laminae_and_volumes_give_a_status_and_words(spine):
  for name, points in hostile(spine):
    result = measurement.measure_laminae(points, 1.0)
    json.dumps(result.to_json(), allow_nan=False)
    assert result.status in ('partial', 'fail') and result.flags, name
    if result.status == 'fail':
      assert result.major_deg is None and not result.curves, name
  for name, words in (('upside down', 'upside down'), ('five levels', '6 are needed')):
    assert words in measurement.measure_laminae(dict(hostile(spine))[name], 1.0).flags[0]
  for volume in (np.zeros((20, 8, 8)), np.ones((20, 8, 8)), np.full((20, 8, 8), np.nan),
                 np.zeros((0, 0, 0)), np.random.default_rng(0).random((60, 30, 20))):
    result = measurement.measure_lamina_volume(volume, 1.0)
    assert result.status == 'fail' and result.flags and result.major_deg is None
