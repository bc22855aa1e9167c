"""The agreement of two tables of angles as plots, in the terminal and as a page."""
import io
import pathlib

import numpy as np
import pytest
from rich.console import Console

from spinejax.measurement.results import AngleTable
from spinejax.metrics import agreement, paired_tables
from spinejax.report import curves, pages, terminal
from tests.report.html_page import Page


def compare(first, second, columns=('angle',), **fields):
  return paired_tables.compare_tables(
      *(AngleTable(pathlib.Path(f'{name}.csv'), 'case', columns, angles, **fields)
        for name, angles in (('a', first), ('b', second))))


def printed(found):
  out = io.StringIO()
  terminal.print_agreement(found, Console(file=out, width=80))
  return ' '.join(out.getvalue().split())


def test_the_terminal_tells_what_is_left_out_and_undefined():
  found = compare({**{f'x{i}': (5.0,) for i in range(7)}, 'a': (None,)},
                  {'a': (3.0,), 'd': (4.0,)})
  text = printed(found)
  assert 'only in a: 7 (x0, x1, x2, x3, x4, …)' in text and 'there is no pair of angles' in text
  assert 'nan' not in text.lower() and 'Same band: –' in text
  triple = compare({'a': (10.0, 20.0, 10.0)}, {'a': (10.0, 25.0, 5.0)}, ('pt', 'mt', 'tl'))
  text = printed(triple)
  assert 'SMAPE over the 3 angles of a case: 12.5 %' in text
  assert 'mt: sd of the absolute difference' in text
  assert 'Research software, not a medical device.' in text


def test_pages_are_renewed_and_hold_strange_names(tmp_path):
  found = compare({'<b>$x_1$': (1.0, 2.0)}, {'<b>$x_1$': (1.0, 4.0)}, ('$x_1$', '<i>mt'))
  path = pages.write_agreement(tmp_path / 'out', found)
  text = path.read_text(encoding='utf-8')
  assert '<b>$x' not in text and '<i>mt' not in text
  page = Page(text)
  assert page.tables['cases'][2] == ['<b>$x_1$', '1.0', '1.0', '0.0', '2.0', '4.0', '2.0']
  assert text.count('<svg') == 4 and 'not a medical device' in page.text
  assert {file.name for file in path.parent.glob('*.png')} == {
      'bland_altman_1_x_1.png', 'bland_altman_2_i_mt.png', 'scatter_1_x_1.png',
      'scatter_2_i_mt.png'}
  pages.write_agreement(tmp_path / 'out', compare({'a': (1.0,)}, {'a': (2.0,)}))
  assert {file.name for file in path.parent.glob('*.png')} == {'bland_altman.png', 'scatter.png'}


@pytest.mark.parametrize('n', [0, 1, 2, 300])
def test_plots_show_what_is_defined(n):
  rng = np.random.default_rng(0)
  a = rng.uniform(0, 70, n)
  b = a + rng.normal(0, 4, n)
  found = agreement.agree(a, b)
  plot = curves.bland_altman([*a, None], [*b, 3.0], found, ('$a_1$', 'b')).axes[0]
  assert len(plot.texts) == {0: 1, 1: 1}.get(n, 3)
  for axis in (plot, curves.scatter(a, b, found).axes[0]):
    axis.figure.canvas.draw()
    if n:
      dots = next(line for line in axis.get_lines() if line.get_linestyle() == 'None')
      x, y = dots.get_data()
      assert len(x) == n
      for values, (low, high) in ((x, axis.get_xlim()), (y, axis.get_ylim())):
        assert low <= values.min() and values.max() <= high
    else:
      assert [text.get_text() for text in axis.texts] == ['no pair of angles']
  dashed = [line.get_ydata()[0] for line in plot.get_lines() if line.get_linestyle() == '--']
  assert sorted(dashed) == list(found.limits or ())
