"""README's example of the library does what it says, with the field of a finished run."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

README = (Path(__file__).parents[1] / "README.md").read_text()
EXAMPLE = README.split("## Use it as a library")[1].split("```python\n")[1].split("```")[0]
FIELD = "data/06_models/fashion_mnist_sample/8x8x8-nearest/field.safetensors"


def test_it_has_at_most_ten_lines():
    assert len([line for line in EXAMPLE.splitlines() if line]) <= 10


@pytest.mark.slow
@pytest.mark.parametrize("resolution", [32, 256])
def test_a_picture_is_encoded_and_decoded_larger(finished, tmp_path, resolution):
    (trained,) = (finished.path / "data/06_models").rglob("field.safetensors")
    assert EXAMPLE.count(FIELD) == 1
    assert EXAMPLE.count("(256, 256)") == 1
    program = EXAMPLE.replace(FIELD, str(trained)).replace("(256, 256)", str((resolution, resolution)))
    light = np.arange(32, dtype=np.uint8) * 8
    Image.fromarray(np.broadcast_to(light, (32, 32)).copy()).save(tmp_path / "shoe.png")
    program += "import sys; assert not {'kedro', 'mlflow'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    larger = np.asarray(Image.open(tmp_path / "shoe_256.png"))
    assert larger.shape == (resolution, resolution)
    assert larger.dtype == np.uint8
    # A few steps of training suffice to tell what is dark from what is light.
    left, right = np.split(larger.astype(float), 2, axis=1)
    assert right.mean() > left.mean() + 30
