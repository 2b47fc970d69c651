"""Latents → how they are distributed, and what each of their numbers does."""

from kedro.pipeline import Node, Pipeline

from spatial_functa_pipeline.pipelines.analysis.nodes import (
    analyse_latents,
    analyse_perturbations,
    draw_latent_channels,
)


def create_pipeline() -> Pipeline:
    """Part of `evaluation`: what latents are like, whatever is modelled on them."""
    common = ["params:seed", "params:runtime"]
    return Pipeline(
        [
            Node(
                draw_latent_channels, inputs="latent_statistics", outputs="latent_channels", name="draw_latent_channels"
            ),
            Node(
                analyse_latents,
                inputs=["train_functaset", "latent_statistics", "params:evaluation.distribution_latents", *common],
                outputs=["latent_metrics", "latent_distribution", "latent_histograms"],
                name="analyse_latents",
            ),
            Node(
                analyse_perturbations,
                inputs=[
                    "test_functaset",
                    "encoder",
                    "latent_statistics",
                    "params:evaluation.perturbation",
                    "params:evaluation.figure_images",
                    *common,
                ],
                outputs=[
                    "perturbation_metrics",
                    "perturbations",
                    "perturbation_profile",
                    "perturbed_dimensions",
                    "perturbed_channel",
                    "perturbation_patterns",
                    "perturbation_strengths",
                    "perturbation_locality",
                ],
                name="analyse_perturbations",
            ),
        ]
    )
