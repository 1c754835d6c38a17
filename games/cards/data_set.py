"""A folder of cards as labels of a data set.

<output>/cards.json       NAME -> card, the heads, whether bones are in it: by it the folder is known as ours
<output>/parameters.csv   the parameter table
<output>/labels.json      {"NAME": [p0, p1, …]}, normalised; written last
<output>/left_out.txt     cards that were left out, a line "card, tab, reason" each

What a card cannot say is a picture: renders of these characters come from the game.
"""

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from games.cards.abmx import Bone, as_seen, bones_of, other_side, values_of
from games.cards.card import Card
from games.cards.creators import Creator
from games.cards.fields import CardError
from games.parameters import Parameter, mirrored_bones, write_parameters
from games.writer import write_labels
from utils.errors import UserError
from utils.files import lock_folder, read_json, sweep_temporaries, write_json
from utils.pictures import SUFFIXES, find_pictures, printable, write_listing
from utils.progress import progress

MANIFEST = "cards.json"

#: Files that this writes; found without the manifest they are somebody else's.
_OURS = ("labels.json", "parameters.csv", "left_out.txt")

#: How far a bone may be from what labels say of it: what games and their plug-ins round.
_TOLERANCE = 1e-4

#: How far beyond its range a value may lie, as a fraction of it: what a float32 rounds.
_ROUNDING = 1e-6

#: Cards left out that are named on the screen; the rest stand in left_out.txt.
_NAMED = 20


class Wanted(NamedTuple):
    """What a data set is to hold."""

    creator: Creator
    heads: tuple[int, ...] | None  #: values of headId; None: any
    with_bones: bool  #: whether labels hold the bones of ABMX, too

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The rows of its table."""
        return self.creator.sliders + (self.creator.bones if self.with_bones else ())


@dataclass
class Found:
    """Characters that were found in cards, and cards that were left out."""

    files: dict[str, str] = field(default_factory=dict)  #: NAME → card, relative to the folder of cards
    labels: list[np.ndarray] = field(default_factory=list)  #: (P,) normalised, in the order of `files`
    heads: set[int] = field(default_factory=set)
    render_anew: list[str] = field(default_factory=list)  #: NAMEs whose labels changed and whose renders are there
    left_out: dict[str, tuple[str, str]] = field(default_factory=dict)  #: card → kind of reason, and the reason


class _LeftOut(Exception):
    """A card that is no use here: a kind of reason, to be counted by, and the reason."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason


def write_data_set(cards: Path, output: Path, wanted: Wanted) -> Found:
    """Read the cards in a folder and write their labels to another.

    Args:
        cards: is searched with all folders in it; nothing is written there.
        output: folder to write to; a data set that this wrote before is written anew.
        wanted: what the labels are to hold.

    Raises:
        UserError: no card that can be used; an output that is or lies in `cards`, or that holds other labels.
    """
    _check(cards, output)
    found = read_folder(cards, wanted)
    if not found.files:
        tell_left_out(found)
        raise UserError(f"none of the {len(found.left_out)} pictures in {cards} is a card that can be used; see above")

    with lock_folder(output, "python -m games.cards data-set"):
        sweep_temporaries(output)
        found.render_anew = _outdated(found, output, wanted.creator)
        manifest = {"game": wanted.creator.title, "heads": sorted(found.heads), "bones": wanted.with_bones}
        write_json(output / MANIFEST, manifest | {"cards": found.files})
        write_parameters(output / "parameters.csv", wanted.parameters)
        write_listing(output / "left_out.txt", {file: reason for file, (_, reason) in found.left_out.items()})
        write_labels(output, list(found.files), labels=np.stack(found.labels))
    return found


def heads_of(root: Path) -> list[int] | None:
    """The heads of the characters in a data set of cards; None for another data set."""
    heads = (read_json(root / MANIFEST) or {}).get("heads")
    is_list = isinstance(heads, list) and all(isinstance(head, int) for head in heads)
    return heads if is_list else None


