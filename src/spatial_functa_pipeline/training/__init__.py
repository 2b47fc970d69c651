"""One training loop for the field, the classifiers and the denoisers."""
