"""The centroid loss: its published value, its surrogate gradient, and what the surrogate is for."""
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from spinejax import losses
from spinejax.losses import centroid
from benchmarks import centroid_toy as toy

centroid_dice = jax.jit(
    centroid.centroid_dice, static_argnames=('gradient', 'distance_floor', 'connectivity'))


def slow_distance(true, predicted):
  """Equations 2 and 3 as printed, and the difference of the counts."""
  lists = []
  for mask in (true, predicted):
    label, count = ndimage.label(mask)
    lists.append(np.array(ndimage.center_of_mass(mask, label, range(1, count + 1))).reshape(-1, 2))
  gamma, phi = lists
  if not len(gamma):
    return 1.0, len(phi)
  if not len(phi):
    return math.hypot(*true.shape), len(gamma)
  distance = [min(np.linalg.norm(g - p) for p in phi) for g in gamma]
  return float(np.mean(distance)), abs(len(gamma) - len(phi))


def slow_loss(probs, target, floor):
  """Equations 1 to 6 as printed."""
  hard = probs >= 0.5
  dice = 1 - 2 * (target * probs).sum() / (target.sum() + probs.sum() + 1e-7)
  coronal, dn_coronal = slow_distance(target.max(2) > 0, hard.max(2))
  sagittal, dn_sagittal = slow_distance(target.max(1) > 0, hard.max(1))
  return dice * (coronal + sagittal + floor) * max(1, dn_coronal + dn_sagittal)


def random_case(random, shape):
  """Blobs, noise, nothing or everything, in truth and in prediction."""
  probs, target = (random.random(shape) ** random.choice([0.3, 1, 4, 60]) for _ in range(2))
  if random.random() < 0.15:
    probs[...] = random.choice([0.0, 1.0])
  target = target > random.choice([0.5, 0.9, 0.99, 1.0])
  return probs.astype(np.float32), target.astype(np.float32)


@pytest.mark.parametrize('gradient, floor', [('published', 0.0), ('straight_through', 1.0)])
def test_the_value_is_that_of_the_equations(gradient, floor):
  random, shape = np.random.default_rng(0), (9, 7, 5)
  cases = [random_case(random, shape) for _ in range(200)]
  probs, target = (np.stack(arrays) for arrays in zip(*cases))
  value, _ = centroid_dice(probs, target, gradient=gradient, distance_floor=floor)
  expected = [slow_loss(p.astype(np.float64), t, floor) for p, t in cases]
  np.testing.assert_allclose(value, expected, rtol=2e-5, atol=1e-5)


def test_a_case_by_hand():
  """One lamina predicted two voxels too low, and a false one far away."""
  probs, target = np.zeros((1, 12, 4, 4), np.float32), np.zeros((1, 12, 4, 4), np.float32)
  target[0, 2, 1, 1] = probs[0, 4, 1, 1] = probs[0, 10, 3, 2] = 1
  value, parts = centroid_dice(probs, target, distance_floor=0.0)
  np.testing.assert_allclose(parts['dice'], 1)
  np.testing.assert_allclose(parts['coronal_distance'], 2)
  np.testing.assert_allclose(parts['sagittal_distance'], 2)
  np.testing.assert_allclose(parts['count_difference'], 2)
  np.testing.assert_allclose(value, 1 * (2 + 2) * 2)


def test_the_published_gradient_is_that_of_dice_times_a_constant():
  random = np.random.default_rng(3)
  probs, target = (x[None] for x in random_case(random, (9, 7, 5)))
  loss = lambda p: jnp.sum(centroid_dice(p, target, gradient='published')[0])
  dice = lambda p: jnp.sum(losses.dice.dice(p[..., None], target[..., None]))
  (value, gradient), (of_dice, expected) = jax.jit(lambda p: (
      jax.value_and_grad(loss)(p), jax.value_and_grad(dice)(p)))(probs)
  np.testing.assert_allclose(gradient, expected * value / of_dice, rtol=1e-4, atol=1e-8)


