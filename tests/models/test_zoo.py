"""Parts of the systems of SADANet's and SEAM's tables, by hand."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spinejax import models
from spinejax.models import attention
from spinejax.models import convolutions
from spinejax.models import dilated
from spinejax.models import resizing
from spinejax.models import sadanet
from spinejax.models import unet
from tests.models.arrays import RNGS, SMALL, random, shapes


def moved_variables(model, image_shape):
  """Variables of training, every one moved from its start so that no term is hidden by a zero."""
  generator = np.random.default_rng(0)

  def move(path, leaf):
    moved = np.float32(0.2 * generator.standard_normal(leaf.shape))
    return 1 + np.abs(moved) if path[-1].key in ('scale', 'var') else moved

  return jax.tree_util.tree_map_with_path(move, shapes(model, image_shape)[1])


def test_the_bases_move_in_training_alone():
  model = models.create_model(SMALL['emanet'])
  variables = moved_variables(model, (1, 16, 16, 1))
  bases = lambda tree: tree['batch_stats']['decode_head']['ema_module']['bases']

  @jax.jit
  def after(image):
    return [bases(model.apply(variables, image, train=train, mutable=['batch_stats'],
                              rngs=RNGS)[1]) for train in (False, True)]

  predicted, trained = after(random(2, 16, 16, 1))
  np.testing.assert_array_equal(predicted, bases(variables))
  assert np.abs(trained - predicted).max() > 1e-3


def apply_conv(tree, name, x, kernel_size=1, relu=True):
  """ConvNorm at evaluation, [N,H,W,C] by hand but for the convolution itself."""
  params, stats = tree['params'][name], tree['batch_stats'][name]['bn']
  assert params['conv']['kernel'].shape[0] == kernel_size
  x = np.asarray(convolutions.convolve(jnp.asarray(x, jnp.float32), params['conv']['kernel']))
  x = (x - stats['mean']) / np.sqrt(stats['var'] + 1e-5)
  x = params['bn']['scale'] * x + params['bn']['bias']
  return np.maximum(x, 0) if relu else x


def classify(tree, x, name='conv_seg'):
  return x @ tree['params'][name]['kernel'][0, 0] + tree['params'][name]['bias']


def submodule(module, tree, name, x, **kwargs):
  variables = {kind: part[name] for kind, part in tree.items() if name in part}
  return np.asarray(module.apply(variables, jnp.float32(x), **kwargs))


def resize_by_hand(x, size, align_corners):
  """PyTorch's bilinear resizing of [H,W,C], pixel by pixel."""
  height, width, channels = x.shape
  y = np.zeros((*size, channels))
  for target in np.ndindex(*size):
    places = []
    for o, n, after in zip(target, (height, width), size):
      place = (o * (n - 1) / max(after - 1, 1) if align_corners
               else max((o + 0.5) * n / after - 0.5, 0))
      low = min(int(place), n - 1)
      places.append((low, min(low + 1, n - 1), place - low))
    (top, bottom, v), (left, right, u) = places
    y[target] = ((1 - v) * ((1 - u) * x[top, left] + u * x[top, right])
                 + v * ((1 - u) * x[bottom, left] + u * x[bottom, right]))
  return y


@pytest.mark.parametrize('size, small, align_corners', [
    ((5, 7), (3, 4), True), ((6, 7), (3, 3), False), ((4, 2), (2, 1), False),
    ((1, 3), (1, 2), True), ((1, 4), (1, 2), False)])
def test_point_wise_head_by_hand(size, small, align_corners):
  head = dilated.PSAHead(num_classes=3, features=4, mask_size=(3, 5))
  x = random(1, *size, 6)
  variables = moved_variables(head, x.shape)
  joined = []
  for collect, suffix in ((True, ''), (False, '_p')):
    y = apply_conv(variables, f'reduce{suffix}', x)
    y = resize_by_hand(y[0], small, align_corners)
    mask = apply_conv(variables, f'attention{suffix}_0', y[None])
    mask = mask[0] @ variables['params'][f'attention{suffix}_1']['kernel'][0, 0]
    places = list(np.ndindex(*small))
    result = np.zeros_like(y)
    for target in places:
      energy = np.zeros(len(places))
      for i, source in enumerate(places):
        owner, other = (target, source) if collect else (source, target)
        row, column = other[0] - owner[0] + 1, other[1] - owner[1] + 2
        if 0 <= row < 3 and 0 <= column < 5:
          energy[i] = mask[owner].reshape(3, 5)[row, column]
      weights = np.exp(energy) / np.exp(energy).sum()
      result[target] = sum(weight * y[source] for weight, source in zip(weights, places))
    joined.append(result)
  bordered = np.pad(np.concatenate(joined, -1), ((1, 1), (1, 1), (0, 0)))
  y = apply_conv(variables, 'proj', bordered[None])
  y = resize_by_hand(y[0], size, align_corners)
  y = apply_conv(variables, 'bottleneck', np.concatenate([x, y[None]], -1), 3)
  np.testing.assert_allclose(head.apply(variables, x, train=False)['logits'],
                             classify(variables, y), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('wide', [False, True])
def test_dual_attention_head_by_hand(wide):
  head = sadanet.DAHead(num_classes=3, features=8, query_features=4, wide=wide, branch_losses=True)
  x = random(2, 5, 4, 6)
  variables = moved_variables(head, x.shape)
  y = apply_conv(variables, 'pam_in_conv', x, 3)
  for _ in range(2):
    y = submodule(attention.CrissCrossAttention(4), variables, 'pam', y)
  y = apply_conv(variables, 'pam_out_conv', y, 3)
  if wide:
    y = apply_conv(variables, 'pam_conv_cat', np.concatenate([x, y], -1), 3)
    y = apply_conv(variables, 'pam_last_conv', y, 3)
  z = apply_conv(variables, 'cam_in_conv', x, 3)
  z = submodule(attention.CosineChannelAttention(), variables, 'cam', z)
  z = apply_conv(variables, 'cam_out_conv', z, 3)
  np.testing.assert_allclose(head.apply(variables, x, train=False)['logits'],
                             classify(variables, y + z), rtol=1e-4, atol=1e-5)


def test_pyramid_pooling_by_hand():
  module = unet.PyramidPooling()
  x = random(1, 5, 7, 8)
  variables = moved_variables(module, x.shape)
  parts = [x]
  for bins in (1, 2, 3, 6):
    y = apply_conv(variables, f'pool_{bins}', resizing.adaptive_average_pool(x, bins))
    parts.append(resize_by_hand(y[0], (5, 7), False)[None])
  assert [part.shape[-1] for part in parts] == [8, 2, 2, 2, 2]
  np.testing.assert_allclose(
      module.apply(variables, x, train=False),
      apply_conv(variables, 'fuse', np.concatenate(parts, -1), 3), rtol=1e-4, atol=1e-5)


def test_pyramids_stand_in_the_two_deepest_connections():
  _, variables = shapes(models.create_model(SMALL['ppmu']), (1, 32, 32, 1))
  assert {name for name in variables['params'] if name.startswith('pyramid')} == {
      'pyramid_2', 'pyramid_3'}
  assert variables['params']['pyramid_3']['fuse']['conv']['kernel'].shape == (3, 3, 64, 32)
