"""Overlap of predicted and true classes, from integer counts per case.

Counts of cases add up, so no figure depends on the batch, its padding or the number of devices.
"Bones" are the classes above 0. Every name says what was averaged:

  name                            value
  per_image[metric][class]        mean over the cases where the class's metric is defined
  per_image[metric + '_sd'][...]  its standard deviation over those cases (n - 1 below)
  pooled[metric][class]           from the counts of all cases added up
  ...[metric]['mean_foreground']       mean of the classes' values without the background
  ...[metric]['mean_all']         mean of the classes' values with the background
  ...['accuracy']['mean_foreground']   share of the true bone pixels given their class
  ...['accuracy']['mean_all']     share of all pixels given their class

Metrics of a class: dice = 2 TP / (2 TP + FP + FN), iou = TP / (TP + FP + FN),
recall = TP / (TP + FN), precision = TP / (TP + FP). A ratio without a denominator (a class that is
in neither truth nor prediction; recall without truth; precision without prediction) is undefined:
None, and left out of means. All values are fractions.

RSN-U-net and SEAM (Zhao et al., 2021) print per-image means and SEAM the mean of the bones;
SADANet pools pixels, prints means of all classes for its own rows, and prints recall as "Acc".
"""
from collections.abc import Sequence
import functools
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

Array = TypeVar('Array', jax.Array, np.ndarray)

METRICS = ('dice', 'iou', 'recall', 'precision')


def class_probs(logits: Array) -> Array:
  """Softmax over classes, or [1 - p, p] of one sigmoid logit.

  Args:
    logits: float [..., K], jax or numpy.

  Returns:
    float [..., max(K, 2)] of the same kind: background first, summing to 1.
  """
  xp = _namespace(logits)
  if logits.shape[-1] == 1:
    logits = xp.concatenate([xp.zeros_like(logits), logits], axis=-1)
  exponentials = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
  return exponentials / xp.sum(exponentials, axis=-1, keepdims=True)


def predict_labels(logits: Array) -> Array:
  """The likeliest class; of one sigmoid logit, 1 where p >= 0.5.

  Args:
    logits: float [..., K], jax or numpy.

  Returns:
    int32 [...] of the same kind; of equal logits the lowest class.
  """
  if logits.shape[-1] == 1:
    return (logits[..., 0] >= 0).astype(np.int32)
  return _namespace(logits).argmax(logits, axis=-1).astype(np.int32)


def cross_entropy(logits: np.ndarray, label: np.ndarray) -> float:
  """Mean over pixels of -log p of the true class, of logits [*S, K] and labels [*S] of numpy.

  One logit is a binary problem, label > 0 its bone.
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
    prediction: int [N, ...], jax or numpy, as of `predict_labels`.
    label: int [N, ...] of the same kind.
    num_classes: K of the logits. 1 is a binary problem: label > 0 is the bone.
    valid: bool, or a number 0 or 1, [N]; an example of 0 counts nothing. None is all 1.

  Returns:
    int [N, max(K, 2), 3]; numpy int64, or jax int32: add batches up on the host.

  Raises:
    ValueError: numpy only, a label outside the classes.
  """
  xp = _namespace(prediction)
  if num_classes == 1:
    label, num_classes = (label > 0).astype(label.dtype), 2
  if xp is np and label.size and not 0 <= label.min() <= label.max() < num_classes:
    raise ValueError(f'labels must be in 0..{num_classes - 1}, '
                     f'got {label.min()}..{label.max()}; check data.classes and data.label_map')
  dtype, size = (np.int64 if xp is np else np.int32), num_classes + 1  # one for what is outside
  place = lambda x: xp.where((x >= 0) & (x < num_classes), x, num_classes).astype(np.int32)
  pairs = (place(label) * size + place(prediction)).reshape(len(label), -1)
  if xp is np:
    matrix = np.array([np.bincount(row, minlength=size ** 2) for row in pairs], dtype)
  else:
    matrix = jax.vmap(functools.partial(jnp.bincount, length=size ** 2))(pairs).astype(dtype)
  matrix = matrix.reshape(-1, size, size)
  sums = xp.diagonal(matrix, axis1=1, axis2=2), matrix.sum(2), matrix.sum(1)
  hits, true, predicted = (counts[:, :-1] for counts in sums)
  counts = xp.stack([hits, predicted - hits, true - hits], axis=-1)
  return counts if valid is None else counts * valid.astype(dtype)[:, None, None]


