"""Masks of cases, read back with the libraries of their formats."""
import json
import math

import nibabel
import nrrd
import numpy as np
import pytest

from spinejax import colors, handoff
from spinejax.handoff import markups, masks
from spinejax.measurement.results import AngleResult, Level
from spinejax.readers import landmarks, orientation, volumes
from spinejax.readers.orientation import Geometry
from tests.handoff.results import AXES, CLASSES, FAILED, SPACING, numbered, of_type, positions

OBLIQUE = np.linalg.qr(np.array([[1, 0.3, -0.2], [-0.2, 1, 0.3], [0.1, -0.3, 1]]))[0]
VOLUME = Geometry((5, 6, 7), *orientation.orient(OBLIQUE), np.array([0.5, 1.25, 2.0]),
                  np.array([-12.5, 30.0, 4.25]), OBLIQUE)
SHAPE = orientation.shape_of(VOLUME)
UNKNOWN = AngleResult('uca', 'fail', flags=('the spacing is unknown',))


def nrrd_fields(path):
  image = pytest.importorskip('SimpleITK').ReadImage(str(path))
  return image, {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}


def segments(path, mask, classes=(), spacing=SPACING):
  """Writes a mask [H,W] as a segmentation; returns its image and fields."""
  masks.write_segmentation(path, mask[..., None], handoff.image_geometry(mask.shape, spacing),
                           classes)
  return nrrd_fields(path)


@pytest.mark.parametrize('axes', AXES)
def test_a_pixel_lies_in_one_place_in_every_file(tmp_path, axes):
  mask = np.zeros((9, 6), np.uint8)
  mask[7, 2] = 3
  result = AngleResult('uca', 'ok', spacing=SPACING, levels=(
      Level('T1', 7.0, 2.0, 0.0, left=(7.0, 2.0), right=(0.0, 5.0)),))
  handoff.write_case(tmp_path, handoff.Case('c', mask, result, CLASSES, SPACING, axes))
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

  image, _ = nrrd_fields(tmp_path / 'c_mask.seg.nrrd')
  np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((2, 7, 0)), expected, atol=1e-4)

  line, = of_type(json.loads((tmp_path / 'c.mrk.json').read_text()), 'Line')
  np.testing.assert_allclose(positions(line)[0], expected, atol=1e-4)
  np.testing.assert_allclose(positions(line)[1], 5 * 0.8 * letters[:, 0], atol=1e-4)


def test_down_is_inferior_and_right_is_the_left_of_the_patient():
  geometry = handoff.image_geometry((9, 6), SPACING)
  places = orientation.to_physical([[0, 0, 0], [1, 0, 0], [0, 1, 0]], geometry)
  np.testing.assert_allclose(places, [[0, 0, 0], [0, 0, -0.5], [0.8, 0, 0]])
  behind = handoff.image_geometry((9, 6), SPACING, 'RIA')
  np.testing.assert_allclose(orientation.to_physical([[0, 1, 0]], behind), [[-0.8, 0, 0]])
  np.testing.assert_allclose(orientation.spacing_of(behind), [0.5, 0.8, 1.0])


@pytest.mark.parametrize('shape', [(9, 6), (1, 6), (9, 1), (1, 1)])
def test_images_of_any_shape_come_back_as_they_were(tmp_path, shape):
  mask = numbered(shape)
  handoff.write_case(tmp_path, handoff.Case('c', mask, FAILED, CLASSES, SPACING))
  nifti = nibabel.load(tmp_path / 'c_mask.nii.gz')
  array, header = nrrd.read(str(tmp_path / 'c_mask.seg.nrrd'))
  for voxels, steps in ((nifti.dataobj, nifti.header.get_zooms()),
                        (array, np.linalg.norm(header['space directions'], axis=1))):
    np.testing.assert_array_equal(np.asarray(voxels)[..., 0].T, mask)
    np.testing.assert_allclose(steps, (0.8, 0.5, 1.0), atol=1e-6)


@pytest.mark.parametrize('suffix', ('.nii.gz', '.seg.nrrd'))
@pytest.mark.parametrize('axes', AXES)
@pytest.mark.parametrize('shape', [(9, 6), (1, 6), (9, 1)])
def test_a_written_slice_is_read_as_the_image_it_was(tmp_path, axes, suffix, shape):
  path, mask = tmp_path / f'c{suffix}', numbered(shape)
  volumes.write_mask(path, mask[..., None], handoff.image_geometry(shape, SPACING, axes))
  label, spacing, geometry = volumes.read_labels(path)
  np.testing.assert_array_equal(label, mask)
  np.testing.assert_allclose(spacing, SPACING, atol=1e-6)
  assert geometry is None
  with pytest.raises(ValueError, match='2 along every axis'):
    volumes.read_volume(path)


def test_rows_of_a_slice_run_down_the_patient(tmp_path):
  sitk = pytest.importorskip('SimpleITK')
  mask = numbered((9, 6))
  upward = handoff.image_geometry((9, 6), SPACING, 'LSA')
  volumes.write_mask(tmp_path / 'c.nii.gz', mask[::-1, :, None], upward)
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


def test_a_volume_keeps_its_grid_and_its_markups_lie_on_it(tmp_path):
  mask = numbered(SHAPE, 2)
  stored = orientation.to_file(mask, VOLUME)
  points = np.array([[0.0, 0, 0], [1.5, 2, 3.25]])
  paths = handoff.write_case(tmp_path, handoff.Case(
      'v', mask, UNKNOWN, ('background', 'lamina'), geometry=VOLUME, points=points))
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
  label, spacing, geometry = volumes.read_labels(paths[0])
  np.testing.assert_array_equal(label, mask)
  np.testing.assert_allclose(spacing, orientation.spacing_of(VOLUME), atol=1e-5)
  orientation.check_same_grid('v', geometry, VOLUME)
  np.testing.assert_allclose(landmarks.read_landmarks(paths[2], VOLUME).points, points, atol=1e-5)


