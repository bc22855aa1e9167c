"""Phantoms: exact truth, the statistics of a real image, and the same patient every time."""

import hashlib
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from spinejax import phantoms
from spinejax.phantoms import curves

SHAPE = (512, 128)
RIB, PROCESS, LUMP = 1, 2, 3


@pytest.fixture(scope='module')
def cases():
  return [phantoms.vpi((7, 0, i), SHAPE) for i in range(20)]


@pytest.fixture(scope='module')
def spines():
  return [phantoms.sample_curve(np.random.default_rng(i)) for i in range(1500)]


def digest(case):
  arrays = [case[k] for k in ('image', 'clean', 'label', 'fov')]
  arrays += [case['truth'][k] for k in ('tilts', 'processes', 'lumps', 'lump_halves')]
  return hashlib.sha256(b''.join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


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
  return (case['clean'] > 60) & (case['image'] < 0.15 * case['clean'])


@pytest.mark.parametrize('tilts, min_deg, expected', [
    ([], 5, []),
    ([3], 5, [0]),
    ([0, 4], 5, [1]),
    ([0, 5], 5, [0, 1]),
    ([0, 10, 20, 10, 0], 5, [0, 2, 4]),
    ([0, 3, 0, 20], 5, [2, 3]),
    ([20, 0, 3], 5, [0, 1]),
    ([0, 20, 17, 30], 5, [0, 3]),
    ([0, 20, 17, 30], 0, [0, 1, 2, 3]),
    ([0, 20, 15, 30], 5, [0, 1, 2, 3]),
    ([0, 0, 10, 10, -2, -2], 5, [0, 2, 4]),
    ([0, 1, 0, 1, 0], 5, [4]),
    ([-8, 12, 9, 11, -15, -14], 5, [0, 1, 4]),
])
def test_extremes_rule_by_hand(tilts, min_deg, expected):
  assert phantoms.extremes(tilts, min_deg) == expected
  assert phantoms.extremes([-t for t in tilts], min_deg) == expected


def test_curve_angles_by_hand():
  levels = ['T4', 'T5', 'T6', 'T7', 'T8', 'T9', 'L1']
  found = phantoms.curve_angles([10, 8, 1, -3, -20, -12, 4], levels)
  assert found == [('T4', 'T8', 30.0, 'T7'), ('T8', 'L1', -24.0, 'T9')]
  assert found[0].angle == 30 and found[0].apex == 'T7'
  assert phantoms.curve_angles([1, 2, 3], ['T1', 'T2', 'T3']) == []
  assert phantoms.curve_angles([], []) == []


@pytest.mark.parametrize('call, words', [
    (lambda: phantoms.extremes([0, np.nan, 3]), 'finite'),
    (lambda: phantoms.extremes([[0, 1], [2, 3]]), 'one row'),
    (lambda: phantoms.extremes([0, 1], -1), 'min_deg'),
    (lambda: phantoms.extremes([0, 1], np.nan), 'min_deg'),
    (lambda: phantoms.curve_angles([0, 10], ['T1']), '2 tilts and 1 levels'),
    (lambda: phantoms.sample_curve(np.random.default_rng(0), 'straight'), 'main_thoracic'),
])
def test_curves_refuse_in_one_sentence(call, words):
  with pytest.raises(ValueError, match=words) as caught:
    call()
  assert '\n' not in str(caught.value)


def test_stored_tilts_have_the_requested_angles(spines):
  for spine in spines:
    ends = spine.tilts[list(spine.ends)]
    np.testing.assert_allclose(ends[:-1] - ends[1:], spine.angles, atol=0.5)
    if spine.family == 'normal':
      continue
    found = phantoms.curve_angles(spine.tilts)
    expected = [(phantoms.LEVELS[a], phantoms.LEVELS[b], angle)
                for a, b, angle in zip(spine.ends, spine.ends[1:], spine.angles) if abs(angle) >= 5]
    assert [c[:2] for c in found] == [e[:2] for e in expected]
    np.testing.assert_allclose([c.angle for c in found], [e[2] for e in expected], atol=0.5)


def test_families_keep_their_probabilities_and_ranges(spines):
  probabilities = [f.probability for f in phantoms.FAMILIES.values()]
  assert sum(probabilities) == pytest.approx(1)
  for (name, family), p in zip(phantoms.FAMILIES.items(), probabilities):
    drawn = [s for s in spines if s.family == name]
    assert abs(len(drawn) - p * len(spines)) < 4 * np.sqrt(len(spines) * p * (1 - p))
    angles = np.abs([s.angles for s in drawn])
    low, high = np.transpose(family.angles)
    assert (angles >= low).all() and (angles <= high).all()
    assert (angles.min(0) < low + 0.2 * (high - low)).all()
    assert (angles.max(0) > high - 0.2 * (high - low)).all()
    nodes = np.array([s.u[list(s.ends)] for s in drawn])
    assert np.abs(nodes - family.nodes).max() < curves.NODE_JITTER + 0.045
  right = [s.angles[0 if s.ends[0] else 1] > 0 for s in spines]
  assert abs(np.mean(right) - 0.8) < 0.05


def test_spine_path_follows_its_tilts_upright(spines):
  slopes, signs = [], []
  for spine in spines[:200]:
    middle = (spine.path_tilts[1:] + spine.path_tilts[:-1]) / 2
    slope = np.degrees(np.arctan(np.diff(spine.path_x) / np.diff(spine.path_u)))
    np.testing.assert_allclose(slope, middle, atol=0.1)
    np.testing.assert_allclose(
        np.interp(spine.u, spine.path_u, spine.path_tilts), spine.tilts, atol=0.1)
    inside = (spine.path_u >= 0) & (spine.path_u <= 1)
    slopes.append(np.polyfit(spine.path_u[inside], spine.path_x[inside], 1)[0])
    main = int(np.abs(spine.angles).argmax())
    a, b = spine.u[[spine.ends[main], spine.ends[main + 1]]]
    x = np.interp([a, (a + b) / 2, b], spine.path_u, spine.path_x)
    signs.append(np.sign(x[1] - (x[0] + x[2]) / 2) == np.sign(spine.angles[main]))
  lean = np.degrees(np.arctan(slopes))
  assert abs(lean.mean()) < 0.25 and 0.85 < lean.std() < 1.15
  assert np.mean(signs) > 0.97


def test_level_positions_by_hand():
  np.testing.assert_allclose(phantoms.level_positions(0.0), (np.arange(17) + 0.5) / 17)
  u = phantoms.level_positions(1.0)
  assert u[0] == pytest.approx(19.5 / 2 / curves.LEVEL_HEIGHTS.sum())
  assert u[16] == pytest.approx(1 - 35 / 2 / curves.LEVEL_HEIGHTS.sum())


def test_acceptance_statistics(cases):
  for case in cases:
    label, image, fov = case['label'], case['image'], case['fov']
    assert image.shape == label.shape == fov.shape == case['clean'].shape == SHAPE
    assert image.dtype == label.dtype == case['clean'].dtype == np.uint8 and fov.dtype == bool
    assert 0.04 <= (label == RIB).mean() <= 0.08
    assert 0.06 <= (label == PROCESS).mean() <= 0.10
    assert 0.06 <= (label == LUMP).mean() <= 0.11
    assert 65 <= image.mean() <= 87 and 72 <= image.std() <= 92
    assert 0.52 <= fov.mean() <= 0.64
    assert not image[~fov].any() and not case['clean'][~fov].any() and not label[~fov].any()
    assert label.max() == 3
    assert 6.5 <= texture_snr(image, label, fov, find_holes(case)) <= 10
  fractions = [case['truth']['hole_fraction'] for case in cases]
  assert np.mean(np.array(fractions) > 0) >= 1 / 3 and np.median(fractions) < 0.01


def test_bones_contrast_like_the_real_image(cases, shared):
  folder = shared / 'data' / 'vpi_sa2net_demo'
  image = np.asarray(Image.open(folder / 'image.png').convert('L'))
  label = np.asarray(Image.open(folder / 'label.png'))
  fov = ndimage.binary_fill_holes(ndimage.binary_closing(image > 0, iterations=3))
  for kind, tolerance in ((RIB, 0.06), (PROCESS, 0.06), (LUMP, 0.06)):
    drawn = [contrast(c['image'], c['label'], c['fov'], kind) for c in cases]
    assert abs(np.mean(drawn) - contrast(image, label, fov, kind)) < tolerance
  bins = [np.histogram(c['image'][c['fov']], 8, (0, 256))[0] / c['fov'].sum() for c in cases]
  real = np.histogram(image[fov], 8, (0, 256))[0] / fov.sum()
  np.testing.assert_allclose(np.mean(bins, 0), real, atol=0.03)
  assert abs(np.mean([c['fov'].mean() for c in cases]) - fov.mean()) < 0.03


def test_holes_are_one_pixel_high_dashes(cases):
  heights, lengths = [], []
  for case in cases:
    holes = find_holes(case)
    for runs, axis in ((heights, 0), (lengths, 1)):
      edges = np.diff(np.pad(np.moveaxis(holes, axis, -1).astype(int), ((0, 0), (1, 1))), axis=-1)
      runs += (np.argwhere(edges < 0)[:, 1] - np.argwhere(edges > 0)[:, 1]).tolist()
    if not case['truth']['hole_fraction']:
      assert holes.sum() < 1e-3 * case['fov'].sum()
  assert len(heights) > 300
  assert np.mean(np.array(heights) == 1) > 0.9
  assert 2 <= np.median(lengths) <= 8 and np.percentile(lengths, 90) > 8


def test_truth_is_one_patient_at_every_resolution_and_difficulty(cases):
  for i in range(3):
    truth = cases[i]['truth']
    for shape, difficulty in (((1024, 256), 1.0), ((300, 77), 1.0), (SHAPE, 0.0), (SHAPE, 2.0)):
      other = phantoms.vpi((7, 0, i), shape, difficulty)
      for key in ('tilts', 'requested'):
        np.testing.assert_array_equal(truth[key], other['truth'][key])
      for key in ('family', 'levels', 'ends', 'cobb', 'uca'):
        assert truth[key] == other['truth'][key]
      for key in ('vertebrae', 'processes', 'lumps', 'lump_halves'):
        np.testing.assert_allclose(
            (truth[key] + 0.5) / SHAPE, (other['truth'][key] + 0.5) / shape, rtol=1e-12)
      assert other['truth']['spacing'] == pytest.approx((512 / shape[0], 128 / shape[1]))
      rows = ((np.arange(SHAPE[0]) + 0.5) * shape[0] / SHAPE[0]).astype(int)
      columns = ((np.arange(SHAPE[1]) + 0.5) * shape[1] / SHAPE[1]).astype(int)
      agree = cases[i]['label'] == other['label'][rows[:, None], columns]
      assert agree.mean() > 0.97 and (shape != SHAPE or agree.all())
  small, large = (phantoms.vpi(3, s)['clean'].astype(float) for s in (SHAPE, (1024, 256)))
  fov = phantoms.vpi(3, SHAPE)['fov']
  pooled = large.reshape(512, 2, 128, 2).mean((1, 3))
  assert np.abs(small - pooled)[ndimage.binary_erosion(fov, iterations=2)].mean() < 4


def test_landmarks_lie_on_their_bones():
  errors = []
  for i in range(6):
    case = phantoms.vpi(i)
    label, truth = case['label'], case['truth']
    inside = np.isfinite(truth['processes'][..., 0])
    at = lambda points: label[tuple(np.rint(points).astype(int).T)]
    assert inside.sum() >= 14
    assert (at(truth['processes'][inside]) == PROCESS).mean() > 0.95
    assert (at(truth['lump_halves'].reshape(-1, 2)) == LUMP).mean() >= 0.9
    left, right = np.moveaxis(truth['processes'], 1, 0)
    assert (right[..., 1] > left[..., 1])[inside.all(1)].all()
    parts, _ = ndimage.label(label == LUMP)
    for center, halves in zip(truth['lumps'], truth['lump_halves']):
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
    truth = case['truth']
    pairs = np.concatenate([truth['processes'], truth['lump_halves']])
    dy, dx = np.moveaxis((pairs[:, 1] - pairs[:, 0]) * truth['spacing'], -1, 0)
    lines = -np.degrees(np.arctan2(dy, dx))
    seen = np.isfinite(lines)
    deviations += (lines - truth['tilts'])[seen].tolist()
    names = [n for n, s in zip(truth['levels'], seen) if s]
    found = phantoms.curve_angles(lines[seen], names)
    assert [c[:2] for c in found] == [c[:2] for c in truth['uca']]
    np.testing.assert_allclose([c.angle for c in found], [c.angle for c in truth['uca']])
    assert phantoms.curve_angles(truth['tilts']) == truth['cobb']
  assert abs(np.mean(deviations)) < 0.4 and 1.0 < np.std(deviations) < 2.2


def test_mirrored_case(cases):
  for case in cases[:5]:
    seen = phantoms.mirror(case)
    for key in ('image', 'clean', 'label', 'fov'):
      np.testing.assert_array_equal(seen[key], case[key][:, ::-1])
    truth, mirrored = case['truth'], seen['truth']
    np.testing.assert_array_equal(mirrored['tilts'], -truth['tilts'])
    for key in ('cobb', 'uca'):
      assert [(c.upper, c.lower, -c.angle, c.apex) for c in truth[key]] == mirrored[key]
    assert phantoms.curve_angles(mirrored['tilts']) == mirrored['cobb']
    inside = np.isfinite(mirrored['processes'][..., 0])
    at = np.rint(mirrored['processes'][inside]).astype(int)
    assert (seen['label'][tuple(at.T)] == PROCESS).mean() > 0.9
    left, right = np.moveaxis(mirrored['lump_halves'], 1, 0)
    assert (right[:, 1] > left[:, 1]).all()
    back = phantoms.mirror(seen)
    np.testing.assert_array_equal(back['image'], case['image'])
    assert set(back['truth']) == set(truth) and back['truth']['cobb'] == truth['cobb']
    for key in ('vertebrae', 'processes', 'lumps', 'lump_halves'):
      np.testing.assert_allclose(back['truth'][key], truth[key])


def test_determinism_by_hash(cases):
  np.random.seed(1)
  before = np.random.get_state()[1].copy()
  first = digest(phantoms.vpi((7, 0, 0), SHAPE))
  np.testing.assert_array_equal(before, np.random.get_state()[1])
  assert first == digest(cases[0])
  code = ('import hashlib, numpy; numpy.random.seed(9)\n'
          'from spinejax.phantoms import vpi\n'
          'case = vpi([7, 0, 0], (512, 128))\n'
          'print(hashlib.sha256(case["image"].tobytes()).hexdigest())')
  root = pathlib.Path(phantoms.__file__).parents[3]
  out = subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, text=True,
                       check=True)
  assert out.stdout.strip() == hashlib.sha256(cases[0]['image'].tobytes()).hexdigest()


