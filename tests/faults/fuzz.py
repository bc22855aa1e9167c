"""Feeds every reader mutated files: each must be read, or refused in one sentence.

  python -m tests.faults.fuzz --inputs=10000 --seed=0

The inputs are shared among the readers; input k of a reader is a function of (seed, k). Readers run
in processes of their own that may take 10 s of CPU time for a file, 30 s for all of an input, and
2 GB of memory above what they have when they start; they must raise nothing but ValueError and
OSError, open no file outside of their folder, and start no program.
"""
import argparse
import functools
import gzip
import io
import json
import os
import pathlib
import re
import resource
import select
import shutil
import subprocess
import sys
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

SECONDS, BYTES = 10, 2 << 30
_INTEGERS = (0, 1, 2, 3, 127, 128, 255, 256, 32767, 32768, 65535, 1 << 20, (1 << 31) - 1, 1 << 31,
             (1 << 32) - 1, (1 << 63) - 1, (1 << 64) - 1)
_WORDS = (
    b'\0', b'../../../etc/passwd', b'/etc/passwd', b'secret.raw', b'..', b'"', b"'", b',', b';',
    b'\t', b'\n', b'\r', b'nan', b'inf', b'-inf', b'1e400', b'-1', b'0', b'9' * 20, b'1' * 5000,
    b'[' * 3000, b'{"a":' * 3000, b'null', b'true', b'[]', b'{}', b'""', b'\xff\xfe',
    b'\xef\xbb\xbf', '🦴'.encode(), b'\\u0000', b'\\ud800', b'x' * 200000, b'LOCAL', b'LIST',
    b'%d%n%s', b'3 3 3', b'=', b':', b':=')
_MOST_BOMBS = 1000
_SHARES = {'checkpoint': 0.25, 'dicom': 2, 'npz': 2, 'tiff': 2}  # of the inputs; 1 by default


class Reader(NamedTuple):
  """A reader under test.

  Attributes:
    write: `write(folder)`, valid files; returns those to be mutated.
    read: `read(folder)`, reads them; may raise ValueError and OSError.
  """
  write: Callable[[pathlib.Path], list[pathlib.Path]]
  read: Callable[[pathlib.Path], Any]


# ------------------------------------------------------------------------------------- mutations


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
  """Some edits of a file, or of what is compressed in it."""
  if content[:2] == b'\x1f\x8b' and rng.random() < 0.6:
    return gzip.compress(_mutate_plain(gzip.decompress(content), rng), 1)
  if content[:2] == b'PK' and rng.random() < 0.7:
    return _mutate_zip(content, rng)
  return _mutate_plain(content, rng)


def _mutate_plain(content: bytes, rng: np.random.Generator) -> bytes:
  content = bytearray(content)
  edits = (_flip, _cut, _overwrite, _number, _word, _insert, _remove, _repeat, _line)
  for _ in range(rng.integers(1, 5)):
    if content:
      edits[rng.integers(len(edits))](content, rng)
  return bytes(content)


def _place(content: bytearray, rng: np.random.Generator) -> int:
  """An offset, often in the header."""
  most = len(content) if rng.random() < 0.5 else min(len(content), 512)
  return int(rng.integers(most)) if most else 0


def _flip(content, rng):
  for _ in range(rng.integers(1, 9)):
    content[_place(content, rng)] ^= 1 << int(rng.integers(8))


def _cut(content, rng):
  del content[_place(content, rng):]


def _overwrite(content, rng):
  place, size = _place(content, rng), int(rng.choice([1, 2, 4, 8]))
  value = _INTEGERS[rng.integers(len(_INTEGERS))]
  content[place:place + size] = (value % (1 << 8 * size)).to_bytes(
      size, 'little' if rng.random() < 0.5 else 'big')


def _number(content, rng):
  """Another number in place of one written in digits."""
  found = list(re.finditer(rb'-?\d+(\.\d+)?', bytes(content[:4096])))
  if found:
    match = found[rng.integers(len(found))]
    others = (b'0', b'-1', b'1', b'2', b'1e400', b'nan', b'1e-300', b'2147483648', b'100000',
              b'99999999999999999999', b'', b'0.5', b'65536', b'4')
    content[match.start():match.end()] = others[rng.integers(len(others))]