@pytest.mark.parametrize('spacing', [None, math.nan, (0.5, math.nan), (0.5, 0.0), (-1.0, 1.0)])
def test_an_unknown_spacing_is_refused(tmp_path, spacing):
  with pytest.raises(ValueError, match='spacing of the image is unknown'):
    handoff.write_case(tmp_path, handoff.Case('c', numbered((4, 4)), UNKNOWN, spacing=spacing))
  geometry = VOLUME._replace(spacing=np.full(3, np.nan))
  with pytest.raises(ValueError, match='volume has no spacing, so its files have no place'):
    handoff.write_case(tmp_path, handoff.Case('v', numbered(SHAPE), UNKNOWN, geometry=geometry))
  with pytest.raises(ValueError, match='no spacing'):
    markups.make_markups(FAILED, geometry)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('changes, formats, words', [
    ({'spacing': (1.0, 1.0)}, ('nifti',), 'measured at a spacing'),
    ({'classes': CLASSES[:3]}, ('seg_nrrd',), 'label 3, but there are 3 classes'),
    ({}, ('stl',), "unknown format 'stl'"),
    *[({'name': name}, ('nifti',), 'file name without folders')
      for name in ('', '../c', 'a/b', 'a\\b')],
    ({'axes': 'LIA'}, ('nifti',), 'left-handed'),
    ({'axes': 'LL'}, ('nifti',), 'three letters'),
    ({'mask': numbered((1, 4, 4))}, ('nifti',), 'needs the geometry'),
    ({'mask': numbered((0, 4))}, ('nifti',), 'a mask must be'),
    ({}, ('dicom_seg',), 'needs the DICOM file')])
def test_a_case_that_does_not_fit_is_refused_in_one_sentence(tmp_path, changes, formats, words):
  fields = {'name': 'c', 'mask': numbered((4, 4)), 'result': FAILED, 'spacing': SPACING} | changes
  with pytest.raises(ValueError, match=words):
    handoff.write_case(tmp_path, handoff.Case(**fields), formats)


def test_formats_that_cannot_be_written_are_named_and_the_others_written(tmp_path):
  case = handoff.Case('c', numbered((4, 4)), FAILED, spacing=SPACING)
  note, = handoff.write_formats(tmp_path, case, ('dicom_seg', 'nifti'))
  assert note.startswith('no dicom_seg: ') and (tmp_path / 'c_mask.nii.gz').exists()
  assert len(handoff.write_formats(tmp_path / 'absent', case, ('nifti', 'markups'))) == 2


def test_segments_have_names_colors_and_one_extent(tmp_path):
  mask = np.zeros((9, 6), np.uint8)
  mask[4, 3] = 3  # the first two classes are empty
  image, fields = segments(tmp_path / 'c.seg.nrrd', mask, CLASSES)
  assert image.GetSize() == (6, 9, 1)
  assert fields['Segmentation_MasterRepresentation'] == 'Binary labelmap'
  assert fields['Segmentation_ContainedRepresentationNames'] == 'Binary labelmap|'
  assert fields['Segmentation_ReferenceImageExtentOffset'] == '0 0 0'
  for i, name in enumerate(CLASSES[1:]):
    assert [fields[f'Segment{i}_{key}'] for key in ('Name', 'LabelValue', 'Layer')] == [
        name, str(i + 1), '0']
    # Slicer reads a layer by the extent of its first segment: an empty one would empty the layer.
    assert fields[f'Segment{i}_Extent'] == '0 5 0 8 0 0'
    rgb = np.array(fields[f'Segment{i}_Color'].split(), float) * 255
    np.testing.assert_allclose(rgb, colors.color_bytes(colors.class_color(i + 1)), atol=1e-3)
    assert '~SCT^272673000^Bone~' in fields[f'Segment{i}_Tags']
  assert len({fields[f'Segment{i}_ID'] for i in range(3)}) == 3
  assert 'Segment3_ID' not in fields


def test_class_names_cannot_break_the_header(tmp_path):
  names = ('background', 'a = b:=c', 'Brustwirbel λ é', 'one\nSegment0_Name:=two\r\n\x00', ' \n',
           'back\\n slash', '=cmd()')
  image, fields = segments(tmp_path / 'c.seg.nrrd', numbered((3, 4), 7), names, 1.0)
  assert [fields[f'Segment{i}_Name'] for i in range(6)] == [
      'a = b:=c', 'Brustwirbel λ é', 'one Segment0_Name:=two', 'class 4', 'back\\n slash',
      '=cmd()']
  assert image.GetSize() == (4, 3, 1) and 'Segment6_Name' not in fields
  with pytest.raises(UnicodeEncodeError):  # pynrrd writes ASCII, so our fields are added after it
    nrrd.write(str(tmp_path / 'x.nrrd'), numbered((3, 4)), {'Segment0_Name': names[2]})


def test_an_empty_mask_still_makes_a_segmentation(tmp_path):
  path, empty = tmp_path / 'c.seg.nrrd', np.zeros((9, 6), bool)
  assert segments(path, empty, CLASSES)[1]['Segment2_Name'] == 'lump'
  assert 'Segment0_ID' not in segments(path, empty)[1]
  assert segments(path, numbered((9, 6), 3))[1]['Segment1_Name'] == 'class 2'
