"""A photo in, facial parameters out.

    python predict.py assets/photos/portrait.jpg
    python predict.py me1.jpg me2.jpg me3.jpg --average --output me
    python predict.py friends.jpg --faces all --table
    python predict.py photo.jpg --run runs/mygame --card mine.png
    python predict.py data/creator/images/face_000007.png --run runs/creator --aligned

Reads each PHOTO and the best networks of the run, or of the pretrained run where none is named: the photo is aligned
and encoded, and its parameters are read off its latent. Writes STEM.json (for each parameter its value from 0 to 1, its
value in the game, and its R² on test renders) and STEM.png (photo, aligned face, reconstruction, character, and all
sliders as bars). R² is left out where it says nothing of the face: it is unlike those of training,
or it is a photo and the run learned from none. Where the run learned an embedded game, STEM_character.png is the
character alone, in the person's colours and hair, which are no parameters; MakeHuman and MPFB open STEM.mhm and
human.STEM.json. With --card, STEM_card.png is a character card of the game (docs/cards.md). What cannot be read is
listed in unreadable.txt beside them. From Python: see models/predictor.py.
STEM is the photo's name without its extension. A result replaces an earlier one of the same photo and nothing else:
where another photo's result or another file has the name, it is called STEM_2, STEM_3 and so on.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from games.cards.data_set import heads_of
from games.cards.template import Template, add_options
from games.game import Appearance
from games.result_files import Result, ResultFiles
from games.result_sheet import thumbnail
from models.predictor import RUN_HELP, NoFace, Prediction, Predictor
from utils.consensus import Consensus, consensus
from utils.errors import UserError, run_script
from utils.files import is_refused_name
from utils.identity import refuse_to_overwrite
from utils.pictures import UnreadablePicture, check_unreadable, printable, read_rgb, refuse_other_listing
from utils.results import Plan, choose_stems, files_of, name_of
from utils.workers import default_workers

#: With --faces all: for so many faces per photo the names of files are checked before anything is computed.
_MOST_FACES = 50


class Seen(NamedTuple):
    """A face in a photo and what was predicted from it."""

    path: Path
    photo: np.ndarray | None  #: (h, w, 3) uint8, small, with a frame about the face; None where it came aligned
    prediction: Prediction
    number: int = 0  #: of the face in its photo, from the left, with --faces all; 0: it is the only one that counts

    @property
    def name(self) -> str:
        """What the face is called on the screen."""
        name = printable(str(self.path))
        return f"{name}, face {self.number}" if self.number else name


class Trust(NamedTuple):
    """Whether the run's figures hold for a face, and what its results say of that."""

    note: str  #: a sentence for people; "" where there is nothing to warn of
    is_measured: bool  #: whether R² on test faces says how far to trust a slider of this face


class Found(NamedTuple):
    """What is written of a face, and how far it is to be trusted."""

    result: Result
    trust: Trust


