import html.parser
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from spinejax.report import html as report

CLASSES = ('background', 'rib', 'thoracic process', 'lump')
METRICS = ('dice', 'iou', 'recall', 'precision')
VOID = {'meta', 'link', 'input', 'br', 'img', 'hr'}


class Page(html.parser.HTMLParser):
  """Checks nesting and collects ids, attributes, the text of table rows and of elements by id."""

  def __init__(self, text):
    super().__init__()
    self.open, self.ids, self.attributes, self.tables, self.words = [], [], [], {}, []
    self.rows = None
    self.feed(text)
    self.close()
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.handle_startendtag(tag, attrs)
    if tag not in VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.attributes += [(tag, name, value) for name, value in attrs]
    self.ids += [value for name, value in attrs if name == 'id']
    if tag == 'table':
      self.rows = self.tables[dict(attrs)['id']] = []
    elif tag == 'tr':
      self.rows.append([])
    elif tag in ('td', 'th'):
      self.rows[-1].append('')

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open and self.open[-1] != 'style':
      self.words.append(data)
    if any(tag in ('td', 'th') for tag in self.open):
      self.rows[-1][-1] += data.strip('\n')

  @property
  def text(self):
    return ' '.join(' '.join(self.words).split())


def make_results(classes, names, seed=0):
  rng = np.random.default_rng(seed)

  def table():
    keys = (*classes, 'mean_foreground', 'mean_all')
    rated = {metric: {key: float(rng.uniform()) for key in keys} for metric in METRICS}
    return rated | {'accuracy': {key: float(rng.uniform()) for key in keys[-2:]}}

  per_image = table()
  spread = {f'{metric}_sd': {key: value / 9 for key, value in values.items()}
            for metric, values in per_image.items()}
  auc = {name: float(rng.uniform()) for name in classes[1:]}
  return {'per_image': per_image | spread, 'pooled': table(), 'auc': auc,
          'cases': {name: table() for name in names}}


def make_case(name, role, shape, classes, seed=0):
  rng = np.random.default_rng(seed)
  probs = rng.dirichlet(np.ones(len(classes)), shape).astype(np.float32)
  return {'name': name, 'role': role, 'image': rng.integers(0, 256, shape, np.uint8),
          'label': rng.integers(0, len(classes), shape), 'prediction': probs.argmax(-1),
          'probs': probs, 'dice': 0.5}


def make_history(classes):
  train = [{'step': step, 'phase': 'train', 'loss': 1 / step, 'loss/center': 0.1 / step,
            'learning_rate': 1e-3} for step in range(10, 60, 10)]
  return train + [{'step': 50, 'phase': 'validation', 'loss': 0.1, 'dice/mean_foreground': 0.5,
                   **{f'dice/{name}': 0.4 for name in classes}}]


def write(directory, classes=CLASSES, **changes):
  names = ('case 1', 'case 2', 'case 3')
  content = {
      'title': 'A run', 'config': {'data': {'name': 'folder'}}, 'manifest': {},
      'history': make_history(classes), 'results': make_results(classes, names),
      'roc': {classes[1]: {'fpr': [0, 0, 1], 'tpr': [0, 1, 1], 'auc': 1.0}},
      'cases': [make_case(name, role, (40, 10), classes)
                for name, role in zip(names, ('best', 'median', 'worst'))]}
  path = report.write_report(directory, **(content | changes), classes=classes)
  return path, path.read_text(encoding='utf-8')


@pytest.fixture(scope='module')
def full(tmp_path_factory):
  return write(tmp_path_factory.mktemp('report') / 'new' / 'folder')


