"""Files of volumes: axes, places in space, masks on the grid of their image, hostile files."""
import contextlib
import gzip
import sys
import tracemalloc
import zlib

import nibabel
import nrrd
import numpy as np
import pytest

from spinejax.readers import orientation, volumes
from tests.readers.folders import sentence

SHAPE = (5, 6, 7)  # along the axes (i, j, k) of the file
SPACING = (0.5, 1.25, 2.0)
ORIGIN = (-12.5, 30.0, 4.25)
OBLIQUE = np.linalg.qr(np.array([[1, 0.3, -0.2], [-0.2, 1, 0.3], [0.1, -0.3, 1]]))[0]
DIRECTIONS = {
    'LPS': np.eye(3), 'RAS': np.diag([-1.0, -1, 1]), 'ILA': orientation.AXES.T,
    'PSR': orientation.directions('PSR'), 'ARI': orientation.directions('ARI'), 'oblique': OBLIQUE,
    'oblique and permuted': OBLIQUE[:, [2, 0, 1]] * [-1, 1, -1]}
META_HEADER = b'ObjectType = Image\nNDims = 3\nDimSize = 5 6 7\nElementType = MET_USHORT\n'
NRRD_HEADER = b'NRRD0004\ntype: ushort\ndimension: 3\nsizes: 5 6 7\nendian: little\n'
SUFFIXES = ('.nii', '.nii.gz', '.nrrd', '.mha', '.npz')


def numbered(shape=SHAPE):
  """An array (i, j, k) in which every voxel has another value."""
  return np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)


def write(path, array, spacing=SPACING, origin=ORIGIN, direction=np.eye(3), key='image'):
  """Writes an array (i, j, k), by SimpleITK but for NPZ."""
  if path.name.endswith('.npz'):
    np.savez(path, spacing=np.array(spacing), origin=np.array(origin), direction=direction,
             **{key: array})
    return path
  sitk = pytest.importorskip('SimpleITK')
  image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
  image.SetSpacing(spacing)
  image.SetOrigin(origin)
  image.SetDirection(np.ravel(direction))
  sitk.WriteImage(image, str(path))
  return path


def places(volume):
  """LPS position of every voxel by its value in `numbered`, float64 [N,3]."""
  points = np.stack(np.indices(volume.array.shape), -1).reshape(-1, 3)
  order = np.argsort(volume.array.reshape(-1))
  return orientation.to_physical(points, volume.geometry)[order]


@pytest.mark.parametrize('suffix', SUFFIXES)
@pytest.mark.parametrize('name', DIRECTIONS)
def test_every_voxel_keeps_its_place(tmp_path, suffix, name):
  direction = DIRECTIONS[name]
  volume = volumes.read_volume(write(tmp_path / f'v{suffix}', numbered(), direction=direction))
  index = np.stack(np.indices(SHAPE), -1).reshape(-1, 3)
  expected = ORIGIN + (index * SPACING) @ direction.T
  np.testing.assert_allclose(places(volume), expected, atol=1e-4)  # NIfTI has 32 bits
  # Our axes lie within 45 degrees of inferior, left and anterior, and carry their own spacing.
  steps = orientation.to_physical(np.eye(3), volume.geometry) - orientation.to_physical(
      np.zeros(3), volume.geometry)
  assert (np.diag(steps @ orientation.AXES.T) > 0.7 * volume.spacing).all()
  np.testing.assert_allclose(np.linalg.norm(steps, axis=-1), volume.spacing, rtol=1e-5)
  assert volume.array.dtype == volume.spacing.dtype == np.float32
  assert sorted(volume.array.shape) == sorted(SHAPE)


