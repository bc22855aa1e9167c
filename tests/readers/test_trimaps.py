"""Trimaps: colors and values, snapped edges, corners and masks of vertebrae, layouts of folders."""
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy import io as scipy_io
from skimage import draw

from spinejax.data import build, datasets
from spinejax.readers import corner_tables, layouts, masks, records, trimaps
from spinejax.readers import pairs as pairs_lib
from spinejax.readers.records import ReadOptions
from tests.readers import folders
from tests.readers.folders import save, sentence

CLASSES = ('background', 'spine', 'border')
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)  # as the X-ray U-Net has them
RED_GREEN_BLUE = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
SIZE = 120, 60
TALL = 400, 200


def draw_trimap(size=SIZE, tilt=0.0):
  """A column of the middle third with a border of a twelfth on each side, uint8 [H,W]."""
  rows, columns = np.mgrid[:size[0], :size[1]]
  across = np.abs((columns + 0.5) / size[1] - 0.5 - tilt * ((rows + 0.5) / size[0] - 0.5))
  label = np.where(across < 1 / 6, 1, np.where(across < 1 / 6 + 1 / 12, 2, 0)).astype(np.uint8)
  label[:size[0] // 10] = 0
  return label


def make_corners(count=17, size=TALL, bend=30):
  """Corners [count,4,2] of a bent spine of upright bodies, as AASCE orders them."""
  height, width = size
  y = np.linspace(0.1, 0.9, count) * height
  x = width / 2 + bend * np.sin(np.linspace(0, 3, count))
  half = np.array([0.08 * width, 0.3 * (y[1] - y[0])])
  offsets = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]]) * half
  return np.stack([x, y], -1)[:, None] + offsets


@pytest.fixture
def read(tmp_path):
  """Reads an array saved as a mask of three labels: label and notes."""
  def read_array(array, palette=(), **options):
    return masks.read_mask(save(tmp_path / 'a.png', array), palette, num_classes=3, **options)
  return read_array


@pytest.mark.parametrize('text, values', [
    ('red,green,blue', None), ('blue,red,green', None), ('green,blue,red', None),
    ('2, 1,3', (2, 1, 3)), ('0,255,128', (0, 255, 128)), ('', (0, 1, 2))])
def test_colors_and_values_in_any_order(read, text, values):
  label, palette = draw_trimap(), masks.parse_palette(text)
  found, notes = read(np.array(values or palette, np.uint8)[label], palette)
  np.testing.assert_array_equal(found, label)
  assert notes == ()
  if values == (2, 1, 3):  # a label map does it too
    assert palette == ((2,), (1,), (3,))
    found, _ = read(np.array(values, np.uint8)[label], label_map=(0, 1, 0, 2))
    np.testing.assert_array_equal(found, label)


@pytest.mark.parametrize('values, words', [
    (np.uint8([2, 1, 3]), "needs the palette '2,1,3'"),
    (np.uint8([0, 255, 128]), "such as '0,255,128'"),
    (COLORS, 'give the colors of the classes as a palette')])
def test_hints_for_values_without_a_palette(read, values, words):
  assert words in sentence(read, values[draw_trimap()])


def test_snapped_pixels_are_counted(read):
  label = draw_trimap()
  pixels = COLORS[label]
  pixels[50, 10:14] = (160, 60, 40)  # nearest to red, and far from it
  pixels[51, 10:12] = (250, 3, 0)
  found, notes = read(pixels, RED_GREEN_BLUE)
  np.testing.assert_array_equal(found, label)
  assert notes == ('4 pixels (0.0556%) snapped to the nearest color (2 more lie within 16 levels '
                   'of one)',)


@pytest.mark.parametrize('scale, quality', [(0.5, 0), (3, 0), (1, 95), (1, 60)])
def test_edges_are_snapped(tmp_path, scale, quality):
  label = draw_trimap(TALL, tilt=0.2)
  size = int(200 * scale), int(400 * scale)
  image = Image.fromarray(COLORS[label]).resize(size, Image.Resampling.BICUBIC)
  path = tmp_path / ('a.jpg' if quality else 'a.png')
  image.save(path, quality=quality)
  found, notes = masks.read_mask(path, RED_GREEN_BLUE, num_classes=3)
  expected = np.asarray(Image.fromarray(label).resize(size, Image.Resampling.NEAREST))
  assert (found != expected).mean() < 0.02
  assert len(notes) == 1 and 'snapped to the nearest color' in notes[0]


