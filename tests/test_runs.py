"""The run folder refuses to mix runs and says why."""
import os
import subprocess
import sys

from ml_collections import ConfigDict
import pytest

from spinejax import runs
from tests import tiny


def make_config(**fields):
  return ConfigDict({'seed': 0, 'data': {'size': (4, 2), 'mean': None}, **fields})


def test_a_config_survives_the_folder(tmp_path):
  config = make_config()
  runs.open_folder(tmp_path / 'run', config)
  runs.claim(tmp_path / 'run', 'config', config)
  assert runs.load_config(tmp_path / 'run').to_dict() == config.to_dict()
  runs.claim(tmp_path / 'run', 'config', config)  # the same run again


def test_a_changed_config_is_refused_with_the_differing_fields(tmp_path):
  runs.claim(tmp_path, 'config', make_config())
  changed = make_config(seed=1, extra=True, names=('other',) * 99)
  changed.data.size = (4, 3)
  for refuse in (runs.open_folder, lambda *args: runs.claim(args[0], 'config', args[1])):
    with pytest.raises(ValueError) as error:
      refuse(tmp_path, changed)
  *fields, names, seed = str(error.value).splitlines()[1:]
  assert [*fields, seed] == ['  data.size: [4, 2] there, [4, 3] asked',
                             '  extra: nothing there, True asked', '  seed: 0 there, 1 asked']
  assert names.startswith("  names: nothing there, ['other', ") and len(names) < 120
  assert runs.load_config(tmp_path).to_dict() == make_config().to_dict()


def test_an_unwritable_folder_is_one_sentence(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(OSError, match='cannot be written .*choose another --workdir'):
    runs.open_folder(tmp_path / 'file' / 'run', make_config())


def test_no_run_and_a_damaged_run(tmp_path):
  with pytest.raises(FileNotFoundError, match='holds no run'):
    runs.load_config(tmp_path)
  (tmp_path / 'config.json').write_text('{"seed": ')
  with pytest.raises(ValueError, match='config.json is not readable as JSON'):
    runs.load_config(tmp_path)


@pytest.mark.parametrize('old_fields, versions', [
    ({}, {'spinejax': '0.1.0'}),
    ({'evaluation': {'style_transfer': False}}, {'spinejax': 'not installed as a package'})])
def test_a_run_of_the_first_edition_is_refused_in_one_sentence(tmp_path, old_fields, versions):
  config = make_config(**old_fields)
  runs.write_json(tmp_path / 'config.json', config)
  runs.write_json(tmp_path / 'manifest.json', {'starts': [{'versions': versions}]})
  for read in (runs.load_config, lambda folder: runs.open_folder(folder, make_config())):
    with pytest.raises(ValueError, match=(
        r'holds a run of spinejax 0\.1\.0, whose config has other fields .*; use spinejax 0\.1\.0 '
        'for this run, or train again in another --workdir')) as error:
      read(tmp_path)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize('manifest', ['{', '{"starts": []}', '{"starts": [{"versions": 1}]}'])
def test_a_run_is_read_without_a_version_in_its_manifest(tmp_path, manifest):
  runs.claim(tmp_path, 'config', make_config())
  (tmp_path / 'manifest.json').write_text(manifest)
  assert runs.load_config(tmp_path).to_dict() == make_config().to_dict()


def test_a_locked_folder_names_its_holder_and_is_free_when_the_holder_dies(tmp_path):
  code = ('import sys, time; from spinejax import runs\n'
          f'with runs.locked({str(tmp_path)!r}):\n  print(1, flush=True); time.sleep(60)')
  with subprocess.Popen([sys.executable, '-c', code], cwd=tiny.ROOT,
                        stdout=subprocess.PIPE) as holder:
    assert holder.stdout.readline()
    with pytest.raises(ValueError, match=rf'another process \({holder.pid} on .*choose another'):
      with runs.locked(tmp_path):
        pass
    holder.kill()
  with runs.locked(tmp_path):
    with pytest.raises(ValueError, match=rf'another process \({os.getpid()} on'):
      with runs.locked(tmp_path):
        pass
  with runs.locked(tmp_path):
    pass


def test_json_is_written_whole_or_not_at_all(tmp_path):
  runs.write_json(tmp_path / 'a.json', {'x': 1})
  with pytest.raises(ValueError):
    runs.write_json(tmp_path / 'a.json', {'x': float('nan')})
  assert runs.read_json(tmp_path / 'a.json') == {'x': 1}
  assert [p.name for p in tmp_path.iterdir()] == ['a.json']


def test_every_start_is_recorded(tmp_path):
  runs.record_start(tmp_path)
  manifest = runs.record_start(tmp_path, note='again')
  assert len(manifest['starts']) == 2 and manifest['starts'][1]['note'] == 'again'
  assert manifest['starts'][0]['versions']['jax'] and manifest['starts'][0]['devices']


def test_durations_add_up_over_starts(tmp_path):
  runs.record_start(tmp_path)
  runs.add_durations(tmp_path, {'training': 2.5})
  runs.record_start(tmp_path)
  runs.add_durations(tmp_path, {'training': 1.25, 'test': 0.5})
  manifest = runs.read_manifest(tmp_path)
  assert manifest['durations'] == {'training': 3.75, 'test': 0.5} and len(manifest['starts']) == 2
  (tmp_path / 'manifest.json').write_text('{"starts": [], "durations": {"training": "long"}}')
  with pytest.raises(ValueError, match='does not hold the starts of a run'):
    runs.read_manifest(tmp_path)
