"""The 54 sliders: what each moves on the rest head, as fields of displacement.

A slider's field gives (dx, dy, dz) for the way from 0 to 1; at 0.5 every slider leaves the rest head
alone. dx of a field is odd and dy, dz are even in x: left and right mirror.

Heights add up: z = rest + Σ (slider − 0.5) · dz. In the picture plane fields are applied in the
`STAGES` below, details first and the whole face last, each stage at the points that the one before
has moved: p ← p + Σ (slider − 0.5) · (dx, dy)(p). Within a stage no combination of sliders turns
the plane inside out, so neither does their chain, and the skin never tears.
"""

from typing import NamedTuple

import numpy as np

from games.parameters import BUILT_IN_TABLE, parse_parameters, read_typical
from games.relief.head import EYE, INNER_CORNER, OUTER_CORNER, gauss, smoothstep

#: The first 54 rows of HS_FACE's table.
SLIDERS = parse_parameters(BUILT_IN_TABLE)[:54]
NAMES = [slider.name for slider in SLIDERS]

#: Mean and standard deviation of each slider over typical faces, in the game's units.
_MEAN, _STD = (column[: len(SLIDERS)] for column in read_typical(BUILT_IN_TABLE))


#: Groups of sliders that move points of the picture plane together, in order.
STAGES = (
    (
        "eyelid_shape_1",
        "eyelid_shape_2",
        "nostril_angle_x",
        "nostril_angle_z",
        "nose_tip_angle_x",
        "upper_lip_shape",
        "lower_lip_shape",
        "chin_height",
        "jaw_height",
    ),
    (
        "inner_eye_corner_spacing",
        "outer_eye_corner_spacing",
        "inner_eye_corner_height",
        "outer_eye_corner_height",
        "nostril_width",
        "nose_tip_height",
        "mouth_corner_shape",
        "chin_width",
        "jaw_width",
    ),
    (
        "eye_width",
        "eye_opening",
        "eye_angle_z",
        "nostril_height",
        "nose_tip_size",
        "lip_thickness",
        "jaw_angle",
        "lower_cheek_width",
        "nose_bridge_width",
    ),
    ("nose_height_position", "nose_width", "nose_angle_x", "mouth_width", "jaw_base_height", "upper_cheek_width"),
    ("eye_height_position", "eye_spacing", "mouth_height_position"),
    ("face_width", "upper_face_height", "lower_face_width"),
)


