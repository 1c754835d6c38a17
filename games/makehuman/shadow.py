"""Shadows that the key light of a photo casts: a depth map of the head as the light sees it."""

from collections.abc import Sequence
from typing import NamedTuple, Self

import cv2
import numpy as np

from games.makehuman.looks import Look
from games.makehuman.occlusion import Projection, along
from games.makehuman.raster import depth_map
from games.makehuman.rig import Rig

_SIZE, _EXTENT = 96, 1.35
_CENTRE = np.array([0, 0.25, 0.55])  #: from the pivot, in the camera's axes
_BIAS, _SOFTNESS = 0.03, 0.06  #: decimetres


class ShadowMap(NamedTuple):
    """The nearest surface to a light, in the camera's axes."""

    depth: np.ndarray  #: (S, S) float32
    seen: Projection  #: how the light sees a place

    @classmethod
    def cast(cls, turned: np.ndarray, look: Look, rig: Rig) -> Self | None:
        """The map of a turned coarse head (3, V), or None where the look has no shadows."""
        if look.key.shadow <= 0:
            return None
        corners = rig.coarse_skin
        seen = along(look.key.direction, size=_SIZE, centre=_CENTRE, extent=_EXTENT)
        places = seen(turned)
        nearest = depth_map(places[:2], places[2], corners, size=_SIZE)
        far = np.float32(places[2].max() + 1)
        return cls(cv2.GaussianBlur(np.minimum(nearest, far), (0, 0), 0.6), seen)

    def lit(self, positions: np.ndarray) -> np.ndarray:
        """(N,) float32 how much of the light reaches positions (3, N) in the camera's axes: 0 … 1."""
        x, y, depth = self.seen(positions)
        (covered,) = remap_list([self.depth], x, y)
        covered = covered.ravel()[: len(x)]
        return np.clip(1 - (depth - covered - _BIAS) / _SOFTNESS, 0, 1)


def remap_list(pictures: Sequence[np.ndarray], x: np.ndarray, y: np.ndarray, *, wrap: bool = False) -> list[np.ndarray]:
    """Read pictures (H, W) or (H, W, C) at a list of places x, y, each (N,), linearly.

    Returns:
        (rows, 512) or (rows, 512, C) of each, row by row, what is behind the first N to be left out.
    """
    width = 512  # OpenCV takes no row of more than 32,767
    rows = -(-len(x) // width)
    flat = np.zeros((2, rows * width), np.float32)
    flat[0, : len(x)], flat[1, : len(x)] = x, y
    border = cv2.BORDER_WRAP if wrap else cv2.BORDER_REPLICATE
    maps = flat.reshape(2, rows, width)
    return [cv2.remap(picture, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=border) for picture in pictures]
