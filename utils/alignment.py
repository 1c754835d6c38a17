"""Alignment geometry: five points → similarity transform → a face in a fixed frame."""

import cv2
import numpy as np

#: Where alignment puts the five points in a 256×256 picture, x and y in pixels: the eye on the
#: picture's left, the other eye, nose tip, mouth corner on the left, the other. This is ArcFace's
#: 112-pixel template ×2, shifted 16 px to the right, the frame that HS_FACE was aligned to.
TEMPLATE = np.array([(92.5892, 103.3926), (163.0636, 103.0028), (128.0504, 143.4732),
                     (99.0986, 184.7310), (157.4598, 184.4082)])
TEMPLATE_SIZE = 256


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
