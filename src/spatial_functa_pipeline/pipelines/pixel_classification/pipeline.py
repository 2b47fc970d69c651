"""The pixel baseline: images, in the rows of the functasets → classifier → its accuracy on the test set."""

from kedro.pipeline import Node, Pipeline

from spatial_functa_pipeline.pipelines.pixel_classification.nodes import (
    evaluate_pixel_classifier,
    train_pixel_classifier,
)


def create_pipeline() -> Pipeline:
    """Two nodes, as those of the classifier on latents: the training and the test. Every file is the baseline's own."""
    common = ["params:seed", "params:runtime"]
    return Pipeline(
        [
            Node(
                train_pixel_classifier,
                inputs=[
                    "train_functaset",
                    "validation_functaset",
                    "train_images",
                    "validation_images",
                    "pixel_classifier_checkpoint",
                    "params:classification",
                    "params:functaset",
                    *common,
                ],
                outputs=["pixel_classifier", "pixel_classifier_history"],
                name="train_pixel_classifier",
            ),
            Node(
                evaluate_pixel_classifier,
                inputs=[
                    "test_functaset",
                    "test_images",
                    "pixel_classifier",
                    "params:functaset",
                    *common,
                ],
                outputs=[
                    "pixel_classification_metrics",
                    "pixel_class_accuracies",
                    "pixel_confusion_matrix",
                    "pixel_confusion_figure",
                ],
                name="evaluate_pixel_classifier",
            ),
        ]
    )
