"""Networks: Linen modules that map a normalized image to a dict with `logits`."""
import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from spinejax.models.dilated import CCNet, EMANet, NonLocalNet, PSANet
from spinejax.models.fpn import FPN
from spinejax.models.sadanet import DANet, SADANet
from spinejax.models.seam import SEAM
from spinejax.models.unet import PPMU, UNet
from spinejax.models.unet_s5d16 import UNetS5D16
from spinejax.models.wave_ct import WaveCT
from spinejax.models.xception_unet import XceptionUNet

MODELS = {
    'ccnet': CCNet, 'danet': DANet, 'emanet': EMANet, 'fpn': FPN, 'nonlocal': NonLocalNet,
    'ppmu': PPMU, 'psanet': PSANet, 'sadanet': SADANet, 'seam': SEAM, 'unet': UNet,
    'unet_s5d16': UNetS5D16, 'wave_ct': WaveCT, 'xception_unet': XceptionUNet,
}
# Modules without a gradient. Their parameters stay as initialized; optimizers do not decay them.
FROZEN = ('ema_mid_conv',)
DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


def create_model(config: Mapping[str, Any]) -> nn.Module:
  """Creates the network `config['name']` with the other entries as its fields.

  `init({'params': key, 'dropout': key}, image, train=True)` creates all parameters.
  `apply(variables, image, train=False)` uses the running statistics. Both take images [N,H,W,C] of
  any size. Raises ValueError if the name, a field, `dtype` ('float32' or 'bfloat16') or
  `num_classes` is wrong.
  """
  fields = dict(config)
  name = fields.pop('name', None)
  if name not in MODELS:
    raise ValueError(f'config.model.name must be one of {", ".join(MODELS)}, not {name!r}.')
  known = {field.name for field in dataclasses.fields(MODELS[name])} - {'parent', 'name'}
  unknown = sorted(fields.keys() - known)
  if unknown:
    raise ValueError(f'config.model.{unknown[0]}: {name} has no such field. Its fields are '
                     f'{", ".join(sorted(known))}.')
  dtype = fields.get('dtype', 'float32')
  if dtype not in DTYPES:
    raise ValueError(f'config.model.dtype must be one of {", ".join(DTYPES)}, not {dtype!r}.')
  num_classes = fields.get('num_classes')
  if not isinstance(num_classes, int) or num_classes < 1:
    raise ValueError('config.model.num_classes must be the number of logits, at least 1, '
                     f'not {num_classes!r}.')
  return MODELS[name](**{**fields, 'dtype': DTYPES[dtype]})
