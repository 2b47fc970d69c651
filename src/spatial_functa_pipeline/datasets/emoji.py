"""Colour emoji in the Kedro catalog."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
from kedro.io import DatasetError

from spatial_functa_pipeline.datasets.images import ImagesDataset
from spatial_functa_pipeline.images.emoji import EmojiDrawings, read_emoji
from spatial_functa_pipeline.images.images import Images

INSTALL = "apt-get install -y fonts-noto-color-emoji unicode-data"
"""What puts both files below /usr/share on Debian and its relatives."""


class EmojiDataset(ImagesDataset):
    """Noto's colour emoji, with the groups of Unicode's list as classes.

    The font and the list are where Debian's packages put them below `filepath`, which is then `/usr/share`, or in `filepath`
    itself. Drawings of one thing, as a man and a woman at one sport, are a *family* (`Emoji.family`): `rows`
    and `share` count families, shuffled by `shuffle_seed`, so that no family is on both sides of a split. Identical drawings
    are there once. Those in other skin colours are left out unless `skin_tones` asks for them: they are two thirds of all, and
    nearly all in one class.
    """

    FONT = ("fonts/truetype/noto/NotoColorEmoji.ttf", "NotoColorEmoji.ttf")
    LISTING = ("unicode/emoji/emoji-test.txt", "emoji-test.txt")

    def __init__(
        self,
        *,
        filepath: str,
        resolution: Sequence[int],
        skin_tones: bool = False,
        shuffle_seed: int = 0,
        **common: Any,
    ) -> None:
        super().__init__(filepath=filepath, **common)
        if len(resolution) != 2 or min(resolution) < 1:
            raise ValueError(f"resolution is written as [height, width] in pixels, got {list(resolution)}")
        height, width = map(index, resolution)
        self._resolution = (height, width)
        self._skin_tones = skin_tones
        self._shuffle_seed = shuffle_seed

    def load(self) -> Images:
        drawings = self._drawings()
        families = drawings.families(self._shuffle_seed)
        rows = drawings.shuffled(np.concatenate(families[self._row_slice(len(families))]), self._shuffle_seed)
        images = Images.from_array(drawings.pixels[rows], drawings.labels[rows], drawings.classes)
        return replace(images, reopen=self.load)

    def fingerprint_config(self) -> dict[str, Any]:
        """What identifies the images, without the path."""
        return {
            "type": type(self).__name__,
            "resolution": list(self._resolution),
            "skin_tones": self._skin_tones,
            **self._range,
            "order": f"families, digests, seed {self._shuffle_seed}",
            "files": self._drawings().digest if self._exists() else "none",
        }

    def _drawings(self) -> EmojiDrawings:
        font, listing = self._file(self.FONT), self._file(self.LISTING)
        return read_emoji(font, listing, self._resolution, skin_tones=self._skin_tones)

    def _exists(self) -> bool:
        return all(any(path.is_file() for path in self._candidates(names)) for names in (self.FONT, self.LISTING))

    def _candidates(self, names: Sequence[str]) -> list[Path]:
        return [self._filepath / name for name in names]

    def _file(self, names: Sequence[str]) -> Path:
        if found := next(filter(Path.is_file, self._candidates(names)), None):
            return found
        raise DatasetError(
            f"{names[-1]} is not in {self._filepath}, nor where Debian's packages put it below /usr/share. Install them, "
            f"`{INSTALL}`, with data_path /usr/share, or put NotoColorEmoji.ttf and emoji-test.txt into one folder and "
            "set data_path (or filepath in the catalog) to it"
        )
