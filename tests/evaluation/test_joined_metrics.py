from spatial_functa_pipeline.evaluation.metrics import described, joined


def test_every_number_has_what_it_was_measured_on_and_parts_become_one():
    first = described({"psnr": (20.0, "100 test images"), "psnr_pca": (18.0, "PCA")})
    assert first == {"psnr": 20.0, "psnr_pca": 18.0, "details": {"psnr": "100 test images", "psnr_pca": "PCA"}}
    assert joined(first, described({"fid": (3.0, "50,000 samples")})) == {
        "psnr": 20.0,
        "psnr_pca": 18.0,
        "fid": 3.0,
        "details": {"psnr": "100 test images", "psnr_pca": "PCA", "fid": "50,000 samples"},
    }
    assert joined() == {"details": {}}


def test_intervals_are_there_where_a_part_has_them():
    first = described({"fid": (3.0, "50,000 samples"), "kid": (0.1, "10")}, {"fid": [2.9, 3.2]})
    assert first["intervals"] == {"fid": [2.9, 3.2]}
    assert joined(described({"psnr": (20.0, "100")}), first)["intervals"] == {"fid": [2.9, 3.2]}