def describe(found: Found, output: Path, wanted: Wanted) -> str:
    """What was found, in one line, and what is still missing."""
    counts = Counter(kind for kind, _ in found.left_out.values())
    reasons = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    rest = f"; {len(found.left_out)} left out: {reasons}" if found.left_out else ""
    values = f"{len(wanted.parameters)} values each"
    rendered = _rendered(output)
    missing = sum(name not in rendered for name in found.files) + len(found.render_anew)
    lines = [
        f"{output}: {len(found.files)} characters, {values}, of {len(found.files) + len(found.left_out)} pictures{rest}"
    ]
    if found.render_anew:
        first = ", ".join(map(printable, found.render_anew[:_NAMED]))
        more = ", …" if len(found.render_anew) > _NAMED else ""
        lines.append(
            f"To be rendered anew: {len(found.render_anew)} characters whose cards have other values than before. "
            f"Their pictures are still those of then: {first}{more}. This is said once; delete these pictures now"
        )
    if missing:
        lines.append(
            f"Still missing: renders of {missing} characters. Show each one in the game, from the front and without an "
            f"expression, and save the screenshot as RAW/NAME.png, by the NAMEs in {output / MANIFEST}. Then:\n"
            f"    python face_alignment.py --input RAW --output {output / 'images'}"
        )
    return "\n".join(lines)


def _rendered(output: Path) -> set[str]:
    """NAMEs that have a picture."""
    images = output / "images"
    return {path.stem for path in images.iterdir()} if images.is_dir() else set()


def _outdated(found: Found, output: Path, game: Creator) -> list[str]:
    """NAMEs whose rows in the labels that are about to be replaced are others, and that have a picture of then."""
    old, rendered = read_json(output / "labels.json") or {}, _rendered(output)
    outdated = []
    for name, label in zip(found.files, found.labels, strict=True):
        if name in rendered and name in old:
            before, now = _with_bones(old[name], game), _with_bones(label, game)
            if before.shape != now.shape or not np.allclose(before, now, rtol=0, atol=_ROUNDING):
                outdated.append(name)
    return outdated


def _with_bones(label: Sequence[float] | np.ndarray, game: Creator) -> np.ndarray:
    """A label (P,), where it has sliders alone with the bones of a face that ABMX leaves alone."""
    values = np.asarray(label, np.float64)
    if len(values) != len(game.sliders) or not game.bones:
        return values
    return np.concatenate([values, _normalised(values_of({}, [bone.name for bone in game.bones]), game.bones)])


def _check(cards: Path, output: Path) -> None:
    if not cards.is_dir():
        raise UserError(f"--cards {cards} is no folder; expected one with character cards in it")
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file; expected a folder")
    if output.resolve().is_relative_to(cards.resolve()):
        raise UserError(
            f"--output {output} lies in --cards {cards}, whose pictures are read as cards; choose another one"
        )
    strangers = [name for name in (MANIFEST, *_OURS, "creator.json") if (output / name).exists()]
    if strangers and not {"game", "heads", "cards"} <= (read_json(output / MANIFEST) or {}).keys():
        raise UserError(f"{output} holds {strangers[0]}, which this command did not write. Choose another --output")


# --- reading --------------------------------------------------------------------------------------


def read_folder(cards: Path, wanted: Wanted) -> Found:
    """Read all cards of a folder and of those in it."""
    found = Found()
    characters: dict[bytes, str] = {}  # a character's bytes → its card
    names: dict[str, str] = {}  # NAME without regard to case → its card
    files = find_pictures(cards)
    with progress(total=len(files), desc=f"reading {printable(str(cards))}", unit="card") as bar:
        for path in files:
            file = path.relative_to(cards).as_posix()
            try:
                name = _unused(name_of(file), names)
                head, label = _read(path, wanted)
                _refuse_twice(head, label, characters)
            except _LeftOut as why:
                found.left_out[file] = (why.kind, why.reason)
            else:
                names[name.casefold()] = characters[_key(head, label)] = file
                found.files[name] = file
                found.labels.append(label)
                found.heads.add(head)
            bar.update()
    return found


def name_of(file: str) -> str:
    """The NAME of a card's character: the card's path without its extension, as it can stand in a file's name."""
    name = unicodedata.normalize("NFC", file)
    while name.lower().endswith(SUFFIXES):
        name = name.rsplit(".", 1)[0]
    name = re.sub(r"[/\\:*?\"<>|\x00-\x1f\x7f-\x9f\u2028\u2029]", "_", name).strip().rstrip(". ")
    return "_" + name[1:] if name.startswith(".") else name or "_"


def _unused(name: str, names: Mapping[str, str]) -> str:
    if name.casefold() in names:
        raise _LeftOut(
            "share their NAME with another", f"its NAME would be that of {names[name.casefold()]}; rename it"
        )
    return name


