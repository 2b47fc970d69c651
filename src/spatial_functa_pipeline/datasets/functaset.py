"""Functasets in the Kedro catalog."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import fsspec
from kedro.io import AbstractDataset
from kedro_datasets._typing import TablePreview

from spatial_functa_pipeline.datasets.fingerprint import RECORD_SUFFIX, FingerprintMixin
from spatial_functa_pipeline.digest import short_digest
from spatial_functa_pipeline.functasets.location import Location
from spatial_functa_pipeline.functasets.store import MEMORY_LIMIT, SCHEMA_VERSION, Functaset, read_attributes
from spatial_functa_pipeline.functasets.writing import FunctasetPlan, refuse_to_replace, write


class _FunctasetDataset(AbstractDataset[FunctasetPlan, Functaset]):
    def __init__(
        self, *, filepath: str, memory_limit: int = MEMORY_LIMIT, metadata: dict[str, Any] | None = None
    ) -> None:
        """`filepath` is the directory of the Zarr group, or an address in an object store; latents of at most `memory_limit`
        bytes are held in memory by a training; `metadata` is for Kedro-Viz.
        """
        self._filepath = str(filepath)
        self._memory_limit = memory_limit
        self.metadata = metadata

    def load(self) -> Functaset:
        """Open the functaset; raises if it is missing or incomplete."""
        return Functaset.open(self._filepath, self._memory_limit)

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
        return {"filepath": self._filepath}


class FunctasetDataset(FingerprintMixin, _FunctasetDataset):
    """Writes a functaset shard by shard, continuing an interrupted build, and opens it lazily.

    Its fingerprint, and that of the weights that the plan names, are also the store's own: only a build by the same
    weights and parameters is continued. Another one is replaced if the plan says so or `replace_stale` is set.

    ```yaml
    train_functaset:
      type: spatial_functa_pipeline.datasets.functaset.FunctasetDataset
      filepath: data/05_model_input/train_functaset.zarr # or s3://bucket/train_functaset.zarr
      memory_limit: 8_000_000_000
    ```
    """

    replace_stale = False

    def save(self, data: FunctasetPlan) -> None:
        """Write all rows that are not there yet. Raises StaleFunctasetError, before anything is touched."""
        header = data.header
        if self.expected:
            header = replace(header, fingerprint=f"{self.expected.digest}-{header.fingerprint}")
        data = replace(data, header=header, replace=data.replace or self.replace_stale)
        location = Location(self._filepath)
        if location.exists():
            refuse_to_replace(location, data)
        super().save(data)

    def content_digest(self) -> str:
        """Digest of the attributes, which name the weights and the parameters that all rows depend on."""
        attributes = read_attributes(self._filepath)
        return short_digest([json.dumps(attributes, sort_keys=True).encode()])

    def _stamp(self) -> None:
        return None

    def _find_reasons(self, known: dict[int, list[str]]) -> list[str]:
        """Without a record (not finished yet, or copied without it), the store's own fingerprint tells."""
        if self.expected and self._read_record() is None:
            try:
                made_by = read_attributes(self._filepath).get("fingerprint", "").partition("-")[0]
            except FileNotFoundError:
                return []
            return (
                []
                if made_by == self.expected.digest
                else [f"{self._file_name} was begun by another field or with other parameters"]
            )
        return super()._find_reasons(known)

    def _read_record(self) -> dict[str, Any] | None:
        try:
            return json.loads(fsspec.open(self._record_url).open().read())
        except (FileNotFoundError, ValueError):
            return None

    def _write_record(self, record: dict[str, Any] | None) -> None:
        files, path = fsspec.core.url_to_fs(self._record_url)
        if record is not None:
            files.pipe(path, json.dumps(record, indent=1).encode())
        elif files.exists(path):
            files.rm(path)

    @property
    def _record_url(self) -> str:
        folder, _, name = self._filepath.rstrip("/").rpartition("/")
        return f"{folder}/.{name}{RECORD_SUFFIX}"
