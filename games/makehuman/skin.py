"""What is painted on the skin: charts of brows, beard, scalp, wrinkles and make-up over the head without any target.

The chart is a cylinder around the head's axis: its columns are the angle from the middle of the face, its rows the
height. A vertex keeps its place in the chart whatever the sliders do, so what is painted follows every slider.
"""

from typing import NamedTuple

import cv2
import numpy as np

from games.makehuman.data import SKIN
from games.makehuman.raster import DepthBuffer, project
from games.makehuman.rig import Surface

_TOP, _BOTTOM, _AXIS = 8.6, 5.5, 0.25  #: decimetres: heights of the chart's edges, depth of its axis


class Charts(NamedTuple):
    """Painted masks, (H, 2H) uint8 with four channels each, 0 … 255 for 0 … 1 unless said otherwise."""

    hair: np.ndarray  #: across the brow (128 ± 127 for ±0.1 dm), along it, above the hairline (likewise ±0.4), temples
    tones: np.ndarray  #: beard, moustache, redness, shade around the eyes
    age: np.ndarray  #: eye shadow, creases, their slope to the right and upwards (128 ± 127)
    noise: np.ndarray  #: blotches, pores, freckles, strands; repeats in every direction
    relief: np.ndarray  #: slope of the pores to the right and upwards (128 ± 127), stubble, spare; repeats


def coordinates(rest: np.ndarray, *, height: int) -> np.ndarray:
    """(2, V) float32 columns and rows of rest positions (V, 3) in a chart of `height` rows."""
    angle = np.arctan2(rest[:, 0], rest[:, 2] - _AXIS)
    column = (angle / (2 * np.pi) + 0.5) * 2 * height - 0.5
    row = (_TOP - rest[:, 1]) / (_TOP - _BOTTOM) * height - 0.5
    return np.stack([column, row]).astype(np.float32)


