"""The notebooks run from top to bottom at tiny sizes, and their first cell installs spinejax."""
import importlib.util
import json
import shutil
import subprocess
import sys
import types

import nbclient
import nbformat
import pytest

from tests import tiny

FOLDER = tiny.ROOT / 'colabs'
EXACT = "'augment.rotation': 0.0, 'augment.translation': 0.0, 'augment.scale': (1.0, 1.0)"
ONE_LEVEL = '''from spinejax import config
load_config = config.load_config
def load_tiny_config(name):
  settings = load_config(name)
  with settings.unlocked():
    settings.model.levels = 1
  return settings
config.load_config = load_tiny_config
'''
SETTINGS = {  # instead of those of the cell with the tag 'parameters'
    '01_train_and_measure': f"""SETTINGS = {{ {EXACT},
    'num_steps': 2, 'eval_every': 2, 'model.features': 2,
    'data.num_train': 4, 'data.num_validation': 1, 'data.num_test': 1,
    'data.render_size': (96, 48), 'data.image_size': (64, 32), 'data.patch_size': (32, 32)}}""",
    '02_laminae_3d': """SETTINGS = {
    'num_steps': 2, 'eval_every': 2, 'model.features': 2,
    'data.num_train': 2, 'data.num_validation': 0, 'data.num_test': 1,
    'data.render_size': (48, 16, 8), 'data.image_size': (48, 16, 8),
    'data.patch_size': (48, 16, 8)}""",
    '03_your_own_images': f"""NUM_PHANTOMS = 6
SETTINGS = {{ {EXACT},
    'num_steps': 2, 'eval_every': 2, 'batch_size': 2, 'model.features': 4,
    'data.image_size': (64, 32), 'data.patch_size': (64, 32),
    'data.num_train': 0, 'data.num_validation': 0, 'data.num_test': 1}}""",
}
PICTURES = {'01_train_and_measure': 6, '02_laminae_3d': 5, '03_your_own_images': 4}
WHEEL = 'spinejax-0.2.0-py3-none-any.whl'


def read(name):
  return nbformat.read(FOLDER / f'{name}.ipynb', as_version=4)


def install_cell(name='01_train_and_measure'):
  return next(cell.source for cell in read(name).cells if cell.cell_type == 'code')


def run_install_cell(monkeypatch, folder, source=None, is_missing=True, status=0):
  """Runs the cell in a folder with a replacement of pip; returns what pip was to install."""
  commands = []

  def run(command, **_):
    commands.append(command)
    return types.SimpleNamespace(returncode=status)

  monkeypatch.chdir(folder)
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if is_missing else name)
  monkeypatch.setattr(subprocess, 'run', run)
  monkeypatch.setattr(shutil, 'which', lambda name: None)
  code = install_cell()
  if source:
    code = code.replace("SOURCE = 'spinejax'", f'SOURCE = {source!r}')
    assert repr(source) in code
  exec(compile(code, 'install cell', 'exec'), {})
  assert all(command[:4] == [sys.executable, '-m', 'pip', 'install'] for command in commands)
  return [command[-1] for command in commands]


def test_every_notebook_is_here():
  assert {path.stem for path in FOLDER.glob('*.ipynb')} == set(SETTINGS)


@pytest.mark.parametrize('name', SETTINGS)
def test_a_notebook_is_stored_without_outputs_and_says_what_it_is(name):
  notebook = read(name)
  nbformat.validate(notebook)
  code = [cell for cell in notebook.cells if cell.cell_type == 'code']
  assert not any(cell.outputs or cell.execution_count for cell in code)
  assert max(len(line) for cell in code for line in cell.source.splitlines()) <= 100
  text = ' '.join(cell.source for cell in notebook.cells if cell.cell_type == 'markdown')
  assert 'Research software, not a medical device' in text and '**phantoms**' in text
  assert install_cell(name) == install_cell()


def test_the_install_cell_does_nothing_where_spinejax_is_installed(monkeypatch, tmp_path):
  assert run_install_cell(monkeypatch, tmp_path, is_missing=False) == []


def test_the_install_cell_prefers_an_uploaded_wheel(monkeypatch, tmp_path):
  (tmp_path / WHEEL).touch()
  assert run_install_cell(monkeypatch, tmp_path) == [WHEEL]


@pytest.mark.parametrize('source, package', [
    (None, 'spinejax'), ('/content/spinejax', '/content/spinejax'),
    ('git+https://example.org/spinejax', 'spinejax @ git+https://example.org/spinejax')])
def test_the_install_cell_installs_its_source(source, package, monkeypatch, tmp_path):
  assert run_install_cell(monkeypatch, tmp_path, source) == [package]


@pytest.mark.parametrize('has_wheel', [False, True])
def test_the_install_cell_says_what_to_do_where_pip_fails(has_wheel, monkeypatch, tmp_path):
  if has_wheel:
    (tmp_path / WHEEL).touch()
  with pytest.raises(RuntimeError, match=r'could not install spinejax.*python -m pip wheel \. '
                                         r'--no-deps.*upload it.*or set SOURCE'):
    run_install_cell(monkeypatch, tmp_path, status=1)


@pytest.mark.parametrize('name', SETTINGS)
def test_a_notebook_runs(name, tmp_path, monkeypatch):
  """In an empty folder: nothing is read from the repository but the package."""
  monkeypatch.setenv('JAX_NUM_CPU_DEVICES', '1')
  monkeypatch.setenv('PYTHONPATH', str(tiny.ROOT))
  monkeypatch.delenv('MPLBACKEND', raising=False)
  notebook = read(name)
  parameters, = (i for i, cell in enumerate(notebook.cells)
                 if 'parameters' in cell.metadata.get('tags', ()))
  notebook.cells.insert(parameters + 1, nbformat.v4.new_code_cell(ONE_LEVEL + SETTINGS[name]))
  kernel_name = install_kernel(tmp_path, monkeypatch)
  (tmp_path / 'notebooks').mkdir()
  nbclient.NotebookClient(notebook, timeout=240, kernel_name=kernel_name,
                          resources={'metadata': {'path': str(tmp_path / 'notebooks')}}).execute()
  outputs = [output for cell in notebook.cells for output in cell.get('outputs', ())]
  assert sum('image/png' in output.get('data', {}) for output in outputs) == PICTURES[name]
  assert any('angle: ' in output.get('text', '') for output in outputs)
  assert len(list((tmp_path / 'notebooks').glob('runs/*/report/index.html'))) == 1


def install_kernel(tmp_path, monkeypatch) -> str:
  """Makes a kernel of this Python, whatever kernels are installed; returns its name."""
  folder = tmp_path / 'jupyter' / 'kernels' / 'this'
  folder.mkdir(parents=True)
  (folder / 'kernel.json').write_text(json.dumps({
      'argv': [sys.executable, '-m', 'ipykernel_launcher', '-f', '{connection_file}'],
      'display_name': 'this', 'language': 'python'}))
  monkeypatch.setenv('JUPYTER_PATH', str(tmp_path / 'jupyter'))
  return 'this'
