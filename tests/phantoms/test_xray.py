"""X-ray phantoms: exact truth, bright bones, closed trimaps, the same patient every time."""
import numpy as np
import pytest
from scipy import ndimage

from spinejax import phantoms
from spinejax.phantoms import LEVELS

SHAPE = (256, 128)
SPINE, BORDER = 1, 2
ARTIFACTS = ('necklace', 'rods', 'organ', 'blur')


@pytest.fixture(scope='module')
def cases():
  return [phantoms.xray((7, i), SHAPE, artifacts=()) for i in range(8)]


def corners(case):
  """[level, top/bottom, left/right, (row, column)]."""
  return case.truth.landmarks.reshape(17, 2, 2, 2)


def test_acceptance_statistics(cases):
  for case in cases:
    image, label = case.image, case.label
    assert image.shape == label.shape == case.clean.shape == SHAPE
    assert image.dtype == label.dtype == case.clean.dtype == np.uint8
    assert set(np.unique(label)) == {0, SPINE, BORDER}
    assert 0.06 <= (label == SPINE).mean() <= 0.13 and 0.02 <= (label == BORDER).mean() <= 0.06
    assert 80 <= image.mean() <= 130 and 45 <= image.std() <= 70
    assert (image == 255).mean() < 0.01


def test_the_centerline_has_the_angles_of_the_bodies(cases):
  for case in cases:
    truth = case.truth
    assert [c[:2] for c in truth.centerline_cobb] == [c[:2] for c in truth.cobb]
    np.testing.assert_allclose([c.angle for c in truth.centerline_cobb],
                               [c.angle for c in truth.cobb], atol=0.3)
    line = truth.centerline
    slopes = np.degrees(np.arctan2(*np.moveaxis(np.diff(line, axis=0)[:, ::-1], -1, 0)))
    between = (truth.centerline_tilts[1:] + truth.centerline_tilts[:-1]) / 2
    np.testing.assert_allclose(slopes, between, atol=0.5)


def test_landmarks_are_the_corners_of_the_bodies_in_order(cases):
  for case in cases:
    points, truth = corners(case), case.truth
    assert truth.landmarks.shape == (68, 2)
    assert (points[:, 0, :, 0] < points[:, 1, :, 0]).all()  # top above bottom
    assert (points[:, :, 0, 1] < points[:, :, 1, 1]).all()  # left before right
    assert (points[1:, 0, :, 0] > points[:-1, 1, :, 0] - 1).all()  # level after level
    assert (points >= 0).all() and (points <= np.array(SHAPE) - 1).all()
    np.testing.assert_allclose(points.mean((1, 2)), truth.vertebrae, atol=1e-9)
    dy, dx = np.moveaxis(points[:, :, 1] - points[:, :, 0], -1, 0)
    lines = -np.degrees(np.arctan2(dy, dx))
    np.testing.assert_allclose(lines, np.stack([truth.tilts] * 2, 1), atol=1e-6)


def test_real_proportions(cases):
  for case in cases:
    spacing = np.array(case.truth.spacing)
    points = corners(case) * spacing
    wide = np.linalg.norm(points[:, 0, 1] - points[:, 0, 0], axis=-1)
    tall = np.linalg.norm(points[:, 1, 0] - points[:, 0, 0], axis=-1)
    assert 15 < wide[:9].min() and 32 < wide[15] < 55 and 10 < tall[0] < 20 and 20 < tall[15] < 32
    assert (wide[12:] > 1.2 * tall[12:]).all()
    line = case.truth.centerline * spacing
    assert 380 < np.linalg.norm(np.diff(line, axis=0), axis=-1).sum() < 470


def test_trimap_is_a_closed_band_around_bodies_and_discs(cases):
  for case in cases:
    label, truth = case.label, case.truth
    core, parts = label == SPINE, ndimage.label(label == SPINE, np.ones((3, 3)))[1]
    assert parts == 1 and ndimage.label(label > 0)[1] == 1
    assert not (ndimage.binary_dilation(core, np.ones((3, 3))) & (label == 0)).any()
    line = np.rint(truth.centerline[6:-6]).astype(int)
    assert (label[tuple(line.T)] == SPINE).all()
    inner = truth.vertebrae[:, None] + 0.4 * (truth.landmarks.reshape(17, 4, 2)
                                                - truth.vertebrae[:, None])
    assert (label[tuple(np.rint(inner.reshape(-1, 2)).astype(int).T)] == SPINE).all()
    at = label[tuple(np.rint(truth.landmarks).astype(int).T)]
    assert (at == BORDER).mean() > 0.9
    rows = core.any(1).nonzero()[0]
    top, bottom = truth.landmarks[[0, 1], 0].min(), truth.landmarks[[-2, -1], 0].max()
    assert abs(rows[0] - top) < 5 and abs(rows[-1] - bottom) < 5


