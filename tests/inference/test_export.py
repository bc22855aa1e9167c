"""Exports: one file that predicts what the run predicts, without the run and without spinejax."""
import ast
import functools
import json
import os
import subprocess
import sys
import textwrap
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spinejax import runs
from spinejax.inference import export, load, predict, restore
from tests import tiny
from tests.inference import made

pytestmark = pytest.mark.xdist_group('inference')  # one worker writes the runs


def gray_levels(*shape):
  return np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)


def lines_of_the_docstring():
  """The indented lines that show how to load a file."""
  source = (tiny.ROOT / 'spinejax' / 'commands' / 'export.py').read_text()
  paragraphs = ast.get_docstring(ast.parse(source)).split('\n\n')
  paragraph, = [part for part in paragraphs if 'deserialize' in part]
  return textwrap.dedent(paragraph)


def count_native_3d(program):
  return program.count('[b, 0, 1, 2, f]x[0, 1, 2, i, o]->[b, 0, 1, 2, f]')


@pytest.fixture(scope='module')
def predictor(image_run):
  return load.load_predictor(image_run)


def test_a_stranger_with_the_ten_lines_predicts_what_the_run_does(image_run, predictor, tmp_path):
  metadata = export.export_run(image_run, tmp_path / 'model.zip')
  image, odd = gray_levels(64, 40, 1), gray_levels(45, 21, 1)
  np.save(tmp_path / 'image.npy', image)
  np.save(tmp_path / 'odd.npy', odd)
  lines = lines_of_the_docstring()
  assert len(lines.splitlines()) == 10
  code = ("import sys\nsys.modules['spinejax'] = None\n" + lines + textwrap.dedent('''
      odd = np.asarray(predict(np.load('odd.npy')[None])['logits'])[0]
      np.savez('found.npz', probs=probs, mask=mask, odd=odd)
      print(json.dumps(metadata))
      '''))
  environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
  result = subprocess.run([sys.executable, '-I', '-c', code], cwd=tmp_path, env=environment,
                          text=True, capture_output=True, timeout=120, check=False)
  assert result.returncode == 0, result.stderr
  assert json.loads(result.stdout) == metadata
  prediction, = predict.predict_images(predictor, [image])
  run = restore.restore_run(image_run)
  expected = jax.jit(functools.partial(run.model.apply, train=False))(
      run.variables, (odd[None] - 100) / 50)['logits'][0]
  with np.load(tmp_path / 'found.npz') as found:
    np.testing.assert_allclose(found['probs'], prediction.probs, atol=1e-5)
    np.testing.assert_array_equal(found['mask'], prediction.mask)
    np.testing.assert_allclose(found['odd'], expected, rtol=1e-5, atol=1e-4)
    assert found['probs'].std() > 0.1
  assert metadata['step'] == 7 and metadata['any_size'] and metadata['classes'][0] == 'background'
  assert (metadata['mean'], metadata['std']) == ([100.0], [50.0])
  assert metadata['image_size'] == [64, 40] and 'linearly' in metadata['prepare'][0]
  assert 'phantoms' in metadata['notice'] and metadata['angle']['method'] == 'uca'
  assert metadata['versions']['jax'] == jax.__version__


