"""The rest head: the surface, the painted regions and the landmarks that every face starts from.

Rest coordinates: x to the picture's right, y down, z towards the viewer; one unit is half the
width of the face at the cheekbones (about 68 mm on a person), the origin lies between the eyes.
Proportions are those of adult faces: eye centres at ±0.46, nose base at 0.66, mouth at 1.0, chin
at 1.62. The head is a relief z(x, y): all that turns of ±10° need.
"""

from typing import NamedTuple

import numpy as np

EYE = (0.46, -0.01)  # centre of the eye opening
INNER_CORNER = (0.255, 0.03)
OUTER_CORNER = (0.675, -0.02)
LID_UPPER, LID_LOWER = 0.125, 0.085  # heights of the lids above and below the line between the corners
IRIS_RADIUS = 0.108
MOUTH_Y, MOUTH_HALF_WIDTH = 1.0, 0.37

# The outline from the chin over the cheek to the crown: (x, y), smoothed below.
_OUTLINE = np.array(
    [
        (0.0, 1.63),
        (0.16, 1.615),
        (0.31, 1.555),
        (0.47, 1.44),
        (0.63, 1.27),
        (0.77, 1.05),
        (0.87, 0.80),
        (0.94, 0.50),
        (0.985, 0.2),
        (1.0, -0.1),
        (0.99, -0.4),
        (0.955, -0.7),
        (0.88, -1.0),
        (0.74, -1.28),
        (0.52, -1.50),
        (0.27, -1.62),
        (0.0, -1.66),
    ]
)
_OUTLINE_CENTRE = 0.3  # y about which the outline is given in polar coordinates


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 up to `low`, 1 from `high` on, 3t² − 2t³ between; `low` may be the larger one."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def gauss(x: np.ndarray, y: np.ndarray, cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
    return np.exp(-0.5 * (((x - cx) / sx) ** 2 + ((y - cy) / sy) ** 2))


def _polar_outline() -> tuple[np.ndarray, np.ndarray]:
    """Angles from straight down (0 … π) and radii of the outline about its centre, smoothed."""
    offset = _OUTLINE - (0, _OUTLINE_CENTRE)
    angle = np.arctan2(offset[:, 0], offset[:, 1])
    dense = np.linspace(0, np.pi, 721)
    radius = np.interp(dense, angle, np.hypot(*offset.T))
    kernel = np.exp(-0.5 * (np.arange(-60, 61) / 16) ** 2)
    padded = np.concatenate([radius[60:0:-1], radius, radius[-2:-62:-1]])  # mirrored: the outline is symmetric
    return dense, np.convolve(padded, kernel / kernel.sum(), "valid")


_ANGLES, _RADII = _polar_outline()


