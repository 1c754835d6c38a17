"""The embedded game, MakeHuman's head, from a shell.

    python -m games write --output data/creator --count 20000    a data set in the HS_FACE layout
    python -m games sheet --output sliders.png                   what every slider does
    python -m games random --count 64 --output faces.png         a grid of characters
    python -m games render PARAMS.json --output face.png         the face of a prediction

`python -m games COMMAND --help` says what a command reads and writes.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from games.game import DISTRIBUTIONS, EmbeddedGame, default_game
from games.sheets import contact_sheet, random_grid
from games.writer import DataSet, write_data_set
from utils.errors import UserError, run_script
from utils.pictures import write_picture
from utils.workers import default_workers

#: Smallest and largest side of a face in pictures for people, pixels.
_SIZES = (16, 1024)

#: Faces of such a picture at most.
_MOST = 10_000

_WRITE = """Write a data set of random characters.

Reads   nothing.
Writes  OUTPUT/images/NAME.png       renders, aligned
        OUTPUT/aug_images/NAME.png   their photo-like variants
        OUTPUT/labels.json           NAME -> parameters, each from 0 to 1; written last
        OUTPUT/parameters.csv        the table of the parameters
        OUTPUT/landmarks.csv         68 landmarks per face, in the pictures' pixels
        OUTPUT/creator.json          version of the game, seed, size
A run that was stopped goes on with the same command; --count may be raised.
"""

_SHEET = """Draw every slider at 0, 0.25, 0.5, 0.75 and 1.

Reads   nothing.
Writes  OUTPUT, one picture: a row of faces per slider, its name and what it does.
"""

_RANDOM = """Draw a grid of random characters.

Reads   nothing.
Writes  OUTPUT, one picture: the first COUNT characters of the data set of this seed.
"""

_RENDER = """Draw the face of a prediction.

Reads   PARAMS.json, as predict.py writes it, or {name: value from 0 to 1}; what it does not name is average.
Writes  OUTPUT, one picture (default: PARAMS.face.png beside PARAMS.json), and beside it the character for the game:
        PARAMS.face.mhm for MakeHuman and human.PARAMS.face.json for MPFB in Blender.