def test_page_is_well_formed_and_alone(full):
  path, text = full
  assert path.name == 'index.html' and [item.name for item in path.parent.iterdir()] == [path.name]
  page = Page(text)
  assert len(page.ids) == len(set(page.ids)) > 20
  assert text.count('<svg') == 10 and len(re.findall(r'<svg role="img" aria-label="\w', text)) == 10
  for tag, name, value in page.attributes:
    assert tag != 'script' and not name.startswith('on')
    if name in ('src', 'href', 'xlink:href', 'action'):
      assert value.startswith(('#', 'data:image/png;base64,'))
    for reference in re.findall(r'url\(#([^)]*)\)', value or '') + (
        [value[1:]] if name == 'href' and value.startswith('#') else []):
      assert reference in page.ids
  assert 'http' not in text.replace('http-equiv', '')
  assert '@import' not in text and '<link' not in text


def test_result_table_is_the_results(full):
  results = make_results(CLASSES, ('case 1', 'case 2', 'case 3'))
  rows = Page(full[1]).tables['metrics']
  assert rows[1] == ['Dice', 'IoU', 'Recall', 'Precision', 'Accuracy'] * 2
  body = {row[0]: row[1:] for row in rows[2:]}
  assert list(body) == ['rib', 'thoracic process', 'lump', 'mean of foreground', 'background',
                        'mean of all classes']
  for name, key in (('rib', 'rib'), ('background', 'background'), ('mean of foreground', 'mean_foreground'),
                    ('mean of all classes', 'mean_all')):
    per_image, pooled, auc = body[name][:5], body[name][5:10], body[name][10]
    for shown, metric in zip(per_image, METRICS):
      value, spread = (results['per_image'][m][key] for m in (metric, f'{metric}_sd'))
      assert shown == f'{value:.3f} ± {spread:.3f}'
    assert pooled[:4] == [f'{results["pooled"][metric][key]:.3f}' for metric in METRICS]
    accuracy = results['pooled']['accuracy']
    assert pooled[4] == (f'{accuracy[key]:.3f}' if key in accuracy else '')
    assert auc == (f'{results["auc"][key]:.3f}' if key in results['auc'] else '')


def test_cases_are_sorted_by_dice(full):
  cases = make_results(CLASSES, ('case 1', 'case 2', 'case 3'))['cases']
  rows = Page(full[1]).tables['scores'][1:]
  order = sorted(cases, key=lambda name: -cases[name]['dice']['mean_foreground'])
  assert [row[0] for row in rows] == order
  for row in rows:
    dice = cases[row[0]]['dice']
    keys = ('rib', 'thoracic process', 'lump', 'mean_foreground', 'background', 'mean_all')
    assert row[1:7] == [f'{dice[key]:.3f}' for key in keys]
    assert row[7] == f'{cases[row[0]]["iou"]["mean_foreground"]:.3f}'


def test_headline_and_notices(full, tmp_path):
  text = Page(full[1]).text
  results = make_results(CLASSES, ('case 1', 'case 2', 'case 3'))
  assert (f'{results["per_image"]["dice"]["mean_foreground"]:.3f} ± '
          f'{results["per_image"]["dice_sd"]["mean_foreground"]:.3f} Dice, mean of foreground , per image; '
          '3 test cases') in text
  assert 'Research software, not a medical device.' in text
  assert 'phantom' not in text
  _, phantom = write(tmp_path, config={'data': {'name': 'vpi_phantom'}}, history=[], cases=[],
                     roc=None)
  assert 'All cases are computer-made phantoms, not clinical data.' in Page(phantom).text


def test_everything_given_is_text_never_markup(tmp_path):
  evil = '<script>alert("1")</script>&amp;'
  classes = ('background', evil)
  _, text = write(
      tmp_path, classes=classes, title=evil, config={'data': {'name': evil}},
      manifest={'starts': [{'command': evil, 'date': evil, 'versions': {evil: evil}, evil: evil}],
                'split': {evil: [evil]}, 'patients': {evil: [evil, evil]}},
      results=make_results(classes, (evil,)), roc={evil: {'fpr': [0, 1], 'tpr': [0, 1],
                                                          'auc': 0.5}},
      cases=[make_case(evil, evil, (20, 20), classes)])
  page = Page(text)
  assert '<script' not in text and not [tag for tag, _, _ in page.attributes if tag == 'script']
  assert page.tables['scores'][1][0] == evil
  assert page.tables['metrics'][2][0] == evil
  assert evil in page.text
  label = [value for _, name, value in page.attributes if name == 'aria-label']
  assert any(value.startswith(f'Case {evil}: image, true mask') for value in label)


