"""The method: coordinates, interpolation, SIREN, λ and the inner loop (Sec. 4). Imports torch alone.

A `SpatialField` encodes images to latents and decodes latents to images of any size.
"""

from spatial_functa_pipeline.fields.cells import cut_into_cells, join_cells
from spatial_functa_pipeline.fields.field import FieldSpec, SpatialField
from spatial_functa_pipeline.fields.geometry import Interpolation
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.fields.native_engine import NativeEngine, NativeEngineError, NativeEngineMemoryError
from spatial_functa_pipeline.fields.siren import FieldPrecision
from spatial_functa_pipeline.fields.torch_engine import TorchEngine

__all__ = [
    "FieldPrecision",
    "FieldSpec",
    "Interpolation",
    "LatentShape",
    "NativeEngine",
    "NativeEngineError",
    "NativeEngineMemoryError",
    "SpatialField",
    "TorchEngine",
    "cut_into_cells",
    "join_cells",
]
