"""Learning-rate schedule and optax chain from `config.optimizer`."""
from collections.abc import Mapping
from typing import Any

import jax
import optax

from spinejax.models import FROZEN


def create_schedule(config: Mapping[str, Any], num_steps: int) -> optax.Schedule:
  """Learning rate by step, warmed up linearly over `warmup_steps`, then `schedule` to the end.

  'constant' stays; 'cosine' anneals to `final_learning_rate` (SEAM, SADANet: SGDR without
  restarts); 'polynomial' decays with power 0.9 to `final_learning_rate`.
  """
  peak, final = config['learning_rate'], config['final_learning_rate']
  name, warmup = config['schedule'], config['warmup_steps']
  decay_steps = max(num_steps - warmup, 1)
  if name == 'constant':
    schedule = optax.constant_schedule(peak)
  elif name == 'cosine':
    schedule = optax.cosine_decay_schedule(peak, decay_steps, alpha=final / peak)
  elif name == 'polynomial':
    schedule = optax.polynomial_schedule(peak, final, 0.9, decay_steps)
  else:
    raise ValueError('config.optimizer.schedule must be one of constant, cosine, polynomial, '
                     f'not {name!r}.')
  if not warmup:
    return schedule
  return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), schedule], [warmup])


def create_optimizer(config: Mapping[str, Any], num_steps: int) -> optax.GradientTransformation:
  """Gradient clipping, weight decay and the named optimizer.

  `weight_decay` is L2 in the gradient, as PyTorch's Adam and SGD have it; 'adamw' decouples it.
  The modules in `models.FROZEN`, whose gradient is zero, do not decay. `gradient_clip` is the
  largest global norm, 0 for none.

  'rmsprop' is that of TensorFlow's Keras: w - lr g / (sqrt(v) + 1e-7) with v <- 0.9 v + 0.1 g^2
  from 0, without momentum. Keras 3 and Optax by default have the 1e-7 under the root.
  """
  schedule = create_schedule(config, num_steps)
  name, decay = config['name'], config['weight_decay']
  steps = [optax.clip_by_global_norm(config['gradient_clip'])] if config['gradient_clip'] else []
  if decay and name != 'adamw':
    steps.append(optax.add_decayed_weights(decay, mask=_is_trained))
  if name == 'adam':
    steps.append(optax.adam(schedule))
  elif name == 'adamw':
    steps.append(optax.adamw(schedule, weight_decay=decay, mask=_is_trained))
  elif name == 'rmsprop':
    steps.append(optax.rmsprop(schedule, decay=0.9, eps=1e-7, eps_in_sqrt=False))
  elif name == 'sgd':
    steps.append(optax.sgd(schedule, momentum=0.9))
  else:
    raise ValueError('config.optimizer.name must be one of adam, adamw, rmsprop, sgd, '
                     f'not {name!r}.')
  tx = optax.chain(*steps)

  def update(grads, state, params=None):
    with jax.numpy_dtype_promotion('standard'):  # optax mixes int and float scalars
      return tx.update(grads, state, params)

  return optax.GradientTransformation(tx.init, update)


def _is_trained(params: Any) -> Any:
  return jax.tree_util.tree_map_with_path(
      lambda path, _: not any(getattr(entry, 'key', None) in FROZEN for entry in path), params)
