import warnings

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from spinejax.report import figures

CLASSES = ('background', 'rib', 'lump')
ORANGE, BLUE, YELLOW = (230, 159, 0), (86, 180, 233), (240, 228, 66)


def lengths(edges):
  return np.abs(edges[:, 1] - edges[:, 0]).sum()


def test_outline_of_one_pixel_follows_its_edges():
  label = np.zeros((4, 5), int)
  label[1, 2] = 1
  edges = {tuple(map(tuple, edge)) for edge in figures.outline_edges(label)}
  assert edges == {((1.5, 0.5), (2.5, 0.5)), ((1.5, 1.5), (2.5, 1.5)),
                   ((1.5, 0.5), (1.5, 1.5)), ((2.5, 0.5), (2.5, 1.5))}


def test_outline_joins_runs_closes_at_the_image_edge_and_separates_touching_classes():
  full = np.ones((2, 3), int)
  edges = {tuple(map(tuple, edge)) for edge in figures.outline_edges(full)}
  assert edges == {((-0.5, -0.5), (2.5, -0.5)), ((-0.5, 1.5), (2.5, 1.5)),
                   ((-0.5, -0.5), (-0.5, 1.5)), ((2.5, -0.5), (2.5, 1.5))}
  pair = np.array([[1, 2]])
  edges = [tuple(map(tuple, edge)) for edge in figures.outline_edges(pair)]
  assert edges.count(((0.5, -0.5), (0.5, 0.5))) == 1
  assert figures.outline_edges(np.zeros((3, 3), int)).shape == (0, 2, 2)


def test_outline_length_is_the_number_of_unequal_neighbors():
  label = np.random.default_rng(0).integers(0, 3, (13, 7))
  padded = np.pad(label, 1)
  unequal = (padded[1:] != padded[:-1]).sum() + (padded[:, 1:] != padded[:, :-1]).sum()
  assert lengths(figures.outline_edges(label)) == unequal


def test_inner_contours_by_hand():
  label = np.zeros((6, 6), int)
  label[1:6, 0:5] = 1
  ring = label.astype(bool)
  ring[2:5, 1:4] = False
  np.testing.assert_array_equal(figures.inner_contours(label), ring)
  ring[2:5, 1:4] = True
  ring[3, 2] = False
  np.testing.assert_array_equal(figures.inner_contours(label, width=2), ring)
  np.testing.assert_array_equal(figures.inner_contours(label, width=3), label.astype(bool))
  touching = np.array([[1, 1, 1, 2, 2, 2]] * 3)
  np.testing.assert_array_equal(figures.inner_contours(touching)[1], [1, 0, 1, 1, 0, 1])


def test_overlay_png_pixel_by_pixel(tmp_path):
  prediction = np.zeros((6, 6), np.uint8)
  prediction[1:4, 1:4] = 1
  prediction[4:, 4:] = 2
  label = np.zeros((6, 6), np.uint8)
  label[0, 5] = 1
  label[1, 1] = 1
  expected = np.full((6, 6, 3), 101, np.uint8)
  expected[1:4, 1:4] = ORANGE
  expected[2, 2] = (146, 121, 66)  # 0.65 * 101 + 0.35 * orange
  expected[4:, 4:] = BLUE
  expected[0, 5] = YELLOW  # the truth at (1, 1) lies beneath the prediction's contour
  figures.save_overlay(tmp_path / 'a.png', np.full((6, 6), 101, np.uint8), prediction, label,
                       CLASSES)
  np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'a.png')), expected)
  expected[0, 5] = 101
  figures.save_overlay(tmp_path / 'b.png', np.full((6, 6, 1), 101.2, np.float32), prediction)
  np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'b.png')), expected)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['a.png', 'b.png']


def test_overlay_png_of_an_empty_prediction_is_the_image(tmp_path):
  image = np.random.default_rng(0).integers(0, 256, (9, 4, 3), np.uint8)
  figures.save_overlay(tmp_path / 'a.png', image, np.zeros((9, 4), np.int64))
  np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'a.png')), image)


