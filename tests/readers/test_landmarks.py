"""Laminae as points: tables, markups, masks and cubes, to the voxel."""
import json

import numpy as np
import pytest

from spinejax.readers import landmarks, orientation
from spinejax.readers.landmarks import LUMBAR, THORACIC, UNKNOWN
from tests.readers.folders import sentence

# A file in LPS (i = left, j = posterior, k = superior); our voxel is (6 - k, i, 5 - j).
GEOMETRY = orientation.Geometry(
    (5, 6, 7), *orientation.orient(np.eye(3)), np.array([0.5, 1.25, 2.0]),
    np.array([-12.5, 30.0, 4.25]), np.eye(3))
NO_SPACING = GEOMETRY._replace(spacing=np.full(3, np.nan))


def read(path, text, geometry=GEOMETRY):
  path.write_text(text, encoding='utf-8')
  return landmarks.read_landmarks(path, geometry)


def markups(*points, **fields):
  return json.dumps({'markups': [{'type': 'Fiducial', **fields, 'controlPoints': [
      {'position': place, 'label': label, **more} for place, label, more in points]}]})


@pytest.mark.parametrize('text', [
    'x,y,z\n-12,33.75,16.25\n-12.5,36.25,4.25\n', 'i,j,k\n1,3,6\n0,5,0\n',
    '\ufeffX;Y;Z;note\n-12;33.75;16.25;a\n\n-12.5;36.25;4.25;\n',
    'i\tx\ty\tz\n9\t-12\t33.75\t16.25\n9\t-12.5\t36.25\t4.25'])
def test_a_table_gives_exact_voxels(tmp_path, text):
  found = read(tmp_path / 'a.csv', text)
  np.testing.assert_allclose(found.points, [[0, 1, 2], [6, 0, 0]], atol=1e-12)
  assert found.points.dtype == np.float64 and found.region.tolist() == [UNKNOWN, UNKNOWN]


def test_voxels_need_no_spacing_and_tables_no_landmarks(tmp_path):
  found = read(tmp_path / 'a.csv', 'i,j,k\n1.25,3,6\n', NO_SPACING)
  np.testing.assert_array_equal(found.points, [[0, 1.25, 2]])
  for text in ('x,y,z\n', 'i,j,k'):
    found = read(tmp_path / 'a.csv', text)
    assert found.points.shape == (0, 3) and found.region.shape == (0,)


def test_regions_of_a_table(tmp_path):
  rows = [('thoracic', 'L1', '', THORACIC), ('', 'L2', 'T5', LUMBAR),
          ('', '', 'Th12 left', THORACIC), ('', '', 'lamina', UNKNOWN),
          ('LUMBAR', '', '', LUMBAR), ('', '', 'T123', UNKNOWN)]
  text = ''.join(f'1,3,6,{region},{level},{label}\n' for region, level, label, _ in rows)
  found = read(tmp_path / 'a.csv', 'i,j,k,region,level,label\n' + text)
  assert found.region.tolist() == [region for *_, region in rows]
  assert found.region.dtype == np.int8


@pytest.mark.parametrize('fields, sign', [
    ({}, (1, 1, 1)), ({'coordinateSystem': 'LPS'}, (1, 1, 1)),
    ({'coordinateSystem': '1'}, (1, 1, 1)),
    ({'coordinateSystem': 'RAS'}, (-1, -1, 1)), ({'coordinateSystem': 0}, (-1, -1, 1))])
def test_markups_in_either_system(tmp_path, fields, sign):
  place = lambda *xyz: (np.array(xyz) * sign).tolist()
  found = read(tmp_path / 'a.mrk.json', markups(
      (place(-12, 33.75, 16.25), 'L3-right', {}), (place(0, 0, 0), '', {
          'positionStatus': 'undefined'}), (place(-12.5, 36.25, 4.25), 'F-2', {}), **fields))
  np.testing.assert_allclose(found.points, [[0, 1, 2], [6, 0, 0]], atol=1e-12)
  assert found.region.tolist() == [LUMBAR, UNKNOWN]


