"""Landmarks that somebody else found, read from a file: of photos, and of the characters of a data set.

A face has 68 landmarks in iBUG order, x to the right and y down, in the pixels of whatever picture they were found in.
A file of them is either
    a table     columns name, x0, y0 … x67, y67; a row whose cells are empty has no landmarks
    FFHQ's own  ffhq-dataset-v2.json: {"0": {"image": {"face_landmarks": [[x, y], …], …}, …}, …}, of photo 00000.png
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from datasets.names import name_of
from datasets.people import matched, read_points
from utils.alignment import TEMPLATE_SIZE, alignment_transform, five_points, transform_points
from utils.errors import UserError

#: Landmarks of a face.
COUNT = 68

#: Where FFHQ's file has the landmarks of a photo: found in the aligned photo, or in the one that it was cut from.
_FFHQ_PARTS = ("image", "in_the_wild")

#: Five points that lie closer together than this are no face.
_LEAST_EXTENT = 1e-5


def landmarks_of(pictures: Sequence[Path], file: Path, *, folder: Path) -> np.ndarray:
    """The landmarks of aligned photos, in the pixels of the pictures that they were found in.

    Args:
        pictures: files below `folder`.
        file: a table, or FFHQ's JSON (`.json`); a photo's row is the one with its file name, whatever the extension.
        folder: of the aligned photos.

    Returns:
        (N, 68, 2) float64; NaN where a photo has no landmarks.

    Raises:
        UserError: the file is missing or something else; it cannot tell two photos apart; or it names no photo.
    """
    rows = read_ffhq(file) if file.suffix.lower() == ".json" else read_points(file)
    found = _together(matched(pictures, rows, table=file, folder=folder))
    if pictures and np.isnan(found).all():
        known = f"it names {next(iter(rows))}, for one" if rows else "it is empty"
        raise UserError(
            f"{file} has landmarks of none of the {len(pictures)} photos in {folder}: {known}; expected the names of "
            f"these photos, as {pictures[0].name}"
        )
    return found


def landmarks_of_characters(root: Path, names: Sequence[str]) -> np.ndarray:
    """The landmarks of characters of a data set, of its landmarks.csv.

    Args:
        root: of the data set.
        names: the characters' NAMEs.

    Returns:
        (N, 68, 2) float64 in the aligned 256×256 frame, whatever picture they were found in; NaN where there are none.

    Raises:
        UserError: the table is missing or something else.
    """
    table = root / "landmarks.csv"
    if not table.exists():
        raise UserError(
            f"{root} has no landmarks.csv; with --landmarks this table (name, x0, y0 … x67, y67) has to hold the 68 "
            "landmarks of its renders. Write it, or leave --landmarks out: the face mesh finds points in all pictures"
        )
    rows = {name_of(name): landmarks for name, landmarks in read_points(table).items()}
    found = _together([rows.get(name) for name in names])
    present = ~np.isnan(found).any((1, 2))
    known = found[present]
    found[present] = transform_points(alignment_transform(five_points(known), TEMPLATE_SIZE), known)
    return found


def read_ffhq(file: Path) -> dict[str, np.ndarray]:
    """Picture name → 68 landmarks (68, 2), of FFHQ's JSON; entry "0" is photo 00000.

    Raises:
        UserError: the file is missing or something else.
    """
    try:
        # Each photo's landmarks become an array as soon as they are read: the file has 70,000 photos, twice each.
        entries = json.loads(file.read_bytes(), object_hook=_slim)
        if not isinstance(entries, dict):
            raise ValueError("it holds no photos")
        return dict(_photo_of(key, entry) for key, entry in entries.items())
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}; expected FFHQ's ffhq-dataset-v2.json") from None
    except (ValueError, RecursionError) as error:
        raise UserError(
            f'{file} is not as expected, {{"0": {{"image": {{"face_landmarks": [[x, y] of {COUNT}]}}}}}} as in FFHQ\'s '
            f"ffhq-dataset-v2.json: {error}"
        ) from None


def _slim(part: dict[str, Any]) -> Any:
    """An object of FFHQ's file with its landmarks alone, where it has any."""
    if "face_landmarks" in part:
        try:
            return np.array(part["face_landmarks"], np.float64)
        except (TypeError, ValueError):  # rows of unequal length, or no numbers
            return None
    return next((part[of] for of in _FFHQ_PARTS if isinstance(part.get(of), np.ndarray)), part)


def _photo_of(key: str, landmarks: Any) -> tuple[str, np.ndarray]:
    """A photo's name and landmarks. Raises ValueError for an entry that is something else."""
    if not (key.isascii() and key.isdecimal()):
        raise ValueError(f"{key[:80]!r} is no number of a photo")
    if not isinstance(landmarks, np.ndarray) or landmarks.shape != (COUNT, 2):
        raise ValueError(f"entry {key[:80]} does not have {COUNT} landmarks of x and y")
    return f"{int(key):05d}", landmarks


def _together(rows: Sequence[np.ndarray | None]) -> np.ndarray:
    """(N, 68, 2) landmarks; NaN where there are none, one is no number, or all lie at one place."""
    absent = np.full((COUNT, 2), np.nan)
    found = np.array([absent if row is None else row for row in rows]).reshape(-1, COUNT, 2)
    found[~np.isfinite(found).all((1, 2))] = np.nan
    extent = np.ptp(five_points(found), axis=-2).max(-1)
    found[~(extent > _LEAST_EXTENT)] = np.nan
    return found
