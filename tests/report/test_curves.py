"""Charts of a run and of compared runs."""
import warnings

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from spinejax.metrics.results import CaseResult, RocCurve
from spinejax.report import curves, overlays

CLASSES = ('background', 'rib', 'lump')


def curve(axis, label):
  return next(line.get_xydata() for line in axis.get_lines() if line.get_label() == label)


def case(name, **dice):
  return CaseResult(name, {'dice': dice})


def test_loss_keeps_the_last_row_of_a_step_and_drops_what_is_not_finite():
  history = [{'step': 20, 'phase': 'train', 'loss': 2.0, 'loss/center': 0.5, 'learning_rate': 0.1},
             {'step': 10, 'phase': 'train', 'loss': 3.0, 'learning_rate': 0.1},
             {'step': 20, 'phase': 'train', 'loss': 1.0},
             {'step': 30, 'phase': 'train', 'loss': None},
             {'step': 40, 'phase': 'train', 'loss': float('nan')},
             {'step': 20, 'phase': 'validation', 'loss': 1.5}, {'phase': 'train', 'loss': 9.0}]
  loss, rate = curves.loss_figure(history).axes
  np.testing.assert_array_equal(curve(loss, 'training'), [[10, 3], [20, 1]])
  np.testing.assert_array_equal(curve(loss, 'validation'), [[20, 1.5]])
  np.testing.assert_array_equal(curve(loss, 'training, center'), [[20, 0.5]])
  np.testing.assert_array_equal(rate.get_lines()[0].get_xydata(), [[10, 0.1], [20, 0.1]])


def test_long_histories_are_averaged_and_keep_their_extremes():
  values = np.random.default_rng(0).uniform(1, 2, 1000)
  values[500] = 9.0
  history = [{'step': step, 'phase': 'train', 'loss': value} for step, value in enumerate(values)]
  axis, = curves.loss_figure(history).axes
  drawn = curve(axis, 'training')
  assert len(drawn) == curves.MAX_POINTS
  band = axis.collections[0].get_paths()[0].vertices[:, 1]
  assert band.max() == 9.0 and band.min() == values.min()
  assert drawn[:, 1].max() < 9.0


def test_validation_marks_the_best_mean_of_the_foreground():
  history = [{'step': step, 'phase': 'validation', 'dice/mean_foreground': dice,
              'dice/rib': dice / 2, 'dice/lump': None}
             for step, dice in ((5, 0.25), (10, 0.8125), (15, 0.75))]
  axis, = curves.validation_figure(history, CLASSES).axes
  assert axis.get_title(loc='left') == (
      'best mean of the foreground classes: 0.812 at step 10')
  np.testing.assert_array_equal(curve(axis, 'rib')[:, 1], [0.125, 0.40625, 0.375])
  assert 'lump' not in [text.get_text() for text in axis.get_legend().get_texts()]


def test_accuracy_stands_by_epoch():
  history = [{'step': step, 'phase': 'validation', 'epoch': step / 4, 'accuracy/mean_all': value}
             for step, value in ((2, 0.5), (8, 0.75), (4, 0.625))]
  axis, = curves.accuracy_figure([*history, {'step': 9, 'phase': 'validation'}]).axes
  np.testing.assert_array_equal(axis.get_lines()[0].get_xydata(),
                                [[0.5, 0.5], [1, 0.625], [2, 0.75]])


def test_roc_names_areas_and_leaves_out_absent_classes():
  roc = {'any_foreground': RocCurve((0, 1), (0, 1), 0.5),
         'rib': RocCurve((0, 0, 1), (0, 1, 1), 0.98765), 'lump': RocCurve((), (), None)}
  axis, = curves.roc_figure(roc, CLASSES).axes
  names = [text.get_text() for text in axis.get_legend().get_texts()]
  assert names == ['rib, AUC 0.988', 'any foreground, AUC 0.500']
  np.testing.assert_array_equal(curve(axis, 'rib, AUC 0.988'), [[0, 0], [0, 1], [1, 1]])


