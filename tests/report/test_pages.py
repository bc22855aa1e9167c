"""The page of a run: what it says, that it is alone and well-formed, and that text stays text."""
import dataclasses
import io
import json
import re

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from spinejax import runs
from spinejax.measurement.results import AngleResult
from spinejax.metrics import agreement
from spinejax.metrics.results import (
    AngleSummary, AttentionMaps, CaseAngle, CaseResult, Evaluation, LaminaeSummary, NetworkScores,
    RocCurve, ShownCase, TestResult)
from spinejax.report import pages, style
from tests.report.html_page import Page

CLASSES = ('background', 'rib', 'thoracic process', 'lump')
METRICS = ('dice', 'iou', 'recall', 'precision')
NAMES = ('case 1', 'case 2', 'case 3')
pytestmark = pytest.mark.xdist_group('test_pages')  # one worker writes the page


def make_result(classes=CLASSES, names=NAMES, **fields):
  rng = np.random.default_rng(0)

  def table():
    keys = (*classes, 'mean_foreground', 'mean_all')
    rated = {metric: {key: float(rng.uniform()) for key in keys} for metric in METRICS}
    return rated | {'accuracy': {key: float(rng.uniform()) for key in keys[-2:]}}

  per_image = table()
  spread = {f'{metric}_sd': {key: value / 9 for key, value in values.items()}
            for metric, values in per_image.items()}
  return TestResult(**{
      'step': 7, 'per_image': per_image | spread, 'pooled': table(),
      'cases': {name: CaseResult(name, table()) for name in names},
      'auc': {name: float(rng.uniform()) for name in classes[1:]}, **fields})


def make_case(name, role, shape=(40, 10), classes=CLASSES, **fields):
  rng = np.random.default_rng(0)
  probs = rng.dirichlet(np.ones(len(classes)), shape).astype(np.float32)
  return ShownCase(**{
      'name': name, 'role': role, 'image': rng.integers(0, 256, shape, np.uint8),
      'label': rng.integers(0, len(classes), shape), 'prediction': probs.argmax(-1),
      'probs': probs, 'dice': 0.5, 'angle': None, 'interlaced': False, **fields})


def make_history(classes):
  train = [{'step': step, 'phase': 'train', 'loss': 1 / step, 'loss/center': 0.1 / step,
            'learning_rate': 1e-3} for step in range(10, 60, 10)]
  return train + [{'step': 50, 'phase': 'validation', 'loss': 0.1, 'dice/mean_foreground': 0.5,
                   **{f'dice/{name}': 0.4 for name in classes}}]


def write(folder, result=None, *, classes=CLASSES, shown=(), roc=None, history=(), data='folder',
          manifest=None, dataset=None):
  """Writes a run folder and its report; returns the path and the text of the page."""
  result = make_result(classes) if result is None else result
  config = ConfigDict({'seed': 17, 'model': {'name': 'unet'},
                       'data': {'name': data, 'classes': classes}})
  runs.write_json(folder / 'config.json', config)
  runs.write_json(folder / 'dataset.json', {'split': {}, **(dataset or {})})
  runs.write_json(folder / 'manifest.json', {'starts': [], **(manifest or {})})
  runs.write_text(folder / 'metrics.jsonl', ''.join(json.dumps(row) + '\n' for row in history))
  path = pages.write_run_report(folder, config, Evaluation(result, roc or {}, tuple(shown)))
  return path, path.read_text(encoding='utf-8')


@pytest.fixture(scope='module')
def full(tmp_path_factory):
  """A page with everything: the path, the text, and its content as `Page`."""
  start = {'command': 'python -m spinejax.main --config=configs/seam.py:quick --workdir=runs/a',
           'date': '2031-02-03', 'devices': ['cpu:0', 'cpu:1'], 'num_parameters': 1234567,
           'versions': {'spinejax': '9.8', 'jax': '7.6', 'flax': '5.4'}}
  shapes = (40, 10), (24, 24), (20, 60, 3)
  path, text = write(
      tmp_path_factory.mktemp('run'), history=make_history(CLASSES),
      roc={CLASSES[1]: RocCurve((0, 0, 1), (0, 1, 1), 1.0)},
      shown=[make_case(name, role, shape[:2], image=np.zeros(shape, np.float32))
             for name, role, shape in zip(NAMES, ('best', 'median', 'worst'), shapes)],
      manifest={'starts': [start | {'date': '2030-01-01'}, start],
                'durations': {'train': 3723.4, 'test': 61.6, 'start': 0.25}},
      dataset={'split': {'train': ['p1_a', 'p1_b'], 'test': ['p2_a']},
               'patients': {'train': ['p1'], 'test': ['p2_a']}, 'mean': 71.123456789,
               'fingerprint': {'train': 'abc123'}})
  return path, text, Page(text)


