"""Images and encoder → functasets."""

from collections.abc import Callable

from kedro.pipeline import Node, Pipeline

from spatial_functa_pipeline.functasets.writing import FunctasetPlan
from spatial_functa_pipeline.pipelines import quantisation
from spatial_functa_pipeline.pipelines.functaset_build.nodes import (
    build_test_functaset,
    build_train_functaset,
    build_validation_functaset,
)

_STORE = [
    f"params:functaset.{name}"
    for name in ("shard_rows", "chunk_rows", "encode_batch", "storage_type", "mirror_held_out")
]


def create_pipeline() -> Pipeline:
    """Two nodes for each split: one encodes, and one quantises.

    Only the training images have augmented copies, which the encoding of others must not depend on.
    """
    train = ["params:functaset", "params:seed"]
    builders: dict[str, tuple[Callable[..., FunctasetPlan], list[str]]] = {
        "train": (build_train_functaset, train),
        "validation": (build_validation_functaset, _STORE),
        "test": (build_test_functaset, _STORE),
    }
    encoding = Pipeline(
        [
            Node(
                build,
                inputs=[f"{split}_images", "encoder", "params:dataset", "params:runtime", *parameters],
                outputs=f"encoded_{split}_functaset",
                name=f"build_{split}_functaset",
            )
            for split, (build, parameters) in builders.items()
        ]
    )
    return encoding + quantisation.create_pipeline()
