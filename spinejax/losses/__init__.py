"""Training objectives: pure functions of a network's outputs and its batch.

Every objective is `name(outputs, batch, **weights) -> (loss, parts)`. `outputs['logits']` is float
[N, H, W, K] and `batch['label']` int [N, H, W]; `loss` is float [N], one value per example, and
`parts` holds its terms before weighting, float [N] each. The caller leaves out padded examples
and takes the mean.

In training some networks put out more predictions beside `logits`: `aux_logits` of an auxiliary
head, `position_logits` and `channel_logits` of the branches of dual attention. `create_loss` adds
the same objective on each of them.
"""
from collections.abc import Callable, Mapping
import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp

from spinejax.losses import center as center_lib
from spinejax.losses import centroid
from spinejax.losses import dice
from spinejax.losses import pixel
from spinejax.losses import total_variation

Arrays = Mapping[str, jax.Array]
Objective = tuple[jax.Array, dict[str, jax.Array]]


def bce_tv(
    outputs: Arrays, batch: Arrays, *, lam: float = 0.4, normalization: str = 'terms') -> Objective:
  """`BCE + lam TV` on one logit per pixel; every class above 0 is foreground.

  RSN-U-net (Huang et al., 2020, eq. 1); lam = 0 trains the plain U-Net. The total variation is
  that of the probabilities, `normalization` as in `total_variation.total_variation`.
  """
  logits, target = _binary(outputs, batch, 'bce_tv')
  parts = {
      'binary_cross_entropy': pixel.binary_cross_entropy(logits, target),
      'total_variation': total_variation.total_variation(
          jax.nn.sigmoid(logits), normalization=normalization),
  }
  return parts['binary_cross_entropy'] + lam * parts['total_variation'], parts


def weighted_bce(outputs: Arrays, batch: Arrays, *, positive_weight: float) -> Objective:
  """Weighted BCE on one logit per pixel; every class above 0 is foreground.

  B-U-net (C-U-net, Wong et al., 2021). `pixel.balanced_positive_weight` proposes the weight.
  """
  logits, target = _binary(outputs, batch, 'weighted_bce')
  loss = pixel.weighted_binary_cross_entropy(logits, target, positive_weight)
  return loss, {'weighted_binary_cross_entropy': loss}


def cross_entropy(
    outputs: Arrays, batch: Arrays, *, divide_by_classes: bool = False) -> Objective:
  """Softmax cross entropy: SEAM (Zhao et al., 2021, eq. 8); options in `pixel`."""
  loss = _cross_entropy(outputs, batch, 'cross_entropy', divide_by_classes)
  return loss, {'cross_entropy': loss}


def dice_loss(outputs: Arrays, batch: Arrays, *, smooth: float = 0.0) -> Objective:
  """Dice with linear denominators: C-U-net (Wong et al., 2021, eq. 1); options in `dice`.

  One logit is a sigmoid against every class above 0; several are a softmax, averaged over
  all classes, background included.
  """
  loss = dice.dice(*_probs_and_target(outputs, batch), smooth=smooth)
  return loss, {'dice': loss}


def squared_dice_loss(
    outputs: Arrays, batch: Arrays, *, reduction: str = 'class', smooth: float = 0.0) -> Objective:
  """Dice with squared denominators: SADANet (eq. 6); options in `dice`, classes as `dice_loss`."""
  loss = dice.squared_dice(
      *_probs_and_target(outputs, batch), reduction=reduction, smooth=smooth)
  return loss, {'squared_dice': loss}


def cross_entropy_dice(
    outputs: Arrays, batch: Arrays, *, lam: float = 3.0, reduction: str = 'class',
    smooth: float = 0.0, divide_by_classes: bool = False) -> Objective:
  """`CE + lam squared Dice`: SADANet (eq. 7) on the prediction; options in `pixel`, `dice`."""
  parts = {
      'cross_entropy': _cross_entropy(outputs, batch, 'cross_entropy_dice', divide_by_classes),
      'squared_dice': dice.squared_dice(
          *_probs_and_target(outputs, batch), reduction=reduction, smooth=smooth),
  }
  return parts['cross_entropy'] + lam * parts['squared_dice'], parts


