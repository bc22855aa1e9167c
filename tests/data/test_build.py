"""From a folder to a TFDS dataset and back, and what the command refuses."""
import dataclasses
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from spinejax.data import build, datasets
from spinejax.readers import images, masks
from spinejax.readers import pairs as pairs_lib
from tests.readers import folders

ROOT = pathlib.Path(__file__).parents[2]
CLASSES = ('background', 'a', 'b', 'c')


def quiet():
  return Console(file=open(os.devnull, 'w'))


def built(tmp_path, classes=CLASSES, fields=None, **options):
  """The dataset of tmp_path/in, built and loaded."""
  build.build(tmp_path / 'in', tmp_path / 'out', classes, console=quiet(), **options)
  return datasets.load_dataset(folders.data_config(
      tmp_path / 'out', name='built', classes=classes, **(fields or {})))


def assert_same(source, other):
  assert source.names == other.names and source.patients == other.patients and len(source) > 0
  for record, twin in zip(source, other, strict=True):
    for name in ('image', 'label', 'spacing'):
      assert getattr(record, name).dtype == getattr(twin, name).dtype
      np.testing.assert_array_equal(getattr(record, name), getattr(twin, name))


@pytest.mark.parametrize('options', [
    {}, dict(bits=16, suffix='.tif'), dict(layout='dataset', num_test=2), dict(coding='palette'),
    dict(channels=3, spacing=0.2, patients='aabbcc')], ids=str)
def test_records_read_back_equal_the_files(tmp_path, options):
  folders.write_folder(tmp_path / 'in', 6, **options)
  channels = options.get('channels', 1)
  dataset = built(tmp_path, fields=dict(channels=channels), channels=channels, num_validation=1,
                  num_test=0.3)
  from_files = datasets.load_dataset(folders.data_config(
      tmp_path / 'in', channels=channels, num_validation=1, num_test=0.3))
  assert datasets.describe(dataset) == datasets.describe(from_files)
  for name, source in dataset.items():
    assert_same(source, from_files[name])
  image = dataset['train'][0].image
  assert image.dtype == (np.float32 if 'bits' in options else np.uint8)
  assert image.shape == (64, 32, channels)


def test_the_split_is_stored_and_can_be_replaced(tmp_path):
  folders.write_folder(tmp_path / 'in', 8, patients='aabbccdd')
  dataset = built(tmp_path, num_validation=1, num_test=1)
  assert [len(dataset[name]) for name in ('train', 'validation', 'test')] == [4, 2, 2]
  content = json.loads((tmp_path / 'out/splits.json').read_text())
  assert content == {name: sorted(set(source.patients)) for name, source in dataset.items()}
  ours = folders.write_split(tmp_path / 's.json', train=['d', 'case_00'], test=['b'])
  fields = dict(split_file=ours)
  other = datasets.load_dataset(folders.data_config(tmp_path / 'out', name='built', **fields))
  assert other['train'].names == ('case_00', 'case_06', 'case_07')
  assert other['test'].names == ('case_02', 'case_03')
  again = datasets.load_dataset(folders.data_config(
      tmp_path / 'in', split_file=str(tmp_path / 'out/splits.json')))
  assert again['test'].names == dataset['test'].names


def test_labels_are_mapped_when_loading(tmp_path):
  folders.write_folder(tmp_path / 'in', 3, coding='color')
  built(tmp_path, palette=folders.PALETTE[:4], num_validation=0, num_test=0)
  mapped = datasets.load_dataset(folders.data_config(
      tmp_path / 'out', name='built', classes=('background', 'bone'), label_map=(0, 1, 1, 1),
      channels=3))
  plain = datasets.load_dataset(folders.data_config(tmp_path / 'out', name='built'))
  for record, twin in zip(mapped['train'], plain['train'], strict=True):
    np.testing.assert_array_equal(record.label, twin.label > 0)
    np.testing.assert_array_equal(record.image, np.repeat(twin.image, 3, -1))
  shutil.rmtree(tmp_path / 'in')
  folders.write_folder(tmp_path / 'in', 3, num_classes=2, coding='255')
  dataset = built(tmp_path, ('background', 'bone'), num_validation=0, num_test=0, overwrite=True)
  assert np.unique(dataset['train'][0].label).tolist() == [0, 1]


