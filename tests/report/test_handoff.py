"""Hand-off: the files other programs open, read back with the libraries of their formats."""
import csv
import json
import math

import numpy as np
import pytest

from spinejax.readers import landmarks
from spinejax.readers import orientation
from spinejax.readers import volumes
from spinejax.readers.orientation import Geometry
from spinejax.measure import angles
from spinejax.report import figures
from spinejax.handoff import files as handoff

SPACING = (0.5, 0.8)
CLASSES = ('background', 'rib', 'thoracic process', 'lump')
OBLIQUE = np.linalg.qr(np.array([[1, 0.3, -0.2], [-0.2, 1, 0.3], [0.1, -0.3, 1]]))[0]
VOLUME = Geometry((5, 6, 7), *orientation.orient(OBLIQUE), np.array([0.5, 1.25, 2.0]),
                  np.array([-12.5, 30.0, 4.25]), OBLIQUE)
AXES = ('LIP', 'RIA', 'LPS', 'RAS')


def numbered(shape, top=4):
  return (np.arange(np.prod(shape)) % top).astype(np.uint8).reshape(shape)


def bent(angle=30.0, upper=10.0, spacing=SPACING, truncated=False, flip=False, deep=()):
  """A spine whose tilt turns evenly from `upper` to `upper - angle` degrees; 17 levels."""
  rows = np.linspace(20.0, 340.0, 17)
  tilts = upper - angle * np.linspace(0, 1, 17)
  tilts = -tilts if flip else tilts
  y = rows * spacing[0]
  step = np.diff(y) * np.tan(np.radians((tilts[1:] + tilts[:-1]) / 2))
  x = 40 + np.append(0, np.cumsum(step))
  levels = []
  for name, row, place, tilt in zip(angles.LEVELS, rows, x, tilts):
    half = 10 * np.array([-math.sin(math.radians(tilt)), math.cos(math.radians(tilt))])
    ends = [[float(row + sign * half[0] / spacing[0]),
             float((place + sign * half[1]) / spacing[1]), *deep] for sign in (-1, 1)]
    levels.append({'name': name, 'row': round(float(row), 2), 'column': float(place / spacing[1]),
                   'tilt_deg': float(tilt), 'left': ends[0], 'right': ends[1]})
  curves = angles.find_curves(tilts, angles.LEVELS, rows,
                              tilts + np.linspace(-2, 2, 9)[:, None] * np.linspace(0, 1, 17))
  for curve in curves:
    curve['truncated'] = truncated
  midline = [[float(row), float(place / spacing[1]), *deep] for row, place in zip(rows, x)]
  return angles.make_result('uca', spacing=spacing, curves=curves, levels_found=17,
                            level_confidence='high', levels=levels, midline=midline)


def no_levels(result):
  """As of an X-ray mask: midline and curves alone."""
  return {key: value for key, value in result.items() if key != 'levels'} | {
      'curves': [curve | {'upper': None, 'lower': None} for curve in result['curves']]}


def failed(spacing=SPACING):
  return angles.make_result('uca', spacing=spacing, failure='the mask is empty')


def positions(markup):
  return np.array([point['position'] for point in markup['controlPoints']]).reshape(-1, 3)


def of_type(content, kind):
  return [markup for markup in content['markups'] if markup['type'] == kind]


def angle_of(markup):
  """The angle 3D Slicer shows: at the second of three points."""
  a, b, c = positions(markup)
  cosine = (a - b) @ (c - b) / np.linalg.norm(a - b) / np.linalg.norm(c - b)
  return math.degrees(math.acos(cosine))


def nrrd_fields(path):
  sitk = pytest.importorskip('SimpleITK')
  image = sitk.ReadImage(str(path))
  return image, {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}


# -------------------------------------------------------------------------------------- places


