"""X-rays of the user: DICOM pixels by hand, what the check says, hostile files."""
import math
import sys

import numpy as np
import pytest
from PIL import Image

from spinejax.data import build
from spinejax.readers import images, layouts, masks, records
from spinejax.readers import pairs as pairs_lib
from spinejax.readers.records import ReadOptions
from tests.readers import folders
from tests.readers.folders import save, write_dicom

pydicom = pytest.importorskip('pydicom')


def read_image(path, channels=1):
  return images.read_picture(path, channels).pixels


def levels(path, channels=1):
  return read_image(path, channels)[..., 0]


def sentence(path, content=None):
  if content is not None:
    path.write_bytes(content)
  message = folders.sentence(images.read_picture, path)
  assert message.startswith(f'{path}: ') and 'Doe' not in message and 'SECRET' not in message
  return message


def test_eight_bits_stay_as_they_are(tmp_path):
  pixels = np.array([[0, 1, 200], [255, 7, 9]], np.uint8)
  image = read_image(write_dicom(tmp_path / 'a.dcm', pixels))
  assert image.shape == (2, 3, 1) and image.dtype == np.uint8
  np.testing.assert_array_equal(image[..., 0], pixels)
  inverted = read_image(write_dicom(tmp_path / 'b.dcm', pixels, photometric='MONOCHROME1'))
  assert inverted.dtype == np.uint8
  np.testing.assert_array_equal(inverted[..., 0], 255 - pixels)
  assert read_image(tmp_path / 'a.dcm', 3).shape == (2, 3, 3)


@pytest.mark.parametrize('bits', [10, 12, 16])
def test_more_bits_fill_the_gray_scale(tmp_path, bits):
  top = 2**bits - 1
  path = write_dicom(tmp_path / 'a.dcm', np.array([[0, 51, top]], np.uint16), bits)
  image = levels(path)
  assert image.dtype == np.float32
  np.testing.assert_allclose(image, [[0, 51 * 255 / top, 255]], atol=1e-4)
  least = -2**(bits - 1)  # signed pixels start there
  path = write_dicom(path, np.array([[least, 0, -1 - least]], np.int16), bits, signed=True)
  np.testing.assert_allclose(levels(path), [[0, -least * 255 / top, 255]], atol=1e-4)


def test_bits_above_the_stored_ones_are_ignored(tmp_path):
  pixels = np.array([[5, 5 | 0xf000, 4095]], np.uint16)
  path = write_dicom(tmp_path / 'a.dcm', pixels, 12)
  image = levels(path)
  assert image[0, 0] == image[0, 1]
  np.testing.assert_allclose(image[0, 2], 255)
  pixels = np.array([[-3, -3 & 0x0fff, 7]], np.int16)
  image = levels(write_dicom(tmp_path / 'b.dcm', pixels, 12, signed=True))
  assert image[0, 0] == image[0, 1] < image[0, 2]


def test_rescale_and_window(tmp_path):
  pixels = np.array([[0, 50, 75, 100, 150]], np.uint16)
  path = write_dicom(tmp_path / 'a.dcm', pixels, 12, RescaleSlope='2', RescaleIntercept='-100',
                     WindowCenter='50.5', WindowWidth='101')
  picture = images.read_picture(path)
  # values -100, 0, 50, 100, 200; (x - 50) / 100 + 0.5 clipped
  np.testing.assert_allclose(picture.pixels[0, :, 0], [0, 0, 127.5, 255, 255], atol=1e-4)
  assert 'rescaled by 2 and -100' in picture.notes and 'window 50.5 wide 101' in picture.notes
  path = write_dicom(tmp_path / 'b.dcm', pixels, 12, RescaleSlope='-1', RescaleIntercept='0')
  np.testing.assert_allclose(levels(path), (4095.0 - pixels) * 255 / 4095, atol=1e-3)
  path = write_dicom(tmp_path / 'c.dcm', pixels, 12, photometric='MONOCHROME1',
                     WindowCenter=['75', '1'], WindowWidth=['100', '2'],
                     VOILUTFunction='LINEAR_EXACT')
  np.testing.assert_allclose(levels(path)[0], 255 - np.array([0, 63.75, 127.5, 191.25, 255]),
                             atol=1e-4)


@pytest.mark.parametrize('function, center, width, expected', [
    ('SIGMOID', 10, 20, 255 / (1 + np.exp([2.0, 0, -2]))), ('SIGMOID', 10, 1e-3, [0, 127.5, 255]),
    ('LINEAR', 10.5, 1, [0, 0, 255]), ('LINEAR', 10, 0.5, [0, 127.5, 255]),
    ('LINEAR_EXACT', 10, 20, [0, 127.5, 255])])
def test_windows_by_hand(tmp_path, function, center, width, expected):
  path = write_dicom(tmp_path / 'a.dcm', np.array([[0, 10, 20]], np.uint16), 12,
                     VOILUTFunction=function, WindowCenter=str(center), WindowWidth=str(width))
  np.testing.assert_allclose(levels(path)[0], expected, atol=1e-4)


