"""The command line: what a user gets wrong is one sentence and an exit status."""
import pathlib
import re
import subprocess
import sys

import pytest

from spinejax.commands import cli

ROOT = pathlib.Path(__file__).parents[1]
SEAM = 'configs/seam.py'


def call(*arguments, module='spinejax.main'):
  return subprocess.run([sys.executable, '-m', module, *arguments], cwd=ROOT, timeout=120,
                        capture_output=True, text=True, check=False)


@pytest.mark.parametrize('arguments, sentence', [
    (['--config=configs/sem.py', '--workdir=w'],
     'there is no config file configs/sem.py; the ones here are: .*configs/seam.py'),
    ([f'--config={SEAM}:our', '--workdir=w'], "has no variant 'our'; it has ours, wo_al"),
    (['--config', f'{SEAM}:our', '--workdir', 'w'], "has no variant 'our'"),
    ([f'--config={SEAM}', '--config.data.imge_size=(8,8)', '--workdir=w'],
     "config.data has no field 'imge_size' .did you mean image_size"),
    ([f'--config={SEAM}', '--config.sede=1', '--workdir=w'], "config has no field 'sede'"),
    ([f'--config={SEAM}', '--config.seed=one', '--workdir=w'], 'seed=one'),
    (['--config.seed=1', '--workdir=w'], 'needs --config=FILE'),
    ([f'--config={SEAM}'], '--workdir'),
    (['--workdri=w'], 'Unknown command line flag .workdri.. Did you mean: workdir'),
    ([f'--config={SEAM}', '--workdir=w', '--mode=fly'], 'train_and_evaluate'),
    (['--config=pyproject.toml', '--workdir=w'], 'pyproject.toml is not a'),
])
def test_wrong_flags(arguments, sentence):
  result = call(*arguments)
  assert result.returncode == 2
  assert result.stdout == ''
  assert len(result.stderr.strip().splitlines()) == 1
  assert result.stderr.startswith('error: ') and re.search(sentence, result.stderr), result.stderr


def test_a_stray_argument_is_refused():
  result = call(f'--config={SEAM}', '--workdir=w', 'quick')
  assert result.returncode == 1 and "unexpected argument 'quick'" in result.stderr


@pytest.mark.parametrize('module', ['spinejax.main', 'spinejax.commands.predict', 'spinejax.data.build',
                                    'spinejax.models.cost', 'spinejax.measure',
                                    'spinejax.commands.export'])
def test_help_needs_no_jax(module):
  result = subprocess.run([sys.executable, '-X', 'importtime', '-m', module, '--help'], cwd=ROOT,
                          capture_output=True, text=True, timeout=120, check=False)
  imported = {line.rpartition('|')[2].strip() for line in result.stderr.splitlines()}
  assert 'absl.app' in imported and not {'jax', 'tensorflow'} & imported
  assert f'python -m {module}' in result.stdout


def test_a_file_that_is_no_config(tmp_path):
  (tmp_path / 'a.py').write_text('x = 1\n')
  with pytest.raises(ValueError, match='is not a config: it needs get_config'):
    cli.load_config(str(tmp_path / 'a.py'))
  (tmp_path / 'b.py').write_text('def get_config(:\n')
  with pytest.raises(ValueError, match='is not a config'):
    cli.load_config(str(tmp_path / 'b.py'))


def test_errors_and_interruptions_have_their_status():
  code = ('from spinejax import cli\n'
          'def main(argv): raise {}\n'
          'cli.run(main)\n')
  for error, status, text in [("ValueError('no such bone.')", 1, 'error: no such bone.\n'),
                              ("OSError('disk full')", 1, 'error: disk full\n'),
                              ("cli.Interrupted('saved in w.')", 130, 'saved in w.\n')]:
    result = subprocess.run([sys.executable, '-c', code.format(error)], cwd=ROOT, text=True,
                            capture_output=True, timeout=120, check=False)
    assert (result.returncode, result.stderr) == (status, text)
