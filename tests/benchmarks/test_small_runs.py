"""Rows of finished runs, statistics over seeds, and the tables, claims and figure made of them."""
import dataclasses
import json
import math

import numpy as np
import pytest

from benchmarks import finished_runs, papers, small_figure, small_protocol, small_tables, statistics
from benchmarks.small_protocol import METRICS
from benchmarks.statistics import Difference
from spinejax import config as config_lib
from spinejax import runs
from spinejax.metrics import agreement

CLASSES = ('background', 'rib', 'thoracic process', 'lump')
SEAM = config_lib.load_config('seam:ours,small')
NAN = math.nan


def write_run(folder, cases=2, **overrides):
  """A tested run of seam:fpn,small, with fields changed, as the program leaves it."""
  folder.mkdir(parents=True)
  config = config_lib.load_config('seam:fpn,small')
  config.update_from_flattened_dict(overrides)
  scores = {name: 0.123456 for name in (*CLASSES, 'mean_foreground', 'mean_all')}
  names = [f'phantom_{i:07}' for i in range(cases)]
  angle = dict(reference_deg=30.0, angle_deg=None, naive_deg=31.0, band=None, status='failed',
               flags=[])
  runs.write_json(folder / 'config.json', config)
  runs.write_json(folder / 'dataset.json', {'fingerprint': {'test': '0123456789abcdef'}})
  runs.write_json(folder / 'manifest.json', {
      'starts': [{'date': '2026-11-28T20:00:00+00:00', 'devices': ['cuda:0 NVIDIA H200'],
                  'command': f'main.py --config=configs/seam.py:fpn,small --workdir={folder}',
                  'num_parameters': 7, 'versions': dict.fromkeys(
                      ('spinejax', 'python', 'jax', 'flax', 'numpy', 'scipy'), '1')}],
      'durations': {'training': 60.04}})
  (folder / 'metrics.jsonl').write_text('\n'.join(json.dumps(row) for row in (
      {'step': 50, 'phase': 'train', 'loss': 1.0},
      {'step': 200, 'phase': 'validation', 'dice/mean_foreground': 0.70004, 'loss': 2.0},
      {'step': 400, 'phase': 'validation', 'dice/mean_foreground': 0.6, 'loss': 1.0})))
  runs.write_json(folder / 'test_metrics.json', {
      'step': 200, 'per_image': {'dice': scores}, 'pooled': {}, 'auc': {'any_foreground': 0.98765},
      'cases': {name: {'dice': {**scores, 'rib': float(name[-1]) / 10}} for name in names[::-1]},
      'angles': {'method': 'uca', 'reference': 'phantom truth', 'failed': cases,
                 'naive': None, 'agreement': agreement.agree([30.0], [None]).to_json(),
                 'cases': {name: angle for name in names}}})
  return folder


def test_a_run_folder_becomes_a_row(tmp_path):
  folder = write_run(tmp_path / 'run', **{
      'seed': 2, 'optimizer.learning_rate': 0.006, 'data.num_train': 9.0})
  run = finished_runs.read_folder(folder)
  assert (run.config, run.changed, run.learning_rate, run.seed) == (
      'seam:fpn,small', {'data.num_train': 9.0}, 0.006, 2)
  assert (run.step, run.score, run.validation) == (200, 0.7, [(200, 0.7), (400, 0.6)])
  assert run.values == {
      'mean_foreground': [0.1235, 0.1235], 'rib': [0.0, 0.1], 'thoracic process': [0.1235, 0.1235],
      'lump': [0.1235, 0.1235], 'angle': [None, None], 'reference': [30.0, 30.0]}
  assert (run.device, run.test_data, run.parameters) == ('NVIDIA H200', '0123456789ab', 7)
  assert run.durations == {'training': 60.0} and run.auc == {'any_foreground': 0.9877}


