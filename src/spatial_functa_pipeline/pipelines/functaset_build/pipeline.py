"""Images and field → functasets."""

from kedro.pipeline import Node, Pipeline

from .nodes import build_test_functaset, build_train_functaset, build_validation_functaset


def create_pipeline() -> Pipeline:
    """One node for each split."""
    builders = {
        "train": build_train_functaset,
        "validation": build_validation_functaset,
        "test": build_test_functaset,
    }
    parameters = ["params:functaset", "params:dataset", "params:seed", "params:runtime"]
    return Pipeline(
        [
            Node(
                build,
                inputs=[f"{split}_images", "field", *parameters],
                outputs=f"{split}_functaset",
                name=f"build_{split}_functaset",
            )
            for split, build in builders.items()
        ]
    )
