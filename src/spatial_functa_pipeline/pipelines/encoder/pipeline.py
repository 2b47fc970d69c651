"""Images → what makes latents of them: the field, or what it is compared with."""

from kedro.pipeline import Node, Pipeline

from spatial_functa_pipeline.pipelines import meta_learning
from spatial_functa_pipeline.pipelines.encoder.nodes import choose_encoder, fit_linear_code, train_image_autoencoder


def create_pipeline() -> Pipeline:
    """A node for each kind, of which one has something to do; then the choice, which all that follows takes."""
    shapes = ["params:encoder", "params:latent_shape", "params:data"]
    others = Pipeline(
        [
            Node(fit_linear_code, inputs=["train_images", *shapes], outputs="linear_code", name="fit_linear_code"),
            Node(
                train_image_autoencoder,
                inputs=[
                    "train_images",
                    "validation_images",
                    "autoencoder_checkpoint",
                    "params:autoencoder",
                    *shapes,
                    "params:seed",
                    "params:runtime",
                ],
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
    return meta_learning.create_pipeline() + others
