"""How far do the detector's five points move where the face does not?

    python -m benchmarks.detector_noise --count 320 [--seed 13] [--json FILE]

Renders random faces at 256 px, changes each picture in ways that leave the face where it is, and measures how far the
five points have moved on average. datasets.variants refuses a variant whose points moved further than this noise: its
default --tolerance (`TOLERANCE` in datasets/variants/recipe.py) is the 97.5th percentile of "small changes".
Two more rows say what that is worth: the game's own photo-like variant (the same head in other light and colours) and
the render of another character, which a gate should refuse.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from datasets.variants.gate import mean_move
from datasets.variants.recipe import TOLERANCE
from games.game import EmbeddedGame, default_game
from models.mtcnn import FaceDetector
from utils.alignment import TEMPLATE_SIZE
from utils.errors import UserError, run_script
from utils.files import write_json

#: Faces that are rendered at a time.
_BLOCK = 16

#: How far "moved" moves a picture, in pixels to the right and down; it is taken off again.
_SHIFT = np.array((3.4, -2.7))

#: Rows that are no small changes: the game's own variant, and another character.
_VARIANT, _STRANGER = "variant", "another character"

#: Percentiles that are printed.
_PERCENTILES = (5, 50, 90, 95, 97.5, 99)


def halved(picture: np.ndarray) -> np.ndarray:
    """Shrunk to half its side and enlarged again."""
    height, width = picture.shape[:2]
    small = cv2.resize(picture, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def compressed(picture: np.ndarray) -> np.ndarray:
    """Through JPEG at quality 50."""
    _, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 50])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1]


def blurred(picture: np.ndarray) -> np.ndarray:
    """Through a Gaussian of 1.5 pixels."""
    return cv2.GaussianBlur(picture, (0, 0), 1.5)


def noisy(picture: np.ndarray) -> np.ndarray:
    """With normal noise of 8 of 255 levels, the same one on every picture."""
    noise = np.random.default_rng(0).normal(0, 8, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def darker(picture: np.ndarray) -> np.ndarray:
    """With a gamma of 1.5."""
    return _with_gamma(picture, 1.5)


def brighter(picture: np.ndarray) -> np.ndarray:
    """With a gamma of 1 / 1.5."""
    return _with_gamma(picture, 1 / 1.5)


def _with_gamma(picture: np.ndarray, gamma: float) -> np.ndarray:
    return ((picture / 255.0) ** gamma * 255 + 0.5).astype(np.uint8)


def moved(picture: np.ndarray) -> np.ndarray:
    """Moved by a few pixels and a fraction; what the detector says is moved back before it is compared."""
    matrix = np.column_stack([np.eye(2), _SHIFT])
    height, width = picture.shape[:2]
    return cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    function.__name__: function for function in (halved, compressed, blurred, noisy, darker, brighter, moved)
}


def measure_block(game: EmbeddedGame, detector: FaceDetector, *, seed: int, indices: range) -> dict[str, list[float]]:
    """Change → how far the five points moved in each face, pixels; infinite where no face was found."""
    characters = [game.character(seed, i) for i in indices]
    parameters, looks = np.array([c.parameters for c in characters]), [(c.studio, c.photo) for c in characters]
    pictures, _ = game.renderer(TEMPLATE_SIZE).render(parameters, looks)

    moves: dict[str, list[float]] = {name: [] for name in (*CHANGES, _VARIANT, _STRANGER)}
    for k, (render, variant) in enumerate(pictures):
        before = points_in(detector, render)
        if before is None:
            continue  # there is nothing to compare with
        changed = {name: change(render) for name, change in CHANGES.items()}
        changed |= {_VARIANT: variant, _STRANGER: pictures[k - 1, 0]}
        for name, picture in changed.items():
            after = points_in(detector, np.ascontiguousarray(picture))
            if after is not None and name == "moved":
                after = after - _SHIFT
            moves[name].append(float("inf") if after is None else mean_move(before, after, side=TEMPLATE_SIZE))
    return moves


def points_in(detector: FaceDetector, picture: np.ndarray) -> np.ndarray | None:
    """The five points (5, 2) of the largest face in a picture; None without a face."""
    faces = detector.find(picture)
    _, index = faces.choose("largest")
    return None if index is None else faces.points[index]


def summary_of(moves: list[float]) -> dict[str, float]:
    """Percentiles of the moves, pixels, where a face was found; and the fraction of moves that the gate lets pass."""
    distances = np.array(moves)
    found = distances[np.isfinite(distances)]
    summary = {f"p{percent}": float(np.percentile(found, percent)) for percent in _PERCENTILES}
    return summary | {"found": len(found) / len(distances), "passed": float((distances <= TOLERANCE).mean())}


def main() -> None:
    # Parse.
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=320, help="characters (default 320)")
    parser.add_argument("--seed", type=int, default=13, help="of the characters (default 13)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if options.count < 2:
        raise UserError(f"--count is {options.count}; expected at least 2")

    # Measure.
    game, detector = default_game(), FaceDetector()
    moves: dict[str, list[float]] = {name: [] for name in (*CHANGES, _VARIANT, _STRANGER)}
    for first in tqdm(range(0, options.count, _BLOCK), desc=f"creator {game.version}"):
        block = range(first, min(first + _BLOCK, options.count))
        for name, distances in measure_block(game, detector, seed=options.seed, indices=block).items():
            moves[name] += distances
    if not moves[_VARIANT]:
        raise UserError("the detector found no face in any render; raise --count")

    # Report.
    rows = {"small changes": [move for name in CHANGES for move in moves[name]]} | moves
    result: dict[str, Any] = {"creator": game.version, "count": options.count}
    result |= {"seed": options.seed, "tolerance": TOLERANCE}
    print(f"{'mean move of the five points, px':32} {'found':>7} {f'<= {TOLERANCE:g}':>8}", end="")
    print("".join(f"{f'{percent:g} %':>8}" for percent in _PERCENTILES))
    for name, distances in rows.items():
        found = result[name] = summary_of(distances)
        percentiles = "".join(f"{found[f'p{percent}']:8.2f}" for percent in _PERCENTILES)
        print(f"{name:32} {found['found']:7.1%} {found['passed']:8.1%}{percentiles}")
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    run_script(main)
