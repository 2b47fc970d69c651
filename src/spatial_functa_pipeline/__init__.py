"""Spatial functa (Bauer et al., 2023): images as neural fields with spatial latents, and learning on the latents."""

import os

__version__ = "0.1.0"

# Threads that wait for each other by spinning make a training several times slower as soon as another process wants a
# core; sleeping costs next to nothing on an idle machine. OpenMP reads this when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
