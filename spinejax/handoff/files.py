"""Files by which masks, landmarks and angles go on to 3D Slicer, ITK-SNAP, nnU-Net and tables.

Positions are millimeters in LPS, the patient system of DICOM and ITK: x to the patient's left, y
to posterior, z to superior; mask and markups of a case lie on one another. An image [H,W] becomes
a volume of one slice, and `image_geometry` says where it lies.
"""
import csv
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spinejax import __version__
from spinejax import runs
from spinejax.readers import dicom
from spinejax.readers import orientation
from spinejax.readers import volumes
from spinejax.readers.orientation import Geometry
from spinejax.measure import angles
from spinejax.report import angle_figures
from spinejax.report import figures

FORMATS = {'nifti': '_mask.nii.gz', 'seg_nrrd': '_mask.seg.nrrd', 'markups': '.mrk.json',
           'dicom_seg': '_mask.dcm'}  # with their suffixes after the name of the case
AXES = 'LIP'

MARKUPS_SCHEMA = ('https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/'
                  'Resources/Schema/markups-schema-v1.0.3.json#')
CURVE_POINTS = 17
END_LINE_MM = 60.0
_SAME_ROW = 0.02  # pixels; results are rounded

SUMMARY_COLUMNS = (
    'case', 'method', 'status', 'major_deg', 'ci_low', 'ci_high', 'band', 'upper', 'lower', 'apex',
    'side', 'region', 'truncated', 'calibrated_deg', 'levels_found', 'level_confidence', 'curves',
    'flags', 'spacing_y_mm', 'spacing_x_mm', 'spacing_z_mm', 'model', 'checkpoint', 'version')
CURVE_COLUMNS = (
    'case', 'method', 'status', 'curve', 'angle_deg', 'ci_low', 'ci_high', 'upper', 'lower', 'apex',
    'upper_row', 'lower_row', 'apex_row', 'side', 'region', 'truncated')

_CATEGORY, _TYPE = ('123037004', 'Anatomical Structure'), ('272673000', 'Bone')  # in SNOMED CT
_IDENTITY = ('SOPClassUID', 'SOPInstanceUID', 'StudyInstanceUID', 'SeriesInstanceUID')
_PATIENT_AND_STUDY = (  # may be empty in a DICOM file, but not absent
    'PatientID', 'PatientName', 'PatientBirthDate', 'PatientSex', 'StudyDate', 'StudyTime',
    'StudyID', 'AccessionNumber', 'ReferringPhysicianName')


# --------------------------------------------------------------------------------------- a case


def require_formats(formats: Sequence[str]) -> None:
  """Raises ValueError for a format that is none of `FORMATS`."""
  unknown = [form for form in formats if form not in FORMATS]
  if unknown:
    raise ValueError(f'unknown format {unknown[0]!r}; there are {", ".join(FORMATS)}.')


