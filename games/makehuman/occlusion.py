"""Ambient occlusion: how much of the sky each vertex of the neutral head sees. Baked once, it follows the vertices."""

from typing import NamedTuple

import numpy as np

from games.makehuman.data import EYE, SKIN
from games.makehuman.raster import depth_map
from games.makehuman.rig import Surface

_DIRECTIONS, _SIZE, _EXTENT = 64, 160, 1.75
_CENTRE = np.array([0, 7.05, 0.45])
_BIAS = 0.025  #: decimetres


def bake_occlusion(surface: Surface) -> np.ndarray:
    """(N,) float32 in [0, 1]: the share of directions that are free, weighted by the cosine to the normal."""
    normals = surface.mesh.normals(surface.rest).astype(np.float64)
    corners = surface.solid[(surface.kind == SKIN) | (surface.kind == EYE)]
    free, total = np.zeros(len(normals)), np.full(len(normals), 1e-6)
    for direction in sphere(_DIRECTIONS):
        *points, depth = along(direction, size=_SIZE, centre=_CENTRE, extent=_EXTENT)(surface.rest.T)
        covered = depth_map(np.array(points), depth, corners, size=_SIZE)
        column, row = np.round(points).astype(int).clip(0, _SIZE - 1)
        weight = np.maximum(normals @ direction, 0)
        free += weight * (depth < covered[row, column] + _BIAS)
        total += weight
    return np.clip(free / total, 0, 1).astype(np.float32)


def sphere(count: int) -> np.ndarray:
    """(count, 3) directions spread evenly over the sphere (a Fibonacci lattice)."""
    z = 1 - (2 * np.arange(count) + 1) / count
    turn = np.arange(count) * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - z * z)
    return np.stack([radius * np.cos(turn), z, radius * np.sin(turn)], 1)


class Projection(NamedTuple):
    """A viewer far off: what is x and y in pixels, and the depth, of a place."""

    matrix: np.ndarray  #: (3, 3) float32
    shift: np.ndarray  #: (3, 1) float32

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """(3, N) float32 columns, rows and depths, smaller nearer, of positions (3, N)."""
        return self.matrix @ positions + self.shift


def along(direction: np.ndarray, *, size: int, centre: np.ndarray, extent: float) -> Projection:
    """How a viewer in a direction (3,) sees positions: in a picture of size² pixels, ±extent around a centre (3,)."""
    side = np.cross((0.02, 1, 0.01), direction)
    side /= np.linalg.norm(side)
    up = np.cross(direction, side)
    scale = size / (2 * extent)
    matrix = np.stack([side * scale, up * -scale, -direction])
    shift = np.array([size / 2, size / 2, 0]) - matrix @ centre
    return Projection(matrix.astype(np.float32), shift[:, None].astype(np.float32))
