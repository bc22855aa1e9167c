"""Sweeps: every member runs once, faults stay with their member, seeds become mean and sd."""
import csv
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time

import pytest
from rich.console import Console

from spinejax import config as config_lib
from spinejax import runs
from spinejax.sweeps import choice, grid, launch, table
from spinejax.sweeps import members as members_lib
from tests import processes, tiny

SWEEP = ['-m', 'spinejax', 'sweep']
# A config that trains in the place of spinejax.main, which loads it first: Dice is seed / 10.
STAND_IN = """import json
import pathlib
import signal
import sys
import time

from ml_collections import ConfigDict

VARIANTS = {'a': {}, 'b': {}}


def get_config(variant='a'):
  config = ConfigDict({'seed': 0, 'dice': {'a': 0.0, 'b': 0.5}[variant], 'fault': '', 'pause': 0.0,
                       'rate': 0.1, 'max_skipped_steps': 3, 'evaluation': {'best': 'dice'},
                       'data': {'num_validation': 1, 'split_file': '', 'directory': ''}})
  workdirs = [flag.partition('=')[2] for flag in sys.argv if flag.startswith('--workdir=')]
  if workdirs:
    train(config.copy_and_resolve_references(), pathlib.Path(workdirs[0]))
  return config.lock()


def sweep():
  for variant in VARIANTS:
    for seed in (1, 2):
      yield {'variant': variant, 'seed': seed}


def train(config, workdir):
  for flag in sys.argv:
    name, _, value = flag.removeprefix('--config.').partition('=')
    if name in config:
      config[name] = type(config[name])(value)
  (workdir / 'report').mkdir(parents=True, exist_ok=True)
  print('step 1')
  with (workdir / 'starts').open('a') as starts:
    starts.write('started\\n')
  if config.fault == workdir.name:
    sys.exit('error: no such bone.\\n  it has ribs')
  if config.pause and not (workdir / 'saved').exists():
    signal.signal(signal.SIGTERM, lambda *_: (workdir / 'saved').touch() or sys.exit(130))
    time.sleep(config.pause)
  dice = config.dice + config.seed / 10
  table = {'dice': {'mean_foreground': dice, 'lump': None}, 'dice_sd': {'lump': 1.0}}
  results = {'per_image': table,
             'cases': {'one': {'dice': 1.0}}, 'step': 3}
  (workdir / 'config.json').write_text(json.dumps(config.to_dict()))
  (workdir / 'metrics.jsonl').write_text(json.dumps(
      {'step': 3, 'phase': 'validation', 'dice/mean_foreground': dice}) + '\\n')
  (workdir / 'test_metrics.json').write_text(json.dumps(results))
  (workdir / 'report' / 'index.html').touch()
  sys.exit(0)
"""


@pytest.fixture
def stand_in(tmp_path) -> pathlib.Path:
  path = tmp_path / 'config.py'
  path.write_text(STAND_IN)
  return path


def command(config, output, *flags) -> list[str]:
  return [*SWEEP, f'--config={config}', f'--output={output}', *flags]


def call(config, output, *flags, **variables) -> subprocess.CompletedProcess:
  return processes.call(*command(config, output, *flags), COLUMNS='100', **variables)


def starts(output) -> dict[str, int]:
  return {path.parent.name: len(path.read_text().split()) for path in output.glob('*/starts')}