def test_overlay_png_refuses_other_sizes_and_unknown_classes(tmp_path):
  image, mask = np.zeros((6, 6), np.uint8), np.zeros((6, 6), np.uint8)
  with pytest.raises(ValueError, match=r'prediction of size \(6, 6\).*got \(5, 6\)'):
    figures.save_overlay(tmp_path / 'a.png', image, mask[:5])
  with pytest.raises(ValueError, match=r'label of size'):
    figures.save_overlay(tmp_path / 'a.png', image, mask, mask[:, :5])
  with pytest.raises(ValueError, match=r'classes 0\.\.2 in the prediction, got 0\.\.3'):
    figures.save_overlay(tmp_path / 'a.png', image, np.diag([0, 0, 0, 0, 0, 3]), None, CLASSES)
  with pytest.raises(ValueError, match='without a batch axis'):
    figures.save_overlay(tmp_path / 'a.png', np.zeros((1, 6, 6, 1)), mask)
  assert not list(tmp_path.iterdir())


def test_class_colors_are_distinct_and_never_those_of_the_contours():
  colors = [figures.class_color(index) for index in range(6)]
  assert len({*colors, figures.TRUTH_COLOR, figures.PREDICTION_COLOR}) == 8
  assert figures.class_color(6) == figures.class_color(1)


def titles(figure):
  return [axis.get_title() for axis in figure.axes if axis.get_title()]


def test_overlay_panels_and_contours_lie_on_pixel_edges():
  label = np.zeros((8, 5), int)
  label[2:5, 1:3] = 2
  prediction = np.roll(label, 1, axis=1)
  figure = figures.overlay(np.full((8, 5), 50, np.uint8), label, prediction, CLASSES)
  assert titles(figure) == ['Image', 'Truth', 'Prediction', 'Contours']
  contours = figure.axes[-1]
  assert contours.images[0].get_extent() == [-0.5, 4.5, 7.5, -0.5]
  truth, predicted = (patch.get_path().vertices for patch in contours.patches)
  assert (truth.min(0).tolist(), truth.max(0).tolist()) == ([0.5, 1.5], [2.5, 4.5])
  np.testing.assert_array_equal(predicted, truth + [1, 0])
  shown = figure.axes[1].images[0].get_array()
  np.testing.assert_array_equal((shown == (86, 180, 233)).all(-1), label == 2)
  legend = [text.get_text() for text in figure.legends[0].get_texts()]
  assert legend == ['rib', 'lump', 'truth contour', 'prediction contour']


def test_drawn_contour_meets_the_drawn_region():
  """In the rendered picture the lines' middle is the region's border, to a third of a pixel."""
  label = np.zeros((20, 20), int)
  label[5:12, 6:15] = 1
  figure = figures.overlay(np.zeros((20, 20), np.uint8), label, label, CLASSES)
  canvas = FigureCanvasAgg(figure)
  canvas.draw()
  picture = np.asarray(canvas.buffer_rgba())[..., :3].astype(int)
  truth, contours = figure.axes[1].get_window_extent(), figure.axes[-1].get_window_extent()
  pixel = truth.width / 20

  def bounds(window, is_in):
    top = picture.shape[0] - window.y1
    rows, columns = np.nonzero(is_in[round(top):round(top + window.height),
                                     round(window.x0):round(window.x1)])
    return np.array([rows.min(), rows.max() + 1, columns.min(), columns.max() + 1]) / pixel

  region = bounds(truth, np.abs(picture - ORANGE).max(-1) < 60)
  np.testing.assert_allclose(region, [5, 12, 6, 15], atol=0.1)
  outer = bounds(contours, picture[..., 1] > 80)
  line = 2.2 / 72 * figure.dpi / 2 / pixel
  np.testing.assert_allclose(outer, region + [-line, line, -line, line], atol=0.34)


def test_large_images_shrink_and_contours_stay_within_half_a_shown_pixel():
  label = np.zeros((2000, 1000), np.uint8)
  label[1000:1500, 250:750] = 1
  figure = figures.overlay(np.zeros((2000, 1000), np.uint8), label, label, CLASSES)
  height, width = figure.axes[0].images[0].get_array().shape
  assert height * width <= 1.01 * figures.MAX_PANEL_PIXELS and abs(height - 2 * width) <= 1
  vertices = figure.axes[-1].patches[0].get_path().vertices + 0.5
  expected = np.array([[0.25 * width, 0.5 * height], [0.75 * width, 0.75 * height]])
  np.testing.assert_allclose([vertices.min(0), vertices.max(0)], expected, atol=0.5)


