"""Spatial functa (Bauer et al., 2023): images as neural fields with spatial latents, and learning on the latents."""

__version__ = "0.1.0"
