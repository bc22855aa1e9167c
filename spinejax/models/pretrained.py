"""Weights of PyTorch networks: their files, their names and their axis order."""
from collections.abc import Callable, Iterable, Mapping, Sequence
import contextlib
import inspect
import math
import os
import pathlib
import pickle
import re
from typing import Any
import warnings

import flax.linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from spinejax.models import resnet

# What a checkpoint may hold its weights under, as an entry or in front of every name.
_WRAPPERS = ('state_dict', 'model_state_dict', 'model')
_PREFIXES = (*_WRAPPERS, 'module', '_orig_mod', 'backbone', 'encoder')
_DROPPED = re.compile(r'(^|\.)(num_batches_tracked|fc\.(weight|bias))$')
# timm names the three convolutions of a deep stem conv1.0, .3, .6 and calls its last norm bn1.
_DEEP_STEM = re.compile(r'^(backbone\.)?(?:conv1\.(?=\d)|(bn1)\.)')
_POOLED_SHORTCUT = re.compile(r'layer\d+\.\d+\.downsample\.1\.weight$')
_LEAVES = {'kernel': 'weight', 'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}

Path = tuple[str, ...]


def from_torch(state_dict: Mapping[str, Any], model: nn.Module,
               input_shape: Sequence[int]) -> dict[str, Any]:
  """Variables of `model`, each array taken from a PyTorch state dict and none left over.

  Names correspond mechanically: `layer1_0/conv1/kernel` is `layer1.0.conv1.weight`, a norm's
  `scale`, `bias`, `mean` and `var` are its `weight`, `bias`, `running_mean` and `running_var`, the
  `conv` of a ConvModule may be there or not, `gamma` is `gamma.scale`. So these fit as they are:

    ResNets of torchvision and MMSegmentation, and timm's with a plain or deep (`resnet50c`) stem;
    MMSegmentation's segmentors with the heads FPN, DA, CC, PSA, EMA, NL and its U-Net, whose
      `decode_head.conv_seg` is our pyramid networks' `classifier`;
    any other network under the names of its own parameters, written this way.

  Wrappers (`state_dict`, `model`) and prefixes (`module.`, `backbone.`, `encoder.`, ...) that all
  names share are taken off; `num_batches_tracked` and ImageNet's classifier `fc` are dropped.
  Kernels [out,in,*window] become [*window,in,out], those of transposed convolutions (of even
  window) come as [in,out,*window]. Where the model has a one-channel image and the weights a
  three-channel one, the first kernel is summed over its input: what it gives on that gray image
  repeated three times.

  Args:
    state_dict: names to arrays of NumPy, JAX or PyTorch, of any floating dtype.
    model: the network; nothing is computed with it.
    input_shape: of its image, [N,H,W,C] or [H,W,C], or [N,D,H,W,C]; only C and the rank matter.

  Returns:
    {'params', 'batch_stats'} of float32 NumPy arrays, structured as `model.init(..., train=True)`.

  Raises:
    ValueError: names every missing, unexpected and mis-shaped array, and says where it can what
      kind of network the weights are of.
  """
  shape = (1, *input_shape) if len(input_shape) == 3 else tuple(input_shape)
  takes = inspect.signature(model.__call__).parameters
  mode: dict[str, Any] = {'train': True} if 'train' in takes else {}

  def init():
    key = jax.random.key(0)
    return model.init({'params': key, 'dropout': key}, jnp.zeros(shape, jnp.float32), **mode)

  return to_variables(state_dict, jax.eval_shape(init))


def to_variables(state_dict: Mapping[str, Any], template: Mapping[str, Any]) -> dict[str, Any]:
  """`from_torch` for given variables, or their shapes: same structure, every array imported."""
  flat = traverse_util.flatten_dict(template)
  names = _torch_names(flat)
  arrays = _named_for(state_dict, names.values())
  return traverse_util.unflatten_dict(_take(arrays, flat, names, ('',)))


def initialize(variables: Mapping[str, Any], state_dict: Mapping[str, Any],
               parts: Sequence[str] = ()) -> dict[str, Any]:
  """Initial variables of a network with PyTorch weights put in, as a start of training.

  Weights of a backbone alone fill `backbone`, those of a whole network everything. With `parts`
  only these parts of the network are filled, each wholly, and the rest stays as initialized: so
  ('backbone', 'neck') starts from a network of other classes. A part is a name at the top of the
  variables, or deeper with dots: 'decode_head.convs'.

  Args:
    variables: {'params', 'batch_stats'} of the network.
    state_dict: as in `from_torch`.
    parts: what to take.

  Returns:
    Variables of the same structure; what was imported are float32 NumPy arrays.

  Raises:
    ValueError: as `from_torch`, of the parts taken; or the network has no such part.
  """
  flat = traverse_util.flatten_dict(variables)
  names = _torch_names(flat)
  arrays = _named_for(state_dict, names.values())
  if not parts and all(key.startswith('backbone.') for key in arrays):
    parts = ('backbone',)
  for part in parts:
    if not any(_is_within(_dotted(path), part) for path in flat):
      tops = sorted({path[1] for path in flat})
      raise ValueError(f'config.init_parts: the network has no part {part!r}; it has '
                       f'{", ".join(tops)}.')
  return traverse_util.unflatten_dict(flat | _take(arrays, flat, names, parts or ('',)))


def _take(arrays: Mapping[str, tuple[str, Any]], flat: Mapping[Path, Any],
          names: Mapping[Path, str], parts: Sequence[str]) -> dict[Path, np.ndarray]:
  """The arrays for all paths within the parts, as float32 and in our axis order.

  Args:
    arrays: key to the name in the state dict and the array.
    flat: path to something with the shape to fill.
    names: path to PyTorch's name.
    parts: dotted names; '' is everything.
  """
  keys = {_key(name): path for path, name in names.items()}
  within = lambda name: any(_is_within(name, part) for part in parts)
  taken, missing, faults = {}, [], []
  for key, path in keys.items():
    if not within(_dotted(path)):
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
      f'{name}: unexpected, the model has no such array'
      for key, (name, _) in arrays.items() if key not in keys and within(key)]
  if faults:
    count = f'{len(faults)} arrays' if len(faults) > 1 else 'one array'
    raise ValueError(f'the weights do not fit the model in {count}{_hint(arrays, keys, flat)}:\n  '
                     + '\n  '.join(faults))
  return taken


