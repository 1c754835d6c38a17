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
    "chin": (0.16, 0.32, 0.68),
    "cheek": (0.12, 0.20, 0.76),
    "eye": (0.18, 0.10, 0.64),
    "nose": (0.26, 0.28, 0.48),
    "mouth": (0.25, 0.48, 0.50),
}

#: And of any other group.
_WHOLE = (0.0, 0.0, 1.0)

#: Layout of the contact sheet, pixels: side of a face, width of the text beside, height of the title.
_CELL, _LABEL, _TITLE = 96, 176, 24
_COLUMNS = 3

#: Side of the faces that cells are cut from, pixels.
_SIZE = 256


def contact_sheet(game: EmbeddedGame) -> np.ndarray:
    """Every parameter at 0, 0.25, 0.5, 0.75, 1, all others at 0.5: (H, W, 3) uint8."""
    # Draw the faces.
    count = len(game.parameters)
    parameters = np.full((count, len(_STEPS), count), 0.5)
    for i in range(count):
        parameters[i, :, i] = _STEPS
    flat = parameters.reshape(-1, count)
    pictures, _ = game.renderer(_SIZE).render(flat, [(game.neutral_look(),)] * len(flat))
    pictures = pictures.reshape(count, len(_STEPS), _SIZE, _SIZE, 3)

    # Lay out the sheet.
    rows = -(-count // _COLUMNS)
    width, height = _LABEL + _CELL * len(_STEPS) + 8, _CELL + 2
    sheet = Image.new("RGB", (_COLUMNS * width, rows * height + _TITLE), "white")
    steps = ", ".join(f"{s:g}" for s in _STEPS)
    title = f"Face2Parameter's {game.name}, version {game.version}: each slider at {steps}, the others at 0.5"
    ImageDraw.Draw(sheet).text((6, 5), title, "black", ImageFont.load_default(13))

    for i in range(count):
        _draw_row(
            sheet, (i // rows * width, i % rows * height + _TITLE), parameter=game.parameters[i], faces=pictures[i]
        )
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
    draw.text((x + 6, y + 8), parameter.name, "black", ImageFont.load_default(13))
    for line, text in enumerate(_wrapped(parameter.description, 26)):
        draw.text((x + 6, y + 28 + 14 * line), text, (90, 90, 90), ImageFont.load_default(11))

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
