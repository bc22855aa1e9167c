"""DICOM segmentations, read back with highdicom."""
import dataclasses
import sys

import numpy as np
import pytest

from spinejax import handoff
from spinejax.handoff.dicom import write_dicom_seg
from tests.handoff.results import CLASSES, FAILED, SPACING, numbered
from tests.readers import folders

DX, CR = '1.2.840.10008.5.1.4.1.1.1.1', '1.2.840.10008.5.1.4.1.1.1'
US, FRAMES = '1.2.840.10008.5.1.4.1.1.6.1', '1.2.840.10008.5.1.4.1.1.3.1'


def write_source(path, kind=DX, size=(9, 6), **tags):
  """A DICOM image with the least that a file needs."""
  pixels = np.zeros((size[0] * tags.get('NumberOfFrames', 1), size[1]), np.uint8)
  tags = dict(PatientName=None, PatientID=None, PatientBirthDate=None) | tags
  return folders.write_dicom(path, pixels, SOPClassUID=kind, Rows=size[0], **tags)


@pytest.mark.parametrize('kind, tags', [
    (DX, {'Modality': 'DX', 'PatientID': '17', 'ImagerPixelSpacing': [0.2, 0.3]}),
    (CR, {}), (US, {'NumberOfFrames': 1}), (DX, {'FrameOfReferenceUID': '1.2.3'})])
def test_segmentations_lie_on_their_source(tmp_path, kind, tags):
  highdicom = pytest.importorskip('highdicom')
  source = write_source(tmp_path / 'x.dcm', kind, **tags)
  mask = np.zeros((9, 6), np.uint8)
  mask[1:3, 1], mask[7, 5] = 1, 3
  case = handoff.Case('c', mask, dataclasses.replace(FAILED, model='seam'), CLASSES,
                      spacing=SPACING, source=source)
  handoff.write_case(tmp_path, case, ('dicom_seg',))
  segments = highdicom.seg.segread(tmp_path / 'c_mask.dcm')
  assert [segments.get_segment_description(i).segment_label for i in (1, 2, 3)] == [
      'rib', 'thoracic process', 'lump']
  assert segments.StudyInstanceUID == '1.2.4'
  assert segments.PatientID == tags.get('PatientID', None) or not segments.PatientID
  array = segments.get_pixels_by_source_instance(
      ['1.2.3'], combine_segments=True, assert_missing_frames_are_empty=True)
  np.testing.assert_array_equal(array[0], mask)


def test_an_empty_mask_makes_a_segmentation(tmp_path, caplog):
  highdicom = pytest.importorskip('highdicom')
  source = write_source(tmp_path / 'x.dcm')
  write_dicom_seg(tmp_path / 's.dcm', np.zeros((9, 6), bool), source, CLASSES)
  segments = highdicom.seg.segread(tmp_path / 's.dcm')
  assert segments.number_of_segments == 3 and not caplog.records
  assert not segments.get_pixels_by_source_instance(['1.2.3'], combine_segments=True).any()


@pytest.mark.parametrize('source, words', [
    ({'kind': FRAMES, 'NumberOfFrames': 2}, '2 frames'),
    ({'size': (9, 7)}, '9 x 7 pixels, but the mask 9 x 6'),
    ({'StudyInstanceUID': None}, 'no StudyInstanceUID'), (None, 'no such file'),
    (b'\x89PNG', 'not a DICOM image')])
def test_sources_without_a_place_for_a_mask_are_refused(tmp_path, source, words):
  pytest.importorskip('highdicom')
  if isinstance(source, bytes):
    (tmp_path / 'x.dcm').write_bytes(source)
  elif source:
    write_source(tmp_path / 'x.dcm', **source)
  assert words in folders.sentence(write_dicom_seg, tmp_path / 's.dcm', numbered((9, 6)),
                                   tmp_path / 'x.dcm', CLASSES)
  assert not (tmp_path / 's.dcm').exists()


def test_segmentations_that_cannot_be_written_are_refused(tmp_path):
  pytest.importorskip('highdicom')
  mask, source = numbered((9, 6)), write_source(tmp_path / 'x.dcm')
  assert 'names of its classes' in folders.sentence(
      write_dicom_seg, tmp_path / 's.dcm', mask * 0, source)
  with pytest.raises(OSError, match='cannot be written'):
    write_dicom_seg(tmp_path / 'absent' / 's.dcm', mask, source, CLASSES)
  assert not (tmp_path / 's.dcm').exists()


def test_without_highdicom_a_sentence_names_the_extra(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'highdicom', None)
  with pytest.raises(ValueError, match=r'pip install spinejax\[dicom_seg\]'):
    write_dicom_seg(tmp_path / 's.dcm', numbered((4, 4)), tmp_path / 'x.dcm', CLASSES)
