"""Tensors and their configuration in one safetensors file."""

import json
from pathlib import Path
from typing import Any

import torch
from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import JSONPreview
from safetensors import safe_open

from spatial_functa_pipeline.datasets.fingerprint import FingerprintMixin
from spatial_functa_pipeline.models.weights import Weights, read_weights, write_weights
from spatial_functa_pipeline.training.checkpoint import Checkpoint


class _SafetensorsDataset(AbstractDataset[Weights, Weights]):
    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def save(self, data: Weights) -> None:
        write_weights(self._filepath, data)

    def load(self) -> Weights:
        try:
            return read_weights(self._filepath)
        except ValueError as error:
            raise DatasetError(f"{error}: make it again") from error

    def read_config(self) -> dict[str, Any]:
        """The configuration; reads the header only."""
        with safe_open(self._filepath, framework="pt") as file:
            return json.loads(file.metadata()["config"])

    def preview(self) -> JSONPreview:
        """The configuration, and how many numbers there are; reads the header only."""
        with safe_open(self._filepath, framework="pt") as file:
            sizes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
            config = json.loads(file.metadata()["config"])
        parameters = sum(torch.Size(size).numel() for size in sizes.values())
        return JSONPreview(json.dumps({"parameters": parameters, "tensors": len(sizes), "config": config}, indent=1))

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}


class WeightsDataset(FingerprintMixin, _SafetensorsDataset):
    """Kedro dataset of `Weights`: safetensors, the configuration as JSON in the file's header."""

    _filepath: Path


class CheckpointDataset(AbstractDataset[Any, Checkpoint]):
    """Where a training keeps its checkpoint: loading gives the handle, whether or not there is a file yet."""

    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> Checkpoint:
        return Checkpoint(self._filepath)

    def save(self, data: Any) -> None:
        raise DatasetError("a checkpoint is written by the training, not by the catalog")

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}
