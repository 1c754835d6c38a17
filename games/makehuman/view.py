"""How a look's pose and lens show a head: positions in decimetres → pixels of the aligned picture."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from games.makehuman.looks import Look
from games.makehuman.rig import Rig
from utils.alignment import alignment_transform, five_points, transform_points

_PIVOT = np.array([0.0, -0.35, -0.75])  #: from the middle between the eyes: what the head turns about
_SCALE = 400.0  #: pixels per decimetre of the plane before alignment; any number will do


class View(NamedTuple):
    """A turned head before a camera, and where alignment puts it."""

    rotation: (
        np.ndarray
    )  #: (3, 3) from the head's axes to the camera's: x to the picture's right, y up, z to the viewer
    pivot: np.ndarray  #: (3,)
    distance: float  #: from the camera to the pivot
    transform: np.ndarray  #: (2, 3) from the camera's plane to pixels of the aligned picture

    def turned(self, positions: np.ndarray) -> np.ndarray:
        """(3, N) float32: positions (N, 3) in the camera's axes about the pivot."""
        return self.rotation.astype(np.float32) @ (positions - self.pivot.astype(np.float32)).T

    def pixels(self, turned: np.ndarray) -> np.ndarray:
        """(2, N) float32 pixels of the aligned picture of turned positions (3, N)."""
        (a, b, right), (c, d, down) = self.transform.astype(np.float32)
        x, y = _plane(turned.astype(np.float32, copy=False), distance=np.float32(self.distance))
        return np.stack([a * x + b * y + right, c * x + d * y + down])


def _plane(turned: np.ndarray, *, distance: np.ndarray | np.float32) -> tuple[np.ndarray, np.ndarray]:
    """x and y, (…, N) each, of turned positions (3, …, N) in the camera's plane, y downwards."""
    nearness = np.float32(_SCALE) * distance / (distance - turned[2])
    return turned[0] * nearness, -turned[1] * nearness


def look_at(rig: Rig, positions: np.ndarray, looks: Sequence[Look], *, size: int) -> tuple[list[View], np.ndarray]:
    """The views of coarse heads (B, V, 3), and their (B, 68, 2) landmarks in the pixels of size×size pictures."""
    rotations = np.array([_rotation(look) for look in looks])
    distances = np.array([look.distance for look in looks])
    eyes = np.mean([positions[:, eye].mean(1) for eye in rig.eyes], axis=0, dtype=np.float64)
    pivots = eyes + _PIVOT

    turned = (positions[:, rig.landmarks.vertices] - pivots[:, None]) @ rotations.swapaxes(1, 2)
    landmarks = rig.landmarks.seen(np.stack(_plane(np.moveaxis(turned, -1, 0), distance=distances[:, None]), -1))
    transforms = alignment_transform(five_points(landmarks), size)
    views = [View(*of_face) for of_face in zip(rotations, pivots, distances.tolist(), transforms, strict=True)]
    return views, transform_points(transforms, landmarks)


def _rotation(look: Look) -> np.ndarray:
    """(3, 3): a look's turn, then its nod."""
    cos_yaw, sin_yaw, cos_pitch, sin_pitch = np.cos(look.yaw), np.sin(look.yaw), np.cos(look.pitch), np.sin(look.pitch)
    turn = np.array([[cos_yaw, 0, sin_yaw], [0, 1, 0], [-sin_yaw, 0, cos_yaw]])
    nod = np.array([[1, 0, 0], [0, cos_pitch, -sin_pitch], [0, sin_pitch, cos_pitch]])
    return nod @ turn
