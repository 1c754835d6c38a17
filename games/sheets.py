"""Pictures of a game for people: a contact sheet of its parameters, a grid of random characters."""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from games.game import EmbeddedGame
from games.parameters import Parameter
from utils.pictures import grid

#: Values that a contact sheet shows each parameter at.
_STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)

#: Which part of the aligned picture a group's rows show: left, top, side, as fractions of the picture's side.
_CROPS = {
    "forehead": (0.14, 0.00, 0.72),
    "eyebrows": (0.18, 0.08, 0.64),
    "eyes": (0.20, 0.12, 0.60),
    "nose": (0.26, 0.28, 0.48),
    "mouth": (0.25, 0.48, 0.50),
    "chin": (0.16, 0.32, 0.68),
    "cheek": (0.12, 0.20, 0.76),
}

#: And of any other group.
_WHOLE = (0.0, 0.0, 1.0)

#: Layout of the contact sheet, pixels: side of a face, width of the text beside, height of the title.
_CELL, _LABEL, _TITLE = 96, 236, 24
_COLUMNS = 3

#: Side of the faces that cells are cut from, pixels.
_SIZE = 256


def contact_sheet(game: EmbeddedGame) -> np.ndarray:
    """Every parameter at 0, 0.25, 0.5, 0.75, 1, all others as the average character has them: (H, W, 3) uint8."""
    # Lay out the sheet.
    count = len(game.parameters)
    rows = -(-count // _COLUMNS)
    width, height = _LABEL + _CELL * len(_STEPS) + 8, _CELL + 2
    sheet = Image.new("RGB", (_COLUMNS * width, rows * height + _TITLE), "white")
    steps = ", ".join(f"{s:g}" for s in _STEPS)
    title = f"Face2Parameter's {game.name}, version {game.version}: each parameter at {steps}, the others average"
    ImageDraw.Draw(sheet).text((6, 5), title, "black", ImageFont.load_default(13))

    # Draw a row per parameter.
    for i, parameter in enumerate(game.parameters):
        shown = np.tile(game.average(), (len(_STEPS), 1))
        shown[:, i] = _STEPS
        faces, _ = game.renderer(_SIZE).render(shown, [(game.neutral_look(),)] * len(_STEPS))
        corner = (i // rows * width, i % rows * height + _TITLE)
        _draw_row(sheet, corner, parameter=parameter, faces=faces[:, 0])
    return np.asarray(sheet)


def random_grid(
    game: EmbeddedGame,
    count: int,
    *,
    seed: int = 0,
    size: int = 128,
    distribution: str = "uniform",
    variants: bool = False,
) -> np.ndarray:
    """A grid of random characters of size×size pixels, (H, W, 3) uint8; `variants` shows the photo-like variants."""
    characters = [game.character(seed, i, distribution) for i in range(count)]
    looks = [(c.photo,) if variants else (c.studio,) for c in characters]
    pictures, _ = game.renderer(size).render(np.array([c.parameters for c in characters]), looks)
    return grid(pictures[:, 0], math.ceil(math.sqrt(count)))


def _draw_row(sheet: Image.Image, corner: tuple[int, int], *, parameter: Parameter, faces: np.ndarray) -> None:
    """Draw a parameter's name, its description and its faces (K, S, S, 3) at a corner of the sheet."""
    x, y = corner
    draw = ImageDraw.Draw(sheet)
    name, grey = parameter.name.rpartition("/"), (90, 90, 90)
    draw.text((x + 6, y + 4), name[0] + name[1], grey, ImageFont.load_default(11))
    draw.text((x + 6, y + 18), name[2], "black", ImageFont.load_default(11.5))
    for line, text in enumerate(_wrapped(parameter.description, 34)):
        draw.text((x + 6, y + 36 + 14 * line), text, grey, ImageFont.load_default(11))

    left, top, side = (round(fraction * _SIZE) for fraction in _CROPS.get(parameter.group, _WHOLE))
    for k, face in enumerate(faces):
        picture = Image.fromarray(face).crop((left, top, left + side, top + side))
        sheet.paste(picture.resize((_CELL, _CELL), Image.Resampling.LANCZOS), (x + _LABEL + k * _CELL, y))


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += word + " "
    return lines
