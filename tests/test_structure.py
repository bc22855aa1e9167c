"""The structure of the package: imports, and the way from the command to a loss."""
import json
import subprocess
import sys

from tests import processes, tiny

TRACE = """
import json, runpy, sys, traceback
from spinejax.losses import seam
from spinejax.models import resnet

def tell_stack(*_):
  print('STACK' + json.dumps([(frame.filename, frame.name) for frame in traceback.extract_stack()]))
  raise SystemExit

seam.class_cross_entropy = tell_stack
resnet.BACKBONES['resnet50_v1c'] = ((1, 1, 1, 1), True)
sys.argv = sys.argv[1:]
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
  fields = {'batch_size': 1, 'data.num_train': 1, 'data.num_validation': 0, 'data.num_test': 0,
            'data.render_size': '(96,48)', 'data.image_size': '(64,32)',
            'data.patch_size': '(32,32)', 'data.patch_stride': '(32,32)', 'model.backbone_width': 4}
  result = processes.call(
      '-c', TRACE, 'spinejax.main', '--config=configs/seam.py:quick', f'--workdir={tmp_path}',
      '--notest', *(f'--config.{name}={value}' for name, value in fields.items()),
      JAX_NUM_CPU_DEVICES='1')
  lines = [line for line in result.stdout.splitlines() if line.startswith('STACK')]
  assert lines, result.stderr
  package = str(tiny.ROOT / 'spinejax') + '/'
  frames = [(file.removeprefix(package), function) for file, function
            in json.loads(lines[0].removeprefix('STACK')) if file.startswith(package)]
  assert frames[0][0] == 'main.py' and frames[-1] == ('losses/seam.py', 'seam_loss')
  assert len(frames) <= 8, frames
  assert len({file for file, _ in frames}) <= 4, frames
