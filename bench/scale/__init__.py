"""How time and memory of the jobs grow with images, pixels, classes, folds, seeds and devices."""
