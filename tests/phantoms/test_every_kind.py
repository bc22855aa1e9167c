"""What holds for every kind of phantom: arguments, seeds, speckle and documentation."""
import doctest
import hashlib
import inspect
import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from spinejax import phantoms
from tests import tiny

SMALLEST = {'vpi': (64, 16), 'volume': (48, 16, 8), 'xray': (64, 16)}
MIDDLE = {'vpi': (512, 128), 'volume': (192, 48, 24), 'xray': (256, 128)}
KINDS = sorted(SMALLEST)
SHAPES = [('vpi', (97, 333)), ('vpi', (1000, 17)), ('vpi', (65, 640)),
          ('volume', (97, 31, 53)), ('volume', (50, 200, 9)),
          ('xray', (97, 333)), ('xray', (300, 40)), ('xray', (65, 640)), *SMALLEST.items()]
ANGLES = ('tilts', 'requested', 'rotation', 'lines', 'centerline_tilts')
POINTS = ('vertebrae', 'landmarks', 'processes', 'lumps', 'lump_halves', 'centerline')
CURVES = {'cobb': 'tilts', 'uca': None, 'centerline_cobb': None, 'center_of_lamina': 'lines'}


def draw(kind, seed=0, **options):
  return getattr(phantoms, kind)(seed, **{'shape': SMALLEST[kind]} | options)


def arrays(case):
  """{name: array} of a case and its truth."""
  return {name: value for part in (case, case.truth) for name, value in vars(part).items()
          if isinstance(value, np.ndarray)}


def digest(case):
  code = hashlib.sha256()
  for array in arrays(case).values():
    code.update(np.ascontiguousarray(array).tobytes())
  return code.hexdigest()


@pytest.fixture(scope='module')
def elsewhere():
  """{kind: digest of the phantom with seed 7 that another process drew}."""
  code = ('import numpy; numpy.random.seed(9)\n'
          'from tests.phantoms import test_every_kind as here\n'
          'print(*(here.digest(here.draw(kind, [7, 0])) for kind in here.KINDS))')
  out = subprocess.run([sys.executable, '-c', code], cwd=tiny.ROOT, capture_output=True, text=True,
                       check=True)
  return dict(zip(KINDS, out.stdout.split()))


@pytest.mark.parametrize('kind', KINDS)
def test_a_seed_is_the_same_case_in_every_process(kind, elsewhere):
  np.random.seed(1)
  before = np.random.get_state()[1].copy()
  first = digest(draw(kind, (7, 0, 0)))
  np.testing.assert_array_equal(before, np.random.get_state()[1])
  assert first == digest(draw(kind, np.int64(7))) == digest(draw(kind, [7, np.uint8(0)]))
  assert first == elsewhere[kind]
  seeds = (8, (0, 1), (1, 1), (1, 0, 1))
  assert len({first, *(digest(draw(kind, seed)) for seed in seeds)}) == 5


@pytest.mark.parametrize('kind', KINDS)
def test_every_family_is_drawn_with_the_requested_angles(kind):
  for i, family in enumerate([*phantoms.FAMILIES] * 2):
    case = draw(kind, (1, i), family=family)
    truth = case.truth
    assert truth.family == family
    assert kind != 'xray' or not (case.label[:, [0, -1]] == 1).any()  # the field is wide enough
    ends = [phantoms.LEVELS.index(level) for level in truth.ends]
    np.testing.assert_allclose(-np.diff(truth.tilts[ends]), truth.requested, atol=0.5)
    assert truth.cobb == phantoms.curve_angles(truth.tilts)


@pytest.mark.parametrize('kind, i, shape, difficulty', [
    ('vpi', 0, (1024, 256), 1.0), ('vpi', 0, (512, 128), 2.0), ('vpi', 1, (300, 77), 1.0),
    ('vpi', 1, (512, 128), 0.0), ('xray', 0, (512, 256), 1.0), ('xray', 0, (256, 128), 2.0),
    ('xray', 1, (202, 101), 1.0), ('xray', 1, (256, 128), 0.0), ('volume', 0, (384, 96, 48), 1.0),
    ('volume', 1, (130, 40, 30), 2.0)])
