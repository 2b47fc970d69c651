"""Feature extractors for the Fréchet distance and the other scores of generated images.

An extractor maps images `(B, H, W, channels)`, uint8 or floats in [0, 1], to features `(B, F)` in float32. Floats are
rounded to the 256 levels of an image file first, as FID does it: otherwise a smooth decoder could be told from its
training data by its missing quantisation alone.

pytorch-fid takes seconds to import, since torchvision does, so it is imported where it is used.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from unittest.mock import patch

import torch
from einops import rearrange
from torch import Tensor, nn

from spatial_functa_pipeline.images.pixels import unit_images

if TYPE_CHECKING:
    from pytorch_fid.inception import InceptionV3

INCEPTION = "inception"
FEATURE_WIDTHS = {"convnet": 128, "convnet_large": 256}
"""Number of features of each `FeatureNetwork`, by the name of its features."""
_INCEPTION_SHA256_PREFIX = "6726825d"  # part of the file name of pytorch-fid's weights


class InceptionDownloadError(RuntimeError):
    """The weights of pytorch-fid's Inception network cannot be downloaded."""


class FeatureExtractor(Protocol):
    """What the scores need to know of their features."""

    name: str
    width: int

    def __call__(self, images: Tensor) -> Tensor:
        """Features `(B, width)` in float32 of images `(B, H, W, channels)`."""
        ...


def metric_name(features: str, against: str, score: str = "frechet_distance", images: str | None = None) -> str:
    """The name under which a score (of `comparison.SCORES`) is reported, as in `fid_to_train`, `kid_convnet_to_test`.

    Args:
        features: its extractor's `name`. Only Inception features with pytorch-fid's weights make a Fréchet distance `fid`,
            and leave the other scores their bare names; others are part of the name.
        against: the real images that it is taken to, `train` or `test`. Every name says them.
        score: which one.
        images: what is scored, if it is not samples, as in `fid_reconstructions_to_test`.
    """
    plain = {"frechet_distance": "fid"}.get(score, score)
    named = plain if features == INCEPTION else f"{score}_{features}"
    return "_".join(filter(None, (named, images, "to", against)))


