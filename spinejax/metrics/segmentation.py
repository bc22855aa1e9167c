"""Overlap of predicted and true classes, from integer counts of each case.

Counts add up over cases, so no value depends on the batch size, its padding or the number of
devices. The foreground is all classes but the background, class 0. The tables are:

  name                                value
  per_image[metric][class]            mean over the cases in which the class's metric is defined
  per_image[metric + '_sd'][...]      standard deviation over those cases (n - 1 degrees of freedom)
  pooled[metric][class]               from the added counts of all cases
  ...[metric]['mean_foreground']      mean of the values of the foreground classes
  ...[metric]['mean_all']             mean of the values of all classes
  ...[metric]['any_foreground']       all foreground classes as one class
  ...['accuracy']['mean_foreground']  share of the true foreground pixels that get their class
  ...['accuracy']['mean_all']         share of all pixels that get their class

The metrics of a class are dice = 2 TP / (2 TP + FP + FN), iou = TP / (TP + FP + FN),
recall = TP / (TP + FN) and precision = TP / (TP + FP), as fractions. A ratio without a denominator
is undefined: its value is None and left out of means.

RSN-U-net and SEAM (Zhao et al., 2021) print per-image means, SEAM also the foreground mean. SADANet
pools pixels, prints means of all classes for its own rows, and calls recall "Acc".
"""
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from spinejax.metrics.results import ClassTable, mean_sd

Array = TypeVar('Array', jax.Array, np.ndarray)  # results are arrays of the same library

METRICS = ('dice', 'iou', 'recall', 'precision')


def class_probs(logits: Array) -> Array:
  """Softmax of logits [..., K], background first, or [1 - p, p] for one sigmoid logit."""
  xp = _namespace(logits)
  if logits.shape[-1] == 1:
    logits = xp.concatenate([xp.zeros_like(logits), logits], axis=-1)
  softmax: Any = special.softmax if xp is np else jax.nn.softmax
  return softmax(logits, axis=-1)


def predict_labels(logits: Array) -> Array:
  """The most probable class of logits [..., K], int32 [...]: the lowest class of equal logits.

  One sigmoid logit gives 1 where p >= 0.5.
  """
  if logits.shape[-1] == 1:
    return (logits[..., 0] >= 0).astype(np.int32)
  return _namespace(logits).argmax(logits, axis=-1).astype(np.int32)


def cross_entropy(logits: np.ndarray, label: np.ndarray) -> float:
  """Mean over pixels of -log p of the true class.

  Args:
    logits: float [*S, K]. One logit is a binary problem with the foreground label > 0.
    label: int [*S].
  """
  logits = logits.astype(np.float64)
  if logits.shape[-1] == 1:
    signed = np.where(label > 0, logits[..., 0], -logits[..., 0])
    return float(np.mean(np.logaddexp(0, -signed)))
  true = np.take_along_axis(logits, label[..., None].astype(int), -1)[..., 0]
  return float(np.mean(special.logsumexp(logits, -1) - true))


def confusion_counts(
    prediction: Array, label: Array, num_classes: int, valid: Array | None = None) -> Array:
  """True positives, false positives and false negatives of every class in every example.

  Args:
    prediction, label: int [N, ...].
    num_classes: K of the logits. 1 is a binary problem with the foreground label > 0.
    valid: bool, or numbers 0 and 1, [N]; the counts of an example with 0 are 0.

  Returns:
    int [N, max(K, 2), 3]: int64 of NumPy, or int32 of JAX. Add up batches on the host.

  Raises:
    ValueError: a label is outside the classes (checked for NumPy only).
  """
  xp = _namespace(prediction)
  if num_classes == 1:
    label, num_classes = (label > 0).astype(label.dtype), 2
  if xp is np and label.size and not 0 <= label.min() <= label.max() < num_classes:
    raise ValueError(f'labels must be in 0..{num_classes - 1}, '
                     f'got {label.min()}..{label.max()}; check data.classes and data.label_map')
  pixels, rows = tuple(range(1, label.ndim)), []
  for index in range(num_classes):
    true, predicted = label == index, prediction == index
    parts = (true & predicted, ~true & predicted, true & ~predicted)
    rows.append(xp.stack([part.sum(pixels) for part in parts], -1))
  counts = xp.stack(rows, 1)
  return counts if valid is None else counts * valid.astype(counts.dtype)[:, None, None]


