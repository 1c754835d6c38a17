"""What to draw new faces from: a normal distribution fitted to the latents."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from utils.device import Engine


class LatentPrior(nn.Module):
    """A normal distribution fitted to the latents that faces are given.

    Training pulls each posterior towards N(0, 1), one dimension at a time. How dimensions go together, across the
    positions of a spatial latent above all, only their joint distribution tells. Fitting it afterwards, instead of
    drawing from N(0, 1), is "ex-post density estimation" (Ghosh et al., 2020, 4.1). Mean and covariance are those of
    the aggregated posterior, Cov(mu) + E[diag(exp(logvar))], as moving averages over the last few thousand faces.
    """

    mean: Tensor
    covariance: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("covariance", torch.eye(latent_dim))

    @torch.no_grad()
    def update(self, mu: Tensor, logvar: Tensor, engine: Engine) -> None:
        """Move the averages towards a batch (N, D). The time constant is ten faces per latent dimension.

        Args:
            mu, logvar: (N, D) of this process's share of the batch.
            engine: of all processes that share it, so that their number does not matter.
        """
        weight = min(0.1, engine.world * len(mu) / (10 * mu.shape[1]))
        apart = mu - self.mean
        seen = apart.T @ apart / len(mu)
        seen.diagonal().add_(logvar.exp().mean(0))
        self.covariance.lerp_(engine.mean_over_processes(seen), weight)
        self.mean.lerp_(engine.mean_over_processes(mu.mean(0)), weight)

    def draw(self, noise: Tensor) -> Tensor:
        """Latents (N, D) of standard normal noise (N, D)."""
        return self.mean + noise @ self._factor().float().T

    def divergence(self) -> Callable[[Tensor, Tensor], Tensor]:
        """KL(N(mu, exp(logvar)) ‖ this) in nats, as a function (N, D), (N, D) → (N,).

        This is the rate of a code that knows the distribution. A function is returned because what all faces share
        takes longest and is computed once.
        """
        factor = self._factor()
        precision, half_log_determinant = torch.cholesky_inverse(factor).float(), factor.diagonal().log().sum()

        def kl(mu: Tensor, logvar: Tensor) -> Tensor:
            apart = mu - self.mean
            squares = (apart @ precision * apart).sum(1) + logvar.exp() @ precision.diagonal()
            return 0.5 * (squares - mu.shape[1] - logvar.sum(1)) + half_log_determinant

        return kl

    def _factor(self) -> Tensor:
        """The Cholesky factor (D, D) of the covariance, float64."""
        eye = torch.eye(len(self.mean), dtype=torch.float64, device=self.mean.device)
        return torch.linalg.cholesky(self.covariance.double() + 1e-6 * eye)
