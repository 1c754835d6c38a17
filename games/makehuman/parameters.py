"""The parameters that are learned: which modifiers they are, what they mean in the game, and random characters."""

from collections.abc import Sequence

import numpy as np

from games.makehuman.data import Modifier
from games.makehuman.model import ORIGINS, offered_modifiers
from utils.errors import UserError

#: Standard deviations of random characters' modifiers by group, in the game's units (a pair goes from −1 to 1).
DEVIATIONS = {
    "head": 0.28,
    "forehead": 0.34,
    "eyebrows": 0.45,
    "eyes": 0.42,
    "nose": 0.38,
    "mouth": 0.38,
    "ears": 0.40,
    "chin": 0.36,
    "cheek": 0.38,
}

#: Modifiers that break a head long before 1 (a skull like a loaf, ears on the cheeks): factors on the above.
_TAMED = {
    "head/head-scale-horiz-decr|incr": 0.7,
    "head/head-scale-vert-decr|incr": 0.7,
    "forehead/forehead-scale-vert-decr|incr": 0.7,
    "nose/nose-point-down|up": 0.7,
    "chin/chin-height-decr|incr": 0.8,
    "ears/ear-trans-down|up": 0.6,
}

#: "uniform" is what a data set is drawn from; "typical" lies closer to the middle.
DISTRIBUTIONS = {"uniform": 1.0, "typical": 0.6}
_TRUNCATION = 2.5  #: standard deviations
_HEAD_SHAPE_SHARE, _STRONGEST_HEAD_SHAPE = 0.7, 0.75

_MODIFIERS = offered_modifiers()
NAMES = [modifier.name for modifier in _MODIFIERS]
MINIMA = np.array([-1.0 if modifier.is_pair else 0.0 for modifier in _MODIFIERS])

# Where the pairs and the head's shapes are among the parameters, and the pairs' deviations.
_PAIRS = [i for i, m in enumerate(_MODIFIERS) if m.is_pair]
_SHAPES = [i for i, m in enumerate(_MODIFIERS) if not m.is_pair and not m.is_macro]
_DEVIATIONS = np.array([DEVIATIONS[_MODIFIERS[i].group] * _TAMED.get(NAMES[i], 1.0) for i in _PAIRS])


def game_values(parameters: np.ndarray) -> dict[str, float]:
    """Parameters (P,) in [0, 1] as values of the game's modifiers, tied, by name; the origins are made to sum to 1."""
    parameters = np.asarray(parameters, np.float64)
    if parameters.shape != (len(NAMES),):
        raise UserError(f"parameters of shape {parameters.shape} were given; MakeHuman has ({len(NAMES)},)")
    values = dict(zip(NAMES, (MINIMA + parameters * (1 - MINIMA)).tolist(), strict=True))
    shares = np.array([max(values[f"macrodetails/{origin}"], 0) for origin in ORIGINS])
    shares = shares / shares.sum() if shares.sum() > 0 else np.full(3, 1 / 3)
    return values | {f"macrodetails/{origin}": float(share) for origin, share in zip(ORIGINS, shares, strict=True)}


def from_game_values(values: dict[str, float]) -> np.ndarray:
    """The parameters (P,) of values by name, as `game_values` gives them; what is missing is neutral."""
    found = np.array([values.get(name, np.nan) for name in NAMES])
    parameters = (found - MINIMA) / (1 - MINIMA)
    return np.where(np.isnan(parameters), neutral(), parameters).clip(0, 1)


def neutral() -> np.ndarray:
    """(P,) the parameters of a new human: no modifier, the macros in the middle, a third of each origin."""
    values = -MINIMA / (1 - MINIMA)
    for name, value in {"macrodetails/Gender": 0.5, "macrodetails/Age": 0.5}.items():
        values[NAMES.index(name)] = value
    for origin in ORIGINS:
        values[NAMES.index(f"macrodetails/{origin}")] = 1 / 3
    return values


def draw(rng: np.random.Generator, distribution: str = "uniform") -> np.ndarray:
    """Draw a character that looks like a person: (P,) float64 in [0, 1].

    Pairs are truncated normal with a deviation by group, a head has at most one of the shapes, macros are a mix.

    Raises:
        UserError: the distribution is none of `DISTRIBUTIONS`.
    """
    if distribution not in DISTRIBUTIONS:
        raise UserError(f"the distribution is {distribution!r}; it is one of {', '.join(DISTRIBUTIONS)}")
    spread = DISTRIBUTIONS[distribution]
    values = np.zeros(len(NAMES))
    values[_PAIRS] = np.clip(_truncated_normal(rng, len(_PAIRS)) * (_DEVIATIONS * spread), -1, 1)
    if rng.random() < _HEAD_SHAPE_SHARE:
        values[_SHAPES[rng.integers(len(_SHAPES))]] = rng.uniform(0, _STRONGEST_HEAD_SHAPE) * spread
    for name, value in _draw_macros(rng).items():
        values[NAMES.index(name)] = value
    return ((values - MINIMA) / (1 - MINIMA)).clip(0, 1)


def _draw_macros(rng: np.random.Generator) -> dict[str, float]:
    """Mostly plain men and women of 18 to 60, some between and some older."""
    pole = float(rng.random() < 0.5)
    gender = abs(pole - min(abs(rng.normal(0, 0.22)), 1.0))
    age = float(np.clip(rng.choice((rng.uniform(0.38, 0.62), rng.uniform(0.55, 0.95)), p=(0.65, 0.35)), 0, 1))
    shares = rng.dirichlet((0.6, 0.6, 0.6))
    origins = {f"macrodetails/{origin}": float(share) for origin, share in zip(ORIGINS, shares, strict=True)}
    return {"macrodetails/Gender": float(gender), "macrodetails/Age": age} | origins


def _truncated_normal(rng: np.random.Generator, count: int) -> np.ndarray:
    """(count,) values: what is drawn beyond the truncation is left out, and drawn again."""
    values = np.empty(0)
    while len(values) < count:
        drawn = rng.standard_normal(count - len(values))
        values = np.append(values, drawn[np.abs(drawn) <= _TRUNCATION])
    return values


def value_of(parameters: np.ndarray, name: str) -> float:
    """One parameter's value in [0, 1] by name."""
    return float(parameters[NAMES.index(name)])


def rows() -> Sequence[Modifier]:
    """The modifiers behind the parameters, in their order."""
    return _MODIFIERS
