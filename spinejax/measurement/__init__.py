"""From masks to angles, with numpy and scipy only.

`measure_mask` measures a mask by its method. Every method is read as find (candidates on the
mask), pair, fit (a midline), curves and flags.
"""
from spinejax.measurement.laminae import measure_lamina_volume, measure_laminae
from spinejax.measurement.landmarks import measure_landmarks
from spinejax.measurement.mask import METHODS, choose_method, default_classes, measure_mask
from spinejax.measurement.results import AngleResult, Calibration, Curve, Level, Options
from spinejax.measurement.spa import measure_spa
from spinejax.measurement.vpi import measure_vpi
from spinejax.measurement.xray import measure_xray

__all__ = [
    'METHODS', 'AngleResult', 'Calibration', 'Curve', 'Level', 'Options', 'choose_method',
    'default_classes', 'measure_lamina_volume', 'measure_laminae', 'measure_landmarks',
    'measure_mask', 'measure_spa', 'measure_vpi', 'measure_xray']