@pytest.mark.parametrize('suffix', SUFFIXES)
@pytest.mark.parametrize('name', ['LPS', 'PSR', 'oblique and permuted'])
def test_a_mask_goes_back_onto_the_grid_of_its_file(tmp_path, suffix, name):
  path = write(tmp_path / f'v{suffix}', numbered(), direction=DIRECTIONS[name])
  volume = volumes.read_volume(path)
  chosen = volume.array % 7 == 3
  volumes.write_mask(tmp_path / f'm{suffix}', chosen, volume.geometry)
  np.testing.assert_array_equal(
      volumes.read_mask(tmp_path / f'm{suffix}', volume.geometry), chosen)
  if suffix == '.npz':
    with np.load(tmp_path / 'm.npz') as mask, np.load(path) as image:
      np.testing.assert_array_equal(mask['label'], image['image'] % 7 == 3)
      assert all((mask[key] == image[key]).all() for key in ('spacing', 'origin', 'direction'))
  else:
    sitk = pytest.importorskip('SimpleITK')
    mask, image = (sitk.ReadImage(str(tmp_path / f'{name}{suffix}')) for name in 'mv')
    check_same_place(mask, image, 1e-14)  # NRRD multiplies two
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(image) % 7 == 3)


def check_same_place(mask, image, atol=0.0):
  for get in ('GetSize', 'GetSpacing', 'GetOrigin', 'GetDirection'):
    np.testing.assert_allclose(getattr(mask, get)(), getattr(image, get)(), rtol=0, atol=atol)


@pytest.mark.parametrize('space, sign', [
    ('left-posterior-superior', (1, 1, 1)), ('right-anterior-superior', (-1, -1, 1))])
def test_places_equal_pynrrd(tmp_path, space, sign):
  rows = OBLIQUE.T[[2, 1, 0]] * np.array(SPACING)[:, None]
  nrrd.write(str(tmp_path / 'v.nrrd'), numbered(), {
      'space': space, 'space directions': rows, 'space origin': np.array(ORIGIN)})
  volume = volumes.read_volume(tmp_path / 'v.nrrd')
  index = np.stack(np.indices(SHAPE), -1).reshape(-1, 3)
  np.testing.assert_allclose(places(volume), (ORIGIN + index @ rows) * sign, atol=1e-9)


def test_hand_computed_axes():
  """A file in LPS: i = left, j = posterior, k = superior."""
  geometry = orientation.Geometry(
      (5, 6, 7), *orientation.orient(np.eye(3)), np.array(SPACING), np.array(ORIGIN), np.eye(3))
  assert geometry.order == (2, 0, 1) and geometry.flips == (True, False, True)
  assert orientation.shape_of(geometry) == (7, 5, 6)
  array = orientation.to_array(numbered(), geometry)
  assert array[0, 1, 2] == numbered()[1, 3, 6] and array[6, 4, 0] == numbered()[4, 5, 0]
  np.testing.assert_array_equal(orientation.to_file(array, geometry), numbered())
  np.testing.assert_array_equal(orientation.to_index([0, 1, 2], geometry), [1, 3, 6])
  np.testing.assert_array_equal(orientation.from_index([1, 3, 6], geometry), [0, 1, 2])
  np.testing.assert_allclose(orientation.to_physical([0, 1, 2], geometry), [-12, 33.75, 16.25])
  np.testing.assert_allclose(orientation.to_voxels([-12, 33.75, 16.25], geometry), [0, 1, 2])


def test_axes_of_a_tracker_turn_the_array_and_keep_the_geometry(tmp_path):
  path = write(tmp_path / 'v.npz', numbered(), direction=np.eye(3))
  volume = volumes.read_volume(path, 'RIA')  # i = right, j = inferior, k = anterior
  np.testing.assert_array_equal(volume.array, numbered().transpose(1, 0, 2)[:, ::-1])
  np.testing.assert_array_equal(volume.spacing, np.float32([1.25, 0.5, 2.0]))
  np.testing.assert_allclose(places(volume)[-1], np.array(ORIGIN) + np.array(SPACING) * (4, 5, 6))
  np.savez(tmp_path / 'm.npz', label=volume.array > 9)  # in our axes, as nothing else is said
  np.testing.assert_array_equal(
      volumes.read_mask(tmp_path / 'm.npz', volume.geometry), volume.array > 9)
  for axes in ('RA', 'RAA', 'XYZ', 'RLS'):
    assert 'three letters, one of L or R' in sentence(orientation.directions, axes)


