"""The convolutional VAE of stage 1.

Kingma & Welling, "Auto-Encoding Variational Bayes", 2014. The encoder gives mu and logvar of a
Gaussian over latents, the decoder a picture from one latent. Depth follows from the image size:
every stage halves (doubles) the side, between the image and the bottleneck (4×4 in the original).
The latent is either a vector, made by a linear layer of the whole bottleneck, or spatial: a few
numbers for each place of the bottleneck, flattened. Either way it is (N, latent_dim).
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

#: logvar is kept in this range: exp() of it stays finite in half precision, and no gradient is lost inside.
LOGVAR_RANGE = (-14.0, 8.0)


def stage_count(image_size: int, bottleneck: int = 4) -> int:
    """Number of stages between a picture of `image_size` (a power of two, 32 to 256) and the bottleneck's side."""
    if image_size not in (32, 64, 128, 256):
        raise ValueError(f"image_size is {image_size}; expected 32, 64, 128 or 256")
    return (image_size // bottleneck).bit_length() - 1


def _normalisation(kind: str, channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    groups = next(g for g in (16, 8, 4, 2, 1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


class ResidualConv(nn.Module):
    """x + ReLU(norm(conv3×3(x))): (N, C, H, W) → the same shape."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = _normalisation(norm, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.relu(self.norm(self.conv(x)))


class DownStage(nn.Module):
    """Strided convolution, normalisation, ReLU, residual convolution: (N, C, H, W) → (N, C', H/2, W/2)."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, norm: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride=2, padding=(kernel - 1) // 2, bias=False)
        self.norm = _normalisation(norm, channels_out)
        self.residual = ResidualConv(channels_out, norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.residual(F.relu(self.norm(self.conv(x))))


class UpStage(nn.Module):
    """Transposed convolution, normalisation, ReLU, residual convolution: (N, C, H, W) → (N, C', 2H, 2W)."""

    def __init__(self, channels_in: int, channels_out: int, norm: str) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=1, bias=False)
        self.norm = _normalisation(norm, channels_out)
        self.residual = ResidualConv(channels_out, norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.residual(F.relu(self.norm(self.conv(x))))


class Encoder(nn.Module):
    """(N, 3, S, S) pictures in [0, 1] → mu and logvar, (N, latent_dim) each.

    Args:
        image_size: S, a power of two from 32 to 256.
        channels: width of each stage, as many as `stage_count(image_size, bottleneck)`. The first
            kernels are 7, 5 and 4, all later ones 3.
        latent_dim: dimensions of the latent.
        norm: "batch" or "group".
        bottleneck: side of the last feature maps.
        spatial: the latent holds latent_dim / bottleneck² numbers for each place of the bottleneck.
    """

    def __init__(self, image_size: int, channels: tuple[int, ...], latent_dim: int, norm: str = "batch",
                 bottleneck: int = 4, spatial: bool = False) -> None:
        super().__init__()
        _check_widths(image_size, channels, bottleneck)
        kernels = (7, 5, 4) + (3,) * len(channels)
        widths = (3, *channels)
        self.stages = nn.Sequential(*(DownStage(i, o, k, norm) for i, o, k in zip(widths, channels, kernels)))
        self.spatial = spatial
        self.head: nn.Module = (nn.Conv2d(channels[-1], 2 * _places(latent_dim, bottleneck), 1) if spatial
                                else nn.Linear(channels[-1] * bottleneck ** 2, 2 * latent_dim))

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        # Weights of lower precision take their pictures so too, but only after they are scaled.
        features = self.stages((pictures * 2 - 1).to(self.head.weight.dtype))
        if not self.spatial:
            features = features.flatten(1)
        mu, logvar = self.head(features).float().chunk(2, 1)
        return mu.flatten(1), logvar.flatten(1).clamp(*LOGVAR_RANGE)


class Decoder(nn.Module):
    """(N, latent_dim) latents → (N, 3, S, S) pictures in [0, 1]. See `Encoder` for the arguments."""

    def __init__(self, image_size: int, channels: tuple[int, ...], latent_dim: int, norm: str = "batch",
                 bottleneck: int = 4, spatial: bool = False) -> None:
        super().__init__()
        _check_widths(image_size, channels, bottleneck)
        first = max(channels)
        self.spatial, self.bottleneck = spatial, bottleneck
        self.project: nn.Module = (nn.Conv2d(_places(latent_dim, bottleneck), first, 1) if spatial
                                   else nn.Linear(latent_dim, first * bottleneck ** 2))
        widths = (first, *channels)
        self.stages = nn.Sequential(*(UpStage(i, o, norm) for i, o in zip(widths, channels)))
        last = channels[-1]
        self.to_rgb = nn.Sequential(nn.Conv2d(last, last, 3, padding=1), nn.ReLU(), nn.Conv2d(last, 3, 1))

    def forward(self, latents: Tensor) -> Tensor:
        side = self.bottleneck
        if self.spatial:
            latents = latents.unflatten(1, (-1, side, side))
        features = F.relu(self.project(latents))
        if not self.spatial:
            features = features.unflatten(1, (-1, side, side))
        return torch.sigmoid(self.to_rgb(self.stages(features)).float())


class VAEOutput(NamedTuple):
    reconstruction: Tensor  #: (N, 3, S, S) in [0, 1]
    mu: Tensor              #: (N, latent_dim)
    logvar: Tensor          #: (N, latent_dim)


class VAE(nn.Module):
    """Encoder, reparameterisation, decoder. See `Encoder` and `Decoder` for the arguments."""

    def __init__(self, image_size: int, encoder_channels: tuple[int, ...], decoder_channels: tuple[int, ...],
                 latent_dim: int, norm: str = "batch", bottleneck: int = 4, spatial: bool = False) -> None:
        super().__init__()
        self.image_size, self.latent_dim = image_size, latent_dim
        self.encoder = Encoder(image_size, encoder_channels, latent_dim, norm, bottleneck, spatial)
        self.decoder = Decoder(image_size, decoder_channels, latent_dim, norm, bottleneck, spatial)

    def forward(self, pictures: Tensor, noise: Tensor | None = None) -> VAEOutput:
        """Reconstruct pictures (N, 3, S, S) in [0, 1] from a draw of their posterior.

        Args:
            noise: (N, latent_dim) standard normal; None reconstructs from mu.
        """
        mu, logvar = self.encoder(pictures)
        latents = mu if noise is None else reparameterise(mu, logvar, noise)
        return VAEOutput(self.decoder(latents), mu, logvar)


def reparameterise(mu: Tensor, logvar: Tensor, noise: Tensor) -> Tensor:
    """mu + exp(logvar / 2) · noise: a draw from N(mu, exp(logvar)) for standard normal noise (ibid., 2.4)."""
    return mu + torch.exp(0.5 * logvar) * noise


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL(N(mu, exp(logvar)) ‖ N(0, 1)) of each dimension, in nats (ibid., appendix B).

    Args:
        mu, logvar: (N, D).

    Returns:
        (N, D), each ½ (mu² + exp(logvar) − 1 − logvar) ≥ 0.
    """
    return 0.5 * (mu.square() + logvar.exp() - 1 - logvar)


class LatentPrior(nn.Module):
    """A normal distribution fitted to the latents that faces are given: what to draw new faces from.

    Training pulls each posterior towards N(0, 1), dimension by dimension; how dimensions go together, across the places of a
    spatial latent above all, only their joint distribution tells. Fitting it afterwards instead of drawing from N(0, 1) is
    "ex-post density estimation" (Ghosh et al., 2020, 4.1). Mean and covariance are moving averages over the last few
    thousand faces, those of the aggregated posterior: Cov(mu) + E[diag(exp(logvar))].
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(latent_dim))
        self.register_buffer("covariance", torch.eye(latent_dim))

    @torch.no_grad()
    def update(self, mu: Tensor, logvar: Tensor) -> None:
        """Move the averages towards a batch (N, D). Ten faces a dimension count as much as all before them."""
        share = min(0.1, len(mu) / (10 * mu.shape[1]))
        apart = mu - self.mean
        seen = apart.T @ apart / len(mu)
        seen.diagonal().add_(logvar.exp().mean(0))
        self.covariance.lerp_(seen, share)
        self.mean.lerp_(mu.mean(0), share)

    def draw(self, noise: Tensor) -> Tensor:
        """Latents (N, D) of standard normal noise (N, D)."""
        return self.mean + noise @ self._factor().float().T

    def divergence(self) -> Callable[[Tensor, Tensor], Tensor]:
        """KL(N(mu, exp(logvar)) ‖ this) in nats as a function (N, D), (N, D) → (N,): the rate of a code that knows this distribution.

        A function, as what all faces share takes longest and is computed once.
        """
        factor = self._factor()
        precision, half_log_determinant = torch.cholesky_inverse(factor).float(), factor.diagonal().log().sum()

        def kl(mu: Tensor, logvar: Tensor) -> Tensor:
            apart = mu - self.mean
            squares = (apart @ precision * apart).sum(1) + logvar.exp() @ precision.diagonal()
            return 0.5 * (squares - mu.shape[1] - logvar.sum(1)) + half_log_determinant

        return kl

    def _factor(self) -> Tensor:
        eye = torch.eye(len(self.mean), dtype=torch.float64, device=self.mean.device)
        return torch.linalg.cholesky(self.covariance.double() + 1e-6 * eye)


def fold_batch_norm(encoder: Encoder) -> Encoder:
    """A copy of an encoder in evaluation whose batch normalisations are folded into their convolutions."""
    folded = copy.deepcopy(encoder).eval()
    for module in folded.modules():
        if isinstance(getattr(module, "norm", None), nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()
    return folded


def _check_widths(image_size: int, channels: tuple[int, ...], bottleneck: int) -> None:
    stages = stage_count(image_size, bottleneck)
    if len(channels) != stages:
        raise ValueError(f"{len(channels)} channel widths for image_size {image_size}; expected {stages}, "
                         f"one for each halving down to {bottleneck}×{bottleneck}")


def _places(latent_dim: int, bottleneck: int) -> int:
    """Numbers of a spatial latent at each place of the bottleneck."""
    if latent_dim % bottleneck ** 2:
        raise ValueError(f"latent_dim is {latent_dim}; a spatial one is a multiple of {bottleneck ** 2}")
    return latent_dim // bottleneck ** 2
