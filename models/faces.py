"""What a face detector found in one picture."""

from typing import NamedTuple

import numpy as np


class Faces(NamedTuple):
    """The faces of one picture, best score first."""

    boxes: np.ndarray  #: (K, 4) float32, x0 y0 x1 y1 in pixels
    scores: np.ndarray  #: (K,) float32 in [0, 1]
    points: np.ndarray  #: (K, 5, 2) float32, x y in pixels, order of `utils.alignment.TEMPLATE`
    evidence: np.ndarray  #: (K,) float32, logits: how much speaks for an upright face, see `models.mtcnn`

    def choose(self, which: str) -> tuple[str, int | None]:
        """The face meant by "one" or "largest": a status ("ok", "no_face", "several_faces") and its index."""
        if not len(self.scores):
            return "no_face", None
        if which == "one" and len(self.scores) > 1:
            return "several_faces", None
        return "ok", self.largest

    @property
    def largest(self) -> int:
        """Index of the face with the largest box."""
        return int(np.argmax((self.boxes[:, 2] - self.boxes[:, 0]) * (self.boxes[:, 3] - self.boxes[:, 1])))

    @property
    def most_evidence(self) -> float:
        """Evidence of the face with the most of it; −∞ where there is no face."""
        return float(self.evidence.max(initial=-np.inf))

    def scaled(self, factors: np.ndarray) -> "Faces":
        """The same faces in the picture resized by factors (2,) of x and y."""
        # Resizing keeps corners in place; pixel centres are half a pixel off them.
        boxes = (self.boxes + 0.5) * np.tile(factors, 2) - 0.5
        return self._replace(boxes=boxes, points=(self.points + 0.5) * factors - 0.5)

    def turned_back(self, quarters: int, *, width: int, height: int) -> "Faces":
        """Faces that were found in a turned copy of a picture, in the pixels of the picture itself.

        The points keep their order: the first eye is on the left when the face is upright.

        Args:
            quarters: 1, 2 or 3, the number of quarter turns, anticlockwise, that made the copy.
            width: of the picture, in pixels.
            height: likewise.
        """

        def back(points: np.ndarray) -> np.ndarray:
            x, y = points[..., 0], points[..., 1]
            right, down = width - 1, height - 1
            pairs = {1: (right - y, x), 2: (right - x, down - y), 3: (y, down - x)}
            return np.stack(pairs[quarters], -1)

        corners = back(self.boxes.reshape(-1, 2, 2))
        boxes = np.concatenate([corners.min(1), corners.max(1)], 1)
        return self._replace(boxes=boxes, points=back(self.points))
