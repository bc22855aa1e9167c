"""What the objectives share: their types, and how they read a batch.

An objective is a function `name(outputs, batch, **weights) -> (loss, parts)`. `outputs['logits']`
is float [N, *S, K] and `batch['label']` is int [N, *S]. `loss` is float [N], one value per example.
`parts` holds the unweighted terms of the loss, float [N] each.
"""
from collections.abc import Mapping
from typing import Any, get_args

import jax

Arrays = Mapping[str, jax.Array]
Objective = tuple[jax.Array, dict[str, jax.Array]]


def check_choice(name: str, value: Any, choices: Any) -> None:
  """Raises ValueError unless `value` is one of the strings of the Literal type `choices`."""
  if value not in get_args(choices):
    expected = ' or '.join(map(repr, get_args(choices)))
    raise ValueError(f'{name} must be {expected}, got {value!r}.')


def binary_logits(outputs: Arrays, batch: Arrays, name: str) -> tuple[jax.Array, jax.Array]:
  """Logits [N, *S] of a network with one logit per pixel, and their target `label > 0`.

  Raises ValueError if the network has several logits per pixel; `name` is the loss.
  """
  logits = outputs['logits']
  if logits.shape[-1] != 1:
    raise ValueError(
        f'loss {name!r} expects one logit per pixel, got {logits.shape[-1]}. Set '
        "config.model.num_classes to 1 or choose a softmax loss such as 'cross_entropy'.")
  return logits[..., 0], (batch['label'] > 0).astype(logits.dtype)


def probabilities(outputs: Arrays, batch: Arrays) -> tuple[jax.Array, jax.Array]:
  """Probabilities [N, *S, K] and their target of the same shape.

  One logit gives a sigmoid against `label > 0`. Several give a softmax against one-hot labels.
  """
  logits, label = outputs['logits'], batch['label']
  if logits.shape[-1] == 1:
    return jax.nn.sigmoid(logits), (label > 0)[..., None].astype(logits.dtype)
  return jax.nn.softmax(logits), jax.nn.one_hot(label, logits.shape[-1], dtype=logits.dtype)
