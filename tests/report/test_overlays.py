"""Overlays of masks pixel by pixel, and the panels of a case."""
import numpy as np
import pytest
from PIL import Image

from spinejax import colors
from spinejax.report import overlays, style

CLASSES = ('background', 'rib', 'lump')
ORANGE, BLUE = (230, 159, 0), (86, 180, 233)


def titles(figure):
  return [axis.get_title() for axis in figure.axes if axis.get_title()]


@pytest.mark.parametrize('label, expected', [
    ([[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]],
     {((1.5, 0.5), (2.5, 0.5)), ((1.5, 1.5), (2.5, 1.5)),
      ((1.5, 0.5), (1.5, 1.5)), ((2.5, 0.5), (2.5, 1.5))}),
    ([[1, 1, 1], [1, 1, 1]],  # runs are joined, and closed at the edge of the image
     {((-0.5, -0.5), (2.5, -0.5)), ((-0.5, 1.5), (2.5, 1.5)),
      ((-0.5, -0.5), (-0.5, 1.5)), ((2.5, -0.5), (2.5, 1.5))}),
    ([[0, 0], [0, 0]], set())])
def test_outlines_follow_the_edges_of_pixels(label, expected):
  edges = overlays.outline_edges(np.array(label))
  assert edges.shape == (len(expected), 2, 2)
  assert {tuple(map(tuple, edge)) for edge in edges} == expected


def test_inner_contours_by_hand():
  label = np.zeros((6, 6), int)
  label[1:6, 0:5] = 1
  ring = label.astype(bool)
  ring[2:5, 1:4] = False
  np.testing.assert_array_equal(overlays.inner_contours(label), ring)
  ring[2:5, 1:4] = True
  ring[3, 2] = False
  np.testing.assert_array_equal(overlays.inner_contours(label, width=2), ring)
  np.testing.assert_array_equal(overlays.inner_contours(label, width=3), label.astype(bool))
  touching = np.array([[1, 1, 1, 2, 2, 2]] * 3)
  np.testing.assert_array_equal(overlays.inner_contours(touching)[1], [1, 0, 1, 1, 0, 1])


def test_overlay_file_pixel_by_pixel(tmp_path):
  prediction = np.zeros((6, 6), np.uint8)
  prediction[1:4, 1:4] = 1
  prediction[4:, 4:] = 2
  expected = np.full((6, 6, 3), 101, np.uint8)
  expected[1:4, 1:4] = ORANGE
  expected[2, 2] = (146, 121, 66)  # 0.65 * 101 + 0.35 * orange
  expected[4:, 4:] = BLUE
  overlays.save_overlay(tmp_path / 'a.png', np.full((6, 6, 1), 101.2, np.float32), prediction,
                        CLASSES)
  np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'a.png')), expected)
  assert [path.name for path in tmp_path.iterdir()] == ['a.png']
  image = np.random.default_rng(0).integers(0, 256, (9, 4, 3), np.uint8)
  np.testing.assert_array_equal(overlays.overlay(image, np.zeros((9, 4), np.int64)), image)


MASK = np.zeros((6, 6), np.uint8)


@pytest.mark.parametrize('draw, arguments, sentence', [
    (overlays.overlay, (MASK, MASK[:5]), r'prediction of size \(6, 6\).*got \(5, 6\)'),
    (overlays.overlay, (MASK, np.diag([0, 0, 0, 0, 0, 3]), CLASSES),
     r'classes 0\.\.2 in the prediction, got 0\.\.3'),
    (overlays.overlay, (MASK[None, ..., None], MASK), 'without a batch axis'),
    (overlays.overlay_figure, (MASK, MASK[:, :5], MASK, CLASSES), 'label of size'),
    (overlays.probability_figure, (np.zeros((6, 4, 2)), CLASSES), r'\[H,W,3\]')])
def test_other_sizes_and_unknown_classes_are_refused(draw, arguments, sentence):
  with pytest.raises(ValueError, match=sentence):
    draw(*arguments)


