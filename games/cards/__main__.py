"""Character cards from a shell: AI*Shoujo, Honey Select 2, Koikatsu, Koikatsu Sunshine.

    python -m games.cards show CARD.png …                                       what cards hold
    python -m games.cards data-set --cards DIR --output data/mygame --bones     labels of a data set

`python predict.py PHOTO --card CARD.png` writes a card. docs/cards.md says what is read, written and kept.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from games.cards.abmx import Bone
from games.cards.card import Card
from games.cards.creators import CREATORS, creator
from games.cards.data_set import Wanted, describe, tell_left_out, write_data_set
from games.cards.fields import CardError
from utils.errors import UserError, run_script
from utils.pictures import printable

_SHOW = """Show what cards hold: game, version, headId, sliders by name, bones, plug-ins.

Reads   each CARD.
Writes  nothing.
"""

_DATA_SET = """Read a folder of cards into the labels of a data set.

Reads   CARDS, a folder of cards, and all folders in it.
Writes  OUTPUT/labels.json      NAME -> values, each from 0 to 1; written last
        OUTPUT/parameters.csv   the table of the values
        OUTPUT/cards.json       NAME -> card
        OUTPUT/left_out.txt     cards that were left out, with the reason
Cards that are the same character are counted once. A face that bones shape needs --bones.
"""


def main() -> None:
    parser = _parser("python -m games.cards", __doc__ or "")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_show(commands)
    _add_data_set(commands)
    options = parser.parse_args()
    options.run(options)


# --- show -----------------------------------------------------------------------------------------


def _add_show(commands: Any) -> None:
    show = _add_command(commands, "show", run=_show, text=_SHOW)
    show.add_argument("cards", type=Path, nargs="+", metavar="CARD", help="character cards")


def _show(options: argparse.Namespace) -> None:
    wrong = 0
    for path in options.cards:
        try:
            print("\n".join(map(printable, lines_of(path, Card.read(path)))))
        except CardError as error:
            print(printable(f"{path}: {error}"), file=sys.stderr)
            wrong += 1
    if wrong:
        raise UserError(f"{wrong} of {len(options.cards)} files are no card that can be read; the reasons stand above")


def lines_of(path: Path, card: Card) -> list[str]:
    """What a card holds, for people; of plug-ins' data that cannot be read the reason."""
    width, height = card.preview_size
    lines = [
        f"{path}: {card.game}, version {card.layout.version}, headId {card.head_id}",
        f"    picture {width}×{height}; blocks {', '.join(card.layout.blocks)}",
        "    sliders, 0 to 1 is the game's 0 to 100:",
    ]
    lines += [f"        {name:<28} {value:9.6f}" for name, value in card.sliders.items()]
    try:
        bones = [f"        {name:<28} {_describe(bone)}" for name, bone in card.bones.items()]
        lines += [f"    {len(bones)} bones of ABMX:", *bones] if bones else []
    except CardError as error:
        lines.append(f"    bones: cannot be read ({error})")
    try:
        lines.append(f"    plug-ins: {', '.join(card.plugins) or 'none'}")
    except CardError as error:
        lines.append(f"    plug-ins: cannot be read ({error})")
    return lines


def _describe(bone: Bone) -> str:
    parts = []
    for name, value, neutral in zip(Bone._fields, bone, Bone(), strict=True):
        if value != neutral:
            numbers = value if isinstance(value, tuple) else (value,)
            parts.append(f"{name} {' '.join(f'{number:g}' for number in numbers)}")
    return ", ".join(parts) or "unchanged"


# --- data-set -------------------------------------------------------------------------------------


def _add_data_set(commands: Any) -> None:
    data_set = _add_command(commands, "data-set", run=_data_set, text=_DATA_SET)
    data_set.add_argument("--cards", type=Path, required=True, help="folder of cards")
    data_set.add_argument("--output", type=Path, required=True, help="folder to write to")
    data_set.add_argument(
        "--game",
        choices=CREATORS,
        default=CREATORS[0],
        help="whose cards: ais is AI*Shoujo and Honey Select 2 (default)",
    )
    data_set.add_argument(
        "--heads", type=int, nargs="+", metavar="ID", help="values of headId (default: 0 1 2 for ais, any for koikatsu)"
    )
    data_set.add_argument("--bones", action="store_true", help="labels hold the bones of ABMX, too (ais)")


def _data_set(options: argparse.Namespace) -> None:
    game = creator(options.game)
    if options.bones and not game.bones:
        raise UserError(f"--bones is for --game ais; which bones shape a face of {game.title} is not known here")
    heads = tuple(options.heads) if options.heads else game.heads
    wanted = Wanted(game, heads, with_bones=options.bones)
    found = write_data_set(options.cards, options.output, wanted)
    tell_left_out(found)
    print(describe(found, options.output, wanted))


# --- parsers --------------------------------------------------------------------------------------


def _parser(program: str, text: str) -> argparse.ArgumentParser:
    keep_lines = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(prog=program, description=text, formatter_class=keep_lines)


def _add_command(commands: Any, name: str, *, run: Any, text: str) -> argparse.ArgumentParser:
    """Add a sub-command that calls `run` with the options; the first line of its text is listed in the main help."""
    keep_lines = argparse.RawDescriptionHelpFormatter
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=text.splitlines()[0].rstrip("."), description=text, formatter_class=keep_lines
    )
    command.set_defaults(run=run)
    return command


if __name__ == "__main__":
    run_script(main)
