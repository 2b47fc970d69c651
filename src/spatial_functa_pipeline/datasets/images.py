"""Images in the Kedro catalog.

torchvision takes seconds to import and Fashion-MNIST does without it, so it is imported where it is used.
"""

from __future__ import annotations

import base64
import io
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, replace
from operator import index
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn

import numpy as np
from einops import rearrange
from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import ImagePreview
from PIL import Image

from spatial_functa_pipeline.images.clutter import ClutteredImages, ClutterProtocol
from spatial_functa_pipeline.images.decoders import read_idx
from spatial_functa_pipeline.images.images import Images

RowRange = Sequence[int | None] | None
ShareRange = Sequence[float] | None


class ImagesDataset(AbstractDataset[None, Images]):
    """What the image datasets share: a range of rows, being read-only, and a preview.

    `rows` is `[start, stop]`, half-open, with negative and open ends (`null`) as in a Python slice; null takes all.
    Unlike a slice, a range that leaves the data or is empty is an error. `share` says the range in parts of the whole:
    `[0.8, 0.9]` is a tenth of the images, however many there are.
    """

    def __init__(
        self, *, filepath: str, rows: RowRange = None, share: ShareRange = None, metadata: dict[str, Any] | None = None
    ) -> None:
        if rows is not None and len(rows) != 2:
            raise ValueError(f"rows is written as [start, stop], got {list(rows)}")
        if share is not None and (len(share) != 2 or not 0 <= share[0] < share[1] <= 1):
            raise ValueError(f"share is written as [start, stop] with 0 ≤ start < stop ≤ 1, got {list(share)}")
        if rows is not None and share is not None:
            raise ValueError(f"a range is given as rows or as share, not as both: {list(rows)}, {list(share)}")
        self._filepath = Path(filepath)
        self._rows = None if rows is None else [None if end is None else index(end) for end in rows]
        self._share = None if share is None else [float(end) for end in share]
        self.metadata = metadata

    @abstractmethod
    def fingerprint_config(self) -> dict[str, Any]:
        """What identifies the images, without the path: a project that was moved keeps its results."""

    def save(self, data: None) -> NoReturn:
        raise DatasetError(f"{type(self).__name__} is read-only")

    def preview(self, count: int = 40) -> ImagePreview:
        """The first `count` images in rows of ten, as a PNG for kedro-viz."""
        pixels = self._first_images(count)
        columns = min(10, len(pixels))
        whole_rows = pixels[: len(pixels) // columns * columns]
        grid = rearrange(whole_rows, "(row column) h w channels -> (row h) (column w) channels", column=columns)
        png = io.BytesIO()
        Image.fromarray(grid.squeeze(-1) if grid.shape[-1] == 1 else grid).save(png, format="PNG")
        return ImagePreview(base64.b64encode(png.getvalue()).decode())

    def _first_images(self, count: int) -> np.ndarray:
        if not self._exists():
            raise DatasetError(f"there are no images in {self._filepath} yet")
        images = self.load()
        return images.batch(range(min(count, len(images)))).numpy()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath, **self.fingerprint_config()}

    @property
    def _range(self) -> dict[str, Any]:
        """Of the fingerprint."""
        return {"rows": self._rows} if self._share is None else {"share": self._share}

    def _row_slice(self, available: int) -> slice:
        """The range `rows`, or `share`, of `available` rows. Raises DatasetError if it is not in them, or empty."""
        if self._share is not None:
            # Rounded up from a half: with one image fewer, each end moves by one row at most.
            first, last = (int(end * available + 0.5) for end in self._share)
            if first == last:
                raise DatasetError(f"share {self._share} of the {available} images in {self._filepath} is none of them")
            return slice(first, last)
        start, stop = self._rows or (None, None)
        first = 0 if start is None else start + available * (start < 0)
        last = available if stop is None else stop + available * (stop < 0)
        if not 0 <= first < last <= available:
            raise DatasetError(f"rows {self._rows} is not a range of the {available} images in {self._filepath}")
        return slice(first, last)