def test_a_failed_member_stops_no_other_and_the_same_command_goes_on(stand_in, tmp_path):
  output = tmp_path / 'sweep'
  first = call(stand_in, output, '--jobs=2', '--config.fault=a_seed=2')
  assert first.returncode == 1
  assert first.stderr.splitlines() == [
      'a_seed=2: error: no such bone. it has ribs',
      'error: 1 of 4 members have no results; see above and their logs, '
      f'{output}/NAME.log.']
  assert starts(output) == {'a_seed=1': 1, 'a_seed=2': 1, 'b_seed=1': 1, 'b_seed=2': 1}
  results = json.loads((output / 'results.json').read_text())
  a, b = results['groups']
  assert (a['overrides'], a['seeds'], a['members']) == ({'variant': 'a'}, [1], 2)
  assert a['metrics']['per_image.dice.mean_foreground'] == {'mean': 0.1, 'sd': None, 'count': 1}
  assert b['seeds'] == [1, 2]
  dice = b['metrics']['per_image.dice.mean_foreground']
  assert dice == {'mean': pytest.approx(0.65), 'sd': pytest.approx(0.1 / 2**0.5), 'count': 2}
  assert b['metrics']['per_image.dice.lump'] == {'mean': None, 'sd': None, 'count': 0}
  assert set(b['metrics']) == {'per_image.dice.mean_foreground', 'per_image.dice.lump', 'step'}
  assert '1 of 2' in first.stdout and '0.650 ± 0.071' in first.stdout

  refused = call(stand_in, output, '--only=variant=b', '--config.fault=b_seed=1')
  assert refused.returncode == 1 and starts(output)['b_seed=1'] == 1
  assert 'another config' in refused.stderr and 'fault: a_seed=2 there' in refused.stderr

  (stand_in).write_text(STAND_IN.replace('config.fault == ', "'' == "))
  again = call(stand_in, output, '--config.fault=a_seed=2')
  assert again.returncode == 0, again.stderr
  assert starts(output) == {'a_seed=1': 1, 'a_seed=2': 2, 'b_seed=1': 1, 'b_seed=2': 1}
  rows = list(csv.DictReader((output / 'results.csv').open()))
  assert [row['variant'] for row in rows] == ['a', 'b']
  assert float(rows[0]['per_image.dice.mean_foreground']) == pytest.approx(0.15)
  assert float(rows[0]['per_image.dice.mean_foreground_sd']) == pytest.approx(
      statistics.stdev([0.1, 0.2]))
  members = list(csv.DictReader((output / 'members.csv').open()))
  assert [row['name'] for row in members] == ['a_seed=1', 'a_seed=2', 'b_seed=1', 'b_seed=2']
  assert not any(row['error'] for row in members)


def test_ctrl_c_lets_the_members_save_and_the_same_command_resumes(stand_in, tmp_path):
  output = tmp_path / 'sweep'
  flags = ['--jobs=2', '--config.pause=100']
  words = [sys.executable, *command(stand_in, output, *flags)]
  with subprocess.Popen(words, cwd=tiny.ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                        text=True, process_group=0,
                        env={**os.environ, 'PYTHONPATH': str(tiny.ROOT)}) as process:
    deadline = time.monotonic() + 60
    while len(starts(output)) < 2 and time.monotonic() < deadline:
      time.sleep(0.1)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    assert process.stderr.read() == 'The sweep is stopped; the same command resumes it.\n'
  assert starts(output) == {'a_seed=1': 1, 'a_seed=2': 1}
  assert all((output / name / 'saved').exists() for name in starts(output))
  for name in ('b_seed=1', 'b_seed=2'):
    (output / name).mkdir()
    (output / name / 'saved').touch()
  assert call(stand_in, output, *flags).returncode == 0
  assert starts(output) == {'a_seed=1': 2, 'a_seed=2': 2, 'b_seed=1': 1, 'b_seed=2': 1}


def test_jobs_share_gpus_and_cores():
  shares = launch.split_machine
  patched = pytest.MonkeyPatch()
  with patched.context() as environment:
    environment.setenv('CUDA_VISIBLE_DEVICES', '4,5,6')
    environment.setattr(os, 'sched_getaffinity', lambda pid: {0, 1, 2, 3, 4}, raising=False)
    assert shares(2) == [({0, 2, 4}, {'CUDA_VISIBLE_DEVICES': '4,6'}),
                         ({1, 3}, {'CUDA_VISIBLE_DEVICES': '5'})]
    assert shares(1) == [(set(), {'CUDA_VISIBLE_DEVICES': '4,5,6'})]
    with pytest.raises(ValueError, match='--jobs=4 is more than the 3 GPUs'):
      shares(4)
    environment.delenv('CUDA_VISIBLE_DEVICES')
    assert shares(6) == [(set(), {})] * 6


