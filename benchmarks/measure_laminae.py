"""Errors of the center-of-lamina angle and of centerline Cobb on the exact shapes of phantoms.

python -m tests.measure.benchmark_laminae [cases] [base]

The seeds are (base, 0) to (base, cases - 1). Misses fall on the lumbar laminae four times as often
as on the thoracic ones; false laminae lie anywhere within 460 x 80 x 30 mm. `sure` are the cases
with 15 or more levels whose largest angle has an interval of at most 6 degrees. Masks are 600 x 225
pixels of 0.8 mm.
"""
import sys
import time

import numpy as np
from scipy import ndimage

from spinejax.phantoms import curves, volumes, xrays
from spinejax.phantoms.volumes.anatomy import SPACING
from spinejax.measure import laminae, xray

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


def largest(curves) -> float:
  return max((abs(curve.angle) for curve in curves), default=0.0)


def benchmark(noise: float, missed: int, false: int, cases: int = 40, base: int = 11,
              **options) -> list[dict]:
  """One row per case: error against the vertebrae's tilts, of the naive method, of rotation."""
  rows = []
  for i in range(cases):
    points, truth = draw((base, i))
    points = spoil(np.random.default_rng((base, i)), points, noise, missed, false)
    start = time.perf_counter()
    result = laminae.measure_laminae(points, 1.0, **options)
    row = {'ms': 1e3 * (time.perf_counter() - start), 'case': i, 'levels': result.levels_found,
           'status': result.status, 'result': result}
    if result.status != 'fail':
      cobb = largest(truth.cobb)
      row |= {'cobb': cobb, 'error': result.major_deg - cobb,
              'line_error': result.major_deg - largest(truth.center_of_lamina),
              'naive': result.naive_deg - cobb}
      centers = truth.vertebrae[:, 0] + 0.5
      row['rotation'] = [level.rotation_deg - truth.rotation[
          np.abs(centers - level.row).argmin()] for level in result.levels
                         if level.rotation_deg is not None]
      low = high = 0.0
      if result.major_curve:
        low, high = result.major_curve.ci95 or (0, 0)
        row['covered'] = low <= cobb <= high
      row['sure'] = row['levels'] >= 15 and high - low <= laminae.WIDE_DEG
    rows.append(row)
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


def draw_mask(seed, shape=(600, 225)) -> tuple[np.ndarray, xrays.XrayTruth]:
  """Trimap [H,W] and the truth of an X-ray phantom, without its picture."""
  anatomy = xrays.anatomies.draw_anatomy(
      np.random.default_rng(np.random.SeedSequence(seed).spawn(4)[0]), None)
  grid = xrays.anatomies.make_grid(shape)
  column = xrays.bones.draw_spine(np.zeros(shape, np.float32), anatomy, grid)
  return xrays.draw_label(column, grid), xrays.find_truth(
      anatomy, grid, artifacts={}, seed=seed, difficulty=0.0, shape=shape)


MASKS = {
    'core': lambda label, spacing, seed: (label == 1, spacing),
    'core and border': lambda label, spacing, seed: (label > 0, spacing),
    'ragged': lambda label, spacing, seed: (ragged(label > 0, 1.5, seed), spacing),
    '160 x 160': lambda label, spacing, seed: squeeze(label == 1, spacing)}


def benchmark_masks(name: str, cases: int = 40, base: int = 11) -> dict[str, float]:
  """Error of centerline Cobb; a curve below 5 degrees counts as 0, and with its own angle where it
  is asked whether the interval holds it."""
  errors, covered = [], []
  for i in range(cases):
    label, truth = draw_mask((base, i))
    result = xray.measure_xray(*MASKS[name](label, truth.spacing, (base, i)))
    true = largest(truth.centerline_cobb)
    errors.append(result.major_deg - true)
    if result.major_curve:
      low, high = result.major_curve.ci95
      tilts = truth.centerline_tilts
      covered.append(low <= (true or largest(
          curves.curve_angles(tilts, ['T1'] * len(tilts), 0.5))) <= high)
  return {'MAD': mad(errors), 'bias': np.mean(errors), 'max': np.abs(errors).max(),
          'cover': np.mean(covered)}


def mad(values) -> float:
  return float(np.mean(np.abs(values))) if len(values) else float('nan')


def main(cases: int = 40, base: int = 11):
  print(f'{"":19}{"n":>3}{"fail":>5} {"MAD":>6}{"bias":>6}{"max":>6}{"naive":>7}{"lines":>6}'
        f'{"cover":>6}{"rot":>5} | >= 15 levels, sure, ok | flagged')
  for name, noise, missed, false in ROWS:
    rows = benchmark(noise, missed, false, cases, base)
    done = [row for row in rows if 'error' in row]
    good, flagged = ([r['error'] for r in done if (r['status'] == 'ok') == ok]
                     for ok in (True, False))
    many = [r['error'] for r in done if r['levels'] >= 15]
    sure = [r['error'] for r in done if r['sure']]
    of = lambda key, done=done: np.array([row[key] for row in done if key in row])
    error = of('error')
    print(f'{name:19}{len(done):3}{len(rows) - len(done):5} {mad(error):6.2f}{error.mean():6.2f}'
          f'{np.abs(error).max():6.1f}{mad(of("naive")):7.2f}{mad(of("line_error")):6.2f}'
          f'{of("covered").mean():6.2f}{mad(np.concatenate([r["rotation"] for r in done])):5.1f} | '
          f'{len(many)}: {mad(many):.2f}, sure {len(sure)}: {mad(sure):.2f}, '
          f'ok {len(good)}: {mad(good):.2f} | {len(flagged)}: {mad(flagged):.2f} | '
          f'{np.mean([row["ms"] for row in rows]):.0f} ms')
  for name in MASKS:
    found = benchmark_masks(name, cases, base)
    print(f'centerline Cobb, {name:16}', *(f'{key} {value:.2f}' for key, value in found.items()))


if __name__ == '__main__':
  main(*map(int, sys.argv[1:]))
