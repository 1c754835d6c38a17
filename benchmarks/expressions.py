"""What an expression does to a prediction: the same person, or the same character, neutral and with another face.

    python -m benchmarks.expressions --photos DIR --run RUN… [--fold K] [--json FILE]

Reads DIR/images and DIR/landmarks.csv (name, person), where a person has NAME_neutral and NAME_smiling. Runs are given
in the order of the folds of people that they did not learn from, as for benchmarks.photos. All points are found by one
observer (models/facemesh.py). Of twelve facial ratios, the median ρ over people:
    photos       between a person's neutral and smiling photo
    characters   between the characters read from both
    smiling      between the character read from the smiling photo, and the neutral photo
    neutral      between the character read from the neutral photo, and that photo

Then characters of the embedded game, none of a data set, in studio light: the neutral face against the same face with
an expression. A slider's change is the mean distance of both predictions, in standard deviations of the slider over
characters; the mean over sliders is printed.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.photos import FEWEST, Mesh, Reader, add_runs, check_runs, load_predictors, reader_of, spearman
from datasets.people import Frame, fold_of, ratios, read_frames
from games.game import EmbeddedGame
from models.predictor import Predictor
from utils.errors import UserError, run_script
from utils.files import write_json
from utils.pictures import UnreadablePicture, read_rgb
from utils.progress import progress

#: Seed of characters that no data set is made of, and how many are read.
_SEED, _CHARACTERS = 987_654, 200


class Pair(NamedTuple):
    """The two photos of a person."""

    neutral: Frame
    smiling: Frame


def find_pairs(frames: Sequence[Frame], folds: Sequence[int]) -> list[Pair]:
    """The people of some folds who have both photos.

    Raises:
        UserError: fewer than five people have both.
    """
    of_name = {frame.path.stem: frame for frame in frames if fold_of(frame.person) in folds}
    pairs = []
    for name, frame in of_name.items():
        twin = of_name.get(name.removesuffix("_neutral") + "_smiling")
        if name.endswith("_neutral") and twin is not None:
            pairs.append(Pair(frame, twin))
    if len(pairs) < FEWEST:
        raise UserError(
            f"{len(pairs)} of the people have a photo NAME_neutral and a photo NAME_smiling; at least {FEWEST} are "
            "needed"
        )
    return pairs


def measure_people(pairs: Sequence[Pair], readers: dict[int, Reader], game: EmbeddedGame) -> dict[str, Any]:
    """Median ρ over the ratios, of pairs in whose four pictures a face is found.

    Raises:
        UserError: fewer than five people have a face in both photos.
    """
    # Read both photos of everybody.
    faces, parameters = [], []
    for pair in progress(iterable=pairs, desc="predicting", unit="person"):
        try:
            readings = [readers[fold_of(frame.person)](read_rgb(frame.path)) for frame in pair]
        except UnreadablePicture:
            continue
        both = [reading for reading in readings if reading is not None]
        if len(both) == len(pair):
            faces.append([reading.face for reading in both])
            parameters.append([reading.parameters for reading in both])
    if len(faces) < FEWEST:
        raise UserError(f"a face is found in both photos of {len(faces)} people; at least {FEWEST} are needed")

    # Measure photos and characters by one observer.
    mesh, values = Mesh(), {}
    for i, expression in enumerate(Pair._fields):
        photos = mesh.people([], [pair[i] for pair in faces])
        characters = mesh.characters(game, np.array([pair[i] for pair in parameters]))
        values["photo", expression] = np.array(list(ratios(photos).values()))
        values["character", expression] = np.array(list(ratios(characters).values()))
    seen = np.all([np.isfinite(of_all).all(0) for of_all in values.values()], axis=0)

    def median(a: tuple[str, str], b: tuple[str, str]) -> float:
        return float(np.median(spearman(values[a][:, seen], values[b][:, seen])))

    return {
        "people": int(seen.sum()),
        "photos": median(("photo", "neutral"), ("photo", "smiling")),
        "characters": median(("character", "neutral"), ("character", "smiling")),
        "smiling": median(("character", "smiling"), ("photo", "neutral")),
        "neutral": median(("character", "neutral"), ("photo", "neutral")),
    }


def measure_characters(predictor: Predictor, game: EmbeddedGame, count: int = _CHARACTERS) -> dict[str, Any]:
    """How far an expression moves the sliders read from one character's pictures, in deviations over characters."""
    found = []
    for index in progress(iterable=range(count), desc="reading characters", unit="character"):
        character = game.character(_SEED, index)
        expressive = replace(character.studio, expression=character.photo.expression, gaze=character.photo.gaze)
        pictures, _ = game.renderer(256).render(character.parameters[None], [(character.studio, expressive)])
        found.append([prediction.parameters for prediction in predictor.predict_aligned(list(pictures[0]))])
    neutral, expressive = np.array(found).transpose(1, 0, 2)
    changes = np.abs(neutral - expressive).mean(0) / np.maximum(neutral.std(0), 1e-6)
    by_name = dict(zip(game.names, changes.tolist(), strict=True))
    return {"count": count, "mean_change": float(changes.mean()), "changes": by_name}


def parse_options() -> argparse.Namespace:
    """Read the command line. Raises UserError where there are more runs than folds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder with images/ and landmarks.csv")
    add_runs(parser)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    check_runs(options)
    return options


def main() -> None:
    options = parse_options()
    predictors, game = load_predictors(options.run)
    readers = {fold: reader_of(predictor) for fold, predictor in enumerate(predictors, options.fold)}
    pairs = find_pairs(read_frames(options.photos), list(readers))

    people = measure_people(pairs, readers, game)
    print(f"{people['people']} people, median ρ over twelve ratios")
    for key in ("photos", "characters", "smiling", "neutral"):
        print(f"  {key:12s} {people[key]:.2f}")
    characters = measure_characters(predictors[0], game)
    print(f"an expression moves a slider by {characters['mean_change']:.2f} deviations over characters, in the mean")
    if options.json:
        write_json(options.json, {"people": people, "characters": characters})


if __name__ == "__main__":
    run_script(main)
