"""Trimaps: colors and values, snapped edges, corners and masks of vertebrae, layouts of folders."""
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy import io as scipy_io
from skimage import draw

from spinejax.data import build
from spinejax.data import datasets
from spinejax.readers import corner_tables
from spinejax.readers import layouts
from spinejax.readers import masks
from spinejax.readers import pairs as pairs_lib
from spinejax.readers import records
from spinejax.readers.records import ReadOptions
from spinejax.readers import trimaps
from tests.readers import folders

CLASSES = ('background', 'spine', 'border')
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)  # as the X-ray U-Net has them
RED_GREEN_BLUE = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
SIZE = 120, 60


def draw_trimap(size=SIZE, tilt=0.0):
  """A column of the middle third with a border of a twelfth on each side, uint8 [H,W]."""
  rows, columns = np.mgrid[:size[0], :size[1]]
  across = np.abs((columns + 0.5) / size[1] - 0.5 - tilt * ((rows + 0.5) / size[0] - 0.5))
  label = np.where(across < 1 / 6, 1, np.where(across < 1 / 6 + 1 / 12, 2, 0)).astype(np.uint8)
  label[:size[0] // 10] = 0
  return label


def save(path, array, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(array).save(path, **options)
  return path


def make_corners(count=17, size=(400, 200), bend=30):
  """Corners [count,4,2] of a bent spine of upright bodies, as AASCE orders them."""
  height, width = size
  y = np.linspace(0.1, 0.9, count) * height
  x = width / 2 + bend * np.sin(np.linspace(0, 3, count))
  half = np.array([0.08 * width, 0.3 * (y[1] - y[0])])
  offsets = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]]) * half
  return np.stack([x, y], -1)[:, None] + offsets


def sentence(call, *args, **options):
  with pytest.raises((ValueError, FileNotFoundError)) as error:
    call(*args, **options)
  assert '\n' not in str(error.value)
  return str(error.value)


# ------------------------------------------------------------------------------------- coding


@pytest.mark.parametrize('order', ['red,green,blue', 'blue,red,green', 'green,blue,red'])
def test_colors_in_any_order(tmp_path, order):
  label = draw_trimap()
  palette = masks.parse_palette(order)
  path = save(tmp_path / 'a.png', np.array(palette, np.uint8)[label])
  read, notes = masks.read_mask(path, palette, num_classes=3)
  np.testing.assert_array_equal(read, label)
  assert notes == ()


def test_values_in_any_order(tmp_path):
  label = draw_trimap()
  assert masks.parse_palette('2, 1,3') == ((2,), (1,), (3,))
  for text, values in (('2,1,3', (2, 1, 3)), ('0,255,128', (0, 255, 128)), ('', (0, 1, 2))):
    path = save(tmp_path / 'a.png', np.array(values, np.uint8)[label])
    read, notes = masks.read_mask(path, masks.parse_palette(text), num_classes=3)
    np.testing.assert_array_equal(read, label)
    assert notes == ()
  np.testing.assert_array_equal(  # a label map does it too
      masks.read_mask(save(tmp_path / 'b.png', np.array((2, 1, 3), np.uint8)[label]), (),
                      (0, 1, 0, 2), 3)[0], label)


def test_hints_for_values_without_a_palette(tmp_path):
  label = draw_trimap()
  path = save(tmp_path / 'a.png', np.array((2, 1, 3), np.uint8)[label])
  assert "needs the palette '2,1,3'" in sentence(masks.read_mask, path, num_classes=3)
  path = save(tmp_path / 'b.png', np.array((0, 255, 128), np.uint8)[label])
  assert "such as '0,255,128'" in sentence(masks.read_mask, path, num_classes=3)
  path = save(tmp_path / 'c.png', COLORS[label])
  assert 'give the colors of the classes as a palette' in sentence(
      masks.read_mask, path, num_classes=3)


# ------------------------------------------------------------------------------------- snapping


def test_snapped_pixels_are_counted(tmp_path):
  label = draw_trimap()
  pixels = COLORS[label]
  pixels[50, 10:14] = (160, 60, 40)  # nearest to red, and far from it
  pixels[51, 10:12] = (250, 3, 0)
  path = save(tmp_path / 'a.png', pixels)
  read, notes = masks.read_mask(path, RED_GREEN_BLUE, num_classes=3)
  np.testing.assert_array_equal(read, label)
  assert notes == ('4 pixels (0.0556%) snapped to the nearest color (2 more lie within 16 levels '
                   'of one)',)


