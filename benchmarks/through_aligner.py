"""What the real aligner costs: R² of test faces found in larger pictures, beside that of their exact frames.

    python -m benchmarks.through_aligner --run runs/creator [--count 300] [--json FILE]

Test faces of the run's data set are rendered at 256 pixels. Once they go to the networks as they are; then they
are turned, scaled and shifted by random amounts onto a larger canvas, detected, aligned and predicted: by the
detector's points alone, and with the alignment corrected as predict.py does.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from datasets.creator import NAMES, VERSION, Renderer, writer
from datasets.faces import creator_settings
from datasets.hs_face import find_parts, read_splits
from models.mtcnn import FaceDetector
from predict import Predictor
from utils.alignment import alignment_transform, warp
from utils.errors import UserError, run_script
from utils.files import write_json
from utils.metrics import parameter_metrics
from utils.progress import progress

_CANVAS = 640


def onto_canvas(picture: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A 256×256 face turned by up to 25°, 0.6 to 1.6 times as large, somewhere on a canvas of 640×640, and the (2, 3) matrix of that."""
    angle, scale = np.radians(rng.uniform(-25, 25)), rng.uniform(0.6, 1.6)
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]])
    room = max(0.0, (_CANVAS - 256 * scale) / 2)
    matrix[:, 2] = _CANVAS / 2 + rng.uniform(-room, room, 2) - matrix[:, :2] @ (127.5, 127.5)
    return cv2.warpAffine(picture, matrix, (_CANVAS, _CANVAS), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE), matrix


def off_by(placed: np.ndarray, alignment: np.ndarray) -> list[float]:
    """How far an alignment puts a placed face from where it was: log scale, degrees, shift right and down in pixels."""
    linear = alignment[:, :2] @ placed[:, :2]
    shift = linear @ (127.5, 127.5) + alignment[:, :2] @ placed[:, 2] + alignment[:, 2] - 127.5
    return [float(np.log(np.hypot(linear[0, 0], linear[1, 0]))), float(np.degrees(np.arctan2(linear[1, 0], linear[0, 0]))), *shift.tolist()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/creator"))
    parser.add_argument("--count", type=int, default=300, help="test faces (default 300)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    predictor, detector = Predictor(options.run), FaceDetector()
    root = Path(predictor.config.data.root)
    settings = creator_settings(root)
    if settings is None or settings["creator"] != VERSION:
        raise UserError(f"{root}, which {options.run} learned from, was not written by version {VERSION} of the embedded creator")
    splits = read_splits(root, find_parts(root)["images"])
    indices = [int(name.rsplit("_", 1)[1]) for name, split in splits.items() if split == "test"][:options.count]
    renderer, rng = Renderer(256), np.random.default_rng(0)
    truth, missed = [], 0
    predicted: dict[str, list] = {"exact_frames": [], "by_the_detector": [], "corrected": []}
    off: dict[str, list] = {"by_the_detector": [], "corrected": []}
    for face in progress(iterable=indices, desc="predicting", unit="face"):
        parameters, look, _ = writer.face(settings["seed"], face, settings["distribution"])
        picture = renderer.render(parameters[None], [(look,)])[0][0, 0]
        photo, placed = onto_canvas(picture, rng)
        detected = detector.find(photo)
        index = detected.choose("largest")[1]
        if index is None:
            missed += 1
            continue
        matrices = {"by_the_detector": alignment_transform(detected.points[index].astype(np.float64), 256)}
        matrices["corrected"] = predictor.corrected(photo, matrices["by_the_detector"])
        faces = predictor.predict([picture, *(warp(photo, matrix, 256) for matrix in matrices.values())])
        truth.append(parameters)
        for way, seen in zip(predicted, faces):
            predicted[way].append(seen.parameters)
        for way, matrix in matrices.items():
            off[way].append(off_by(placed, matrix))
    groups = [p.group for p in predictor.parameters]
    found = {way: parameter_metrics(np.array(truth), np.array(values), list(NAMES), groups) for way, values in predicted.items()}
    spread = {way: dict(zip(("log_scale", "degrees", "right_px", "down_px"), np.std(values, axis=0).round(4).tolist())) for way, values in off.items()}
    exact = found["exact_frames"]["r2"]
    print(f"{len(truth)} test faces, {missed} more not found by the detector; mean R² of exact frames {exact:.4f}")
    for way in off:
        print(f"{way.replace('_', ' '):16s} {found[way]['r2']:.4f}, {exact - found[way]['r2']:.4f} lost; standard deviation of frames: {spread[way]}")
    if options.json:
        write_json(options.json, {"run": options.run.as_posix(), "faces": len(truth), "not_found": missed, "spread": spread, **found})


if __name__ == "__main__":
    run_script(main)