def test_gray_values_far_apart_are_snapped_and_close_ones_are_not(read):
  label = draw_trimap()
  pixels = np.array((0, 255, 128), np.uint8)[label]
  pixels[60, 3] = 30
  found, notes = read(pixels, ((0,), (255,), (128,)))
  np.testing.assert_array_equal(found, label)
  assert notes[0].startswith('1 pixels (0.0139%) snapped')
  pixels = np.array((2, 1, 3), np.uint8)[label]
  pixels[60, 3] = 0
  assert 'not in the palette: 0 (0.0139% of the pixels); correct' in sentence(
      read, pixels, ((2,), (1,), (3,)))


def test_what_is_no_edge_is_refused(read):
  pixels = COLORS[draw_trimap(TALL)]
  pixels[200:207, 10:17] = 255  # a patch of one color
  assert 'not in the palette: #ffffff (0.0612% of the pixels)' in sentence(
      read, pixels, RED_GREEN_BLUE)
  pixels[200:207, 12:15] = (255, 0, 0)  # two strips of 2
  read(pixels, RED_GREEN_BLUE)
  photograph = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
  assert 'not in the palette' in sentence(read, photograph, RED_GREEN_BLUE)
  assert '#ff0000' in sentence(read, COLORS[draw_trimap()], ((0, 0, 0), *RED_GREEN_BLUE[1:]))


def test_doubtful_trimaps_are_said_and_empty_ones_refused(read):
  label = draw_trimap()
  for array, palette, words in (
      (label, (), ''), (np.where(label == 2, 0, label), (), 'no pixel is border'),
      (np.where(label == 1, 0, label), (), 'no pixel is core'),
      (label * 0, (), 'no pixel is core or border'),
      (COLORS[label], ((0, 255, 0), (255, 0, 0), (0, 0, 255)), 'the core covers both sides of the'),
      (COLORS[label], ((0, 0, 255), (0, 255, 0), (255, 0, 0)), 'the border covers both sides of')):
    notes = read(array.astype(np.uint8), palette)[1]
    assert len(notes) == bool(words) and ''.join(notes).startswith(words)
  assert 'every pixel of the mask has label 1' in sentence(read, np.ones_like(label))


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
    for kind, end in (('rgb', ''), ('grayscale', '-grayscale')):
      write_xrays(tmp_path / folder, ['image0', 'image1'], f'{{}}-mask-trimap{end}.png',
                  tmp_path / folder / 'masks' / kind, seed)
  pairs, faults = layouts.find_pairs(tmp_path)
  assert not faults
  assert [(pair.name, pair.split) for pair in pairs] == [
      ('test-image0', 'test'), ('test-image1', 'test'),
      ('training-image0', 'train'), ('training-image1', 'train')]
  assert {pair.mask.parent.name for pair in pairs} == {'rgb'}
  assert len({pair.patient for pair in pairs}) == 4


def test_polygons_by_hand():
  square = np.array([[1, 1], [4, 1], [4, 3], [1, 3]], float)
  expected = np.zeros((5, 6), bool)
  expected[1:3, 1:4] = True  # left and upper edges belong to it
  assert len(draw.polygon(*square.T[::-1], (5, 6))[0]) == 12  # scikit-image takes all edges
  np.testing.assert_array_equal(trimaps.fill_polygons([square], (5, 6)), expected)
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
  expected = np.zeros(mask.shape, bool)
  expected[4:24, 3:9] = True
  np.testing.assert_array_equal(trimaps.join_bodies(bodies, mask.shape), expected)
  touching = np.zeros((30, 12), np.uint8)
  touching[4:10, 3:9], touching[10:16, 3:9] = 7, 3
  label, notes = trimaps.label_bodies(touching, 'levels')
  assert label[5, 5] == 1 and label[12, 5] == 2 and notes == ('2 vertebral bodies',)


@pytest.mark.parametrize('form', ['fractions', 'pixels', 'interleaved', 'rows', 'heading', 'p2',
                                  'compressed', 'other name', 'upwards', 'bodies mixed',
                                  'last first', 'shuffled'])
