"""Angle errors on exact masks of phantoms of seeds (11, 0) to (11, cases - 1), difficulty 0.

python -m tests.measure.benchmark [cases]
"""
import sys
import time

import numpy as np

from spinejax import measure
from spinejax.data import phantoms


def benchmark(draw, measure_case, key: str, cases: int = 40, **options) -> dict[str, float]:
  """Error of the largest angle against the truth's `key`, and the time a case takes.

  Args:
    draw: seed -> phantom.
    measure_case: (phantom, spacing, **options) -> result.
    key: of the truth, a list of curves.
    cases: number of seeds.

  Returns:
    {mad, bias, max} in degrees, {failed} cases, which count in no error, {covered} share of the
    angles inside their interval, {ms} a case.
  """
  errors, covered, failed, spent = [], [], 0, 0.0
  for i in range(cases):
    case = draw((11, i))
    true = max((abs(curve.angle) for curve in case['truth'][key]), default=0.0)
    start = time.perf_counter()
    result = measure_case(case, case['truth']['spacing'], **options)
    spent += time.perf_counter() - start
    if result['status'] == 'fail':
      failed += 1
      continue
    errors.append(result['major_deg'] - true)
    if result['curves']:
      low, high = max(result['curves'], key=lambda curve: curve['angle_deg'])['ci95']
      covered.append(low <= true <= high)
  errors = np.array(errors)
  return {'mad': np.abs(errors).mean(), 'bias': errors.mean(), 'max': np.abs(errors).max(),
          'failed': failed, 'covered': np.mean(covered), 'ms': 1e3 * spent / cases}


def main(cases: int = 40):
  for lam in (5.0, 10.0, 20.0):
    print('UCA', lam, benchmark(
        lambda seed: phantoms.vpi(seed, (1024, 256), 0.0),
        lambda case, *a, **k: measure.measure_vpi(case['label'], *a, **k), 'cobb', cases, lam=lam))
  print('centerline Cobb', benchmark(
      lambda seed: phantoms.xray(seed, (600, 225), 0.0),
      lambda case, *a, **k: measure.measure_xray(case['label'] == 1, *a, **k), 'centerline_cobb',
      cases))


if __name__ == '__main__':
  main(*map(int, sys.argv[1:]))
