"""ROC curves and areas from histograms that add up over batches, cases and hosts.

Bins are uniform in asinh(l) of the logit l = log p - log(1 - p), from LOWEST to HIGHEST: steps of
3e-4 in the logit about p = 1/2, of 0.03 % of the logit far from it. The range is that of
float32, so an undecided network and a saturated one, whose probabilities crowd within 1e-4 of 0
or 1, are both resolved; bins uniform in p would hold nearly all of the latter in one.
Probabilities of exactly 0 and 1 fall in the end bins. Scores of one bin count as ties.
"""
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

BINS = 2 ** 15
LOWEST, HIGHEST = np.arcsinh(-104.0), np.arcsinh(24.0)  # float32 in (0, 1): logits -103.3 to 16.6


def score_histogram(scores: np.ndarray, positive: np.ndarray, bins: int = BINS) -> np.ndarray:
  """Counts of negatives and of positives by score.

  Args:
    scores: float [...], probabilities; 1e-5 beyond [0, 1], as resizing leaves, is cut off.
    positive: bool, shape of `scores`, the truth.
    bins: number of bins.

  Returns:
    int64 [2, bins], negatives then positives; the sum over cases is the histogram of all.

  Raises:
    ValueError: a score further outside [0, 1], or not a number.
  """
  scores = np.asarray(scores, np.float64).ravel()
  if not np.all((scores >= -1e-5) & (scores <= 1 + 1e-5)):
    raise ValueError('scores of a ROC curve must be probabilities in [0, 1], got '
                     f'{scores.min()}..{scores.max()}')
  scores = np.clip(scores, 0, 1)
  with np.errstate(divide='ignore'):
    logits = np.log(scores) - np.log1p(-scores)
  position = (np.arcsinh(logits) - LOWEST) * (bins / (HIGHEST - LOWEST))
  index = np.clip(position, 0, bins - 1).astype(np.int64)
  index += bins * np.asarray(positive, bool).ravel()
  return np.bincount(index, minlength=2 * bins).reshape(2, bins)


def auc(histogram: np.ndarray) -> float | None:
  """Probability that a positive scores above a negative, ties counting half.

  Args:
    histogram: int [2, bins], as of `score_histogram`.

  Returns:
    The area under the ROC curve, None without positives or without negatives: it is undefined.
  """
  negatives, positives = np.asarray(histogram, np.float64)
  if not negatives.any() or not positives.any():
    return None
  below = np.cumsum(negatives) - negatives / 2
  return float(np.sum(positives * below) / (positives.sum() * negatives.sum()))


def roc_curve(
    histogram: np.ndarray, max_points: int | None = None) -> tuple[np.ndarray, np.ndarray] | None:
  """False and true positive rates as the threshold falls from 1 to 0.

  Args:
    histogram: int [2, bins], as of `score_histogram`.
    max_points: None keeps a point for every occupied bin; a number keeps about so many, evenly
      spaced along the curve, for drawing.

  Returns:
    (fpr, tpr), float64 [points] each, both from 0 to 1 and never falling; None without positives
    or without negatives.
  """
  histogram = np.asarray(histogram)
  totals = histogram.sum(axis=1, keepdims=True)
  if not totals.all():
    return None
  occupied = histogram[:, histogram.any(axis=0)][:, ::-1]
  rates = np.concatenate([np.zeros((2, 1)), np.cumsum(occupied, axis=1) / totals], axis=1)
  if max_points is not None and rates.shape[1] > max_points:
    length = rates.sum(axis=0)
    rates = rates[:, np.unique(np.searchsorted(length, np.linspace(0, length[-1], max_points)))]
  return rates[0], rates[1]


def class_histograms(
    probs: np.ndarray, label: np.ndarray, classes: Sequence[str],
    bins: int = BINS) -> dict[str, np.ndarray]:
  """Histograms of every bone against the rest and, of several, of 'bone' against background.

  The score of 'bone' is 1 - p_background, taken as the sum of the other probabilities to keep
  its precision near 0. The background's own curve would be that of 'bone' mirrored.

  Args:
    probs: float [..., K] as of `segmentation.class_probs`.
    label: int [...] in [0, K); with K = 2 every label above 0 is the bone.
    classes: K names, background first.
    bins: number of bins.

  Returns:
    {name: int64 [2, bins]}.
  """
  bone = np.sum(probs[..., 1:], axis=-1)
  if len(classes) == 2:
    return {classes[1]: score_histogram(bone, label > 0, bins)}
  histograms = {name: score_histogram(probs[..., index], label == index, bins)
                for index, name in enumerate(classes) if index}
  return histograms | {'any_foreground': score_histogram(bone, label > 0, bins)}


def summarize(
    histograms: Mapping[str, np.ndarray], max_points: int = 1000) -> dict[str, dict[str, Any]]:
  """`{name: {'fpr': list, 'tpr': list, 'auc': float}}` of python values, for JSON and drawing.

  A name without positives or without negatives has empty lists and auc None.
  """
  summary = {}
  for name, histogram in histograms.items():
    fpr, tpr = roc_curve(histogram, max_points) or (np.empty(0), np.empty(0))
    summary[name] = {'fpr': fpr.tolist(), 'tpr': tpr.tolist(), 'auc': auc(histogram)}
  return summary