def write_case(folder: str | os.PathLike, name: str, mask: np.ndarray, result: Mapping[str, Any],
               *, spacing: Sequence[float] | float | None = None,
               geometry: Geometry | None = None, axes: str = AXES, classes: Sequence[str] = (),
               formats: Sequence[str] = ('nifti', 'seg_nrrd', 'markups'),
               points: np.ndarray | None = None, image: np.ndarray | None = None,
               source: str | os.PathLike | None = None) -> list[pathlib.Path]:
  """Writes the files of one case: NAME and the suffixes of `FORMATS`.

  Args:
    folder: it exists.
    name: of the case, a file name.
    mask: whole numbers [H,W], or [D,H,W] of a volume in our axes; may be empty of any class.
    result: of `spinejax.measure`, a failed one too; in pixels of the mask.
    spacing, axes: of an image, as `image_geometry`.
    geometry: of a volume, instead of spacing and axes.
    classes: class names by index, background first; 'class 1' and so on where none are given.
    formats: out of `FORMATS`.
    points: [P,3] voxels of a volume, the laminae, for markups.
    image: [H,W] gray levels 0..255; written as NAME_image.nii.gz on the grid of the mask.
    source: the DICOM file of the image, which dicom_seg needs.

  Returns:
    The files written.

  Raises:
    ValueError: an unknown spacing, or another one than of the measurement; an unknown format; a
      name with folders; a mask of other values or shape; dicom_seg without a source; a library
      that is missing; a folder that cannot be written to.
  """
  require_formats(formats)
  if not name or pathlib.Path(name).name != name or '\\' in name:
    raise ValueError(f'the name of a case must be a file name without folders, not {name!r}.')
  mask = np.asarray(mask)
  if mask.ndim == 2:
    geometry = image_geometry(mask.shape, spacing, axes)
  elif geometry is None:
    raise ValueError('a mask [D,H,W] needs the geometry of its volume.')
  _require_spacing(geometry)
  if result.get('spacing') and not np.allclose(
      result['spacing'], _steps(geometry)[:len(result['spacing'])], rtol=1e-4):
    raise ValueError(f'{name}: the angles were measured at a spacing of {result["spacing"]} mm, '
                     f'but the mask has {_steps(geometry).tolist()}; give that of the measurement.')
  path = {form: pathlib.Path(folder) / f'{name}{suffix}' for form, suffix in FORMATS.items()}
  if 'nifti' in formats:
    write_nifti(path['nifti'], mask, geometry)
  if 'seg_nrrd' in formats:
    write_segmentation(path['seg_nrrd'], mask, geometry, classes)
  if 'markups' in formats:
    write_markups(path['markups'], result, geometry, name=name, points=points)
  if 'dicom_seg' in formats:
    if source is None:
      raise ValueError(f'{name}: dicom_seg needs the DICOM file that the image came from.')
    write_dicom_seg(path['dicom_seg'], mask, source, classes, model=result.get('model'))
  written = [path[form] for form in FORMATS if form in formats]
  if image is not None:
    gray = figures.to_bytes(image)
    written.append(pathlib.Path(folder) / f'{name}_image.nii.gz')
    write_nifti(written[-1], gray if gray.ndim == 2 else gray[..., 0], geometry)
  return written


def image_geometry(shape: Sequence[int], spacing: Sequence[float] | float | None,
                   axes: str = AXES, thickness: float = 1.0) -> Geometry:
  """The place of an image [H,W] as one slice [H,W,1]; its file has the axes (column, row, slice).

  Pixel (row 0, column 0) has its center at the origin, and `axes` says where columns, rows and the
  slice grow to. 'LIP': a coronal image, the patient's left at the right of the image and the feet
  at the bottom; 'RIA': the same seen from behind; 'LPS': as 3D Slicer and ITK themselves lay a PNG
  or a DICOM X-ray that has no position, so that the files lie on that one.

  Args:
    shape: (H, W).
    spacing: mm per pixel (y, x); one number for square pixels.
    axes: three letters that make a right-handed system.
    thickness: of the slice, mm.

  Raises:
    ValueError: an unknown spacing, axes that are none or left-handed.
  """
  steps = angles.check_spacing(spacing, 2)
  if steps is None:
    raise ValueError('the spacing of the image is unknown, so its files would have no place in '
                     'space; give mm per pixel.')
  direction = orientation.directions(axes)
  if np.linalg.det(direction) < 0:
    raise ValueError(f'the axes {axes!r} are left-handed, which not every program reads; turn the '
                     'last letter, the direction of the slice, around.')
  rows, columns = shape
  return Geometry((columns, rows, 1), (1, 0, 2), (False, False, False),
                  np.array([steps[1], steps[0], thickness]), np.zeros(3), direction)


def _require_spacing(geometry: Geometry) -> None:
  if not orientation.has_spacing(geometry):
    raise ValueError('the volume has no spacing, so its files would have no place in space; write '
                     'the spacing into its file.')