def test_commands_are_printed_and_filtered(tmp_path):
  result = call('configs/seam.py:small', tmp_path / 'a b', '--print', '--only=variant=ours',
                '--only=seed=0', '--only=seed=2', '--config.data.image_size=(64,32)')
  assert result.returncode == 0, result.stderr
  assert result.stdout.splitlines() == [
      f"{sys.executable} -m spinejax.main --config=configs/seam.py:ours,small "
      f"--config.seed={seed} '--config.data.image_size=(64, 32)' "
      f"'--workdir={tmp_path}/a b/ours_seed={seed}'" for seed in (0, 2)]
  assert not (tmp_path / 'a b').exists()


@pytest.mark.parametrize('flags, status, sentence', [
    (['--config=configs/seam.py', '--only=seed=7'], 1,
     '--only=seed=7 fits no member; seed is 0, 1'),
    (['--config=configs/seam.py', '--only=lam'], 1, 'KEY=VALUE is needed, with a key of variant'),
    (['--config=seam:quick'], 1, 'seam cannot combine the variants unet,quick'),
    (['--config=seam', '--table=7'], 1, "seam has no table '7'; it has 1, forms."),
    (['--config=seam', '--random=7'], 1, '--random needs --grid'),
    (['--config=seam', '--choose=optimizer.learning_rate=1,2'], 1, 'needs validation cases'),
    (['--config=configs/seam.py', '--config.seed=3'], 1, 'changes seed; leave out --config.seed'),
    (['--config=configs/seam.py', '--config.sede=3'], 2, 'did you mean seed?'),
    (['--config=configs/seam.py', '--print', '--slurm'], 1, 'give one of'),
    (['--config=configs/seam.py', '--slurm', '--only=seed=0'], 1, 'sbatch was not found'),
    ([], 1, '--config=CONFIG is needed'),
])
def test_wrong_flags_are_one_sentence(tmp_path, flags, status, sentence):
  result = processes.call(*SWEEP, f'--output={tmp_path}', *flags)
  assert result.returncode == status and len(result.stderr.splitlines()) == 1
  assert result.stderr.startswith('error: ') and sentence in result.stderr


def test_a_slurm_array_has_what_is_left(stand_in, tmp_path):
  output = tmp_path / 'sweep'
  # sbatch runs the array at once, and srun its task: the launcher is the real one.
  environment = processes.write_cluster(
      tmp_path, sbatch=f'printf "%s\\n" "$@" > {tmp_path}/sbatch\nfor script; do :; done\n'
      'export SLURM_ARRAY_JOB_ID=7\n'
      'for i in 0 1 2; do SLURM_ARRAY_TASK_ID=$i SLURM_JOB_ID=$i bash "$script"; done',
      srun='while [[ $1 == --* ]]; do shift; done\nexec "$@"', squeue=':')
  assert call(stand_in, output, '--only=variant=a', '--only=seed=2').returncode == 0
  job = call(stand_in, output, '--slurm', '--jobs=2', '--sbatch=--partition=gpu --time=1:00',
             **environment)
  assert job.returncode == 0, job.stderr
  assert (tmp_path / 'sbatch').read_text().splitlines() == [
      '--array=0-2%2', f'--output={output}/slurm-%A_%a.log', '--partition=gpu', '--time=1:00',
      f'{output}/array.sh']
  assert '#SBATCH --requeue' in (output / 'array.sh').read_text().splitlines()
  assert starts(output) == {'a_seed=1': 1, 'a_seed=2': 1, 'b_seed=1': 1, 'b_seed=2': 1}
  collected = call(stand_in, output, '--collect')
  assert collected.returncode == 0 and '0.150 ± 0.071' in collected.stdout
  (output / 'b_seed=2' / 'test_metrics.json').write_text('{')
  damaged = call(stand_in, output, '--collect')
  assert damaged.returncode == 1 and 'not readable as JSON' in damaged.stderr


