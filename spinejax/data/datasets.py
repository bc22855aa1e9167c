"""Datasets by name: sequences of records for training, validation and test, apart by patient.

A record is a dict: name, patient (str); image uint8 or float32 [H,W,C] in 0..255; label uint8
[H,W], classes from 0 (background); spacing float32 [2] mm per pixel, NaN where unknown. Sizes may
differ from record to record, the dtype may not. The record of a phantom also has true_angles
{method of `spinejax.measure`: degrees of the largest true curve}.

The record of a volume is prepared to the size of the network (see `preparation`): image float32
[D,H,W,1], any gray scale; label uint8 [D,H,W], 1 = lamina; spacing float32 [3]; and landmarks
float32 [P,3] voxels with their region int8 [P] (0 thoracic, 1 lumbar, -1 unknown).
"""
import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from spinejax.readers import checks
from spinejax.readers import images
from spinejax.readers import layouts
from spinejax.readers import masks
from spinejax.readers import pairs as pairs_lib
from spinejax.readers import records
from spinejax.readers import volumes
from spinejax.readers.records import ReadOptions, Record
from spinejax.data import preparation
from spinejax.data import splits
from spinejax.readers import trimaps

Config = Mapping[str, Any]

INFO_FILE = 'dataset_info.json'  # written by TFDS
METADATA_FILE = 'metadata.json'  # written by TFDS from what build gives it
# The truth of a phantom that a method of `spinejax.measure` is to find.
_TRUE_ANGLES = {'uca': 'cobb', 'center_of_lamina': 'cobb', 'centerline_cobb': 'centerline_cobb'}
_PHANTOM_SEEDS = 1_000_000  # of each set; a split seed has three times as many


@dataclasses.dataclass(frozen=True)
class Source:
  """A sequence of records that are read when asked for.

  Attributes:
    names, patients: of every case.
    read: record of an index; safe to call from several threads.
    fingerprint: hexadecimal; changes with any name, patient, pixel, landmark or spacing.
  """
  names: tuple[str, ...]
  patients: tuple[str, ...]
  read: Callable[[int], Record] = dataclasses.field(repr=False)
  fingerprint: str

  def __len__(self) -> int:
    return len(self.names)

  def __getitem__(self, index: int) -> Record:
    return self.read(range(len(self))[index])


Dataset = dict[str, Source]


def load_dataset(config: Config) -> Dataset:
  """The sets of `config.data`: dict(train=..., validation=..., test=...) of sources.

  The sets share no patient and are the same on every machine; validation and test may be empty.

  Args:
    config: config.data: name (see DATASETS), directory, classes, label_map (class of each source
      label, () for none), palette (RGB tuples or 'RRGGBB,...'), channels, split_file, split_seed,
      num_train, num_validation, num_test (see `splits.make_split`), image_size; for phantoms also
      render_size and difficulty; for X-rays of files labels and border (see `files.read_pair`;
      labels='cubes' is taken as ''); for volumes of files also axes (see `volumes.read_volume`),
      preparation, top_layer, column_width and labels (see `preparation.prepare_record`).

  Raises:
    FileNotFoundError: the directory or the split file is missing.
    ValueError: an unknown name, faults in the files, sizes that do not fit, no training case,
      volumes where image_size is that of images or the other way around.
  """
  if config['name'] not in DATASETS:
    raise ValueError(f'data.name must be one of {", ".join(DATASETS)}, not {config["name"]!r}.')
  num_classes, label_map = len(config['classes']), _label_map(config)
  if label_map and not all(0 <= label < num_classes for label in label_map):
    raise ValueError(f'data.label_map {label_map} leads outside the {num_classes} classes '
                     f'{tuple(config["classes"])}.')
  dataset = DATASETS[config['name']](config)
  if not len(dataset['train']):
    raise ValueError(f'the dataset {config["name"]} {config.get("directory", "")} has no training '
                     'case; look at its split.')
  return dataset


def describe(dataset: Dataset) -> dict[str, Any]:
  """JSON-safe identity of a dataset: its patients and cases by set, and the hash of its data."""
  return dict(
      split={name: list(source.names) for name, source in dataset.items()},
      patients={name: sorted(set(source.patients)) for name, source in dataset.items()},
      fingerprint={name: source.fingerprint for name, source in dataset.items()})


def _label_map(config: Config) -> tuple[int, ...]:
  return tuple(config.get('label_map') or ())


def _palette(config: Config) -> masks.Palette:
  palette = config.get('palette') or ()
  return masks.parse_palette(palette) if isinstance(palette, str) else tuple(palette)


def _fingerprint(parts: Iterable[Any]) -> str:
  return hashlib.blake2b(repr(list(parts)).encode(), digest_size=16).hexdigest()


def _directory(config: Config) -> pathlib.Path:
  if not config['directory']:
    raise ValueError(f'data.name={config["name"]} needs data.directory, the folder of the data.')
  return pathlib.Path(config['directory']).expanduser()


