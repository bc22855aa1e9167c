"""Figures as SVG inside a page."""
import base64
import io
import re
from typing import Any

import matplotlib
import numpy as np
from markupsafe import escape
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from spinejax.report import style

_THEME = {style.INK: 'var(--ink)', style.MUTED: 'var(--muted)', style.RULE: 'var(--rule)'}


def embed(figure: Figure, prefix: str, description: str) -> Markup:
  """A figure as an <svg> element that follows the colors and fonts of the page.

  Images in the figure are stored without loss, see `shrink_png`.

  Args:
    figure: drawn with the colors of `style` where it should follow the page.
    prefix: put before every id; different for each figure of a page.
    description: what a screen reader says instead of the picture.
  """
  text = io.StringIO()
  settings: Any = {'svg.fonttype': 'none', 'svg.hashsalt': prefix, 'image.composite_image': False}
  with matplotlib.rc_context(settings):
    figure.savefig(text, format='svg', facecolor='none', metadata={'Date': None})
  svg = text.getvalue()
  svg = svg[svg.index('<svg'):]
  svg = re.sub(r'<metadata>.*?</metadata>|<style.*?</style>', '', svg, flags=re.DOTALL)
  svg = re.sub(r' xmlns(:\w+)?="[^"]*"| version="[^"]*"', '', svg)
  svg = re.sub(r' (width|height)="[\d.]+pt"', '', svg)
  svg = re.sub(r' font-family: [^;"]*;', '', svg)
  used = set(re.findall(r'(?:url\(|href=")#([^")]*)', svg))
  svg = re.sub(r' id="([^"]*)"',
               lambda found: f' id="{prefix}-{found[1]}"' if found[1] in used else '', svg)
  svg = re.sub(r'(url\(|href=")#', rf'\1#{prefix}-', svg)
  svg = re.sub(r'xlink:href', 'href', svg)
  svg = re.sub(r'(?<=data:image/png;base64,)[^"]*', lambda found: base64.b64encode(
      shrink_png(base64.b64decode(found[0]))).decode(), svg)
  svg = re.sub(r'(?<=[ML] )(-?[\d.]+) (-?[\d.]+) *\n',
               lambda point: f'{float(point[1]):.2f} {float(point[2]):.2f}\n', svg)
  for color, variable in _THEME.items():
    svg = svg.replace(color, variable)
  return Markup(svg.replace('<svg', f'<svg role="img" aria-label="{escape(description)}"', 1))


def shrink_png(data: bytes) -> bytes:
  """The same pixels as a smaller PNG: gray, a palette of up to 256 colors, or RGB if opaque."""
  image = Image.open(io.BytesIO(data)).convert('RGBA')
  if image.getchannel('A').getextrema() == (255, 255):
    image = image.convert('RGB')
    pixels = np.asarray(image).astype(np.int32)
    codes, indices = np.unique(pixels @ (1 << 16, 1 << 8, 1), return_inverse=True)
    if (pixels == pixels[..., :1]).all():
      image = image.convert('L')
    elif len(codes) <= 256:
      image = Image.fromarray(indices.reshape(pixels.shape[:2]).astype(np.uint8), mode='P')
      image.putpalette(np.stack([codes >> 16, codes >> 8 & 255, codes & 255], -1)
                       .astype(np.uint8).tobytes())
  out = io.BytesIO()
  image.save(out, format='PNG', optimize=True)
  return out.getvalue()