@pytest.mark.parametrize('axes', AXES)
def test_a_pixel_lies_in_one_place_in_every_file(tmp_path, axes):
  nibabel, nrrd = pytest.importorskip('nibabel'), pytest.importorskip('nrrd')
  sitk = pytest.importorskip('SimpleITK')
  mask = np.zeros((9, 6), np.uint8)
  mask[7, 2] = 3
  result = angles.make_result('uca', spacing=SPACING, levels=[
      {'name': 'T1', 'row': 7.0, 'column': 2.0, 'tilt_deg': 0.0, 'left': [7.0, 2.0],
       'right': [0.0, 5.0]}])
  handoff.write_case(tmp_path, 'c', mask, result, spacing=SPACING, axes=axes, classes=CLASSES)
  letters = orientation.directions(axes)
  expected = 2 * 0.8 * letters[:, 0] + 7 * 0.5 * letters[:, 1]

  nifti = nibabel.load(tmp_path / 'c_mask.nii.gz')
  assert nifti.shape == (6, 9, 1)
  place = nifti.affine @ [*np.argwhere(np.asarray(nifti.dataobj) == 3)[0], 1]
  np.testing.assert_allclose(place[:3] * [-1, -1, 1], expected, atol=1e-4)

  array, header = nrrd.read(str(tmp_path / 'c_mask.seg.nrrd'))
  assert header['space'] == 'left-posterior-superior' and header['dimension'] == 3
  place = header['space origin'] + np.argwhere(array == 3)[0] @ header['space directions']
  np.testing.assert_allclose(place, expected, atol=1e-4)

  image = sitk.ReadImage(str(tmp_path / 'c_mask.seg.nrrd'))
  place = image.TransformIndexToPhysicalPoint((2, 7, 0))
  np.testing.assert_allclose(place, expected, atol=1e-4)

  line, = of_type(json.loads((tmp_path / 'c.mrk.json').read_text()), 'Line')
  np.testing.assert_allclose(positions(line)[0], expected, atol=1e-4)
  np.testing.assert_allclose(positions(line)[1], 5 * 0.8 * letters[:, 0], atol=1e-4)


def test_down_is_inferior_and_right_is_the_left_of_the_patient():
  geometry = handoff.image_geometry((9, 6), SPACING)
  places = orientation.to_physical([[0, 0, 0], [1, 0, 0], [0, 1, 0]], geometry)
  np.testing.assert_allclose(places, [[0, 0, 0], [0, 0, -0.5], [0.8, 0, 0]])
  behind = handoff.image_geometry((9, 6), SPACING, 'RIA')
  np.testing.assert_allclose(orientation.to_physical([[0, 1, 0]], behind), [[-0.8, 0, 0]])


@pytest.mark.parametrize('shape', [(9, 6), (1, 6), (9, 1), (1, 1)])
def test_images_of_any_shape_come_back_as_they_were(tmp_path, shape):
  nibabel, nrrd = pytest.importorskip('nibabel'), pytest.importorskip('nrrd')
  mask = numbered(shape)
  handoff.write_case(tmp_path, 'c', mask, failed(), spacing=SPACING, classes=CLASSES)
  nifti = nibabel.load(tmp_path / 'c_mask.nii.gz')
  np.testing.assert_allclose(nifti.header.get_zooms(), (0.8, 0.5, 1.0), atol=1e-6)
  np.testing.assert_array_equal(np.asarray(nifti.dataobj)[..., 0].T, mask)
  array, header = nrrd.read(str(tmp_path / 'c_mask.seg.nrrd'))
  np.testing.assert_array_equal(array[..., 0].T, mask)
  np.testing.assert_allclose(np.linalg.norm(header['space directions'], axis=1), (0.8, 0.5, 1.0))


@pytest.mark.parametrize('suffix', ('.nii.gz', '.seg.nrrd'))
@pytest.mark.parametrize('axes', AXES)
@pytest.mark.parametrize('shape', [(9, 6), (1, 6), (9, 1)])
def test_a_slice_that_another_program_saved_is_read_as_the_image_it_was(
    tmp_path, axes, suffix, shape):
  path, mask = tmp_path / f'c{suffix}', numbered(shape)
  handoff.write_nifti(path, mask, handoff.image_geometry(shape, SPACING, axes))
  label, spacing, geometry = volumes.read_labels(path)
  np.testing.assert_array_equal(label, mask)
  np.testing.assert_allclose(spacing, SPACING, atol=1e-6)
  assert geometry is None
  with pytest.raises(ValueError, match='needs 2 along every axis'):
    volumes.read_volume(path)


def test_rows_of_a_slice_run_down_the_patient(tmp_path):
  sitk = pytest.importorskip('SimpleITK')
  mask = numbered((9, 6))
  upward = handoff.image_geometry((9, 6), SPACING, 'LSA')
  handoff.write_nifti(tmp_path / 'c.nii.gz', mask[::-1], upward)
  np.testing.assert_array_equal(volumes.read_labels(tmp_path / 'c.nii.gz')[0], mask)
  # A coronal slice cut out of a volume in LPS: (left, posterior, superior).
  image = sitk.GetImageFromArray(mask[::-1, None])
  image.SetSpacing((0.8, 3.0, 0.5))
  sitk.WriteImage(image, str(tmp_path / 'c.nrrd'))
  label, spacing, geometry = volumes.read_labels(tmp_path / 'c.nrrd')
  np.testing.assert_array_equal(label, mask)
  np.testing.assert_allclose(spacing, SPACING, atol=1e-6)
  assert geometry is None


def test_a_slice_in_an_npz_file_is_in_our_axes(tmp_path):
  np.savez(tmp_path / 'c.npz', label=numbered((9, 6, 1)), spacing=np.array([0.5, 0.8, 1.0]))
  label, spacing, _ = volumes.read_labels(tmp_path / 'c.npz')
  np.testing.assert_array_equal(label, numbered((9, 6)))
  np.testing.assert_allclose(spacing, SPACING, atol=1e-6)


