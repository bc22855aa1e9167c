"""Runs for all tests of the room."""
from tests.inference.made import image_run, volume_run

__all__ = ['image_run', 'volume_run']