"""


def main() -> None:
    parser = _parser("python -m games", __doc__ or "")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_write(commands)
    _add_sheet(commands)
    _add_random(commands)
    _add_render(commands)
    options = parser.parse_args()
    _check(options)
    options.run(options)


def _check(options: argparse.Namespace) -> None:
    """Refuse numbers that nothing can be drawn with; `games.writer` checks its own."""
    if options.command == "write":
        return
    if not 1 <= getattr(options, "count", 1) <= _MOST:
        raise UserError(f"--count is {options.count}; expected 1 to {_MOST:,} faces")
    if getattr(options, "seed", 0) < 0:
        raise UserError(f"--seed is {options.seed}; expected 0 or more")
    smallest, largest = _SIZES
    if not smallest <= getattr(options, "size", smallest) <= largest:
        raise UserError(f"--size is {options.size}; expected {smallest} to {largest} pixels")


# --- write ----------------------------------------------------------------------------------------


def _add_write(commands: Any) -> None:
    write = _add_command(commands, "write", run=_write, text=_WRITE)
    write.add_argument("--output", type=Path, required=True, help="folder to write to")
    write.add_argument("--count", type=int, required=True, help="number of faces")
    write.add_argument("--seed", type=int, default=0, help="of the characters (default 0)")
    write.add_argument("--size", type=int, default=256, help="side of the pictures, pixels (default 256)")
    write.add_argument("--no-variants", action="store_true", help="leave out the photo-like variants")
    write.add_argument("--workers", type=int, default=default_workers(), help="processes (default: one per core)")
    _add_distribution(write)


def _write(options: argparse.Namespace) -> None:
    started = time.monotonic()
    wanted = DataSet(
        options.count,
        options.seed,
        size=options.size,
        with_variants=not options.no_variants,
        distribution=options.distribution,
    )
    write_data_set(options.output, wanted, workers=options.workers)
    print(f"{options.count} faces in {options.output}, {time.monotonic() - started:.1f} s")


# --- sheet, random, render ------------------------------------------------------------------------


def _add_sheet(commands: Any) -> None:
    sheet = _add_command(commands, "sheet", run=_sheet, text=_SHEET)
    _add_picture(sheet)


def _sheet(options: argparse.Namespace) -> None:
    write_picture(options.output, contact_sheet(default_game()))
    print(options.output)


def _add_random(commands: Any) -> None:
    random = _add_command(commands, "random", run=_random, text=_RANDOM)
    _add_picture(random)
    random.add_argument("--count", type=int, default=64, help="number of faces (default 64)")
    random.add_argument("--seed", type=int, default=0, help="of the characters (default 0)")
    random.add_argument("--size", type=int, default=128, help="side of each face, pixels (default 128)")
    random.add_argument("--variants", action="store_true", help="their photo-like variants instead of the renders")
    _add_distribution(random)


def _random(options: argparse.Namespace) -> None:
    picture = random_grid(
        default_game(),
        options.count,
        seed=options.seed,
        size=options.size,
        distribution=options.distribution,
        variants=options.variants,
    )
    write_picture(options.output, picture)
    print(options.output)


def _add_render(commands: Any) -> None:
    render = _add_command(commands, "render", run=_render, text=_RENDER)
    render.add_argument("parameters", type=Path, metavar="PARAMS.json", help="the parameters")
    render.add_argument("--output", type=Path, help="picture to write: .png or .jpg (default: beside PARAMS.json)")
    render.add_argument("--size", type=int, default=256, help="side of the picture, pixels (default 256)")


def _render(options: argparse.Namespace) -> None:
    game = default_game()
    parameters = read_character(options.parameters, game)
    output = options.output or options.parameters.with_suffix(".face.png")
    write_picture(output, game.picture(parameters, options.size))
    for path in [output, *game.character_file(parameters, output.with_suffix(""))]:
        print(path)


def read_character(path: Path, game: EmbeddedGame) -> np.ndarray:
    """The parameters (P,) in a JSON file of predict.py, or in one of {name: value}; those not named are average.

    Raises:
        UserError: no such file, not JSON, an unknown name, a value that is no number in [0, 1].
    """
    parameters = game.average()
    for name, value in _read_values(path).items():
        if name not in game.names:
            raise UserError(
                f"{path} names {name!r}, which is no slider of the creator; its sliders are {', '.join(game.names)}"
            )
        number = value.get("normalised") if isinstance(value, dict) else value
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 1:
            raise UserError(f"{path}: {name} is {number!r}; expected a number from 0 to 1")
        parameters[game.names.index(name)] = number
    return parameters


def _read_values(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None

    values = content.get("parameters", content) if isinstance(content, dict) else None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no parameters; expected what predict.py writes, or {{name: value}}")
    return values


# --- parsers --------------------------------------------------------------------------------------


def _parser(program: str, text: str) -> argparse.ArgumentParser:
    keep_lines = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(prog=program, description=text, formatter_class=keep_lines)


def _add_command(commands: Any, name: str, *, run: Any, text: str) -> argparse.ArgumentParser:
    """Add a sub-command that calls `run` with the options; the first line of its text is listed in the main help."""
    keep_lines = argparse.RawDescriptionHelpFormatter
    first_line = text.splitlines()[0].rstrip(".")
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=first_line, description=text, formatter_class=keep_lines
    )
    command.set_defaults(run=run)
    return command


def _add_picture(command: argparse.ArgumentParser) -> None:
    command.add_argument("--output", type=Path, required=True, help="picture to write: .png or .jpg")


def _add_distribution(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--distribution",
        choices=DISTRIBUTIONS,
        default="uniform",
        help="sliders spread as widely as people are (uniform, the default), or nearer to the average",
    )


if __name__ == "__main__":
    run_script(main)
