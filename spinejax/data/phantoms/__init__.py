"""Phantoms: cases drawn by the computer with exact truth. They are not clinical data."""

from spinejax.data.phantoms.curves import (
    FAMILIES, LEVELS, Curve, Family, Spine, curve_angles, extremes, level_positions, sample_curve)
from spinejax.data.phantoms.vpi import mirror, projection_speckle, vpi

__all__ = [
    'FAMILIES', 'LEVELS', 'Curve', 'Family', 'Spine', 'curve_angles', 'extremes',
    'level_positions', 'mirror', 'projection_speckle', 'sample_curve', 'vpi']
