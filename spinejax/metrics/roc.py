"""ROC curves and their areas, from histograms that add up over batches, cases and hosts.

Bins are uniform in asinh(l) of the logit l = log p - log(1 - p), from LOWEST to HIGHEST, the range
of float32. A bin is 3e-4 wide around p = 1/2 and 0.03 % of the logit far from it. This resolves an
undecided network as well as a saturated one, whose probabilities lie within 1e-4 of 0 or 1; of bins
that are uniform in p one would hold nearly all of the latter. Probabilities of exactly 0 and 1 fall
in the end bins. Scores in one bin count as ties.

A histogram is int64 [2, BINS]: the counts of negatives and of positives by score.
"""
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence

import numpy as np

from spinejax import runs
from spinejax.metrics.results import RocCurve

BINS = 2 ** 15
LOWEST, HIGHEST = np.arcsinh(-104.0), np.arcsinh(24.0)  # float32 in (0, 1): logits -103.3 to 16.6
TOLERANCE = 1e-5  # by which resized probabilities may leave [0, 1]


def score_histogram(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
  """The histogram of probabilities [...] with the truth `positive`, bool [...].

  Raises:
    ValueError: a score is more than TOLERANCE outside of [0, 1], or not a number.
  """
  scores = np.asarray(scores, np.float64).ravel()
  if not np.all((scores >= -TOLERANCE) & (scores <= 1 + TOLERANCE)):
    raise ValueError('scores of a ROC curve must be probabilities in [0, 1], got '
                     f'{scores.min()}..{scores.max()}')
  scores = np.clip(scores, 0, 1)
  with np.errstate(divide='ignore'):
    logits = np.log(scores) - np.log1p(-scores)
  position = (np.arcsinh(logits) - LOWEST) * (BINS / (HIGHEST - LOWEST))
  index = np.clip(position, 0, BINS - 1).astype(np.int64)
  index += BINS * np.asarray(positive, bool).ravel()
  return np.bincount(index, minlength=2 * BINS).reshape(2, BINS)


def class_histograms(probs: np.ndarray, label: np.ndarray, classes: Sequence[str]
                     ) -> dict[str, np.ndarray]:
  """Histogram of each foreground class against the rest and, with several, of 'any_foreground'.

  Args:
    probs: float [..., K], as of `segmentation.class_probs`.
    label: int [...]; with K = 2 every label above 0 is foreground.
    classes: K names, background first.
  """
  foreground = foreground_histogram(probs, label)
  if len(classes) == 2:
    return {classes[1]: foreground}
  histograms = {name: score_histogram(probs[..., index], label == index)
                for index, name in enumerate(classes) if index}
  return histograms | {'any_foreground': foreground}


def foreground_histogram(probs: np.ndarray, label: np.ndarray) -> np.ndarray:
  """Histogram of all foreground classes as one; the arguments are those of `class_histograms`.

  The score is 1 - p_background, computed as the sum of the other probabilities, which is precise
  near 0.
  """
  return score_histogram(np.sum(probs[..., 1:], axis=-1), label > 0)


def roc_curve(histogram: np.ndarray, max_points: int = 1000) -> RocCurve:
  """False and true positive rates as the threshold falls from 1 to 0, and the area below them.

  The area is the probability that a positive scores above a negative; ties count half. Without
  positives or negatives the curve is empty and the area None.

  Args:
    histogram: of `score_histogram`.
    max_points: keeps about so many of the points, evenly along the curve. The area is that of all.
  """
  totals = histogram.sum(axis=1, keepdims=True)
  if not totals.all():
    return RocCurve((), (), None)
  negatives, positives = histogram.astype(np.float64)
  below = np.cumsum(negatives) - negatives / 2
  area = float(np.sum(positives * below) / (positives.sum() * negatives.sum()))
  occupied = histogram[:, histogram.any(axis=0)][:, ::-1]
  rates = np.concatenate([np.zeros((2, 1)), np.cumsum(occupied, axis=1) / totals], axis=1)
  if rates.shape[1] > max_points:
    length = rates.sum(axis=0)
    rates = rates[:, np.unique(np.searchsorted(length, np.linspace(0, length[-1], max_points)))]
  fpr, tpr = rates.tolist()
  return RocCurve(tuple(fpr), tuple(tpr), area)


def write_curves(path: str | os.PathLike, curves: Mapping[str, RocCurve]) -> None:
  """Writes {class: curve} as JSON, with six decimals of each rate."""
  content = {name: dataclasses.asdict(curve) | {
      rate: [round(value, 6) for value in getattr(curve, rate)] for rate in ('fpr', 'tpr')}
             for name, curve in curves.items()}
  runs.write_text(path, json.dumps(content) + '\n')
