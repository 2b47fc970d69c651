"""The base of all blocks of parameters, and the kinds of value that several of them have."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from spatial_functa_pipeline.fields.latent_shape import LatentShape

RESULT_NEUTRAL = frozenset({"micro_batch", "log_every", "checkpoint_every", "encode_batch", "retries", "num_classes"})
"""Keys that change no result beyond rounding: they enter no fingerprint, and a checkpoint made with others is continued.

`num_classes` is only compared with that of the images.
"""


def without_neutral(tree: Any) -> Any:
    """A block as plain values, without the keys at any depth that change no result."""
    if not isinstance(tree, dict):
        return tree
    return {key: without_neutral(value) for key, value in tree.items() if key not in RESULT_NEUTRAL}


Share = Annotated[float, Field(ge=0, lt=1)]

Switch = Annotated[Literal[True] | None, BeforeValidator(lambda value: value or None)]
"""True or null, for which false may be written. A default of null makes no output stale that was made without the key."""

NetworkPrecision = Literal["float32", "tf32", "bf16"]
"""Of the products and convolutions of a network beside the field; each where the device has them, else float32.

`float32`: exact. `tf32`: factors of 10 bits on CUDA. `bf16`: factors of 7 bits, by autocast. Sums and weights are float32.
"""

LatentShapeText = Annotated[LatentShape, BeforeValidator(LatentShape.parse), PlainSerializer(str)]


class Block(BaseModel):
    """Base of all blocks: immutable, and an unknown key is an error that lists the known ones."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    @model_validator(mode="before")
    @classmethod
    def _name_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, dict) and (unknown := sorted(set(data) - set(cls.model_fields), key=str)):
            raise ValueError(f"unknown key {', '.join(map(str, unknown))}; known keys: {', '.join(cls.model_fields)}")
        return data