def cross_entropy_tv(
    outputs: Arrays, batch: Arrays, *, lam: float = 0.4, normalization: str = 'terms') -> Objective:
  """`CE + lam TV`: RSN-U-net's total variation (eq. 1) for several classes.

  The total variation is the mean over the classes' probability maps, background included; of two
  classes it is that of the one map of `bce_tv`. Ours: the paper segments one class, yet SEAM and
  SADANet compare it on four and do not say how.
  """
  logits = outputs['logits']
  maps = jnp.moveaxis(jax.nn.softmax(logits), -1, 1)
  variation = total_variation.total_variation(
      maps.reshape(-1, *maps.shape[2:]), normalization=normalization)
  parts = {
      'cross_entropy': _cross_entropy(outputs, batch, 'cross_entropy_tv', divide_by_classes=False),
      'total_variation': jnp.mean(variation.reshape(maps.shape[:2]), 1),
  }
  return parts['cross_entropy'] + lam * parts['total_variation'], parts


def wave_ct(outputs: Arrays, batch: Arrays, *, lam: float = 1.0) -> Objective:
  """`CE + lam |autoencoder(x) - x|^2`, the mean over pixels: both halves of `models.wave_ct`.

  The halves share no parameter, so lam scales the gradient of the autoencoder alone. The second
  term is that of `outputs['reconstruction_residual']`, float [N, H, W, C], there in training only.
  """
  parts = {'cross_entropy': _cross_entropy(outputs, batch, 'wave_ct', divide_by_classes=False)}
  loss = parts['cross_entropy']
  if 'reconstruction_residual' in outputs:
    parts['reconstruction'] = jnp.mean(
        jnp.square(outputs['reconstruction_residual']), axis=(1, 2, 3))
    loss += lam * parts['reconstruction']
  return loss, parts


def seam(
    outputs: Arrays, batch: Arrays, *, lam: float = 0.4, beta: float = 0.5,
    center: str = 'component') -> Objective:
  """`CE + lam (class supervision + beta center regression)`: SEAM (Zhao et al., 2021, eq. 9).

  Supervises `outputs['key_logits']`, float [N, h, w, K], by the labels and, unless lam or beta
  is 0, by the centers of the bones. Only then and only with center = 'component' is
  `batch['cells']` read, uint8 [N, H, W, K-1]: see `needs_cells` and `center.center_regression`.
  """
  key_logits, label = outputs['key_logits'], batch['label']
  parts = {
      'cross_entropy': _cross_entropy(outputs, batch, 'seam', divide_by_classes=False),
      'class_supervision': center_lib.class_supervision(key_logits, label),
  }
  structure = parts['class_supervision']
  if lam and beta:
    cells = batch['cells'] if center == 'component' else None
    parts['center_regression'] = center_lib.center_regression(
        key_logits, label, cells, center=center)
    structure += beta * parts['center_regression']
  return parts['cross_entropy'] + lam * structure, parts


def centroid_loss(
    outputs: Arrays, batch: Arrays, *, gradient: str = 'straight_through',
    distance_floor: float = 1.0, connectivity: str = 'face', threshold: float = 0.5,
    smooth: float = 0.0) -> Objective:
  """`L_D (L_d + floor) L_N` on one logit per voxel: C-U-net (Wong et al., 2021, eq. 6).

  Volumes only: logits [N, D, H, W, 1], axes superior-inferior, left-right, anterior-posterior;
  every class above 0 is a lamina. Options in `centroid.centroid_loss`.
  """
  logits, target = _binary(outputs, batch, 'centroid')
  if logits.ndim != 4:
    raise ValueError("loss 'centroid' expects volumes, logits [N, D, H, W, 1], got an array of "
                     f'{logits.ndim + 1} axes')
  return centroid.centroid_loss(
      jax.nn.sigmoid(logits), target, gradient=gradient, distance_floor=distance_floor,
      connectivity=connectivity, threshold=threshold, smooth=smooth)


LOSSES: dict[str, Callable[..., Objective]] = {
    'bce_tv': bce_tv,
    'weighted_bce': weighted_bce,
    'centroid': centroid_loss,
    'cross_entropy': cross_entropy,
    'dice': dice_loss,
    'squared_dice': squared_dice_loss,
    'cross_entropy_dice': cross_entropy_dice,
    'cross_entropy_tv': cross_entropy_tv,
    'seam': seam,
    'wave_ct': wave_ct,
}
# Predictions beside `logits`: the field that weights their loss, and its default.
HEADS = {
    'aux_logits': ('auxiliary_weight', 0.4),
    'position_logits': ('branch_weight', 1.0),
    'channel_logits': ('branch_weight', 1.0),
}


