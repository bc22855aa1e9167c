"""Overlap metrics: numbers by hand, and independence of batches, padding and array kind."""
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from spinejax.metrics import segmentation

CLASSES = ('background', 'rib', 'lump')
LABEL = np.array([[[0, 0, 1], [0, 1, 1]], [[0, 0, 0], [0, 0, 2]]], np.int32)
PREDICTION = np.array([[[0, 1, 1], [0, 1, 0]], [[0, 0, 0], [0, 0, 0]]], np.int32)
# Case 0: rib hits 2, false positives 1, misses 1. Case 1: the lump is missed, no rib anywhere.
COUNTS = np.array([[[2, 1, 1], [2, 1, 1], [0, 0, 0]], [[5, 1, 0], [0, 0, 0], [0, 0, 1]]])
both_kinds = pytest.mark.parametrize('kind', [np.asarray, jnp.asarray])
count_on_device = jax.jit(segmentation.confusion_counts, static_argnums=2)


def random_case(seed, shape=(4, 6, 7), num_classes=4):
  random = np.random.default_rng(seed)
  return random.integers(0, num_classes, (2, *shape)).astype(np.int32)


@both_kinds
def test_counts_by_hand(kind):
  counts = segmentation.confusion_counts(kind(PREDICTION), kind(LABEL), 3)
  assert counts.dtype == (np.int64 if kind is np.asarray else np.int32)
  np.testing.assert_array_equal(counts, COUNTS)
  one = segmentation.confusion_counts(  # one logit: all foreground is one class
      kind(np.array([[0, 1, 1, 0]], np.int32)), kind(np.array([[0, 1, 2, 3]], np.int32)), 1)
  np.testing.assert_array_equal(one, [[[1, 1, 0], [2, 0, 1]]])


def test_devices_padding_and_batches_do_not_change_the_table():
  prediction, label = random_case(0)
  mesh = jax.sharding.Mesh(jax.devices()[:2], ('data',))
  batch = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  valid, parts = np.array([1, 1, 1, 0], np.float32), []
  for rows in ([0, 1, 2, 2], [3, 0, 1, 3]):
    counts = count_on_device(*(jax.device_put(x, batch) for x in (prediction[rows], label[rows])),
                             4, jax.device_put(valid, batch))
    assert isinstance(counts, jax.Array)
    np.testing.assert_array_equal(counts, segmentation.confusion_counts(
        prediction[rows], label[rows], 4, valid))
    np.testing.assert_array_equal(counts[3], np.zeros((4, 3)))
    parts.append(np.asarray(counts)[:3].astype(np.int64))
  whole = segmentation.confusion_counts(prediction, label, 4)
  assert segmentation.summarize(np.concatenate(parts)[:4], 'abcd') == segmentation.summarize(
      whole, 'abcd')


@pytest.mark.parametrize('value', [3, 255, -1])
def test_label_outside_the_classes(value):
  label = LABEL.copy()
  label[0, 0, 0] = value
  with pytest.raises(ValueError, match=r'labels must be in 0\.\.2, got'):
    segmentation.confusion_counts(PREDICTION, label, 3)


def test_case_metrics_by_hand():
  of_rib = {'dice': 4 / 6, 'iou': 2 / 4, 'recall': 2 / 3, 'precision': 2 / 3}
  assert segmentation.case_metrics(COUNTS[0], CLASSES) == {
      **{metric: {'background': value, 'rib': value, 'lump': None, 'mean_foreground': value,
                  'mean_all': value} for metric, value in of_rib.items()},
      'accuracy': {'mean_foreground': 2 / 3, 'mean_all': 4 / 6}}


def test_undefined_ratios_of_a_case():
  """Case 1 misses its lump: Dice 0 and recall 0, but nothing was predicted to be precise about."""
  metrics = segmentation.case_metrics(COUNTS[1], CLASSES)
  assert metrics['dice'] == {'background': 10 / 11, 'rib': None, 'lump': 0.0,
                             'mean_foreground': 0.0, 'mean_all': 5 / 11}
  assert metrics['recall']['lump'] == 0.0 and metrics['precision']['lump'] is None
  assert metrics['precision']['mean_foreground'] is None
  assert metrics['precision']['mean_all'] == metrics['precision']['background'] == 5 / 6
  assert metrics['accuracy'] == {'mean_foreground': 0.0, 'mean_all': 5 / 6}


