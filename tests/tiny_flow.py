"""All pipelines on a few small images, node by node in this process, and what it means that two outputs are the same."""

import json
from collections.abc import Mapping
from functools import reduce
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import zarr
from kedro.pipeline.node import Node
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from spatial_functa_pipeline.config.places import flatten, nest
from spatial_functa_pipeline.config.tree import PipelineParameters
from spatial_functa_pipeline.digest import short_digest
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.functasets.writing import FunctasetPlan, write
from spatial_functa_pipeline.hooks.parameters import plain_value
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.models.weights import Weights
from spatial_functa_pipeline.pipeline_registry import all_pipelines
from spatial_functa_pipeline.training.checkpoint import Checkpoint

_PARAMETER = "params:"
_CHECKPOINT = "_checkpoint"


def parameters(tree: Mapping[str, Any], *changes: Mapping[str, Any]) -> PipelineParameters:
    """The tree with changes by dotted keys, the last one winning. Raises pydantic.ValidationError."""
    return PipelineParameters.model_validate(nest(reduce(_with, changes, dict(flatten(tree)))))


def _with(flat: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A block that is set as a whole, to null say, takes the place of what it held."""
    kept = {key: value for key, value in flat.items() if not any(key.startswith(f"{block}.") for block in changes)}
    return kept | dict(changes)


class TinyFlow:
    """Outputs of all pipelines; each is made once for all the parameters that agree in what it depends on.

    Args:
        folder: where functasets and checkpoints are.
        images: `train_images`, `validation_images`, `test_images`.
    """

    def __init__(self, folder: Path, images: Mapping[str, Images]) -> None:
        self.nodes = all_pipelines().nodes
        self._folder, self._images = folder, images
        self._makers = {name: node for node in self.nodes for name in node.outputs}
        self._made: dict[str, dict[str, Any]] = {}
        self._runs = 0

    def outputs(self, node: Node, tree: PipelineParameters) -> dict[str, Any]:
        """Of one node, where all parameters are those of `tree`."""
        key = self._made_from(node, tree)
        if key not in self._made:
            self._made[key] = self.run(node, tree, tree)
        return self._made[key]

    def run(self, node: Node, tree: PipelineParameters, before: PipelineParameters, **others: Any) -> dict[str, Any]:
        """Run one node with the parameters of `tree` on what those of `before` made, or on `others` by their names.

        It is run, whether or not it was before.
        """
        self._runs += 1
        folder = self._folder / f"{self._runs}-{node.name}"
        inputs = {name: others.get(name) or self._input(name, tree, before, folder) for name in node.inputs}
        return {name: _stored(made, folder / name) for name, made in node.run(inputs).items()}

    def takers(self, keys: frozenset[str]) -> list[Node]:
        """The nodes that are given a block with one of these parameters in it."""
        return [
            node
            for node in self.nodes
            if any(f"{key}.".startswith(f"{block}.") for key in keys for block in _blocks(node))
        ]

    def _input(self, name: str, tree: PipelineParameters, before: PipelineParameters, folder: Path) -> Any:
        if name.startswith(_PARAMETER):
            return attrgetter(name.removeprefix(_PARAMETER))(tree)
        if name.endswith(_CHECKPOINT):
            return Checkpoint(folder / f"{name}.pt")
        return self._images[name] if name in self._images else self.outputs(self._makers[name], before)[name]

    def _made_from(self, node: Node, tree: PipelineParameters) -> str:
        """Digest of the parameters of a node and of all nodes before it."""
        values = {block: plain_value(attrgetter(block)(tree)) for block in _blocks(node)}
        before = [self._made_from(self._makers[name], tree) for name in node.inputs if name in self._makers]
        return short_digest([json.dumps([node.name, values, before], sort_keys=True).encode()])


def _blocks(node: Node) -> list[str]:
    return [name.removeprefix(_PARAMETER) for name in node.inputs if name.startswith(_PARAMETER)]


def _stored(made: Any, path: Path) -> Any:
    """As the catalog keeps it, and gives it to the next node: a plan is carried out, a figure is drawn."""
    match made:
        case FunctasetPlan():
            write(path, made)
            return Functaset.open(path)
        case Figure():
            return _drawn(made)
    return made


class Content(NamedTuple):
    """Of an output, by names: what it is, how that is laid out on disk, and the words that are written beside it.

    The words repeat parameters, whether or not they were heeded: they alone show nothing.
    """

    values: dict[str, Any]
    layout: dict[str, Any]
    words: dict[str, Any]


def content(output: Any) -> Content:
    """Of any kind of output. Raises TypeError for one that is not known here."""
    match output:
        case Weights():
            return Content(output.tensors, {}, output.config)
        case Functaset():
            return _content_of_functaset(output)
        case pd.DataFrame():
            columns = output.drop(columns="seconds", errors="ignore")
            return Content({name: _column(values) for name, values in columns.items()}, {}, {})
        case np.ndarray():
            return Content({"picture": output}, {}, {})
        case dict():  # metrics
            bounds = {f"{name} interval": one for name, one in output.get("intervals", {}).items()}
            numbers = {name: value for name, value in output.items() if name not in ("details", "intervals")}
            return Content({**numbers, **bounds}, {}, output["details"])
    raise TypeError(f"what is a {type(output).__name__}?")


def difference(output: Any, other: Any, tolerance: float = 0.0) -> str | None:
    """`values`, `layout` or `words`: the first of them in which the outputs differ; None if they are the same.

    Each array may differ by `tolerance`, the norm of the difference relative to that of the array; weights, by that of all
    of them together: Adam moves each as far, even where its gradient is nothing but rounding.
    """
    pair = content(output), content(other)
    if tolerance and isinstance(output, Weights):
        pair = tuple(each._replace(values={"all": _joined(each.values)}) for each in pair)
    aspects = zip(Content._fields, *pair, strict=True)
    return next((aspect for aspect, part, others in aspects if not _same(part, others, tolerance)), None)


def _joined(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    if not tensors:  # of what was not trained
        return torch.zeros(0)
    return torch.cat([tensor.detach().flatten().double() for _, tensor in sorted(tensors.items())])


def _same(part: dict[str, Any], other: dict[str, Any], tolerance: float) -> bool:
    return part.keys() == other.keys() and all(_equal(part[name], other[name], tolerance) for name in part)


def _equal(value: Any, other: Any, tolerance: float) -> bool:
    if not isinstance(value, np.ndarray | torch.Tensor | float):
        return value == other
    value, other = np.asarray(value), np.asarray(other)
    if value.shape != other.shape or value.dtype != other.dtype:
        return False
    if not tolerance:
        return np.array_equal(value, other, equal_nan=value.dtype.kind == "f")
    finite = np.isfinite(other)
    if not np.array_equal(value[~finite], other[~finite], equal_nan=True):
        return False
    value, other = value[finite].astype(float), other[finite].astype(float)
    return bool(np.linalg.norm(value - other) <= tolerance * np.linalg.norm(other))


def _content_of_functaset(functaset: Functaset) -> Content:
    columns = ("labels", "source_index", "augmentation", "psnr")
    values = {name: getattr(functaset, name) for name in columns} | {"latents": functaset.rows(0, len(functaset))}
    group = zarr.open_group(functaset.location.store(read_only=True), mode="r")
    layout = {name: (array.dtype, array.chunks, array.shards) for name, array in group.arrays()}
    return Content(values, layout, functaset.header.to_attributes())


def _column(values: pd.Series) -> Any:
    return values.to_numpy() if pd.api.types.is_numeric_dtype(values) else values.map(repr).tolist()


def _drawn(figure: Figure) -> np.ndarray:
    """Its pixels: few of them, nowhere in particular, are enough to tell one figure from another."""
    figure.set_layout_engine("none")
    figure.set_dpi(40)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()).copy()
