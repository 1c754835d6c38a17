"""A photo in, facial parameters out.

    python predict.py photo.jpg --run runs/creator
    python predict.py me1.jpg me2.jpg me3.jpg --run runs/creator --average --output me
    python predict.py photo.jpg --run runs/mygame --card mine.png
    python predict.py data/creator/images/face_000007.png --run runs/creator --aligned

Reads each PHOTO and the best networks of the run: the photo is aligned and encoded, and its parameters are read off its
latent. Writes STEM.json (for each parameter its value from 0 to 1, its value in the game, and its R² on test faces: how
far to trust it) and STEM.png (photo, aligned face, reconstruction and, where the run learned the embedded game, the
character). With --card it writes STEM_card.png, a character card of the game (docs/cards.md). What cannot be read is
listed in unreadable.txt beside them. From Python: see models/predictor.py.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from games.cards.data_set import heads_of
from games.cards.template import Template, add_options
from games.parameters import mirrored_bones
from models.predictor import NoFace, Prediction, Predictor
from utils.errors import UserError, run_script
from utils.figures import side_by_side
from utils.files import write_json
from utils.pictures import UnreadablePicture, check_unreadable, printable, read_rgb, unique_stems, write_picture
from utils.workers import default_workers


class Seen(NamedTuple):
    """A photo and what was predicted from it."""

    path: Path
    photo: np.ndarray | None  #: (H, W, 3) uint8; None where it came aligned
    prediction: Prediction


def parse_options() -> argparse.Namespace:
    """Read the command line. Raises UserError for what cannot be, before anything is loaded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTO")
    parser.add_argument("--run", type=Path, default=Path("runs/creator"), help="trained run (default runs/creator)")
    parser.add_argument(
        "--output", type=Path, default=Path("predictions"), help="folder for the results (default predictions)"
    )
    parser.add_argument("--aligned", action="store_true", help="the pictures are aligned already")
    parser.add_argument(
        "--faces",
        choices=("one", "largest"),
        default="one",
        help="one: refuse photos with several faces (default); largest: take the largest of several",
    )
    parser.add_argument("--average", action="store_true", help="the photos show one person: average their parameters")
    add_options(parser)
    options = parser.parse_args()
    if options.output.is_file():
        raise UserError(f"--output {options.output} is a file; expected a folder")
    return options


def predict_photo(path: Path, predictor: Predictor, options: argparse.Namespace) -> Seen:
    """Read a photo and predict its parameters.

    Raises:
        UnreadablePicture: the file is no whole picture.
        NoFace: no face in it, several, or not the square one that --aligned promises.
    """
    picture = read_rgb(path)
    if not options.aligned:
        return Seen(path, picture, predictor.predict(picture, options.faces))
    height, width = picture.shape[:2]
    if height != width:
        raise NoFace(
            f"it is {width}×{height} pixels; --aligned expects square aligned faces. "
            "Leave --aligned out to have it aligned"
        )
    return Seen(path, None, predictor.predict_aligned([picture])[0])


def predict_photos(predictor: Predictor, options: argparse.Namespace) -> tuple[list[Seen], dict[str, str], list[str]]:
    """Predict all photos and say what is found of each.

    Returns:
        What was predicted; why pictures could not be read; photos that gave no prediction for another reason.
    """
    seen: list[Seen] = []
    unreadable: dict[str, str] = {}
    without: list[str] = []
    for path in options.photos:
        name = printable(str(path))
        started = time.perf_counter()
        try:
            found = predict_photo(path, predictor, options)
        except UnreadablePicture as error:
            unreadable[str(path)] = str(error)
            print(f"no prediction of {name}: {error}", file=sys.stderr)
            continue
        except NoFace as error:
            without.append(name)
            print(f"no prediction of {name}: {error}", file=sys.stderr)
            continue

        seen.append(found)
        print(f"{name}: {time.perf_counter() - started:.3f} s")
        if predictor.is_out_of_distribution(found.prediction):
            print(
                f"warning: {name} is unlike the faces that stage 2 learned from (distance "
                f"{found.prediction.distance:.2f}; 99 % of its validation faces lie below "
                f"{predictor.ood_threshold:.2f}); take the result for a guess",
                file=sys.stderr,
            )
    return seen, unreadable, without


