"""Functasets as they were encoded → functasets of b bits, or the same ones."""

from collections.abc import Callable

from kedro.pipeline import Node, Pipeline

from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.functasets.writing import FunctasetPlan
from spatial_functa_pipeline.pipelines.quantisation.nodes import quantise_other_functaset, quantise_train_functaset


def create_pipeline() -> Pipeline:
    """Part of `functaset_build`: one node for each split. All take the ranges of the training split."""
    quantisers: dict[str, tuple[Callable[..., FunctasetPlan | Functaset], list[str]]] = {
        "train": (quantise_train_functaset, ["params:functaset", "params:seed"]),
        "validation": (quantise_other_functaset, ["train_functaset"]),
        "test": (quantise_other_functaset, ["train_functaset"]),
    }
    return Pipeline(
        [
            Node(
                quantise,
                inputs=[
                    f"encoded_{split}_functaset",
                    f"{split}_images",
                    "encoder",
                    "params:quantisation",
                    "params:runtime",
                    *others,
                ],
                outputs=f"{split}_functaset",
                name=f"quantise_{split}_functaset",
            )
            for split, (quantise, others) in quantisers.items()
        ]
    )