def create_loss(config: Mapping[str, Any]) -> Callable[[Arrays, Arrays], Objective]:
  """`fn(outputs, batch) -> (loss [N], parts)` of `config`: `name` and the weights it takes.

  Every loss takes `auxiliary_weight` (0.4, that of MMSegmentation's auxiliary heads) and
  `branch_weight` (1, that of DANet's branches) too: of the same objective on the outputs in
  `HEADS`, where there are any. A weight of None keeps its default.

  Raises:
    ValueError: on an unknown name or weight, or a weight missing that has no default.
  """
  name, weights = _resolve(config)
  head_weights = {head: weights[field] for head, (field, _) in HEADS.items()}
  own = weights.keys() - dict(HEADS.values())
  main = functools.partial(LOSSES[name], **{field: weights[field] for field in own})

  def objective(outputs, batch):
    loss, parts = main(outputs, batch)
    for head, weight in head_weights.items():
      if weight and head in outputs:
        head_loss, head_parts = main({**outputs, 'logits': outputs[head]}, batch)
        loss += weight * head_loss
        parts |= {f'{head.removesuffix("_logits")}/{part}': value
                  for part, value in head_parts.items()}
    return loss, parts

  return objective


def needs_cells(config: Mapping[str, Any]) -> bool:
  """Whether the loss of `config` reads `batch['cells']`; errors as `create_loss`."""
  name, weights = _resolve(config)
  return name == 'seam' and bool(weights['lam'] and weights['beta']) and (
      weights['center'] == 'component')


def _resolve(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
  """Name and every weight of a loss, defaults filled in."""
  weights = {key: value for key, value in dict(config).items() if value is not None}
  name = weights.pop('name', None)
  if name not in LOSSES:
    raise ValueError(f"loss.name must be one of {', '.join(LOSSES)}; got {name!r}")
  known = {key: parameter.default
           for key, parameter in inspect.signature(LOSSES[name]).parameters.items()
           if parameter.kind is inspect.Parameter.KEYWORD_ONLY} | dict(HEADS.values())
  unknown = sorted(set(weights) - set(known))
  if unknown:
    raise ValueError(
        f"loss {name!r} has no weight {', '.join(unknown)}; it takes {', '.join(known)}")
  weights = known | weights
  missing = [key for key, value in weights.items() if value is inspect.Parameter.empty]
  if missing:
    raise ValueError(f"loss {name!r} needs a value for loss.{', loss.'.join(missing)}")
  return name, weights


def _binary(outputs: Arrays, batch: Arrays, name: str) -> tuple[jax.Array, jax.Array]:
  """Logits [N, ...] of the one class and its target, label > 0."""
  logits = outputs['logits']
  if logits.shape[-1] != 1:
    raise ValueError(f"loss {name!r} expects one logit per pixel, got {logits.shape[-1]}; "
                     "set model.num_classes to 1 or take a softmax loss such as 'cross_entropy'")
  return logits[..., 0], (batch['label'] > 0).astype(logits.dtype)


def _cross_entropy(
    outputs: Arrays, batch: Arrays, name: str, divide_by_classes: bool) -> jax.Array:
  logits = outputs['logits']
  if logits.shape[-1] == 1:
    raise ValueError(f"loss {name!r} expects a logit for every class, background included, got "
                     "1; set model.num_classes to 2 or more or take the loss 'bce_tv'")
  return pixel.softmax_cross_entropy(logits, batch['label'], divide_by_classes=divide_by_classes)


def _probs_and_target(outputs: Arrays, batch: Arrays) -> tuple[jax.Array, jax.Array]:
  """Probabilities [N, ..., K] and their target: sigmoid and label > 0, or softmax and one-hot."""
  logits, label = outputs['logits'], batch['label']
  if logits.shape[-1] == 1:
    return jax.nn.sigmoid(logits), (label > 0)[..., None].astype(logits.dtype)
  return jax.nn.softmax(logits), jax.nn.one_hot(label, logits.shape[-1], dtype=logits.dtype)
