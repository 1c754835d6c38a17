"""What a picture shows besides the parameters: pose, expression, colours, hair, light, background. None is a label."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from games.makehuman.parameters import value_of

# Display colours, RGB in [0, 1], between which looks are drawn: from the fairest to the darkest skin, and so on.
_SKIN = np.array(
    [
        (0.93, 0.78, 0.71),
        (0.88, 0.70, 0.60),
        (0.82, 0.63, 0.50),
        (0.70, 0.50, 0.37),
        (0.52, 0.35, 0.25),
        (0.33, 0.21, 0.15),
    ]
)
_HAIR = np.array(
    [
        (0.07, 0.06, 0.06),
        (0.15, 0.10, 0.08),
        (0.27, 0.17, 0.11),
        (0.42, 0.27, 0.16),
        (0.60, 0.45, 0.27),
        (0.78, 0.64, 0.42),
    ]
)
_RED, _GREY = np.array((0.45, 0.19, 0.10)), np.array((0.62, 0.61, 0.60))
_IRIS = np.array([(0.20, 0.11, 0.06), (0.33, 0.20, 0.10), (0.35, 0.33, 0.18), (0.33, 0.42, 0.36), (0.33, 0.46, 0.58)])
_CLOTH = np.array([(0.25, 0.28, 0.35), (0.75, 0.73, 0.70), (0.45, 0.18, 0.18), (0.18, 0.30, 0.25), (0.12, 0.12, 0.14)])
_LIPSTICK = np.array([(0.60, 0.12, 0.15), (0.70, 0.28, 0.32), (0.45, 0.10, 0.18), (0.75, 0.40, 0.36)])

#: The colours between which skin, hair (with red and grey) and irises lie, (K, 3) display RGB.
SKIN_COLOURS, HAIR_COLOURS, IRIS_COLOURS = _SKIN, np.vstack([_HAIR, _RED, _GREY]), _IRIS

_WOMENS = ("bob", "long", "waves", "fringe", "tied", "swept", "curly", "afro", "bowl", "long", "waves", "tied")
_MENS = ("crop", "brush", "side", "back", "messy", "curly", "crop", "side", "afro", "swept")
_UNDER_HATS = ("", "crop", "tied", "long", "back")
_BEARDS = ("full beard", "long beard", "goatee", "moustache")


@dataclass(frozen=True, eq=False)
class Light:
    """A light far away."""

    direction: np.ndarray  #: unit, from the face to the light: x to the picture's right, y up, z to the viewer
    colour: np.ndarray  #: linear RGB
    shadow: float = 0.0  #: how dark the shadows are that it casts, 0 … 1


_STUDIO_KEY = Light(np.array((-0.42, 0.40, 0.81)), np.array((0.80, 0.78, 0.75)))
_STUDIO_SECOND = Light(np.array((0.75, 0.15, 0.64)), np.array((0.14, 0.15, 0.165)))


@dataclass(frozen=True, eq=False)
class Look:
    """One picture's nuisances. Colours are display RGB in [0, 1]; angles are radians."""

    yaw: float = 0.0  #: head turn, positive to the picture's right
    pitch: float = 0.0  #: head nod, positive downwards
    distance: float = 11.0  #: from the camera to the head, in decimetres: near ones look through a wide lens
    expression: tuple[tuple[str, float], ...] = ()  #: expression units and their strengths
    gaze: tuple[float, float] = (0.0, 0.0)  #: to the picture's right and up
    skin: np.ndarray = field(default_factory=partial(np.array, _SKIN[1]))
    mottle: float = 0.5  #: how blotched the skin is
    pores: float = 0.5
    freckles: float = 0.0
    wrinkles: float = 0.0
    gloss: float = 0.25
    redness: float = 0.5
    hair: str = ""  #: a style of `hair.STYLES`, or none
    hair_colour: np.ndarray = field(default_factory=partial(np.array, _HAIR[2]))
    bald: bool = False  #: no hair is painted on the scalp either
    hairline: float = 0.0  #: decimetres by which the hairline lies higher
    beard: str = ""
    stubble: float = 0.0
    brow: tuple[float, float, float] = (0.5, 0.0, 0.8)  #: thickness, arch, density
    iris: np.ndarray = field(default_factory=partial(np.array, _IRIS[1]))
    lips: float = 0.5  #: how much redder than the skin lips are
    lipstick: tuple[np.ndarray, float] = (_LIPSTICK[0], 0.0)
    eye_shadow: tuple[np.ndarray, float] = (_LIPSTICK[0], 0.0)
    cloth: np.ndarray = field(default_factory=partial(np.array, _CLOTH[0]))
    key: Light = _STUDIO_KEY
    second: Light = _STUDIO_SECOND
    above: np.ndarray = field(
        default_factory=partial(np.array, (0.25, 0.26, 0.28))
    )  #: ambient light from above, linear RGB
    below: np.ndarray = field(default_factory=partial(np.array, (0.11, 0.10, 0.095)))
    photo_seed: int | None = None  #: seeds background, things on and before the face, and camera; None in the studio
    glasses: bool = False
    hat: bool = False
    hand: bool = False

    @property
    def has_shadows(self) -> bool:
        return self.key.shadow > 0


