"""What runs have left on disk: the outputs of each variant, and which of them others still need."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

from spatial_functa_pipeline.config.places import IMAGES, PARAMETERS_FILE, Change
from spatial_functa_pipeline.datasets.fingerprint import RECORD_SUFFIX

_METRICS = "metrics.json"
_CHECKPOINTS = "checkpoints"
_LAYERS = ("05_model_input", "06_models", "07_model_output", "08_reporting")
_FRECHET = re.compile(r"(fid|frechet_distance_.+)_to_train")
_OUTDATED = re.compile(r"\.old(-\d+\.pt)?$")  # the name of a checkpoint that no training continues
_TEMPORARY = ".tmp"  # what a process that was killed was about to write: files.replace_durably


@dataclass(frozen=True)
class Output:
    """A file or folder that a node has made, or has left.

    Attributes:
        path: where it is.
        layer: the folder of `data/` that it is in.
        digest: of its contents, as its record has it; None if it has none.
        sources: the digests of everything that it was made from.
        leftover: whether nobody reads it any more: a record without its output, and what killed processes have left.
    """

    path: Path
    layer: str
    digest: str | None = None
    sources: frozenset[str] = frozenset()
    leftover: bool = False

    @property
    def unfinished(self) -> bool:
        """Whether a node may be at it still, and need what it is made from: a checkpoint, an output without a record."""
        return self.digest is None and not self.leftover

    @property
    def folder(self) -> Path:
        """The variant's folder that it lies in."""
        folder = self.path.parent
        return folder.parent if folder.name == _CHECKPOINTS else folder

    @cached_property
    def files(self) -> list[Path]:
        """All files of it."""
        return [file for file in self.path.rglob("*") if file.is_file()] if self.path.is_dir() else [self.path]

    @property
    def bytes(self) -> int:
        """Their size."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def changed(self) -> float:
        """Time of the last change, in seconds since 1970."""
        return max((file.stat().st_mtime for file in self.files), default=0.0)

    def remove(self) -> None:
        """Remove it, its record first: what is left of an interrupted removal counts as missing."""
        record_of(self.path).unlink(missing_ok=True)
        if self.path.is_dir():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)


@dataclass
class Variant:
    """The outputs that lie in folders of one name.

    Attributes:
        dataset: name of the data set.
        name: below that, as in `8x8x16-nearest/seed=1`.
        outputs: in all layers.
    """

    dataset: str
    name: str
    outputs: list[Output] = field(default_factory=list)

    @property
    def place(self) -> str:
        """Its folder in a layer, as in `cifar10/8x8x16-nearest/seed=1`."""
        return f"{self.dataset}/{self.name}"

    @cached_property
    def changes(self) -> frozenset[str]:
        """What was changed for it, each as in `seed=1`: as the list in its folders says, else as its name does."""
        for folder in {output.folder for output in self.outputs}:
            if (file := folder / PARAMETERS_FILE).exists():
                changed = json.loads(file.read_text())
                return frozenset(str(Change(key, value)) for key, value in changed.items())
        return frozenset(self.name.partition("/")[2].split(",")) - {""}

    def may_need(self, other: Variant) -> bool:
        """Whether its outputs may be made from those of the other: everything that was changed there was changed here."""
        here, there = (one.name.partition("/")[0] for one in (self, other))
        return other.dataset == self.dataset and there in (here, IMAGES) and other.changes <= self.changes

    @property
    def summary(self) -> str:
        """The names of what was encoded, trained and sampled, and how many reports there are, and things not finished."""
        finished = [one for one in self.outputs if one.digest is not None]
        made = sorted({one.path.name.partition(".")[0] for one in finished if one.layer != _LAYERS[-1]})
        words = [name for name in made if not name.endswith("_history")]
        words.append(f"{sum(one.layer == _LAYERS[-1] for one in finished)} reports")
        if unfinished := sum(one.unfinished for one in self.outputs):
            words.append(f"{unfinished} unfinished")
        if leftovers := sum(one.leftover for one in self.outputs):
            words.append(f"{leftovers} leftovers")
        return ", ".join(words)

    @property
    def bytes(self) -> int:
        """Size of all outputs."""
        return sum(output.bytes for output in self.outputs)

    @property
    def changed(self) -> float:
        """Time of the last change, in seconds since 1970."""
        return max((output.changed for output in self.outputs), default=0.0)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """All numbers that were measured of it."""
        found: dict[str, Any] = {}
        for output in self.outputs:
            if output.path.name.endswith(_METRICS) and output.digest is not None:
                found |= json.loads(output.path.read_text())
        return found

    @property
    def frechet_distance(self) -> tuple[str, float] | None:
        """Name and value of the Fréchet distance of its samples to the training images."""
        # Those of the reference points have longer names.
        name = min(filter(_FRECHET.fullmatch, self.metrics), key=len, default=None)
        return None if name is None else (name, self.metrics[name])


def record_of(path: Path) -> Path:
    """The record that lies beside an output."""
    return path.with_name(f".{path.name}{RECORD_SUFFIX}")


def find_variants(data: Path) -> list[Variant]:
    """All variants whose outputs are below the folder `data`, by name. Outputs in object stores are not looked for."""
    found: dict[tuple[str, str], Variant] = {}
    for layer in _LAYERS:
        for output in _outputs(data / layer):
            dataset, *below = output.folder.relative_to(data / layer).parts
            name = "/".join(below)
            found.setdefault((dataset, name), Variant(dataset, name)).outputs.append(output)
    return [found[key] for key in sorted(found)]


def _outputs(layer: Path) -> Iterator[Output]:
    for folder in sorted([*layer.glob("*/*"), *layer.glob("*/*/*")]):
        if not folder.is_dir() or folder.name == _CHECKPOINTS or _is_output(folder):
            continue
        paths = sorted([*folder.iterdir(), *folder.glob(f"{_CHECKPOINTS}/*")])
        outputs = [output for path in paths if (output := _output(path, layer.name))]
        if not outputs and (begun := folder / PARAMETERS_FILE).exists():
            outputs = [Output(begun, layer.name)]  # a node has begun there, and has written nothing yet
        yield from outputs


def _is_output(path: Path) -> bool:
    return path.is_file() or path.suffix == ".zarr" or record_of(path).exists()


def _output(path: Path, layer: str) -> Output | None:
    """What lies there, None if it is no output: a folder, the record of an output, or a file that no node has made."""
    if path.name.startswith("."):
        described = path.with_name(path.name.removeprefix(".").removesuffix(RECORD_SUFFIX))
        orphan = path.name.endswith(RECORD_SUFFIX) and not described.exists()
        return Output(path, layer, leftover=True) if orphan or path.suffix == _TEMPORARY else None
    if path.name == PARAMETERS_FILE or not _is_output(path):
        return None
    try:
        record = json.loads(record_of(path).read_text())
    except (FileNotFoundError, ValueError):  # a process was killed before it had written the record
        return Output(path, layer, leftover=bool(_OUTDATED.search(path.name)))
    return Output(path, layer, record.get("content"), frozenset(record.get("sources", {}).values()))


def matching(variants: Iterable[Variant], pattern: str) -> list[Variant]:
    """The variants for which `pattern` was changed, as `seed=1`, or whose `<dataset>/<name>` fits it: `*`, `?` and `[…]`."""
    return [one for one in variants if pattern in one.changes or fnmatch(one.place, pattern)]


def removable(chosen: Iterable[Variant], variants: Iterable[Variant]) -> tuple[list[Output], list[Output]]:
    """Of the outputs of the chosen variants those that no other variant needs, and those that one was made from or may need.

    What an unfinished output is made from is not known: it may be all that lies where a run with its parameters reads.
    """
    chosen = list(chosen)
    places = {variant.place for variant in chosen}
    others = [variant for variant in variants if variant.place not in places]
    used = {digest for variant in others for output in variant.outputs for digest in output.sources}
    under_way = [variant for variant in others if any(output.unfinished for output in variant.outputs)]
    unused: list[Output] = []
    needed: list[Output] = []
    for variant in chosen:
        may_be_needed = any(other.may_need(variant) for other in under_way)
        for output in variant.outputs:
            is_needed = output.digest in used or (may_be_needed and not output.leftover)
            (needed if is_needed else unused).append(output)
    return unused, needed


def remove(outputs: Iterable[Output]) -> None:
    """Remove outputs, and the folders in which no file is left but the list of their parameters."""
    for output in outputs:
        output.remove()
        folder = output.path.parent
        while folder.name not in _LAYERS and _is_bare(folder):
            if folder.exists():  # it may have gone with the output before
                shutil.rmtree(folder)
            folder = folder.parent


def _is_bare(folder: Path) -> bool:
    return all(file.is_dir() or file.name == PARAMETERS_FILE for file in folder.rglob("*"))
