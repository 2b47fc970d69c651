"""The functaset: latents in a store that is written shard by shard and read lazily; their statistics and normalisation.

`plan_functaset` says what is to be written, `write` writes it or goes on with it, `Functaset.open` reads it; `quantised`
plans the same latents in fewer bits.
"""

from spatial_functa_pipeline.functasets.checking import Findings, check
from spatial_functa_pipeline.functasets.encoding import plan_functaset
from spatial_functa_pipeline.functasets.errors import (
    DamagedShardError,
    IncompleteFunctasetError,
    MissingFunctasetError,
    NonFiniteLatentError,
    NoRoomError,
    OtherImagesError,
    SchemaVersionError,
    StaleFunctasetError,
    WorkersDiedError,
)
from spatial_functa_pipeline.functasets.format import NO_SOURCE, FunctasetHeader, Rows
from spatial_functa_pipeline.functasets.normalisation import Normaliser
from spatial_functa_pipeline.functasets.requantising import quantised
from spatial_functa_pipeline.functasets.scheduling import Scheduling
from spatial_functa_pipeline.functasets.statistics import LatentStatistics, NormalisationKind, compute_statistics
from spatial_functa_pipeline.functasets.store import Functaset
from spatial_functa_pipeline.functasets.writing import FunctasetPlan, FunctasetReference, write, write_reference

__all__ = [
    "NO_SOURCE",
    "DamagedShardError",
    "Findings",
    "Functaset",
    "FunctasetHeader",
    "FunctasetPlan",
    "FunctasetReference",
    "IncompleteFunctasetError",
    "LatentStatistics",
    "MissingFunctasetError",
    "NoRoomError",
    "NonFiniteLatentError",
    "NormalisationKind",
    "Normaliser",
    "OtherImagesError",
    "Rows",
    "Scheduling",
    "SchemaVersionError",
    "StaleFunctasetError",
    "WorkersDiedError",
    "check",
    "compute_statistics",
    "plan_functaset",
    "quantised",
    "write",
    "write_reference",
]
