"""A trained run applied to new images: load, predict, tiles, volumes, style, export."""
