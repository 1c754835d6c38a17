"""Latents on one scale, as a regressor reads them."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

#: Rows that are brought to double precision at a time: a whole set would be twice its size.
_BLOCK = 8192


class Standardiser(nn.Module):
    """(N, 2·D) rows [mu | logvar] → (N, 2·D) standardised ones, by statistics of the training latents.

    The statistics are buffers, so a checkpoint is self-contained.

    Args:
        latent_dim: D.
        whitening: power p by which mu are decorrelated; 0 leaves them as they are.
    """

    mean: Tensor
    std: Tensor
    decorrelation: Tensor

    def __init__(self, latent_dim: int, whitening: float = 0.0) -> None:
        super().__init__()
        self.latent_dim, self.whitening = latent_dim, whitening
        self.register_buffer("mean", torch.zeros(2 * latent_dim))
        self.register_buffer("std", torch.ones(2 * latent_dim))
        if whitening:
            self.register_buffer("decorrelation", torch.eye(latent_dim))

    def fit(self, *sets: Tensor) -> None:
        """Take the statistics from the training latents.

        A mu is divided by the deviation of the latents drawn from it, √(var(mu) + mean(exp(logvar))): a dimension that
        the VAE does not use, whose mu hardly varies in its wide posterior, stays small instead of being blown up to
        noise.

        With `whitening` p the standardised mu are then turned to the principal axes of these drawn latents and scaled
        by variance⁻ᵖ along each axis. p = 0.5 is PCA whitening; a smaller p keeps strong axes stronger. Gradient
        descent learns such inputs faster (LeCun et al., "Efficient BackProp", 1998, 4.3).

        Args:
            sets: one or more (N, 2·D).
        """
        count = sum(map(len, sets))
        total = torch.zeros(2 * self.latent_dim, dtype=torch.float64, device=self.mean.device)
        for latents in sets:
            total += latents.sum(0, dtype=torch.float64)
        mean = total / count

        variance = torch.zeros_like(mean)
        for block in _blocks(sets):
            variance += (block - mean).square().sum(0) / count
            posterior = block[:, self.latent_dim :].exp().sum(0, dtype=torch.float64)
            variance[: self.latent_dim] += posterior / count
        std = variance.sqrt()

        self.mean.copy_(mean)
        self.std.copy_(torch.where(std < 1e-6 * (1 + mean.abs()), torch.ones_like(std), std))
        if self.whitening:
            self._fit_decorrelation(sets, count)

    def forward(self, latents: Tensor) -> Tensor:
        standardised = (latents - self.mean) / self.std
        if not self.whitening:
            return standardised
        mu, logvar = standardised.chunk(2, 1)
        decorrelated = (mu @ self.decorrelation).to(standardised.dtype)  # autocast multiplies in lower precision
        return torch.cat([decorrelated, logvar], 1)

    def distance(self, latents: Tensor) -> Tensor:
        """How far faces lie from those of training: (N, 2·D) → (N,), root mean square of standardised mu.

        About 1 or below for a face like those of training.
        """
        standardised = ((latents - self.mean) / self.std)[:, : self.latent_dim]
        return standardised.square().mean(1).sqrt()

    def _fit_decorrelation(self, sets: tuple[Tensor, ...], count: int) -> None:
        size = self.latent_dim
        covariance = torch.zeros(size, size, dtype=torch.float64, device=self.mean.device)
        for block in _blocks(sets):
            mu = ((block - self.mean) / self.std)[:, :size]
            covariance += mu.T @ mu / count
            drawn = block[:, size:].exp().mean(0) * len(block) / count
            covariance.diagonal().add_(drawn / self.std[:size].square())
        variances, axes = torch.linalg.eigh(covariance)
        self.decorrelation.copy_(axes * variances.clamp(min=1e-4) ** -self.whitening)


def _blocks(sets: tuple[Tensor, ...]) -> Iterator[Tensor]:
    return (block for latents in sets for block in latents.split(_BLOCK))
