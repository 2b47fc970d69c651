"""What a run needs is looked at before its first node: what is missing is better known now than after two days."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

import click
import numpy as np
from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog, DatasetError
from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from spatial_functa_pipeline.compute import DeviceError, resolve_device
from spatial_functa_pipeline.config.tree import PipelineParameters
from spatial_functa_pipeline.datasets.fingerprint import FingerprintMixin
from spatial_functa_pipeline.datasets.image_folder import ImageFolderDataset
from spatial_functa_pipeline.datasets.images import ImagesDataset
from spatial_functa_pipeline.datasets.weights import CheckpointDataset
from spatial_functa_pipeline.files import nearest_folder, why_not_writable
from spatial_functa_pipeline.functasets.location import Location, lacks_room
from spatial_functa_pipeline.hooks.advice_table import BLOCK_OF_TRAINING, advice_on
from spatial_functa_pipeline.hooks.freshness import outdated_outputs
from spatial_functa_pipeline.images.checking import BrokenImagesError
from spatial_functa_pipeline.images.images import Images, UnexpectedImagesError
from spatial_functa_pipeline.metrics.features import InceptionDownloadError, inception_weights
from spatial_functa_pipeline.pipeline_registry import register_pipelines
from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.denoiser import rows_to_train_on
from spatial_functa_pipeline.training.launch import check_devices

CHECKED_FILES = "data/02_intermediate/{dataset}/checked_files"
"""Below the project: remembers which files of a data set can be decoded."""
_SMALL_SET = 1024
_OF_ONE_PROCESS = "feature_network_checkpoint"
"""Of the training that is done by one process, however many the others have."""


@dataclass(frozen=True)
class PlannedRun:
    """The nodes that will run, and what they will find."""

    nodes: list[Node]
    catalog: DataCatalog
    parameters: PipelineParameters
    project: Path

    def takes(self, block: str) -> bool:
        """Whether a node takes this block of parameters."""
        return any(f"params:{block}" in node.inputs for node in self.nodes)

    @property
    def outputs(self) -> list[str]:
        """Names of what the nodes make, and of the checkpoints that they write meanwhile."""
        names = (name for node in self.nodes for name in (*node.inputs, *node.outputs))
        made = {name for node in self.nodes for name in node.outputs}
        return [name for name in dict.fromkeys(names) if name in made or name.endswith("_checkpoint")]

    @property
    def images(self) -> dict[str, Images]:
        """The sets of images that a node reads, by name, but for those that cannot be read: see `unreadable`."""
        return self._found[0]

    @property
    def unreadable(self) -> list[DatasetError]:
        """Why a set of images cannot be read."""
        return self._found[1]

    @property
    def folders(self) -> list[ImageFolderDataset]:
        """The folders of pictures that a node reads, each once: several splits may be cut from one."""
        read = (self.catalog.get(name) for node in self.nodes for name in node.inputs)
        return list({data.folder: data for data in read if isinstance(data, ImageFolderDataset)}.values())

    def trains(self, name: str) -> bool:
        """Whether a training of this name has something to do, if its node runs: of the encoders one has."""
        return name not in ("field", "autoencoder") or name == self.parameters.encoder

    @property
    def trains_together(self) -> bool:
        """Whether there is a training that `runtime.processes` share."""
        return any(name.endswith("_checkpoint") and name != _OF_ONE_PROCESS for name in self.outputs)

    def checkpoints_on(self, folder: Path) -> Iterator[Checkpoint]:
        """Of the trainings that read a folder of pictures, whether or not they have been begun."""
        for node in self.nodes:
            inputs = [self.catalog.get(name) for name in node.inputs]
            if any(isinstance(data, ImageFolderDataset) and data.folder == folder for data in inputs):
                yield from (data.load() for data in inputs if isinstance(data, CheckpointDataset))

    @cached_property
    def _found(self) -> tuple[dict[str, Images], list[DatasetError]]:
        found: dict[str, Images] = {}
        errors: list[DatasetError] = []
        for name in dict.fromkeys(name for node in self.nodes for name in node.inputs):
            if isinstance(dataset := self.catalog.get(name), ImagesDataset):
                try:
                    found[name] = dataset.load()
                except DatasetError as error:
                    errors.append(error)
        return found, errors


def input_problems(run: PlannedRun) -> Iterator[str]:
    """What another pipeline makes is missing, or was made from other parameters."""
    made = {name for node in run.nodes for name in node.outputs}
    for name in dict.fromkeys(name for node in run.nodes for name in node.inputs if name not in made):
        dataset = run.catalog.get(name)
        if not isinstance(dataset, FingerprintMixin):
            continue
        if dataset.outdated() == "missing":
            maker = next(
                name_of for name_of, pipeline in register_pipelines().items() if name in pipeline.all_outputs()
            )
            yield f"{name} is missing: kedro run --pipeline={maker} makes it, with the --env and --params of this run"
        elif reasons := dataset.staleness():
            yield (
                f"{name} is stale: {'; '.join(reasons)}. kedro run --only-missing-outputs makes again what is stale, with "
                "the --env and --params of this run"
            )


def device_problems(run: PlannedRun) -> Iterator[str]:
    """The device is not there, or there are fewer than a training has processes."""
    runtime = run.parameters.runtime
    if run.takes("runtime"):
        try:
            if run.trains_together:
                check_devices(runtime)
            else:
                resolve_device(runtime.device)
        except DeviceError as error:
            yield _with_advice(error)


def folder_problems(run: PlannedRun) -> Iterator[str]:
    """A folder of outputs cannot be written."""
    paths = (str(getattr(run.catalog.get(name), "_filepath", "")) for name in run.outputs)
    folders = dict.fromkeys(Path(path).parent for path in paths if path and "://" not in path)
    for folder in dict.fromkeys(map(nearest_folder, folders)):
        if reason := why_not_writable(folder):
            yield f"{folder} cannot be written: {reason}"


def image_problems(run: PlannedRun) -> Iterator[str]:
    """Images are missing, or are not what the parameters say."""
    yield from map(_with_advice, run.unreadable)
    for name, images in run.images.items():
        try:
            images.require(run.parameters.data)
        except UnexpectedImagesError as error:
            yield f"{name}: {_with_advice(error)}"


def batch_problems(run: PlannedRun) -> Iterator[str]:
    """A batch is larger than the set it is drawn from. Of small sets it may be: the batches of a preset then go round."""
    rows = _rows_of_trainings(run)
    for training, block in BLOCK_OF_TRAINING.items():
        if f"{training}_checkpoint" in run.outputs and training in rows and run.trains(training):
            size = attrgetter(block)(run.parameters).batch_size
            if size > max(rows[training], _SMALL_SET):
                yield f"{block}.batch_size is {size}, but there are {rows[training]} training rows: lower it"


def feature_problems(run: PlannedRun) -> Iterator[str]:
    """The weights behind FID are not there, and cannot be downloaded."""
    config = run.parameters.evaluation.frechet
    if config.features == "inception" and run.takes("evaluation.frechet"):
        try:
            inception_weights(config.inception_weights)
        except (FileNotFoundError, InceptionDownloadError) as error:
            yield _with_advice(error)


def room_problems(run: PlannedRun) -> Iterator[str]:
    """The functasets certainly do not fit on their disk, those together that share one."""
    disks: dict[int | None, dict[str, tuple[Location, int]]] = {}
    for name, size in _functaset_bytes(run).items():
        if name in run.outputs:
            dataset: Any = run.catalog.get(name)
            location = Location(dataset._filepath)
            disks.setdefault(location.disk, {})[name] = location, size
    for together in disks.values():
        if reason := lacks_room(list(together.values())):
            yield f"{', '.join(together)}: {reason}; make room, or set a filepath in the catalog to a larger disk"


def file_problems(run: PlannedRun) -> Iterator[str]:
    """Pictures that cannot be decoded. What else is in their folders is said in the log.

    Trainings that were begun on such pictures may go on without them: see `Checkpoint.allow_other_images`.
    """
    record = run.project / CHECKED_FILES.format(dataset=run.parameters.dataset)
    runtime = run.parameters.runtime
    for data in run.folders:
        try:
            data.look_through(record, runtime.num_workers, runtime.progress)
        except BrokenImagesError as error:
            for checkpoint in run.checkpoints_on(data.folder):
                checkpoint.allow_other_images()
            yield _with_advice(error)


CHECKS: tuple[Callable[[PlannedRun], Iterator[str]], ...] = (
    input_problems,
    device_problems,
    folder_problems,
    image_problems,
    batch_problems,
    feature_problems,
    room_problems,
)
"""What takes no time."""


class PreflightHooks:
    """Looks at all that a run needs before its first node, and says all that is missing at once."""

    def __init__(self) -> None:
        self._one_walk = ExitStack()

    @hook_impl
    def after_catalog_created(self, parameters: dict[str, Any]) -> None:
        """Keep the parameters, with all defaults."""
        self._parameters = PipelineParameters.model_validate(parameters["parameters"])

    @hook_impl(tryfirst=True)
    def before_pipeline_run(self, run_params: dict[str, Any], pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Raises click.ClickException, with a line for each problem."""
        self._forget_folders()  # of a run that was interrupted: Kedro calls no hook then
        self._one_walk.enter_context(ImageFolderDataset.one_walk())
        nodes = pipeline.nodes
        if run_params.get("only_missing_outputs"):
            wanted = outdated_outputs(pipeline, catalog)
            nodes = [node for node in nodes if node.name in wanted or wanted.keys() & set(node.outputs)]
        run = PlannedRun(nodes, catalog, self._parameters, Path(run_params["project_path"]))
        problems = list(dict.fromkeys(problem for check in CHECKS for problem in check(run)))
        if problems := problems or list(file_problems(run)):
            self._forget_folders()
            lines = "".join(f"\n  {problem}" for problem in problems)
            raise click.ClickException(f"Nothing was run:{lines}")

    @hook_impl
    def after_pipeline_run(self) -> None:
        """The next one to look into a folder looks anew."""
        self._forget_folders()

    @hook_impl
    def on_pipeline_error(self) -> None:
        """The next one to look into a folder looks anew."""
        self._forget_folders()

    def _forget_folders(self) -> None:
        self._one_walk.close()