def test_a_real_sweep(tmp_path):
  config = tmp_path / 'tiny.py'
  config.write_text(
      'from tests import tiny\n\nVARIANTS = {}\n\n\ndef get_config():\n'
      "  return tiny.tiny_config(**{'num_steps': 1, 'data.num_validation': 1,\n"
      "      'data.num_test': 1, 'data.image_size': (32, 32)}).lock()\n\n\n"
      "def sweep():\n  return [{'seed': 0}, {'seed': 1}]\n")
  result = call(config, tmp_path / 'sweep', '--choose=optimizer.learning_rate=1e-3',
                JAX_NUM_CPU_DEVICES='1')
  assert result.returncode == 0, result.stderr
  results = json.loads((tmp_path / 'sweep' / 'results.json').read_text())
  (group,), (found,) = results['groups'], results['choices']
  folders = [tmp_path / 'sweep' / f'optimizer.learning_rate=0.001_seed={seed}' for seed in (0, 1)]
  stored = [json.loads((folder / 'test_metrics.json').read_text()) for folder in folders]
  best, = (folders[0] / 'checkpoints').glob('*/metrics/metrics')
  assert found['trials'][0]['score'] == pytest.approx(json.loads(best.read_text())['score'])
  entropies = [metrics['at_network_size']['cross_entropy'] for metrics in stored]
  assert group['seeds'] == [0, 1] and entropies[0] != entropies[1]
  assert group['metrics']['at_network_size.cross_entropy']['mean'] == pytest.approx(
      sum(entropies) / 2)


def pretend(member, scores=(), skipped=0) -> None:
  """Writes the run folder of a member: finished with validation scores, or stopped."""
  (member.workdir / 'report').mkdir(parents=True)
  rows = [{'step': step, 'phase': 'validation', 'dice/mean_foreground': score, 'loss': 1 - score}
          for step, score in enumerate(scores)]
  (member.workdir / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, [
      {'step': 0, 'phase': 'train', 'skipped': skipped}, *rows])))
  if scores:
    runs.write_json(member.workdir / 'config.json', member.config)
    runs.write_json(member.workdir / 'test_metrics.json', {'per_image': {'dice': {
        'mean_foreground': scores[-1]}}})
    (member.workdir / 'report' / 'index.html').touch()


def create_members(config, output, *, choose='', grids=()) -> dict:
  """The members by name."""
  items = (grid.create_items(config, [grid.parse_axis('grid', text) for text in grids]) if grids
           else members_lib.read_items(config))
  if choose:
    items = grid.expand(config, items, grid.parse_axis('choose', choose))
  return {member.name: member for member in members_lib.create_members(config, items, output)}


