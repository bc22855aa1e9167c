"""Angles of a mask of any of the networks, or of any other program."""
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from spinejax.measurement import flags, vpi
from spinejax.measurement.laminae import measure_lamina_volume, measure_laminae
from spinejax.measurement.probabilities import check_probabilities
from spinejax.measurement.results import AngleResult, Options
from spinejax.measurement.spacing import Spacing
from spinejax.measurement.xray import measure_xray

METHODS = ('uca', 'center_of_lamina', 'centerline_cobb')


def measure_mask(mask: np.ndarray, spacing: Spacing, method: str | None = None,
                 classes: Sequence[str] = (), *, probs: np.ndarray | None = None,
                 points: np.ndarray | None = None, options: Options = Options()) -> AngleResult:
  """The angles of a mask.

  Args:
    mask: class indices [H,W], or [D,H,W] of laminae (down, left, deep).
    spacing: mm per pixel along each axis; NaN, () or None where unknown, which gives a failed
      result.
    method: 'uca' (VPI masks, `measure_vpi`), 'center_of_lamina' (volumes, `measure_lamina_volume`)
      or 'centerline_cobb' (X-ray masks, `measure_xray`). None takes `choose_method`.
    classes: names by index, background first; () takes `default_classes`. UCA is measured on the
      classes whose names contain 'process' and 'lump'. With one class of bones it tells them
      apart; without these classes it fails.
    probs: [*mask.shape, K] probabilities of the classes, background first, or None. They weigh the
      pixels of laminae, processes and lumps, and tell how sure a lump is.
    points: [n,3] centroids of laminae in pixels that replace those of the mask, or None.
    options: curves, bands and calibration.

  Raises:
    ValueError: an unknown method, a mask or a spacing with another number of axes, or values of
      `probs` that are not the probabilities of this mask.
  """
  mask = np.asarray(mask)
  method = choose_method(mask) if method is None else method
  if method not in METHODS:
    raise ValueError(f'the method must be one of {", ".join(METHODS)}, not {method!r}.')
  spacing = None if spacing is None or not np.size(spacing) else spacing
  if method == 'centerline_cobb':
    return measure_xray(mask > 0, spacing, options=options)
  if method == 'center_of_lamina':
    probs = check_probabilities(probs, mask.shape, 1)
    if points is not None:
      return measure_laminae(points, spacing, options=options)
    weighed = mask if probs is None else np.where(mask == 1, probs[..., 1], 0)
    return measure_lamina_volume(weighed, spacing, options=options)
  classes = tuple(classes) or default_classes(method, mask)
  process, lump = (1, 1) if len(classes) == 2 else (
      next((i for i, name in enumerate(classes) if i and word in name), None)
      for word in ('process', 'lump'))
  if process is None or lump is None:
    return flags.no_angle(vpi.METHOD, None, (
        'UCA needs a class named after thoracic processes and one after lumps; the classes are '
        + ', '.join(classes)))
  return vpi.measure_vpi(mask, spacing, process=process, lump=lump, probs=probs, options=options)


def choose_method(mask: np.ndarray) -> str:
  """'center_of_lamina' for volumes, 'centerline_cobb' if a region fills over 60 %, else 'uca'."""
  if mask.ndim == 3:
    return 'center_of_lamina'
  labels, number = ndimage.label(mask, np.ones((3, 3)))
  areas = np.bincount(labels.reshape(-1))[1:]
  return 'centerline_cobb' if number and areas.max() > 0.6 * areas.sum() else 'uca'


def default_classes(method: str, mask: np.ndarray) -> tuple[str, ...]:
  """The usual classes of a method; one class of bones if a VPI mask has no index above 1."""
  if method == 'center_of_lamina':
    return 'background', 'lamina'
  if method == 'centerline_cobb':
    return 'background', 'spine', 'border'
  if mask.max(initial=0) > 1:
    return 'background', 'rib', 'thoracic process', 'lump'
  return 'background', 'bone'
