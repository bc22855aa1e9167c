"""Results for other programs: masks, markups, tables and DICOM segmentations.

`write_case` writes a case for 3D Slicer, ITK-SNAP, nnU-Net and DICOM viewers; `tables` writes the
angles of many cases for spreadsheets.
"""
from spinejax.handoff.cases import FORMATS, Case, require_formats, write_case, write_formats
from spinejax.handoff.places import AXES, image_geometry

__all__ = ['AXES', 'FORMATS', 'Case', 'image_geometry', 'require_formats', 'write_case',
           'write_formats']
