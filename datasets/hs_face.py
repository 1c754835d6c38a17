"""The HS_FACE layout: renders, their photo-like variants, labels, the parameter table."""

import csv
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.names import SPLITS, checked_name, name_of, split_of
from utils.errors import UserError
from utils.files import atomic_write
from utils.pictures import SUFFIXES

BUILT_IN_TABLE = Path(__file__).resolve().parent.parent / "assets" / "hs_face_parameters.csv"

#: Normalised values beyond this range are no rounding but another unit.
_FAR_OUTSIDE = (-0.5, 1.5)


class Parameter(NamedTuple):
    """A row of the parameter table: one entry of the label vector."""

    name: str
    group: str
    kind: str           #: "slider" or "bone"; the loss of stage 2 is summed over kinds
    minimum: float      #: value in the game at 0
    maximum: float      #: value in the game at 1
    description: str

    def in_game(self, normalised: float) -> float:
        return self.minimum + normalised * (self.maximum - self.minimum)


class Labels(NamedTuple):
    names: list[str]      #: sorted
    values: np.ndarray    #: (N, P) float32, normalised


def find_parts(root: Path) -> dict[str, dict[str, Path]]:
    """The data set's pictures: part ("images", "aug_images") → NAME → file.

    Of two files with one NAME the alphabetically first counts.

    Raises:
        UserError: no such folder, no `images` in it, or no pictures in that.
    """
    if not root.is_dir():
        raise UserError(f"the data set folder {root} does not exist; expected images/ and labels.json in it. "
                        "Set data.root (of photos: data.photos) to where it is")
    parts = {}
    for part in ("images", "aug_images"):
        folder = root / part
        if not folder.is_dir():
            if part == "images":
                raise UserError(f"{root} has no folder images/; expected the HS_FACE layout: images/NAME.png and labels.json")
            continue
        files: dict[str, Path] = {}
        with os.scandir(folder) as entries:
            for entry in sorted((e for e in entries if e.name.lower().endswith(SUFFIXES)), key=lambda e: e.name):
                if not entry.name.startswith("."):
                    files.setdefault(name_of(entry.name), Path(entry.path))
        if part == "images" and not files:
            raise UserError(f"{folder} holds no pictures; expected NAME.png (or {', '.join(SUFFIXES[1:])})")
        parts[part] = dict(sorted(files.items()))
    return parts


def read_labels(root: Path) -> Labels:
    """Read `labels.json`, from its cache where the JSON has not changed.

    Raises:
        UserError: missing or damaged JSON, vectors of unequal length, values that are no finite
            numbers or far outside [0, 1]; the message names the face.
    """
    path = root / "labels.json"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{root} has no labels.json; expected {{\"NAME\": [p0, p1, …]}} with values from 0 to 1. "
                        "If the data set is still being written, let that finish first") from None
    cache = root / f"labels.{hashlib.sha256(content).hexdigest()[:16]}.npy"
    try:
        table = np.load(cache, allow_pickle=False)
        return Labels([str(n) for n in table["name"]], np.ascontiguousarray(table["values"]))
    except (OSError, ValueError, KeyError, IndexError, EOFError):
        pass
    labels = _parse_labels(path, content)
    _write_cache(cache, labels)
    return labels


def _parse_labels(path: Path, content: bytes) -> Labels:
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(raw, dict) or not raw:
        raise UserError(f"{path} holds no faces; expected {{\"NAME\": [p0, p1, …]}}")
    rows: dict[str, list[float]] = {}
    length = None
    for key, row in raw.items():
        if not isinstance(row, list) or not row or not all(type(v) in (int, float) for v in row):
            raise UserError(f"{path}: the label of {key!r} is {str(row)[:60]}; expected a list of numbers")
        if length is None:
            length, first = len(row), key
        if len(row) != length:
            raise UserError(f"{path}: labels of unequal length: {first!r} has {length} values, {key!r} has {len(row)}")
        rows.setdefault(checked_name(key, str(path)), row)
    names = sorted(rows)
    try:
        values = np.array([rows[n] for n in names], np.float64)
    except (OverflowError, ValueError) as error:
        raise UserError(f"{path}: a value is too large for a number: {error}") from None
    for problem, mask in (("no finite number", ~np.isfinite(values)),
                          ("far outside 0 to 1", (values < _FAR_OUTSIDE[0]) | (values > _FAR_OUTSIDE[1]))):
        if mask.any():
            row, column = np.argwhere(mask)[0]
            raise UserError(f"{path}: value {column} of {names[row]!r} is {values[row, column]}, {problem} "
                            f"({int(mask.any(1).sum())} of {len(names)} faces are concerned). "
                            "Expected normalised values: (value − min) / (max − min)")
    return Labels(names, values.astype(np.float32))


def _write_cache(cache: Path, labels: Labels) -> None:
    longest = max(map(len, labels.names))
    table = np.empty(len(labels.names), [("name", f"U{longest}"), ("values", "f4", labels.values.shape[1:])])
    table["name"], table["values"] = labels.names, labels.values
    try:
        with atomic_write(cache) as file:
            np.save(file, table, allow_pickle=False)
        for old in cache.parent.glob("labels.????????????????.npy"):
            if old != cache:
                old.unlink(missing_ok=True)
    except OSError:
        pass  # a data set on a read-only or full disk is parsed every time


def read_parameters(root: Path, count: int) -> list[Parameter]:
    """The parameter table of a data set whose labels have `count` values.

    Raises:
        UserError: the table is damaged or has another number of rows, or there is none and the
            vectors are not HS_FACE's.
    """
    path = root / "parameters.csv"
    if not path.exists():
        if count != 205:
            raise UserError(f"{root} has no parameters.csv and its labels have {count} values; only HS_FACE's 205 are "
                            "known without one. Expected index,name,group,kind,min,max,description, a row an entry")
        path = BUILT_IN_TABLE
    parameters = parse_parameters(path)
    if len(parameters) != count:
        raise UserError(f"{path} has {len(parameters)} rows, the labels of {root} have {count} values; expected as many")
    return parameters


def parse_parameters(path: Path) -> list[Parameter]:
    """Read a parameter table. Raises UserError naming the row that is wrong."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read the parameter table {path}: {error}") from None
    parameters: list[Parameter] = []
    for i, row in enumerate(rows):
        try:
            low, high = float(row["min"]), float(row["max"])
            name, group, kind = row["name"].strip(), row["group"].strip(), row["kind"].strip()
            good = int(row["index"]) == i and name and group and kind and np.isfinite([low, high]).all() and low < high
        except (KeyError, TypeError, ValueError, AttributeError):
            good = False
        if not good:
            raise UserError(f"{path}, row {i + 2}: found {list(row.values())}; expected index {i}, name, group, kind, "
                            "min < max, description")
        parameters.append(Parameter(name, group, kind, low, high, (row.get("description") or "").strip()))
    names = [p.name for p in parameters]
    if len(set(names)) != len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise UserError(f"{path} names {twice!r} twice; expected every parameter once")
    return parameters


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
        raise UserError(f"{root} has {', '.join(f'{s}.txt' for s in present)} but not the others; "
                        "expected train.txt, val.txt and test.txt, or none of them")
    listed: dict[str, str] = {}
    for split, path in files.items():
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read {path}: {error}") from None
        for line in filter(None, map(str.strip, lines)):
            name = checked_name(line, str(path))
            if listed.setdefault(name, split) != split:
                raise UserError(f"{name!r} stands in {listed[name]}.txt and in {split}.txt of {root}; expected in one of them")
    return {name: listed[name] for name in names if name in listed}