def _steps(geometry: Geometry) -> np.ndarray:
  """mm along the axes of the array, float64 [3]."""
  return np.asarray(geometry.spacing, np.float64)[list(geometry.order)]


def _names(classes: Sequence[str], mask: np.ndarray) -> list[str]:
  """Names of the classes beyond the background, each on one line."""
  highest = int(mask.max(initial=0))
  if classes and highest >= len(classes):
    raise ValueError(f'the mask has the label {highest}, but there are {len(classes)} classes.')
  names = [str(name) for name in classes[1:]] or [f'class {i}' for i in range(1, highest + 1)]
  return [_line(name) or f'class {i}' for i, name in enumerate(names, 1)]


def _line(text: str) -> str:
  """Words of a text in one line, without control characters."""
  return ' '.join(''.join(c if c.isprintable() else ' ' for c in text).split())


# ---------------------------------------------------------------------------------------- masks


def write_nifti(path: str | os.PathLike, mask: np.ndarray, geometry: Geometry) -> None:
  """Writes a mask [H,W] or [D,H,W] as NIfTI; `volumes.write_mask` with a spacing that is known."""
  _require_spacing(geometry)
  volumes.write_mask(path, _as_volume(mask), geometry)


def write_segmentation(path: str | os.PathLike, mask: np.ndarray, geometry: Geometry,
                       classes: Sequence[str] = ()) -> None:
  """Writes a mask as a segmentation of 3D Slicer, with names and colors of the classes.

  All segments share one layer and so the extent of the whole image: Slicer takes the extent of the
  first segment for the layer, and an empty class would else hide the others.

  Args:
    path: .seg.nrrd; overwritten if it exists.
    mask: whole numbers [H,W] or [D,H,W]; label i is class i.
    geometry: of the image.
    classes: class names by index, background first; every one becomes a segment, empty or not.

  Raises:
    ValueError: as `volumes.write_mask`; an unknown spacing; a label without a class.
  """
  _require_spacing(geometry)
  mask = _as_volume(mask)
  extent = ' '.join(f'0 {n - 1}' for n in geometry.shape)
  category, kind = ('^'.join(('SCT', *code)) for code in (_CATEGORY, _TYPE))
  tags = ('Segmentation.Status:inprogress|TerminologyEntry:Segmentation category and type - 3D '
          f'Slicer General Anatomy list~{category}~{kind}~^^~Anatomic codes - DICOM master list'
          '~^^~^^|')
  fields = {'Segmentation_ContainedRepresentationNames': 'Binary labelmap|',
            'Segmentation_MasterRepresentation': 'Binary labelmap',
            'Segmentation_ReferenceImageExtentOffset': '0 0 0'}
  for index, name in enumerate(_names(classes, mask), 1):
    fields |= {f'Segment{index - 1}_{key}': value for key, value in {
        'ID': f'Segment_{index}', 'Name': name, 'NameAutoGenerated': '0',
        'Color': ' '.join(f'{x:.6g}' for x in _color(figures.class_color(index))),
        'ColorAutoGenerated': '0', 'LabelValue': str(index), 'Layer': '0', 'Extent': extent,
        'Tags': tags}.items()}
  volumes.write_mask(path, mask, geometry, fields)


def _as_volume(mask: np.ndarray) -> np.ndarray:
  mask = np.asarray(mask)
  mask = mask[..., None] if mask.ndim == 2 else mask
  if mask.ndim != 3 or not mask.size:
    raise ValueError(f'a mask must be [H,W] or [D,H,W], got {list(mask.shape)}.')
  return mask


def _color(color: str) -> list[float]:
  """'#rrggbb' as red, green and blue from 0 to 1."""
  return [round(value / 255, 6) for value in figures.color_bytes(color)]


# -------------------------------------------------------------------------------------- markups


