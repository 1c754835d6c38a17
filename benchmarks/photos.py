"""How much of a person a predicted character keeps: facial ratios of real photos against those of the characters.

    python -m benchmarks.photos --photos DIR --known FOLDER --aligned ALIGNED   links the faces of people to train on
    python -m benchmarks.photos --photos DIR --run RUN [--json FILE]            measures on the other people

DIR holds images/ and landmarks.csv: name, person, x0, y0 … of 68 iBUG points. People are held out by name: one
of five by SHA-256. ALIGNED is what face_alignment.py made of DIR/images; put FOLDER among a run's data.folders,
so that its VAE knows photos, of other people. Measured are frontal frames that `predict.py` finds one face in
(the largest), each person's averaged.

For each ratio: Spearman's ρ over people between photo and predicted character, its 95 % interval by bootstrap
over people, the ρ that 95 % of random pairings stay below, and as ceiling the ρ of characters whose sliders were
fitted to the photo's landmarks themselves.
"""

import argparse
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.alignment import read_annotations
from datasets.creator import NAMES, Renderer, looks
from models.mtcnn import FaceDetector
from predict import Predictor
from utils.alignment import alignment_transform, five_points, transform_points
from utils.errors import UserError, run_script
from utils.files import write_json
from utils.pictures import UnreadablePicture, find_pictures, read_rgb
from utils.progress import progress

_DRAWS = 2000


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


def is_frontal(landmarks: np.ndarray) -> np.ndarray:
    """(N,) bool: the nose tip lies 0.42 to 0.58 of the way from jaw point 0 to 16."""
    across = landmarks[:, 16] - landmarks[:, 0]
    share = ((landmarks[:, 30] - landmarks[:, 0]) * across).sum(-1) / np.square(across).sum(-1)
    return (share >= 0.42) & (share <= 0.58)


def is_held_out(person: str) -> bool:
    return int.from_bytes(hashlib.sha256(person.encode()).digest()[:8], "big") % 5 == 0


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


def copy_known(frames: list[Frame], aligned: Path, output: Path) -> None:
    """Copy the aligned faces of people who are not held out to a folder of their own."""
    output.mkdir(parents=True, exist_ok=True)
    chosen = [f for f in frames if not is_held_out(f.person) and (aligned / f"{f.path.stem}.png").exists()]
    if not chosen:
        raise UserError(f"{aligned} holds no aligned face of these photos; run face_alignment.py --input DIR/images --output {aligned} first")
    for frame in chosen:
        shutil.copyfile(aligned / f"{frame.path.stem}.png", output / f"{frame.path.stem}.png")
    print(f"{len(chosen)} faces of {len({f.person for f in chosen})} people in {output}")


