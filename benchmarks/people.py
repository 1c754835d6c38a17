"""People beside their predicted characters, for looking at: each read by a run that did not learn from that person.

    python -m benchmarks.people --photos DIR --run RUN… --picture FILE [--fold K] [--count N] [--columns N]

Reads DIR/images and DIR/landmarks.csv (name, person), as benchmarks.photos does, and RUNs by fold. Draws a person's
first photo in which a face is found, aligned, and below it the character that the run predicts of it, in the person's
colours. People come in the order of their names. `benchmarks.photos` gives the figures; look at people before you
believe them.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from benchmarks.photos import add_runs, check_runs, load_predictors
from datasets.people import Frame, fold_of, read_frames
from models.predictor import NoFace, Predictor
from utils.errors import UserError, run_script
from utils.pictures import UnreadablePicture, grid, read_rgb, write_picture
from utils.progress import progress

#: Side of a face in the picture, pixels.
_SIDE = 128


def parse_options() -> argparse.Namespace:
    """Read the command line. Raises UserError where a number makes no sense."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder with images/ and landmarks.csv")
    add_runs(parser)
    parser.add_argument("--picture", type=Path, required=True, help="picture to write: .png or .jpg")
    parser.add_argument("--count", type=int, help="the first people by name (default: all)")
    parser.add_argument("--columns", type=int, default=10, help="people in a row (default 10)")
    options = parser.parse_args()
    check_runs(options)
    for name in ("count", "columns"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} is {value}; expected 1 or more")
    return options


def photos_of(frames: list[Frame]) -> dict[str, list[Path]]:
    """Person → photos, people in the order of their names."""
    found: dict[str, list[Path]] = {}
    for frame in sorted(frames, key=lambda frame: (frame.person, frame.path.name)):
        found.setdefault(frame.person, []).append(frame.path)
    return found


def pair_of(photos: list[Path], predictor: Predictor) -> np.ndarray | None:
    """The first photo with a face above its character, (2·S, S, 3) uint8; None where there is none."""
    for path in photos:
        try:
            found = predictor.predict(read_rgb(path), "largest")
        except (UnreadablePicture, NoFace):
            continue
        character = predictor.character(found.parameters, found.look)
        if character is not None:
            faces = (found.aligned, character)
            return np.concatenate([cv2.resize(face, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for face in faces])
    return None


def main() -> None:
    # Parse, load.
    options = parse_options()
    people = photos_of(read_frames(options.photos))
    predictors = dict(enumerate(load_predictors(options.run)[0], options.fold))
    held_out = [person for person in people if fold_of(person) in predictors][: options.count]

    # Draw.
    pairs = []
    for person in progress(iterable=held_out, desc="predicting", unit="person"):
        pair = pair_of(people[person], predictors[fold_of(person)])
        if pair is not None:
            pairs.append(pair)
    if not pairs:
        raise UserError(f"no face is found in the photos of the {len(held_out)} people in {options.photos}")
    write_picture(options.picture, grid(np.stack(pairs), min(options.columns, len(pairs))))
    print(f"{len(pairs)} people, each above the predicted character: {options.picture}")


if __name__ == "__main__":
    run_script(main)
