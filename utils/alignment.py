"""Alignment geometry: five points → similarity transform → a face in a fixed frame."""

import hashlib
from collections.abc import Sequence

import cv2
import numpy as np

#: Where alignment puts the five points in a 256×256 picture, x and y in pixels: the eye on the
#: picture's left, the other eye, nose tip, mouth corner on the left, the other. This is ArcFace's
#: 112-pixel template ×2, shifted 16 px to the right, the frame that HS_FACE was aligned to.
TEMPLATE = np.array([(92.5892, 103.3926), (163.0636, 103.0028), (128.0504, 143.4732),
                     (99.0986, 184.7310), (157.4598, 184.4082)])
TEMPLATE_SIZE = 256

#: How far from its place alignment puts a face: standard deviations of log scale, rotation in degrees, shift to the right
#: and down in pixels of a 256×256 picture. 1.3 times what MTCNN's points do to the creator's renders
#: (`python -m benchmarks.through_aligner` prints it).
FRAME_SPREAD = (0.065, 2.0, 2.0, 3.5)


def similarity_transform(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The least-squares similarity (scale, rotation, shift; no reflection) from points to points.

    With points as complex numbers it is z ↦ a·z + b, and minimising Σ|a·s + b − t|² gives
    a = Σ conj(s − s̄)(t − t̄) / Σ|s − s̄|², b = t̄ − a·s̄.

    Args:
        source: (..., N, 2) points x, y; N ≥ 2, not all the same.
        target: (..., N, 2) or (N, 2), where they should go.

    Returns:
        (..., 2, 3) float64 matrices M with target ≈ M[:, :2] @ point + M[:, 2].

    Raises:
        ValueError: all points of a source are the same, so no scale is defined.
    """
    s, t = (np.asarray(p, np.float64)[..., 0] + 1j * np.asarray(p, np.float64)[..., 1] for p in (source, target))
    s_mean, t_mean = s.mean(-1, keepdims=True), t.mean(-1, keepdims=True)
    spread = (np.abs(s - s_mean) ** 2).sum(-1)
    if np.any(spread <= 1e-12):
        raise ValueError("the points coincide, so no similarity transform is defined")
    a = (np.conj(s - s_mean) * (t - t_mean)).sum(-1) / spread
    b = t_mean[..., 0] - a * s_mean[..., 0]
    return np.stack([np.stack([a.real, -a.imag, b.real], -1), np.stack([a.imag, a.real, b.imag], -1)], -2)


def alignment_transform(points: np.ndarray, size: int) -> np.ndarray:
    """(..., 2, 3) transforms that take five points (..., 5, 2) onto `TEMPLATE` in a size×size picture."""
    matrix = similarity_transform(points, TEMPLATE)
    scale = size / TEMPLATE_SIZE
    # A pixel's centre is at whole coordinates, so the frame's corner lies at −0.5 in either size.
    matrix = matrix * scale
    matrix[..., 2] += 0.5 * scale - 0.5
    return matrix


def random_frames(names: Sequence[str]) -> np.ndarray:
    """Where faces are moved to in training: (N, 4) float32 standard normal, in units of `FRAME_SPREAD`.

    A NAME's frame is always the same, so nothing has to remember it.
    """
    seeds = (int.from_bytes(hashlib.sha256(f"frame {name}".encode("utf-8", "surrogateescape")).digest()[:8], "big") for name in names)
    return np.array([np.random.default_rng(seed).standard_normal(4) for seed in seeds], np.float32).reshape(-1, 4)


def frame_transform(frame: np.ndarray) -> np.ndarray:
    """The (2, 3) similarity that moves a face in the 256×256 frame by `frame`, (4,) in units of `FRAME_SPREAD`.

    Scale and rotation are about the frame's centre, the shift follows.
    """
    log_scale, degrees, right, down = np.asarray(frame, np.float64) * FRAME_SPREAD
    a = np.exp(log_scale + 1j * np.radians(degrees))
    linear = np.array([[a.real, -a.imag], [a.imag, a.real]])
    centre = np.full(2, (TEMPLATE_SIZE - 1) / 2)
    return np.column_stack([linear, centre + (right, down) - linear @ centre])


def undo_frame(matrix: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """The (2, 3) alignment `matrix` of a photo corrected by how its face turned out to lie, (4,) as `frame_transform` takes."""
    whole = lambda m: np.vstack([m, (0, 0, 1)])
    return (np.linalg.inv(whole(frame_transform(frame))) @ whole(matrix))[:2]


def transform_points(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply (..., 2, 3) matrices to points (..., N, 2)."""
    return points @ np.swapaxes(matrix[..., :2], -1, -2) + matrix[..., None, :, 2]


def warp(picture: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Warp a (H, W, 3) uint8 picture by a (2, 3) similarity into a (size, size, 3) one.

    A picture that shrinks by more than two is averaged down first, as bilinear sampling alone
    would skip pixels. What lies outside the picture repeats its border.
    """
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    matrix = np.array(matrix, np.float64)
    if scale < 0.5:
        height, width = picture.shape[:2]
        smaller = (max(1, round(width * scale * 1.5)), max(1, round(height * scale * 1.5)))
        picture = cv2.resize(picture, smaller, interpolation=cv2.INTER_AREA)
        x_scale, y_scale = width / smaller[0], height / smaller[1]
        # Pixel centres again: x = (x' + 0.5)·x_scale − 0.5.
        shift = matrix[:, :2] @ np.array([0.5 * x_scale - 0.5, 0.5 * y_scale - 0.5])
        matrix = np.column_stack([matrix[:, 0] * x_scale, matrix[:, 1] * y_scale, matrix[:, 2] + shift])
    return cv2.warpAffine(picture, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Five points (..., 5, 2) of 68 iBUG landmarks (..., 68, 2): eye means, nose tip 30, mouth corners 48, 54."""
    landmarks = np.asarray(landmarks)
    return np.stack([landmarks[..., 36:42, :].mean(-2), landmarks[..., 42:48, :].mean(-2),
                     landmarks[..., 30, :], landmarks[..., 48, :], landmarks[..., 54, :]], -2)
