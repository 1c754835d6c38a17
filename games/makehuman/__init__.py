"""MakeHuman's head as the embedded game: its faces are drawn here, its files open in MakeHuman and in Blender.

Where to look: data.py the packed head and the table of modifiers; model.py values → vertices; files.py .mhm and MPFB's
preset; parameters.py what is learned, and random characters; looks.py what else a picture shows; appearance.py a look
as numbers; rig.py, mesh.py, landmarks.py the geometry of many faces at once; skin.py, hair.py, occlusion.py what is
painted, grown and baked once; view.py, raster.py, shading.py, shadow.py, camera.py, render.py from there to the
picture; sheets.py contact sheets.
"""

from pathlib import Path

import numpy as np

from games.game import VERSION, Appearance, Character, EmbeddedGame, LookNumber
from games.makehuman import appearance as numbers
from games.makehuman import files, looks
from games.makehuman import parameters as table
from games.makehuman.render import Renderer
from games.parameters import Parameter

__all__ = ["MakeHuman"]


def _table() -> list[Parameter]:
    """The parameter table: pairs go from −1 to 1, head shapes and macros from 0 to 1."""
    return [
        Parameter(
            name=modifier.name,
            group="macro" if modifier.is_macro else modifier.group,
            kind="macro" if modifier.is_macro else "slider",
            minimum=float(minimum),
            maximum=1.0,
            description=modifier.description,
        )
        for modifier, minimum in zip(table.rows(), table.MINIMA, strict=True)
    ]


class MakeHuman(EmbeddedGame):
    """MakeHuman's head as an embedded game."""

    def __init__(self) -> None:
        super().__init__("MakeHuman", VERSION, parameters=_table())

    def character(self, seed: int, index: int, distribution: str = "uniform") -> Character:
        rng = np.random.default_rng([seed, index])
        drawn = table.draw(rng, distribution)
        studio = looks.studio(rng, drawn)
        return Character(drawn, studio, looks.photo(rng, drawn, studio))

    def neutral_look(self) -> looks.Look:
        return looks.Look(hair="crop")

    @property
    def look_table(self) -> tuple[LookNumber, ...]:
        return numbers.TABLE

    def appearance_of(self, look: looks.Look) -> Appearance:
        return numbers.appearance_of(look)

    def look_of(self, appearance: Appearance) -> looks.Look:
        return numbers.look_of(appearance, self.neutral_look())

    def describe_look(self, look: looks.Look) -> dict[str, str]:
        return numbers.describe(look)

    def average(self) -> np.ndarray:
        """The parameters (P,) of a new human: no modifier, the macros in the middle, a third of each origin."""
        return table.neutral()

    def make_renderer(self, size: int) -> Renderer:
        return Renderer(size)

    def character_file(self, parameters: np.ndarray, stem: Path) -> list[Path]:
        """Write STEM.mhm for MakeHuman and human.STEM.json, a preset for MPFB in Blender; returns their paths."""
        values = files.in_the_game(table.game_values(parameters))
        human, preset = stem.with_name(f"{stem.name}.mhm"), stem.with_name(f"human.{stem.name}.json")
        files.write_mhm(human, values)
        files.write_preset(preset, values)
        return [human, preset]

    def read_character_file(self, path: Path) -> np.ndarray:
        """The parameters (P,) of a human that MakeHuman or `character_file` saved as .mhm."""
        return table.from_game_values(files.tied(files.read_mhm(path)))
