"""`presets`: the paper's tables as rows, each of which sets parameters where others have certain values.

Rows of `printed` set nothing: they say which values are the paper's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, cast, get_args

from omegaconf import DictConfig, OmegaConf
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from spatial_functa_pipeline.config.block import Block
from spatial_functa_pipeline.config.tree import PipelineParameters

ROW_NAMES = (("recipe", "as_printed"), ("classification.preset", "vit_b"))
"""Keys, each with a value that does nothing but choose rows: without a row for it, it would be ignored."""


class NoPresetError(ValueError):
    """A data set has no row for a value that does nothing but choose one."""

    def __init__(self, key: str, value: str, environments: Iterable[str]) -> None:
        super().__init__(key, value)
        self.key, self.value, self.environments = key, value, tuple(environments)

    def __str__(self) -> str:
        return (
            f"{self.key} is {self.value}, but this data set has no row of presets for it; those that have one: "
            + ", ".join(self.environments)
        )


def block_in(annotation: Any) -> type[Block] | None:
    """The block that a key holds, if it holds one: `GuardConfig` of `GuardConfig | None`."""
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Block)), None)


def find_field(key: str) -> FieldInfo:
    """What is known of a dotted key. Raises ValueError, with the keys that there are, if there is none of this name."""
    block: type[Block] | None = PipelineParameters
    for part in key.split("."):
        if block is None:
            raise ValueError(f"unknown key {key}: what stands before {part} has no keys")
        if part not in block.model_fields:
            raise ValueError(f"unknown key {key}; known in the place of {part}: {', '.join(block.model_fields)}")
        field = block.model_fields[part]
        block = block_in(field.annotation)
    return field


def _any_of(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values]


def _can_hold(when: dict[str, Any]) -> dict[str, Any]:
    for key, values in when.items():
        field = find_field(key)
        bounded: Any = Annotated[field.annotation, field]
        allowed: TypeAdapter[Any] = TypeAdapter(bounded)
        for value in _any_of(values):
            try:
                allowed.validate_python(value)
            except ValidationError as error:
                reason = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise ValueError(f"{key} can never be {value!r}: {reason}") from None
    return when


def _can_be_set(values: dict[str, Any], block: str = "") -> dict[str, Any]:
    for key, value in values.items():
        place = f"{block}{key}"
        if block_in(find_field(place).annotation) and isinstance(value, dict):
            _can_be_set(value, f"{place}.")
    return values


def _are_known(blocks: dict[str, list[str]]) -> dict[str, list[str]]:
    for block, keys in blocks.items():
        for key in keys:
            find_field(f"{block}.{key}")
    return blocks


class Preset(Block):
    """One row: where all keys of `when` have the value, or one of the list of values, beside them, `set` holds.

    Keys are dotted (`diffusion.unet.dropout`); those of `set` may also name blocks, of which they set a part.
    """

    when: Annotated[dict[str, Any], AfterValidator(_can_hold)]
    set: Annotated[dict[str, Any], AfterValidator(_can_be_set)]


class Printed(Block):
    """One row: where `when` holds, as in a preset, the paper prints the values of these keys, whoever sets them."""

    when: Annotated[dict[str, Any], AfterValidator(_can_hold)]
    keys: Annotated[dict[str, list[str]], AfterValidator(_are_known)] = Field(description="by block")


class Rows(Block):
    """All rows of a data set."""

    presets: tuple[Preset, ...] = ()
    printed: tuple[Printed, ...] = ()


def _value(parameters: DictConfig, key: str) -> Any:
    """The value of a key that may be left at its default."""
    return OmegaConf.select(parameters, key, default=find_field(key).get_default(call_default_factory=True))


def _holds(when: dict[str, Any], tree: DictConfig) -> bool:
    return all(_value(tree, key) in _any_of(values) for key, values in when.items())


def _rows(parameters: dict[str, Any]) -> Rows:
    return Rows.model_validate({name: parameters[name] for name in Rows.model_fields if name in parameters})


def apply_presets(parameters: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """`parameters` without any rows, but with what those of `presets` set, row by row: a later row wins.

    Args:
        parameters: the whole tree as configuration files and command line have it.
        given: the part that the command line gave, nested as the tree is. It wins over all rows, and chooses them.

    Raises:
        pydantic.ValidationError: naming all rows whose `when`, `set` or `keys` has an unknown key, or whose `when` never holds.
    """
    rows = _rows(parameters)
    tree = OmegaConf.create({key: value for key, value in parameters.items() if key not in Rows.model_fields})
    for row in rows.presets:
        if _holds(row.when, tree):
            for key, value in row.set.items():
                OmegaConf.update(tree, key, value, merge=True)
            tree.merge_with(given)
    return cast(dict[str, Any], OmegaConf.to_container(tree))


def printed_keys(parameters: dict[str, Any], given: dict[str, Any]) -> frozenset[str]:
    """Those, keys and blocks, whose values the paper prints, by the rows of `printed`. See `apply_presets`."""
    tree = OmegaConf.create(apply_presets(parameters, given))
    rows = [row for row in _rows(parameters).printed if _holds(row.when, tree)]
    return frozenset(f"{block}.{key}" for row in rows for block, keys in row.keys.items() for key in keys)


def has_row(parameters: dict[str, Any], key: str, value: str) -> bool:
    """Whether these parameters have a preset for this value of a key. Raises as `apply_presets` does."""
    return any(value in _any_of(row.when[key]) for row in _rows(parameters).presets if key in row.when)


def missing_row(parameters: dict[str, Any], applied: dict[str, Any]) -> tuple[str, str] | None:
    """The first of `ROW_NAMES` that `parameters` have no row for, though it is asked for.

    `applied`: what `apply_presets` makes of them.
    """
    tree = OmegaConf.create(applied)
    asked = (pair for pair in ROW_NAMES if OmegaConf.select(tree, pair[0]) == pair[1])
    return next((pair for pair in asked if not has_row(parameters, *pair)), None)
