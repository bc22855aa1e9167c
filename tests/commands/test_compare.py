"""The command that compares runs: from hand-made run folders to its files, and what it refuses."""
import csv
import json
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from spinejax import runs
from spinejax.data import datasets
from spinejax.metrics import comparison, roc, tested_runs
from spinejax.metrics.results import RocCurve
from tests import processes, tiny
from tests.report import html_page

CLASSES = ('background', 'rib', 'lump')
VALUES = {'a': (0.9, 0.7, 0.8, 0.85), 'b': (0.6, 0.6, 0.7, 0.5), 'c': (0.9, 0.75, 0.8, 0.8)}


def call(*arguments):
  return processes.call('-m', 'spinejax', 'compare', *arguments)


def write_run(folder, values=VALUES['a'], *, classes=CLASSES, fingerprint='f00d', data='folder',
              laminae=False, names=None):
  folder.mkdir(parents=True)
  names = names or [f'case_{i}' for i in range(len(values))]
  runs.write_json(folder / 'config.json', {'data': {
      'name': data, 'directory': '', 'classes': classes, 'image_size': (9, 9), 'label_map': (),
      'preparation': ()}})
  runs.write_json(folder / 'dataset.json',
                  {'split': {'test': names}, 'fingerprint': {'test': fingerprint}})
  results = {'step': 1, 'per_image': {}, 'pooled': {}, 'auc': {}, 'cases': {
      name: {'dice': {**dict.fromkeys(classes[1:], value), 'mean_foreground': value}}
      for name, value in zip(names, values)}}
  if laminae:
    def by_region(value):
      return {'all': 3 * value, 'thoracic': value, 'lumbar': 2 * value}

    results['laminae'] = {'mean': {}, 'sd': {}, 'localizer_dice': {'0.5': 0.65}, 'cases': {
        name: {**{key: by_region(i + value) for key in ('d3d_mean', 'd3d_sum')},
               **{key: by_region(i) for key in ('missed', 'false', 'delta')},
               'true': by_region(9)}
        for i, (name, value) in enumerate(zip(names, values))}}
  runs.write_json(folder / 'test_metrics.json', results)
  return str(folder)


def test_three_runs_from_the_command_to_the_files(tmp_path):
  folders = [write_run(tmp_path / 'runs' / name, VALUES[name], data='volume_phantom', laminae=True)
             for name in 'abc']
  output = tmp_path / 'new' / 'out'
  result = call(f'--workdirs={",".join(folders)}', f'--output={output}')
  assert result.returncode == 0, result.stderr
  lines = result.stdout.splitlines()
  assert max(map(len, lines[:-1])) <= 80 and '3 runs on 4 cases' in lines[0]
  assert any(re.match(r' *b +0\.600 ± 0\.082 +0\.213 +0\.\d+ to 0\.\d+( +0\.0\d\d){2}', line)
             for line in lines)
  assert lines[-1] == f'Comparison: {output / "index.html"}'
  stored = json.loads((output / 'comparison.json').read_text())
  assert stored['runs'] == ['a', 'b', 'c'] and stored['workdirs']['b'] == folders[1]
  assert stored['missed']['lumbar']['a'] == {'missed': 12, 'true': 72}
  with (output / 'comparison.csv').open(encoding='utf-8') as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 3 * len(stored['metrics'] + stored['facts'])
  row = next(row for row in rows if row['metric'] == 'dice/rib' and row['run'] == 'b')
  test = stored['metrics'][0]['against']['b']
  numbers = ('difference', 'low', 'high', 'p_value', 'adjusted_p')
  assert [float(row[key]) for key in numbers] == [test[key] for key in numbers]
  assert rows[-1]['metric'] == 'step' and rows[-1]['mean'] == '1'
  assert row['compared_cases'] == '4'
  plots = sorted(path.name for path in output.glob('*.png'))
  assert plots == sorted('box_' + metric['key'].replace('/', '_') + '.png'
                         for metric in stored['metrics'] if metric['main'])
  with Image.open(output / 'box_d3d_sum_all.png') as picture:
    assert picture.width > 600
  page = (output / 'index.html').read_text()
  assert page.count('<svg') == len(plots)
  for words in ('not a medical device', 'phantoms, not clinical data', 'a against b, c',
                '12 of 72', 'perfect localizer', 'case_3', folders[2],
                f'ROC curves of c are not stored; to draw them, test it again with spinejax test '
                f'--workdir={folders[2]}.', 'No case is shown:'):
    assert words in page, words
  assert 'http' not in page.replace('http-equiv', '') and '<script' not in page