def case_metrics(
    counts: np.ndarray, pixels: int, classes: Sequence[str]) -> dict[str, dict[str, float | None]]:
  """Metrics of one case, or of the added counts of several.

  Args:
    counts: int [K, 3], as of `confusion_counts`.
    pixels: number of pixels the counts were taken over.
    classes: K names, background first.

  Returns:
    {metric: {class: value, 'mean_foreground': value, 'mean_all': value}} for dice, iou, recall and
    precision, and {'accuracy': {'mean_foreground': value, 'mean_all': value}}; None is undefined.

  Raises:
    ValueError: counts that do not fit the names, or do not cover the pixels.
  """
  counts = np.asarray(counts)
  if counts.shape != (len(classes), 3):
    raise ValueError(f'counts of {len(classes)} classes must be [{len(classes)}, 3], '
                     f'got {list(counts.shape)}; give one name per class, background first')
  hits, false_positives, misses = (counts[:, column].tolist() for column in range(3))
  if sum(hits) + sum(misses) != pixels:
    raise ValueError(f'the classes hold {sum(hits) + sum(misses)} of {int(pixels)} pixels; '
                     'every label must be one of the classes')
  values: dict[str, dict[str, float | None]] = {metric: {} for metric in METRICS}
  for name, tp, fp, fn in zip(classes, hits, false_positives, misses):
    values['dice'][name] = _ratio(2 * tp, 2 * tp + fp + fn)
    values['iou'][name] = _ratio(tp, tp + fp + fn)
    values['recall'][name] = _ratio(tp, tp + fn)
    values['precision'][name] = _ratio(tp, tp + fp)
  for metric in METRICS:
    values[metric] |= _means(values[metric], classes)
  values['accuracy'] = {'mean_foreground': _ratio(sum(hits[1:]), sum(hits[1:]) + sum(misses[1:])),
                        'mean_all': _ratio(sum(hits), pixels)}
  return values


def summarize(
    counts: np.ndarray, pixels: np.ndarray, classes: Sequence[str]) -> dict[str, dict[str, Any]]:
  """The table of a test set, per image and pooled; the names are explained above.

  `per_image[metric]["mean_foreground"]` is the mean of the columns of the table, as papers print.
  Its deviation is that of the cases' means. Where a class is undefined in some cases the two
  weigh cases differently.

  Args:
    counts: int [cases, K, 3], as of `confusion_counts`; no case gives None everywhere.
    pixels: int [cases], pixels of each case.
    classes: K names, background first.

  Returns:
    {'per_image': {metric: {class or mean: value}, metric + '_sd': ...}, 'pooled': {metric: ...}}
    of python floats and None, so that it can be written as JSON. A deviation of fewer than two
    cases is None.

  Raises:
    ValueError: as `case_metrics`.
  """
  counts, pixels = np.asarray(counts), np.asarray(pixels)
  pooled = case_metrics(counts.sum(axis=0), pixels.sum(), classes)
  cases = [case_metrics(*case, classes) for case in zip(counts, pixels)]
  per_image = {}
  for metric, columns in pooled.items():
    values = {key: [value for case in cases if (value := case[metric][key]) is not None]
              for key in columns}
    per_image[metric] = {key: _mean(column) for key, column in values.items()}
    if metric in METRICS:
      per_image[metric] |= _means(per_image[metric], classes)
    per_image[metric + '_sd'] = {
        key: float(np.std(column, ddof=1)) if len(column) > 1 else None
        for key, column in values.items()}
  return {'per_image': per_image, 'pooled': pooled}


def _namespace(array: Array) -> Any:
  return jnp if isinstance(array, jax.Array) else np


def _ratio(numerator: int, denominator: int) -> float | None:
  return float(numerator / denominator) if denominator else None


def _mean(values: Sequence[float]) -> float | None:
  return float(np.mean(values)) if values else None


def _means(values: dict[str, float | None], classes: Sequence[str]) -> dict[str, float | None]:
  defined = {name: value for name in classes if (value := values[name]) is not None}
  bones = [value for name, value in defined.items() if name != classes[0]]
  return {'mean_foreground': _mean(bones), 'mean_all': _mean(list(defined.values()))}
