"""A photo in, facial parameters out.

    python predict.py photo.jpg --run runs/creator
    python predict.py me1.jpg me2.jpg me3.jpg --run runs/creator --average --output me
    python predict.py data/creator/images/face_000007.png --run runs/creator --aligned

Reads each PHOTO and the best networks of the run: the photo is aligned and encoded, and its parameters are read off its
latent. Writes STEM.json (for each parameter its value from 0 to 1, its value in the game, and its R² on test faces: how
far to trust it) and STEM.png (photo, aligned face, reconstruction and, where the run learned the embedded game, the
character). What cannot be read is listed in unreadable.txt beside them. From Python: see models/predictor.py.
STEM is the photo's name without its extension. A result replaces an earlier one of the same photo and nothing else:
where another photo's result or another file has the name, it is called STEM_2, STEM_3 and so on.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from games.parameters import mirrored_bones
from models.predictor import NoFace, Prediction, Predictor
from utils.errors import UserError, run_script
from utils.figures import side_by_side
from utils.files import is_refused_name, write_json
from utils.identity import refuse_to_overwrite
from utils.pictures import (
    UnreadablePicture,
    check_unreadable,
    printable,
    read_rgb,
    refuse_other_listing,
    write_picture,
)
from utils.results import Result, choose_stems, describe_photos, files_of, name_of
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
    options = parser.parse_args()
    if options.output.is_file():
        raise UserError(f"--output {options.output} is a file; expected a folder")
    check_photos(options.photos)
    options.photos = list(dict.fromkeys(options.photos))
    return options


def check_photos(photos: list[Path]) -> None:
    """Raise UserError for a photo that is a folder, or is not there."""
    for path in photos:
        name = printable(str(path))
        if path.is_dir():
            raise UserError(f"{name} is a folder; expected photos. Name the pictures in it: {name}/*.jpg")
        if not path.exists():
            raise UserError(f"there is no file {name}; expected a photo. Check how it is spelt")


def plan_results(options: argparse.Namespace) -> list[Path]:
    """Where the results go, without extensions: of each photo, or one of all with --average.

    Raises:
        UserError: a result would be written over a photo.
    """
    if options.average:
        results = [Result("average", options.photos)]
    else:
        results = [Result(name_of(path), [path]) for path in options.photos]
    listing = options.output / "unreadable.txt"
    plain = [file for result in results for file in files_of(options.output / result.name)]
    refuse_to_overwrite(options.photos, [*plain, listing])
    refuse_other_listing(listing)

    stems = choose_stems(options.output, results)
    refuse_to_overwrite(options.photos, [file for stem in stems for file in files_of(stem)])
    for result, stem in zip(results, stems, strict=True):
        if stem.name != result.name:
            print(
                f"{printable(str(options.output / result.name))} is taken by another photo or another program; the "
                f"results of {printable(str(result.photos[0]))} are called {printable(stem.name)}",
                file=sys.stderr,
            )
    return stems


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
        **describe_photos(photos),
        "run": run.folder.as_posix(),
        "checkpoints": {"vae": run.vae.best.as_posix(), "f2p": run.f2p.best.as_posix()},
        "creator": predictor.creator_version,
        "parameters": named,
    }
    mirrored = mirrored_bones(predictor.parameters, parameters)
    return result | ({"mirrored": mirrored} if mirrored else {})


def write_result(stem: Path, predictor: Predictor, seen: Seen, parameters: np.ndarray, photos: list[Path]) -> None:
    """Write STEM.json, STEM.png (photo, aligned face, reconstruction and character) and the game's own files."""
    prediction = seen.prediction
    row = [("aligned", prediction.aligned), ("reconstruction", prediction.reconstruction)]
    if seen.photo is not None:
        row.insert(0, ("photo", seen.photo))
    character = predictor.character(parameters)
    if character is not None:
        row.append(("predicted character", character))

    json_file, picture_file = (stem.with_name(stem.name + suffix) for suffix in (".json", ".png"))
    write_json(json_file, as_json(predictor, parameters, photos))
    write_picture(picture_file, side_by_side([row]))
    written = [json_file, picture_file]
    if predictor.game is not None:
        written += predictor.game.character_file(parameters, stem)
    print("\n".join(printable(str(path)) for path in written))


def write_results(predictor: Predictor, seen: list[Seen], options: argparse.Namespace, stems: list[Path]) -> list[str]:
    """Write what was predicted; the photos whose results the output folder cannot hold."""
    if options.average:
        nearest, mean = average(seen)
        write_result(stems[0], predictor, nearest, mean, [one.path for one in seen])
        return []
    without, stem_of = [], dict(zip(options.photos, stems, strict=True))
    for one in seen:
        try:
            write_result(stem_of[one.path], predictor, one, one.prediction.parameters, [one.path])
        except OSError as error:
            if not is_refused_name(error):
                raise
            name = printable(str(one.path))
            without.append(name)
            print(f"no result of {name}: the output folder cannot hold its name ({error.strerror})", file=sys.stderr)
    return without


def main() -> None:
    # Parse, plan, load.
    options = parse_options()
    stems = plan_results(options)
    torch.set_num_threads(default_workers())
    predictor = Predictor.load(options.run)

    # Predict.
    seen, unreadable, without = predict_photos(predictor, options)

    # Write.
    if seen:
        without += write_results(predictor, seen, options, stems)

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