def _between(rng: np.random.Generator, palette: np.ndarray, *, spread: float, place: float | None = None) -> np.ndarray:
    """A colour between two neighbours of a palette, a little off: at `place` in [0, 1] of it, or anywhere."""
    place = (rng.random() if place is None else place) * (len(palette) - 1)
    low = min(int(place), len(palette) - 2)
    colour = palette[low] + (palette[low + 1] - palette[low]) * (place - low)
    return np.clip(colour * (1 + spread * rng.standard_normal(3)), 0.02, 1)


def _direction(x: float, y: float, z: float) -> np.ndarray:
    vector = np.array([x, y, z], float)
    return vector / np.linalg.norm(vector)


def studio(rng: np.random.Generator, parameters: np.ndarray) -> Look:
    """A game render: steady light, plain background, neutral expression; colours and hair vary.

    Skin, hair and eye colours do not depend on the origins, which are shapes of the head. Hair and beard follow Gender,
    grey hair and wrinkles follow Age, as a game's designer would have it.
    """
    gender, age = value_of(parameters, "macrodetails/Gender"), value_of(parameters, "macrodetails/Age")
    man = rng.random() < 1 / (1 + np.exp(-10 * (gender - 0.5)))
    old = max(0.0, 2 * age - 1)
    complexion = _complexion(rng, spread=0.02)
    look = Look(
        yaw=np.radians(rng.uniform(-6, 6)),
        pitch=np.radians(rng.uniform(-5, 5)),
        gaze=tuple(rng.normal(0, 0.03, 2)),
        **complexion,
        mottle=rng.uniform(0.3, 0.7),
        pores=rng.uniform(0.3, 0.7),
        wrinkles=float(np.clip(1.3 * old - 0.15 + rng.normal(0, 0.08), 0, 1)),
        redness=rng.uniform(0.3, 0.7),
        lips=rng.uniform(0.35, 0.65),
        cloth=_between(rng, _CLOTH, spread=0.1),
    )
    return replace(look, **_hair(rng, look.hair_colour, man=man, old=old, beards=0.25))


def _complexion(rng: np.random.Generator, *, spread: float) -> dict[str, Any]:
    """Skin, and hair and eyes that go with it: dark with dark skin, anything with fair. Fields of `Look`."""
    dark = rng.random()
    lightest = float(np.clip(1.15 - 1.5 * dark, 0.06, 1))
    return {
        "skin": _between(rng, _SKIN, spread=spread, place=dark),
        "hair_colour": _between(rng, _HAIR, spread=0.05, place=lightest * rng.random()),
        "iris": _between(rng, _IRIS, spread=0.06, place=lightest * rng.random()),
    }


