"""Checkpoints: written so that a crash never leaves half of one, and continued only by the training that they are of."""

import logging
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch

from spatial_functa_pipeline.config.places import flatten
from spatial_functa_pipeline.digest import changes
from spatial_functa_pipeline.files import replace_durably

logger = logging.getLogger(__name__)

_MAY_CHANGE = {"images.count", "images.digest"}
"""Of what must agree: what the removal or the replacement of an image changes."""
_NAMED = 6
"""So many differences are named."""


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint file of one training.

    `must_agree`, of both its methods, is what must be the same for a checkpoint to be continued: data, parameters, seed. It
    may hold blocks. Its block `images` is as `describe_images` has it.
    """

    path: Path

    def read(self, must_agree: dict[str, Any]) -> dict[str, Any] | None:
        """The saved content, or None if there is none or it belongs to a training with other data or parameters.

        The latter is set aside, under a name of its own.
        """
        if not self.path.exists():
            return None
        saved = torch.load(self.path, map_location="cpu", weights_only=True)
        before = dict(flatten(saved.get("must_agree", {})))  # a file of an older version agrees in nothing
        now = dict(flatten(must_agree))
        different = changes(before, now)
        if saved.get("unreadable_image") and different and different.keys() <= _MAY_CHANGE:
            counts = " → ".join(f"{count:,}" for count in dict.fromkeys([before["images.count"], now["images.count"]]))
            logger.warning(
                "%s: the images have changed: %s; going on, since there was one that could not be decoded",
                *(self.path.name, counts),
            )
        elif different:
            self._set_aside(list(different.values()))
            return None
        return saved["state"]

    def write(self, must_agree: dict[str, Any], state: dict[str, Any], *, unreadable_image: bool = False) -> None:
        """Save `state` (tensors, numbers, strings and containers of them).

        `unreadable_image`: whether the training stops at an image that cannot be decoded. Whoever continues it may then
        have removed or replaced images.
        """
        with replace_durably(self.path) as temporary:
            content = {"must_agree": must_agree, "state": state, "unreadable_image": unreadable_image}
            torch.save(content, temporary)

    def allow_other_images(self) -> None:
        """Let a training go on from it after images have been removed or replaced, as `write` with `unreadable_image` does.

        For images that are found to be broken before the training meets them. Without a checkpoint there is nothing to do.
        """
        if not self.path.exists():
            return
        saved = torch.load(self.path, map_location="cpu", weights_only=True)
        if not saved.get("unreadable_image"):
            with replace_durably(self.path) as temporary:
                torch.save(saved | {"unreadable_image": True}, temporary)

    def delete(self) -> None:
        """Remove the file once what it led to is safely stored."""
        self.path.unlink(missing_ok=True)

    def _set_aside(self, different: list[str]) -> None:
        names = (self.path.with_suffix(f".old-{number}{self.path.suffix}") for number in count(1))
        kept = self.path.replace(next(name for name in names if not name.exists()))
        more = f" and {len(different) - _NAMED} more" if len(different) > _NAMED else ""
        logger.warning(
            "Checkpoint %s is of another training (%s%s): starting anew; it is kept as %s",
            *(self.path.name, "; ".join(different[:_NAMED]), more, kept.name),
        )