def test_rows_are_sorted_replaced_and_short(tmp_path):
  for seed in (1, 0):
    write_run(tmp_path / f'runs/sweep/seed={seed}', cases=60, seed=seed)
  (tmp_path / 'runs/stopped').mkdir()
  (tmp_path / 'runs/stopped/config.json').write_text('{}')
  found, left_out = finished_runs.read_folders([str(tmp_path / 'runs')], 'small')
  assert left_out == [f'{tmp_path}/runs/stopped is not finished: it has no test_metrics.json.']
  assert finished_runs.read_folders([str(tmp_path / 'runs')], 'quick')[0] == []
  path = tmp_path / 'rows.jsonl'
  finished_runs.write_file(path, [dataclasses.replace(found[0], step=7), *reversed(found)])
  written = path.read_bytes()
  finished_runs.write_file(path, [*finished_runs.read_file(path), *found])
  assert path.read_bytes() == written
  assert [(run.seed, run.step) for run in finished_runs.read_file(path)] == [(0, 200), (1, 200)]
  assert max(map(len, written.splitlines())) < 6000
  path.write_text('{"config": "seam:fpn,small"}')
  with pytest.raises(ValueError, match='rows.jsonl does not hold rows of this version'):
    finished_runs.read_file(path)


def test_a_run_without_a_config_of_the_package_is_refused(tmp_path):
  folder = write_run(tmp_path / 'run')
  manifest = runs.read_manifest(str(folder))
  for command, words in (('python main.py', 'names no --config'),
                         ('python main.py --config=mine.py:small', 'there is no config mine')):
    manifest['starts'][0]['command'] = command
    runs.write_json(folder / 'manifest.json', manifest)
    with pytest.raises((ValueError, FileNotFoundError), match=words):
      finished_runs.read_folder(folder)


def test_spread_over_seeds_by_hand():
  found = statistics.spread([[1.0, 3.0], [4.0, None], [None, None]])
  assert found.mean == 3 and found.sd == pytest.approx(math.sqrt(2)) and found.seeds == (2.0, 4.0)
  assert statistics.spread([]) == statistics.Spread(None, None, ())


def test_an_equal_difference_has_no_width():
  first, other = [[0.5, 0.7], [0.5, 0.7]], [[0.4, 0.6]]
  found = statistics.paired_difference(first, other)
  assert found.value == pytest.approx(0.1) and found.seeds == 1
  assert (found.low, found.high) == pytest.approx((0.1, 0.1)) and found.p_value == 2 / 10_000
  assert statistics.paired_difference(first, first).p_value == 1


def test_the_bootstrap_pairs_cases_and_resamples_seeds():
  rng = np.random.default_rng(0)
  case = rng.normal(0, 10, 50)  # would hide the difference if the cases were not paired
  first, other = case + 1 + rng.normal(0, 1, 50), case + rng.normal(0, 1, 50)
  one = statistics.paired_difference([first], [other])
  half = 1.96 * np.std(first - other) / math.sqrt(50)
  assert (one.low, one.high) == pytest.approx((one.value - half, one.value + half), abs=0.06)
  assert one.low > 0 and one.p_value < 0.001
  turned = statistics.paired_difference([other], [first])
  assert turned.value == -one.value
  # Seeds 0, 1 and 2 without any spread of cases: the deviation of the mean is sqrt(1 / 3).
  resampled = statistics._resampled_means(np.repeat([[0.0], [1.0], [2.0]], 4, 1), 1)
  assert np.std(resampled) == pytest.approx(math.sqrt(1 / 3), rel=0.02)


def test_cases_that_are_undefined_in_any_test_are_left_out():
  found = statistics.paired_difference([[1.0, None, 5.0]], [[0.0, 9.0, NAN]])
  assert found.value == found.low == found.high == 1
  assert statistics.paired_difference([[None]], [[1.0]]) is None
  assert statistics.paired_difference([], [[1.0]]) is None


def test_the_test_of_welch_by_hand():
  found = statistics.seed_difference([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])  # t = -3.674 with 4 degrees
  assert found.p_value == pytest.approx(0.02131, abs=1e-5)
  half = 2.77645 * math.sqrt(2 / 3)
  assert (found.low, found.high) == pytest.approx((-3 - half, -3 + half), abs=1e-4)
  assert statistics.seed_difference([1.0], [0.5]) == Difference(0.5, None, None, None, 1)
  assert statistics.seed_difference([1.0], []) is None


