"""Phantoms: cases drawn by the computer with exact truth. They are not clinical data."""

from spinejax.phantoms.curves import (
    FAMILIES, LEVELS, Curve, Family, Spine, curve_angles, extremes, level_positions, sample_curve)
from spinejax.phantoms.volume import envelope_speckle, localizer_dice, mirror_volume, volume
from spinejax.phantoms.vpi import mirror, projection_speckle, vpi
from spinejax.phantoms.xray import mirror_xray, xray

__all__ = [
    'FAMILIES', 'LEVELS', 'Curve', 'Family', 'Spine', 'curve_angles', 'envelope_speckle',
    'extremes', 'level_positions', 'localizer_dice', 'mirror', 'mirror_volume', 'mirror_xray',
    'projection_speckle', 'sample_curve', 'volume', 'vpi', 'xray']
