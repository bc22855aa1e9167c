"""Spine image segmentation for scoliosis in JAX."""
__version__ = '0.2.0'
