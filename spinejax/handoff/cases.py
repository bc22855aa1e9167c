"""One case, written in the formats of other programs."""
import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from spinejax import runs
from spinejax.handoff import dicom, markups, masks
from spinejax.measurement.results import AngleResult
from spinejax.measurement.spacing import Spacing
from spinejax.readers import orientation, volumes
from spinejax.readers.orientation import Geometry

# Suffix of the file of each format, after the name of the case.
FORMATS = {'nifti': '_mask.nii.gz', 'seg_nrrd': '_mask.seg.nrrd', 'markups': '.mrk.json',
           'dicom_seg': '_mask.dcm'}


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
  """A measured mask, and what is known of its image."""
  name: str  # a file name without folders
  mask: np.ndarray  # whole numbers [H,W], or [D,H,W] of a volume; label i is class i
  result: AngleResult  # of `spinejax.measure`, in pixels of the mask; may be a failed one
  classes: Sequence[str] = ()  # names by index, background first; () means 'class 1' and so on
  spacing: Spacing = None  # of an image, mm per pixel (y, x), or one number for square pixels
  axes: str = masks.AXES  # of an image, as in `image_geometry`
  geometry: Geometry | None = None  # of a volume, in place of `spacing` and `axes`
  points: np.ndarray | None = None  # of a volume, centroids of laminae [P,3] in voxels
  source: str | os.PathLike | None = None  # DICOM file of the image, which 'dicom_seg' needs


def require_formats(formats: Sequence[str]) -> None:
  """Raises ValueError if a format is not one of `FORMATS`."""
  unknown = [form for form in formats if form not in FORMATS]
  if unknown:
    raise ValueError(f'unknown format {unknown[0]!r}; the formats are {", ".join(FORMATS)}.')


def write_case(folder: str | os.PathLike, case: Case,
               formats: Sequence[str] = ('nifti', 'seg_nrrd', 'markups')) -> list[pathlib.Path]:
  """Writes a case into a folder that exists, one file for each format, and returns the paths.

  Raises:
    ValueError: an unknown format; a name with folders; a mask of another shape or with other
      values; an unknown spacing, or another one than that of the measurement; 'dicom_seg' without
      a source or without highdicom.
    OSError: a file cannot be written.
  """
  require_formats(formats)
  if not case.name or pathlib.Path(case.name).name != case.name or '\\' in case.name:
    raise ValueError(f'the name of a case must be a file name without folders, not {case.name!r}.')
  mask, geometry = np.asarray(case.mask), _geometry_of(case)
  volume = mask[..., None] if mask.ndim == 2 else mask
  paths = {form: pathlib.Path(folder) / f'{case.name}{FORMATS[form]}'
           for form in FORMATS if form in formats}
  for form, path in paths.items():
    if form in ('nifti', 'seg_nrrd') and (volume.ndim != 3 or not mask.size):
      raise ValueError(f'a mask must be [H,W] or [D,H,W], not {list(mask.shape)}.')
    if form == 'nifti':
      volumes.write_mask(path, volume, geometry)
    elif form == 'seg_nrrd':
      masks.write_segmentation(path, volume, geometry, case.classes)
    elif form == 'markups':
      runs.write_json(path, markups.make_markups(
          case.result, geometry, name=case.name, points=case.points))
    elif case.source is None:
      raise ValueError(f'{case.name}: dicom_seg needs the DICOM file of the image.')
    else:
      dicom.write_dicom_seg(path, mask, case.source, case.classes, model=case.result.model)
  return list(paths.values())


def write_formats(folder: str | os.PathLike, case: Case, formats: Sequence[str]
                  ) -> tuple[str, ...]:
  """Writes a case in each format that it can be written in; returns a sentence for each other."""
  notes = []
  for form in formats:
    try:
      write_case(folder, case, (form,))
    except (ValueError, OSError) as error:
      notes.append(f'no {form}: {error}')
  return tuple(notes)


def _geometry_of(case: Case) -> Geometry:
  """The geometry of the mask; ValueError if it has no spacing, or not that of the result."""
  geometry = case.geometry
  if np.ndim(case.mask) == 2:
    geometry = masks.image_geometry(np.shape(case.mask), case.spacing, case.axes)
  if geometry is None:
    raise ValueError('a mask [D,H,W] needs the geometry of its volume.')
  if not orientation.has_spacing(geometry):
    raise ValueError('the volume has no spacing, so its files have no place in space; write the '
                     'spacing into its file.')
  steps, measured = orientation.spacing_of(geometry), case.result.spacing
  if measured and not np.allclose(measured, steps[:len(measured)], rtol=1e-4):
    raise ValueError(f'{case.name}: the angles were measured at a spacing of {list(measured)} mm, '
                     f'but the mask has {steps.tolist()}; give the spacing of the measurement.')
  return geometry
