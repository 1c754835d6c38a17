"""What a picture shows besides the sliders: pose, colours, hair, light, background. None of it is a label."""

from dataclasses import dataclass

import numpy as np

# Display colours, RGB in [0, 1], between which looks are drawn.
_SKIN = np.array(
    [
        (0.97, 0.84, 0.77),
        (0.94, 0.77, 0.67),
        (0.88, 0.69, 0.56),
        (0.76, 0.57, 0.44),
        (0.60, 0.43, 0.32),
        (0.44, 0.30, 0.22),
    ]
)
_HAIR = np.array(
    [
        (0.12, 0.09, 0.08),
        (0.24, 0.16, 0.11),
        (0.38, 0.25, 0.16),
        (0.55, 0.38, 0.22),
        (0.78, 0.62, 0.40),
        (0.52, 0.24, 0.13),
        (0.62, 0.60, 0.60),
    ]
)
_IRIS = np.array([(0.30, 0.19, 0.11), (0.42, 0.29, 0.15), (0.36, 0.42, 0.24), (0.28, 0.45, 0.58), (0.45, 0.52, 0.58)])
_CLOTH = np.array([(0.25, 0.28, 0.35), (0.75, 0.73, 0.70), (0.42, 0.20, 0.20), (0.20, 0.30, 0.25), (0.15, 0.15, 0.17)])


@dataclass(frozen=True)
class Look:
    """One picture's nuisances. Colours are display RGB in [0, 1]; angles are radians."""

    yaw: float  #: head turn, positive to the picture's right
    pitch: float  #: head nod, positive downwards
    gaze: tuple[float, float]
    skin: np.ndarray
    hair: np.ndarray
    iris: np.ndarray
    lip_tint: float  #: how much redder than the skin lips are
    lipstick: np.ndarray  #: RGB and, last, its strength
    eye_shadow: np.ndarray  #: RGB and, last, its strength
    blush: float
    stubble: float
    fringe: float  #: 0 hair swept back, 1 hair on the forehead
    hair_length: float  #: y down to which hair falls beside the neck
    parting: float
    cloth: np.ndarray
    key_direction: np.ndarray  #: unit vector from the face to the key light: x right, y down, z to the viewer
    key: np.ndarray  #: key light, linear RGB
    fill: np.ndarray  #: light from above and all around, linear RGB
    bounce: np.ndarray  #: light from below, linear RGB
    shadow: float  #: how dark cast shadows are, 0 … 1
    gloss: float
    photo_seed: int | None  #: seeds background, skin texture and camera of a photo-like variant; None in the studio


def _between(rng: np.random.Generator, palette: np.ndarray, spread: float) -> np.ndarray:
    """A colour between two neighbours of a palette, a little off."""
    at = rng.random() * (len(palette) - 1)
    low = min(int(at), len(palette) - 2)
    colour = palette[low] + (palette[low + 1] - palette[low]) * (at - low)
    return np.clip(colour * (1 + spread * rng.standard_normal(3)), 0.02, 1)


def _direction(x: float, y: float, z: float) -> np.ndarray:
    vector = np.array([x, y, z], float)
    return vector / np.linalg.norm(vector)


def neutral() -> Look:
    """The look of contact sheets: zero pose, average colours, studio light."""
    return Look(
        yaw=0.0,
        pitch=0.0,
        gaze=(0.0, 0.0),
        skin=np.array([0.92, 0.75, 0.65]),
        hair=np.array([0.30, 0.20, 0.14]),
        iris=np.array([0.36, 0.34, 0.24]),
        lip_tint=0.5,
        lipstick=np.array([0.7, 0.2, 0.25, 0.0]),
        eye_shadow=np.array([0.4, 0.3, 0.3, 0.0]),
        blush=0.25,
        stubble=0.0,
        fringe=0.0,
        hair_length=0.55,
        parting=0.0,
        cloth=np.array([0.27, 0.30, 0.36]),
        key_direction=_direction(-0.40, -0.45, 0.80),
        key=np.array([0.84, 0.81, 0.77]),
        fill=np.array([0.30, 0.31, 0.34]),
        bounce=np.array([0.10, 0.09, 0.085]),
        shadow=0.40,
        gloss=0.10,
        photo_seed=None,
    )


def studio(rng: np.random.Generator) -> Look:
    """A game render: steady light, plain background; colours vary a little."""
    base = neutral().__dict__ | dict(
        yaw=np.radians(rng.uniform(-10, 10)),
        pitch=np.radians(rng.uniform(-6, 6)),
        gaze=tuple(rng.uniform(-0.012, 0.012, 2)),
        skin=_between(rng, _SKIN[:4], 0.015),
        hair=_between(rng, _HAIR[:4], 0.05),
        iris=_between(rng, _IRIS, 0.05),
        lip_tint=rng.uniform(0.35, 0.65),
        blush=rng.uniform(0.1, 0.4),
        fringe=rng.uniform(0.0, 0.25),
        hair_length=rng.uniform(0.4, 0.8),
        parting=rng.uniform(-0.3, 0.3),
        cloth=_between(rng, _CLOTH[:2], 0.1),
    )
    return Look(**base)


def photo(rng: np.random.Generator, render: Look) -> Look:
    """The same face in the same pose, as if photographed: other light, colours, make-up, hair, background."""
    side = rng.uniform(-1.0, 1.0)
    warmth = rng.normal(0, 0.12)
    key = rng.uniform(0.55, 1.1) * np.array([1 + warmth, 1, 1 - warmth]) * (1 + 0.08 * rng.standard_normal(3))
    cool = rng.normal(0, 0.10)
    fill = rng.uniform(0.14, 0.42) * np.array([1 - cool, 1, 1 + cool]) * (1 + 0.06 * rng.standard_normal(3))
    changed = render.__dict__ | dict(
        gaze=tuple(np.clip(rng.normal(0, 0.018, 2), -0.04, 0.04)),
        skin=_between(rng, _SKIN, 0.03),
        hair=_between(rng, _HAIR, 0.08),
        iris=_between(rng, _IRIS, 0.08),
        lip_tint=rng.uniform(0.2, 0.7),
        lipstick=np.append(np.clip(rng.normal((0.62, 0.16, 0.22), 0.10), 0, 1), max(0.0, rng.uniform(-0.8, 0.7))),
        eye_shadow=np.append(rng.uniform(0.05, 0.5, 3), max(0.0, rng.uniform(-0.8, 0.6))),
        blush=rng.uniform(0.0, 0.6),
        stubble=max(0.0, rng.uniform(-0.9, 0.5)),
        fringe=rng.uniform(0.0, 0.6),
        hair_length=rng.uniform(0.2, 2.2),
        parting=rng.uniform(-0.5, 0.5),
        cloth=_between(rng, _CLOTH, 0.15),
        key_direction=_direction(side, rng.uniform(-0.9, 0.15), rng.uniform(0.5, 1.1)),
        key=key,
        fill=fill,
        bounce=rng.uniform(0.2, 0.6) * fill,
        shadow=rng.uniform(0.2, 0.8),
        gloss=rng.uniform(0.03, 0.22),
        photo_seed=int(rng.integers(2**31)),
    )
    return Look(**changed)
