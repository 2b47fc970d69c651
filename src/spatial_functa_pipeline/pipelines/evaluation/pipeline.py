"""Everything → metrics, samples and figures."""

from kedro.pipeline import Node, Pipeline

from .nodes import (
    collect_metrics,
    draw_latent_channels,
    draw_training_curves,
    evaluate_classifier,
    evaluate_reconstructions,
    evaluate_samples,
    sample_latents,
    train_features,
)


def create_pipeline() -> Pipeline:
    """Reconstruction, classification and generation, each measured by its node; then one file of metrics."""
    common = ["params:seed", "params:runtime"]
    return Pipeline(
        [
            Node(
                evaluate_reconstructions,
                inputs=[
                    "train_images",
                    "test_images",
                    "test_functaset",
                    "field",
                    "params:evaluation.figure_images",
                    *common,
                ],
                outputs=["reconstruction_metrics", "reconstructions"],
                name="evaluate_reconstructions",
            ),
            Node(
                evaluate_classifier,
                inputs=["test_functaset", "classifier", *common],
                outputs="classification_metrics",
                name="evaluate_classifier",
            ),
            Node(
                sample_latents,
                inputs=[
                    "denoiser",
                    "train_functaset",
                    "params:evaluation.sampling",
                    "params:data",
                    "params:dataset",
                    *common,
                ],
                outputs="samples",
                name="sample_latents",
            ),
            Node(
                train_features,
                inputs=[
                    "train_images",
                    "validation_images",
                    "feature_network_checkpoint",
                    "params:evaluation.frechet",
                    *common,
                ],
                outputs=["feature_network", "feature_network_history"],
                name="train_feature_network",
            ),
            Node(
                evaluate_samples,
                inputs=[
                    "samples",
                    "train_images",
                    "test_images",
                    "test_functaset",
                    "field",
                    "feature_network",
                    "params:evaluation.sampling",
                    "params:evaluation.frechet",
                    *common,
                ],
                outputs=["generation_metrics", "samples_by_class"],
                name="evaluate_samples",
            ),
            Node(
                draw_training_curves,
                inputs=["field_history", "classifier_history", "denoiser_history"],
                outputs="training_curves",
                name="draw_training_curves",
            ),
            Node(
                draw_latent_channels, inputs="latent_statistics", outputs="latent_channels", name="draw_latent_channels"
            ),
            Node(
                collect_metrics,
                inputs=["reconstruction_metrics", "classification_metrics", "generation_metrics"],
                outputs="metrics",
                name="collect_metrics",
            ),
        ]
    )
