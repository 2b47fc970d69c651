"""Spatial functa (Bauer et al., 2023): images as neural fields with spatial latents, and learning on the latents."""

import os

__version__ = "0.1.0"

# Threads that wait for each other by spinning make a training several times slower as soon as another process wants a
# core. Spinning briefly, then sleeping, costs nothing on an idle machine. OpenMP reads this when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")
