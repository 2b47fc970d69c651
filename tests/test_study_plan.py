"""What a study would run: each variant's own outputs, and the nodes that they need."""

from pathlib import Path

from spatial_functa_pipeline.config.study import StudyConfig
from spatial_functa_pipeline.study_plan import loader_of, plan_of

ROOT = Path(__file__).parents[1]


def test_a_variant_makes_its_own_outputs_and_nothing_else():
    study = StudyConfig.model_validate(
        {
            "title": "t",
            "outputs": ["reconstruction_metrics", "classification_metrics"],
            "measure": ["psnr", "top1_accuracy"],
            "variants": [
                {"name": "both"},
                {"name": "one", "outputs": ["reconstruction_metrics"]},
            ],
        }
    )
    plan = plan_of(study, "t", loader_of(ROOT, "test"), {"latent_shape": "2x2x4"}, ROOT)
    both, one = plan.runs
    assert one.outputs == ("reconstruction_metrics",)
    assert {node.name for node in both.pipeline.nodes} - {node.name for node in one.pipeline.nodes} >= {
        "train_latent_classifier",
        "evaluate_classifier",
    }
    assert "evaluate_classifier" not in {node.name for node in one.pipeline.nodes}
