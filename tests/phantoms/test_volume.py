"""Volume phantoms: exact truth, bright laminae over shadows, and the same patient every time."""
import numpy as np
import pytest
from scipy import ndimage

from spinejax import phantoms
from spinejax.phantoms import LEVELS

FULL, HALF, QUARTER = (384, 96, 48), (192, 48, 24), (96, 24, 12)
TOUCHING = np.ones((3, 3, 3))


@pytest.fixture(scope='module')
def full():
  return [phantoms.volume((7, i)) for i in range(2)]


@pytest.fixture(scope='module')
def halves():
  return [phantoms.volume((7, i), HALF) for i in range(8)]


@pytest.fixture(scope='module')
def quarters():
  return [phantoms.volume((7, i), QUARTER) for i in range(60)]


def below_skin(case):
  """The voxels from 3.8 mm on, and the number of those above."""
  first = int(np.ceil(3.8 / case.truth.spacing[2]))
  return case.image[:, :, first:].astype(np.float32), first


def smoothed_at(case, points, sigma=1.5):
  """Gray level below the skin at points [n,3], averaged by a Gaussian of sigma mm."""
  image, first = below_skin(case)
  image = ndimage.gaussian_filter(image, sigma / case.truth.spacing)
  return ndimage.map_coordinates(image, np.transpose(points - [0, 0, first]), order=1,
                                 mode='nearest')


def millimeters(case):
  return (case.landmarks + 0.5) * case.truth.spacing


def test_arrays(full):
  for case in full:
    assert case.image.shape == case.label.shape == FULL
    assert case.image.dtype == case.label.dtype == np.uint8
    assert case.landmarks.shape == (34, 3) and case.landmarks.dtype == np.float32
    for key in ('region', 'side', 'level'):
      assert getattr(case, key).shape == (34,) and getattr(case, key).dtype == np.int8
    assert case.visible.dtype == bool
    np.testing.assert_array_equal(case.level, np.repeat(np.arange(17), 2))
    np.testing.assert_array_equal(case.region, np.repeat([0, 1], [24, 10]))
    np.testing.assert_array_equal(case.side, np.tile([-1, 1], 17))
    pairs = case.landmarks.reshape(17, 2, 3)
    assert (pairs[:, 0, 1] + 8 < pairs[:, 1, 1]).all()
    assert (np.diff(pairs[:, :, 0], axis=0) > 10).all()
    image, _ = below_skin(case)
    assert 45 < image.mean() < 75 and 30 < image.std() < 48


def test_labels_are_34_separate_cubes_about_the_landmarks(full, halves, quarters):
  coarse = [phantoms.volume(i, (72, 24, 12)) for i in range(10)]
  for case in full + halves + quarters + coarse:
    parts, count = ndimage.label(case.label, TOUCHING)
    assert count == 34 and set(np.unique(case.label)) == {0, 1}
    for window in ndimage.find_objects(parts):
      for s, size in zip(window, case.label.shape):
        assert s.stop - s.start == 3 or (s.stop - s.start == 2 and (s.start == 0 or s.stop == size))
  merged = phantoms.volume(0, (48, 16, 8))  # the grid is too coarse to move cubes apart
  assert ndimage.label(merged.label, TOUCHING)[1] < 34
  for case in [*full, *halves, *quarters, merged]:
    assert case.label[tuple(np.rint(case.landmarks).astype(int).T)].all()
  for case in full:
    parts, _ = ndimage.label(case.label)
    assert case.label.sum() == 34 * 27
    centers = np.array(ndimage.center_of_mass(parts, parts, np.arange(1, 35)))
    np.testing.assert_allclose(sorted(map(tuple, centers)), sorted(map(tuple, case.annotated)))
    assert np.abs(case.annotated - case.landmarks).max() <= 2.5
    nearest = np.abs(centers[:, None] - case.landmarks).max(-1)
    assert (nearest.min(1) <= 1.5).all() and sorted(nearest.argmin(1)) == list(range(34))