@pytest.mark.parametrize('how', ['half', 'five times', 'jpeg', 'coarse jpeg'])
def test_edges_are_snapped(tmp_path, how):
  label = draw_trimap((400, 200), tilt=0.2)
  image = Image.fromarray(COLORS[label])
  if how == 'half':
    image = image.resize((100, 200), Image.Resampling.BICUBIC)
  elif how == 'five times':
    image = image.resize((1000, 2000), Image.Resampling.BICUBIC)
  if 'jpeg' in how:
    path = tmp_path / 'a.jpg'
    image.save(path, quality=95 if how == 'jpeg' else 60)
  else:
    path = tmp_path / 'a.png'
    image.save(path)
  read, notes = masks.read_mask(path, RED_GREEN_BLUE, num_classes=3)
  expected = np.asarray(Image.fromarray(label).resize(read.shape[::-1], Image.Resampling.NEAREST))
  assert (read != expected).mean() < 0.02
  assert len(notes) == 1 and 'snapped to the nearest color' in notes[0]


def test_gray_values_far_apart_are_snapped_and_close_ones_are_not(tmp_path):
  label = draw_trimap()
  pixels = np.array((0, 255, 128), np.uint8)[label]
  pixels[60, 3] = 30
  path = save(tmp_path / 'a.png', pixels)
  read, notes = masks.read_mask(path, ((0,), (255,), (128,)), num_classes=3)
  np.testing.assert_array_equal(read, label)
  assert notes[0].startswith('1 pixels (0.0139%) snapped')
  pixels = np.array((2, 1, 3), np.uint8)[label]
  pixels[60, 3] = 0
  path = save(tmp_path / 'b.png', pixels)
  assert 'not in the palette: 0 (0.0139% of the pixels); correct' in sentence(
      masks.read_mask, path, ((2,), (1,), (3,)), num_classes=3)


def test_what_is_no_edge_is_refused(tmp_path):
  pixels = COLORS[draw_trimap((400, 200))]
  pixels[200:207, 10:17] = 255  # a patch of one color
  path = save(tmp_path / 'a.png', pixels)
  message = sentence(masks.read_mask, path, RED_GREEN_BLUE, num_classes=3)
  assert 'not in the palette: #ffffff (0.0612% of the pixels)' in message
  pixels[200:207, 12:15] = (255, 0, 0)  # two strips of 2
  masks.read_mask(save(tmp_path / 'b.png', pixels), RED_GREEN_BLUE, num_classes=3)
  photograph = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
  assert 'not in the palette' in sentence(
      masks.read_mask, save(tmp_path / 'c.png', photograph), RED_GREEN_BLUE, num_classes=3)
  black = ((0, 0, 0), *RED_GREEN_BLUE[1:])
  assert '#ff0000' in sentence(masks.read_mask, save(tmp_path / 'd.png', COLORS[draw_trimap()]),
                               black, num_classes=3)


def test_doubtful_trimaps_are_said_and_empty_ones_refused(tmp_path):
  label = draw_trimap()

  def notes(array, palette=()):
    return masks.read_mask(save(tmp_path / 'a.png', array), palette, num_classes=3)[1]

  assert notes(label) == ()
  assert notes(np.where(label == 2, 0, label).astype(np.uint8)) == ('no pixel is border',)
  assert notes(np.where(label == 1, 0, label).astype(np.uint8)) == ('no pixel is core',)
  assert notes(np.zeros_like(label)) == ('no pixel is core or border',)
  swapped, = notes(COLORS[label], ((0, 255, 0), (255, 0, 0), (0, 0, 255)))
  assert swapped.startswith('the core covers both sides of the image')
  turned, = notes(COLORS[label], ((0, 0, 255), (0, 255, 0), (255, 0, 0)))
  assert turned.startswith('the border covers both sides of the image')
  assert 'every pixel of the mask has label 1' in sentence(notes, np.ones_like(label))


# ------------------------------------------------------------------------------------- layouts


def write_xrays(directory, names, trimap='{}-mask-trimap.png', masks=None, seed=0):
  rng, masks = np.random.default_rng(seed), directory if masks is None else masks
  for name in names:
    label = draw_trimap(tilt=rng.uniform(-0.3, 0.3))
    gray = np.clip(60 + 60 * (label > 0) + rng.normal(0, 9, SIZE), 0, 255).astype(np.uint8)
    save(directory / f'{name}.jpg', gray)
    save(masks / trimap.format(name), COLORS[label])


