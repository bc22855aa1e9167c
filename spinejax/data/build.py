"""Checks a folder of images or volumes and writes it as a dataset (TFDS, array_record)."""
import collections
import contextlib
import functools
import io
import json
import os
import pathlib
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds  # without TensorFlow
from rich.console import Console
from rich.table import Table

from spinejax import logs
from spinejax.data import datasets, splits
from spinejax.readers import layouts, masks, records, trimaps, volumes
from spinejax.readers import pairs as pairs_lib
from spinejax.readers.records import Pair, ReadOptions, Record

SPLITS_FILE = 'splits.json'

Members = dict[str, list[Pair]]  # pairs of each set that is not empty


def build(directory: str | os.PathLike, output: str | os.PathLike, classes: Sequence[str], *,
          split_file: str = '', num_validation: float = 0.1, num_test: float = 0.2,
          split_seed: int = 0, overwrite: bool = False, console: Console | None = None,
          **options: Any) -> None:
  """Builds the dataset that `datasets.load_built` reads, or nothing at all.

  Images are stored at their original size with the source labels of the masks; a label_map is
  applied when loading. Volumes are stored in the axes of `orientation`. The sets are those of
  `splits.make_split`, stored in splits.json, which is a split file. Every record is read back and
  compared before the folder appears under its name.

  Args:
    directory: folder of images and masks, or of volumes, see `layouts.find_pairs`.
    output: folder to make; '' only checks.
    classes: names of the source labels, background first.
    split_file, num_validation, num_test, split_seed: see `splits.make_split`.
    overwrite: whether to replace an existing dataset.
    console: for the summary; None is standard output.
    **options: of `ReadOptions`.

  Raises:
    FileNotFoundError, ValueError: faults in the folder, one line each; an output that exists.
    OSError: the output cannot be written.
  """
  console = console or Console()
  directory = pathlib.Path(directory).expanduser()
  if len(classes) < 2 or len(set(classes)) < len(classes) or not all(classes):
    raise ValueError(f'classes must be two or more different names, background first, not '
                     f'{tuple(classes)}.')
  read_options = ReadOptions(**options, num_classes=len(classes))
  palette, are_drawn = read_options.palette, read_options.labels in trimaps.DRAWN
  masks.check_palette(palette, len(palette) if are_drawn else len(classes))
  target = pathlib.Path(output).expanduser().absolute() if output else None
  if target:
    _check_output(target, directory, overwrite)
  pairs, faults = layouts.find_pairs(directory)
  if any(volumes.is_volume(pair.image) for pair in pairs):
    pairs_lib.check_volume_settings(len(classes), read_options.channels, ())
  with _progress('checking', len(pairs)) as advance:
    pairs, found = pairs_lib.check_pairs(pairs, read_options, advance)
  faults += found
  if faults:
    count = f'{len(faults)} faults' if len(faults) > 1 else 'one fault'
    raise ValueError(f'{count} in {directory}, nothing was written:\n' + '\n'.join(faults))
  names, patients, own = zip(*((pair.name, pair.patient, pair.split) for pair in pairs))
  split = splits.make_split(
      names, patients, own, split_file=split_file, num_validation=num_validation,
      num_test=num_test, seed=split_seed)
  members = {name: [pairs[i] for i in split[name]] for name in splits.SPLITS if split[name]}
  for note in _notes(pairs):
    console.print(note, soft_wrap=True, highlight=False, markup=False)
  console.print(_summary(members, classes))
  if not target:
    console.print(f'{directory} is sound. Give --output to build the dataset.', soft_wrap=True)
    return
  _write(target, members, classes, read_options)
  command = train_command(target, classes, read_options.channels, volumes.is_volume(pairs[0].image))
  console.print('Train on it:', command, sep='\n  ', soft_wrap=True, highlight=False, markup=False)


def _check_output(output: pathlib.Path, directory: pathlib.Path, overwrite: bool) -> None:
  """Raises ValueError if building would delete something else than a dataset."""
  if not output.exists():
    return
  if not output.is_dir():
    raise ValueError(f'{output} is a file; name a new folder with --output.')
  if not any(output.iterdir()):
    return
  is_built = all((output / name).is_file() for name in (datasets.INFO_FILE, datasets.METADATA_FILE))
  if not is_built or directory.resolve().is_relative_to(output.resolve()):
    raise ValueError(f'{output} is not empty and not a built dataset; name a new folder with '
                     '--output.')
  if not overwrite:
    raise ValueError(f'{output} holds a dataset already; replace it with --overwrite or name a new '
                     'folder with --output.')


