"""What to do about errors of functasets and images that come up in the middle of a run: commands and parameters."""

from collections.abc import Callable

from spatial_functa_pipeline.datasets.functaset import build_command, what_to_do
from spatial_functa_pipeline.functasets.errors import DamagedShardError, NoRoomError, WorkersDiedError
from spatial_functa_pipeline.images.images import UnexpectedImagesError
from spatial_functa_pipeline.loading.pixel_patches import OtherImagesError
from spatial_functa_pipeline.metrics.features import InceptionDownloadError


def _build_of_these_images(error: OtherImagesError) -> str:
    build = f"{build_command(error.split)} --params runtime.replace_stale=true"
    return f"build the functaset again: {build}, or correct the images' entry in the catalog"


def _describe_the_images(error: UnexpectedImagesError) -> str:
    names = ", ".join(f"data.{name}" for name in error.differences)
    return f"correct the parameters {names}, or the images' entry in the catalog"


FUNCTASET_ADVICE: dict[type[Exception], str | Callable[..., str]] = {
    DamagedShardError: what_to_do,
    NoRoomError: "make room, and run the same command again to go on",
    WorkersDiedError: (
        "run again to go on with what is missing, with fewer processes (runtime.workers) or a smaller "
        "functaset.encode_batch"
    ),
    OtherImagesError: _build_of_these_images,
    UnexpectedImagesError: _describe_the_images,
    InceptionDownloadError: (
        "set evaluation.frechet.inception_weights to the path of the file, or evaluation.frechet.features to convnet"
    ),
}