def test_cases_curves_and_whole_runs_are_shown(tmp_path):
  config = tiny.tiny_config('seam:quick')
  cases, workdirs = datasets.load_dataset(config.data), []
  for shift, name in enumerate('ab'):
    folder = pathlib.Path(write_run(tmp_path / name, VALUES[name][:3], names=cases['test'].names,
                                    classes=config.data.classes))
    workdirs.append(folder)
    runs.write_json(folder / 'config.json', config)
    runs.write_json(folder / 'dataset.json', datasets.describe(cases))
    runs.write_json(folder / 'manifest.json', {
        'starts': [{'num_parameters': 1234}, {}], 'durations': {'training': 61.5}})
    (folder / 'predictions').mkdir()
    for record in (cases['test'][i] for i in range(3)):
      Image.fromarray(np.roll(record.label, shift, 1)).save(
          folder / 'predictions' / f'{record.name}.png')
    results = runs.read_json(folder / 'test_metrics.json')
    runs.write_json(folder / 'test_metrics.json', results | {
        'auc': {'rib': 0.75}, 'seconds_per_image': {'mean': 0.125, 'median': 0.1, 'images': 8}})
    roc.write_curves(folder / 'roc.json', {
        'rib': RocCurve((0, 0.5, 1), (0, 1, 1), 0.75 if name == 'a' else 0.5)})
  chosen = cases['test'].names[2]
  result = call(f'--workdirs={",".join(map(str, workdirs))}', f'--cases={chosen}')
  assert result.returncode == 0, result.stderr
  assert re.search(r'a +0\.750 +0\.125 +1 min 02 s +1 +1,234 *\n', result.stdout)
  page = html_page.Page((tmp_path / 'a' / 'comparison' / 'index.html').read_text())
  assert page.tables['runs'][1:] == [[name, '0.750', '0.125', '1 min 02 s', '1', '1,234']
                                     for name in 'ab']
  # The curve of b is that of another test.
  assert 'The ROC curves of b are not stored;' in page.text
  assert f'median of a · {chosen}' in page.text
  pictures = {path.name for path in (tmp_path / 'a' / 'comparison').glob('*.png')}
  assert {'roc.png', f'case_1_{chosen}.png'} <= pictures
  assert len([name for name in pictures if name.startswith('case')]) == 1


def test_the_default_folder_is_in_the_first_run_and_is_renewed(tmp_path):
  a, b = (write_run(tmp_path / name, VALUES[name], laminae=True) for name in 'ab')
  c = write_run(tmp_path / 'c', VALUES['c'])
  page = tmp_path / 'a' / 'comparison' / 'index.html'
  assert call(f'--workdirs={a},{b}').stdout.splitlines()[-1] == f'Comparison: {page}'
  assert 'clinical data' not in page.read_text()
  assert list(json.loads((page.parent / 'comparison.json').read_text())['missed']) == [
      'all', 'thoracic', 'lumbar']
  assert (page.parent / 'box_missed_all.png').exists()
  assert call(f'--workdirs={a},{c}').returncode == 0
  assert not (page.parent / 'box_missed_all.png').exists()
  assert 'Laminae are left out: c' in page.read_text()


def test_names_of_folders_are_made_unique(tmp_path):
  paths = [str(tmp_path / path) for path in ('x/run', 'y/run', 'y/other')]
  assert tested_runs.unique_names(paths) == ['x/run', 'y/run', 'other']
  folders = [write_run(tmp_path / name / '<b>run', VALUES['a']) for name in ('x', 'y')]
  result = call(f'--workdirs={",".join(folders)}', f'--output={tmp_path}/out')
  assert result.returncode == 0
  found = json.loads((tmp_path / 'out' / 'comparison.json').read_text())
  page = (tmp_path / 'out' / 'index.html').read_text()
  assert found['runs'] == ['x/<b>run', 'y/<b>run']
  assert '<b>run' not in page and 'same in every case' in page
  assert all(test['p_value'] is None for metric in found['metrics']
             for test in metric['against'].values())


def test_runs_that_cannot_be_compared_are_refused(tmp_path):
  a = write_run(tmp_path / 'a')
  others = {
      'different cases .2 in one of them only, such as case_3': write_run(
          tmp_path / 'cases', names=['case_0', 'case_1', 'case_2', 'case_9']),
      'same names but other content': write_run(tmp_path / 'data', fingerprint='beef'),
      'have other classes .background, rib, lump; background, bone': write_run(
          tmp_path / 'classes', classes=('background', 'bone')),
      'has not been tested .*; run spinejax test --workdir=': write_run(tmp_path / 'untested'),
      'is not the result of a test .expected the result': write_run(tmp_path / 'list'),
      "is not the result of a test .expected a number for rib, got 'high'": write_run(
          tmp_path / 'text', ('high',)),
      'is of other cases than the test set': write_run(tmp_path / 'stale'),
      'do not say what the run was tested on': write_run(tmp_path / 'old'),
      'has no test cases': write_run(tmp_path / 'empty', ()),
      'is given twice': f'{a}/../a',
      'holds no run': str(tmp_path / 'nothing'),
  }
  (tmp_path / 'untested' / 'test_metrics.json').unlink()
  runs.write_json(tmp_path / 'list' / 'test_metrics.json', [1])
  runs.write_json(tmp_path / 'old' / 'dataset.json', {'mean': 1})
  stale = runs.read_json(tmp_path / 'stale' / 'test_metrics.json')
  del stale['cases']['case_1']
  runs.write_json(tmp_path / 'stale' / 'test_metrics.json', stale)
  for sentence, other in others.items():
    with pytest.raises((ValueError, OSError), match=sentence):
      comparison.compare_runs([a, other])
  with pytest.raises(ValueError, match='at least two run folders separated by commas, got .*/a'):
    comparison.compare_runs([a])


def test_the_command_refuses_in_one_line(tmp_path):
  a, b = write_run(tmp_path / 'a'), write_run(tmp_path / 'b')
  for arguments, code, sentence in (
      ([f'--workdirs={a}'], 1, 'needs at least two run folders'),
      ([f'--workdirs={a},{tmp_path}/none'], 1, 'holds no run'),
      ([f'--workdirs={a},{b}', '--cases=case_2,case_7'], 1, 'the nearest name is case_'),
      ([f'--workdirs={a},{b}', '--cases=case_2'], 1, 'needs config.data.directory'),
      ([f'--workdirs={a},{b}', f'--output={a}/config.json'], 1, 'must be a folder'),
      ([], 2, '--workdirs')):
    result = call(*arguments)
    assert result.returncode == code and result.stdout == ''
    assert len(result.stderr.strip().splitlines()) == 1 and sentence in result.stderr
  assert not (tmp_path / 'a' / 'comparison').exists()