def test_the_best_value_by_validation_is_chosen_and_gets_the_other_seeds(stand_in, tmp_path):
  output, flag = tmp_path / 'sweep', 'rate=0.1,2e-1,0.4'
  members = create_members(str(stand_in), output, choose=flag)
  assert list(members)[:6] == [f'a_rate={rate}_seed={seed}' for seed in (1, 2)
                               for rate in (0.1, 0.2, 0.4)]
  pretend(members['a_rate=0.1_seed=1'], [0.5, 0.6])
  pretend(members['a_rate=0.2_seed=1'], [0.7, 0.4])  # the best checkpoint counts, not the last one
  pretend(members['a_rate=0.4_seed=1'], [0.6])
  pretend(members['b_rate=0.1_seed=1'], [0.55])
  pretend(members['b_rate=0.2_seed=1'], skipped=3)
  environment = processes.write_cluster(tmp_path, sbatch=':', srun='exit 1', squeue=':')
  first = call(stand_in, output, f'--choose={flag}', '--slurm', **environment)
  assert first.returncode == 0, first.stderr
  submitted = (output / 'array.sh').read_text()
  assert [name for name in members if f'/{name}.log' in submitted] == [
      'a_rate=0.2_seed=2', 'b_rate=0.4_seed=1']
  assert 'the same command chooses the values' in first.stdout

  result = call(stand_in, output, f'--choose={flag}', '--jobs=2')
  assert result.returncode == 0, result.stderr
  assert starts(output) == {'a_rate=0.2_seed=2': 1, 'b_rate=0.4_seed=1': 1, 'b_rate=0.4_seed=2': 1}
  lines = result.stdout.splitlines()
  words = [line.split() for line in lines]
  assert 'validation of rate 0.1 0.2 0.4 chosen'.split() in words
  assert 'a 0.6000 0.7000 0.6000 0.2'.split() in words
  assert 'b 0.5500 diverged 0.6000 0.4'.split() in words
  assert [line for line in lines if 'end of the values' in line] == [
      'b: the chosen rate 0.4 is at an end of the values of --choose; a better one may lie beyond.']
  stored = json.loads((output / 'results.json').read_text())
  assert [(group['overrides'], group['seeds']) for group in stored['groups']] == [
      ({'variant': 'a', 'rate': 0.2}, [1, 2]), ({'variant': 'b', 'rate': 0.4}, [1, 2])]
  dice = stored['groups'][0]['metrics']['per_image.dice.mean_foreground']
  assert dice == {'mean': pytest.approx(0.3), 'sd': pytest.approx(0.2 / 2**0.5), 'count': 2}
  assert [trial['score'] for trial in stored['choices'][1]['trials']] == [0.55, None, 0.6]

  again = call(stand_in, output, f'--choose={flag}')
  assert again.returncode == 0 and sum(starts(output).values()) == 3


def test_a_choice_waits_for_all_trials_and_says_what_cannot_be_chosen(stand_in, tmp_path):
  config = str(stand_in)
  members = create_members(config, tmp_path, choose='rate=0.1,0.2', grids=['seed=3,4'])
  everyone = list(members.values())
  assert list(members) == ['rate=0.1_seed=3', 'rate=0.2_seed=3', 'rate=0.1_seed=4',
                           'rate=0.2_seed=4']
  pretend(members['rate=0.2_seed=3'], [0.7])
  pretend(members['rate=0.1_seed=3'], skipped=2)
  found, = choice.decide(everyone, 'rate')
  assert (found.value, found.members, found.is_hopeless) == (None, (), False)
  assert choice.select_due(everyone, [found]) == everyone[:2]
  results = table.collect(everyone[:2], {}, [found])
  assert not results.groups and [row.finished for row in results.members] == [False, True]
  console = Console(record=True, width=100)
  table.print_results(results, tmp_path, console)
  shown = console.export_text()
  assert 'default unfinished 0.7000 none yet' in ' '.join(shown.split())
  assert shown.endswith('No value is chosen.\n')
  for member in everyone[:2]:
    member.config.evaluation.best = 'loss'
    (member.workdir / 'metrics.jsonl').write_text('')
  with pytest.raises(ValueError, match='has no validation score'):
    runs.write_json(everyone[1].workdir / 'config.json', everyone[1].config)
    choice.decide(everyone, 'rate')
  with pytest.raises(ValueError, match='--choose=loss.weight: .* --config.evaluation.best=dice'):
    choice.check(everyone, 'loss.weight')
  with pytest.raises(ValueError, match='the sweep changes rate twice'):
    create_members(config, tmp_path, choose='rate=0.1,0.2', grids=['rate=3,4'])


def test_a_run_that_was_started_by_hand_is_a_member(tmp_path):
  """Its folder has the name and its config the values of the member."""
  name = 'fpn_optimizer.learning_rate=0.002_seed=0'
  member = create_members('seam:small', tmp_path, choose='optimizer.learning_rate=1e-3,2e-3')[name]
  config = config_lib.load_config(f'{tiny.ROOT}/configs/seam.py:fpn,small')
  config.update_from_flattened_dict({'optimizer.learning_rate': 0.002, 'seed': 0})
  assert member.workdir == tmp_path / name and not members_lib.is_finished(member)
  pretend(member, [0.5])
  runs.write_json(member.workdir / 'config.json', config)
  assert members_lib.is_finished(member)


