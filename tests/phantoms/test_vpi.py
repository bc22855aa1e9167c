"""Phantoms: exact truth, the statistics of a real image, and the same patient every time."""
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from spinejax import phantoms
from spinejax.phantoms.vpi_images import anatomy, tissue

SHAPE = (512, 128)
RIB, PROCESS, LUMP = 1, 2, 3


@pytest.fixture(scope='module')
def cases():
  return [phantoms.vpi((7, 0, i), SHAPE) for i in range(12)]


def contrast(image, label, fov, kind):
  """Mean inside a class over the mean of a ring 4 to 18 scanner pixels around all classes."""
  scale = len(image) / 2560
  away = ndimage.distance_transform_edt(label != kind)
  ring = (away <= 18 * scale) & (ndimage.distance_transform_edt(label == 0) > 4 * scale) & fov
  return image[(label == kind) & fov].mean() / image[ring].mean()


def texture_snr(image, label, fov, holes):
  """Mean over standard deviation of the background below a scale of 6 scanner pixels."""
  scale = len(image) / 2560
  image = image.astype(np.float32)
  smooth = ndimage.gaussian_filter(image, 6 * scale)
  tissue = fov & (ndimage.distance_transform_edt(label == 0) > 6 * scale)
  tissue = ndimage.distance_transform_edt(tissue) > 8 * scale
  tissue &= (smooth > 60) & (smooth < 225) & ~holes
  return 1 / ((image - smooth) / smooth.clip(1))[tissue].std()


def find_holes(case):
  return (case.clean > 60) & (case.image < 0.15 * case.clean)


def test_acceptance_statistics(cases):
  for case in cases:
    label, image, fov = case.label, case.image, case.fov
    assert image.shape == label.shape == fov.shape == case.clean.shape == SHAPE
    assert image.dtype == label.dtype == case.clean.dtype == np.uint8 and fov.dtype == bool
    assert 0.04 <= (label == RIB).mean() <= 0.08
    assert 0.06 <= (label == PROCESS).mean() <= 0.10
    assert 0.06 <= (label == LUMP).mean() <= 0.11
    assert 65 <= image.mean() <= 87 and 72 <= image.std() <= 92
    assert 0.52 <= fov.mean() <= 0.64
    assert not image[~fov].any() and not case.clean[~fov].any() and not label[~fov].any()
    assert label.max() == 3
    assert 6.5 <= texture_snr(image, label, fov, find_holes(case)) <= 10
  fractions = [case.truth.hole_fraction for case in cases]
  assert np.mean(np.array(fractions) > 0) >= 1 / 3 and np.median(fractions) < 0.01


def test_bones_contrast_like_the_real_image(cases, shared):
  folder = shared / 'data' / 'vpi_sa2net_demo'
  image = np.asarray(Image.open(folder / 'image.png').convert('L'))
  label = np.asarray(Image.open(folder / 'label.png'))
  fov = ndimage.binary_fill_holes(ndimage.binary_closing(image > 0, iterations=3))
  for kind, tolerance in ((RIB, 0.06), (PROCESS, 0.06), (LUMP, 0.06)):
    drawn = [contrast(c.image, c.label, c.fov, kind) for c in cases]
    assert abs(np.mean(drawn) - contrast(image, label, fov, kind)) < tolerance
  bins = [np.histogram(c.image[c.fov], 8, (0, 256))[0] / c.fov.sum() for c in cases]
  real = np.histogram(image[fov], 8, (0, 256))[0] / fov.sum()
  np.testing.assert_allclose(np.mean(bins, 0), real, atol=0.03)
  assert abs(np.mean([c.fov.mean() for c in cases]) - fov.mean()) < 0.03


def test_holes_are_one_pixel_high_dashes(cases):
  heights, lengths = [], []
  for case in cases:
    holes = find_holes(case)
    for runs, axis in ((heights, 0), (lengths, 1)):
      edges = np.diff(np.pad(np.moveaxis(holes, axis, -1).astype(int), ((0, 0), (1, 1))), axis=-1)
      runs += (np.argwhere(edges < 0)[:, 1] - np.argwhere(edges > 0)[:, 1]).tolist()
    if not case.truth.hole_fraction:
      assert holes.sum() < 1e-3 * case.fov.sum()
  assert len(heights) > 300
  assert np.mean(np.array(heights) == 1) > 0.9
  assert 2 <= np.median(lengths) <= 8 and np.percentile(lengths, 90) > 8


def test_landmarks_lie_on_their_bones():
  errors = []
  for i in range(4):
    case = phantoms.vpi(i)
    label, truth = case.label, case.truth
    inside = np.isfinite(truth.processes[..., 0])
    at = lambda points: label[tuple(np.rint(points).astype(int).T)]
    assert inside.sum() >= 14
    assert (at(truth.processes[inside]) == PROCESS).mean() > 0.95
    assert (at(truth.lump_halves.reshape(-1, 2)) == LUMP).mean() >= 0.9
    left, right = np.moveaxis(truth.processes, 1, 0)
    assert (right[..., 1] > left[..., 1])[inside.all(1)].all()
    parts, _ = ndimage.label(label == LUMP)
    for center, halves in zip(truth.lumps, truth.lump_halves):
      part = parts == parts[tuple(np.rint(center).astype(int))]
      side = (np.indices(part.shape) - center[:, None, None]) * [[[256 / 1024]], [[1]]]
      along = (halves[1] - halves[0]) * [256 / 1024, 1]
      split = (side * along[:, None, None]).sum(0)
      for half, found in zip(halves, (part & (split < 0), part & (split > 0))):
        errors.append(np.abs(np.argwhere(found).mean(0) - half).max())
  assert np.median(errors) < 1.0 and np.percentile(errors, 80) < 2.5


