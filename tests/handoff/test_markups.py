"""Markups of 3D Slicer: their schema, their places and the angle that Slicer shows."""
import dataclasses
import json
import math

import numpy as np
import pytest

from spinejax import handoff
from spinejax.handoff import image_geometry, markups
from spinejax.measurement.results import AngleResult, Level
from spinejax.readers import orientation
from spinejax.readers.orientation import Geometry
from tests.handoff.results import (AXES, FAILED, LEVELS, SPACING, bent, change_curves, of_type,
                                   positions, without_levels)

GEOMETRY = image_geometry((360, 120), SPACING)
# The axes of the file are (anterior, left, superior), its array is (inferior, left, anterior).
VOLUME = Geometry((40, 120, 360), (2, 1, 0), (True, False, True), np.array([0.9, 0.8, 0.5]),
                  np.zeros(3), np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1.0]]))


# Types of the fields that markups-schema-v1.0.3 describes.
MARKUP = dict(type=str, name=str, coordinateSystem=str, coordinateUnits=str, locked=bool,
              fixedNumberOfControlPoints=bool, labelFormat=str, lastUsedControlPointNumber=int,
              controlPoints=list, measurements=list, display=dict)
POINT = dict(id=str, label=str, description=str, associatedNodeID=str, position=list, selected=bool,
             locked=bool, visibility=bool, positionStatus=str)
DISPLAY = dict(visibility=bool, opacity=float, color=list, selectedColor=list, activeColor=list,
               propertiesLabelVisibility=bool, pointLabelsVisibility=bool, textScale=float,
               glyphType=str, glyphScale=float, glyphSize=float, useGlyphScale=bool,
               lineThickness=float, snapMode=str)
MEASUREMENT = dict(name=str, enabled=bool, value=float, units=str, description=str, printFormat=str)


def check(entries, schema):
  assert {key: type(value) for key, value in entries.items()} == schema


def make(result, geometry=GEOMETRY, **arguments):
  """The markups of a result, checked against the schema of 3D Slicer."""
  content = markups.make_markups(result, geometry, **arguments)
  assert content['@schema'].endswith('markups-schema-v1.0.3.json#') and content['markups']
  for markup in content['markups']:
    check(markup, MARKUP)
    assert markup['type'] in ('Fiducial', 'Line', 'Angle', 'Curve')
    assert (markup['coordinateSystem'], markup['coordinateUnits']) == ('LPS', 'mm')
    assert not markup['locked'] and not markup['fixedNumberOfControlPoints']
    points, display = markup['controlPoints'], markup['display']
    assert len(points) == {'Line': 2, 'Angle': 3}.get(markup['type'], len(points))
    for point in points:
      check(point, POINT)
      assert not point['locked'] and point['positionStatus'] == 'defined'
    assert np.isfinite(positions(markup)).all()
    check(display, DISPLAY)
    for color in ('color', 'selectedColor', 'activeColor'):
      assert len(display[color]) == 3 and all(0 <= x <= 1 for x in display[color])
    assert (display['glyphType'], display['snapMode']) == ('Sphere3D', 'unconstrained')
    for measurement in markup['measurements']:
      check(measurement, MEASUREMENT)
      assert math.isfinite(measurement['value'])
  return content


def angle_of(markup):
  """The angle 3D Slicer shows: at the second of three points."""
  a, b, c = positions(markup)
  cosine = (a - b) @ (c - b) / np.linalg.norm(a - b) / np.linalg.norm(c - b)
  return math.degrees(math.acos(cosine))


def names(content, kind='Line'):
  return [markup['name'] for markup in of_type(content, kind)]


def test_markups_of_a_measured_case(tmp_path):
  case = handoff.Case('case 7', np.zeros((360, 120), np.uint8), bent(), spacing=SPACING)
  path, = handoff.write_case(tmp_path, case, ('markups',))
  content = json.loads(path.read_text(encoding='utf-8'))
  assert content == make(bent(), name='case 7')
  assert names(content) == [f'case 7 {level}' for level in LEVELS]
  curve, = of_type(content, 'Curve')
  assert curve['name'] == 'case 7 midline' and len(curve['controlPoints']) == 17
  np.testing.assert_allclose(positions(curve)[:, 2], np.linspace(-10, -170, 17))
  angle, = of_type(content, 'Angle')
  assert angle['name'] == 'case 7 curve 1 thoracic T1-L5'
  assert angle_of(angle) == pytest.approx(30, abs=1e-4)
  assert angle['measurements'][0]['value'] == 30
  assert '95% interval' in angle['measurements'][0]['description']
  assert angle['display']['propertiesLabelVisibility'] is True
  with pytest.raises(OSError, match='cannot be written'):
    handoff.write_case(tmp_path / 'absent', case, ('markups',))


@pytest.mark.parametrize('axes', AXES)
@pytest.mark.parametrize('flip', (False, True))
@pytest.mark.parametrize('degrees, upper', [(8.0, 4.0), (30.0, 10.0), (65.0, 30.0), (20.0, 0.0)])
def test_the_angle_shown_is_the_angle_measured(axes, flip, degrees, upper):
  geometry = image_geometry((360, 120), SPACING, axes)
  result = bent(degrees, upper, flip=flip)
  for case in (result, without_levels(result)):
    angle, = of_type(make(case, geometry), 'Angle')
    assert angle_of(angle) == pytest.approx(degrees, abs=0.006)  # rounded in the result
    # The vertex is where the tangents at both ends meet, so between them and near the spine.
    row = orientation.to_voxels(positions(angle)[1], geometry)[0]
    assert 20 < row < 340
    # The second arm ends at the lower end of the curve.
    end = orientation.to_voxels(positions(angle)[2], geometry)[:2]
    np.testing.assert_allclose(end, case.midline[-1], atol=0.5 if case is result else 6)