def test_labels_of_a_volume_come_with_its_geometry(tmp_path):
  mask = np.zeros(orientation.shape_of(VOLUME), np.uint8)  # all 0 is a mask, too
  handoff.write_nifti(tmp_path / 'v.nii.gz', mask, VOLUME)
  label, spacing, geometry = volumes.read_labels(tmp_path / 'v.nii.gz')
  np.testing.assert_array_equal(label, mask)
  np.testing.assert_allclose(spacing, orientation.spacing_of(VOLUME), atol=1e-5)
  orientation.check_same_grid('v', geometry, VOLUME)


def test_a_volume_keeps_its_grid_and_its_markups_lie_on_it(tmp_path):
  nibabel, nrrd = pytest.importorskip('nibabel'), pytest.importorskip('nrrd')
  mask = numbered(orientation.shape_of(VOLUME), 2)
  stored = orientation.to_file(mask, VOLUME)
  points = np.array([[0.0, 0, 0], [1.5, 2, 3.25]])
  paths = handoff.write_case(tmp_path, 'v', mask, failed(None), geometry=VOLUME,
                             classes=('background', 'lamina'), points=points)
  assert [path.name for path in paths] == ['v_mask.nii.gz', 'v_mask.seg.nrrd', 'v.mrk.json']
  corners = np.array([[0, 0, 0], [4, 5, 6]])
  expected = VOLUME.origin + (corners * VOLUME.spacing) @ OBLIQUE.T
  nifti = nibabel.load(paths[0])
  np.testing.assert_array_equal(np.asarray(nifti.dataobj), stored)
  np.testing.assert_allclose((corners @ nifti.affine[:3, :3].T + nifti.affine[:3, 3])
                             * [-1, -1, 1], expected, atol=1e-4)
  array, header = nrrd.read(str(paths[1]))
  np.testing.assert_array_equal(array, stored)
  np.testing.assert_allclose(header['space origin'] + corners @ header['space directions'],
                             expected, atol=1e-4)
  np.testing.assert_array_equal(volumes.read_mask(paths[1], VOLUME), mask)
  np.testing.assert_allclose(landmarks.read_landmarks(paths[2], VOLUME).points, points, atol=1e-5)


@pytest.mark.parametrize('spacing', [None, math.nan, (0.5, math.nan), (0.5, 0.0), (-1.0, 1.0)])
def test_an_unknown_spacing_is_refused(tmp_path, spacing):
  with pytest.raises(ValueError, match='spacing of the image is unknown'):
    handoff.write_case(tmp_path, 'c', numbered((4, 4)), failed(None), spacing=spacing)
  geometry = VOLUME._replace(spacing=np.full(3, np.nan))
  for write in (handoff.write_nifti, handoff.write_segmentation):
    with pytest.raises(ValueError, match='no spacing'):
      write(tmp_path / 'v.nii.gz', numbered(orientation.shape_of(VOLUME)), geometry)
  with pytest.raises(ValueError, match='no spacing'):
    handoff.make_markups(failed(), geometry)
  assert not list(tmp_path.iterdir())


def test_what_does_not_fit_is_refused_in_one_sentence(tmp_path):
  mask, write = numbered((4, 4)), handoff.write_case
  with pytest.raises(ValueError, match='measured at a spacing'):
    write(tmp_path, 'c', mask, failed((1.0, 1.0)), spacing=SPACING)
  with pytest.raises(ValueError, match='label 3, but there are 3 classes'):
    write(tmp_path, 'c', mask, failed(), spacing=SPACING, classes=CLASSES[:3])
  with pytest.raises(ValueError, match='unknown format'):
    write(tmp_path, 'c', mask, failed(), spacing=SPACING, formats=('stl',))
  for name in ('', '../c', 'a/b', 'a\\b'):
    with pytest.raises(ValueError, match='file name without folders'):
      write(tmp_path, name, mask, failed(), spacing=SPACING)
  with pytest.raises(ValueError, match='left-handed'):
    write(tmp_path, 'c', mask, failed(), spacing=SPACING, axes='LIA')
  with pytest.raises(ValueError, match='three letters'):
    write(tmp_path, 'c', mask, failed(), spacing=SPACING, axes='LL')
  with pytest.raises(ValueError, match='needs the geometry'):
    write(tmp_path, 'c', mask[None], failed(), spacing=SPACING)
  with pytest.raises(ValueError, match='a mask must be'):
    write(tmp_path, 'c', mask[:0], failed(), spacing=SPACING)
  with pytest.raises(ValueError, match='needs the DICOM file'):
    write(tmp_path, 'c', mask, failed(), spacing=SPACING, formats=('dicom_seg',))
  with pytest.raises(ValueError, match='cannot be written'):
    write(tmp_path / 'absent', 'c', mask, failed(), spacing=SPACING, formats=('markups',))
  with pytest.raises(ValueError, match='cannot be written'):
    handoff.write_summary(tmp_path / 'absent' / 's.csv', {})


