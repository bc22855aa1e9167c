"""The command line: a user's mistake is one sentence and an exit status."""
import re
import subprocess
import sys

import pytest

from spinejax import __main__ as verbs
from spinejax import interrupts
from spinejax.commands import cli
from tests import processes, tiny

SEAM = 'configs/seam.py'


def call(*arguments, module='spinejax.main'):
  return processes.call('-m', module, *arguments)


def assert_one_sentence(result, status, sentence):
  assert result.returncode == status and result.stdout == ''
  assert len(result.stderr.strip().splitlines()) == 1, result.stderr
  assert result.stderr.startswith('error: ') and re.search(sentence, result.stderr), result.stderr


@pytest.mark.parametrize('arguments, sentence', [
    (['--config=configs/sem.py'], 'there is no config configs/sem.py; there is .*configs/seam.py'),
    (['--config=sem:quick'], 'there is no config sem; there is c_unet, rsn_unet, sadanet, seam, x'),
    ([f'--config={SEAM}:our'], "has no variant 'our'; it has ours, wo_al"),
    (['--config', f'{SEAM}:our', '--workdir', 'w'], "has no variant 'our'"),
    ([f'--config={SEAM}', '--config.data.imge_size=(8,8)'],
     "config.data has no field 'imge_size' .did you mean image_size"),
    ([f'--config={SEAM}', '--config.sede=1'], "config has no field 'sede'"),
    ([f'--config={SEAM}', '--config.seed=one'], 'seed=one'),
    ([f'--config={SEAM}', '--config.loss.lam=1'], "config.loss has no field 'lam'"),
    (['--config.seed=1', '--workdir=w'], 'needs --config=FILE'),
    (['--workdri=w'], 'Unknown command line flag .workdri.. Did you mean: workdir'),
    (['--config=pyproject.toml', '--workdir=w'], 'there is no config pyproject.toml'),
])
def test_wrong_flags(arguments, sentence):
  assert_one_sentence(call(*arguments), 2, sentence)


@pytest.mark.parametrize('arguments, sentence', [
    ([f'--config={SEAM}', 'quick'], "unexpected argument 'quick'"),
    (['--workdir=w'], '--config=CONFIG is needed'),
    ([f'--config={SEAM}', '--num_processes=2'], 'need --multihost'),
])
def test_wrong_calls(arguments, sentence):
  assert_one_sentence(call(*arguments), 1, sentence)


def test_an_unknown_verb_names_those_there_are():
  assert_one_sentence(call('tarin', module='spinejax'), 2, "'tarin'; the verbs are train, test, pr")
  listed = call('--help', module='spinejax').stdout
  assert all(f'\n  {verb} ' in listed for verb in verbs.VERBS)


@pytest.mark.parametrize('verb', verbs.VERBS)
def test_help_of_a_verb_needs_no_jax_and_lists_flags_alike(verb):
  """It has an example. Names of flags are in lower case with underscores."""
  result = subprocess.run(
      [sys.executable, '-X', 'importtime', '-m', 'spinejax', verb, '--help'], cwd=tiny.ROOT,
      capture_output=True, text=True, timeout=120, check=False)
  imported = {line.rpartition('|')[2].strip() for line in result.stderr.splitlines()}
  assert result.returncode == 0
  assert 'absl.app' in imported and not {'jax', 'tensorflow', 'matplotlib'} & imported
  text, _, listed = result.stdout.partition('\nFlags:\n')
  names = re.findall(r'^  --(?:\[no\])?([^:\s]+)', listed, re.MULTILINE)
  assert f'spinejax {verb}' in text
  assert names and all(re.fullmatch(r'[a-z][a-z0-9_]*', name) for name in names)


def test_the_console_script_is_the_same_command(tmp_path):
  script = tiny.ROOT / 'pyproject.toml'
  assert 'spinejax = "spinejax.__main__:main"' in script.read_text()
  code = ('import sys; from spinejax.__main__ import main; '
          "sys.argv = ['x', 'test', '--help']; main()")
  result = processes.call('-c', code, cwd=tmp_path)
  assert '--workdir' in result.stdout, result.stderr


@pytest.mark.parametrize('error, status, text', [
    (ValueError('no such bone.'), 1, 'error: no such bone.\n'),
    (OSError('disk full'), 1, 'error: disk full\n'),
    (interrupts.Interrupted('saved in w.'), 130, 'saved in w.\n'),
    (KeyboardInterrupt(), 130, 'interrupted before there was anything to save.\n')])
def test_errors_and_interruptions_have_their_status(capsys, error, status, text):
  with pytest.raises(SystemExit) as end, cli.user_errors():
    raise error
  assert (end.value.code, capsys.readouterr().err) == (status, text)


def test_a_config_file_is_executed_once_and_names_the_run_folder(tmp_path):
  """A config that prints: its text appears once; the run folder follows from its name."""
  (tmp_path / 'mine.py').write_text(
      "from ml_collections import ConfigDict\nVARIANTS = {'small': {}}\nprint('executed')\n"
      "def get_config(variant='small'):\n  return ConfigDict({'seed': 1}).lock()\n")
  code = ("import sys\nfrom absl import app, flags\nfrom spinejax.commands import cli\n"
          "cli.define_config()\nflags.DEFINE_string('workdir', None, '')\n"
          "def main(argv): print(flags.FLAGS.config.seed, flags.FLAGS.workdir)\n"
          "app.run(main, flags_parser=cli.parse_flags)\n")
  for arguments, workdir in [(['--config=mine.py', '--config.seed=3'], 'runs/mine_small'),
                             (['--config', 'mine.py:small', '--config.seed', '3', '--workdir=w'],
                              'w')]:
    result = processes.call('-c', code, *arguments, cwd=tmp_path)
    assert result.stdout == f'executed\n3 {workdir}\n', result.stderr