@pytest.mark.parametrize('field, text, value', [
    ('seed', '3', 3), ('optimizer.learning_rate', '1e-3', 0.001), ('data.num_train', '5', 5.0),
    ('model.attention', 'false', False), ('optimizer.name', 'sgd', 'sgd'), ('init_parts', '()', ()),
    ('data.image_size', '(64,32)', (64, 32)),
    ('seed', '1.5', '--config.seed=1.5: invalid literal'),
    ('optimizer', 'adam', 'is a group of fields; name one of'),
    ('optimizer.lerning_rate', '1', 'did you mean learning_rate'),
    ('data.image_size', '(64,', 'Error while parsing'),
])
def test_a_value_is_what_the_flag_of_the_field_makes_of_it(field, text, value):
  config = config_lib.load_config('seam')
  if isinstance(value, str) and ' ' in value:
    with pytest.raises(ValueError, match=value):
      grid.parse_value(config, field, text)
  else:
    parsed = grid.parse_value(config, field, text)
    assert parsed == value and type(parsed) is type(value)


def test_a_grid_is_the_product_of_its_fields(tmp_path):
  members = create_members('seam:quick', tmp_path, grids=[
      'seed=0,1', 'data.image_size=(256,64),(512, 128)', 'optimizer.learning_rate=1e-3',
      'variant=ours,fpn'])
  assert list(members) == [
      f'{variant}_data.image_size={size}_optimizer.learning_rate=0.001_seed={seed}'
      for variant in ('ours', 'fpn') for size in ('256-64', '512-128') for seed in (0, 1)]
  assert list(members.values())[6].arguments == [
      '--config=seam:fpn,quick', '--config.data.image_size=(512, 128)',
      '--config.optimizer.learning_rate=0.001', '--config.seed=0',
      f'--workdir={tmp_path}/fpn_data.image_size=512-128_optimizer.learning_rate=0.001_seed=0']
  alone, = create_members('rsn_unet:quick', tmp_path, grids=['batch_size=2']).values()
  assert (alone.name, alone.config.batch_size) == ('batch_size=2', 2)


def draw(*axes: str, draws: int, seed: int = 0) -> list[dict]:
  return grid.create_items('seam:small', [grid.parse_axis('grid', axis) for axis in axes], draws,
                           seed)


def test_random_items_are_different_reproducible_and_as_asked():
  axes = ('seed=5,6', 'optimizer.learning_rate=log:1e-4..1e-2', 'batch_size=2..5',
          'data.difficulty=0.5..1.5', 'optimizer.name=adam,sgd')
  items = draw(*axes, draws=300)
  assert items == draw(*axes, draws=300) and items[:20] == draw(*axes, draws=10)
  assert items != draw(*axes, draws=300, seed=1)
  assert [item['seed'] for item in items] == [5, 6] * 300
  assert len({tuple(members_lib.without(item, 'seed').items()) for item in items}) == 300
  rates, difficulties, sizes, names = ([item[axis.partition('=')[0]] for item in items[::2]]
                                       for axis in (*axes[1::2], axes[2], axes[4]))
  assert 1e-4 <= min(rates) < 2e-4 and 5e-3 < max(rates) <= 1e-2
  assert statistics.median(rates) == pytest.approx(1e-3, rel=0.4)  # uniform: 5e-3
  assert all(rate == float(f'{rate:.4g}') for rate in rates)
  assert 0.5 <= min(difficulties) < 0.55 and 1.45 < max(difficulties) <= 1.5
  assert statistics.fmean(difficulties) == pytest.approx(1.0, abs=0.07)
  assert {size: type(size) for size in sizes} == dict.fromkeys((2, 3, 4, 5), int)
  assert 100 < names.count('sgd') < 200
  assert sorted(item['batch_size'] for item in draw('batch_size=2..4', draws=3)) == [2, 3, 4]