def test_the_image_goes_along_on_the_grid_of_its_mask(tmp_path):
  nibabel = pytest.importorskip('nibabel')
  image = np.linspace(0, 255, 54).reshape(9, 6).astype(np.float32)
  paths = handoff.write_case(tmp_path, 'c', numbered((9, 6)), failed(), spacing=SPACING,
                             formats=('nifti',), image=image)
  mask, gray = map(nibabel.load, paths)
  np.testing.assert_array_equal(mask.affine, gray.affine)
  np.testing.assert_array_equal(np.asarray(gray.dataobj)[..., 0].T, np.rint(image))


# ------------------------------------------------------------------------------------ segments


def test_segments_have_names_colors_and_one_extent(tmp_path):
  mask = np.zeros((9, 6), np.uint8)
  mask[4, 3] = 3  # the first two classes are empty
  path = tmp_path / 'c.seg.nrrd'
  handoff.write_segmentation(path, mask, handoff.image_geometry((9, 6), SPACING), CLASSES)
  image, fields = nrrd_fields(path)
  assert image.GetSize() == (6, 9, 1)
  assert fields['Segmentation_MasterRepresentation'] == 'Binary labelmap'
  assert fields['Segmentation_ContainedRepresentationNames'] == 'Binary labelmap|'
  assert fields['Segmentation_ReferenceImageExtentOffset'] == '0 0 0'
  for i, name in enumerate(CLASSES[1:]):
    assert fields[f'Segment{i}_Name'] == name
    assert fields[f'Segment{i}_LabelValue'] == str(i + 1)
    assert fields[f'Segment{i}_Layer'] == '0'
    # Slicer reads a layer by the extent of its first segment: an empty one would empty the layer.
    assert fields[f'Segment{i}_Extent'] == '0 5 0 8 0 0'
    rgb = np.array(fields[f'Segment{i}_Color'].split(), float) * 255
    np.testing.assert_allclose(rgb, figures.color_bytes(figures.class_color(i + 1)), atol=1e-3)
    assert '~SCT^272673000^Bone~' in fields[f'Segment{i}_Tags']
  assert len({fields[f'Segment{i}_ID'] for i in range(3)}) == 3
  assert 'Segment3_ID' not in fields


def test_class_names_cannot_break_the_header(tmp_path):
  names = ('background', 'a = b:=c', 'Brustwirbel λ é', 'one\nSegment0_Name:=two\r\n\x00', ' \n',
           'back\\n slash', '=cmd()')
  path = tmp_path / 'c.seg.nrrd'
  handoff.write_segmentation(path, numbered((3, 4), 7), handoff.image_geometry((3, 4), 1.0), names)
  image, fields = nrrd_fields(path)
  assert [fields[f'Segment{i}_Name'] for i in range(6)] == [
      'a = b:=c', 'Brustwirbel λ é', 'one Segment0_Name:=two', 'class 4', 'back\\n slash',
      '=cmd()']
  assert image.GetSize() == (4, 3, 1) and 'Segment6_Name' not in fields


def test_an_empty_mask_still_makes_a_segmentation(tmp_path):
  path, geometry = tmp_path / 'c.seg.nrrd', handoff.image_geometry((9, 6), SPACING)
  handoff.write_segmentation(path, np.zeros((9, 6), bool), geometry, CLASSES)
  assert nrrd_fields(path)[1]['Segment2_Name'] == 'lump'
  handoff.write_segmentation(path, np.zeros((9, 6), bool), geometry)
  assert 'Segment0_ID' not in nrrd_fields(path)[1]
  handoff.write_segmentation(path, numbered((9, 6), 3), geometry)
  assert nrrd_fields(path)[1]['Segment1_Name'] == 'class 2'


# ------------------------------------------------------------------------------------- markups