def smoothstep(x: np.ndarray, low: float | np.ndarray, high: float | np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between; the other way round where high < low."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def paint(surface: Surface, *, height: int) -> Charts:
    """Paint the charts of a surface, `height` rows high."""
    x, y, z = _rest_chart(surface, height=height)
    s = np.abs(x)
    rng = np.random.default_rng(20)
    wrinkle = _wrinkles(s, y, z)
    down, right = np.gradient(cv2.GaussianBlur(wrinkle, (0, 0), 0.6 * height / 256))
    slope = 1.2 * height / 256
    pores = _noise(rng, height, across=0.8, along=0.8)
    pore_down, pore_right = np.gradient(pores)
    return Charts(
        hair=_packed(*_brow(s, y, z), 0.5 + hairline_distance(x, y, z) / 0.8, smoothstep(s, 0.30, 0.62)),
        tones=_packed(_beard(s, y, z), _moustache(s, y, z), _redness(s, y, z), _eye_shade(s, y, z)),
        age=_packed(_eye_shadow(s, y, z), wrinkle, 0.5 + right / slope, 0.5 - down / slope),
        noise=_packed(
            _noise(rng, height, across=height / 26, along=height / 26),
            pores,
            _freckles(rng, height),
            _noise(rng, height, across=0.7, along=height / 50),
        ),
        relief=_packed(0.5 + pore_right, 0.5 - pore_down, _noise(rng, height, across=0.6, along=0.9), pores),
    )


def _rest_chart(surface: Surface, *, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rest x, y, z, each (H, 2H) float32, of what the chart shows: the outermost skin."""
    corners = surface.solid[surface.kind == SKIN]
    points = coordinates(surface.rest, height=height)
    across = np.ptp(points[0, corners], axis=1)
    corners = corners[across < height]  # not those that the chart's edge cuts
    radius = np.hypot(surface.rest[:, 0], surface.rest[:, 2] - _AXIS)
    seen = project(points, corners, width=2 * height, height=height, both_sides=True)
    buffer = DepthBuffer(2 * height, height)
    buffer.draw(seen, -radius)
    owner = buffer.owner()

    # Interpolate where there is skin; elsewhere the place on a cylinder will do.
    rows, columns = np.divmod(np.arange(2 * height * height), 2 * height)
    angle = ((columns + 0.5) / (2 * height) - 0.5) * 2 * np.pi
    level = _TOP - (rows + 0.5) / height * (_TOP - _BOTTOM)
    place = np.stack([0.75 * np.sin(angle), level, _AXIS + 0.75 * np.cos(angle)], 1)
    filled = np.flatnonzero(owner >= 0)
    seen_there = owner[filled]
    row, column = np.divmod(filled, 2 * height)
    weights = seen.weights(seen_there, column.astype(np.float32), row.astype(np.float32))
    place[filled] = np.einsum("kf,fkc->fc", weights, surface.rest[seen.corners[:, seen_there].T])
    x, y, z = place.T.astype(np.float32).reshape(3, height, 2 * height)
    return x, y, z


def hairline_distance(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """How far a rest point lies above the hairline, in decimetres: below 0 on the face, the ears and the neck."""
    s = np.abs(x)
    # In front the line runs over the forehead, drops at the temples before the ear, and goes round behind it.
    front = y - (7.93 - 0.10 * np.exp(-((s / 0.12) ** 2)) * 0.3 - 0.55 * smoothstep(s, 0.44, 0.80) ** 2)
    side = (0.50 - z) * 0.9 + 0.35 * (y - 7.30)
    side = np.minimum(side, y - 6.85 + 0.6 * smoothstep(z, 0.1, 0.5))
    back = np.minimum(0.05 - z, y - 6.45)
    return np.maximum(np.maximum(np.minimum(front, 0.9 - z + 1.2 * (y - 7.55)), side), back)


def _brow(s: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    middle = np.interp(s, (0.08, 0.151, 0.24, 0.358, 0.46, 0.554, 0.66), (7.50, 7.513, 7.527, 7.52, 7.49, 7.452, 7.40))
    along = np.clip((s - 0.10) / 0.52, 0, 1) * (z > 0.7)
    across = 0.5 + np.clip(y - middle, -0.1, 0.1) / 0.2
    return np.where(z > 0.7, across, 0), along


def _beard(s: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    upper = np.interp(s, (0.0, 0.2, 0.35, 0.55, 0.70, 0.8), (6.60, 6.62, 6.66, 6.80, 7.05, 7.15))
    jaw = smoothstep(upper - y, -0.02, 0.10)
    jaw = jaw * smoothstep(y, 5.95, 6.2) * smoothstep(z, 0.25, 0.5)
    sideburn = smoothstep(s, 0.60, 0.66) * smoothstep(z, 0.28, 0.40) * smoothstep(z, 0.80, 0.62) * (y < 7.4) * (y > 6.8)
    below_lip = 1 - np.exp(-((s / 0.17) ** 4) - (((y - 6.53) / 0.05) ** 2)) * 0.4
    return np.clip(np.maximum(jaw * below_lip, 0.9 * sideburn), 0, 1)


def _moustache(s: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    low = np.interp(s, (0.0, 0.06, 0.22, 0.30), (6.80, 6.805, 6.70, 6.56))
    high = np.interp(s, (0.0, 0.10, 0.22, 0.30), (6.88, 6.90, 6.80, 6.68))
    band = smoothstep(y - low, -0.02, 0.02) * smoothstep(high - y, -0.02, 0.03)
    return band * smoothstep(s, 0.32, 0.27) * (0.55 + 0.45 * smoothstep(s, 0.005, 0.05)) * (z > 0.9)


def _redness(s: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    cheek = np.exp(-((s - 0.46) ** 2 + (y - 6.95) ** 2) / 0.045)
    nose = 0.75 * np.exp(-(s**2 + (y - 6.97) ** 2) / 0.022)
    ear = 0.8 * smoothstep(s, 0.76, 0.84) * (y < 7.6) * (y > 6.7)
    chin = 0.35 * np.exp(-(s**2 + (y - 6.42) ** 2) / 0.02)
    return np.clip(np.maximum(np.maximum(cheek, nose) * (z > 0.6), np.maximum(ear, chin * (z > 0.6))), 0, 1)


def _eye_shade(s: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    socket = np.exp(-(((s - 0.30) / 0.17) ** 2) - ((y - 7.30) / 0.12) ** 2)
    trough = 0.9 * np.exp(-(((s - 0.23) / 0.10) ** 2) - ((y - 7.18 + 0.25 * (s - 0.2)) / 0.045) ** 2)
    return np.clip(0.6 * socket + trough, 0, 1) * (z > 0.8)


def _eye_shadow(s: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    low = 7.34 - 0.3 * (s - 0.3) ** 2
    lid = smoothstep(y, low - 0.01, low + 0.02) * smoothstep(y, low + 0.16, low + 0.05)
    return lid * smoothstep(s, 0.12, 0.20) * smoothstep(s, 0.52, 0.42) * (z > 0.8)


def _wrinkles(s: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """How deep creases are: forehead, between the brows, crow's feet, below the eyes, laugh lines, mouth."""

    def line(distance: np.ndarray, width: float, extent: np.ndarray) -> np.ndarray:
        return np.exp(-((distance / width) ** 2)) * extent

    depth = np.zeros_like(s)
    for i, level in enumerate((7.66, 7.74, 7.83)):
        wave = 0.018 * np.sin(5.5 * s + i) - 0.05 * s**2
        depth = np.maximum(depth, line(y - level - wave, 0.011, 0.7 * smoothstep(s, 0.50 - 0.05 * i, 0.25)))
    depth = np.maximum(depth, line(s - 0.06 - 0.1 * (y - 7.5), 0.011, 0.6 * np.exp(-(((y - 7.53) / 0.07) ** 2))))
    for i, rise in enumerate((-0.35, 0.0, 0.4)):
        extent = smoothstep(s, 0.46, 0.50) * smoothstep(s, 0.64, 0.55)
        depth = np.maximum(depth, line(y - 7.31 - rise * (s - 0.46) - 0.012 * i, 0.009, 0.6 * extent))
    pouch = 7.20 - 0.08 * np.sin(np.clip((s - 0.16) / 0.30, 0, 1) * np.pi)
    depth = np.maximum(depth, line(y - pouch, 0.012, 0.6 * smoothstep(s, 0.15, 0.2) * smoothstep(s, 0.46, 0.36)))
    fold = 0.17 + 0.17 * smoothstep(y, 6.95, 6.66)
    depth = np.maximum(depth, line(s - fold, 0.016, smoothstep(y, 6.99, 6.90) * smoothstep(y, 6.56, 6.68)))
    corner = 0.255 + 0.10 * (6.66 - y)
    depth = np.maximum(depth, line(s - corner, 0.013, 0.7 * smoothstep(y, 6.67, 6.62) * smoothstep(y, 6.40, 6.5)))
    return (depth * (z > 0.7)).astype(np.float32)


def _freckles(rng: np.random.Generator, height: int) -> np.ndarray:
    field = np.zeros((height, 2 * height), np.float32)
    count = 900
    places = rng.integers(0, (2 * height, height), (count, 2))
    for place, radius, strength in zip(places, rng.uniform(0.3, 1.1, count), rng.uniform(0.3, 1, count), strict=True):
        at = (int(place[0] * 8), int(place[1] * 8))
        cv2.circle(field, at, max(4, int(radius * 8 * height / 256)), float(strength), -1, cv2.LINE_AA, 3)
    return cv2.GaussianBlur(field, (0, 0), 0.5)


def _noise(rng: np.random.Generator, height: int, *, across: float, along: float) -> np.ndarray:
    """Smooth noise in [0, 1] that repeats, (H, 2H) float32; across and along: standard deviations of its smoothing."""
    white = np.tile(rng.standard_normal((height, 2 * height)).astype(np.float32), (3, 3))
    smooth = cv2.GaussianBlur(white, (0, 0), sigmaX=across, sigmaY=along)[height : 2 * height, 2 * height : 4 * height]
    return np.clip(0.5 + smooth / (5 * smooth.std()), 0, 1)


def _packed(*channels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.stack([np.clip(c * 255 + 0.5, 0, 255).astype(np.uint8) for c in channels], -1))
