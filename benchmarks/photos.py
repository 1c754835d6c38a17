"""How much of a person a predicted character keeps: facial ratios of real photos against those of the characters.

    python -m benchmarks.photos --photos DIR --known FOLDER --aligned ALIGNED [--fold K]    a data set of people to train on
    python -m benchmarks.photos --photos DIR --run RUN… [--aligned ALIGNED] [--fold K] [--json FILE]   measures on the other people

DIR holds images/ and landmarks.csv: name, person, x0, y0 … of 68 iBUG points. People are held out by name: one
of five by SHA-256, which are five folds; fold 0 where no other is named. Five runs, trained on the data sets of
folds 0 to 4 and given in this order, measure all people, each by the run that knows nothing of them. ALIGNED is
what face_alignment.py made of DIR/images. FOLDER becomes a data set of the other people's faces, those that are
turned a little at most with the sliders fitted to their landmarks. Set data.photos to it, and stage 1 learns the
pictures, stage 2 the sliders; or name FOLDER/images in data.folders, and stage 1 alone knows photos, of other
people than are measured. Measured are frontal frames that `predict.py` finds a face in (the largest), each person's averaged.

For each ratio: Spearman's ρ over people between photo and predicted character, its 95 % interval by bootstrap
over people, the ρ that 95 % of random pairings stay below, and as ceiling the ρ of characters whose sliders were
fitted to the photo's landmarks themselves. Fits take the average of the people not held out for the average character.
Of the ratios' median the interval too, from people drawn for all ratios together. "halves" is how far the photos'
own landmarks agree: the ρ over people between the means of one half of their frames and of the other, where five
people or more have two. With ALIGNED also what pictures tell who learned from as many people: the ρ of ratios that
ridge regression, learned from the people not held out, reads off the aligned photos' gradients, with no game between.
"""

import argparse
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from benchmarks.alignment import read_annotations
from datasets.creator import NAMES
from datasets.creator.fit import Fitter, in_frame, write_photos
from datasets.pictures import decode
from models.mtcnn import FaceDetector
from predict import Predictor
from utils.errors import UserError, run_script
from utils.files import write_json
from utils.metrics import ridge
from utils.pictures import UnreadablePicture, find_pictures, read_rgb
from utils.progress import progress

_DRAWS = 2000

#: How often people's frames are parted at random for `halves`.
_PARTINGS = 200

FOLDS = 5

#: How far the nose tip of a face that is measured may lie from the middle between jaw points 0 and 16, in their distance.
_FRONTAL = 0.08

#: And that of a face that is learned from. Twice as many frames teach more than their foreshortening misleads.
_LEARNED = 0.16


class Frame(NamedTuple):
    path: Path
    person: str
    landmarks: np.ndarray   #: (68, 2) in the picture's pixels


def ratios(landmarks: np.ndarray) -> dict[str, np.ndarray]:
    """Scale-free ratios (N,) of 68 iBUG landmarks (N, 68, 2), points counted from 0."""
    def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.linalg.norm(a - b, axis=-1)

    def p(i: int) -> np.ndarray:
        return landmarks[:, i]

    def middle(*points: int) -> np.ndarray:
        return landmarks[:, list(points)].mean(1)

    width = distance(p(0), p(16))
    eyes = distance(p(36), p(39)) + distance(p(42), p(45))
    lids = sum(distance(p(a), p(b)) for a, b in ((37, 41), (38, 40), (43, 47), (44, 46)))
    brows = (distance(middle(*range(17, 22)), middle(36, 39)) + distance(middle(*range(22, 27)), middle(42, 45))) / 2
    return {"face height": distance(middle(19, 24), p(8)) / width, "jaw": distance(p(4), p(12)) / width,
            "chin": distance(p(6), p(10)) / width, "lower face": distance(p(33), p(8)) / distance(p(27), p(8)),
            "eye spacing": distance(middle(36, 39), middle(42, 45)) / width, "eye width": eyes / (2 * width),
            "eye opening": lids / (2 * eyes), "brow height": brows / width, "nose length": distance(p(27), p(33)) / width,
            "nose width": distance(p(31), p(35)) / width, "mouth width": distance(p(48), p(54)) / width,
            "lip height": distance(p(51), p(57)) / distance(p(48), p(54))}


