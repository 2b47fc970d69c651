"""Checkpoints: written to a temporary name and renamed, so that a crash never leaves half of one."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint file of one training. `identity` says what is trained; another identity is never continued."""

    path: Path

    def read(self, identity: dict[str, Any]) -> dict[str, Any] | None:
        """The saved state, or None if there is none or it belongs to a training with other parameters."""
        if not self.path.exists():
            return None
        saved = torch.load(self.path, map_location="cpu", weights_only=True)
        different = sorted(
            key for key in {*saved["identity"], *identity} if saved["identity"].get(key) != identity.get(key)
        )
        if different:
            kept = self.path.replace(self.path.with_suffix(".old"))
            logger.warning(
                "Checkpoint %s was made with another %s: starting anew; it is kept as %s",
                self.path.name,
                ", ".join(different),
                kept.name,
            )
            return None
        return saved["state"]

    def write(self, identity: dict[str, Any], state: dict[str, Any]) -> None:
        """Save `state` (tensors, numbers, strings and containers of them)."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        with open(temporary, "wb") as file:
            torch.save({"identity": identity, "state": state}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)

    def delete(self) -> None:
        """Remove the file once what it led to is safely stored."""
        self.path.unlink(missing_ok=True)