def write_markups(path: str | os.PathLike, result: Mapping[str, Any], geometry: Geometry, *,
                  name: str = '', points: np.ndarray | None = None) -> None:
  """Writes `make_markups` as JSON; path .mrk.json, replaced only when the new one is complete."""
  try:
    runs.write_json(path, make_markups(result, geometry, name=name, points=points))
  except OSError as error:
    raise ValueError(f'{path}: the markups cannot be written ({error.strerror}).') from None


def make_markups(result: Mapping[str, Any], geometry: Geometry, *, name: str = '',
                 points: np.ndarray | None = None) -> dict[str, Any]:
  """Markups of 3D Slicer (schema 1.0.3), all of them free to be dragged.

  Each level with a left and a right point is a Line, the midline a Curve through at most 17
  points, the laminae are Fiducials, and each curve is an Angle of three points: from where the
  tangents of the spine at both its ends meet, one arm follows the upper tangent further down and
  the other the lower one, so that Slicer shows the angle measured. An end without a line of a
  level gets one across the spine.

  Args:
    result: of `spinejax.measure`.
    geometry: of the mask; depth of points [row, column] is the middle of the volume.
    name: of the case, before the name of each markup.
    points: [P,3] voxels, laminae.

  Returns:
    {'@schema', 'markups'}; never without a markup, for Slicer then reports an error: a failed
    result has a list without points that tells the reason in its name.

  Raises:
    ValueError: an unknown spacing.
  """
  _require_spacing(geometry)
  label = lambda words: _line(f'{name} {words}')
  levels = result.get('levels') or []
  line = _midline(result)
  markups = []
  for number, level in enumerate(levels, 1):
    if level.get('left') and level.get('right'):
      title = level.get('name') or f'level {number}'
      markups.append(_markup('Line', label(title), [level['left'], level['right']], geometry,
                             angle_figures.LEVEL_COLOR, labels=[title, '']))
  if len(line) > 1:
    kept = np.unique(np.linspace(0, len(line) - 1, CURVE_POINTS).round().astype(int))
    markups.append(_markup('Curve', label('midline'), line[kept], geometry,
                           angle_figures.MIDLINE_COLOR))
    drawn = [level['row'] for level in levels if level.get('left') and level.get('right')]
    sizes = sorted((curve['angle_deg'] for curve in result['curves']), reverse=True)
    for number, curve in enumerate(result['curves'], 1):
      place = min(sizes.index(curve['angle_deg']), len(angle_figures.CURVE_COLORS) - 1)
      color, ends = angle_figures.CURVE_COLORS[place], ('upper', 'lower')
      angle, *across = _curve_markups(curve, number, levels, line, geometry, color, label,
                                      result['method'])
      markups += [angle] + [markup for end, markup in zip(ends, across) if all(
          abs(row - curve[f'{end}_row']) > _SAME_ROW for row in drawn)]
      drawn += [curve[f'{end}_row'] for end in ends]
  if points is not None and len(points):
    markups.append(_markup('Fiducial', label('laminae'), points, geometry, figures.class_color(1),
                           labels=[str(i) for i in range(1, len(points) + 1)]))
  if result['status'] == 'fail' or not markups:
    reason = '; '.join(result['flags'][:1]) or 'no levels'
    markups.append(_markup('Fiducial', label(f'no angle: {reason}'), [], geometry,
                           figures.VERMILION))
  return {'@schema': MARKUPS_SCHEMA, 'markups': markups}


def _midline(result: Mapping[str, Any]) -> np.ndarray:
  """Points [n,2] or [n,3] in pixels from top to bottom: the midline, else the levels' middles."""
  line = result.get('midline') or [
      [level[key] for key in ('row', 'column', 'depth') if key in level]
      for level in result.get('levels') or []]
  line = np.array(line, np.float64) if line else np.zeros((0, 2))
  line = line[np.argsort(line[:, 0], kind='stable')]
  return line[np.append(True, np.diff(line[:, 0]) > 0)] if len(line) else line