@pytest.mark.parametrize('suffix', ['.nrrd', '.mha', '.npz'])
def test_unknown_spacing_stays_unknown(tmp_path, suffix):
  if suffix == '.npz':
    np.savez(tmp_path / 'v.npz', image=numbered())
  else:
    header = {'.nrrd': NRRD_HEADER + b'encoding: raw\n\n',
              '.mha': META_HEADER + b'ElementDataFile = LOCAL\n'}
    pytest.importorskip('SimpleITK')
    (tmp_path / f'v{suffix}').write_bytes(header[suffix] + numbered().T.tobytes())
  volume = volumes.read_volume(tmp_path / f'v{suffix}')
  assert np.isnan(volume.spacing).all() and not orientation.has_spacing(volume.geometry)
  with pytest.raises(ValueError, match='has no spacing, so there are no positions in mm'):
    orientation.to_physical([0, 0, 0], volume.geometry)
  volumes.write_mask(tmp_path / f'm{suffix}', volume.array > 50, volume.geometry)
  np.testing.assert_array_equal(
      volumes.read_mask(tmp_path / f'm{suffix}', volume.geometry), volume.array > 50)


def test_npz_brings_label_and_landmarks_into_our_axes(tmp_path):
  label = np.zeros(SHAPE, np.uint8)
  label[1, 3, 6] = 2
  np.savez(tmp_path / 'v.npz', image=numbered(), direction=np.eye(3), label=label,
           landmarks=np.array([[1, 3, 6], [0.5, 0, 0]]), region=np.array([1, -1]))
  volume = volumes.read_volume(tmp_path / 'v.npz')
  assert np.argwhere(volume.label).tolist() == [[0, 1, 2]] and volume.label.max() == 2
  np.testing.assert_array_equal(volume.landmarks, [[0, 1, 2], [6, 0.5, 5]])
  assert volume.region.tolist() == [1, -1] and volume.region.dtype == np.int8


def test_masks_stored_with_other_axes_are_turned(tmp_path):
  volume = volumes.read_volume(write(tmp_path / 'v.npz', numbered(), direction=OBLIQUE))
  turned = numbered()[::-1].transpose(2, 0, 1) % 3
  corner = np.array(ORIGIN) + OBLIQUE[:, 0] * SPACING[0] * 4
  write(tmp_path / 'm.npz', turned, np.array(SPACING)[[2, 0, 1]], corner,
        (OBLIQUE * [-1, 1, 1])[:, [2, 0, 1]], key='label')
  np.testing.assert_array_equal(
      volumes.read_mask(tmp_path / 'm.npz', volume.geometry), volume.array % 3)


@pytest.mark.parametrize('fields, words', [
    (dict(array=np.ones((5, 6, 6), np.uint8)), '(inferior, left, anterior), but its image (7, 5'),
    (dict(direction=np.diag([-1.0, 1, 1])), 'lies up to 2 mm away from its image'),
    (dict(origin=(-12.5, 30, 5)), 'lies up to 0.75 mm away'),
    (dict(spacing=(0.5, 1.25, 1)), 'lies up to 6 mm away'),
    (dict(array=numbered() + 200), 'the mask has the values 256, 257, 258, 259, 260 and more'),
    (dict(array=np.full(SHAPE, 0.5)), 'has the values 0.5, but labels are whole numbers'),
    (dict(array=np.full(SHAPE, np.nan)), 'has the values nan'),
    (dict(key='image'), "expected an array 'label' in the file; found")])
def test_masks_of_another_grid_or_kind_are_refused(tmp_path, fields, words):
  volume = volumes.read_volume(write(tmp_path / 'v.npz', numbered()))
  write(tmp_path / 'm.npz', **{'array': np.ones(SHAPE, np.uint8), 'key': 'label', **fields})
  assert words in sentence(volumes.read_mask, tmp_path / 'm.npz', volume.geometry)


@pytest.mark.parametrize('mask, name, words', [
    (np.zeros((7, 5, 5), bool), 'm.npz', 'has the shape (7, 5, 5), but its volume (7, 5, 6)'),
    (np.zeros((7, 5, 6)), 'm.npz', 'whole numbers from 0 to 65535, not float64'),
    (np.full((7, 5, 6), -1), 'm.npz', 'not int64 from -1'),
    (np.zeros((7, 5, 6), bool), 'm.png', 'a mask is written as .nii.gz'),
    (np.zeros((7, 5, 6), bool), 'absent/m.npz', 'cannot be written there')])