@pytest.mark.parametrize('name, text, geometry, words', [
    ('a.txt', '', GEOMETRY, 'landmarks are read from .csv and .mrk.json'),
    ('a.csv', '', GEOMETRY, 'the file is empty'),
    ('a.csv', None, GEOMETRY, 'there is no such file'),
    ('a.csv', 'x,y,z\n\0', GEOMETRY, 'not a text table'),
    ('a.csv', 'x,y\n1,2\n', GEOMETRY, "must name the columns x,y,z (LPS positions in mm) or i,j,k"),
    ('a.csv', 'x,y\n1,2\n', GEOMETRY, "it names 'x, y'"),
    ('a.csv', 'x,y,z\n1,2\n', GEOMETRY, 'line 2: expected three numbers x,y,z'),
    ('a.csv', 'i,j,k\n1,2,nan\n', GEOMETRY, 'line 2: expected three numbers i,j,k'),
    ('a.csv', 'i,j,k,region\n1,3,6,sacral\n', GEOMETRY, "thoracic, lumbar or empty, not 'sacral'"),
    ('a.csv', 'x,y,z\n0,0,0\n', NO_SPACING, 'are in mm, but their volume has no spacing'),
    ('a.csv', 'i,j,k\n1,3,6\n4.6,0,0\n', GEOMETRY,
     '1 of the 2 landmarks lie outside of the volume, such as number 2'),
    ('a.csv', 'x,y,z\n12,-33.75,16.25\n', GEOMETRY, '(12.0, -33.75, 16.25) mm; is it the table'),
    ('a.mrk.json', '{"markups"', GEOMETRY, 'not a JSON file, or it is truncated'),
    ('a.mrk.json', '[]', GEOMETRY, 'not a markups file of 3D Slicer'),
    ('a.mrk.json', '{"markups": [{"controlPoints": [{}]}]}', GEOMETRY, 'not a markups file'),
    ('a.mrk.json', markups(([1, 2], '', {})), GEOMETRY, 'position 1 is not three numbers'),
    ('a.mrk.json', markups((['a', 1, 2], '', {})), GEOMETRY, 'position 1 is not three numbers'),
    ('a.mrk.json', markups(coordinateSystem='ijk'), GEOMETRY, 'LPS or RAS in mm, not IJK'),
    ('a.mrk.json', markups(coordinateUnits='cm'), GEOMETRY, 'not LPS in cm')])
def test_tables_that_are_refused(tmp_path, name, text, geometry, words):
  path = tmp_path / name
  if text is not None:
    path.write_text(text, encoding='utf-8')
  message = sentence(landmarks.read_landmarks, path, geometry)
  assert words in message and str(path) in message


@pytest.mark.parametrize('geometry, header', [(GEOMETRY, 'i,j,k,x,y,z'), (NO_SPACING, 'i,j,k')])
def test_a_written_table_reads_back(tmp_path, geometry, header):
  points = np.array([[0, 1, 2], [5.125, 3.3, 0.7]])
  landmarks.write_landmarks(tmp_path / 'a.csv', points, geometry)
  lines = (tmp_path / 'a.csv').read_text().split()
  assert lines[0] == header and lines[1].startswith('1.0000000,3.0000000,6.0000000')
  np.testing.assert_allclose(
      landmarks.read_landmarks(tmp_path / 'a.csv', geometry).points, points, atol=1e-6)
  landmarks.write_landmarks(tmp_path / 'a.csv', points, geometry,
                            dict(level=['T5', None], found=[True, False]))
  lines = (tmp_path / 'a.csv').read_text().split()
  assert lines[0] == header + ',level,found' and lines[1].endswith(',T5,True')
  again = landmarks.read_landmarks(tmp_path / 'a.csv', geometry)
  np.testing.assert_allclose(again.points, points, atol=1e-6)
  assert again.region.tolist() == [landmarks.THORACIC, landmarks.UNKNOWN]
  landmarks.write_landmarks(tmp_path / 'a.csv', np.zeros((0, 3)), geometry)
  assert len(landmarks.read_landmarks(tmp_path / 'a.csv', geometry).points) == 0
  with pytest.raises(OSError, match='cannot be written'):
    landmarks.write_landmarks(tmp_path / 'absent/a.csv', points, geometry)


def test_centroids_of_a_mask():
  mask = np.zeros((6, 5, 4), np.uint8)
  mask[0, 0, 0:3] = 1  # a row about (0, 0, 1)
  mask[3, 3, 3] = mask[4, 4, 2] = 1  # touch at an edge: one component about (3.5, 3.5, 2.5)
  mask[1, 0, 0:2] = 2  # touches label 1 and is apart: (1, 0, 0.5)
  found = landmarks.landmarks_of_mask(mask)
  np.testing.assert_allclose(found.points, [[0, 0, 1], [3.5, 3.5, 2.5], [1, 0, 0.5]])
  assert found.region.tolist() == [UNKNOWN] * 3
  assert landmarks.landmarks_of_mask(mask * 0).points.shape == (0, 3)


def test_cubes_by_hand():
  label = landmarks.cubes([[1, 2, 2], [4.5, 0, 3.4], [9, 0, 0], [-0.6, 1, 1]], (6, 5, 4))
  expected = np.zeros((6, 5, 4), np.uint8)
  expected[0:3, 1:4, 1:4] = 1
  expected[4:6, 0:2, 2:4] = 1  # about (5, 0, 3), cut at three sides
  np.testing.assert_array_equal(label, expected)
  assert label.dtype == np.uint8 and not landmarks.cubes(np.zeros((0, 3)), (3, 3, 3)).any()
