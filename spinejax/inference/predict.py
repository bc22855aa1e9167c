"""Prediction of images and volumes at their original size, and angles."""
import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from spinejax import measurement
from spinejax.data import examples, preparation, resize
from spinejax.inference.load import Predictor
from spinejax.measurement.spacing import Numbers, Spacing
from spinejax.metrics import laminae, segmentation


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
  """The prediction of one image at its original size."""
  mask: np.ndarray  # uint8 [*S]
  probs: np.ndarray  # float32 [*S, K]
  logits: np.ndarray  # float32 [*s, K] of the image at the network's size
  styled: np.ndarray | None = None  # gray levels float32 [*S, C] after a style transfer


@dataclasses.dataclass(frozen=True, eq=False)
class VolumePrediction:
  """The prediction of one volume on its own grid."""
  mask: np.ndarray  # uint8 [D, H, W]; 0 where the preparation cropped
  probability: np.ndarray  # float32 [D, H, W], of a lamina
  centroids: np.ndarray  # float64 [P, 3] voxels, one of each predicted lamina
  grid_image: np.ndarray  # float32 [*image_size], the prepared volume that the network segmented
  grid_mask: np.ndarray  # uint8 [*image_size], its mask
  steps: Mapping[str, preparation.Step]  # of the preparation, by name

  @property
  def notes(self) -> tuple[str, ...]:
    """A sentence for each step of the preparation that could not be done."""
    return tuple(step.note for step in self.steps.values() if step.note)


def predict_images(predictor: Predictor, images: Iterable[np.ndarray]) -> Iterator[Prediction]:
  """Predicts images [*S, C] of any sizes, in order.

  Each image is resized to the network's size and transferred to the nearest style if the predictor
  does that. With `config.evaluation.resize='logits'` the logits are resized to the original size
  bilinearly and classified there, as in MMSegmentation. With 'mask' the image is classified at the
  network's size and the mask is resized to the nearest pixel (SEAM, section 3.1; SADANet, section
  IV.A; RSN-U-net, section III.A).
  """
  config, transfer = predictor.config, predictor.transfer
  for chunk, batch in examples.image_batches(images, config.data, predictor.batch_size):
    batch = transfer(batch) if transfer else batch
    for image, seen, logits in zip(chunk, batch, predictor.logits(batch)):
      size = image.shape[:-1]
      used = tuple(slice(n) for n in examples.network_size(size, config.data))
      styled = resize.resize_bilinear(seen[used], size) if transfer else None
      yield _to_original_size(logits[used], size, config.evaluation.resize, styled)


def _to_original_size(logits: np.ndarray, size: tuple[int, ...], how: str,
                      styled: np.ndarray | None) -> Prediction:
  """Mask and probabilities at `size` of logits [*s, K]; `how` is 'logits' or 'mask'."""
  if how == 'logits':
    resized = resize.resize_bilinear(logits, size)
    mask, probs = segmentation.predict_labels(resized), segmentation.class_probs(resized)
  else:
    mask = resize.resize_nearest(segmentation.predict_labels(logits), size)
    probs = resize.resize_bilinear(segmentation.class_probs(logits), size)
  return Prediction(mask.astype(np.uint8), probs, logits, styled)


def predict_volume(predictor: Predictor, array: np.ndarray, spacing: Numbers) -> VolumePrediction:
  """Predicts the laminae of a volume of any size, prepared as the config says.

  The probability of a lamina is resized linearly to the grid of the volume, and the mask is where
  it is at least one half. Centroids are those of the components on the grid of the network.
  `array` holds gray levels [D, H, W] in the axes of `readers.orientation`; `spacing` is [3] mm, NaN
  where unknown.

  Raises:
    ValueError: as `preparation.prepare`.
  """
  image, prepared = preparation.prepare(array, spacing, predictor.config.data)
  prediction, = predict_images(predictor, [image[..., None]])
  probability = preparation.from_grid(prediction.probs[..., 1], prepared)
  centroids = laminae.find_components(prediction.mask).centroids
  return VolumePrediction(
      (probability >= 0.5).astype(np.uint8), probability,
      preparation.points_from_grid(centroids, prepared), image, prediction.mask,
      dict(zip(preparation.steps_of(predictor.config.data), prepared.steps)))


def measure_prediction(predictor: Predictor, mask: np.ndarray, spacing: Spacing, *,
                       probs: np.ndarray | None = None, points: np.ndarray | None = None
                       ) -> measurement.AngleResult | None:
  """Measures a predicted mask [*S] of class indices; None if config.angle has no method.

  The spacing is in mm per pixel along each axis. If it is unknown, that of config.angle is used.
  `probs` and `points` are as in `measurement.measure_mask`. The network and the step of the
  predictor are noted in the result.
  """
  angle = predictor.config.angle
  if not angle.method:
    return None
  result = measurement.measure_mask(
      mask, known_spacing(predictor, spacing), angle.method, tuple(predictor.config.data.classes),
      probs=probs, points=points,
      options=measurement.Options(angle.min_deg, tuple(angle.bands), tuple(angle.calibration)))
  return dataclasses.replace(result, model=predictor.config.model.name, checkpoint=predictor.step)


def known_spacing(predictor: Predictor, spacing: Spacing) -> Spacing:
  """`spacing` if it is known, else config.angle.spacing, else None."""
  if spacing is not None and np.size(spacing) and np.isfinite(spacing).all():
    return spacing
  return tuple(predictor.config.angle.spacing) or None
