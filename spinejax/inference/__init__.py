"""Trained runs applied to new images: restore, compile, predict, measure, export."""
