"""Does a detector trained on people take the creator's characters for faces?

    python -m benchmarks.detection --count 1000 [--seed 11] [--json FILE] [--worst FILE]

Renders random faces at 256 px and looks for them with face_alignment's detector at its defaults: the
share with exactly one face, and the distance of its five points from the true ones.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import trange

from datasets.creator import VERSION, Renderer, writer
from models.mtcnn import FaceDetector
from utils.alignment import five_points
from utils.errors import run_script
from utils.files import write_json
from utils.pictures import write_picture

PARTS = ("images", "aug_images")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worst", type=Path, help="picture of the worst cases, found points white, true ones green")
    options = parser.parse_args()
    renderer, detector = Renderer(256), FaceDetector()
    found = {part: [] for part in PARTS}
    errors = {part: [] for part in PARTS}
    cases: list[tuple[float, np.ndarray]] = []
    for first in trange(0, options.count, 16, desc=f"creator {VERSION}"):
        faces = [writer.face(options.seed, i) for i in range(first, min(first + 16, options.count))]
        pictures, landmarks = renderer.render(np.array([f[0] for f in faces]), [f[1:] for f in faces])
        truth = five_points(landmarks)
        for k, part in enumerate(PARTS):
            for i, result in enumerate(detector.detect(torch.from_numpy(pictures[:, k]).permute(0, 3, 1, 2))):
                found[part].append(len(result.scores))
                error = float("inf")
                if len(result.scores) == 1:
                    error = float(np.linalg.norm(result.points[0] - truth[i], axis=1).mean())
                    errors[part].append(error)
                cases.append((error, _overlay(pictures[i, k], truth[i], result.points)))
        cases = sorted(cases, key=lambda case: -case[0])[:32]
    summary = {"creator": VERSION, "count": options.count, "seed": options.seed}
    for part in PARTS:
        counts = np.array(found[part])
        summary[part] = {"exactly_one": float((counts == 1).mean()), "none": float((counts == 0).mean()),
                         "several": float((counts > 1).mean()), "mean_error": float(np.mean(errors[part]))}
        print(f"{part}: exactly one face in {summary[part]['exactly_one']:.1%}, none {summary[part]['none']:.1%}, several "
              f"{summary[part]['several']:.1%}; points {summary[part]['mean_error']:.2f} px from the truth at 256")
    if options.json:
        write_json(options.json, summary)
    if options.worst:
        tiles = [picture for _, picture in cases]
        write_picture(options.worst, np.concatenate([np.concatenate(tiles[i:i + 8], 1) for i in range(0, len(tiles) // 8 * 8, 8)]))


def _overlay(picture: np.ndarray, truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    shown = picture.copy()
    for points, colour in ((truth[None], (0, 255, 0)), (found, (255, 255, 255))):
        for x, y in points.reshape(-1, 2):
            cv2.circle(shown, (round(float(x)), round(float(y))), 3, colour, 1, cv2.LINE_AA)
    return shown


if __name__ == "__main__":
    run_script(main)