class SpinePairs(tfds.core.GeneratorBasedBuilder):
  """Records at their original size, one array_record file per split.

  Features: name and patient; image [H,W,channels] uint8, or float32 if any file has 16 bits; label
  uint8 [H,W], source labels before any label_map; spacing float32 [2] mm, NaN if unknown. Volumes
  have image float32 [D,H,W,1], and landmarks float32 [P,3] and region int8 [P] too.
  """

  code_path = None  # nothing is downloaded, so TFDS need not look for checksums beside this file
  VERSION = tfds.core.Version('1.0.0')

  def __init__(self, folder: pathlib.Path, members: Members, classes: Sequence[str],
               options: ReadOptions, advance: Callable[[], None]):
    """`advance` is called for every record that is written to `folder`."""
    self._members, self._options, self._advance = members, options, advance
    pairs = [pair for chosen in members.values() for pair in chosen]
    self._dtype = np.dtype(np.float32 if any(pair.is_float for pair in pairs) else np.uint8)
    are_volumes = volumes.is_volume(pairs[0].image)
    axes = (None,) * (2 + are_volumes)
    arrays = dict(image=((*axes, options.channels), self._dtype), label=(axes, np.uint8),
                  spacing=((len(axes),), np.float32))
    if are_volumes:
      arrays.update(landmarks=((None, 3), np.float32), region=((None,), np.int8))
    self._arrays = {
        name: tfds.features.Tensor(shape=shape, dtype=dtype, encoding='zlib')
        for name, (shape, dtype) in arrays.items()}
    self._metadata = tfds.core.MetadataDict(
        classes=list(classes), channels=options.channels,
        cases={split: [dict(name=pair.name, patient=pair.patient, digest=pair.digest)
                       for pair in chosen] for split, chosen in members.items()})
    super().__init__(data_dir=folder, file_format='array_record')

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
        builder=self, metadata=self._metadata, disable_shuffling=True,
        description='Images with class masks, or volumes with laminae, checked and split by '
                    'patient.',
        features=tfds.features.FeaturesDict({
            'name': tfds.features.Text(), 'patient': tfds.features.Text(), **self._arrays}))

  def _split_generators(self, dl_manager):
    del dl_manager
    return {split: self._generate_examples(pairs) for split, pairs in self._members.items()}

  def _generate_examples(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for index, pair in enumerate(pairs):
      record = pairs_lib.read_pair(pair, self._options)
      fields = {name: getattr(record, name) for name in ('name', 'patient', *self._arrays)}
      yield index, {**fields, 'image': record.image.astype(self._dtype)}
      self._advance()


def _write(output: pathlib.Path, members: Members, classes: Sequence[str],
           options: ReadOptions) -> None:
  """Writes and verifies the dataset beside `output`, then renames it."""
  with (_progress('writing', 2 * sum(map(len, members.values()))) as advance,
        _sibling_folder(output) as folder):
    dataset = SpinePairs(folder, members, classes, options, advance)
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
      dataset.download_and_prepare()
    for split, chosen in members.items():
      for pair, stored in zip(chosen, dataset.as_data_source(split), strict=True):
        record = Record(**{**stored, 'name': pair.name, 'patient': pair.patient})
        if records.digest(record) != pair.digest:
          raise OSError(f'{output} cannot be written: {pair.name} was not read back as it was '
                        'written; is its file changing, or the disk failing?')
        advance()
    patients = {split: sorted({pair.patient for pair in members.get(split, ())})
                for split in splits.SPLITS}
    content = json.dumps(patients, indent=2, ensure_ascii=False) + '\n'
    (dataset.data_path / SPLITS_FILE).write_text(content, encoding='utf-8')
    if output.exists() and any(output.iterdir()):
      os.rename(output, folder / 'replaced')
    os.rename(dataset.data_path, output)


@contextlib.contextmanager
def _sibling_folder(output: pathlib.Path) -> Iterator[pathlib.Path]:
  """A temporary folder beside `output`, deleted at the end; an OSError becomes one sentence."""
  folder = None
  try:
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(prefix=f'.{output.name}.', dir=output.parent)
    yield pathlib.Path(folder)
  except OSError as error:
    if not error.strerror:
      raise
    raise OSError(f'{output} cannot be written ({error.strerror}); nothing was left there.'
                  ) from error
  except RuntimeError as error:  # of array_record
    raise OSError(f'{output} cannot be written, perhaps the disk is full; nothing was left there.'
                  ) from error
  finally:
    if folder:
      shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[], None]]:
  """Yields `advance`, which moves a bar on a terminal."""
  console = Console(stderr=True)
  console.quiet = not console.is_terminal
  with logs.progress_of(what, total, console) as bar:
    yield functools.partial(bar.advance, 1)


def _summary(members: Members, classes: Sequence[str]) -> Table:
  """Cases, patients, sizes and share of pixels of every class by set."""
  axes = {2: 'height x width', 3: 'voxels down x across x deep'}
  dimensions = len(next(iter(members.values()))[0].size)
  table = Table('set', 'cases', 'patients', axes[dimensions], 'share of pixels')
  for split, pairs in members.items():
    counts = [sum(column) for column in zip(*(pair.counts for pair in pairs))]
    size = ' x '.join(str(min(n)) if min(n) == max(n) else f'{min(n)}..{max(n)}'
                      for n in zip(*(pair.size for pair in pairs)))
    shares = (f'{name} {100 * count / sum(counts):.3g}%' for name, count in zip(classes, counts))
    table.add_row(split, str(len(pairs)), str(len({pair.patient for pair in pairs})), size,
                  '\n'.join(shares))
  return table


def _notes(pairs: Sequence[Pair]) -> list[str]:
  """Notes on single files, then notes that several files share, with their number."""
  said = [note for pair in pairs for note in pair.notes]
  counts = collections.Counter(note.partition(': ')[2] for note in said)
  shared = {words: count for words, count in counts.items() if count > 1 and 'snapped' not in words}
  return ([note for note in said if note.partition(': ')[2] not in shared]
          + [f'{count} files: {words}' for words, count in shared.items()])


def train_command(output: pathlib.Path, classes: Sequence[str], channels: int,
                  are_volumes: bool) -> str:
  """The command that trains on a dataset, quoted for a shell."""
  literal = re.sub(r'(["$`\\])', r'\\\1', str(tuple(classes)))
  settings = [shlex.quote(f'--workdir=runs/{output.name}'), '--config.data.name=built',
              shlex.quote(f'--config.data.directory={output}'),
              f'--config.data.classes="{literal}"']
  settings += [] if are_volumes else [f'--config.model.num_classes={len(classes)}']
  settings += [f'--config.data.channels={channels}'] if channels != 1 else []
  is_trimap = tuple(classes) == ('background', 'spine', 'border')
  config = 'c_unet' if are_volumes else 'xray_unet' if is_trimap else 'seam'
  return ' '.join([f'spinejax train --config={config}', *settings])