@pytest.mark.parametrize('axis, draws, sentence', [
    ('batch_size=2..4', 4, '--random=4: the grid has only 3 combinations'),
    ('batch_size=2..4', None, 'is a range; --random=N draws from ranges'),
    ('seed=2..4', 1, 'a seed needs its values'),
    ('batch_size=4..2', 1, 'the first number must be below the second.'),
    ('batch_size=log:0..2', 1, 'the first number must be below the second and above 0.'),
    ('optimizer.name=2..4', 1, 'optimizer.name is no number'),
    ('batch_size', 1, '--grid=batch_size: FIELD=VALUE,VALUE is needed'),
    ('batch_size=2,,3', 1, 'FIELD=VALUE,VALUE is needed'),
    ('variant=fpm', None, "has no variant 'fpm'"),
])
def test_a_wrong_grid_is_one_sentence(tmp_path, axis, draws, sentence):
  with pytest.raises(ValueError, match=sentence):
    items = grid.create_items('seam', [grid.parse_axis('grid', axis)], draws)
    members_lib.create_members('seam', items, tmp_path)


TPU = tiny.ROOT / 'launch' / 'tpu_vm.sh'


def call_tpu(tmp_path, *arguments) -> tuple[subprocess.CompletedProcess, list[str]]:
  """launch/tpu_vm.sh with a gcloud that writes down its arguments and runs the command here."""
  commands, home = tmp_path / 'commands', tmp_path / 'home'
  processes.write_scripts(
      commands, gcloud=f'printf "%s\\n" "$@" > {tmp_path}/gcloud\n'
      'for last; do :; done\ncd "$HOME" && exec bash -c "${last#--command=}"')
  processes.write_scripts(home / 'spinejax' / 'launch', **{
      'local.sh': f'printf "%s\\n" "$PWD" "$SPINEJAX_EXTRAS" "$@" > {tmp_path}/local\nexit 3'})
  result = subprocess.run(
      ['bash', str(TPU), *arguments], capture_output=True, text=True, timeout=60, check=False,
      env={**os.environ, 'HOME': str(home), 'PATH': f'{commands}:{os.environ["PATH"]}'})
  called = tmp_path / 'gcloud'
  return result, called.read_text().splitlines() if called.exists() else []


def test_every_worker_of_a_tpu_vm_gets_the_command(tmp_path):
  subprocess.run(['bash', '-n', str(TPU)], check=True)
  result, gcloud = call_tpu(
      tmp_path, '--tpu=pod', '--zone=us-east5-a', '--project=bones',
      '--config=configs/seam.py:ours', '--workdir=/mnt/runs/a b',
      "--config.data.classes=('back ground','rib')")
  assert result.returncode == 3, result.stderr
  assert gcloud[:-1] == ['compute', 'tpus', 'tpu-vm', 'ssh', 'pod', '--zone=us-east5-a',
                         '--project=bones', '--worker=all']
  assert (tmp_path / 'local').read_text().splitlines() == [
      f'{tmp_path}/home/spinejax', 'tpu', '--multihost', '--config=configs/seam.py:ours',
      '--workdir=/mnt/runs/a b', "--config.data.classes=('back ground','rib')"]


@pytest.mark.parametrize('arguments, sentence', [
    (['--config=configs/seam.py'], '--tpu=NAME and --zone=ZONE are needed'),
    (['--tpu=pod', '--zone=z', '--workdir=/mnt/a'], '--config=CONFIG is needed'),
    (['--tpu=pod', '--zone=z', '--config=configs/seam.py'], '--workdir=DIR is needed'),
])
def test_tpu_arguments_that_are_missing_are_named(tmp_path, arguments, sentence):
  result, gcloud = call_tpu(tmp_path, *arguments)
  assert result.returncode == 2 and not gcloud
  assert result.stderr.startswith(f'error: {sentence}') and len(result.stderr.splitlines()) == 1
