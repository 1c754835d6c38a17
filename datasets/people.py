"""Photos of people: reading them, telling frontal ones, folds of people, facial ratios, data sets of photos.

A folder of such photos holds images/ and landmarks.csv: name, person and, where points were annotated, x0, y0 … x67,
y67, of 68 landmarks (iBUG order) in the photo's pixels.
"""

import csv
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from games.parameters import Parameter, write_parameters
from games.writer import write_labels
from utils.errors import UserError
from utils.pictures import find_pictures

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
    table = photos / "landmarks.csv"
    try:
        return {row["name"]: _landmarks_of(row) for row in _rows(table)}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{table} is not as expected (name, person, x0, y0 … x67, y67): {error}") from None


def read_people(table: Path) -> dict[str, str]:
    """Picture name → person, of a table with these two columns, whatever else it has.

    Raises:
        UserError: the table is missing or something else.
    """
    rows = _rows(table)
    if any(not row.get("name") or not row.get("person") for row in rows):
        raise UserError(f"{table} is not as expected: a row lacks its name or its person (columns name, person)")
    return {row["name"]: row["person"] for row in rows}


def people_of(pictures: Sequence[Path], table: Path) -> list[str]:
    """Who is on each aligned picture: the person of the table's row whose name has the same stem.

    Raises:
        UserError: as `read_people`, or a picture has no row.
    """
    people = {Path(name).stem: person for name, person in read_people(table).items()}
    unknown = [path.name for path in pictures if path.stem not in people]
    if unknown:
        raise UserError(f"{table} does not say who {unknown[0]} is; expected a person for every photo")
    return [people[path.stem] for path in pictures]


def _rows(table: Path) -> list[dict[str, str]]:
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise UserError(f"cannot read {table}: {error.strerror}; expected a table with columns name, person") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{table} is not as expected (name, person, …): {error}") from None


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
    return np.array([[float(row[f"x{i}"]), float(row[f"y{i}"])] for i in range(68)])


# --- data sets of photos --------------------------------------------------------------------------


def check_photos(output: Path, pictures: list[Path]) -> None:
    """See that a data set of these pictures can be written to a folder.

    Raises:
        UserError: the folder holds other pictures already, whose labels would be lost; or two pictures have one name.
    """
    names = {p.name for p in pictures}
    if len(names) < len(pictures):
        raise UserError("two of the aligned faces have the same file name; expected names that differ across folders")
    images = output / "images"
    strangers = {p.name for p in images.iterdir()} - names if images.is_dir() else set()
    if strangers:
        raise UserError(
            f"{images} already holds {min(strangers)!r}, which is none of these photos. Choose an empty folder"
        )


def write_photos(
    output: Path, pictures: list[Path], *, labels: Mapping[str, np.ndarray], parameters: Sequence[Parameter]
) -> None:
    """Write a data set of aligned photos, as `data.photos` reads it.

    Args:
        output: folder for images/, parameters.csv and, last, labels.json.
        pictures: aligned faces; they are copied.
        labels: stem of a picture → parameters (P,); pictures may be left out, whose parameters then nobody learns.
        parameters: the game's table of parameters.

    Raises:
        UserError: as `check_photos`.
    """
    check_photos(output, pictures)
    images = output / "images"
    images.mkdir(parents=True, exist_ok=True)

    # Until the pictures are there, nothing may take these for a whole data set.
    (output / "labels.json").unlink(missing_ok=True)
    for picture in pictures:
        shutil.copyfile(picture, images / picture.name)
    write_parameters(output / "parameters.csv", parameters)
    write_labels(output, list(labels), labels=np.array(list(labels.values())))
