"""The readers that `tests.faults.fuzz` tries: files they accept and files made to harm them."""
import contextlib
import functools
import io
import json
import os
import pathlib
import pickle
import shutil
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tests import tiny
from tests.readers import folders

SECONDS = 10  # of CPU time for a file


class Reader(NamedTuple):
  """A reader under test.

  Attributes:
    write: writes valid files into a folder; returns those to be mutated.
    read: reads the folder. It raises nothing, because a refusal must not hide other readers.
    share: of the inputs, relative to other readers.
  """
  write: Callable[[pathlib.Path], list[pathlib.Path]]
  read: Callable[[pathlib.Path], Any]
  share: float = 1.0


def attempt(read: Callable, *args: Any) -> None:
  """Reads, or raises AssertionError unless the file is refused in one sentence, in time."""
  begin = time.process_time()
  try:
    read(*args)
  except (ValueError, OSError) as error:
    check_refusal(error)
  seconds = time.process_time() - begin
  if seconds > SECONDS:
    raise AssertionError(f'{seconds:.1f} s')


def check_refusal(error: Exception) -> None:
  """Raises AssertionError unless an error is one sentence, or a list under one."""
  text = str(error)
  head = text.split('\n')[0]
  if isinstance(error, UnicodeError) or not head.strip() or len(head) > 3000 or (
      len(text.split('\n')) > 1 and not head.endswith(':')):
    raise AssertionError(f'{type(error).__name__} is no sentence: {text[:300]!r}') from error


def each(*reads: Callable, suffix: Callable = bool) -> Callable[[pathlib.Path], None]:
  """A read of every file of a folder whose path has the suffix, by all `reads`."""
  def read_folder(folder):
    for path in filter(suffix, sorted(folder.iterdir())):
      for read in reads:
        attempt(read, path)

  return read_folder


# ------------------------------------------------------------------------------------- images


def _write_images(suffix: str, *modes: str, **options):
  def write(folder):
    rng, paths = np.random.default_rng(0), []
    for mode in modes:
      paths.append(folder / f'{mode.replace(";", "_")}{suffix}')
      image = (Image.fromarray(rng.integers(0, 65535, (24, 16)).astype(np.uint16))
               if mode == 'I;16' else
               Image.fromarray(rng.integers(0, 255, (24, 16, 3), np.uint8)).convert(mode))
      image.save(paths[-1], **options)
    return paths

  return write


def _read_images(folder):
  from spinejax.readers import images, masks

  palette = (0, 0, 0), (255, 0, 0), (0, 0, 255)
  each(images.read_picture, masks.read_mask, lambda path: masks.read_mask(path, palette))(folder)


def _write_dicom(folder):
  rng = np.random.default_rng(0)
  tags = dict(PixelSpacing=[0.2, 0.2], WindowCenter=100, WindowWidth=50, RescaleSlope=2,
              RescaleIntercept=1)
  return [folders.write_dicom(folder / f'{kind}.dcm', rng.integers(0, 256, (24, 16)).astype(kind),
                              photometric='MONOCHROME1', **tags) for kind in ('uint8', 'uint16')]


# ------------------------------------------------------------------------------------- volumes


@functools.cache
def _geometry():
  from spinejax.readers import volumes

  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'a.npz'
    np.savez(path, image=np.random.default_rng(0).random((6, 5, 4)), spacing=np.ones(3))
    return volumes.read_volume(path).geometry


def _write_volumes(*suffixes: str):
  def write(folder):
    import SimpleITK as sitk

    rng, paths = np.random.default_rng(0), []
    (folder / 'secret.raw').write_bytes(bytes(4000))
    for suffix in suffixes:
      for kind in (np.uint8, np.float32):
        image = sitk.GetImageFromArray(rng.integers(0, 9, (4, 5, 6)).astype(kind))
        image.SetSpacing((0.5, 1.0, 2.0))
        for packed in (False, True):
          paths.append(folder / f'{np.dtype(kind).name}{packed:d}{suffix}')
          sitk.WriteImage(image, str(paths[-1]), useCompression=packed)
    return paths

  return write


def _write_npz(folder):
  array = np.random.default_rng(0).integers(0, 200, (6, 5, 4)).astype(np.float32)
  arrays = dict(image=array, label=(array > 150).astype(np.uint8), spacing=np.ones(3),
                landmarks=np.array([[1, 2, 3], [4, 2, 1]]), region=np.array([0, 1]))
  np.savez(folder / 'a.npz', **arrays)
  np.savez_compressed(folder / 'b.npz', **arrays)
  return [folder / 'a.npz', folder / 'b.npz']


