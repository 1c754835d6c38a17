"""Pictures of the creator for people: a contact sheet of the sliders, a grid of characters."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datasets.creator import looks, sliders, writer
from datasets.creator.render import VERSION, Renderer

_STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)

#: Which part of the picture a group's rows show: left, top, side, as shares of the picture.
_CROPS = {"whole": (0.0, 0.0, 1.0), "chin": (0.16, 0.32, 0.68), "cheek": (0.12, 0.20, 0.76), "eye": (0.18, 0.10, 0.64),
          "nose": (0.26, 0.28, 0.48), "mouth": (0.25, 0.48, 0.50)}


def contact_sheet(cell: int = 96, columns: int = 3) -> np.ndarray:
    """Every slider at 0, 0.25, 0.5, 0.75, 1, all others at 0.5: (H, W, 3) uint8."""
    renderer = Renderer(256)
    count = len(sliders.NAMES)
    parameters = np.full((count, len(_STEPS), count), 0.5)
    for i in range(count):
        parameters[i, :, i] = _STEPS
    flat = parameters.reshape(-1, count)
    pictures = renderer.render(flat, [(looks.neutral(),)] * len(flat))[0][:, 0]
    label, rows = 176, -(-count // columns)
    width, height = label + cell * len(_STEPS) + 8, cell + 2
    sheet = Image.new("RGB", (columns * width, rows * height + 24), "white")
    draw = ImageDraw.Draw(sheet)
    name_font, small = ImageFont.load_default(13), ImageFont.load_default(11)
    draw.text((6, 5), f"Face2Parameter's embedded creator, version {VERSION}: "
              f"each slider at {', '.join(f'{s:g}' for s in _STEPS)}, the others at 0.5", "black", name_font)
    for i, slider in enumerate(sliders.SLIDERS):
        x, y = i // rows * width, i % rows * height + 24
        draw.text((x + 6, y + 8), slider.name, "black", name_font)
        for line, text in enumerate(_wrapped(slider.description, 26)):
            draw.text((x + 6, y + 28 + 14 * line), text, (90, 90, 90), small)
        for k in range(len(_STEPS)):
            left, top, side = (round(share * renderer.size) for share in _CROPS[slider.group])
            picture = Image.fromarray(pictures[i * len(_STEPS) + k]).crop((left, top, left + side, top + side))
            sheet.paste(picture.resize((cell, cell), Image.Resampling.LANCZOS), (x + label + k * cell, y))
    return np.asarray(sheet)


def random_grid(count: int, seed: int = 0, size: int = 128, distribution: str = "uniform", photo_like: bool = False) -> np.ndarray:
    """A grid of random characters, (H, W, 3) uint8; `photo_like` shows their photo-like variants."""
    faces = [writer.face(seed, i, distribution) for i in range(count)]
    shown = [(f[2] if photo_like else f[1],) for f in faces]
    pictures = Renderer(size).render(np.array([f[0] for f in faces]), shown)[0][:, 0]
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    grid = np.full((rows * columns, size, size, 3), 255, np.uint8)
    grid[:count] = pictures
    return grid.reshape(rows, columns, size, size, 3).transpose(0, 2, 1, 3, 4).reshape(rows * size, columns * size, 3)


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += word + " "
    return lines