def test_tables_of_gray_levels(tmp_path):
  table = pydicom.Dataset()
  table.LUTDescriptor, table.LUTData = [4, 10, 8], [0, 255, 100, 7]
  path = write_dicom(tmp_path / 'a.dcm', np.array([[0, 10, 11, 12, 13, 99]], np.uint8))
  data = pydicom.dcmread(path)
  data.VOILUTSequence = pydicom.Sequence([table])
  data.VOILUTSequence[0]['LUTDescriptor'].VR = 'US'
  data.VOILUTSequence[0]['LUTData'].VR = 'US'
  data.save_as(path)
  picture = images.read_picture(path)
  np.testing.assert_allclose(picture.pixels[0, :, 0], [0, 0, 255, 100, 7, 7])
  assert 'table of gray levels (VOI LUT) applied' in picture.notes


def test_color_and_compressed(tmp_path):
  color = np.full((4, 4, 3), (200, 100, 50), np.uint8)
  path = write_dicom(tmp_path / 'a.dcm', color, photometric='RGB')
  np.testing.assert_array_equal(read_image(path, 3), color)
  assert 'color converted to gray' in images.read_picture(path).notes
  pixels = np.arange(64, dtype=np.uint16).reshape(8, 8) * 64
  path = write_dicom(tmp_path / 'b.dcm', pixels, 12)
  data = pydicom.dcmread(path)
  data.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
  data.save_as(tmp_path / 'c.dcm')
  np.testing.assert_array_equal(levels(tmp_path / 'c.dcm'), levels(path))


def test_the_preamble_or_the_suffix_tells(tmp_path):
  pixels = np.array([[3, 4]], np.uint8)
  path = write_dicom(tmp_path / 'a.dcm', pixels)
  whole = path.read_bytes()
  (tmp_path / 'IM0001').write_bytes(whole)
  np.testing.assert_array_equal(levels(tmp_path / 'IM0001'), pixels)
  (tmp_path / 'bare.dcm').write_bytes(whole[132:])
  np.testing.assert_array_equal(levels(tmp_path / 'bare.dcm'), pixels)
  assert 'not a PNG' in sentence(tmp_path / 'bare', whole[132:])
  Image.fromarray(pixels).save(tmp_path / 'b.png')
  (tmp_path / 'b.png').rename(tmp_path / 'b.dcm')
  np.testing.assert_array_equal(levels(tmp_path / 'b.dcm'), pixels)


def test_spacing_and_its_source(tmp_path):
  pixels = np.zeros((2, 2), np.uint8)

  def spacing(**tags):
    picture = images.read_picture(write_dicom(tmp_path / 'a.dcm', pixels, **tags))
    return picture.spacing, picture.notes[-1]

  assert spacing(PixelSpacing=['0.2', '0.1'], ImagerPixelSpacing=['9', '9']) == (
      (0.2, 0.1), '0.2 x 0.1 mm a pixel (PixelSpacing)')
  assert spacing(ImagerPixelSpacing=['0.3', '0.4']) == (
      (0.3, 0.4), '0.3 x 0.4 mm a pixel (ImagerPixelSpacing, at the detector)')
  for tags in ({}, dict(PixelSpacing=['0', '1']), dict(PixelSpacing=[])):
    found, note = spacing(**tags)
    assert all(map(math.isnan, found)) and note == 'no pixel spacing'


def test_spacing_reaches_the_record_unless_the_table_has_one(tmp_path, capsys):
  for name in ('a', 'b'):
    write_dicom(tmp_path / 'images' / f'{name}.dcm', np.full((4, 4), 9, np.uint8),
                PixelSpacing=['0.2', '0.1'])
    save(tmp_path / 'masks' / f'{name}.png', np.eye(4, dtype=np.uint8))
  (tmp_path / 'cases.csv').write_text('name,spacing_y_mm,spacing_x_mm\na,0.5,0.5\nb,,\n')
  pairs, faults = layouts.find_pairs(tmp_path)
  assert not faults and [pair.patient for pair in pairs] == ['a', 'b']
  sound, faults = pairs_lib.check_pairs(pairs, ReadOptions(num_classes=2))
  assert not faults
  for pair, expected in zip(sound, ((0.5, 0.5), (0.2, 0.1))):
    record = pairs_lib.read_pair(pair, ReadOptions(num_classes=2))
    np.testing.assert_array_equal(record.spacing, np.float32(expected))
    assert records.digest(record) == pair.digest
  assert 'a.png: 0.5 x 0.5 mm a pixel of cases.csv used instead' in sound[0].notes
  build.build(tmp_path, tmp_path / 'out', ('background', 'spine'), num_validation=0, num_test=0)
  text = capsys.readouterr().out
  assert '2 files: 0.2 x 0.1 mm a pixel (PixelSpacing)' in text
  written = b''.join(path.read_bytes() for path in (tmp_path / 'out').rglob('*') if path.is_file())
  assert b'SECRET' not in written and b'Doe' not in written and 'SECRET' not in text