def _read_volumes(folder):
  from spinejax.readers import volumes

  each(volumes.read_volume, volumes.read_labels,
       lambda path: volumes.read_mask(path, _geometry()), suffix=volumes.is_volume)(folder)


# ------------------------------------------------------------------------------------- tables


def _write_text(**files: str):
  def write(folder):
    paths = [folder / name.replace('__', '.') for name in files]
    for path, text in zip(paths, files.values()):
      path.write_text(text)
    return paths

  return write


def _read_cases(folder):
  from spinejax.readers import layouts

  for fault in layouts.read_cases(folder / 'cases.csv', ['anna', 'ben', 'carl'])[1]:
    check_refusal(ValueError(fault))


def _read_landmarks(folder):
  from spinejax.readers import landmarks

  each(lambda path: landmarks.read_landmarks(path, _geometry()))(folder)


def _corners() -> np.ndarray:
  rows = np.repeat(np.arange(34) * 20 + 10, 2)
  return np.stack([np.tile([40, 60], 34), rows], -1).astype(np.float64)


def _write_corners(folder):
  from scipy import io as matlab

  points = _corners()
  paths = [folder / name for name in ('line.csv', 'rows.csv', 'a.mat', 'b.mat')]
  paths[0].write_text(','.join(map(str, points.T.reshape(-1))))
  paths[1].write_text('x,y\n' + '\n'.join(f'{x},{y}' for x, y in points))
  matlab.savemat(paths[2], {'p2': points})
  matlab.savemat(paths[3], {'p2': points}, do_compression=True)
  return paths


def _read_corners(folder):
  from spinejax.readers import corner_tables

  each(*(functools.partial(corner_tables.read_corners, size=(700, 100), line=line)
         for line in (0, 1, 2)))(folder)


def _write_pairs(folder):
  """A folder of images with cases.csv, and X-rays with a table of corners and its names."""
  folders.write_folder(folder / 'a', 2, (24, 16), 3, patients=('p', 'q'), spacing=0.2)
  images, labels = (folder / 'b' / part / 'training' for part in ('data', 'labels'))
  images.mkdir(parents=True)
  labels.mkdir(parents=True)
  Image.new('L', (100, 700)).save(images / 'one.jpg')
  (labels / 'filenames.csv').write_text('one.jpg\n')
  (labels / 'landmarks.csv').write_text(','.join(map(str, _corners().T.reshape(-1))) + '\n')
  return [folder / 'a' / 'cases.csv', labels / 'filenames.csv', labels / 'landmarks.csv']


def _read_pairs(folder):
  from spinejax.readers import layouts, pairs as pairs_lib
  from spinejax.readers.records import ReadOptions

  def read(path):
    pairs, faults = layouts.find_pairs(path)
    for fault in (*faults, *pairs_lib.check_pairs(pairs, ReadOptions(num_classes=3))[1]):
      check_refusal(ValueError(fault))

  each(read)(folder)


def _read_split(folder):
  from spinejax.data import splits

  attempt(splits.read_split, folder / 'split.json', ['a', 'b', 'c', 'd'], ['p', 'p', 'q', 'r'])


def _read_agreement(folder):
  from spinejax.readers import angle_tables

  attempt(angle_tables.read_pair, folder / 'a.csv', folder / 'b.csv')


# ------------------------------------------------------------------------------------- runs


def _write_run(folder):
  from spinejax import runs

  names = {'train': ['a', 'b'], 'validation': [], 'test': ['c']}
  table = {'dice': {'bone': 0.5, 'mean_foreground': 0.5}}
  contents = {
      'config': tiny.tiny_config(),
      'dataset': {'split': names, 'patients': names, 'fingerprint': dict.fromkeys(names, 'f0'),
                  'mean': [0.0], 'std': [1.0]},
      'manifest': {'starts': [{'date': '', 'command': ''}]},
      'test_metrics': {'cases': {'c': table}, 'per_image': table}}
  for name, content in contents.items():
    runs.write_json(folder / f'{name}.json', content)
  (folder / 'metrics.jsonl').write_text('{"step": 1, "phase": "train", "loss": 0.5}\n' * 3)
  return sorted(folder.iterdir())


def _read_run(folder):
  from spinejax import logs, runs
  from spinejax.metrics import comparison

  attempt(runs.check, str(folder), 'config', tiny.tiny_config())
  for read in (runs.load_config, runs.load_dataset_info, runs.read_manifest, logs.read_metrics,
               runs.record_start):
    attempt(read, str(folder))
  attempt(comparison.compare_runs, [str(folder)] * 2)


