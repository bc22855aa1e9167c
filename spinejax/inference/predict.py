"""Prediction of images: masks and probabilities at their original size, and angles."""
import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from spinejax import measurement
from spinejax.data import examples, resize
from spinejax.inference.load import Predictor
from spinejax.measurement.spacing import Spacing
from spinejax.metrics import segmentation


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
  """The prediction of one image at its original size.

  Attributes:
    mask: uint8 [*S].
    probs: float32 [*S, K].
    logits: float32 [*s, K] of the image at the network's size.
    styled: the image after a style transfer, gray levels float32 [*S, C]; None without a transfer.
  """
  mask: np.ndarray
  probs: np.ndarray
  logits: np.ndarray
  styled: np.ndarray | None = None


def predict_images(predictor: Predictor, images: Iterable[np.ndarray]) -> Iterator[Prediction]:
  """Predicts images [*S, C] of any sizes, in order.

  Each image is resized to the network's size and transferred to the nearest style if the predictor
  does that. With `config.evaluation.resize='logits'` the logits are resized to the original size
  bilinearly and classified there (SEAM, section 3.1). With 'mask' the image is classified at the
  network's size and the mask is resized to the nearest pixel (RSN-U-net, section III.A).
  """
  config = predictor.config
  for chunk, batch in examples.image_batches(images, config.data, predictor.batch_size):
    if predictor.transfer is not None:
      batch = predictor.transfer(batch)
    for image, seen, logits in zip(chunk, batch, predictor.logits(batch)):
      size = image.shape[:-1]
      used = tuple(slice(n) for n in examples.network_size(size, config.data))
      prediction = to_original_size(logits[used], size, config.evaluation.resize)
      if predictor.transfer is not None:
        styled = resize.resize_bilinear(seen[used], size)
        prediction = dataclasses.replace(prediction, styled=styled)
      yield prediction


def to_original_size(logits: np.ndarray, size: tuple[int, ...], how: str) -> Prediction:
  """Mask and probabilities at `size` of logits [*s, K]; `how` is 'logits' or 'mask'."""
  if how == 'logits':
    resized = resize.resize_bilinear(logits, size)
    mask, probs = segmentation.predict_labels(resized), segmentation.class_probs(resized)
  else:
    mask = resize.resize_nearest(segmentation.predict_labels(logits), size)
    probs = resize.resize_bilinear(segmentation.class_probs(logits), size)
  return Prediction(mask.astype(np.uint8), probs, logits)


def measure_prediction(predictor: Predictor, mask: np.ndarray, spacing: Spacing, *,
                       probs: np.ndarray | None = None, points: np.ndarray | None = None
                       ) -> measurement.AngleResult | None:
  """Measures a predicted mask [*S]; None if config.angle has no method.

  Args:
    predictor: of the run. Its network and step are noted in the result.
    mask: class indices.
    spacing: mm per pixel along each axis. If it is unknown, that of config.angle is used.
    probs, points: as in `measure.measure_mask`.
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