def test_seeds_are_integers_or_sequences():
  small = (64, 16)
  image = lambda seed: phantoms.vpi(seed, small)['image'].tobytes()
  assert image(5) == image(np.int64(5)) and image((1, 2, 3)) == image(np.array([1, 2, 3]))
  assert len({image(0), image(1), image((0, 1)), image((1, 1)), image((1, 0, 1))}) == 5


def test_family_keyword():
  for family in phantoms.FAMILIES:
    truth = phantoms.vpi(0, (64, 16), family=family)['truth']
    assert truth['family'] == family


def test_difficulty_zero_is_clean():
  for i in range(4):
    case = phantoms.vpi(i, SHAPE, 0)
    assert case['truth']['hole_fraction'] == 0
    np.testing.assert_array_equal(case['image'], case['clean'])


def test_difficulty_lowers_the_dice_of_a_fixed_model():
  """A quadratic pixel regression on smoothed gray levels, fitted at difficulty 1."""
  def features(case):
    image = case['image'].astype(np.float64) / 255
    smooth = [ndimage.gaussian_filter(image, s) for s in (1, 2, 4, 8, 16)]
    column = ndimage.gaussian_filter(image.mean(0), 8)[None] * np.ones_like(image)
    row = np.linspace(-1, 1, len(image))[:, None] * np.ones_like(image)
    f = np.stack([*smooth, column, row], -1)[case['fov']]
    products = [f[:, i] * f[:, j] for i in range(7) for j in range(i, 7)]
    return np.column_stack([np.ones(len(f)), f, *products])

  def draw(index, difficulty):
    return phantoms.vpi((3, index), (256, 64), difficulty)

  train = [draw(i, 1.0) for i in range(12)]
  x = np.concatenate([features(c) for c in train])
  bone = np.concatenate([c['label'][c['fov']] > 0 for c in train])
  weights = np.linalg.solve(x.T @ x + 1e-3 * np.eye(x.shape[1]), x.T @ bone)
  dice = []
  for difficulty in (0.0, 1.0, 2.0):
    scores = []
    for i in range(12, 24):
      case = draw(i, difficulty)
      found, label = features(case) @ weights > 0.45, case['label'][case['fov']] > 0
      scores.append(2 * (found & label).sum() / (found.sum() + label.sum()))
    dice.append(np.mean(scores))
  assert dice[0] > dice[2] + 0.05 and dice[1] > dice[2] + 0.03 and dice[1] > 0.5


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