class FeatureNetwork(nn.Module):
    """Small convolutional classifier whose penultimate layer serves as features where Inception is out of reach.

    Three stages that halve the resolution, then the mean over the remaining positions, so that it takes images of any
    size. Batch normalisation: with group normalisation it learned more slowly (86.5 % against 89.7 % of Fashion-MNIST's
    test images after 1,000 steps of 64). It has running statistics, hence a training and an evaluation mode.

    Args:
        channels: of the images.
        num_classes: number of logits.
        width: F, number of features.
    """

    def __init__(self, channels: int, num_classes: int, width: int = FEATURE_WIDTHS["convnet"]) -> None:
        super().__init__()
        self.channels = channels
        self.num_classes = num_classes
        self.width = width
        self.stages = nn.Sequential(
            _convolution(channels, width // 4, stride=2),
            _convolution(width // 4, width // 2, stride=2),
            _convolution(width // 2, width // 2, stride=1),
            _convolution(width // 2, width, stride=2),
            _convolution(width, width, stride=1),
        )
        self.head = nn.Linear(width, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Features `(B, F)` of images `(B, H, W, channels)`. Raises ValueError for images of another shape."""
        x = _levels(images)  # (B, channels, H, W)
        if x.shape[1] != self.channels:
            raise ValueError(f"this feature network takes images with {self.channels} channels, got {x.shape[1]}")
        return self.stages(x).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, num_classes)` of images `(B, H, W, channels)`."""
        return self.head(self.features(images))


class ConvNetFeatures:
    """Features of a trained `FeatureNetwork`, which is put into evaluation mode and used on the device where it is.

    Raises ValueError for a network of a width that has no name in `FEATURE_WIDTHS`.
    """

    def __init__(self, network: FeatureNetwork) -> None:
        names = {width: name for name, width in FEATURE_WIDTHS.items()}
        if network.width not in names:
            raise ValueError(f"features have one of the widths {FEATURE_WIDTHS}, got {network.width}")
        self.network = network.eval()
        self.width = network.width
        self.name = names[network.width]

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Features `(B, F)` in float32 of images `(B, H, W, channels)`."""
        return self.network.features(images.to(self.network.head.weight.device)).float()


class InceptionFeatures:
    """The 2048 features of FID: pytorch-fid's InceptionV3, last average pooling.

    `name` is "inception" for pytorch-fid's own weights. Other weights of the same network are accepted, but their
    checksum becomes part of the name, so that a distance computed with them is never reported as FID.

    Args:
        weights: path of `pt_inception-2015-12-05-6726825d.pth`; None: pytorch-fid's download, kept in torch's hub cache.
        device: where the network runs.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file does not hold weights of this network.
        InceptionDownloadError: the download failed.
    """

    width = 2048

    def __init__(self, weights: str | None = None, device: torch.device | str = "cpu") -> None:
        path = inception_weights(weights)
        with path.open("rb") as file:
            self.weights_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        is_fid = self.weights_sha256.startswith(_INCEPTION_SHA256_PREFIX)
        self.name = INCEPTION if is_fid else f"{INCEPTION}_{self.weights_sha256[:8]}"
        self.device = torch.device(device)
        self.network = _inception(path).to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Features `(B, 2048)` in float32 of images `(B, H, W, 1 or 3)`; gray images are repeated to three channels."""
        x = _levels(images.to(self.device))
        if x.shape[1] not in (1, 3):
            raise ValueError(f"Inception features need images with 1 or 3 channels, got {x.shape[1]}")
        (features,) = self.network(x.expand(-1, 3, -1, -1))  # (B, 2048, 1, 1); the network resizes to 299×299
        return features.flatten(start_dim=1)


def inception_weights(path: str | None = None) -> Path:
    """The file of pytorch-fid's weights: `path`, or, without one, its download, which is kept in torch's hub cache.

    Raises:
        FileNotFoundError: there is no such file.
        InceptionDownloadError: the download failed.
    """
    from pytorch_fid.inception import FID_WEIGHTS_URL

    file = _downloaded_weights(FID_WEIGHTS_URL) if path is None else Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no Inception weights at {file}: download {FID_WEIGHTS_URL} to this path")
    return file


def _levels(images: Tensor) -> Tensor:
    """Images `(B, H, W, channels)` as float32 `(B, channels, H, W)` on the 256 levels k/255."""
    if images.ndim != 4:
        raise ValueError(f"features need two-dimensional images (B, H, W, channels), got shape {tuple(images.shape)}")
    levels = unit_images(images).clamp(0, 1).mul(255).round().div(255)
    return rearrange(levels.float(), "b h w c -> b c h w")


def _convolution(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    """A normalised and rectified convolution: `(B, channels_in, H, W)` to `(B, channels_out, H/stride, W/stride)`."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


def _inception(weights: Path) -> InceptionV3:
    """pytorch-fid's network with the weights of a file."""
    from pytorch_fid import inception

    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        # pytorch-fid knows its own download only; the name it calls for that reads the given file instead.
        with patch.object(inception, "load_state_dict_from_url", lambda url, progress: state):
            return inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[InceptionFeatures.width]])
    except Exception as error:  # unpickling what is not a pickle may raise anything
        raise ValueError(
            f"{weights} does not hold the weights of pytorch-fid's Inception network: "
            f"replace it by {inception.FID_WEIGHTS_URL}"
        ) from error


def _downloaded_weights(url: str) -> Path:
    """Where pytorch-fid keeps its weights; downloaded and compared with their checksum if they are not there."""
    path = Path(torch.hub.get_dir(), "checkpoints", Path(url).name)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=_INCEPTION_SHA256_PREFIX)
        except (OSError, RuntimeError) as error:
            raise InceptionDownloadError(f"cannot download {url} ({error}): get it by other means") from error
    return path
