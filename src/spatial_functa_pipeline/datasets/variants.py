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

from spatial_functa_pipeline.config.places import IMAGES, PARAMETERS_FILE, Change
from spatial_functa_pipeline.datasets.fingerprint import RECORD_SUFFIX

_METRICS = "metrics.json"
_CHECKPOINTS = "checkpoints"
_LAYERS = ("05_model_input", "06_models", "07_model_output", "08_reporting")
_FRECHET = ("fid", "frechet_distance")


@dataclass(frozen=True)
class Output:
    """A file or folder that a node has made.

    Attributes:
        path: where it is.
        layer: the folder of `data/` that it is in.
        digest: of its contents, as its record has it; None for what is not finished: it has no record.
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

    @cached_property
    def changes(self) -> frozenset[str]:
        """The changed parameters that name it, as in `seed=1`."""
        folders = (output.path.parents[output.path.parent.name == _CHECKPOINTS] for output in self.outputs)
        for file in {folder / PARAMETERS_FILE for folder in folders}:
            if file.exists():
                return frozenset(str(Change(key, value)) for key, value in json.loads(file.read_text()).items())
        return frozenset(self.name.partition("/")[2].split(","))

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
    """What has a record, and what has none yet: checkpoints, functasets begun, files whose saving was cut short."""
    for folder in [*layer.glob("*/*"), *layer.glob("*/*/*")]:
        if folder.suffix == ".zarr" or folder.name == _CHECKPOINTS or not folder.is_dir():
            continue
        for path in sorted([*folder.iterdir(), *folder.glob(f"{_CHECKPOINTS}/*")]):
            if path.name.startswith(".") or path.name == PARAMETERS_FILE or (path.is_dir() and path.suffix != ".zarr"):
                continue
            try:
                record = json.loads(record_of(path).read_text())
            except (FileNotFoundError, ValueError):
                record = {}
            yield Output(path, layer.name, record.get("content"), frozenset(record.get("sources", {}).values()))


def matching(variants: Iterable[Variant], pattern: str) -> list[Variant]:
    """The variants that fit a pattern: with `*`, `?` and `[…]` for `<dataset>/<name>`, or a changed parameter, `seed=1`."""
    is_change = "=" in pattern and not set("*?[/") & set(pattern)
    return [
        variant
        for variant in variants
        if (pattern in variant.changes if is_change else fnmatch(f"{variant.dataset}/{variant.name}", pattern))
    ]


def removable(chosen: Iterable[Variant], variants: Iterable[Variant]) -> tuple[list[Output], list[Output]]:
    """Of the outputs of the chosen variants those that no other variant uses, and those that one does.

    Used is what another one was made from. What is not finished does not say what that is: it may use all of the variant
    that it changes, and all that depends on the images alone.
    """
    chosen = list(chosen)
    others = [variant for variant in variants if not any(variant is one for one in chosen)]
    used: set[str] = set().union(*(output.sources for variant in others for output in variant.outputs))
    begun = {
        (variant.dataset, name)
        for variant in others
        if any(output.digest is None for output in variant.outputs)
        for name in (variant.name.partition("/")[0], IMAGES)
    }
    kept: list[Output] = []
    unused: list[Output] = []
    for variant in chosen:
        pinned = (variant.dataset, variant.name) in begun
        for output in variant.outputs:
            (kept if pinned or output.digest in used else unused).append(output)
    return unused, kept


def remove(outputs: Iterable[Output]) -> None:
    """Remove outputs, and what is left of folders without any: lists of parameters, records, temporary files."""
    for output in outputs:
        output.remove()
        folder = output.path.parent
        while folder.name not in _LAYERS and all(file.is_dir() or _is_rest(file) for file in folder.rglob("*")):
            shutil.rmtree(folder)
            folder = folder.parent


def _is_rest(file: Path) -> bool:
    return file.name == PARAMETERS_FILE or (file.name.startswith(".") and file.suffix in (".tmp", ".json"))
