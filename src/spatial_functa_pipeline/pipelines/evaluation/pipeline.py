"""Everything → metrics, samples and figures."""

from kedro.pipeline import Node, Pipeline

from spatial_functa_pipeline.pipelines import analysis, sampling, scoring
from spatial_functa_pipeline.pipelines.classification.nodes import evaluate_classifier
from spatial_functa_pipeline.pipelines.evaluation.nodes import (
    assess_memorisation,
    collect_metrics,
    draw_training_curves,
    evaluate_reconstructions,
)


def create_pipeline() -> Pipeline:
    """Reconstruction, classification and generation, each measured by its node; then one file of metrics."""
    common = ["params:seed", "params:runtime"]
    own = Pipeline(
        [
            Node(
                evaluate_reconstructions,
                inputs=[
                    "train_images",
                    "test_images",
                    "test_functaset",
                    "encoder",
                    "params:evaluation.figure_images",
                    *common,
                ],
                outputs=["reconstruction_metrics", "reconstructions"],
                name="evaluate_reconstructions",
            ),
            Node(
                evaluate_classifier,
                inputs=["test_functaset", "test_images", "classifier", *common],
                outputs=["classification_metrics", "class_accuracies", "confusion_matrix", "confusion_figure"],
                name="evaluate_classifier",
                tags="classification",
            ),
            Node(
                assess_memorisation,
                inputs=[
                    "samples",
                    "train_images",
                    "test_images",
                    "test_functaset",
                    "encoder",
                    "params:evaluation.memorisation",
                    "params:evaluation.figure_images",
                    *common,
                ],
                outputs=["memorisation_metrics", "memorisation", "memorisation_figure", "nearest_training_images"],
                name="assess_memorisation",
            ),
            Node(
                draw_training_curves,
                inputs=["field_history", "autoencoder_history", "classifier_history", "denoiser_history"],
                outputs="training_curves",
                name="draw_training_curves",
            ),
            Node(
                collect_metrics,
                inputs=[
                    "reconstruction_metrics",
                    "classification_metrics",
                    "generation_metrics",
                    "memorisation_metrics",
                    "latent_metrics",
                    "perturbation_metrics",
                ],
                outputs="metrics",
                name="collect_metrics",
            ),
        ]
    )
    return own + sampling.create_pipeline() + scoring.create_pipeline() + analysis.create_pipeline()
