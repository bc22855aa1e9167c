"""The figure of a case of compared runs: its window, its panels, its numbers."""
import dataclasses

import numpy as np
import pytest

from spinejax.metrics.results import ComparedCase
from spinejax.report import compared_case

CLASSES = ('background', 'rib', 'lump')


def blank(*pixels, shape=(12, 6)):
  """A mask with these pixels of class 1."""
  mask = np.zeros(shape, np.uint8)
  for row, column in pixels:
    mask[row, column] = 1
  return mask


@pytest.mark.parametrize('masks, label, window', [
    ([blank((9, 5)), blank()], blank(), (8, 3, 3, 3)),  # the pixel in the middle row
    ([blank((0, 0), (9, 5)), blank((0, 0)), blank((10, 4))], blank(), (8, 3, 3, 3)),
    ([blank((2, 0)), blank((2, 0))], blank(), (1, 0, 3, 3)),  # equal masks: against the truth
    ([blank((2, 0)), blank((2, 0))], blank((2, 0)), None)])
def test_the_window_holds_the_largest_disagreement(masks, label, window):
  assert compared_case.largest_disagreement(masks, label, 3) == window


def test_a_window_is_not_larger_than_the_image():
  assert compared_case.largest_disagreement([blank((0, 0)), blank()], blank(), 9) == (0, 0, 9, 6)


@pytest.fixture
def case():
  """Run 'a' is right, run 'b' lacks a pixel and has another one."""
  label = blank((9, 2), (9, 3))
  probs = {'a': label.astype(np.float32), 'b': np.full((12, 6), 0.25, np.float32)}
  return ComparedCase('case', 'worst', np.full((12, 6), 50, np.uint8), label,
                      {'a': label, 'b': blank((9, 3), (10, 3))}, {'a': 1.0, 'b': None}, probs)


def test_panels_show_masks_window_and_probabilities(case):
  figure = compared_case.compared_figure(case, CLASSES)
  panels = [axis for axis in figure.axes if axis.images]
  assert [axis.get_title() for axis in panels[:4]] == ['Image', 'Truth', 'a', 'b']
  assert [text.get_text() for axis in panels[:4] for text in axis.texts] == ['Dice 1.000', 'Dice –']
  image, truth, a, b = (np.asarray(axis.images[0].get_array()) for axis in panels[:4])
  assert (image == 50).all()
  for shown, mask in ((truth, case.label), (a, case.masks['a']), (b, case.masks['b'])):
    np.testing.assert_array_equal((shown != 50).any(-1), mask > 0)
  for axis in panels[:4]:  # columns 1 to 3 and rows 8 to 10 of 6 x 12 pixels
    frame, = axis.patches
    np.testing.assert_allclose(frame.get_bbox().bounds, (1 / 6, 1 - 11 / 12, 1 / 2, 1 / 4))
  for axis, shown in zip(panels[4:8], (image, truth, a, b)):
    assert axis.get_xlim() == (0.5, 3.5) and axis.get_ylim() == (3.5, 0.5)
    np.testing.assert_array_equal(np.asarray(axis.images[0].get_array())[1:-1, 1:-1],
                                  shown[8:11, 1:4])
  outline = panels[7].patches[0].get_path().vertices  # of the truth, with the margin at 0
  assert (outline.min(0).tolist(), outline.max(0).tolist()) == ([1.5, 1.5], [3.5, 2.5])
  for axis, name in zip(panels[8:10], 'ab'):
    np.testing.assert_allclose(axis.images[0].get_array(), case.probs[name])
  assert [text.get_text() for text in figure.legends[0].get_texts()] == [
      'rib', 'lump', 'truth contour', 'largest disagreement']


def test_equal_masks_and_no_probabilities_leave_one_row(case):
  same = dataclasses.replace(case, masks=dict.fromkeys('abcdefgh', case.label), probs={},
                             dice=dict.fromkeys('abcdefgh', 1.0))
  figure = compared_case.compared_figure(same, CLASSES)
  assert len(figure.axes) == 10 and len(figure.legends[0].get_texts()) == 2
  boxes = [axis.get_position() for axis in figure.axes]
  assert len({box.y0 for box in boxes}) == 1
  assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:])) and boxes[-1].x1 < 1.001
