"""Centerline Cobb of masks: exact, ragged, squeezed, cut, broken and hostile ones."""
import numpy as np
import pytest

from spinejax import measurement
from benchmarks.measure_laminae import largest, ragged, squeeze


@pytest.fixture(scope='module')
def case(xray_cases):
  return xray_cases[0].label > 0, np.array(xray_cases[0].truth.spacing)


def arc(degrees: float, shape=(400, 160), width: float = 24.0) -> np.ndarray:
  """A band whose centerline turns evenly from -degrees / 2 at the top to +degrees / 2 below."""
  y, x = np.mgrid[:shape[0], :shape[1]].astype(float)
  radius = 300 / (2 * np.sin(np.radians(degrees) / 2))
  off = np.hypot(y - 200, x - 60 - radius) - radius
  return (np.abs(off) < width / 2) & (np.abs(np.arctan2(y - 200, radius + 60 - x))
                                      < np.radians(degrees) / 2)


@pytest.mark.parametrize('degrees', [20, 50, 80])
def test_an_arc_has_the_angle_it_was_drawn_with(degrees):
  result = measurement.measure_xray(arc(degrees), 1.0)
  curve, = result.curves
  assert curve.angle_deg == pytest.approx(degrees, abs=0.07 * degrees)  # ends have no whole section
  assert curve.side == 'left' and curve.truncated
  assert any('at least' in flag for flag in result.flags)


def test_exact_masks(xray_cases):
  limits = 2.0, 2.0, 2.0, 4.0  # the last case ends with a tilt of 44 degrees
  for one, limit in zip(xray_cases, limits):
    result = measurement.measure_xray(one.label > 0, one.truth.spacing)
    expected = largest(one.truth.centerline_cobb)
    assert result.major_deg == pytest.approx(expected, abs=limit)
    low, high = result.major_curve.ci95
    assert low <= expected <= high


def test_a_squeezed_mask_needs_its_spacing_and_ragged_edges_widen_the_interval(xray_cases):
  mask, truth = xray_cases[0].label > 0, xray_cases[0].truth
  expected = largest(truth.centerline_cobb)
  small, spacing = squeeze(mask, np.array(truth.spacing))
  result = measurement.measure_xray(small, spacing)
  assert result.major_deg == pytest.approx(expected, abs=3)
  assert result.ci95[0] <= expected <= result.ci95[1]
  squares = measurement.measure_xray(small, 1.0)  # as if the squeezed pixels were square
  assert squares.status == 'fail' and 'not a spine' in squares.flags[0]
  clean, rough = (measurement.measure_xray(m, truth.spacing) for m in (mask, ragged(mask, 1.5)))
  assert rough.major_deg == pytest.approx(expected, abs=4.0)
  assert np.mean(rough.midline_sd) > 1.3 * np.mean(clean.midline_sd)
  low, high = rough.major_curve.ci95
  assert low <= expected <= high


def test_a_crop_keeps_the_tilts_of_what_is_left(case):
  mask, spacing = case
  whole, part = (np.array(measurement.measure_xray(m, spacing).midline) for m in (mask, mask[:400]))
  rows = np.linspace(part[5, 0], part[-12, 0], 30)
  slopes = [np.interp(rows, line[:, 0], np.gradient(line[:, 1], line[:, 0]))
            for line in (whole, part)]
  assert np.abs(np.degrees(np.subtract(*map(np.arctan, slopes)))).max() < 2


def test_gaps_are_bridged_and_flagged_and_small_components_do_not_count(case):
  mask, spacing = case
  plain = measurement.measure_xray(mask, spacing).major_deg
  broken, specks = mask.copy(), mask.copy()
  broken[280:292] = False
  result = measurement.measure_xray(broken, spacing)
  assert result.status == 'partial' and 'rows 280 to 291' in result.flags[0]
  assert result.major_deg == pytest.approx(plain, abs=2)
  specks[2:8, 2:8] = specks[590:597, 200:210] = specks[300, 3] = True
  assert measurement.measure_xray(specks, spacing).major_deg == plain


def test_a_straight_spine_has_no_curve():
  result = measurement.measure_xray(np.abs(np.arange(120) - 60) + np.zeros((500, 1)) < 14, 0.8)
  assert result.status == 'ok' and not result.curves and result.major_deg == 0
  assert result.band == 'none'