def test_x_rays_beside_their_trimaps(tmp_path, capsys):
  write_xrays(tmp_path, ['image1', 'image2', 'image10'])
  pairs, faults = layouts.find_pairs(tmp_path)
  assert not faults and [pair.name for pair in pairs] == ['image1', 'image10', 'image2']
  assert pairs[0].mask.name == 'image1-mask-trimap.png' and pairs[0].image.name == 'image1.jpg'
  build.build(tmp_path, '', CLASSES, palette=RED_GREEN_BLUE, num_test=0, num_validation=0)
  assert 'is sound' in capsys.readouterr().out
  config = folders.data_config(tmp_path, classes=CLASSES, palette='red,green,blue', num_test=1)
  record = datasets.load_dataset(config)['train'][0]
  assert set(np.unique(record.label)) == {0, 1, 2}
  (tmp_path / 'image1-mask-trimap.png').unlink()
  (tmp_path / 'image2.jpg').unlink()
  (tmp_path / 'cases.csv').write_text('name,patient\nimage10,p\n')
  pairs, faults = layouts.find_pairs(tmp_path)
  assert [pair.patient for pair in pairs] == ['p'] and len(faults) == 2
  assert 'image1.jpg: the image has no mask; expected' in faults[0]
  assert 'image1-mask-trimap.png' in faults[0]
  assert 'image2-mask-trimap.png: the mask has no image' in faults[1]


def test_training_and_test_with_numbers_of_their_own(tmp_path):
  for folder, seed in (('training', 0), ('test', 1)):
    for kind in ('rgb', 'grayscale'):
      end = '' if kind == 'rgb' else '-grayscale'
      write_xrays(tmp_path / folder, ['image0', 'image1'], f'{{}}-mask-trimap{end}.png',
                  tmp_path / folder / 'masks' / kind, seed)
  pairs, faults = layouts.find_pairs(tmp_path)
  assert not faults
  assert [(pair.name, pair.split) for pair in pairs] == [
      ('test-image0', 'test'), ('test-image1', 'test'),
      ('training-image0', 'train'), ('training-image1', 'train')]
  assert {pair.mask.parent.name for pair in pairs} == {'rgb'}
  assert len({pair.patient for pair in pairs}) == 4


# ------------------------------------------------------------------------------------- shapes


def test_polygons_by_hand():
  square = np.array([[1, 1], [4, 1], [4, 3], [1, 3]], float)
  filled = trimaps.fill_polygons([square], (5, 6))
  expected = np.zeros((5, 6), bool)
  expected[1:3, 1:4] = True  # left and upper edges belong to it
  assert len(draw.polygon(*square.T[::-1], (5, 6))[0]) == 12  # scikit-image takes all edges
  np.testing.assert_array_equal(filled, expected)
  triangle = np.array([[-0.5, -0.5], [3.5, -0.5], [-0.5, 3.5]])
  np.testing.assert_array_equal(trimaps.fill_polygons([triangle], (4, 4)),
                                np.add.outer(np.arange(4), np.arange(4)) < 3)
  np.testing.assert_array_equal(trimaps.fill_polygons([square - 2.5], (2, 3)),
                                [[1, 1, 0], [0, 0, 0]])
  assert not trimaps.fill_polygons([square + 10, square[[0, 0, 0]]], (5, 6)).any()
  assert not trimaps.fill_polygons([], (5, 6)).any()


def test_trimap_by_hand():
  spine = np.zeros((12, 14), bool)
  spine[3:9, 4:10] = True
  label = trimaps.make_trimap(spine, 4)  # 2 pixels on either side
  np.testing.assert_array_equal(label[6], [0, 0, 2, 2, 2, 2, 1, 1, 2, 2, 2, 2, 0, 0])
  np.testing.assert_array_equal(label[:, 6], [0, 2, 2, 2, 2, 1, 1, 2, 2, 2, 2, 0])
  assert label[1, 2] == 0 and label[2, 3] == 2  # round corners
  top = np.zeros((6, 9), bool)
  top[:, 3:6] = True
  np.testing.assert_array_equal(trimaps.make_trimap(top, 2), np.tile([0, 0, 2, 2, 1, 2, 2, 0, 0],
                                                                     (6, 1)))
  assert not trimaps.make_trimap(np.zeros((4, 4), bool), 3).any()
  assert (trimaps.make_trimap(np.ones((4, 4), bool), 3) == 1).all()