def test_the_spine_follows_its_tilts_and_bends_to_the_right(quarters):
  deviations, right, lamina = [], [], []
  for case in quarters:
    truth = case.truth
    vertebrae = (truth.vertebrae + 0.5) * truth.spacing
    path = np.polynomial.Polynomial.fit(vertebrae[:, 0], vertebrae[:, 1], 9)
    slopes = np.degrees(np.arctan(path.deriv()(vertebrae[:, 0])))
    deviations.append(np.abs(slopes - truth.tilts)[1:-1].mean())
    if truth.family in ('main_thoracic', 'double_major'):
      main = int(np.abs(truth.requested).argmax())
      if LEVELS.index(truth.ends[main + 1]) < 14:
        right.append(truth.requested[main] < 0)
    down, left, _ = np.moveaxis(np.diff(millimeters(case).reshape(17, 2, 3), axis=1)[:, 0], -1, 0)
    lines = -np.degrees(np.arctan(down / left))
    np.testing.assert_allclose(lines, truth.lines, atol=1e-3)
    assert phantoms.curve_angles(truth.lines) == truth.center_of_lamina
    lamina.append(lines - truth.tilts)
  assert np.mean(deviations) < 2
  assert len(right) > 15 and 0.6 < np.mean(right) < 0.97
  assert abs(np.mean(lamina)) < 0.2 and 1.2 < np.std(lamina) < 2.0


def test_rotation_turns_the_convex_side_towards_the_skin(quarters):
  fractions = []
  for case in quarters:
    truth = case.truth
    rotation, pairs = truth.rotation, millimeters(case).reshape(17, 2, 3)
    across = np.linalg.norm(pairs[:, 1] - pairs[:, 0], axis=1)
    np.testing.assert_allclose(pairs[:, 0, 2] - pairs[:, 1, 2],
                               across * np.sin(np.radians(rotation)), atol=2.0)
    fractions.append(np.abs(rotation).max() / np.ptp(truth.tilts))
    assert np.abs(rotation).max() <= 30
    for curve in truth.cobb:
      if abs(curve.angle) > 25:
        apex = rotation[LEVELS.index(curve.apex)]
        assert np.sign(apex) == np.sign(curve.angle)
  assert 0.2 < min(fractions) and max(fractions) <= 0.45 and 0.3 < np.mean(fractions) < 0.4


def test_a_lamina_is_bright_and_its_shadow_dark(full, halves):
  brighter = []
  for case in full + halves:
    step, seen = 1 / case.truth.spacing, case.visible
    points = case.landmarks
    lamina = smoothed_at(case, points)
    above = smoothed_at(case, points - [0, 0, 5 * step[2]])
    shadow = smoothed_at(case, points + [0, 0, 7 * step[2]])
    thoracic = seen & (case.region == 0)
    clear = points[:, 2] + 0.5 > 9 * step[2]  # there is muscle between it and the skin
    brighter.append((lamina - above)[thoracic & clear])
    assert (lamina > above)[seen & clear].mean() > 0.9
    assert (lamina > shadow + 40)[thoracic].all() and (lamina > shadow)[seen].mean() > 0.97
    assert (above > shadow)[thoracic].mean() > 0.95
    assert lamina[thoracic].mean() > shadow[thoracic].mean() + 60
  brighter = np.concatenate(brighter)
  assert len(brighter) > 50 and (brighter > 15).mean() > 0.9 and brighter.mean() > 40


def test_a_layer_of_skin_hides_the_laminae_of_the_coronal_projection(full, halves, quarters):
  for case in full + halves + quarters[:8]:
    step = case.truth.spacing[2]
    depths = (np.arange(case.image.shape[2]) + 0.5) * step
    profile = case.image.mean((0, 1))
    skin = profile[depths < max(1.5, step)].mean()
    muscle = profile[(depths > 4) & (depths < 7)].mean()
    assert skin > 190 and skin > muscle + 50
    assert profile[depths > 3.6 + step / 2].max() < 0.75 * skin  # it ends above 4 mm
    assert (case.landmarks[:, 2] + 0.5).min() * step > profile.argmax() * step + 2
    projection, at = case.image.max(2), tuple(np.rint(case.landmarks[:24, :2]).astype(int).T)
    hidden, shown = (p[at].mean() - p.mean() for p in (projection, below_skin(case)[0].max(2)))
    assert shown > hidden + 20


