"""The gate that keeps labels true: a variant counts where the face's five points stayed where the render has them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from utils.alignment import TEMPLATE_SIZE

#: How often the variant of a render is drawn before it is left out.
ATTEMPTS = 3

#: A picture (H, W, 3) uint8 RGB → the five points (5, 2) of its largest face, in its pixels; None without a face.
PointFinder = Callable[[np.ndarray], np.ndarray | None]


class Outcome(NamedTuple):
    """What became of a render's variant."""

    variant: np.ndarray | None  #: (S, S, 3) uint8 RGB; None where it is left out
    attempts: int  #: how often it was drawn
    moved: float  #: how far the points have moved in the last one, as `mean_move` says
    reason: str  #: why it is left out; "" for a variant


def draw_checked(
    render: np.ndarray, draw: Callable[[np.ndarray, int], np.ndarray], find: PointFinder, *, tolerance: float
) -> Outcome:
    """Draw the variant of a render until its points lie where the render's lie, at most `ATTEMPTS` times.

    Args:
        render: (S, S, 3) uint8 RGB.
        draw: a render and the number of the attempt, from 0 on → a variant of the same shape.
        find: of both pictures' points.
        tolerance: how far the points may have moved, as `mean_move` measures it.
    """
    before = find(render)
    if before is None:
        return Outcome(None, 0, float("inf"), "no face found in the render")

    found = []
    for attempt in range(ATTEMPTS):
        variant = draw(render, attempt)
        after = find(variant)
        moved = float("inf") if after is None else mean_move(before, after, side=len(render))
        if moved <= tolerance:
            return Outcome(variant, attempt + 1, moved, "")
        found.append("no face found" if after is None else f"points moved by {moved:.1f} px")
    return Outcome(None, ATTEMPTS, moved, f"{', '.join(found)}; {tolerance:g} px are allowed")


def mean_move(before: np.ndarray, after: np.ndarray, *, side: int) -> float:
    """How far the five points have moved: their mean distance, in pixels of a 256×256 picture.

    It tells characters apart better than the largest of the five distances (docs/relief.md, "The gate of variants").

    Args:
        before, after: (5, 2) points in pixels of a picture of side×side.
    """
    moves = np.linalg.norm(np.asarray(after, np.float64) - np.asarray(before, np.float64), axis=1)
    return float(moves.mean()) * TEMPLATE_SIZE / side
