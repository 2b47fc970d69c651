"""One training loop (`loop`), and the trainings of field, classifier, denoiser and feature network with it."""

from spatial_functa_pipeline.training.checkpoint import Checkpoint
from spatial_functa_pipeline.training.classifier import train_classifier
from spatial_functa_pipeline.training.denoiser import train_denoiser
from spatial_functa_pipeline.training.feature_network import train_feature_network
from spatial_functa_pipeline.training.field import train_field
from spatial_functa_pipeline.training.guard import TrainingDivergedError, UnreadableImageError
from spatial_functa_pipeline.training.launch import MachinesDidNotMeetError, ProcessDiedError
from spatial_functa_pipeline.training.loop import Training
from spatial_functa_pipeline.training.run import Report, TrainingRun, report_nothing
from spatial_functa_pipeline.training.state import TrainingState

__all__ = [
    "Checkpoint",
    "MachinesDidNotMeetError",
    "ProcessDiedError",
    "Report",
    "Training",
    "TrainingDivergedError",
    "TrainingRun",
    "TrainingState",
    "UnreadableImageError",
    "report_nothing",
    "train_classifier",
    "train_denoiser",
    "train_feature_network",
    "train_field",
]