def check_schema(content):
  """The constraints of markups-schema-v1.0.3 on what is written."""
  assert content['@schema'].endswith('markups-schema-v1.0.3.json#')
  assert content['markups']
  for markup in content['markups']:
    assert markup['type'] in ('Fiducial', 'Line', 'Angle', 'Curve', 'ClosedCurve', 'Plane', 'ROI')
    assert markup['coordinateSystem'] in ('LPS', 'RAS')
    assert markup['coordinateUnits'] in ('mm', 'um')
    assert isinstance(markup['name'], str) and isinstance(markup['labelFormat'], str)
    assert markup['locked'] is False and markup['fixedNumberOfControlPoints'] is False
    assert len(markup['controlPoints']) == {'Line': 2, 'Angle': 3}.get(
        markup['type'], len(markup['controlPoints']))
    for point in markup['controlPoints']:
      assert all(isinstance(point[key], str) for key in (
          'id', 'label', 'description', 'associatedNodeID'))
      assert all(isinstance(point[key], bool) for key in ('selected', 'locked', 'visibility'))
      assert not point['locked'] and point['positionStatus'] in ('undefined', 'preview', 'defined')
      assert len(point['position']) == 3 and all(map(math.isfinite, point['position']))
    display = markup['display']
    for color in ('color', 'selectedColor', 'activeColor'):
      assert len(display[color]) == 3 and all(0 <= x <= 1 for x in display[color])
    for key in ('visibility', 'propertiesLabelVisibility', 'pointLabelsVisibility',
                'useGlyphScale'):
      assert isinstance(display[key], bool)
    for key in ('textScale', 'glyphScale', 'glyphSize', 'lineThickness'):
      assert display[key] >= 0
    assert 0 <= display['opacity'] <= 1 and display['snapMode'] == 'unconstrained'
    assert display['glyphType'] in ('Sphere3D', 'Vertex2D', 'Cross2D', 'Circle2D')
    for measurement in markup['measurements']:
      assert isinstance(measurement['name'], str) and isinstance(measurement['enabled'], bool)
      assert math.isfinite(measurement['value']) and isinstance(measurement['units'], str)


def test_markups_of_a_measured_case(tmp_path):
  result = bent()
  path = tmp_path / 'c.mrk.json'
  handoff.write_markups(path, result, handoff.image_geometry((360, 120), SPACING), name='case 7')
  content = json.loads(path.read_text(encoding='utf-8'))
  check_schema(content)
  assert [markup['name'] for markup in of_type(content, 'Line')] == [
      f'case 7 {level}' for level in angles.LEVELS]
  curve, = of_type(content, 'Curve')
  assert curve['name'] == 'case 7 midline' and len(curve['controlPoints']) == 17
  np.testing.assert_allclose(positions(curve)[:, 2], np.linspace(-10, -170, 17))
  angle, = of_type(content, 'Angle')
  assert angle['name'] == 'case 7 curve 1 thoracic T1-L5'
  assert angle_of(angle) == pytest.approx(30, abs=1e-4)
  assert angle['measurements'][0]['value'] == 30
  assert '95% interval' in angle['measurements'][0]['description']
  assert angle['display']['propertiesLabelVisibility'] is True


@pytest.mark.parametrize('axes', AXES)
@pytest.mark.parametrize('flip', (False, True))
@pytest.mark.parametrize('degrees, upper', [(8.0, 4.0), (30.0, 10.0), (65.0, 30.0), (20.0, 0.0)])
def test_the_angle_shown_is_the_angle_measured(axes, flip, degrees, upper):
  geometry = handoff.image_geometry((360, 120), SPACING, axes)
  result = bent(degrees, upper, flip=flip)
  for case in (result, no_levels(result)):
    content = handoff.make_markups(case, geometry)
    check_schema(content)
    angle, = of_type(content, 'Angle')
    assert angle_of(angle) == pytest.approx(degrees, abs=0.006)  # rounded in the result
    # The vertex is where the tangents at both ends meet, so between them and near the spine.
    row = orientation.to_voxels(positions(angle)[1], geometry)[0]
    assert 20 < row < 340
    # The second arm ends at the lower end of the curve.
    end = orientation.to_voxels(positions(angle)[2], geometry)[:2]
    np.testing.assert_allclose(end, case['midline'][-1], atol=0.5 if case is result else 6)


def test_ends_without_a_level_get_a_line_across_the_spine():
  geometry = handoff.image_geometry((360, 120), SPACING)
  content = handoff.make_markups(no_levels(bent(30, 15)), geometry)
  lines = of_type(content, 'Line')
  assert [markup['name'] for markup in lines] == ['curve 1 upper end', 'curve 1 lower end']
  directions = [np.diff(positions(line), axis=0)[0] for line in lines]
  angle, = of_type(content, 'Angle')
  arms = positions(angle)[[0, 2]] - positions(angle)[1]
  for direction, arm in zip(directions, arms):
    assert direction @ arm == pytest.approx(0, abs=1e-3)
    assert np.linalg.norm(direction) == pytest.approx(handoff.END_LINE_MM, abs=1e-4)
  cosine = directions[0] @ directions[1] / handoff.END_LINE_MM ** 2
  assert math.degrees(math.acos(cosine)) == pytest.approx(30, abs=1e-3)
  # A level found on one side only has no line of its own.
  result = bent(30, 15)
  result['levels'][0] |= {'left': None}
  names = [markup['name'] for markup in of_type(handoff.make_markups(result, geometry), 'Line')]
  assert names == [*angles.LEVELS[1:], 'curve 1 upper end T1']


