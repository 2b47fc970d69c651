"""What to do about an error of the library, in the words of the flow: parameters' paths and commands, which it cannot know.

A class stands for its subclasses, too. Its advice is a text, or what a function says about the error.
"""

from collections.abc import Callable
from typing import Any

from spatial_functa_pipeline.compute import DeviceError
from spatial_functa_pipeline.datasets.functaset import SAME, build_command, what_to_do
from spatial_functa_pipeline.fields import NativeEngineMemoryError
from spatial_functa_pipeline.functasets.errors import (
    DamagedShardError,
    NonFiniteLatentError,
    NoRoomError,
    OtherImagesError,
    WorkersDiedError,
)
from spatial_functa_pipeline.images.checking import BrokenImagesError
from spatial_functa_pipeline.images.images import UnexpectedImagesError
from spatial_functa_pipeline.metrics.features import InceptionDownloadError
from spatial_functa_pipeline.training import TrainingDivergedError, UnreadableImageError

BLOCK_OF_TRAINING = {
    "field": "meta_learning.training",
    "autoencoder": "autoencoder.training",
    "classifier": "classification.training",
    "denoiser": "diffusion.training",
    "feature_network": "evaluation.frechet.feature_network",
}


def _advice_on_a_diverged_training(error: TrainingDivergedError) -> str:
    block = BLOCK_OF_TRAINING[error.name]
    return (
        f"The parameters of this training are those of {block}: --params {block}.guard.retries=10 goes on from the "
        f"checkpoint, --params {block}.learning_rate=… starts anew"
    )


def _build_of_these_images(error: OtherImagesError) -> str:
    build = f"{build_command(error.split)},quantise_{error.split}_functaset"
    return (
        f"build the functaset again: {build}, {SAME} and runtime.replace_stale=true, or correct the images' entry in the "
        "catalog"
    )


def _train_what_diverged(error: NonFiniteLatentError) -> str:
    if error.split == "samples":
        cause, model, block = "The denoiser has diverged", "denoiser", BLOCK_OF_TRAINING["denoiser"]
    else:
        cause, model, block = "The field's inner loop has diverged for this image", "field", BLOCK_OF_TRAINING["field"]
    wider = " or its latents are too large for half precision: --params functaset.storage_type=float32;"
    return (
        f"{cause},{wider if error.storage_type == 'float16' else ''} look at the {model}'s training curve, and train it with "
        f"a lower {block}.learning_rate"
    )


def _describe_the_images(error: UnexpectedImagesError) -> str:
    names = ", ".join(f"data.{name}" for name in error.differences)
    return f"correct the parameters {names}, or the images' entry in the catalog"


ADVICE: dict[type[Exception], str | Callable[[Any], str]] = {
    DeviceError: (
        "on any machine there is the CPU: the same command, with runtime.device=cpu,runtime.processes=1 added to its --params"
    ),
    NativeEngineMemoryError: (
        "run again with fewer images at once, which changes no result: a smaller meta_learning.training.micro_batch or "
        "functaset.encode_batch. Fewer threads (OMP_NUM_THREADS) and fewer processes (runtime.workers) take less, too"
    ),
    InceptionDownloadError: (
        "evaluation.frechet.inception_weights says where they are; without them: the same command, with "
        "evaluation.frechet.features=convnet added to its --params"
    ),
    TrainingDivergedError: _advice_on_a_diverged_training,
    UnreadableImageError: "with that file replaced or removed, the same command goes on from the checkpoint",
    DamagedShardError: what_to_do,
    NoRoomError: "make room, and run the same command again to go on",
    NonFiniteLatentError: _train_what_diverged,
    WorkersDiedError: (
        "run again to go on with what is missing, with fewer processes (runtime.workers) or a smaller "
        "functaset.encode_batch"
    ),
    BrokenImagesError: (
        "replace or remove these files, and run the same command again: those that were found good are not looked at twice. "
        "With 'check: false' in the images' entries of the catalog no file is looked at before it is used"
    ),
    OtherImagesError: _build_of_these_images,
    UnexpectedImagesError: _describe_the_images,
}


def advice_on(error: BaseException | None) -> str | None:
    """Of the error or of what caused it (Kedro wraps the errors of data sets); None if there is none."""
    while error is not None:
        for kind in type(error).__mro__:
            if kind in ADVICE:
                advice = ADVICE[kind]
                return advice if isinstance(advice, str) else advice(error)
        error = error.__cause__
    return None
