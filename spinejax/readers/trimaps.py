"""Labels of X-rays, made of vertebral bodies: trimaps (0 background, 1 core, 2 border) and others.

Points are (x, y) in pixels of the image. Pixel centers are whole numbers and y points down.
"""
import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage, spatial
from skimage import draw, measure

BACKGROUND, CORE, BORDER = 0, 1, 2
DRAWN = ('trimap', 'column', 'bodies', 'levels')  # labels made of vertebral bodies
LABELS = ('mask', *DRAWN)
BORDER_WIDTH = 0.02  # width of the border, as a fraction of the width of the image

_LEAST_BORDER = 2.0  # pixels
_EDGE_SHIFT = 1e-5, 1e-10  # pixels in x and y; slanted edges are left or right, not upper or lower
_SPECK = 0.1  # of the median area of a body; smaller pieces of a mask are left out


def _pixels_inside(polygon: np.ndarray, size: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
  """Rows and columns of the pixels of a polygon, see `fill_polygons`."""
  # scikit-image counts all edges as inside. The shift moves right and lower edges off centers.
  x, y = (polygon - _EDGE_SHIFT).T
  return draw.polygon(y, x, tuple(size))


def fill_polygons(polygons: Sequence[np.ndarray], size: Sequence[int]) -> np.ndarray:
  """The union of polygons [m,2], each filled by the even-odd rule, bool [H,W].

  A pixel belongs to a polygon if its center does. Centers on a left or upper edge belong to it,
  those on a right or lower edge do not, so polygons that share an edge share no pixel. Polygons may
  reach over the image of `size` (H, W).
  """
  filled = np.zeros(tuple(size), bool)
  for polygon in polygons:
    filled[_pixels_inside(polygon, size)] = True
  return filled


def make_trimap(spine: np.ndarray, width: float) -> np.ndarray:
  """The trimap of a mask: a border of `width` pixels along its outline, half of it on either side.

  A pixel whose center lies less than width / 2 from the outline (which runs between pixels) is
  border. The edges of the image are no outline. The mask is bool [H,W] and may be empty. Returns
  uint8 [H,W]: 0 background, 1 core, 2 border.
  """
  label = np.zeros(spine.shape, np.uint8)
  margin = math.ceil(width) + 1
  for sides in ndimage.find_objects(spine.view(np.uint8)):  # one box, or none
    box = tuple(slice(max(side.start - margin, 0), side.stop + margin) for side in sides)
    inside = spine[box]
    reach = width / 2 + 0.5  # from center to center
    border = np.zeros(inside.shape, bool)
    if not inside.all():
      border = ((ndimage.distance_transform_edt(~inside) < reach)
                & (ndimage.distance_transform_edt(inside) < reach))
    label[box] = np.where(border, BORDER, np.where(inside, CORE, BACKGROUND))
  return label


def find_bodies(mask: np.ndarray) -> list[np.ndarray]:
  """Pixels of every vertebral body, int [m,2] (row, column), from top to bottom.

  In a mask of one value, each connected component (over edges and corners) is a body; in a mask of
  several values, each value is one. Pieces below a tenth of the median area are left out. The mask
  holds integers [H,W], 0 = background.
  """
  if len(np.unique(mask[mask > 0])) == 1:
    mask = measure.label(mask > 0, connectivity=2)
  bodies = [region.coords for region in measure.regionprops(mask)]
  least = _SPECK * np.median([len(body) for body in bodies]) if bodies else 0
  return sorted((body for body in bodies if len(body) >= least),
                key=lambda body: body[:, 0].mean())


def join_bodies(bodies: Sequence[np.ndarray], size: Sequence[int]) -> np.ndarray:
  """The spine column: bodies and, between neighbors, the convex hull of their facing halves.

  The bodies are those of `find_bodies` in an image of `size` (H, W). Returns bool [H,W].
  """
  column = np.zeros(tuple(size), bool)
  for body in bodies:
    column[tuple(body.T)] = True
  if len(bodies) < 2:
    return column
  reach = 0.5 * math.sqrt(np.median([len(body) for body in bodies]))
  pixel_corners = np.array([(-.5, -.5), (-.5, .5), (.5, -.5), (.5, .5)])
  hulls = []
  for upper, lower in zip(bodies, bodies[1:]):
    ahead = lower.mean(0) - upper.mean(0)
    ahead /= max(float(np.linalg.norm(ahead)), 1e-9)
    facing = [points[along >= along.max() - reach] for points, along in
              ((upper, upper @ ahead), (lower, -(lower @ ahead)))]
    points = (np.concatenate(facing)[:, None] + pixel_corners).reshape(-1, 2)
    hulls.append(points[spatial.ConvexHull(points).vertices, ::-1])
  return column | fill_polygons(hulls, size)


def label_corners(corners: np.ndarray, size: Sequence[int], labels: str = 'trimap',
                  border: float = BORDER_WIDTH, num_labels: int | None = None
                  ) -> tuple[np.ndarray, tuple[str, ...]]:
  """Labels an image from the corners of its vertebral bodies.

  Args:
    corners: [n,4,2] of `corner_tables.read_corners`.
    size: (H, W).
    labels: 'trimap': core and border of the spine column; 'column': 1 in the bodies and the discs
      between them; 'bodies': 1 in the bodies; 'levels': 1 to n from the first body to the last;
      '': what fits num_labels.
    border: width of the border of the trimap as a fraction of W; at least 2 pixels.
    num_labels: number of labels that are allowed, background included; None: any.

  Returns uint8 [H,W] and notes in words. Raises ValueError for labels that do not fit.
  """
  if not labels:
    kinds = {2: 'column', 3: 'trimap', 18: 'levels'}
    if num_labels not in kinds:
      raise ValueError('corners of vertebrae become 2 labels (background, spine), 3 (background, '
                       f'spine, border) or 18 (background, T1 to L5), not {num_labels}; set '
                       'data.labels and the classes.')
    labels = kinds[num_labels]
  if labels == 'mask':
    raise ValueError("labels 'mask' reads masks as they are; corners of vertebrae need 'trimap', "
                     "'column', 'bodies' or 'levels'.")
  bodies = list(corners[:, [0, 1, 3, 2]])
  if labels == 'levels':
    return _number([_pixels_inside(body, size) for body in bodies], size, num_labels), ()
  discs = np.concatenate([corners[:-1, [2, 3]], corners[1:, [1, 0]]], 1)
  spine = fill_polygons(bodies if labels == 'bodies' else [*bodies, *discs], size)
  return _label_spine(spine, labels, border, num_labels)


def label_bodies(mask: np.ndarray, labels: str = 'trimap', border: float = BORDER_WIDTH,
                 num_labels: int | None = None) -> tuple[np.ndarray, tuple[str, ...]]:
  """Labels an image from a mask of its vertebral bodies, as `label_corners` does.

  The mask holds integers [H,W]: binary, or a number for every vertebra, see `find_bodies`. Its
  levels are numbered from the top. Raises ValueError also for a mask without a body.
  """
  bodies = find_bodies(mask)
  if not bodies:
    raise ValueError('the mask holds no vertebral body; mark one, or leave the image out.')
  note = f'{len(bodies)} vertebral bodies' if len(bodies) > 1 else '1 vertebral body'
  if labels == 'levels':
    return _number([tuple(body.T) for body in bodies], mask.shape, num_labels), (note,)
  spine = mask > 0 if labels == 'bodies' else join_bodies(bodies, mask.shape)
  label, notes = _label_spine(spine, labels, border, num_labels)
  return label, (note, *notes)


def _number(bodies: Sequence[tuple[np.ndarray, ...]], size: Sequence[int], num_labels: int | None
            ) -> np.ndarray:
  """The label of each body is its place in the sequence, from 1."""
  _check_count('levels', num_labels, len(bodies))
  label = np.zeros(tuple(size), np.uint8)
  for level, pixels in enumerate(bodies, 1):
    label[pixels] = level
  return label


def _check_count(labels: str, num_labels: int | None, highest: int) -> None:
  if num_labels is not None and num_labels <= highest:
    raise ValueError(f"labels '{labels}' need {highest + 1} labels, background first, but there "
                     f'are {num_labels}; give more classes or choose other labels.')


def _label_spine(spine: np.ndarray, labels: str, border: float, num_labels: int | None
                 ) -> tuple[np.ndarray, tuple[str, ...]]:
  _check_count(labels, num_labels, BORDER if labels == 'trimap' else 1)
  if labels != 'trimap':
    return spine.astype(np.uint8), ()
  width = max(_LEAST_BORDER, border * spine.shape[1])
  return make_trimap(spine, width), (f'border {width:.3g} pixels wide',)


def doubts(label: np.ndarray) -> list[str]:
  """What is unusual about a trimap, in words: a missing label, a spine as wide as the image."""
  names = 'background', 'core', 'border'
  missing = [name for value, name in enumerate(names) if not (label == value).any()]
  found = [f'no pixel is {" or ".join(missing)}'] if missing else []
  sides = label[:, [0, -1]]
  found += [f'the {names[value]} covers both sides of the image: is the palette in the order '
            'background, core, border?'
            for value in (CORE, BORDER) if (sides == value).mean(0).min() > 0.5]
  return found