def _write_overrides(folder):
  fields = ('seed=1', 'batch_size=2', 'num_steps=2', 'model.features=4', 'optimizer.name=sgd',
            'data.image_size=(64,32)', 'data.patch_size=(32,32)', 'data.num_train=2',
            'loss.name=dice', 'augment.scale=(0.9,1.1)', 'model.dtype=float32', 'ema_decay=0.5',
            'data.label_map=(0,1,1,1)', 'data.mean=(0.0,)', 'evaluation.best=loss')
  (folder / 'flags').write_text('\n'.join(f'--config.{field}' for field in fields))
  return [folder / 'flags']


def _read_overrides(folder):
  from absl import flags
  from ml_collections import config_flags

  from spinejax import config as config_lib

  file = config_lib.open_config(f'{tiny.ROOT}/configs/rsn_unet.py:quick')
  for line in (folder / 'flags').read_text(errors='surrogateescape').split('\n')[:40]:
    values, config = flags.FlagValues(), file.create()
    try:
      config_lib.check_field(config, line.partition('=')[0].removeprefix('--config.'))
      config_flags.DEFINE_config_dict(
          'config', config, flag_values=values, lock_config=True, sys_argv=['main', line])
      values(['main', line])
    except (flags.Error, ValueError, TypeError, FileNotFoundError, RecursionError) as error:
      if not str(error).strip():
        raise AssertionError('an empty message') from error


# ------------------------------------------------------------------------------------- weights


def _weights() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  return {f'layer{i}.weight': rng.random((4, 3)).astype(np.float32) for i in range(4)}


class _Payload:
  """A pickle of it starts a program."""

  def __reduce__(self):
    return os.system, ('echo a pickle was opened',)


def _write_safetensors(folder):
  import safetensors.numpy

  safetensors.numpy.save_file(_weights(), folder / 'a.safetensors')
  return [folder / 'a.safetensors']


def write_weights_npz(folder):
  """Weights, and weights with a pickle that runs code."""
  np.savez(folder / 'a.npz', **_weights())
  np.savez(folder / 'b.npz', **_weights(), code=np.array([_Payload()], object))
  return [folder / 'a.npz', folder / 'b.npz']


def write_pth(folder):
  """Pickles that run code, alone and in an archive as PyTorch's; with PyTorch, weights too."""
  paths = [folder / name for name in ('bare.pth', 'archive.pth', 'honest.pth')]
  paths[0].write_bytes(pickle.dumps({'state_dict': _Payload()}))
  with zipfile.ZipFile(paths[1], 'w') as archive:
    archive.writestr('archive/data.pkl', pickle.dumps({'state_dict': _Payload()}, 2))
    archive.writestr('archive/version', '3\n')
    archive.writestr('archive/byteorder', 'little')
  try:
    import torch
  except ImportError:
    return paths[:2]
  torch.save({name: torch.tensor(value) for name, value in _weights().items()}, paths[2])
  return paths


def read_weights(folder):
  """Reads all files of weights."""
  from spinejax.models import pretrained

  each(pretrained.load_state_dict)(folder)


def _checkpoint_state():
  import jax
  import optax

  from spinejax import steps
  from tests import test_checkpoints

  return steps.create_train_state(jax.random.key(0), test_checkpoints.Net(4), optax.sgd(1e-3),
                                  (1, 8, 8, 1))


def _write_checkpoint(folder):
  from tests import test_checkpoints

  test_checkpoints.save(folder, _checkpoint_state(), 1, 0.5)
  (folder / 'checkpoints' / '1' / 'digests.json').unlink()  # else every change is found by it
  return sorted(path for path in folder.rglob('*') if path.is_file())


def _read_checkpoint(folder):
  from spinejax import checkpoints

  state = _checkpoint_state()
  attempt(checkpoints.restore_variables, folder, state.variables)

  def resume():
    checkpoints.set_aside_damaged(folder)
    with contextlib.closing(checkpoints.create_manager(folder)) as manager:
      if manager.latest_step() is not None:
        checkpoints.restore_state(manager, state)

  attempt(resume)


def _write_built(folder):
  from spinejax.data import build

  folders.write_folder(folder / 'source', 3, (24, 16), 3)
  with contextlib.redirect_stdout(io.StringIO()):
    build.build(folder / 'source', folder / 'built', ('background', 'a', 'b'), num_test=1)
  shutil.rmtree(folder / 'source')
  return sorted(path for path in (folder / 'built').rglob('*') if path.is_file())


