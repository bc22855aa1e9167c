"""Results of measurements made by hand, and readers of what the hand-off wrote."""
import dataclasses
import math

import numpy as np

from spinejax.measurement.results import AngleResult, Curve, Level

SPACING = (0.5, 0.8)
CLASSES = ('background', 'rib', 'thoracic process', 'lump')
LEVELS = tuple(f'T{i}' for i in range(1, 13)) + tuple(f'L{i}' for i in range(1, 6))
AXES = ('LIP', 'RIA', 'LPS', 'RAS')
FAILED = AngleResult('uca', 'fail', flags=('the mask is empty',), spacing=SPACING)


def numbered(shape, top=4):
  return (np.arange(np.prod(shape)) % top).astype(np.uint8).reshape(shape)


def bent(angle=30.0, upper=10.0, flip=False, deep=()):
  """A spine whose tilt turns evenly from `upper` to `upper - angle` degrees; 17 levels."""
  angle, spacing = float(angle), SPACING
  rows = np.linspace(20.0, 340.0, 17)
  tilts = (upper - angle * np.linspace(0, 1, 17)) * (-1 if flip else 1)
  y = rows * spacing[0]
  step = np.diff(y) * np.tan(np.radians((tilts[1:] + tilts[:-1]) / 2))
  columns = (40 + np.append(0, np.cumsum(step))) / spacing[1]
  levels = []
  for name, row, column, tilt in zip(LEVELS, rows, columns, tilts):
    half = 10 * np.array([-math.sin(math.radians(tilt)), math.cos(math.radians(tilt))]) / spacing
    sides = [(float(row + sign * half[0]), float(column + sign * half[1]), *deep)
             for sign in (-1, 1)]
    levels.append(Level(name, float(row), float(column), float(tilt), left=sides[0],
                        right=sides[1]))
  curve = Curve(angle, (angle - 2, angle + 2), 'T1', 'L5', 'T9', 20.0, 340.0, 180.0,
                'left' if flip else 'right', 'thoracic', truncated=True)
  return AngleResult(
      'uca', 'ok', (curve,) if angle else (), major_deg=angle, band='none or mild',
      levels_found=17, level_confidence='high', spacing=spacing, levels=tuple(levels),
      midline=tuple((float(row), float(column), *deep) for row, column in zip(rows, columns)))


def change_curves(result, *changes):
  """The result with one copy of its first curve for each dict of changed fields."""
  return dataclasses.replace(result, curves=tuple(
      dataclasses.replace(result.curves[0], **change) for change in changes))


def without_levels(result):
  """As the result of an X-ray mask: midline and curves alone."""
  return dataclasses.replace(change_curves(result, {'upper': None, 'lower': None}), levels=())


def positions(markup):
  return np.array([point['position'] for point in markup['controlPoints']]).reshape(-1, 3)


def of_type(content, kind):
  return [markup for markup in content['markups'] if markup['type'] == kind]
