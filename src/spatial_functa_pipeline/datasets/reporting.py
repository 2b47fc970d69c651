"""The reporting datasets of kedro-datasets, with fingerprints."""

from kedro_datasets.json import JSONDataset as _JSONDataset
from kedro_datasets.matplotlib import MatplotlibDataset as _MatplotlibDataset
from kedro_datasets.pandas import CSVDataset as _CSVDataset

from spatial_functa_pipeline.datasets.fingerprint import FingerprintMixin


class JSONDataset(FingerprintMixin, _JSONDataset):
    """Metrics."""


class CSVDataset(FingerprintMixin, _CSVDataset):
    """Training histories and tables."""


class MatplotlibDataset(FingerprintMixin, _MatplotlibDataset):
    """Figures."""
