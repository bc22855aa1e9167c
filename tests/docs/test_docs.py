"""README and docs: every command runs, every example runs, every link and table is right."""
import os
import pathlib
import re
import shlex

import numpy as np
from PIL import Image
import pytest

from spinejax import phantoms
from tests import processes, tiny

pytestmark = pytest.mark.xdist_group('test_docs')  # the commands of a page build on each other
PAGES = [tiny.ROOT / 'README.md', *sorted((tiny.ROOT / 'docs').glob('*.md'))]
COMMANDS = [(page.name, line.removeprefix('$ ').partition('  #')[0].strip())
            for page in PAGES
            for block in re.findall(r'```console\n(.*?)```', page.read_text(), re.DOTALL)
            for line in block.splitlines()]
# Commands that this test does not run, and where they are tested.
NOT_RUN = {
    'launch/test.sh': 'it runs this test',
    'pip install': 'it needs a network',
    'sbatch': 'tests/test_multihost.py runs launch/slurm.sh with a replacement of srun',
    'launch/tpu_vm.sh': 'tests/test_sweep.py runs it with a replacement of gcloud',
    'SPINEJAX_EXTRAS=cuda': 'it needs a network',
    'spinejax bench': 'tests/benchmarks run its systems at tiny sizes',
    'python -m benchmarks.growth': 'tests/benchmarks run it at tiny sizes',
    '--config.init_from': 'tests/models/test_pretrained.py and tests/test_train.py import weights',
}
IMAGES = {'batch_size': 2, 'data.image_size': (64, 32), 'data.patch_size': (32, 32),
          'data.patch_stride': (0, 0), 'data.render_size': (96, 48)}
VOLUMES = {'batch_size': 1, 'data.image_size': (32, 16, 8), 'data.patch_size': (32, 16, 8),
           'data.render_size': (96, 48, 24)}
TINY = {'num_steps': 1, 'num_epochs': 0, 'eval_batch_size': 1, 'log_every': 1, 'eval_every': 1,
        'data.num_train': 2, 'data.num_validation': 1, 'data.num_test': 1}
# Makes configs tiny, with one block a stage in the ResNets and the layers of one platform: such
# networks compile faster.
PREPARE = f'''
import runpy, sys
from spinejax import config
from spinejax.models import cpu_kernels, resnet
from tests import tiny

def create(file, create=config.ConfigFile.create):
  settings = create(file)
  sizes = {VOLUMES} if len(settings.data.image_size) == 3 else {IMAGES}
  return tiny.shrink(settings, {TINY} | sizes)

config.ConfigFile.create = create
resnet.BACKBONES['resnet50_v1c'] = ((1, 1, 1, 1), True)
cpu_kernels.dispatch = lambda *, cpu, default: cpu
'''
RUN = PREPARE + '''
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)
'''


def write_images(folder: pathlib.Path) -> None:
  """my_images with masks and patients, images of three of them, and single files."""
  for name in ('my_images/images', 'my_images/masks', 'images'):
    (folder / name).mkdir(parents=True)
  lines = ['name,patient,spacing_y_mm,spacing_x_mm']
  for seed in range(5):
    case = phantoms.vpi(seed, (192, 48))
    picture, mask = Image.fromarray(case.image), Image.fromarray(case.label.astype(np.uint8))
    picture.save(folder / f'my_images/images/p{seed}.png')
    mask.save(folder / f'my_images/masks/p{seed}.png')
    lines.append(f'p{seed},p{seed},2.4,2.4')
    if seed < 3:
      picture.save(folder / f'images/p{seed}.png')
  (folder / 'my_images/cases.csv').write_text('\n'.join(lines) + '\n')
  picture.save(folder / 'image.png')
  mask.save(folder / 'mask.png')
  (folder / 'reader.csv').write_text('name,angle\np0,12\np1,20\np2,31\n')


