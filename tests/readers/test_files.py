"""Reading, pairing and checking of image files, with every fault a user's folder may have."""
import dataclasses
import math

import numpy as np
import pytest
from PIL import Image

from spinejax.readers import images, layouts, masks, records
from spinejax.readers import pairs as pairs_lib
from spinejax.readers.records import ReadOptions
from tests.readers import folders
from tests.readers.folders import save, sentence

LABEL = np.array([[0, 1, 2], [3, 2, 0]], np.uint8)


@pytest.fixture
def rng():
  return np.random.default_rng(0)


def read_image(path, channels=1):
  return images.read_picture(path, channels).pixels


def read_mask(*args, **options):
  return masks.read_mask(*args, **options)[0]


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.tiff', '.jpg'])
def test_reads_gray_of_every_format(tmp_path, suffix):
  gray = np.tile(np.arange(0, 64, 2, dtype=np.uint8), (16, 1))
  image = read_image(save(tmp_path / f'a{suffix}', gray, quality=100))
  assert image.shape == (16, 32, 1) and image.dtype == np.uint8
  np.testing.assert_allclose(image[..., 0].astype(int), gray, atol=2 if suffix == '.jpg' else 0)


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_sixteen_bits_become_floats_of_the_same_scale(tmp_path, suffix):
  path = save(tmp_path / f'a{suffix}', np.array([[0, 257, 65535, 1]], np.uint16))
  image = read_image(path)
  assert image.dtype == np.float32
  np.testing.assert_array_equal(image[0, :, 0], np.float32([0, 1, 255, 1 / 257]))
  assert read_image(path, 3).shape == (1, 4, 3)


def test_big_endian_tiff(tmp_path, rng):
  values = rng.integers(0, 65536, (4, 5)).astype('>u2')
  Image.frombytes('I;16B', (5, 4), values.tobytes()).save(tmp_path / 'a.tif')
  assert (tmp_path / 'a.tif').read_bytes().startswith(b'MM')
  np.testing.assert_array_equal(
      read_image(tmp_path / 'a.tif')[..., 0], values.astype(np.float32) / np.float32(257))


def test_color_to_gray_is_the_luminance_pillow_computes(tmp_path, rng):
  color = rng.integers(0, 256, (9, 7, 3)).astype(np.uint8)
  path = save(tmp_path / 'a.png', color)
  np.testing.assert_array_equal(read_image(path, 3), color)
  expected = np.asarray(Image.fromarray(color).convert('L'))
  np.testing.assert_array_equal(read_image(path, 1)[..., 0], expected)
  np.testing.assert_allclose(
      images.set_channels(color.astype(np.float32), 1)[..., 0], expected, atol=0.51)


def test_transparency_and_palettes_of_images(tmp_path):
  rgba = np.array([[[10, 10, 10, 0], [20, 20, 20, 255]]], np.uint8)
  palette = Image.fromarray(np.array([[0, 1]], np.uint8))
  palette.putpalette([5, 5, 5, 200, 200, 200])
  bits = Image.fromarray(np.array([[0, 255]], np.uint8)).convert('1')
  for image, expected in ((Image.fromarray(rgba), [10, 20]), (palette, [5, 200]), (bits, [0, 255])):
    image.save(tmp_path / 'a.png')
    np.testing.assert_array_equal(read_image(tmp_path / 'a.png')[..., 0], [expected])


def test_orientation_tag_turns_neither_image_nor_mask(tmp_path):
  array = np.arange(6, dtype=np.uint8).reshape(2, 3)
  exif = Image.Exif()
  exif[0x0112] = 6  # rotate by 90 degrees to display
  path = save(tmp_path / 'a.png', array, exif=exif)
  assert Image.open(path).getexif()[0x0112] == 6
  np.testing.assert_array_equal(read_image(path)[..., 0], array)
  np.testing.assert_array_equal(read_mask(path), array)