def _float32(value: Any) -> np.ndarray:
  """An array of NumPy, JAX or PyTorch as float32; ValueError for anything but finite floats."""
  array = _to_numpy(value) if hasattr(value, 'detach') else np.asarray(value)
  if not jnp.issubdtype(array.dtype, jnp.floating):
    raise ValueError(f'weights must be floating point, not {array.dtype}')
  with np.errstate(over='ignore'):
    array = array.astype(np.float32)
  if not np.isfinite(array).all():
    raise ValueError('holds values that are not finite')
  return array


def _to_numpy(tensor: Any) -> np.ndarray:
  """A tensor of PyTorch; floats become float32, since NumPy has no bfloat16."""
  tensor = tensor.detach().cpu()
  return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _fit(array: np.ndarray, path: Path, flat: Mapping[Path, Any]) -> np.ndarray:
  """The array in the shape of `path`; ValueError if it is of another."""
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
  """The order that takes PyTorch's axes of a kernel to ours, of the given shape."""
  window = range(2, len(shape))
  transposed = len(shape) > 2 and shape[0] % 2 == 0
  return (*window, 0, 1) if transposed else (*window, 1, 0)


def _torch_shape(path: Path, flat: Mapping[Path, Any]) -> tuple[int, ...]:
  shape = flat[path].shape
  if path[-1] != 'kernel':
    return shape
  return tuple(shape[axis] for axis in np.argsort(_axes(shape)))


