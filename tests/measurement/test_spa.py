"""SPA of phantom images, what moves it and what must not, and hostile images."""
import numpy as np
import pytest

from spinejax import measurement
from spinejax import phantoms


@pytest.fixture(scope='module')
def case():
  return phantoms.vpi((11, 4), (512, 128), 1.0, family='double_major')


@pytest.fixture(scope='module')
def result(case):
  return measurement.measure_spa(case.image, case.truth.spacing, case.label)


def test_the_column_of_a_phantom(case, result):
  true = max(abs(curve.angle) for curve in case.truth.cobb)
  assert result.method == 'spa' and result.status == 'ok'
  assert abs(result.major_deg - true) < 4
  vertebrae, line = case.truth.vertebrae, np.array(result.midline)
  off = np.interp(vertebrae[:, 0], *line.T) - vertebrae[:, 1]
  assert np.abs(off).max() < 5
  low, high = result.major_curve.ci95
  assert low <= result.major_deg <= high


def test_without_a_mask_the_strip_leads(case, result):
  alone = measurement.measure_spa(case.image, case.truth.spacing)
  assert abs(alone.major_deg - result.major_deg) < 4
  empty = measurement.measure_spa(case.image, case.truth.spacing, np.zeros_like(case.label))
  assert empty.status == 'partial' and 'mask is empty' in empty.flags[0]


def test_flips_shifts_and_resamplings_change_what_they_must(case, result):
  spacing = np.array(case.truth.spacing)
  both = np.stack([case.image, case.label])
  sides = [curve.side for curve in result.curves]
  other = {'left': 'right', 'right': 'left'}
  for name, (image, mask), factor, tolerance in (
      ('shift', np.pad(both, ((0, 0), (9, 4), (12, 0))), (1, 1), 0.3),
      ('flip', both[..., ::-1], (1, 1), 0.3),
      ('twice the size', both.repeat(2, 1).repeat(2, 2), (2, 2), 1.0),
      ('twice the width', both.repeat(2, 2), (1, 2), 1.0)):
    moved = measurement.measure_spa(image, spacing / factor, mask)
    assert abs(moved.major_deg - result.major_deg) < tolerance, name
    assert [curve.side for curve in moved.curves] == (
        [other[side] for side in sides] if name == 'flip' else sides), name


def test_hostile_images_give_a_status_and_words(case):
  flat = np.where(case.fov, 90, 0)
  for name, image in (('empty', 0 * flat), ('flat', flat), ('full', 0 * flat + 255),
                      ('NaN', np.full(flat.shape, np.nan)), ('one pixel', np.ones((1, 1))),
                      ('no pixel', np.zeros((0, 0))), ('bool', flat > 0)):
    found = measurement.measure_spa(image, 0.5)
    assert found.status == 'fail' and found.flags and found.major_deg is None, name


def test_wrong_shapes_are_named(case):
  with pytest.raises(ValueError, match='one size'):
    measurement.measure_spa(case.image, 1.0, case.label[1:])