def test_speckle_hook():
  calls = []

  def rayleigh(rng, amplitude, spacing):
    calls.append((amplitude.dtype, amplitude.shape, spacing))
    looks = rng.standard_normal((2, *amplitude.shape))
    amplitude *= np.hypot(*looks)
    return amplitude

  case, plain = phantoms.vpi(4, SHAPE, speckle=rayleigh), phantoms.vpi(4, SHAPE)
  assert calls == [(np.float32, SHAPE, (1.0, 1.0))]
  for key in ('clean', 'label', 'fov'):
    np.testing.assert_array_equal(case[key], plain[key])
  none = np.zeros(SHAPE, bool)
  snr = [texture_snr(c['image'], c['label'], c['fov'], none) for c in (case, plain)]
  assert snr[0] < 0.6 * snr[1]
  same = phantoms.vpi(4, SHAPE, 0, speckle=lambda rng, amplitude, spacing: amplitude)
  np.testing.assert_array_equal(same['image'], same['clean'])
  for broken in (lambda r, a, s: a[1:], lambda r, a, s: a * np.nan):
    with pytest.raises(ValueError, match='finite amplitudes of shape'):
      phantoms.vpi(4, SHAPE, speckle=broken)


@pytest.mark.parametrize('shape', [(64, 16), (97, 333), (1000, 17), (65, 640)])
def test_any_shape_from_the_smallest(shape):
  case = phantoms.vpi(2, shape, 2.0)
  assert case['image'].shape == shape and case['image'].std() > 40
  assert set(np.unique(case['label'])) == {0, RIB, PROCESS, LUMP}