def _curve_markups(curve, number, levels, line, geometry, color, label, method) -> list[dict]:
  """The Angle of a curve, and Lines across the spine at its upper and lower end."""
  ends = np.array([curve['upper_row'], curve['lower_row']], np.float64)
  tilt = np.array([_tilt(row, levels, line, geometry) for row in ends])
  excess = curve['angle_deg'] - abs(tilt[0] - tilt[1])
  tilt += np.array([0.5, -0.5]) * excess * (1 if tilt[0] >= tilt[1] else -1)
  steps, slope = _steps(geometry)[:2], np.tan(np.radians(tilt))
  y, x = ends * steps[0], np.interp(ends, line[:, 0], line[:, 1]) * steps[1]
  meet = (x[1] - x[0] + y[0] * slope[0] - y[1] * slope[1]) / (slope[0] - slope[1] or np.nan)
  if y[0] < meet < y[1]:
    vertex = np.array([meet, x[0] + (meet - y[0]) * slope[0]])
  else:
    row = curve['apex_row']
    vertex = np.array([row, np.interp(row, line[:, 0], line[:, 1])]) * steps
  down = np.stack([np.cos(np.radians(tilt)), np.sin(np.radians(tilt))], -1)
  arm = max(float(np.hypot(y[1] - vertex[0], x[1] - vertex[1])), steps[0])
  corners = np.stack([vertex + arm * down[0], vertex, vertex + arm * down[1]]) / steps
  corners = _with_depth(corners, curve['apex_row'], line)
  between = '-'.join(filter(None, (curve['upper'], curve['lower'])))
  title = _line(f'curve {number} {curve["region"] or ""} {between}')
  words = f'{method} {"at least " if curve["truncated"] else ""}{curve["angle_deg"]:.1f} degrees'
  if curve['ci95']:
    words += ', 95% interval {:.1f} to {:.1f}'.format(*curve['ci95'])
  markups = [_markup('Angle', label(title), corners, geometry, color, labels=['', title, ''],
                     shows_value=True) | {'measurements': [{
                         'name': 'angle', 'enabled': True, 'value': curve['angle_deg'],
                         'units': 'deg', 'description': words, 'printFormat': '%3.1f%s'}]}]
  for i, end in enumerate(('upper', 'lower')):
    off = END_LINE_MM / 2 * np.array([-down[i, 1], down[i, 0]])
    across = _with_depth(np.stack([[y[i], x[i]] - off, [y[i], x[i]] + off]) / steps, ends[i], line)
    title = _line(f'curve {number} {end} end {curve[end] or ""}')
    markups.append(_markup('Line', label(title), across, geometry, color, labels=[title, '']))
  return markups


def _with_depth(points: np.ndarray, row: float, line: np.ndarray) -> np.ndarray:
  """Points [n,2] at the depth that the midline has at a row, where it has one."""
  if line.shape[1] == 2:
    return points
  return np.insert(points, 2, np.interp(row, line[:, 0], line[:, 2]), axis=1)


def _tilt(row: float, levels: Sequence[Mapping], line: np.ndarray, geometry: Geometry) -> float:
  """Degrees of the level at a row, else of the midline."""
  for level in levels:
    if abs(level['row'] - row) <= _SAME_ROW and level.get('tilt_deg') is not None:
      return level['tilt_deg']
  steps = _steps(geometry)
  slopes = np.gradient(line[:, 1] * steps[1], line[:, 0] * steps[0])
  return math.degrees(math.atan(np.interp(row, line[:, 0], slopes)))


