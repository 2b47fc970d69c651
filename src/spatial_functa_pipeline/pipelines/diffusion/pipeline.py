"""Functasets → denoiser."""

from kedro.pipeline import Node, Pipeline

from spatial_functa_pipeline.pipelines.diffusion.nodes import train_latent_denoiser


def create_pipeline() -> Pipeline:
    """One node: the training."""
    return Pipeline(
        [
            Node(
                train_latent_denoiser,
                inputs=[
                    "train_functaset",
                    "validation_functaset",
                    "latent_statistics",
                    "denoiser_checkpoint",
                    "params:diffusion",
                    "params:seed",
                    "params:runtime",
                ],
                outputs=["denoiser", "denoiser_history"],
                name="train_latent_denoiser",
            )
        ]
    )
