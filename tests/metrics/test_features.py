"""Feature extractors: shapes, rounding, and Inception weights from a path against pytorch-fid's own loading."""

from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_fid import inception
from pytorch_fid.fid_score import calculate_activation_statistics
from torch import nn

from spatial_functa_pipeline.metrics.comparison import FeatureSet
from spatial_functa_pipeline.metrics.features import (
    FEATURE_WIDTHS,
    ConvNetFeatures,
    FeatureNetwork,
    InceptionDownloadError,
    InceptionFeatures,
    metric_name,
)
from spatial_functa_pipeline.metrics.frechet import FeatureMoments

WEIGHTS_NAME = Path(inception.FID_WEIGHTS_URL).name


def random_bytes(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return FeatureNetwork(channels=3, num_classes=5)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A torch hub directory whose cached "download" is a random network of pytorch-fid's structure."""
    directory = tmp_path_factory.mktemp("hub")
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(inception, "load_state_dict_from_url", lambda url, progress: {})
        patches.setattr(nn.Module, "load_state_dict", lambda self, state: None)
        random_network = inception.fid_inception_v3()
    for module in random_network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 2.0)  # as it is, the signal fades away over the layers
    path = directory / "checkpoints" / WEIGHTS_NAME
    path.parent.mkdir()
    torch.save(random_network.state_dict(), path)
    yield directory
    path.unlink()  # 96 MB


@pytest.fixture
def use_hub(hub, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(hub))
    return hub / "checkpoints" / WEIGHTS_NAME


@pytest.fixture
def empty_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path


def test_only_inception_features_are_called_fid():
    assert metric_name("inception", "train") == "fid_to_train"
    assert metric_name("convnet", "test") == "frechet_distance_convnet_to_test"
    assert metric_name("inception", "test", "kid") == "kid_to_test"
    assert metric_name("convnet", "train", "precision") == "precision_convnet_to_train"
    assert metric_name("inception", "train", images="noise") == "fid_noise_to_train"
    assert metric_name("convnet_large", "test", "kid") == "kid_convnet_large_to_test"
    assert metric_name("convnet", "test", images="noise") == "frechet_distance_convnet_noise_to_test"


@pytest.mark.parametrize("side", [(32, 32), (28, 45), (256, 256)])
def test_network_takes_images_of_any_size(network, side):
    images = random_bytes(2, *side, 3)
    assert network(images).shape == (2, 5)
    assert network.features(images).shape == (2, network.width)


def test_logits_are_a_linear_map_of_the_features(network):
    images = random_bytes(4, 16, 16, 3)
    torch.testing.assert_close(network(images), network.head(network.features(images)))


def test_every_parameter_of_the_network_is_trained(network):
    nn.functional.cross_entropy(network(random_bytes(8, 16, 16, 3)), torch.arange(8) % 5).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def test_floats_are_rounded_and_clamped_as_in_an_image_file(network):
    extractor = ConvNetFeatures(network)
    images = random_bytes(4, 16, 16, 3)
    images[0] = 255
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(1)) * 0.9 - 0.45
    noise[0] = 0.3
    assert torch.equal(extractor((images + noise) / 255), extractor(images))
    assert torch.equal(extractor(torch.full((1, 16, 16, 3), 1.7)), extractor(images[:1]))


def test_convnet_features_of_an_image_do_not_depend_on_its_batch(network):
    extractor = ConvNetFeatures(network)
    images = random_bytes(6, 16, 16, 3)
    features = extractor(images)
    assert features.shape == (6, extractor.width)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    torch.testing.assert_close(extractor(images[2:3]), features[2:3])


def test_features_are_those_of_all_batches(network):
    extractor = ConvNetFeatures(network)
    images = random_bytes(10, 16, 16, 3)
    features = torch.cat([extractor(batch) for batch in images.split(4)])
    assert features.shape == (10, extractor.width)
    torch.testing.assert_close(features, extractor(images))


def test_features_that_are_not_finite_or_of_nothing_are_errors(network):
    with pytest.raises(ValueError, match="no images"):
        FeatureSet.of(ConvNetFeatures(network), [], pairs=5)
    nn.init.constant_(network.stages[0][1].weight, torch.inf)
    with pytest.raises(ValueError, match="diverged"):
        FeatureSet.of(ConvNetFeatures(network), [random_bytes(2, 16, 16, 3)], pairs=5)


