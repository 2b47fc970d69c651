"""The benchmark of photographs: a start from the data is PCA, and what it prints is what it measured."""

import json

import pytest

pytest.importorskip("skimage")
pytest.importorskip("sklearn")

import photo_tiles
import photographs as benchmark


@pytest.fixture
def few_tiles(monkeypatch):
    whole = photo_tiles.photograph
    monkeypatch.setattr(photo_tiles, "photograph", lambda name: whole(name)[:260, :130])
    monkeypatch.setattr(benchmark, "STRIDE", 64)
    for start in benchmark.STARTS.values():
        monkeypatch.setitem(start["training"], "learning_rate", 1e-12)


def test_an_untrained_field_from_the_data_is_pca_and_a_random_one_is_not(few_tiles, tmp_path, capsys):
    path = tmp_path / "rows.json"
    assert benchmark.main(["--steps", "1", "--json", str(path)]) == 0
    pca, data, random = json.loads(path.read_text())
    for part in benchmark.MEASURED:
        assert data[part]["psnr"] == pytest.approx(pca[part]["psnr"], abs=0.02)
        assert data[part]["seam_ratio_reconstructions"] == pytest.approx(
            pca[part]["seam_ratio_reconstructions"], abs=0.01
        )
        assert random[part]["psnr"] < pca[part]["psnr"] - 10
    assert f"{pca['other']['psnr']:.2f}" in capsys.readouterr().out