def test_corners_are_put_in_order_at_any_tilt():
  corners = make_corners(5)
  rng = np.random.default_rng(0)
  for angle in (0, 60, -80):
    turn = np.deg2rad(angle)
    turned = corners @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    mixed = np.stack([body[rng.permutation(4)] for body in turned])
    np.testing.assert_allclose(corner_tables.order_corners(mixed), turned)


def test_bodies_of_a_mask():
  mask = np.zeros((30, 12), np.uint8)
  mask[18:24, 3:9], mask[4:10, 3:9], mask[0, 0] = 1, 1, 1
  bodies = trimaps.find_bodies(mask)
  assert [len(body) for body in bodies] == [36, 36]
  np.testing.assert_allclose([body.mean(0) for body in bodies], [[6.5, 5.5], [20.5, 5.5]])
  column = trimaps.join_bodies(bodies, mask.shape)
  expected = np.zeros(mask.shape, bool)
  expected[4:24, 3:9] = True
  np.testing.assert_array_equal(column, expected)
  touching = np.zeros((30, 12), np.uint8)
  touching[4:10, 3:9], touching[10:16, 3:9] = 7, 3
  label, notes = trimaps.label_bodies(touching, 'levels')
  assert label[5, 5] == 1 and label[12, 5] == 2 and notes == ('2 vertebral bodies',)


# ------------------------------------------------------------------------------------- landmarks


@pytest.mark.parametrize('form', ['fractions', 'pixels', 'interleaved', 'rows', 'heading', 'p2',
                                  'compressed', 'other name', 'upwards', 'bodies mixed'])
def test_tables_of_corners(tmp_path, form):
  size, corners = (400, 200), make_corners()
  points = corners.reshape(-1, 2)
  path = tmp_path / ('a.mat' if form in ('p2', 'compressed', 'other name') else 'a.csv')
  if form == 'p2':
    scipy_io.savemat(path, dict(p2=points, noise=np.arange(9.0)))
  elif form == 'compressed':
    scipy_io.savemat(path, dict(p2=points.astype(np.int16).astype(np.float32)), do_compression=True)
    corners = corners.astype(np.int16).astype(np.float64)
  elif form == 'other name':
    scipy_io.savemat(path, dict(corners=points.T.reshape(1, -1)))
  elif form in ('rows', 'heading'):
    text = '\n'.join(f'{x:.4f},{y:.4f}' for x, y in points)
    path.write_text('x,y\n' * (form == 'heading') + text)
  else:
    if form == 'upwards':
      points = corners[::-1].reshape(-1, 2)
    elif form == 'bodies mixed':
      points = corners[:, [3, 0, 2, 1]].reshape(-1, 2)
    if form == 'fractions':
      points = points / (200, 400)
    numbers = points.reshape(-1) if form == 'interleaved' else points.T.reshape(-1)
    path.write_text(','.join(f'{number:.7f}' for number in numbers) + '\n')
  read, notes = corner_tables.read_corners(path, size)
  np.testing.assert_allclose(read, corners, atol=1e-3)
  assert notes[0] == ('17 vertebrae in fractions of the image' if form == 'fractions' else
                      '17 vertebrae in pixels')
  assert ('turned to run from top to bottom' in notes) == (form == 'upwards')
  assert ('corners of 17 put in order' in notes) == (form in ('upwards', 'bodies mixed'))


def test_labels_of_corners():
  corners = np.array([[[20, y], [40, y], [20, y + 10], [40, y + 10]] for y in (10, 30, 50)], float)
  bodies, _ = trimaps.label_corners(corners, (100, 60), 'bodies')
  column, _ = trimaps.label_corners(corners, (100, 60), 'column')
  levels, _ = trimaps.label_corners(corners, (100, 60), 'levels')
  assert bodies.sum() == 3 * 200 and column.sum() == 50 * 20
  np.testing.assert_array_equal(np.bincount(levels.reshape(-1)), [6000 - 600, 200, 200, 200])
  assert levels[15, 30] == 1 and levels[55, 30] == 3
  label, notes = trimaps.label_corners(corners, (100, 60), 'trimap', border=0.1)
  assert notes == ('border 6 pixels wide',)
  np.testing.assert_array_equal(label[35, 15:45], [0] * 2 + [2] * 6 + [1] * 14 + [2] * 6 + [0] * 2)
  for num_labels, expected in ((2, column), (3, None), (18, levels)):
    made, _ = trimaps.label_corners(corners, (100, 60), '', 0.1, num_labels)
    np.testing.assert_array_equal(made, label if expected is None else expected)


