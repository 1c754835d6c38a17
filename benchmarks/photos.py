"""How much of a person a predicted character keeps: facial ratios of real photos against those of the characters.

    python -m benchmarks.photos --photos DIR --run RUN… [--fold K] [--aligned ALIGNED] [--json FILE]

Reads DIR/images and DIR/landmarks.csv: name, person, x0, y0 … x67, y67, of 68 landmarks (iBUG order). Measured are the
frontal frames in which a face is found (the largest); the frames of a person are averaged.

Whom: people are held out by name in five folds. `python -m games fit --fold K` writes the other people's photos for a
run to learn from, and that run is measured on the people of fold K, of whom it knows nothing. Five runs, given in the
order of the folds 0 to 4, measure all people.

What, for each of twelve ratios and for their median:
    rho       Spearman's ρ over people, between the photos and the predicted characters; ties share their mean rank
    interval  its 95 % interval, by bootstrap over people; for the median, people are drawn for all ratios together
    chance    the ρ that 95 % of random pairings stay below
    halves    ρ between one half of everybody's frames and the other: how far the photos' own landmarks agree
              (measured where five people or more have two frames)
    ceiling   ρ of characters whose parameters were fitted to the photos' landmarks themselves; the average of the
              people not held out is taken for the average character
    direct    with --aligned (what face_alignment.py made of DIR/images): ρ of ratios that ridge regression, learned
              from the people not held out, reads off the gradients of the aligned photos, with no game between
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from scipy.stats import rankdata

from datasets.pictures import decode
from games.fit import fitter_for
from games.game import EmbeddedGame
from games.people import FOLDS, LEARNED, Frame, fold_of, frontal_of, ratios, read_frames
from models.predictor import NoFace, Predictor
from utils.errors import UserError, run_script
from utils.files import write_json
from utils.metrics import ridge
from utils.pictures import UnreadablePicture, read_rgb
from utils.progress import progress

#: Draws of the bootstrap, and random pairings.
_DRAWS = 2000

#: How often people's frames are parted at random for `halves`.
_PARTINGS = 200

#: With fewer people than this there is nothing to correlate.
_FEWEST = 5

#: Side of the aligned faces whose gradients are read, pixels.
_GRADIENTS_SIZE = 128

#: Reads the parameters (P,) of the largest face off a photo (H, W, 3) uint8; None where there is no face.
Reader = Callable[[np.ndarray], np.ndarray | None]


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


def read_directly(frames: list[Frame], fold: int, *, measured: list[Frame], aligned: Path) -> dict[str, np.ndarray]:
    """Ratios (N,) of measured frames as ridge regression reads them off their gradients.

    Args:
        frames: frames of all people; it learns from those not held out.
        fold: which people are held out.
        measured: frames whose ratios are read.
        aligned: folder of aligned faces.

    Raises:
        UserError: a face that is measured is not in `aligned`.
    """
    missing = [frame for frame in measured if not _aligned_face(frame, aligned).exists()]
    if missing:
        raise UserError(
            f"{aligned} holds no {missing[0].path.stem}.png; run face_alignment.py --input DIR/images "
            f"--output {aligned} --faces largest first"
        )

    # Both views of every face; standardised, so that one strength does for all ratios.
    known = [frame for frame in frontal_of(frames, LEARNED) if fold_of(frame.person) != fold]
    learned = [frame for frame in known if _aligned_face(frame, aligned).exists()]
    truth = ratios(np.array([frame.landmarks for frame in learned]))
    values = np.column_stack(list(truth.values()))
    mean, deviation = values.mean(0), values.std(0)
    y = np.tile((values - mean) / deviation, (2, 1))
    x = np.concatenate([gradients(learned, aligned, mirrored=mirrored) for mirrored in (False, True)])

    # Another fold chooses the strength; then all learn.
    chooses = np.tile([fold_of(frame.person) == (fold + 1) % FOLDS for frame in learned], 2)
    _, _, strength = ridge((x[~chooses], y[~chooses]), (x[chooses], y[chooses]))
    weights, bias, _ = ridge((x, y), (x, y), np.array([strength]))

    views = [gradients(measured, aligned, mirrored=mirrored) @ weights + bias for mirrored in (False, True)]
    read = (views[0] + views[1]) / 2
    return dict(zip(truth, (mean + deviation * read).T, strict=True))


def _aligned_face(frame: Frame, aligned: Path) -> Path:
    return aligned / f"{frame.path.stem}.png"


# --- measuring --------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """Frames of a fold's people that a face was found in, and what was read off them."""

    fold: int
    frames: list[Frame]
    parameters: np.ndarray  #: (N, P)


def reader_of(predictor: Predictor) -> Reader:
    """What reads parameters off photos with a trained run."""

    def read(photo: np.ndarray) -> np.ndarray | None:
        try:
            return predictor.predict(photo, "largest").parameters
        except NoFace:
            return None

    return read


