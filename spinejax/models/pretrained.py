"""Weights of PyTorch networks: reading their files and mapping them to our variables."""
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
import contextlib
import math
import os
import pathlib
import pickle
import re
from typing import Any
import warnings

from flax import traverse_util
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from spinejax.models import resnet

# Entries of a checkpoint that hold the weights. The same words may stand in front of every name.
_WRAPPERS = ('state_dict', 'model_state_dict', 'model')
_PREFIXES = {*_WRAPPERS, 'module', '_orig_mod', 'backbone', 'encoder'}
_DROPPED = re.compile(r'(^|\.)(num_batches_tracked|fc\.(weight|bias))$')
# timm calls the convolutions of a deep stem conv1.0, .3 and .6, and its last norm bn1.
_DEEP_STEM = re.compile(r'^(backbone\.)?(?:conv1\.(?=\d)|(bn1)\.)')
_POOLED_SHORTCUT = re.compile(r'layer\d+\.\d+\.downsample\.1\.weight$')
_LEAVES = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}

Path = tuple[str, ...]  # of a variable: collection, modules, leaf
Named = tuple[str, Any]  # an array and its name in the state dict


def initialize(variables: Mapping[str, Any], state_dict: Mapping[str, Any],
               parts: Sequence[str] = ()) -> dict[str, Any]:
  """Replaces variables of a network by PyTorch weights, which have exactly its arrays.

  Names are mapped by rule. `layer1_0/conv1/kernel` is `layer1.0.conv1.weight`. The `scale`, `bias`,
  `mean` and `var` of a norm are its `weight`, `bias`, `running_mean` and `running_var`. `gamma` is
  `gamma.scale`. The `conv` of a ConvModule is optional. The following state dicts fit:

    ResNets of torchvision and MMSegmentation, and timm's with a plain or deep (`resnet50c`) stem;
    segmentors of MMSegmentation with the heads FPN, DA, CC, PSA, EMA and NL, and its U-Net; their
      `decode_head.conv_seg` is the `classifier` of our pyramid networks;
    any other network under the names of its own parameters, written this way.

  Wrappers (`state_dict`, `model`) and prefixes that all names share (`module.`, `backbone.`, ...)
  are removed. `num_batches_tracked` and the ImageNet classifier `fc` are ignored. Kernels
  [out, in, *size] become [*size, in, out]; those of transposed convolutions, which have an even
  size, come as [in, out, *size]. If the model takes one channel and the weights three, the first
  kernel is summed over its input channels, which equals repeating the gray image three times.

  Args:
    variables: of `model.init(..., train=True)`, or their shapes.
    state_dict: names to arrays of NumPy, JAX or PyTorch, of any floating dtype.
    parts: dotted names of what to fill, each completely, such as ('backbone', 'decode_head.convs');
      '' is everything. So one can start from a network of other classes. Without any, weights of a
      backbone fill the part `backbone`, and weights of a whole network fill everything.

  Returns:
    Variables of the same structure. Imported ones are float32 NumPy arrays.

  Raises:
    ValueError: on an unknown part, or with a list of all missing, unexpected and mis-shaped arrays
      that names the network which the weights belong to if it is known.
  """
  flat = traverse_util.flatten_dict(variables)
  for part in parts:
    if not any(_is_within(_dotted(path[1:]), part) for path in flat):
      names = sorted({path[1] for path in flat})
      raise ValueError(f'config.init_parts: the network has no part {part!r}; it has '
                       f'{", ".join(names)}.')
  names = _torch_names(flat)
  keys = {_key(name): path for path, name in names.items()}
  arrays = _by_key(state_dict, keys)
  if not parts:
    parts = ('backbone',) if all(key.startswith('backbone.') for key in arrays) else ('',)
  taken, missing, faults = {}, [], []
  for key, path in keys.items():
    if not any(_is_within(_dotted(path[1:]), part) for part in parts):
      continue
    if key not in arrays:
      missing.append(f'{names[path]}: missing, the model has {_list(_torch_shape(path, flat))}')
      continue
    name, value = arrays[key]
    try:
      taken[path] = _fit(_float32(value), path, flat)
    except ValueError as error:
      faults.append(f'{name}: {error}')
  faults = missing + faults + [
      f'{name}: unexpected, the model has no such array' for key, (name, _) in arrays.items()
      if key not in keys and any(_is_within(key, part) for part in parts)]
  if faults:
    count = f'{len(faults)} arrays' if len(faults) > 1 else 'one array'
    raise ValueError(f'the weights do not fit the model in {count}{_hint(arrays, keys, flat)}:\n  '
                     + '\n  '.join(faults))
  return traverse_util.unflatten_dict({**flat, **taken})


def _float32(value: Any) -> np.ndarray:
  """An array of NumPy, JAX or PyTorch as float32. Raises ValueError unless it has finite floats."""
  array = _to_numpy(value) if hasattr(value, 'detach') else np.asarray(value)
  if not jnp.issubdtype(array.dtype, jnp.floating):
    raise ValueError(f'weights must be floating point, not {array.dtype}')
  with np.errstate(over='ignore'):
    array = array.astype(np.float32)
  if not np.isfinite(array).all():
    raise ValueError('holds values that are not finite')
  return array


