"""Reports: what a run, or a study, has measured and drawn, as one HTML file that needs nothing beside it."""

from spatial_functa_pipeline.reports.page import Picture, Sheet
from spatial_functa_pipeline.reports.run import RunReport, Section
from spatial_functa_pipeline.reports.study import StudyReport

__all__ = ["Picture", "RunReport", "Section", "Sheet", "StudyReport"]