@pytest.mark.parametrize('arguments, words', [
    (dict(seed=-1), 'seed'),
    (dict(seed=1.5), 'seed'),
    (dict(seed='a'), 'seed'),
    (dict(seed=()), 'seed'),
    (dict(seed=(1, -2)), 'seed'),
    (dict(shape=(63, 16)), '64 x 16'),
    (dict(shape=(64, 15)), '64 x 16'),
    (dict(shape=512), 'shape'),
    (dict(shape=(512, 128, 1)), 'shape'),
    (dict(shape=(512.5, 128)), 'shape'),
    (dict(shape=('a', 'b')), 'shape'),
    (dict(shape=(np.nan, 128)), 'shape'),
    (dict(difficulty=-0.1), 'difficulty'),
    (dict(difficulty=np.nan), 'difficulty'),
    (dict(difficulty=np.inf), 'difficulty'),
    (dict(difficulty=1e9), 'difficulty'),
    (dict(difficulty='hard'), 'difficulty'),
    (dict(difficulty=None), 'difficulty'),
    (dict(family='scoliosis'), 'double_major'),
])
def test_vpi_refuses_in_one_sentence(arguments, words):
  with pytest.raises(ValueError, match=words) as caught:
    phantoms.vpi(**{'seed': 0, 'shape': (64, 16)} | arguments)
  assert '\n' not in str(caught.value)


def test_even_the_hardest_case_is_drawn():
  case = phantoms.vpi(0, (128, 32), 4.0)
  assert 0 < case['truth']['hole_fraction'] < 0.2 and case['image'][case['fov']].std() > 50