def test_refused_files(tmp_path, monkeypatch):
  pixels = np.arange(16, dtype=np.uint16).reshape(4, 4)
  path = tmp_path / 'a.dcm'

  def of(array=pixels, bits=12, **options):
    return sentence(write_dicom(path, array, bits, **options))

  whole = write_dicom(path, pixels, 12).read_bytes()
  assert 'truncated or corrupt' in sentence(path, whole[:-9])
  assert 'empty' in sentence(path, b'')
  assert 'truncated or corrupt' in sentence(tmp_path / 'b.dcm', b'a text, not an X-ray')
  for words, options in (
      ('holds 3 pages or frames', dict(NumberOfFrames=3)),
      ('4 of 8 bits', dict(array=pixels.astype(np.uint8), bits=4)),
      ('32 of 32 bits', dict(array=pixels.astype(np.uint32), bits=32)),
      ('slope other than 0', dict(RescaleSlope='0', RescaleIntercept='1')),
      ('expected a gray DICOM X-ray', dict(photometric='PALETTE COLOR')),
      ('highest bit of a pixel is 15, not 11', dict(HighBit=15)),
      ('truncated or corrupt', dict(Rows=0)), ('truncated or corrupt', dict(Rows=5))):
    assert words in of(**options)
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 7)
  assert 'more than 14 pixels' in of()
  monkeypatch.undo()
  data = pydicom.dcmread(write_dicom(path, pixels, 12))
  del data.PixelData
  data.save_as(path)
  assert 'holds no picture' in sentence(path)
  data.PixelData = pydicom.encaps.encapsulate([b'\xff\xd8\xff\xf7 no such stream'])
  data['PixelData'].VR = 'OB'
  data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
  data.save_as(path)
  message = sentence(path)
  assert 'compressed' in message and 'pylibjpeg' in message
  write_dicom(path, pixels, 12)
  assert 'masks are PNG, TIFF or JPEG images, not DICOM' in folders.sentence(masks.read_mask, path)
  monkeypatch.setitem(sys.modules, 'pydicom', None)
  assert 'pip install spinejax[medical]' in sentence(path)


def test_damaged_headers_never_crash_nor_speak(tmp_path, capfd, recwarn):
  path = tmp_path / 'a.dcm'
  write_dicom(path, np.arange(256, dtype=np.uint16).reshape(16, 16), 12, PixelSpacing=['.2', '.2'],
              WindowCenter='99', WindowWidth='70', RescaleSlope='1', RescaleIntercept='0')
  whole, rng = path.read_bytes(), np.random.default_rng(0)
  header, outcomes = len(whole) - 512, dict(read=0, refused=0)
  for trial in range(300):
    content = bytearray(whole)
    for _ in range(rng.integers(1, 6)):
      content[rng.integers(132, header)] = rng.integers(256)
    if trial % 5 == 0:
      content = content[:rng.integers(132, len(content))]
    path.write_bytes(content)
    try:
      picture = images.read_picture(path)
      outcomes['read'] += 1
      assert picture.pixels.ndim == 3 and np.isfinite(picture.pixels).all()
      assert 0 <= picture.pixels.min() and picture.pixels.max() <= 255
      assert not any('SECRET' in note for note in picture.notes)
    except ValueError as error:
      outcomes['refused'] += 1
      assert str(error).startswith(f'{path}: ') and str(error).endswith('.')
      assert 'SECRET' not in str(error) and 'Jane' not in str(error)
  assert min(outcomes.values()) > 30
  out, err = capfd.readouterr()
  assert not out and not err and not recwarn.list


def test_a_color_photograph_is_turned_to_gray_and_said(tmp_path, rng=np.random.default_rng(0)):
  gray = rng.integers(0, 256, (16, 8, 1)).astype(np.uint8)
  assert images.read_picture(save(tmp_path / 'a.png', np.repeat(gray, 3, -1))).notes == ()
  path = save(tmp_path / 'c.png', rng.integers(0, 256, (16, 8, 3)).astype(np.uint8))
  assert images.read_picture(path).notes == ('color converted to gray',)
  assert images.read_picture(path, 3).notes == ()


@pytest.mark.parametrize('white_is_zero', [False, True])
def test_sixteen_bit_tiff_of_either_sense(tmp_path, white_is_zero):
  pixels = np.array([[0, 257, 65535]], np.uint16)
  Image.fromarray(pixels).save(tmp_path / 'a.tif', tiffinfo={262: 0 if white_is_zero else 1})
  content = bytearray((tmp_path / 'a.tif').read_bytes())
  start = content.index(b'\x06\x01\x03\x00')  # the tag 262, short
  content[start + 8] = 0 if white_is_zero else 1
  (tmp_path / 'a.tif').write_bytes(content)
  expected = np.array([[0, 1, 255]])
  np.testing.assert_allclose(levels(tmp_path / 'a.tif'),
                             255 - expected if white_is_zero else expected)