def test_ends_without_a_level_get_a_line_across_the_spine():
  content = make(without_levels(bent(30, 15)))
  lines = of_type(content, 'Line')
  assert names(content) == ['curve 1 upper end', 'curve 1 lower end']
  directions = [np.diff(positions(line), axis=0)[0] for line in lines]
  angle, = of_type(content, 'Angle')
  arms = positions(angle)[[0, 2]] - positions(angle)[1]
  for direction, arm in zip(directions, arms):
    assert direction @ arm == pytest.approx(0, abs=1e-3)
    assert np.linalg.norm(direction) == pytest.approx(markups.END_LINE_MM, abs=1e-4)
  cosine = directions[0] @ directions[1] / markups.END_LINE_MM ** 2
  assert math.degrees(math.acos(cosine)) == pytest.approx(30, abs=1e-3)
  # A level found on one side only has no line of its own.
  result = bent(30, 15)
  first, *others = result.levels
  levels = (dataclasses.replace(first, left=None), *others)
  assert names(make(dataclasses.replace(result, levels=levels))) == [
      *LEVELS[1:], 'curve 1 upper end T1']


def test_tangents_are_those_of_the_levels_if_there_are_any():
  result = bent(30, 10)
  levels = tuple(dataclasses.replace(level, tilt_deg=level.tilt_deg + 7)
                 for level in result.levels)
  angle, = of_type(make(dataclasses.replace(result, levels=levels)), 'Angle')
  arms = positions(angle)[[0, 2]] - positions(angle)[1]
  tilts = np.degrees(np.arctan2(arms[:, 0], -arms[:, 2]))
  np.testing.assert_allclose(tilts, [17, -13], atol=1e-3)


def test_a_spine_shifted_sideways_keeps_its_angle_and_its_vertex_on_the_spine():
  result = without_levels(bent(30, 15))
  line = np.array(result.midline)
  line[9:, 1] += 300
  result = dataclasses.replace(result, midline=tuple(map(tuple, line.tolist())))
  angle, = of_type(make(result), 'Angle')
  assert angle_of(angle) == pytest.approx(30, abs=1e-3)
  row, column, _ = orientation.to_voxels(positions(angle)[1], GEOMETRY)
  assert row == pytest.approx(result.curves[0].apex_row, abs=1e-4)
  assert column == pytest.approx(np.interp(row, line[:, 0], line[:, 1]), abs=1e-4)


def test_curves_that_share_an_end_share_its_line():
  result = change_curves(without_levels(bent(30, 15)), {'lower_row': 180.0, 'angle_deg': 15.0},
                         {'upper_row': 180.0, 'angle_deg': 15.5})
  assert [markup['name'] for markup in make(result)['markups'][1:]] == [
      'curve 1 thoracic', 'curve 1 upper end', 'curve 1 lower end', 'curve 2 thoracic',
      'curve 2 lower end']


def test_curves_whose_tangents_do_not_meet_between_the_ends_keep_their_angle():
  result = change_curves(
      without_levels(bent(30, 15)), {'angle_deg': 12.0},
      {'angle_deg': 40.0, 'upper_row': 300.0, 'lower_row': 310.0, 'apex_row': 305.0})
  second, first = of_type(make(result), 'Angle')
  assert (angle_of(first), angle_of(second)) == (pytest.approx(40, abs=1e-3),
                                                 pytest.approx(12, abs=1e-3))
  for markup, ends in ((first, (300, 310)), (second, (20, 340))):
    row = orientation.to_voxels(positions(markup)[1], GEOMETRY)[0]
    assert ends[0] <= row <= ends[1]
  assert first['display']['color'] != second['display']['color']


def test_markups_of_a_volume_have_depth():
  result = dataclasses.replace(bent(30, 10, deep=(12.0,)), spacing=(0.5, 0.8, 0.9))
  content = make(result, VOLUME, points=np.array([[5.0, 6.0, 7.0]]))
  for markup in content['markups']:
    depths = orientation.to_voxels(positions(markup), VOLUME)[:, 2]
    np.testing.assert_allclose(depths, 7 if markup['type'] == 'Fiducial' else 12, atol=1e-4)
  assert angle_of(of_type(content, 'Angle')[0]) == pytest.approx(30, abs=1e-3)


def test_points_of_an_image_drawn_on_a_volume_lie_in_its_middle():
  result = AngleResult('uca', 'ok', levels=(
      Level(None, 1.0, 1.0, 0.0, left=(1.0, 0.0), right=(1.0, 2.0)),))
  line, = of_type(make(result, VOLUME), 'Line')
  np.testing.assert_allclose(orientation.to_voxels(positions(line), VOLUME)[:, 2], 19.5, atol=1e-5)
  assert line['name'] == 'level 1'


def test_a_failed_result_has_no_curve_and_says_why():
  markup, = make(FAILED, name='c')['markups']
  assert markup['type'] == 'Fiducial' and not markup['controlPoints']
  assert markup['name'] == 'c no angle: the mask is empty'
  content = make(bent(0.0, 0.0))  # a straight spine has no curve either, but levels
  assert not of_type(content, 'Angle') and len(of_type(content, 'Line')) == 17


def test_centers_of_vertebrae_make_a_midline():
  result = bent(30, 10)
  levels = tuple(dataclasses.replace(level, left=None, right=None) for level in result.levels)
  content = make(dataclasses.replace(result, midline=(), levels=levels))
  assert len(of_type(content, 'Curve')[0]['controlPoints']) == 17
  assert angle_of(of_type(content, 'Angle')[0]) == pytest.approx(30, abs=1e-3)
