"""Memory that is left, so that what cannot fit is refused in a sentence."""
import psutil


def require(num_bytes: float, what: str, remedy: str, available: int | None = None) -> None:
  """Raises ValueError where `what` needs more memory than is left.

  Args:
    num_bytes: what it needs.
    what: subject of the sentence, such as 'predicting an image of (384, 96, 48) pixels'.
    remedy: what to do, such as 'give a smaller --tile'.
    available: bytes that are left; None asks the operating system.
  """
  available = psutil.virtual_memory().available if available is None else available
  if num_bytes > available:
    raise ValueError(f'{what} needs {num_bytes / 2**30:.3g} GiB of memory and '
                     f'{available / 2**30:.3g} GiB are left; {remedy}.')
