"""The picture of a result: what was seen, what became of it, and the sliders as bars by how far to trust them."""

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from games.listing import Entry
from utils.alignment import TEMPLATE_SIZE, transform_points

#: Layout, pixels: height of the pictures, width of the widest, space about everything, height of a line of text.
_SIDE, _WIDEST, _GAP, _LINE = 256, 460, 10, 15

#: Width of the sheet where little is shown, pixels.
_NARROWEST = 700

#: Of a column of bars: widths of the bars and of the values beside them, space to the next column.
_BAR, _VALUE, _BETWEEN = 110, 56, 18

#: Sliders per column before another one is begun, most columns, and letters of a name that are shown.
_PER_COLUMN, _MOST_COLUMNS, _LETTERS = 24, 4, 30

#: Sizes of text, pixels.
_SMALL, _NORMAL = 10, 12

#: How bars of each level of trust look: their colour, whether they are hatched, and the colour of the words beside.
_STYLES = {
    "trust it": ("#1d5fa6", False, "black"),
    "roughly right": ("#8fbce6", False, "black"),
    "a guess": ("#b4b4b4", True, "#858585"),
    "not measured": ("#cfcfcf", False, "#858585"),
}

#: What the legend adds to each level of `games.listing.TRUST`.
_MEANINGS = {
    "trust it": " (R² from 0.8)",
    "roughly right": " (R² from 0.5)",
    "a guess": " (R² below 0.5)",
    "not measured": " on faces like this one",
}


class _Line(NamedTuple):
    """A line of a column: a slider, or the heading of a group."""

    entry: Entry | None
    heading: str = ""