def test_faulty_tables(tmp_path):
  path, size = tmp_path / 'a.csv', (400, 200)
  points = make_corners().reshape(-1, 2)

  def of(text, where=path):
    where.write_text(text)
    return sentence(corner_tables.read_corners, where, size)

  def line(array):
    return ','.join(map(str, np.asarray(array).T.reshape(-1)))

  assert 'no such file' in sentence(corner_tables.read_corners, tmp_path / 'b.csv', size)
  assert 'no such file' in sentence(corner_tables.read_corners, tmp_path / 'b.mat', size)
  assert 'expected 68 corners' in of(line(points[:-1]))
  assert 'the file is empty' in of('')
  assert 'expected one line of 136 numbers' in of('\n')
  assert 'expected one line of 136 numbers' in of(line(points) + '\n' + line(points))
  assert 'expected numbers only' in of(line(points) + ',oops')
  assert 'must be finite' in of(line(np.where(points == points[3, 0], np.nan, points)))
  mixed = np.random.default_rng(0).permutation(points)
  assert 'do not run from top to bottom' in of(line(mixed))
  assert '68 of 68 corners lie outside of the image of 400 x 200' in of(line(points + 900))
  assert 'not a MATLAB file of version 5' in of('nothing', tmp_path / 'a.mat')
  scipy_io.savemat(tmp_path / 'a.mat', dict(a=points, b=points))
  assert 'found 2 arrays' in sentence(corner_tables.read_corners, tmp_path / 'a.mat', size)
  corners = make_corners()
  assert 'become 2 labels' in sentence(trimaps.label_corners, corners, size, '', num_labels=4)
  assert "labels 'trimap' need 3 labels" in sentence(
      trimaps.label_corners, corners, size, 'trimap', num_labels=2)
  assert "labels 'levels' need 18 labels" in sentence(
      trimaps.label_corners, corners, size, 'levels', num_labels=3)
  assert "'mask' reads masks as they are" in sentence(trimaps.label_corners, corners, size, 'mask')
  assert 'must be one of' in sentence(trimaps.check_labels, 'vertebrae', 0.1)
  assert 'fraction' in sentence(trimaps.check_labels, 'trimap', 3)


def test_a_damaged_file_ends_the_process_inside_of_scipy(tmp_path):
  path = tmp_path / 'a.mat'
  scipy_io.savemat(path, dict(p2=make_corners().reshape(-1, 2)))
  content = bytearray(path.read_bytes())
  content[content.index(b'\x09\0\0\0\x40\x04') + 1] = 1  # the type of the numbers
  path.write_bytes(content)
  code = f'from scipy import io; io.loadmat({str(path)!r})'
  assert subprocess.run([sys.executable, '-c', code], capture_output=True).returncode < 0
  assert 'found 0 arrays' in sentence(corner_tables.read_corners, path, (400, 200))


def write_landmarks(directory, form):
  """Two X-rays with corners of their vertebrae in one of the layouts."""
  size, points = (400, 200), make_corners().reshape(-1, 2)
  numbers = ','.join(f'{value:.6f}' for value in (points / (200, 400)).T.reshape(-1))
  image = np.zeros(size, np.uint8)
  if form == 'landmarks':
    for name in ('a', 'b'):
      save(directory / 'images' / f'{name}.jpg', image)
      (directory / 'landmarks').mkdir(exist_ok=True)
      (directory / 'landmarks' / f'{name}.csv').write_text(numbers)
    return
  for split, name in (('training', 'a'), ('test', 'b')):
    save(directory / 'data' / split / f'{name}.jpg', image)
    labels = directory / 'labels' / split
    labels.mkdir(parents=True)
    if form == 'table':
      (labels / 'filenames.csv').write_text(f'{name}.jpg\n')
      (labels / 'landmarks.csv').write_text(numbers + '\n')
      (labels / 'angles.csv').write_text('1,2,3\n')
    else:
      scipy_io.savemat(labels / f'{name}.jpg.mat', dict(p2=points))


