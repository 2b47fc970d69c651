"""Functasets (for the pixel baseline, and the images behind them) → classifier."""

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
                    "train_images",
                    "validation_images",
                    "classifier_checkpoint",
                    "params:classification",
                    "params:functaset",
                    "params:data",
                    "params:seed",
                    "params:runtime",
                ],
                outputs=["classifier", "classifier_history"],
                name="train_latent_classifier",
                tags="classification",
            )
        ]
    )
