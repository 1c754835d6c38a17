"""The character creators whose cards are known: how a card names its game, and its sliders in the card's order."""

from functools import cache
from typing import NamedTuple

from games.parameters import BUILT_IN_TABLE, Parameter, parse_parameters

#: Sliders of AI*Shoujo and Honey Select 2 that the built-in table does not have: the last five of a card.
_EARS = ("ear_size", "ear_angle_y", "ear_angle_z", "upper_ear_shape", "lower_ear_shape")

#: Sliders of Koikatsu in the order of its cards, by group.
_KOIKATSU = {
    "whole": (
        "face_width",
        "upper_face_depth",
        "upper_face_height",
        "upper_face_size",
        "lower_face_depth",
        "lower_face_width",
    ),
    "chin": (
        "lower_jaw_height",
        "lower_jaw_depth",
        "jaw_height",
        "jaw_width",
        "jaw_depth",
        "chin_height",
        "chin_depth",
        "chin_width",
    ),
    "cheek": ("cheekbone_width", "cheekbone_depth", "cheek_width", "cheek_depth", "cheek_height"),
    "eyebrow": (
        "eyebrow_height",
        "eyebrow_spacing",
        "eyebrow_angle_z",
        "inner_eyebrow_shape",
        "outer_eyebrow_shape",
    ),
    "eye": (
        "upper_eyelid_shape_1",
        "upper_eyelid_shape_2",
        "upper_eyelid_shape_3",
        "lower_eyelid_shape_1",
        "lower_eyelid_shape_2",
        "lower_eyelid_shape_3",
        "eye_height_position",
        "eye_spacing",
        "eye_depth",
        "eye_angle_z",
        "eye_opening",
        "eye_width",
        "inner_eye_corner_spacing",
        "outer_eye_corner_height",
    ),
    "nose": ("nose_tip_height", "nose_height_position", "nose_bridge_height"),
    "mouth": (
        "mouth_height_position",
        "mouth_width",
        "mouth_depth",
        "upper_lip_shape",
        "lower_lip_shape",
        "mouth_corner_shape",
    ),
    "ear": _EARS,
}

#: What names of bones that shape a face begin with, in AI*Shoujo and Honey Select 2 (Mayu are the eyebrows). All bones
#: of the built-in table are among them, and others that it has no row for.
_FACE_BONES = tuple(f"cf_J_{part}" for part in ("Face", "Head", "Cheek", "Chin", "Eye", "Mayu", "Nose", "Mouth"))

#: Range of Koikatsu's sliders with the plug-in SliderUnlocker.
_UNLOCKED = (-1.0, 2.0)


class Creator(NamedTuple):
    """A character creator."""

    key: str  #: its name on a command line
    title: str  #: its name for people
    order: tuple[str, ...]  #: all sliders of a card, in the order of its array
    sliders: tuple[Parameter, ...]  #: those that a run predicts: the first ones of `order`
    bones: tuple[Parameter, ...]  #: rows of the table that the plug-in ABMX keeps; none where it is not known
    heads: tuple[int, ...] | None  #: heads that its sliders were learned for; None: any

    def shapes_face(self, bone: str) -> bool:
        """Whether a bone shapes the face, by its name; False for a game whose bones are not known."""
        return bool(self.bones) and bone.startswith(_FACE_BONES)


def creator_of(marker: str) -> Creator | None:
    """The creator whose cards have a marker; None for another game's."""
    if marker == "【AIS_Chara】":
        return creator("ais")
    if marker in ("【KoiKatuChara】", "【KoiKatuCharaS】", "【KoiKatuCharaSP】", "【KoiKatuCharaSun】"):
        return creator("koikatsu")
    return None


@cache
def creator(key: str) -> Creator:
    """A creator by its key, "ais" or "koikatsu"."""
    if key == "koikatsu":
        table = tuple(
            Parameter(name, group, "slider", *_UNLOCKED, "") for group, names in _KOIKATSU.items() for name in names
        )
        return Creator(key, "Koikatsu", tuple(p.name for p in table), table, bones=(), heads=None)

    table = tuple(parse_parameters(BUILT_IN_TABLE))
    sliders = tuple(p for p in table if p.kind == "slider")
    bones = tuple(p for p in table if p.kind == "bone")
    order = (*(p.name for p in sliders), *_EARS)
    return Creator(key, "AI*Shoujo / Honey Select 2", order, sliders, bones=bones, heads=(0, 1, 2))


#: Keys of the creators, the first one the default.
CREATORS = ("ais", "koikatsu")
