"""Contact sheets: what the game looks like, to be looked at.

python -m games.makehuman.sheets FOLDER      characters, sliders, expressions, variants, landmarks as PNG files
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from games.makehuman import MakeHuman, parameters
from games.makehuman.data import ASSETS
from games.makehuman.looks import EXPRESSIONS, with_expression
from games.makehuman.render import Renderer
from utils.errors import run_script

_STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)
_YAWS = (-25, 0, 25)


def tiled(pictures: np.ndarray, *, columns: int) -> np.ndarray:
    """Pictures (N, H, W, 3) as one grid."""
    count, height, width, _ = pictures.shape
    rows = -(-count // columns)
    grid = np.full((rows * columns, height, width, 3), 255, np.uint8)
    grid[:count] = pictures
    return grid.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)


def _named(picture: np.ndarray, text: str) -> np.ndarray:
    """The picture with a line of text at its foot."""
    scale = picture.shape[0] / 400
    place = (3, picture.shape[0] - 5)
    for colour, thickness in (((0, 0, 0), 2), ((255, 255, 255), 1)):
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness, cv2.LINE_AA)
    return picture


def characters(game: MakeHuman, renderer: Renderer, *, count: int, variants: bool) -> np.ndarray:
    """Random characters, renders or photo-like variants."""
    drawn = [game.character(0, i) for i in range(count)]
    looks = [(c.photo if variants else c.studio,) for c in drawn]
    pictures = renderer.render(np.array([c.parameters for c in drawn]), looks)[0][:, 0]
    return tiled(pictures, columns=20 if not variants else 8)


def sliders(game: MakeHuman, renderer: Renderer) -> np.ndarray:
    """Every parameter at five values, the others neutral; four parameters side by side."""
    look = replace(game.neutral_look(), hair="", bald=True)
    rows = []
    for i, parameter in enumerate(game.parameters):
        faces = np.repeat(parameters.neutral()[None], len(_STEPS), axis=0)
        faces[:, i] = _STEPS
        pictures = renderer.render(faces, [(look,)] * len(_STEPS))[0][:, 0]
        rows.append(_named(tiled(pictures, columns=len(_STEPS)), parameter.name))
    return tiled(np.array(rows), columns=4)


def expressions(game: MakeHuman, renderer: Renderer) -> np.ndarray:
    """Three characters in all expressions."""
    rows: list[np.ndarray] = []
    for i in range(3):
        character = game.character(3, i)
        looks = [with_expression(character.studio, name) for name in EXPRESSIONS]
        pictures = renderer.render(character.parameters[None], [looks])[0][0]
        rows += [_named(picture, name) for picture, name in zip(pictures, EXPRESSIONS, strict=True)]
    return tiled(np.array(rows), columns=len(EXPRESSIONS) // 2)


def overlays(game: MakeHuman, renderer: Renderer) -> np.ndarray:
    """Landmarks drawn over characters at three yaws."""
    pictures = []
    for i in range(4):
        character = game.character(5, i)
        for yaw in _YAWS:
            look = replace(character.studio, yaw=float(np.radians(yaw)), hair="", beard="")
            drawn, points = renderer.render(character.parameters[None], [(look,)])
            pictures.append(_dotted(drawn[0, 0], points[0, 0]))
    return tiled(np.array(pictures), columns=2 * len(_YAWS))


def _dotted(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    picture = cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    for x, y in points * 2 + 0.5:
        cv2.circle(picture, (round(x * 16), round(y * 16)), 32, (0, 255, 0), -1, cv2.LINE_AA, 4)
    return picture


def write_sheets(folder: Path, names: Sequence[str]) -> None:
    """Write the sheets of these names (all where there are none)."""
    game, small, large = MakeHuman(), Renderer(128), Renderer(256)
    folder.mkdir(parents=True, exist_ok=True)
    makers = {
        "characters": lambda: characters(game, small, count=200, variants=False),
        "sliders": lambda: sliders(game, small),
        "expressions": lambda: expressions(game, small),
        "variants": lambda: characters(game, small, count=64, variants=True),
        "landmarks": lambda: overlays(game, large),
    }
    for name in names or makers:
        path = folder / f"{name}.png"
        cv2.imwrite(str(path), makers[name]()[..., ::-1])
        print(path, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help=f"where to write them (the data come from {ASSETS.name})")
    parser.add_argument("names", nargs="*", help="which: characters, sliders, expressions, variants, landmarks")
    arguments = parser.parse_args()
    write_sheets(arguments.folder, arguments.names)


if __name__ == "__main__":
    run_script(main)