def test_undefined_values_are_dashes_with_a_note(tmp_path):
  results = make_results(CLASSES, ('a', 'b'))
  results['per_image']['dice']['lump'] = None
  results['per_image']['dice_sd']['lump'] = None
  results['pooled']['dice']['lump'] = float('nan')
  results['auc']['lump'] = None
  results['cases']['b']['dice'] = {key: None for key in results['cases']['b']['dice']}
  _, text = write(tmp_path, results=results, history=[], cases=[], roc={
      'lump': {'fpr': [], 'tpr': [], 'auc': None}})
  page = Page(text)
  lump = next(row for row in page.tables['metrics'] if row[0] == 'lump')
  assert lump[1] == lump[6] == lump[11] == '–'
  assert page.tables['scores'][-1][:5] == ['b', '–', '–', '–', '–']
  assert 'undefined: class absent' in page.text
  assert 'nan' not in page.text and 'None' not in page.text


def test_defined_values_need_no_note(full):
  assert 'undefined: class absent' not in full[1]


def test_nothing_tested_and_nothing_trained(tmp_path):
  path, text = write(tmp_path, config={}, history=[], results=None, roc=None, cases=[])
  page = Page(text)
  assert 'No test results' in page.text and 'No training history' in page.text
  assert not page.tables and '<svg' not in text
  _, text = write(tmp_path, results={'per_image': {}, 'pooled': {}, 'cases': {}, 'auc': {}},
                  roc={}, cases=[])
  assert 'No test results' in Page(text).text and text.count('<svg') == 2
  assert list(tmp_path.iterdir()) == [path]


def test_one_case_of_a_binary_problem(tmp_path):
  classes = ('background', 'bone')
  case = make_case('only', 'best', (24, 24), classes)
  results = make_results(classes, ('only',))
  results['per_image']['dice_sd'] = dict.fromkeys(results['per_image']['dice_sd'])
  _, text = write(tmp_path, classes=classes, results=results, cases=[
      case, case | {'role': 'worst'}, case | {'name': 'bare', 'role': '', 'label': None,
                                              'probs': None, 'dice': None}])
  page = Page(text)
  assert '1 test case,' in page.text and 'best, worst · only' in page.text
  assert page.tables['metrics'][2][1] == f'{results["per_image"]["dice"]["bone"]:.3f}'
  assert 'any foreground' not in text
  labels = [value for _, name, value in page.attributes if name == 'aria-label']
  assert [label for label in labels if label.startswith('Case')] == [
      'Case only: image, true mask, predicted mask and contours; Dice 0.500',
      'Case only: predicted probability of each class',
      'Case bare: image, predicted mask and contours; Dice –']


@pytest.mark.parametrize('shape', [(300, 75), (64, 64), (30, 90, 3)])
def test_page_of_other_image_shapes(tmp_path, shape):
  case = make_case('a', 'best', shape[:2], CLASSES)
  case['image'] = np.zeros(shape, np.float32)
  _, text = write(tmp_path, cases=[case], history=[], roc=None)
  Page(text)
  assert text.count('data:image/png;base64,') == 9  # 4 pictures, 4 maps, the color bar


