"""Photos of people with known landmarks: reading them, telling frontal ones, folds of people, facial ratios.

A folder of such photos holds images/ and landmarks.csv: name, person, x0, y0 … x67, y67, of 68 landmarks (iBUG order)
in the photo's pixels.
"""

import csv
import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.errors import UserError
from utils.pictures import find_pictures

#: People are held out by name, in this many folds.
FOLDS = 5

#: How far the nose tip of a frontal face may lie from the middle between jaw points 0 and 16, as a fraction of their
#: distance.
FRONTAL = 0.08

#: And that of a face that is learned from. The wider limit doubles the training photos, which outweighs the distortion.
LEARNED = 0.16


class Annotation(NamedTuple):
    """A row of landmarks.csv."""

    person: str | None  #: None where the table has no such column
    landmarks: np.ndarray  #: (68, 2) in the photo's pixels


class Frame(NamedTuple):
    """A photo, often a video frame, of a known person with known landmarks."""

    path: Path
    person: str
    landmarks: np.ndarray  #: (68, 2) in the photo's pixels


def read_annotations(photos: Path) -> dict[str, Annotation]:
    """Picture name → annotation, of PHOTOS/landmarks.csv.

    Raises:
        UserError: the table is missing or something else.
    """
    table = photos / "landmarks.csv"
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            return {row["name"]: Annotation(row.get("person"), _landmarks_of(row)) for row in csv.DictReader(file)}
    except OSError as error:
        raise UserError(
            f"cannot read {table}: {error.strerror}; expected images/ and landmarks.csv in --photos"
        ) from None
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{table} is not as expected (name, person, x0, y0 … x67, y67): {error}") from None


def read_frames(photos: Path) -> list[Frame]:
    """Frames whose picture and landmarks are both there.

    Pictures are looked for on disk: no name of the table is opened.

    Raises:
        UserError: the table is missing, something else or names no person; no picture has landmarks.
    """
    known = read_annotations(photos)
    folder = photos / "images"
    pictures = find_pictures(folder) if folder.is_dir() else []
    frames = []
    for path in pictures:
        if path.name not in known:
            continue
        person, landmarks = known[path.name]
        if person is None:
            raise UserError(
                f"{photos / 'landmarks.csv'} is not as expected (name, person, x0, y0 … x67, y67): it names no person"
            )
        frames.append(Frame(path, person, landmarks))
    if not frames:
        raise UserError(f"no picture in {folder} has landmarks in {photos / 'landmarks.csv'}")
    return frames


def is_frontal(landmarks: np.ndarray, most: float = FRONTAL) -> np.ndarray:
    """Which faces of (N, 68, 2) landmarks are seen from the front, (N,) bool.

    The nose tip lies at most `most` off the middle of the way from jaw point 0 to 16.
    """
    across = landmarks[:, 16] - landmarks[:, 0]
    fraction = ((landmarks[:, 30] - landmarks[:, 0]) * across).sum(-1) / np.square(across).sum(-1)
    return np.abs(fraction - 0.5) <= most


def frontal_of(frames: list[Frame], most: float = FRONTAL) -> list[Frame]:
    """Those of one frame or more that show a face from the front, see `is_frontal`."""
    frontal = is_frontal(np.array([f.landmarks for f in frames]), most)
    return [frame for frame, chosen in zip(frames, frontal, strict=True) if chosen]


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
