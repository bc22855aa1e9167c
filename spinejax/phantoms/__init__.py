"""Phantoms: images drawn by the computer with exact truth.

`vpi` draws ultrasound projection images, `volume` 3-D ultrasound volumes and `xray` X-rays.
Anatomy, tissue, noise and artifacts come from separate random streams, so a seed is the same
patient at every resolution and difficulty. A phantom is not clinical data.
"""
from spinejax.phantoms.curves import (
    FAMILIES, LEVELS, Curve, Family, Spine, curve_angles, level_positions, sample_curve)
from spinejax.phantoms.volumes import VolumeCase, mirror_volume, volume
from spinejax.phantoms.volumes.artifacts import envelope_speckle
from spinejax.phantoms.volumes.truth import VolumeTruth, localizer_dice
from spinejax.phantoms.vpi_images import VpiCase, mirror_vpi, vpi
from spinejax.phantoms.vpi_images.artifacts import projection_speckle
from spinejax.phantoms.vpi_images.truth import VpiTruth
from spinejax.phantoms.xrays import XrayCase, mirror_xray, xray
from spinejax.phantoms.xrays.truth import XrayTruth

__all__ = [
    'FAMILIES', 'LEVELS', 'Curve', 'Family', 'Spine', 'VolumeCase', 'VolumeTruth', 'VpiCase',
    'VpiTruth', 'XrayCase', 'XrayTruth', 'curve_angles', 'envelope_speckle', 'level_positions',
    'localizer_dice', 'mirror_volume', 'mirror_vpi', 'mirror_xray', 'projection_speckle',
    'sample_curve', 'volume', 'vpi', 'xray']
