"""Ambient occlusion: how much of the sky each vertex of the neutral head sees. Baked once, it follows the vertices."""

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
        points, depth = along(surface.rest, direction, size=_SIZE, centre=_CENTRE, extent=_EXTENT)
        covered = depth_map(points, depth, corners, size=_SIZE)
        column, row = np.round(points.T).astype(int).clip(0, _SIZE - 1)
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


def along(
    positions: np.ndarray, direction: np.ndarray, *, size: int, centre: np.ndarray, extent: float
) -> tuple[np.ndarray, np.ndarray]:
    """Positions (N, 3) as a viewer far off in `direction` sees them: (N, 2) pixels and (N,) depths, smaller nearer."""
    side = np.cross((0.02, 1, 0.01), direction)
    side /= np.linalg.norm(side)
    up = np.cross(direction, side)
    offset = positions - centre
    scale = size / (2 * extent)
    return np.stack([size / 2 + offset @ side * scale, size / 2 - offset @ up * scale], 1), -(offset @ direction)