@pytest.mark.parametrize('shape', [(64, 16), (32, 32), (16, 48), (1, 1)])
def test_panels_share_one_shape_without_overlap(shape):
  probs = np.full((*shape, 3), 1 / 3, np.float32)
  mask = np.zeros(shape, int)
  for figure, count in ((figures.overlay(mask, mask, mask, CLASSES), 4),
                        (figures.probability_maps(probs, CLASSES), 3)):
    size = figure.get_size_inches()
    boxes = [axis.get_position() for axis in figure.axes if axis.get_title()]
    assert len(boxes) == count
    for box in boxes:
      np.testing.assert_allclose(box.height * size[1] / (box.width * size[0]),
                                 shape[0] / shape[1])
      assert 0 <= box.x0 < box.x1 <= 1 + 1e-9 and 0 < box.y0 < box.y1 < 1
    rows = len({round(box.y0, 6) for box in boxes})
    assert rows == 1 or shape[1] > shape[0]


def test_overlay_without_truth_and_in_color():
  figure = figures.overlay(np.zeros((8, 8, 3)), None, np.ones((8, 8), bool), CLASSES[:2])
  assert titles(figure) == ['Image', 'Prediction', 'Contours']
  assert len(figure.axes[-1].patches) == 1


def test_probability_maps_show_the_probabilities():
  probs = np.random.default_rng(0).dirichlet(np.ones(3), (6, 4)).astype(np.float32)
  figure = figures.probability_maps(probs, CLASSES)
  assert titles(figure) == ['P(rib)', 'P(lump)', 'P(any foreground)']
  for axis, expected in zip(figure.axes, (probs[..., 1], probs[..., 2], 1 - probs[..., 0])):
    np.testing.assert_allclose(axis.images[0].get_array(), expected, atol=1e-6)
    assert axis.images[0].get_clim() == (0, 1)
  binary = figures.probability_maps(probs[..., :2], CLASSES[:2])
  assert titles(binary) == ['P(rib)']
  with pytest.raises(ValueError, match=r'\[H,W,3\]'):
    figures.probability_maps(probs[..., :2], CLASSES)


def curve(axis, label):
  return next(line.get_xydata() for line in axis.get_lines() if line.get_label() == label)


def test_loss_curves_keep_the_last_row_of_a_step_and_drop_what_is_not_finite():
  history = [{'step': 20, 'phase': 'train', 'loss': 2.0, 'loss/center': 0.5, 'learning_rate': 0.1},
             {'step': 10, 'phase': 'train', 'loss': 3.0, 'learning_rate': 0.1},
             {'step': 20, 'phase': 'train', 'loss': 1.0},
             {'step': 30, 'phase': 'train', 'loss': None},
             {'step': 40, 'phase': 'train', 'loss': float('nan')},
             {'step': 20, 'phase': 'validation', 'loss': 1.5}, {'phase': 'train', 'loss': 9.0}]
  loss, rate = figures.loss_curves(history).axes
  np.testing.assert_array_equal(curve(loss, 'training'), [[10, 3], [20, 1]])
  np.testing.assert_array_equal(curve(loss, 'validation'), [[20, 1.5]])
  np.testing.assert_array_equal(curve(loss, 'training, center'), [[20, 0.5]])
  np.testing.assert_array_equal(rate.get_lines()[0].get_xydata(), [[10, 0.1], [20, 0.1]])


def test_long_histories_are_averaged_and_keep_their_extremes():
  values = np.random.default_rng(0).uniform(1, 2, 1000)
  values[500] = 9.0
  history = [{'step': step, 'phase': 'train', 'loss': value} for step, value in enumerate(values)]
  axis, = figures.loss_curves(history).axes
  drawn = curve(axis, 'training')
  assert len(drawn) == 300
  band = axis.collections[0].get_paths()[0].vertices[:, 1]
  assert band.max() == 9.0 and band.min() == values.min()
  assert drawn[:, 1].max() < 9.0


def test_validation_curves_mark_the_best_mean_of_bones():
  history = [{'step': step, 'phase': 'validation', 'dice/mean_foreground': dice, 'dice/rib': dice / 2,
              'dice/lump': None} for step, dice in ((5, 0.25), (10, 0.8125), (15, 0.75))]
  axis, = figures.validation_curves(history, CLASSES).axes
  assert axis.get_title(loc='left') == 'best mean of foreground 0.812 at step 10'
  np.testing.assert_array_equal(curve(axis, 'rib')[:, 1], [0.125, 0.40625, 0.375])
  assert 'lump' not in [text.get_text() for text in axis.get_legend().get_texts()]


