"""Levels, midline and angles as markups of 3D Slicer (schema 1.0.3)."""
import dataclasses
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from spinejax import colors, runs
from spinejax.handoff import places
from spinejax.measurement.results import AngleResult, Curve
from spinejax.readers import orientation
from spinejax.readers.orientation import Geometry

SCHEMA = ('https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/'
          'Resources/Schema/markups-schema-v1.0.3.json#')
CURVE_POINTS = 17  # of the midline; one per level, few enough to drag
END_LINE_MM = 60.0  # length of the line across the spine at the end of a curve
_SAME_ROW = 0.02  # pixels between rows taken as equal; rows are rounded to 0.01


@dataclasses.dataclass(frozen=True, eq=False)
class _Spine:
  """A result in space.

  Attributes:
    result: of the measurement.
    geometry: of the mask.
    name: of the case, in front of the name of each markup.
    midline: points [n,2] or [n,3] in pixels, by rising row.
  """
  result: AngleResult
  geometry: Geometry
  name: str
  midline: np.ndarray

  @property
  def steps(self) -> np.ndarray:
    """mm per pixel (y, x)."""
    return places.spacing_of(self.geometry)[:2]

  def at(self, row: Any, axis: int = 1) -> Any:
    """Coordinate of the midline along an axis at a row, or at several, in pixels."""
    return np.interp(row, self.midline[:, 0], self.midline[:, axis])


def write_markups(path: str | os.PathLike, result: AngleResult, geometry: Geometry, *,
                  name: str = '', points: np.ndarray | None = None) -> None:
  """Writes `make_markups` to a .mrk.json file; raises OSError if it cannot be written."""
  runs.write_json(path, make_markups(result, geometry, name=name, points=points))


def make_markups(result: AngleResult, geometry: Geometry, *, name: str = '',
                 points: np.ndarray | None = None) -> dict[str, Any]:
  """Returns a result as markups that can be dragged in 3D Slicer.

  A level with two sides is a Line, the midline a Curve of at most 17 points, and the laminae are
  Fiducials. A curve of the spine is an Angle, and Slicer shows the measured angle at its vertex:
  the tangents of the spine at the two ends meet there, and the arms follow them downward. An end
  without the Line of a level gets a Line across the spine.

  Args:
    result: of `spinejax.measure`.
    geometry: of the mask. Points (row, column) lie in the middle of the depth of a volume.
    name: of the case, in front of the name of each markup.
    points: [P,3] voxels, laminae.

  Returns:
    {'@schema', 'markups'} with at least one markup, because Slicer refuses a file without any. A
    failed result is a markup without points, named after the reason.

  Raises:
    ValueError: an unknown spacing.
  """
  places.require_spacing(geometry)
  spine = _Spine(result, geometry, name, _find_midline(result))
  markups = _level_markups(spine)
  if len(spine.midline) > 1:
    kept = np.unique(np.linspace(0, len(spine.midline) - 1, CURVE_POINTS).round().astype(int))
    markups.append(_markup(spine, 'Curve', 'midline', spine.midline[kept], colors.MIDLINE_COLOR))
    markups += _curve_markups(spine)
  if points is not None and len(points):
    labels = [str(i) for i in range(1, len(points) + 1)]
    markups.append(_markup(spine, 'Fiducial', 'laminae', points, colors.class_color(1), labels))
  if result.status == 'fail' or not markups:
    reason = '; '.join(result.flags[:1]) or 'no levels'
    markups.append(_markup(spine, 'Fiducial', f'no angle: {reason}', [], colors.VERMILION))
  return {'@schema': SCHEMA, 'markups': markups}


def _find_midline(result: AngleResult) -> np.ndarray:
  """The midline, or the line through the centers of the levels; see `_Spine.midline`."""
  line = result.midline or [
      (level.row, level.column) if level.depth is None else (level.row, level.column, level.depth)
      for level in result.levels]
  points = np.array(line, np.float64) if len(line) else np.zeros((0, 2))
  points = points[np.argsort(points[:, 0], kind='stable')]
  return points[np.diff(points[:, 0], prepend=-np.inf) > 0]


def _level_markups(spine: _Spine) -> list[dict[str, Any]]:
  """A Line for each level with two sides."""
  markups = []
  for number, level in enumerate(spine.result.levels, 1):
    if level.left and level.right:
      title = level.name or f'level {number}'
      markups.append(_markup(spine, 'Line', title, [level.left, level.right], colors.LEVEL_COLOR,
                             [title, '']))
  return markups


def _curve_markups(spine: _Spine) -> list[dict[str, Any]]:
  """An Angle for each curve, and Lines at its ends where no other Line is drawn."""
  result, markups = spine.result, []
  drawn = [level.row for level in result.levels if level.left and level.right]
  by_size = sorted((curve.angle_deg for curve in result.curves), reverse=True)
  for number, curve in enumerate(result.curves, 1):
    rank = min(by_size.index(curve.angle_deg), len(colors.CURVE_COLORS) - 1)
    color, tilts = colors.CURVE_COLORS[rank], _end_tilts(spine, curve)
    markups.append(_angle_markup(spine, curve, number, tilts, color))
    ends = {'upper': curve.upper_row, 'lower': curve.lower_row}
    for (end, row), tilt in zip(ends.items(), tilts):
      if all(abs(other - row) > _SAME_ROW for other in drawn):
        title = places.one_line(f'curve {number} {end} end {getattr(curve, end) or ""}')
        markups.append(_end_markup(spine, title, row, tilt, color))
    drawn += ends.values()
  return markups