def _read_built(folder):
  from spinejax.data import datasets

  def read():
    for source in datasets.load_dataset(folders.data_config(
        folder / 'built', name='built', classes=('background', 'a', 'b'))).values():
      list(source)

  attempt(read)


_POINT = {'id': '1', 'label': 'T1', 'position': [1.0, 2.0, 3.0], 'positionStatus': 'defined'}
_MARKUPS = json.dumps({'markups': [
    {'type': 'Fiducial', 'coordinateSystem': 'LPS', 'controlPoints': [_POINT]}]})
_ANGLES = 'case,major,status\na,10.5,ok\nb,20,ok\nc,31,fail\nd,5,ok\n'

READERS = {
    'png': Reader(_write_images('.png', 'L', 'RGB', 'P', 'I;16', '1'), _read_images),
    'jpeg': Reader(_write_images('.jpg', 'L', 'RGB', 'CMYK'), _read_images),
    'tiff': Reader(_write_images('.tif', 'L', 'RGB', 'I;16', 'F'), _read_images, 2),
    'tiff_packed': Reader(_write_images('.tif', 'L', 'RGB', compression='tiff_lzw'), _read_images),
    'dicom': Reader(_write_dicom, _read_images, 2),
    'nifti': Reader(_write_volumes('.nii', '.nii.gz'), _read_volumes),
    'nrrd': Reader(_write_volumes('.nrrd'), _read_volumes),
    'mha': Reader(_write_volumes('.mha'), _read_volumes),
    'npz': Reader(_write_npz, _read_volumes, 2),
    'cases': Reader(_write_text(cases__csv='name,patient,spacing_y_mm,spacing_x_mm\n'
                                'anna,p1,0.2,0.2\nben,p2,0.3,0.3\ncarl,p3,,\n'), _read_cases),
    'landmarks': Reader(_write_text(
        a__csv='label,region,i,j,k\nT1,thoracic,1,2,3\nL1,lumbar,2,2,2\n',
        b__csv='x;y;z;level\n1.0;2.0;3.0;T5\n2.0;2.0;2.0;L3\n'), _read_landmarks),
    'markups': Reader(_write_text(a__mrk__json=_MARKUPS), _read_landmarks),
    'corners': Reader(_write_corners, _read_corners),
    'pairs': Reader(_write_pairs, _read_pairs),
    'split': Reader(_write_text(
        split__json='{"train": ["p"], "validation": ["q"], "test": ["d"]}'), _read_split),
    'agreement': Reader(_write_text(a__csv=_ANGLES, b__csv=_ANGLES.replace(',', ';')),
                        _read_agreement),
    'run': Reader(_write_run, _read_run),
    'overrides': Reader(_write_overrides, _read_overrides),
    'safetensors': Reader(_write_safetensors, read_weights),
    'weights_npz': Reader(write_weights_npz, read_weights),
    'pth': Reader(write_pth, read_weights),
    'built': Reader(_write_built, _read_built),
    'checkpoint': Reader(_write_checkpoint, _read_checkpoint, 0.25),
}


# ------------------------------------------------------------------------------------- bombs


def bombs(name: str) -> Iterator[tuple[str, bytes]]:
  """(file, content) made to fill the memory or the stack of a reader."""
  if name == 'png':
    yield from _png_bombs()
  elif name in ('nifti', 'nrrd', 'mha'):
    yield from _volume_bombs(name)
  elif name in ('npz', 'weights_npz'):
    yield from _npz_bombs()
  elif name == 'safetensors':
    for shape, end in (([1 << 40], 1 << 42), ([1 << 62, 8], 0)):
      text = json.dumps({'a': {'dtype': 'F32', 'shape': shape, 'data_offsets': [0, end]}}).encode()
      yield 'a.safetensors', len(text).to_bytes(8, 'little') + text
    yield 'a.safetensors', (1 << 40).to_bytes(8, 'little') + b'{}'
  for file in _JSON_FILES.get(name, ()):
    for text in ('[' * 200_000, '{"train":' * 200_000, '[' * 100_000 + ']' * 100_000,
                 '{"markups": [{"controlPoints": [{"position": ' + '[' * 400 + ']' * 400 + '}]}]}',
                 '1' * 100_000, '[]', 'null', '3', '{"markups": [[]]}', '{"starts": 3}'):
      yield file, text.encode()
  for file in _TABLE_FILES.get(name, ()):
    for text in ('x' * 500_000, 'name\n"' + 'x' * 500_000, 'i,j,k\n"' + 'x' * 500_000,
                 'case,major\n"' + 'x' * 500_000, ',' * 300_000, '\n' * 300_000, 'name\n\0',
                 'i,i,j,k\n1,1,1,1\n', 'name,name\na,b\n', 'name\n../../x\n',
                 'i,j,k\n1,2\n1,2,3,4,5\n', 'name\nanna,b,c,d,e\n', '"\n', 'sep=\n', 'sep=""\n"',
                 ''):
      yield file, text.encode()


