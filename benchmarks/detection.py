"""Does a detector trained on people take the creator's characters for faces?

    python -m benchmarks.detection --count 1000 [--seed 11] [--json FILE] [--worst FILE]

Renders random faces at 256 px and looks for them with the detector of face_alignment.py at its defaults. Says how many
have exactly one face found, and how far its five points lie from the true ones.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from tqdm import trange

from games.game import EmbeddedGame, default_game
from models.mtcnn import FaceDetector
from utils.alignment import TEMPLATE_SIZE, five_points
from utils.errors import run_script
from utils.files import write_json
from utils.pictures import grid, write_picture

PARTS = ("images", "aug_images")

#: Faces that are searched at a time.
_BLOCK = 16

#: How many of the worst cases are shown, and in how many columns.
_WORST, _COLUMNS = 32, 8


class Case(NamedTuple):
    """What the detector found in one picture."""

    part: str  #: one of `PARTS`
    faces: int  #: number of faces found
    error: float  #: mean distance of the five points, pixels; infinite where not exactly one face was found
    picture: np.ndarray  #: (256, 256, 3) uint8, the points drawn into it


def detect_block(game: EmbeddedGame, detector: FaceDetector, *, seed: int, indices: range) -> list[Case]:
    """Look for the faces of some characters, each in its render and in its photo-like variant."""
    characters = [game.character(seed, i) for i in indices]
    parameters, looks = np.array([c.parameters for c in characters]), [(c.studio, c.photo) for c in characters]
    pictures, landmarks = game.renderer(TEMPLATE_SIZE).render(parameters, looks)
    truth = five_points(landmarks)

    cases = []
    for k, part in enumerate(PARTS):
        found = detector.detect(torch.from_numpy(pictures[:, k]).permute(0, 3, 1, 2))
        for picture, points, faces in zip(pictures[:, k], truth, found, strict=True):
            error = float("inf")
            if len(faces.scores) == 1:
                error = float(np.linalg.norm(faces.points[0] - points, axis=1).mean())
            cases.append(Case(part, len(faces.scores), error, _overlay(picture, points, faces.points)))
    return cases


def summary_of(faces: list[int], errors: list[float]) -> dict[str, float]:
    """Fractions of pictures by the number of faces found, and the mean error where exactly one was."""
    counts, distances = np.array(faces), np.array(errors)
    return {
        "exactly_one": float((counts == 1).mean()),
        "none": float((counts == 0).mean()),
        "several": float((counts > 1).mean()),
        "mean_error": float(distances[np.isfinite(distances)].mean()),
    }


def _overlay(picture: np.ndarray, truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    shown = picture.copy()
    for points, colour in ((truth[None], (0, 255, 0)), (found, (255, 255, 255))):
        for x, y in points.reshape(-1, 2):
            cv2.circle(shown, (round(float(x)), round(float(y))), 3, colour, 1, cv2.LINE_AA)
    return shown


def main() -> None:
    # Parse.
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="characters (default 1000)")
    parser.add_argument("--seed", type=int, default=11, help="of the characters (default 11)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--worst", type=Path, help="picture of the worst cases, found points white, true ones green")
    options = parser.parse_args()

    # Detect.
    game, detector = default_game(), FaceDetector()
    faces: dict[str, list[int]] = {part: [] for part in PARTS}
    errors: dict[str, list[float]] = {part: [] for part in PARTS}
    worst: list[Case] = []
    for first in trange(0, options.count, _BLOCK, desc=f"creator {game.version}"):
        indices = range(first, min(first + _BLOCK, options.count))
        cases = detect_block(game, detector, seed=options.seed, indices=indices)
        for case in cases:
            faces[case.part].append(case.faces)
            errors[case.part].append(case.error)
        worst = sorted(worst + cases, key=lambda case: -case.error)[:_WORST]

    # Report.
    result: dict[str, Any] = {"creator": game.version, "count": options.count, "seed": options.seed}
    for part in PARTS:
        found = result[part] = summary_of(faces[part], errors[part])
        print(
            f"{part}: exactly one face in {found['exactly_one']:.1%}, none {found['none']:.1%}, several "
            f"{found['several']:.1%}; points {found['mean_error']:.2f} px from the truth at 256"
        )
    if options.json:
        write_json(options.json, result)
    if options.worst:
        write_picture(options.worst, grid(np.stack([case.picture for case in worst]), _COLUMNS))


if __name__ == "__main__":
    run_script(main)
