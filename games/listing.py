"""A character's parameters as people read them: each with its value in the game, and how far to trust it."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from games.parameters import Parameter, mirrored_bones

#: How far a value can be trusted → the lowest R² on test faces of its kind; None stands for a parameter without R².
#: Values with R² 0.8 are off by 0.45 of the parameter's spread over characters, with 0.5 by 0.71: √(1 − R²).
TRUST = {"trust it": 0.8, "roughly right": 0.5, "a guess": -math.inf, "not measured": None}


class Entry(NamedTuple):
    """What people read of one parameter."""

    name: str
    group: str
    value: float  #: from 0 to 1
    start: float  #: from 0 to 1: the value of the average character
    shown: str  #: the value in the game
    r2: float | None  #: on test faces
    spread: float | None  #: from 0 to 1: standard deviation over photos; None for a single photo

    @property
    def trust(self) -> str:
        """A key of `TRUST`."""
        if self.r2 is None:
            return "not measured"
        return next(level for level, least in TRUST.items() if least is not None and self.r2 >= least)


def entries_of(
    parameters: Sequence[Parameter],
    values: np.ndarray,
    *,
    test_r2: Mapping[str, float | None],
    average: np.ndarray | None = None,
    spread: np.ndarray | None = None,
) -> list[Entry]:
    """The P entries of a character, in the order of the table.

    Args:
        values: (P,) in [0, 1].
        test_r2: parameter name → R² on test faces.
        average: (P,) the average character; None takes the middle of each range.
        spread: (P,) standard deviations over photos; None, or NaN, where there is none.
    """
    starts = np.full(len(parameters), 0.5) if average is None else average
    spreads = np.full(len(parameters), np.nan) if spread is None else spread
    entries = []
    for p, value, start, own in zip(parameters, values.tolist(), starts.tolist(), spreads.tolist(), strict=True):
        known = None if math.isnan(own) else own
        entries.append(Entry(p.name, p.group, value, start, as_in_game(p, value), test_r2.get(p.name), known))
    return entries


def as_in_game(parameter: Parameter, normalised: float) -> str:
    """A parameter's value in the game, with as many decimals as a hundredth of its range needs."""
    return _rounded(parameter.in_game(normalised), parameter)


def as_table(parameters: Sequence[Parameter], entries: Sequence[Entry]) -> str:
    """A table for people who type a character into a game: a line per parameter, by group, with its range and trust.

    Right-side bones follow their group's parameters: the game has sliders for both sides.
    """
    mirrored = mirrored_bones(parameters, [entry.value for entry in entries])
    of = {entry.name: (parameter, entry) for parameter, entry in zip(parameters, entries, strict=True)}
    width = max(len(name) for name in [*of, *mirrored])
    lines = []
    for group in dict.fromkeys(parameter.group for parameter in parameters):
        lines.append(f"{group}:")
        for parameter, entry in of.values():
            if parameter.group == group:
                lines.append(_line(entry.name, entry.shown, width=width, end=_remark(parameter, entry)))
        for name, bone in mirrored.items():
            left = of[bone["mirrors"]][0]
            if left.group == group:
                lines.append(_line(name, _rounded(bone["value"], left), width=width, end=f"mirrors {left.name}"))
    return "\n".join(lines)


def _line(name: str, shown: str, *, width: int, end: str) -> str:
    return f"  {name:<{width}}  {shown:>8}   {end}"


def _remark(parameter: Parameter, entry: Entry) -> str:
    limits = f"of {_rounded(parameter.minimum, parameter)} to {_rounded(parameter.maximum, parameter)}"
    remark = f"{limits:<20} {entry.trust}"
    if entry.r2 is not None:
        remark += f" (R² {entry.r2:.2f})"
    if entry.spread is not None:
        remark += f", ± {entry.spread * (parameter.maximum - parameter.minimum):.{_decimals(parameter)}f}"
    return remark


def _rounded(value: float, parameter: Parameter) -> str:
    text = f"{value:.{_decimals(parameter)}f}"
    if not text.strip("-0."):  # no minus before zero
        return text.lstrip("-")
    return text


def _decimals(parameter: Parameter) -> int:
    return max(0, 2 - math.floor(math.log10(parameter.maximum - parameter.minimum)))