def _check_axes(config: Config, are_volumes: bool) -> None:
  """Raises ValueError unless the network takes what the dataset holds."""
  size = tuple(config['image_size'])
  if len(size) != 2 + are_volumes:
    held, other = ('volumes', 'images') if are_volumes else ('images', 'volumes')
    raise ValueError(f'the dataset {config["name"]} {config.get("directory", "")} holds {held}, '
                     f'but data.image_size {size} is that of {other}; choose a config for {held}.')
  known = preparation.STEPS if are_volumes else ('rescale', 'rescale_nearest', 'fit', 'z_score')
  if not set(config.get('preparation', ())) <= set(known):
    raise ValueError(f'data.preparation {tuple(config["preparation"])} must name steps out of '
                     f'{", ".join(known)}.')
  if are_volumes:
    checks.check_volume_settings(len(config['classes']), config['channels'], _label_map(config))


def make_sources(
    cases: Sequence[tuple[str, str, str, str]], read: Callable[[int], Record], config: Config,
    are_volumes: bool) -> Dataset:
  """Sources of cases (name, patient, own split, digest); `read` takes an index into them."""
  names, patients, own, digests = zip(*cases)
  split = splits.make_split(
      names, patients, own, split_file=config.get('split_file', ''),
      num_train=config['num_train'], num_validation=config['num_validation'],
      num_test=config['num_test'], seed=config.get('split_seed', 0))
  options = _label_map(config), config['channels']
  if are_volumes:
    prepared = preparation.options_of(config)
    options += tuple(sorted(prepared.items())),
    read = functools.partial(_read_prepared, read, prepared)
  return {
      name: Source(
          names=tuple(names[i] for i in indices), patients=tuple(patients[i] for i in indices),
          read=functools.partial(lambda chosen, i: read(chosen[i]), indices),
          fingerprint=_fingerprint([options, *(digests[i] for i in indices)]))
      for name, indices in split.items()}


def _read_prepared(
    read: Callable[[int], Record], options: Mapping[str, Any], index: int) -> Record:
  """The record of a volume at the size of the network."""
  record = read(index)
  try:
    return preparation.prepare_record(record, **options)[0]
  except ValueError as error:
    raise ValueError(f'{record.name}: {error}') from None


def load_folder(config: Config) -> Dataset:
  """The user's own folder (see `files.find_pairs`); every file is decoded and checked first.

  Raises:
    FileNotFoundError, ValueError: faults in the folder; the first one, and how to see them all.
  """
  directory = _directory(config)
  num_classes = len(config['classes'])
  options = dict(channels=config['channels'], num_classes=num_classes, palette=_palette(config),
                 label_map=_label_map(config), axes=config.get('axes', ''),
                 border=config.get('border', trimaps.BORDER_WIDTH))
  pairs, faults = layouts.find_pairs(directory)
  are_volumes = any(volumes.is_volume(pair.image) for pair in pairs)
  labels = config.get('labels', '')
  if not are_volumes and labels != 'cubes':  # those are of volumes, and the default
    options['labels'] = labels
  num_labels = len(options['label_map']) or num_classes
  if options.get('labels', '') in trimaps.DRAWN:  # of masks that have colors of their own
    num_labels = len(options['palette'])
  masks.check_palette(options['palette'], num_labels)
  if not faults:
    _check_axes(config, are_volumes)
    pairs, faults = checks.check_pairs(pairs, ReadOptions(**options))
  if faults:
    more = (f' There are {len(faults) - 1} more faults; python -m spinejax.data.build '
            f'--input={directory} --classes=... lists them.')
    raise ValueError(faults[0] + more * (len(faults) > 1))
  promote = any(pair.is_float for pair in pairs)

  def read(index):
    record = pairs_lib.read_pair(pairs[index], ReadOptions(**options))
    return dataclasses.replace(record, image=record.image.astype(np.float32)) if promote else record

  return make_sources(
      [(p.name, p.patient, p.split, p.digest) for p in pairs], read, config, are_volumes)


def load_built(config: Config) -> Dataset:
  """A dataset of `python -m spinejax.data.build`; it keeps its own sets unless split_file is given.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: not such a dataset, other classes, a damaged file.
  """
  import tensorflow_datasets as tfds  # half a second that other datasets need not spend

  directory = _directory(config)
  if not directory.exists():
    raise FileNotFoundError(f'{directory}: there is no such folder.')
  try:
    metadata = json.loads((directory / METADATA_FILE).read_text(encoding='utf-8'))
    classes = tuple(metadata['classes'])
    cases = [(case['name'], case['patient'], split, case['digest'])
             for split, members in metadata['cases'].items() for case in members]
    built = tfds.builder_from_directory(directory)
    are_volumes = built.info.features['spacing'].shape == (3,)
    stored = {split: built.as_data_source(split) for split in metadata['cases']}
  except Exception:  # whatever a foreign or damaged folder makes of it
    raise ValueError(f'{directory}: this is not a dataset of python -m spinejax.data.build; build '
                     'it (again), or set data.name=folder for a folder of images.') from None
  _check_axes(config, are_volumes)
  label_map, asked = _label_map(config), tuple(config['classes'])
  if (len(label_map) != len(classes)) if label_map else (asked != classes):
    raise ValueError(f'{directory} has the classes {classes}, the config asks for {asked}'
                     + (f' with data.label_map={label_map}' if label_map else '')
                     + f'; set --config.data.classes="{classes}", or a label_map of '
                     f'{len(classes)} entries.')
  places = [(split, i) for split, members in metadata['cases'].items()
            for i in range(len(members))]

  def read(index):
    split, i = places[index]
    try:
      record = stored[split][i]
    except Exception:
      raise ValueError(f'{directory}: the {split} set is damaged at {cases[index][0]}; build it '
                       'again.') from None
    label = record['label']
    return Record(**dict(record, name=cases[index][0], patient=cases[index][1],
                image=images.set_channels(record['image'], config['channels']),
                label=np.asarray(label_map, np.uint8)[label] if label_map else label))

  return make_sources(cases, read, config, are_volumes)


