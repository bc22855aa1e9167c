"""Errors of the center-of-lamina and centerline Cobb angles on exact shapes of phantoms.

Run by `benchmarks.measurement`. Lumbar laminae are missed four times as often as thoracic ones.
False laminae are anywhere within 460 x 80 x 30 mm. `sure` counts the cases with 15 or more
levels whose largest angle has an expected error of at most 1.5 degrees. X-ray masks are
600 x 225 pixels of 0.8 mm.
"""
import time
from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from benchmarks import angle_errors, measure_vpi
from benchmarks.measure_vpi import largest
from spinejax.measurement import curves, laminae, measure_xray
from spinejax.phantoms import volumes, xrays
from spinejax.phantoms.volumes.anatomy import SPACING

ROWS = (('exact', 0.0, 0, 0), ('0.7 voxel', 0.7, 0, 0), ('3 missed, 3 false', 0.7, 3, 3),
        ('5 missed, 5 false', 0.7, 5, 5), ('8 missed, 8 false', 0.7, 8, 8))


def draw(seed) -> tuple[np.ndarray, volumes.VolumeTruth]:
  """Centers [34,3] of the laminae in mm and the truth of a phantom, without its picture."""
  rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(5)[0])
  anatomy = volumes.anatomies.draw_anatomy(rng, None)
  points = np.array([plate.center for plate in anatomy.laminae])
  return points, volumes.find_truth(anatomy, (), (1, 1, 1), seed=seed, difficulty=0.0, shape=())


def spoil(rng, points, noise: float, missed: int, false: int) -> np.ndarray:
  """Laminae with noise (voxels of 1.20 x 0.90 x 0.95 mm), without some and with false ones."""
  points = points + noise * rng.standard_normal(points.shape) * SPACING
  chance = np.where(np.arange(34) < 24, 0.5, 2.2)
  kept = np.setdiff1d(np.arange(34), rng.choice(34, missed, False, chance / chance.sum()))
  extra = rng.uniform((0, 4, 5), (460, 80, 35), (false, 3))
  return rng.permutation(np.concatenate([points[kept], extra]))


def benchmark(noise: float, missed: int, false: int, cases: int = 40, base: int = 11,
              **options) -> list[dict]:
  """One row per case: its `angle_errors.Case`, whether it is sure, and errors of the rotation."""
  rows = []
  for i in range(cases):
    points, truth = draw((base, i))
    points = spoil(np.random.default_rng((base, i)), points, noise, missed, false)
    start = time.perf_counter()
    result = laminae.measure_laminae(points, 1.0, **options)
    case = angle_errors.Case(result, largest(truth.cobb), curves.largest_swing(truth.tilts, 0.5),
                             1e3 * (time.perf_counter() - start))
    centers = truth.vertebrae[:, 0] + 0.5
    rows.append({
        'case': case,
        'sure': bool(result.levels_found >= 15 and (result.expected_error_deg or 0) <= 1.5),
        'rotation': [level.rotation_deg - truth.rotation[np.abs(centers - level.row).argmin()]
                     for level in result.levels if level.rotation_deg is not None]})
  return rows


def ragged(mask, sd: float, seed: int = 0) -> np.ndarray:
  """The mask with an outline that errs by N(0, sd) pixels, correlated over 6."""
  distance = (ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask))
  noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(mask.shape), 6)
  return distance + sd * noise / noise.std() > 0


def squeeze(mask, spacing, size: int = 160):
  """The mask at size x size by its nearest pixels, and the spacing there."""
  rows, columns = (((np.arange(size) + 0.5) * n / size).astype(int) for n in mask.shape)
  return mask[rows][:, columns], np.array(spacing) * np.array(mask.shape) / size


def draw_mask(seed, shape=(600, 225)) -> xrays.XrayCase:
  """Trimap and truth of an X-ray phantom, without its picture."""
  anatomy = xrays.anatomies.draw_anatomy(
      np.random.default_rng(np.random.SeedSequence(seed).spawn(4)[0]), None)
  grid = xrays.anatomies.make_grid(shape)
  none = np.zeros(shape, np.float32)
  column = xrays.bones.draw_spine(none.copy(), anatomy, grid)
  return xrays.XrayCase(none, none, xrays.draw_label(column, grid), xrays.find_truth(
      anatomy, grid, artifacts={}, seed=seed, difficulty=0.0, shape=shape))


MASKS = {
    'core': lambda label, spacing, seed: (label == 1, spacing),
    'core and border': lambda label, spacing, seed: (label > 0, spacing),
    'ragged': lambda label, spacing, seed: (ragged(label > 0, 1.5, seed), spacing),
    '160 x 160': lambda label, spacing, seed: squeeze(label == 1, spacing)}


def mad(values) -> float:
  return float(np.mean(np.abs(values))) if len(values) else float('nan')


def rows(cases: int, seed: int) -> Iterator[tuple[str, dict[str, float]]]:
  """(name, errors) for each kind of input; the seeds are (seed, 0) to (seed, cases-1)."""
  for name, noise, missed, false in ROWS:
    found = benchmark(noise, missed, false, cases, seed)
    sure = [row['case'] for row in found if row['sure']]
    yield f'center of lamina, {name}', {
        **angle_errors.summarize([row['case'] for row in found]),
        'sure': len(sure), 'sure_mad': angle_errors.summarize(sure).get('mad', float('nan')),
        'rotation_mad': mad(np.concatenate([row['rotation'] for row in found]))}
  masks = [draw_mask((seed, i)) for i in range(cases)]
  for name, change in MASKS.items():
    yield f'centerline Cobb, {name}', measure_vpi.benchmark(
        masks, lambda case: measure_xray(*change(case.label, case.truth.spacing, case.truth.seed)),
        'centerline_cobb', 'centerline_tilts')
