"""From masks to angles, with numpy and scipy only.

`measure_mask` measures a mask by its method. Every method is read as find (candidates on the
mask), pair, fit (a midline), curves and flags.
"""
from spinejax.measure.laminae import measure_lamina_volume, measure_laminae
from spinejax.measure.landmarks import measure_landmarks
from spinejax.measure.mask import METHODS, choose_method, default_classes, measure_mask
from spinejax.measure.results import AngleResult, Calibration, Curve, Level, Options
from spinejax.measure.spa import measure_spa
from spinejax.measure.vpi import measure_vpi
from spinejax.measure.xray import measure_xray

__all__ = [
    'METHODS', 'AngleResult', 'Calibration', 'Curve', 'Level', 'Options', 'choose_method',
    'default_classes', 'measure_lamina_volume', 'measure_laminae', 'measure_landmarks',
    'measure_mask', 'measure_spa', 'measure_vpi', 'measure_xray']
