"""The classifier of every environment, on latents and on pixels: it builds, and a step of its own training changes it."""

import pytest
import torch
import torch.nn.functional as F
from test_environments import VARIANTS, classes_of, load, name_of

from spatial_functa_pipeline.compute import bf16_products
from spatial_functa_pipeline.config.presets import NoPresetError
from spatial_functa_pipeline.fields.cells import cut_into_cells
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.models.classifiers import build_classifier
from spatial_functa_pipeline.training.schedule import build_optimizer, learning_rate_factor

# One block is enough: all are alike. The largest grid would take a minute.
CASES = [case for case in VARIANTS if case[1].get("latent_shape", "").split("x")[0] != "32"]


@pytest.mark.slow
@pytest.mark.parametrize("read", ["latents", "pixels"])
@pytest.mark.parametrize(("env", "choice"), CASES, ids=[name_of(*case) for case in CASES])
def test_a_step_changes_every_weight(env, choice, read):
    parameters = load(env, choice)
    config, data, shape = parameters.classification, parameters.data, parameters.latent_shape
    inputs = torch.randn(2, *shape.shape)
    if read == "pixels":
        inputs = cut_into_cells(torch.randn(2, *data.resolution, data.channels), shape.grid).flatten(-2)
        shape = LatentShape(shape.grid, inputs.shape[-1])
    classes = classes_of(parameters)
    small = {part: getattr(config, part).model_copy(update={"blocks": 1}) for part in ("transformer", "mlp")}
    torch.manual_seed(0)
    model = build_classifier(config.model_copy(update=small), shape, classes)
    optimizer = build_optimizer(model, config.training)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        group["lr"] = config.training.learning_rate * learning_rate_factor(config.training, 0)
    labels = torch.arange(2) % classes
    with bf16_products(config.precision, torch.device("cpu")):
        logits = model(inputs)
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=config.label_smoothing)
    loss.backward()
    optimizer.step()
    assert logits.shape == (2, classes)
    assert loss.isfinite()
    if classes > 1:  # one class is always right: nothing has a gradient
        unchanged = [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]
        assert unchanged == []


def test_the_transformer_on_vector_functa_is_app_b1s():
    choice = {"latent_shape": "1x1x256", "classification": {"architecture": "transformer"}}
    parameters = load("cifar10", choice)
    config = parameters.classification
    assert config.architecture_on(parameters.latent_shape) == "transformer"
    transformer, training = config.transformer, config.training
    assert (transformer.width, transformer.ffw_width, transformer.blocks) == (256, 512, 2)
    assert (config.normalisation_scale, config.dropout, config.label_smoothing) == (0.1, 0.1, 0.1)
    assert (training.learning_rate, training.weight_decay, training.batch_size) == (1e-3, 0.1, 256)
    assert training.steps == 300_000


def test_a_transformer_asked_for_by_name_keeps_its_row_of_table_5():
    for name in ("auto", "transformer"):
        choice = {"latent_shape": "4x4x64", "interpolation": "linear", "classification": {"architecture": name}}
        config = load("cifar10", choice).classification
        assert (config.transformer.blocks, config.dropout, config.normalisation_scale) == (16, 0.2, 0.01)


def test_imagenets_pixel_baseline_can_be_vit_b16():
    """86M parameters (Sec. 5.2), patches of 16×16 pixels, and MixUp, beside the training of the classifier on latents."""
    plain = load("imagenet256")
    parameters = load("imagenet256", {"classification": {"preset": "vit_b"}})
    config, grid = parameters.classification, parameters.latent_shape.grid
    assert [pixels // side for pixels, side in zip(parameters.data.resolution, grid, strict=True)] == [16, 16]
    with torch.device("meta"):
        model = build_classifier(config, LatentShape(grid, 16 * 16 * 3), 1000)
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(86e6, abs=1e6)
    transformer = config.transformer
    assert (transformer.width, transformer.ffw_width, transformer.blocks, transformer.heads) == (768, 3072, 12, 12)
    assert (transformer.head_dim, config.mixup) == (None, 0.2)
    assert config.training == plain.classification.training
    assert plain.classification.mixup is None
    choice = {"classification": {"preset": "vit_b", "mixup": None, "transformer": {"blocks": 3}}}
    config = load("imagenet256", choice).classification
    assert (config.mixup, config.transformer.blocks, config.transformer.width) == (None, 3, 768)


def test_a_preset_that_a_data_set_does_not_have_is_refused():
    with pytest.raises(NoPresetError) as error:
        load("cifar10", {"classification": {"preset": "vit_b"}})
    assert str(error.value) == (
        "classification.preset is vit_b, but this data set has no row of presets for it; those that have one: imagenet256"
    )


def test_a_vector_that_cannot_be_cut_into_tokens_is_refused():
    choice = {"latent_shape": "1x1x500", "classification": {"architecture": "transformer"}}
    with pytest.raises(ValueError, match=r"vector_tokens \(16\) must divide the 500 numbers of a latent vector"):
        load("sample", choice)
