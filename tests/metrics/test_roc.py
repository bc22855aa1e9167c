"""ROC: areas against a sort of every score, curves, and what has none."""
import numpy as np
import pytest
import scipy.special
import scipy.stats

from spinejax import runs
from spinejax.metrics import roc
from spinejax.metrics.results import RocCurve, curves_from_json


def sorted_auc(scores, positive):
  """The rank statistic of Mann and Whitney, ties at their mean rank."""
  ranks = scipy.stats.rankdata(scores)
  count, others = positive.sum(), (~positive).sum()
  return (ranks[positive].sum() - count * (count + 1) / 2) / (count * others)


def area(histogram):
  return roc.roc_curve(histogram).auc


def scored(negative_logits, positive_logits):
  logits = np.concatenate([negative_logits, positive_logits])
  return (scipy.special.expit(logits).astype(np.float32),
          np.arange(len(logits)) >= len(negative_logits))


RANDOM = np.random.default_rng(0)
SCORES, POSITIVE = scored(RANDOM.normal(-1, 1, 20_000), RANDOM.normal(1, 1, 2_000))
# Networks that put their probabilities in very different places.
NETWORKS = {
    **{name: scored(RANDOM.normal(*negative, 20_000), RANDOM.normal(*positive, 2_000))
       for name, negative, positive in (
           ('separable', (-4, 1), (3, 1)), ('overlapping', (-1, 2), (1, 2)),
           ('untrained', (-1.1, 0.02), (-1.09, 0.02)), ('saturated at 0', (-16, 2), (-10, 6)),
           ('saturated beyond 1e-30', (-80, 3), (-78, 3)), ('saturated at 1', (14, 2), (15, 2)))},
    'at the ends': scored(RANDOM.choice([-200, 0, 200], 5_000),
                          RANDOM.choice([-200, 0, 0, 200], 5_000)),
    'rounded to tenths': (np.round(SCORES, 1), POSITIVE), 'inverted': (1 - SCORES, POSITIVE),
    'all equal': (np.full_like(SCORES, 0.3), POSITIVE),
    'random': (SCORES, RANDOM.uniform(size=len(SCORES)) < 0.1)}


@pytest.mark.parametrize('name', NETWORKS)
def test_area_equals_that_of_sorted_scores(name):
  scores, positive = NETWORKS[name]
  if name == 'saturated at 0':
    assert np.mean(scores[~positive] < 1e-4) > 0.98
  assert abs(area(roc.score_histogram(scores, positive)) - sorted_auc(scores, positive)) < 1e-4


def test_curve_and_area_by_hand():
  """Pairs: 0.8 beats both, 0.4 beats 0.1 and ties 0.4."""
  scores, positive = np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, False, True, True])
  assert roc.roc_curve(roc.score_histogram(scores, positive)) == RocCurve(
      (0, 0, 0.5, 1), (0, 0.5, 1, 1), 3.5 / 4)


def test_histograms_add_up():
  random = np.random.default_rng(1)
  scores, positive = random.uniform(size=(6, 50)), random.uniform(size=(6, 50)) < 0.3
  whole = roc.score_histogram(scores, positive)
  parts = sum(roc.score_histogram(*case) for case in zip(scores, positive))
  assert whole.dtype == np.int64
  np.testing.assert_array_equal(parts, whole)
  np.testing.assert_array_equal(whole.sum(axis=1), [np.sum(~positive), np.sum(positive)])


@pytest.mark.parametrize('max_points', [2 * roc.BINS, 200])
def test_curve_never_falls_and_holds_the_area(max_points):
  random = np.random.default_rng(2)
  scores, positive = scored(random.normal(-6, 3, 20_000), random.normal(-3, 3, 2_000))
  histogram = roc.score_histogram(scores, positive)
  curve = roc.roc_curve(histogram, max_points)
  fpr, tpr = np.array([curve.fpr, curve.tpr])
  assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
  assert (np.diff(fpr) >= 0).all() and (np.diff(tpr) >= 0).all()
  assert curve.auc == area(histogram)
  below = np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2)
  assert abs(below - curve.auc) < (1e-9 if max_points > roc.BINS else 1e-3)
  assert max_points > roc.BINS or 0.8 * max_points < len(fpr) <= max_points


def test_curves_survive_their_file(tmp_path):
  curves = {'file': RocCurve((0, 1 / 3, 1), (0, 2 / 3, 1), 2 / 3), 'lump': RocCurve((), (), None)}
  roc.write_curves(tmp_path / 'roc.json', curves)
  read = curves_from_json(runs.read_json(tmp_path / 'roc.json'))
  assert read['file'] == RocCurve((0, 0.333333, 1), (0, 0.666667, 1), 2 / 3)
  assert read['lump'] == curves['lump']
  for content in ([1], {'file': {'fpr': [0]}}, {'file': {'fpr': ['a'], 'tpr': [0], 'auc': None}}):
    with pytest.raises(ValueError, match='expected'):
      curves_from_json(content)


@pytest.mark.parametrize('truth', [[True, True], [False, False], []])
def test_one_kind_of_truth_has_no_curve(truth):
  histogram = roc.score_histogram(np.array([0.2, 0.7])[:len(truth)], np.array(truth, bool))
  assert roc.roc_curve(histogram) == RocCurve((), (), None)


def test_class_histograms_are_one_against_the_rest():
  random = np.random.default_rng(3)
  classes = ('background', 'rib', 'thoracic process', 'lump')
  probs = scipy.special.softmax(random.normal(size=(8, 9, 4)), axis=-1).astype(np.float32)
  label = random.integers(0, 4, (8, 9))
  histograms = roc.class_histograms(probs, label, classes)
  assert list(histograms) == ['rib', 'thoracic process', 'lump', 'any_foreground']
  for index, name in enumerate(classes[1:], start=1):
    expected = sorted_auc(probs[..., index].ravel(), (label == index).ravel())
    assert area(histograms[name]) == pytest.approx(expected, abs=1e-3)
  expected = sorted_auc(-probs[..., 0].ravel(), (label > 0).ravel())
  assert area(histograms['any_foreground']) == pytest.approx(expected, abs=1e-3)


def test_foreground_scores_near_zero_keep_their_order():
  """1 - p_background is 0 in float32 at all three pixels; the other probabilities are not."""
  probs = np.array([[1, 1e-9, 1e-9], [1, 1e-12, 1e-10], [1, 3e-9, 0]], np.float32)
  histogram = roc.class_histograms(probs, np.array([0, 0, 2]), ('background', 'rib', 'lump'))
  assert area(histogram['any_foreground']) == 1.0


def test_two_classes_have_one_curve():
  probs = np.array([[0.9, 0.1], [0.3, 0.7], [0.4, 0.6]], np.float32)
  histograms = roc.class_histograms(probs, np.array([0, 1, 3]), ('background', 'bone'))
  assert list(histograms) == ['bone'] and area(histograms['bone']) == 1.0


def test_rounding_beyond_the_ends_is_cut_off():
  histogram = roc.score_histogram(np.array([-1e-7, 1 + 1e-6]), np.array([False, True]))
  assert histogram[0, 0] == 1 and histogram[1, -1] == 1


@pytest.mark.parametrize('value', [-0.1, 1.1, np.nan, np.inf])
def test_scores_that_are_no_probabilities(value):
  with pytest.raises(ValueError, match=r'must be probabilities in \[0, 1\], got'):
    roc.score_histogram(np.array([0.5, value]), np.array([True, False]))
