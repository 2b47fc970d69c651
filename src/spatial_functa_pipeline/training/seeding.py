"""Random numbers that derive from (seed, purpose, step), so that an interrupted run continues to the same result."""

import hashlib

import torch


def derive_seed(seed: int, *path: str | int) -> int:
    """A 63-bit seed for one purpose: `derive_seed(0, "diffusion", 1200)`. The same on every machine."""
    digest = hashlib.sha256("/".join(map(str, (seed, *path))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def step_generator(seed: int, *path: str | int) -> torch.Generator:
    """A CPU generator for one purpose and step."""
    return torch.Generator().manual_seed(derive_seed(seed, *path))
