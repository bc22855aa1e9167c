"""Spine image segmentation and angles of scoliosis in JAX.

  import spinejax

  run = spinejax.load('runs/seam_quick')            # a trained run
  result = run.predict(image, spacing=(0.6, 0.6))   # mask, probabilities, angle
  angle = spinejax.measure(mask, spacing=(0.6, 0.6))
  case = spinejax.phantoms.vpi(seed=0)              # a computer-made image with its truth

Submodules are imported when they are first used, so `import spinejax` is fast. Research software,
not a medical device.
"""
import importlib
from typing import TYPE_CHECKING, Any

from spinejax.version import __version__ as __version__

if TYPE_CHECKING:
  from spinejax import phantoms
  from spinejax.inference.api import load
  from spinejax.measurement import measure_mask as measure

__all__ = ['load', 'measure', 'phantoms']


def __getattr__(name: str) -> Any:
  if name == 'load':
    return importlib.import_module('spinejax.inference.api').load
  if name == 'measure':
    return importlib.import_module('spinejax.measurement').measure_mask
  if name == 'phantoms':
    return importlib.import_module('spinejax.phantoms')
  raise AttributeError(f'module spinejax has no attribute {name!r}')


def __dir__() -> list[str]:
  return sorted([*globals(), *__all__])
