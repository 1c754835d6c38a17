"""A look as numbers that a network can learn, and back: colours, hair and beard of a person, as a picture shows them.

Styles of hair are many, and most differ little from the front. Four classes remain. Each is drawn in one style, which
looks tidy from the front.
"""

from dataclasses import replace

import numpy as np

from games.game import Appearance, LookNumber
from games.makehuman import looks
from games.makehuman.looks import Look

#: Class of hair → the style that is drawn for it.
HAIR = {"bald": "", "short": "crop", "tied": "tied", "long": "bob"}

#: Class of beard → the style that is drawn for it.
BEARDS = {"none": "", "full": "full beard", "goatee": "goatee", "moustache": "moustache"}

_LONG, _TIED, _FULL_BEARDS = ("bob", "long", "waves", "fringe"), ("tied",), ("full beard", "long beard")

#: What the numbers of a look say, in their order.
TABLE = (
    *(LookNumber(f"hair {channel}", is_colour=True) for channel in ("red", "green", "blue")),
    *(LookNumber(name) for name in HAIR),
    *(LookNumber(f"beard {name}") for name in BEARDS),
    LookNumber("stubble"),
    *(LookNumber(f"brow {name}") for name in ("thickness", "arch", "density")),
    *(LookNumber(f"iris {channel}", is_colour=True) for channel in ("red", "green", "blue")),
    LookNumber("wrinkles"),
)

#: Another class than short hair, or than no beard, is drawn where its share exceeds this: a beard or a bald head that a
#: person has not changes the person more than a missing one. Tied hair differs little from short hair.
_SURE = {"bald": 0.6, "tied": 0.4, "long": 0.6, "full": 0.6, "goatee": 0.6, "moustache": 0.6}

#: What a beard that is not sure enough leaves: stubble, in proportion to how sure it is.
_TRACE = 0.6

#: How far a channel of a skin colour may lie from the game's own skins, as a share of it: cameras and lamps tint more.
_TINT = 0.06

#: The lowest and the highest that the game draws of a brow's thickness, arch and density.
_BROWS = ((0.2, -0.3, 0.6), (0.95, 0.9, 0.95))


def appearance_of(look: Look) -> Appearance:
    """The skin's colour and the numbers (L,) of a look, in the order of `TABLE`."""
    hair, beard = hair_class(look), beard_class(look)
    numbers = [
        *look.hair_colour,
        *(float(name == hair) for name in HAIR),
        *(float(name == beard) for name in BEARDS),
        look.stubble,
        *look.brow,
        *look.iris,
        look.wrinkles,
    ]
    return Appearance(np.array(look.skin, float), np.array(numbers, float))


def look_of(appearance: Appearance, neutral: Look) -> Look:
    """The look that an appearance describes, clipped to what the game draws.

    Args:
        appearance: its numbers (L,) in the order of `TABLE`; they may be a regression's.
        neutral: what numbers do not say: pose, light, expression.
    """
    values = np.split(np.asarray(appearance.numbers, float), np.cumsum([3, len(HAIR), len(BEARDS), 1, 3, 3]))
    hair_colour, hair_shares, beard_shares, stubble, brow, iris, wrinkles = values
    hair, beard = _chosen(HAIR, hair_shares, instead="short"), _chosen(BEARDS, beard_shares, instead="none")
    trace = 0.0 if BEARDS[beard] else _TRACE * (1 - beard_shares[0])
    thickness, arch, density = np.clip(brow, *_BROWS).tolist()
    return replace(
        neutral,
        skin=nearest_skin(appearance.skin),
        hair=HAIR[hair],
        bald=hair == "bald",
        hair_colour=_within(hair_colour, looks.HAIR_COLOURS),
        beard=BEARDS[beard],
        stubble=float(np.clip(max(stubble[0], trace), 0, 0.6)),
        brow=(thickness, arch, density),
        iris=_within(iris, looks.IRIS_COLOURS),
        wrinkles=float(np.clip(wrinkles[0], 0, 1)),
    )


def describe(look: Look) -> dict[str, str]:
    """A look in words: classes of hair and beard; colours as "#rrggbb"."""
    return {
        "hair": hair_class(look),
        "beard": beard_class(look),
        "skin_colour": _as_hex(look.skin),
        "hair_colour": _as_hex(look.hair_colour),
        "iris_colour": _as_hex(look.iris),
    }


def hair_class(look: Look) -> str:
    """The class of `HAIR` that a look's hair belongs to."""
    if look.bald:
        return "bald"
    if look.hair in _TIED:
        return "tied"
    return "long" if look.hair in _LONG else "short"


def beard_class(look: Look) -> str:
    """The class of `BEARDS` that a look's beard belongs to."""
    if look.beard in _FULL_BEARDS:
        return "full"
    return look.beard or "none"


def nearest_skin(colour: np.ndarray) -> np.ndarray:
    """A display colour (3,) brought near to the skins that the game draws, between the fairest and the darkest."""
    palette = looks.SKIN_COLOURS
    place = np.linspace(0, len(palette) - 1, 501)
    skins = np.stack([np.interp(place, np.arange(len(palette)), channel) for channel in palette.T], 1)
    nearest = skins[np.argmin(np.square(skins - colour).sum(1))]
    tint = np.asarray(colour) / nearest - 1
    return nearest * (1 + tint * min(1.0, _TINT / max(float(np.abs(tint).max()), 1e-9)))


def _chosen(classes: dict[str, str], shares: np.ndarray, *, instead: str) -> str:
    """The class with the largest share, or `instead` where that share is not sure enough."""
    best = int(np.argmax(shares))
    name = list(classes)[best]
    return name if shares[best] > _SURE.get(name, 0) else instead


def _within(colour: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """A colour (3,), each channel clipped to those of a palette (K, 3)."""
    return np.clip(colour, palette.min(0), palette.max(0))


def _as_hex(colour: np.ndarray) -> str:
    red, green, blue = np.clip(np.round(np.asarray(colour) * 255), 0, 255).astype(int).tolist()
    return f"#{red:02x}{green:02x}{blue:02x}"