def average(seen: list[Seen]) -> tuple[Seen, np.ndarray]:
    """The mean parameters (P,) of several photos of one person, and the photo that is nearest to them."""
    mean = np.mean([one.prediction.parameters for one in seen], axis=0)
    nearest = min(seen, key=lambda one: float(np.abs(one.prediction.parameters - mean).sum()))
    return nearest._replace(photo=None), mean


def as_json(predictor: Predictor, parameters: np.ndarray, photos: list[Path]) -> dict[str, Any]:
    """What is written to STEM.json for parameters (P,)."""
    named = {}
    for parameter, value in zip(predictor.parameters, parameters.tolist(), strict=True):
        named[parameter.name] = {
            "normalised": round(value, 6),
            "value": round(parameter.in_game(value), 6),
            "test_r2": predictor.test_r2.get(parameter.name),
        }
    run = predictor.run
    result = {
        "photos": [str(path) for path in photos],
        "run": run.folder.as_posix(),
        "checkpoints": {"vae": run.vae.best.as_posix(), "f2p": run.f2p.best.as_posix()},
        "creator": predictor.creator_version,
        "parameters": named,
    }
    mirrored = mirrored_bones(predictor.parameters, parameters)
    return result | ({"mirrored": mirrored} if mirrored else {})


def write_result(
    stem: Path,
    predictor: Predictor,
    seen: Seen,
    parameters: np.ndarray,
    photos: list[Path],
    template: Template | None = None,
) -> None:
    """Write STEM.json, STEM.png (photo, aligned face, reconstruction and character), the game's own files, a card."""
    prediction = seen.prediction
    row = [("aligned", prediction.aligned), ("reconstruction", prediction.reconstruction)]
    if seen.photo is not None:
        row.insert(0, ("photo", seen.photo))
    character = predictor.character(parameters)
    if character is not None:
        row.append(("predicted character", character))

    json_file, picture_file = (stem.with_name(stem.name + suffix) for suffix in (".json", ".png"))
    result, written = as_json(predictor, parameters, photos), [json_file, picture_file]
    if template is not None:
        pictures = {"character": character, "photo": prediction.aligned}
        card, result["card"] = template.write(stem, result, pictures=pictures)
        written.append(card)
    write_json(json_file, result)
    write_picture(picture_file, side_by_side([row]))
    if predictor.game is not None:
        written += predictor.game.character_file(parameters, stem)
    print("\n".join(printable(str(path)) for path in written))


def result_stems(photos: list[Path]) -> list[str]:
    """A name for each photo's results; numbered where two photos would share one."""
    stems = unique_stems([path.name for path in photos])
    if len({stem.casefold() for stem in stems}) < len(stems):
        return [f"{i + 1}_{stem}" for i, stem in enumerate(stems)]
    return stems


def main() -> None:
    # Parse, load.
    options = parse_options()
    stem_of = dict(zip(options.photos, result_stems(options.photos), strict=True))
    template = Template.of(options, ["average"] if options.average else list(stem_of.values()))
    torch.set_num_threads(default_workers())
    predictor = Predictor.load(options.run)
    if template is not None:
        template.fit(predictor.parameters, heads=heads_of(Path(predictor.config.data.root)), game=predictor.game)

    # Predict.
    seen, unreadable, without = predict_photos(predictor, options)

    # Write.
    if options.average and seen:
        nearest, mean = average(seen)
        write_result(options.output / "average", predictor, nearest, mean, [one.path for one in seen], template)
    elif not options.average:
        for one in seen:
            stem = options.output / stem_of[one.path]
            write_result(stem, predictor, one, one.prediction.parameters, [one.path], template)

    # Report.
    check_unreadable(
        unreadable,
        total=len(options.photos),
        most=predictor.config.data.max_unreadable,
        setting="data.max_unreadable of the run",
        listing=options.output / "unreadable.txt",
    )
    if not seen:
        raise UserError("no photo gave a prediction; the reasons stand above")
    if without:
        print(
            f"{len(without)} of {len(options.photos)} photos gave no prediction: {', '.join(without)}", file=sys.stderr
        )


if __name__ == "__main__":
    run_script(main)
