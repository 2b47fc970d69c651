"""The Fréchet distance between two sets of features, each seen as a Gaussian (Heusel et al., 2017)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class FeatureMoments:
    """Mean and covariance of features that arrive in batches: N, Σx and Σxxᵀ in float64 on the CPU.

    Args:
        width: number F of features of one image.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self._sum = torch.zeros(width, dtype=torch.float64)
        self._outer = torch.zeros(width, width, dtype=torch.float64)
        self._root: Tensor | None = None

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> FeatureMoments:
        """The moments that `tensors` has taken apart."""
        moments = cls(len(tensors["sum"]))
        moments.count = int(tensors["count"])
        moments._sum, moments._outer = tensors["sum"].clone(), tensors["outer"].clone()
        return moments

    def tensors(self) -> dict[str, Tensor]:
        """`count ()` int64, `sum (F,)` and `outer (F, F)` float64, to be stored."""
        return {"count": torch.tensor(self.count), "sum": self._sum, "outer": self._outer}

    @property
    def width(self) -> int:
        """Number F of features."""
        return len(self._sum)

    def update(self, features: Tensor) -> None:
        """Add the rows of `(B, F)`. Raises ValueError for another shape or a value that is not finite."""
        if features.ndim != 2 or features.shape[1] != self.width:
            raise ValueError(f"expected features of shape (B, {self.width}), got {tuple(features.shape)}")
        if not features.isfinite().all():
            raise ValueError("features contain NaN or infinity: the images or the feature network have diverged")
        # To the CPU first: some accelerators have no float64.
        rows = features.detach().cpu().double()
        self._root = None
        self.count += len(rows)
        self._sum += rows.sum(dim=0)
        self._outer += rows.T @ rows

    def mean(self) -> Tensor:
        """Mean `(F,)`. Raises ValueError without samples."""
        self._require(1)
        return self._sum / self.count

    def covariance(self) -> Tensor:
        """Unbiased covariance `(F, F)`, divided by N − 1 as in numpy.cov. Raises ValueError below two samples."""
        self._require(2)
        return (self._outer - torch.outer(self._sum, self._sum) / self.count) / (self.count - 1)

    def covariance_root(self) -> Tensor:
        """Symmetric square root `(F, F)` of the covariance; eigenvalues that rounding made negative count as 0.

        It is kept: for 2048 features it takes seconds, and one set is compared with several.
        """
        if self._root is None:
            eigenvalues, vectors = torch.linalg.eigh(self.covariance())
            self._root = vectors * eigenvalues.clamp_min(0).sqrt() @ vectors.T
        return self._root

    def _require(self, samples: int) -> None:
        if self.count < samples:
            raise ValueError(f"needs features of at least {samples} images, got {self.count}")


def frechet_distance(a: FeatureMoments, b: FeatureMoments) -> float:
    """Squared Fréchet distance |μ_a − μ_b|² + Tr(Σ_a + Σ_b − 2√(Σ_a Σ_b)); it is symmetric, and ≥ 0.

    The last trace is the nuclear norm of √Σ_a √Σ_b, whose square (√Σ_a √Σ_b)(√Σ_a √Σ_b)ᵀ = √Σ_a Σ_b √Σ_a has the
    eigenvalues of Σ_a Σ_b. Singular values are accurate to rounding where covariances are of deficient rank (fewer
    images than features); the square root of the product's own eigenvalues would enlarge 1e-16 to 1e-8 for each.

    It depends strongly on N: compare only distances of equal numbers of images. Raises ValueError if the widths
    differ or a side has fewer than two samples.
    """
    if a.width != b.width:
        raise ValueError(f"features must be of one kind, got widths {a.width} and {b.width}")
    covariance_a, covariance_b = a.covariance(), b.covariance()
    means = (a.mean() - b.mean()).square().sum()
    shared = torch.linalg.svdvals(a.covariance_root() @ b.covariance_root()).sum()
    return max(0.0, (means + covariance_a.trace() + covariance_b.trace() - 2 * shared).item())
