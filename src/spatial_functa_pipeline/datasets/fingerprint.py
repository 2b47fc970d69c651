"""Freshness: every persisted output carries a record of the parameters and inputs that made it.

A hook gives each dataset the fingerprint that it *should* have (`expected`) and the persisted outputs that it is made from
(`sources`); saving writes a record of both beside the data. An output with another fingerprint, or with other sources than
those that are there now, counts as missing (`--only-missing-outputs` makes it again), and loading it is an error that
names what differs.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self

from kedro.io import AbstractDataset, DatasetError

from spatial_functa_pipeline.digest import changes, short_digest
from spatial_functa_pipeline.files import replace_durably

RECORD_SUFFIX = ".fingerprint.json"

if TYPE_CHECKING:

    class _Dataset(AbstractDataset[Any, Any]):
        """What comes after the mixin."""

        _filepath: str | PurePath

        def load(self) -> Any: ...

        def save(self, data: Any) -> None: ...

else:  # Kedro gives each subclass of AbstractDataset an `__init__`, and the mixin's would hide the dataset's
    _Dataset = object


@dataclass(frozen=True)
class Fingerprint:
    """What made an output: its node, the node's parameters (flat) and the fingerprints of the node's inputs.

    `upstream` has the parameters (flat) of all that the inputs depend on. The inputs' fingerprints stand for it; it is there
    to name what differs.
    """

    node: str
    parameters: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    upstream: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_record(cls, record: dict[str, Any]) -> Self:
        """The fingerprint in a record, which holds more than that."""
        return cls(record["node"], record["parameters"], record["inputs"], record.get("upstream", {}))

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, shortened to 16 hexadecimal digits.

        A parameter that is null counts as one that there is not, as in `differences`: a new one makes nothing stale.
        """
        parameters = {key: value for key, value in self.parameters.items() if value is not None}
        content = {"node": self.node, "parameters": parameters, "inputs": self.inputs}
        return short_digest([json.dumps(content, sort_keys=True).encode()])

    def differences(self, other: "Fingerprint") -> list[str]:
        """What is otherwise in `other`, one phrase each."""
        found = [f"node {self.node} → {other.node}"] if self.node != other.node else []
        found += changes(self.parameters, other.parameters).values()
        names = sorted({*self.inputs, *other.inputs})
        if others := [name for name in names if self.inputs.get(name) != other.inputs.get(name)]:
            known = self.upstream and other.upstream  # records of an older version know nothing of it
            causes = [*changes(self.upstream, other.upstream).values()] if known else []
            found += causes or [f"{name} was made anew or differs" for name in others]
        return list(dict.fromkeys(found))