def _torch_names(paths: Mapping[Path, Any]) -> dict[Path, str]:
  """PyTorch's name of every variable, MMSegmentation's up to the `conv` of its ConvModules."""
  is_segmentor = any(path[1] == 'decode_head' for path in paths)
  names = {}
  for path in paths:
    *modules, leaf = path[1:]
    if is_segmentor and modules[:1] == ['classifier']:
      modules[:1] = ['decode_head', 'conv_seg']
    parts = [re.sub(r'_(?=\d)', '.', module) for module in modules]
    names[path] = '.'.join([*parts, _LEAVES.get(leaf, leaf)])
  return names


def _key(name: str) -> str:
  """What is the same of a name however it is written."""
  name = re.sub(r'_(?=\d)', '.', name)
  parts = [part for part in name.split('.') if part != 'conv']
  return '.'.join(parts[:-1] if parts[-2:] == ['gamma', 'scale'] else parts)


def _dotted(path: Path) -> str:
  return re.sub(r'_(?=\d)', '.', '.'.join(path[1:]))


def _is_within(name: str, part: str) -> bool:
  return not part or (name + '.').startswith(re.sub(r'_(?=\d)', '.', part) + '.')


def _named_for(state_dict: Mapping[str, Any], names: Iterable[str]) -> dict[str, tuple[str, Any]]:
  """Key to (name, array) of all weights, prefixes and timm's stem turned to the model's names."""
  state_dict = _unwrap(state_dict)
  arrays = {name: (name, value) for name, value in state_dict.items()
            if not _DROPPED.search(name)}
  if not arrays:
    raise ValueError('the weights are empty: expected a state dict of names and arrays.')
  tops = {_key(name).partition('.')[0] for name in names}
  first = lambda: {name.partition('.')[0] for name in arrays}
  while len(first()) == 1 and first() <= set(_PREFIXES) - tops:
    arrays = {name.partition('.')[2]: value for name, value in arrays.items()}
  if 'backbone' in tops and not first() & tops:
    arrays = {f'backbone.{name}': value for name, value in arrays.items()}
  for name, (given, value) in arrays.items():
    if _POOLED_SHORTCUT.search(name) and np.ndim(value) == 4:
      raise ValueError(f'{given} follows an average pooling: these weights are of a ResNet-D '
                       '(timm resnet50d, MMSegmentation resnet50_v1d), which is not here; take '
                       'resnet50 or resnet50c.')
  if any(re.match(r'(backbone\.)?conv1\.0\.', name) for name in arrays):
    arrays = {_DEEP_STEM.sub(lambda match: f'{match[1] or ""}stem.{"7." if match[2] else ""}',
                             name): value for name, value in arrays.items()}
  keyed: dict[str, tuple[str, Any]] = {}
  for name, value in arrays.items():
    if _key(name) in keyed:
      raise ValueError(f'{keyed[_key(name)][0]} and {value[0]} name the same array.')
    keyed[_key(name)] = value
  return keyed


def _unwrap(content: Mapping[str, Any]) -> Mapping[str, Any]:
  """What lies under `state_dict` or another such entry of a checkpoint, or the content itself."""
  for wrapper in _WRAPPERS:
    if isinstance(content.get(wrapper), Mapping):
      return _unwrap(content[wrapper])
  return content


def _hint(arrays: Mapping[str, tuple[str, Any]], keys: Mapping[str, Path],
          flat: Mapping[Path, Any]) -> str:
  """What the weights probably are, if that tells the user what to do."""
  given, expected = _backbone_of(arrays), _backbone_of(keys)
  if given and expected and given != expected:
    return (f'; they are of a {given}, the model has a {expected}: set '
            f'config.model.backbone={given}')
  for key, path in keys.items():
    if key in arrays and key.endswith(('conv_seg.weight', 'classifier.weight')):
      have, want = np.shape(arrays[key][1])[:1], _torch_shape(path, flat)[:1]
      if have and have != want:
        return (f'; they are of {have[0]} classes, the model of {want[0]}: set '
                f'config.model.num_classes={have[0]}, or start from parts of them by '
                'config.init_parts')
  return ''


