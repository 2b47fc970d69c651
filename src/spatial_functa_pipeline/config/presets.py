"""`presets`: the paper's tables as rows, each of which sets parameters where others have certain values."""

from __future__ import annotations

from typing import Annotated, Any, cast, get_args

from omegaconf import DictConfig, OmegaConf
from pydantic import AfterValidator, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from spatial_functa_pipeline.config.block import Block
from spatial_functa_pipeline.config.tree import PipelineParameters


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


class Preset(Block):
    """One row: where all keys of `when` have the value, or one of the list of values, beside them, `set` holds.

    Keys are dotted (`diffusion.unet.dropout`); those of `set` may also name blocks, of which they set a part.
    """

    when: Annotated[dict[str, Any], AfterValidator(_can_hold)]
    set: Annotated[dict[str, Any], AfterValidator(_can_be_set)]


class Presets(Block):
    """All rows of a data set."""

    presets: list[Preset]


def _value(parameters: DictConfig, key: str) -> Any:
    """The value of a key that may be left at its default."""
    return OmegaConf.select(parameters, key, default=find_field(key).get_default(call_default_factory=True))


def apply_presets(parameters: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """`parameters` without their `presets`, but with what these set, row by row: a later row wins.

    Args:
        parameters: the whole tree as configuration files and command line have it.
        given: the part that the command line gave, nested as the tree is. It wins over all rows, and chooses them.

    Raises:
        pydantic.ValidationError: naming all rows whose `when` or `set` has an unknown key, or whose `when` never holds.
    """
    rows = Presets.model_validate({"presets": parameters.get("presets", [])}).presets
    tree = OmegaConf.create({key: value for key, value in parameters.items() if key != "presets"})
    for row in rows:
        if all(_value(tree, key) in _any_of(values) for key, values in row.when.items()):
            for key, value in row.set.items():
                OmegaConf.update(tree, key, value, merge=True)
            tree.merge_with(given)
    return cast(dict[str, Any], OmegaConf.to_container(tree))