def test_page_is_well_formed_and_alone(full):
  path, text, page = full
  assert path.name == 'index.html' and [item.name for item in path.parent.iterdir()] == [path.name]
  assert len(page.ids) == len(set(page.ids)) > 20
  assert text.count('<svg') == 10 and len(re.findall(r'<svg role="img" aria-label="\w', text)) == 10
  # Each case has 4 pictures, 4 maps and a color bar.
  assert text.count('data:image/png;base64,') == 27
  for tag, name, value in page.attributes:
    assert tag != 'script' and not name.startswith('on')
    if name in ('src', 'href', 'xlink:href', 'action'):
      assert value.startswith(('#', 'data:image/png;base64,'))
    for reference in re.findall(r'url\(#([^)]*)\)', value or '') + (
        [value[1:]] if name == 'href' and value.startswith('#') else []):
      assert reference in page.ids
  assert 'http' not in text.replace('http-equiv', '')
  assert '@import' not in text and '<link' not in text


def test_result_table_is_the_result(full):
  result, rows = make_result(), full[2].tables['metrics']
  assert rows[1] == ['Dice', 'IoU', 'Recall', 'Precision', 'Accuracy'] * 2
  body = {row[0]: row[1:] for row in rows[2:]}
  assert list(body) == ['rib', 'thoracic process', 'lump', 'mean of the foreground classes',
                        'background', 'mean of all classes']
  for name, key in (('rib', 'rib'), ('background', 'background'),
                    ('mean of the foreground classes', 'mean_foreground'),
                    ('mean of all classes', 'mean_all')):
    per_image, pooled, auc = body[name][:5], body[name][5:10], body[name][10]
    for shown, metric in zip(per_image, METRICS):
      value, spread = (result.per_image[m][key] for m in (metric, f'{metric}_sd'))
      assert shown == f'{value:.3f} ± {spread:.3f}'
    assert pooled[:4] == [f'{result.pooled[metric][key]:.3f}' for metric in METRICS]
    accuracy = result.pooled['accuracy']
    assert pooled[4] == (f'{accuracy[key]:.3f}' if key in accuracy else '')
    assert auc == (f'{result.auc[key]:.3f}' if key in result.auc else '')


def test_cases_are_sorted_by_dice(full):
  tables = {name: case.overlap for name, case in make_result().cases.items()}
  keys = ('rib', 'thoracic process', 'lump', 'mean_foreground', 'background', 'mean_all')
  assert full[2].tables['scores'][1:] == [
      [name, *(f'{tables[name]["dice"][key]:.3f}' for key in keys),
       f'{tables[name]["iou"]["mean_foreground"]:.3f}']
      for name in sorted(tables, key=lambda name: -tables[name]['dice']['mean_foreground'])]


def test_headline_and_notices(full):
  text, dice = full[2].text, make_result().per_image
  assert (f'{dice["dice"]["mean_foreground"]:.3f} ± {dice["dice_sd"]["mean_foreground"]:.3f} Dice, '
          'mean of the foreground classes , per image: mean ± standard deviation of 3 test cases'
          ) in text
  assert 'unet, step 7' in text and 'best · case 1' in text
  assert 'Research software, not a medical device.' in text
  assert 'phantom' not in text and 'undefined: the class' not in text


def test_the_run_is_described(full):
  path, text, page = full
  for words in ('configs/seam.py:quick · 2031-02-03 · spinejax 9.8 · jax 7.6', 'Seed 17',
                'Parameters 1,234,567', 'Devices cpu:0, cpu:1', 'Hash of the data train abc123',
                'Durations train 1 h 02 min · test 1 min 02 s · start 0.2 s', 'flax 5.4',
                'Split: train, 2 cases p1_a, p1_b', 'Split: patients of train, 1 p1',
                'Split: test, 1 case p2_a', 'Mean gray level 71.1235',
                'Earlier starts of this run, 1 2030-01-01'):
    assert words in page.text, words
  assert 'patients of test' not in page.text
  shown = re.search(r'<pre id="config">(.*?)</pre>', text, re.DOTALL)[1].replace('&#34;', '"')
  assert json.loads(shown) == json.loads((path.parents[1] / 'config.json').read_text())


