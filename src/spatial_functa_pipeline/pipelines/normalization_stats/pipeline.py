"""Training functaset → its statistics."""

from kedro.pipeline import Node, Pipeline

from spatial_functa_pipeline.pipelines.normalization_stats.nodes import compute_latent_statistics


def create_pipeline() -> Pipeline:
    """One node: the statistics."""
    return Pipeline(
        [
            Node(
                compute_latent_statistics,
                inputs=["train_functaset", "params:normalization_stats", "params:runtime"],
                outputs="latent_statistics",
                name="compute_latent_statistics",
            )
        ]
    )
