"""The looks of a data set's characters, where the embedded game wrote it: drawn again from its seed."""

import re
from typing import NamedTuple

import numpy as np

from datasets.latents import LatentTable
from games.game import EmbeddedGame

#: Names that games.writer gives to characters; the number is the character's.
_NAME = re.compile(r"face_(\d{6,})")

#: How far a label may lie from the parameter of the character that is drawn again: labels have six decimals.
_ROUNDED = 1e-5


class Looks(NamedTuple):
    """Faces of a table, and the numbers that describe their looks (`EmbeddedGame.look_table`)."""

    rows: np.ndarray  #: (F,) of the table
    numbers: dict[str, np.ndarray]  #: "images" and "aug_images" → (F, L), of the render and of the variant


def looks_of(table: LatentTable, rows: np.ndarray, game: EmbeddedGame) -> Looks:
    """The looks of faces (N,) of a table whose data set the game wrote, as its meta.json says.

    A face is left out where its name is none of the writer's, or its label is not the character's.
    """
    manifest = table.meta["creator"]
    found, renders, variants = [], [], []
    for row in rows.tolist():
        name = _NAME.fullmatch(table.names[row])
        if name is None:
            continue
        character = game.character(manifest["seed"], int(name[1]), manifest["distribution"])
        if np.abs(character.parameters - table.labels[row]).max() > _ROUNDED:
            continue
        found.append(row)
        renders.append(game.appearance_of(character.studio).numbers)
        variants.append(game.appearance_of(character.photo).numbers)

    shape = (len(found), len(game.look_table))
    numbers = {"images": np.reshape(renders, shape), "aug_images": np.reshape(variants, shape)}
    return Looks(np.array(found, np.intp), numbers)
