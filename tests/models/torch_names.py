"""Variables of a module from arrays under their PyTorch names, for parity tests."""
from collections.abc import Mapping

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

_LEAVES = {'running_mean': ('batch_stats', 'mean'), 'running_var': ('batch_stats', 'var')}


def to_variables(arrays: Mapping[str, np.ndarray], template) -> dict:
  """{'layer1.0.bn1.weight': ...} as variables with the structure of `template`, none left."""
  flat_template = traverse_util.flatten_dict(template)
  flat = {}
  for name, array in arrays.items():
    path = []
    for part in name.split('.'):
      if part.isdigit():
        path[-1] += f'_{part}'
      elif part != 'conv' or not path:
        path.append(part)
    *path, leaf = path
    if leaf in _LEAVES:
      collection, leaf = _LEAVES[leaf]
    else:
      collection = 'params'
      if leaf == 'weight':
        leaf = 'kernel' if array.ndim == 4 else 'scale'
    if array.ndim == 4:
      array = array.transpose(2, 3, 1, 0)
    flat[(collection, *path, leaf)] = jnp.asarray(array)
  assert flat.keys() == flat_template.keys(), flat.keys() ^ flat_template.keys()
  return traverse_util.unflatten_dict(flat)


def nhwc(array: np.ndarray) -> jax.Array:
  return jnp.asarray(np.moveaxis(array, 1, -1))


def nchw(array: jax.Array) -> np.ndarray:
  return np.moveaxis(np.asarray(array), -1, 1)


def assert_within(actual, expected, tolerance) -> None:
  """Largest difference at most `tolerance` of the largest magnitude."""
  assert actual.shape == expected.shape
  assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()
