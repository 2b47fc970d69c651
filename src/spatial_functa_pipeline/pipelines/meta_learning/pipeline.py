"""Images → field."""

from kedro.pipeline import Node, Pipeline

from spatial_functa_pipeline.pipelines.meta_learning.nodes import meta_learn_field


def create_pipeline() -> Pipeline:
    """Part of `encoder`: the meta-learning."""
    return Pipeline(
        [
            Node(
                meta_learn_field,
                inputs=[
                    "train_images",
                    "validation_images",
                    "field_checkpoint",
                    "params:meta_learning",
                    "params:encoder",
                    "params:data",
                    "params:seed",
                    "params:runtime",
                ],
                outputs=["field", "field_history"],
                name="meta_learn_field",
            )
        ]
    )
