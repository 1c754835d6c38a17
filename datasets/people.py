"""Photos of people: reading them, telling people apart, telling frontal photos, folds of people, facial ratios.

A folder of such photos holds images/ and landmarks.csv: name, person and, where points were annotated, x0, y0 … x67,
y67, of 68 landmarks (iBUG order) in the photo's pixels.
"""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from datasets.names import first_alike
from utils.errors import UserError
from utils.pictures import find_pictures

#: Named instead of a table of people, where every person's photos lie in a folder of their own.
FOLDERS = "folders"

#: Columns of a table, for people.
_COLUMNS = "name, person, …"
_POINTS_COLUMNS = "name, x0, y0 … x67, y67"

#: What a table says of a picture.
_Row = TypeVar("_Row")

#: People are held out by name, in this many folds.
FOLDS = 5

#: How far the nose tip of a frontal face may lie from the middle between jaw points 0 and 16, as a fraction of their
#: distance.
FRONTAL = 0.08

#: And that of a face that is learned from. The wider limit doubles the training photos, which outweighs the distortion.
LEARNED = 0.16


class Frame(NamedTuple):
    """A photo, often a video frame, of a known person."""

    path: Path
    person: str


def read_annotations(photos: Path) -> dict[str, np.ndarray]:
    """Picture name → 68 landmarks (68, 2) in the picture's pixels, of PHOTOS/landmarks.csv.

    Raises:
        UserError: the table is missing or something else.
    """
    return read_points(photos / "landmarks.csv")


def read_points(table: Path) -> dict[str, np.ndarray]:
    """Picture name → 68 landmarks (68, 2), of a table with columns name, x0, y0 … x67, y67, whatever else it has.

    Raises:
        UserError: the table is missing or something else.
    """
    try:
        return {row["name"]: _landmarks_of(row) for row in _rows(table, _POINTS_COLUMNS)}
    except KeyError as error:
        raise UserError(f"{table} is not as expected ({_POINTS_COLUMNS}): it has no column {error}") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{table} is not as expected ({_POINTS_COLUMNS}): {error}") from None


def read_people(table: Path) -> dict[str, str]:
    """Picture name → person, of a table with these two columns, whatever else it has.

    Without a comma in its first line it has no header, and each line is a name, a space and a person, as in CelebA's
    identity_CelebA.txt.

    Raises:
        UserError: the table is missing or something else.
    """
    lines = _lines(table)
    if lines and "," not in lines[0]:
        pairs = [line.rsplit(maxsplit=1) for line in lines if line.strip()]
    else:
        pairs = [[row.get("name") or "", row.get("person") or ""] for row in _rows(table)]
    if any(len(pair) < 2 or not all(pair) for pair in pairs):
        raise UserError(
            f"{table} is not as expected: a row lacks its name or its person (columns name, person with a header; or "
            "NAME PERSON on each line, without one)"
        )
    return {name: person for name, person in pairs}


def people_of(pictures: Sequence[Path], people: str, *, folder: Path) -> list[str]:
    """Who is on each aligned picture.

    Args:
        pictures: files below `folder`.
        people: FOLDERS: a person is the folder, below `folder`, that the picture lies in. Otherwise a table, whose row
            with the picture's file name, whatever its extension, says who it is.
        folder: of the aligned pictures.

    Raises:
        UserError: as `read_people`; a picture has no person; or a table cannot tell two pictures apart.
    """
    if people == FOLDERS:
        owners = [path.parent.relative_to(folder).as_posix() for path in pictures]
        if "." in owners:
            raise UserError(
                f"{pictures[owners.index('.')]} lies in no person's folder; with --people {FOLDERS} every photo is "
                f"expected at {folder / 'PERSON' / 'photo.png'}"
            )
        return owners

    found = matched(pictures, read_people(Path(people)), table=people, folder=folder)
    unknown = [path.name for path, person in zip(pictures, found, strict=True) if person is None]
    if unknown:
        raise UserError(f"{people} does not say who {unknown[0]} is; expected a person for every photo")
    return [person for person in found if person is not None]


