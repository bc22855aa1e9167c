"""From masks to angles, on numpy and scipy only."""

from spinejax.measure.landmarks import measure_landmarks
from spinejax.measure.vpi import measure_vpi
from spinejax.measure.xray import measure_xray

__all__ = ['measure_landmarks', 'measure_vpi', 'measure_xray']
