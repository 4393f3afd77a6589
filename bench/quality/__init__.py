"""Measure the quality of synthetic images and of classifiers, for the tables in the documentation."""
