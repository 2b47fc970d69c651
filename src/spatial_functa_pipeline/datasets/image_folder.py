"""Folders of pictures in the Kedro catalog."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from kedro.io import DatasetError

from spatial_functa_pipeline.datasets.images import ImagesDataset
from spatial_functa_pipeline.images.checking import check_files
from spatial_functa_pipeline.images.decoders import SIXTEEN_BITS, ImageFiles, brightest_of_sixteen_bits
from spatial_functa_pipeline.images.folder import PictureFolder, is_picture, visible_files
from spatial_functa_pipeline.images.images import Images

logger = logging.getLogger(__name__)

_LOOKED_AT = 16
"""Files of a folder whose brightness is looked at."""


class ImageFolderDataset(ImagesDataset):
    """A folder of image files, decoded when a batch asks for them: ImageNet, CelebA-HQ, one's own.

    Each subfolder is a class; a folder without subfolders is the single class "all" (`PictureFolder`). Images are decoded to
    grey or colour (`decode_picture`), resized with an antialiasing Lanczos filter until the shorter side fits `resolution`
    (height, width), and cropped around the centre. Rows are those of the files in an order shuffled by `shuffle_seed`, so
    that training and validation sets can be cut from one folder, and any range of it is a fair sample. The order is kept
    when files come or go: one that goes moves others by one row at most.

    With `check`, a run begins by decoding all files of the folder once (`PreflightHooks`).
    """

    scans: ClassVar[dict[Path, PictureFolder] | None] = None
    """What is in each folder, within `one_walk`, since a walk through a million files takes minutes; None outside of it."""

    def __init__(
        self,
        *,
        filepath: str,
        resolution: Sequence[int],
        channels: Literal[1, 3] = 3,
        white: int = SIXTEEN_BITS,
        shuffle_seed: int = 0,
        check: bool = True,
        **common: Any,
    ) -> None:
        super().__init__(filepath=filepath, **common)
        if len(resolution) != 2 or min(resolution) < 1:
            raise ValueError(f"resolution is written as [height, width] in pixels, got {list(resolution)}")
        if channels not in (1, 3):
            raise ValueError(f"channels is 1 for grey or 3 for colour, got {channels}")
        if not 0 < white <= SIXTEEN_BITS:
            raise ValueError(
                f"white is the grey value of 16 bits that becomes white, from 1 to {SIXTEEN_BITS}, got {white}"
            )
        height, width = resolution
        self._resolution = (height, width)
        self._white = white
        self._channels = channels
        self._shuffle_seed = shuffle_seed
        self._check = check

    def load(self) -> Images:
        folder = self.scan()
        order = folder.shuffled(self._shuffle_seed)[self._row_slice(len(folder))]
        files = ImageFiles(folder.full_paths(order), self._resolution, self._channels, self._white)
        return Images(
            read=files,
            read_boxes=files.boxed,
            labels=folder.labels[order],
            classes=folder.classes,
            resolution=self._resolution,
            channels=self._channels,
            reopen=self.load,
        )

    @classmethod
    @contextmanager
    def one_walk(cls) -> Iterator[None]:
        """Within it, each folder is walked through once."""
        before, cls.scans = cls.scans, {}
        try:
            yield
        finally:
            cls.scans = before

    def scan(self) -> PictureFolder:
        """The pictures of the whole folder. Raises DatasetError if there is none."""
        if not self._exists():
            raise DatasetError(
                f"{self._filepath} is not a folder: correct data_path (or filepath in the catalog). Image folders are not "
                "downloaded: put the files there, either one subfolder per class or none (ImageNet: the ILSVRC2012 archives "
                "from https://image-net.org; CelebA-HQ: see https://github.com/tkarras/progressive_growing_of_gans)"
            )
        folder = self._scanned()
        if not len(folder):
            others = f"; there is {', '.join(folder.left_out)}" if folder.left_out else ""
            raise DatasetError(f"there are no pictures in {self._filepath}{others}")
        return folder

    def _scanned(self) -> PictureFolder:
        known = {} if self.scans is None else self.scans
        if (folder := known.get(self._filepath)) is None:
            folder = known[self._filepath] = PictureFolder.scan(self._filepath)
        return folder

    def look_through(self, record: Path, num_workers: int, progress: bool) -> None:
        """Warn of what is left out of the whole folder; decode all files, if they are to be checked: see `check_files`.

        Raises BrokenImagesError.
        """
        folder = self.scan()
        if folder.left_out:
            logger.warning("%s: left out %s", self.folder, ", ".join(folder.left_out))
        some = folder.full_paths(np.unique(np.linspace(0, len(folder) - 1, _LOOKED_AT).astype(np.int64)))
        brightest = brightest_of_sixteen_bits(some)
        if brightest is not None and brightest < self._white / 8:
            logger.warning(
                "%s: the brightest grey value of 16 bits, of %d files, is %d, and %d is white: the pictures are almost black. "
                "Set white: %d in the catalog's entries of the images",
                *(self.folder, len(some), brightest, self._white, brightest),
            )
        if self._check:
            check_files(folder.full_paths(), record, num_workers=num_workers, progress=progress)

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return self._filepath

    def fingerprint_config(self) -> dict[str, Any]:
        """What identifies the images: the path, and which files are there. What is in a file is not looked at."""
        return {**self._settings(), "files": self._scanned().summary if self._exists() else "none"}

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, **self._settings()}  # without a walk through the folder

    def _settings(self) -> dict[str, Any]:
        return {
            "type": type(self).__name__,
            "folder": str(self._filepath),
            "resolution": list(self._resolution),
            "channels": self._channels,
            **({} if self._white == SIXTEEN_BITS else {"white": self._white}),
            **self._range,
            "order": f"digests, seed {self._shuffle_seed}",
        }

    def _exists(self) -> bool:
        return self._filepath.is_dir()

    def _first_images(self, count: int) -> np.ndarray:
        # Whichever files the file system lists first: a preview must not scan the million files of ImageNet.
        files = filter(is_picture, visible_files(self._filepath))
        paths = np.array([os.fsencode(path) for path in islice(files, count)])
        if not len(paths):
            raise DatasetError(f"there are no pictures in {self._filepath}")
        return ImageFiles(paths, self._resolution, self._channels, self._white)(np.arange(len(paths)))
