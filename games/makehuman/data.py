"""The packed head of MakeHuman: mesh, targets, masks, and the table of its modifiers (assets/makehuman)."""

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

ASSETS = Path(__file__).resolve().parents[2] / "assets" / "makehuman"
HEAD_FILE = ASSETS / "head.npz"

#: Targets are stored in thousandths of a decimetre, which is how MakeHuman writes them.
TARGET_SCALE = 1000

SKIN, EYE, TEETH, TONGUE, LASH = range(5)

#: The groups of base.obj that are kept, and what they are. The lower lashes of the mesh are too coarse for a picture.
PARTS = {
    "body": SKIN,
    "helper-l-eye": EYE,
    "helper-r-eye": EYE,
    "helper-upper-teeth": TEETH,
    "helper-lower-teeth": TEETH,
    "helper-tongue": TONGUE,
    "helper-l-eyelashes-1": LASH,
    "helper-l-eyelashes-2": LASH,
    "helper-r-eyelashes-1": LASH,
    "helper-r-eyelashes-2": LASH,
}


class HeadData(NamedTuple):
    """The head: V = 5,420 of the mesh's 19,158 vertices. x is the character's left, y up, z forward; decimetres."""

    vertices: np.ndarray  #: (V,) int64 indices into MakeHuman's base.obj
    base: np.ndarray  #: (V, 3) float64 positions without any target
    quads: np.ndarray  #: (Q, 4) int64 corners, counter-clockwise from outside
    parts: np.ndarray  #: (Q,) uint8 SKIN, EYE, TEETH, TONGUE or LASH
    masks: np.ndarray  #: (V, 4) float32 in [0, 1]: lips, eyelids, inside of the mouth, ears
    mirror: np.ndarray  #: (V,) int64 the vertex on the other side
    names: list[str]  #: (T,) names of the targets
    targets: np.ndarray  #: (T, 3V) int16 displacements in thousandths of a decimetre


class Modifier(NamedTuple):
    """A row of modifiers.csv: one modifier of MakeHuman, or a left and a right one that move together."""

    name: str  #: as the game spells it, without l- or r- where it has both
    sided: bool  #: the game has one for the left side and one for the right
    offered: bool  #: is a parameter here
    description: str  #: what happens as it rises
    reason: str  #: why it is not offered

    @property
    def group(self) -> str:
        return self.name.partition("/")[0]

    @property
    def is_macro(self) -> bool:
        return self.group.startswith("macrodetails")

    @property
    def is_pair(self) -> bool:
        """Goes from −1 to 1, with a target for either sign; the others go from 0 to 1."""
        return "|" in self.name

    @property
    def game_names(self) -> list[str]:
        """The modifiers of the game, the right one first, as the game writes them."""
        if not self.sided:
            return [self.name]
        group, _, rest = self.name.partition("/")
        return [f"{group}/{side}-{rest}" for side in "rl"]

    @property
    def targets(self) -> list[str]:
        """The names of its targets: for each of `game_names` the one of −1 and the one of 1, or only the latter."""
        if self.is_macro:
            return []
        if not self.is_pair:
            return [self.name]
        names = []
        for name in self.game_names:
            stem, _, ends = name.rpartition("-")
            names += [f"{stem}-{end}" for end in ends.split("|")]
        return names


@cache
def read_head() -> HeadData:
    """Read head.npz."""
    with np.load(HEAD_FILE, allow_pickle=False) as file:
        return HeadData(
            vertices=file["vertices"].astype(np.int64),
            base=file["base"] / 10_000,
            quads=file["quads"].astype(np.int64),
            parts=file["parts"],
            masks=file["masks"].astype(np.float32) / 255,
            mirror=file["mirror"].astype(np.int64),
            names=[str(name) for name in file["names"]],
            targets=file["targets"],
        )


@cache
def read_modifiers() -> tuple[Modifier, ...]:
    """Read modifiers.csv: all face modifiers of the game and its macros, offered or not."""
    with open(ASSETS / "modifiers.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return tuple(
        Modifier(
            name=row["modifier"],
            sided=row["sided"] == "1",
            offered=row["offered"] == "1",
            description=row["description"],
            reason=row["reason"],
        )
        for row in rows
    )