def parse_options() -> argparse.Namespace:
    """Read the command line. Raises UserError for what cannot be, before anything is loaded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTO")
    parser.add_argument("--run", type=Path, help=RUN_HELP)
    parser.add_argument(
        "--output", type=Path, default=Path("predictions"), help="folder for the results (default predictions)"
    )
    parser.add_argument("--aligned", action="store_true", help="the pictures are aligned already")
    parser.add_argument(
        "--faces",
        choices=("one", "largest", "all"),
        default="one",
        help="one: refuse photos with several faces (default); largest: take the largest of several; "
        "all: a result per face, from left to right, called STEM_1, STEM_2 and so on",
    )
    parser.add_argument(
        "--average",
        action="store_true",
        help="the photos show one person: one result of them all, called average; photos that are unlike the others "
        "are named and left out",
    )
    parser.add_argument(
        "--no-macros",
        action="store_true",
        help="keep the embedded game's macros (Gender, Age, the origins) as the average character has them",
    )
    parser.add_argument(
        "--table", action="store_true", help="print the sliders, too: a table to type into the game by hand"
    )
    add_options(parser)
    options = parser.parse_args()
    if options.output.is_file():
        raise UserError(f"--output {options.output} is a file; expected a folder")
    if options.faces == "all" and (options.average or options.aligned):
        other = "--average takes photos of one person" if options.average else "with --aligned each picture is one face"
        raise UserError(f"--faces all finds several people in a photo, and {other}. Leave one of the two out")
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
    """Where the results go, without extensions: of each photo (with --faces all, of each possible face), or of all.

    Raises:
        UserError: a result would be written over a photo.
    """
    if options.average:
        plans = [Plan("average", options.photos)]
    elif options.faces == "all":
        plans = [plan_of_face(path, number) for path in options.photos for number in range(1, _MOST_FACES + 1)]
    else:
        plans = [Plan(name_of(path), [path]) for path in options.photos]
    listing = options.output / "unreadable.txt"
    plain = [file for plan in plans for file in files_of(options.output / plan.name)]
    refuse_to_overwrite(options.photos, [*plain, listing])
    refuse_other_listing(listing)

    stems = choose_stems(options.output, plans)
    refuse_to_overwrite(options.photos, [file for stem in stems for file in files_of(stem)])
    if options.faces != "all":
        say_new_names(plans, stems)
    return stems


def say_new_names(plans: list[Plan], stems: list[Path]) -> None:
    """Say which results have another name than their photos, and why."""
    for plan, stem in zip(plans, stems, strict=True):
        if stem.name != plan.name:
            print(
                f"{printable(str(stem.with_name(plan.name)))} is taken by another photo or another program; the "
                f"results of {printable(str(plan.photos[0]))} are called {printable(stem.name)}",
                file=sys.stderr,
            )


def plan_of_face(path: Path, number: int) -> Plan:
    """The result of one of several faces of a photo, counted from 1."""
    return Plan(f"{name_of(path)}_{number}", [path])


def predict_photo(path: Path, predictor: Predictor, options: argparse.Namespace) -> list[Seen]:
    """Read a photo and predict the parameters of its face, or with --faces all of each face.

    Raises:
        UnreadablePicture: the file is no whole picture.
        NoFace: no face in it, several, or not the square one that --aligned promises.
    """
    picture = read_rgb(path)
    if options.aligned:
        height, width = picture.shape[:2]
        if height != width:
            raise NoFace(
                f"it is {width}×{height} pixels; --aligned expects square aligned faces. "
                "Leave --aligned out to have it aligned"
            )
        return [Seen(path, None, predictor.predict_aligned([picture])[0])]

    if options.faces == "all":
        found = list(enumerate(predictor.predict_all(picture), start=1))
    else:
        found = [(0, predictor.predict(picture, options.faces))]
    return [Seen(path, thumbnail(picture, one.alignment), one, number) for number, one in found]


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

        seen += found
        faces = f"{len(found)} faces, " if len(found) > 1 else ""
        print(f"{name}: {faces}{time.perf_counter() - started:.3f} s")
        for one in found:
            warn_of(one, predictor)
    return seen, unreadable, without


def neutral_macros(predictor: Predictor) -> dict[int, float]:
    """Index of each macro → its value for the average character.

    Raises:
        UserError: the run's game has no macros, or is not embedded.
    """
    game = predictor.game
    macros = [i for i, parameter in enumerate(predictor.parameters) if parameter.kind == "macro"]
    if not macros or game is None:
        raise UserError(
            f"--no-macros keeps the macros of the embedded game neutral; {predictor.run.folder} learned a game without "
            "them. Leave it out"
        )
    average = game.average()
    return {i: float(average[i]) for i in macros}


def with_values(one: Seen, values: dict[int, float]) -> Seen:
    """The same face, with other values of some parameters, by their index."""
    parameters = one.prediction.parameters.copy()
    parameters[list(values)] = list(values.values())
    return one._replace(prediction=one.prediction._replace(parameters=parameters))


def trust_of(one: Seen, predictor: Predictor) -> Trust:
    """How far the sliders of a face can be trusted: R² was measured on renders."""
    if predictor.is_out_of_distribution(one.prediction):
        return Trust("No slider can be trusted here: this face is unlike those of training.", False)
    if predictor.learned_photos:
        return Trust("", True)
    if one.photo is not None:
        return Trust("No slider can be trusted here: this is a photo, and the run learned from no photos.", False)
    return Trust("R² holds for renders. In a photo no slider can be trusted: the run learned from no photos.", True)


def warn_of(one: Seen, predictor: Predictor) -> None:
    """Say on standard error where no slider of a face can be trusted."""
    if predictor.is_out_of_distribution(one.prediction):
        print(
            f"warning: {one.name} is unlike the faces that stage 2 learned from (distance "
            f"{one.prediction.distance:.2f}; 99 % of its validation faces lie below "
            f"{predictor.ood_threshold:.2f}); no slider can be trusted, take the result for a guess",
            file=sys.stderr,
        )
        return
    trust = trust_of(one, predictor)
    if not trust.is_measured:
        print(f"warning: {one.name}: {trust.note}", file=sys.stderr)


def average(seen: list[Seen]) -> tuple[Seen, Consensus]:
    """What several photos of one person agree on, and the photo that is nearest to it; outliers are said."""
    found = consensus(np.stack([one.prediction.parameters for one in seen]))
    for i in found.outliers:
        print(
            f"warning: {seen[i].name} is unlike the other photos and is left out (its distance from their average is "
            f"{found.distances[i]:.3f}; half of them lie within {found.typical_distance:.3f}). "
            "Does it show the same person?",
            file=sys.stderr,
        )
    return seen[found.nearest], found


def result_of(one: Seen, predictor: Predictor) -> Found:
    """What is written of one face."""
    pictures = [("aligned face", one.prediction.aligned), ("reconstruction", one.prediction.reconstruction)]
    if one.photo is not None:
        pictures.insert(0, ("photo", one.photo))
    trust = trust_of(one, predictor)
    remarks: dict[str, object] = {"warning": trust.note or None}
    if one.number:
        remarks["face"] = one.number
    prediction = one.prediction
    result = Result(
        prediction.parameters,
        [one.path],
        pictures,
        aligned=prediction.aligned,
        note=trust.note,
        remarks=remarks,
        look=prediction.look,
    )
    return Found(result, trust)


def average_result(seen: list[Seen], predictor: Predictor) -> Found:
    """What is written of several photos of one person; the sheet shows the photo that is nearest to their average."""
    nearest, found = average(seen)
    result, trust = result_of(nearest, predictor)
    left_out = {os.path.abspath(seen[i].path): round(float(found.distances[i]), 6) for i in found.outliers}
    photos = [one.path for one in seen if os.path.abspath(one.path) not in left_out]
    note = result.note
    if left_out:
        note = " ".join([note, "Unlike the others and left out:", ", ".join(map(printable, left_out))]).strip()
    pictures = [(f"nearest of {len(photos)} photos", result.pictures[0][1]), *result.pictures[1:]]
    result = result._replace(
        parameters=found.parameters,
        photos=photos,
        pictures=pictures,
        note=note,
        spread=found.spread,
        remarks={**(result.remarks or {}), "left_out": left_out},
        look=median_look([one.prediction for i, one in enumerate(seen) if i not in found.outliers]),
    )
    return Found(result, trust)


def median_look(predictions: list[Prediction]) -> Appearance | None:
    """The median of each number of several looks; None where the run reads no looks."""
    looks = [one.look for one in predictions if one.look is not None]
    if not looks:
        return None
    return Appearance(*(np.median(np.stack(part), axis=0) for part in zip(*looks, strict=True)))


def results_of(
    seen: list[Seen], predictor: Predictor, options: argparse.Namespace, stems: list[Path]
) -> dict[Path, Found]:
    """What is to be written, by the path of the files without what they end in."""
    if options.average:
        return {stems[0]: average_result(seen, predictor)}
    if options.faces == "all":
        plans = [plan_of_face(one.path, one.number) for one in seen]
        chosen = choose_stems(options.output, plans)
        say_new_names(plans, chosen)
    else:
        stem_of = dict(zip(options.photos, stems, strict=True))
        chosen = [stem_of[one.path] for one in seen]
    return {stem: result_of(one, predictor) for stem, one in zip(chosen, seen, strict=True)}


def write_results(
    results: dict[Path, Found], predictor: Predictor, *, template: Template | None, with_table: bool
) -> list[str]:
    """Write the files of all results and print their names, and with a table the sliders.

    Returns:
        The photos whose results the output folder cannot hold.
    """
    run = predictor.run
    checkpoints = {"vae": run.vae.best.as_posix(), "f2p": run.f2p.best.as_posix()}
    origin = {"run": run.folder.as_posix(), "checkpoints": checkpoints, "creator": predictor.creator_version}

    without = []
    for stem, (result, trust) in results.items():
        files = ResultFiles(
            predictor.parameters,
            test_r2=predictor.test_r2 if trust.is_measured else {},
            game=predictor.game,
            origin=origin,
            template=template,
        )
        try:
            written = files.write(stem, result)
        except OSError as error:
            if not is_refused_name(error):
                raise
            without.append(printable(str(result.photos[0])))
            print(
                f"no result of {without[-1]}: the output folder cannot hold its name ({error.strerror})",
                file=sys.stderr,
            )
            continue
        print("\n".join(printable(str(path)) for path in written))
        if with_table:
            heading = "\n".join(filter(None, [printable(stem.name), trust.note]))
            print(f"\n{heading}\n{files.table(result)}\n")
    return without


def main() -> None:
    # Parse, plan, load.
    options = parse_options()
    stems = plan_results(options)
    template = Template.of(options, [stem.name for stem in stems])
    torch.set_num_threads(default_workers())
    predictor = Predictor.load(options.run)
    if template is not None:
        heads = heads_of(Path(predictor.config.data.root))
        template.fit(predictor.parameters, heads=heads, creator=predictor.creator_version)

    neutral = neutral_macros(predictor) if options.no_macros else {}

    # Predict.
    seen, unreadable, without = predict_photos(predictor, options)
    seen = [with_values(one, neutral) for one in seen] if neutral else seen

    # Write.
    if seen:
        results = results_of(seen, predictor, options, stems)
        without += write_results(results, predictor, template=template, with_table=options.table)

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
