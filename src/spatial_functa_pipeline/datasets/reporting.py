"""Metrics, histories, tables and figures in the Kedro catalog. What is done with each depends on its type."""

from collections.abc import Mapping
from typing import Any, ClassVar

import pandas as pd
from kedro_datasets._typing import TablePreview
from kedro_datasets.json import JSONDataset
from kedro_datasets.matplotlib import MatplotlibDataset
from kedro_datasets.pandas import CSVDataset
from kedro_datasets.text import TextDataset

from spatial_functa_pipeline.datasets.fingerprint import Fingerprint, FingerprintMixin


class MetricsDataset(FingerprintMixin, JSONDataset):
    """Numbers by name, under `details` what each was measured on, under `intervals` bounds: metrics of the MLflow run.

    `variant`, if it is given, is stored beside them.
    """

    def __init__(self, *, filepath: str, variant: str | None = None, **options: Any) -> None:
        super().__init__(filepath=filepath, **options)
        self._variant = variant

    def save(self, data: dict[str, Any]) -> None:
        """Write the metrics as JSON."""
        super().save(data if self._variant is None else {"variant": self._variant, **data})


class TableDataset(FingerprintMixin, CSVDataset):
    """A table: an artifact of the MLflow run."""

    def preview(self, nrows: int = 40) -> TablePreview:
        """The first rows, for kedro-viz."""
        return super().preview(nrows)


class HistoryDataset(TableDataset):
    """What a training measured on its way, a row for each step: MLflow has it as curves already."""

    def _seconds_of_making(self, record: dict[str, Any]) -> float | None:
        """What the training has taken, before an interruption and after it; records of older versions do not say."""
        history = pd.read_csv(str(self._filepath))
        if history.empty:  # there was nothing to train
            return super()._seconds_of_making(record)
        return max(float(history["seconds"].iloc[-1]), record.get("seconds") or 0.0)


class FigureDataset(FingerprintMixin, MatplotlibDataset):
    """A picture: an artifact of the MLflow run."""

    DEFAULT_SAVE_ARGS: ClassVar[dict[str, Any]] = {"dpi": 150, "bbox_inches": "tight"}


class ReportDataset(FingerprintMixin, TextDataset):
    """The page that shows what is there of a run: an artifact of the MLflow run.

    No node makes it: who does has to say what from (`made_from`).
    """

    DEFAULT_FS_ARGS: ClassVar[dict[str, Any]] = {
        "open_args_save": {"mode": "w", "encoding": "utf-8"},
        "open_args_load": {"mode": "r", "encoding": "utf-8"},
    }

    def made_from(self, shown: Mapping[str, FingerprintMixin]) -> None:
        """From now on it is up to date if it shows these outputs as they are, and no others."""
        made = {name: dataset.expected.digest for name, dataset in shown.items() if dataset.expected}
        self.expected, self.sources = Fingerprint("report", inputs=made), shown