def _hair(rng: np.random.Generator, colour: np.ndarray, *, man: bool, old: float, beards: float) -> dict[str, Any]:
    """Hair, brows and beard of a man or a woman: fields of `Look`."""
    if colour.max() > 0.25 and rng.random() < 0.10:
        colour = _RED * (1 + 0.1 * rng.standard_normal(3))
    grey = float(np.clip(1.8 * old - 0.5 + rng.normal(0, 0.25), 0, 1))
    colour = np.clip(colour + (_GREY - colour) * grey, 0.02, 1)
    bald = man and rng.random() < 0.10 + 0.25 * old
    styles = _MENS if man else _WOMENS
    bearded = man and rng.random() < beards
    return {
        "hair": "" if bald else str(rng.choice(styles)),
        "hair_colour": colour,
        "bald": bool(bald),
        "hairline": float(rng.normal(0, 0.03) + man * old * rng.uniform(0, 0.15)),
        "beard": str(rng.choice(_BEARDS)) if bearded else "",
        "stubble": float(max(0.0, rng.uniform(-0.4, 0.6))) if man else 0.0,
        "brow": (
            float(rng.uniform(0.45, 0.95) if man else rng.uniform(0.2, 0.6)),
            float(rng.normal(0, 0.25) if man else rng.normal(0.35, 0.3)),
            float(rng.uniform(0.6, 0.95)),
        ),
    }


#: Expressions: names for sheets, and the units they are made of.
EXPRESSIONS: dict[str, tuple[tuple[str, float], ...]] = {
    "neutral": (),
    "smile": (("mouth-corner-puller", 0.9), ("eye-left-slit", 0.4), ("eye-right-slit", 0.4)),
    "laugh": (
        ("mouth-corner-puller", 0.8),
        ("mouth-open", 0.30),
        ("mouth-part-later", 0.5),
        ("eye-left-slit", 0.7),
        ("eye-right-slit", 0.7),
    ),
    "frown": (("mouth-depression", 0.8), ("eyebrows-left-down", 0.8), ("eyebrows-right-down", 0.8)),
    "open mouth": (("mouth-open", 0.7),),
    "surprise": (
        ("mouth-open", 0.45),
        ("eyebrows-left-up", 1.0),
        ("eyebrows-right-up", 1.0),
        ("eye-left-opened-up", 0.9),
        ("eye-right-opened-up", 0.9),
    ),
    "brows up": (("eyebrows-left-up", 1.0), ("eyebrows-right-up", 1.0)),
    "brows down": (("eyebrows-left-down", 1.0), ("eyebrows-right-down", 1.0)),
    "inner brows up": (("eyebrows-left-inner-up", 1.0), ("eyebrows-right-inner-up", 1.0)),
    "half closed": (("eye-left-closure", 0.5), ("eye-right-closure", 0.5)),
    "closed": (("eye-left-closure", 1.0), ("eye-right-closure", 1.0)),
    "wink": (("eye-left-closure", 1.0), ("mouth-corner-puller", 0.4)),
    "pursed": (("mouth-pursing", 0.9),),
    "pout": (("mouth-protusion", 0.7),),
    "pressed": (("mouth-compression", 0.9),),
    "sad": (
        ("mouth-depression-retraction", 0.6),
        ("eyebrows-left-inner-up", 0.9),
        ("eyebrows-right-inner-up", 0.9),
    ),
    "parted": (("mouth-parling", 0.8), ("mouth-open", 0.12)),
    "sneer": (("nose-left-elevation", 0.9), ("nose-right-elevation", 0.9), ("mouth-upward-retraction", 0.5)),
}


def with_expression(look: Look, name: str, *, strength: float = 1.0) -> Look:
    """The look with one of `EXPRESSIONS`."""
    units = tuple((unit, value * strength) for unit, value in EXPRESSIONS[name])
    return replace(look, expression=units)