def run_of(key, level=0.8, rate=0.002, seed=0, **fields):
  """A finished run of a row whose four cases have a Dice about `level`."""
  row = papers.ROWS[key]
  dice = [level + offset for offset in (-0.02, 0.02, -0.01, 0.01)]
  return finished_runs.FinishedRun(**dict(
      config=f'{row.config},small', changed=dict(row.changed), learning_rate=rate, seed=seed,
      num_steps=SEAM.num_steps, difficulty=SEAM.data.difficulty, test_data='data', step=900,
      score=level, validation=[(300, level - 0.3), (600, level - 0.01), (900, level)],
      parameters=1_000, cases=4, dice=dict.fromkeys((*CLASSES, 'mean_foreground'), level),
      auc={'bone': level}, at_network_size={}, values={
          'mean_foreground': dice, 'angle': [10.0, 20.0, None, 5.0],
          'reference': [12.0, 20.0, 1.0, 9.0]},
      angles=None, durations={'training': 60.0}, seconds_per_image=None, device='a processor',
      cores=2, versions={'jax': '1'}, date='2026-11-28') | fields)


def seeds_of(key, level):
  return [run_of(key, level + 0.001 * seed, seed=seed) for seed in range(3)]


def test_the_best_learning_rate_by_validation_gives_the_runs():
  found = [*seeds_of('seam:fpn', 0.8), run_of('seam:fpn', 0.9, rate=0.006, score=0.79),
           run_of('seam:fpn', 0.9, difficulty=9.0), run_of('seam:unet', 0.9),
           run_of('seam:fpn', 0.9, changed={'data.num_train': 9.0})]
  system = small_protocol.select(found, papers.ROWS['seam:fpn'])
  assert list(system.tried) == [0.002, 0.006] and system.learning_rate == 0.002
  assert system.runs == tuple(found[:3])
  assert small_protocol.spread(system, METRICS['dice']).mean == pytest.approx(0.801)
  assert small_protocol.spread(system, METRICS['angle']).seeds == (2.0,) * 3  # of 2, 0 and 4
  assert small_protocol.spread(system, METRICS['auc']).mean == pytest.approx(0.801)
  assert small_protocol.rise(found[0]) == pytest.approx(0.01)
  assert small_protocol.rise(dataclasses.replace(found[0], validation=[(300, 0.8)])) is None


def test_other_test_cases_are_not_compared():
  first, other = (small_protocol.select([run_of(key, test_data=key)], papers.ROWS[key])
                  for key in ('seam:ours', 'seam:fpn'))
  with pytest.raises(ValueError, match='seam:ours and seam:fpn were tested on different cases'):
    small_protocol.difference(first, other, METRICS['dice'])


def test_a_table_has_every_row_with_any_number_of_seeds():
  found = [*seeds_of('seam:ours', 0.8), *seeds_of('seam:fpn', 0.78), run_of('seam:unet', 0.85)]
  lines = small_tables.results(papers.SEAM, found).splitlines()
  assert len({line.count('|') for line in lines[:-2]}) == 1
  assert sum('| not run |' in line for line in lines) == len(papers.SEAM.rows) - 3
  ours, fpn, unet = (next(line.split(' | ')[1:] for line in lines if f'| {title} |' in line)
                     for title in ('SEAM', 'FPN', 'U-Net S5-D16'))
  assert ours[3:7] == ['0.801 ± 0.001', '–', '2.00 ± 0.00 (3 undefined)', '–']
  assert ours[-1] == '81.85 |'
  assert fpn[4].startswith('−0.020 [−0.02') and fpn[4].endswith(', p < 0.001')  # 2 of 2 tests
  assert unet[3] == '0.850' and unet[-3:] == ['1', '1,000', '78.09 |']


def test_holm_counts_the_rows_of_a_table():
  found = [run for key in ('seam:ours', 'seam:fpn', 'seam:unet') for run in seeds_of(key, 0.8)]
  alone = small_protocol.difference(*(
      small_protocol.select(found, papers.ROWS[key]) for key in ('seam:fpn', 'seam:ours')),
      METRICS['dice'])
  assert alone.p_value > 0.5
  found = [*found[:3], *seeds_of('seam:fpn', 0.79), *seeds_of('seam:unet', 0.79)]
  systems = [small_protocol.select(found, papers.ROWS[key])
             for key in ('seam:ours', 'seam:fpn', 'seam:unet', 'seam:ppmu')]
  none, fpn, unet, absent = small_tables._differences(systems, METRICS['dice'])
  assert none is None and absent is None and fpn.p_value == unet.p_value == 2 * 2 / 10_000


