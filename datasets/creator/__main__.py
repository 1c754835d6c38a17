"""The embedded character creator from a shell.

    python -m datasets.creator write --output data/creator --count 20000   a data set in the HS_FACE layout
    python -m datasets.creator sheet --output sliders.png                  what every slider does
    python -m datasets.creator random --count 64 --output faces.png        a grid of characters
    python -m datasets.creator render PARAMS.json --output face.png        the face of a prediction
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from datasets.creator import looks, sheets, sliders
from datasets.creator.render import Renderer
from datasets.creator.writer import write_data_set
from utils.errors import UserError, run_script
from utils.pictures import write_picture
from utils.workers import default_workers


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m datasets.creator", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)

    write = commands.add_parser("write", help="write a data set in the HS_FACE layout")
    write.add_argument("--output", type=Path, required=True, help="folder to write to; a run that was stopped goes on")
    write.add_argument("--count", type=int, required=True, help="number of faces")
    write.add_argument("--seed", type=int, default=0)
    write.add_argument("--size", type=int, default=256, help="side of the pictures, pixels (default 256)")
    write.add_argument("--no-aug", action="store_true", help="leave out the photo-like variants")
    write.add_argument("--distribution", choices=("uniform", "typical"), default="uniform",
                       help="sliders drawn uniformly (default) or around a typical face")
    write.add_argument("--workers", type=int, default=default_workers(), help="processes (default: one a core)")

    sheet = commands.add_parser("sheet", help="draw every slider at 0, 0.25, 0.5, 0.75, 1")
    sheet.add_argument("--output", type=Path, required=True, help="picture to write: .png or .jpg")

    grid = commands.add_parser("random", help="draw a grid of random characters")
    grid.add_argument("--output", type=Path, required=True, help="picture to write: .png or .jpg")
    grid.add_argument("--count", type=int, default=64)
    grid.add_argument("--seed", type=int, default=0)
    grid.add_argument("--size", type=int, default=128, help="side of each face, pixels (default 128)")
    grid.add_argument("--distribution", choices=("uniform", "typical"), default="uniform")
    grid.add_argument("--photo-like", action="store_true", help="their photo-like variants instead of the renders")

    render = commands.add_parser("render", help="draw the face of a prediction")
    render.add_argument("parameters", type=Path, metavar="PARAMS.json",
                        help="what predict.py wrote, or {name: value between 0 and 1}; a slider not named is 0.5")
    render.add_argument("--output", type=Path, help="picture to write (default: beside PARAMS.json)")
    render.add_argument("--size", type=int, default=256)

    options = parser.parse_args()
    if options.command == "write":
        started = time.monotonic()
        write_data_set(options.output, options.count, options.seed, options.size, not options.no_aug,
                       options.workers, options.distribution)
        print(f"{options.count} faces in {options.output}, {time.monotonic() - started:.1f} s")
        return
    if options.command == "sheet":
        picture, output = sheets.contact_sheet(), options.output
    elif options.command == "random":
        if options.count < 1:
            raise UserError(f"--count is {options.count}; at least 1 face can be drawn")
        picture = sheets.random_grid(options.count, options.seed, options.size, options.distribution, options.photo_like)
        output = options.output
    else:
        parameters = read_parameters(options.parameters)
        picture = Renderer(options.size).render(parameters[None], [(looks.neutral(),)])[0][0, 0]
        output = options.output or options.parameters.with_suffix(".face.png")
    write_picture(output, picture)
    print(output)


def read_parameters(path: Path) -> np.ndarray:
    """The sliders (54,) in a JSON file of predict.py, or in one of {name: value}.

    Raises:
        UserError: no such file, not JSON, an unknown name, a value that is no number in [0, 1].
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    values = content.get("parameters", content) if isinstance(content, dict) else None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no parameters; expected what predict.py writes, or {{name: value}}")
    parameters = np.full(len(sliders.NAMES), 0.5)
    for name, value in values.items():
        if name not in sliders.NAMES:
            raise UserError(f"{path} names {name!r}, which is no slider of the creator; its sliders are {', '.join(sliders.NAMES)}")
        number = value.get("normalised") if isinstance(value, dict) else value
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number <= 1:
            raise UserError(f"{path}: {name} is {number!r}; expected a number from 0 to 1")
        parameters[sliders.NAMES.index(name)] = number
    return parameters


if __name__ == "__main__":
    run_script(main)
