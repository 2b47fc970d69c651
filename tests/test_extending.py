"""docs/extending.md names what there is, and its code does what it says."""

import re
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from pydantic import PositiveInt

from spatial_functa_pipeline.config import classification, diffusion
from spatial_functa_pipeline.datasets import images
from spatial_functa_pipeline.fields.latent_shape import LatentShape
from spatial_functa_pipeline.models import classifiers, denoisers

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/extending.md").read_text()
BLOCKS = [dedent(block) for block in re.findall(r"^ *```python\n(.*?)^ *```$", PAGE, re.DOTALL | re.MULTILINE)]
PROSE = re.sub(r"^ *```.*?^ *```$", "", PAGE, flags=re.DOTALL | re.MULTILINE)
NAMED = sorted(set(re.findall(r"`([^`\n]+)`", PROSE)))
ADDED = ("conf/mnist", "conf/shoes")  # by the walks


def example(name, namespace):
    """The class `name` of the page, as it would be in a module with this namespace."""
    (block,) = [block for block in BLOCKS if re.search(rf"^class {name}\b", block, re.MULTILINE)]
    found = re.search(rf"^class {name}\b.*?(?=^\S|\Z)", block, re.DOTALL | re.MULTILINE)
    exec(found.group(), namespace)
    return namespace[name]


def test_its_files_are_there():
    paths = [name for name in NAMED if re.fullmatch(r"[\w.]+(/[\w.]+)+/?", name) and name not in ADDED]
    assert len(paths) >= 15
    places = (ROOT, ROOT / "src/spatial_functa_pipeline")
    assert [path for path in paths if not any((place / path).exists() for place in places)] == []


def test_its_names_are_there():
    names = [name for name in NAMED if re.fullmatch(r"[A-Za-z_]\w{3,}", name)]
    assert len(names) >= 20
    sources = [path for folder in ("src", "tests", "conf") for path in (ROOT / folder).rglob("*.[pcy]*")]
    text = "\n".join([*(path.read_text() for path in sources if path.suffix in {".py", ".yml"}), *BLOCKS])
    assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []


def test_its_data_set_has_what_is_asked_of_one():
    dataset = example("MNISTDataset", dict(vars(images)))(filepath="nowhere", part="test")
    assert not dataset.exists()
    assert (dataset.NAME, dataset.CLASSES[9]) == ("MNIST", "9")


@pytest.mark.parametrize("grid", [(1, 1), (4,), (2, 3), (2, 3, 2)])
def test_its_classifier_runs(grid):
    config = example("ConvNetConfig", {**vars(classification), "PositiveInt": PositiveInt})(width=8, blocks=2)
    shape = LatentShape(grid, 5)
    model = example("ConvNetClassifier", dict(vars(classifiers)))(
        shape, 3, **config.model_dump(), dropout=0.1, drop_path=0.1
    )
    assert model(torch.randn(2, *shape.shape)).shape == (2, 3)


@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize("grid", [(1, 1), (4,), (2, 3), (2, 3, 2)])
def test_its_denoiser_runs(grid, classes):
    config = example("ResNetConfig", dict(vars(diffusion)))
    namespace = {**vars(denoisers), "ResNetConfig": config}
    shape = LatentShape(grid, 5)
    model = example("ResNetDenoiser", namespace)(config(width=8, blocks=2), shape, classes)
    labels = None if classes is None else torch.tensor([0, classes])
    knowing = namespace["ResNetDenoiser"](config(width=8, blocks=2), shape, classes, knows_kinds=True)
    kinds = torch.tensor([0, 2])
    assert knowing(torch.randn(2, *shape.shape), torch.tensor([0, 9]), labels, kinds).shape == (2, *shape.shape)
    assert model(torch.randn(2, *shape.shape), torch.tensor([0, 9]), labels).shape == (2, *shape.shape)
