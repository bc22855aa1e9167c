"""Levels, midline and angles as markups of 3D Slicer (schema 1.0.3)."""
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from spinejax import colors
from spinejax.handoff import masks
from spinejax.measurement.results import AngleResult, Curve
from spinejax.readers import orientation
from spinejax.readers.orientation import Geometry

SCHEMA = ('https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/'
          'Resources/Schema/markups-schema-v1.0.3.json#')
CURVE_POINTS = 17  # of the midline; one per level, few enough to drag
END_LINE_MM = 60.0  # length of the line across the spine at the end of a curve
_SAME_ROW = 0.02  # pixels between rows taken as equal; rows are rounded to 0.01


class _Spine(NamedTuple):
  """A result in space."""
  result: AngleResult
  geometry: Geometry
  name: str  # of the case, in front of the name of each markup
  steps: np.ndarray  # mm per pixel (y, x)
  midline: np.ndarray  # points [n,2] or [n,3] in pixels, by rising row

  def at(self, row: Any, axis: int = 1) -> Any:
    """Coordinate of the midline along an axis at a row, or at several, in pixels."""
    return np.interp(row, self.midline[:, 0], self.midline[:, axis])


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
  line = result.midline or [
      (level.row, level.column) if level.depth is None else (level.row, level.column, level.depth)
      for level in result.levels]
  midline = np.array(line, np.float64) if len(line) else np.zeros((0, 2))
  midline = midline[np.argsort(midline[:, 0], kind='stable')]
  midline = midline[np.diff(midline[:, 0], prepend=-np.inf) > 0]
  spine = _Spine(result, geometry, name, orientation.spacing_of(geometry)[:2], midline)
  markups = []
  for number, level in enumerate(result.levels, 1):
    if level.left and level.right:
      title = level.name or f'level {number}'
      markups.append(_markup(spine, 'Line', title, [level.left, level.right], colors.LEVEL_COLOR,
                             [title, '']))
  if len(midline) > 1:
    kept = np.unique(np.linspace(0, len(midline) - 1, CURVE_POINTS).round().astype(int))
    markups.append(_markup(spine, 'Curve', 'midline', midline[kept], colors.MIDLINE_COLOR))
    markups += _curve_markups(spine)
  if points is not None and len(points):
    labels = [str(i) for i in range(1, len(points) + 1)]
    markups.append(_markup(spine, 'Fiducial', 'laminae', points, colors.class_color(1), labels))
  if result.status == 'fail' or not markups:
    reason = '; '.join(result.flags[:1]) or 'no levels'
    markups.append(_markup(spine, 'Fiducial', f'no angle: {reason}', [], colors.VERMILION))
  return {'@schema': SCHEMA, 'markups': markups}


def _curve_markups(spine: _Spine) -> list[dict[str, Any]]:
  """An Angle for each curve, and Lines at its ends where no other Line is drawn."""
  result, markups = spine.result, []
  drawn = [level.row for level in result.levels if level.left and level.right]
  by_size = sorted((curve.angle_deg for curve in result.curves), reverse=True)
  for number, curve in enumerate(result.curves, 1):
    rank = min(by_size.index(curve.angle_deg), len(colors.CURVE_COLORS) - 1)
    color, tilts = colors.CURVE_COLORS[rank], _end_tilts(spine, curve)
    levels = '-'.join(filter(None, (curve.upper, curve.lower)))
    title = masks.one_line(f'curve {number} {curve.region or ""} {levels}')
    words = f'{result.method} {curve.angle_deg:.1f} degrees'
    if curve.ci95:
      words += ', 95% interval {:.1f} to {:.1f}'.format(*curve.ci95)
    if curve.truncated and curve.lower_bound_deg is not None:
      words += f', at least {curve.lower_bound_deg:.1f}'
    markups.append(_markup(spine, 'Angle', title, _angle_corners(spine, curve, tilts), color,
                           ['', title, ''], curve.apex_row) | {'measurements': [{
                               'name': 'angle', 'enabled': True, 'value': curve.angle_deg,
                               'units': 'deg', 'description': words, 'printFormat': '%3.1f%s'}]})
    rows = curve.upper_row, curve.lower_row
    for end, row, level, tilt in zip(('upper', 'lower'), rows, (curve.upper, curve.lower), tilts):
      if all(abs(other - row) > _SAME_ROW for other in drawn):
        title = masks.one_line(f'curve {number} {end} end {level or ""}')
        across = END_LINE_MM / 2 * np.array([-np.sin(tilt), np.cos(tilt)]) / spine.steps
        center = np.array([row, spine.at(row)])
        markups.append(_markup(spine, 'Line', title, np.stack([center - across, center + across]),
                               color, [title, ''], row))
    drawn += rows
  return markups


