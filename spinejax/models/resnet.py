"""ResNet backbones as MMSegmentation and torchvision build them."""
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from spinejax.models import layers
from spinejax.models import resizing

# Blocks of each stage, and whether the stem is deep.
BACKBONES = {
    'resnet50_v1c': ((3, 4, 6, 3), True),
    'resnet101_v1c': ((3, 4, 23, 3), True),
    'resnet50': ((3, 4, 6, 3), False),
    'resnet101': ((3, 4, 23, 3), False),
}
# Stride and dilation of the four stages by output stride.
_STAGES = {
    8: ((1, 2, 1, 1), (1, 1, 2, 4)),
    16: ((1, 2, 2, 1), (1, 1, 1, 2)),
    32: ((1, 2, 2, 2), (1, 1, 1, 1)),
}


def _conv_norm(x: jax.Array, features: int, kernel_size: int, names: tuple[str, str],
               stride: int = 1, dilation: int = 1, *, train: bool, module: Any) -> jax.Array:
  """Convolution and batch norm, called `names`, with the dtype and the axis of `module`."""
  conv, norm = names
  x = layers.Conv(features, kernel_size, stride, dilation, use_bias=False, dtype=module.dtype,
                  name=conv)(x)
  return layers.BatchNorm(module.axis_name, dtype=module.dtype, name=norm)(x, train=train)


class Bottleneck(nn.Module):
  """relu(x + conv1x1(conv3x3(conv1x1(x)))) with the stride in the 3x3, as in PyTorch.

  [N,H,W,C] -> [N,H/stride,W/stride,4 width]. Where the shape changes, the shortcut is a 1x1
  convolution with batch norm.
  """
  width: int
  stride: int = 1
  dilation: int = 1
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    conv_norm = functools.partial(_conv_norm, train=train, module=self)
    y = nn.relu(conv_norm(x, self.width, 1, ('conv1', 'bn1')))
    y = nn.relu(conv_norm(y, self.width, 3, ('conv2', 'bn2'), self.stride, self.dilation))
    y = conv_norm(y, 4 * self.width, 1, ('conv3', 'bn3'))
    if self.stride > 1 or x.shape[-1] != y.shape[-1]:
      x = conv_norm(x, 4 * self.width, 1, ('downsample_0', 'downsample_1'), self.stride)
    return nn.relu(x + y)


class ResNet(nn.Module):
  """ResNet (He et al., 2016) of bottlenecks, as MMSegmentation's ResNet and ResNetV1c.

  A "V1c" stem is three 3x3 convolutions (width/2, width/2, width channels; the first at stride 2).
  A plain stem is a 7x7 convolution at stride 2. A 3x3 max-pooling at stride 2 follows. At output
  stride 16 or 8 the last stages are dilated instead of strided, and the first block of a dilated
  stage has half its dilation.

  Takes image [N,H,W,C]; returns the four stages' features: [N,H/4,W/4,4 width] and twice the
  channels each time, at strides 4, 8, 16 and 32 or at most `output_stride`.
  """
  backbone: str = 'resnet50_v1c'
  width: int = 64
  output_stride: int = 32
  axis_name: str | None = None
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, image: jax.Array, *, train: bool) -> list[jax.Array]:
    if self.backbone not in BACKBONES:
      raise ValueError(f'config.model.backbone must be one of {", ".join(BACKBONES)}, '
                       f'not {self.backbone!r}.')
    if self.output_stride not in _STAGES:
      raise ValueError(f'config.model.output_stride must be one of {tuple(_STAGES)}, '
                       f'not {self.output_stride}.')
    blocks, deep_stem = BACKBONES[self.backbone]
    stem = functools.partial(_conv_norm, train=train, module=self)
    if deep_stem:
      x = nn.relu(stem(image, self.width // 2, 3, ('stem_0', 'stem_1'), 2))
      x = nn.relu(stem(x, self.width // 2, 3, ('stem_3', 'stem_4')))
      x = nn.relu(stem(x, self.width, 3, ('stem_6', 'stem_7')))
    else:
      x = nn.relu(stem(image, self.width, 7, ('conv1', 'bn1'), 2))
    x = resizing.max_pool(x, kernel_size=3, stride=2, padding=1)
    features = []
    for stage, (count, stride, dilation) in enumerate(zip(blocks, *_STAGES[self.output_stride])):
      for block in range(count):
        strides = (stride, max(dilation // 2, 1)) if block == 0 else (1, dilation)
        x = Bottleneck(self.width * 2 ** stage, *strides, self.axis_name, self.dtype,
                       name=f'layer{stage + 1}_{block}')(x, train=train)
      features.append(x)
    return features