def _to_numpy(tensor: Any) -> np.ndarray:
  """A PyTorch tensor. Floats become float32, since NumPy has no bfloat16."""
  tensor = tensor.detach().cpu()
  return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _fit(array: np.ndarray, path: Path, flat: Mapping[Path, Any]) -> np.ndarray:
  """The array in our order of axes. Raises ValueError if it has another shape than `path`."""
  shape, given = flat[path].shape, array.shape
  if len(shape) > 1 and len(shape) == array.ndim and path[-1] == 'kernel':
    array = np.transpose(array, _axes(shape))
    if shape[-2] == 1 and array.shape[-2] == 3:
      array = array.sum(-2, keepdims=True)
  elif array.size == 1 == math.prod(shape):
    array = array.reshape(shape)
  if array.shape != shape:
    raise ValueError(f'{_list(given)}, the model has {_list(_torch_shape(path, flat))}')
  return np.asarray(array, order='C')


def _axes(shape: Sequence[int]) -> tuple[int, ...]:
  """Permutation from PyTorch's axes of a kernel to ours; `shape` is ours."""
  spatial = range(2, len(shape))
  is_transposed = len(shape) > 2 and shape[0] % 2 == 0
  return (*spatial, 0, 1) if is_transposed else (*spatial, 1, 0)


def _torch_shape(path: Path, flat: Mapping[Path, Any]) -> tuple[int, ...]:
  shape = flat[path].shape
  if path[-1] != 'kernel':
    return shape
  return tuple(shape[axis] for axis in np.argsort(_axes(shape)))


def _list(shape: Sequence[int]) -> str:
  return f'[{",".join(map(str, shape))}]'


def _torch_names(paths: Collection[Path]) -> dict[Path, str]:
  """The name of every variable in PyTorch."""
  is_segmentor = any(path[1] == 'decode_head' for path in paths)
  names = {}
  for path in paths:
    *modules, leaf = path[1:]
    if is_segmentor and modules[:1] == ['classifier']:
      modules[:1] = ['decode_head', 'conv_seg']
    names[path] = _dotted([*modules, _LEAVES.get(leaf, leaf)])
  return names


def _dotted(parts: Sequence[str]) -> str:
  """'layer1.0.conv1' from ('layer1_0', 'conv1')."""
  return re.sub(r'_(?=\d)', '.', '.'.join(parts))


def _key(name: str) -> str:
  """A name without the parts that libraries write differently."""
  parts = [part for part in _dotted([name]).split('.') if part != 'conv']
  return '.'.join(parts[:-1] if parts[-2:] == ['gamma', 'scale'] else parts)


def _is_within(name: str, part: str) -> bool:
  return not part or (name + '.').startswith(_dotted([part]) + '.')


def _by_key(state_dict: Mapping[str, Any], model_keys: Iterable[str]) -> dict[str, Named]:
  """All weights by `_key`, without common prefixes and with the stem named as in MMSegmentation."""
  arrays: dict[str, Named] = {
      name: (name, value) for name, value in _unwrap(state_dict).items()
      if not _DROPPED.search(name)}
  if not arrays:
    raise ValueError('the weights are empty: expected a state dict of names and arrays.')
  tops = _first_words(model_keys)
  while len(first := _first_words(arrays)) == 1 and first <= _PREFIXES - tops:
    arrays = {name.partition('.')[2]: value for name, value in arrays.items()}
  if 'backbone' in tops and not first & tops:
    arrays = {f'backbone.{name}': value for name, value in arrays.items()}
  for name, (given, value) in arrays.items():
    if _POOLED_SHORTCUT.search(name) and np.ndim(value) == 4:
      raise ValueError(f'{given} follows an average pooling: these are weights of a ResNet-D (timm '
                       'resnet50d, MMSegmentation resnet50_v1d), which spinejax does not have; use '
                       'weights of resnet50 or resnet50c.')
  if any(re.match(r'(backbone\.)?conv1\.0\.', name) for name in arrays):
    arrays = {_DEEP_STEM.sub(lambda match: f'{match[1] or ""}stem.{"7." if match[2] else ""}',
                             name): value for name, value in arrays.items()}
  by_key: dict[str, Named] = {}
  for name, value in arrays.items():
    if _key(name) in by_key:
      raise ValueError(f'{by_key[_key(name)][0]} and {value[0]} name the same array.')
    by_key[_key(name)] = value
  return by_key


def _first_words(names: Iterable[str]) -> set[str]:
  return {name.partition('.')[0] for name in names}


def _unwrap(content: Mapping[str, Any]) -> Mapping[str, Any]:
  """The state dict in a checkpoint."""
  for wrapper in _WRAPPERS:
    if isinstance(content.get(wrapper), Mapping):
      return _unwrap(content[wrapper])
  return content


