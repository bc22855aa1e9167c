"""Numbers as text, and tables in the terminal."""
import io

import pytest
from rich.console import Console

from spinejax.measurement.results import AngleResult, Curve
from spinejax.metrics import agreement
from spinejax.metrics.results import (
    AngleSummary, CaseAngle, CaseResult, LaminaeSummary, NetworkScores, TestResult)
from spinejax.report import formats, terminal

CLASSES = ('background', 'rib', 'thoracic process')
RESULT = TestResult(
    step=1, auc={'rib': 0.9714, 'any_foreground': 0.98},
    per_image={
        'dice': {'background': 0.99, 'rib': 0.71262, 'thoracic process': None,
                 'mean_foreground': 0.71262, 'any_foreground': 0.75, 'mean_all': 0.85},
        'dice_sd': {'background': 0.01, 'rib': 0.03, 'thoracic process': None,
                    'mean_foreground': 0.03},
        'iou': {'rib': 0.6, 'mean_foreground': 0.6}, 'recall': {'rib': 1.0},
        'precision': {'rib': 0.5}},
    pooled={'dice': {'rib': 0.7, 'mean_foreground': 0.701}}, cases={'a': CaseResult('a', {})},
    at_network_size=NetworkScores(0.25, 0.9))


def printed(draw, *args):
  out = io.StringIO()
  draw(*args, console=Console(file=out, width=80))
  lines = out.getvalue().splitlines()
  assert all(len(line) <= 80 for line in lines)
  return lines


@pytest.mark.parametrize('form, value, text', [
    (formats.format_value, 0.8124, '0.812'), (formats.format_value, 1, '1.000'),
    (formats.format_value, None, '–'), (formats.format_value, float('nan'), '–'),
    (formats.format_value, float('inf'), '–'),
    (formats.format_probability, 0.0499, '0.050'), (formats.format_probability, 0.0009, '<0.001'),
    (formats.format_probability, 0.99951, '>0.999'), (formats.format_probability, 0.5, '0.500'),
    (formats.format_probability, None, '–'),
    (formats.format_difference, -0.25, '−0.250'), (formats.format_difference, -0.0004, '0.000'),
    (formats.format_difference, -10.0, '−10.000'), (formats.format_difference, 3.0, '3.000'),
    (formats.format_difference, None, '–'), (formats.format_percent, 0.333, '33 %'),
    (formats.format_percent, None, '–')])
def test_numbers_as_text(form, value, text):
  assert form(value) == text


def test_cells_tell_undefined_from_not_rated():
  table, sd = RESULT.per_image, formats.deviations(RESULT.per_image)
  assert formats.cell(table, 'dice', 'thoracic process') == '–'
  assert formats.cell(table, 'accuracy', 'rib') == ''
  assert formats.spread_cell(table, sd, 'dice', 'rib') == '0.713 ± 0.030'
  assert formats.spread_cell(table, sd, 'dice', 'mean_all') == '0.850'
  assert formats.spread_cell(table, sd, 'dice', 'thoracic process') == '–'


def test_printed_table_holds_the_numbers():
  lines = printed(terminal.print_results, RESULT, CLASSES)
  rows = {line[:24].strip(): line[24:].split() for line in lines}
  assert 'Test results, 1 case' in lines[0] and '1 cases' not in lines[0]
  assert rows['rib'] == ['0.713', '±', '0.030', '0.600', '1.000', '0.500', '0.700', '0.971']
  assert rows['thoracic process'][0] == '–'
  assert rows['mean of the foreground'][-1] == '0.701'
  assert rows['mean of all classes'] == ['0.850']
  assert rows['rib + thoracic process'] == ['0.750', '0.980']
  text = ' '.join(' '.join(lines).split())
  assert 'cross entropy 0.250, pixel accuracy 0.900' in text
  assert '– means undefined: the class is absent' in text
  order = [text.index(name) for name in ('rib', 'mean of the', ' background', 'mean of all')]
  assert order == sorted(order)


def test_nothing_tested():
  lines = printed(terminal.print_results, TestResult(0, {}, {}, {}, {}), CLASSES)
  assert lines == ['There are no test cases: nothing was tested.']


def test_class_names_are_text_and_long_ones_fit():
  classes = ('background', '[red]rib[/red]', 'a name far too long for one column of a table')
  result = TestResult(0, {'dice': {name: 0.5 for name in classes}}, {},
                      {'a': CaseResult('a', {})}, {})
  text = '\n'.join(printed(terminal.print_results, result, classes))
  assert '[red]rib[/red]' in text and '–' not in text


def test_laminae_and_angles_follow_the_results():
  values = {'all': 3.25, 'thoracic': 1.0}
  metrics = ('missed', 'false', 'delta', 'd3d_mean', 'd3d_sum')
  laminae = LaminaeSummary(dict.fromkeys(metrics, values), dict.fromkeys(metrics, values),
                           {'0.5': 0.654, '1': 0.4})
  cases = {name: CaseResult(name, {}, angle=CaseAngle(truth, angle, None, 'mild', 'ok', ()))
           for name, truth, angle in (('a', 10.0, 12.5), ('b', 30.0, 29.0))}
  angles = AngleSummary('uca', 'phantom truth', 0, agreement.agree([10, 30], [12.5, 29]), None)
  result = TestResult(1, {}, {}, cases, {}, laminae=laminae, angles=angles)
  text = ' '.join(' '.join(printed(terminal.print_results, result, CLASSES)).split())
  for words in ('thoracic 1.0 ± 1.0 1.0 ± 1.0 1.0 ± 1.0 1.00 ± 1.00 1.0 ± 1.0',
                'a Dice of 0.65 or 0.40 against cubes of 3x3x3 voxels', 'a noise of 0.5 or 1 voxel',
                'measured 1.8 ± 1.1 0.8', '100 %', 'in 2 of 2 cases',
                'the exact angles of the phantoms'):
    assert words in text, words
  assert 'naive' not in text.lower()


def test_measured_cases_are_listed_with_their_flags():
  large = Curve(33.4, (30.0, 36.6), 'T4', None, 'T8', 5.0, 55.0, 35.0, 'right', None, True,
                2.0, 30.1)
  small = Curve(7.0, None, 'T4', None, 'T8', 5.0, 55.0, 35.0, 'right', None, False)
  lines = printed(terminal.print_cases, {
      'a[b]': AngleResult('uca', 'ok', (small, large), 33.4, 'moderate', flags=('at least',)),
      'none': AngleResult('uca', 'ok', band='none'),
      'bad': AngleResult('uca', 'fail', flags=('the mask is empty',))})
  lines = [' '.join(line.split()) for line in lines]
  assert 'a[b] 33° (30 to 37), at least 30° moderate T4, row 55, T8 ok' in lines
  assert '7° T4, row 55, T8' in lines and 'none no curve none ok' in lines
  assert 'bad – – fail' in lines and 'bad: the mask is empty' in lines
  assert lines[-1] == 'uca. Research software, not a medical device.'
  assert printed(terminal.print_cases, {}) == []