def case_metrics(counts: np.ndarray, classes: Sequence[str], *, any_foreground: bool = False
                 ) -> ClassTable:
  """{metric: {class or mean: value}} of one case, or of the added counts of several.

  Args:
    counts: int [K, 3], as of `confusion_counts`.
    classes: K names, background first.
    any_foreground: with several foreground classes, adds all of them as one class.

  Raises:
    ValueError: the counts do not fit the names.
  """
  if counts.shape != (len(classes), 3):
    raise ValueError(f'counts of {len(classes)} classes must be [{len(classes)}, 3], '
                     f'got {list(counts.shape)}; give one name per class, background first')
  hits, misses = counts[:, 0].tolist(), counts[:, 2].tolist()
  pixels = sum(hits) + sum(misses)
  by_class = dict(zip(classes, counts.tolist()))
  if any_foreground and len(classes) > 2:  # the complement of the background
    true, false_background, missed_background = counts[0].tolist()
    by_class['any_foreground'] = [pixels - true - false_background - missed_background,
                                  missed_background, false_background]
  values: dict[str, dict[str, float | None]] = {metric: {} for metric in METRICS}
  for name, (tp, fp, fn) in by_class.items():
    values['dice'][name] = _ratio(2 * tp, 2 * tp + fp + fn)
    values['iou'][name] = _ratio(tp, tp + fp + fn)
    values['recall'][name] = _ratio(tp, tp + fn)
    values['precision'][name] = _ratio(tp, tp + fp)
  for metric in METRICS:
    values[metric] |= _means(values[metric], classes)
  values['accuracy'] = {
      'mean_foreground': _ratio(sum(hits[1:]), sum(hits[1:]) + sum(misses[1:])),
      'mean_all': _ratio(sum(hits), pixels)}
  return values


def summarize(counts: np.ndarray, classes: Sequence[str], *, any_foreground: bool = False
              ) -> tuple[ClassTable, ClassTable]:
  """The tables `per_image` and `pooled` of a test set with counts [cases, K, 3].

  per_image[metric]['mean_foreground'] is the mean of the columns of the table, as the papers print
  it; its deviation is that of the means of the cases. If a class is undefined in some cases, the
  two weigh the cases differently. Without cases all values are None. The other arguments are those
  of `case_metrics`.
  """
  pooled, *cases = (case_metrics(of_case, classes, any_foreground=any_foreground)
                    for of_case in (counts.sum(axis=0), *counts))
  per_image: dict[str, dict[str, float | None]] = {}
  for metric, columns in pooled.items():
    spread = {name: mean_sd(case[metric][name] for case in cases) for name in columns}
    per_image[metric] = {name: mean for name, (mean, _, _) in spread.items()}
    if metric in METRICS:
      per_image[metric] |= _means(per_image[metric], classes)
    per_image[f'{metric}_sd'] = {name: sd for name, (_, sd, _) in spread.items()}
  return per_image, pooled


def _namespace(array: Array) -> Any:
  return jnp if isinstance(array, jax.Array) else np


def _ratio(numerator: int, denominator: int) -> float | None:
  return numerator / denominator if denominator else None


def _means(values: Mapping[str, float | None], classes: Sequence[str]) -> dict[str, float | None]:
  return {'mean_foreground': mean_sd(values[name] for name in classes[1:])[0],
          'mean_all': mean_sd(values[name] for name in classes)[0]}
