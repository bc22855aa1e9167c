"""Pages and pictures of measured cases, and an index of all of them."""
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from spinejax import runs
from spinejax.measurement.results import AngleResult
from spinejax.report import angles, pages, style

METHODS = {'uca': 'ultrasound curve angle (UCA)', 'spa': 'spinous process angle (SPA)',
           'center of lamina': 'center-of-lamina angle', 'centerline Cobb': 'centerline Cobb angle',
           'landmark Cobb': 'Cobb angle of landmarks'}
STATUSES = {'ok': 'measured', 'partial': 'use with care', 'fail': 'no angle'}


def write_case(folder: str | os.PathLike, name: str, image: np.ndarray | None, mask: np.ndarray,
               result: AngleResult, classes: Sequence[str]) -> None:
  """Writes NAME_angle.json (the result), NAME_angle.png and NAME_angle.html.

  Args:
    folder: must exist.
    name: of the case, a file name.
    image, mask, result, classes: as in `angles.angle_figure`; volumes [D,H,W] are shown as
      their coronal projections.
  """
  folder = pathlib.Path(folder)
  if mask.ndim == 3:
    image, mask = None if image is None else image.max(2), mask.max(2)
  runs.write_json(folder / f'{name}_angle.json', result.to_json())
  figure = angles.angle_figure(image, mask, result, classes)
  style.save_png(folder / f'{name}_angle.png', figure, tight=True)
  pages.write_page(
      folder / f'{name}_angle.html', 'case.html', title=name, is_phantom=False, figure=figure,
      result=result, method=METHODS.get(result.method, result.method),
      status=STATUSES[result.status],
      curves=sorted(result.curves, key=lambda curve: -curve.angle_deg))


def write_index(folder: str | os.PathLike, results: Mapping[str, AngleResult]) -> pathlib.Path:
  """Writes index.html with a line and a link for every case of `write_case`; returns its path.

  Args:
    folder: must exist.
    results: of every case, by name.
  """
  return pages.write_page(pathlib.Path(folder) / 'index.html', 'cases.html', title='Angles',
                          is_phantom=False, results=results)
