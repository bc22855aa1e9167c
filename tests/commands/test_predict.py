"""`spinejax predict` from the command line."""
import numpy as np
from PIL import Image
import pytest

from tests import processes


def call(*arguments):
  return processes.call('-m', 'spinejax', 'predict', *arguments)


@pytest.mark.xdist_group('inference')  # one worker writes the run
def test_a_folder_is_predicted_and_unreadable_files_are_skipped(image_run, tmp_path):
  source, output = tmp_path / 'new', tmp_path / 'out'
  source.mkdir()
  rng = np.random.default_rng(0)
  Image.fromarray(rng.integers(0, 255, (70, 30), np.uint8)).save(source / 'gray.png')
  Image.fromarray(rng.integers(0, 255, (40, 90, 3), np.uint8)).save(source / 'color.jpg')
  Image.fromarray(rng.integers(0, 65535, (33, 21)).astype(np.uint16)).save(source / 'deep.tif')
  (source / 'broken.png').write_bytes((source / 'gray.png').read_bytes()[:200])
  (source / 'notes.txt').write_text('not an image')
  result = call(f'--workdir={image_run}', f'--input={source}', f'--output={output}',
                '--memory=4GB')
  assert result.returncode == 1
  assert 'broken.png' in result.stderr and 'notes.txt' in result.stderr
  assert 'Traceback' not in result.stderr and '3 of 5 files' in ' '.join(result.stdout.split())
  assert 'Within 4GB of memory: 2 at a time, images of 64 x 40 pixels' in result.stdout
  written = {path.name for path in output.iterdir()}
  sizes = {name: Image.open(output / name).size for name in written
           if name.endswith(('_mask.png', '_overlay.png'))}
  assert sizes == {'gray_mask.png': (30, 70), 'gray_overlay.png': (30, 70),
                   'color_mask.png': (90, 40), 'color_overlay.png': (90, 40),
                   'deep_mask.png': (21, 33), 'deep_overlay.png': (21, 33)}
  assert written - set(sizes) == {
      'angles.csv', 'angles_curves.csv', 'index.html', *(
          f'{name}_angle.{kind}' for name in ('gray', 'color', 'deep')
          for kind in ('json', 'png', 'html'))}
  table = (output / 'angles.csv').read_text(encoding='utf-8')
  assert table.count('the spacing is unknown') == 3  # said, not guessed


@pytest.mark.parametrize('arguments, sentence', [
    (['--workdir={tmp}', '--input={tmp}/none', '--output={tmp}/o'], 'no such file or folder'),
    (['--workdir={tmp}/none', '--input=pyproject.toml', '--output={tmp}/o'], 'holds no run'),
    (['--workdir={tmp}', '--input=launch', '--output=launch'], 'another folder than --input'),
    (['--workdir={tmp}', '--input=launch', '--output={tmp}/o', '--memory=4'],
     'memory is given as 4GB'),
    # An unknown format is refused before the run is read.
    (['--workdir={tmp}', '--input=launch', '--output={tmp}/o', '--formats=nifty'],
     "unknown format 'nifty'")])
def test_wrong_input_is_one_sentence(tmp_path, arguments, sentence):
  result = call(*[argument.format(tmp=tmp_path) for argument in arguments])
  assert result.returncode == 1, result.stderr
  assert result.stderr.startswith('error: ') and sentence in result.stderr
  assert len(result.stderr.strip().splitlines()) == 1