def test_summary_by_hand():
  per_image, pooled = segmentation.summarize(COUNTS, CLASSES)
  background = (4 / 6 + 10 / 11) / 2
  assert per_image['dice'] == pytest.approx({
      'background': background, 'rib': 4 / 6, 'lump': 0.0,
      'mean_foreground': (4 / 6 + 0) / 2, 'mean_all': (background + 4 / 6 + 0) / 3})
  assert per_image['dice_sd']['background'] == pytest.approx((10 / 11 - 4 / 6) / np.sqrt(2))
  assert per_image['dice_sd']['rib'] is None
  assert per_image['dice_sd']['mean_foreground'] == pytest.approx((4 / 6) / np.sqrt(2))
  assert per_image['accuracy'] == pytest.approx(
      {'mean_foreground': (2 / 3 + 0) / 2, 'mean_all': (4 / 6 + 5 / 6) / 2})
  assert pooled['dice'] == pytest.approx({
      'background': 14 / 17, 'rib': 4 / 6, 'lump': 0.0,
      'mean_foreground': 1 / 3, 'mean_all': (14 / 17 + 4 / 6) / 3})
  assert pooled['accuracy'] == pytest.approx({'mean_foreground': 2 / 4, 'mean_all': 9 / 12})
  assert pooled['precision']['lump'] is None


@pytest.mark.parametrize('cases', [0, 1, 2])
def test_summary_of_few_cases_is_json_without_nan(cases):
  per_image, pooled = table = segmentation.summarize(COUNTS[:cases], CLASSES)
  assert json.loads(json.dumps(table, allow_nan=False)) == list(table)
  for metric, values in pooled.items():
    if cases < 2:
      assert per_image[metric] == values
      assert set(per_image[f'{metric}_sd'].values()) == {None}
    if not cases:
      assert set(values.values()) == {None}


def test_counts_beyond_32_bits_are_exact():
  counts = np.array([[[3_000_000_000, 1, 0], [1, 0, 1]]] * 2)
  _, pooled = segmentation.summarize(counts, ('background', 'bone'))
  assert pooled['accuracy']['mean_all'] == 3_000_000_001 / 3_000_000_002


def test_counts_and_names_must_fit():
  with pytest.raises(ValueError, match=r'counts of 2 classes must be \[2, 3\], got \[3, 3\]'):
    segmentation.case_metrics(COUNTS[0], ('background', 'bone'))


def test_any_foreground_is_all_foreground_classes_as_one():
  prediction, label = random_case(5)
  counts = segmentation.confusion_counts(prediction, label, 4)
  as_one = segmentation.confusion_counts((prediction > 0).astype(np.int32), label, 1)
  found = segmentation.summarize(counts, 'abcd', any_foreground=True)
  for table, binary in zip(found, segmentation.summarize(as_one, 'ab')):
    for metric, values in table.items():
      assert values.pop('any_foreground', None) == binary[metric].get('b')
  assert found == segmentation.summarize(counts, 'abcd')
  two = segmentation.case_metrics(as_one[0], 'ab', any_foreground=True)
  assert two == segmentation.case_metrics(as_one[0], 'ab')


@both_kinds
def test_class_probs(kind):
  logits = np.random.default_rng(0).normal(0, 3, (2, 3, 4)).astype(np.float32)
  probs = segmentation.class_probs(kind(logits))
  assert isinstance(probs, type(kind(logits))) and probs.dtype == np.float32
  np.testing.assert_allclose(probs, scipy.special.softmax(logits, axis=-1), rtol=1e-5)
  binary = segmentation.class_probs(kind(logits[..., :1]))
  np.testing.assert_allclose(binary[..., 1], scipy.special.expit(logits[..., 0]), rtol=1e-5)
  np.testing.assert_allclose(binary[..., 0], scipy.special.expit(-logits[..., 0]), rtol=1e-5)
  huge = segmentation.class_probs(kind(np.array([[1e4, -1e4, 0]], np.float32)))
  np.testing.assert_array_equal(huge, [[1, 0, 0]])


@both_kinds
def test_predict_labels(kind):
  several = segmentation.predict_labels(kind(np.array([[0.1, 0.3, 0.2], [1, 1, 0]], np.float32)))
  np.testing.assert_array_equal(several, [1, 0])
  one = segmentation.predict_labels(kind(np.array([[-0.1], [0.0], [5.0]], np.float32)))
  np.testing.assert_array_equal(one, [0, 1, 1])
  assert several.dtype == one.dtype == np.int32


@pytest.mark.parametrize('logits, label, expected', [
    (np.log([[[0.2, 0.8], [0.5, 0.5]]]), [[1, 0]], -(np.log(0.8) + np.log(0.5)) / 2),
    ([[[0.0], [np.log(3)]]], [[1, 0]], -(np.log(0.5) + np.log(0.25)) / 2),  # p = 1/2 and 3/4
    ([[1e4, -1e4]], [1], 2e4)])
def test_cross_entropy_by_hand(logits, label, expected):
  assert segmentation.cross_entropy(np.float32(logits), np.array(label)) == pytest.approx(expected)
