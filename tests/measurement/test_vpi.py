"""UCA of exact phantom masks, what moves it and what must not, and hostile masks."""
import numpy as np
from scipy import ndimage

from benchmarks.measure_vpi import benchmark, largest
from spinejax import measurement


def test_exact_masks_and_masks_of_one_class_of_bone(vpi_cases):
  exact = benchmark(vpi_cases, lambda case: measurement.measure_vpi(
      case.label, case.truth.spacing))
  one_class = benchmark(vpi_cases, lambda case: measurement.measure_vpi(
      case.label > 0, case.truth.spacing, process=1, lump=1))
  assert exact['mad'] < 2.0 and one_class['mad'] < 2.5
  assert exact['fail'] == one_class['fail'] == 0
  for mask in (vpi_cases[0].label[::-1] > 0, vpi_cases[0].label == 3,
               np.ones((300, 80), bool), np.zeros((30, 30), bool),
               np.random.default_rng(0).random((512, 128)) < 0.05):
    result = measurement.measure_vpi(mask, 1.0, process=1, lump=1)
    assert result.status == 'fail' and result.flags


def without(case, levels, sides=(0, 1)):
  """The label of a phantom without the processes of these levels and sides."""
  labels, _ = ndimage.label(case.label == 2, np.ones((3, 3)))
  gone = [labels[tuple(np.rint(case.truth.processes[level, side]).astype(int))]
          for level in levels for side in sides]
  return np.where((labels > 0) & np.isin(labels, gone), 0, case.label)


def test_each_failure_has_its_words(vpi_cases):
  label, spacing = vpi_cases[0].label, vpi_cases[0].truth.spacing
  assert measurement.measure_vpi(label, spacing).status == 'ok'

  few = measurement.measure_vpi(np.where(np.arange(len(label))[:, None] > 130, 0, label), spacing)
  assert few.status == 'fail' and few.major_deg is None
  assert 'too few' in few.flags[0] or '6 are needed' in few.flags[0]

  missing = measurement.measure_vpi(without(vpi_cases[0], (4, 5)), spacing)
  rows = [level.row for level in missing.levels]
  widest = int(np.diff(rows).argmax())
  assert f'rows {rows[widest]:.0f} and {rows[widest + 1]:.0f}' in missing.flags[0]
  assert abs(missing.major_deg - largest(vpi_cases[0].truth.cobb)) < 5

  lone = measurement.measure_vpi(without(vpi_cases[0], (2, 3, 5, 7, 9), (1,)), spacing)
  assert abs(lone.major_deg - largest(vpi_cases[0].truth.cobb)) < 5
  assert any('5 processes have no partner' in flag for flag in lone.flags)

  wild = label.copy()
  rng = np.random.default_rng(0)
  labels, number = ndimage.label(label == 2, np.ones((3, 3)))
  wild[label == 2] = 0
  for i in range(1, number + 1):
    blob = np.argwhere(labels == i) + [rng.choice([-6, 6]), 0]
    wild[tuple(blob.clip(0, np.array(label.shape) - 1).T)] = 2
  wild = measurement.measure_vpi(wild, spacing)
  exact = measurement.measure_vpi(label, spacing)
  assert any('scatter' in flag for flag in wild.flags)
  assert np.mean(wild.midline_sd) > 1.3 * np.mean(exact.midline_sd)


def test_a_curve_cut_by_the_picture_is_a_lower_bound(vpi_cases):
  case = max(vpi_cases, key=lambda case: largest(case.truth.cobb))
  whole = measurement.measure_vpi(case.label, case.truth.spacing)
  main = whole.major_curve
  labels, number = ndimage.label(case.label, np.ones((3, 3)))
  rows = [row for row, _ in ndimage.center_of_mass(labels, labels, range(1, number + 1))]
  gone = 1 + np.flatnonzero(np.array(rows) > main.apex_row + 5)
  result = measurement.measure_vpi(np.where(np.isin(labels, gone), 0, case.label),
                               case.truth.spacing)
  cut = result.curves[-1]
  assert cut.truncated and cut.side == main.side
  assert cut.angle_deg < main.angle_deg == whole.major_deg
  worst = result.major_curve
  assert worst.truncated == any('at least' in flag for flag in result.flags)


def test_square_pixels_of_unknown_size_are_pixels_of_one(vpi_cases):
  label = vpi_cases[1].label.repeat(2, 1)[:, ::2]
  known, unknown = (measurement.measure_vpi(label, spacing) for spacing in ((0.7, 0.7), 1.0))
  assert abs(known.major_deg - unknown.major_deg) < 0.02
  assert known.levels == unknown.levels and unknown.spacing == (1.0, 1.0)