def test_masks_that_cannot_be_written(tmp_path, mask, name, words):
  volume = volumes.read_volume(write(tmp_path / 'v.npz', numbered()))
  assert words in sentence(volumes.write_mask, tmp_path / name, mask, volume.geometry)


@pytest.mark.parametrize('array, words', [
    (np.where(numbered() == 3, np.nan, 1.0), '1 of the 210 voxels are not finite'),
    (np.where(numbered() == 3, 1e300, 1.0), '1 of the 210 voxels are not finite'),
    (np.ones(SHAPE), 'every voxel is 1; a constant volume'),
    (np.ones((2, *SHAPE)), 'of 3 axes, but the file has 4 axes'),
    (np.ones((5, 6)), 'the file has 2 axes'), (np.ones((5, 6, 1)), 'needs 2 along every axis'),
    (np.ones(SHAPE, complex), 'the file has complex128 values'),
    (dict(spacing=np.zeros(3)), 'it must be positive along every axis'),
    (dict(spacing=np.ones(2)), 'spacing must be numbers of shape (3,)'),
    (dict(direction=np.ones((3, 3))), 'direction three independent unit columns'),
    (dict(origin=np.full(3, np.inf)), 'origin must be finite'),
    (dict(label=np.zeros((5, 6, 6))), 'label has the shape (5, 6, 6), but image'),
    (dict(landmarks=np.ones(3)), 'finite voxel coordinates [P,3]'),
    (dict(landmarks=np.full((1, 3), 9)), 'lie outside of the image of (5, 6, 7) voxels'),
    (dict(landmarks=np.ones((2, 3)), region=np.zeros(1)), 'region must hold 0'),
    (dict(region=np.zeros(0)), 'region must hold 0')])
def test_unusable_arrays(tmp_path, array, words):
  arrays = dict(image=numbered()) | array if isinstance(array, dict) else dict(image=array)
  np.savez(tmp_path / 'v.npz', **arrays)
  assert words in sentence(volumes.read_volume, tmp_path / 'v.npz')


@pytest.mark.parametrize('name', [f'{kind}{suffix}' for suffix in SUFFIXES for kind in
                                  ('plain', 'compressed') if (kind, suffix) != ('compressed',
                                                                               '.nii')])