def test_missed_laminae(quarters):
  missed = ~np.array([case.visible for case in quarters])
  assert missed[:, :20].mean() < 0.05 and 0.07 < missed[:, 24:].mean() < 0.22
  cases = [phantoms.volume((7, i), HALF, 2.0) for i in range(8)]
  seen = np.concatenate([smoothed_at(c, c.landmarks)[c.visible] for c in cases])
  gone = np.concatenate([smoothed_at(c, c.landmarks)[~c.visible] for c in cases])
  assert len(gone) > 15 and gone.mean() < seen.mean() - 35


def test_coronal_projection_shows_two_bright_columns_beside_a_dark_one(full):
  offsets, margins = np.arange(-25, 26), []
  for case in full:
    truth = case.truth
    spacing = truth.spacing
    rows = np.arange(FULL[0])
    middle = np.interp(rows, *truth.vertebrae[:, :2].T)
    columns = middle[:, None] + offsets / spacing[1]
    projection = ndimage.gaussian_filter(below_skin(case)[0].max(2), 1)
    straight = ndimage.map_coordinates(
        projection, [rows[:, None] + 0 * columns, columns], order=1, mode='nearest')
    thoracic = slice(*truth.vertebrae[[0, 11], 0].astype(int))
    profile = straight[thoracic].mean(0)
    left, right = profile[:25].argmax(), 26 + profile[26:].argmax()
    assert 7 <= -offsets[left] <= 13 and 7 <= offsets[right] <= 13
    column, beyond = profile[23:28].min(), max(profile[0], profile[-1])
    margins.append(min(profile[left], profile[right]) - [column, beyond])
  assert (np.min(margins, 0) > [40, 10]).all() and (np.mean(margins, 0) > [55, 25]).all()


def test_false_plates_are_bright_too(halves):
  brightness = []
  for case in halves:
    plates = case.truth.distractors
    assert plates.shape == (34 + 24, 3)
    inside = (plates[:, 1] > 2) & (plates[:, 1] < HALF[1] - 3)
    step = 1 / case.truth.spacing
    here, above = smoothed_at(case, plates), smoothed_at(case, plates - [0, 0, 5 * step[2]])
    brightness.append((here - above)[inside].mean())
    away = np.linalg.norm((plates[:, None] - case.landmarks) / step, axis=-1)
    assert away.min() > 5
  assert 5 < np.mean(brightness) < 60


def test_envelope_speckle():
  ratio = lambda envelope: envelope.mean() / envelope.std()
  amplitude, spacing = np.full((96, 48, 48), 2, np.float32), (1.2, 0.9, 0.95)
  draw = lambda **k: phantoms.envelope_speckle(
      np.random.default_rng(0), amplitude, k.pop('spacing', spacing), **k)
  one, three = draw(looks=1), draw()
  assert one.dtype == np.float32 and 1.85 < ratio(one) < 1.95
  assert 1.85 < ratio(draw(looks=1, spacing=(2.4, 1.8, 1.9))) < 1.95
  assert ratio(three) == pytest.approx(3**0.5 * 1.913, rel=0.03)
  assert one.mean() == pytest.approx(2, rel=0.01) and three.mean() == pytest.approx(2, rel=0.01)
  np.testing.assert_array_equal(draw(strength=0.0), amplitude)
  noise = one - one.mean()
  lag = [(noise.take(range(1, n), a) * noise.take(range(n - 1), a)).mean() / noise.var()
         for a, n in enumerate(noise.shape)]
  assert abs(lag[0]) < 0.02 and lag[1] == pytest.approx(0.38, abs=0.03)
  assert 0.01 < lag[2] < 0.1


def test_difficulty_zero_has_all_laminae_and_nothing_false():
  for i in range(3):
    case = phantoms.volume((7, i), HALF, 0)
    assert case.visible.all() and case.truth.distractors.shape == (0, 3)
    lamina = smoothed_at(case, case.landmarks, 1.0)
    depth = np.array([0, 0, 6]) / case.truth.spacing
    assert (lamina > smoothed_at(case, case.landmarks + depth) + 30).all()
    gain = case.image.reshape(HALF[0], -1).mean(1)
    assert np.abs(np.diff(gain)).max() < 8