def test_network_refuses_images_with_other_channels(network):
    with pytest.raises(ValueError, match="takes images with 3 channels, got 1"):
        network(random_bytes(2, 16, 16, 1))


def test_network_refuses_data_that_are_no_images(network):
    with pytest.raises(ValueError, match=r"two-dimensional images.*\(2, 16, 3\)"):
        network(random_bytes(2, 16, 3))


def test_inception_from_a_path_equals_the_network_that_pytorch_fid_loads_itself(use_hub):
    extractor = InceptionFeatures(str(use_hub))
    images = random_bytes(1, 32, 32, 3)
    gray = images[..., :1]
    features = torch.cat([extractor(images), extractor(gray)])
    assert features.shape == (2, extractor.width)
    assert features.std(dim=1).min() > 1e-3

    reference = inception.InceptionV3([3]).eval()
    both = torch.cat([images, gray.repeat(1, 1, 1, 3)])
    with torch.inference_mode():
        expected = reference(both.permute(0, 3, 1, 2) / 255)[0][:, :, 0, 0]
    torch.testing.assert_close(features, expected)
    assert (features[0] - features[1]).abs().max() > 1e-3
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        extractor(images[..., :2])


def test_statistics_of_arrays_are_those_that_pytorch_fid_takes_from_files(use_hub, tmp_path):
    """From an array to mean and covariance, against pytorch-fid reading the same images as PNG files."""
    images = random_bytes(3, 32, 32, 3)
    files = [tmp_path / f"{index}.png" for index in range(len(images))]
    for file, image in zip(files, images.numpy(), strict=True):
        Image.fromarray(image).save(file)
    mean, covariance = calculate_activation_statistics(
        files, inception.InceptionV3([3]), batch_size=len(files), num_workers=0
    )
    moments = FeatureMoments(InceptionFeatures.width)
    moments.update(InceptionFeatures(str(use_hub))(images))
    np.testing.assert_allclose(moments.mean(), mean, rtol=1e-4, atol=1e-5 * np.abs(mean).max())
    np.testing.assert_allclose(moments.covariance(), covariance, rtol=1e-3, atol=1e-4 * np.abs(covariance).max())


def test_a_distance_with_other_weights_is_not_called_fid(use_hub, monkeypatch):
    extractor = InceptionFeatures()  # finds the cached file
    assert len(extractor.weights_sha256) == 64
    named = f"frechet_distance_inception_{extractor.weights_sha256[:8]}_to_train"
    assert metric_name(extractor.name, "train") == named

    prefix = "spatial_functa_pipeline.metrics.features._INCEPTION_SHA256_PREFIX"
    monkeypatch.setattr(prefix, extractor.weights_sha256[:8])
    assert metric_name(InceptionFeatures().name, "train") == "fid_to_train"


def test_missing_inception_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth: download https"):
        InceptionFeatures(str(tmp_path / "nowhere.pth"))


@pytest.mark.parametrize("content", [b"", b"not a torch file", {"weight": torch.zeros(3)}, [1, 2]])
def test_wrong_inception_weights(tmp_path, content):
    path = tmp_path / "wrong.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=r"wrong\.pth does not hold the weights"):
        InceptionFeatures(str(path))


def test_weights_are_downloaded_to_where_pytorch_fid_keeps_them(empty_hub, monkeypatch):
    requests = []

    def download(url, destination, hash_prefix):
        requests.append((url, destination, hash_prefix))
        Path(destination).write_bytes(b"broken")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(ValueError, match="does not hold the weights"):
        InceptionFeatures()
    prefix = WEIGHTS_NAME.removesuffix(".pth").rsplit("-", 1)[1]
    assert requests == [(inception.FID_WEIGHTS_URL, str(empty_hub / "checkpoints" / WEIGHTS_NAME), prefix)]


def test_a_failed_download_says_what_to_do(empty_hub, monkeypatch):
    def download(url, destination, hash_prefix):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(InceptionDownloadError, match=r"cannot download https.*no network"):
        InceptionFeatures()


def test_features_have_the_name_of_their_networks_width():
    for name, width in FEATURE_WIDTHS.items():
        features = ConvNetFeatures(FeatureNetwork(3, 5, width))
        assert (features.name, features.width) == (name, width)
        assert features(random_bytes(2, 16, 16, 3)).shape == (2, width)
    with pytest.raises(ValueError, match="got 64"):
        ConvNetFeatures(FeatureNetwork(3, 5, 64))