def _word(content, rng):
  place, word = _place(content, rng), _WORDS[rng.integers(len(_WORDS))]
  content[place:place + (len(word) if rng.random() < 0.5 else 0)] = word


def _insert(content, rng):
  place = _place(content, rng)
  content[place:place] = rng.bytes(int(rng.integers(1, 64)))


def _remove(content, rng):
  place = _place(content, rng)
  del content[place:place + int(rng.integers(1, 64))]


def _repeat(content, rng):
  place = _place(content, rng)
  piece = content[place:place + int(rng.integers(1, 256))]
  content[place:place] = piece * int(rng.integers(1, 20))


def _line(content, rng):
  """A line of text moved, doubled or dropped."""
  lines = bytes(content[:65536]).split(b'\n')
  first, second = rng.integers(len(lines), size=2)
  lines.insert(second, lines[first] if rng.random() < 0.5 else lines.pop(first))
  content[:65536] = b'\n'.join(lines)


def _mutate_zip(content: bytes, rng: np.random.Generator) -> bytes:
  """Members of a zip archive mutated, renamed or left out."""
  output = io.BytesIO()
  try:
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(
        output, 'w', zipfile.ZIP_DEFLATED) as target:
      for name in source.namelist():
        data, chance = source.read(name), rng.random()
        if chance < 0.4:
          data = _mutate_plain(data, rng)
        elif chance < 0.5:
          name = ('../' * 9 + 'tmp/x.npy', '/etc/x.npy', 'a\0b.npy', '', name.upper(), name + '/',
                  'x' * 3000)[rng.integers(7)]
        elif chance < 0.55:
          continue
        target.writestr(zipfile.ZipInfo(name) if name else 'x', data, zipfile.ZIP_DEFLATED)
  except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
    return _mutate_plain(content, rng)
  return output.getvalue()


# ------------------------------------------------------------------------------------- readers


def _image(mode: str = 'L') -> Image.Image:
  rng = np.random.default_rng(0)
  if mode == 'I;16':
    return Image.fromarray(rng.integers(0, 65535, (24, 16)).astype(np.uint16))
  return Image.fromarray(rng.integers(0, 255, (24, 16, 3), np.uint8)).convert(mode)


def _write_images(suffix: str, *modes: str, **options):
  def write(folder):
    paths = []
    for mode in modes:
      paths.append(folder / f'{mode.replace(";", "_")}{suffix}')
      _image(mode).save(paths[-1], **options)
    return paths

  return write


def _read_images(folder):
  from spinejax.readers import files

  for path in sorted(folder.iterdir()):
    for read in (images.read_picture, masks.read_mask,
                 lambda path: masks.read_mask(path, ((0, 0, 0), (255, 0, 0), (0, 0, 255)))):
      _try(read, path)


def _try(read: Callable, *args) -> None:
  """Reads, so that a refusal leaves other readers their turn; checks the sentence and the time."""
  begin = time.process_time()
  try:
    read(*args)
  except (ValueError, OSError) as error:
    check_refusal(error)
  seconds = time.process_time() - begin
  if seconds > SECONDS:
    raise AssertionError(f'{seconds:.1f} s')


def check_refusal(error: Exception) -> None:
  """Raises AssertionError unless an error is a refusal in one sentence, or a list under one."""
  text = str(error)
  head = text.split('\n')[0]
  if isinstance(error, UnicodeError) or not head.strip() or len(head) > 3000 or (
      len(text.split('\n')) > 1 and not head.endswith(':')):
    raise AssertionError(f'{type(error).__name__} is no sentence: {text[:300]!r}') from error


