"""How much of a person a predicted character keeps: facial ratios of real photos against those of the characters.

    python -m benchmarks.photos --photos DIR --run RUN… [--fold K] [--aligned ALIGNED] [--data DATA] [--annotated]

Reads DIR/images and DIR/landmarks.csv: name, person. Measured are the frontal frames in which a face is found (the
largest); the frames of a person are averaged. Both sides are measured by one observer, a network that finds the points
of a face (models/facemesh.py): on the aligned photo, and on the picture of the predicted character. With --annotated
the photo's points are those of DIR/landmarks.csv (x0, y0 … x67, y67, iBUG order), the character's are the game's own.

Whom: people are held out by name in five folds. `python fit_photos.py --fold K` writes the other people's photos for a
run to learn from, and that run is measured on the people of fold K, of whom it knows nothing. Five runs, given in the
order of the folds 0 to 4, measure all people.

What, for each of twelve ratios and for their median:
    rho       Spearman's ρ over people, between the photos and the predicted characters; ties share their mean rank
    interval  its 95 % interval, by bootstrap over people; for the median, people are drawn for all ratios together
    chance    the ρ that 95 % of random pairings stay below
    kept      slope of the characters' ratio over the photos': the share of a difference between people that their
              characters show; ρ tells the order alone
    halves    ρ between one half of everybody's frames and the other: how far the photos' own points agree
              (measured where five people or more have two frames)
    fitted    with --data (renders of the game, as fit_photos.py reads them): ρ of characters whose parameters were
              fitted to what the observer sees in the photos
    direct    with --aligned (what face_alignment.py made of DIR/images): ρ of ratios that ridge regression, learned
              from the people not held out, reads off the gradients of the aligned photos, with no game between
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from scipy.stats import rankdata

from datasets.people import FOLDS, LEARNED, Frame, fold_of, is_frontal, ratios, read_annotations, read_frames
from datasets.pictures import decode
from fit_photos import learn_fitter, look_at_characters
from games.fit import Fitter
from games.game import EmbeddedGame
from models.facemesh import FaceMesh
from models.predictor import NoFace, Predictor
from utils.alignment import TEMPLATE_SIZE
from utils.errors import UserError, run_script
from utils.files import write_json
from utils.metrics import ridge, slopes
from utils.pictures import UnreadablePicture, read_rgb
from utils.progress import progress

#: Draws of the bootstrap, and random pairings.
_DRAWS = 2000

#: How often people's frames are parted at random for `halves`.
_PARTINGS = 200

#: With fewer people than this there is nothing to correlate.
FEWEST = 5

#: Side of the aligned faces whose gradients are read, pixels.
_GRADIENTS_SIZE = 128

#: Faces that are drawn and looked at together.
_BLOCK = 32


class Reading(NamedTuple):
    """What was read off a photo."""

    face: np.ndarray  #: (256, 256, 3) uint8, aligned
    parameters: np.ndarray  #: (P,)


#: Reads the largest face of a photo (H, W, 3) uint8; None where there is no face.
Reader = Callable[[np.ndarray], Reading | None]


# --- observers --------------------------------------------------------------------------------------


class Observer(Protocol):
    """By whose points faces are measured."""

    def people(self, frames: Sequence[Frame], faces: Sequence[np.ndarray]) -> np.ndarray:
        """68 landmarks (N, 68, 2) of photos whose aligned faces (256, 256, 3) are given; NaN where none are known."""

    def characters(self, game: EmbeddedGame, parameters: np.ndarray) -> np.ndarray:
        """The same of characters (N, P)."""


class Annotation:
    """A table for photos, the game's geometry for characters.

    Raises:
        UserError: the table is missing or something else.
    """

    def __init__(self, photos: Path) -> None:
        self._landmarks = read_annotations(photos)

    def people(self, frames: Sequence[Frame], faces: Sequence[np.ndarray]) -> np.ndarray:
        return np.array([self._landmarks[frame.path.name] for frame in frames]).reshape(-1, 68, 2)

    def characters(self, game: EmbeddedGame, parameters: np.ndarray) -> np.ndarray:
        return game.landmarks(parameters)


class Mesh:
    """One network, for photos and characters alike. Raises UserError as `FaceMesh`."""

    def __init__(self) -> None:
        self.network = FaceMesh()

    def people(self, frames: Sequence[Frame], faces: Sequence[np.ndarray]) -> np.ndarray:
        return self.network.find_aligned(faces).landmarks

    def characters(self, game: EmbeddedGame, parameters: np.ndarray) -> np.ndarray:
        return look_at_characters(self.network, game, parameters).landmarks


# --- rank statistics --------------------------------------------------------------------------------


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's ρ along the last axis: Pearson's correlation of ranks. Ties share their mean rank."""
    x, y = (rankdata(values, axis=-1) for values in (a, b))
    x, y = (ranks - ranks.mean(-1, keepdims=True) for ranks in (x, y))
    return (x * y).sum(-1) / np.sqrt(np.square(x).sum(-1) * np.square(y).sum(-1))