def test_truncated_files(tmp_path, name):
  array = np.random.default_rng(0).integers(0, 999, (9, 10, 11)).astype(np.int16)
  path = tmp_path / name
  if name.endswith('.npz'):
    (np.savez if 'plain' in name else np.savez_compressed)(path, image=array)
  else:
    sitk = pytest.importorskip('SimpleITK')
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path), 'compressed' in name)
  content = path.read_bytes()
  assert volumes.read_volume(path).array.size == array.size

  def refused(content):
    path.write_bytes(content)
    message = sentence(volumes.read_volume, path)
    assert str(path) in message
    return message

  for end in (10, 100, len(content) // 2, len(content) - 9):
    message = refused(content[:end])
    assert 'the file is truncated or corrupt' in message or 'header' in message
  assert 'the file is empty' in refused(b'')
  assert 'truncated or corrupt, or it is not' in refused(b'\x89PNG' + bytes(1000))


@pytest.mark.parametrize('suffix', ['.nii.gz', '.nrrd', '.mha'])
@pytest.mark.parametrize('shape, is_color', [((2, 7, 6, 5), False), ((7, 6, 5, 3), True)])
def test_files_of_other_than_three_axes(tmp_path, suffix, shape, is_color):
  sitk, path = pytest.importorskip('SimpleITK'), tmp_path / f'v{suffix}'
  sitk.WriteImage(sitk.GetImageFromArray(np.ones(shape, np.float32), isVector=is_color), str(path))
  assert 'of 3 axes, but the file has' in sentence(volumes.read_volume, path)


META = b'NDims = 3\nDimSize = 5 6 7\nElementDataFile = LOCAL\n' + numbered().T.tobytes()


@pytest.mark.parametrize('suffix, extra, words', [
    ('.mha', b'ElementSpacing = 1 0 1\n' + META, 'it must be positive'),
    ('.mha', b'ElementSpacing = 1 x 1\n' + META, 'truncated or corrupt'),
    ('.mha', b'NDims = 93\n' + META, 'the file has 93 axes'),
    ('.mha', b'DimSize = 500 6 7\n' + META, 'truncated or corrupt'),
    ('.mha', b'ElementDataFile = other.raw\n', 'expected the voxels in the file itself'),
    ('.mha', b'Seq_Frame0000_Status = OK\nSeq_Frame0001_Status = OK\n' + META,
     'a tracked sweep of 2'),
    ('.nrrd', b'encoding: raw\nspacings: 1 -1 0\n\n' + numbered().T.tobytes(),
     'it must be positive')])
def test_headers_that_are_refused(tmp_path, suffix, extra, words):
  header = {'.mha': b'ObjectType = Image\nElementType = MET_USHORT\n', '.nrrd': NRRD_HEADER}
  (tmp_path / f'v{suffix}').write_bytes(header[suffix] + extra)
  assert words in sentence(volumes.read_volume, tmp_path / f'v{suffix}')


def test_paths_that_hold_no_volume(tmp_path, monkeypatch):
  (tmp_path / 'v.npz').mkdir()
  (tmp_path / 'v.tif').write_bytes(b'x')
  (tmp_path / 'v.mha').write_bytes(META_HEADER + b'ElementDataFile = LOCAL\n'
                                   + numbered().T.tobytes())
  monkeypatch.setitem(sys.modules, 'SimpleITK', None)
  assert volumes.is_volume('a/b.v.NII.GZ') and not volumes.is_volume('nii.gz.txt')
  for name, words in (('absent.npz', 'there is no such file'),
                      ('v.npz', 'expected a file, but this is a folder'),
                      ('v.tif', 'a volume is a file .nii.gz'),
                      ('v.mha', 'need SimpleITK; run `pip install spinejax[medical]`')):
    assert words in sentence(volumes.read_volume, tmp_path / name)


def nifti_bytes(sform=None, qform=None, codes=(1, 1), units='mm'):
  header = nibabel.Nifti1Image(numbered().astype(np.int16), np.diag([*SPACING, 1])).header
  header.set_qform(np.diag([*SPACING, 1]) if qform is None else qform, codes[1])
  header.set_sform(np.diag([*SPACING, 1]) if sform is None else sform, codes[0])
  header.set_xyzt_units(units)
  header['vox_offset'] = 352
  return (bytes(header.binaryblock)[:344] + b'n+1\0' + bytes(4)
          + numbered().astype(np.int16).tobytes(order='F'))


def test_nibabel_takes_a_wrong_checksum_for_good(tmp_path):
  array = np.random.default_rng(0).integers(0, 99, (20, 20, 20)).astype(np.int16)
  nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / 'v.nii.gz')
  content = bytearray((tmp_path / 'v.nii.gz').read_bytes())
  content[-6] ^= 1
  (tmp_path / 'v.nii.gz').write_bytes(content)
  np.testing.assert_array_equal(nibabel.load(tmp_path / 'v.nii.gz').dataobj, array)
  with pytest.raises(ValueError, match='truncated or corrupt'):
    volumes.read_volume(tmp_path / 'v.nii.gz')


def test_nibabel_ignores_units_and_shear(tmp_path):
  (tmp_path / 'v.nii').write_bytes(nifti_bytes(units='meter'))
  assert nibabel.load(tmp_path / 'v.nii').header.get_zooms() == SPACING
  found = sorted(volumes.read_volume(tmp_path / 'v.nii').spacing)
  np.testing.assert_allclose(found, np.multiply(SPACING, 1000))
  sheared = np.diag([*SPACING, 1])
  sheared[0, 1] = 0.5
  (tmp_path / 'v.nii').write_bytes(nifti_bytes(sform=sheared, codes=(1, 0)))
  assert nibabel.load(tmp_path / 'v.nii').affine[0, 1] == 0.5
  with pytest.raises(ValueError, match='not at right angles'):
    volumes.read_volume(tmp_path / 'v.nii')


@pytest.mark.parametrize('codes, is_sform', [((1, 1), True), ((2, 1), False), ((2, 0), True),
                                             ((0, 1), False)])