def thumbnail(photo: np.ndarray, alignment: np.ndarray | None = None) -> np.ndarray:
    """A photo at the size of the sheet, with a frame about the face.

    Args:
        photo: (H, W, 3) uint8.
        alignment: (2, 3) transform from the photo to the aligned 256×256 face; None draws no frame.

    Returns:
        (h, w, 3) uint8, h up to 256.
    """
    height, width = photo.shape[:2]
    scale = min(_SIDE / height, _WIDEST / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(photo, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    if alignment is None:
        return small

    # The frame's corners, in the photo's pixels and then in the thumbnail's.
    low, high = -0.5, TEMPLATE_SIZE - 0.5
    frame = np.array([(low, low), (high, low), (high, high), (low, high)])
    back = np.linalg.inv(np.vstack([alignment, (0, 0, 1)]))[:2]
    corners = (transform_points(back, frame) + 0.5) * scale - 0.5
    for colour, thickness in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.polylines(small, [np.round(corners * 16).astype(np.int32)], True, colour, thickness, cv2.LINE_AA, 4)
    return small


def result_sheet(pictures: Sequence[tuple[str, np.ndarray]], entries: Sequence[Entry], note: str = "") -> np.ndarray:
    """A row of captioned pictures, and below it a bar per slider, by group: (H, W, 3) uint8.

    A bar goes from the average character's value to this one's, on a track from 0 to 1. Its look says how far to trust
    it; a thin line shows the spread over several photos.

    Args:
        pictures: captions and (h, w, 3) uint8 pictures.
        entries: the sliders.
        note: a warning that stands between pictures and sliders.
    """
    # Measure.
    shown = [(caption, thumbnail(picture)) for caption, picture in pictures]
    columns = _columns(entries)
    names = max(round(_font(_SMALL).getlength(_label(entry))) for entry in entries)
    row = sum(picture.shape[1] + _GAP for _, picture in shown) + _GAP
    width = max(row, len(columns) * (names + _BAR + _VALUE + _BETWEEN) + _GAP, _NARROWEST)
    notes, key = _wrapped(note, width, _NORMAL), _wrapped(_key(entries), width, _SMALL)
    top = _SIDE + _LINE + 2 * _GAP + (_GAP + len(notes) * _LINE if notes else 0)
    bottom = top + max(map(len, columns)) * _LINE + _GAP
    height = bottom + (1 + len(key)) * _LINE + _GAP

    # Draw.
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    _draw_pictures(sheet, shown)
    _draw_lines(draw, notes, y=_SIDE + _LINE + 2 * _GAP, size=_NORMAL, colour="#b02a1e")
    step = (width - _GAP) // len(columns)
    bar = min(step - names - _VALUE - _BETWEEN, 2 * _BAR)
    for number, lines in enumerate(columns):
        _draw_column(sheet, lines, corner=(_GAP + number * step, top), names=names, bar=bar)
    _draw_legend(sheet, entries, y=bottom + _LINE // 2)
    _draw_lines(draw, key, y=bottom + _LINE, size=_SMALL, colour="#555555")
    return np.array(sheet)


# --- columns --------------------------------------------------------------------------------------


def _columns(entries: Sequence[Entry]) -> list[list[_Line]]:
    """The sliders by group, in columns of about the same length; a group that goes on is named again."""
    by_group: dict[str, list[Entry]] = {}
    for entry in entries:
        by_group.setdefault(entry.group, []).append(entry)
    count = min(_MOST_COLUMNS, math.ceil(len(entries) / _PER_COLUMN))
    longest = math.ceil((len(entries) + len(by_group) + count - 1) / count)

    columns: list[list[_Line]] = [[]]
    for group, own in by_group.items():
        if len(columns[-1]) + 2 > longest:  # a heading does not end a column
            columns.append([])
        columns[-1].append(_Line(None, group))
        for entry in own:
            if len(columns[-1]) >= longest and len(columns) < count:
                columns.append([_Line(None, f"{group}, continued")])
            columns[-1].append(_Line(entry))
    return columns


def _label(entry: Entry) -> str:
    """A slider's name, without a group before a slash, shortened where it is long."""
    name = entry.name.rpartition("/")[2]
    if len(name) > _LETTERS:
        return name[: _LETTERS - 1] + "…"
    return name


# --- drawing --------------------------------------------------------------------------------------


@cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """A font of Latin, Greek and Cyrillic letters that comes with matplotlib."""
    import matplotlib  # here: a sheet comes last, and it takes long to import

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def _draw_pictures(sheet: Image.Image, pictures: Sequence[tuple[str, np.ndarray]]) -> None:
    draw, left = ImageDraw.Draw(sheet), _GAP
    for caption, picture in pictures:
        height, width = picture.shape[:2]
        draw.text((left + width // 2, _GAP + _LINE // 2 - 2), caption, "black", _font(_NORMAL), anchor="mm")
        sheet.paste(Image.fromarray(picture), (left, _GAP + _LINE + (_SIDE - height) // 2))
        left += width + _GAP


def _draw_column(sheet: Image.Image, lines: list[_Line], *, corner: tuple[int, int], names: int, bar: int) -> None:
    """Draw lines below one another; `names` and `bar` are widths in pixels."""
    draw, (left, top) = ImageDraw.Draw(sheet), corner
    start = left + names + 6
    for number, (entry, heading) in enumerate(lines):
        y = top + number * _LINE + _LINE // 2
        if entry is None:
            draw.text((left, y), heading, "black", _font(_NORMAL, bold=True), anchor="lm")
            continue
        colour = _STYLES[entry.trust][2]
        draw.text((start - 6, y), _label(entry), colour, _font(_SMALL), anchor="rm")
        _draw_bar(sheet, entry, left=start, y=y, width=bar)
        draw.text((start + bar + _VALUE - 6, y), entry.shown, colour, _font(_SMALL), anchor="rm")


def _draw_bar(sheet: Image.Image, entry: Entry, *, left: int, y: int, width: int) -> None:
    draw = ImageDraw.Draw(sheet)
    start, value = (left + round(end * width) for end in (entry.start, entry.value))
    draw.rectangle((left, y - 4, left + width, y + 4), "#ededed")
    _fill(sheet, (min(start, value), y - 4, max(start, value), y + 4), level=entry.trust)
    draw.line((start, y - 6, start, y + 6), "#777777")
    draw.rectangle((value - 1, y - 5, value, y + 5), _STYLES[entry.trust][0])
    if entry.spread is not None:
        lowest, highest = (round(width * min(1, max(0, entry.value + side * entry.spread))) for side in (-1, 1))
        draw.line((left + lowest, y, left + highest, y), "black")


def _fill(sheet: Image.Image, box: tuple[int, int, int, int], *, level: str) -> None:
    """Fill a box (left, top, right, bottom; all within) with the colour or the hatching of a level of trust."""
    draw, (left, top, right, bottom) = ImageDraw.Draw(sheet), box
    colour, is_hatched, _ = _STYLES[level]
    draw.rectangle(box, "white" if is_hatched else colour, colour)
    if is_hatched:
        for y in range(top, bottom + 1):
            draw.point([(x, y) for x in range(left, right + 1) if (x + y) % 4 == 0], colour)


def _draw_legend(sheet: Image.Image, entries: Sequence[Entry], *, y: int) -> None:
    """Show what the looks of bars mean, and how many sliders have each."""
    draw, counts, x = ImageDraw.Draw(sheet), Counter(entry.trust for entry in entries), _GAP
    for level, meaning in _MEANINGS.items():
        if not counts[level]:
            continue
        words = f"{level}{meaning}: {counts[level]} of {len(entries)}"
        _fill(sheet, (x, y - 4, x + 24, y + 4), level=level)
        draw.text((x + 30, y), words, "black", _font(_SMALL), anchor="lm")
        x += 60 + round(_font(_SMALL).getlength(words))


def _draw_lines(draw: ImageDraw.ImageDraw, lines: list[str], *, y: int, size: int, colour: str) -> None:
    for number, line in enumerate(lines):
        draw.text((_GAP, y + number * _LINE + _LINE // 2), line, colour, _font(size), anchor="lm")


# --- words ----------------------------------------------------------------------------------------


def _key(entries: Sequence[Entry]) -> str:
    """What bars, tracks and lines mean."""
    start = "the average character's value"
    if all(entry.start == 0.5 for entry in entries):
        start = "the middle"
    words = "A track shows a slider from its lowest value to its highest. "
    words += f"The bar goes from {start} to the predicted value."
    if any(entry.r2 is not None for entry in entries):
        words += " R²: on renders that the run has not learned; photos are harder."
    if any(entry.spread is not None for entry in entries):
        words += " Thin line: one standard deviation over the photos, to either side."
    return words


def _wrapped(text: str, width: int, size: int) -> list[str]:
    """Words in lines that fit on a sheet of some width, pixels; a word that does not fit has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _font(size).getlength(longer) <= width - 2 * _GAP:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