@pytest.mark.parametrize('low, high, p_value, seeds, verdict', [
    (0.001, 0.02, 0.01, 3, 'holds on phantoms'),
    (0.001, 0.02, 0.06, 3, 'undecided'),
    (0.001, 0.02, 0.01, 1, 'undecided'),
    (-0.01, 0.006, 0.7, 3, 'undecided'),
    (-0.01, 0.004, 0.7, 3, 'does not hold on phantoms'),
    (-0.03, -0.01, 0.01, 3, 'does not hold on phantoms')])
def test_a_verdict_follows_from_interval_and_p(low, high, p_value, seeds, verdict):
  improvement = Difference((low + high) / 2, low, high, p_value, seeds)
  assert small_tables.judge(improvement, p_value, 0.005) == verdict


def test_claims_name_the_closest_rival_and_end_with_the_verdict():
  found = [run for key, level in (('seam:ours', 0.80), ('seam:unet', 0.70), ('seam:ppmu', 0.79),
                                  ('seam:fpn', 0.82)) for run in seeds_of(key, level)]
  lines = small_tables.claims(found).splitlines()
  of = {claim.sentence: next(line for line in lines if line.startswith(f'- {claim.sentence}'))
        for claim in papers.SEAM.claims}
  assert 'improvement +0.010 [' in of['SEAM is better than U-Net S5-D16 and PPMU']
  assert of['SEAM is better than U-Net S5-D16 and PPMU'].endswith(' over PPMU; holds on phantoms.')
  assert 'improvement −0.020 [' in of['SEAM is better than its FPN']
  assert ', p < 0.001;' in of['SEAM is better than its FPN']
  assert of['SEAM is better than its FPN'].endswith('; does not hold on phantoms.')
  assert of['The attention raises the Dice'] == (
      '- The attention raises the Dice (paper: 0.0071): not run.')


def test_fewer_missed_laminae_are_an_improvement():
  found = small_tables._improvement(Difference(-2.0, -3.0, -1.0, 0.01, 3), METRICS['missed'].sign)
  assert (found.value, found.low, found.high) == (2.0, 1.0, 3.0)


def test_calibration_and_training_are_of_every_run():
  found = [*seeds_of('seam:unet', 0.8), run_of('seam:unet', 0.7, rate=0.006),
           run_of('seam:unet', 0.9, difficulty=9.0, num_steps=10)]
  rows = small_tables.calibration(found).splitlines()[2:]
  assert rows[2].startswith('| 9 | 10 | 0.002 | 1 | 0.900 |') and '| 0.774 | 0.747 |' in rows[3]
  (row,) = [line for line in small_tables.training(found).splitlines() if '`seam:unet`' in line]
  assert row == '| `seam:unet` | **0.800** | 0.700 | 0.010 | no | 1 |'


def test_what_the_papers_print_agrees_with_itself():
  for table in papers.TABLES.values():
    for claim in table.claims:
      better, *others = (papers.ROWS[key] for key in (claim.better, *claim.than))
      if claim.printed and claim.metric == 'dice' and table.printed == 'paper, %':
        best = max(float(row.printed) for row in others)
        assert float(claim.printed) == pytest.approx((float(better.printed) - best) / 100, abs=1e-9)
      assert claim.metric in METRICS and claim.better not in claim.than


def test_the_figure_shows_means_seeds_and_intervals(tmp_path):
  path = tmp_path / 'rows.jsonl'
  found = [*seeds_of('seam:ours', 0.8), *seeds_of('seam:fpn', 0.78)]
  finished_runs.write_file(path, found)
  ((title, systems),) = groups = small_figure.read_groups(path)
  assert title == 'SEAM, table 1' and [system.row.title for system in systems] == ['SEAM', 'FPN']
  left, right = small_figure.draw(groups).axes
  lines = {len(line.get_xdata()): line.get_xdata() for line in left.get_lines()[2:5]}
  difference = small_protocol.difference(systems[1], systems[0], METRICS['dice'])
  assert list(lines[2]) == pytest.approx([0.801 + difference.low, 0.801 + difference.high])
  assert list(lines[1]) == pytest.approx([0.781])
  assert list(lines[3]) == pytest.approx([0.78, 0.781, 0.782])
  finished_runs.write_file(path, found[:3])
  with pytest.raises(ValueError, match='no runs of a proposed system and of another one'):
    small_figure.read_groups(path)