def test_tables_of_corners(tmp_path, form):
  corners = make_corners()
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
    path.write_text('x,y\n' * (form == 'heading') + '\n'.join(f'{x:.4f},{y:.4f}'
                                                               for x, y in points))
  else:
    order = np.random.default_rng(0).permutation(len(corners))
    points = {'upwards': corners[::-1], 'last first': np.roll(corners, 1, 0),
              'shuffled': corners[order], 'bodies mixed': corners[:, [3, 0, 2, 1]],
              'fractions': corners / (200, 400)}.get(form, corners).reshape(-1, 2)
    numbers = points.reshape(-1) if form == 'interleaved' else points.T.reshape(-1)
    path.write_text(','.join(f'{number:.7f}' for number in numbers) + '\n')
  found, notes = corner_tables.read_corners(path, TALL)
  np.testing.assert_allclose(found, corners, atol=1e-3)
  assert notes[0] == ('17 vertebrae in fractions of the image' if form == 'fractions' else
                      '17 vertebrae in pixels')
  assert ('turned to run from top to bottom' in notes) == (form == 'upwards')
  assert ('vertebrae put in order from top to bottom' in notes) == (
      form in ('last first', 'shuffled'))
  assert ('corners of 17 put in order' in notes) == (form == 'bodies mixed')


def test_labels_of_corners():
  corners = np.array([[[20, y], [40, y], [20, y + 10], [40, y + 10]] for y in (10, 30, 50)], float)
  bodies, column, levels = (trimaps.label_corners(corners, (100, 60), labels)[0]
                            for labels in ('bodies', 'column', 'levels'))
  assert bodies.sum() == 3 * 200 and column.sum() == 50 * 20
  np.testing.assert_array_equal(np.bincount(levels.reshape(-1)), [6000 - 600, 200, 200, 200])
  assert levels[15, 30] == 1 and levels[55, 30] == 3
  label, notes = trimaps.label_corners(corners, (100, 60), 'trimap', border=0.1)
  assert notes == ('border 6 pixels wide',)
  np.testing.assert_array_equal(label[35, 15:45], [0] * 2 + [2] * 6 + [1] * 14 + [2] * 6 + [0] * 2)
  for num_labels, expected in ((2, column), (3, label), (18, levels)):
    made, _ = trimaps.label_corners(corners, (100, 60), '', 0.1, num_labels)
    np.testing.assert_array_equal(made, expected)


def test_faulty_tables(tmp_path):
  points = make_corners().reshape(-1, 2)

  def line(array):
    return ','.join(map(str, np.asarray(array).T.reshape(-1)))

  mixed = np.random.default_rng(0).permutation(points)
  for name, text, words in (
      ('b.csv', None, 'no such file'), ('b.mat', None, 'no such file'),
      ('a.csv', line(points[:-1]), 'expected 68 corners'), ('a.csv', '', 'the file is empty'),
      ('a.csv', '\n', 'expected one line of 136 numbers'),
      ('a.csv', line(points) + '\n' + line(points), 'expected one line of 136 numbers'),
      ('a.csv', line(points) + ',oops', 'expected numbers only'),
      ('a.csv', line(np.where(points == points[3, 0], np.nan, points)), 'must be finite'),
      ('a.csv', line(mixed), 'do not run from top to bottom'),
      ('a.csv', line(points + 900), '68 of 68 corners lie outside of the image of 400 x 200'),
      ('a.mat', 'nothing', 'not a MATLAB file of version 5')):
    path = tmp_path / name
    if text is not None:
      path.write_text(text)
    assert words in sentence(corner_tables.read_corners, path, TALL)
  scipy_io.savemat(tmp_path / 'a.mat', dict(a=points, b=points))
  assert 'found 2 arrays' in sentence(corner_tables.read_corners, tmp_path / 'a.mat', TALL)


@pytest.mark.parametrize('labels, num_labels, words', [
    ('', 4, 'become 2 labels'), ('trimap', 2, "labels 'trimap' need 3 labels"),
    ('levels', 3, "labels 'levels' need 18 labels"), ('mask', None, "'mask' reads masks as they")])
