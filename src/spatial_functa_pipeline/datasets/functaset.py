"""Functasets in the Kedro catalog."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset
from kedro_datasets._typing import TablePreview

from spatial_functa_pipeline.datasets.fingerprint import FingerprintMixin
from spatial_functa_pipeline.functasets.store import (
    SCHEMA_VERSION,
    Functaset,
    FunctasetPlan,
    read_attributes,
    write,
)


class _FunctasetDataset(AbstractDataset[FunctasetPlan, Functaset]):
    def __init__(self, *, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        """`filepath` is the directory of the Zarr group; `metadata` is for Kedro-Viz and others."""
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> Functaset:
        """Open the functaset; raises if it is missing or incomplete."""
        return Functaset.open(self._filepath)

    def save(self, data: FunctasetPlan) -> None:
        """Write all rows that are not there yet."""
        write(self._filepath, data)

    def preview(self) -> TablePreview:
        """The functaset's attributes as a table; no row is read."""
        attributes = read_attributes(self._filepath)
        return TablePreview(
            {
                "index": list(range(len(attributes))),
                "columns": ["attribute", "value"],
                "data": [[name, str(value)] for name, value in attributes.items()],
            }
        )

    def _exists(self) -> bool:
        """Whether there is a complete functaset that this version can read."""
        try:
            attributes = read_attributes(self._filepath)
        except FileNotFoundError:
            return False
        return attributes["complete"] and attributes["schema_version"] == SCHEMA_VERSION

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath)}


class FunctasetDataset(FingerprintMixin, _FunctasetDataset):
    """Writes a functaset shard by shard, continuing an interrupted build, and opens it lazily.

    Its fingerprint, and that of the weights that the plan names, are also the store's own: only a build by the same
    weights and parameters is continued.

    ```yaml
    train_functaset:
      type: spatial_functa_pipeline.datasets.functaset.FunctasetDataset
      filepath: data/05_model_input/train_functaset.zarr
    ```
    """

    def save(self, data: FunctasetPlan) -> None:
        """Write all rows that are not there yet."""
        if self.expected:
            fingerprint = f"{self.expected.digest}-{data.header.fingerprint}"
            data = replace(data, header=replace(data.header, fingerprint=fingerprint))
        super().save(data)
