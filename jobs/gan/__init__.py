"""Image generators: networks, training, and image quality."""

IMAGE_SIZES = (32, 64, 128, 256)  # pixels: image sizes that a generator supports
