"""The game's own files: .mhm of MakeHuman (1.2 and later; MPFB imports it) and the preset JSON of MPFB."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from games.makehuman.data import read_modifiers
from games.makehuman.model import NEUTRAL_MACROS, ORIGINS, origin_shares
from utils.errors import UserError
from utils.files import write_json, write_text

#: What the game writes of a human's body, with its neutral values: none of it moves the head.
_BODY = {
    "breast/BreastSize": 0.5,
    "breast/BreastFirmness": 0.5,
    "macrodetails-height/Height": 0.5,
    "macrodetails-proportions/BodyProportions": 0.5,
}


def in_the_game(values: Mapping[str, float]) -> dict[str, float]:
    """Tied values (by the names of modifiers.csv) as the game has them: right and left apart, all macros, no zeros."""
    apart: dict[str, float] = {}
    for modifier in read_modifiers():
        if not modifier.is_macro and values.get(modifier.name, 0.0) != 0:
            apart |= dict.fromkeys(modifier.game_names, float(values[modifier.name]))
    macros = NEUTRAL_MACROS | {name: float(values[name]) for name in NEUTRAL_MACROS if name in values}
    shares = {f"macrodetails/{origin}": share for origin, share in origin_shares(macros).items()}
    return apart | macros | shares | _BODY


def write_mhm(path: Path, values: Mapping[str, float], *, name: str = "") -> None:
    """Write a human as the game saves it, to six decimals.

    Args:
        path: the file; its stem is the human's name where `name` is empty.
        values: by the game's names, as `in_the_game` and `read_mhm` give them.
        name: the human's name; blanks in it become underscores, as the format parts its words by blanks.
    """
    title = "_".join((name or path.stem).split())
    lines = ["# Written by Face2Parameter", "version v1.2.0", f"name {title}", "camera 0.0 0.0 0.0 0.0 0.0 1.0"]
    lines += [f"modifier {modifier} {value:.6f}" for modifier, value in values.items()]
    lines += [
        "eyes High-poly 361c783e-0e8a-4a6e-a4e0-b3ef6cf7bbfd",
        "skinMaterial skins/default.mhmat",
        "subdivide False",
    ]
    write_text(path, "\n".join(lines) + "\n")


def read_mhm(path: Path) -> dict[str, float]:
    """The values of a saved human's modifiers, by the game's names, in the file's order.

    Raises:
        UserError: the file is missing or no .mhm; a modifier's line holds no number.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name a .mhm file that MakeHuman saved") from error
    values: dict[str, float] = {}
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0] != "modifier":
            continue
        try:
            values[words[1]] = float(words[2])
        except (IndexError, ValueError) as error:
            raise UserError(
                f"{path}, line {number} is {line!r}; expected a modifier's name and a number; save the human again"
            ) from error
    if not values:
        raise UserError(f"{path} names no modifier; expected a .mhm file that MakeHuman saved")
    return values


def tied(values: Mapping[str, float]) -> dict[str, float]:
    """A human's values by the names of modifiers.csv: the mean where left and right differ. Others are left out."""
    together: dict[str, float] = {}
    for modifier in read_modifiers():
        sides = [values.get(name) for name in modifier.game_names]
        if any(side is not None for side in sides):
            together[modifier.name] = sum(side or 0.0 for side in sides) / len(sides)
    return together


def preset(values: Mapping[str, float]) -> dict[str, Any]:
    """A human as MPFB's preset: its phenotype and its targets, no clothes, hair or skin.

    Args:
        values: by the game's names, as for `write_mhm`.
    """
    macros = NEUTRAL_MACROS | {name: value for name, value in values.items() if name in NEUTRAL_MACROS}
    shares = origin_shares(macros)
    targets = []
    for name, value in values.items():
        if name in macros or name in _BODY or value == 0:
            continue
        targets.append({"target": _preset_target(name, value), "value": round(abs(value), 6)})
    return {
        "phenotype": {
            "gender": round(macros["macrodetails/Gender"], 6),
            "age": round(macros["macrodetails/Age"], 6),
            "muscle": round(macros["macrodetails-universal/Muscle"], 6),
            "weight": round(macros["macrodetails-universal/Weight"], 6),
            "height": 0.5,
            "proportions": 0.5,
            "cupsize": 0.5,
            "firmness": 0.5,
            "race": {origin.lower(): round(shares[origin], 6) for origin in ORIGINS},
        },
        "targets": targets,
        "rig": "default",
        "eyes": "high-poly/high-poly.mhclo",
        **dict.fromkeys(("eyebrows", "eyelashes", "hair", "teeth", "tongue", "proxy", "skin_mhmat"), ""),
        "clothes": [],
        "expressions": [],
        "makeup": [],
        "skin_material_type": "NONE",
        "eyes_material_type": "MAKESKIN",
        **{name: {} for name in ("skin_material_settings", "eyes_material_settings")},
        **{name: {} for name in ("color_adjustments", "alternative_materials")},
    }


def _preset_target(name: str, value: float) -> str:
    """The target that a modifier's value stands for, as MPFB names it: no group, one end of the pair."""
    target = name.partition("/")[2]
    if "|" not in target:
        return target
    stem, _, ends = target.rpartition("-")
    low, high = ends.split("|")
    if value < 0:
        return f"{stem}-{low}"
    return f"{stem}-{high}"


def from_preset(content: Mapping[str, Any]) -> dict[str, float]:
    """A preset's values by the game's names: what `preset` was made of."""
    by_target: dict[str, tuple[str, float]] = {}
    for modifier in read_modifiers():
        if modifier.is_macro:
            continue
        for name in modifier.game_names:
            by_target[_preset_target(name, 1)] = (name, 1.0)
            if modifier.is_pair:
                by_target[_preset_target(name, -1)] = (name, -1.0)
    values = {}
    for entry in content["targets"]:
        name, sign = by_target[entry["target"]]
        values[name] = sign * float(entry["value"])
    phenotype = content["phenotype"]
    values["macrodetails/Gender"] = phenotype["gender"]
    values["macrodetails/Age"] = phenotype["age"]
    values["macrodetails-universal/Muscle"] = phenotype["muscle"]
    values["macrodetails-universal/Weight"] = phenotype["weight"]
    for origin in ORIGINS:
        values[f"macrodetails/{origin}"] = phenotype["race"][origin.lower()]
    return values


def write_preset(path: Path, values: Mapping[str, float]) -> None:
    """Write MPFB's preset; MPFB lists files of its config folder that are called human.NAME.json."""
    write_json(path, preset(values))