def compare(
    photo: np.ndarray, character: np.ndarray, rng: np.random.Generator
) -> tuple[list[dict[str, Any]], list[float]]:
    """Compare R ratios of N people, (R, N), between photos and characters.

    Returns:
        Of each ratio ρ, its bootstrap interval over people, what chance gives and how probable such a ρ is by chance;
        and the interval of the median of the ρs, from the same draws of people for all ratios.
    """
    # Draw people. A person drawn several times ties with himself, and these ties share their mean rank.
    people = rng.integers(0, photo.shape[1], (_DRAWS, photo.shape[1]))
    people = people[np.ptp(people, axis=1) > 0]  # of few people, one may be drawn alone, which ranks nobody
    redrawn = spearman(photo[:, people], character[:, people])  # (R, draws)

    found = []
    for of_photo, of_character, rhos in zip(photo, character, redrawn, strict=True):
        rho = float(spearman(of_photo, of_character))
        by_chance = spearman(of_photo[None], rng.permuted(np.tile(of_character, (_DRAWS, 1)), axis=1))
        found.append(
            {
                "rho": rho,
                "interval": _interval(rhos),
                "chance_95": float(np.quantile(by_chance, 0.95)),
                "p": float((1 + (by_chance >= rho).sum()) / (1 + _DRAWS)),
            }
        )
    return found, _interval(np.median(redrawn, 0))


def _interval(rhos: np.ndarray) -> list[float]:
    return [float(quantile) for quantile in np.quantile(rhos, (0.025, 0.975))]


def by_person(values: np.ndarray, people: np.ndarray) -> np.ndarray:
    """The mean (N,) of each person's frames (F,), people in alphabetical order."""
    _, which = np.unique(people, return_inverse=True)
    return np.bincount(which, values) / np.bincount(which)


