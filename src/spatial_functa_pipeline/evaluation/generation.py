"""Nodes of `evaluation` that judge what was generated: scores beside their reference points, and memorisation."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from spatial_functa_pipeline.compute import resolve_device
from spatial_functa_pipeline.config.evaluation import FrechetConfig, MemorisationConfig, ScoresConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.evaluation.decoding import (
    BATCH,
    PCA_IMAGES,
    Metrics,
    classes_of,
    decoded,
    image_batches,
    pca_patch,
)
from spatial_functa_pipeline.evaluation.figures import resolution_figure, sample_figure, samples_to_draw
from spatial_functa_pipeline.evaluation.generation_figures import memorisation_figure, neighbour_figure, score_figure
from spatial_functa_pipeline.fields.field import SpatialField
from spatial_functa_pipeline.functasets.statistics import LatentStatistics
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.images.images import Images
from spatial_functa_pipeline.metrics.comparison import SCORES, FeatureSet, compare
from spatial_functa_pipeline.metrics.features import (
    ConvNetFeatures,
    FeatureExtractor,
    InceptionFeatures,
    extract_features,
    metric_name,
)
from spatial_functa_pipeline.metrics.image_quality import PatchPCA
from spatial_functa_pipeline.metrics.memorisation import EVERY_CLASS, memorisation_table
from spatial_functa_pipeline.metrics.neighbours import Neighbours, comparable_images, nearest_images
from spatial_functa_pipeline.models.weights import Weights, unpack_feature_network, unpack_field
from spatial_functa_pipeline.training.seeding import step_generator

SAMPLES = "samples"
_ENLARGEMENT = 4
_SETTINGS = ("sampler", "steps", "guidance_scale", "guidance_interval", "network_evaluations", "classes")
"""Of those that are stored with the samples, what stands beside each score."""


def measure_real_images(
    train_images: Images,
    test_images: Images,
    feature_network: Weights,
    config: FrechetConfig,
    scores: ScoresConfig,
    runtime: RuntimeConfig,
) -> Weights:
    """Features of the real images, `train (N, F)` and `test (M, F)`: what every evaluation of samples needs again."""
    extractor = _extractor(config, feature_network, resolve_device(runtime.device))
    sets = {"train": train_images, "test": test_images}
    limit = scores.reference_images
    features = {
        name: extract_features(
            extractor, image_batches(images, len(images) if limit is None else min(limit, len(images)))
        )
        for name, images in sets.items()
    }
    return Weights(features, {"features": extractor.name})


def measure_reference_points(
    train_images: Images,
    test_images: Images,
    test_functaset: Functaset,
    field: Weights,
    latent_statistics: Weights,
    feature_network: Weights,
    config: FrechetConfig,
    samples: int,
    seed: int,
    runtime: RuntimeConfig,
) -> Weights:
    """Features of what samples should be compared with, each `(≤ samples, F)`.

    `reconstructions`: of the test images, what the field alone costs. `pca_codes`: the test images from linear codes with as
    many numbers (`PatchPCA`; left out where patches are too large for it). `noise`: decoded Gaussian noise with the mean
    and standard deviation of each number of the training latents, what a denoiser starts from.
    """
    device = resolve_device(runtime.device)
    decoder = unpack_field(field, device)
    extractor = _extractor(config, feature_network, device)
    sets = {"reconstructions": decoded(test_functaset, decoder, samples)}
    if (patch := pca_patch(decoder.spec)) is not None:
        sides, components = patch
        code = PatchPCA(train_images.batch(range(min(PCA_IMAGES, len(train_images)))), sides, components)
        tests = image_batches(test_images, min(samples, len(test_images)))
        sets["pca_codes"] = (code.reconstruct(images) for images in tests)
    sets["noise"] = _decoded_noise(latent_statistics, decoder, samples, seed)
    return Weights(
        {name: extract_features(extractor, images) for name, images in sets.items()}, {"features": extractor.name}
    )


def score_samples(
    samples: Functaset,
    field: Weights,
    feature_network: Weights,
    real_features: Weights,
    reference_features: Weights,
    config: FrechetConfig,
    scores: ScoresConfig,
    seed: int,
    runtime: RuntimeConfig,
) -> tuple[Metrics, pd.DataFrame, Figure]:
    """All scores of the decoded samples and of the reference points, against the test and the training images.

    The metrics are those of the samples against both, and the Fréchet distances of the reference points to the test
    images. The table has every score of every set, with N, seed, sampler, guidance and class sampling beside each; the figure
    draws it. Each set has at most as many images as there are samples: the Fréchet distance depends on their number.
    """
    device = resolve_device(runtime.device)
    extractor = _extractor(config, feature_network, device)
    images = decoded(samples, unpack_field(field, device))
    generated = {SAMPLES: extract_features(extractor, images), **reference_features.tensors}
    # Equal numbers of each set, as far as there are: coverage and recall depend on them.
    pairs = min(scores.pair_images, len(samples))
    real = {name: FeatureSet(real_features.tensors[name], pairs) for name in ("test", "train")}
    weights = extractor.weights_sha256 if isinstance(extractor, InceptionFeatures) else None
    settings = {name: samples.header.settings.get(name) for name in _SETTINGS}
    subjects = {name: FeatureSet(features, pairs) for name, features in generated.items()}
    real_subjects = {f"{name}_images": FeatureSet(real[name].features[: len(samples)], pairs) for name in real}
    rows = []
    for against, reference in real.items():
        other = "train_images" if against == "test" else "test_images"
        for name, subject in {**subjects, other: real_subjects[other]}.items():
            rows.append(
                {
                    "images": name,
                    "against": against,
                    "features": extractor.name,
                    **compare(subject, reference),
                    "count": len(subject),
                    "count_against": len(reference),
                    "count_pairs": len(subject.paired),
                    "count_pairs_against": len(reference.paired),
                    "seed": seed,
                    **(settings if name == SAMPLES else dict.fromkeys(settings)),
                    "feature_weights_sha256": weights,
                }
            )
    table = pd.DataFrame(rows)
    return _generation_metrics(table, extractor.name, _in_words(settings), weights), table, score_figure(table)


def assess_memorisation(
    samples: Functaset,
    train_images: Images,
    test_images: Images,
    test_functaset: Functaset,
    field: Weights,
    config: MemorisationConfig,
    figure_images: int,
    seed: int,
    runtime: RuntimeConfig,
) -> tuple[Metrics, pd.DataFrame, Figure, Figure]:
    """Nearest training images of the samples, beside those of test images and of their reconstructions (App. C.2).

    Returns the metrics, the table by class (Tab. 7), the distances and counts drawn, and samples with their three nearest
    training images (Fig. 5): the first samples, uncurated, and those that are nearest to a training image.
    """
    device = resolve_device(runtime.device)
    decoder = unpack_field(field, device)
    limit = min(config.images or len(samples), len(samples))
    tests = min(limit, len(test_images))

    def comparable(batches: Iterable[Tensor]) -> Tensor:
        return torch.cat([comparable_images(images, config.max_side) for images in batches])

    def read(rows: np.ndarray) -> Tensor:
        return comparable_images(train_images.batch(rows), config.max_side)

    sets = {
        SAMPLES: (comparable(decoded(samples, decoder, limit)), classes_of(samples.labels[:limit])),
        "test_images": (comparable(image_batches(test_images, tests)), test_images.labels[:tests]),
        "reconstructions": (comparable(decoded(test_functaset, decoder, tests)), test_images.labels[:tests]),
    }
    # In one search, since it reads all training images.
    together = torch.cat([images for images, _ in sets.values()])
    nearest = nearest_images(together, read, len(train_images), min(3, len(train_images)), device)
    ends = np.cumsum([len(images) for images, _ in sets.values()])[:-1]
    parts = zip(np.split(nearest.rows, ends), np.split(nearest.distances, ends), strict=True)
    found = {name: (Neighbours(*part), sets[name][1]) for name, part in zip(sets, parts, strict=True)}
    table = memorisation_table(found, "test_images", train_images.labels, train_images.classes)
    distances = {name: neighbours.distances[:, 0] for name, (neighbours, _) in found.items()}
    shown = _samples_with_neighbours(sets[SAMPLES][0], found[SAMPLES][0], read, figure_images)
    metrics = _memorisation_metrics(table, len(train_images), seed, sampled=len(samples))
    return metrics, table, memorisation_figure(distances, table), shown


def draw_samples(
    samples: Functaset, test_images: Images, field: Weights, figure_images: int, runtime: RuntimeConfig
) -> tuple[Figure, Figure]:
    """The first samples of each class; some of them also at `_ENLARGEMENT` times the resolution that the field learned."""
    device = resolve_device(runtime.device)
    decoder = unpack_field(field, device)
    shown = samples_to_draw(samples.labels)
    # Spread over the rows of the figure, hence over the classes.
    enlarged = shown[np.linspace(0, len(shown) - 1, min(figure_images, len(shown))).round().astype(int)]
    finer = tuple(_ENLARGEMENT * side for side in decoder.spec.resolution)
    with torch.no_grad():
        images = decoder.decode(samples.batch(shown).to(device)).cpu()
        latents = samples.batch(enlarged).to(device)
        renderings = [decoder.decode(latents, resolution).cpu() for resolution in (decoder.spec.resolution, finer)]
    labels = classes_of(samples.labels)
    by_class = sample_figure(images, None if labels is None else torch.from_numpy(labels[shown]), test_images.classes)
    return by_class, resolution_figure(renderings)


def _in_words(settings: dict[str, Any]) -> str:
    words = f"by {settings['sampler']} in {settings['steps']} steps ({settings['network_evaluations']} evaluations), "
    if settings["classes"] is None:
        return words + "unconditional"
    interval = settings["guidance_interval"]
    at = "" if interval is None else f" at noise levels {interval[0]:g} to {interval[1]:g}"
    return f"{words}guidance {settings['guidance_scale']}{at}, classes {settings['classes']}"


def _generation_metrics(table: pd.DataFrame, features: str, how: str, weights: str | None) -> Metrics:
    """The numbers of the table that belong in `metrics.json`, each with what it was measured on."""
    subject = {
        SAMPLES: f"samples {how}",
        "train_images": "real training images",
        "reconstructions": "reconstructed test images",
        "pca_codes": "test images from PCA codes",
        "noise": "decoded noise",
    }
    metrics: Metrics = {}
    details: dict[str, str] = {}
    for row in table.to_dict("records"):
        name, against = row["images"], row["against"]
        kept = ["frechet_distance"] if against == "test" else []
        kept = SCORES if name == SAMPLES else kept
        for score in kept:
            suffix = ("" if against == "test" else "_against_train") if name == SAMPLES else f"_{name}"
            key = f"{metric_name(features, score)}{suffix}"
            paired = "" if score == "frechet_distance" else "_pairs"
            metrics[key] = row[score]
            estimate = ", unbiased estimate from all pairs" if score == "kid" else ""
            details[key] = (
                f"{row[f'count{paired}']} {subject[name]}, against {row[f'count{paired}_against']} {against} images, "
                f"seed {row['seed']}{estimate}{f', weights {weights}' if weights else ''}"
            )
    return {**metrics, "details": details}


def _memorisation_metrics(table: pd.DataFrame, train_images: int, seed: int, sampled: int) -> Metrics:
    """Of each whole set, the numbers that belong in `metrics.json`; those relative to the test images not of these."""
    metrics: Metrics = {}
    details: dict[str, str] = {}
    for row in table[table["class"] == EVERY_CLASS].to_dict("records"):
        name, count = row["images"], row["count"]
        of = f" of {sampled}" if name == SAMPLES and count < sampled else ""
        where = f"{count}{of} {name.replace('_', ' ')}, nearest of {train_images} training images, seed {seed}"
        expected = f"{row['expected']:.0f} ± {row['expected_std']:.0f}"
        values = {
            "nearest_train_distance": (row["median_distance"], "median"),
            "distinct_nearest_share": (
                row["distinct"] / row["expected"],
                f"{row['distinct']} different ones, i.i.d. draws {expected}",
            ),
            "nearer_to_train_than_test": (row["nearer_than_test"], "probability; ½: like test images"),
            "near_copies": (row["near_copies"], "share; 0.01: like test images"),
        }
        for key in list(values)[: 2 if name == "test_images" else None]:
            full = key if name == SAMPLES else f"{key}_{name}"
            value, explanation = values[key]
            metrics[full], details[full] = float(value), f"{where}: {explanation}"
    return {**metrics, "details": details}


def _samples_with_neighbours(
    images: Tensor, found: Neighbours, read: Callable[[np.ndarray], Tensor], columns: int
) -> Figure:
    """The first samples and those nearest to a training image, each over its nearest training images."""
    closest = np.argsort(found.distances[:, 0], kind="stable")[:columns]
    chosen = {"first samples": np.arange(len(closest)), "samples nearest\nto training images": closest}
    nearest = {
        name: torch.stack([read(found.rows[row]) for row in rows]) for name, rows in chosen.items()
    }  # (B, k, *resolution, channels)
    distances = {name: Neighbours(found.rows[rows], found.distances[rows]) for name, rows in chosen.items()}
    return neighbour_figure({name: images[rows] for name, rows in chosen.items()}, nearest, distances)


def _decoded_noise(statistics: Weights, decoder: SpatialField, count: int, seed: int) -> Iterator[Tensor]:
    moments = LatentStatistics.from_tensors(statistics.tensors, statistics.config).moments["array"]
    device = next(decoder.parameters()).device
    for start in range(0, count, BATCH):
        generator = step_generator(seed, "noise", start)
        noise = torch.randn((min(BATCH, count - start), *moments.mean.shape), generator=generator)
        with torch.no_grad():
            yield decoder.decode((moments.mean + moments.std * noise).float().to(device)).cpu()


def _extractor(config: FrechetConfig, feature_network: Weights, device: torch.device) -> FeatureExtractor:
    if config.features == "inception":
        return InceptionFeatures(config.inception_weights, device)
    return ConvNetFeatures(unpack_feature_network(feature_network, device))
