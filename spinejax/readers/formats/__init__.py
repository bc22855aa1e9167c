"""Formats of volume files: arrays and their place in space, as stored."""