def outline_radius(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each point from the outline's centre and that of the outline in its direction."""
    angle = np.arctan2(np.abs(x), y - _OUTLINE_CENTRE)
    return np.hypot(x, y - _OUTLINE_CENTRE), np.interp(angle, _ANGLES, _RADII)


def surface(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height z of the rest face at x, y (same shape). Falls off steadily outside the outline."""
    side = np.abs(x)
    distance, radius = outline_radius(x, y)
    t = distance / radius
    downward = smoothstep((y - _OUTLINE_CENTRE) / np.maximum(distance, 1e-6), 0.35, 1.0)
    # The rim's slope stays below 1 / tan of the largest turn, so that no turned face folds over itself.
    power, drop = 2.6 + 4.4 * downward, 1.12 - 0.45 * downward
    z = 1.02 - drop * np.minimum(t, 1.0) ** power - 2.2 * np.maximum(t - 1, 0)
    # Forehead, brow ridge, temples.
    z -= 0.10 * smoothstep(y, -0.5, -1.4)
    z += 0.06 * np.exp(-0.5 * ((y + 0.30) / 0.11) ** 2) * smoothstep(side, 0.95, 0.45)
    z -= 0.05 * gauss(side, y, 0.86, -0.42, 0.14, 0.24)
    # Eye sockets, with the eyeballs bulging in them.
    z -= 0.17 * gauss(side, y, 0.43, -0.03, 0.25, 0.15)
    z -= 0.08 * gauss(side, y, 0.20, -0.03, 0.08, 0.12)
    z += 0.13 * gauss(side, y, 0.46, -0.01, 0.155, 0.125)
    # Cheeks.
    z += 0.09 * gauss(side, y, 0.64, 0.32, 0.23, 0.17)
    z -= 0.05 * gauss(side, y, 0.72, 0.80, 0.18, 0.22)
    z -= 0.035 * gauss(side, y - 0.9 * (side - 0.4), 0.42, 0.78, 0.06, 0.12)
    # Nose: a ridge that rises to the tip and drops below it, the tip, the wings, the groove around them.
    rise = 0.10 + 0.34 * np.clip((y + 0.12) / 0.62, 0, 1.05)
    ridge = rise * smoothstep(y, -0.42, -0.02) * smoothstep(y, 0.735, 0.52)
    width = 0.095 + 0.085 * smoothstep(y, 0.0, 0.52)
    z += ridge * np.exp(-(np.abs(side / width) ** 2.3) * 0.6)
    z += 0.13 * gauss(side, y, 0, 0.495, 0.095, 0.085)
    z += 0.17 * gauss(side, y, 0.185, 0.575, 0.062, 0.068)
    z -= 0.05 * gauss(side, y, 0.30, 0.60, 0.045, 0.09)
    # Mouth: the curve of the teeth, philtrum, lips, the groove under them, chin.
    z += 0.10 * gauss(side, y, 0, 1.0, 0.42, 0.26)
    z -= 0.025 * gauss(side, y, 0, 0.79, 0.035, 0.07)
    taper = smoothstep(side, 0.40, 0.10)
    z += taper * (0.075 * np.exp(-0.5 * ((y - 0.94) / 0.042) ** 2) + 0.10 * np.exp(-0.5 * ((y - 1.075) / 0.05) ** 2))
    z -= taper * 0.05 * np.exp(-0.5 * ((y - 0.997) / 0.022) ** 2)
    z -= 0.05 * gauss(side, y, 0.39, 1.0, 0.05, 0.05)
    z -= 0.08 * gauss(side, y, 0, 1.215, 0.26, 0.055)
    z += 0.12 * gauss(side, y, 0, 1.43, 0.20, 0.12)
    return z


def back_surface(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height of what lies behind the face: hair, ears, neck and shoulders."""
    neck = -0.75 + 0.75 * np.sqrt(np.maximum(1 - (x / 0.64) ** 2, 0.02)) * smoothstep(y, 2.2, 1.5)
    hair = -0.25 + 0.55 * np.sqrt(np.maximum(1 - (x / 1.45) ** 2 - ((y + 0.4) / 1.7) ** 2, 0.01))
    ear = 0.12 * gauss(np.abs(x), y, 1.06, 0.22, 0.07, 0.22)
    return hair + (neck - hair) * smoothstep(y, 0.9, 1.4) + ear


# --- curves, as functions of |x| ------------------------------------------------------------------


def eye_lids(side: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Position u along the eye (0 inner corner, 1 outer) and the y of the upper and the lower lid there."""
    u = (side - INNER_CORNER[0]) / (OUTER_CORNER[0] - INNER_CORNER[0])
    inside = np.clip(u, 0, 1)
    line = INNER_CORNER[1] + (OUTER_CORNER[1] - INNER_CORNER[1]) * u
    upper = line - LID_UPPER * np.sin(np.pi * inside**0.88) ** 0.8
    lower = line + LID_LOWER * np.sin(np.pi * inside**1.15) ** 0.9
    return u, upper, lower


def brow(side: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Position u along the brow (0 inner end, 1 outer), the y of its spine and its half thickness there."""
    u = (side - 0.17) / 0.66
    inside = np.clip(u, 0, 1)
    spine = -0.315 - 0.088 * np.sin(np.pi * inside**1.25 * 0.86)
    return u, spine, 0.048 * (1 - inside**2) ** 0.6 * smoothstep(inside, -0.15, 0.12) + 0.004


def lips(side: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y of the upper lip's edge, of the parting line and of the lower lip's edge."""
    v = np.clip(side / MOUTH_HALF_WIDTH, 0, 1)
    bow = 0.020 * np.exp(-0.5 * ((side - 0.085) / 0.05) ** 2) - 0.014 * np.exp(-0.5 * (side / 0.035) ** 2)
    corner = MOUTH_Y - 0.016 * v**2
    upper = corner - 0.094 * (1 - v**1.7) - bow * (1 - v**4)
    parting = corner + 0.008 * np.cos(np.pi * v * 1.5) * (1 - v)
    lower = corner + 0.150 * (1 - v**2.2) ** 0.85
    return upper, parting, lower


def landmarks() -> np.ndarray:
    """The 68 landmarks (iBUG order, picture's left first) of the rest face: (68, 2) x, y."""
    points = np.zeros((68, 2))
    # 0–16: the outline from beside one eye over the chin to the other, evenly along the curve.
    angle = np.linspace(np.arctan2(1.0, -0.05 - _OUTLINE_CENTRE), 0, 400)
    radius = np.interp(angle, _ANGLES, _RADII)
    curve = np.stack([radius * np.sin(angle), _OUTLINE_CENTRE + radius * np.cos(angle)], 1)
    length = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(curve, axis=0).T))])
    at = np.linspace(0, length[-1], 9)
    half = np.stack([np.interp(at, length, curve[:, 0]), np.interp(at, length, curve[:, 1])], 1)
    points[8:17] = half[::-1]
    # 22–26: the brow from its inner end to its outer one.
    side = 0.17 + 0.66 * np.linspace(0.02, 0.97, 5)
    points[22:27] = np.stack([side, brow(side)[1]], 1)
    # 27–30 bridge to tip, 33–35 the nose's base.
    points[27:31, 1] = (-0.04, 0.14, 0.31, 0.485)
    points[33:36] = ((0, 0.675), (0.105, 0.67), (0.215, 0.635))
    # 42–47: inner corner, upper lid twice, outer corner, lower lid twice.
    width = OUTER_CORNER[0] - INNER_CORNER[0]
    side = INNER_CORNER[0] + width * np.array([0.33, 0.67])
    _, upper, lower = eye_lids(side)
    points[42], points[45] = INNER_CORNER, OUTER_CORNER
    points[43:45] = np.stack([side, upper], 1)
    points[46:48] = np.stack([side, lower], 1)[::-1]
    # 51–54 upper lip to the corner, 55–57 back along the lower lip; 62–66 the parting, twice.
    side = np.array([0, 0.085, 0.21])
    points[51:54] = np.stack([side, lips(side)[0]], 1)
    points[54] = (MOUTH_HALF_WIDTH, lips(np.array(MOUTH_HALF_WIDTH))[1])
    side = np.array([0.235, 0.12, 0])
    points[55:58] = np.stack([side, lips(side)[2]], 1)
    side = np.array([0, 0.12, 0.30])
    points[62:65] = np.stack([side, lips(side)[1]], 1)
    points[65:67] = np.stack([side[1::-1], lips(side[1::-1])[1]], 1)
    for left, right in MIRRORED:
        points[left] = points[right] * (-1, 1)
    return points


#: Pairs of landmarks that mirror each other: (on the picture's left, on its right).
MIRRORED = (
    [(i, 16 - i) for i in range(8)]
    + [(17 + i, 26 - i) for i in range(5)]
    + [(31, 35), (32, 34)]
    + [(36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)]
    + [(48, 54), (49, 53), (50, 52), (59, 55), (58, 56), (60, 64), (61, 63), (67, 65)]
)


# --- painted regions ------------------------------------------------------------------------------


class _EyeMarks(NamedTuple):
    """Masks of what is painted at both eyes, each the shape of the points."""

    opening: np.ndarray  #: the eyeball that shows between the lids
    lash: np.ndarray
    crease: np.ndarray  #: of the upper lid
    lid: np.ndarray  #: the upper one
    corner: np.ndarray  #: the inner one


class _NoseMarks(NamedTuple):
    """Masks of what is painted at the nose."""

    nostril: np.ndarray
    groove: np.ndarray  #: around the wings
    under: np.ndarray  #: the shade below the nose
    fold: np.ndarray  #: from the wings to the corners of the mouth


class _MouthMarks(NamedTuple):
    """Masks of what is painted at the mouth."""

    lip: np.ndarray  #: both of them
    upper: np.ndarray  #: the upper lip
    line: np.ndarray  #: between the lips
    under: np.ndarray  #: the shade below the mouth


def paint(x: np.ndarray, y: np.ndarray, pixel: float) -> dict[str, np.ndarray]:
    """Masks in [0, 1] of the face's painted regions at x, y; edges are `pixel` units soft."""
    side = np.abs(x)
    distance, radius = outline_radius(x, y)
    eye, nose, mouth = _eye_marks(side, y, pixel), _nose_marks(side, y), _mouth_marks(side, y, pixel)

    # What darkens the skin.
    shade = 0.55 * eye.crease + 0.30 * nose.groove + 0.28 * nose.under + 0.12 * nose.fold
    shade = shade + 0.30 * mouth.under + 0.16 * mouth.upper + 0.12 * eye.lid

    # What colours it.
    eye_shadow = gauss(side, y, 0.48, -0.13, 0.20, 0.075)
    stubble = gauss(side, y, 0.0, 1.22, 0.55, 0.30) * (1 - mouth.lip) * smoothstep(y, 0.70, 0.86)
    return {
        "face": _edge(radius - distance, pixel),
        "opening": eye.opening,
        "lash": eye.lash,
        "brow": _brow_mark(side, y),
        "lip": mouth.lip,
        "dark": np.clip(0.9 * nose.nostril + 0.85 * mouth.line, 0, 1),
        "blush": gauss(side, y, 0.62, 0.42, 0.19, 0.15),
        "shade": np.clip(shade, 0, 1),
        "eye_shadow": np.clip(eye_shadow + 0.6 * eye.lid, 0, 1),
        "corner": eye.corner,
        "stubble": stubble,
    }


def _edge(signed: np.ndarray, width: float) -> np.ndarray:
    """1 inside a region, 0 outside, soft for `width` units on both sides of where a signed distance is 0."""
    width = max(width, 1e-6)
    return smoothstep(signed, -width, width)


def _eye_marks(side: np.ndarray, y: np.ndarray, pixel: float) -> _EyeMarks:
    u, upper, lower = eye_lids(side)
    across = np.minimum(u, 1 - u) * (OUTER_CORNER[0] - INNER_CORNER[0])
    opening = _edge(np.minimum(y - upper, lower - y), pixel) * (across > 0)
    reach = smoothstep(u, -0.04, 0.08) * smoothstep(u, 1.12, 0.98)

    # Upper lashes, and lower ones; beyond the outer corner the upper ones run on in a small wing.
    width = 0.014 + 0.018 * np.clip(u, 0, 1)
    lash = np.exp(-(np.maximum(np.abs(y - upper + 0.006) - width * 0.6, 0) ** 2) / (0.5 * width) ** 2) * reach
    wing_line = OUTER_CORNER[1] - 0.35 * (side - OUTER_CORNER[0])
    wing = np.exp(-(((y - wing_line) / 0.012) ** 2)) * smoothstep(side, 0.66, 0.68) * smoothstep(side, 0.735, 0.69)
    lower_lash = 0.55 * np.exp(-(((y - lower - 0.004) / 0.010) ** 2))
    lower_lash = lower_lash * smoothstep(u, 0.1, 0.6) * smoothstep(u, 1.04, 0.95)

    # The upper lid and the crease above it.
    crease = np.exp(-(((y - upper + 0.062 - 0.02 * u) / 0.016) ** 2))
    crease = crease * smoothstep(u, 0.0, 0.25) * smoothstep(u, 1.1, 0.9)
    lid = np.clip((y - upper + 0.065) / 0.065, 0, 1) * (y < upper) * reach
    corner = gauss(side, y, INNER_CORNER[0] + 0.012, INNER_CORNER[1] - 0.002, 0.022, 0.016)
    return _EyeMarks(opening, np.clip(lash + wing + lower_lash, 0, 1), crease, lid, corner)


def _brow_mark(side: np.ndarray, y: np.ndarray) -> np.ndarray:
    u, spine, thick = brow(side)
    off = (y - spine) / thick
    strand = 0.5 + 0.5 * np.sin(side * 210 - off * 4.0 + 2.0 * np.sin(side * 37))
    mark = smoothstep(1.35 - np.abs(off), 0, 1.0) * (0.78 + 0.22 * strand)
    mark *= smoothstep(u, -0.06, 0.08) * smoothstep(u, 1.08, 0.90)
    return mark


def _nose_marks(side: np.ndarray, y: np.ndarray) -> _NoseMarks:
    tilted = (side - 0.105) * 0.94 + (y - 0.655) * 0.34, (y - 0.655) * 0.94 - (side - 0.105) * 0.34
    nostril = smoothstep(1.25 - np.hypot(tilted[0] / 0.058, tilted[1] / 0.026), 0, 0.55)
    groove = np.exp(-(((np.hypot((side - 0.19) / 0.085, (y - 0.575) / 0.088) - 1.05) / 0.16) ** 2))
    groove = groove * smoothstep(side - 0.19 + 0.4 * (y - 0.575), -0.02, 0.06)
    fold_line = 0.60 + 1.05 * (side - 0.30)
    fold = np.exp(-(((y - fold_line) / 0.045) ** 2)) * smoothstep(side, 0.26, 0.34) * smoothstep(side, 0.52, 0.40)
    return _NoseMarks(nostril, groove, under=gauss(side, y, 0, 0.70, 0.15, 0.03), fold=fold)


def _mouth_marks(side: np.ndarray, y: np.ndarray, pixel: float) -> _MouthMarks:
    upper, parting, lower = lips(side)
    within = _edge(MOUTH_HALF_WIDTH - side, pixel * 2)
    lip = _edge(np.minimum(y - upper, lower - y), pixel * 1.5) * within
    line = np.exp(-(((y - parting) / (0.010 + 0.004 * smoothstep(side, 0.3, 0))) ** 2))
    line *= smoothstep(side, MOUTH_HALF_WIDTH + 0.03, MOUTH_HALF_WIDTH - 0.03)
    return _MouthMarks(lip, upper=lip * (y < parting), line=line, under=gauss(side, y, 0, 1.205, 0.17, 0.035))


def paint_back(x: np.ndarray, y: np.ndarray, pixel: float) -> dict[str, np.ndarray]:
    """Masks of what lies behind the face: short hair, the reach of long hair, ears, neck, clothes."""
    side = np.abs(x)
    hair_radius = np.hypot(side / 1.19, (y + 0.42) / 1.47)
    cap = _edge((1 - hair_radius) * 1.2, pixel) * _edge(0.35 - y, pixel)
    curtain = _edge(1.21 - 0.10 * smoothstep(y, 0.6, 1.6) - side, pixel) * smoothstep(y, -0.3, -0.2)
    tilt = (side - 1.035) - 0.10 * (0.2 - y), y - 0.20
    ear_distance = np.hypot(tilt[0] / (0.125 - 0.04 * np.clip(tilt[1] / 0.3, -1, 1)), tilt[1] / 0.31)
    ear = _edge((1 - ear_distance) * 0.15, pixel)
    ear_shade = np.exp(-(((ear_distance - 0.62) / 0.16) ** 2)) * ear + 0.9 * gauss(side, y, 1.035, 0.24, 0.03, 0.09)
    neck_width = 0.58 + 0.05 * np.cos((y - 1.4) * 2.2) + 0.9 * smoothstep(y, 1.70, 2.45) ** 2
    neck = _edge(neck_width - side, pixel) * (y > 0.6)
    clothes = _edge(y - (1.98 + 0.10 * np.cos(x * 1.6) - 0.22 * smoothstep(side, 0.55, 1.5)), pixel)
    return {
        "cap": cap,
        "curtain": curtain,
        "ear": ear,
        "ear_shade": np.clip(ear_shade, 0, 1),
        "neck": neck,
        "clothes": clothes,
        "collar": np.exp(-(((y - 1.93 - 0.10 * np.cos(x * 1.6)) / 0.05) ** 2)),
        "height": np.clip((y + 2) / 5, 0, 1),
    }
