"""The structure of the package: imports, and the way from the command to a loss."""
import json
import subprocess
import sys

from tests import tiny

TRACE = """
import json, pathlib, runpy, sys

def on_call(frame, event, arg):
  if (event == 'call' and frame.f_code.co_filename.endswith('losses/seam.py')
      and frame.f_code.co_name != '<module>'):
    stack = []
    while frame:
      stack.append((frame.f_code.co_filename, frame.f_code.co_name))
      frame = frame.f_back
    print('STACK' + json.dumps(stack[::-1]))
    sys.setprofile(None)
    raise SystemExit

sys.argv = sys.argv[1:]
sys.setprofile(on_call)
runpy.run_module('spinejax.main', run_name='__main__', alter_sys=True)
"""


def test_imports_follow_the_contracts_of_pyproject():
  result = subprocess.run(
      [sys.executable, '-c', 'import sys; from importlinter.cli import lint_imports; '
       'sys.exit(lint_imports(no_cache=True))'],
      cwd=tiny.ROOT, capture_output=True, text=True, timeout=120, check=False)
  assert result.returncode == 0, result.stdout + result.stderr


def test_training_loads_no_report():
  code = "import sys, spinejax.train; print(*sorted(sys.modules))"
  result = subprocess.run([sys.executable, '-c', code], cwd=tiny.ROOT, capture_output=True,
                          text=True, timeout=120, check=True)
  loaded = set(result.stdout.split())
  assert 'spinejax.steps' in loaded
  assert not {'spinejax.evaluate', 'spinejax.report', 'matplotlib', 'jinja2'} & loaded


def test_from_the_command_to_the_loss_of_seam_are_at_most_8_frames_in_4_files(tmp_path):
  flags = ['--config=configs/seam.py:quick', f'--workdir={tmp_path}', '--notest',
           '--config.batch_size=1', '--config.data.num_train=1', '--config.data.num_validation=0',
           '--config.data.num_test=0', '--config.data.render_size=(96,48)',
           '--config.data.image_size=(64,32)', '--config.data.patch_size=(32,32)',
           '--config.data.patch_stride=(32,32)', '--config.model.backbone_width=4']
  result = subprocess.run([sys.executable, '-c', TRACE, 'spinejax.main', *flags], cwd=tiny.ROOT,
                          capture_output=True, text=True, timeout=240, check=False)
  lines = [line for line in result.stdout.splitlines() if line.startswith('STACK')]
  assert lines, result.stderr
  package = str(tiny.ROOT / 'spinejax') + '/'
  frames = [(file.removeprefix(package), function) for file, function
            in json.loads(lines[0].removeprefix('STACK')) if file.startswith(package)]
  assert frames[0][0] == 'main.py' and frames[-1][0] == 'losses/seam.py'
  assert len(frames) <= 8, frames
  assert len({file for file, _ in frames}) <= 4, frames
