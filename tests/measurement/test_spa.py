"""SPA of phantom images, what moves it and what must not, and hostile images."""
import numpy as np
import pytest

from spinejax import measurement


@pytest.fixture(scope='module')
def result(spa_case):
  return measurement.measure_spa(spa_case.image, spa_case.truth.spacing, spa_case.label)


def test_the_column_of_a_phantom(spa_case, result):
  true = max(abs(curve.angle) for curve in spa_case.truth.cobb)
  assert result.method == 'spa' and result.status != 'fail'
  assert abs(result.major_deg - true) < 4
  vertebrae, line = spa_case.truth.vertebrae, np.array(result.midline)
  off = np.interp(vertebrae[:, 0], *line.T) - vertebrae[:, 1]
  assert np.abs(off).max() < 5
  low, high = result.major_curve.ci95
  assert low <= true <= high


def test_without_a_mask_the_strip_leads(spa_case, result):
  image, spacing = spa_case.image, spa_case.truth.spacing
  alone = measurement.measure_spa(image, spacing)
  assert abs(alone.major_deg - result.major_deg) < 4
  empty = measurement.measure_spa(image, spacing, np.zeros_like(spa_case.label))
  assert empty.status == 'partial' and any('mask is empty' in flag for flag in empty.flags)


def test_hostile_images_give_a_status_and_words(spa_case):
  flat = np.where(spa_case.fov, 90, 0)
  for name, image in (('empty', 0 * flat), ('flat', flat), ('full', 0 * flat + 255),
                      ('NaN', np.full(flat.shape, np.nan)), ('one pixel', np.ones((1, 1))),
                      ('no pixel', np.zeros((0, 0))), ('bool', flat > 0)):
    found = measurement.measure_spa(image, 0.5)
    assert found.status == 'fail' and found.flags and found.major_deg is None, name
  with pytest.raises(ValueError, match='one size'):
    measurement.measure_spa(spa_case.image, 1.0, spa_case.label[1:])