def _markup(kind: str, name: str, points: Any, geometry: Geometry, color: str, *,
            labels: Sequence[str] = (), shows_value: bool = False) -> dict[str, Any]:
  """One markup through points [n,2] or [n,3] in pixels."""
  points = np.array(points, np.float64) if len(points) else np.zeros((0, 3))
  if points.shape[1] != 3:
    depth = (orientation.shape_of(geometry)[2] - 1) / 2
    points = np.concatenate([points[:, :2], np.full((len(points), 1), depth)], 1)
  rgb = _color(color)
  positions = orientation.to_physical(points, geometry).round(6)
  return {
      'type': kind, 'name': name, 'coordinateSystem': 'LPS', 'coordinateUnits': 'mm',
      'locked': False, 'fixedNumberOfControlPoints': False, 'labelFormat': '%N-%d',
      'lastUsedControlPointNumber': len(points),
      'controlPoints': [
          {'id': str(i + 1), 'label': labels[i] if labels else '', 'description': '',
           'associatedNodeID': '', 'position': position, 'selected': True, 'locked': False,
           'visibility': True, 'positionStatus': 'defined'}
          for i, position in enumerate(positions.tolist())],
      'measurements': [],
      'display': {
          'visibility': True, 'opacity': 1.0, 'color': rgb, 'selectedColor': rgb,
          'activeColor': [0.4, 1.0, 0.0], 'propertiesLabelVisibility': shows_value,
          'pointLabelsVisibility': any(labels) and not shows_value, 'textScale': 3.0,
          'glyphType': 'Sphere3D', 'glyphScale': 1.0, 'glyphSize': 5.0, 'useGlyphScale': True,
          'lineThickness': 0.2, 'snapMode': 'unconstrained'}}


# --------------------------------------------------------------------------------------- tables


def write_summary(path: str | os.PathLike, results: Mapping[str, Mapping[str, Any]]) -> None:
  """Writes a CSV table of one row per case, with its largest curve; see `SUMMARY_COLUMNS`.

  UTF-8, quoted as RFC 4180 says. A text that a spreadsheet would take for a formula gets an
  apostrophe before it; numbers do not. What is not known is empty. `curves` are all angles of a
  case in degrees, top to bottom, joined by '; ', `flags` its flags, joined by ' | '.

  Args:
    path: overwritten if it exists.
    results: by case, of `spinejax.measure`; none is allowed.

  Raises:
    ValueError: a path that cannot be written to.
  """
  rows = []
  for case, result in results.items():
    major: Mapping = max(result['curves'], key=lambda curve: curve['angle_deg'], default={})
    steps = [*(result.get('spacing') or ()), '', '', ''][:3]
    rows.append({**result, **_ends(major), **{key: major.get(key) for key in (
        'upper', 'lower', 'apex', 'side', 'region', 'truncated')}, 'case': case,
                 'curves': '; '.join(f'{curve["angle_deg"]:g}' for curve in result['curves']),
                 'flags': ' | '.join(result['flags']),
                 **dict(zip(('spacing_y_mm', 'spacing_x_mm', 'spacing_z_mm'), steps))})
  _write_table(path, SUMMARY_COLUMNS, rows)


def write_curves(path: str | os.PathLike, results: Mapping[str, Mapping[str, Any]]) -> None:
  """Writes a CSV table of one row per curve, top to bottom within a case; see `CURVE_COLUMNS`.

  As `write_summary`; rows of the image are in pixels. A case without curves has no row.
  """
  _write_table(path, CURVE_COLUMNS, [
      {**curve, **_ends(curve), 'case': case, 'method': result['method'],
       'status': result['status'], 'curve': number}
      for case, result in results.items() for number, curve in enumerate(result['curves'], 1)])


def _ends(curve: Mapping[str, Any]) -> dict[str, Any]:
  """The ends of a curve's interval as columns."""
  return dict(zip(('ci_low', 'ci_high'), curve.get('ci95') or (None, None)))


def _write_table(path, columns, rows) -> None:
  try:
    with open(path, 'w', newline='', encoding='utf-8') as file:
      writer = csv.writer(file)
      writer.writerow(columns)
      writer.writerows([_cell(row.get(column)) for column in columns] for row in rows)
  except OSError as error:
    raise ValueError(f'{path}: the table cannot be written ({error.strerror}).') from None


