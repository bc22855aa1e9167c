"""A run to predict with."""
from tests.inference.made import image_run

__all__ = ['image_run']