def test_joint_roc_has_a_chart_for_each_class_and_a_curve_for_each_run():
  a = {'any_foreground': RocCurve((0, 1), (0, 1), 0.5), 'rib': RocCurve((0, 1), (1, 1), 1.0)}
  b = {'rib': RocCurve((0, 0.5, 1), (0, 1, 1), 0.75), 'lump': RocCurve((), (), None)}
  figure = curves.joint_roc_figure({'a': a, '$b': b}, CLASSES)
  assert [axis.get_title(loc='left') for axis in figure.axes] == ['rib', 'lump', 'any foreground']
  rib, lump, _ = figure.axes
  np.testing.assert_array_equal(curve(rib, '$b, AUC 0.750'), [[0, 0], [0.5, 1], [1, 1]])
  np.testing.assert_array_equal(curve(rib, 'a, AUC 1.000'), [[0, 1], [1, 1]])
  assert len(lump.get_lines()) == 1


def test_every_defined_dice_is_drawn_once():
  values = {'a': 0.5, 'b': 0.5, 'c': 0.501, 'd': 0.9, 'e': None}
  cases = {name: case(name, rib=value, mean_foreground=value) for name, value in values.items()}
  axis, = curves.case_dice_figure(cases, CLASSES).axes
  dots = [line.get_xydata() for line in axis.get_lines() if line.get_marker() == 'o']
  assert len(dots) == 2
  np.testing.assert_array_equal(dots[0][:, 1], [0.5, 0.5, 0.501, 0.9])
  assert len(set(dots[0][:3, 0])) == 3 and np.abs(dots[0][:, 0]).max() < 0.5
  medians = [line.get_ydata()[0] for line in axis.get_lines() if line.get_marker() != 'o']
  np.testing.assert_allclose(medians, 0.5005)


def test_whiskers_reach_one_and_a_half_quartile_ranges():
  values = [0.0, 4.0, 5.0, 6.0, 7.0, 8.0, 11.0, 20.0]
  axis = curves.box_figure(
      {'a run': values, 'none': [None, None], '$x$' * 20: [1.0]}, 'distance').axes[0]
  lower, upper = np.percentile(values, [25, 75])
  reach = 1.5 * (upper - lower)
  within = [value for value in values if lower - reach <= value <= upper + reach]
  lines = [list(line.get_xdata()) for line in axis.get_lines()]
  for expected in ([lower, min(within)], [upper, max(within)], [np.median(values)] * 2, values):
    assert expected in lines
  assert [label.get_text()[:4] for label in axis.get_yticklabels()] == ['a ru', 'none', '$x$$']
  assert axis.get_ylim()[0] > axis.get_ylim()[1] and axis.get_xlabel() == 'distance'


@pytest.mark.parametrize('draw', [
    lambda: curves.loss_figure([]), lambda: curves.validation_figure([], CLASSES),
    lambda: curves.accuracy_figure([]),
    lambda: curves.roc_figure({}, CLASSES), lambda: curves.joint_roc_figure({}, CLASSES),
    lambda: curves.case_dice_figure({}, CLASSES),
    lambda: curves.box_figure({'a': [None]}, 'nothing')])
def test_figures_of_nothing_are_drawn_without_warnings(draw):
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    FigureCanvasAgg(draw()).draw()


def test_dollar_signs_in_names_are_not_formulas():
  classes = ('background', r'$\frac{$', 'b$')
  mask = np.zeros((8, 8), int)
  for figure in (
      overlays.overlay_figure(mask, mask, mask, classes),
      overlays.probability_figure(np.zeros((8, 8, 3)), classes),
      curves.roc_figure({classes[1]: RocCurve((0, 1), (0, 1), 0.5)}, classes),
      curves.case_dice_figure({'a': case('a', **{classes[1]: 0.5})}, classes),
      curves.box_figure({classes[1]: [1.0, 2.0]}, classes[1])):
    FigureCanvasAgg(figure).draw()
