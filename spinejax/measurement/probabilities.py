"""The check of probabilities that come with a mask."""
import numpy as np

_TOLERANCE = 0.01  # of their sum


def check_probabilities(probs: np.ndarray | None, shape: tuple[int, ...], last: int
                        ) -> np.ndarray | None:
  """Probabilities [*shape, K] of the classes 0 to `last` or more; None for None.

  ValueError for another shape, and for values that are not between 0 and 1 or do not sum to 1.
  """
  if probs is None:
    return None
  probs = np.asarray(probs)
  if probs.shape[:-1] != shape or probs.shape[-1] <= last:
    raise ValueError(f'the probabilities of a mask {list(shape)} must be [..., K] of the same size '
                     f'with at least {last + 1} classes, got {list(probs.shape)}.')
  if not (np.isfinite(probs).all() and probs.min(initial=0) >= -_TOLERANCE
          and np.abs(probs.sum(-1, dtype=np.float64) - 1).max(initial=0) <= _TOLERANCE):
    raise ValueError('the probabilities of every pixel must be between 0 and 1 and sum to 1.')
  return probs
