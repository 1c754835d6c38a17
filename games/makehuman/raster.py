"""A z-buffer in numpy: which triangle each sample of a picture shows, and where in it.

A triangle is cut into the spans of samples that it covers row by row, so no sample outside it is ever looked at. All
spans of all triangles are worked on at once. Edges are walked from their upper to their lower end, whichever triangle
they belong to, and a span ends before its right edge: neighbours leave no gap and share no sample.
"""

from typing import NamedTuple

import numpy as np

_SMALLEST = 1e-6  #: twice the area of a triangle that is drawn


class Triangles(NamedTuple):
    """Triangles as a picture sees them, those that turn away or lie outside left out."""

    which: np.ndarray  #: (T,) which of the given triangles
    corners: np.ndarray  #: (3, T) their vertices
    planes: np.ndarray  #: (2, 3, T) float32: second and third barycentric coordinate as a·x + b·y + c
    x: np.ndarray  #: (3, T) float32, the corners from top to bottom
    y: np.ndarray  #: (3, T) float32

    def plane_of(self, values: np.ndarray) -> np.ndarray:
        """(3, T) float32 coefficients a, b, c of values (V,) at the vertices as a·x + b·y + c."""
        first, second, third = (values.take(corner) for corner in self.corners)
        plane = (second - first) * self.planes[0] + (third - first) * self.planes[1]
        plane[2] += first
        return plane.astype(np.float32, copy=False)

    def weights(self, triangle: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(3, N) float32 barycentric coordinates of places x, y in triangles (N,) of these."""
        second, third = (evaluated(p, triangle, x, y) for p in self.planes)
        return np.stack([1 - second - third, second, third])


class Fragments(NamedTuple):
    """Samples that triangles cover, several per sample."""

    sample: np.ndarray  #: (F,) row · width + column
    triangle: np.ndarray  #: (F,) into `Triangles`
    values: np.ndarray  #: (K, F) float32 values of the K planes; the first is the depth

    def kept(self, index: np.ndarray) -> "Fragments":
        """The fragments of an index only."""
        return Fragments(self.sample.take(index), self.triangle.take(index), self.values.take(index, axis=1))


def evaluated(plane: np.ndarray, triangle: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(N,) float32 values of a plane (3, T) of triangles (N,) at places x, y, both (N,) float32."""
    value = plane[0].take(triangle)
    value *= x
    slope = plane[1].take(triangle)
    slope *= y
    value += slope
    value += plane[2].take(triangle)
    return value


def project(points: np.ndarray, corners: np.ndarray, *, width: int, height: int, both_sides: bool = False) -> Triangles:
    """Prepare those triangles that a width×height picture may show.

    Args:
        points: (V, 2) float coordinates x, y; a sample's centre is at whole coordinates.
        corners: (T, 3) vertices of the triangles, counter-clockwise to a viewer who sees their front (y downwards).
        both_sides: keep triangles that turn away.
    """
    px, py = points[:, 0].astype(np.float32), points[:, 1].astype(np.float32)
    columns = np.ascontiguousarray(corners.T)
    x, y = px.take(columns), py.take(columns)
    area = (x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])
    seen = (area < -_SMALLEST) | (both_sides & (area > _SMALLEST))
    for place, end in ((x, width), (y, height)):
        seen &= (np.maximum(np.maximum(place[0], place[1]), place[2]) > 0) & (
            np.minimum(np.minimum(place[0], place[1]), place[2]) < end
        )
    which = np.flatnonzero(seen)
    columns, scale = columns.take(which, axis=1), 1 / area.take(which)
    x, y = x.take(which, axis=1), y.take(which, axis=1)

    # Barycentric coordinates are linear in x and y. Perspective within one small triangle is left out.
    planes = np.empty((2, 3, len(which)), np.float32)
    planes[0, 0], planes[0, 1] = (y[2] - y[0]) * scale, (x[0] - x[2]) * scale
    planes[1, 0], planes[1, 1] = (y[0] - y[1]) * scale, (x[1] - x[0]) * scale
    planes[:, 2] = -(planes[:, 0] * x[0] + planes[:, 1] * y[0])

    # Sort the corners from top to bottom.
    for low, high in ((0, 1), (1, 2), (0, 1)):
        swap = y[low] > y[high]
        x[low], x[high] = np.where(swap, x[high], x[low]), np.where(swap, x[low], x[high])
        y[low], y[high] = np.where(swap, y[high], y[low]), np.where(swap, y[low], y[high])
    return Triangles(which, columns, planes, x, y)