class PublishedDataset(ImagesDataset):
    """A data set published in a train and a test part, which torchvision can download to `filepath`."""

    def __init__(
        self,
        *,
        filepath: str,
        part: Literal["train", "test"],
        download: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(filepath=filepath, **common)
        if part not in ("train", "test"):
            raise ValueError(f"part must be train or test, got {part!r}")
        self._part = part
        self._download = download

    def _require_place_for_download(self) -> None:
        """Raises DatasetError if the folder is not there: outside of the project none is made, since it may be a slip."""
        if not self._filepath.is_dir() and not self._filepath.absolute().is_relative_to(Path.cwd()):
            raise DatasetError(
                f"the images are not in {self._filepath}, and there is no such folder to download them to: correct "
                "data_path (or filepath in the catalog), or make it"
            )

    def _no_download(self, name: str, error: Exception, instead: str) -> DatasetError:
        return DatasetError(
            f"{name} is not, or not whole, in {self._filepath}, and its download failed ({error}). Correct data_path (or "
            f"filepath in the catalog), or {instead}"
        )


class IDXDataset(PublishedDataset):
    """A data set in MNIST's files: 28×28 grey images, padded with zeros to 32×32.

    Reads the IDX files, gzipped or not, from `filepath` or from `filepath/<NAME>/raw`, where torchvision puts them if
    `download` is true.
    """

    NAME: ClassVar[str]  # torchvision's
    CLASSES: ClassVar[tuple[str, ...]]
    OTHER_SOURCES: ClassVar[str] = ""  # what may be done where there is no network, as the end of a sentence
    SIDE = 28  # pixels
    PADDING = 2  # pixels on each side: 32 is divided by every usual latent grid, 28 is not

    def load(self) -> Images:
        pixels, labels, _ = self._read()
        sides = (self.PADDING, self.PADDING)
        padded = np.pad(pixels, ((0, 0), sides, sides))
        return replace(Images.from_array(padded[..., None], labels, self.CLASSES), reopen=self.load)

    def _read(self) -> tuple[np.ndarray, np.ndarray, int]:
        """The chosen rows, uint8 (N, 28, 28), their labels (N,), and the number of the first in its part."""
        if self._download and not self._exists():
            self._require_place_for_download()
            from torchvision import datasets

            try:
                getattr(datasets, self.NAME)(self._filepath, download=True)
            except (RuntimeError, OSError) as error:
                raise self._no_download(self.NAME, error, f"put its files there{self.OTHER_SOURCES}") from error
        pixels, labels = read_idx(self._file("images")), read_idx(self._file("labels"))
        last = len(self.CLASSES) - 1
        if pixels.shape != (len(labels), self.SIDE, self.SIDE) or labels.ndim != 1 or labels.max(initial=0) > last:
            raise DatasetError(
                f"{self._file('images')} and {self._file('labels')} hold arrays of shapes {pixels.shape} and "
                f"{labels.shape}, not {self.NAME}'s (N, 28, 28) and labels 0–{last} (N,): replace both files"
            )
        selected = self._row_slice(len(labels))
        return pixels[selected], labels[selected], selected.start

    def fingerprint_config(self) -> dict[str, Any]:
        """What identifies the images, without the path."""
        return {"type": type(self).__name__, "part": self._part, **self._range, "padding": self.PADDING}

    def _exists(self) -> bool:
        return all(any(path.is_file() for path in self._candidates(kind)) for kind in ("images", "labels"))

    def _candidates(self, kind: Literal["images", "labels"]) -> list[Path]:
        prefix, dimensions = {"train": "train", "test": "t10k"}[self._part], {"images": 3, "labels": 1}[kind]
        name = f"{prefix}-{kind}-idx{dimensions}-ubyte"
        folders = (self._filepath, self._filepath / self.NAME / "raw")
        return [folder / (name + suffix) for folder in folders for suffix in ("", ".gz")]

    def _file(self, kind: Literal["images", "labels"]) -> Path:
        candidates = self._candidates(kind)
        if found := next(filter(Path.is_file, candidates), None):
            return found
        raise DatasetError(
            f"{self.NAME} needs {candidates[0].name} or {candidates[1].name} in {candidates[0].parent} or "
            f"{candidates[2].parent}, and neither is there. Correct data_path (or filepath in the catalog), or set "
            f"'download: true' there{self.OTHER_SOURCES}"
        )


class FashionMNISTDataset(IDXDataset):
    """Fashion-MNIST."""

    NAME = "FashionMNIST"
    CLASSES = (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )
    OTHER_SOURCES = (
        ", or install Debian's package dataset-fashion-mnist and set 'filepath: /usr/share/datasets/fashion-mnist'"
    )


class ClutteredFashionMNISTDataset(FashionMNISTDataset):
    """Garments, scaled and placed at random on a larger canvas, among pieces of other garments of the same range of rows.

    The protocol is that of cluttered MNIST (Mnih et al., 2014), on Fashion-MNIST; the sizes are ours. An image is made when a
    batch asks for it, and is the same each time: see `ClutteredImages`.
    """

    def __init__(
        self,
        *,
        resolution: Sequence[int],
        scale: Sequence[float],
        pieces: int,
        piece_size: int,
        clutter_seed: int = 0,
        **published: Any,
    ) -> None:
        super().__init__(**published)
        if len(resolution) != 2 or len(scale) != 2:
            raise ValueError(
                "resolution is written as [height, width] and scale as [smallest, largest], got "
                f"{list(resolution)} and {list(scale)}"
            )
        (height, width), (low, high) = map(index, resolution), map(float, scale)
        self._protocol = ClutterProtocol(
            (height, width), (low, high), index(pieces), index(piece_size), index(clutter_seed)
        )
        self._protocol.require_fitting(self.SIDE)

    def load(self) -> Images:
        garments, labels, first = self._read()
        if len(garments) == 1 and self._protocol.pieces:
            raise DatasetError(
                "a single image has no other to cut pieces from: choose more rows in the catalog, or set 'pieces: 0'"
            )
        return Images(
            read=ClutteredImages(garments, self._protocol, first),
            labels=np.asarray(labels, np.int64),
            classes=self.CLASSES,
            resolution=self._protocol.resolution,
            channels=1,
            reopen=self.load,
        )

    def fingerprint_config(self) -> dict[str, Any]:
        """What identifies the images, without the path."""
        return {"type": type(self).__name__, "part": self._part, **self._range, **asdict(self._protocol)}


class CIFAR10Dataset(PublishedDataset):
    """CIFAR-10: 32×32 colour images, as torchvision reads them from `filepath/cifar-10-batches-py`."""

    def load(self) -> Images:
        if self._download and not self._exists():
            self._require_place_for_download()
        from torchvision.datasets import CIFAR10

        try:
            data = CIFAR10(self._filepath, train=self._part == "train", download=self._download)
        except (RuntimeError, OSError) as error:
            unpack = f"unpack {CIFAR10.url} in {self._filepath}"
            if self._download:
                raise self._no_download("CIFAR-10", error, unpack) from error
            raise DatasetError(
                "CIFAR-10 needs the unchanged files data_batch_1 … data_batch_5, test_batch and batches.meta in "
                f"{self._filepath / CIFAR10.base_folder} ({error}). Correct data_path (or filepath in the "
                f"catalog), set 'download: true' there, or {unpack}"
            ) from error
        selected = self._row_slice(len(data.data))
        return replace(Images.from_array(data.data[selected], data.targets[selected], data.classes), reopen=self.load)

    def fingerprint_config(self) -> dict[str, Any]:
        """What identifies the images, without the path."""
        return {"type": type(self).__name__, "part": self._part, **self._range}

    def _exists(self) -> bool:
        from torchvision.datasets import CIFAR10

        names = [name for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list)] + [CIFAR10.meta["filename"]]
        return all((self._filepath / CIFAR10.base_folder / name).is_file() for name in names)
