"""Spine image segmentation for scoliosis in JAX."""
__version__ = '0.1.0'
