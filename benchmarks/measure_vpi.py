"""Errors of UCA, SPA and the centerline Cobb angle on phantoms; run by `benchmarks.measurement`.

The options were chosen on seeds that start with 21. The truth is the Cobb angle of the tilts of the
vertebrae, 0 without a curve of 5 degrees.
"""
import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from scipy import ndimage

from benchmarks import angle_errors
from spinejax import measurement
from spinejax import phantoms
from spinejax.measurement import AngleResult, curves

SHAPE = (1024, 256)


def largest(found: Iterable[phantoms.Curve]) -> float:
  """The largest angle of true curves in degrees, 0 without one."""
  return max((abs(curve.angle) for curve in found), default=0.0)


def benchmark(cases: Iterable[Any], measure_case: Callable[[Any], AngleResult], key: str = 'cobb',
              tilts: str = 'tilts') -> dict[str, float | str]:
  """The row of `angle_errors` of phantoms, against the truth's `key`, a list of curves.

  The swing of a spine is that of the truth's `tilts`.
  """
  found = []
  for case in cases:
    start = time.perf_counter()
    result = measure_case(case)
    found.append(angle_errors.Case(
        result, largest(getattr(case.truth, key)),
        curves.largest_swing(np.asarray(getattr(case.truth, tilts)), 0.5),
        1e3 * (time.perf_counter() - start)))
  return angle_errors.summarize(found)


def ragged(rng: np.random.Generator, label: np.ndarray) -> np.ndarray:
  """A label whose outlines move by 2.5 px of SHAPE, smooth over 5, and grow or shrink by 1 px."""
  changed, grown = np.zeros_like(label), rng.normal()
  for value in (1, 2, 3):
    inside = label == value
    distance = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
    noise = ndimage.gaussian_filter(rng.standard_normal(label.shape), 5)
    changed[distance + 2.5 * noise / noise.std() + grown > 0] = value
  return changed


def spoil(rng: np.random.Generator, label: np.ndarray, missed: int, false: int) -> np.ndarray:
  """A label without some processes and with false ones, ellipses anywhere among the ribs."""
  labels, number = ndimage.label(label == 2, np.ones((3, 3)))
  gone = 1 + rng.choice(number, missed, False)
  changed = np.where(np.isin(labels, gone) & (labels > 0), 0, label)
  y, x = np.indices(label.shape)
  rows, columns = np.nonzero((label == 1) | (label == 2))
  for _ in range(false):
    row, column = rng.uniform((rows.min(), columns.min()), (rows.max(), columns.max()))
    changed[((y - row) / 18)**2 + ((x - column) / 15)**2 < 1] = 2
  return changed


def rows(cases: int, seed: int) -> Iterator[tuple[str, dict[str, float]]]:
  """(name, errors) for each method and kind of mask; the seeds are (seed, 0) to (seed, cases-1)."""
  seeds = [(seed, i) for i in range(cases)]
  exact = [phantoms.vpi(each, SHAPE, 0.0) for each in seeds]

  def measure_changed(change, **options):
    changed = [dataclasses.replace(case, label=change(
        np.random.default_rng(case.truth.seed), case.label)) for case in exact]
    return benchmark(changed, lambda case: measurement.measure_vpi(
        case.label, case.truth.spacing, **options))

  yield 'UCA', measure_changed(lambda rng, label: label)
  for count in (1, 2, 3):
    for missed, false in ((count, 0), (0, count), (count, count)):
      yield f'UCA, {missed} missed, {false} false', measure_changed(
          functools.partial(spoil, missed=missed, false=false))
  yield 'UCA, ragged', measure_changed(ragged)
  yield 'UCA, ragged, 2 missed, 2 false', measure_changed(
      lambda rng, label: spoil(rng, ragged(rng, label), 2, 2))
  yield 'UCA, one class', measure_changed(lambda rng, label: label > 0, process=1, lump=1)
  yield 'UCA, one class, ragged', measure_changed(
      lambda rng, label: ragged(rng, label) > 0, process=1, lump=1)
  images = [phantoms.vpi(each, SHAPE, 1.0) for each in seeds]
  yield 'SPA', benchmark(images, lambda case: measurement.measure_spa(
      case.image, case.truth.spacing, case.label))
  yield 'SPA without a mask', benchmark(images, lambda case: measurement.measure_spa(
      case.image, case.truth.spacing))
  xrays = (phantoms.xray(each, (600, 225), 0.0) for each in seeds)
  yield 'centerline Cobb', benchmark(
      xrays, lambda case: measurement.measure_xray(case.label == 1, case.truth.spacing),
      'centerline_cobb')
