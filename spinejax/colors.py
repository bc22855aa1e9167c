"""Colors of classes, runs and curves, and gray levels of images, shared by reports and files.

The colors are those of Okabe and Ito (2008), which readers with color blindness can tell apart.
Yellow is the truth and green the prediction, as in RSN-U-net (Huang et al., 2020, fig. 3 and 4).
"""
import numpy as np

BLUE, VERMILION = '#0072b2', '#d55e00'
TRUTH_COLOR, PREDICTION_COLOR = '#f0e442', '#009e73'
_BACKGROUND_COLOR = '#8b95a1'
_FOREGROUND_COLORS = ('#e69f00', '#56b4e9', '#cc79a7', VERMILION, BLUE)  # of classes 1, 2, ...
RUN_COLORS = (BLUE, '#e69f00', '#009e73', '#cc79a7', '#56b4e9', VERMILION)  # in a comparison
CURVE_COLORS = (VERMILION, BLUE, PREDICTION_COLOR)  # curves of a spine, largest angle first
MIDLINE_COLOR, LEVEL_COLOR, LANDMARK_COLOR = TRUTH_COLOR, '#ffffff', '#56b4e9'


def class_color(index: int) -> str:
  """Color of class `index` as '#rrggbb'; after the last color they start again."""
  return _FOREGROUND_COLORS[(index - 1) % 5] if index else _BACKGROUND_COLOR


def color_bytes(color: str) -> tuple[int, int, int]:
  """Red, green and blue (0 to 255) of a color '#rrggbb'."""
  return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def confidence_color(confidence: float | None) -> str:
  """Gray level of a confidence from 0 to 1 as '#rrggbb'; white for 1 and for None."""
  level = 255 if confidence is None else round(95 + 160 * confidence)
  return f'#{level:02x}{level:02x}{level:02x}'


def palette(num_classes: int) -> np.ndarray:
  """Colors of classes 0 to num_classes - 1, uint8 [num_classes,3]."""
  return np.array([color_bytes(class_color(i)) for i in range(num_classes)], np.uint8)


def to_bytes(image: np.ndarray) -> np.ndarray:
  """Gray levels 0 to 255 of any dtype as uint8; NaN becomes 0.

  [H,W] and [H,W,1] become [H,W]. Of [H,W,C] with C >= 3 the first three channels are used.
  """
  image = np.asarray(image)
  if image.ndim == 3:
    image = image[..., :3] if image.shape[-1] >= 3 else image[..., 0]
  elif image.ndim != 2:
    raise ValueError(f'expected an image [H,W] or [H,W,C], got shape {image.shape}; '
                     'pass one image without a batch axis.')
  if image.dtype == np.uint8:
    return image
  return np.clip(np.rint(np.nan_to_num(image)), 0, 255).astype(np.uint8)


def stretch(image: np.ndarray) -> np.ndarray:
  """Scales gray values [*S] to float32 0..255, from the 0.5th to the 99.5th percentile."""
  low, high = np.percentile(image, (0.5, 99.5))
  return np.clip(255 * (image - low) / max(high - low, 1e-6), 0, 255).astype(np.float32)