def _cell(value: Any) -> Any:
  """A cell that no spreadsheet runs."""
  if value is None:
    return ''
  if isinstance(value, bool):
    return 'yes' if value else 'no'
  if isinstance(value, str) and (value[:1] in ('\t', '\r', '\n') or value.lstrip()[:1] in (
      '=', '+', '-', '@')):
    return f"'{value}"
  return value


# ------------------------------------------------------------------------------------ DICOM-SEG


def write_dicom_seg(path: str | os.PathLike, mask: np.ndarray, source: str | os.PathLike,
                    classes: Sequence[str] = (), *, model: str | None = None) -> None:
  """Writes a mask as DICOM Segmentation of the X-ray or ultrasound image it was made from.

  One binary frame for every class that occurs. The file belongs to patient and study of the source
  and therefore repeats their tags. An image without a frame of reference has no place in space:
  its segmentation then lies on the pixels of that image, by reference, and has no spacing of its
  own.

  Args:
    path: overwritten if it exists.
    mask: whole numbers [H,W], of the source's rows and columns.
    source: DICOM file with one frame.
    classes: class names by index, background first.
    model: what made the mask.

  Raises:
    FileNotFoundError: there is no such source.
    ValueError: highdicom is missing; a source that is no DICOM image of one frame or lacks what
      identifies it; another size; a label without a class; no class at all.
  """
  try:
    import highdicom
    import pydicom
  except ImportError:
    raise ValueError(f'{path}: DICOM segmentations need highdicom; run '
                     '`pip install spinejax[dicom_seg]`.') from None
  mask, source = np.asarray(mask), pathlib.Path(source)
  if not source.is_file():
    raise FileNotFoundError(f'{source}: there is no such file.')
  with dicom.quietly(pydicom):
    try:
      image = pydicom.dcmread(source, force=True)
      size, frames = (int(image.Rows), int(image.Columns)), int(image.get('NumberOfFrames') or 1)
      missing = [keyword for keyword in _IDENTITY if not image.get(keyword)]
    except Exception:  # pydicom raises many kinds, and each means the same
      raise ValueError(f'{source}: this is not a DICOM image, or it is truncated or corrupt.'
                       ) from None
  if missing:
    raise ValueError(f'{source}: the file has no {missing[0]}, so nothing can refer to it.')
  if frames != 1:
    raise ValueError(f'{source}: the file holds {frames} frames; a mask belongs to one image.')
  if mask.shape != size:
    raise ValueError(f'{source}: the image has {size[0]} x {size[1]} pixels, but the mask '
                     f'{" x ".join(map(str, mask.shape))}.')
  names = _names(classes, mask)
  if not names:
    raise ValueError('an empty mask makes a DICOM segmentation only with the names of its classes.')
  code = lambda value, meaning: highdicom.sr.CodedConcept(value, 'SCT', meaning)
  algorithm = highdicom.AlgorithmIdentificationSequence(
      name=_line(model or 'spinejax')[:64], version=__version__,
      family=highdicom.sr.CodedConcept('123109', 'DCM', 'Artificial Intelligence'))
  segments = [highdicom.seg.SegmentDescription(
      segment_number=index, segment_label=name[:64], algorithm_identification=algorithm,
      segmented_property_category=code(*_CATEGORY), segmented_property_type=code(*_TYPE),
      algorithm_type='AUTOMATIC') for index, name in enumerate(names, 1)]
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
      raise ValueError(f'{path}: the segmentation cannot be written ({error.strerror}).') from None
    except Exception:  # many kinds, which may repeat what the file says of the patient
      raise ValueError(f'{source}: no DICOM segmentation can refer to this file; some of its tags '
                       'are damaged.') from None