def cover(triangles: Triangles, planes: np.ndarray, *, width: int, height: int) -> Fragments:
    """The samples of a width×height picture that triangles cover.

    Args:
        planes: (K, 3, T) float32 what is wanted at each sample, as a·x + b·y + c; the depth first, smaller is nearer.
    """
    x, y = triangles.x, triangles.y
    top = np.ceil(np.clip(y[0], 0, height)).astype(np.intp)
    end = np.ceil(np.clip(y[2], 0, height)).astype(np.intp)

    # One span per row of each triangle, between the long edge and one of the two short ones.
    triangle, row = _counted(end - top, top)
    slopes = [_slope(x[i], y[i], x[j], y[j]) for i, j in ((0, 2), (0, 1), (1, 2))]
    at = row.astype(np.float32)
    long = x[0].take(triangle) + slopes[0].take(triangle) * (at - y[0].take(triangle))
    flat = (at >= y[1].take(triangle)) * len(triangles.which) + triangle
    short = x[:2].ravel().take(flat) + np.concatenate(slopes[1:]).take(flat) * (at - y[:2].ravel().take(flat))
    left = np.ceil(np.clip(np.minimum(long, short), 0, width)).astype(np.intp)
    right = np.ceil(np.clip(np.maximum(long, short), 0, width)).astype(np.intp)

    # One fragment per sample of each span.
    span, column = _counted(right - left, left)
    across = column.astype(np.float32)
    values = np.empty((len(planes), len(span)), np.float32)
    for plane, out in zip(planes, values, strict=True):
        start = plane[1].take(triangle) * at + plane[2].take(triangle)
        np.multiply(plane[0].take(triangle).take(span), across, out=out)
        out += start.take(span)
    column += (row * width).take(span)
    return Fragments(column, triangle.take(span), values)


def _slope(x0: np.ndarray, y0: np.ndarray, x1: np.ndarray, y1: np.ndarray) -> np.ndarray:
    """How far an edge goes to the right per row; 0 where it is level and has no row of its own."""
    height = y1 - y0
    return np.where(height > 0, (x1 - x0) / np.where(height > 0, height, 1), 0).astype(np.float32)


def _counted(counts: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each i, counts[i] times i, and beside it start[i], start[i] + 1, …; both int32."""
    index = np.repeat(np.arange(len(counts), dtype=np.intp), counts)
    before = start - (np.cumsum(counts) - counts)
    values = np.arange(len(index))
    values += before.take(index)
    return index, values


def nearest(fragments: Fragments, depth: np.ndarray) -> np.ndarray:
    """Indices of the fragments that their samples show, one for each sample that any of them shows.

    Args:
        depth: (samples,) float32 what is there already (infinite where nothing is); updated. Equals give way.
    """
    near = np.flatnonzero(fragments.values[0] < depth.take(fragments.sample))
    sample, value = fragments.sample.take(near), fragments.values[0].take(near)
    np.minimum.at(depth, sample, value)
    won = np.flatnonzero(value == depth.take(sample))
    # Two fragments at the same depth: the first stays.
    owner = np.full(len(depth), -1, np.intp)
    owner[sample[won[::-1]]] = near[won[::-1]]
    return owner[owner >= 0]


def depth_map(points: np.ndarray, depth: np.ndarray, corners: np.ndarray, *, size: int) -> np.ndarray:
    """(size, size) float32: the nearest depth of each sample, infinite where there is nothing.

    Args:
        points: (V, 2) as for `project`.
        depth: (V,) distance from the viewer.
        corners: (T, 3) as for `project`.
    """
    triangles = project(points, corners, width=size, height=size)
    fragments = cover(triangles, triangles.plane_of(depth)[None], width=size, height=size)
    nearest_depth = np.full(size * size, np.inf, np.float32)
    np.minimum.at(nearest_depth, fragments.sample, fragments.values[0])
    return nearest_depth.reshape(size, size)