def _end_tilts(spine: _Spine, curve: Curve) -> np.ndarray:
  """Tilts [2] in radians of the levels, or else of the midline, at both ends of a curve."""
  rows = np.array([curve.upper_row, curve.lower_row])
  y, x = spine.midline[:, :2].T * spine.steps[:, None]
  tilts = np.degrees(np.arctan(np.interp(rows, spine.midline[:, 0], np.gradient(x, y))))
  for level in reversed(spine.result.levels):
    if level.tilt_deg is not None:
      tilts[abs(rows - level.row) <= _SAME_ROW] = level.tilt_deg
  # The tangents differ by the angle of the curve.
  missing = curve.angle_deg - abs(tilts[0] - tilts[1])
  sign = 1 if tilts[0] >= tilts[1] else -1
  return np.radians(tilts + np.array([0.5, -0.5]) * missing * sign)


def _angle_corners(spine: _Spine, curve: Curve, tilts: np.ndarray) -> np.ndarray:
  """The three points of the Angle between the tangents of a curve, [3,2] pixels."""
  rows, slopes = np.array([curve.upper_row, curve.lower_row]), np.tan(tilts)
  y, x = rows * spine.steps[0], spine.at(rows) * spine.steps[1]
  meet = (x[1] - x[0] + y[0] * slopes[0] - y[1] * slopes[1]) / (slopes[0] - slopes[1] or np.nan)
  if y[0] < meet < y[1]:
    vertex = np.array([meet, x[0] + (meet - y[0]) * slopes[0]])
  else:
    vertex = np.array([curve.apex_row, spine.at(curve.apex_row)]) * spine.steps
  arm = max(float(np.hypot(y[1] - vertex[0], x[1] - vertex[1])), spine.steps[0])
  down = np.stack([np.cos(tilts), np.sin(tilts)], -1)
  return np.stack([vertex + arm * down[0], vertex, vertex + arm * down[1]]) / spine.steps


def _markup(spine: _Spine, kind: str, title: str, points: Any, color: str,
            labels: Sequence[str] = (), row: float | None = None) -> dict[str, Any]:
  """One markup; points [n,2] have the depth of the midline at a row, or of the volume's middle."""
  points = np.array(points, np.float64) if len(points) else np.zeros((0, 3))
  if points.shape[1] != 3:
    depth = (orientation.shape_of(spine.geometry)[2] - 1) / 2
    if row is not None and spine.midline.shape[1] == 3:
      depth = spine.at(row, 2)
    points = np.insert(points, 2, depth, axis=1)
  rgb = masks.color_fractions(color)
  positions = orientation.to_physical(points, spine.geometry).round(6)
  return {
      'type': kind, 'name': masks.one_line(f'{spine.name} {title}'), 'coordinateSystem': 'LPS',
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
          'activeColor': [0.4, 1.0, 0.0], 'propertiesLabelVisibility': kind == 'Angle',
          'pointLabelsVisibility': any(labels) and kind != 'Angle', 'textScale': 3.0,
          'glyphType': 'Sphere3D', 'glyphScale': 1.0, 'glyphSize': 5.0, 'useGlyphScale': True,
          'lineThickness': 0.2, 'snapMode': 'unconstrained'}}
