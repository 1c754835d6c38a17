"""The parameters of a game: its table, and what follows from it.

A parameter table is a CSV file `index,name,group,kind,min,max,description`, one row per entry of the label vector.
`assets/hs_face_parameters.csv` is HS_FACE's, 54 sliders and 151 bone values, with `mean` and `std` of typical faces.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np

from utils.errors import UserError
from utils.files import write_text

BUILT_IN_TABLE = Path(__file__).resolve().parent.parent / "assets" / "hs_face_parameters.csv"

#: Rows of the built-in table.
_BUILT_IN_COUNT = 205

_HEADER = ("index", "name", "group", "kind", "min", "max", "description")

#: Right-side bones are the left ones mirrored: these properties change sign.
_SIGN_CHANGES = ("position.x", "rotation.y", "rotation.z")


class Parameter(NamedTuple):
    """A row of the parameter table: one entry of the label vector."""

    name: str
    group: str
    kind: str  #: "slider" or "bone"; the loss of stage 2 is summed over kinds
    minimum: float  #: value in the game at 0
    maximum: float  #: value in the game at 1
    description: str  #: what happens as the value rises towards 1

    def in_game(self, normalised: float) -> float:
        """The value in the game of a normalised value (0 to 1)."""
        return self.minimum + normalised * (self.maximum - self.minimum)


class MirroredBone(TypedDict):
    """A right-side bone value that follows from a left-side one."""

    value: float  #: in the game's units
    mirrors: str  #: name of the left-side parameter


def read_parameters(root: Path, count: int) -> list[Parameter]:
    """The parameter table of a data set whose labels have `count` values.

    Raises:
        UserError: the table is damaged or has another number of rows, or there is none and the
            vectors are not HS_FACE's.
    """
    path = root / "parameters.csv"
    if not path.exists():
        if count != _BUILT_IN_COUNT:
            raise UserError(
                f"{root} has no parameters.csv and its labels have {count} values; only HS_FACE's {_BUILT_IN_COUNT} "
                f"are known without one. Expected {','.join(_HEADER)}, a row an entry"
            )
        path = BUILT_IN_TABLE

    parameters = parse_parameters(path)
    if len(parameters) != count:
        raise UserError(
            f"{path} has {len(parameters)} rows, the labels of {root} have {count} values; expected as many"
        )
    return parameters


def parse_parameters(path: Path) -> list[Parameter]:
    """Read a parameter table; columns other than those of `Parameter` are ignored.

    Raises:
        UserError: no such file, a row that is wrong (the message names it), two rows of one name.
    """
    rows = _read_rows(path)
    parameters = [_parse_row(path, index=i, row=row) for i, row in enumerate(rows)]

    names = [p.name for p in parameters]
    if len(set(names)) != len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise UserError(f"{path} names {twice!r} twice; expected every parameter once")
    return parameters


def write_parameters(path: Path, parameters: Sequence[Parameter]) -> None:
    """Write a parameter table, as `parse_parameters` reads it."""
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(_HEADER)
    for i, p in enumerate(parameters):
        limits = (_shortest(p.minimum), _shortest(p.maximum))
        rows.writerow([i, p.name, p.group, p.kind, *limits, p.description])
    write_text(path, table.getvalue())


def mirrored_bones(parameters: Sequence[Parameter], values: Sequence[float] | np.ndarray) -> dict[str, MirroredBone]:
    """The right-side bone values that follow from the left-side ones, which alone are in the label vector.

    Args:
        parameters: the P rows of the table; left-side bones are those of kind "bone" with "_L." in the name.
        values: (P,) normalised.

    Returns:
        Name of the right-side bone value → its value in the game and the parameter that it mirrors.
    """
    mirrored: dict[str, MirroredBone] = {}
    for p, normalised in zip(parameters, values, strict=True):
        if p.kind == "bone" and "_L." in p.name:
            sign = -1 if p.name.endswith(_SIGN_CHANGES) else 1
            value = round(sign * p.in_game(float(normalised)), 6)
            mirrored[p.name.replace("_L.", "_R.")] = {"value": value, "mirrors": p.name}
    return mirrored


def _read_rows(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read the parameter table {path}: {error}") from None


def _parse_row(path: Path, *, index: int, row: dict[str, str]) -> Parameter:
    try:
        low, high = float(row["min"]), float(row["max"])
        name, group, kind = row["name"].strip(), row["group"].strip(), row["kind"].strip()
        complete = bool(name and group and kind) and int(row["index"]) == index
        good = complete and np.isfinite([low, high]).all() and low < high
    except (KeyError, TypeError, ValueError, AttributeError):
        good = False
    if not good:
        raise UserError(
            f"{path}, row {index + 2}: found {list(row.values())}; expected index {index}, name, group, kind, "
            "min < max, description"
        )
    return Parameter(name, group, kind, low, high, (row.get("description") or "").strip())


def _shortest(number: float) -> float:
    """A number as people write it: −1, not −1.0."""
    return int(number) if number == int(number) else number
