"""The objective of stage 1: KL, squared error, LPIPS, a Laplacian pyramid, and where in a picture errors count."""

import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.vae import VAEOutput, kl_divergence
from utils.alignment import TEMPLATE, TEMPLATE_SIZE
from utils.config import VAEConfig
from utils.errors import UserError

#: Levels of the Laplacian pyramid.
_LEVELS = 4


class VAEObjective(nn.Module):
    """Σ weight · term over the terms whose weight is not 0.

    Args:
        image_size: side S of the pictures.
        settings: of the configuration: the weights of the terms, and `feature_weight`.

    Raises:
        UserError: `lpips_weight` is not 0 and the weights of LPIPS cannot be had.
    """

    pixel_weights: Tensor

    def __init__(self, image_size: int, settings: VAEConfig) -> None:
        super().__init__()
        self.weights = {
            "kl": settings.kl_weight,
            "mse": settings.mse_weight,
            "lpips": settings.lpips_weight,
            "pyramid": settings.pyramid_weight,
        }
        self.lpips = LPIPS() if settings.lpips_weight else None
        pixel_weights = feature_weights(image_size, settings.feature_weight)
        self.register_buffer("pixel_weights", pixel_weights, persistent=False)

    def terms(self, output: VAEOutput, pictures: Tensor) -> dict[str, Tensor]:
        """The terms, unweighted: KL summed over dimensions and averaged over faces, the others means.

        Args:
            output: of the VAE for the pictures.
            pictures: (N, 3, S, S) in [0, 1].
        """
        terms = {
            "kl": kl_divergence(output.mu, output.logvar).sum(1).mean(),
            "mse": ((output.reconstruction - pictures).square() * self.pixel_weights).mean(),
        }
        if self.lpips is not None:
            terms["lpips"] = self.lpips(pictures, output.reconstruction)
        if self.weights["pyramid"]:
            terms["pyramid"] = laplacian_pyramid_distance(pictures, output.reconstruction, self.pixel_weights)
        return terms

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The objective, a scalar."""
        total = torch.zeros((), device=self.pixel_weights.device)
        for name, term in terms.items():
            total = total + self.weights[name] * term
        return total


class LPIPS(nn.Module):
    """Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018.

    The package `lpips` brings the learned weights of the distance; torchvision fetches those of the
    backbone (VGG16, 528 MB) once into torch's cache.

    Raises:
        UserError: the backbone's weights are not in the cache and cannot be fetched.
    """

    def __init__(self) -> None:
        super().__init__()
        import lpips  # here, as it takes a second to import and most runs do without

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.distance = lpips.LPIPS(net="vgg", verbose=False)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"LPIPS needs the ImageNet weights of its backbone VGG16, and they cannot be had: {error}. "
                f"Put the file that torchvision names into {torch.hub.get_dir()}/checkpoints on this machine, or "
                "switch the term off with --set vae.lpips_weight=0."
            ) from None
        self.eval().requires_grad_(False)

    def forward(self, pictures: Tensor, reconstructions: Tensor) -> Tensor:
        """Mean distance of (N, 3, H, W) pictures in [0, 1], a scalar ≥ 0. H and W are at least 32."""
        return self.distance(reconstructions * 2 - 1, pictures * 2 - 1).mean()


def feature_weights(size: int, weight: float) -> Tensor:
    """How much each pixel of an aligned picture counts: (1, 1, size, size) float32 with mean 1.

    Alignment puts the eyes, the nose and the mouth of every face at the template's points. Around these, pixels count
    `weight` times as much as far from them, falling off like a Gaussian with a standard deviation of a twelfth of the
    picture. The weights are the same for all pictures: no picture's own landmarks are looked at.
    """
    points = torch.from_numpy(TEMPLATE).float() * (size / TEMPLATE_SIZE)
    middle_of_mouth = points[3:].mean(0, keepdim=True)
    points = torch.cat([points, middle_of_mouth])

    at = torch.arange(size) + 0.5
    square = (at - points[:, 0, None])[:, None, :] ** 2 + (at - points[:, 1, None])[:, :, None] ** 2
    near = torch.exp(-square / (2 * (size / 12) ** 2)).amax(0)
    weights = 1 + (weight - 1) * near
    return (weights / weights.mean())[None, None]


def laplacian_pyramid_distance(pictures: Tensor, reconstructions: Tensor, weights: Tensor) -> Tensor:
    """Mean over four levels of the L1 distance between Laplacian pyramids (Burt & Adelson, 1983), a scalar.

    Every level counts alike, so a fine feature that covers few pixels is not lost among large areas.

    Args:
        pictures, reconstructions: (N, 3, H, W); H and W divisible by 8.
        weights: (1, 1, H, W), how much each pixel counts.
    """
    # The pyramid is linear: the pyramid of the difference is the difference of the pyramids.
    difference = pictures - reconstructions
    total = difference.new_zeros(())
    for _ in range(_LEVELS - 1):
        coarse = F.avg_pool2d(difference, 2)
        detail = difference - F.interpolate(coarse, scale_factor=2, mode="nearest")
        total = total + (detail.abs() * weights).mean()
        difference, weights = coarse, F.avg_pool2d(weights, 2)
    return (total + (difference.abs() * weights).mean()) / _LEVELS