def test_nothing_is_written_unless_all_is_well(tmp_path):
  folders.write_folder(tmp_path / 'in', 4)
  (tmp_path / 'in/masks/case_00.png').write_bytes(b'x')
  (tmp_path / 'in/masks/case_03.png').unlink()
  with pytest.raises(ValueError) as error:
    built(tmp_path)
  lines = str(error.value).split('\n')
  assert lines[0] == f'2 faults in {tmp_path / "in"}, nothing was written:'
  assert 'case_03' in lines[1] and 'case_00' in lines[2] and len(lines) == 3
  assert os.listdir(tmp_path) == ['in']


def fail_by_changes(pair, *args, read=pairs_lib.read_pair):
  record = read(pair, *args)
  return dataclasses.replace(record, image=record.image ^ np.uint8(pair.name == 'case_02'))


def fail_by_a_full_disk(*args):
  raise RuntimeError('write() failed: No space left on device')


@pytest.mark.parametrize('reader, words', [
    (fail_by_changes, 'case_02 was not read back as it was written'),
    (lambda *args: os.open('/dev/null/x', 0), r'out cannot be written \(Not a direc'),
    (fail_by_a_full_disk, 'out cannot be written, perhaps the disk is full')])
def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch, reader, words):
  folders.write_folder(tmp_path / 'in', 4)
  check = pairs_lib.check_pairs

  def check_then_fail(*args):
    checked = check(*args)
    monkeypatch.setattr(pairs_lib, 'read_pair', reader)
    return checked

  monkeypatch.setattr(pairs_lib, 'check_pairs', check_then_fail)
  with pytest.raises(OSError, match=words):
    built(tmp_path, num_validation=0, num_test=0)
  assert os.listdir(tmp_path) == ['in']


def test_outputs_that_exist(tmp_path):
  folders.write_folder(tmp_path / 'in', 4)
  options = dict(num_validation=0, num_test=1)
  (tmp_path / 'out').mkdir()
  first = built(tmp_path, **options)
  with pytest.raises(ValueError, match='replace it with --overwrite'):
    built(tmp_path, **options)
  folders.write_folder(tmp_path / 'in', 5, seed=1)
  second = built(tmp_path, overwrite=True, **options)
  assert len(second['train']) == 4 and first['test'].fingerprint != second['test'].fingerprint
  assert sorted(os.listdir(tmp_path)) == ['in', 'out']
  for output, words in ((tmp_path / 'in', 'not a built dataset'),
                        (tmp_path / 'in/cases', 'is a file')):
    (tmp_path / 'in/cases').write_text('')
    with pytest.raises(ValueError, match=words):
      build.build(tmp_path / 'in', output, CLASSES, overwrite=True, console=quiet())
  (tmp_path / 'in/cases').unlink()
  shutil.move(tmp_path / 'in', tmp_path / 'out/in')  # replacing would delete the images
  with pytest.raises(ValueError, match='not a built dataset'):
    build.build(tmp_path / 'out/in', tmp_path / 'out', CLASSES, overwrite=True, console=quiet())


@pytest.mark.parametrize('options, words', [
    (dict(classes=('a',)), 'two or more different names'),
    (dict(classes=('a', 'a')), 'two or more different names'),
    (dict(classes=('a', '')), 'two or more different names'),
    (dict(palette=((0, 0, 0),)), '1 colors for 4 labels'),
    (dict(num_test=9), 'too few patients, 2, for'), (dict(channels=2), 'must be 1')])
def test_settings_that_do_not_fit(tmp_path, options, words):
  folders.write_folder(tmp_path / 'in', 2)
  with pytest.raises(ValueError, match=words):
    built(tmp_path, **options)
  assert os.listdir(tmp_path) == ['in']


def test_damaged_and_foreign_datasets_are_refused(tmp_path):
  folders.write_folder(tmp_path / 'in', 4)
  built(tmp_path, num_validation=0, num_test=1)
  load = lambda directory, **fields: datasets.load_dataset(
      folders.data_config(directory, name='built', **fields))
  with pytest.raises(FileNotFoundError, match='no such folder'):
    load(tmp_path / 'absent')
  with pytest.raises(ValueError, match='not a dataset of spinejax build'):
    load(tmp_path / 'in')
  with pytest.raises(ValueError, match=r'has the classes .* set --config.data.classes='):
    load(tmp_path / 'out', classes=('background', 'x', 'y', 'z'))
  with pytest.raises(ValueError, match='a label_map of 4 entries'):
    load(tmp_path / 'out', classes=('background', 'x'), label_map=(0, 1, 1))
  records = next((tmp_path / 'out').glob('*train*'))
  content = bytearray(records.read_bytes())
  content[200:20000] = bytes(19800)
  records.write_bytes(content)
  with pytest.raises(ValueError, match='the train set is damaged at case_0|not a dataset of'):
    list(load(tmp_path / 'out')['train'])
  (tmp_path / 'out/metadata.json').write_text('{')
  with pytest.raises(ValueError, match='not a dataset of'):
    load(tmp_path / 'out')


