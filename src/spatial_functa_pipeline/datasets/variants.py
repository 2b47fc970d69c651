"""What runs have left on disk: the outputs of each variant, and which of them others still use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

from .fingerprint import RECORD_SUFFIX

_METRICS = "metrics.json"
_CHECKPOINTS = "checkpoints"
_LAYERS = ("05_model_input", "06_models", "07_model_output", "08_reporting")
_FRECHET = ("fid", "frechet_distance")
_LIST = "parameters.json"


@dataclass(frozen=True)
class Output:
    """A file or folder that a node has made.

    Attributes:
        path: where it is.
        layer: the folder of `data/` that it is in.
        digest: of its contents, as its record has it; None for what is not finished: checkpoints, and functasets begun.
        sources: the digests of everything that it was made from.
    """

    path: Path
    layer: str
    digest: str | None
    sources: frozenset[str]

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
    def summary(self) -> str:
        """The names of what was encoded, trained and sampled, and the number of reports."""
        made = sorted({one.path.name.partition(".")[0] for one in self.outputs if one.layer != _LAYERS[-1]})
        reports = sum(one.layer == _LAYERS[-1] for one in self.outputs)
        return ", ".join([*(name for name in made if not name.endswith("_history")), f"{reports} reports"])

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
            if output.path.name.endswith(_METRICS):
                found |= json.loads(output.path.read_text())
        return found

    @property
    def frechet_distance(self) -> tuple[str, float] | None:
        """Name and value of the Fréchet distance of its samples to the test images."""
        names = (name for name in self.metrics if name == _FRECHET[0] or name.startswith(f"{_FRECHET[1]}_"))
        name = min(names, key=len, default=None)
        return None if name is None else (name, self.metrics[name])


def record_of(path: Path) -> Path:
    """The record that lies beside an output."""
    return path.with_name(f".{path.name}{RECORD_SUFFIX}")


def find_variants(data: Path) -> list[Variant]:
    """All variants whose outputs are below the folder `data`, by name. Outputs in object stores are not looked for."""
    found: dict[tuple[str, str], Variant] = {}
    for layer in _LAYERS:
        for output in _outputs(data / layer):
            folder = output.path.parent if output.path.parent.name != _CHECKPOINTS else output.path.parents[1]
            dataset, *below = folder.relative_to(data / layer).parts
            name = "/".join(below)
            found.setdefault((dataset, name), Variant(dataset, name)).outputs.append(output)
    return [found[key] for key in sorted(found)]


def _outputs(layer: Path) -> Iterator[Output]:
    for folder in [*layer.glob("*/*"), *layer.glob("*/*/*")]:
        for record in sorted(folder.glob(f".*{RECORD_SUFFIX}")):
            path = record.with_name(record.name.removeprefix(".").removesuffix(RECORD_SUFFIX))
            if path.exists():
                content = json.loads(record.read_text())
                yield Output(path, layer.name, content.get("content"), frozenset(content.get("sources", {}).values()))
        unfinished = [path for path in folder.glob("*.zarr") if not record_of(path).exists()]
        for path in sorted([*unfinished, *folder.glob(f"{_CHECKPOINTS}/*")]):
            yield Output(path, layer.name, None, frozenset())


def matching(variants: Iterable[Variant], pattern: str) -> list[Variant]:
    """The variants whose `<dataset>/<name>` fits a pattern with `*`, `?` and `[…]`."""
    return [variant for variant in variants if fnmatch(f"{variant.dataset}/{variant.name}", pattern)]


def removable(chosen: Iterable[Variant], variants: Iterable[Variant]) -> tuple[list[Output], list[Output]]:
    """Of the outputs of the chosen variants those that no other variant was made from, and those that one was."""
    chosen = list(chosen)
    ours = {id(variant) for variant in chosen}
    used: set[str] = set()
    for variant in variants:
        if id(variant) not in ours:
            used = used.union(*(output.sources for output in variant.outputs))
    outputs = [output for variant in chosen for output in variant.outputs]
    return [one for one in outputs if one.digest not in used], [one for one in outputs if one.digest in used]


def remove(outputs: Iterable[Output]) -> None:
    """Remove outputs, and the folders in which no file is left but the list of their parameters."""
    for output in outputs:
        output.remove()
        folder = output.path.parent
        while folder.name not in _LAYERS and all(file.is_dir() or file.name == _LIST for file in folder.rglob("*")):
            shutil.rmtree(folder)
            folder = folder.parent