@pytest.mark.parametrize('form', ['landmarks', 'table', 'matlab'])
def test_folders_of_corners(tmp_path, form, capsys):
  write_landmarks(tmp_path, form)
  pairs, faults = layouts.find_pairs(tmp_path)
  assert not faults and sorted(pair.name for pair in pairs) == ['a', 'b']
  splits = {pair.name: pair.split for pair in pairs}
  assert splits == (dict(a='', b='') if form == 'landmarks' else dict(a='train', b='test'))
  sound, faults = pairs_lib.check_pairs(pairs, ReadOptions(num_classes=3, border=0.05))
  assert not faults and all(min(pair.counts) > 0 for pair in sound)
  record = pairs_lib.read_pair(sound[0], ReadOptions(num_classes=3, border=0.05))
  assert records.digest(record) == sound[0].digest
  expected, _ = trimaps.label_corners(make_corners(), (400, 200), 'trimap', 0.05)
  assert (record.label != expected).mean() < 0.001
  build.build(tmp_path, tmp_path / 'out', CLASSES, num_validation=0, num_test=0)
  text = capsys.readouterr().out
  assert '2 files: 17 vertebrae in' in text and '2 files: border 4 pixels wide' in text
  built = datasets.load_dataset(folders.data_config(tmp_path / 'out', name='built',
                                                    classes=CLASSES))
  assert set(np.unique(built['train'][0].label)) == {0, 1, 2}


def test_faults_of_tables_of_many_images(tmp_path):
  write_landmarks(tmp_path, 'table')
  labels = tmp_path / 'labels' / 'training'
  (labels / 'filenames.csv').write_text('a.jpg\nz.jpg\na.jpg\n')
  save(tmp_path / 'data' / 'training' / 'c.jpg', np.zeros((4, 4), np.uint8))
  (tmp_path / 'labels' / 'test' / 'filenames.csv').unlink()
  (tmp_path / 'data' / 'extra').mkdir()
  _, faults = layouts.find_pairs(tmp_path)
  text = '\n'.join(faults)
  assert "line 2: there is no image called 'z.jpg'" in text
  assert 'line 3: a.jpg has a line already' in text
  assert 'c.jpg: the image has no line in' in text
  assert 'filenames.csv: there is no such file' in text
  assert 'data/extra: expected the folders training' in text
  (labels / 'filenames.csv').write_text('c.jpg\na.jpg\n')
  pairs, _ = layouts.find_pairs(tmp_path)
  _, faults = pairs_lib.check_pairs([pair for pair in pairs if pair.name == 'a'],
                                ReadOptions(num_classes=3))
  assert faults == [f'{labels / "landmarks.csv"}: the table has 1 lines; expected one an image.']


@pytest.mark.parametrize('kind', ['binary', 'instances', '255'])
def test_folders_of_vertebra_masks(tmp_path, kind):
  levels, _ = trimaps.label_corners(make_corners(), (400, 200), 'levels')
  mask = dict(binary=levels > 0, instances=levels)
  mask['255'] = mask['binary'] * 255
  save(tmp_path / 'images' / 'a.png', np.zeros((400, 200), np.uint8))
  save(tmp_path / 'masks' / 'a.png', mask[kind].astype(np.uint8))
  pairs, _ = layouts.find_pairs(tmp_path)
  sound, faults = pairs_lib.check_pairs(pairs, ReadOptions(num_classes=3, labels='trimap'))
  assert not faults and min(sound[0].counts) > 0
  assert sound[0].notes == ('a.png: 17 vertebral bodies', 'a.png: border 4 pixels wide')
  by_corners, _ = trimaps.label_corners(make_corners(), (400, 200), 'trimap')
  record = pairs_lib.read_pair(sound[0], ReadOptions(num_classes=3, labels='trimap'))
  assert (record.label != by_corners).mean() < 0.02
  dataset = datasets.load_dataset(folders.data_config(
      tmp_path, classes=CLASSES, labels='trimap', border=0.1))
  thick = dataset['train'][0].label
  assert (thick == 2).sum() > 3 * (record.label == 2).sum()
  save(tmp_path / 'masks' / 'a.png', np.zeros((400, 200), np.uint8))
  _, faults = pairs_lib.check_pairs(pairs, ReadOptions(num_classes=3, labels='trimap'))
  assert faults == [f'{tmp_path / "masks" / "a.png"}: the mask holds no vertebral body; mark one, '
                    'or leave the image out.']
