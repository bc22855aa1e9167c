"""What the attention of a trained network looks at in an image."""
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage, special

from spinejax.data import augment, examples, resize
from spinejax.inference.restore import Run
from spinejax.metrics import segmentation
from spinejax.metrics.results import AttentionMaps
from spinejax.models import attention

Arrays = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Mapper:
  """A network compiled to tell its attention.

  `collect` maps an image float32 [1,*image_size,C] in gray levels to `logits` and what the modules
  of `models.attention` sow, by name and for this one example.
  """
  run: Run
  collect: Callable[[np.ndarray], dict[str, Any]]


def create_mapper(run: Run) -> Mapper | None:
  """Compiles the network of a run on one device; None if it has no attention and no key map.

  The weights are those of a prediction. The auxiliary head of SADANet is computed too, with the
  running statistics of its batch norms.
  """
  normalize = functools.partial(augment.normalize, mean=run.info['mean'], std=run.info['std'])

  def collect(variables, image):
    outputs, found = run.model.apply(variables, normalize(image), train=False,
                                     mutable=['intermediates'])
    sown = {path[-1]: value for path, value in
            traverse_util.flatten_dict(found.get('intermediates', {})).items()}
    if 'affinity' in sown:
      (weights, key, rebuilt), = sown.pop('affinity')
      sown |= dict(affinity=weights, key=key.reshape(*rebuilt.shape[:3], -1),
                   rebuilt=jnp.linalg.norm(rebuilt.astype(jnp.float32), axis=-1))
    elif 'key_logits' in outputs:
      sown['key'] = jax.nn.softmax(outputs['key_logits'])
    sown['logits'] = outputs['logits']
    return jax.tree.map(lambda x: x[0] if jnp.ndim(x) else x, sown)

  data = run.config.data
  image = jax.ShapeDtypeStruct((1, *data.image_size, data.channels), jnp.float32)
  traced = jax.jit(collect).trace(run.variables, image)
  if set(traced.out_info) == {'logits'}:
    return None
  compiled = traced.lower().compile()
  return Mapper(run, lambda image: jax.device_get(compiled(run.variables, image)))


def attention_maps(mapper: Mapper, image: np.ndarray, label: np.ndarray | None = None,
                   pixel: tuple[int, int] | None = None) -> AttentionMaps:
  """The maps of an image [H,W,C] of any size.

  The map of positions is that of `pixel`, row and column in the image. None takes
  `farthest_bone` of the label, or of the predicted mask without a label [H,W].

  Raises:
    ValueError: a pixel outside of the image.
  """
  config, model = mapper.run.config.data, mapper.run.model
  size, used = image.shape[:2], examples.network_size(image.shape[:2], config)
  batch = examples.prepare_image(image, config)[None].astype(np.float32)
  found = mapper.collect(batch)
  prediction = segmentation.predict_labels(found['logits'])[:used[0], :used[1]]
  mask = prediction if label is None else resize.resize_nearest(label, used)
  if pixel is None:
    place = farthest_bone(mask)
  elif all(0 <= n < limit for n, limit in zip(pixel, size)):
    place = tuple((2 * n + 1) * new // (2 * old) for n, new, old in zip(pixel, used, size))
  else:
    raise ValueError(f'the pixel {pixel[0]},{pixel[1]} is outside of the image of '
                     f'{size[0]}x{size[1]} pixels.')
  padded = [-(-n // model.size_multiple) * model.size_multiple for n in batch.shape[1:3]]

  def at_image_size(x: np.ndarray | None) -> np.ndarray | None:
    return None if x is None else resize.resize_nearest(x, padded)[:used[0], :used[1]]

  key = found.get('key')
  positions = _positions(found, model, padded, place)
  return AttentionMaps(
      prediction, at_image_size(key), found.get('affinity'), at_image_size(found.get('rebuilt')),
      found['channel'][0] if 'channel' in found else None, at_image_size(positions),
      place if positions is not None else None)


def farthest_bone(mask: np.ndarray) -> tuple[int, int]:
  """The pixel in the middle of the bone farthest from the middle of a mask [H,W].

  Bones are the connected components of the classes of at least the median size. The pixel is the
  one of the bone that is nearest to its center. Without a bone it is the middle of the mask.
  """
  middle = (np.array(mask.shape) - 1) / 2
  bones = []
  for index in np.unique(mask[mask > 0]):
    components, count = ndimage.label(mask == index, np.ones((3, 3)))
    bones += [np.argwhere(components == i) for i in range(1, count + 1)]
  if not bones:
    return mask.shape[0] // 2, mask.shape[1] // 2
  least = np.median([len(bone) for bone in bones])
  bone = max((bone for bone in bones if len(bone) >= least),
             key=lambda bone: np.square(bone.mean(0) - middle).sum())
  row, column = bone[np.square(bone - bone.mean(0)).sum(1).argmin()]
  return int(row), int(column)


def follow_cross(weights: np.ndarray, passes: np.ndarray) -> np.ndarray:
  """Weights [h,w] of pixels, passed on through one criss-cross attention [h,w,h+w]."""
  height = len(weights)
  along = weights[..., None] * passes
  return along[..., :height].sum(0).T + along[..., height:].sum(1)


def _positions(found: Arrays, model: Any, padded: list[int], place: tuple[int, int]
               ) -> np.ndarray | None:
  """Weights [h,w] of all pixels in the pixel `place` of an image of `padded` pixels."""
  if 'criss_cross' in found:
    passes = found['criss_cross']
    weights = np.zeros(passes[0].shape[:2], np.float32)
    weights[_on_map(place, padded, weights.shape)] = 1
    return functools.reduce(follow_cross, reversed(passes), weights)
  if 'collect' in found:
    return _point_wise(found, model.mask_size, padded, place)
  height, width = (n // model.output_stride for n in padded)
  row, column = _on_map(place, padded, (height, width))
  if 'position' in found:
    query, key, scale = (*found['position'][0], 1.0)[:3]
    return special.softmax(scale * key @ query[row * width + column]).reshape(height, width)
  if 'bases' in found:
    weights, shares = found['bases'][0]
    return (shares @ weights[row * width + column]).reshape(height, width)
  return None


def _point_wise(found: Arrays, mask_size: Any, padded: list[int], place: tuple[int, int]
                ) -> np.ndarray:
  """The mean of both directions of PSANet."""
  size = found['collect'][0].shape[:2]
  row, column = _on_map(place, padded, size)
  affinities = [attention.affinity_of_row(
      jnp.reshape(found[direction][0], (1, *size, *mask_size)).astype(jnp.float32),
      jnp.int32(row), direction == 'collect')[0, column] for direction in ('collect', 'distribute')]
  return np.mean([special.softmax(np.asarray(x)) for x in affinities], 0).reshape(size)


def _on_map(place: tuple[int, int], padded: list[int], size: tuple[int, ...]) -> tuple[int, int]:
  row, column = (n * new // old for n, new, old in zip(place, size, padded))
  return row, column
