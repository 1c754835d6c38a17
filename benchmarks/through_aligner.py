"""What the real aligner costs: R² of test faces found in larger pictures, beside that of their exact frames.

    python -m benchmarks.through_aligner --run runs/creator [--count 300] [--json FILE]

Test faces of the run's data set are rendered at 256 pixels. Once they go to the networks as they are; once they
are turned, scaled and shifted by random amounts onto a larger canvas, detected, aligned and then predicted.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from datasets.creator import NAMES, VERSION, Renderer, writer
from datasets.faces import creator_settings
from datasets.hs_face import find_parts, read_splits
from models.mtcnn import FaceDetector
from predict import Predictor, align_photo
from utils.errors import UserError, run_script
from utils.files import write_json
from utils.metrics import parameter_metrics
from utils.progress import progress

_CANVAS = 640


def onto_canvas(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A 256×256 face turned by up to 25°, 0.6 to 1.6 times as large, somewhere on a canvas of 640×640."""
    angle, scale = np.radians(rng.uniform(-25, 25)), rng.uniform(0.6, 1.6)
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]])
    room = max(0.0, (_CANVAS - 256 * scale) / 2)
    matrix[:, 2] = _CANVAS / 2 + rng.uniform(-room, room, 2) - matrix[:, :2] @ (127.5, 127.5)
    return cv2.warpAffine(picture, matrix, (_CANVAS, _CANVAS), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


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
    truth, exact, through, missed = [], [], [], 0
    for index in progress(iterable=indices, desc="predicting", unit="face"):
        parameters, look, _ = writer.face(settings["seed"], index, settings["distribution"])
        picture = renderer.render(parameters[None], [(look,)])[0][0, 0]
        aligned, _ = align_photo(onto_canvas(picture, rng), detector, "largest")
        if aligned is None:
            missed += 1
            continue
        one, other = predictor.predict([picture, aligned])
        truth.append(parameters), exact.append(one.parameters), through.append(other.parameters)
    groups = [p.group for p in predictor.parameters]
    found = {name: parameter_metrics(np.array(truth), np.array(predicted), list(NAMES), groups)
             for name, predicted in (("exact_frames", exact), ("through_the_aligner", through))}
    before, after = (m["r2"] for m in found.values())
    print(f"{len(truth)} test faces, {missed} more not found by the detector; mean R² of exact frames {before:.4f}, "
          f"through the aligner {after:.4f}: {before - after:.4f} lost")
    if options.json:
        write_json(options.json, {"run": options.run.as_posix(), "faces": len(truth), "not_found": missed, **found})


if __name__ == "__main__":
    run_script(main)