def load_vpi_phantom(config: Config) -> Dataset:
  """Phantom VPI images (see `spinejax.phantoms.vpi`); as `_load_phantoms`.

  Raises:
    ValueError: num_* are not whole numbers; classes that do not fit.
  """
  from spinejax.phantoms import vpi

  _check_axes(config, are_volumes=False)
  label_map, num_classes = _label_map(config), len(config['classes'])
  if (label_map and len(label_map) != 4) or not (label_map or num_classes == 4):
    raise ValueError('the phantom has 4 labels (background, rib, thoracic process, lump): give 4 '
                     'classes, or a label_map of 4 entries such as (0, 1, 1, 1).')
  return _load_phantoms(config, vpi)


def load_xray_phantom(config: Config) -> Dataset:
  """Phantom spine X-rays (see `spinejax.phantoms.xray`); as `_load_phantoms`.

  Raises:
    ValueError: num_* are not whole numbers; classes that do not fit.
  """
  from spinejax.phantoms import xray

  _check_axes(config, are_volumes=False)
  label_map = _label_map(config)
  if len(label_map or config['classes']) != 3:
    raise ValueError('the X-ray phantom has 3 labels (background, spine, border): give 3 classes, '
                     'or a label_map of 3 entries such as (0, 1, 1).')
  return _load_phantoms(config, xray)


def load_volume_phantom(config: Config) -> Dataset:
  """Phantom 3-D ultrasound volumes (see `spinejax.phantoms.volume`); as `_load_phantoms`.

  Records are as rendered, at render_size; nothing is prepared.

  Raises:
    ValueError: num_* are not whole numbers; classes that do not fit.
  """
  from spinejax.phantoms import volume

  _check_axes(config, are_volumes=True)
  return _load_phantoms(config, volume)


def _load_phantoms(config: Config, render: Callable[..., dict[str, Any]]) -> Dataset:
  """Phantoms of `render(seed, shape=..., difficulty=...)`, one patient each, drawn when asked.

  The set and the number of a case make its seed, so the test set does not depend on the size of the
  training set. Rendered cases stay in memory.
  """
  label_map = _label_map(config)
  sizes = {name: config[f'num_{name}'] for name in splits.SPLITS}
  for name, size in sizes.items():
    if size < 0 or size != int(size) or size > _PHANTOM_SEEDS:
      raise ValueError(f'data.num_{name} must be a whole number of phantoms, not {size}.')
  shape, difficulty = tuple(config['render_size']), config['difficulty']

  def source(part, name):
    first = (config['split_seed'] * len(splits.SPLITS) + part) * _PHANTOM_SEEDS
    seeds = range(first, first + int(sizes[name]))
    names = tuple(f'phantom_{seed:07d}' for seed in seeds)

    @functools.cache
    def read(index):
      phantom = render(seeds[index], shape=shape, difficulty=difficulty)
      truth, label = phantom.truth, phantom.label
      points = {key: getattr(phantom, key) for key in ('landmarks', 'region')
                if hasattr(phantom, key)}
      return Record(name=names[index], patient=names[index],
                  image=images.set_channels(phantom.image[..., None], config['channels']),
                  label=np.asarray(label_map, np.uint8)[label] if label_map else label,
                  spacing=np.asarray(truth.spacing, np.float32),
                  true_angles={
                      method: max((abs(curve.angle) for curve in getattr(truth, key)), default=0)
                      for method, key in _TRUE_ANGLES.items() if hasattr(truth, key)}, **points)

    probe = records.digest(read(0)) if names else ''
    return Source(names, names, read, _fingerprint([names, shape, difficulty, probe]))

  return {name: source(part, name) for part, name in enumerate(splits.SPLITS)}


DATASETS: dict[str, Callable[[Config], Dataset]] = {
    'vpi_phantom': load_vpi_phantom,
    'volume_phantom': load_volume_phantom,
    'xray_phantom': load_xray_phantom,
    'folder': load_folder,
    'built': load_built,
}
