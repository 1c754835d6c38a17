"""Contact sheets of what no parameter tells: expressions, and landmarks over turned heads.

python -m games.makehuman.sheets FOLDER      expressions.png and landmarks.png

Sliders and characters: python -m games sheet, python -m games random.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from games.makehuman import MakeHuman
from games.makehuman.looks import EXPRESSIONS, with_expression
from games.makehuman.render import Renderer
from utils.errors import run_script
from utils.pictures import grid, write_picture

_YAWS = (-25, 0, 25)


def _named(picture: np.ndarray, text: str) -> np.ndarray:
    """The picture with a line of text at its foot."""
    scale = picture.shape[0] / 400
    place = (3, picture.shape[0] - 5)
    for colour, thickness in (((0, 0, 0), 2), ((255, 255, 255), 1)):
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness, cv2.LINE_AA)
    return picture


def expressions(game: MakeHuman, renderer: Renderer) -> np.ndarray:
    """Three characters in all expressions."""
    rows: list[np.ndarray] = []
    for i in range(3):
        character = game.character(3, i)
        looks = [with_expression(character.studio, name) for name in EXPRESSIONS]
        pictures = renderer.render(character.parameters[None], [looks])[0][0]
        rows += [_named(picture, name) for picture, name in zip(pictures, EXPRESSIONS, strict=True)]
    return grid(np.array(rows), len(EXPRESSIONS) // 2)


def overlays(game: MakeHuman, renderer: Renderer) -> np.ndarray:
    """Landmarks drawn over characters at three yaws."""
    pictures = []
    for i in range(4):
        character = game.character(5, i)
        for yaw in _YAWS:
            look = replace(character.studio, yaw=float(np.radians(yaw)), hair="", beard="")
            drawn, points = renderer.render(character.parameters[None], [(look,)])
            pictures.append(_dotted(drawn[0, 0], points[0]))
    return grid(np.array(pictures), 2 * len(_YAWS))


def _dotted(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    picture = cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    for x, y in points * 2 + 0.5:
        cv2.circle(picture, (round(x * 16), round(y * 16)), 32, (0, 255, 0), -1, cv2.LINE_AA, 4)
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to write them")
    folder: Path = parser.parse_args().folder

    game = MakeHuman()
    sheets = {"expressions": expressions(game, Renderer(128)), "landmarks": overlays(game, Renderer(256))}
    for name, sheet in sheets.items():
        path = folder / f"{name}.png"
        write_picture(path, sheet)
        print(path)


if __name__ == "__main__":
    run_script(main)