def test_labels_that_do_not_fit_are_refused(labels, num_labels, words):
  assert words in sentence(trimaps.label_corners, make_corners(), TALL, labels,
                           num_labels=num_labels)
  assert 'must be one of' in sentence(ReadOptions, labels='vertebrae')
  assert 'fraction' in sentence(ReadOptions, border=3)


def test_a_damaged_file_ends_the_process_inside_of_scipy(tmp_path):
  path = tmp_path / 'a.mat'
  scipy_io.savemat(path, dict(p2=make_corners().reshape(-1, 2)))
  content = bytearray(path.read_bytes())
  content[content.index(b'\x09\0\0\0\x40\x04') + 1] = 1  # the type of the numbers
  path.write_bytes(content)
  code = f'from scipy import io; io.loadmat({str(path)!r})'
  assert subprocess.run([sys.executable, '-c', code], capture_output=True).returncode < 0
  assert 'found 0 arrays' in sentence(corner_tables.read_corners, path, TALL)


def write_landmarks(directory, form):
  """Two X-rays with corners of their vertebrae in one of the layouts."""
  points = make_corners().reshape(-1, 2)
  numbers = ','.join(f'{value:.6f}' for value in (points / (200, 400)).T.reshape(-1))
  image = np.zeros(TALL, np.uint8)
  if form == 'landmarks':
    (directory / 'landmarks').mkdir(parents=True)
    for name in ('a', 'b'):
      save(directory / 'images' / f'{name}.jpg', image)
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
  options = ReadOptions(num_classes=3, border=0.05)
  sound, faults = pairs_lib.check_pairs(pairs, options)
  assert not faults and all(min(pair.counts) > 0 for pair in sound)
  record = pairs_lib.read_pair(sound[0], options)
  assert records.digest(record) == sound[0].digest
  expected, _ = trimaps.label_corners(make_corners(), TALL, 'trimap', 0.05)
  assert (record.label != expected).mean() < 0.001
  if form == 'table':
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
  text = '\n'.join(layouts.find_pairs(tmp_path)[1])
  for words in ("line 2: there is no image called 'z.jpg'", 'line 3: a.jpg has a line already',
                'c.jpg: the image has no line in', 'filenames.csv: there is no such file',
                'data/extra: expected the folders training'):
    assert words in text
  (labels / 'filenames.csv').write_text('c.jpg\na.jpg\n')
  pairs, _ = layouts.find_pairs(tmp_path)
  _, faults = pairs_lib.check_pairs([pair for pair in pairs if pair.name == 'a'],
                                    ReadOptions(num_classes=3))
  assert faults == [f'{labels / "landmarks.csv"}: the table has 1 lines; expected one an image.']


@pytest.mark.parametrize('kind', ['binary', 'instances', '255'])
def test_folders_of_vertebra_masks(tmp_path, kind):
  levels, _ = trimaps.label_corners(make_corners(), TALL, 'levels')
  mask = {'binary': levels > 0, 'instances': levels, '255': (levels > 0) * 255}[kind]
  save(tmp_path / 'images' / 'a.png', np.zeros(TALL, np.uint8))
  save(tmp_path / 'masks' / 'a.png', mask.astype(np.uint8))
  options = ReadOptions(num_classes=3, labels='trimap')
  pairs, _ = layouts.find_pairs(tmp_path)
  sound, faults = pairs_lib.check_pairs(pairs, options)
  assert not faults and min(sound[0].counts) > 0
  assert sound[0].notes == ('a.png: 17 vertebral bodies', 'a.png: border 4 pixels wide')
  by_corners, _ = trimaps.label_corners(make_corners(), TALL, 'trimap')
  record = pairs_lib.read_pair(sound[0], options)
  assert (record.label != by_corners).mean() < 0.02
  thick = datasets.load_dataset(folders.data_config(
      tmp_path, classes=CLASSES, labels='trimap', border=0.1))['train'][0].label
  assert (thick == 2).sum() > 3 * (record.label == 2).sum()
  save(tmp_path / 'masks' / 'a.png', np.zeros(TALL, np.uint8))
  _, faults = pairs_lib.check_pairs(pairs, options)
  assert faults == [f'{tmp_path / "masks" / "a.png"}: the mask holds no vertebral body; mark one, '
                    'or leave the image out.']
