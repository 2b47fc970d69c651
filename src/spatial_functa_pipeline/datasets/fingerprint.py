"""Freshness: every persisted output carries a fingerprint of the parameters and inputs that made it.

A hook gives each dataset the fingerprint that it *should* have (`expected`); saving writes it beside the data. An output
with another fingerprint counts as missing (`--only-missing-outputs` makes it again), and loading it is an error that
names what differs.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kedro.io import DatasetError


@dataclass(frozen=True)
class Fingerprint:
    """What made an output: its node, the node's parameters (flat) and the fingerprints of the node's inputs."""

    node: str
    parameters: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, shortened to 16 hexadecimal digits."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def differences(self, other: "Fingerprint") -> list[str]:
        """What is otherwise in `other`, one phrase each."""
        found = [f"node {self.node} → {other.node}"] if self.node != other.node else []
        for key in sorted({*self.parameters, *other.parameters}):
            before, now = self.parameters.get(key), other.parameters.get(key)
            if before != now:
                found.append(f"{key} was {before}, is {now}")
        for key in sorted({*self.inputs, *other.inputs}):
            if self.inputs.get(key) != other.inputs.get(key):
                found.append(f"{key} was made anew or differs")
        return found


class FingerprintMixin:
    """For file-based Kedro datasets: put it before the dataset's class.

    Without `expected` (a catalog used outside a project's session) the dataset behaves like its plain class.
    """

    expected: Fingerprint | None = None

    def save(self, data: Any) -> None:
        """Save, then record the fingerprint. The old record goes first: a crash in between leaves no false one."""
        self._record_path.unlink(missing_ok=True)
        super().save(data)
        if self.expected:
            temporary = self._record_path.with_name(self._record_path.name + ".tmp")
            temporary.write_text(json.dumps(asdict(self.expected), indent=1))
            temporary.replace(self._record_path)

    def load(self) -> Any:
        """Load. Raises DatasetError if the data were made from other parameters or inputs than those of now."""
        stale = self.staleness()
        if stale:
            raise DatasetError(
                f"{Path(str(self._filepath)).name} is stale: {'; '.join(stale)}. Run `kedro run --only-missing-outputs` "
                "with the same options to make again what depends on it, or go back to the former parameters"
            )
        return super().load()

    def staleness(self) -> list[str]:
        """How the stored fingerprint differs from the expected one; empty if it fits or if nothing is stored."""
        if self.expected is None or not self._record_path.exists():
            return []
        stored = Fingerprint(**json.loads(self._record_path.read_text()))
        return stored.differences(self.expected)

    def _exists(self) -> bool:
        recorded = self.expected is None or self._record_path.exists()
        return super()._exists() and recorded and not self.staleness()

    @property
    def _record_path(self) -> Path:
        path = Path(str(self._filepath))
        return path.with_name(f".{path.name}.fingerprint.json")
