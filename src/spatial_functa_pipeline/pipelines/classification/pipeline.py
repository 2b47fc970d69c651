"""Functasets → classifier."""

from kedro.pipeline import Node, Pipeline

from spatial_functa_pipeline.pipelines.classification.nodes import train_latent_classifier


def create_pipeline() -> Pipeline:
    """One node: the training."""
    return Pipeline(
        [
            Node(
                train_latent_classifier,
                inputs=[
                    "train_functaset",
                    "validation_functaset",
                    "latent_statistics",
                    "classifier_checkpoint",
                    "params:classification",
                    "params:seed",
                    "params:runtime",
                ],
                outputs=["classifier", "classifier_history"],
                name="train_latent_classifier",
                tags="classification",
            )
        ]
    )
