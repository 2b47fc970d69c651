"""Checkpoints: written so that a crash never leaves half of one, and continued only by the training that they are of."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spatial_functa_pipeline.files import replace_durably

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint file of one training.

    `must_agree`, of both its methods, is what must be the same for a checkpoint to be continued: data, parameters, seed.
    """

    path: Path

    def read(self, must_agree: dict[str, Any]) -> dict[str, Any] | None:
        """The saved content, or None if there is none or it belongs to a training with other data or parameters."""
        if not self.path.exists():
            return None
        saved = torch.load(self.path, map_location="cpu", weights_only=True)
        before = saved.get("must_agree", {})  # a file of an older version agrees in nothing
        different = sorted(key for key in {*before, *must_agree} if before.get(key) != must_agree.get(key))
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

    def write(self, must_agree: dict[str, Any], state: dict[str, Any]) -> None:
        """Save `state` (tensors, numbers, strings and containers of them)."""
        with replace_durably(self.path) as temporary:
            torch.save({"must_agree": must_agree, "state": state}, temporary)

    def delete(self) -> None:
        """Remove the file once what it led to is safely stored."""
        self.path.unlink(missing_ok=True)
