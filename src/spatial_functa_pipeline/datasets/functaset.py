"""Functasets in the Kedro catalog."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import fsspec
from kedro.io import AbstractDataset, DatasetError
from kedro_datasets._typing import TablePreview

from spatial_functa_pipeline.datasets.fingerprint import RECORD_SUFFIX, FingerprintMixin, Look
from spatial_functa_pipeline.digest import short_digest
from spatial_functa_pipeline.functasets.errors import (
    DamagedShardError,
    IncompleteFunctasetError,
    MissingFunctasetError,
    SchemaVersionError,
    StaleFunctasetError,
)
from spatial_functa_pipeline.functasets.format import read_attributes
from spatial_functa_pipeline.functasets.location import Location
from spatial_functa_pipeline.functasets.store import MEMORY_LIMIT, Functaset
from spatial_functa_pipeline.functasets.writing import (
    FunctasetPlan,
    FunctasetReference,
    differences,
    write,
    write_reference,
)

SAME = "with the --env and --params of this run"


def build_command(split: str, quantised: bool = False) -> str:
    """The command that builds the functaset of a split, quantised or not, or what is missing or damaged of it."""
    node = "sample_latents" if split == "samples" else f"{'quantise' if quantised else 'build'}_{split}_functaset"
    return f"kedro run --nodes={node}"


def mend_command(split: str, quantised: bool = False) -> str:
    """The command that builds what is missing or damaged of a functaset, and replaces nothing."""
    built = "(and the --env and --params that it was built with)"
    return f"{build_command(split, quantised)} --params runtime.replace_stale=false {built}"


def what_to_do(error: Exception) -> str:
    """About an error of a functaset."""
    match error:
        case MissingFunctasetError():
            return f"build it first: kedro run --pipeline=functaset_build (for samples: kedro run --pipeline=sampling), {SAME}"
        case IncompleteFunctasetError(split=split, quantised=quantised):
            return f"run again to finish: {build_command(split, quantised)}, {SAME}"
        case SchemaVersionError():
            return f"build it again: kedro run --pipeline=functaset_build, {SAME} and runtime.replace_stale=true"
        case StaleFunctasetError():
            return (
                "to replace it, run again with --params runtime.replace_stale=true, or go back to the former parameters"
            )
        case DamagedShardError(split=split, quantised=quantised):
            return f"this builds that shard alone again: {mend_command(split, quantised)}"
    raise TypeError(f"{type(error).__name__} is no error of a functaset")


Made = FunctasetPlan | FunctasetReference | Functaset
"""What a node may return as a functaset: one that is to be written, or one that is there and is referred to."""


class _FunctasetDataset(AbstractDataset[Made, Functaset]):
    replace_stale = False
    """Whether a functaset that another field or other parameters made is replaced; a hook says so before a run."""

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
        """Open the functaset. Raises DatasetError, which says how to build it, if it is missing or cannot be used."""
        try:
            return Functaset.open(self._filepath, self._memory_limit)
        except (MissingFunctasetError, IncompleteFunctasetError, SchemaVersionError) as error:
            raise DatasetError(f"{error}; {what_to_do(error)}") from error

    def save(self, data: Made) -> None:
        """Write all rows that are not there yet, or, of a functaset that is there, a reference to it."""
        match data:
            case FunctasetPlan():
                write(self._filepath, data, replace=self.replace_stale)
            case FunctasetReference():
                write_reference(self._filepath, data, replace=self.replace_stale)
            case Functaset():
                self.save(FunctasetReference.to(data, self._filepath))

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
        """Whether there is a complete functaset that this version can read, also where it refers to another one."""
        try:
            Functaset.open(self._filepath)
        except (MissingFunctasetError, IncompleteFunctasetError, SchemaVersionError):
            return False
        return True

    def _describe(self) -> dict[str, Any]:
        return {"filepath": self._filepath}


class FunctasetDataset(FingerprintMixin, _FunctasetDataset):
    """Writes a functaset shard by shard, continuing an interrupted build, and opens it lazily.

    Its fingerprint, and that of the weights that the plan names, are also the store's own: only a build by the same
    weights and parameters is continued. Another one is replaced if `replace_stale` is set.

    ```yaml
    train_functaset:
      type: spatial_functa_pipeline.datasets.functaset.FunctasetDataset
      filepath: data/05_model_input/train_functaset.zarr # or s3://bucket/train_functaset.zarr
      memory_limit: 8_000_000_000
    ```
    """

    _filepath: str

    def save(self, data: Made) -> None:
        """Write all rows that are not there yet. Raises DatasetError, before anything is touched, if it is stale."""
        if isinstance(data, Functaset):
            data = FunctasetReference.to(data, self._filepath)
        header = data.header
        if self.expected:
            header = replace(header, fingerprint=f"{self.expected.digest}-{header.fingerprint}")
        different = differences(Location(self._filepath), header)
        if different and not self.replace_stale:
            error = StaleFunctasetError(self._filepath, different)
            raise DatasetError(f"{error}; {what_to_do(error)}") from error
        super().save(replace(data, header=header))

    def content_digest(self) -> str:
        """Digest of the attributes, which name the weights and the parameters that all rows depend on."""
        attributes = read_attributes(self._filepath)
        return short_digest([json.dumps(attributes, sort_keys=True).encode()])

    def _stamp(self) -> None:
        return None

    def _find_reasons(self, look: Look) -> list[str]:
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
        return super()._find_reasons(look)

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