class Fitter:
    """Sliders whose character's landmarks, aligned, come nearest to given ones: the best any prediction could do.

    Gauss-Newton with the Jacobian of the average character and a pull towards it, as 136 numbers and noise do not
    decide 54 sliders. Every step is kept in [0, 1] and taken only where it helps.
    """

    def __init__(self, pull: float = 8.0, steps: int = 8) -> None:
        self.renderer, self.steps = Renderer(256), steps
        count = len(NAMES)
        around = np.full((2 * count, count), 0.5)
        around[np.arange(count), np.arange(count)] += 0.25
        around[count + np.arange(count), np.arange(count)] -= 0.25
        points = self.landmarks(around).reshape(2, count, -1)
        jacobian = ((points[0] - points[1]) / 0.5).T
        self._solve = np.linalg.solve(jacobian.T @ jacobian + pull ** 2 * np.eye(count), np.column_stack([jacobian.T, pull ** 2 * np.eye(count)]))
        self.pull = pull

    def landmarks(self, parameters: np.ndarray) -> np.ndarray:
        """(N, 68, 2) of characters seen from the front, in the aligned frame of 256 pixels."""
        return self.renderer.landmarks(parameters, [looks.neutral()] * len(parameters))

    def fit(self, landmarks: np.ndarray) -> np.ndarray:
        """(N, 68, 2) landmarks in pictures' pixels → (N, 54) sliders."""
        target = transform_points(alignment_transform(five_points(landmarks), 256), landmarks)
        current = np.full((len(target), len(NAMES)), 0.5)
        missing = (target - self.landmarks(current)).reshape(len(target), -1)
        cost = self._cost(missing, current)
        for _ in range(self.steps):
            move = np.column_stack([missing, 0.5 - current]) @ self._solve.T
            proposed = (current + 0.7 * move).clip(0, 1)
            left = (target - self.landmarks(proposed)).reshape(len(target), -1)
            better = (new := self._cost(left, proposed)) < cost
            current[better], missing[better], cost[better] = proposed[better], left[better], new[better]
        return current

    def _cost(self, missing: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        return np.square(missing).sum(1) + self.pull ** 2 * np.square(parameters - 0.5).sum(1)


def by_person(values: np.ndarray, people: np.ndarray) -> np.ndarray:
    """The mean of a person's frames, people in alphabetical order."""
    _, which = np.unique(people, return_inverse=True)
    return np.bincount(which, values) / np.bincount(which)


def compare(photo: np.ndarray, character: np.ndarray, rng: np.random.Generator) -> dict[str, float | list[float]]:
    """ρ over people, its bootstrap interval, and what chance gives."""
    drawn = rng.integers(0, len(photo), (_DRAWS, len(photo)))
    shuffled = rng.permuted(np.tile(character, (_DRAWS, 1)), axis=1)
    # A person drawn several times ties with himself; a hair's breadth of noise keeps ranks fair.
    spread = [v[drawn] + rng.normal(0, 1e-9, drawn.shape) for v in (photo, character)]
    rho, null = float(spearman(photo, character)), spearman(photo[None], shuffled)
    return {"rho": rho, "interval": [float(q) for q in np.quantile(spearman(*spread), (0.025, 0.975))],
            "chance_95": float(np.quantile(null, 0.95)), "p": float((1 + (null >= rho).sum()) / (1 + _DRAWS))}


def of_run(run: Path) -> Callable[[np.ndarray], np.ndarray | None]:
    """What reads the largest face's sliders (54,) off a photo with a trained run; None where there is no face."""
    predictor, detector = Predictor(run), FaceDetector()
    if predictor.creator_version is None or len(predictor.parameters) != len(NAMES):
        raise UserError(f"{run} learned another game than the embedded creator, whose characters are compared here")

    def predict(photo: np.ndarray) -> np.ndarray | None:
        aligned = predictor.align(photo, detector, "largest")[0]
        return None if aligned is None else predictor.predict([aligned])[0].parameters

    return predict


def measure(frames: list[Frame], predict: Callable[[np.ndarray], np.ndarray | None]) -> dict:
    """ρ of every ratio over the people held out, by what `predict` makes of their photos, (H, W, 3) uint8 each."""
    landmarks = np.array([f.landmarks for f in frames])
    frames = [f for f, frontal in zip(frames, is_frontal(landmarks)) if frontal and is_held_out(f.person)]
    used, predicted = [], []
    for frame in progress(iterable=frames, desc="predicting", unit="photo"):
        try:
            sliders = predict(read_rgb(frame.path))
        except UnreadablePicture:
            continue
        if sliders is not None:
            used.append(frame)
            predicted.append(sliders)
    if len({f.person for f in used}) < 5:
        raise UserError(f"only {len({f.person for f in used})} held-out people have a frontal frame with a face; at least 5 are needed")
    people, truth = np.array([f.person for f in used]), np.array([f.landmarks for f in used])
    fitter, photo = Fitter(), ratios(truth)
    character, fitted = ratios(fitter.landmarks(np.array(predicted))), ratios(fitter.landmarks(fitter.fit(truth)))
    rng = np.random.default_rng(0)
    table = {}
    for name, values in photo.items():
        of_photo, of_character, of_fitted = (by_person(v, people) for v in (values, character[name], fitted[name]))
        table[name] = compare(of_photo, of_character, rng) | {"ceiling": float(spearman(of_photo, of_fitted))}
    return {"people": len(set(people)), "frames": len(used), "ratios": table,
            "median_rho": float(np.median([v["rho"] for v in table.values()])),
            "median_ceiling": float(np.median([v["ceiling"] for v in table.values()]))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder with images/ and landmarks.csv")
    parser.add_argument("--run", type=Path, help="trained run to measure")
    parser.add_argument("--known", type=Path, help="instead: folder for the aligned faces of people to train on")
    parser.add_argument("--aligned", type=Path, help="with --known: what face_alignment.py made of the photos")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    frames = read_frames(options.photos)
    if options.known is not None:
        if options.aligned is None:
            raise UserError("--known needs --aligned: the folder that face_alignment.py wrote")
        copy_known(frames, options.aligned, options.known)
        return
    if options.run is None:
        raise UserError("nothing to do: give --run to measure a run, or --known and --aligned to choose whom to train on")
    result = {"run": options.run.as_posix()} | measure(frames, of_run(options.run))
    print(f"{result['people']} people not trained on, {result['frames']} frontal frames\n")
    print(f"{'ratio':14s} {'rho':>6s}  {'95 % interval':>15s}  {'chance':>6s}  {'ceiling':>7s}")
    for name, v in result["ratios"].items():
        print(f"{name:14s} {v['rho']:6.2f}  {v['interval'][0]:6.2f} … {v['interval'][1]:5.2f}  {v['chance_95']:6.2f}  {v['ceiling']:7.2f}")
    print(f"{'median':14s} {result['median_rho']:6.2f}  {'':15s}  {'':6s}  {result['median_ceiling']:7.2f}")
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    run_script(main)
