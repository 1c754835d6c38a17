"""The 68 iBUG landmarks of the head: fixed vertices, and for the jaw of a turned head the outline."""

import json
from functools import cache

import numpy as np

from games.makehuman.data import ASSETS, HeadData

JAW = 17  #: the first 17 landmarks
_RAY_WIDTH = 0.07  #: decimetres beside a jaw point's ray within which its outline is looked for


@cache
def landmark_vertices() -> tuple[tuple[int, ...], ...]:
    """For each landmark one or two vertices of base.obj, whose mean it is."""
    content = json.loads((ASSETS / "landmarks.json").read_text(encoding="utf-8"))
    return tuple(tuple(vertices) for vertices in content["vertices"])


class Landmarks:
    """Finds the landmarks among the vertices of a `HeadData`."""

    def __init__(self, head: HeadData, rest: np.ndarray) -> None:
        """rest: (V, 3) positions of the head without any target."""
        place = {int(vertex): i for i, vertex in enumerate(head.vertices)}
        pairs = [[place[v] for v in vertices] for vertices in landmark_vertices()]
        self._pairs = np.array([(pair[0], pair[-1]) for pair in pairs])

        # The candidates of a jaw point lie along the ray from the middle of the face through it, not behind it.
        points = self.fixed(rest)
        skin = np.unique(head.quads[head.parts == 0])
        skin = skin[(head.masks[skin, 3] < 0.2) & (rest[skin, 2] > 0)]
        middle = np.array([0.0, (points[33, 1] + points[51, 1]) / 2])
        offsets = points[:JAW, :2] - middle
        self.rays = offsets / np.linalg.norm(offsets, axis=1)[:, None]
        candidates = [self._along(rest, skin, point=points[k], middle=middle, ray=self.rays[k]) for k in range(JAW)]

        # Keep what decides landmarks, and where it is among that; the point itself fills the lists of candidates.
        self.vertices = np.unique(np.concatenate([self._pairs.ravel(), *candidates]))
        longest = max(map(len, candidates))
        filled = [
            np.append(c, np.repeat(own, longest - len(c)))
            for c, own in zip(candidates, self._pairs[:JAW, 0], strict=True)
        ]
        self._decisive_pairs = np.searchsorted(self.vertices, self._pairs)
        self._candidates = np.searchsorted(self.vertices, filled)

    def _along(
        self, rest: np.ndarray, skin: np.ndarray, *, point: np.ndarray, middle: np.ndarray, ray: np.ndarray
    ) -> np.ndarray:
        """The vertices that may be the outline in a ray's direction."""
        offsets = rest[skin, :2] - middle
        along = offsets @ ray
        beside = np.abs(offsets @ np.array([-ray[1], ray[0]]))
        reach = np.linalg.norm(point[:2] - middle)
        chosen = (
            (beside < _RAY_WIDTH) & (along > 0.5 * reach) & (along < reach + 1e-6) & (rest[skin, 2] > point[2] - 1e-6)
        )
        return skin[chosen]

    def fixed(self, positions: np.ndarray) -> np.ndarray:
        """(..., 68, C) landmarks of vertices (..., V, C), wherever the head is seen from."""
        return positions[..., self._pairs, :].mean(-2)

    def seen(self, points: np.ndarray) -> np.ndarray:
        """(B, 68, 2) landmarks of pictures in which `vertices` lie at (B, M, 2), x to the right and y down.

        A jaw point that the turned head hides moves to the outline, as an annotator would put it.
        """
        landmarks = points[:, self._decisive_pairs].mean(-2)
        candidates = points[:, self._candidates]
        ways = self.rays * (1, -1)
        outward = (candidates * ways[:, None]).sum(-1)
        furthest = outward.argmax(-1)[..., None]
        jaw = landmarks[:, :JAW]
        hidden = np.take_along_axis(outward, furthest, -1) > (jaw * ways).sum(-1, keepdims=True)
        outline = np.take_along_axis(candidates, furthest[..., None], 2)[:, :, 0]
        landmarks[:, :JAW] = np.where(hidden, outline, jaw)
        return landmarks