def test_command_needs_no_tensorflow_and_ends_with_how_to_train(tmp_path):
  folders.write_folder(tmp_path / 'in', 4)
  script = f"""
import sys
from spinejax import __main__
from tests.readers import folders
sys.argv = ['spinejax', 'build', '--input={tmp_path / "in"}', '--output={tmp_path / "out"}',
            '--classes=background, a,b,c', '--num_validation=1', '--num_test=1']
try:
  __main__.main()
except SystemExit as end:
  assert not end.code
from spinejax.data import datasets
config = folders.data_config({str(tmp_path / "out")!r}, name='built')
assert len(list(datasets.load_dataset(config)['train'])) == 2
assert 'tensorflow' not in sys.modules and 'jax' not in sys.modules
"""
  done = subprocess.run([sys.executable, '-c', script], cwd=ROOT, text=True, capture_output=True,
                        env={**os.environ, 'PYTHONPATH': str(ROOT), 'COLUMNS': '120'})
  assert done.returncode == 0, done.stderr
  assert re.search(r'validation +│ 1 +│ 1 +│ 64 x 32', done.stdout)
  line, = [line for line in done.stdout.split('\n') if 'spinejax train' in line]
  words = shlex.split(line)
  assert f'--config.data.directory={tmp_path / "out"}' in words
  assert "--config.data.classes=('background', 'a', 'b', 'c')" in words
  assert '--config.model.num_classes=4' in words


def test_a_folder_that_is_only_checked(tmp_path, capsys):
  folders.write_folder(tmp_path / 'in', 3)
  build.build(tmp_path / 'in', '', CLASSES, num_test=1)
  assert 'is sound. Give --output' in capsys.readouterr().out
  assert os.listdir(tmp_path) == ['in']
  with pytest.raises(FileNotFoundError, match='absent: there is no such folder.'):
    build.build(tmp_path / 'absent', '', CLASSES)
  (tmp_path / 'in/images/case_00.png').write_bytes(b'')
  with pytest.raises(ValueError) as error:
    build.build(tmp_path / 'in', '', CLASSES)
  assert str(error.value) == (f'one fault in {tmp_path / "in"}, nothing was written:\n'
                              f'{tmp_path / "in/images/case_00.png"}: the file is empty.')


def test_the_train_command_quotes_awkward_names():
  line = build.train_command(pathlib.Path('/a b/o$t'), ('back"ground', "a'b$c"), 3, False)
  words = subprocess.run(['bash', '-c', f'printf "%s\\n" {line}'], text=True, capture_output=True,
                         check=True).stdout.split('\n')
  assert '--config.data.directory=/a b/o$t' in words
  assert f'--config.data.classes={("back" + chr(34) + "ground", "a" + chr(39) + "b$c")}' in words
  assert '--config.data.channels=3' in words


def test_real_ultrasound_with_three_classes(tmp_path, shared):
  classes = ('background', 'nerve', 'vessel')
  for kind in ('images', 'masks'):
    (tmp_path / 'in' / kind).mkdir(parents=True)
    for path in sorted((shared / 'data/usgra_ultrasound/train' / kind).iterdir())[:12]:
      (tmp_path / 'in' / kind / path.name).symlink_to(path)
  dataset = built(tmp_path, classes)
  from_files = datasets.load_dataset(folders.data_config(
      tmp_path / 'in', classes=classes, num_validation=0.1, num_test=0.2))
  assert [len(source) for source in dataset.values()] == [9, 1, 2]
  for name, source in dataset.items():
    assert_same(source, from_files[name])


def test_real_spine_in_the_published_layout(tmp_path, shared):
  source = shared / 'data/vpi_sa2net_demo'
  for kind, file, name in (('dataset', 'image.png', 'demo.png'),
                           ('groundtruth', 'label.png', 'demo_bone_3.png')):
    (tmp_path / 'in' / kind / 'train').mkdir(parents=True)
    shutil.copy(source / file, tmp_path / 'in' / kind / 'train' / name)
  classes = ('background', 'rib', 'thoracic process', 'lump')
  dataset = built(tmp_path, classes, num_validation=0)
  record, = dataset['train']
  np.testing.assert_array_equal(record.image, images.read_picture(source / 'image.png').pixels)
  np.testing.assert_array_equal(record.label, masks.read_mask(source / 'label.png')[0])