def test_tangents_are_those_of_the_levels_where_there_are_any():
  geometry = handoff.image_geometry((360, 120), SPACING)
  result = bent(30, 10)
  for level in result['levels']:
    level['tilt_deg'] += 7
  angle, = of_type(handoff.make_markups(result, geometry), 'Angle')
  arms = positions(angle)[[0, 2]] - positions(angle)[1]
  tilts = np.degrees(np.arctan2(arms[:, 0], -arms[:, 2]))
  np.testing.assert_allclose(tilts, [17, -13], atol=1e-3)


def test_a_spine_shifted_sideways_keeps_its_angle_and_its_vertex_on_the_spine():
  geometry = handoff.image_geometry((360, 120), SPACING)
  result = no_levels(bent(30, 15))
  for point in result['midline'][9:]:
    point[1] += 300
  angle, = of_type(handoff.make_markups(result, geometry), 'Angle')
  assert angle_of(angle) == pytest.approx(30, abs=1e-3)
  row, column, _ = orientation.to_voxels(positions(angle)[1], geometry)
  line = np.array(result['midline'])
  assert row == pytest.approx(result['curves'][0]['apex_row'], abs=1e-4)
  assert column == pytest.approx(np.interp(row, line[:, 0], line[:, 1]), abs=1e-4)


def test_curves_that_share_an_end_share_its_line():
  result = no_levels(bent(30, 15))
  whole = result['curves'][0]
  result['curves'] = [whole | {'lower_row': 180.0, 'angle_deg': 15.0},
                      whole | {'upper_row': 180.0, 'angle_deg': 15.5}]
  content = handoff.make_markups(result, handoff.image_geometry((360, 120), SPACING))
  assert [markup['name'] for markup in content['markups'][1:]] == [
      'curve 1 thoracic', 'curve 1 upper end', 'curve 1 lower end', 'curve 2 thoracic',
      'curve 2 lower end']


def test_curves_whose_tangents_do_not_meet_between_the_ends_keep_their_angle():
  geometry = handoff.image_geometry((360, 120), SPACING)
  result = no_levels(bent(30, 15))
  result['curves'][0]['angle_deg'] = 12.0
  result['curves'].append(result['curves'][0] | {'angle_deg': 40.0, 'upper_row': 300.0,
                                                 'lower_row': 310.0, 'apex_row': 305.0})
  content = handoff.make_markups(result, geometry)
  check_schema(content)
  second, first = of_type(content, 'Angle')
  assert (angle_of(first), angle_of(second)) == (pytest.approx(40, abs=1e-3),
                                                 pytest.approx(12, abs=1e-3))
  for markup, ends in ((first, (300, 310)), (second, (20, 340))):
    row = orientation.to_voxels(positions(markup)[1], geometry)[0]
    assert ends[0] <= row <= ends[1]
  assert first['display']['color'] != second['display']['color']


def test_markups_of_a_volume_have_depth():
  geometry = Geometry((40, 120, 360), (2, 1, 0), (True, False, True), np.array([0.9, 0.8, 0.5]),
                      np.zeros(3), np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1.0]]))
  result = bent(30, 10, spacing=(0.5, 0.8), deep=(12.0,)) | {'spacing': [0.5, 0.8, 0.9]}
  content = handoff.make_markups(result, geometry, points=np.array([[5.0, 6.0, 7.0]]))
  check_schema(content)
  for markup in content['markups']:
    depths = orientation.to_voxels(positions(markup), geometry)[:, 2]
    np.testing.assert_allclose(depths, 7 if markup['type'] == 'Fiducial' else 12, atol=1e-4)
  assert angle_of(of_type(content, 'Angle')[0]) == pytest.approx(30, abs=1e-3)


def test_points_of_an_image_drawn_on_a_volume_lie_in_its_middle():
  geometry = VOLUME._replace(shape=(5, 6, 7))
  result = angles.make_result('uca', spacing=(1, 1), levels=[
      {'name': None, 'row': 1.0, 'column': 1.0, 'left': [1.0, 0.0], 'right': [1.0, 2.0]}])
  line, = of_type(handoff.make_markups(result, geometry), 'Line')
  middle = (orientation.shape_of(geometry)[2] - 1) / 2
  np.testing.assert_allclose(orientation.to_voxels(positions(line), geometry)[:, 2], middle,
                             atol=1e-5)
  assert line['name'] == 'level 1'