def test_difficulty_hides_laminae_from_a_peak_finder():
  """The 34 highest peaks of a difference of Gaussians, within 6 mm of the landmarks."""
  def found(difficulty):
    hits = []
    for i in range(4):
      case = phantoms.volume((3, i), HALF, difficulty)
      spacing, (image, first) = case.truth.spacing, below_skin(case)
      contrast = ndimage.gaussian_filter(image, (4, 3, 1.5) / spacing)
      contrast -= ndimage.gaussian_filter(image, (10, 8, 5) / spacing)
      peaks = contrast * (contrast == ndimage.maximum_filter(contrast, (9, 9, 5)))
      best = np.stack(np.unravel_index(np.argsort(peaks.ravel())[-34:], image.shape), -1)
      away = np.linalg.norm((case.landmarks[:, None] - best - [0, 0, first]) * spacing, axis=-1)
      hits.append(away.min(1) < 6)
    hits = np.array(hits)
    return hits.mean(), hits[:, :24].mean(), hits[:, 24:].mean()

  easy, default, hard = (found(d) for d in (0.0, 1.0, 2.0))
  assert easy[0] > 0.95 and 0.8 < default[0] < easy[0] - 0.05 and hard[0] < default[0] - 0.05
  assert default[1] > default[2] + 0.1


def test_the_grid_holds_all_laminae_and_is_wider_where_the_spine_is(quarters):
  spacings = np.array([case.truth.spacing for case in quarters]) / 4
  np.testing.assert_allclose(spacings[:, [0, 2]], [[1.2, 0.95]] * len(spacings))
  assert np.isclose(spacings[:, 1], 0.9).mean() > 0.6 and spacings[:, 1].min() >= 0.9 - 1e-12
  assert spacings[:, 1].max() < 1.6
  landmarks = np.array([case.landmarks for case in quarters])
  assert (landmarks > -0.5).all() and (landmarks < np.array(QUARTER) - 0.5).all()


def test_half_the_shape_is_the_pooled_volume():
  large, small = (phantoms.volume(3, s, 0).image.astype(float) for s in (HALF, QUARTER))
  pooled = large.reshape(96, 2, 24, 2, 12, 2).mean((1, 3, 5))
  assert np.abs(pooled - small).mean() < 6
  assert np.corrcoef(pooled.ravel(), small.ravel())[0, 1] > 0.98


def test_localizer_dice():
  np.testing.assert_allclose(
      phantoms.localizer_dice([0.0, 0.5, 0.7, 1.0]), [1, 0.65, 0.54, 0.40], atol=0.006)
  assert phantoms.localizer_dice(1e6) < 1e-15 and phantoms.localizer_dice([]).shape == (0,)
  rng = np.random.default_rng(0)
  exact = rng.uniform(10, 40, (200_000, 3))
  for noise in (0.3, 0.5, 0.7, 1.0, 2.5):
    shift = np.rint(exact + noise * rng.standard_normal(exact.shape)) - np.rint(exact)
    overlap = (3 - np.abs(shift)).clip(0).prod(1) / 27
    assert phantoms.localizer_dice(noise) == pytest.approx(overlap.mean(), abs=0.003)
  for broken in (-1.0, np.nan, [0.5, -0.5]):
    with pytest.raises(ValueError, match='noise must be'):
      phantoms.localizer_dice(broken)


def test_labels_leave_a_perfect_localizer_that_dice(full, halves):
  scores = []
  for case in full + halves:
    cubes = np.zeros_like(case.label)
    for center in np.rint(case.landmarks).astype(int):
      cubes[tuple(slice(c - 1, c + 2) for c in center)] = 1
    scores.append(2 * (cubes & case.label).sum() / (cubes.sum() + case.label.sum()))
  assert np.mean(scores) == pytest.approx(phantoms.localizer_dice(0.5), abs=0.03)
