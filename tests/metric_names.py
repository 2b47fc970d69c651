"""The names that metrics have, by the entry of the catalog that holds them."""

from spatial_functa_pipeline.metrics.features import metric_name


def metric_names(features: str) -> dict[str, set[str]]:
    """All that a run can have with these features, `convnet` or `inception`."""
    scores = ("frechet_distance", "kid", "precision", "recall", "density", "coverage")
    points = [(images, real) for images in ("reconstructions", "pca_codes", "noise") for real in ("train", "test")]
    points += [("train_images", "test"), ("test_images", "train")]
    return {
        "reconstruction_metrics": {
            *("psnr", "psnr_of_mean_mse", "psnr_pca"),
            *("seam_ratio_test_images", "seam_ratio_reconstructions"),
        },
        "classification_metrics": {"top1_accuracy"},
        "generation_metrics": {
            *(metric_name(features, real, score) for score in scores for real in ("train", "test")),
            *(metric_name(features, real, images=images) for images, real in points),
            "seam_ratio_samples",
        },
        "memorisation_metrics": {
            *(f"nearest_train_distance{images}" for images in ("", "_test_images", "_reconstructions")),
            *(f"distinct_nearest_share{images}" for images in ("", "_test_images", "_reconstructions")),
            *(f"nearer_to_train_than_test{images}" for images in ("", "_reconstructions")),
            *(f"near_copies{images}" for images in ("", "_reconstructions")),
        },
        "latent_metrics": {"latent_kurtosis"},
        "perturbation_metrics": {
            *(f"perturbation_{name}" for name in ("pattern_correlation", "linear_r2", "energy_inside_cell", "area"))
        },
    }
