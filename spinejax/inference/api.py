"""Trained runs for notebooks: `spinejax.load`."""
import dataclasses
import io
import os

import numpy as np
from PIL import Image

from spinejax import colors
from spinejax.inference import load as loading
from spinejax.inference.predict import measure_prediction, predict_images, predict_volume
from spinejax.inference.restore import Run, restore_run
from spinejax.measurement import AngleResult
from spinejax.measurement.spacing import Spacing, check_spacing


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
  """The prediction of one image or volume.

  Attributes:
    image: as it was given.
    mask: uint8, class indices [H, W] or [D, H, W].
    probs: float32 [*S, K], probabilities of the classes, background first.
    angle: angles of the mask; None if the run measures none.
    classes: class names by index.
    centroids: of a volume, float64 [P, 3] voxels of the laminae; else None.
    notes: sentences about what the preparation of a volume could not do.
  """
  image: np.ndarray
  mask: np.ndarray
  probs: np.ndarray
  angle: AngleResult | None
  classes: tuple[str, ...]
  centroids: np.ndarray | None = None
  notes: tuple[str, ...] = ()

  def picture(self) -> Image.Image:
    """The image and its mask, with levels, midline and angles if they were measured.

    A volume is shown as its coronal projection.
    """
    from spinejax.report import overlays  # late: matplotlib is slow to import

    image, mask = self.image, self.mask
    if mask.ndim == 3:
      image, mask = colors.stretch(image).max(2), mask.max(2)
    if self.angle is None:
      gray = colors.to_bytes(image)
      return Image.fromarray(
          overlays.overlay(gray if gray.ndim == 2 else gray[..., 0], mask, self.classes))
    file = io.BytesIO()
    overlays.angle_figure(image, mask, self.angle, self.classes).savefig(
        file, format='png', dpi=100, facecolor='white')
    return Image.open(file)


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedRun(Run):
  """A trained run with its config, model, variables and step; see `load`.

  Attributes:
    predictor: the compiled network, for the functions of `spinejax.inference`.
  """
  predictor: loading.Predictor = dataclasses.field(repr=False)

  def predict(self, image: np.ndarray, spacing: Spacing = None) -> Result:
    """Segments an image or volume of any size and measures its angles.

    Args:
      image: gray levels 0 to 255 [H, W] or [H, W, C], or a volume [D, H, W] of any gray scale with
        axes to inferior, left and anterior.
      spacing: mm per pixel along each axis, or one number for all axes. 1 serves for square pixels
        of unknown size. None takes config.angle.spacing; without that there is no angle.

    Raises:
      ValueError: an image with other axes or channels than the run, or a wrong spacing.
    """
    image, data = np.asarray(image), self.config.data
    rank, classes = len(data.image_size), tuple(data.classes)
    steps = check_spacing(spacing, rank)
    steps = np.full(rank, np.nan) if steps is None else steps
    if rank == 3:
      if image.ndim != 3:
        raise ValueError(f'this run segments volumes [D, H, W], not {list(image.shape)}.')
      found = predict_volume(self.predictor, image, steps)
      angle = measure_prediction(self.predictor, found.mask, steps, points=found.centroids)
      probs = np.stack([1 - found.probability, found.probability], -1)
      return Result(image, found.mask, probs, angle, classes, found.centroids, found.notes)
    pixels = image[..., None] if image.ndim == 2 else image
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
      pixels = np.repeat(pixels, data.channels, -1)
    if pixels.ndim != 3 or pixels.shape[-1] != data.channels:
      raise ValueError(f'this run segments images [H, W] or [H, W, {data.channels}], not '
                       f'{list(image.shape)}.')
    prediction, = predict_images(self.predictor, [pixels])
    angle = measure_prediction(self.predictor, prediction.mask, steps, probs=prediction.probs)
    return Result(image, prediction.mask, prediction.probs, angle, classes)


def load(workdir: str | os.PathLike, *, checkpoint: str = 'best',
         style_transfer: bool | None = None) -> LoadedRun:
  """Loads a trained run to predict images, or to use its network and weights directly.

      run = spinejax.load('runs/seam_quick')
      result = run.predict(image, spacing=(0.6, 0.6))  # mm per pixel, vertical and horizontal
      result.mask                                      # class of each pixel
      result.angle.major_deg                           # largest angle in degrees
      result.picture()                                 # shown by a notebook

      # The network alone maps normalized images [N, H, W, C] to logits:
      outputs = run.model.apply(run.variables, images, train=False)
      outputs['logits']

  Args:
    workdir: folder of the run.
    checkpoint: 'best' by validation, or 'last'.
    style_transfer: as in `inference.load.create_predictor`.

  Raises:
    FileNotFoundError: no run, or no checkpoint.
    ValueError: a checkpoint that is damaged or does not fit.
  """
  run = restore_run(os.fspath(workdir), checkpoint)
  predictor = loading.create_predictor(run, style_transfer=style_transfer)
  return LoadedRun(**vars(run), predictor=predictor)
