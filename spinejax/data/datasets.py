"""Datasets by name: sequences of records for training, validation and test, split by patient.

Images of a dataset may differ in size but not in dtype. Records of volumes are prepared to the size
of the network, see `preparation`; images have their original size.
"""
import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from spinejax import phantoms
from spinejax.data import examples, preparation, splits
from spinejax.readers import images, layouts, masks, records, trimaps, volumes
from spinejax.readers import pairs as pairs_lib
from spinejax.readers.records import ReadOptions, Record

Config = Mapping[str, Any]

INFO_FILE = 'dataset_info.json'  # written by TFDS
METADATA_FILE = 'metadata.json'  # written by TFDS from what `build` passes to it
# Phantoms: the function of `spinejax.phantoms`, and the labels.
_PHANTOMS = {
    'vpi_phantom': ('vpi', ('background', 'rib', 'thoracic process', 'lump')),
    'volume_phantom': ('volume', ('background', 'lamina')),
    'xray_phantom': ('xray', ('background', 'spine', 'border')),
}
_PHANTOM_SEEDS = 1_000_000  # seeds of each set; a split seed has three times as many
# Attribute of a phantom's truth that a method of `spinejax.measure` should find.
_TRUE_ANGLES = {'uca': 'cobb', 'center_of_lamina': 'cobb', 'centerline_cobb': 'centerline_cobb'}


@dataclasses.dataclass(frozen=True)
class Source:
  """A sequence of records that are read when accessed, from several threads too.

  The fingerprint is hexadecimal and changes with any name, patient, pixel, landmark or spacing.
  """
  names: tuple[str, ...]
  patients: tuple[str, ...]
  read: Callable[[int], Record] = dataclasses.field(repr=False)
  fingerprint: str

  def __len__(self) -> int:
    return len(self.names)

  def __getitem__(self, index: int) -> Record:
    return self.read(range(len(self))[index])


Dataset = dict[str, Source]  # train, validation, test


def load_dataset(config: Config) -> Dataset:
  """The sets of config.data, which share no patient and are the same on every machine.

  Validation and test may be empty.

  Raises:
    FileNotFoundError: the directory or the split file is missing.
    ValueError: an unknown name, faults in the files, fields that do not fit the data, or no
      training case.
  """
  check_settings(config)
  dataset = DATASETS[config['name']](config)
  if not len(dataset['train']):
    raise ValueError(f'the dataset {config["name"]} {config["directory"]} has no training case; '
                     'check its split.')
  return dataset


def check_settings(config: Config) -> None:
  """Checks the fields of config.data as far as that needs no file.

  Raises:
    ValueError: an unknown name or step, a missing directory, a class that does not exist, or a
      wrong strength of an artifact.
  """
  if config['name'] not in DATASETS:
    raise ValueError(f'config.data.name must be one of {", ".join(DATASETS)}, '
                     f'not {config["name"]!r}.')
  if config['name'] in ('folder', 'built'):
    _directory(config)
  steps, are_volumes = tuple(config['preparation']), _is_volumetric(config)
  known = (*preparation.STEPS, 'z_score') if are_volumes else examples.STEPS
  if not set(steps) <= set(known) or (are_volumes and len(set(steps)) < len(steps)):
    raise ValueError(f'config.data.preparation must name steps out of {", ".join(known)}, each '
                     f'once at most, not {steps}.')
  if are_volumes and config['labels'] not in preparation.LABELS:
    raise ValueError(f"data.labels must be 'cubes' or 'mask', not {config['labels']!r}.")
  _label_map(config)
  _strengths(config)


def describe(dataset: Dataset) -> dict[str, Any]:
  """What dataset.json holds: cases and patients of each set, and the hash of its data."""
  return dict(
      split={name: list(source.names) for name, source in dataset.items()},
      patients={name: sorted(set(source.patients)) for name, source in dataset.items()},
      fingerprint={name: source.fingerprint for name, source in dataset.items()})


def _is_volumetric(config: Config) -> bool:
  return len(config['image_size']) == 3


def _label_map(config: Config) -> tuple[int, ...]:
  """config.data.label_map, () of volumes. Raises ValueError if a class does not exist."""
  label_map = () if _is_volumetric(config) else tuple(config['label_map'])
  if not all(0 <= label < len(config['classes']) for label in label_map):
    raise ValueError(f'config.data.label_map {label_map} has a class outside of the '
                     f'{len(config["classes"])} classes {tuple(config["classes"])}.')
  return label_map


def _strengths(config: Config) -> phantoms.Strengths:
  """config.data.strengths, all 1 where a config has none. Raises ValueError naming the field."""
  strengths = config.get('strengths', {})
  known = [field.name for field in dataclasses.fields(phantoms.Strengths)]
  unknown = sorted(set(strengths) - set(known))
  if unknown:
    raise ValueError(f'config.data.strengths has no artifact {unknown[0]!r}; it has '
                     f'{", ".join(known)}.')
  try:
    return phantoms.Strengths(**strengths)
  except ValueError as error:
    raise ValueError(f'config.data.strengths: {error}') from None


