"""Results for other programs: 3D Slicer, ITK-SNAP, nnU-Net, DICOM viewers and spreadsheets."""
from spinejax.handoff.cases import FORMATS, Case, require_formats, write_case, write_formats
from spinejax.handoff.masks import AXES, image_geometry

__all__ = ['AXES', 'FORMATS', 'Case', 'image_geometry', 'require_formats', 'write_case',
           'write_formats']