def is_frontal(landmarks: np.ndarray, most: float = _FRONTAL) -> np.ndarray:
    """(N,) bool: the nose tip lies at most `most` off the middle of the way from jaw point 0 to 16."""
    across = landmarks[:, 16] - landmarks[:, 0]
    share = ((landmarks[:, 30] - landmarks[:, 0]) * across).sum(-1) / np.square(across).sum(-1)
    return np.abs(share - 0.5) <= most


def fold_of(person: str) -> int:
    """Which fold a person is held out in, 0 to 4."""
    return int.from_bytes(hashlib.sha256(person.encode()).digest()[:8], "big") % FOLDS


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's ρ along the last axis: Pearson's correlation of ranks (ties in the order that they come)."""
    ranks = [np.argsort(np.argsort(x, -1), -1).astype(float) for x in (a, b)]
    x, y = (r - r.mean(-1, keepdims=True) for r in ranks)
    return (x * y).sum(-1) / np.sqrt(np.square(x).sum(-1) * np.square(y).sum(-1))


def read_frames(photos: Path) -> list[Frame]:
    """Frames whose picture and landmarks are both there. Pictures are looked for on disk: no name of the table is opened."""
    known = read_annotations(photos)
    if any(annotation.person is None for annotation in known.values()):
        raise UserError(f"{photos / 'landmarks.csv'} is not as expected (name, person, x0, y0 … x67, y67): it names no person")
    folder = photos / "images"
    paths = find_pictures(folder) if folder.is_dir() else []
    frames = [Frame(path, *known[path.name]) for path in paths if path.name in known]
    if not frames:
        raise UserError(f"no picture in {folder} has landmarks in {photos / 'landmarks.csv'}")
    return frames


def frontal_of(frames: list[Frame], most: float = _FRONTAL) -> list[Frame]:
    """Those that show a face from the front, see `is_frontal`, of one frame or more."""
    return [f for f, frontal in zip(frames, is_frontal(np.array([f.landmarks for f in frames]), most)) if frontal]


def fitter_for(frames: list[Frame], fold: int) -> Fitter:
    """A fitter that takes the average of frontal frames of people not held out for the average character.

    Raises:
        UserError: there are no such frames.
    """
    known = [f.landmarks for f in frontal_of(frames) if fold_of(f.person) != fold]
    if not known:
        raise UserError("no frontal frame shows a person who is not held out; expected photos of several people")
    return Fitter(in_frame(np.array(known)).mean(0))


def write_known(frames: list[Frame], fold: int, aligned: Path, output: Path) -> None:
    """Write the data set of the aligned faces of people who are not held out, with sliders for those hardly turned."""
    chosen = [f for f in frames if fold_of(f.person) != fold and (aligned / f"{f.path.stem}.png").exists()]
    if not chosen:
        raise UserError(f"{aligned} holds no aligned face of these photos; run face_alignment.py --input DIR/images --output {aligned} first")
    learned = frontal_of(chosen, _LEARNED)
    if not learned:
        raise UserError(f"all of the {len(chosen)} aligned faces in {aligned} are turned too far, and get no sliders; expected faces from the front")
    sliders = fitter_for(frames, fold).fit(np.array([f.landmarks for f in learned]))
    write_photos(output, [aligned / f"{f.path.stem}.png" for f in chosen], {f.path.stem: row for f, row in zip(learned, sliders)})
    print(f"{len(chosen)} faces of {len({f.person for f in chosen})} people in {output}, {len(learned)} of them, of "
          f"{len({f.person for f in learned})} people, with sliders")


def gradients(frames: list[Frame], aligned: Path, mirrored: bool) -> np.ndarray:
    """(N, 1764) histograms of oriented gradients (Dalal and Triggs, 2005) of aligned faces at 128 pixels."""
    features = cv2.HOGDescriptor((128, 128), (32, 32), (16, 16), (16, 16), 9)
    faces = (decode(aligned / f"{f.path.stem}.png", 128) for f in frames)
    return np.array([features.compute(np.ascontiguousarray(face[:, ::-1] if mirrored else face)).ravel() for face in faces])


def read_directly(frames: list[Frame], fold: int, measured: list[Frame], aligned: Path) -> dict[str, np.ndarray]:
    """Ratios (N,) of measured frames as ridge regression reads them off their gradients, learned from people not held out.

    Raises:
        UserError: a face that is measured is not in `aligned`.
    """
    missing = [f.path.stem for f in measured if not (aligned / f"{f.path.stem}.png").exists()]
    if missing:
        raise UserError(f"{aligned} holds no {missing[0]}.png; run face_alignment.py --input DIR/images --output {aligned} --faces largest first")
    learned = [f for f in frontal_of(frames, _LEARNED) if fold_of(f.person) != fold and (aligned / f"{f.path.stem}.png").exists()]
    truth = ratios(np.array([f.landmarks for f in learned]))
    # Both views of every face; standardised, so that one strength does for all ratios.
    values = np.column_stack(list(truth.values()))
    mean, deviation = values.mean(0), values.std(0)
    y = np.tile((values - mean) / deviation, (2, 1))
    x = np.concatenate([gradients(learned, aligned, mirrored) for mirrored in (False, True)])
    chooses = np.tile([fold_of(f.person) == (fold + 1) % FOLDS for f in learned], 2)
    strength = ridge((x[~chooses], y[~chooses]), (x[chooses], y[chooses]))[2]
    weights, bias, _ = ridge((x, y), (x, y), np.array([strength]))
    read = sum(gradients(measured, aligned, mirrored) @ weights + bias for mirrored in (False, True)) / 2
    return dict(zip(truth, (mean + deviation * read).T))


def by_person(values: np.ndarray, people: np.ndarray) -> np.ndarray:
    """The mean of a person's frames, people in alphabetical order."""
    _, which = np.unique(people, return_inverse=True)
    return np.bincount(which, values) / np.bincount(which)


