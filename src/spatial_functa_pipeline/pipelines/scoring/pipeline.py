"""Samples → their scores, beside those of reference points."""

from kedro.pipeline import Node, Pipeline

from spatial_functa_pipeline.pipelines.scoring.nodes import (
    measure_real_images,
    measure_reference_points,
    score_samples,
    train_features,
)


def create_pipeline() -> Pipeline:
    """Part of `evaluation`: features of real images and reference points once, of samples each time; then the scores."""
    common = ["params:seed", "params:runtime"]
    return Pipeline(
        [
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
                    "validation_images",
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
                    "validation_images",
                    "test_images",
                    "test_functaset",
                    "encoder",
                    "latent_statistics",
                    "feature_network",
                    "params:evaluation.frechet",
                    "params:evaluation.scores",
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
                    "encoder",
                    "feature_network",
                    "real_features",
                    "reference_features",
                    "params:evaluation.frechet",
                    "params:evaluation.scores",
                    "params:evaluation.interval_resamples",
                    *common,
                ],
                outputs=["generation_metrics", "generation_scores", "generation_scores_figure"],
                name="score_samples",
            ),
        ]
    )
