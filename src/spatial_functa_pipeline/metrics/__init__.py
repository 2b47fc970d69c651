"""Numbers: PSNR; seams; Fréchet distance, KID, precision and recall of features; confusions; memorisation."""

from spatial_functa_pipeline.metrics.classification import class_accuracies, confusion_matrix, confusion_table
from spatial_functa_pipeline.metrics.comparison import SCORES, FeatureSet, bounds, compare
from spatial_functa_pipeline.metrics.features import (
    ConvNetFeatures,
    FeatureExtractor,
    FeatureNetwork,
    InceptionDownloadError,
    InceptionFeatures,
    metric_name,
)
from spatial_functa_pipeline.metrics.frechet import FeatureMoments, frechet_distance, frechet_estimate
from spatial_functa_pipeline.metrics.image_quality import (
    PatchPCA,
    mean_psnr,
    pca_psnr,
    per_image_mse,
    psnr,
    psnr_of_mean_mse,
)
from spatial_functa_pipeline.metrics.intervals import Estimate
from spatial_functa_pipeline.metrics.kid import kid_distance
from spatial_functa_pipeline.metrics.memorisation import distinct_draws, memorisation_table, share_nearer
from spatial_functa_pipeline.metrics.neighbours import Neighbours, comparable_images, nearest_images
from spatial_functa_pipeline.metrics.precision_recall import Manifold, manifold_scores
from spatial_functa_pipeline.metrics.seams import SeamSteps

__all__ = [
    "SCORES",
    "ConvNetFeatures",
    "Estimate",
    "FeatureExtractor",
    "FeatureMoments",
    "FeatureNetwork",
    "FeatureSet",
    "InceptionDownloadError",
    "InceptionFeatures",
    "Manifold",
    "Neighbours",
    "PatchPCA",
    "SeamSteps",
    "bounds",
    "class_accuracies",
    "comparable_images",
    "compare",
    "confusion_matrix",
    "confusion_table",
    "distinct_draws",
    "frechet_distance",
    "frechet_estimate",
    "kid_distance",
    "manifold_scores",
    "mean_psnr",
    "memorisation_table",
    "metric_name",
    "nearest_images",
    "pca_psnr",
    "per_image_mse",
    "psnr",
    "psnr_of_mean_mse",
    "share_nearer",
]