def test_the_content_decides_the_format_and_channels_are_one_or_three(tmp_path, rng):
  array = rng.integers(0, 256, (8, 8)).astype(np.uint8)
  path = save(tmp_path / 'a.jpg', array, format='PNG')
  np.testing.assert_array_equal(read_image(path)[..., 0], array)
  for channels in (0, 2, 4):
    assert f'1 (gray) or 3 (color), not {channels}' in sentence(read_image, path, channels)


def test_unreadable_files(tmp_path, rng, monkeypatch):
  def refused(name, content=None):
    if content is not None:
      (tmp_path / name).write_bytes(content)
    message = sentence(read_image, tmp_path / name)
    assert message.startswith(str(tmp_path / name))
    return message

  save(tmp_path / 'whole.png', rng.integers(0, 256, (40, 40)).astype(np.uint8))
  whole = (tmp_path / 'whole.png').read_bytes()
  flipped = bytearray(whole)
  flipped[900] ^= 1
  jpeg = save(tmp_path / 'lossy.jpg', np.zeros((64, 64), np.uint8)).read_bytes()
  for name, content, words in (
      ('absent.png', None, 'no such file'), ('empty.png', b'', 'empty'),
      ('text.png', b'hello', 'not a PNG, JPEG, TIFF or DICOM'),
      ('half.png', whole[:len(whole) // 2], 'truncated or corrupt'),
      ('checksum.png', bytes(flipped), 'truncated or corrupt'), ('.', None, 'this is a folder'),
      ('half.jpg', jpeg[:len(jpeg) - 20], 'truncated or corrupt')):
    assert words in refused(name, content)
  frames = [Image.fromarray(np.full((4, 4), level, np.uint8)) for level in (0, 9)]
  for name in ('pages.tif', 'moving.png'):
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    assert '2 pages or frames' in refused(name)
  save(tmp_path / 'float.tif', np.zeros((3, 3), np.float32))
  assert '32 bits' in refused('float.tif')
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
  assert 'more than 200 pixels' in refused('whole.png')


def test_masks_of_every_coding(tmp_path):
  for coding in ('index', 'palette', 'color'):
    folders.save_mask(tmp_path / 'a.png', LABEL, coding)
    palette = folders.PALETTE[:4] if coding == 'color' else ()
    label = read_mask(tmp_path / 'a.png', palette, num_classes=4)
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, LABEL)
  image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
  image.putpalette([level for n in (2, 0, 1) for level in folders.PALETTE[n]])  # shuffled indices
  image.save(tmp_path / 'a.png')  # colors decide, if there is a palette
  label = read_mask(tmp_path / 'a.png', folders.PALETTE[:3], num_classes=3)
  np.testing.assert_array_equal(label, [[2, 0, 1]])


@pytest.mark.parametrize('mode', ['L', 'LA', 'RGB', 'RGBA', 'I;16', '1'])
def test_gray_masks_of_every_mode(tmp_path, mode):
  values = np.array([[0, 1]], np.uint8)
  if mode == 'I;16':
    image = Image.fromarray(values.astype(np.uint16))
  else:
    image = Image.fromarray(values * np.uint8(255 if mode == '1' else 1)).convert(mode)
  assert image.mode == mode
  image.save(tmp_path / 'a.png')
  np.testing.assert_array_equal(read_mask(tmp_path / 'a.png', num_classes=3), values)


@pytest.mark.parametrize('values, options, expected', [
    ([0, 255], dict(num_classes=2), [0, 1]), ([0, 255], {}, [0, 1]),
    ([255, 255], dict(num_classes=2), [1, 1]), ([0, 0], dict(num_classes=2), [0, 0]),
    ([0, 255], dict(num_classes=4), 'values 255, but the labels are 0 to 3'),
    ([0, 255], dict(num_classes=2, label_map=(0, 1, 1, 1)), 'but the labels are 0 to 3'),
    ([0, 1, 255], dict(num_classes=2), 'values 255, but the labels are 0 to 1')])
def test_zero_and_255_are_two_classes_only(tmp_path, values, options, expected):
  path = save(tmp_path / 'a.png', np.array([values], np.uint8))
  if isinstance(expected, str):
    assert expected in sentence(read_mask, path, **options)
  else:
    np.testing.assert_array_equal(read_mask(path, **options), [expected])


def test_label_map(tmp_path):
  path = save(tmp_path / 'a.png', LABEL)
  np.testing.assert_array_equal(read_mask(path, label_map=(0, 1, 1, 1), num_classes=2), LABEL > 0)
  folders.save_mask(path, LABEL, 'color')
  label = read_mask(path, folders.PALETTE[:4], (0, 2, 1, 0), num_classes=3)
  np.testing.assert_array_equal(label, np.array([0, 2, 1, 0])[LABEL])


BLOCKS = np.kron(np.eye(4, dtype=np.uint8), np.full((3, 3), 255, np.uint8))


@pytest.mark.parametrize('name, array, palette, words', [
    ('a.png', np.uint8([[0, 7, 3, 9, 10, 11, 12]]), (),
     'values 3, 7, 9, 10, 11 and 1 more, but the labels are 0 to 2'),
    ('a.png', np.uint16([[0, 300]]), (), 'values 300'),
    ('a.png', np.uint8([[[0, 0, 0], [128, 144, 160]]]), folders.PALETTE[:3],
     'not in the palette: #8090a0'),
    ('a.png', np.uint16([[300]]), folders.PALETTE[:3], '8 bits a channel'),
    ('a.png', np.uint8([[[0, 1, 0]]]), (), 'give the colors of the classes'),
    ('a.png', np.uint8([[[0, 0, 0, 255], [1, 1, 1, 0]]]), (), 'transparent'),
    ('a.tif', np.zeros((2, 2), np.float32), (), 'not pixels of kind F'),
    ('a.jpg', BLOCKS, (), 'save masks as PNG')])
def test_faulty_masks(tmp_path, name, array, palette, words):
  assert words in sentence(read_mask, save(tmp_path / name, array), palette, num_classes=3)


def test_palettes_as_text():
  assert masks.parse_palette('') == ()
  assert masks.parse_palette('000000, ff8000,#0000FF') == ((0, 0, 0), (255, 128, 0), (0, 0, 255))
  for text in ('pink', '00000', '000000,,ffffff', '0000000', 'red,grun,blue'):
    with pytest.raises(ValueError, match='hexadecimal.* gray values such as'):
      masks.parse_palette(text)
  masks.check_palette((), 4)
  masks.check_palette(folders.PALETTE[:2], 2)
  for palette, num_labels, words in (
      (folders.PALETTE[:2], 3, '2 colors for 3 labels'), (((0, 0, 0), (0, 0, 0)), 2, 'twice'),
      (((0, 0, 0), (1,)), 2, 'colors only or gray values only'),
      (((0,), (300,)), 2, 'levels 0 to 255')):
    assert words in sentence(masks.check_palette, palette, num_labels)


@pytest.mark.parametrize('layout', ['images', 'dataset'])
def test_a_sound_folder(tmp_path, layout):
  names = folders.write_folder(tmp_path, 5, layout=layout, num_test=2)
  for hidden in ('.DS_Store', 'Thumbs.db'):
    (tmp_path / ('masks' if layout == 'images' else 'groundtruth/train') / hidden).write_text('')
  pairs, faults = layouts.find_pairs(tmp_path)
  pairs, more = pairs_lib.check_pairs(pairs, ReadOptions(num_classes=4))
  assert not faults + more
  assert sorted(pair.name for pair in pairs) == names
  own = {pair.name: pair.split for pair in pairs}
  expected = ('train', 'test') if layout == 'dataset' else ('', '')
  assert (own['case_00'], own['case_04']) == expected
  for pair in pairs:
    assert pair.patient == pair.name and pair.size == (64, 32) and not pair.is_float
    assert sum(pair.counts) == 64 * 32 and min(pair.counts) > 0
    assert all(map(math.isnan, pair.spacing))
  assert len({pair.digest for pair in pairs}) == 5
  if layout == 'dataset':
    for group in ('dataset', 'groundtruth'):
      (tmp_path / group / 'test').rename(tmp_path / group / 'val')
    pairs, faults = layouts.find_pairs(tmp_path)
    assert not faults and {pair.split for pair in pairs} == {'train', 'validation'}


def test_every_fault_of_a_folder_is_one_line(tmp_path):
  folders.write_folder(tmp_path, 8)
  images, masks = tmp_path / 'images', tmp_path / 'masks'
  (masks / 'case_00.png').unlink()
  (images / 'case_01.png').unlink()
  save(masks / 'case_02.png', np.zeros((10, 20), np.uint8))
  save(masks / 'case_03.png', np.full((64, 32), 200, np.uint8))
  whole = (images / 'case_04.png').read_bytes()
  (images / 'case_04.png').write_bytes(whole[:100])
  (masks / 'case_04.png').write_bytes(b'')
  save(images / 'case_05.jpg', np.zeros((64, 32), np.uint8))
  (images / 'notes.txt').write_text('left here')
  (masks / 'notes.txt').write_text('left here')
  (masks / 'old').mkdir()
  pairs, faults = layouts.find_pairs(tmp_path)
  sound, more = pairs_lib.check_pairs(pairs, ReadOptions(num_classes=4))
  assert [pair.name for pair in sound] == ['case_05', 'case_06', 'case_07']
  expected = [
      ('masks/old', 'not a file'),
      ('images/case_05.png', 'case_05 is already taken by case_05.jpg'),
      ('images/case_00.png', 'has no mask'), ('masks/case_01.png', 'has no image'),
      ('masks/case_02.png', '10 x 20 (height x width), but its image is 64 x 32'),
      ('masks/case_03.png', 'values 200'), ('images/case_04.png', 'truncated or corrupt'),
      ('masks/case_04.png', 'empty'), ('images/notes.txt', 'not a PNG, JPEG, TIFF or DICOM'),
      ('masks/notes.txt', 'not a PNG, JPEG, TIFF or DICOM')]
  assert len(faults + more) == len(expected)
  for path, words in expected:
    line, = [fault for fault in faults + more
             if fault.startswith(f'{tmp_path / path}:') and words in fault]
    assert '\n' not in line


def test_faults_of_the_layout_with_splits(tmp_path):
  folders.write_folder(tmp_path, 2, layout='dataset', num_test=1)
  for group, end in (('dataset', ''), ('groundtruth', '_bone_3')):
    content = (tmp_path / group / 'train' / f'case_00{end}.png').read_bytes()
    (tmp_path / group / 'test' / f'case_00{end}.png').write_bytes(content)
  (tmp_path / 'dataset' / 'extra').mkdir()
  (tmp_path / 'dataset' / 'validation').mkdir()
  _, faults = layouts.find_pairs(tmp_path)
  for fault, words in zip(faults, ('expected the folders train, validation (or val) and test',
                                   'images and masks need a folder each',
                                   'one case cannot be in two splits'), strict=True):
    assert words in fault


def test_folders_that_are_none(tmp_path):
  def refused(name=''):
    return sentence(layouts.find_pairs, tmp_path / name)

  assert 'no such folder' in refused('absent')
  message = refused()
  assert 'expected images/NAME.png with masks/NAME.png, or dataset/{train,test}' in message
  assert 'found nothing' in message
  (tmp_path / 'images').mkdir()
  assert 'found images' in refused()
  (tmp_path / 'masks').mkdir()
  pairs, faults = layouts.find_pairs(tmp_path)
  assert not pairs and 'holds no images' in faults[0]
  (tmp_path / 'file').write_text('')
  assert 'expected a folder' in refused('file')
  (tmp_path / 'b' / 'dataset').mkdir(parents=True)
  (tmp_path / 'b' / 'groundtruth').mkdir()
  assert layouts.find_pairs(tmp_path / 'b') == ([], [f'{tmp_path / "b"}: there are no images.'])


def test_list_images(tmp_path):
  folders.write_folder(tmp_path, 2)
  (tmp_path / 'images' / '.hidden').write_text('')
  listed = layouts.list_images(tmp_path / 'images')
  assert [path.name for path in listed] == ['case_00.png', 'case_01.png']
  assert layouts.list_images(listed[0]) == [listed[0]]
  assert 'holds no images' in sentence(layouts.list_images, tmp_path)
  assert 'no such file or folder' in sentence(layouts.list_images, tmp_path / 'absent')


@pytest.mark.parametrize('separator', [',', ';', '\t'])
def test_cases_table(tmp_path, separator):
  folders.write_folder(tmp_path, 2)
  text = ('\ufeffname,age,patient,spacing_y_mm,spacing_x_mm\n'
          'case_00,12,P 1,0.2,0.25\ncase_01,,P 1,,NaN\n')
  (tmp_path / 'cases.csv').write_text(text.replace(',', separator), encoding='utf-8')
  (first, second), faults = layouts.find_pairs(tmp_path)
  assert not faults
  assert first.patient == second.patient == 'P 1'
  assert first.spacing == (0.2, 0.25) and all(map(math.isnan, second.spacing))
  np.testing.assert_array_equal(pairs_lib.read_pair(first).spacing, np.float32([0.2, 0.25]))


def test_faults_of_the_cases_table(tmp_path):
  folders.write_folder(tmp_path, 3)
  table = tmp_path / 'cases.csv'

  def faults(text):
    table.write_bytes(text.encode())
    return layouts.find_pairs(tmp_path)[1]

  found = faults('name,patient,spacing_y_mm,spacing_x_mm\ncase_00,a,0.2,x\ncase_09,b,,\n'
                 '../../etc/passwd,b,,\ncase_01,,,\ncase_02,c,1,1\ncase_02,c,1,1\ncase_00,a,-1,1\n')
  assert [line.removeprefix(f'{table} ') for line in found] == [
      'line 2: spacings are positive numbers of millimeters, such as 0.25.',
      "line 3: there is no image called 'case_09'.",
      "line 4: there is no image called '../../etc/passwd'.",
      'line 5: the patient of case_01 is empty.', 'line 7: case_02 has a line already.',
      'line 8: spacings are positive numbers of millimeters, such as 0.25.']
  for text, words in (
      ('name\ncase_00\ncase_01\n', 'case_02 has no line.'),
      ('name,patient\ncase_00\ncase_01,p\ncase_02,p\n', 'line 2: the patient of case_00 is empty.'),
      ('id,age\n1,2\n', 'must name the columns'), ('', 'the file is empty'),
      ('name\n\0\n', 'not a text table'),
      *((f'name,spacing_y_mm\ncase_00,{spacing}\ncase_01,1\ncase_02,1\n', 'positive numbers')
        for spacing in ('-inf', 'inf', '0'))):
    line, = faults(text)
    assert line.startswith(str(table)) and words in line


def test_digest_follows_every_part_of_a_record(tmp_path):
  folders.write_folder(tmp_path, 1, spacing=0.5)
  (pair,), _ = layouts.find_pairs(tmp_path)
  record = pairs_lib.read_pair(pair)
  digests = {records.digest(record)}
  for name, change in (('name', 'x'), ('patient', 'x'), ('spacing', np.float32([1, 1])),
                       ('image', record.image + np.eye(64, 32, dtype=np.uint8)[..., None]),
                       ('label', record.label[::-1])):
    digests.add(records.digest(dataclasses.replace(record, **{name: change})))
  assert len(digests) == 6
  assert records.digest(
      dataclasses.replace(record, image=record.image.astype(np.float32))) in digests


def test_real_images(shared):
  image = read_image(shared / 'data/vpi_sa2net_demo/image.png')
  label = read_mask(shared / 'data/vpi_sa2net_demo/label.png', num_classes=4)
  assert image.shape == (2574, 640, 1) and label.shape == (2574, 640)
  assert np.unique(label).tolist() == [0, 1, 2, 3]
  mask = read_mask(shared / 'data/usgra_ultrasound/train/masks/0000.png', num_classes=3)
  assert np.unique(mask).tolist() == [0, 1, 2]
