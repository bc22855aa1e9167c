"""From masks to angles, on numpy and scipy only."""

from spinejax.measure.vpi import measure_vpi
from spinejax.measure.xray import measure_xray

__all__ = ['measure_vpi', 'measure_xray']
