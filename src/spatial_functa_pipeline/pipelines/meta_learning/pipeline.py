"""Images → what makes latents of them: the field, or what it is compared with."""

from kedro.pipeline import Node, Pipeline

from spatial_functa_pipeline.pipelines.meta_learning.nodes import (
    choose_encoder,
    fit_linear_code,
    meta_learn_field,
    train_image_autoencoder,
)


def create_pipeline() -> Pipeline:
    """A node for each kind, of which one has something to do; then the choice, which all that follows takes."""
    images = ["train_images", "validation_images"]
    shapes = ["params:encoder", "params:latent_shape", "params:data"]
    common = ["params:seed", "params:runtime"]
    return Pipeline(
        [
            Node(
                meta_learn_field,
                inputs=[
                    *images,
                    "field_checkpoint",
                    "params:meta_learning",
                    "params:encoder",
                    "params:data",
                    *common,
                ],
                outputs=["field", "field_history"],
                name="meta_learn_field",
            ),
            Node(fit_linear_code, inputs=["train_images", *shapes], outputs="linear_code", name="fit_linear_code"),
            Node(
                train_image_autoencoder,
                inputs=[*images, "autoencoder_checkpoint", "params:autoencoder", *shapes, *common],
                outputs=["autoencoder", "autoencoder_history"],
                name="train_autoencoder",
            ),
            Node(
                choose_encoder,
                inputs=["field", "linear_code", "autoencoder", "params:encoder"],
                outputs="encoder",
                name="choose_encoder",
            ),
        ]
    )