def photo(rng: np.random.Generator, parameters: np.ndarray, render: Look) -> Look:
    """The same character as a photo may show it: expression, pose, lens, light, colours, hair, things worn, camera."""
    age = value_of(parameters, "macrodetails/Age")
    man = rng.random() < 1 / (1 + np.exp(-10 * (value_of(parameters, "macrodetails/Gender") - 0.5)))
    old = max(0.0, 2 * age - 1)
    expression = _expression(rng)
    key, second, above, below = _lights(rng)
    complexion = _complexion(rng, spread=0.03)
    made_up = rng.random() < (0.08 if man else 0.5)
    look = replace(
        render,
        yaw=float(np.radians(np.clip(rng.normal(0, 13), -30, 30))),
        pitch=float(np.radians(np.clip(rng.normal(2, 8), -20, 20))),
        distance=float(np.exp(rng.uniform(np.log(4.5), np.log(25)))),
        gaze=tuple(np.clip(rng.normal(0, 0.08, 2), -0.2, 0.2)),
        **complexion,
        mottle=rng.uniform(0.2, 1.2),
        pores=rng.uniform(0.2, 1.2),
        freckles=float(max(0.0, rng.uniform(-1.5, 1))),
        wrinkles=float(np.clip(1.3 * old - 0.1 + rng.normal(0, 0.15), 0, 1)),
        gloss=rng.uniform(0.05, 0.6),
        redness=rng.uniform(0.1, 1.1),
        lips=rng.uniform(0.2, 0.8),
        lipstick=(_between(rng, _LIPSTICK, spread=0.1), made_up * rng.uniform(0.2, 0.9)),
        eye_shadow=(np.clip(rng.uniform(0.1, 0.5, 3), 0, 1), made_up * max(0.0, rng.uniform(-0.5, 0.8))),
        cloth=_between(rng, _CLOTH, spread=0.2),
        key=key,
        second=second,
        above=above,
        below=below,
        photo_seed=int(rng.integers(2**31)),
        glasses=bool(rng.random() < 0.18),
        hat=bool(rng.random() < 0.10),
        hand=bool(rng.random() < 0.05),
    )
    look = replace(look, **_hair(rng, look.hair_colour, man=man, old=old, beards=0.35))
    if look.hat and look.hair not in _UNDER_HATS:
        look = replace(look, hair=str(rng.choice(_UNDER_HATS)))
    return with_expression(look, expression, strength=rng.uniform(0.35, 1.0))


def _expression(rng: np.random.Generator) -> str:
    """A name of `EXPRESSIONS`, the first three more often than the others."""
    names = list(EXPRESSIONS)
    shares = np.array([4, 6, 4] + [1] * (len(names) - 3), float)
    return names[rng.choice(len(names), p=shares / shares.sum())]


def _lights(rng: np.random.Generator) -> tuple[Light, Light, np.ndarray, np.ndarray]:
    """Key, second light and ambient light from above and below of a photo: soft or hard, warm or cool."""
    warmth = rng.normal(0, 0.12)
    tint = np.array([1 + warmth, 1, 1 - warmth]) * (1 + 0.05 * rng.standard_normal(3))
    hardness = rng.random()
    key = Light(
        _direction(rng.uniform(-1.2, 1.2), rng.uniform(-0.2, 1.0), rng.uniform(0.4, 1.1)),
        np.clip(tint * (0.45 + 0.6 * hardness), 0, 2),
        float(rng.uniform(0.3, 0.95) * (rng.random() < 0.75)),
    )
    cool = rng.normal(0, 0.15)
    other = np.array([1 - cool, 1, 1 + cool]) * rng.uniform(0.0, 0.35)
    second = Light(
        _direction(rng.uniform(-1.5, 1.5), rng.uniform(-0.4, 0.8), rng.uniform(-0.5, 1.0)), np.clip(other, 0, 2)
    )
    around = rng.normal(0, 0.10)
    above = np.array([1 - around, 1, 1 + around]) * rng.uniform(0.16, 0.45) * (1.3 - 0.5 * hardness)
    return key, second, above, above * rng.uniform(0.3, 0.8)
