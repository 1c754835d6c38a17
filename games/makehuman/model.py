"""MakeHuman's human: values of its modifiers → weights of its targets → vertices of the head.

A vertex is base + Σ weight · displacement, linear in the weights. A pair's value v weighs its one target by −v where
v < 0 and its other target by v where v > 0. A macro target's weight is the product of its factors.
"""

from collections.abc import Mapping
from functools import cache

import numpy as np

from games.makehuman.data import TARGET_SCALE, HeadData, Modifier, read_modifiers

ORIGINS = ("African", "Asian", "Caucasian")

#: The macros' values where nothing else is said, as in a new human of the game.
NEUTRAL_MACROS = {
    "macrodetails/Gender": 0.5,
    "macrodetails/Age": 0.5,
    "macrodetails/African": 1 / 3,
    "macrodetails/Asian": 1 / 3,
    "macrodetails/Caucasian": 1 / 3,
    "macrodetails-universal/Muscle": 0.5,
    "macrodetails-universal/Weight": 0.5,
}


def macro_weights(values: Mapping[str, float]) -> dict[str, float]:
    """The weights of the macro targets, all above 0.

    Args:
        values: macros' values in [0, 1] by name; those that are missing are neutral. The three origins are shares:
            only their ratios count.
    """
    values = NEUTRAL_MACROS | {name: value for name, value in values.items() if name in NEUTRAL_MACROS}
    male = values["macrodetails/Gender"]
    genders = _positive({"female": 1 - male, "male": male})
    ages = _positive(_age_weights(values["macrodetails/Age"]))
    muscles = _positive(_three_weights("muscle", values["macrodetails-universal/Muscle"]))
    masses = _positive(_three_weights("weight", values["macrodetails-universal/Weight"]))
    origins = _positive(origin_shares(values))

    weights: dict[str, float] = {}
    for gender, of_gender in genders.items():
        for age, of_age in ages.items():
            for origin, of_origin in origins.items():
                weights[f"{origin.lower()}-{gender}-{age}"] = of_gender * of_age * of_origin
            for muscle, of_muscle in muscles.items():
                for mass, of_mass in masses.items():
                    weights[f"universal-{gender}-{age}-{muscle}-{mass}"] = of_gender * of_age * of_muscle * of_mass
    return weights


def _positive(factors: dict[str, float]) -> dict[str, float]:
    return {name: factor for name, factor in factors.items() if factor > 0}


def origin_shares(values: Mapping[str, float]) -> dict[str, float]:
    """The shares of the three origins, which sum to 1; a third each where all are 0."""
    shares = np.array([max(0.0, float(values[f"macrodetails/{origin}"])) for origin in ORIGINS])
    if shares.sum() <= 0:
        shares = np.ones(3)
    return dict(zip(ORIGINS, (shares / shares.sum()).tolist(), strict=True))


def _age_weights(age: float) -> dict[str, float]:
    """Piecewise linear between baby at 0 (1 year), child at 0.1875 (10), young at 0.5 (25) and old at 1 (90)."""
    places = (0.0, 0.1875, 0.5, 1.0)
    names = ("baby", "child", "young", "old")
    return {name: float(np.interp(age, places, np.eye(4)[i])) for i, name in enumerate(names)}


def _three_weights(name: str, value: float) -> dict[str, float]:
    """Piecewise linear between min at 0, average at 0.5 and max at 1."""
    return {
        f"min{name}": max(0.0, 1 - 2 * value),
        f"average{name}": 1 - abs(2 * value - 1),
        f"max{name}": max(0.0, 2 * value - 1),
    }


def target_weights(values: Mapping[str, float]) -> dict[str, float]:
    """The weights of all targets of a human.

    Args:
        values: by the game's names (left and right apart) or by those of modifiers.csv (tied): pairs in [−1, 1], single
            head shapes and macros in [0, 1]. What the game has and the table does not (height, breast) moves no vertex
            of the head at its neutral value and is left out.
    """
    weights = macro_weights(values)
    table = _targets_by_name()
    for name, value in values.items():
        for low, high in table.get(name, ()):
            if value > 0:
                weights[high] = value
            elif value < 0 and low:
                weights[low] = -value
    return weights


@cache
def _targets_by_name() -> dict[str, list[tuple[str, str]]]:
    """For each name, tied or not, the targets of −1 ("" where there is none) and of 1, side by side."""
    table: dict[str, list[tuple[str, str]]] = {}
    for modifier in read_modifiers():
        if modifier.is_macro:
            continue
        targets = modifier.targets
        pairs = list(zip(targets[::2], targets[1::2], strict=True)) if modifier.is_pair else [("", targets[0])]
        table[modifier.name] = pairs
        for name, pair in zip(modifier.game_names, pairs, strict=True):
            table[name] = [pair]
    return table


def vertices(head: HeadData, values: Mapping[str, float]) -> np.ndarray:
    """Positions of a human's head: (V, 3) float64 in decimetres, exactly as the game computes them."""
    moved = head.base.ravel().copy()
    rows = {name: i for i, name in enumerate(head.names)}
    for name, weight in target_weights(values).items():
        moved += weight * head.targets[rows[name]] / TARGET_SCALE
    return moved.reshape(-1, 3)


@cache
def offered_modifiers() -> tuple[Modifier, ...]:
    """The modifiers that are parameters, in the table's order: sliders first, macros last."""
    return tuple(modifier for modifier in read_modifiers() if modifier.offered)