class FingerprintMixin(_Dataset):
    """For file-based Kedro datasets: put it before the dataset's class.

    Without `expected` (a catalog used outside a project's session) the dataset behaves like its plain class.

    A dataset that is not one local file or folder overrides `content_digest`, and `_read_record` and `_write_record` to keep
    the record elsewhere than beside it.
    """

    expected: Fingerprint | None = None
    sources: Mapping[str, "FingerprintMixin"] = MappingProxyType({})
    begun: float | None = None
    """When its node was begun, as `time.monotonic` has it; None outside of one."""
    _loaded_digest: str | None = None

    def save(self, data: Any) -> None:
        """Save, then write the record. The old record goes first: a crash in between leaves no false one."""
        self._loaded_digest = None
        self._write_record(None)
        super().save(data)
        if self.expected:
            seconds = None if self.begun is None else round(time.monotonic() - self.begun, 2)
            content = {"content": self.content_digest(), "stamp": self._stamp(), "sources": self._source_digests()}
            self._write_record({**asdict(self.expected), **content, "seconds": seconds})

    def load(self) -> Any:
        """Load. Raises DatasetError if the data were made from other parameters or inputs than those of now."""
        look = Look()
        if reasons := look.reasons(self):
            raise DatasetError(
                f"{self._file_name} is stale: {'; '.join(reasons)}. Run `kedro run --only-missing-outputs` with the same "
                "options to make again what is stale, or go back to the former parameters and files"
            )
        if self.expected and look.is_stored(self):
            self._loaded_digest = look.content_digest(self)
        return super().load()

    def staleness(self) -> list[str]:
        """What differs from what the stored data were made from, one phrase each.

        Empty if nothing does, if nothing is stored, or if there is no record of how it was made.
        """
        return Look().reasons(self)

    def last_making(self) -> tuple[Fingerprint, float] | None:
        """What made the stored data, whether or not they are stale, and in how many seconds; None if that is not known.

        Of a node that was interrupted, the seconds are those since it was begun again; but a training's history has all.
        """
        record = self._read_record() if self._is_stored() else None
        seconds = None if record is None else self._seconds_of_making(record)
        return None if record is None or seconds is None else (Fingerprint.of_record(record), seconds)

    def _seconds_of_making(self, record: dict[str, Any]) -> float | None:
        return record.get("seconds")

    def outdated(self) -> str:
        """Why it has to be made: it is missing, has no record, or is stale. Empty if it is up to date."""
        look = Look()
        if not look.is_stored(self):
            return "missing"
        if self.expected and self._read_record() is None:
            return "without a record of what it was made from"
        return "; ".join(look.reasons(self))

    def content_digest(self) -> str:
        """SHA-256 of the stored file or folder, shortened to 16 hexadecimal digits.

        Taken from the record as long as size and time of change are the recorded ones.
        """
        record, stamp = self._read_record(), self._stamp()
        if record and stamp and record.get("stamp") == stamp:
            return record["content"]
        return short_digest(self._content())

    def _content(self) -> Iterator[bytes]:
        for path in self._files():
            with path.open("rb") as file:
                # Of a folder, the files' names and sizes are content too.
                yield f"{path.relative_to(self._path)} {path.stat().st_size}\n".encode()
                while block := file.read(1 << 20):
                    yield block

    def _read_record(self) -> dict[str, Any] | None:
        """The record of the stored data; None if there is none that can be read."""
        try:
            return json.loads(self._record_path.read_text())
        except (FileNotFoundError, ValueError):
            return None

    def _write_record(self, record: dict[str, Any] | None) -> None:
        """Replace the record at once; None removes it."""
        if record is None:
            self._record_path.unlink(missing_ok=True)
            return
        with replace_durably(self._record_path) as temporary:
            temporary.write_text(json.dumps(record, indent=1))

    def _find_reasons(self, look: "Look") -> list[str]:
        """`staleness`."""
        record = self._read_record() if look.is_stored(self) else None
        if record is None or self.expected is None:
            return []
        if differences := Fingerprint.of_record(record).differences(self.expected):
            return differences
        reasons = []
        if "content" in record and look.content_digest(self) != record["content"]:
            reasons.append(
                f"{self._file_name} was changed or replaced by hand, but not its record {self._record_path.name} (to use it "
                "as it is, copy its own record too, or remove the record and run the pipelines after it by name)"
            )
        reasons += self._moved_on(record.get("sources", {}), self._file_name, look)
        return list(dict.fromkeys(reasons))

    def _moved_on(self, digests: dict[str, str], user: str, look: "Look") -> list[str]:
        """Which sources are stale themselves or have other contents than `digests`, those that `user` was made from.

        A source that is missing, deleted to save space, changes nothing: its own sources are looked at instead.
        """
        reasons = []
        for name, source in self.sources.items():
            if not look.is_stored(source):
                reasons += source._moved_on(digests, user, look)
            elif name in digests and look.content_digest(source) != digests[name]:
                reasons.append(f"{name} is not the one that {user} was made from: it was made again or replaced")
            else:
                reasons += look.reasons(source)
        return reasons

    def _source_digests(self) -> dict[str, str]:
        """The content digest of each source and, through the sources' records, of all before them."""
        digests: dict[str, str] = {}
        stored = {name: source for name, source in self.sources.items() if source._is_stored()}
        for source in stored.values():
            digests |= (source._read_record() or {}).get("sources", {})
        # What was loaded counts: in the hours of a training, what is on disk may have been replaced.
        return digests | {name: source._loaded_digest or source.content_digest() for name, source in stored.items()}

    def _is_stored(self) -> bool:
        return super()._exists()

    def _exists(self) -> bool:
        return not self.outdated()

    def _stamp(self) -> list[int] | None:
        """Size in bytes and time of the last change in ns, of a folder over its files; None if there is no local file."""
        stats = [path.stat() for path in self._files()]
        return [sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)] if stats else None

    def _files(self) -> list[Path]:
        if self._path.is_dir():
            return sorted(path for path in self._path.rglob("*") if path.is_file())
        return [self._path] if self._path.exists() else []

    @property
    def _path(self) -> Path:
        return Path(str(self._filepath))

    @property
    def _file_name(self) -> str:
        return self._path.name

    @property
    def _record_path(self) -> Path:
        return self._path.with_name(f".{self._file_name}{RECORD_SUFFIX}")


class Look:
    """A look at what something is made from: each dataset is read once, however many others are made from it."""

    def __init__(self) -> None:
        self.is_stored: Callable[[FingerprintMixin], bool] = cache(lambda dataset: dataset._is_stored())
        self.content_digest: Callable[[FingerprintMixin], str] = cache(lambda dataset: dataset.content_digest())
        self.reasons: Callable[[FingerprintMixin], list[str]] = cache(lambda dataset: dataset._find_reasons(self))