_JSON_FILES = {'markups': ['a.mrk.json'], 'split': ['split.json'], 'built': ['built/metadata.json'],
               'run': ['config.json', 'dataset.json', 'manifest.json', 'test_metrics.json',
                       'metrics.jsonl']}
_TABLE_FILES = {'cases': ['cases.csv'], 'landmarks': ['a.csv'], 'corners': ['rows.csv', 'b.mat'],
                'agreement': ['a.csv'], 'pairs': ['a/cases.csv']}
_ZEROS = bytes(1 << 20)


def _png_bombs() -> Iterator[tuple[str, bytes]]:
  def chunk(kind, data):
    return (len(data).to_bytes(4, 'big') + kind + data + zlib.crc32(kind + data).to_bytes(4, 'big'))

  def picture(side, bits, *chunks):
    size = side.to_bytes(4, 'big') * 2
    return b''.join([b'\x89PNG\r\n\x1a\n', chunk(b'IHDR', size + bits + b'\0\0\0'),
                     *chunks, chunk(b'IEND', b'')])

  for side, megabytes in ((100_000, 1), (13_000, 13_000 ** 2 * 4 >> 20)):
    packer = zlib.compressobj(9)
    data = b''.join(packer.compress(_ZEROS) for _ in range(megabytes)) + packer.flush()
    yield 'L.png', picture(side, b'\x08\x06', chunk(b'IDAT', data))
  text = b'a\0\0' + zlib.compress(bytes(300 << 20), 9)
  yield 'L.png', picture(8, b'\x08\0', chunk(b'zTXt', text),
                         chunk(b'IDAT', zlib.compress(bytes(72))))


def _volume_bombs(name: str, side: int = 1300) -> Iterator[tuple[str, bytes]]:
  """A small file of 1300^3 zeros, and a header of more voxels than any machine holds."""
  packer = zlib.compressobj(9, wbits=15 if name == 'mha' else 31)
  header = bytearray(352)
  header[:4], header[344:348] = (348).to_bytes(4, 'little'), b'n+1\0'
  header[70:74] = np.array([2, 8], '<i2').tobytes()
  header[76:92] = np.ones(4, '<f4').tobytes()
  header[108:112] = np.float32(352).tobytes()
  header[40:56] = np.array([3, side, side, side, 1, 1, 1, 1], '<i2').tobytes()
  body = packer.compress(bytes(header)) if name == 'nifti' else b''
  body += b''.join(packer.compress(_ZEROS) for _ in range(2400)) + packer.flush()
  if name == 'nifti':
    header[40:56] = np.array([3, 32767, 32767, 32767, 1, 1, 1, 1], '<i2').tobytes()
    yield 'uint80.nii.gz', body
    yield 'uint80.nii', bytes(header) + bytes(100)
    return
  text, packed, plain = {
      'nrrd': ('NRRD0004\ntype: uchar\ndimension: 3\nsizes: {0} {0} {0}\nencoding: {1}\n'
               'spacings: 1 1 1\n\n', 'gzip', 'raw'),
      'mha': ('ObjectType = Image\nNDims = 3\nDimSize = {0} {0} {0}\nElementType = MET_UCHAR\n'
              'ElementSpacing = 1 1 1\n{1}ElementDataFile = LOCAL\n',
              'CompressedData = True\n', ''),
  }[name]
  yield f'uint80.{name}', text.format(side, packed).encode() + body
  yield f'uint80.{name}', text.format(100_000, plain).encode() + bytes(100)


def _npz_bombs() -> Iterator[tuple[str, bytes]]:
  for shape, megabytes in (((1300, 1300, 1400), 2300), ((1 << 40, 2, 2), 1), ((1 << 62, 4, 4), 1)):
    output = io.BytesIO()
    with zipfile.ZipFile(output, 'w', zipfile.ZIP_DEFLATED) as archive:
      with archive.open('image.npy', 'w', force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(
            member, {'descr': '|u1', 'fortran_order': False, 'shape': shape})
        for _ in range(megabytes):
          member.write(_ZEROS)
    yield 'a.npz', output.getvalue()
