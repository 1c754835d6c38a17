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

from datasets.creator.head import EYE, INNER_CORNER, OUTER_CORNER, gauss, smoothstep


class Slider(NamedTuple):
    name: str
    group: str
    minimum: float      #: value in the game at 0
    maximum: float      #: value in the game at 1
    mean: float         #: of a typical face, in the game's units
    std: float
    description: str    #: what happens as the slider rises towards 1


#: As the first 54 rows of HS_FACE's table: same names, groups, order, ranges.
SLIDERS = [Slider(*row) for row in (
    ("face_width", "whole", -1, 2, 0.353787, 0.184934, "the whole face is wider"),
    ("upper_face_depth", "whole", -1, 2, 0.372905, 0.197271, "forehead and brow lie further forward"),
    ("upper_face_height", "whole", -1, 2.22435, 0.438189, 0.204901, "brows and forehead reach higher"),
    ("lower_face_depth", "whole", -1.01675, 2, 0.413762, 0.138848, "the face below the nose lies further forward"),
    ("lower_face_width", "whole", -1, 2, 0.342594, 0.152002, "the face below the nose is wider"),
    ("jaw_width", "chin", -1, 2.13043, 0.333502, 0.265827, "the corners of the jaw lie further apart"),
    ("jaw_height", "chin", -1.22236, 2.00338, 0.2799, 0.220598, "the corners of the jaw lie higher"),
    ("jaw_depth", "chin", -1, 2, 0.495746, 0.159855, "the sides of the jaw lie further forward"),
    ("jaw_angle", "chin", -1.5, 2, 0.417014, 0.262475, "the line from corner to chin is squarer"),
    ("jaw_base_height", "chin", -1, 2.05, 0.85563, 0.173431, "the whole lower edge of the jaw lies higher"),
    ("chin_width", "chin", -1.05037, 2, 0.337349, 0.198652, "the chin is wider"),
    ("chin_height", "chin", -1, 2, 0.370338, 0.164063, "the point of the chin lies higher"),
    ("chin_depth", "chin", -1, 2, 0.375819, 0.209025, "the chin lies further forward"),
    ("lower_cheek_height", "cheek", -1, 2, 0.543871, 0.147981, "the fullness of the lower cheeks sits higher"),
    ("lower_cheek_depth", "cheek", -1, 2, 0.354834, 0.15487, "the lower cheeks are fuller to the front"),
    ("lower_cheek_width", "cheek", -1.45885, 2.44348, 0.428338, 0.219231, "the lower cheeks are fuller to the sides"),
    ("upper_cheek_height", "cheek", -1, 2, 0.4758, 0.163738, "the cheekbones sit higher"),
    ("upper_cheek_depth", "cheek", -1, 2.35, 0.542232, 0.178494, "the cheekbones stand out further to the front"),
    ("upper_cheek_width", "cheek", -1, 2.07565, 0.358393, 0.188684, "the cheekbones stand out further to the sides"),
    ("eye_height_position", "eye", -1, 2, 0.542626, 0.220677, "the eyes lie higher"),
    ("eye_spacing", "eye", -1, 2, 0.29505, 0.1908, "the eyes lie further apart"),
    ("eye_depth", "eye", -1.4, 2, 0.223929, 0.182516, "the eyes lie further forward, in shallower sockets"),
    ("eye_width", "eye", -1, 2, 0.479715, 0.148395, "the eyes are wider from corner to corner"),
    ("eye_opening", "eye", -1.08689, 2.5, 0.432985, 0.222213, "the lids are further open"),
    ("eye_angle_z", "eye", -1, 2, 0.484584, 0.0725045, "the eyes are turned in the picture, outer corners up"),
    ("eye_angle_y", "eye", -1, 2, 0.547784, 0.12024, "the eyes are turned to the sides, gaze with them"),
    ("inner_eye_corner_spacing", "eye", -1.21779, 2.41458, 0.484096, 0.25968, "the inner corners lie further apart"),
    ("outer_eye_corner_spacing", "eye", -1, 2, 0.439965, 0.214431, "the outer corners lie further apart"),
    ("inner_eye_corner_height", "eye", -1, 2.22061, 0.64138, 0.25985, "the inner corners lie higher"),
    ("outer_eye_corner_height", "eye", -1.5, 2.5, 0.40436, 0.308785, "the outer corners lie higher"),
    ("eyelid_shape_1", "eye", -1.40113, 2.48609, 0.543061, 0.283307, "the inner half of the upper lid is higher"),
    ("eyelid_shape_2", "eye", -1, 2.08677, 0.426097, 0.157148, "the outer half of the upper lid is higher"),
    ("nose_height_position", "nose", -1, 2, 0.412354, 0.210074, "the nose ends higher"),
    ("nose_depth", "nose", -1, 2, 0.512035, 0.138422, "the whole nose stands out further"),
    ("nose_angle_x", "nose", -1, 2, 0.394853, 0.146376, "the nose leans out: tip further forward, root back"),
    ("nose_width", "nose", -1, 2, 0.437402, 0.149699, "the nose is wider from the middle down"),
    ("nose_bridge_height", "nose", -1, 2, 0.277009, 0.182052, "the root of the nose is higher"),
    ("nose_bridge_width", "nose", -1, 2, 0.390941, 0.171391, "the bridge is broader"),
    ("nose_bridge_shape", "nose", -1, 2, 0.482291, 0.148875, "the bridge is arched outwards, below 0.5 hollow"),
    ("nostril_width", "nose", -1, 2, 0.475634, 0.167739, "the wings of the nose lie further apart"),
    ("nostril_height", "nose", -1, 2.21475, 0.533568, 0.166837, "the wings of the nose lie higher"),
    ("nostril_depth", "nose", -1, 2, 0.545828, 0.167565, "the wings of the nose stand out further"),
    ("nostril_angle_x", "nose", -1, 2, 0.531651, 0.147355, "the nostrils face the viewer more and look taller"),
    ("nostril_angle_z", "nose", -1, 2, 0.429715, 0.151384, "the wings of the nose are turned, outer side up"),
    ("nose_tip_height", "nose", -1, 2.5, 0.477568, 0.155641, "the tip of the nose lies higher"),
    ("nose_tip_angle_x", "nose", -1, 2, 0.492442, 0.127527, "the tip turns up and shows more of its underside"),
    ("nose_tip_size", "nose", -1, 2, 0.355271, 0.161971, "the tip of the nose is larger"),
    ("mouth_height_position", "mouth", -1, 2, 0.69067, 0.216459, "the mouth lies higher"),
    ("mouth_width", "mouth", -1, 2.5, 0.533233, 0.275564, "the mouth is wider"),
    ("lip_thickness", "mouth", -1.40755, 2.43478, 0.439519, 0.291084, "both lips are thicker"),
    ("mouth_depth", "mouth", -1, 2.42101, 0.337209, 0.188778, "the mouth lies further forward"),
    ("upper_lip_shape", "mouth", -1, 2, 0.426609, 0.163, "the upper lip's two peaks stand out more"),
    ("lower_lip_shape", "mouth", -1, 2, 0.540589, 0.172745, "the lower lip is fuller in the middle than at its sides"),
    ("mouth_corner_shape", "mouth", -1, 2.10804, 0.453654, 0.22703, "the corners of the mouth are turned up"),
)]
NAMES = [slider.name for slider in SLIDERS]


