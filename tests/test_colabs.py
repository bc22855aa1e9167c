"""The notebooks run from top to bottom, at sizes that take seconds, and show their pictures."""
import json
import sys

import nbclient
import nbformat
import pytest

from tests import tiny

FOLDER = tiny.ROOT / 'colabs'
EXACT = "'augment.rotation': 0.0, 'augment.translation': 0.0, 'augment.scale': (1.0, 1.0)"
SETTINGS = {  # in place of those of the cell tagged 'parameters'
    '01_train_and_measure': f"""SETTINGS = {{ {EXACT},
    'num_steps': 2, 'eval_every': 2, 'model.features': 2,
    'data.num_train': 4, 'data.num_validation': 1, 'data.num_test': 1,
    'data.render_size': (96, 48), 'data.image_size': (64, 32), 'data.patch_size': (32, 32)}}""",
    '02_laminae_3d': """SETTINGS = {  # the centroid loss is slow to compile
    'loss.name': 'dice', 'loss.gradient': None, 'loss.distance_floor': None,
    'loss.connectivity': None, 'num_steps': 2, 'eval_every': 2, 'model.features': 2,
    'model.levels': 1, 'data.num_train': 2, 'data.num_validation': 0, 'data.num_test': 1,
    'data.render_size': (48, 16, 8), 'data.image_size': (48, 16, 8),
    'data.patch_size': (48, 16, 8)}""",
    '03_your_own_images': f"""NUM_PHANTOMS = 6
SETTINGS = {{ {EXACT},
    'num_steps': 2, 'eval_every': 2, 'batch_size': 2, 'model.features': 4, 'model.levels': 1,
    'data.image_size': (64, 32), 'data.patch_size': (64, 32),
    'data.num_train': 0, 'data.num_validation': 0, 'data.num_test': 1}}""",
}
PICTURES = {'01_train_and_measure': 7, '02_laminae_3d': 6, '03_your_own_images': 4}


def read(name):
  return nbformat.read(FOLDER / f'{name}.ipynb', as_version=4)


def test_every_notebook_is_here():
  assert {path.stem for path in FOLDER.iterdir()} == set(SETTINGS)


@pytest.mark.parametrize('name', SETTINGS)
def test_a_notebook_is_stored_without_outputs_and_says_what_it_is(name):
  notebook = read(name)
  nbformat.validate(notebook)
  code = [cell for cell in notebook.cells if cell.cell_type == 'code']
  assert not any(cell.outputs or cell.execution_count for cell in code)
  assert max(len(line) for cell in code for line in cell.source.splitlines()) <= 100
  text = ' '.join(cell.source for cell in notebook.cells if cell.cell_type == 'markdown')
  assert 'Research software, not a medical device' in text and '**phantoms**' in text
  assert code[0].source == read('01_train_and_measure').cells[1].source  # the install cell


@pytest.mark.parametrize('name', SETTINGS)
def test_a_notebook_runs(name, tmp_path, monkeypatch):
  """In a folder beside the project's, so that its runs stay out of it."""
  for folder in ('configs', 'spinejax'):
    (tmp_path / folder).symlink_to(tiny.ROOT / folder)
  (tmp_path / 'colabs').mkdir()
  monkeypatch.setenv('JAX_NUM_CPU_DEVICES', '1')
  monkeypatch.setenv('PYTHONPATH', str(tiny.ROOT))
  monkeypatch.delenv('MPLBACKEND', raising=False)
  notebook = read(name)
  parameters, = (i for i, cell in enumerate(notebook.cells)
                 if 'parameters' in cell.metadata.get('tags', ()))
  notebook.cells.insert(parameters + 1, nbformat.v4.new_code_cell(SETTINGS[name]))
  nbclient.NotebookClient(notebook, timeout=240, kernel_name=kernel(tmp_path, monkeypatch),
                          resources={'metadata': {'path': str(tmp_path / 'colabs')}}).execute()
  outputs = [output for cell in notebook.cells for output in cell.get('outputs', ())]
  assert sum('image/png' in output.get('data', {}) for output in outputs) == PICTURES[name]
  assert 'angle: ' in outputs[-1].text and (tmp_path / 'runs').is_dir()


def kernel(tmp_path, monkeypatch) -> str:
  """A kernel that is this Python, whatever kernels are installed."""
  folder = tmp_path / 'jupyter' / 'kernels' / 'this'
  folder.mkdir(parents=True)
  (folder / 'kernel.json').write_text(json.dumps({
      'argv': [sys.executable, '-m', 'ipykernel_launcher', '-f', '{connection_file}'],
      'display_name': 'this', 'language': 'python'}))
  monkeypatch.setenv('JUPYTER_PATH', str(tmp_path / 'jupyter'))
  return 'this'
