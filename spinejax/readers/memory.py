"""Sizes of memory, and the refusal of what does not fit into it."""
import re

import psutil

_POWERS = {letter: power for power, letter in enumerate('kmgt', 1)}


def parse(text: str) -> int:
  """Bytes of a size such as '4GB' (10^9), '1.5GiB' (2^30) or '800 mb'; ValueError if it is none."""
  match = re.fullmatch(r'(\d+\.?\d*|\.\d+)\s*([kmgt])(i?)b', text.strip().lower())
  count = 0
  if match and len(text) < 32:
    count = int(float(match[1]) * (1024 if match[3] else 1000) ** _POWERS[match[2]])
  if not count:
    raise ValueError(f'memory is given as 4GB, 800MB or 1.5GiB, not {text!r}.')
  return count


def require(num_bytes: float, what: str, remedy: str, available: int | None = None) -> None:
  """Raises ValueError if something needs more memory than is left.

  Args:
    num_bytes: that it needs.
    what: subject of the sentence, such as 'predicting an image of (384, 96, 48) pixels'.
    remedy: what to do, such as 'give a smaller --tile'.
    available: bytes; None asks the operating system.
  """
  available = psutil.virtual_memory().available if available is None else available
  if num_bytes > available:
    raise ValueError(f'{what} needs {num_bytes / 2**30:.3g} GiB of memory and '
                     f'{available / 2**30:.3g} GiB are left; {remedy}.')