def test_the_surrogate_gradient_is_the_one_it_claims_to_be():
  """Against H(|g - s|) written out with the soft centroid of each region, as plain sums."""
  shape = (24, 20)
  truth = np.zeros(shape, bool)
  truth[4:7, 4:7] = truth[16:19, 13:16] = True
  probs = toy.blobs(jnp.float32([[7.2, 4.4], [16.9, 11.1], [3, 16]]), shape)
  d = lambda p: centroid.projected_distance(p, jnp.asarray(truth))[0]
  gradient = np.asarray(jax.jit(jax.grad(d))(probs))
  label, _ = ndimage.label(np.asarray(probs) >= 0.5)
  distance, nearest = ndimage.distance_transform_edt(label == 0, return_indices=True)
  region = np.where(distance <= 3, label[tuple(nearest)], 0)
  expected, places = np.zeros(shape), np.moveaxis(np.indices(shape), 0, -1).astype(float)
  for g in ((5.0, 5.0), (17.0, 14.0)):
    hard = {n: places[label == n].mean(0) for n in range(1, label.max() + 1)}
    j = min(hard, key=lambda n: np.linalg.norm(hard[n] - g))
    inside = region == j
    mass = np.asarray(probs, float)[inside].sum()
    s = (np.asarray(probs, float)[..., None] * places)[inside].sum(0) / mass
    offset = s - g
    length = np.linalg.norm(offset)
    pull = offset if length < 1 else offset / length
    expected[inside] += ((places[inside] - s) @ pull) / mass / 2
  np.testing.assert_allclose(gradient, expected, atol=2e-5)


def test_the_surrogate_agrees_with_shifts_of_the_hard_distance():
  """Moving a blob by whole voxels moves the hard distance as the surrogate's slope says."""
  shape, true = (40, 24), np.zeros((40, 24), bool)
  true[19:22, 11:14] = True
  at = lambda y: toy.blobs(jnp.stack([y, jnp.float32(12)])[None], shape)
  d = jax.jit(jax.value_and_grad(
      lambda y: centroid.projected_distance(at(y), jnp.asarray(true))[0]))
  for start in (6.0, 9.0, 30.0):
    before, (_, slope), after = (d(jnp.float32(start + step)) for step in (-1, 0, 1))
    np.testing.assert_allclose(slope, (after[0] - before[0]) / 2, rtol=0.05)


def test_disjoint_blobs_arrive_by_the_surrogate_alone():
  """Six laminae, predicted 7 voxels off: Dice, and so its published multiple, moves none."""
  with jax.numpy_dtype_promotion('standard'):  # optax's Adam mixes int32 and float
    assert toy.error(toy.descend('dice', toy.start(), 60)[-1]) > 6
    arrived = toy.descend('straight_through', toy.start(), 150)[-1]
    arrived = toy.descend('straight_through', arrived, 60, 0.01)[-1]
  assert toy.error(arrived) < 0.05
  hard, target = np.asarray(toy.blobs(jnp.asarray(arrived), toy.SHAPE)) >= 0.5, toy.laminae()[0]
  assert 2 * (hard * target).sum() / (hard.sum() + target.sum()) > 0.95


HOSTILE = {
    'no lamina': (0.3, 0.0), 'nothing predicted': (0.0, 'one'), 'all predicted': (1.0, 'one'),
    'neither': (0.0, 0.0), 'thousands of components': ('checkerboard', 'one'),
    'all true': (0.6, 1.0)}


@pytest.mark.parametrize('gradient', ['published', 'straight_through'])
def test_hostile_volumes_are_finite(gradient):
  shape = (1, 12, 10, 8)
  one = np.zeros(shape, np.float32)
  one[0, 3:6, 3:6, 3:6] = 1
  board = (np.indices(shape).sum(0) % 2).astype(np.float32)
  volumes = {'one': one, 'checkerboard': board}
  loss = jax.jit(jax.value_and_grad(
      lambda p, target: jnp.sum(centroid.centroid_dice(p, target, gradient=gradient)[0])))
  for name, fills in HOSTILE.items():
    probs, target = (volumes[fill] if isinstance(fill, str) else np.full(shape, fill, np.float32)
                     for fill in fills)
    value, slope = loss(probs, target)
    assert np.isfinite(value) and np.isfinite(slope).all(), name


def test_the_loss_of_a_network():
  random = np.random.default_rng(5)
  logits = jnp.asarray(random.normal(size=(2, 8, 6, 4, 1)), jnp.float32)
  batch = {'label': jnp.asarray(random.integers(0, 3, (2, 8, 6, 4)), jnp.int32)}
  loss = losses.create_loss({'name': 'centroid', 'distance_floor': 0.5})
  value, parts = jax.jit(loss)({'logits': logits}, batch)
  expected, _ = centroid_dice(
      jax.nn.sigmoid(logits[..., 0]), (batch['label'] > 0).astype(jnp.float32), distance_floor=0.5)
  np.testing.assert_allclose(value, expected, rtol=1e-6)
  assert value.shape == (2,) and all(part.shape == (2,) for part in parts.values())
  with pytest.raises(ValueError, match="loss 'centroid' expects volumes"):
    loss({'logits': logits[:, 0]}, {'label': batch['label'][:, 0]})
