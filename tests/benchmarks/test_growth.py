"""Growth of time and memory: its fit, its programs, its output. No time is judged."""
import contextlib
import json

import numpy as np
from PIL import Image
import pytest
from scipy import ndimage

from benchmarks import curves, growth, harness, worker
from spinejax.models import resnet
from tests import processes

MACHINE = harness.Machine('cpu', None, '', {}, {'device': 'a processor', 'versions': {}})


@pytest.fixture
def alone(monkeypatch):
  """The process that measures is this one, and the backbone of SEAM has a block a stage."""
  answer = worker.create_answer(curves.OPS)

  def ask(op, **request):
    reply = json.loads(json.dumps(answer({'op': op, **request})))
    if 'error' in reply:
      raise worker.WorkerError(reply['error'])
    return reply

  monkeypatch.setattr(worker, 'started', lambda side: contextlib.nullcontext(ask))
  monkeypatch.setitem(resnet.BACKBONES, 'resnet50_v1c', ((1, 1, 1, 1), True))


def row(name, value, time, num_bytes):
  return {'curve': name, 'quantity': growth.CURVES[name].quantity, 'value': value, 'status': 'ok',
          'wall_min': time, 'bytes': num_bytes}


@pytest.mark.parametrize('power', [0, 0.5, 1, 2.5])
def test_exponent_of_a_power_law(power):
  values = np.array([1, 2, 3, 7, 20, 64])
  assert growth.exponent(values, 5e-3 * values ** power) == pytest.approx(power, abs=1e-12)


def test_exponent_is_that_of_the_upper_half():
  values = [1, 2, 4, 8, 16, 32, 64, 128]
  assert growth.exponent(values, [9, 9, 9, 9, 1, 4, 16, 64]) == pytest.approx(2)
  assert growth.exponent(values[:5], [9, 9, 1, 2, 4]) == pytest.approx(1)  # of 3 points at least
  # y = 0, 1, 3 log 2 over x = 0, 1, 2 log 2: the slope of least squares is 3 / 2
  assert growth.exponent([1, 2, 4], [1, 2, 8]) == pytest.approx(1.5)


def test_no_exponent_without_points_or_costs():
  assert growth.exponent([4], [1.0]) is None
  assert growth.exponent([1, 2, 4], [0, 0, 0]) is None


def test_every_curve_has_its_programs():
  assert list(growth.CURVES) == list(curves.BUILDERS)
  for name, curve in growth.CURVES.items():
    assert list(curve.values) == sorted(set(curve.values)) and len(curve.values) >= 3, name


# The others differ from one of these in an argument only.
@pytest.mark.parametrize('name', [name for name in growth.CURVES if name not in (
    'seam_pixels', 'unet_batch', 'unet_classes')])
def test_the_smallest_point(alone, name):
  found, = growth.measure_curve(MACHINE, name, repeats=1, points=1)
  assert found == json.loads(json.dumps(found, allow_nan=False))
  assert found['status'] == 'ok', found['reason']
  assert (found['curve'], found['value']) == (name, growth.CURVES[name].values[0])
  assert found['bytes'] > 0 and 0 < found['wall_min'] <= found['wall_median']
  assert {'quantity', 'cpu_median', 'calls', 'load', 'date', 'device', 'versions'} <= set(found)


def test_a_point_that_fails_is_a_row(alone, monkeypatch):
  def fail(value):
    raise MemoryError('all of it')

  monkeypatch.setitem(curves.BUILDERS, 'channel', fail)
  found = list(growth.measure_curve(MACHINE, 'channel', repeats=1, points=2))
  assert [(one['status'], one['reason']) for one in found] == [('failed', 'all of it')] * 2
  assert growth.summarize(found) == {}


def test_memory_of_attention_is_what_it_keeps():
  """Of P = 24 x 24 positions: P^2 weights, P (24 + 24), and of 32 channels the map itself."""
  _, position = curves.BUILDERS['position'](576)
  _, criss_cross = curves.BUILDERS['criss_cross'](576)
  _, channel = curves.BUILDERS['channel'](576)
  assert position > 4 * 576 ** 2 > criss_cross > 4 * 576 * 48 and channel < criss_cross


@pytest.mark.parametrize('turns', [1, 2, 5, 8])
def test_a_spiral_is_one_path(turns):
  mask = curves.spiral(32, turns)
  labels, count = ndimage.label(mask)
  assert count == 1 and labels.shape == (32, 32)
  middle = mask[:, 16]  # crossed above and below by every turn
  assert middle.sum() == 2 * turns and not (middle[1:] & middle[:-1]).any()


def test_the_summary_and_what_grows_too_fast():
  rows = [row('criss_cross', n, 1e-6 * n ** 1.5, 8 * n ** 2) for n in (16, 64, 256)]
  rows += [row('components_winding', n, 1e-3, 1024) for n in (1, 2, 4)]
  summary = growth.summarize([*rows, {**rows[0], 'status': 'failed'}])
  assert summary['criss_cross']['values'] == [16, 64, 256]
  assert summary['criss_cross']['exponents'] == pytest.approx({'time': 1.5, 'memory': 2.0})
  assert summary['components_winding']['exponents'] == pytest.approx({'time': 0.0, 'memory': 0.0})
  assert growth.excess(summary) == ['memory of criss_cross (2.00, not 1)']


def test_labels_keep_their_order_and_a_distance():
  assert growth.spread([0.9, 0.2, 0.25], 0.1) == pytest.approx([0.9, 0.2, 0.3])
  assert growth.spread([1.0, 0.98, 0.5], 0.1) == pytest.approx([1.0, 0.9, 0.5])


def test_the_command_writes_points_and_picture(tmp_path):
  points, picture = tmp_path / 'points.jsonl', tmp_path / 'growth.png'
  done = processes.call('-m', 'benchmarks.growth', '--curves=measure_laminae', '--repeats=1',
                        f'--output={points}', f'--figure={picture}')
  assert done.returncode == 0, done.stderr
  assert 'measure_laminae' in done.stdout and 'More than 0.2 above: ' in done.stdout
  rows = [json.loads(line) for line in points.read_text().splitlines()]
  assert [row['value'] for row in rows] == list(growth.CURVES['measure_laminae'].values)
  assert all(row['bytes'] > 0 and row['wall_min'] > 0 for row in rows)
  assert {'load', 'date', 'device', 'versions', 'quantity'} <= set(rows[0])
  with Image.open(picture) as image:
    assert image.format == 'PNG' and min(image.size) > 500


@pytest.mark.parametrize('flag, words', [
    ('--curves=unet_pixels,height', "--curves takes unet_pixels, seam_pixels"),
    ('--curves=', "not 'nothing'"),
    ('--output=/nowhere/growth.jsonl', '--output must be a file in a folder that exists'),
    ('--figure=growth.txt', '--figure must end with .png, .pdf, .svg, not growth.txt'),
    ('--repeats=0', 'repeats')])
def test_wrong_flags_are_a_sentence(flag, words):
  done = processes.call('-m', 'benchmarks.growth', flag)
  assert done.returncode in (1, 2) and not done.stdout
  assert done.stderr.startswith('error: ') and words in done.stderr
  assert len(done.stderr.splitlines()) == 1