def _read_options(config: Config) -> ReadOptions:
  """How the files of config.data are read, by the fields that its kind of data has."""
  channels, num_classes = config['channels'], len(config['classes'])
  if _is_volumetric(config):
    return ReadOptions(channels, num_classes=num_classes, axes=config['axes'])
  palette = config['palette']
  palette = masks.parse_palette(palette) if isinstance(palette, str) else tuple(palette)
  options = ReadOptions(channels, palette, _label_map(config), num_classes)
  if 'border' in config:  # X-rays
    options = dataclasses.replace(options, labels=config['labels'], border=config['border'])
  # A mask from which labels are drawn has colors of its own.
  are_drawn = options.labels in trimaps.DRAWN
  masks.check_palette(palette, len(palette) if are_drawn else options.num_labels or num_classes)
  return options


def _directory(config: Config) -> pathlib.Path:
  if not config['directory']:
    raise ValueError(f'config.data.name={config["name"]} needs config.data.directory, the folder '
                     'of the data.')
  return pathlib.Path(config['directory']).expanduser()


def _check_kind(config: Config, are_volumes: bool) -> None:
  """Raises ValueError if the config is of another kind of data than the dataset."""
  if are_volumes != _is_volumetric(config):
    held, other = ('volumes', 'images') if are_volumes else ('images', 'volumes')
    raise ValueError(f'the dataset {config["name"]} {config["directory"]} holds {held}, but '
                     f'data.image_size {tuple(config["image_size"])} is that of {other}; choose a '
                     f'config for {held}.')
  if are_volumes:
    pairs_lib.check_volume_settings(len(config['classes']), config['channels'], ())


def _fingerprint(parts: Iterable[Any]) -> str:
  return hashlib.blake2b(repr(list(parts)).encode(), digest_size=16).hexdigest()


def make_sources(cases: Sequence[tuple[str, str, str, str]], read: Callable[[int], Record],
                 config: Config) -> Dataset:
  """Sources of cases (name, patient, own split, digest); `read` takes an index into them."""
  names, patients, own, digests = zip(*cases)
  split = splits.make_split(
      names, patients, own, split_file=config['split_file'], num_train=config['num_train'],
      num_validation=config['num_validation'], num_test=config['num_test'],
      seed=config['split_seed'])
  options = _label_map(config), config['channels'], *_preparation_options(config)

  def read_chosen(indices: Sequence[int], index: int) -> Record:
    return _prepare(read(indices[index]), config)

  return {
      name: Source(
          names=tuple(names[i] for i in indices), patients=tuple(patients[i] for i in indices),
          read=functools.partial(read_chosen, indices),
          fingerprint=_fingerprint([options, *(digests[i] for i in indices)]))
      for name, indices in split.items()}


def _preparation_options(config: Config) -> tuple[Any, ...]:
  """What the records of volumes depend on beside their files, () of images."""
  if not _is_volumetric(config):
    return ()
  return (('column_width', config['column_width']), ('labels', config['labels']),
          ('shape', tuple(config['image_size'])), ('steps', preparation.steps_of(config)),
          ('top_layer', config['top_layer'])),


def _prepare(record: Record, config: Config) -> Record:
  """The prepared record of a volume; an image as it is."""
  try:
    return preparation.prepare_record(record, config)[0] if _is_volumetric(config) else record
  except ValueError as error:
    raise ValueError(f'{record.name}: {error}') from None


def convert_record(record: Record, config: Config) -> Record:
  """The record with the channels and the classes of the config."""
  label_map, label = np.asarray(_label_map(config), np.uint8), record.label
  return dataclasses.replace(
      record, image=images.set_channels(record.image, config['channels']),
      label=label_map[label] if len(label_map) else label)


def load_folder(config: Config) -> Dataset:
  """A folder of the user (see `layouts.find_pairs`). Every file is decoded and checked first.

  Raises:
    FileNotFoundError, ValueError: faults in the folder; the first one, and how to list all.
  """
  directory, options = _directory(config), _read_options(config)
  pairs, faults = layouts.find_pairs(directory)
  if not faults:
    _check_kind(config, any(volumes.is_volume(pair.image) for pair in pairs))
    pairs, faults = pairs_lib.check_pairs(pairs, options)
  if faults:
    more = (f' There are {len(faults) - 1} more faults; spinejax build --input={directory} '
            '--classes=... lists them.')
    raise ValueError(faults[0] + more * (len(faults) > 1))
  is_float = any(pair.is_float for pair in pairs)

  def read(index: int) -> Record:
    record = pairs_lib.read_pair(pairs[index], options)
    image = record.image.astype(np.float32) if is_float else record.image
    return dataclasses.replace(record, image=image)

  return make_sources([(p.name, p.patient, p.split, p.digest) for p in pairs], read, config)