def halves(values: np.ndarray, people: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """ρ (R,) between two halves of people's frames, averaged over random partings.

    Args:
        values: (R, F) ratios of frames.
        people: (F,) whose frame each is; people of one frame are left out.
    """
    _, which, counts = np.unique(people, return_inverse=True, return_counts=True)
    several = counts[which] > 1
    values, people = values[:, several], people[several]

    found = []
    for _ in range(_PARTINGS):
        # One person after the other, frames at random: every second frame is half of everybody's.
        order = np.lexsort((rng.random(len(people)), people))
        parted = []
        for half in (order[::2], order[1::2]):
            parted.append(np.array([by_person(row[half], people[half]) for row in values]))
        found.append(spearman(*parted))
    return np.mean(found, 0)


# --- with no game between ---------------------------------------------------------------------------


def gradients(frames: list[Frame], aligned: Path, *, mirrored: bool) -> np.ndarray:
    """Histograms of oriented gradients (Dalal and Triggs, 2005) of aligned faces at 128 pixels: (N, 1764)."""
    size = (_GRADIENTS_SIZE, _GRADIENTS_SIZE)
    histograms = cv2.HOGDescriptor(size, (32, 32), (16, 16), (16, 16), 9)
    rows = []
    for frame in frames:
        face = decode(_aligned_face(frame, aligned), _GRADIENTS_SIZE)
        if mirrored:
            face = np.ascontiguousarray(face[:, ::-1])
        rows.append(np.ravel(histograms.compute(face)))
    return np.array(rows)


class Known(NamedTuple):
    """Aligned photos of all people whose ratios ridge regression can learn from."""

    frames: list[Frame]
    values: np.ndarray  #: (N, 12) ratios
    aligned: Path  #: folder of the aligned faces


def look_at_known(frames: list[Frame], aligned: Path, observer: Observer) -> Known:
    """The aligned photos that show a face hardly turned.

    Raises:
        UserError: there are none.
    """
    found = [frame for frame in frames if _aligned_face(frame, aligned).exists()]
    blocks = [found[i : i + _BLOCK] for i in range(0, len(found), _BLOCK)]
    landmarks = np.concatenate(
        [np.empty((0, 68, 2))]
        + [
            observer.people(block, [decode(_aligned_face(f, aligned), TEMPLATE_SIZE) for f in block])
            for block in blocks
        ]
    )
    learned = np.flatnonzero(is_frontal(landmarks, LEARNED))
    if not len(learned):
        raise UserError(
            f"{aligned} holds no aligned face of these photos that is seen from the front; run face_alignment.py "
            f"--input DIR/images --output {aligned} --faces largest first"
        )
    values = np.column_stack(list(ratios(landmarks[learned]).values()))
    return Known([found[i] for i in learned], values, aligned)


def read_directly(known: Known, fold: int, *, measured: list[Frame]) -> np.ndarray:
    """Ratios (12, N) of measured frames as ridge regression reads them off their gradients.

    Args:
        known: what it learns from, but for the people held out.
        fold: which people are held out.
        measured: frames whose ratios are read.

    Raises:
        UserError: a face that is measured is not in the folder.
    """
    missing = [frame for frame in measured if not _aligned_face(frame, known.aligned).exists()]
    if missing:
        raise UserError(
            f"{known.aligned} holds no {missing[0].path.stem}.png; run face_alignment.py --input DIR/images "
            f"--output {known.aligned} --faces largest first"
        )

    # Both views of every face; standardised, so that one strength does for all ratios.
    rows = [i for i, frame in enumerate(known.frames) if fold_of(frame.person) != fold]
    learned, values = [known.frames[i] for i in rows], known.values[rows]
    mean, deviation = values.mean(0), values.std(0)
    y = np.tile((values - mean) / deviation, (2, 1))
    x = np.concatenate([gradients(learned, known.aligned, mirrored=mirrored) for mirrored in (False, True)])

    # Another fold chooses the strength; then all learn.
    chooses = np.tile([fold_of(frame.person) == (fold + 1) % FOLDS for frame in learned], 2)
    _, _, strength = ridge((x[~chooses], y[~chooses]), (x[chooses], y[chooses]))
    weights, bias, _ = ridge((x, y), (x, y), np.array([strength]))

    views = [gradients(measured, known.aligned, mirrored=mirrored) @ weights + bias for mirrored in (False, True)]
    return (mean + deviation * (views[0] + views[1]) / 2).T


def _aligned_face(frame: Frame, aligned: Path) -> Path:
    return aligned / f"{frame.path.stem}.png"


# --- measuring --------------------------------------------------------------------------------------


class Measured(NamedTuple):
    """Frontal frames of a fold's people that a face was found in, and what was read off them."""

    fold: int
    frames: list[Frame]
    landmarks: np.ndarray  #: (N, 68, 2) by the observer
    readings: list[Reading]


class Beside(NamedTuple):
    """What is measured beside the predicted characters; None is left out."""

    fitter: Fitter | None = None
    known: Known | None = None


NOTHING = Beside()


def reader_of(predictor: Predictor) -> Reader:
    """What reads parameters off photos with a trained run."""

    def read(photo: np.ndarray) -> Reading | None:
        try:
            prediction = predictor.predict(photo, "largest")
        except NoFace:
            return None
        return Reading(prediction.aligned, prediction.parameters)

    return read


def look_at(frames: list[Frame], reader: Reader, *, fold: int, observer: Observer) -> Measured:
    """Read the frames of a fold's people; those are kept that are seen from the front."""
    read: list[tuple[Frame, Reading]] = []
    of_fold = [frame for frame in frames if fold_of(frame.person) == fold]
    for frame in progress(iterable=of_fold, desc="predicting", unit="photo"):
        try:
            reading = reader(read_rgb(frame.path))
        except UnreadablePicture:
            continue
        if reading is not None:
            read.append((frame, reading))

    landmarks = observer.people([frame for frame, _ in read], [reading.face for _, reading in read])
    kept = np.flatnonzero(is_frontal(landmarks))
    return Measured(fold, [read[i][0] for i in kept], landmarks[kept], [read[i][1] for i in kept])


def ratios_of(measured: Measured, beside: Beside, *, observer: Observer, game: EmbeddedGame) -> dict[str, np.ndarray]:
    """Ratios (R, N) of a fold's frames: of "photo", of "rho" (the predicted characters), of "fitted", of "direct".

    Args:
        measured: the fold's frames.
        beside: what is measured, too.
        observer: by whose points.
        game: whose characters are compared.
    """
    landmarks = {"photo": measured.landmarks}
    landmarks["rho"] = observer.characters(game, np.array([reading.parameters for reading in measured.readings]))
    if beside.fitter is not None:
        found = FaceMesh().find_aligned([reading.face for reading in measured.readings])
        landmarks["fitted"] = observer.characters(game, beside.fitter.fit(found.points))

    values = {key: np.array(list(ratios(points).values())) for key, points in landmarks.items()}
    if beside.known is not None:
        values["direct"] = read_directly(beside.known, measured.fold, measured=measured.frames)
    return values


def measure(
    frames: list[Frame],
    readers: dict[int, Reader],
    *,
    observer: Observer,
    game: EmbeddedGame,
    beside: Beside = NOTHING,
) -> dict[str, Any]:
    """ρ of every ratio over the people held out.

    Args:
        frames: frames of all people.
        readers: fold → what reads the photos of the people held out in it.
        observer: by whose points faces are measured.
        game: whose characters are compared.
        beside: what is measured, too.

    Raises:
        UserError: fewer than five held-out people have a frontal frame with a face, or an observer sees none in the
            picture of a character.
    """
    # Read the photos.
    looked_at = [look_at(frames, reader, fold=fold, observer=observer) for fold, reader in readers.items()]
    seen = [of_fold for of_fold in looked_at if of_fold.frames]
    people = np.array([frame.person for of_fold in seen for frame in of_fold.frames])
    if len(set(people)) < FEWEST:
        raise UserError(
            f"only {len(set(people))} held-out people have a frontal frame with a face; at least {FEWEST} are needed"
        )

    # Compare.
    parts = [ratios_of(of_fold, beside, observer=observer, game=game) for of_fold in seen]
    by_frame = {key: np.concatenate([part[key] for part in parts], 1) for key in parts[0]}
    by_frame, people = _without_unseen(by_frame, people)
    rows, summary = compare_all(by_frame, people)
    counts = {"people": len(set(people)), "frames": len(people)}
    return counts | {"ratios": dict(zip(ratios(seen[0].landmarks), rows, strict=True))} | summary


def _without_unseen(by_frame: dict[str, np.ndarray], people: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Leave out frames in whose characters the observer sees no face, and say how many.

    Raises:
        UserError: fewer than five people are left.
    """
    whole = np.all([np.isfinite(values).all(0) for values in by_frame.values()], axis=0)
    if not whole.all():
        print(f"{(~whole).sum()} of {len(whole)} frames are left out: no face is seen in their characters")
    if len(set(people[whole])) < FEWEST:
        raise UserError(
            f"the observer sees a face in the characters of {len(set(people[whole]))} people; at least {FEWEST} are "
            "needed. --annotated measures by a table of points and by the game's geometry"
        )
    return {key: values[:, whole] for key, values in by_frame.items()}, people[whole]


def compare_all(by_frame: dict[str, np.ndarray], people: np.ndarray) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """ρ of every ratio between the photos and all that stands beside them, and how much of a difference is kept.

    Args:
        by_frame: of `ratios_of`, (R, F) each.
        people: (F,) whose frame each is.

    Returns:
        Figures of each of the R ratios, and the medians.
    """
    # Predicted characters.
    values = {key: np.array([by_person(row, people) for row in rows]) for key, rows in by_frame.items()}
    photo, characters, rng = values.pop("photo"), values.pop("rho"), np.random.default_rng(0)
    rows, interval = compare(photo, characters, rng)

    # What stands beside them.
    beside = {"kept": slopes(photo.T, characters.T)}
    beside |= {key: spearman(photo, of_people) for key, of_people in values.items()}
    if (np.unique(people, return_counts=True)[1] > 1).sum() >= FEWEST:
        beside["halves"] = halves(by_frame["photo"], people, rng)
    for key, found in beside.items():
        for row, figure in zip(rows, found.tolist(), strict=True):
            row[key] = figure

    medians = {f"median_{key}": float(np.median([row[key] for row in rows])) for key in ("rho", *beside)}
    return rows, {"median_interval": interval} | medians


# --- the script -------------------------------------------------------------------------------------


def load_predictors(runs: list[Path]) -> tuple[list[Predictor], EmbeddedGame]:
    """The predictors of some runs, and the embedded game that all of them learned.

    Raises:
        UserError: a run is not finished, or learned another game.
    """
    predictors, games = [], []
    for run in runs:
        predictor = Predictor.load(run)
        if predictor.game is None:
            raise UserError(
                f"{run} learned another game than the embedded creator, or another version of it; "
                "characters that can be drawn are compared here"
            )
        predictors.append(predictor)
        games.append(predictor.game)
    if len({game.version for game in games}) > 1:
        raise UserError("the runs learned different versions of the embedded creator; expected runs of one version")
    return predictors, games[0]


def print_table(result: dict[str, Any]) -> None:
    """A line per ratio, and the medians."""
    beside = [key for key in ("kept", "halves", "fitted", "direct") if f"median_{key}" in result]
    print(f"{result['people']} people not trained on, {result['frames']} frontal frames\n")
    titles = "".join(f"  {key:>7s}" for key in beside)
    print(f"{'ratio':14s} {'rho':>6s}  {'95 % interval':>15s}  {'chance':>6s}{titles}")

    for name, row in result["ratios"].items():
        low, high = row["interval"]
        further = "".join(f"  {row[key]:7.2f}" for key in beside)
        print(f"{name:14s} {row['rho']:6.2f}  {low:6.2f} … {high:5.2f}  {row['chance_95']:6.2f}{further}")
    low, high = result["median_interval"]
    further = "".join(f"  {result[f'median_{key}']:7.2f}" for key in beside)
    print(f"{'median':14s} {result['median_rho']:6.2f}  {low:6.2f} … {high:5.2f}  {'':6s}{further}")


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Add --run and --fold: runs, and the people that they did not learn from."""
    parser.add_argument(
        "--run",
        type=Path,
        nargs="+",
        required=True,
        help="trained run to measure on the people that --fold leaves out; or several, for this and later folds",
    )
    parser.add_argument(
        "--fold", type=int, choices=range(FOLDS), default=0, help="which fifth of the people is left out (default 0)"
    )


def check_runs(options: argparse.Namespace) -> None:
    """Raise UserError where there are more runs than folds."""
    if options.fold + len(options.run) > FOLDS:
        raise UserError(
            f"{len(options.run)} runs were given from fold {options.fold} on; expected one per fold, and the last "
            f"fold is {FOLDS - 1}"
        )


def parse_options() -> argparse.Namespace:
    """Read the command line. Raises UserError where there are more runs than folds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder with images/ and landmarks.csv")
    add_runs(parser)
    parser.add_argument("--aligned", type=Path, help="what face_alignment.py made of the photos")
    parser.add_argument("--data", type=Path, help="data set of the game, to fit characters: pictures of 128 px or more")
    parser.add_argument(
        "--annotated", action="store_true", help="measure by landmarks.csv and the game's geometry, not by the observer"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    check_runs(options)
    return options


def main() -> None:
    options = parse_options()
    frames = read_frames(options.photos)
    predictors, game = load_predictors(options.run)
    readers = {fold: reader_of(predictor) for fold, predictor in enumerate(predictors, options.fold)}

    # Look at what is measured beside them.
    observer: Observer = Annotation(options.photos) if options.annotated else Mesh()
    fitter = learn_fitter(FaceMesh(), options.data) if options.data else None
    known = look_at_known(frames, options.aligned, observer) if options.aligned else None

    runs = {"runs": [run.as_posix() for run in options.run], "observer": type(observer).__name__.lower()}
    beside = Beside(fitter, known)
    result = runs | measure(frames, readers, observer=observer, game=game, beside=beside)
    print_table(result)
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    run_script(main)