def _backbone_of(names: Mapping[str, Any]) -> str | None:
  """The entry of `resnet.BACKBONES` that has these names, or None."""
  names = [name.removeprefix('backbone.') for name in names]
  blocks = {match[0] for name in names if (match := re.match(r'layer\d+\.\d+\.conv3', name))}
  counts = tuple(sum(block.startswith(f'layer{stage}.') for block in blocks)
                 for stage in range(1, 5))
  found = (counts, any(name.startswith('stem.') for name in names))
  return next((name for name, kind in resnet.BACKBONES.items() if kind == found), None)


def _list(shape: Sequence[int]) -> str:
  return f'[{",".join(map(str, shape))}]'


def load_state_dict(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Names and arrays of a file of weights: .safetensors, .npz, or .pth and .pt of PyTorch.

  No code of a file ever runs. The last kind needs PyTorch and is opened by its restricted
  unpickler; what a checkpoint holds beside tensors (configs, logs, optimizers) becomes an inert
  placeholder, and the weights are found under `state_dict` or `model`.

  Args:
    path: the file; its suffix tells the format.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is of another format, damaged, or holds something else than arrays.
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
  except Exception as error:  # readers of foreign bytes raise many kinds; the cause is in the text
    cause = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    raise ValueError(f'{path}: the file is damaged or not of the format {path.suffix} '
                     f'({cause}).') from None


class _NotWeights(Exception):
  """The file is readable, and not what was asked for; the sentence says why."""


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  return safetensors.numpy.load_file(path)


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
  file = np.load(path, allow_pickle=False)
  if isinstance(file, np.ndarray):
    raise _NotWeights('a single array; expected an archive of named arrays (numpy.savez).')
  with file:
    arrays = {name: file[name] for name in file.files}
  for name, array in arrays.items():
    if not isinstance(array, np.ndarray):
      raise _NotWeights(f'{name} in it is no array; a PyTorch file has the suffix .pth.')
  return arrays


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    import torch
  except ImportError:
    raise _NotWeights(
        f'reading {path.suffix} needs PyTorch (pip install torch); or convert the file where '
        'PyTorch is, by safetensors.torch.save_file(state_dict, "weights.safetensors").') from None
  try:
    unknown = torch.serialization.get_unsafe_globals_in_checkpoint(path)
  except Exception:  # no archive: a format before PyTorch 1.6, or no checkpoint at all
    unknown = []
  placeholders = [(_placeholder(name), name) for name in unknown]
  try:
    with (warnings.catch_warnings(),
          torch.serialization.safe_globals(placeholders) if placeholders
          else contextlib.nullcontext()):
      warnings.simplefilter('ignore')  # of unusual pickles, which are refused or read
      content = torch.load(path, map_location='cpu', weights_only=True)
  except pickle.UnpicklingError as error:
    cause = str(error).rpartition('WeightsUnpickler error: ')[2].strip().splitlines() or ['']
    raise _NotWeights(
        f'not a plain state dict, so it is not opened, as pickles can run code ({cause[0][:200]}); '
        'where it is trusted, save it again by torch.save(model.state_dict(), path).') from None
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
  """A class that takes anything and does nothing, for a class or function named in a pickle."""
  def ignore(self, *args, **kwargs):
    del self, args, kwargs

  return type(name.rpartition('.')[2], (), {'__init__': ignore, '__setstate__': ignore})


_READERS: dict[str, Callable[[pathlib.Path], dict[str, np.ndarray]]] = {
    '.safetensors': _read_safetensors,
    '.npz': _read_npz,
    '.pth': _read_torch,
    '.pt': _read_torch,
}
