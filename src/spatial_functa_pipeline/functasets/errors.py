"""What can be wrong with a functaset, as facts; what to do about it is known where the functaset is used.

Their arguments are all of an error, so that it can be pickled from one process to another.
"""

from __future__ import annotations


class MissingFunctasetError(FileNotFoundError):
    """There is no functaset at `location`."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.location = location

    def __str__(self) -> str:
        return f"there is no functaset at {self.location}"


class IncompleteFunctasetError(ValueError):
    """The functaset of `split`, `quantised` or not, at `location` has been begun and not finished."""

    def __init__(self, location: str, split: str, quantised: bool = False) -> None:
        super().__init__(location, split, quantised)
        self.location, self.split, self.quantised = location, split, quantised

    def __str__(self) -> str:
        return f"functaset {self.location} is incomplete"


class SchemaVersionError(ValueError):
    """The functaset at `location` was written in schema `version`, which this is not (`expected`)."""

    def __init__(self, location: str, version: int, expected: int) -> None:
        super().__init__(location, version, expected)
        self.location, self.version, self.expected = location, version, expected

    def __str__(self) -> str:
        return f"functaset {self.location} has schema version {self.version}, but this is version {self.expected}"


class OtherImagesError(ValueError):
    """The functaset of `split` at `location` was not built from these images, of which there are `count`."""

    def __init__(self, location: str, split: str, count: int) -> None:
        super().__init__(location, split, count)
        self.location, self.split, self.count = location, split, count

    def __str__(self) -> str:
        return f"functaset {self.location} was not built from these {self.count} images"


class NonFiniteLatentError(ValueError):
    """The latent of a `row` of `split` is infinite or not a number in the type in which it is stored."""

    def __init__(self, split: str, row: int, storage_type: str) -> None:
        super().__init__(split, row, storage_type)
        self.split, self.row, self.storage_type = split, row, storage_type

    def __str__(self) -> str:
        return f"{self.split} functaset: the latent of row {self.row} is not finite as {self.storage_type}"


class DamagedShardError(RuntimeError):
    """The file of what one array holds of a shard is lost or does not pass its checksum: see `reason`.

    The functaset is that of `split`, `quantised` or not.
    """

    def __init__(self, location: str, split: str, shard: int, file: str, reason: str, quantised: bool = False) -> None:
        super().__init__(location, split, shard, file, reason, quantised)
        self.location, self.split, self.quantised = location, split, quantised
        self.shard, self.file, self.reason = shard, file, reason

    def __str__(self) -> str:
        array = self.file.partition("/")[0]
        return f"functaset {self.location}: shard {self.shard} of array {array!r} ({self.file}) {self.reason}"


class StaleFunctasetError(RuntimeError):
    """The functaset at `location` was built by another field, with other parameters or of other images: see `differences`."""

    def __init__(self, location: str, differences: str) -> None:
        super().__init__(location, differences)
        self.location, self.differences = location, differences

    def __str__(self) -> str:
        return f"functaset {self.location} is stale, and was not touched: it differs in {self.differences}"


class NoRoomError(OSError):
    """There is no room left at `location`; `finished` of the functaset's `shards` are there and kept."""

    def __init__(self, number: int, location: str, finished: int, shards: int, reason: str) -> None:
        super().__init__(number, reason)
        self.number, self.reason = number, reason
        self.location, self.finished, self.shards = location, finished, shards

    def __reduce__(self) -> tuple[type[NoRoomError], tuple[int, str, int, int, str]]:
        return type(self), (self.number, self.location, self.finished, self.shards, self.reason)

    def __str__(self) -> str:
        return (
            f"no room left for functaset {self.location}: {self.finished} of its {self.shards} shards are finished and "
            f"kept ({self.reason})"
        )


class WorkersDiedError(RuntimeError):
    """Workers of a build died again and again at the same task."""