def test_everything_given_is_text_never_markup(tmp_path):
  evil = '<script>alert("1")</script>&amp;'
  classes = ('background', evil)
  _, text = write(
      tmp_path, make_result(classes, (evil,)), classes=classes, data=evil,
      roc={evil: RocCurve((0, 1), (0, 1), 0.5)},
      shown=[make_case(evil, evil, (20, 20), classes)],
      manifest={'starts': [{'command': evil, 'date': evil, 'versions': {evil: evil}, evil: evil}]},
      dataset={'split': {evil: [evil]}, 'patients': {evil: [evil, evil]}})
  page = Page(text)
  assert '<script' not in text and not [tag for tag, _, _ in page.attributes if tag == 'script']
  assert page.tables['scores'][1][0] == page.tables['metrics'][2][0] == evil
  assert evil in page.text
  labels = [value for _, name, value in page.attributes if name == 'aria-label']
  assert any(value.startswith(f'Case {evil}: image, true mask') for value in labels)


def test_undefined_values_are_dashes_with_a_note(tmp_path):
  result = make_result(at_network_size=NetworkScores(0.25, 0.9))
  for table in (result.per_image['dice'], result.per_image['dice_sd'], result.pooled['dice'],
                result.auc):
    table['lump'] = None
  undefined = result.cases['case 2'].overlap['dice']
  undefined.update(dict.fromkeys(undefined))
  page = Page(write(tmp_path, result, roc={'lump': RocCurve((), (), None)})[1])
  lump = next(row for row in page.tables['metrics'] if row[0] == 'lump')
  assert lump[1] == lump[6] == lump[11] == '–'
  assert page.tables['scores'][-1][:5] == ['case 2', '–', '–', '–', '–']
  assert '– means undefined: the class is absent' in page.text
  assert "At the network's size: cross entropy 0.250, pixel accuracy 0.900." in page.text
  assert 'nan' not in page.text and 'None' not in page.text


def test_nothing_tested_and_nothing_trained(tmp_path):
  empty = TestResult(0, {}, {}, {}, {})
  _, text = write(tmp_path, empty, data='vpi_phantom')
  page = Page(text)
  assert 'No test results' in page.text and 'No training history' in page.text
  assert 'All cases are computer-made phantoms, not clinical data.' in page.text
  assert not page.tables and '<svg' not in text
  _, text = write(tmp_path, empty, history=make_history(CLASSES)[:1])
  assert 'No test results' in Page(text).text and text.count('<svg') == 1


def test_one_case_of_a_binary_problem(tmp_path):
  classes = ('background', 'bone')
  result = make_result(classes, ('only',))
  result.per_image['dice_sd'].update(dict.fromkeys(result.per_image['dice_sd']))
  page = Page(write(tmp_path, result, classes=classes, shown=[
      make_case('only', 'best', (24, 24), classes, interlaced=True)])[1])
  assert '1 test case.' not in page.text and 'of 1 test case' in page.text
  assert page.tables['metrics'][2][1] == f'{result.per_image["dice"]["bone"]:.3f}'
  assert f'{result.auc["bone"]:.3f} AUC, bone against background' in page.text
  labels = [value for _, name, value in page.attributes if name == 'aria-label']
  assert [label for label in labels if label.startswith('Case')] == [
      'Case only: image, true mask, predicted mask and contours; Dice 0.500',
      'Case only: predicted probability of each class']


def test_laminae_stand_by_region_and_by_case(tmp_path):
  classes = ('background', 'lamina')
  regions = {'all': 3.25, 'thoracic': 1.0, 'lumbar': 2.25}
  laminae = LaminaeSummary(
      mean={'true': regions, 'missed': regions, 'd3d_sum': regions,
            'd3d_sum_mm': dict.fromkeys(regions)},
      sd={'true': regions, 'missed': dict.fromkeys(regions), 'd3d_sum': regions},
      localizer_dice={'0.5': 0.654})
  result = make_result(classes, ('a', 'b'), laminae=laminae)
  result.cases['a'] = dataclasses.replace(
      result.cases['a'], laminae={'missed': {'all': 2}, 'd3d_sum': {'all': 4.5}})
  page = Page(write(tmp_path, result, classes=classes, data='volume_phantom')[1])
  assert page.tables['laminae'] == [
      ['Region', 'True', 'Missed', 'Total d₃D, voxels'],
      ['all laminae', '3.2 ± 3.2', '3.2', '3.2 ± 3.2'],
      ['thoracic', '1.0 ± 1.0', '1.0', '1.0 ± 1.0'], ['lumbar', '2.2 ± 2.2', '2.2', '2.2 ± 2.2']]
  assert {row[0]: row[-2:] for row in page.tables['scores'][1:]} == {
      'a': ['2', '4.5'], 'b': ['', '']}
  assert 'A perfect localizer reaches a Dice of 0.65' in page.text
  assert 'A perfect localizer reaches 0.65 if labels are 0.5 voxel off' in page.text


