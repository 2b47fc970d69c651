"""Where a run's outputs go: into folders named by what they depend on.

`<dataset>/<latent shape>-<interpolation>/` is the place of what the data set's own parameters make. What depends on a
parameter that a run has changed lies one folder below, named by that parameter and its value; what does not is shared.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, reduce
from typing import Any

from pydantic import ValidationError

from spatial_functa_pipeline.config.block import RESULT_NEUTRAL
from spatial_functa_pipeline.config.tree import PipelineParameters
from spatial_functa_pipeline.digest import short_digest

Tree = Mapping[str, Any]

IMAGES = "images"
"""Beside the variants: the folder of what depends on the images alone, and on no latent."""
PARAMETERS_FILE = "parameters.json"
"""In a folder that changed parameters name: all of them, with their values. A long name is cut short."""
NAMED_APART = ("dataset", "latent_shape", "interpolation")
"""Parameters that name the folders above."""
_NAME_NOTHING = ("data_path", "runtime")
_OF_THE_VARIANT = ("meta_learning", "latent_shape")
"""What depends on one of these blocks depends on the latent shape."""
_LONGEST = 120
"""Characters of a folder's name; file systems take 255 bytes, and some programs fewer."""


@dataclass(frozen=True)
class Change:
    """A parameter that a run has changed.

    Attributes:
        key: as in `diffusion.normalisation.gamma`.
        value: as JSON has it.
        affects: the keys whose values it changes: its own and those that follow from it, as a preset's row does.
    """

    key: str
    value: Any
    affects: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.key}={_in_words(self.value)}"


@dataclass(frozen=True)
class Places:
    """The folders of one run.

    Attributes:
        dataset: its name.
        variant: latent shape and interpolation, as in `8x8x16-nearest`.
        changes: what this run has changed, by name.
        folders: those that were asked for, and what names each.
    """

    dataset: str
    variant: str
    changes: tuple[Change, ...] = ()
    folders: dict[str, dict[str, Any]] = field(default_factory=dict, compare=False)

    @classmethod
    def of_run(cls, load: Callable[[Tree], Tree], given: Tree) -> Places:
        """The places of a run with the parameters `given` on the command line.

        `load` maps given parameters to all parameters. What would be the same without it, as a value that the data set's own
        files or a preset's row say already, changes nothing.
        """
        names = {name: value for name, value in given.items() if name in NAMED_APART}
        flat = {key: value for key, value in flatten(given) if may_name(key)}

        @cache
        def trees(keys: frozenset[str]) -> tuple[Tree, Tree | None]:
            """All parameters, were only these keys given: as they are written, and with all defaults."""
            written = load({**names, **nest({key: value for key, value in flat.items() if key in keys})})
            return written, _complete(written)

        def differences(keys: frozenset[str], others: frozenset[str]) -> frozenset[str]:
            (written, tree), (other_written, other) = trees(keys), trees(others)
            if tree is None or other is None:  # without a part of what is given the rest may be wrong
                return _differences(written, other_written)
            return _differences(tree, other)

        kept = frozenset(flat)
        for key in sorted(flat):
            if not differences(kept, kept - {key}):
                kept -= {key}
        affects = {key: differences(kept, kept - {key}) for key in sorted(kept)}
        # What follows from any one of several of them counts for each.
        rest = differences(kept, frozenset()).difference(*affects.values())
        written, complete = trees(kept)
        tree = complete or written
        changes = (Change(key, _get(tree, key), affects[key] | rest | {key}) for key in affects)
        return cls(str(tree["dataset"]), f"{tree['latent_shape']}-{tree['interpolation']}", tuple(changes))

    def of(self, *blocks: str) -> str:
        """The folder of an output that depends on these blocks of parameters, as in `"seed", "meta_learning.field"`.

        An argument may hold several blocks, joined by commas.
        """
        blocks = tuple(block.strip() for argument in blocks for block in argument.split(",") if block.strip())
        top = f"{self.dataset}/{IMAGES if not set(blocks) & set(_OF_THE_VARIANT) else self.variant}"
        changes = tuple(change for change in self.changes if any(_covers(blocks, key) for key in change.affects))
        if not changes:
            return top
        folder = f"{top}/{folder_of(changes)}"
        self.folders[folder] = {change.key: change.value for change in changes}
        return folder

    @property
    def name(self) -> str:
        """Data set, variant, and everything that the run has changed: the folder of what depends on all of it."""
        return "/".join([self.dataset, self.variant, *([folder_of(self.changes)] if self.changes else [])])


def flatten(tree: Tree, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`{"a": {"b": 1}}` → `("a.b", 1)`. An empty block is a value."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def nest(flat: Tree) -> dict[str, Any]:
    """The inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *blocks, last = key.split(".")
        reduce(lambda block, name: block.setdefault(name, {}), blocks, tree)[last] = value
    return tree


def may_name(key: str) -> bool:
    """Whether a parameter may be part of a folder's name: others name folders above, or change no result."""
    return key.split(".")[0] not in (*NAMED_APART, *_NAME_NOTHING) and key.split(".")[-1] not in RESULT_NEUTRAL


def _complete(tree: Tree) -> Tree | None:
    """The tree with all defaults, as plain values; None if it is not valid."""
    try:
        return PipelineParameters.model_validate(tree).model_dump(mode="json")
    except ValidationError:
        return None


def _differences(tree: Tree, other: Tree) -> frozenset[str]:
    """The keys of values that are not in both trees, or not equal."""
    flat, others = dict(flatten(tree)), dict(flatten(other))
    missing = object()
    keys = {*flat, *others}
    return frozenset(key for key in keys if flat.get(key, missing) != others.get(key, missing))


def _get(tree: Tree, key: str) -> Any:
    """The value at a key; None if there is none."""
    value: Any = tree
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _covers(blocks: tuple[str, ...], key: str) -> bool:
    """Whether a key is one of the blocks, or inside of one, or holds one."""
    return any(f"{key}.".startswith(f"{block}.") or f"{block}.".startswith(f"{key}.") for block in blocks)


def _in_words(value: Any) -> str:
    """A value as part of a folder's name. Different values have different names."""
    if isinstance(value, list | tuple) and value:
        return "x".join(map(_in_words, value))
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    if re.fullmatch(r"[\w.+-]+", text, re.ASCII):
        return text
    return f"{re.sub(r'[^A-Za-z0-9_.+-]+', '-', text).strip('-')[:20]}-{short_digest([text.encode()])[:8]}"


def folder_of(changes: Sequence[Change]) -> str:
    """The folder's name that says these changes; a long one ends in a digest of the whole."""
    name = ",".join(map(str, changes))
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 9]}-{short_digest([name.encode()])[:8]}"