def _write_dicom(folder):
  import pydicom
  from pydicom.dataset import FileDataset, FileMetaDataset

  rng, paths = np.random.default_rng(0), []
  for name, bits in (('a', 8), ('b', 16)):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = '1.2.3'
    data = FileDataset(str(folder / f'{name}.dcm'), {}, file_meta=meta, preamble=bytes(128))
    data.Rows, data.Columns, data.SamplesPerPixel = 24, 16, 1
    data.PhotometricInterpretation, data.PixelRepresentation = 'MONOCHROME1', 0
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelSpacing = [0.2, 0.2]
    data.WindowCenter, data.WindowWidth, data.RescaleSlope = 100, 50, 2
    data.RescaleIntercept = 1
    data.PixelData = rng.integers(0, 255, 24 * 16 * bits // 8).astype(np.uint8).tobytes()
    paths.append(folder / f'{name}.dcm')
    data.save_as(paths[-1], enforce_file_format=True)
  return paths


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
  rng, paths = np.random.default_rng(0), [folder / 'a.npz', folder / 'b.npz']
  array = rng.integers(0, 200, (6, 5, 4)).astype(np.float32)
  arrays = dict(image=array, label=(array > 150).astype(np.uint8), spacing=np.ones(3),
                landmarks=np.array([[1, 2, 3], [4, 2, 1]]), region=np.array([0, 1]))
  np.savez(paths[0], **arrays)
  np.savez_compressed(paths[1], **arrays)
  return paths


def _read_volumes(folder):
  from spinejax.readers import volumes

  geometry = _geometry()
  for path in sorted(folder.iterdir()):
    if volumes.suffix_of(path):
      for read in (volumes.read_volume, volumes.read_labels,
                   lambda path: volumes.read_mask(path, geometry)):
        _try(read, path)


def _write_text(**files: str):
  def write(folder):
    paths = []
    for name, text in files.items():
      paths.append(folder / name.replace('__', '.'))
      paths[-1].write_text(text)
    return paths

  return write


def _read_cases(folder):
  from spinejax.readers import files

  for path in sorted(folder.iterdir()):
    _, faults = layouts.read_cases(path, ['anna', 'ben', 'carl'])
    for fault in faults:
      check_refusal(ValueError(fault))


def _read_landmarks(folder):
  from spinejax.readers import landmarks

  geometry = _geometry()
  for path in sorted(folder.iterdir()):
    _try(landmarks.read_landmarks, path, geometry)


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
  from spinejax.readers import trimaps

  for path in sorted(folder.iterdir()):
    for line in (0, 1, 2):
      _try(corner_tables.read_corners, path, (700, 100), line)


def _read_split(folder):
  from spinejax.data import splits

  for path in sorted(folder.iterdir()):
    _try(splits.read_split, path, ['a', 'b', 'c', 'd'], ['p', 'p', 'q', 'r'])


def _read_agreement(folder):
  from spinejax.commands import agree as agreement

  _try(agreement.compare_tables, folder / 'a.csv', folder / 'b.csv')


def _write_pairs(folder):
  """A folder of images with cases.csv, and X-rays with a table of landmarks and its names."""
  folders.write_folder(folder / 'a', 2, (24, 16), 3, patients=('p', 'q'), spacing=0.2)
  for part in ('data', 'labels'):
    (folder / 'b' / part / 'training').mkdir(parents=True)
  _image().resize((100, 700)).save(folder / 'b' / 'data' / 'training' / 'one.jpg')
  labels = folder / 'b' / 'labels' / 'training'
  (labels / 'filenames.csv').write_text('one.jpg\n')
  (labels / 'landmarks.csv').write_text(','.join(map(str, _corners().T.reshape(-1))) + '\n')
  return [folder / 'a' / 'cases.csv', labels / 'filenames.csv', labels / 'landmarks.csv']


def _read_pairs(folder):
  from spinejax.readers import files

  def read(path):
    pairs, faults = layouts.find_pairs(path)
    _, more = checks.check_pairs(pairs, 3)
    for fault in (*faults, *more):
      check_refusal(ValueError(fault))

  for name in 'ab':
    _try(read, folder / name)


def _write_run(folder):
  from spinejax import runs

  config = tiny.tiny_config()
  runs.write_json(folder / 'config.json', config)
  names = {'train': ['a', 'b'], 'validation': [], 'test': ['c']}
  runs.write_json(folder / 'dataset.json', {
      'split': names, 'patients': names, 'fingerprint': dict.fromkeys(names, 'f0'), 'mean': [0.0],
      'std': [1.0]})
  runs.write_json(folder / 'manifest.json', {'starts': [{'date': '', 'command': ''}]})
  table = {'dice': {'bone': 0.5, 'mean_foreground': 0.5}}
  runs.write_json(folder / 'test_metrics.json', {
      'step': 1, 'per_image': table, 'pooled': table, 'cases': {'c': table}, 'auc': {'bone': 0.5}})
  (folder / 'metrics.jsonl').write_text('{"step": 1, "phase": "train", "loss": 0.5}\n' * 3)
  return [folder / f'{name}.json' for name in ('config', 'dataset', 'manifest', 'test_metrics')
          ] + [folder / 'metrics.jsonl']


def _read_run(folder):
  from spinejax import logs, runs
  from spinejax.metrics import tested_runs

  _try(lambda: runs.check(str(folder), 'config', tiny.tiny_config()))
  for read in (runs.load_config, runs.load_dataset_info, runs.read_manifest,
               tested_runs.load_tested_run, logs.read_metrics):
    _try(read, str(folder))
  _try(lambda: runs.record_start(str(folder)))


def _weights() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  return {f'layer{i}.weight': rng.random((4, 3)).astype(np.float32) for i in range(4)}


def _write_safetensors(folder):
  import safetensors.numpy

  safetensors.numpy.save_file(_weights(), folder / 'a.safetensors')
  return [folder / 'a.safetensors']


def _write_weights_npz(folder):
  np.savez(folder / 'a.npz', **_weights())
  np.savez(folder / 'b.npz', **_weights(), code=np.array([_Payload()], object))
  return [folder / 'a.npz', folder / 'b.npz']


class _Payload:
  """A pickle of it starts a program."""

  def __reduce__(self):
    return os.system, ('echo a pickle was opened',)


def _write_pth(folder):
  """Pickles that run code, bare and as an archive of PyTorch has them; and honest ones."""
  import pickle

  paths = [folder / name for name in ('bare.pth', 'archive.pth', 'honest.pth')]
  paths[0].write_bytes(pickle.dumps({'state_dict': _Payload()}))
  with zipfile.ZipFile(paths[1], 'w') as archive:
    archive.writestr('archive/data.pkl', pickle.dumps({'state_dict': _Payload()}, 2))
    archive.writestr('archive/version', '3\n')
    archive.writestr('archive/byteorder', 'little')
  try:
    import torch
    torch.save({name: torch.tensor(value) for name, value in _weights().items()}, paths[2])
  except ImportError:
    paths.pop()
  return paths


def _read_weights(folder):
  from spinejax.models import pretrained

  for path in sorted(folder.iterdir()):
    _try(pretrained.load_state_dict, path)


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
  (folder / 'checkpoints' / '1' / 'digests.json').unlink()  # a hostile one has what it needs
  return sorted(path for path in folder.rglob('*') if path.is_file())


def _read_checkpoint(folder):
  import contextlib

  from spinejax import checkpoints

  state = _checkpoint_state()
  _try(checkpoints.restore_variables, folder, state.variables)

  def resume():
    checkpoints.set_aside_damaged(folder)
    with contextlib.closing(checkpoints.create_manager(folder)) as manager:
      if manager.latest_step() is not None:
        checkpoints.restore_state(manager, state)

  _try(resume)


def _write_built(folder):
  from spinejax.data import build

  folders.write_folder(folder / 'source', 3, (24, 16), 3)
  with open(os.devnull, 'w') as nothing, _redirected(nothing):
    build.build(folder / 'source', folder / 'built', ('background', 'a', 'b'), num_test=1)
  shutil.rmtree(folder / 'source')
  return sorted(path for path in (folder / 'built').rglob('*') if path.is_file())


def _redirected(stream):
  import contextlib

  return contextlib.redirect_stdout(stream)


def _read_built(folder):
  from spinejax.data import datasets

  def read():
    dataset = datasets.load_dataset(folders.data_config(
        folder / 'built', name='built', classes=('background', 'a', 'b')))
    for source in dataset.values():
      for i in range(len(source)):
        source[i]

  _try(read)


def _write_overrides(folder):
  fields = ('seed=1', 'batch_size=2', 'num_steps=2', 'model.features=4', 'optimizer.name=sgd',
            'data.image_size=(64,32)', 'data.patch_size=(32,32)', 'data.num_train=2',
            'loss.name=dice', 'augment.scale=(0.9,1.1)', 'model.dtype=float32', 'ema_decay=0.5',
            'data.label_map=(0,1,1,1)', 'data.mean=None', 'evaluation.best=loss')
  (folder / 'flags').write_text('\n'.join(f'--config.{field}' for field in fields))
  return [folder / 'flags']


def _read_overrides(folder):
  from absl import flags
  from ml_collections import config_flags

  from spinejax.commands import cli

  lines = (folder / 'flags').read_text(errors='surrogateescape').split('\n')
  for line in lines[:40]:
    argv = ['main', f'--config={tiny.ROOT}/configs/rsn_unet.py:quick', line]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file('config', None, '', values, lock_config=True)
    try:
      cli._check_config_flags(argv)
      values(argv)
    except (flags.Error, ValueError, FileNotFoundError, RecursionError) as error:
      if not str(error).strip():
        raise AssertionError('an empty message') from error


_CASES = 'name,patient,spacing_y_mm,spacing_x_mm\nanna,p1,0.2,0.2\nben,p2,0.3,0.3\ncarl,p3,,\n'
_TABLE = 'label,region,i,j,k\nT1,thoracic,1,2,3\nL1,lumbar,2,2,2\n'
_MILLIMETERS = 'x;y;z;level\n1.0;2.0;3.0;T5\n2.0;2.0;2.0;L3\n'
_POINT = {'id': '1', 'label': 'T1', 'position': [1.0, 2.0, 3.0], 'positionStatus': 'defined'}
_MARKUPS = json.dumps({'markups': [
    {'type': 'Fiducial', 'coordinateSystem': 'LPS', 'controlPoints': [_POINT]}]})
_SPLIT = '{"train": ["p"], "validation": ["q"], "test": ["d"]}'
_ANGLES = 'case,major,status\na,10.5,ok\nb,20,ok\nc,31,fail\nd,5,ok\n'

READERS = {
    'png': Reader(_write_images('.png', 'L', 'RGB', 'P', 'I;16', '1'), _read_images),
    'jpeg': Reader(_write_images('.jpg', 'L', 'RGB', 'CMYK'), _read_images),
    'tiff': Reader(_write_images('.tif', 'L', 'RGB', 'I;16', 'F'), _read_images),
    'tiff_packed': Reader(_write_images('.tif', 'L', 'RGB', compression='tiff_lzw'), _read_images),
    'dicom': Reader(_write_dicom, _read_images),
    'nifti': Reader(_write_volumes('.nii', '.nii.gz'), _read_volumes),
    'nrrd': Reader(_write_volumes('.nrrd'), _read_volumes),
    'mha': Reader(_write_volumes('.mha'), _read_volumes),
    'npz': Reader(_write_npz, _read_volumes),
    'cases': Reader(_write_text(cases__csv=_CASES), _read_cases),
    'landmarks': Reader(_write_text(a__csv=_TABLE, b__csv=_MILLIMETERS), _read_landmarks),
    'markups': Reader(_write_text(a__mrk__json=_MARKUPS), _read_landmarks),
    'corners': Reader(_write_corners, _read_corners),
    'pairs': Reader(_write_pairs, _read_pairs),
    'split': Reader(_write_text(split__json=_SPLIT), _read_split),
    'agreement': Reader(_write_text(a__csv=_ANGLES, b__csv=_ANGLES.replace(',', ';')),
                        _read_agreement),
    'run': Reader(_write_run, _read_run),
    'overrides': Reader(_write_overrides, _read_overrides),
    'safetensors': Reader(_write_safetensors, _read_weights),
    'weights_npz': Reader(_write_weights_npz, _read_weights),
    'pth': Reader(_write_pth, _read_weights),
    'built': Reader(_write_built, _read_built),
    'checkpoint': Reader(_write_checkpoint, _read_checkpoint),
}


# ------------------------------------------------------------------------------------- bombs


def bombs(name: str) -> Iterator[tuple[str, bytes]]:
  """(file, content) made by hand to fill the memory or the stack."""
  zeros = bytes(1 << 20)
  if name == 'png':
    chunk = lambda kind, data: (len(data).to_bytes(4, 'big') + kind + data
                                + zlib.crc32(kind + data).to_bytes(4, 'big'))
    for size in ((100_000, 100_000), (13_000, 13_000)):
      header = b''.join(side.to_bytes(4, 'big') for side in size) + b'\x08\x06\0\0\0'
      packer = zlib.compressobj(9)
      data = b''.join(packer.compress(zeros) for _ in range(size[0] * size[1] * 4 >> 20)
                      ) if size[0] < 20_000 else packer.compress(zeros)
      yield 'L.png', b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(
          b'IDAT', data + packer.flush()) + chunk(b'IEND', b'')
    yield 'L.png', b'\x89PNG\r\n\x1a\n' + chunk(
        b'IHDR', b'\0\0\0\x08\0\0\0\x08\x08\0\0\0\0') + chunk(
            b'zTXt', b'a\0\0' + zlib.compress(bytes(300 << 20), 9)) + chunk(
                b'IDAT', zlib.compress(bytes(72))) + chunk(b'IEND', b'')
  elif name in ('nifti', 'nrrd', 'mha'):
    sides = 1300
    packer = zlib.compressobj(9, wbits=31 if name != 'mha' else 15)
    if name == 'nifti':
      header = bytearray(352)
      header[:4], header[344:348] = (348).to_bytes(4, 'little'), b'n+1\0'
      header[40:56] = np.array([3, sides, sides, sides, 1, 1, 1, 1], '<i2').tobytes()
      header[70:74] = np.array([2, 8], '<i2').tobytes()
      header[76:92] = np.ones(4, '<f4').tobytes()
      header[108:112] = np.float32(352).tobytes()
      body = packer.compress(bytes(header))
    else:
      body = b''
    body += b''.join(packer.compress(zeros) for _ in range(2400)) + packer.flush()
    if name == 'nifti':
      yield 'uint80.nii.gz', body
      header[40:56] = np.array([3, 32767, 32767, 32767, 1, 1, 1, 1], '<i2').tobytes()
      yield 'uint80.nii', bytes(header) + bytes(100)
    elif name == 'nrrd':
      text = ('NRRD0004\ntype: uchar\ndimension: 3\nsizes: {0} {0} {0}\nencoding: {1}\n'
              'spacings: 1 1 1\n\n')
      yield 'uint80.nrrd', text.format(sides, 'gzip').encode() + body
      yield 'uint80.nrrd', text.format(100_000, 'raw').encode() + bytes(100)
    else:
      text = ('ObjectType = Image\nNDims = 3\nDimSize = {0} {0} {0}\nElementType = MET_UCHAR\n'
              'ElementSpacing = 1 1 1\n{1}ElementDataFile = LOCAL\n')
      yield 'uint80.mha', text.format(sides, 'CompressedData = True\n').encode() + body
      yield 'uint80.mha', text.format(100_000, '').encode() + bytes(100)
  elif name in ('npz', 'weights_npz'):
    for shape, amount in (((1300, 1300, 1400), 2300), ((1 << 40, 2, 2), 1), ((1 << 62, 4, 4), 1)):
      output = io.BytesIO()
      with zipfile.ZipFile(output, 'w', zipfile.ZIP_DEFLATED) as archive:
        with archive.open('image.npy', 'w', force_zip64=True) as member:
          np.lib.format.write_array_header_1_0(
              member, {'descr': '|u1', 'fortran_order': False, 'shape': shape})
          for _ in range(amount):
            member.write(zeros)
      yield 'a.npz', output.getvalue()
  elif name in ('markups', 'split', 'run', 'built'):
    file = {'markups': 'a.mrk.json', 'split': 'split.json', 'run': 'config.json',
            'built': 'built/metadata.json'}[name]
    for text in ('[' * 200_000, '{"train":' * 200_000, '[' * 100_000 + ']' * 100_000,
                 '{"markups": [{"controlPoints": [{"position": ' + '[' * 400 + ']' * 400 + '}]}]}',
                 '1' * 100_000, '[]', 'null', '3', '{"markups": [[]]}', '{"starts": 3}'):
      yield file, text.encode()
      if name == 'run':
        for other in ('dataset', 'manifest', 'test_metrics'):
          yield f'{other}.json', text.encode()
        yield 'metrics.jsonl', text.encode()
  elif name in ('cases', 'landmarks', 'corners', 'agreement', 'pairs'):
    file = {'cases': 'cases.csv', 'landmarks': 'a.csv', 'corners': 'rows.csv', 'agreement': 'a.csv',
            'pairs': 'a/cases.csv'}[name]
    for text in ('x' * 500_000, 'name\n"' + 'x' * 500_000, 'i,j,k\n"' + 'x' * 500_000,
                 'case,major\n"' + 'x' * 500_000, ',' * 300_000, '\n' * 300_000, 'name\n\0',
                 'i,i,j,k\n1,1,1,1\n', 'name,name\na,b\n', 'name\n../../x\n',
                 'i,j,k\n1,2\n1,2,3,4,5\n', 'name\nanna,b,c,d,e\n', '"\n', 'sep=\n', 'sep=""\n"'):
      yield file, text.encode()
  elif name == 'corners':
    yield 'b.mat', b''
  elif name == 'safetensors':
    for header in ({'a': {'dtype': 'F32', 'shape': [1 << 40], 'data_offsets': [0, 1 << 42]}},
                   {'a': {'dtype': 'F32', 'shape': [1 << 62, 8], 'data_offsets': [0, 0]}}):
      text = json.dumps(header).encode()
      yield 'a.safetensors', len(text).to_bytes(8, 'little') + text
    yield 'a.safetensors', (1 << 40).to_bytes(8, 'little') + b'{}'


# ------------------------------------------------------------------------------------- running


class Sandbox:
  """Watches what a reader opens and starts, through the audit events of Python."""

  def __init__(self):
    self.folder, self.active, self.seen = '', False, []
    self._allowed = (sys.prefix, sys.base_prefix, str(tiny.ROOT), '/dev/', '/proc/', '/sys/',
                     '/usr/', '/etc/localtime', '/etc/os-release',
                     str(pathlib.Path.home() / '.cache'))
    sys.addaudithook(self._hook)

  def _hook(self, event, args):
    if not self.active:
      return
    if event == 'open' and isinstance(args[0], (str, bytes, os.PathLike)):
      path = os.path.realpath(os.fsdecode(args[0])) if b'\0' not in os.fsencode(args[0]) else ''
      writes = isinstance(args[1], str) and any(mode in args[1] for mode in 'wax+')
      allowed = self.folder, *(('/dev/null',) if writes else self._allowed)
      if not path.startswith(allowed):
        self.seen.append(f'{event} {path} {args[1]}')
    elif event in ('os.system', 'subprocess.Popen', 'os.exec', 'os.posix_spawn', 'os.spawn',
                   'pickle.find_class'):
      if event != 'pickle.find_class' or args[0] in ('os', 'posix', 'builtins', 'subprocess'):
        self.seen.append(f'{event} {args[:2]}')


@functools.cache
def _sandbox() -> Sandbox:
  """The one of this process: an audit hook stays for good."""
  return Sandbox()


def fuzz(name: str, inputs: range, seed: int, folder: pathlib.Path,
         report: Callable[[int, str], None]) -> None:
  """Runs inputs of a reader in `folder`; `report(k, fault)` after each, '' where all is well."""
  folder = folder.resolve()
  reader, pristine, place = READERS[name], folder / 'pristine', folder / 'place'
  pristine.mkdir()
  targets = [path.relative_to(pristine) for path in reader.write(pristine)]
  shutil.copytree(pristine, place)
  sandbox = _sandbox()
  sandbox.folder = str(folder)
  reader.read(place)  # imports, and the files are sound
  made = list(bombs(name)) if inputs.start < _MOST_BOMBS else []
  for number in inputs:
    rng = np.random.default_rng([seed, number, *name.encode()])
    shutil.rmtree(place)
    shutil.copytree(pristine, place)
    if number < len(made):
      file, content = made[number]
      (place / file).write_bytes(content)
    else:
      for target in rng.choice(len(targets), min(len(targets), int(rng.integers(1, 3))), False):
        path = place / targets[target]
        path.write_bytes(mutate(path.read_bytes(), rng))
    fault = ''
    sandbox.seen.clear()
    sandbox.active = True
    try:
      reader.read(place)
    except BaseException as error:  # everything else is a finding
      import traceback
      where = traceback.extract_tb(error.__traceback__)[-1]
      fault = f'{type(error).__name__}: {str(error)[:300]} at {where.filename}:{where.lineno}'
    sandbox.active = False
    if sandbox.seen:
      fault = f'{sandbox.seen[0]} {fault}'
    report(number, fault)


def _child(name: str, first: int, last: int, seed: int) -> None:
  """Reports a JSON line per input, under a limit of memory."""
  folder = pathlib.Path(tempfile.mkdtemp(prefix='spinejax-fuzz-'))
  lines = os.fdopen(os.dup(1), 'w')
  os.dup2(2, 1)

  def report(number, fault):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps([number, fault, peak]), file=lines, flush=True)

  try:
    READERS[name].write(folder)  # imports
    READERS[name].read(folder)
    shutil.rmtree(folder)
    folder.mkdir()
    _limit()
    fuzz(name, range(first, last), seed, folder, report)
  finally:
    shutil.rmtree(folder, ignore_errors=True)