def look_at(frames: list[Frame], reader: Reader, *, fold: int, count: int) -> Seen:
    """Read the `count` parameters of the frontal frames of a fold's people."""
    measured = [frame for frame in frontal_of(frames) if fold_of(frame.person) == fold]
    used, parameters = [], []
    for frame in progress(iterable=measured, desc="predicting", unit="photo"):
        try:
            read = reader(read_rgb(frame.path))
        except UnreadablePicture:
            continue
        if read is not None:
            used.append(frame)
            parameters.append(read)
    return Seen(fold, used, np.array(parameters).reshape(-1, count))


def ratios_of(seen: Seen, frames: list[Frame], *, aligned: Path | None, game: EmbeddedGame) -> dict[str, np.ndarray]:
    """Ratios (R, N) of a fold's frames: of "photo", of "rho" (the predicted characters), of "ceiling", of "direct".

    Args:
        seen: the fold's frames.
        frames: frames of all people.
        aligned: folder of aligned faces; None leaves out the ratios read directly.
        game: whose characters are compared.
    """
    landmarks = np.array([frame.landmarks for frame in seen.frames])
    fitted = fitter_for(frames, fold=seen.fold, game=game).fit(landmarks)
    found = {
        "photo": ratios(landmarks),
        "rho": ratios(game.landmarks(seen.parameters)),
        "ceiling": ratios(game.landmarks(fitted)),
    }
    if aligned is not None:
        found["direct"] = read_directly(frames, seen.fold, measured=seen.frames, aligned=aligned)
    return {key: np.array(list(values.values())) for key, values in found.items()}


def measure(
    frames: list[Frame], readers: dict[int, Reader], *, game: EmbeddedGame, aligned: Path | None = None
) -> dict[str, Any]:
    """ρ of every ratio over the people held out.

    Args:
        frames: frames of all people.
        readers: fold → what reads the photos of the people held out in it.
        game: whose characters are compared.
        aligned: folder of aligned faces; with it `read_directly` is measured as well.

    Raises:
        UserError: fewer than five held-out people have a frontal frame with a face.
    """
    # Read the photos.
    count = len(game.parameters)
    looked_at = [look_at(frames, reader, fold=fold, count=count) for fold, reader in readers.items()]
    seen = [of_fold for of_fold in looked_at if of_fold.frames]
    people = np.array([frame.person for of_fold in seen for frame in of_fold.frames])
    if len(set(people)) < _FEWEST:
        raise UserError(
            f"only {len(set(people))} held-out people have a frontal frame with a face; at least {_FEWEST} are needed"
        )

    # Compare.
    parts = [ratios_of(of_fold, frames, aligned=aligned, game=game) for of_fold in seen]
    by_frame = {key: np.concatenate([part[key] for part in parts], 1) for key in parts[0]}
    rows, summary = compare_all(by_frame, people)
    names = ratios(np.array([frames[0].landmarks]))
    counts = {"people": len(set(people)), "frames": len(people)}
    return counts | {"ratios": dict(zip(names, rows, strict=True))} | summary


def compare_all(by_frame: dict[str, np.ndarray], people: np.ndarray) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """ρ of every ratio between the photos and all that stands beside them.

    Args:
        by_frame: of `ratios_of`, (R, F) each.
        people: (F,) whose frame each is.

    Returns:
        Figures of each of the R ratios, and the medians.
    """
    # Predicted characters.
    values = {key: np.array([by_person(row, people) for row in rows]) for key, rows in by_frame.items()}
    photo, rng = values.pop("photo"), np.random.default_rng(0)
    rows, interval = compare(photo, values.pop("rho"), rng)

    # What stands beside them.
    beside = {key: spearman(photo, of_people) for key, of_people in values.items()}
    if (np.unique(people, return_counts=True)[1] > 1).sum() >= _FEWEST:
        beside["halves"] = halves(by_frame["photo"], people, rng)
    for key, rhos in beside.items():
        for row, rho in zip(rows, rhos.tolist(), strict=True):
            row[key] = rho

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
    beside = [key for key in ("halves", "ceiling", "direct") if f"median_{key}" in result]
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


def parse_options() -> argparse.Namespace:
    """Read the command line. Raises UserError where there are more runs than folds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder with images/ and landmarks.csv")
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
    parser.add_argument("--aligned", type=Path, help="what face_alignment.py made of the photos")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if options.fold + len(options.run) > FOLDS:
        raise UserError(
            f"{len(options.run)} runs were given from fold {options.fold} on; expected one per fold, and the last "
            f"fold is {FOLDS - 1}"
        )
    return options


def main() -> None:
    options = parse_options()
    frames = read_frames(options.photos)
    predictors, game = load_predictors(options.run)
    readers = {fold: reader_of(predictor) for fold, predictor in enumerate(predictors, options.fold)}

    runs = {"runs": [run.as_posix() for run in options.run]}
    result = runs | measure(frames, readers, game=game, aligned=options.aligned)
    print_table(result)
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    run_script(main)