def test_pair_lines_follow_the_tilts(cases):
  deviations = []
  for case in cases:
    truth = case.truth
    pairs = np.concatenate([truth.processes, truth.lump_halves])
    dy, dx = np.moveaxis((pairs[:, 1] - pairs[:, 0]) * truth.spacing, -1, 0)
    lines = -np.degrees(np.arctan2(dy, dx))
    seen = np.isfinite(lines)
    deviations += (lines - truth.tilts)[seen].tolist()
    names = [n for n, s in zip(truth.levels, seen) if s]
    found = phantoms.curve_angles(lines[seen], names)
    assert [c[:2] for c in found] == [c[:2] for c in truth.uca]
    np.testing.assert_allclose([c.angle for c in found], [c.angle for c in truth.uca])
  assert abs(np.mean(deviations)) < 0.4 and 1.0 < np.std(deviations) < 2.2


def test_difficulty_zero_is_clean():
  for i in range(2):
    case = phantoms.vpi(i, (128, 32), 0)
    assert case.truth.hole_fraction == 0
    np.testing.assert_array_equal(case.image, case.clean)


def test_projection_speckle_statistics():
  amplitude = np.full((600, 300), 2.0, np.float32)
  noisy = phantoms.projection_speckle(np.random.default_rng(0), amplitude, (0.2, 0.2))
  assert noisy.dtype == np.float32
  assert noisy.mean() == pytest.approx(2, rel=0.01)
  assert noisy.mean() / noisy.std() == pytest.approx(9.5, rel=0.02)
  noise = noisy / 2 - 1
  lag = lambda a, b: (a * b).mean() / (noise**2).mean()
  assert 0.5 < lag(noise[1:], noise[:-1]) < 0.7
  assert 0.85 < lag(noise[:, 1:], noise[:, :-1]) < 0.95
  none = phantoms.projection_speckle(np.random.default_rng(0), amplitude, (0.2, 0.2), 0.0)
  np.testing.assert_array_equal(none, amplitude)


ARTIFACTS = tuple(vars(phantoms.Strengths()))


def draw(seed=(2, 2), difficulty=1.0, noise=None, **strengths):
  return phantoms.vpi(seed, (256, 64), difficulty, speckle=noise,
                      strengths=phantoms.Strengths(**strengths))


def test_strengths_of_one_give_the_phantoms_of_before_there_were_strengths():
  for index, difficulty, holes, pixels in (
      (1, 1.0, 0.003861, [231, 179, 215, 19, 124]),
      (5, 4.0, 0.020248, [167, 96, 183, 52, 70])):
    case = draw((3, index), difficulty)
    assert case.truth.hole_fraction == pytest.approx(holes, abs=1e-6)
    np.testing.assert_allclose(case.image[40:240:40, 32], pixels, atol=1)


@pytest.mark.parametrize('name', ARTIFACTS)
def test_a_strength_changes_its_own_artifact_alone(name):
  left = []

  def noise(rng, amplitude, spacing):
    left.append(rng.random())
    return amplitude

  usual = draw()
  for value in (0.0, 4.0):
    case = draw(**{name: value})
    assert (case.image != usual.image).any()
    assert (case.clean == usual.clean).all() == (name not in ('mottling', 'false_bones'))
    assert (case.truth.hole_fraction == usual.truth.hole_fraction) == (name != 'holes')
    np.testing.assert_equal(*({**vars(of), **vars(of.truth), **dict.fromkeys(
        ('image', 'clean', 'truth', 'hole_fraction'))} for of in (case, usual)))
    draw(noise=noise, **{name: value})
  assert left[0] == left[1]


def test_holes_darken_more_pixels_and_leave_the_others():
  full, fractions = draw(holes=0.0), []
  for value in (0.0, 0.5, 1.0, 2.0, 8.0):
    case = draw(holes=value)
    is_hole = case.image != full.image
    assert (case.image[is_hole] <= 0.08 * full.image[is_hole]).all()
    assert is_hole.sum() <= round(case.truth.hole_fraction * case.fov.sum()) <= (
        is_hole.sum() + (full.image[case.fov] == 0).sum())
    fractions.append(case.truth.hole_fraction)
  assert fractions == sorted(fractions) and fractions[0] == 0 < fractions[2] < fractions[4]


def test_a_strength_of_zero_switches_an_artifact_off(monkeypatch):
  case, clean = draw(**dict.fromkeys(ARTIFACTS, 0.0)), draw(difficulty=0.0)
  np.testing.assert_array_equal(case.image, clean.image)
  np.testing.assert_array_equal(case.clean, clean.image)
  stamped = []
  monkeypatch.setattr(tissue, 'stamp_bone', lambda bone, *at: (
      stamped.append(bone), anatomy.stamp_bone(bone, *at))[1])
  blobs = []
  for value in (0.0, 0.5, 1.0, 4.0):
    stamped.clear()
    draw(false_bones=value)
    blobs.append(set(stamped))
  assert not blobs[0] and blobs[0] < blobs[1] < blobs[2] < blobs[3] and len(blobs[3]) > 35


@pytest.mark.parametrize('value', [-0.1, np.nan, np.inf, 101])
def test_a_strength_that_cannot_be_drawn_is_refused(value):
  with pytest.raises(ValueError, match='strength of holes must be a number from 0 to 100, not'):
    phantoms.Strengths(holes=value)
