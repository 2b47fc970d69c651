"""The Fréchet distance between two sets of features, each seen as a Gaussian (Heusel et al., 2017)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from spatial_functa_pipeline.metrics.intervals import Estimate, variance_of_contributions


class FeatureMoments:
    """Mean and covariance of features that arrive in batches: N, Σx and Σxxᵀ in float64 on the CPU.

    Args:
        width: number F of features of one image.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self._sum = torch.zeros(width, dtype=torch.float64)
        self._outer = torch.zeros(width, width, dtype=torch.float64)
        self._principal: tuple[Tensor, Tensor] | None = None

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
        self._principal = None
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
        """Symmetric square root `(F, F)` of the covariance; eigenvalues that rounding made negative count as 0."""
        deviations, vectors = self._axes()
        return vectors * deviations @ vectors.T

    def inverse_root(self) -> Tensor:
        """The inverse `(F, F)` of `covariance_root`; 0 along axes that the features do not vary on, but for rounding."""
        deviations, vectors = self._axes()
        varied = deviations > deviations.max() * (self.width * torch.finfo(torch.float64).eps) ** 0.5
        return vectors * torch.where(varied, deviations.reciprocal(), 0.0) @ vectors.T

    def _axes(self) -> tuple[Tensor, Tensor]:
        """Standard deviation `(F,)` along each principal axis, and the axes `(F, F)`, one a column.

        They are kept: for 2048 features they take seconds, and one set is compared with several.
        """
        if self._principal is None:
            variances, vectors = torch.linalg.eigh(self.covariance())
            self._principal = variances.clamp_min(0).sqrt(), vectors
        return self._principal

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
    return _distance(a, b, torch.linalg.svdvals(_product_of_roots(a, b)))


def frechet_estimate(a: FeatureMoments, b: FeatureMoments, some_of_a: Tensor, some_of_b: Tensor) -> Estimate:
    """The distance with its variance, from what each of `some_of_a (n, F)` and `some_of_b (m, F)` contributes to it.

    The variance is too large where the distance is hardly more than that of two sets of one kind: twice there, and by a tenth
    at three times that distance. So an interval is rather too wide.
    """
    left, singular, right = torch.linalg.svd(_product_of_roots(a, b))
    sides = (
        (_contributions(a, b, some_of_a, left * singular.sqrt()), a.count),
        (_contributions(b, a, some_of_b, right.T * singular.sqrt()), b.count),
    )
    return Estimate(_distance(a, b, singular), variance_of_contributions(*sides))


def _product_of_roots(a: FeatureMoments, b: FeatureMoments) -> Tensor:
    """√Σ_a √Σ_b `(F, F)`."""
    if a.width != b.width:
        raise ValueError(f"features must be of one kind, got widths {a.width} and {b.width}")
    return a.covariance_root() @ b.covariance_root()


def _distance(a: FeatureMoments, b: FeatureMoments, singular: Tensor) -> float:
    means = (a.mean() - b.mean()).square().sum()
    return max(0.0, (means + a.covariance().trace() + b.covariance().trace() - 2 * singular.sum()).item())


def _contributions(of: FeatureMoments, to: FeatureMoments, features: Tensor, root: Tensor) -> Tensor:
    """Derivative of the distance by the weight of each row of `features (n, F)`, up to a constant: `(n,)`.

    It is 2 c·(μ_of − μ_to) + cᵀ (1 − T) c for c = x − μ_of and T = Σ_of^-½ (√Σ_of Σ_to √Σ_of)^½ Σ_of^-½, which is the linear
    map from one Gaussian to the other. With the singular vectors and values U and S of √Σ_of √Σ_to, the middle is U S Uᵀ, and
    `root` is U √S.
    """
    centred = features.double() - of.mean()
    mapped = centred @ of.inverse_root() @ root
    return 2 * centred @ (of.mean() - to.mean()) + centred.square().sum(dim=1) - mapped.square().sum(dim=1)