def test_interlaced_rows_alternate_between_image_and_mask():
  mask = np.array([[0, 1], [0, 1], [2, 0], [2, 0]])
  shown = overlays.interlace(np.full((4, 2), 100, np.uint8), mask)
  assert (shown[::2] == 100).all()
  np.testing.assert_array_equal(shown[1], [(50, 50, 50), ORANGE])
  np.testing.assert_array_equal(shown[3], [BLUE, (50, 50, 50)])


def test_colors_of_classes_are_distinct_and_never_those_of_the_contours():
  found = [colors.class_color(index) for index in range(6)]
  assert len({*found, colors.TRUTH_COLOR, colors.PREDICTION_COLOR}) == 8
  assert colors.class_color(6) == colors.class_color(1)
  np.testing.assert_array_equal(colors.palette(3)[1:], [ORANGE, BLUE])


def test_panels_and_contours_lie_on_pixel_edges():
  label = np.zeros((8, 5), int)
  label[2:5, 1:3] = 2
  prediction = np.roll(label, 1, axis=1)
  figure = overlays.overlay_figure(np.full((8, 5, 3), 50.0), label, prediction, CLASSES)
  assert titles(figure) == ['Image', 'Truth', 'Prediction', 'Contours']
  contours = figure.axes[-1]
  assert contours.images[0].get_extent() == [-0.5, 4.5, 7.5, -0.5]
  truth, predicted = (patch.get_path().vertices for patch in contours.patches)
  assert (truth.min(0).tolist(), truth.max(0).tolist()) == ([0.5, 1.5], [2.5, 4.5])
  np.testing.assert_array_equal(predicted, truth + [1, 0])
  shown = figure.axes[1].images[0].get_array()
  np.testing.assert_array_equal((shown == BLUE).all(-1), label == 2)
  legend = [text.get_text() for text in figure.legends[0].get_texts()]
  assert legend == ['rib', 'lump', 'truth contour', 'prediction contour']
  interlaced = overlays.overlay_figure(np.zeros((8, 5)), label, label > 0, CLASSES, interlaced=True)
  assert titles(interlaced)[-2:] == ['Interlaced', 'Contours']


def test_large_images_shrink_and_contours_stay_within_half_a_shown_pixel():
  label = np.zeros((1200, 600), np.uint8)
  label[600:900, 150:450] = 1
  figure = overlays.overlay_figure(label, label, label, CLASSES)
  height, width = figure.axes[0].images[0].get_array().shape
  assert height * width <= 1.01 * style.MAX_PANEL_PIXELS and abs(height - 2 * width) <= 1
  vertices = figure.axes[-1].patches[0].get_path().vertices + 0.5
  expected = np.array([[0.25 * width, 0.5 * height], [0.75 * width, 0.75 * height]])
  np.testing.assert_allclose([vertices.min(0), vertices.max(0)], expected, atol=0.5)


@pytest.mark.parametrize('shape, num_rows', [((64, 16), 1), ((32, 32), 1), ((16, 48), 2)])
def test_panels_share_one_shape_without_overlap(shape, num_rows):
  figure, axes = style.panels(['a', 'b', 'c', 'd'], shape)
  width, height = figure.get_size_inches()
  boxes = [axis.get_position() for axis in axes]
  for box in boxes:
    np.testing.assert_allclose(box.height * height / (box.width * width), shape[0] / shape[1])
    assert 0 <= box.x0 < box.x1 <= 1 + 1e-9 and 0 < box.y0 < box.y1 < 1
  assert len({round(box.y0, 6) for box in boxes}) == num_rows


def test_probability_maps_show_the_probabilities():
  probs = np.random.default_rng(0).dirichlet(np.ones(3), (6, 4)).astype(np.float32)
  figure = overlays.probability_figure(probs, CLASSES)
  assert titles(figure) == ['P(rib)', 'P(lump)', 'P(any foreground)']
  for axis, expected in zip(figure.axes, (probs[..., 1], probs[..., 2], 1 - probs[..., 0])):
    np.testing.assert_allclose(axis.images[0].get_array(), expected, atol=1e-6)
    assert axis.images[0].get_clim() == (0, 1)
  assert titles(overlays.probability_figure(probs[..., :2], CLASSES[:2])) == ['P(rib)']