def test_a_failed_result_has_no_curve_and_says_why():
  geometry = handoff.image_geometry((9, 6), SPACING)
  content = handoff.make_markups(failed(), geometry, name='c')
  check_schema(content)
  markup, = content['markups']
  assert markup['type'] == 'Fiducial' and not markup['controlPoints']
  assert markup['name'] == 'c no angle: the mask is empty'
  straight = bent(0.0, 0.0)
  assert straight['status'] == 'ok' and not straight['curves']
  content = handoff.make_markups(straight, geometry)
  check_schema(content)
  assert not of_type(content, 'Angle') and len(of_type(content, 'Line')) == 17


def test_landmarks_of_vertebrae_make_a_midline_of_their_centers():
  result = bent(30, 10)
  del result['midline']
  for level in result['levels']:
    del level['left'], level['right']
  content = handoff.make_markups(result, handoff.image_geometry((360, 120), SPACING))
  assert len(of_type(content, 'Curve')[0]['controlPoints']) == 17
  assert angle_of(of_type(content, 'Angle')[0]) == pytest.approx(30, abs=1e-3)


# -------------------------------------------------------------------------------------- tables


def read(path):
  with open(path, newline='', encoding='utf-8') as file:
    return list(csv.DictReader(file))


def test_the_summary_has_a_row_for_every_case(tmp_path):
  results = {'a': bent(30, 10, truncated=True) | {'model': 'seam', 'checkpoint': 'best 100'},
             'b': failed(), 'c, "d"\né': bent(0.0, 0.0, spacing=(0.5, 0.8))}
  path = tmp_path / 's.csv'
  handoff.write_summary(path, results)
  rows = read(path)
  assert tuple(rows[0]) == handoff.SUMMARY_COLUMNS
  assert [row['case'] for row in rows] == list(results)
  first, second, third = rows
  assert (float(first['major_deg']), first['upper'], first['lower']) == (30, 'T1', 'L5')
  assert (float(first['ci_low']), float(first['ci_high'])) == tuple(
      results['a']['curves'][0]['ci95'])
  assert (first['truncated'], first['model'], first['curves']) == ('yes', 'seam', '30')
  assert (float(first['spacing_y_mm']), float(first['spacing_x_mm'])) == SPACING
  assert first['spacing_z_mm'] == ''
  assert (second['status'], second['major_deg'], second['flags']) == (
      'fail', '', 'the mask is empty')
  assert (third['major_deg'], third['band'], third['upper']) == ('0.0', 'none', '')


def test_the_summary_tells_the_largest_curve_and_lists_all(tmp_path):
  result = bent(30, 10)
  small = result['curves'][0] | {'angle_deg': 12.5, 'ci95': None, 'side': 'left', 'upper': 'L1'}
  result['curves'] = [small, *result['curves']]
  result['flags'] = ['one; two', 'three']
  handoff.write_summary(tmp_path / 's.csv', {'a': result})
  handoff.write_curves(tmp_path / 'c.csv', {'a': result, 'b': failed()})
  row, = read(tmp_path / 's.csv')
  assert (row['curves'], row['upper'], row['flags']) == ('12.5; 30', 'T1', 'one; two | three')
  rows = read(tmp_path / 'c.csv')
  assert tuple(rows[0]) == handoff.CURVE_COLUMNS
  assert [(row['case'], row['curve'], row['angle_deg'], row['upper'], row['ci_low'] == '')
          for row in rows] == [('a', '1', '12.5', 'L1', True), ('a', '2', '30.0', 'T1', False)]


@pytest.mark.parametrize('name', ['=1+1', '+1', '-1', '@sum', '\t=1', ' =1', '\r=1', '\n=1', '\tx'])
def test_no_spreadsheet_takes_a_name_for_a_formula(tmp_path, name):
  result = bent(30, 10) | {'model': name, 'flags': [name]}
  handoff.write_summary(tmp_path / 's.csv', {name: result})
  row, = read(tmp_path / 's.csv')
  assert row['case'] == row['model'] == row['flags'] == f"'{name}"


def test_numbers_stay_numbers(tmp_path):
  result = failed() | {'calibrated_deg': -3.5}
  handoff.write_summary(tmp_path / 's.csv', {'a-b=c': result, '7': result})
  assert [(row['case'], row['calibrated_deg']) for row in read(tmp_path / 's.csv')] == [
      ('a-b=c', '-3.5'), ('7', '-3.5')]


def test_tables_of_no_case_have_their_header(tmp_path):
  handoff.write_summary(tmp_path / 's.csv', {})
  assert (tmp_path / 's.csv').read_text().strip() == ','.join(handoff.SUMMARY_COLUMNS)


# ----------------------------------------------------------------------------------- DICOM-SEG

DX, CR = '1.2.840.10008.5.1.4.1.1.1.1', '1.2.840.10008.5.1.4.1.1.1'
US, FRAMES = '1.2.840.10008.5.1.4.1.1.6.1', '1.2.840.10008.5.1.4.1.1.3.1'


