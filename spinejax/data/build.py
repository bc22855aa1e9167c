"""Checks a folder of images or volumes and turns it into a dataset (TFDS, array_record).

  python -m spinejax.data.build --input=DIR --classes=background,nerve,vessel [--output=DIR]

DIR holds images/NAME.png and masks/NAME.png, or dataset/{train,test}/NAME.png and
groundtruth/{train,test}/NAME_bone_3.png; PNG, JPEG or TIFF of 8 or 16 bits. Masks hold class
indices, 0 and 255 for two classes, or colors (--palette). An optional DIR/cases.csv with the
columns name,patient,spacing_y_mm,spacing_x_mm says which images share a patient and the size of
their pixels. Every file is decoded first; each fault is one line and nothing is written unless
there is none. What reading changed (colors snapped, gray scale inverted) is said file by file.
Without --output the folder is only checked.

X-rays may be DICOM too, and lie beside their trimaps, NAME.jpg with NAME-mask-trimap.png:

  python -m spinejax.data.build --input=DIR --classes=background,spine,border \\
    --palette=red,green,blue

--palette=2,1,3 reads trimaps of 1 core, 2 background, 3 border. Trimaps are made of corners of
vertebrae (landmarks/NAME.csv or .mat, or the folders data and labels of AASCE), and with
--labels=trimap of masks of vertebral bodies; --border is the width of their border.

Volumes are images/NAME.nii.gz (or .nii, .nrrd, .mha, .npz) with a mask masks/NAME.nii.gz or a table
of landmarks landmarks/NAME.csv or NAME.mrk.json, --classes=background,lamina.
"""
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
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import flags
import numpy as np
from rich import progress as rich_progress
from rich.console import Console
from rich.table import Table

from spinejax.commands import cli
from spinejax.data import datasets
from spinejax.readers import checks
from spinejax.readers import layouts
from spinejax.readers import masks
from spinejax.readers import pairs as pairs_lib
from spinejax.readers import records as records_lib
from spinejax.readers import volumes
from spinejax.readers.records import Pair, ReadOptions, Record
from spinejax.data import splits
from spinejax.readers import trimaps

SPLITS_FILE = 'splits.json'


def build(
    directory: str | os.PathLike,
    output: str | os.PathLike,
    classes: Sequence[str],
    *,
    palette: masks.Palette = (),
    channels: int = 1,
    axes: str = '',
    labels: str = '',
    border: float = trimaps.BORDER_WIDTH,
    split_file: str = '',
    num_validation: float = 0.1,
    num_test: float = 0.2,
    split_seed: int = 0,
    overwrite: bool = False,
    console: Console | None = None,
) -> None:
  """Builds the dataset `datasets.load_built` reads, or nothing at all.

  The images are stored at their original size with the source labels of the masks (a label_map is
  applied when loading), volumes in the axes of `orientation`. The sets are those of
  `splits.make_split`, stored in splits.json, itself a split file. Every record is read back and
  compared before the folder appears under its name.

  Args:
    directory: folder of images and masks, or of volumes, see `layouts.find_pairs`.
    output: folder to make; '' only checks.
    classes: names of the source labels, background first.
    palette, channels, axes, labels, border: as `files.read_pair`.
    split_file, num_validation, num_test, split_seed: as `splits.make_split`.
    overwrite: replace an existing dataset.
    console: where the summary goes; standard output if None.

  Raises:
    FileNotFoundError, ValueError: an unsound folder, one line a fault; an output that exists.
    OSError: the output cannot be written.
  """
  console = console or Console()
  directory = pathlib.Path(directory).expanduser()
  if len(classes) < 2 or len(set(classes)) < len(classes) or not all(classes):
    raise ValueError(f'classes must be two or more different names, background first, not '
                     f'{tuple(classes)}.')
  masks.check_palette(palette, len(palette) if labels in trimaps.DRAWN else len(classes))
  trimaps.check_labels(labels, border)
  output = pathlib.Path(output).expanduser().absolute() if output else None
  if output:
    _check_output(output, directory, overwrite)
  pairs, faults = layouts.find_pairs(directory)
  are_volumes = any(volumes.is_volume(pair.image) for pair in pairs)
  if are_volumes:
    checks.check_volume_settings(len(classes), channels, ())
  options = ReadOptions(channels, palette, (), len(classes), axes, labels, border)
  with _progress('checking', len(pairs)) as advance:
    pairs, found = checks.check_pairs(pairs, options, advance)
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
  if not output:
    console.print(f'{directory} is sound. Give --output to build the dataset.', soft_wrap=True)
    return
  with _progress('writing', 2 * sum(map(len, members.values()))) as advance:
    read = functools.partial(pairs_lib.read_pair, options=options)
    _write(output, members, splits.patients_of(split, patients), classes, channels, are_volumes,
           read, advance)
  command = _train_command(output, classes, channels, are_volumes)
  console.print('Train on it:', command, sep='\n  ', soft_wrap=True, highlight=False, markup=False)