def test_roc_curves_name_areas_and_leave_out_absent_classes():
  roc = {'any_foreground': {'fpr': [0, 1], 'tpr': [0, 1], 'auc': 0.5},
         'rib': {'fpr': [0, 0, 1], 'tpr': [0, 1, 1], 'auc': 0.98765},
         'lump': {'fpr': [], 'tpr': [], 'auc': None}}
  axis, = figures.roc_curves(roc, CLASSES).axes
  names = [text.get_text() for text in axis.get_legend().get_texts()]
  assert names == ['rib, AUC 0.988', 'any foreground, AUC 0.500']
  np.testing.assert_array_equal(curve(axis, 'rib, AUC 0.988'), [[0, 0], [0, 1], [1, 1]])


def test_dice_by_case_draws_every_defined_value_once():
  values = {'a': 0.5, 'b': 0.5, 'c': 0.501, 'd': 0.9, 'e': None}
  cases = {name: {'dice': {'rib': value, 'mean_foreground': value}} for name, value in values.items()}
  axis, = figures.dice_by_case(cases, CLASSES).axes
  dots = [line.get_xydata() for line in axis.get_lines() if line.get_marker() == 'o']
  assert len(dots) == 2
  np.testing.assert_array_equal(dots[0][:, 1], [0.5, 0.5, 0.501, 0.9])
  assert len(set(dots[0][:3, 0])) == 3 and np.abs(dots[0][:, 0]).max() < 0.5
  medians = [line.get_ydata()[0] for line in axis.get_lines() if line.get_marker() != 'o']
  np.testing.assert_allclose(medians, 0.5005)


@pytest.mark.parametrize('draw', [
    lambda: figures.loss_curves([]), lambda: figures.validation_curves([], CLASSES),
    lambda: figures.roc_curves({}, CLASSES), lambda: figures.dice_by_case({}, CLASSES)])
def test_figures_of_nothing_are_drawn_without_warnings(draw):
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    FigureCanvasAgg(draw()).draw()


def test_dollar_signs_in_class_names_are_not_formulas():
  classes = ('background', r'$\frac{$', 'b$')
  mask = np.zeros((8, 8), int)
  drawn = [figures.overlay(mask, mask, mask, classes),
           figures.probability_maps(np.zeros((8, 8, 3)), classes),
           figures.roc_curves({classes[1]: {'fpr': [0, 1], 'tpr': [0, 1], 'auc': 0.5}}, classes),
           figures.dice_by_case({'a': {'dice': {classes[1]: 0.5}}}, classes)]
  for figure in drawn:
    FigureCanvasAgg(figure).draw()
  assert r'P($\frac{$)' in titles(drawn[1])


def test_whiskers_reach_one_and_a_half_quartile_ranges():
  values = [0.0, 4.0, 5.0, 6.0, 7.0, 8.0, 11.0, 20.0]
  figure = figures.box_plot({'a run': values, 'none': [None, None], '$x$' * 20: [1.0]}, 'distance')
  axis = figure.axes[0]
  lower, upper = np.percentile(values, [25, 75])
  reach = 1.5 * (upper - lower)
  within = [value for value in values if lower - reach <= value <= upper + reach]
  ends = [min(within), max(within)]
  lines = [line.get_xdata() for line in axis.get_lines()]
  assert any(list(line) == [lower, ends[0]] for line in lines)
  assert any(list(line) == [upper, ends[1]] for line in lines)
  assert any(list(line) == [np.median(values)] * 2 for line in lines)
  dots = next(line for line in axis.get_lines() if len(line.get_xdata()) == len(values))
  assert list(dots.get_xdata()) == values
  assert [label.get_text()[:4] for label in axis.get_yticklabels()] == ['a ru', 'none', '$x$$']
  assert axis.get_ylim()[0] > axis.get_ylim()[1] and axis.get_xlabel() == 'distance'
  FigureCanvasAgg(figure).draw()
  FigureCanvasAgg(figures.box_plot({'a': [None]}, 'nothing')).draw()