def write_source(path, kind=DX, size=(9, 6), **tags):
  """A DICOM image with the least that a file needs."""
  pydicom = pytest.importorskip('pydicom')
  data = pydicom.Dataset()
  data.file_meta = pydicom.dataset.FileMetaDataset()
  data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
  data.SOPClassUID = kind
  for keyword in ('SOPInstanceUID', 'StudyInstanceUID', 'SeriesInstanceUID'):
    setattr(data, keyword, pydicom.uid.generate_uid())
  data.Rows, data.Columns = size
  data.BitsAllocated = data.BitsStored = 8
  data.HighBit, data.PixelRepresentation, data.SamplesPerPixel = 7, 0, 1
  data.PhotometricInterpretation = 'MONOCHROME2'
  data.PixelData = bytes(size[0] * size[1] * tags.get('NumberOfFrames', 1))
  for keyword, value in tags.items():
    if value is None:
      delattr(data, keyword)
    else:
      setattr(data, keyword, value)
  data.save_as(path, enforce_file_format=True)
  return data


@pytest.mark.parametrize('kind, tags', [
    (DX, {'Modality': 'DX', 'PatientID': '17', 'ImagerPixelSpacing': [0.2, 0.3]}),
    (CR, {}), (US, {'NumberOfFrames': 1}), (DX, {'FrameOfReferenceUID': '1.2.3'})])
def test_dicom_segmentations_lie_on_their_source(tmp_path, kind, tags):
  highdicom = pytest.importorskip('highdicom')
  source = write_source(tmp_path / 'x.dcm', kind, **tags)
  mask = np.zeros((9, 6), np.uint8)
  mask[1:3, 1], mask[7, 5] = 1, 3
  handoff.write_case(tmp_path, 'c', mask, failed() | {'model': 'seam'}, spacing=SPACING,
                     classes=CLASSES, formats=('dicom_seg',), source=tmp_path / 'x.dcm')
  segments = highdicom.seg.segread(tmp_path / 'c_mask.dcm')
  assert [segments.get_segment_description(i).segment_label for i in (1, 2, 3)] == [
      'rib', 'thoracic process', 'lump']
  assert segments.StudyInstanceUID == source.StudyInstanceUID
  assert segments.PatientID == tags.get('PatientID', None) or not segments.PatientID
  array = segments.get_pixels_by_source_instance(
      [source.SOPInstanceUID], combine_segments=True, assert_missing_frames_are_empty=True)
  np.testing.assert_array_equal(array[0], mask)


def test_an_empty_mask_makes_a_dicom_segmentation(tmp_path, caplog):
  highdicom = pytest.importorskip('highdicom')
  source = write_source(tmp_path / 'x.dcm')
  handoff.write_dicom_seg(tmp_path / 's.dcm', np.zeros((9, 6), bool), tmp_path / 'x.dcm', CLASSES)
  segments = highdicom.seg.segread(tmp_path / 's.dcm')
  assert segments.number_of_segments == 3 and not caplog.records
  array = segments.get_pixels_by_source_instance([source.SOPInstanceUID], combine_segments=True)
  assert not array.any()


def test_sources_that_cannot_carry_a_segmentation_are_refused(tmp_path):
  pytest.importorskip('highdicom')
  mask, path = numbered((9, 6)), tmp_path / 'x.dcm'
  write = lambda: handoff.write_dicom_seg(tmp_path / 's.dcm', mask, path, CLASSES)
  with pytest.raises(FileNotFoundError, match='no such file'):
    write()
  path.write_bytes(b'\x89PNG')
  with pytest.raises(ValueError, match='not a DICOM image'):
    write()
  write_source(path, FRAMES, NumberOfFrames=2)
  with pytest.raises(ValueError, match='2 frames'):
    write()
  write_source(path, size=(9, 7))
  with pytest.raises(ValueError, match='9 x 7 pixels, but the mask 9 x 6'):
    write()
  write_source(path, StudyInstanceUID=None)
  with pytest.raises(ValueError, match='no StudyInstanceUID'):
    write()
  write_source(path)
  with pytest.raises(ValueError, match='names of its classes'):
    handoff.write_dicom_seg(tmp_path / 's.dcm', mask * 0, path)
  with pytest.raises(ValueError, match='cannot be written'):
    handoff.write_dicom_seg(tmp_path / 'absent' / 's.dcm', mask, path, CLASSES)
  assert not (tmp_path / 's.dcm').exists()


def test_without_highdicom_a_sentence_names_the_extra(tmp_path, monkeypatch):
  monkeypatch.setitem(__import__('sys').modules, 'highdicom', None)
  with pytest.raises(ValueError, match=r'pip install spinejax\[dicom_seg\]'):
    handoff.write_dicom_seg(tmp_path / 's.dcm', numbered((4, 4)), tmp_path / 'x.dcm', CLASSES)
