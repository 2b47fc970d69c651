"""Everything → metrics, samples and figures."""

from kedro.pipeline import Node, Pipeline

from spatial_functa_pipeline.evaluation.generation import (
    assess_memorisation,
    draw_samples,
    measure_real_images,
    measure_reference_points,
    score_samples,
)
from spatial_functa_pipeline.pipelines.classification.nodes import evaluate_classifier
from spatial_functa_pipeline.pipelines.evaluation.nodes import (
    collect_metrics,
    draw_latent_channels,
    draw_training_curves,
    evaluate_reconstructions,
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
                inputs=["test_functaset", "test_images", "classifier", "params:functaset", *common],
                outputs=["classification_metrics", "class_accuracies", "confusion_matrix", "confusion_figure"],
                name="evaluate_classifier",
                tags="classification",
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
                measure_real_images,
                inputs=[
                    "train_images",
                    "test_images",
                    "feature_network",
                    "params:evaluation.frechet",
                    "params:evaluation.scores",
                    "params:runtime",
                ],
                outputs="real_features",
                name="measure_real_images",
            ),
            Node(
                measure_reference_points,
                inputs=[
                    "train_images",
                    "test_images",
                    "test_functaset",
                    "field",
                    "latent_statistics",
                    "feature_network",
                    "params:evaluation.frechet",
                    "params:evaluation.sampling.samples",
                    *common,
                ],
                outputs="reference_features",
                name="measure_reference_points",
            ),
            Node(
                score_samples,
                inputs=[
                    "samples",
                    "field",
                    "feature_network",
                    "real_features",
                    "reference_features",
                    "params:evaluation.frechet",
                    "params:evaluation.scores",
                    *common,
                ],
                outputs=["generation_metrics", "generation_scores", "generation_scores_figure"],
                name="score_samples",
            ),
            Node(
                assess_memorisation,
                inputs=[
                    "samples",
                    "train_images",
                    "test_images",
                    "test_functaset",
                    "field",
                    "params:evaluation.memorisation",
                    "params:evaluation.figure_images",
                    *common,
                ],
                outputs=["memorisation_metrics", "memorisation", "memorisation_figure", "nearest_training_images"],
                name="assess_memorisation",
            ),
            Node(
                draw_samples,
                inputs=["samples", "test_images", "field", "params:evaluation.figure_images", "params:runtime"],
                outputs=["samples_by_class", "samples_enlarged"],
                name="draw_samples",
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
                inputs=[
                    "reconstruction_metrics",
                    "classification_metrics",
                    "generation_metrics",
                    "memorisation_metrics",
                ],
                outputs="metrics",
                name="collect_metrics",
            ),
        ]
    )
