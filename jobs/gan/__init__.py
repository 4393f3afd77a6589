"""Generators of images: networks, training, and how good the images are."""

IMAGE_SIZES = (32, 64, 128, 256)  # pixels: the sides that a generator can draw
