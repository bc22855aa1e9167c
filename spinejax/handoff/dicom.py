"""Masks as DICOM Segmentation objects."""
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from spinejax.version import __version__
from spinejax.handoff import masks
from spinejax.readers import dicom

_MOST_LETTERS = 64  # of a DICOM long string (VR LO)
_IDENTITY = ('SOPClassUID', 'SOPInstanceUID', 'StudyInstanceUID', 'SeriesInstanceUID')
_PATIENT_AND_STUDY = (  # tags that may be empty in a DICOM file, but not absent
    'PatientID', 'PatientName', 'PatientBirthDate', 'PatientSex', 'StudyDate', 'StudyTime',
    'StudyID', 'AccessionNumber', 'ReferringPhysicianName')


def write_dicom_seg(path: str | os.PathLike, mask: np.ndarray, source: str | os.PathLike,
                    classes: Sequence[str] = (), *, model: str | None = None) -> None:
  """Writes a mask as the DICOM Segmentation of the X-ray or ultrasound image it was made from.

  The file has one binary frame for each class that occurs, and the tags of the patient and study
  of the source. If the source has no frame of reference, the segmentation has no spacing of its own
  and lies on the pixels of the source by reference.

  The mask [H,W] has the rows and columns of the source. `classes` are the class names by index,
  background first; `model` is the name of the network that made the mask.

  Raises:
    FileNotFoundError, OSError: there is no such source; the file cannot be written.
    ValueError: highdicom is missing; the source is no DICOM image of one frame, has another size or
      lacks a tag that identifies it; a label without a class; no class at all.
  """
  try:
    import highdicom
    import pydicom
  except ImportError:
    raise ValueError(f'{path}: DICOM segmentations need highdicom; run '
                     '`pip install spinejax[dicom_seg]`.') from None
  mask, source = np.asarray(mask), pathlib.Path(source)
  image = _read_source(source, mask)
  names = masks.class_names(classes, mask)
  if not names:
    raise ValueError('an empty mask makes a DICOM segmentation only with the names of its classes.')
  category, kind = (highdicom.sr.CodedConcept(value, 'SCT', meaning)
                    for value, meaning in (masks.CATEGORY, masks.TYPE))
  algorithm = highdicom.AlgorithmIdentificationSequence(
      name=masks.one_line(model or 'spinejax')[:_MOST_LETTERS], version=__version__,
      family=highdicom.sr.CodedConcept('123109', 'DCM', 'Artificial Intelligence'))
  segments = [highdicom.seg.SegmentDescription(
      segment_number=index, segment_label=name[:_MOST_LETTERS], algorithm_type='AUTOMATIC',
      algorithm_identification=algorithm, segmented_property_category=category,
      segmented_property_type=kind) for index, name in enumerate(names, 1)]
  with dicom.quietly(pydicom):
    try:
      for keyword in _PATIENT_AND_STUDY:
        if keyword not in image:
          setattr(image, keyword, None)
      image.Modality = image.get('Modality') or 'OT'
      highdicom.seg.Segmentation(
          source_images=[image], pixel_array=mask.astype(np.uint8), segmentation_type='BINARY',
          segment_descriptions=segments, series_instance_uid=highdicom.UID(), series_number=1,
          sop_instance_uid=highdicom.UID(), instance_number=1, manufacturer='spinejax',
          manufacturer_model_name='spinejax', software_versions=__version__,
          device_serial_number='0', omit_empty_frames=bool(mask.any())).save_as(path)
    except OSError as error:
      raise OSError(f'{path}: the segmentation cannot be written ({error.strerror}).') from None
    except Exception:  # of many kinds; their messages may repeat data of the patient
      raise ValueError(f'{source}: no DICOM segmentation can refer to this file; some of its tags '
                       'are damaged.') from None


def _read_source(source: pathlib.Path, mask: np.ndarray) -> Any:
  """Reads the DICOM image that a mask belongs to; errors as in `write_dicom_seg`."""
  import pydicom

  if not source.is_file():
    raise FileNotFoundError(f'{source}: there is no such file.')
  with dicom.quietly(pydicom):
    try:
      image = pydicom.dcmread(source, force=True)
      size, frames = (int(image.Rows), int(image.Columns)), int(image.get('NumberOfFrames') or 1)
      missing = [keyword for keyword in _IDENTITY if not image.get(keyword)]
    except Exception:  # pydicom raises errors of many kinds for a damaged file
      raise ValueError(f'{source}: this is not a DICOM image, or it is truncated or corrupt.'
                       ) from None
  if missing:
    raise ValueError(f'{source}: the file has no {missing[0]}, so no other file can refer to it.')
  if frames != 1:
    raise ValueError(f'{source}: the file holds {frames} frames; a mask belongs to one image.')
  if mask.shape != size:
    raise ValueError(f'{source}: the image has {size[0]} x {size[1]} pixels, but the mask '
                     f'{" x ".join(map(str, mask.shape))}.')
  return image