def _limit() -> None:
  size = int(pathlib.Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
  resource.setrlimit(resource.RLIMIT_AS, (size + BYTES, resource.RLIM_INFINITY))


def run(name: str, inputs: int, seed: int) -> tuple[int, list[str], int]:
  """Inputs done, faults, and the highest memory in MB, over as many processes as are needed."""
  done, faults, highest = 0, [], 0
  while done < inputs:
    command = [sys.executable, '-m', 'tests.faults.fuzz', f'--child={name}', f'--first={done}',
               f'--inputs={inputs}', f'--seed={seed}']
    with tempfile.TemporaryFile('w+') as errors, subprocess.Popen(
        command, cwd=tiny.ROOT, stdout=subprocess.PIPE, stderr=errors, text=True,
        env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'OMP_NUM_THREADS': '2',
             'OPENBLAS_NUM_THREADS': '2', 'MALLOC_ARENA_MAX': '2'}) as process:
      started, buffered = False, process.stdout
      while True:
        ready, _, _ = select.select([buffered], [], [], 60 if not started else 3 * SECONDS)
        line = buffered.readline() if ready else ''
        if not line:
          break
        started = True
        number, fault, peak = json.loads(line)
        done, highest = number + 1, max(highest, peak)
        faults += [f'{name} {number}: {fault}'] * bool(fault)
      hung = process.poll() is None and not ready
      process.kill()
      process.wait()
      errors.seek(0)
      tail = errors.read()[-500:]
      if done < inputs:
        faults.append(f'{name} {done}: ' + ('hung' if hung else
                                            f'ended with {process.returncode}: {tail}'))
        if not started and done == 0:
          return done, faults, highest
        done += 1
  return done, faults, highest


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--inputs', type=int, default=10_000, help='of all readers together')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--readers', default=','.join(READERS))
  parser.add_argument('--child', help=argparse.SUPPRESS)
  parser.add_argument('--first', type=int, default=0, help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.child:
    _child(options.child, options.first, options.inputs, options.seed)
    return 0
  names = options.readers.split(',')
  shares = {name: _SHARES.get(name, 1) for name in names}
  total, failed = 0, 0
  for name, share in shares.items():
    begin = time.monotonic()
    inputs = -int(-options.inputs * share // sum(shares.values()))
    done, faults, highest = run(name, inputs, options.seed)
    total, failed = total + done, failed + len(faults)
    print(f'{name}: {done} inputs, {len(faults)} faults, {highest} MB at most, '
          f'{time.monotonic() - begin:.0f} s', flush=True)
    for fault in faults[:20]:
      print(f'  {fault}', flush=True)
  print(f'{total} inputs, {failed} faults')
  return 1 if failed else 0


if __name__ == '__main__':
  sys.exit(main())
