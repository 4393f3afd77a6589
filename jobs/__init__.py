"""mrigan: batch jobs that teach classifiers of brain MRI from synthetic images. One module, one job."""