def _check_output(output: pathlib.Path, directory: pathlib.Path, overwrite: bool) -> None:
  """Raises ValueError where building would destroy something."""
  if not output.exists():
    return
  if not output.is_dir():
    raise ValueError(f'{output} is a file; name a new folder with --output.')
  if not any(output.iterdir()):
    return
  built = all((output / name).is_file() for name in (datasets.INFO_FILE, datasets.METADATA_FILE))
  if not built or directory.resolve().is_relative_to(output.resolve()):
    raise ValueError(f'{output} is not empty and not a built dataset; name a new folder with '
                     '--output.')
  if not overwrite:
    raise ValueError(f'{output} holds a dataset already; replace it with --overwrite or name a new '
                     'folder with --output.')


def _write(
    output: pathlib.Path,
    members: dict[str, list[Pair]],
    patients: dict[str, list[str]],
    classes: Sequence[str],
    channels: int,
    are_volumes: bool,
    read: Callable[[Pair], Record],
    advance: Callable[[], None],
) -> None:
  """Writes and verifies the dataset beside `output`, then renames it."""
  import tensorflow_datasets as tfds  # late, so that --help is immediate

  from spinejax.data import builder

  mixed = any(pair.is_float for pairs in members.values() for pair in pairs)
  dtype = np.dtype(np.float32 if mixed else np.uint8)

  def records(pairs):
    for pair in pairs:
      record = read(pair)
      yield {**{name: value for name, value in vars(record).items()
                if name not in ('true_angles', 'notes') and value is not None},
             'image': record.image.astype(dtype)}
      advance()

  metadata = dict(
      classes=list(classes), channels=channels,
      cases={split: [dict(name=pair.name, patient=pair.patient, digest=pair.digest)
                     for pair in pairs] for split, pairs in members.items()})
  with _sibling_folder(output) as folder:
    dataset = builder.SpinePairs(
        folder, {split: records(pairs) for split, pairs in members.items()}, channels=channels,
        image_dtype=dtype, are_volumes=are_volumes, metadata=metadata)
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
      dataset.download_and_prepare()
    for split, pairs in members.items():
      for pair, record in zip(pairs, dataset.as_data_source(split), strict=True):
        stored = Record(**{**record, 'name': pair.name, 'patient': pair.patient})
        if records_lib.digest(stored) != pair.digest:
          raise OSError(f'{output} cannot be written: {pair.name} was not read back as it was '
                        'written; is its file changing, or the disk failing?')
        advance()
    content = json.dumps(patients, indent=2, ensure_ascii=False) + '\n'
    (dataset.data_path / SPLITS_FILE).write_text(content, encoding='utf-8')
    if output.exists() and any(output.iterdir()):
      os.rename(output, folder / 'replaced')
    os.rename(dataset.data_path, output)


