"""Alignment geometry: five points → similarity transform → a face in a fixed frame."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

#: Where alignment puts the five points in a 256×256 picture, x and y in pixels: the eye on the
#: picture's left, the other eye, nose tip, mouth corner on the left, the other. This is ArcFace's
#: 112-pixel template ×2, shifted 16 px to the right, the frame that HS_FACE was aligned to.
TEMPLATE = np.array(
    [
        (92.5892, 103.3926),
        (163.0636, 103.0028),
        (128.0504, 143.4732),
        (99.0986, 184.7310),
        (157.4598, 184.4082),
    ]
)
TEMPLATE_SIZE = 256

#: How far from its place alignment puts a face: standard deviations of log scale, rotation in degrees, shift to the
#: right and down in pixels of a 256×256 picture. 1.3 times what MTCNN's points do to the creator's renders
#: (`python -m benchmarks.through_aligner` prints it).
MISALIGNMENT_SPREAD = (0.065, 2.0, 2.0, 3.5)


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
    s, t = _as_complex(source), _as_complex(target)
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
    left_eye, right_eye = landmarks[..., 36:42, :].mean(-2), landmarks[..., 42:48, :].mean(-2)
    nose, left_corner, right_corner = (landmarks[..., i, :] for i in (30, 48, 54))
    return np.stack([left_eye, right_eye, nose, left_corner, right_corner], -2)


# --- misalignment: how far a face lies from where alignment should have put it ----------------------


def random_misalignments(names: Sequence[str]) -> np.ndarray:
    """How faces are moved in training: (N, 4) float32 standard normal, in units of `MISALIGNMENT_SPREAD`.

    The misalignment of a NAME is always the same, so nothing has to remember it.
    """
    drawn = []
    for name in names:
        digest = hashlib.sha256(f"frame {name}".encode("utf-8", "surrogateescape")).digest()
        drawn.append(np.random.default_rng(int.from_bytes(digest[:8], "big")).standard_normal(4))
    return np.array(drawn, np.float32).reshape(-1, 4)


def misalignment_transform(misalignment: np.ndarray) -> np.ndarray:
    """The (2, 3) similarity that moves a face in the 256×256 frame.

    Scale and rotation are about the frame's centre, the shift follows.

    Args:
        misalignment: (4,) log scale, rotation, shift right, shift down, in units of `MISALIGNMENT_SPREAD`.
    """
    log_scale, degrees, right, down = np.asarray(misalignment, np.float64) * MISALIGNMENT_SPREAD
    a = np.exp(log_scale + 1j * np.radians(degrees))
    linear = np.array([[a.real, -a.imag], [a.imag, a.real]])
    centre = np.full(2, (TEMPLATE_SIZE - 1) / 2)
    return np.column_stack([linear, centre + (right, down) - linear @ centre])


def undo_misalignment(matrix: np.ndarray, misalignment: np.ndarray) -> np.ndarray:
    """The (2, 3) alignment of a photo, corrected by the misalignment (4,) found in the aligned face."""
    return (np.linalg.inv(_square(misalignment_transform(misalignment))) @ _square(matrix))[:2]


def move_pictures(pictures: "Tensor", misalignments: "Tensor") -> "Tensor":
    """Batch version of `warp` by `misalignment_transform`; border pixels are repeated.

    Args:
        pictures: (N, 3, S, S) float.
        misalignments: (N, 4) in units of `MISALIGNMENT_SPREAD`.
    """
    import torch  # seconds to import, and the creator's workers do without
    from torch.nn import functional as F

    spread = misalignments.new_tensor(MISALIGNMENT_SPREAD)
    log_scale, degrees, right, down = (misalignments * spread).unbind(1)
    angle = torch.deg2rad(degrees)
    cos, sin = torch.exp(-log_scale) * torch.cos(angle), torch.exp(-log_scale) * torch.sin(angle)

    # affine_grid asks where each position of the result comes from, in units of half a side: p = A⁻¹ (q − shift).
    inverse = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1)
    shift = torch.stack([right, down], 1)[:, :, None] * (2 / TEMPLATE_SIZE)
    grid = F.affine_grid(torch.cat([inverse, -inverse @ shift], 2), list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid.to(pictures.dtype), padding_mode="border", align_corners=False)


def _as_complex(points: np.ndarray) -> np.ndarray:
    points = np.asarray(points, np.float64)
    return points[..., 0] + 1j * points[..., 1]


def _square(matrix: np.ndarray) -> np.ndarray:
    """A (2, 3) transform as a (3, 3) one."""
    return np.vstack([matrix, (0, 0, 1)])