def test_what_was_run_is_told(tmp_path):
  start = {'command': 'python -m spinejax.main --config=configs/seam.py:quick --workdir=runs/a',
           'date': '2031-02-03', 'devices': ['cpu:0', 'cpu:1'],
           'versions': {'spinejax': '9.8', 'jax': '7.6', 'flax': '5.4'}}
  config = {'seed': 17, 'data': {'name': 'folder', 'classes': ('a', 'b')}}
  _, text = write(
      tmp_path, config=config, history=[], cases=[], roc=None,
      manifest={'starts': [start | {'date': '2030-01-01'}, start], 'num_parameters': 1234567,
                'fingerprint': {'train': 'abc123'}, 'durations': {'train': 3723.4, 'test': 61.6},
                'split': {'train': ['p1_a', 'p1_b'], 'test': ['p2_a']},
                'patients': {'train': ['p1'], 'test': ['p2_a']}, 'mean': 71.123456789})
  page = Page(text)
  for words in ('configs/seam.py:quick · 2031-02-03 · spinejax 9.8 · jax 7.6', 'Seed 17',
                'Parameters 1,234,567', 'Devices cpu:0, cpu:1', 'Hash of the data train abc123',
                'Durations train 1 h 02 min · test 1 min 02 s', 'flax 5.4',
                'Split: train, 2 cases p1_a, p1_b', 'Split: patients of train, 1 p1',
                'Split: test, 1 case p2_a', 'Mean gray level 71.1235',
                'Earlier starts of this run, 1 2030-01-01'):
    assert words in page.text, words
  assert 'patients of test' not in page.text
  shown = re.search(r'<pre id="config">(.*?)</pre>', text, re.DOTALL)[1].replace('&#34;', '"')
  assert json.loads(shown) == {'seed': 17, 'data': {'name': 'folder', 'classes': ['a', 'b']}}


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
    image = Image.open(io.BytesIO(report.shrink_png(out.getvalue())))
    assert image.mode == mode
    np.testing.assert_array_equal(np.asarray(image.convert('RGBA' if mode == 'RGBA' else 'RGB')),
                                  pixels)


def test_real_image_fits_in_five_megabytes_for_three_cases(tmp_path, shared):
  folder = shared / 'data' / 'vpi_sa2net_demo'
  image, label = (np.asarray(Image.open(folder / f'{name}.png')) for name in ('image', 'label'))
  probs = np.eye(4, dtype=np.float32)[label]
  cases = [{'name': role, 'role': role, 'image': image, 'label': label, 'probs': probs,
            'prediction': np.roll(label, 9, 1), 'dice': 0.9} for role in report.ROLES]
  path, text = write(tmp_path, cases=cases, history=[], roc=None)
  Page(text)
  assert path.stat().st_size < 5e6


def test_laminae_stand_by_region_and_by_case(tmp_path):
  classes = ('background', 'lamina')
  regions = {'all': 3.25, 'thoracic': 1.0, 'lumbar': 2.25}
  laminae = {'mean': {'true': regions, 'missed': regions, 'd3d_sum': regions,
                      'd3d_sum_mm': dict.fromkeys(regions)},
             'sd': {'true': regions, 'missed': dict.fromkeys(regions), 'd3d_sum': regions},
             'cases': {'a': {'missed': {'all': 2}, 'd3d_sum': {'all': 4.5}}, 'b': {}}}
  results = make_results(classes, ('a', 'b')) | {'laminae': laminae}
  _, text = write(tmp_path, classes=classes, results=results, history=[], cases=[], roc=None)
  page = Page(text)
  assert page.tables['laminae'] == [
      ['Region', 'True', 'Missed', 'Total d₃D, voxels'],
      ['all laminae', '3.2 ± 3.2', '3.2', '3.2 ± 3.2'],
      ['thoracic', '1.0 ± 1.0', '1.0', '1.0 ± 1.0'], ['lumbar', '2.2 ± 2.2', '2.2', '2.2 ± 2.2']]
  rows = {row[0]: row[-2:] for row in page.tables['scores'][1:]}
  assert rows == {'a': ['2', '4.5'], 'b': ['', '']}
  assert 'perfect localizer' not in page.text and 'undefined: class absent' not in page.text