def _end_tilts(spine: _Spine, curve: Curve) -> np.ndarray:
  """Tilts [2] in radians of the tangents at both ends, which differ by the angle of the curve."""
  tilts = np.array([_tilt(spine, curve.upper_row), _tilt(spine, curve.lower_row)])
  missing = curve.angle_deg - abs(tilts[0] - tilts[1])
  sign = 1 if tilts[0] >= tilts[1] else -1
  return np.radians(tilts + np.array([0.5, -0.5]) * missing * sign)


def _tilt(spine: _Spine, row: float) -> float:
  """Tilt in degrees of the level at a row, or of the midline if there is no level."""
  for level in spine.result.levels:
    if abs(level.row - row) <= _SAME_ROW and level.tilt_deg is not None:
      return level.tilt_deg
  y, x = (spine.midline[:, axis] * spine.steps[axis] for axis in (0, 1))
  return math.degrees(math.atan(np.interp(row, spine.midline[:, 0], np.gradient(x, y))))


def _angle_markup(spine: _Spine, curve: Curve, number: int, tilts: np.ndarray, color: str
                  ) -> dict[str, Any]:
  """The Angle of a curve between its tangents."""
  steps, slopes = spine.steps, np.tan(tilts)
  rows = np.array([curve.upper_row, curve.lower_row])
  y, x = rows * steps[0], spine.at(rows) * steps[1]
  meet = (x[1] - x[0] + y[0] * slopes[0] - y[1] * slopes[1]) / (slopes[0] - slopes[1] or np.nan)
  if y[0] < meet < y[1]:
    vertex = np.array([meet, x[0] + (meet - y[0]) * slopes[0]])
  else:
    vertex = np.array([curve.apex_row, spine.at(curve.apex_row)]) * steps
  arm = max(float(np.hypot(y[1] - vertex[0], x[1] - vertex[1])), steps[0])
  down = np.stack([np.cos(tilts), np.sin(tilts)], -1)
  corners = np.stack([vertex + arm * down[0], vertex, vertex + arm * down[1]]) / steps
  levels = '-'.join(filter(None, (curve.upper, curve.lower)))
  title = places.one_line(f'curve {number} {curve.region or ""} {levels}')
  words = f'{spine.result.method} {"at least " * curve.truncated}{curve.angle_deg:.1f} degrees'
  if curve.ci95:
    words += ', 95% interval {:.1f} to {:.1f}'.format(*curve.ci95)
  corners = _add_depth(spine, corners, curve.apex_row)
  markup = _markup(spine, 'Angle', title, corners, color, ['', title, ''], shows_value=True)
  return markup | {'measurements': [{
      'name': 'angle', 'enabled': True, 'value': curve.angle_deg, 'units': 'deg',
      'description': words, 'printFormat': '%3.1f%s'}]}


def _end_markup(spine: _Spine, title: str, row: float, tilt: float, color: str) -> dict[str, Any]:
  """The Line across the spine at a row, perpendicular to a tangent of this tilt in radians."""
  center = np.array([row, spine.at(row)]) * spine.steps
  half = END_LINE_MM / 2 * np.array([-np.sin(tilt), np.cos(tilt)])
  ends = _add_depth(spine, np.stack([center - half, center + half]) / spine.steps, row)
  return _markup(spine, 'Line', title, ends, color, [title, ''])


def _add_depth(spine: _Spine, points: np.ndarray, row: float) -> np.ndarray:
  """Points [n,2] with the depth of the midline at a row, if the midline has a depth."""
  if spine.midline.shape[1] == 2:
    return points
  return np.insert(points, 2, spine.at(row, 2), axis=1)


def _markup(spine: _Spine, kind: str, title: str, points: Any, color: str,
            labels: Sequence[str] = (), shows_value: bool = False) -> dict[str, Any]:
  """One markup through points [n,2] or [n,3] in pixels."""
  points = np.array(points, np.float64) if len(points) else np.zeros((0, 3))
  if points.shape[1] != 3:
    depth = (orientation.shape_of(spine.geometry)[2] - 1) / 2
    points = np.concatenate([points[:, :2], np.full((len(points), 1), depth)], 1)
  rgb = places.color_fractions(color)
  positions = orientation.to_physical(points, spine.geometry).round(6)
  return {
      'type': kind, 'name': places.one_line(f'{spine.name} {title}'), 'coordinateSystem': 'LPS',
      'coordinateUnits': 'mm', 'locked': False, 'fixedNumberOfControlPoints': False,
      'labelFormat': '%N-%d', 'lastUsedControlPointNumber': len(points),
      'controlPoints': [
          {'id': str(i + 1), 'label': labels[i] if labels else '', 'description': '',
           'associatedNodeID': '', 'position': position, 'selected': True, 'locked': False,
           'visibility': True, 'positionStatus': 'defined'}
          for i, position in enumerate(positions.tolist())],
      'measurements': [],
      'display': {
          'visibility': True, 'opacity': 1.0, 'color': rgb, 'selectedColor': rgb,
          'activeColor': [0.4, 1.0, 0.0], 'propertiesLabelVisibility': shows_value,
          'pointLabelsVisibility': any(labels) and not shows_value, 'textScale': 3.0,
          'glyphType': 'Sphere3D', 'glyphScale': 1.0, 'glyphSize': 5.0, 'useGlyphScale': True,
          'lineThickness': 0.2, 'snapMode': 'unconstrained'}}
