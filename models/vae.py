"""The convolutional VAE of stage 1.

Kingma & Welling, "Auto-Encoding Variational Bayes", 2014. The encoder gives mu and logvar of a
Gaussian over latents, the decoder a picture from one latent. Depth follows from the image size:
every stage halves (doubles) the side, between the image and the bottleneck (4×4 in the original).
The latent is either a vector, made by a linear layer of the whole bottleneck, or spatial: a few
numbers for each position of the bottleneck, flattened. Either way it is (N, latent_dim).
"""

import copy
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from utils.config import VAEConfig

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
        settings: of the configuration: `encoder_channels`, `latent_dim`, `bottleneck`, `spatial`, `norm`. The first
            kernels are 7, 5 and 4, all later ones 3.

    Raises:
        ValueError: another number of channel widths than `stage_count(image_size, bottleneck)`.
    """

    def __init__(self, image_size: int, settings: VAEConfig) -> None:
        super().__init__()
        channels, side = settings.encoder_channels, settings.bottleneck
        _check_widths(image_size, channels, side)
        kernels = (7, 5, 4) + (3,) * len(channels)
        widths = (3, *channels)
        stages = []
        for channels_in, channels_out, kernel in zip(widths, channels, kernels, strict=False):
            stages.append(DownStage(channels_in, channels_out, kernel, settings.norm))
        self.stages = nn.Sequential(*stages)
        self.spatial = settings.spatial
        self.head: nn.Conv2d | nn.Linear
        if settings.spatial:
            self.head = nn.Conv2d(channels[-1], 2 * numbers_per_position(settings.latent_dim, side), 1)
        else:
            self.head = nn.Linear(channels[-1] * side**2, 2 * settings.latent_dim)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        # Pictures are scaled first, and then take the precision of the weights.
        features = self.stages((pictures * 2 - 1).to(self.head.weight.dtype))
        if not self.spatial:
            features = features.flatten(1)
        mu, logvar = self.head(features).float().chunk(2, 1)
        return mu.flatten(1), logvar.flatten(1).clamp(*LOGVAR_RANGE)


class Decoder(nn.Module):
    """(N, latent_dim) latents → (N, 3, S, S) pictures in [0, 1].

    Args:
        image_size: S, a power of two from 32 to 256.
        settings: of the configuration: `decoder_channels`, `latent_dim`, `bottleneck`, `spatial`, `norm`.

    Raises:
        ValueError: as `Encoder`.
    """

    def __init__(self, image_size: int, settings: VAEConfig) -> None:
        super().__init__()
        channels, side = settings.decoder_channels, settings.bottleneck
        _check_widths(image_size, channels, side)
        first, last = max(channels), channels[-1]
        self.spatial, self.bottleneck = settings.spatial, side
        self.project: nn.Module
        if settings.spatial:
            self.project = nn.Conv2d(numbers_per_position(settings.latent_dim, side), first, 1)
        else:
            self.project = nn.Linear(settings.latent_dim, first * side**2)
        stages = []
        for channels_in, channels_out in zip((first, *channels), channels, strict=False):
            stages.append(UpStage(channels_in, channels_out, settings.norm))
        self.stages = nn.Sequential(*stages)
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
    """What a VAE makes of a batch of N pictures."""

    reconstruction: Tensor  #: (N, 3, S, S) in [0, 1]
    mu: Tensor  #: (N, latent_dim)
    logvar: Tensor  #: (N, latent_dim)


class VAE(nn.Module):
    """Encoder, reparameterisation, decoder. See `Encoder` and `Decoder` for the arguments."""

    def __init__(self, image_size: int, settings: VAEConfig) -> None:
        super().__init__()
        self.image_size, self.latent_dim = image_size, settings.latent_dim
        self.encoder = Encoder(image_size, settings)
        self.decoder = Decoder(image_size, settings)

    def forward(self, pictures: Tensor, noise: Tensor | None = None) -> VAEOutput:
        """Reconstruct pictures from a draw of their posterior.

        Args:
            pictures: (N, 3, S, S) in [0, 1].
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


def noise_for(indices: Tensor, latent_dim: int, *, seed: int, epoch: int) -> Tensor:
    """Standard normal noise (B, latent_dim) for the faces of a batch, drawn by face and epoch.

    It depends neither on how faces are batched nor on how many processes share them.

    Args:
        indices: (B,) numbers of the faces.
    """
    noise = np.empty((len(indices), latent_dim), np.float32)
    for row, index in enumerate(indices.tolist()):
        generator = np.random.Generator(np.random.SFC64([seed, epoch, index]))
        noise[row] = generator.standard_normal(latent_dim, np.float32)
    return torch.from_numpy(noise)


def as_input(pictures: Tensor) -> Tensor:
    """(B, 3, S, S) uint8 → float32 in [0, 1], channels last, as the networks take it."""
    return pictures.to(torch.float32, memory_format=torch.channels_last) / 255


def fold_batch_norm(encoder: Encoder) -> Encoder:
    """A copy of an encoder in evaluation whose batch normalisations are folded into their convolutions."""
    folded = copy.deepcopy(encoder).eval()
    for module in folded.modules():
        if isinstance(module, DownStage | ResidualConv) and isinstance(module.norm, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()
    return folded


def numbers_per_position(latent_dim: int, bottleneck: int) -> int:
    """Numbers of a spatial latent for each position of the bottleneck. Raises ValueError where they do not divide."""
    if latent_dim % bottleneck**2:
        raise ValueError(f"latent_dim is {latent_dim}; a spatial one is a multiple of {bottleneck**2}")
    return latent_dim // bottleneck**2


def _check_widths(image_size: int, channels: tuple[int, ...], bottleneck: int) -> None:
    stages = stage_count(image_size, bottleneck)
    if len(channels) != stages:
        raise ValueError(
            f"{len(channels)} channel widths for image_size {image_size}; expected {stages}, "
            f"one for each halving down to {bottleneck}×{bottleneck}"
        )
