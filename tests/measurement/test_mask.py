"""Masks from anywhere to angles, by the method and the classes that fit."""
import numpy as np
import pytest

from spinejax import measurement
from spinejax.measurement import Options

VPI = ('background', 'rib', 'thoracic process', 'lump')


def bow(shape=(240, 120), degrees=15.0):
  """An X-ray mask whose midline is an arc that turns from -degrees to degrees."""
  rows, columns = np.mgrid[:shape[0], :shape[1]]
  radius = shape[0] / 2 / np.sin(np.radians(degrees))
  middle = shape[1] / 2 - radius + np.sqrt(radius**2 - (rows - shape[0] / 2)**2)
  inside = (rows > 12) & (rows < shape[0] - 12)
  return ((np.abs(columns - middle) < 9) & inside).astype(np.uint8)


def laminae_points():
  return np.stack([np.repeat(np.arange(17) * 18.0, 2), np.tile([0.0, 20.0], 17), np.zeros(34)], -1)


def test_a_mask_is_measured_by_the_method_and_the_classes_named():
  result = measurement.measure_mask(bow(), 1.0, 'centerline_cobb', ('b', 'spine'))
  assert result.status != 'fail' and result.major_deg == pytest.approx(25, abs=4)
  result = measurement.measure_mask(bow(), 1.0, 'uca', ('b', 'x', 'y', 'z'))
  assert result.status == 'fail' and 'the classes are b, x, y, z' in result.flags[0]
  for spacing in (None, (), (np.nan, 1.0)):
    result = measurement.measure_mask(bow(), spacing, 'centerline_cobb')
    assert result.status == 'fail' and 'spacing is unknown' in result.flags[0]
  with pytest.raises(ValueError, match='must be one of uca, center_of_lamina, centerline_cobb'):
    measurement.measure_mask(bow(), 1.0, 'cobb')


def test_without_a_method_a_mask_is_measured_by_what_it_shows(vpi_cases):
  case = vpi_cases[0]
  assert measurement.measure_mask(bow(), 1.0).method == 'centerline Cobb'
  assert measurement.measure_mask(case.label, case.truth.spacing) == measurement.measure_vpi(
      case.label, case.truth.spacing)
  assert measurement.measure_mask(case.label > 0, case.truth.spacing) == measurement.measure_vpi(
      case.label > 0, case.truth.spacing, process=1, lump=1)
  assert measurement.measure_mask(np.zeros((4, 4, 4), np.uint8), 1.0).method == 'center of lamina'


def test_every_method_takes_bands_and_calibration():
  options = Options(bands=(5.0, 15.0, 20.0), calibration=(2.0, 1.0, 'a test'))
  result = measurement.measure_mask(bow(), 1.0, 'centerline_cobb', options=options)
  assert result.band.endswith('severe')
  assert result.calibrated_deg == pytest.approx(2 * result.major_deg + 1, abs=0.01)
  assert result.calibration == measurement.Calibration(2.0, 1.0, 'a test')
  result = measurement.measure_mask(np.zeros((1, 1, 1)), 1.0, 'center_of_lamina',
                                points=laminae_points(), options=options)
  assert result.calibrated_deg == 1.0 and result.band.startswith('none')


def test_probabilities_weigh_and_must_fit_the_mask(vpi_cases):
  case = vpi_cases[1]
  label, spacing = case.label, case.truth.spacing
  certain = np.eye(4, dtype=np.float32)[label]
  plain = measurement.measure_mask(label, spacing, 'uca')
  assert abs(measurement.measure_mask(label, spacing, 'uca', probs=certain).major_deg
             - plain.major_deg) < 2.5
  equal = np.full((*label.shape, 4), 0.25)  # they tell nothing
  vague = measurement.measure_mask(label, spacing, 'uca', probs=equal)
  assert abs(vague.major_deg - plain.major_deg) < 2.5 and vague.status != 'fail'
  for probs, words in ((certain[1:], 'of the same size'), (certain[..., :3], 'at least 4 classes'),
                       (certain[..., 0], 'of the same size'), (2 * certain, 'sum to 1'),
                       (certain - 0.1, 'between 0 and 1'), (certain * np.nan, 'between 0 and 1')):
    with pytest.raises(ValueError, match=words):
      measurement.measure_mask(label, spacing, 'uca', probs=probs)
  with pytest.raises(ValueError, match='of the same size'):
    measurement.measure_mask(np.zeros((9, 8, 7)), 1.0, probs=np.zeros((9, 8, 6, 2)))
