"""U-Net S5-D16 of MMSegmentation."""
import functools
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from spinejax.models import dilated
from spinejax.models import layers
from spinejax.models import resizing


class ConvBlock(nn.Module):
  """Two 3x3 convolutions with batch norm and ReLU: [N,H,W,C] -> [N,H,W,features]."""
  features: int
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    conv = functools.partial(
        layers.ConvNorm, self.features, axis_name=self.axis_name, dtype=self.dtype)
    return conv(name='convs_1')(conv(name='convs_0')(x, train=train), train=train)


class InterpConv(nn.Module):
  """Bilinear doubling and a 1x1 convolution with batch norm and ReLU: [N,H,W,C] -> [N,2H,2W,F]."""
  features: int
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    return layers.ConvNorm(self.features, 1, axis_name=self.axis_name, dtype=self.dtype,
                           name='interp_upsample_1')(resizing.upsample_bilinear(x), train=train)


class UpConvBlock(nn.Module):
  """Decoder stage: doubles x [N,H,W,C], concatenates it to skip [N,2H,2W,F], convolves twice."""
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, skip: jax.Array, x: jax.Array, *, train: bool) -> jax.Array:
    fields = (skip.shape[-1], self.axis_name, self.dtype)
    x = jnp.concatenate([skip, InterpConv(*fields, name='upsample')(x, train=train)], -1)
    return ConvBlock(*fields, name='conv_block')(x, train=train)


class UNetS5D16Backbone(nn.Module):
  """Five stages down to stride 16 and four up; no convolution has a bias.

  Takes image [N,H,W,C] with H and W multiples of 16; returns the features at strides 2 and 1, with
  2 and 1 times `features` channels.
  """
  features: int = 64
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
    shared = dict(axis_name=self.axis_name, dtype=self.dtype)
    x = ConvBlock(self.features, **shared, name='encoder_0_0')(image, train=train)
    skips = []
    for stage in range(1, 5):
      skips.append(x)
      x = ConvBlock(self.features * 2 ** stage, **shared, name=f'encoder_{stage}_1')(
          resizing.max_pool(x), train=train)
    for stage in reversed(range(4)):
      half, x = x, UpConvBlock(**shared, name=f'decoder_{stage}')(skips[stage], x, train=train)
    return half, x


class UNetS5D16(nn.Module):
  """U-Net S5-D16 of MMSegmentation, the "UNet" row of SADANet (Xie et al., 2023, tables I and III).

  Differs from `UNet`: bilinear doubling and a 1x1 convolution on the way up, and FCN heads on the
  finest stage and, in training with `auxiliary`, on the one at stride 2.

  Takes image [N,H,W,C], normalized; returns {'logits': float32 [N,H,W,K]} and in training
  'aux_logits' of the same shape. An image whose size is not a multiple of 16 is extended by its
  last row and column, and the logits are cropped.
  """
  num_classes: int
  features: int = 64
  auxiliary: bool = True
  dropout: float = 0.1
  axis_name: str | None = None
  dtype: Any = jnp.float32
  size_multiple: ClassVar[int] = 16

  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool) -> dilated.Outputs:
    shared = dict(axis_name=self.axis_name, dtype=self.dtype)
    padded = resizing.pad_to_multiple(image, self.size_multiple)
    half, full = UNetS5D16Backbone(self.features, **shared, name='backbone')(padded, train=train)
    head = functools.partial(
        dilated.FCNHead, self.num_classes, self.features, self.dropout, **shared)
    maps = head(name='decode_head')(full, train=train)
    if train and self.auxiliary:
      maps['aux_logits'] = head(name='auxiliary_head')(half, train=train)['logits']
    return dilated.at_image_size(maps, image, padded)
