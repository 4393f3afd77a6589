"""mrigan: batch jobs that train classifiers of brain MRI on synthetic images. Each job is one module."""
