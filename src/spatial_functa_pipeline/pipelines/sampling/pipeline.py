"""Denoiser → samples, and pictures of them."""

from kedro.pipeline import Node, Pipeline

from spatial_functa_pipeline.pipelines.sampling.nodes import draw_samples, sample_latents


def create_pipeline() -> Pipeline:
    """Part of `evaluation`: the samples that all the rest of it looks at."""
    return Pipeline(
        [
            Node(
                sample_latents,
                inputs=[
                    "denoiser",
                    "train_functaset",
                    "params:evaluation.sampling",
                    "params:dataset",
                    "params:seed",
                    "params:runtime",
                ],
                outputs="samples",
                name="sample_latents",
            ),
            Node(
                draw_samples,
                inputs=["samples", "test_images", "encoder", "params:evaluation.figure_images", "params:runtime"],
                outputs=["samples_by_class", "samples_enlarged"],
                name="draw_samples",
            ),
        ]
    )