def test_volumes_are_predicted_alike(volume_run, tmp_path):
  metadata = export.export_run(volume_run, tmp_path / 'model.zip')
  exported = export.load_exported(tmp_path / 'model.zip')
  volumes = gray_levels(2, 48, 16, 8, 1)
  expected = load.load_predictor(volume_run).logits(volumes[:1])
  found = exported.predict(volumes)
  assert found['probs'].shape == (2, 48, 16, 8, 2)
  np.testing.assert_allclose(found['logits'][:1], expected, rtol=1e-5, atol=1e-5)
  assert exported.metadata == metadata and metadata['any_size']
  assert [step[:6] for step in metadata['prepare']] == ['resize', 'subtra']
  with zipfile.ZipFile(tmp_path / 'model.zip') as file:
    assert file.testzip() is None
    program = jax.export.deserialize(bytearray(file.read('program.bin')))
  assert program.platforms == ('cpu', 'cuda', 'tpu') and program.nr_devices == 1
  # The network has 7 3-D convolutions, which JAX lowers once per platform. Those for CPU alone are
  # 2-D convolutions and matrix products, those for CUDA and TPU are native.
  assert count_native_3d(program.mlir_module()) == 7 * len(program.platforms)
  network, shape = export.load_network(volume_run), jax.ShapeDtypeStruct(volumes.shape, jnp.float32)
  for platform, count in (('cpu', 0), ('cuda', 7), ('tpu', 7)):
    alone = jax.export.export(jax.jit(network.logits), platforms=[platform])(shape)
    assert count_native_3d(alone.mlir_module()) == count
  with pytest.raises(ValueError, match=r"images must be \['N', 48, 16, 8, 1\] or of other sizes"):
    exported.predict(volumes[..., 0])


def test_a_network_of_one_size_says_so(tmp_path):
  made.write_run(tmp_path, 'seam:ppmu', (16, 8), **{'model.levels': 1})
  metadata = export.export_run(tmp_path, checkpoint='last')
  assert not metadata['any_size'] and metadata['checkpoint'] == 'last'
  note, = metadata['notes']
  assert note == ('This network takes images of 16 x 8 pixels only: its computation depends on '
                  'the number of pixels.')
  exported = export.load_exported(tmp_path / 'model.zip')
  images = gray_levels(3, 16, 8, 1)
  expected = jax.jit(export.load_network(tmp_path).logits)(images)
  np.testing.assert_allclose(exported.predict(images)['logits'], expected, rtol=1e-5, atol=1e-5)
  with pytest.raises(ValueError, match=r"images must be \['N', 16, 8, 1\], not \[3, 8, 8, 1\]"):
    exported.predict(images[:, :8])


@pytest.mark.parametrize('path, error, sentence', [
    ('', IsADirectoryError, '--output must be a file, .* is a folder'),
    ('a/b.zip', FileNotFoundError, 'there is no .*a')])
def test_an_output_that_cannot_be_written_is_one_sentence(tmp_path, path, error, sentence):
  with pytest.raises(FileNotFoundError, match=r'holds no run \(config.json is missing\)'):
    export.export_run(tmp_path)
  runs.write_json(tmp_path / 'config.json', {})
  with pytest.raises(error, match=sentence):
    export.export_run(tmp_path, tmp_path / path)


def test_other_files_are_one_sentence(tmp_path):
  path = tmp_path / 'model.zip'
  with pytest.raises(FileNotFoundError, match='there is no file'):
    export.load_exported(path)
  path.write_bytes(b'no archive')
  with pytest.raises(ValueError, match='is not an export of spinejax, is damaged'):
    export.load_exported(path)
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('metadata.json', '{}')
    file.writestr('program.bin', bytes(100))
  with pytest.raises(ValueError, match='is not an export of spinejax, is damaged'):
    export.load_exported(path)


def test_a_memory_limit_takes_fewer_images_then_smaller_parts(image_run, predictor):
  load_limited, whole = functools.partial(load.load_predictor, image_run), predictor
  assert (whole.batch_size, whole.tile) == (2, ()) and whole.num_bytes > 0
  fewer = load_limited(memory_limit=whole.num_bytes - 1)
  assert (fewer.batch_size, fewer.tile) == (1, ()) and fewer.num_bytes < whole.num_bytes
  parts = load_limited(memory_limit=fewer.num_bytes - 1)
  assert (parts.batch_size, parts.tile) == (1, (32, 40)) and parts.num_bytes < fewer.num_bytes
  images = gray_levels(2, 64, 40, 1)
  difference = np.abs(parts.logits(images[:1]) - whole.logits(images)[:1])
  assert difference[:, :8].max() < 1e-5  # one part alone has seen these rows, and 8 beyond
  assert difference.max() > 1e-5
  with pytest.raises(ValueError, match='even 32 x 32 pixels at a time need .* GiB of memory, but '
                     '--memory allows'):
    load_limited(memory_limit=1000)