def halves(values: np.ndarray, people: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(R,) ρ between two halves of people's frames, means of random partings, of R ratios (R, F); those of one frame are left out."""
    _, which, counts = np.unique(people, return_inverse=True, return_counts=True)
    several = counts[which] > 1
    values, people, found = values[:, several], people[several], []
    for _ in range(_PARTINGS):
        # One person after the other, frames at random: every second frame is half of everybody's.
        order = np.lexsort((rng.random(len(people)), people))
        found.append(spearman(*(np.array([by_person(row[half], people[half]) for row in values]) for half in (order[::2], order[1::2]))))
    return np.mean(found, 0)


def compare(photo: np.ndarray, character: np.ndarray, rng: np.random.Generator) -> tuple[list[dict[str, float | list[float]]], list[float]]:
    """Of each of R ratios of N people, (R, N): ρ, its bootstrap interval over people, what chance gives; and the interval of the ρs' median."""
    drawn = rng.integers(0, photo.shape[1], (_DRAWS, photo.shape[1]))
    # A person drawn several times ties with himself; a hair's breadth of noise keeps ranks fair.
    again = spearman(*(v[:, drawn] + rng.normal(0, 1e-9, (len(v), *drawn.shape)) for v in (photo, character)))
    interval = lambda rhos: [float(q) for q in np.quantile(rhos, (0.025, 0.975))]
    found = []
    for of_photo, of_character, rhos in zip(photo, character, again):
        rho, null = float(spearman(of_photo, of_character)), spearman(of_photo[None], rng.permuted(np.tile(of_character, (_DRAWS, 1)), axis=1))
        found.append({"rho": rho, "interval": interval(rhos), "chance_95": float(np.quantile(null, 0.95)),
                      "p": float((1 + (null >= rho).sum()) / (1 + _DRAWS))})
    return found, interval(np.median(again, 0))


def of_run(run: Path) -> Callable[[np.ndarray], np.ndarray | None]:
    """What reads the largest face's sliders (54,) off a photo with a trained run; None where there is no face."""
    predictor, detector = Predictor(run), FaceDetector()
    if predictor.creator_version is None or len(predictor.parameters) != len(NAMES):
        raise UserError(f"{run} learned another game than the embedded creator, whose characters are compared here")

    def predict(photo: np.ndarray) -> np.ndarray | None:
        aligned = predictor.align(photo, detector, "largest")[0]
        return None if aligned is None else predictor.predict([aligned])[0].parameters

    return predict


def predicted(frames: list[Frame], predict: Callable[[np.ndarray], np.ndarray | None]) -> tuple[list[Frame], np.ndarray]:
    """Those of the frames that a face is found in, and its sliders (N, 54)."""
    used, sliders = [], []
    for frame in progress(iterable=frames, desc="predicting", unit="photo"):
        try:
            read = predict(read_rgb(frame.path))
        except UnreadablePicture:
            continue
        if read is not None:
            used.append(frame)
            sliders.append(read)
    return used, np.array(sliders).reshape(-1, len(NAMES))


def measure(frames: list[Frame], predicts: dict[int, Callable[[np.ndarray], np.ndarray | None]], aligned: Path | None = None) -> dict:
    """ρ of every ratio over the people held out, by what predicts make of their photos, (H, W, 3) uint8 each; with `aligned` beside `read_directly`.

    Args:
        predicts: fold → what reads the photos of the people held out in it.
    """
    read_of = {fold: predicted([f for f in frontal_of(frames) if fold_of(f.person) == fold], predict) for fold, predict in predicts.items()}
    people = np.array([f.person for used, _ in read_of.values() for f in used])
    if len(set(people)) < 5:
        raise UserError(f"only {len(set(people))} held-out people have a frontal frame with a face; at least 5 are needed")
    parts = []
    for fold, (of_fold, sliders) in read_of.items():
        if not of_fold:
            continue
        truth, fitter = np.array([f.landmarks for f in of_fold]), fitter_for(frames, fold)
        part = {"photo": ratios(truth), "rho": ratios(fitter.landmarks(sliders)), "ceiling": ratios(fitter.landmarks(fitter.fit(truth)))}
        if aligned:
            part["direct"] = read_directly(frames, fold, of_fold, aligned)
        parts.append({key: np.array(list(values.values())) for key, values in part.items()})
    by_frame = {key: np.concatenate([part[key] for part in parts], 1) for key in parts[0]}
    read = {key: np.array([by_person(row, people) for row in values]) for key, values in by_frame.items()}
    photo, rng = read.pop("photo"), np.random.default_rng(0)
    table, interval = compare(photo, read.pop("rho"), rng)
    found = {key: spearman(photo, values) for key, values in read.items()}
    if (np.unique(people, return_counts=True)[1] > 1).sum() >= 5:
        found["halves"] = halves(by_frame["photo"], people, rng)
    for key, rhos in found.items():
        for row, rho in zip(table, rhos):
            row[key] = float(rho)
    return {"people": len(set(people)), "frames": len(people), "ratios": dict(zip(part["photo"], table)), "median_interval": interval,
            **{f"median_{key}": float(np.median([row[key] for row in table])) for key in ("rho", *found)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder with images/ and landmarks.csv")
    parser.add_argument("--run", type=Path, nargs="+", help="trained run to measure on the people that --fold leaves out; or several, for this fold and those after it")
    parser.add_argument("--known", type=Path, help="instead: folder for a data set of people to train on")
    parser.add_argument("--fold", type=int, choices=range(FOLDS), default=0, help="which fifth of the people is left out (default 0)")
    parser.add_argument("--aligned", type=Path, help="what face_alignment.py made of the photos")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    frames = read_frames(options.photos)
    if options.known is not None:
        if options.aligned is None:
            raise UserError("--known needs --aligned: the folder that face_alignment.py wrote")
        write_known(frames, options.fold, options.aligned, options.known)
        return
    if options.run is None:
        raise UserError("nothing to do: give --run to measure a run, or --known and --aligned to choose whom to train on")
    if options.fold + len(options.run) > FOLDS:
        raise UserError(f"{len(options.run)} runs were given from fold {options.fold} on; expected one a fold, and the last fold is {FOLDS - 1}")
    predicts = {fold: of_run(run) for fold, run in enumerate(options.run, options.fold)}
    result = {"runs": [run.as_posix() for run in options.run]} | measure(frames, predicts, options.aligned)
    print(f"{result['people']} people not trained on, {result['frames']} frontal frames\n")
    beside = [key for key in ("halves", "ceiling", "direct") if f"median_{key}" in result]
    last = lambda v, title="{}": "".join(f"  {v[title.format(key)]:7.2f}" for key in beside)
    print(f"{'ratio':14s} {'rho':>6s}  {'95 % interval':>15s}  {'chance':>6s}" + "".join(f"  {key:>7s}" for key in beside))
    for name, v in result["ratios"].items():
        print(f"{name:14s} {v['rho']:6.2f}  {v['interval'][0]:6.2f} … {v['interval'][1]:5.2f}  {v['chance_95']:6.2f}{last(v)}")
    low, high = result["median_interval"]
    print(f"{'median':14s} {result['median_rho']:6.2f}  {low:6.2f} … {high:5.2f}  {'':6s}{last(result, 'median_{}')}")
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    run_script(main)