def write_volumes_and_xrays(folder: pathlib.Path) -> None:
  for name in ('my_volumes/images', 'my_volumes/masks', 'xrays'):
    (folder / name).mkdir(parents=True)
  colors = np.uint8([[255, 0, 0], [0, 255, 0], [0, 0, 255]])
  for seed in range(4):
    case = phantoms.volume(seed, (96, 48, 24))
    spacing = np.asarray(case.truth.spacing, float)
    np.savez(folder / f'my_volumes/images/v{seed}.npz', image=case.image, spacing=spacing)
    np.savez(folder / f'my_volumes/masks/v{seed}.npz', label=case.label.astype(np.uint8),
             spacing=spacing)
    case = phantoms.xray(seed, (200, 75))
    Image.fromarray(case.image).save(folder / f'xrays/image{seed}.jpg')
    Image.fromarray(colors[case.label]).save(folder / f'xrays/image{seed}-mask-trimap.png')


@pytest.fixture(scope='module')
def workspace(tmp_path_factory):
  """A folder with the files that the commands name, and the configs."""
  folder = tmp_path_factory.mktemp('docs')
  write_images(folder)
  write_volumes_and_xrays(folder)
  (folder / 'configs').symlink_to(tiny.ROOT / 'configs')
  (folder / 'benchmarks').symlink_to(tiny.ROOT / 'benchmarks')
  return folder


def call(*words: str, cwd: pathlib.Path) -> None:
  result = processes.call(*words, cwd=cwd, JAX_NUM_CPU_DEVICES='1')
  assert result.returncode == 0, result.stdout + result.stderr


def test_every_page_is_found():
  assert len(PAGES) == 16 and len(COMMANDS) > 20
  assert all(line.startswith('$ ') for page in PAGES
             for block in re.findall(r'```console\n(.*?)```', page.read_text(), re.DOTALL)
             for line in block.splitlines())
  assert len((tiny.ROOT / 'README.md').read_text().splitlines()) <= 150


@pytest.mark.parametrize('command', dict.fromkeys(
    command for page, command in COMMANDS if not any(part in command for part in NOT_RUN)))
def test_a_command_runs(command, workspace):
  words = shlex.split(command)
  if words[0] == 'launch/local.sh':  # what the script runs after it has made the environment
    words = ['python', '-m', 'spinejax.main', *words[1:]]
  if words[0] == 'spinejax':
    words = ['python', '-m', 'spinejax', *words[1:]]
  if 'stress' in words:
    words += ['--cases=1', '--strengths=1,2']
  if 'benchmarks.tables' in words:  # it compares runs with the configs as they are
    call(*words[1:], cwd=workspace)
  else:
    call('-c', RUN, *words[2:], cwd=workspace)


def test_commands_that_are_not_run_exist():
  for part in NOT_RUN:
    assert any(part in command for _, command in COMMANDS), part
  for _, command in COMMANDS:
    for word in shlex.split(command):
      if word.startswith('launch/'):
        assert os.access(tiny.ROOT / word, os.X_OK), word


@pytest.mark.parametrize('page', ['README.md', 'python_api.md'])
def test_python_examples_run_in_order(page, workspace):
  text = next(path for path in PAGES if path.name == page).read_text()
  blocks = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
  assert blocks
  code = '\n'.join([PREPARE, *blocks]).replace('(1, 512, 128, 1)', '(1, 64, 32, 1)')
  call('-c', code, cwd=workspace)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_links_and_pictures_exist(page):
  for target in re.findall(r'\]\(([^)#]+)(?:#[^)]*)?\)', page.read_text()):
    assert '://' not in target and (page.parent / target).exists(), target


def test_tables_are_those_of_the_results():
  call('-m', 'benchmarks.tables', '--check', cwd=tiny.ROOT)


def test_the_map_of_the_rooms_is_complete():
  text = (tiny.ROOT / 'docs/architecture.md').read_text()
  table = text[text.index('| room |'):text.index('`benchmarks/` is outside')]
  named = set(re.findall(r'`(\w+)`', '\n'.join(
      line.split('|')[1] for line in table.splitlines() if line.startswith('| `'))))
  there = {path.stem for path in (tiny.ROOT / 'spinejax').iterdir()
           if (path.suffix == '.py' or path.is_dir()) and not path.name.startswith('__')}
  assert named == there | {'__main__'}
