"""What is written of every case with a measured angle: result, picture and page; and of all."""
import collections
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np

from spinejax import runs
from spinejax.report import angle_figures
from spinejax.handoff import files as handoff
from spinejax.report import html
from spinejax.report import tables

METHODS = {'uca': 'ultrasound curve angle (UCA)', 'spa': 'spinous process angle (SPA)',
           'center of lamina': 'center-of-lamina angle', 'centerline Cobb': 'centerline Cobb angle',
           'landmark Cobb': 'Cobb angle of landmarks'}
STATUSES = {'ok': 'measured', 'partial': 'with care', 'fail': 'no angle'}


def write_case(folder: str | os.PathLike, name: str, image: np.ndarray | None, mask: np.ndarray,
               result: Mapping[str, Any], classes: Sequence[str], *, formats: Sequence[str] = (),
               is_phantom: bool = False, **place: Any) -> tuple[str, ...]:
  """Writes NAME_angle.json (the result), NAME_angle.png, NAME_angle.html, and further formats.

  Args:
    folder: it exists.
    name: of the case, a file name.
    image, mask, result, classes: as `angle_figures.angle_figure`; volumes [D,H,W] are shown as
      their coronal projections.
    formats: of `handoff.FORMATS`.
    is_phantom: puts the notice on computer-made cases on the page.
    **place: spacing or geometry, axes, points and source of `handoff.write_case`.

  Returns:
    A sentence for each format that could not be written, and why.
  """
  folder, volume = pathlib.Path(folder), mask
  if mask.ndim == 3:
    image, mask = None if image is None else image.max(2), mask.max(2)
  runs.write_json(folder / f'{name}_angle.json', result)
  figure = angle_figures.angle_figure(image, mask, result, classes)
  angle_figures.save_figure(folder / f'{name}_angle.png', figure)
  curves = sorted(result['curves'], key=lambda curve: -curve['angle_deg'])
  colors = angle_figures.CURVE_COLORS
  method = METHODS.get(result['method'], result['method'])
  angle, interval = tables.angle_cells(result)
  html.write_page(folder / f'{name}_angle.html', 'case.html', title=name, is_phantom=is_phantom,
                  result=result, method=method, headline={'angle': angle, 'interval': interval},
                  status_words=STATUSES[result['status']],
                  has_rotation=any('rotation_deg' in curve for curve in curves),
                  caption=f'{name}: mask, levels, midline, and each curve between its end lines.',
                  figure=html.embed(
                      figure, 'case',
                      f'Case {name}: image, and mask with levels, midline and angles; largest '
                      f'angle {angle}'),
                  curves=[{**curve, 'color': colors[min(i, len(colors) - 1)],
                           'angle': tables.angle_of(curve), 'interval': tables.interval_of(curve),
                           **{end: _level(curve, end) for end in ('upper', 'lower', 'apex')}}
                          for i, curve in enumerate(curves)])
  notes = []
  for form in formats:
    try:
      handoff.write_case(folder, name, volume, result, classes=classes, formats=(form,), **place)
    except ValueError as error:
      notes.append(f'no {form}: {error}')
  return tuple(notes)


def write_index(folder: str | os.PathLike, results: Mapping[str, Mapping[str, Any]], *,
                is_phantom: bool = False) -> pathlib.Path:
  """Writes angles.csv, angles_curves.csv and index.html of the cases of `write_case`.

  Args:
    folder: it exists.
    results: name -> result, of every case.
    is_phantom: as `write_case`.

  Returns:
    The path of the page, which has a line and a link for every case.
  """
  handoff.write_summary(pathlib.Path(folder) / 'angles.csv', results)
  handoff.write_curves(pathlib.Path(folder) / 'angles_curves.csv', results)
  rows = [{'name': name, 'link': quote(f'{name}_angle.html'), 'band': result['band'],
           'status': result['status'], 'flags': result['flags'],
           **dict(zip(('angle', 'interval'), tables.angle_cells(result)))}
          for name, result in results.items()]
  return html.write_page(
      pathlib.Path(folder) / 'index.html', 'cases.html', title='Angles', is_phantom=is_phantom,
      rows=rows, statuses=collections.Counter(row['status'] for row in rows))


def _level(curve, end) -> str:
  row = f'row {curve[f"{end}_row"]:.0f}'
  return f'{curve[end]}, {row}' if curve[end] else row