def test_transforms_that_differ_are_taken_as_itk_does(tmp_path, codes, is_sform):
  sitk = pytest.importorskip('SimpleITK')
  qform = np.eye(4)
  qform[:3, :3] = OBLIQUE * np.linalg.det(OBLIQUE) * SPACING
  (tmp_path / 'v.nii').write_bytes(nifti_bytes(qform=qform, codes=codes))
  geometry = volumes.read_volume(tmp_path / 'v.nii').geometry
  assert np.allclose(geometry.direction, np.diag([-1, -1, 1])) == is_sform
  image = sitk.ReadImage(str(tmp_path / 'v.nii'))
  np.testing.assert_allclose(geometry.direction.reshape(-1), image.GetDirection(), atol=1e-6)


@pytest.mark.parametrize('suffix', ['.nii.gz', '.nrrd'])
def test_nibabel_and_pynrrd_unpack_more_than_is_declared(tmp_path, suffix):
  surplus = bytes(64 << 20)
  if suffix == '.nrrd':
    content = NRRD_HEADER + b'encoding: gzip\n\n' + gzip.compress(numbered().T.tobytes() + surplus)
  else:
    content = gzip.compress(nifti_bytes() + surplus)
  (tmp_path / f'v{suffix}').write_bytes(content)
  volumes.read_volume(tmp_path / f'v{suffix}') if suffix == '.nii.gz' else None  # imports
  tracemalloc.start()
  try:
    with contextlib.suppress(ValueError):
      volumes.read_volume(tmp_path / f'v{suffix}')
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
  finally:
    tracemalloc.stop()


def test_pynrrd_opens_other_files(tmp_path):
  (tmp_path / 'secret.raw').write_bytes(numbered().T.tobytes())
  (tmp_path / 'v.nrrd').write_bytes(NRRD_HEADER + b'encoding: raw\ndata file: secret.raw\n\n')
  np.testing.assert_array_equal(nrrd.read(str(tmp_path / 'v.nrrd'))[0], numbered())
  with pytest.raises(ValueError, match='expected the voxels in the file itself'):
    volumes.read_volume(tmp_path / 'v.nrrd')


def test_itk_invents_voxels_and_spacing(tmp_path):
  sitk = pytest.importorskip('SimpleITK')
  header = META_HEADER + b'CompressedData = True\nElementDataFile = LOCAL\n'
  (tmp_path / 'v.mha').write_bytes(header + zlib.compress(numbered().T.tobytes() + bytes(100)))
  image = sitk.ReadImage(str(tmp_path / 'v.mha'))
  assert image.GetSpacing() == (1, 1, 1)
  with pytest.raises(ValueError, match='truncated or corrupt'):
    volumes.read_volume(tmp_path / 'v.mha')


@pytest.mark.parametrize('axes', ['', 'RIA'])
def test_the_real_volume_and_a_mask_of_it(tmp_path, shared, axes):
  sitk = pytest.importorskip('SimpleITK')
  path = shared / 'data/plus_spine_phantom_us/SpinePhantomFreehandReconstructed.mha'
  volume, image = volumes.read_volume(path, axes), sitk.ReadImage(str(path))
  assert image.GetSize() == (147, 106, 104)
  assert volume.array.shape == ((106, 147, 104) if axes else (104, 147, 106))
  np.testing.assert_array_equal(volume.spacing, np.float32([0.5, 0.5, 0.5]))
  for voxel in ((3, 40, 50), (60, 2, 99)):
    index = [int(n) for n in orientation.to_index(voxel, volume.geometry)]
    assert volume.array[voxel] == image[index]
    np.testing.assert_allclose(orientation.to_physical(voxel, volume.geometry),
                               image.TransformIndexToPhysicalPoint(index), atol=1e-9)
  volumes.write_mask(tmp_path / 'm.mha', volume.array > 128, volume.geometry)
  mask = sitk.ReadImage(str(tmp_path / 'm.mha'))
  check_same_place(mask, image)
  np.testing.assert_array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(image) > 128)
  with pytest.raises(ValueError, match='a tracked sweep of 21 frames'):
    volumes.read_volume(path.parent / 'SpinePhantomFreehand.igs.mha')