def _hint(arrays: Mapping[str, Named], keys: Mapping[str, Path], flat: Mapping[Path, Any]) -> str:
  """Which field of the config to change, if the weights show it."""
  given, expected = _backbone_of(arrays), _backbone_of(keys)
  if given and expected and given != expected:
    return (f'; they are of a {given}, the model has a {expected}: set '
            f'config.model.backbone={given}')
  for key, path in keys.items():
    if key in arrays and key.endswith(('conv_seg.weight', 'classifier.weight')):
      have, want = np.shape(arrays[key][1])[:1], _torch_shape(path, flat)[:1]
      if have and have != want:
        return (f'; they are of {have[0]} classes, the model of {want[0]}: set '
                f'config.model.num_classes={have[0]}, or choose parts to start from with '
                'config.init_parts')
  return ''


def _backbone_of(names: Collection[str]) -> str | None:
  """The entry of `resnet.BACKBONES` with these names, or None."""
  names = [name.removeprefix('backbone.') for name in names]
  blocks = {match[0] for name in names if (match := re.match(r'layer\d+\.\d+\.conv3', name))}
  counts = tuple(sum(block.startswith(f'layer{stage}.') for block in blocks)
                 for stage in range(1, 5))
  found = (counts, any(name.startswith('stem.') for name in names))
  return next((name for name, kind in resnet.BACKBONES.items() if kind == found), None)


def load_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads a file of weights: .safetensors, .npz, or .pth and .pt of PyTorch.

  Code in a file never runs. Files of PyTorch need PyTorch and are read by its restricted unpickler.
  Other content of a checkpoint (configs, logs, optimizers) becomes inert placeholders; the weights
  are those under `state_dict` or `model`.

  Raises FileNotFoundError if there is no such file, and ValueError if it has another format, is
  damaged, or holds something other than arrays.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    raise ValueError(f'{path} is a folder; expected a file of weights ({", ".join(_READERS)}).')
  if not path.exists():
    raise FileNotFoundError(f'{path}: there is no such file of weights.')
  read = _READERS.get(path.suffix.lower())
  if read is None:
    raise ValueError(f'{path}: weights are read from {", ".join(_READERS)} files, not from '
                     f'{path.suffix!r}.')
  try:
    return read(path)
  except _NotWeights as error:
    raise ValueError(f'{path}: {error}') from None
  except Exception as error:  # on damaged files the libraries raise errors of many types
    cause = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    raise ValueError(f'{path}: the file is damaged or not of the format {path.suffix} '
                     f'({cause}).') from None


class _NotWeights(Exception):
  """A readable file that does not hold weights; the message says what it holds."""


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
  file = np.load(path, allow_pickle=False)
  if isinstance(file, np.ndarray):
    raise _NotWeights('a single array; expected an archive of named arrays (numpy.savez).')
  with file:
    arrays = {name: file[name] for name in file.files}
  for name, array in arrays.items():
    if not isinstance(array, np.ndarray):
      raise _NotWeights(f'its entry {name} is no array; a PyTorch file has the suffix .pth.')
  return arrays


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    import torch
  except ImportError:
    raise _NotWeights(
        f'reading {path.suffix} needs PyTorch (pip install torch). Or convert the file where '
        'PyTorch is installed: safetensors.torch.save_file(state_dict, "weights.safetensors").'
    ) from None
  try:
    unknown = torch.serialization.get_unsafe_globals_in_checkpoint(path)
  except Exception:  # not an archive: the format before PyTorch 1.6, or no checkpoint
    unknown = []
  placeholders = [(_placeholder(name), name) for name in unknown]
  try:
    with (warnings.catch_warnings(),
          torch.serialization.safe_globals(placeholders) if placeholders
          else contextlib.nullcontext()):
      warnings.simplefilter('ignore')  # warnings about pickles, which are refused or read below
      content = torch.load(path, map_location='cpu', weights_only=True)
  except pickle.UnpicklingError as error:
    cause = str(error).rpartition('WeightsUnpickler error: ')[2].strip().splitlines() or ['']
    raise _NotWeights(
        f'not a plain state dict ({cause[0][:200]}). It is not opened, since pickles can run code. '
        'If you trust it, save it again with torch.save(model.state_dict(), path).') from None
  if not isinstance(content, Mapping):
    raise _NotWeights(f'holds a {type(content).__name__}, not a state dict; save '
                      'model.state_dict() instead.')
  weights = _unwrap(content)
  others = [str(name) for name, value in weights.items()
            if not (isinstance(name, str) and isinstance(value, torch.Tensor))]
  if others or not weights:
    raise _NotWeights('not a state dict, which holds names and tensors only; it has '
                      f'{", ".join(others[:5]) or "nothing"}.')
  return {name: _to_numpy(tensor) for name, tensor in weights.items()}


def _placeholder(name: str) -> type:
  """A class that accepts any arguments and does nothing, for a class named in a pickle."""
  def ignore(self, *args, **kwargs):
    del self, args, kwargs

  return type(name.rpartition('.')[2], (), {'__init__': ignore, '__setstate__': ignore})


_READERS: dict[str, Callable[[pathlib.Path], dict[str, np.ndarray]]] = {
    '.safetensors': safetensors.numpy.load_file,
    '.npz': _read_npz,
    '.pth': _read_torch,
    '.pt': _read_torch,
}
