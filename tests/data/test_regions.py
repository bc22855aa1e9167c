"""Cells of connected components."""
import numpy as np

from spinejax.data import regions


def test_hand_computed_cells():
  label = np.array([[1, 0, 0, 0, 1],
                    [0, 1, 0, 0, 1],
                    [0, 0, 0, 0, 2]])
  cells = regions.component_cells(label, 4)
  assert cells.shape == (3, 5, 3) and cells.dtype == np.uint8
  np.testing.assert_array_equal(cells[..., 0], [[1, 1, 1, 2, 2],   # diagonal neighbors are one
                                                [1, 1, 1, 2, 2],
                                                [1, 1, 1, 2, 2]])
  np.testing.assert_array_equal(cells[..., 1], 1)
  np.testing.assert_array_equal(cells[..., 2], 0)


def test_components_are_their_own_cells_and_others_belong_to_the_nearest():
  label = (np.random.default_rng(0).random((40, 30)) < 0.03).astype(np.int32)
  cells = regions.component_cells(label, 2)[..., 0]
  seeds = [np.argwhere((label == 1) & (cells == m)) for m in range(1, cells.max() + 1)]
  assert len(seeds) > 5
  for point in np.ndindex(*label.shape):
    distances = [((members - point)**2).sum(-1).min() for members in seeds]
    assert distances[cells[point] - 1] == min(distances)


def test_at_most_255_components_and_the_small_ones_join():
  label = np.zeros((80, 80), np.uint8)
  label[::4, ::4] = 1            # 400 single pixels
  label[0:2, 0:2] = 1            # one larger, first
  label[76:78, 76:78] = 1        # one larger, last
  cells = regions.component_cells(label, 2)[..., 0]
  assert sorted(np.unique(cells)) == list(range(1, 256))
  assert cells[0, 0] == 1 and cells[77, 77] == 255


def test_background_only_and_three_dimensions():
  np.testing.assert_array_equal(regions.component_cells(np.zeros((4, 5), int), 3), 0)
  label = np.zeros((3, 4, 5), np.uint8)
  label[0, 0, 0] = label[2, 3, 4] = 1
  cells = regions.component_cells(label, 2)
  assert cells.shape == (3, 4, 5, 1)
  assert cells[0, 0, 1, 0] == 1 and cells[2, 3, 3, 0] == 2