def _with_advice(error: Exception) -> str:
    advice = advice_on(error)
    separator = "\n  " if "\n" in str(error) else "; "
    return f"{error}{separator}{advice}" if advice else str(error)


def _rows_of_trainings(run: PlannedRun) -> dict[str, int]:
    """How many rows each training draws its batches from, as far as that can be known."""
    rows: dict[str, int] = {}
    diffusion = run.parameters.diffusion
    if (images := run.images.get("train_images")) is not None:
        copies = 1 + run.parameters.functaset.mirror_images + run.parameters.functaset.augmented_copies
        rows = dict.fromkeys(BLOCK_OF_TRAINING, len(images))
        rows["classifier"] *= copies
        rows["denoiser"] *= copies if diffusion.augmented_copies else 1 + diffusion.mirror_images
    functaset = run.catalog.get("train_functaset")
    if "train_functaset" not in run.outputs and functaset is not None and functaset.exists():
        found = functaset.load()
        rows |= {"classifier": len(found), "denoiser": rows_to_train_on(found, diffusion)}
    return rows


def _functaset_bytes(run: PlannedRun) -> dict[str, int]:
    """How many bytes the latents of each functaset take as they are encoded: floats hardly compress."""
    config, shape = run.parameters.functaset, run.parameters.latent_shape
    size = shape.numbers * np.dtype(config.storage_type).itemsize
    held_out = 1 + bool(config.mirror_held_out)
    copies = {"train": 1 + config.mirror_images + config.augmented_copies, "validation": held_out, "test": held_out}
    rows = {split: len(run.images.get(f"{split}_images", ())) * count for split, count in copies.items()}
    return {f"encoded_{split}_functaset": count * size for split, count in rows.items()}