@pytest.mark.parametrize('shape, width', [((1200, 300), 8.4), ((512, 128), 3.6), ((160, 40), 2)])
def test_border_is_three_of_160_columns_but_two_pixels_at_least(shape, width):
  case = phantoms.xray(4, shape, family='normal')
  cos = np.cos(np.radians(case.truth.tilts))
  rows = np.rint(case.truth.vertebrae[:, 0]).astype(int)
  across = (case.label[rows] == BORDER).sum(1) / 2 * cos
  assert np.mean(across[1:-1]) == pytest.approx(width, rel=0.16)


def test_bones_are_brighter_than_what_lies_beside_them(cases):
  for case in cases:
    image, points = case.clean.astype(float), corners(case)
    middle, across = points.mean((1, 2)), (points[:, :, 1] - points[:, :, 0]).mean(1)
    at = lambda p: ndimage.map_coordinates(image, p.reshape(-1, 2).T, order=1, mode='nearest')
    beside = (at(middle - 0.95 * across) + at(middle + 0.95 * across)) / 2
    assert (at(middle) > beside).mean() > 0.7 and (at(middle) - beside).mean() > 15
    disc = (middle[1:] + middle[:-1]) / 2
    bodies = (at(middle[1:]) + at(middle[:-1])) / 2
    assert (bodies > at(disc))[8:].mean() > 0.85


def test_lungs_are_dark_and_the_heart_is_on_the_left(cases):
  left, right, belly = [], [], []
  for case in cases:
    middle = case.truth.vertebrae
    level = lambda i, x: case.clean[int(middle[i, 0]), int(SHAPE[1] / 2 + x)]
    left.append(level(7, -28))
    right.append(level(7, 28))
    belly.append(level(13, 32))
  assert np.mean(right) < np.mean(left) - 15 and np.mean(right) < np.mean(belly) - 40


def test_a_wider_picture_shows_more_of_the_same(cases):
  wide = phantoms.xray((7, 0), (256, 256), artifacts=())
  np.testing.assert_array_equal(wide.label[:, 64:-64], cases[0].label)
  assert not wide.label[:, :64].any() and wide.truth.spacing == (1.875, 1.875)
  np.testing.assert_allclose(wide.truth.vertebrae - [0, 64], cases[0].truth.vertebrae)
  assert wide.clean[20:200, :20].mean() < 25  # the air beside the patient


def test_rotation_takes_the_spinous_processes_to_the_concave_side(cases):
  for case in cases:
    rotation = case.truth.rotation
    assert np.abs(rotation).max() < 0.6
    for curve in case.truth.cobb:
      if abs(curve.angle) > 25:
        assert np.sign(rotation[LEVELS.index(curve.apex)]) == -np.sign(curve.angle)


def test_difficulty_zero_is_clean_and_more_is_noisier():
  noise = []
  for difficulty in (0, 1, 2):
    case = phantoms.xray(5, (600, 150), difficulty, artifacts=())
    residue = case.image.astype(float) - ndimage.gaussian_filter(case.image.astype(float), 1)
    clean = case.clean.astype(float) - ndimage.gaussian_filter(case.clean.astype(float), 1)
    noise.append((residue - clean).std())
  np.testing.assert_array_equal(noise[0], 0)
  assert noise[1] > 1 and noise[2] > 1.5 * noise[1]


def test_artifacts_come_with_their_probability_and_stay():
  drawn = [[phantoms.xray((9, i), (64, 16), d).truth.artifacts for i in range(n)]
           for d, n in ((0.0, 2), (1.0, 16), (4.0, 16))]
  share = lambda cases, name: np.mean([case[name] for case in cases])
  for name in ARTIFACTS:
    assert share(drawn[0], name) == 0
    assert 0.02 <= share(drawn[1], name) <= 0.3 and share(drawn[2], name) > share(drawn[1], name)
    assert all(hard[name] for hard, case in zip(drawn[2], drawn[1]) if case[name])


@pytest.mark.parametrize('name', ARTIFACTS)
def test_each_artifact_shows(name, cases):
  case, plain = phantoms.xray((7, 1), SHAPE, artifacts=[name]), cases[1]
  assert case.truth.artifacts == {n: n == name for n in ARTIFACTS}
  for key in ('clean', 'label'):
    np.testing.assert_array_equal(getattr(case, key), getattr(plain, key))
  image, other = case.image.astype(float), plain.image.astype(float)
  changed = np.abs(image - other) > 25
  if name == 'blur':
    detail = lambda a: (a - ndimage.gaussian_filter(a, 2))[40:-40, 30:-30].std()
    assert detail(image) < 0.7 * detail(other) and image[case.label > 0].std() < 40
  else:
    assert 0.002 < changed.mean() < 0.2
  if name == 'rods':
    assert (image >= 250)[case.label > 0].mean() > 0.05
  if name == 'necklace':
    rows = changed.nonzero()[0]
    assert np.percentile(rows, 90) < SHAPE[0] / 2
  if name == 'organ':
    assert (changed & (case.label > 0)).any()
