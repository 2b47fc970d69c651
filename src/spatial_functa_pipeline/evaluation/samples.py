"""Sampled latents: a functaset that a denoiser draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from spatial_functa_pipeline.compute import available_precision
from spatial_functa_pipeline.config.diffusion import DiffusionConfig
from spatial_functa_pipeline.config.evaluation import SamplingConfig
from spatial_functa_pipeline.config.runtime import RuntimeConfig
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.functasets.format import FunctasetHeader, Rows
from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.functasets.writing import FunctasetPlan
from spatial_functa_pipeline.models.denoisers import Denoiser
from spatial_functa_pipeline.models.sampling import sample, sampling_settings
from spatial_functa_pipeline.training.seeding import derive_seed

SAMPLES = "samples"
"""Their name, among other sets of images, in tables and metrics."""
NO_CLASS = -1
"""Label of an unconditional sample."""


@dataclass(frozen=True)
class LatentSampler:
    """Draws raw latents, on the denoiser's device. Classes take turns; the label of an unconditional sample is −1.

    Attributes:
        denoiser: in evaluation mode.
        normaliser: what it was trained with, on the same device.
        process: likewise.
        sampling: how it is sampled.
        latent_shape: of one latent.
        seed: sample i depends on (`seed`, i) alone.
        progress: whether to show a progress bar.
        guide: of autoguidance, as the denoiser.
    """

    denoiser: Denoiser
    normaliser: Normaliser
    process: DiffusionConfig
    sampling: SamplingConfig
    latent_shape: LatentShape
    seed: int
    progress: bool = False
    guide: Denoiser | None = None

    def __call__(self, start: int, stop: int) -> Rows:
        """The samples start, …, stop − 1, mapped back from normalised to raw (the inverse of Eq. 1)."""
        device = self.normaliser.scale.device
        classes = self.denoiser.num_classes
        labels = None if classes is None else torch.arange(start, stop) % classes
        latents = sample(
            self.denoiser,
            self.process,
            self.sampling.model_copy(update={"samples": stop - start}),
            labels,
            self.latent_shape,
            self.normaliser.clip_range,
            self.seed,
            device,
            first=start,
            progress=self.progress,
            guide=self.guide,
        )
        raw = self.normaliser.inverse(latents.to(device)).cpu().numpy()
        return Rows.of_samples(raw, np.full(stop - start, NO_CLASS) if labels is None else labels.numpy())

    @property
    def settings(self) -> dict[str, str | float | list[float] | None]:
        """How samples are drawn, to be kept beside them."""
        return sampling_settings(self.process, self.sampling, self.normaliser.clip_range, self.seed)


def plan_samples(
    denoiser: Denoiser,
    normaliser: Normaliser,
    process: DiffusionConfig,
    sampling: SamplingConfig,
    like: FunctasetHeader,
    *,
    dataset: str,
    fingerprint: str,
    seed: int,
    runtime: RuntimeConfig,
    guide: Denoiser | None = None,
) -> FunctasetPlan:
    """A functaset of samples, shaped `like` the one that the denoiser was trained on.

    Each batch is a shard, stored once it is drawn, so that an interrupted sampling goes on with the next; how they were
    drawn stands beside them (`sampling_settings`). An unconditional denoiser is not guided by classes. `fingerprint` stands
    for the denoiser's weights, and `guide` is kept with them.

    Raises ValueError if a guide is asked for and there is none.
    """
    sampling = sampling if process.conditional else sampling.unguided
    seed = derive_seed(seed, "samples")
    precision = available_precision(sampling.precision, normaliser.scale.device, "samples")
    sampling = sampling.model_copy(update={"precision": precision})  # what is kept is what they are drawn in
    sampler = LatentSampler(denoiser, normaliser, process, sampling, like.latent_shape, seed, runtime.progress, guide)
    header = FunctasetHeader(
        dataset=dataset,
        split="samples",
        latent_shape=like.latent_shape,
        interpolation=like.interpolation,
        rows=sampling.samples,
        shard_rows=sampling.batch_size,
        chunk_rows=sampling.batch_size,
        fingerprint=fingerprint,
        settings=sampler.settings,
    )
    return FunctasetPlan(header, sampler, runtime.progress)


def classes_of(labels: np.ndarray) -> np.ndarray | None:
    """Labels `(N,)` of samples; None if the model that drew them is unconditional."""
    return None if (labels == NO_CLASS).all() else labels