def test_a_seed_is_one_patient_at_every_resolution_and_difficulty(kind, i, shape, difficulty):
  base = MIDDLE[kind]
  case, other = draw(kind, (7, i), shape=base), draw(kind, (7, i), shape=shape,
                                                     difficulty=difficulty)
  for name in ('family', 'levels', 'ends', *CURVES):
    assert getattr(case.truth, name, 0) == getattr(other.truth, name, 0)
  here, there = arrays(case), arrays(other)
  for name in here.keys() & {*ANGLES}:
    np.testing.assert_array_equal(here[name], there[name])
  for name in here.keys() & {*POINTS}:
    np.testing.assert_allclose((here[name] + 0.5) / base, (there[name] + 0.5) / shape, rtol=1e-5)
  np.testing.assert_allclose(np.multiply(case.truth.spacing, base),
                             np.multiply(other.truth.spacing, shape))
  if kind == 'volume':
    assert difficulty != 1.0 or (case.visible == other.visible).all()
    return
  rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(base, shape))
  agree = case.label == other.label[rows[:, None], columns]
  assert agree.mean() > 0.97 and (shape != base or agree.all())
  if shape[0] == 2 * base[0]:
    pooled = other.clean.astype(float).reshape(base[0], 2, base[1], 2).mean((1, 3))
    inside = ndimage.binary_erosion(case.fov, iterations=2) if kind == 'vpi' else agree | True
    assert np.abs(case.clean - pooled)[inside].mean() < (4 if kind == 'vpi' else 3)


@pytest.mark.parametrize('kind', KINDS)
def test_a_mirrored_case(kind):
  case = draw(kind, (7, 2), shape=MIDDLE[kind])
  seen = phantoms.mirror(case)
  plain, mirrored = arrays(case), arrays(seen)
  for name in plain.keys() & {'image', 'clean', 'label', 'fov'}:
    np.testing.assert_array_equal(mirrored[name], plain[name][:, ::-1])
  for name in plain.keys() & {*ANGLES}:
    np.testing.assert_array_equal(mirrored[name], -plain[name])
  for name, tilts in CURVES.items():
    if hasattr(case.truth, name):
      opposite = [c._replace(angle=-c.angle) for c in getattr(case.truth, name)]
      assert opposite == getattr(seen.truth, name)
      assert not tilts or phantoms.curve_angles(mirrored[tilts]) == opposite
  width, truth = MIDDLE[kind][1], seen.truth
  np.testing.assert_allclose(truth.vertebrae[:, 1], width - 1 - case.truth.vertebrae[:, 1])
  if kind == 'vpi':
    at = np.rint(truth.processes[np.isfinite(truth.processes[..., 0])]).astype(int)
    assert (seen.label[tuple(at.T)] == 2).mean() > 0.9
    pairs = truth.lump_halves
  else:
    pairs = mirrored['landmarks'].reshape(17, -1, *mirrored['landmarks'].shape[1:])[:, :2]
    down, right = np.moveaxis((pairs[:, 1] - pairs[:, 0])[:, :2] * truth.spacing[:2], -1, 0)
    np.testing.assert_allclose(-np.degrees(np.arctan2(down, right)), mirrored.get(
        'lines', truth.tilts), atol=1e-3)
  assert (pairs[:, 1, 1] > pairs[:, 0, 1]).all()
  if kind == 'volume':
    assert seen.label[tuple(np.rint(seen.landmarks).astype(int).T)].all()
    np.testing.assert_array_equal(seen.visible.reshape(17, 2)[:, ::-1].ravel(), case.visible)
  for name, array in arrays(phantoms.mirror(seen)).items():
    np.testing.assert_allclose(array, plain[name], atol=1e-4 if name == 'landmarks' else 1e-9)


@pytest.mark.parametrize('kind, shape', [('vpi', (128, 32)), ('xray', (96, 48))])
def test_difficulty_lowers_the_dice_of_a_fixed_model(kind, shape):
  """A quadratic pixel regression on smoothed gray levels, fitted at difficulty 1."""
  def features(case):
    image = case.image.astype(np.float64) / 255
    smooth = [ndimage.gaussian_filter(image, s) for s in (1, 2, 4, 8)]
    row, column = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing='ij')
    f = np.stack([*smooth, column, column**2, row], -1).reshape(-1, 7)
    products = [f[:, i] * f[:, j] for i in range(7) for j in range(i, 7)]
    return np.column_stack([np.ones(len(f)), f, *products])

  def target(case):
    return case.label.ravel() > 0

  train = [draw(kind, (3, i), shape=shape) for i in range(5)]
  x, bone = np.concatenate([*map(features, train)]), np.concatenate([*map(target, train)])
  weights = np.linalg.solve(x.T @ x + 1e-3 * np.eye(x.shape[1]), x.T @ bone)
  dice = []
  for difficulty in (0.0, 1.0, 2.0):
    cases = [draw(kind, (3, i), shape=shape, difficulty=difficulty) for i in range(5, 10)]
    found = [features(case) @ weights > 0.4 for case in cases]
    dice.append(np.mean([2 * (f & target(c)).sum() / (f.sum() + target(c).sum())
                         for f, c in zip(found, cases)]))
  assert dice[0] > dice[2] + 0.02 and dice[1] > dice[2] and dice[1] > 0.5


