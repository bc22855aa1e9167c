"""Training objectives by name. Their signature is described in `spinejax.losses.objective`."""
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_origin

from spinejax.losses import centroid, cross_entropy, dice, seam, total_variation, wave_ct
from spinejax.losses.objective import Arrays, Objective, check_choice

LossFn = Callable[[Arrays, Arrays], Objective]

LOSSES: dict[str, Callable[..., Objective]] = {
    'bce_tv': total_variation.bce_tv,
    'weighted_bce': cross_entropy.weighted_bce,
    'centroid': centroid.centroid_loss,
    'cross_entropy': cross_entropy.cross_entropy,
    'dice': dice.dice_loss,
    'squared_dice': dice.squared_dice_loss,
    'cross_entropy_dice': dice.cross_entropy_dice,
    'cross_entropy_tv': total_variation.cross_entropy_tv,
    'seam': seam.seam_loss,
    'wave_ct': wave_ct.wave_ct_loss,
}
# Some networks return further logits in training, of auxiliary heads and of the branches of dual
# attention. These fields of `config.loss` weight the loss of each.
HEADS = {'aux_logits': 'auxiliary_weight', 'position_logits': 'branch_weight',
         'channel_logits': 'branch_weight'}
HEAD_WEIGHTS = {'auxiliary_weight': 0.4, 'branch_weight': 1.0}  # as in MMSegmentation and DANet
# Losses of one network, which has no further heads: called directly unless heads are weighted.
_WITHOUT_HEADS = ('seam', 'wave_ct')


def create_loss(config: Mapping[str, Any]) -> LossFn:
  """`loss_fn(outputs, batch) -> (loss [N], parts)` of `config.loss`.

  `config` has `name`, the keyword arguments of that loss, and optionally `auxiliary_weight` and
  `branch_weight`, which add the same loss of the outputs in `HEADS` where a network returns any.

  Raises ValueError on an unknown name, argument or choice, or if a required argument is missing.
  """
  name, weights = _read(config)
  head_weights = {field: weights.pop(field) for field in HEAD_WEIGHTS}
  loss_fn = functools.partial(LOSSES[name], **weights)
  if name in _WITHOUT_HEADS and not HEAD_WEIGHTS.keys() & config.keys():
    return loss_fn
  return functools.partial(_add_heads, loss_fn, head_weights)


def needs_cells(config: Mapping[str, Any]) -> bool:
  """Whether the loss of `config` reads `batch['cells']`. Raises as `create_loss`."""
  name, weights = _read(config)
  return (name == 'seam' and weights['center'] == 'component'
          and bool(weights['structure_weight'] and weights['center_weight']))


def _add_heads(loss_fn: LossFn, head_weights: Mapping[str, float], outputs: Arrays, batch: Arrays
               ) -> Objective:
  """The loss of `logits` plus the weighted losses of the other heads."""
  loss, parts = loss_fn(outputs, batch)
  for head, field in HEADS.items():
    if head_weights[field] and head in outputs:
      head_loss, head_parts = loss_fn({**outputs, 'logits': outputs[head]}, batch)
      loss += head_weights[field] * head_loss
      prefix = head.removesuffix('_logits')
      parts |= {f'{prefix}/{part}': value for part, value in head_parts.items()}
  return loss, parts


def _read(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
  """Name and all arguments of a loss, with defaults."""
  given = dict(config)
  name = given.pop('name', None)
  if name not in LOSSES:
    raise ValueError(f"config.loss.name must be one of {', '.join(LOSSES)}; got {name!r}.")
  arguments = {key: argument for key, argument in inspect.signature(LOSSES[name]).parameters.items()
               if argument.kind is inspect.Parameter.KEYWORD_ONLY}
  weights = {key: argument.default for key, argument in arguments.items()} | HEAD_WEIGHTS
  unknown = sorted(given.keys() - weights.keys())
  if unknown:
    raise ValueError(f"config.loss: loss {name!r} has no argument {', '.join(unknown)}; it takes "
                     f"{', '.join(weights)}.")
  weights |= given
  missing = [key for key, value in weights.items() if value is inspect.Parameter.empty]
  if missing:
    raise ValueError(f"loss {name!r} needs a value for config.loss.{', config.loss.'.join(missing)}"
                     '.')
  for key, argument in arguments.items():
    if get_origin(argument.annotation) is Literal:
      check_choice(f'config.loss.{key}', weights[key], argument.annotation)
  return name, weights
