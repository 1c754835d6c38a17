"""The HS_FACE layout: renders, their photo-like variants, labels, splits.

<root>/images/NAME.png          game renders, aligned
<root>/aug_images/NAME.png      photo-like variants of the renders with the same NAME (optional)
<root>/labels.json              {"NAME": [p0, p1, …]}, normalised
<root>/parameters.csv           the parameter table, read by games/parameters.py
<root>/train.txt, val.txt, test.txt   NAMEs, one per line (optional)
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.names import SPLITS, checked_name, name_of, split_of
from utils.errors import UserError
from utils.files import atomic_write
from utils.pictures import SUFFIXES

#: Folders of pictures in the layout.
PARTS = ("images", "aug_images")

#: Normalised values beyond this range are no rounding but another unit.
_PLAUSIBLE = (-0.5, 1.5)


class Labels(NamedTuple):
    """The labels of a data set."""

    names: list[str]  #: sorted
    values: np.ndarray  #: (N, P) float32, normalised
    digest: str  #: SHA-256 of labels.json


def find_parts(root: Path) -> dict[str, dict[str, Path]]:
    """The data set's pictures: part ("images", "aug_images") → NAME → file.

    Of two files with one NAME the alphabetically first counts.

    Raises:
        UserError: no such folder, no `images` in it, or no pictures in that.
    """
    if not root.is_dir():
        raise UserError(
            f"the data set folder {root} does not exist; expected images/ and labels.json in it. "
            "Set data.root (of photos: data.photos) to where it is"
        )
    parts = {}
    for part in PARTS:
        folder = root / part
        if folder.is_dir():
            parts[part] = _pictures_by_name(folder)
        elif part == "images":
            raise UserError(
                f"{root} has no folder images/; expected the HS_FACE layout: images/NAME.png and labels.json"
            )
    if not parts["images"]:
        raise UserError(f"{root / 'images'} holds no pictures; expected NAME.png (or {', '.join(SUFFIXES[1:])})")
    return parts


def _pictures_by_name(folder: Path) -> dict[str, Path]:
    with os.scandir(folder) as entries:
        files = sorted(entry.name for entry in entries if entry.name.lower().endswith(SUFFIXES))
    found: dict[str, Path] = {}
    for file in files:
        if not file.startswith("."):
            found.setdefault(name_of(file), folder / file)
    return dict(sorted(found.items()))


# --- labels ---------------------------------------------------------------------------------------


def read_labels(root: Path) -> Labels:
    """Read `labels.json`, from its cache where the JSON has not changed.

    A JSON file of 140,000 faces is hundreds of megabytes of text, so what was parsed is kept as .npy beside it.

    Raises:
        UserError: missing or damaged JSON, vectors of unequal length, values that are no finite
            numbers or far outside [0, 1]; the message names the face.
    """
    path = root / "labels.json"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(
            f'{root} has no labels.json; expected {{"NAME": [p0, p1, …]}} with values from 0 to 1. '
            "If the data set is still being written, let that finish first"
        ) from None

    digest = hashlib.sha256(content).hexdigest()
    cache = root / f"labels.{digest[:16]}.npy"
    try:
        table = np.load(cache, allow_pickle=False)
        return Labels([str(n) for n in table["name"]], np.ascontiguousarray(table["values"]), digest)
    except (OSError, ValueError, KeyError, IndexError, EOFError):
        names, values = _parse_labels(path, content)
    _write_cache(cache, names, values)
    return Labels(names, values, digest)


def _parse_labels(path: Path, content: bytes) -> tuple[list[str], np.ndarray]:
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(raw, dict) or not raw:
        raise UserError(f'{path} holds no faces; expected {{"NAME": [p0, p1, …]}}')

    rows = _rows_by_name(path, raw)
    names = sorted(rows)
    try:
        values = np.array([rows[n] for n in names], np.float64)
    except (OverflowError, ValueError) as error:
        raise UserError(f"{path}: a value is too large for a number: {error}") from None
    _check_values(path, names, values)
    return names, values.astype(np.float32)


def _rows_by_name(path: Path, raw: dict[str, Any]) -> dict[str, list[float]]:
    rows: dict[str, list[float]] = {}
    first, length = "", 0
    for key, row in raw.items():
        if not isinstance(row, list) or not row or not all(type(v) in (int, float) for v in row):
            raise UserError(f"{path}: the label of {key!r} is {str(row)[:60]}; expected a list of numbers")
        if not length:
            first, length = key, len(row)
        if len(row) != length:
            raise UserError(f"{path}: labels of unequal length: {first!r} has {length} values, {key!r} has {len(row)}")
        rows.setdefault(checked_name(key, str(path)), row)
    return rows


def _check_values(path: Path, names: list[str], values: np.ndarray) -> None:
    low, high = _PLAUSIBLE
    problems = {
        "no finite number": ~np.isfinite(values),
        "far outside 0 to 1": (values < low) | (values > high),
    }
    for problem, mask in problems.items():
        if mask.any():
            row, column = np.argwhere(mask)[0]
            raise UserError(
                f"{path}: value {column} of {names[row]!r} is {values[row, column]}, {problem} "
                f"({int(mask.any(1).sum())} of {len(names)} faces are concerned). "
                "Expected normalised values: (value − min) / (max − min)"
            )


def _write_cache(cache: Path, names: list[str], values: np.ndarray) -> None:
    longest = max(map(len, names))
    table = np.empty(len(names), [("name", f"U{longest}"), ("values", "f4", values.shape[1:])])
    table["name"], table["values"] = names, values
    try:
        with atomic_write(cache) as file:
            np.save(file, table, allow_pickle=False)
        for old in cache.parent.glob("labels.????????????????.npy"):
            if old != cache:
                old.unlink(missing_ok=True)
    except OSError:
        pass  # a data set on a read-only or full disk is parsed every time


# --- splits ---------------------------------------------------------------------------------------


def read_splits(root: Path, names: Iterable[str]) -> dict[str, str]:
    """NAME → "train", "val" or "test", from the data set's split files, or by hash without them.

    Names that the split files do not list are left out.

    Raises:
        UserError: only some of the three files are there, or a name stands in two.
    """
    files = {split: root / f"{split}.txt" for split in SPLITS}
    present = [split for split, path in files.items() if path.exists()]
    if not present:
        return {name: split_of(name) for name in names}
    if len(present) < len(SPLITS):
        raise UserError(
            f"{root} has {', '.join(f'{s}.txt' for s in present)} but not the others; "
            "expected train.txt, val.txt and test.txt, or none of them"
        )

    listed: dict[str, str] = {}
    for split, path in files.items():
        for line in _lines(path):
            name = checked_name(line, str(path))
            if listed.setdefault(name, split) != split:
                raise UserError(
                    f"{name!r} stands in {listed[name]}.txt and in {split}.txt of {root}; expected in one of them"
                )
    return {name: listed[name] for name in names if name in listed}


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    # Not splitlines(), which also parts a name at U+2028 or a form feed.
    return [line.strip() for line in text.split("\n") if line.strip()]