@pytest.mark.parametrize('kind, shape', SHAPES)
def test_any_shape_from_the_smallest_at_the_highest_difficulty(kind, shape):
  case = draw(kind, 2, shape=shape, difficulty=4.0)
  assert case.image.shape == case.label.shape == shape and case.image.std() > 10
  labels = {'vpi': {0, 1, 2, 3}, 'volume': {0, 1}, 'xray': {0, 1, 2}}[kind]
  assert set(np.unique(case.label)) == labels
  if kind == 'vpi':
    assert 0 < draw('vpi', shape=(128, 32), difficulty=4.0).truth.hole_fraction < 0.2
  else:
    points = case.truth.landmarks if kind == 'xray' else case.landmarks
    assert (points > -0.5).all() and (points < np.array(shape) - 0.5).all()


@pytest.mark.parametrize('kind', ['vpi', 'volume'])
def test_a_speckle_of_ones_own(kind):
  shape = (256, 64) if kind == 'vpi' else (96, 24, 12)
  calls = []

  def smooth(rng, amplitude, spacing):
    calls.append((amplitude.dtype, amplitude.shape, spacing))
    return amplitude

  clean, plain = draw(kind, 1, shape=shape, difficulty=0), draw(kind, 1, shape=shape)
  same = draw(kind, 1, shape=shape, difficulty=0, speckle=smooth)
  np.testing.assert_array_equal(clean.image, same.image)
  assert calls[0][:2] == (np.float32, shape)
  np.testing.assert_allclose(calls[0][2], clean.truth.spacing)
  dull = draw(kind, 1, shape=shape, speckle=smooth)
  np.testing.assert_array_equal(plain.label, dull.label)
  roughness = [np.abs(np.diff(case.image.astype(float), axis=1)).mean() for case in (dull, plain)]
  assert roughness[0] < 0.9 * roughness[1]
  for broken in (lambda r, a, s: a[1:], lambda r, a, s: a * np.nan):
    with pytest.raises(ValueError, match='finite amplitudes of shape'):
      draw(kind, 1, shape=shape, speckle=broken)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('arguments, words', [
    *((dict(seed=seed), 'seed must be') for seed in (-1, 1.5, 'a', (), (1, -2), None)),
    *((dict(difficulty=value), 'difficulty must be')
      for value in (-0.1, np.nan, np.inf, 5, 'hard', None)),
    *((dict(shape=shape), 'shape must be') for shape in (
        512, (512,), (512, 128, 1, 1), (63, 16), (64, 15), (47, 16, 8), (512.5, 128, 1),
        ('a', 'b', 'c'), (np.nan, 128))),
    (dict(family='scoliosis'), 'double_major')])
def test_wrong_arguments_are_refused_in_one_sentence(kind, arguments, words):
  with pytest.raises(ValueError, match=words) as caught:
    draw(kind, **arguments)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('kind, arguments, words', [
    ('vpi', dict(shape=(63, 16)), '2 integers of at least 64 x 16'),
    ('volume', dict(shape=(96, 24)), '3 integers of at least 48 x 16 x 8'),
    *(('xray', dict(artifacts=names), 'necklace, rods')
      for names in ('rods', ['ring'], ['rods', 3]))])
def test_the_smallest_shape_and_the_known_artifacts_are_named(kind, arguments, words):
  with pytest.raises(ValueError, match=words):
    draw(kind, **arguments)


@pytest.mark.parametrize('kind', KINDS)
def test_the_documented_examples_run(kind):
  found = doctest.testmod(inspect.getmodule(getattr(phantoms, kind)))
  assert found.attempted and not found.failed
