"""Networks: pure Linen modules from a normalized image to a dict with `logits`."""
import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from spinejax.models.baselines import CCNet, EMANet, NonLocalNet, PPMU, PSANet, UNetS5D16
from spinejax.models.fpn import FPN
from spinejax.models.sadanet import DANet, SADANet
from spinejax.models.seam import SEAM
from spinejax.models.unet import UNet
from spinejax.models.wave_ct import WaveCT
from spinejax.models.xception_unet import XceptionUNet

MODELS = {
    'ccnet': CCNet,
    'danet': DANet,
    'emanet': EMANet,
    'fpn': FPN,
    'nonlocal': NonLocalNet,
    'ppmu': PPMU,
    'psanet': PSANet,
    'sadanet': SADANet,
    'seam': SEAM,
    'unet': UNet,
    'unet_s5d16': UNetS5D16,
    'wave_ct': WaveCT,
    'xception_unet': XceptionUNet,
}
# Modules whose parameters stay as initialized: they have no gradient, and optimizers do not decay
# them.
FROZEN = ('ema_mid_conv',)
DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


def create_model(config: Mapping[str, Any]) -> nn.Module:
  """The network `config['name']` with the other entries as its fields; None keeps its default.

  `init({'params': key, 'dropout': key}, image, train=True)` makes every parameter;
  `apply(variables, image, train=False)` uses the running statistics. Both take images [N,H,W,C] of
  any size.

  Args:
    config: name, num_classes, dtype ('float32' or 'bfloat16') and the fields of the module.

  Raises:
    ValueError: an unknown name, field or dtype; the sentence names what exists.
  """
  fields = {name: value for name, value in dict(config).items() if value is not None}
  name = fields.pop('name', None)
  if name not in MODELS:
    raise ValueError(f'config.model.name must be one of {", ".join(MODELS)}, not {name!r}.')
  known = {field.name for field in dataclasses.fields(MODELS[name])} - {'parent', 'name'}
  unknown = sorted(fields.keys() - known)
  if unknown:
    raise ValueError(f'config.model.{unknown[0]}: {name} has no such field; it has '
                     f'{", ".join(sorted(known))}.')
  dtype = fields.get('dtype', 'float32')
  if dtype not in DTYPES:
    raise ValueError(f'config.model.dtype must be one of {", ".join(DTYPES)}, not {dtype!r}.')
  if fields.get('num_classes', 0) < 1:
    raise ValueError('config.model.num_classes must be the number of logits, at least 1.')
  return MODELS[name](**{**fields, 'dtype': DTYPES[dtype]})