def _key(head: int, label: np.ndarray) -> bytes:
    return f"{head} ".encode() + label.astype("<f4").tobytes()


def _refuse_twice(head: int, label: np.ndarray, characters: Mapping[bytes, str]) -> None:
    first = characters.get(_key(head, label))
    if first is not None:
        raise _LeftOut("are the same character as another", f"the same character as {first}")


def _read(path: Path, wanted: Wanted) -> tuple[int, np.ndarray]:
    """headId of a card, and its label (P,), normalised."""
    try:
        card = Card.read(path)
    except CardError as error:
        raise _LeftOut("are no card that can be read", str(error)) from None
    if card.creator.key != wanted.creator.key:
        raise _LeftOut(f"are cards of {card.game}", f"a card of {card.game}; --game chooses which are read")
    if wanted.heads is not None and card.head_id not in wanted.heads:
        expected = " ".join(map(str, wanted.heads))
        raise _LeftOut("have another head", f"headId {card.head_id}; --heads {expected} chooses which are read")

    sliders = card.sliders
    values = [sliders[slider.name] for slider in wanted.creator.sliders]
    try:
        bones = card.bones if wanted.creator.bones else {}
    except CardError as error:
        raise _LeftOut("have plug-in data that cannot be read", str(error)) from None
    if wanted.with_bones:
        values += values_of(bones, [bone.name for bone in wanted.creator.bones])
    label = _normalised(values, wanted.parameters)
    _check_bones(bones, label, wanted)
    return card.head_id, label


def _normalised(values: Sequence[float], parameters: Sequence[Parameter]) -> np.ndarray:
    """Values (P,) in the game's units as labels in [0, 1]."""
    low, high = (np.array([getattr(p, limit) for p in parameters]) for limit in ("minimum", "maximum"))
    label = (np.array(values, np.float64) - low) / (high - low)
    for i in np.flatnonzero(~((label >= -_ROUNDING) & (label <= 1 + _ROUNDING))):
        p = parameters[int(i)]
        reason = f"{p.name} is {float(values[int(i)]):g}; its range is {p.minimum:g} to {p.maximum:g}"
        raise _LeftOut("have a value beyond its range", reason)
    return label.clip(0, 1)


def _check_bones(bones: Mapping[str, Bone], label: np.ndarray, wanted: Wanted) -> None:
    """Leave out a face that bones shape in a way that its label does not tell: the label would not be true."""
    table = wanted.creator.bones
    neutral = bones_of({p.name: v for p, v in zip(table, values_of({}, [p.name for p in table]), strict=True)})
    told = neutral | {other_side(name): Bone() for name in neutral}
    if wanted.with_bones:
        own = label[len(wanted.creator.sliders) :]
        values = {p.name: p.in_game(v) for p, v in zip(table, own.tolist(), strict=True)}
        mirrored = {name: bone["value"] for name, bone in mirrored_bones(table, own).items()}
        told = bones_of(values | mirrored)

    # Bones of the face that the table has no row for: expected to do nothing.
    others = {name: Bone() for name in bones if wanted.creator.shapes_face(name) and name not in told}
    for name, expected in (told | others).items():
        found = as_seen(name, bones.get(name, Bone()))
        if np.allclose(_numbers(found), _numbers(expected), rtol=0, atol=_TOLERANCE):
            continue
        if name in others:
            why = f"bone {name} shapes the face, and the table has no row for it"
            raise _LeftOut("have bones that labels cannot tell", why)
        if wanted.with_bones:
            how = "right and left bones differ, or it is moved in a way that the table has no row for"
            raise _LeftOut("have bones that labels cannot tell", f"bone {name}: {how}")
        raise _LeftOut("have bones of ABMX", f"bone {name} is changed by ABMX, which sliders do not tell; see --bones")


def _numbers(bone: Bone) -> np.ndarray:
    """The ten numbers of a bone."""
    return np.array([*bone.scale, bone.length, *bone.position, *bone.rotation])


def tell_left_out(found: Found) -> None:
    """Name the cards that were left out, each with its reason; of many the first."""
    for file, (_, reason) in list(found.left_out.items())[:_NAMED]:
        print(f"left out: {printable(file)}: {reason}", file=sys.stderr)
    if len(found.left_out) > _NAMED:
        print(f"left out: {len(found.left_out) - _NAMED} more", file=sys.stderr)