#: Groups of sliders that move points of the picture plane together, in order.
STAGES = (
    ("eyelid_shape_1", "eyelid_shape_2", "nostril_angle_x", "nostril_angle_z", "nose_tip_angle_x", "upper_lip_shape",
     "lower_lip_shape", "chin_height", "jaw_height"),
    ("inner_eye_corner_spacing", "outer_eye_corner_spacing", "inner_eye_corner_height", "outer_eye_corner_height",
     "nostril_width", "nose_tip_height", "mouth_corner_shape", "chin_width", "jaw_width"),
    ("eye_width", "eye_opening", "eye_angle_z", "nostril_height", "nose_tip_size", "lip_thickness", "jaw_angle",
     "lower_cheek_width", "nose_bridge_width"),
    ("nose_height_position", "nose_width", "nose_angle_x", "mouth_width", "jaw_base_height", "upper_cheek_width"),
    ("eye_height_position", "eye_spacing", "mouth_height_position"),
    ("face_width", "upper_face_height", "lower_face_width"),
)


def _plateau(x: np.ndarray, y: np.ndarray, cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
    """Flat-topped window: what lies inside moves as a whole."""
    return np.exp(-(((x - cx) / sx) ** 4) - ((y - cy) / sy) ** 4)


def fields(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Displacements of all sliders from 0 to 1 at rest points.

    Args:
        x, y: (...) rest coordinates.

    Returns:
        (54, 3, ...) float64: dx, dy (down), dz (towards the viewer), in rest units.
    """
    s = np.abs(x)
    outward = np.tanh(x / 0.05)  # the sign of x, without a kink on the midline
    zero = np.zeros_like(s)
    moves: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def move(name: str, out: np.ndarray = zero, up: np.ndarray = zero, forward: np.ndarray = zero) -> None:
        moves[name] = (out * outward, -up, forward)

    # Whole face. The outline moves and the features stay.
    rim = smoothstep(s, 0.58, 1.0)
    below_nose = smoothstep(y, 0.35, 0.95)
    move("face_width", out=0.27 * rim * s ** 0.5)
    move("upper_face_depth", forward=0.40 * smoothstep(y, 0.02, -0.42))
    move("upper_face_height", up=0.30 * smoothstep(y, -0.12, -0.75))
    move("lower_face_depth", forward=0.42 * smoothstep(y, 0.62, 1.15))
    move("lower_face_width", out=0.23 * smoothstep(s, 0.25, 0.85) * below_nose)

    # Jaw and chin.
    move("jaw_width", out=0.20 * gauss(s, y, 0.86, 0.98, 0.24, 0.17))
    move("jaw_height", up=0.24 * gauss(s, y, 0.80, 1.06, 0.19, 0.19))
    move("jaw_depth", forward=0.34 * gauss(s, y, 0.62, 1.04, 0.18, 0.18))
    square = 0.17 * gauss(s, y, 0.55, 1.36, 0.18, 0.17)
    move("jaw_angle", out=0.6 * square, up=-0.8 * square)
    move("jaw_base_height", up=0.20 * smoothstep(y, 1.18, 1.60))
    move("chin_width", out=0.21 * gauss(s, y, 0.27, 1.54, 0.15, 0.14) * smoothstep(s, 0, 0.2))
    move("chin_height", up=0.17 * np.exp(-0.5 * (s / 0.19) ** 2) * smoothstep(y, 1.22, 1.58))
    move("chin_depth", forward=0.36 * gauss(s, y, 0, 1.43, 0.20, 0.14))

    # Cheeks.
    move("lower_cheek_height", forward=0.24 * (gauss(s, y, 0.60, 0.62, 0.18, 0.11) - gauss(s, y, 0.60, 0.90, 0.18, 0.11)))
    move("lower_cheek_depth", forward=0.28 * gauss(s, y, 0.60, 0.76, 0.17, 0.16))
    move("lower_cheek_width", out=0.18 * gauss(s, y, 0.97, 0.58, 0.20, 0.15))
    move("upper_cheek_height", forward=0.18 * (gauss(s, y, 0.68, 0.19, 0.17, 0.095) - gauss(s, y, 0.68, 0.44, 0.17, 0.095)))
    move("upper_cheek_depth", forward=0.23 * gauss(s, y, 0.66, 0.31, 0.18, 0.13))
    move("upper_cheek_width", out=0.17 * gauss(s, y, 1.02, 0.17, 0.20, 0.16))

    # Eyes.
    ex, ey = EYE
    eye = _plateau(s, y, ex, ey, 0.36, 0.23)
    near = _plateau(s, y, ex, ey, 0.31, 0.19)
    move("eye_height_position", up=0.17 * eye)
    move("eye_spacing", out=0.15 * eye)
    move("eye_depth", forward=0.34 * gauss(s, y, ex, ey, 0.22, 0.14))
    move("eye_width", out=0.44 * (s - ex) * near)
    move("eye_opening", up=0.85 * (ey - y) * near)
    move("eye_angle_z", up=0.42 * (s - ex) * near, out=0.42 * (y - ey) * near)
    move("eye_angle_y", forward=-0.85 * (s - ex) * near)
    move("inner_eye_corner_spacing", out=0.095 * gauss(s, y, *INNER_CORNER, 0.075, 0.075))
    move("outer_eye_corner_spacing", out=0.105 * gauss(s, y, *OUTER_CORNER, 0.085, 0.075))
    move("inner_eye_corner_height", up=0.10 * gauss(s, y, *INNER_CORNER, 0.075, 0.075))
    move("outer_eye_corner_height", up=0.12 * gauss(s, y, *OUTER_CORNER, 0.085, 0.085))
    move("eyelid_shape_1", up=0.085 * gauss(s, y, 0.375, -0.115, 0.065, 0.065))
    move("eyelid_shape_2", up=0.085 * gauss(s, y, 0.56, -0.115, 0.065, 0.065))

    # Nose.
    nose = np.exp(-((s / 0.33) ** 4)) * smoothstep(y, -0.12, 0.42) * smoothstep(y, 0.92, 0.66)
    ridge = np.exp(-0.5 * (s / 0.17) ** 2)
    length = smoothstep(y, -0.35, 0.0) * smoothstep(y, 0.78, 0.60)
    move("nose_height_position", up=0.17 * nose)
    move("nose_depth", forward=0.34 * ridge * length * (0.55 + 0.45 * smoothstep(y, -0.1, 0.4)))
    move("nose_angle_x", forward=0.62 * (y - 0.16) * ridge * length, up=0.05 * gauss(s, y, 0, 0.52, 0.15, 0.12))
    move("nose_width", out=0.46 * s * _plateau(s, y, 0, 0.45, 0.33, 0.32))
    move("nose_bridge_height", forward=0.26 * gauss(s, y, 0, -0.06, 0.095, 0.13))
    move("nose_bridge_width", out=1.0 * s * gauss(s, y, 0, 0.08, 0.105, 0.16),
         forward=0.18 * gauss(s, y, 0.135, 0.08, 0.05, 0.14))
    move("nose_bridge_shape", forward=0.30 * gauss(s, y, 0, 0.22, 0.085, 0.09))
    move("nostril_width", out=0.115 * gauss(s, y, 0.215, 0.585, 0.07, 0.085))
    move("nostril_height", up=0.12 * gauss(s, y, 0.215, 0.60, 0.075, 0.085))
    move("nostril_depth", forward=0.26 * gauss(s, y, 0.185, 0.575, 0.06, 0.065))
    move("nostril_angle_x", up=0.075 * gauss(s, y, 0.105, 0.605, 0.06, 0.045),
         forward=-0.10 * gauss(s, y, 0.105, 0.665, 0.06, 0.04))
    move("nostril_angle_z", up=1.35 * (s - 0.145) * gauss(s, y, 0.165, 0.62, 0.075, 0.075))
    move("nose_tip_height", up=0.14 * gauss(s, y, 0, 0.47, 0.105, 0.10))
    move("nose_tip_angle_x", forward=2.2 * (y - 0.50) * gauss(s, y, 0, 0.53, 0.095, 0.10),
         up=0.095 * gauss(s, y, 0, 0.655, 0.075, 0.06))
    move("nose_tip_size", out=0.80 * s * gauss(s, y, 0, 0.49, 0.12, 0.11), forward=0.20 * gauss(s, y, 0, 0.49, 0.08, 0.08))

    # Mouth.
    mouth = np.exp(-((s / 0.58) ** 4)) * smoothstep(y, 0.70, 0.90) * smoothstep(y, 1.44, 1.16)
    move("mouth_height_position", up=0.16 * mouth)
    move("mouth_width", out=0.38 * s * np.exp(-((s / 0.55) ** 4)) * np.exp(-(((y - 1.01) / 0.23) ** 4)))
    move("lip_thickness", up=0.95 * (1.0 - y) * np.exp(-((s / 0.42) ** 4)) * np.exp(-(((y - 1.02) / 0.21) ** 4)))
    move("mouth_depth", forward=0.36 * gauss(s, y, 0, 1.01, 0.30, 0.14))
    move("upper_lip_shape", up=0.095 * (gauss(s, y, 0.10, 0.885, 0.05, 0.06) - 0.8 * gauss(s, y, 0, 0.90, 0.04, 0.06)))
    move("lower_lip_shape", up=0.06 * gauss(s, y, 0.22, 1.12, 0.07, 0.06) - 0.09 * gauss(s, y, 0, 1.15, 0.09, 0.055))
    move("mouth_corner_shape", up=0.13 * gauss(s, y, 0.385, 1.0, 0.11, 0.08))

    return np.array([moves[name] for name in NAMES])


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
    value = rng.normal([s.mean for s in SLIDERS], [s.std for s in SLIDERS])
    low, high = np.array([s.minimum for s in SLIDERS]), np.array([s.maximum for s in SLIDERS])
    return np.clip((value - low) / (high - low), 0, 1)