def test_angles_stand_against_their_reference(tmp_path):
  angles = {'case 1': CaseAngle(10.0, 12.5, 20.0, 'mild', 'ok', ()),
            'case 2': CaseAngle(30.0, 29.0, None, 'moderate', 'partial', ('low contrast',)),
            'case 3': CaseAngle(None, None, None, None, 'fail', ('no spine',))}
  truth, measured, naive = ([getattr(angle, field) for angle in angles.values()]
                            for field in ('reference_deg', 'angle_deg', 'naive_deg'))
  result = make_result(angles=AngleSummary(
      'uca', 'true masks', 1, agreement.agree(truth, measured), agreement.agree(truth, naive)))
  cases = {name: dataclasses.replace(case, angle=angles[name])
           for name, case in result.cases.items()}
  shown = make_case('case 1', 'best', angle=AngleResult('uca', 'fail', flags=('no spine',)))
  _, text = write(tmp_path, dataclasses.replace(result, cases=cases), shown=[shown])
  page = Page(text)
  assert page.tables['angles'][1][:3] == ['measured', '1.8 ± 1.1', '0.8']
  assert page.tables['angles'][2][0] == 'naive'
  assert page.tables['angle-cases'][1:] == [
      ['case 1', '10.0', '12.5', '2.5', 'mild', 'ok', ''],
      ['case 2', '30.0', '29.0', '−1.0', 'moderate', 'partial', 'low contrast'],
      ['case 3', '–', '–', '–', '–', 'fail', 'no spine']]
  for words in ('Largest angle (uca) in 2 of 3 cases', 'the same measurement on the true masks',
                'Failed: 1. Most common reason (1 of 1): no spine.',
                'True masks without an angle: 1.',
                '1.8° mean absolute error of the largest angle, 2 of 3 cases'):
    assert words in page.text, words
  assert text.count('<svg') == 6  # Dice by case, two plots of angles, three pictures of the case


def test_embedded_pictures_are_lossless():
  rng = np.random.default_rng(0)
  palette = rng.integers(0, 256, (256, 3), np.uint8)
  pictures = {'L': np.repeat(rng.integers(0, 256, (9, 7, 1), np.uint8), 3, -1),
              'P': palette[rng.integers(0, 256, (40, 30))],
              'RGB': rng.integers(0, 256, (40, 30, 3), np.uint8),
              'RGBA': rng.integers(0, 256, (5, 6, 4), np.uint8)}
  for mode, pixels in pictures.items():
    out = io.BytesIO()
    Image.fromarray(pixels).convert('RGBA').save(out, format='PNG')
    image = Image.open(io.BytesIO(style.shrink_png(out.getvalue())))
    assert image.mode == mode
    np.testing.assert_array_equal(np.asarray(image.convert('RGBA' if mode == 'RGBA' else 'RGB')),
                                  pixels)


def test_maps_of_attention_are_pictures_of_their_case(tmp_path):
  """One row of the affinity is one-hot, and half of a channel is its own."""
  affinity = np.float32([[1, 0, 0, 0], [0.5, 0.5, 0, 0]])
  maps = AttentionMaps(np.zeros((40, 10), int), np.full((40, 10, 4), 0.25, np.float32), affinity,
                       np.zeros((40, 10), np.float32), np.full((2, 2), 0.5, np.float32))
  _, plain = write(tmp_path, shown=[make_case('a', 'best')])
  _, text = write(tmp_path, shown=[make_case('a', 'best', maps=maps)])
  assert text.count('<svg') == plain.count('<svg') + 2
  assert 'affinity: 1 of 2 rows above 0.99; channels: 0 of 2 rows above 0.99, mean weight of a ' \
      'channel in itself 0.50' in text
  Page(text)


def test_three_real_images_fit_in_five_megabytes(tmp_path, shared):
  folder = shared / 'data' / 'vpi_sa2net_demo'
  image, label = (np.asarray(Image.open(folder / f'{name}.png')) for name in ('image', 'label'))
  shown = ShownCase('a', 'best', image, label, np.roll(label, 9, 1),
                    np.eye(4, dtype=np.float32)[label], 0.9, None, False)
  path, _ = write(tmp_path, TestResult(0, {}, {}, {}, {}), shown=[shown])
  assert path.stat().st_size < 5e6 / 3
