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
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.names import SPLITS, checked_name, is_listable, known_name, name_of, split_of
from utils.errors import UserError
from utils.files import atomic_write
from utils.pictures import SUFFIXES, printable

#: Folders of pictures in the layout.
PARTS = ("images", "aug_images")

#: Normalised values beyond this range are no rounding but another unit.
_PLAUSIBLE = (-0.5, 1.5)


class Labels(NamedTuple):
    """The labels of a data set."""

    names: list[str]  #: sorted
    values: np.ndarray  #: (N, P) float32, normalised
    digest: str  #: SHA-256 of labels.json


class Layout(NamedTuple):
    """What a data set in the HS_FACE layout holds, and what of it is left out."""

    parts: dict[str, dict[str, Path]]  #: part ("images", "aug_images") → NAME → file
    label_names: list[str]  #: empty where there is no labels.json
    listed: dict[str, str]  #: NAME in a split file → its split; empty where there are no split files
    left_out: dict[str, list[str]]  #: why → files


def find_parts(root: Path) -> dict[str, dict[str, Path]]:
    """The data set's pictures: part ("images", "aug_images") → NAME → file. Raises UserError as `read_layout`."""
    return read_layout(root).parts


def read_layout(root: Path) -> Layout:
    """Look through a data set in the HS_FACE layout.

    Of two files of one folder that come to the same NAME the alphabetically first counts.

    Raises:
        UserError: no such folder, no `images` in it, or no pictures in that; labels or split files that are damaged.
    """
    if not root.is_dir():
        raise UserError(
            f"the data set folder {root} does not exist; expected images/ and labels.json in it. "
            "Set data.root (of photos: data.photos) to where it is"
        )
    if not (root / "images").is_dir():
        raise UserError(f"{root} has no folder images/; expected the HS_FACE layout: images/NAME.png and labels.json")

    labels = read_labels(root).names if (root / "labels.json").exists() else []
    known, left_out = set(labels), defaultdict[str, list[str]](list)
    parts = {}
    for part in PARTS:
        if (root / part).is_dir():
            parts[part] = _pictures_by_name(root / part, known, left_out)
    if not parts["images"]:
        raise UserError(f"{root / 'images'} holds no pictures; expected NAME.png (or {', '.join(SUFFIXES[1:])})")
    return Layout(parts, labels, _read_split_files(root, known), dict(left_out))


def _pictures_by_name(folder: Path, known: set[str], left_out: dict[str, list[str]]) -> dict[str, Path]:
    """NAME → file of a folder; what is left out is added to `left_out`."""
    with os.scandir(folder) as entries:
        files = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    found: dict[str, Path] = {}
    for file in files:
        name = known_name(name_of(file), known)
        if not file.lower().endswith(SUFFIXES):
            left_out[f"files in {folder.name} that are no pictures"].append(file)
        elif not is_listable(name):
            left_out[f"{folder.name} whose names have line breaks or spaces at an end"].append(file)
        elif name in found:
            left_out[f"{folder.name} that share their NAME with another"].append(f"{file} (as {found[name].name})")
        else:
            found[name] = folder / file
    return dict(sorted(found.items()))


def describe_layout(root: Path) -> str:
    """One line for people: what a data set holds, how much of it is used, and why not the rest.

    Raises:
        UserError: as `read_layout`.
    """
    layout = read_layout(root)
    images, labels, listed = layout.parts["images"], set(layout.label_names), layout.listed
    counts = [f"{len(pictures)} {part}" for part, pictures in layout.parts.items()]
    counts.append(f"{len(labels)} labels" if labels else "no labels.json")
    if listed:
        counts.append(f"{len(listed)} names in split files")

    # Why not the rest.
    left_out = {why: list(files) for why, files in layout.left_out.items()}
    used = set(images)
    if labels:
        left_out["images without label"] = [name for name in images if name not in labels]
        left_out["labels without image"] = [name for name in layout.label_names if name not in images]
        used &= labels
    if listed:
        left_out["images that no split file names"] = [name for name in images if name not in listed]
        left_out["names in split files without image"] = [name for name in listed if name not in images]
        used &= listed.keys()
    variants = layout.parts.get("aug_images", {})
    left_out["aug_images without image"] = [name for name in variants if name not in images]

    reasons = [f"{len(files)} {why} ({_first(files)})" for why, files in left_out.items() if files]
    rest = f"; left out: {', '.join(reasons)}" if reasons else ""
    return f"{root}: {', '.join(counts)}; {len(used)} faces have all that they need{rest}"


def _first(names: list[str], count: int = 3) -> str:
    shown = ", ".join(printable(name) for name in names[:count])
    return shown + (", …" if len(names) > count else "")


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
        raw = json.loads(content, object_pairs_hook=_refuse_repeated)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    except UserError as error:
        raise UserError(f"{path} {error}") from None
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


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object's entries. Raises UserError where two of them have one name and different values."""
    entries: dict[str, Any] = {}
    for key, value in pairs:
        if entries.setdefault(key, value) != value:
            raise UserError(f"names {key[:80]!r} twice, with different values; expected every name once")
    return entries


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
        name = checked_name(key, str(path))
        if rows.setdefault(name, row) != row:
            raise UserError(f"{path} names {name!r} twice, with different values; expected every name once")
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
    names = list(names)
    if not any(path.exists() for path in _split_files(root).values()):
        return {name: split_of(name) for name in names}
    listed = _read_split_files(root, set(names))
    return {name: listed[name] for name in names if name in listed}


def _split_files(root: Path) -> dict[str, Path]:
    return {split: root / f"{split}.txt" for split in SPLITS}


def _read_split_files(root: Path, known: set[str]) -> dict[str, str]:
    """NAME → split of all that the split files list; empty without them. Raises UserError as `read_splits`."""
    files = _split_files(root)
    present = [split for split, path in files.items() if path.exists()]
    if not present:
        return {}
    if len(present) < len(SPLITS):
        raise UserError(
            f"{root} has {', '.join(f'{s}.txt' for s in present)} but not the others; "
            "expected train.txt, val.txt and test.txt, or none of them"
        )

    listed: dict[str, str] = {}
    for split, path in files.items():
        for line in _lines(path):
            name = known_name(checked_name(line, str(path)), known)
            if listed.setdefault(name, split) != split:
                raise UserError(
                    f"{name!r} stands in {listed[name]}.txt and in {split}.txt of {root}; expected in one of them"
                )
    return listed


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    # Not splitlines(), which also parts a name at U+2028 or a form feed.
    return [line.strip() for line in text.split("\n") if line.strip()]