def matched(
    pictures: Sequence[Path], rows: Mapping[str, _Row], *, table: Path | str, folder: Path
) -> list[_Row | None]:
    """What a table says of each picture: its row with the picture's file name, whatever the extension; None without.

    Args:
        pictures: files below `folder`.
        rows: picture name → what the table says of it.
        table: where the rows are from, for people.
        folder: of the pictures.

    Raises:
        UserError: two pictures have the same name, so that a table cannot tell them apart.
    """
    alike = first_alike([path.stem for path in pictures])
    if alike is not None:
        raise UserError(f"{table} cannot tell apart the photos in {folder} that are called {alike}; rename them")
    known = {Path(name).stem: row for name, row in rows.items()}
    return [known.get(path.stem) for path in pictures]


def _rows(table: Path, columns: str = _COLUMNS) -> list[dict[str, str]]:
    try:
        return list(csv.DictReader(_lines(table, columns)))
    except csv.Error as error:
        raise UserError(f"{table} is not as expected ({columns}): {error}") from None


def _lines(table: Path, columns: str = _COLUMNS) -> list[str]:
    """The lines of a table, with what ends them."""
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            return list(file)
    except OSError as error:
        raise UserError(f"cannot read {table}: {error.strerror}; expected a table with columns {columns}") from None
    except ValueError as error:
        raise UserError(f"{table} is not as expected ({columns}): {error}") from None


def read_frames(photos: Path) -> list[Frame]:
    """Frames whose picture is there and whose person is known.

    Pictures are looked for on disk: no name of the table is opened.

    Raises:
        UserError: the table is missing or something else; it names no picture.
    """
    people = read_people(photos / "landmarks.csv")
    folder = photos / "images"
    pictures = find_pictures(folder) if folder.is_dir() else []
    frames = [Frame(path, people[path.name]) for path in pictures if path.name in people]
    if not frames:
        raise UserError(f"no picture in {folder} is named in {photos / 'landmarks.csv'}")
    return frames


def is_frontal(landmarks: np.ndarray, most: float = FRONTAL) -> np.ndarray:
    """Which faces of (N, 68, 2) landmarks are seen from the front, (N,) bool; one without landmarks (NaN) is not.

    The nose tip lies at most `most` off the middle of the way from jaw point 0 to 16.
    """
    across = landmarks[:, 16] - landmarks[:, 0]
    fraction = ((landmarks[:, 30] - landmarks[:, 0]) * across).sum(-1) / np.square(across).sum(-1)
    return np.abs(fraction - 0.5) <= most


def fold_of(person: str) -> int:
    """Which fold a person is held out in, 0 to 4: the first 8 bytes of SHA-256 of the name, modulo 5."""
    return int.from_bytes(hashlib.sha256(person.encode()).digest()[:8], "big") % FOLDS


def ratios(landmarks: np.ndarray) -> dict[str, np.ndarray]:
    """Scale-free ratios (N,) of 68 iBUG landmarks (N, 68, 2), points counted from 0."""

    def middle(*points: int) -> np.ndarray:
        return landmarks[:, list(points)].mean(1)

    def between(a: int, b: int) -> np.ndarray:
        return _distance(landmarks[:, a], landmarks[:, b])

    width = between(0, 16)
    eyes = between(36, 39) + between(42, 45)
    lids = sum(between(a, b) for a, b in ((37, 41), (38, 40), (43, 47), (44, 46)))
    left_brow = _distance(middle(*range(17, 22)), middle(36, 39))
    right_brow = _distance(middle(*range(22, 27)), middle(42, 45))
    brows = (left_brow + right_brow) / 2

    return {
        "face height": _distance(middle(19, 24), landmarks[:, 8]) / width,
        "jaw": between(4, 12) / width,
        "chin": between(6, 10) / width,
        "lower face": between(33, 8) / between(27, 8),
        "eye spacing": _distance(middle(36, 39), middle(42, 45)) / width,
        "eye width": eyes / (2 * width),
        "eye opening": lids / (2 * eyes),
        "brow height": brows / width,
        "nose length": between(27, 33) / width,
        "nose width": between(31, 35) / width,
        "mouth width": between(48, 54) / width,
        "lip height": between(51, 57) / between(48, 54),
    }


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a - b, axis=-1)


def _landmarks_of(row: dict[str, str]) -> np.ndarray:
    """The landmarks (68, 2) of a row; NaN where all its cells are empty."""
    if not any(row[f"{axis}{i}"] for i in range(68) for axis in "xy"):
        return np.full((68, 2), np.nan)
    return np.array([[float(row[f"x{i}"]), float(row[f"y{i}"])] for i in range(68)])
