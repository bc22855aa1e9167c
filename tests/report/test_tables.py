import io

import pytest
from rich.console import Console

from spinejax.report import tables

CLASSES = ('background', 'rib', 'thoracic process')
RESULTS = {
    'per_image': {
        'dice': {'background': 0.99, 'rib': 0.71262, 'thoracic process': None,
                 'mean_foreground': 0.71262, 'mean_all': 0.85},
        'dice_sd': {'background': 0.01, 'rib': 0.03, 'thoracic process': None, 'mean_foreground': 0.03},
        'iou': {'rib': 0.6, 'mean_foreground': 0.6}, 'recall': {'rib': 1.0}, 'precision': {'rib': 0.5}},
    'pooled': {'dice': {'rib': 0.7, 'mean_foreground': 0.701}},
    'cases': {'a': {}}, 'auc': {'rib': 0.9714, 'any_foreground': 0.98}}


def printed(*args):
  out = io.StringIO()
  tables.print_results(*args, console=Console(file=out, width=80))
  return out.getvalue()


@pytest.mark.parametrize('value, text', [
    (0.8124, '0.812'), (1, '1.000'), (0.0, '0.000'), (None, '–'), (float('nan'), '–'),
    (float('inf'), '–')])
def test_values_have_three_decimals(value, text):
  assert tables.format_value(value) == text


def test_cells_tell_undefined_from_not_rated():
  per_image = RESULTS['per_image']
  assert tables.cell(per_image, 'dice', 'thoracic process') == '–'
  assert tables.cell(per_image, 'accuracy', 'rib') == ''
  assert tables.spread_cell(per_image, 'dice', 'rib') == '0.713 ± 0.030'
  assert tables.spread_cell(per_image, 'dice', 'mean_all') == '0.850'
  assert tables.spread_cell(per_image, 'dice', 'thoracic process') == '–'


def test_printed_table_holds_the_numbers_within_80_columns():
  text = printed(RESULTS, CLASSES)
  lines = text.splitlines()
  assert max(map(len, lines)) <= 80
  rows = {line[:22].strip(): line[22:].split() for line in lines}
  assert 'Test results, 1 case' in lines[0] and '1 cases' not in lines[0]
  assert rows['rib'] == ['0.713', '±', '0.030', '0.600', '1.000', '0.500', '0.700', '0.971']
  assert rows['thoracic process'][0] == '–'
  assert rows['mean of foreground'][-1] == '0.701'
  assert rows['mean of all classes'] == ['0.850']
  assert 'any foreground class against the background: 0.980' in text
  assert 'undefined: class absent' in ' '.join(text.split())
  order = [text.index(name) for name in ('rib', 'mean of foreground', ' background', 'mean of all')]
  assert order == sorted(order)


def test_nothing_tested():
  assert printed(None, CLASSES).strip() == 'No test results.'
  assert '–' not in printed({'per_image': {'dice': {'rib': 0.5}}}, CLASSES)


def test_class_names_are_text_and_long_ones_fit():
  classes = ('background', '[red]rib[/red]', 'a name far too long for one column of a table')
  text = printed({'per_image': {'dice': {name: 0.5 for name in classes}}}, classes)
  assert '[red]rib[/red]' in text
  assert max(map(len, text.splitlines())) <= 80


def test_undefined_values_are_found_and_deviations_do_not_count():
  assert tables.has_undefined(RESULTS)
  assert tables.has_undefined({'a': {'b': float('nan')}})
  assert not tables.has_undefined({'dice': {'rib': 0.5}, 'dice_sd': {'rib': None}})


@pytest.mark.parametrize('value, text', [
    (0.0499, '0.050'), (0.0009, '<0.001'), (0.99951, '>0.999'), (0.5, '0.500'), (None, '–')])
def test_probabilities_are_never_0_or_1(value, text):
  assert tables.format_probability(value) == text


@pytest.mark.parametrize('value, digits, text', [
    (-0.25, 2, '−0.25'), (-0.0004, 3, '0.000'), (-10.0, 0, '−10'), (3.0, 1, '3.0'), (None, 3, '–')])
def test_differences_have_a_minus_sign_unless_they_are_0(value, digits, text):
  assert tables.format_difference(value, digits) == text


def test_measured_cases_are_listed_with_their_flags():
  curve = {'angle_deg': 33.4, 'ci95': [30.0, 36.6], 'truncated': True, 'upper': 'T4', 'lower': None,
           'lower_row': 55.0, 'apex': 'T8'}
  small = {**curve, 'angle_deg': 7.0, 'ci95': None, 'truncated': False}
  base = {'method': 'uca', 'band': 'moderate', 'status': 'ok', 'flags': []}
  out = io.StringIO()
  tables.print_cases({'a[b]': {**base, 'curves': [small, curve], 'flags': ['at least']},
                      'none': {**base, 'curves': [], 'band': 'none'},
                      'bad': {**base, 'curves': [], 'band': None, 'status': 'fail',
                              'flags': ['the mask is empty']}}, Console(file=out, width=80))
  lines = [' '.join(line.split()) for line in out.getvalue().splitlines()]
  assert 'a[b] ≥ 33° (30 to 37) moderate T4, row 55, T8 ok' in lines
  assert '7° T4, row 55, T8' in lines and 'none no curve none ok' in lines
  assert 'bad – – fail' in lines and 'bad: the mask is empty' in lines
  assert lines[-1] == 'uca. Research software, not a medical device.'
  tables.print_cases({}, Console(file=out, width=80))
