"""What to do about an error of the library, in the words of the flow: parameters' paths and commands, which it cannot know.

A class stands for its subclasses, too. Its advice is a text, or what a function says about the error.
"""

from collections.abc import Callable
from typing import Any

from spatial_functa_pipeline.compute import DeviceError
from spatial_functa_pipeline.metrics.features import InceptionWeightsError
from spatial_functa_pipeline.training import TrainingDivergedError

BLOCK_OF_TRAINING = {
    "field": "meta_learning.training",
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


ADVICE: dict[type[Exception], str | Callable[[Any], str]] = {
    DeviceError: (
        "The parameters are runtime.device and runtime.processes; on any machine there is: "
        "kedro run --params runtime.device=cpu,runtime.processes=1"
    ),
    InceptionWeightsError: (
        "The parameters are evaluation.frechet.inception_weights and evaluation.frechet.features; without the weights: "
        "kedro run --params evaluation.frechet.features=convnet"
    ),
    TrainingDivergedError: _advice_on_a_diverged_training,
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
