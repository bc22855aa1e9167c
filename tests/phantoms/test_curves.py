"""Curves of spines: their angles, their families, and their paths."""
import numpy as np
import pytest

from spinejax import phantoms
from spinejax.measurement.curves import LEVEL_HEIGHTS
from spinejax.phantoms import curves


@pytest.fixture(scope='module')
def spines():
  return [phantoms.sample_curve(np.random.default_rng(i)) for i in range(500)]


def test_curve_angles_by_hand():
  levels = ['T4', 'T5', 'T6', 'T7', 'T8', 'T9', 'L1']
  found = phantoms.curve_angles([10, 8, 1, -3, -20, -12, 4], levels)
  assert found == [('T4', 'T8', 30.0, 'T7'), ('T8', 'L1', -24.0, 'T9')]
  assert found[0].angle == 30 and found[0].apex == 'T7'
  assert phantoms.curve_angles([1, 2, 3], ['T1', 'T2', 'T3']) == []
  assert phantoms.curve_angles([], []) == []


@pytest.mark.parametrize('call, words', [
    (lambda: phantoms.curve_angles([0, np.nan, 3], 'abc'), 'finite'),
    (lambda: phantoms.curve_angles([0, 1], ['T1', 'T2'], -1), 'min_deg'),
    (lambda: phantoms.curve_angles([0, 10], ['T1']), '2 tilts and 1 levels'),
    (lambda: phantoms.sample_curve(np.random.default_rng(0), 'straight'), 'main_thoracic'),
])
def test_curves_refuse_in_one_sentence(call, words):
  with pytest.raises(ValueError, match=words) as caught:
    call()
  assert '\n' not in str(caught.value)


def test_stored_tilts_have_the_requested_angles(spines):
  for spine in spines:
    ends = spine.tilts[list(spine.ends)]
    np.testing.assert_allclose(ends[:-1] - ends[1:], spine.angles, atol=0.5)
    if spine.family == 'normal':
      continue
    found = phantoms.curve_angles(spine.tilts)
    expected = [(phantoms.LEVELS[a], phantoms.LEVELS[b], angle)
                for a, b, angle in zip(spine.ends, spine.ends[1:], spine.angles) if abs(angle) >= 5]
    assert [c[:2] for c in found] == [e[:2] for e in expected]
    np.testing.assert_allclose([c.angle for c in found], [e[2] for e in expected], atol=0.5)


def test_families_keep_their_probabilities_and_ranges(spines):
  probabilities = [f.probability for f in phantoms.FAMILIES.values()]
  assert sum(probabilities) == pytest.approx(1)
  for (name, family), p in zip(phantoms.FAMILIES.items(), probabilities):
    drawn = [s for s in spines if s.family == name]
    assert abs(len(drawn) - p * len(spines)) < 4 * np.sqrt(len(spines) * p * (1 - p))
    angles = np.abs([s.angles for s in drawn])
    low, high = np.transpose(family.angles)
    assert (angles >= low).all() and (angles <= high).all()
    assert (angles.min(0) < low + 0.2 * (high - low)).all()
    assert (angles.max(0) > high - 0.2 * (high - low)).all()
    nodes = np.array([s.u[list(s.ends)] for s in drawn])
    assert np.abs(nodes - family.nodes).max() < curves.NODE_JITTER + 0.045
  right = [s.angles[0 if s.ends[0] else 1] > 0 for s in spines]
  assert abs(np.mean(right) - 0.8) < 0.05


def test_spine_path_follows_its_tilts_upright(spines):
  slopes, signs = [], []
  for spine in spines[:200]:
    middle = (spine.path_tilts[1:] + spine.path_tilts[:-1]) / 2
    slope = np.degrees(np.arctan(np.diff(spine.path_x) / np.diff(spine.path_u)))
    np.testing.assert_allclose(slope, middle, atol=0.1)
    np.testing.assert_allclose(
        np.interp(spine.u, spine.path_u, spine.path_tilts), spine.tilts, atol=0.1)
    inside = (spine.path_u >= 0) & (spine.path_u <= 1)
    slopes.append(np.polyfit(spine.path_u[inside], spine.path_x[inside], 1)[0])
    main = int(np.abs(spine.angles).argmax())
    a, b = spine.u[[spine.ends[main], spine.ends[main + 1]]]
    x = np.interp([a, (a + b) / 2, b], spine.path_u, spine.path_x)
    signs.append(np.sign(x[1] - (x[0] + x[2]) / 2) == np.sign(spine.angles[main]))
  lean = np.degrees(np.arctan(slopes))
  assert abs(lean.mean()) < 0.25 and 0.85 < lean.std() < 1.15
  assert np.mean(signs) > 0.97


def test_level_positions_by_hand():
  np.testing.assert_allclose(phantoms.level_positions(0.0), (np.arange(17) + 0.5) / 17)
  u = phantoms.level_positions(1.0)
  assert u[0] == pytest.approx(19.5 / 2 / LEVEL_HEIGHTS.sum())
  assert u[16] == pytest.approx(1 - 35 / 2 / LEVEL_HEIGHTS.sum())