def _plateau(x: np.ndarray, y: np.ndarray, cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
    """Flat-topped window: what lies inside moves as a whole."""
    return np.exp(-(((x - cx) / sx) ** 4) - ((y - cy) / sy) ** 4)


class _Move(NamedTuple):
    """How far a slider moves rest points (...) on its way from 0 to 1, in rest units."""

    out: np.ndarray | float = 0.0  #: away from the midline
    up: np.ndarray | float = 0.0
    forward: np.ndarray | float = 0.0  #: towards the viewer


def fields(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Displacements of all sliders from 0 to 1 at rest points.

    Args:
        x, y: (...) rest coordinates.

    Returns:
        (54, 3, ...) float64: dx, dy (down), dz (towards the viewer), in rest units.
    """
    s = np.abs(x)
    outward = np.tanh(x / 0.05)  # the sign of x, without a kink on the midline
    of_face = _whole_face(s, y) | _jaw(s, y) | _chin(s, y) | _cheeks(s, y)
    of_features = _eyes(s, y) | _eye_details(s, y) | _nose(s, y) | _nostrils(s, y) | _nose_tip(s, y) | _mouth(s, y)
    moves = of_face | of_features

    moved = np.empty((len(NAMES), 3) + np.shape(x))
    for field, name in zip(moved, NAMES, strict=True):
        field[0] = moves[name].out * outward
        field[1] = -moves[name].up
        field[2] = moves[name].forward
    return moved


# What the sliders of a part of the face move, at s = |x| and y (...).


def _whole_face(s: np.ndarray, y: np.ndarray) -> dict[str, _Move]:
    """The outline moves and the features stay."""
    rim = smoothstep(s, 0.58, 1.0)
    below_nose = smoothstep(y, 0.35, 0.95)
    return {
        "face_width": _Move(out=0.27 * rim * s**0.5),
        "upper_face_depth": _Move(forward=0.40 * smoothstep(y, 0.02, -0.42)),
        "upper_face_height": _Move(up=0.30 * smoothstep(y, -0.12, -0.75)),
        "lower_face_depth": _Move(forward=0.42 * smoothstep(y, 0.62, 1.15)),
        "lower_face_width": _Move(out=0.23 * smoothstep(s, 0.25, 0.85) * below_nose),
    }


def _jaw(s: np.ndarray, y: np.ndarray) -> dict[str, _Move]:
    square = 0.17 * gauss(s, y, 0.55, 1.36, 0.18, 0.17)
    return {
        "jaw_width": _Move(out=0.20 * gauss(s, y, 0.86, 0.98, 0.24, 0.17)),
        "jaw_height": _Move(up=0.24 * gauss(s, y, 0.80, 1.06, 0.19, 0.19)),
        "jaw_depth": _Move(forward=0.34 * gauss(s, y, 0.62, 1.04, 0.18, 0.18)),
        "jaw_angle": _Move(out=0.6 * square, up=-0.8 * square),
        "jaw_base_height": _Move(up=0.20 * smoothstep(y, 1.18, 1.60)),
    }


def _chin(s: np.ndarray, y: np.ndarray) -> dict[str, _Move]:
    return {
        "chin_width": _Move(out=0.21 * gauss(s, y, 0.27, 1.54, 0.15, 0.14) * smoothstep(s, 0, 0.2)),
        "chin_height": _Move(up=0.17 * np.exp(-0.5 * (s / 0.19) ** 2) * smoothstep(y, 1.22, 1.58)),
        "chin_depth": _Move(forward=0.36 * gauss(s, y, 0, 1.43, 0.20, 0.14)),
    }


def _cheeks(s: np.ndarray, y: np.ndarray) -> dict[str, _Move]:
    lower = gauss(s, y, 0.60, 0.62, 0.18, 0.11) - gauss(s, y, 0.60, 0.90, 0.18, 0.11)
    upper = gauss(s, y, 0.68, 0.19, 0.17, 0.095) - gauss(s, y, 0.68, 0.44, 0.17, 0.095)
    return {
        "lower_cheek_height": _Move(forward=0.24 * lower),
        "lower_cheek_depth": _Move(forward=0.28 * gauss(s, y, 0.60, 0.76, 0.17, 0.16)),
        "lower_cheek_width": _Move(out=0.18 * gauss(s, y, 0.97, 0.58, 0.20, 0.15)),
        "upper_cheek_height": _Move(forward=0.18 * upper),
        "upper_cheek_depth": _Move(forward=0.23 * gauss(s, y, 0.66, 0.31, 0.18, 0.13)),
        "upper_cheek_width": _Move(out=0.17 * gauss(s, y, 1.02, 0.17, 0.20, 0.16)),
    }


def _eyes(s: np.ndarray, y: np.ndarray) -> dict[str, _Move]:
    """Each eye as a whole."""
    ex, ey = EYE
    eye = _plateau(s, y, ex, ey, 0.36, 0.23)
    near = _plateau(s, y, ex, ey, 0.31, 0.19)
    return {
        "eye_height_position": _Move(up=0.17 * eye),
        "eye_spacing": _Move(out=0.15 * eye),
        "eye_depth": _Move(forward=0.34 * gauss(s, y, ex, ey, 0.22, 0.14)),
        "eye_width": _Move(out=0.44 * (s - ex) * near),
        "eye_opening": _Move(up=0.85 * (ey - y) * near),
        "eye_angle_z": _Move(up=0.42 * (s - ex) * near, out=0.42 * (y - ey) * near),
        "eye_angle_y": _Move(forward=-0.85 * (s - ex) * near),
    }


def _eye_details(s: np.ndarray, y: np.ndarray) -> dict[str, _Move]:
    """Corners and lids of the eyes."""
    return {
        "inner_eye_corner_spacing": _Move(out=0.095 * gauss(s, y, *INNER_CORNER, 0.075, 0.075)),
        "outer_eye_corner_spacing": _Move(out=0.105 * gauss(s, y, *OUTER_CORNER, 0.085, 0.075)),
        "inner_eye_corner_height": _Move(up=0.10 * gauss(s, y, *INNER_CORNER, 0.075, 0.075)),
        "outer_eye_corner_height": _Move(up=0.12 * gauss(s, y, *OUTER_CORNER, 0.085, 0.085)),
        "eyelid_shape_1": _Move(up=0.085 * gauss(s, y, 0.375, -0.115, 0.065, 0.065)),
        "eyelid_shape_2": _Move(up=0.085 * gauss(s, y, 0.56, -0.115, 0.065, 0.065)),
    }


def _nose(s: np.ndarray, y: np.ndarray) -> dict[str, _Move]:
    """The nose as a whole, and its bridge."""
    nose = np.exp(-((s / 0.33) ** 4)) * smoothstep(y, -0.12, 0.42) * smoothstep(y, 0.92, 0.66)
    ridge = np.exp(-0.5 * (s / 0.17) ** 2)
    length = smoothstep(y, -0.35, 0.0) * smoothstep(y, 0.78, 0.60)
    return {
        "nose_height_position": _Move(up=0.17 * nose),
        "nose_depth": _Move(forward=0.34 * ridge * length * (0.55 + 0.45 * smoothstep(y, -0.1, 0.4))),
        "nose_angle_x": _Move(forward=0.62 * (y - 0.16) * ridge * length, up=0.05 * gauss(s, y, 0, 0.52, 0.15, 0.12)),
        "nose_width": _Move(out=0.46 * s * _plateau(s, y, 0, 0.45, 0.33, 0.32)),
        "nose_bridge_height": _Move(forward=0.26 * gauss(s, y, 0, -0.06, 0.095, 0.13)),
        "nose_bridge_width": _Move(
            out=1.0 * s * gauss(s, y, 0, 0.08, 0.105, 0.16), forward=0.18 * gauss(s, y, 0.135, 0.08, 0.05, 0.14)
        ),
        "nose_bridge_shape": _Move(forward=0.30 * gauss(s, y, 0, 0.22, 0.085, 0.09)),
    }


def _nostrils(s: np.ndarray, y: np.ndarray) -> dict[str, _Move]:
    return {
        "nostril_width": _Move(out=0.115 * gauss(s, y, 0.215, 0.585, 0.07, 0.085)),
        "nostril_height": _Move(up=0.12 * gauss(s, y, 0.215, 0.60, 0.075, 0.085)),
        "nostril_depth": _Move(forward=0.26 * gauss(s, y, 0.185, 0.575, 0.06, 0.065)),
        "nostril_angle_x": _Move(
            up=0.075 * gauss(s, y, 0.105, 0.605, 0.06, 0.045), forward=-0.10 * gauss(s, y, 0.105, 0.665, 0.06, 0.04)
        ),
        "nostril_angle_z": _Move(up=1.35 * (s - 0.145) * gauss(s, y, 0.165, 0.62, 0.075, 0.075)),
    }


def _nose_tip(s: np.ndarray, y: np.ndarray) -> dict[str, _Move]:
    return {
        "nose_tip_height": _Move(up=0.14 * gauss(s, y, 0, 0.47, 0.105, 0.10)),
        "nose_tip_angle_x": _Move(
            forward=2.2 * (y - 0.50) * gauss(s, y, 0, 0.53, 0.095, 0.10), up=0.095 * gauss(s, y, 0, 0.655, 0.075, 0.06)
        ),
        "nose_tip_size": _Move(
            out=0.80 * s * gauss(s, y, 0, 0.49, 0.12, 0.11), forward=0.20 * gauss(s, y, 0, 0.49, 0.08, 0.08)
        ),
    }


def _mouth(s: np.ndarray, y: np.ndarray) -> dict[str, _Move]:
    mouth = np.exp(-((s / 0.58) ** 4)) * smoothstep(y, 0.70, 0.90) * smoothstep(y, 1.44, 1.16)
    upper_lip = gauss(s, y, 0.10, 0.885, 0.05, 0.06) - 0.8 * gauss(s, y, 0, 0.90, 0.04, 0.06)
    lower_lip = 0.06 * gauss(s, y, 0.22, 1.12, 0.07, 0.06) - 0.09 * gauss(s, y, 0, 1.15, 0.09, 0.055)
    return {
        "mouth_height_position": _Move(up=0.16 * mouth),
        "mouth_width": _Move(out=0.38 * s * np.exp(-((s / 0.55) ** 4)) * np.exp(-(((y - 1.01) / 0.23) ** 4))),
        "lip_thickness": _Move(up=0.95 * (1.0 - y) * np.exp(-((s / 0.42) ** 4)) * np.exp(-(((y - 1.02) / 0.21) ** 4))),
        "mouth_depth": _Move(forward=0.36 * gauss(s, y, 0, 1.01, 0.30, 0.14)),
        "upper_lip_shape": _Move(up=0.095 * upper_lip),
        "lower_lip_shape": _Move(up=lower_lip),
        "mouth_corner_shape": _Move(up=0.13 * gauss(s, y, 0.385, 1.0, 0.11, 0.08)),
    }


#: How far the iris moves outwards from eye_angle_y 0 to 1, in rest units: the gaze turns with the eye.
GAZE_OF_EYE_ANGLE_Y = 0.085


def back_fields(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """As `fields`, for what lies behind the face: ears and hair follow the head's width and height."""
    moved = np.zeros((len(SLIDERS), 3) + np.shape(x))
    of_face = fields(x, y)
    beside = smoothstep(y, 1.0, 0.5)
    for name in ("face_width", "upper_cheek_width", "upper_face_height"):
        moved[NAMES.index(name), :2] = of_face[NAMES.index(name), :2] * beside
    return moved


def draw(rng: np.random.Generator, distribution: str = "uniform") -> np.ndarray:
    """Draw one face: (54,) float64 in [0, 1], uniform or Gaussian around a typical face.

    For "typical", value ~ N(mean, std) in the game's units, then p = (value − min) / (max − min), clipped.
    """
    if distribution == "uniform":
        return rng.random(len(SLIDERS))
    value = rng.normal(_MEAN, _STD)
    low, high = np.array([s.minimum for s in SLIDERS]), np.array([s.maximum for s in SLIDERS])
    return np.clip((value - low) / (high - low), 0, 1)
