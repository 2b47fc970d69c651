"""Classifiers and denoisers that work on latents."""
