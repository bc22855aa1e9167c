"""Phantoms: images drawn by the computer with exact truth.

`vpi` draws ultrasound projection images, `volume` 3-D ultrasound volumes and `xray` X-rays.
Anatomy, tissue, noise and artifacts come from separate random streams, so a seed is the same
patient at every resolution and difficulty. A phantom is not clinical data.
"""
from spinejax.phantoms.curves import (
    FAMILIES, LEVELS, Curve, Family, Spine, curve_angles, level_positions, sample_curve)
from spinejax.phantoms.truth import mirror
from spinejax.phantoms.volumes import VolumeCase, VolumeTruth, localizer_dice, volume
from spinejax.phantoms.volumes.artifacts import envelope_speckle
from spinejax.phantoms.vpi_images import VpiCase, VpiTruth, vpi
from spinejax.phantoms.vpi_images.artifacts import Strengths, projection_speckle
from spinejax.phantoms.xrays import XrayCase, XrayTruth, xray

__all__ = [
    'FAMILIES', 'LEVELS', 'Curve', 'Family', 'Spine', 'Strengths', 'VolumeCase', 'VolumeTruth',
    'VpiCase', 'VpiTruth', 'XrayCase', 'XrayTruth', 'curve_angles', 'envelope_speckle',
    'level_positions', 'localizer_dice', 'mirror', 'projection_speckle', 'sample_curve',
    'volume', 'vpi', 'xray']