@contextlib.contextmanager
def _sibling_folder(output: pathlib.Path) -> Iterator[pathlib.Path]:
  """A temporary folder beside `output`, gone afterwards; OSError is one sentence."""
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
  except RuntimeError as error:  # array_record's own
    raise OSError(f'{output} cannot be written, perhaps the disk is full; nothing was left there.'
                  ) from error
  finally:
    if folder:
      shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[], None]]:
  """Yields advance(); a bar on a terminal, nothing elsewhere."""
  console = Console(stderr=True)
  with rich_progress.Progress(console=console, transient=True,
                              disable=not console.is_terminal) as bar:
    task = bar.add_task(what, total=total)
    yield lambda: bar.advance(task)


def _summary(members: dict[str, list[Pair]], classes: Sequence[str]) -> Table:
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
  """What was said of each file; what was said of more than one alike, at the end as a count."""
  said = [note for pair in pairs for note in pair.notes]
  counts = collections.Counter(note.partition(': ')[2] for note in said)
  single = [note for note in said if counts[note.partition(': ')[2]] == 1
            or 'snapped' in note]
  return single + [f'{count} files: {words}' for words, count in counts.items()
                   if count > 1 and 'snapped' not in words]


def _train_command(output: pathlib.Path, classes: Sequence[str], channels: int,
                   are_volumes: bool = False) -> str:
  """The command as one would type it: classes in double quotes, paths quoted where needed."""
  literal = re.sub(r'(["$`\\])', r'\\\1', str(tuple(classes)))
  settings = [shlex.quote(f'--workdir=runs/{output.name}'), '--config.data.name=built',
              shlex.quote(f'--config.data.directory={output}'),
              f'--config.data.classes="{literal}"']
  settings += [] if are_volumes else [f'--config.model.num_classes={len(classes)}']
  settings += [f'--config.data.channels={channels}'] if channels != 1 else []
  trimap = tuple(classes) == ('background', 'spine', 'border')
  config = 'c_unet' if are_volumes else 'xray_unet' if trimap else 'seam'
  return ' '.join([f'python -m spinejax.main --config=configs/{config}.py', *settings])


def _define_flags() -> None:
  """Flags of the command; not at import, where they would meet those of other commands."""
  flags.DEFINE_string('input', None, 'Folder of images and masks, or of volumes.', required=True)
  flags.DEFINE_string('output', '', 'Folder of the dataset; empty: only check.')
  flags.DEFINE_list('classes', None, 'Names of the labels in order, background first.',
                    required=True)
  flags.DEFINE_string('palette', '', "Colors of the labels in colored masks: '000000,ff0000,...' "
                      "or 'red,green,blue'; or their gray values: '2,1,3'.")
  flags.DEFINE_integer('channels', 1, 'Channels to keep: 1 gray, 3 color.')
  flags.DEFINE_string('axes', '', 'Where the axes of volumes point, such as RAS; empty: as their '
                      'files say.')
  flags.DEFINE_string('labels', '', f'What masks or corners of vertebrae become: '
                      f'{", ".join(trimaps.LABELS)}; empty: masks as they are, corners by the '
                      'number of classes.')
  flags.DEFINE_float('border', trimaps.BORDER_WIDTH, 'Width of the border of such a trimap, as a '
                     'fraction of the width of the image.')
  flags.DEFINE_string('split_file', '', 'JSON file {"train": [ids], "validation": [], "test": []}.')
  flags.DEFINE_float('num_validation', 0.1, 'Patients for validation: a number, or a fraction.')
  flags.DEFINE_float('num_test', 0.2, 'Patients for test: a number, or a fraction.')
  flags.DEFINE_integer('split_seed', 0, 'Seed of the split.')
  flags.DEFINE_bool('overwrite', False, 'Replace the dataset in --output.')


def main(argv: Sequence[str]) -> None:
  del argv
  args = flags.FLAGS
  build(args.input, args.output, [name.strip() for name in args.classes],
        palette=masks.parse_palette(args.palette), channels=args.channels,
        axes=args.axes, labels=args.labels, border=args.border, split_file=args.split_file,
        num_validation=args.num_validation, num_test=args.num_test, split_seed=args.split_seed,
        overwrite=args.overwrite)


if __name__ == '__main__':
  _define_flags()
  cli.run(main)
