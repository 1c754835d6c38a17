"""What the real aligner costs: R² of test faces found in larger pictures, beside that of their exact frames.

    python -m benchmarks.through_aligner [--run runs/creator] [--count 300] [--json FILE]

Test faces of the run's data set are rendered at 256 pixels. They go to the networks in three ways: as they are; turned,
scaled and shifted at random on a larger canvas, detected and aligned by the detector's points alone; and the same with
the alignment corrected as predict.py does.
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from datasets.labels import find_parts, read_splits
from games.game import Character, EmbeddedGame
from games.writer import read_manifest
from models.predictor import Predictor
from utils.alignment import TEMPLATE_SIZE, warp
from utils.errors import UserError, run_script
from utils.files import write_json
from utils.metrics import parameter_metrics
from utils.progress import progress

#: Side of the canvas, pixels.
_CANVAS = 640

#: Middle of a 256×256 picture: a pixel's centre is at whole coordinates.
_MIDDLE = ((TEMPLATE_SIZE - 1) / 2,) * 2

_MISALIGNMENT = ("log_scale", "degrees", "right_px", "down_px")


class Seen(NamedTuple):
    """A test face and what was predicted from it, by how it was aligned."""

    truth: np.ndarray  #: (P,) parameters
    predicted: dict[str, np.ndarray]  #: way → (P,)
    off: dict[str, list[float]]  #: way → see `off_by`


def onto_canvas(picture: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Put a 256×256 face somewhere on a canvas of 640×640, turned by up to 25°, 0.6 to 1.6 times as large.

    Returns:
        The canvas (640, 640, 3) uint8, and the (2, 3) matrix from the face to it.
    """
    angle, scale = np.radians(rng.uniform(-25, 25)), rng.uniform(0.6, 1.6)
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]])
    room = max(0.0, (_CANVAS - TEMPLATE_SIZE * scale) / 2)
    matrix[:, 2] = _CANVAS / 2 + rng.uniform(-room, room, 2) - matrix[:, :2] @ _MIDDLE
    size = (_CANVAS, _CANVAS)
    canvas = cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return canvas, matrix


def off_by(placed: np.ndarray, alignment: np.ndarray) -> list[float]:
    """How far an alignment puts a placed face from where it was: log scale, degrees, shift right and down in pixels.

    Args:
        placed: (2, 3) matrix from the face to the canvas.
        alignment: (2, 3) matrix from the canvas to the aligned frame.
    """
    linear = alignment[:, :2] @ placed[:, :2]
    shift = linear @ _MIDDLE + alignment[:, :2] @ placed[:, 2] + alignment[:, 2] - _MIDDLE
    log_scale = float(np.log(np.hypot(linear[0, 0], linear[1, 0])))
    degrees = float(np.degrees(np.arctan2(linear[1, 0], linear[0, 0])))
    return [log_scale, degrees, *shift.tolist()]


def held_out_characters(predictor: Predictor, count: int) -> tuple[EmbeddedGame, list[Character]]:
    """The game that a run learned, and the characters of its first test faces.

    Raises:
        UserError: the run learned a game that this project cannot draw.
    """
    root, game = Path(predictor.config.data.root), predictor.game
    manifest = read_manifest(root)
    if game is None or manifest is None or manifest["creator"] != game.version:
        raise UserError(
            f"{root}, which {predictor.run.folder} learned from, was not written by the embedded creator in a version "
            "that can be drawn here"
        )
    splits = read_splits(root, find_parts(root)["images"])
    test = [int(name.rsplit("_", 1)[1]) for name, split in splits.items() if split == "test"][:count]
    return game, [game.character(manifest["seed"], index, manifest["distribution"]) for index in test]


def look_at(character: Character, predictor: Predictor, *, game: EmbeddedGame, rng: np.random.Generator) -> Seen | None:
    """Predict a test face in the three ways; None where the detector does not find it."""
    # Render, place, detect.
    pictures, _ = game.renderer(TEMPLATE_SIZE).render(character.parameters[None], [(character.studio,)])
    photo, placed = onto_canvas(pictures[0, 0], rng)
    detected, _ = predictor.detector.align(photo, "largest")
    if detected is None:
        return None

    # Align, predict.
    matrices = {"by_the_detector": detected, "corrected": predictor.correct(photo, detected)}
    faces = {"exact_frames": pictures[0, 0]}
    for way, matrix in matrices.items():
        faces[way] = warp(photo, matrix, TEMPLATE_SIZE)
    predictions = predictor.predict_aligned(list(faces.values()))
    predicted = {way: found.parameters for way, found in zip(faces, predictions, strict=True)}
    return Seen(character.parameters, predicted, {way: off_by(placed, matrix) for way, matrix in matrices.items()})


def summarise(seen: list[Seen], game: EmbeddedGame) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """Metrics of each way, and the standard deviations of the misalignments that each leaves."""
    truth, groups = np.array([face.truth for face in seen]), [p.group for p in game.parameters]
    metrics = {}
    for way in seen[0].predicted:
        predicted = np.array([face.predicted[way] for face in seen])
        metrics[way] = parameter_metrics(truth, predicted, names=game.names, groups=groups)

    spread = {}
    for way in seen[0].off:
        deviations = np.std([face.off[way] for face in seen], axis=0).round(4).tolist()
        spread[way] = dict(zip(_MISALIGNMENT, deviations, strict=True))
    return metrics, spread


def main() -> None:
    # Parse.
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/creator"), help="trained run (default runs/creator)")
    parser.add_argument("--count", type=int, default=300, help="test faces (default 300)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()

    # Predict.
    predictor, rng = Predictor.load(options.run), np.random.default_rng(0)
    game, characters = held_out_characters(predictor, options.count)
    bar = progress(iterable=characters, desc="predicting", unit="face")
    found = [look_at(character, predictor, game=game, rng=rng) for character in bar]
    seen = [face for face in found if face is not None]
    if not seen:
        raise UserError(f"the detector found none of {len(found)} test faces; nothing can be measured")

    # Report.
    missed = len(found) - len(seen)
    metrics, spread = summarise(seen, game)
    exact = metrics["exact_frames"]["r2"]
    print(f"{len(seen)} test faces, {missed} more not found by the detector; mean R² of exact frames {exact:.4f}")
    for way, deviations in spread.items():
        r2 = metrics[way]["r2"]
        print(
            f"{way.replace('_', ' '):16s} {r2:.4f}, {exact - r2:.4f} lost; "
            f"standard deviation of misalignments: {deviations}"
        )
    if options.json:
        result = {"run": options.run.as_posix(), "faces": len(seen), "not_found": missed, "spread": spread}
        write_json(options.json, result | metrics)


if __name__ == "__main__":
    run_script(main)