def load_built(config: Config) -> Dataset:
  """A dataset of `spinejax build`. It keeps its own sets unless split_file is given.

  Raises:
    FileNotFoundError: there is no such folder.
    ValueError: not such a dataset, other classes, or a damaged file.
  """
  import tensorflow_datasets as tfds  # takes half a second, which other datasets do not need

  directory = _directory(config)
  if not directory.exists():
    raise FileNotFoundError(f'{directory}: there is no such folder.')
  try:
    metadata = json.loads((directory / METADATA_FILE).read_text(encoding='utf-8'))
    classes = tuple(metadata['classes'])
    places = [(split, i, case) for split, members in metadata['cases'].items()
              for i, case in enumerate(members)]
    cases = [(case['name'], case['patient'], split, case['digest']) for split, _, case in places]
    built = tfds.builder_from_directory(directory)
    are_volumes = built.info.features['spacing'].shape == (3,)
    stored = {split: built.as_data_source(split) for split in metadata['cases']}
  except Exception:  # a foreign or damaged folder raises errors of many kinds
    raise ValueError(f'{directory}: this is not a dataset of spinejax build; build it again, or '
                     'set data.name=folder for a folder of images.') from None
  _check_kind(config, are_volumes)
  label_map, asked = _label_map(config), tuple(config['classes'])
  if (len(label_map) != len(classes)) if label_map else (asked != classes):
    mapped = f' with data.label_map={label_map}' if label_map else ''
    raise ValueError(f'{directory} has the classes {classes}, but the config asks for {asked}'
                     f'{mapped}; set --config.data.classes="{classes}", or a label_map of '
                     f'{len(classes)} entries.')

  def read(index: int) -> Record:
    split, i, case = places[index]
    try:
      fields = {**stored[split][i], 'name': case['name'], 'patient': case['patient']}
    except Exception:
      raise ValueError(f'{directory}: the {split} set is damaged at {case["name"]}; build it '
                       'again.') from None
    return convert_record(Record(**fields), config)

  return make_sources(cases, read, config)


def load_phantoms(config: Config) -> Dataset:
  """Phantoms at render_size, one patient each, drawn when accessed and then kept in memory.

  The seed of a case depends on its set and its number only, so the test set does not depend on the
  size of the training set. The landmarks of a phantom volume are those of an annotator, about which
  its cubes lie.

  Raises:
    ValueError: num_* are not whole numbers, or the classes do not fit.
  """
  kind, labels = _PHANTOMS[config['name']]
  _check_kind(config, kind == 'volume')
  if len(_label_map(config) or config['classes']) != len(labels):
    raise ValueError(f'the phantom has {len(labels)} labels ({", ".join(labels)}): give '
                     f'{len(labels)} classes, or a label_map of {len(labels)} entries such as '
                     f'{(0, *(1 for _ in labels[1:]))}.')
  first, sources = config['split_seed'] * len(splits.SPLITS) * _PHANTOM_SEEDS, {}
  for name in splits.SPLITS:
    size = config[f'num_{name}']
    if size < 0 or size != int(size) or size > _PHANTOM_SEEDS:
      raise ValueError(f'data.num_{name} must be a whole number of phantoms, not {size}.')
    sources[name] = _phantom_source(config, kind, first, int(size))
    first += _PHANTOM_SEEDS
  return sources


def load_test_phantoms(config: Config, count: int, strengths: phantoms.Strengths) -> Source:
  """The first test phantoms of a config at other strengths of the artifacts, with all labels.

  They have one channel; `convert_record` gives them the channels and classes of a config.
  """
  _, labels = _PHANTOMS[config['name']]
  return load_phantoms({
      **config, 'classes': labels, 'label_map': (), 'channels': 1, 'num_train': 0,
      'num_validation': 0, 'num_test': count, 'strengths': dataclasses.asdict(strengths)})['test']


def _phantom_source(config: Config, kind: str, first: int, count: int) -> Source:
  """Phantoms of the seeds from `first` on."""
  names = tuple(f'phantom_{seed:07d}' for seed in range(first, first + count))
  settings: dict[str, Any] = dict(shape=tuple(config['render_size']),
                                  difficulty=config['difficulty'])
  if kind == 'vpi' and 'strengths' in config:
    settings['strengths'] = _strengths(config)

  @functools.cache
  def read(index: int) -> Record:
    case = getattr(phantoms, kind)(first + index, **settings)
    true_angles = {
        method: max((abs(curve.angle) for curve in getattr(case.truth, name)), default=0)
        for method, name in _TRUE_ANGLES.items() if hasattr(case.truth, name)}
    record = Record(names[index], names[index], case.image[..., None], case.label,
                    np.asarray(case.truth.spacing, np.float32), true_angles=true_angles,
                    hole_fraction=getattr(case.truth, 'hole_fraction', None))
    if kind == 'volume':
      record = dataclasses.replace(record, landmarks=case.annotated, region=case.region)
    return _prepare(convert_record(record, config), config)

  probe = records.digest(read(0)) if names else ''
  options = *map(str, settings.values()), *_preparation_options(config)
  return Source(names, names, read, _fingerprint([names, *options, probe]))


DATASETS: dict[str, Callable[[Config], Dataset]] = {
    **dict.fromkeys(_PHANTOMS, load_phantoms), 'folder': load_folder, 'built': load_built}
