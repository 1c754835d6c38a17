"""Distances between pictures beyond the pixel: LPIPS, a Laplacian pyramid, and where in a picture they count."""

import functools
import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utils.alignment import TEMPLATE, TEMPLATE_SIZE
from utils.errors import UserError


class LPIPS(nn.Module):
    """Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018.

    The package `lpips` brings the learned weights of the distance; torchvision fetches those of the
    backbone (VGG16, 528 MB) once into torch's cache.

    Raises:
        UserError: the backbone's weights are not in the cache and cannot be fetched.
    """

    def __init__(self, backbone: str = "vgg") -> None:
        super().__init__()
        import lpips  # here, as it takes a second to import and most runs do without

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.distance = lpips.LPIPS(net=backbone, verbose=False)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"LPIPS needs the ImageNet weights of its backbone ({backbone}), and they cannot be had: {error}. "
                f"Put the file that torchvision names into {torch.hub.get_dir()}/checkpoints on this machine, or "
                "switch the term off with --set vae.lpips_weight=0.") from None
        self.eval().requires_grad_(False)

    def forward(self, pictures: Tensor, reconstructions: Tensor) -> Tensor:
        """Mean distance of (N, 3, H, W) pictures in [0, 1], a scalar ≥ 0. H and W are at least 32."""
        return self.distance(reconstructions * 2 - 1, pictures * 2 - 1).mean()


@functools.cache
@torch.inference_mode(False)  # what evaluation asks for first, training may use
def feature_weights(size: int, weight: float, device: torch.device | None = None) -> Tensor:
    """How much each place of an aligned picture counts: (1, 1, size, size) float32 with mean 1.

    Alignment puts the eyes, the nose and the mouth of every face at the template's points; around these, Gaussian
    with a standard deviation of a twelfth of the picture, places count `weight` times as much as far from them.
    The same for all pictures: no picture's own landmarks are looked at.
    """
    points = torch.from_numpy(TEMPLATE).float() * (size / TEMPLATE_SIZE)
    points = torch.cat([points, points[3:].mean(0, keepdim=True)])  # the middle of the mouth as well
    at = torch.arange(size) + 0.5
    square = (at - points[:, 0, None])[:, None, :] ** 2 + (at - points[:, 1, None])[:, :, None] ** 2
    near = torch.exp(-square / (2 * (size / 12) ** 2)).amax(0)
    weights = 1 + (weight - 1) * near
    return (weights / weights.mean())[None, None].to(device)


def laplacian_pyramid_distance(pictures: Tensor, reconstructions: Tensor, weights: Tensor, levels: int = 4) -> Tensor:
    """Mean over levels of the L1 distance between Laplacian pyramids (Burt & Adelson, 1983), a scalar.

    Every level counts alike, so a fine feature that covers few pixels is not lost among large areas.

    Args:
        pictures, reconstructions: (N, 3, H, W); H and W divisible by 2^(levels − 1).
        weights: (1, 1, H, W), how much each place counts.
    """
    difference = pictures - reconstructions  # the pyramid is linear: that of the difference is the difference of two
    total = difference.new_zeros(())
    for _ in range(levels - 1):
        coarse = F.avg_pool2d(difference, 2)
        total = total + ((difference - F.interpolate(coarse, scale_factor=2, mode="nearest")).abs() * weights).mean()
        difference, weights = coarse, F.avg_pool2d(weights, 2)
    return (total + (difference.abs() * weights).mean()) / levels
