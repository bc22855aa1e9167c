"""Prediction of volumes: laminae on the grid of the volume."""
import dataclasses

import numpy as np

from spinejax.data import preparation
from spinejax.inference.load import Predictor
from spinejax.inference.predict import predict_images
from spinejax.measurement.spacing import Numbers
from spinejax.metrics import laminae


@dataclasses.dataclass(frozen=True, eq=False)
class VolumePrediction:
  """The prediction of one volume on its own grid.

  Attributes:
    mask: uint8 [D, H, W]; 0 where the preparation cropped.
    probability: float32 [D, H, W], of a lamina.
    centroids: float64 [P, 3] voxels, one of each predicted lamina.
    grid_image: float32 [*image_size], the prepared volume that the network segmented.
    grid_mask: uint8 [*image_size], its mask.
    notes: a sentence for each step of the preparation that could not be done.
  """
  mask: np.ndarray
  probability: np.ndarray
  centroids: np.ndarray
  grid_image: np.ndarray
  grid_mask: np.ndarray
  notes: tuple[str, ...]


def predict_volume(predictor: Predictor, array: np.ndarray, spacing: Numbers) -> VolumePrediction:
  """Predicts the laminae of a volume of any size, prepared as the config says.

  The probability of a lamina is resized linearly to the grid of the volume, and the mask is where
  it is at least one half. Centroids are those of the components on the grid of the network.

  Args:
    predictor: of a run on volumes.
    array: gray levels [D, H, W] in the axes of `readers.orientation`.
    spacing: [3] mm, NaN where unknown.

  Raises:
    ValueError: as `preparation.prepare`.
  """
  options = preparation.options_of(predictor.config.data)
  image, prepared = preparation.prepare(array, spacing, options)
  prediction, = predict_images(predictor, [image[..., None]])
  probability = preparation.from_grid(prediction.probs[..., 1], prepared)
  centroids = laminae.find_components(prediction.mask).centroids
  return VolumePrediction(
      (probability >= 0.5).astype(np.uint8), probability,
      preparation.points_from_grid(centroids, prepared), image, prediction.mask,
      tuple(step.note for step in prepared.steps if step.note))
