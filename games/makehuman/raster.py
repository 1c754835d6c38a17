"""A z-buffer in numpy: which triangle each sample of a picture shows, and where in it.

A triangle is cut into the spans of samples that it covers row by row, so no sample outside it is ever looked at. All
spans of all triangles are worked on at once. Edges are walked from their upper to their lower end, whichever triangle
they belong to, and a span ends before its right edge: neighbours leave no gap and share no sample.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_SMALLEST = 1e-6  #: twice the area of a triangle that is drawn
_FAR = np.iinfo(np.int64).max  #: what a depth buffer holds where there is nothing
_STEPS = 2.0**26  #: of depth in a decimetre
_NUMBER_BITS = 24  #: for a triangle's number, below the depth

#: Which of N places of triangles are there, (N,) bool: numbers of triangles and samples, (N,) each.
Holes = Callable[[np.ndarray, np.ndarray], np.ndarray]


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


class Spans(NamedTuple):
    """Rows of samples that triangles cover, N of them, some empty."""

    triangle: np.ndarray  #: (N,) into `Triangles`
    row: np.ndarray  #: (N,)
    left: np.ndarray  #: (N,) the first column
    length: np.ndarray  #: (N,) columns


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
        points: (2, V) float32 coordinates x, y; a sample's centre is at whole coordinates.
        corners: (T, 3) vertices of the triangles, counter-clockwise to a viewer who sees their front (y downwards).
        both_sides: keep triangles that turn away.
    """
    columns = np.ascontiguousarray(corners.T)
    x, y = points[0].take(columns), points[1].take(columns)
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
        y[low], y[high] = np.minimum(y[low], y[high]), np.maximum(y[low], y[high])
    return Triangles(which, columns, planes, x, y)


def cover(triangles: Triangles, *, width: int, height: int) -> Spans:
    """The samples of a width×height picture that triangles cover: a span per row of each."""
    x, y = triangles.x, triangles.y
    top = np.ceil(np.clip(y[0], 0, height)).astype(np.intp)
    end = np.ceil(np.clip(y[2], 0, height)).astype(np.intp)

    # A row begins and ends at the long edge and at one of the two short ones.
    count = end - top
    triangle = np.repeat(np.arange(len(count)), count)
    row = np.arange(len(triangle))
    row += (top - _before(count)).take(triangle)
    slopes = [_slope(x[i], y[i], x[j], y[j]) for i, j in ((0, 2), (0, 1), (1, 2))]
    at = row.astype(np.float32)
    long = x[0].take(triangle) + slopes[0].take(triangle) * (at - y[0].take(triangle))
    flat = (at >= y[1].take(triangle)) * len(triangles.which) + triangle
    short = x[:2].ravel().take(flat) + np.concatenate(slopes[1:]).take(flat) * (at - y[:2].ravel().take(flat))
    left = np.ceil(np.clip(np.minimum(long, short), 0, width)).astype(np.intp)
    right = np.ceil(np.clip(np.maximum(long, short), 0, width)).astype(np.intp)

    return Spans(triangle, row, left, right - left)


def _slope(x0: np.ndarray, y0: np.ndarray, x1: np.ndarray, y1: np.ndarray) -> np.ndarray:
    """How far an edge goes to the right per row; 0 where it is level and has no row of its own."""
    height = y1 - y0
    return np.where(height > 0, (x1 - x0) / np.where(height > 0, height, 1), 0).astype(np.float32)


def _before(counts: np.ndarray) -> np.ndarray:
    """(N,) the sum of all counts (N,) before each."""
    return np.cumsum(counts) - counts


class DepthBuffer:
    """What each sample of a width×height picture shows: the nearest of all triangles that were drawn.

    A sample holds one whole number, its key: the depth, and in the lowest bits the triangle's number. Numbers of
    triangles count on from one drawing to the next. At equal depths the lower number stays.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.count = 0  #: triangles that were drawn
        self._nearest = np.full(width * height, _FAR)

    def draw(self, triangles: Triangles, depth: np.ndarray, holes: Holes | None = None) -> range:
        """Draw triangles; returns their numbers.

        Args:
            depth: (V,) float32 at the vertices, in decimetres, smaller is nearer.
            holes: False where triangles, numbered from 0, are not there after all; without it there are no holes.
        """
        numbers = range(self.count, self.count + len(triangles.which))
        self.count = numbers.stop
        sample, keys = self._fragments(triangles, triangles.plane_of(depth))
        keys += numbers.start
        if holes is None:
            np.minimum.at(self._nearest, sample, keys)
        else:
            self._draw_between(sample, keys, holes, first=numbers.start)
        return numbers

    def _fragments(self, triangles: Triangles, plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All samples that triangles cover, and their keys, (F,) each; plane: (3, T) the depth as a·x + b·y + c."""
        triangle, row, left, length = cover(triangles, width=self.width, height=self.height)
        a, b, c = plane
        slope = (np.rint(a * _STEPS).astype(np.int64) << _NUMBER_BITS).take(triangle)
        start = a.take(triangle) * left.astype(np.float32)
        start += b.take(triangle) * row.astype(np.float32)
        start += c.take(triangle)
        key = (start * _STEPS).astype(np.int64) << _NUMBER_BITS
        key += triangle

        # Fragment k of a span that begins with fragment `before` has the span's key + (k − before) · slope.
        before = _before(length)
        key -= slope * before
        total = int(length.sum())
        span = np.cumsum(np.bincount(before, minlength=total)[:total])  # np.repeat is slower
        span -= 1
        sample = np.arange(total)
        keys = slope.take(span)
        keys *= sample
        keys += key.take(span)
        sample += (row * self.width + left - before).take(span)
        return sample, keys

    def _draw_between(self, sample: np.ndarray, keys: np.ndarray, holes: Holes, *, first: int) -> None:
        """Draw fragments with holes: most are behind others, so holes are looked for where they would be seen."""
        found = self._nearest.copy()
        np.minimum.at(found, sample, keys)
        changed = np.flatnonzero(found != self._nearest)
        nearest = found.take(changed)
        there = holes(_number(nearest) - first, changed)
        seen, hole = np.flatnonzero(there), np.flatnonzero(~there)
        self._nearest[changed.take(seen)] = nearest.take(seen)

        # Where the nearest is a hole, try all those between it and what was there.
        found.fill(_FAR)
        found[changed.take(hole)] = nearest.take(hole)
        behind = np.flatnonzero(keys > found.take(sample))
        sample, keys = sample.take(behind), keys.take(behind)
        between = np.flatnonzero(keys < self._nearest.take(sample))
        sample, keys = sample.take(between), keys.take(between)
        there = np.flatnonzero(holes(_number(keys) - first, sample))
        np.minimum.at(self._nearest, sample.take(there), keys.take(there))

    def owner(self) -> np.ndarray:
        """(H·W,) the number of the triangle that each sample shows, −1 where there is none."""
        return _number(self._nearest)

    def depth(self) -> np.ndarray:
        """(H·W,) float32 the depth there in decimetres, more than 1,000 where there is nothing."""
        return (self._nearest >> _NUMBER_BITS).astype(np.float32) * np.float32(1 / _STEPS)


def _number(keys: np.ndarray) -> np.ndarray:
    """(N,) the numbers of triangles in what a depth buffer holds, (N,); −1 for nothing."""
    return keys << (64 - _NUMBER_BITS) >> (64 - _NUMBER_BITS)


def depth_map(points: np.ndarray, depth: np.ndarray, corners: np.ndarray, *, size: int) -> np.ndarray:
    """(size, size) float32: the nearest depth of each sample, more than 1,000 where there is nothing.

    Args:
        points: (2, V) as for `project`.
        depth: (V,) float32 distance from the viewer in decimetres.
        corners: (T, 3) as for `project`.
    """
    triangles = project(points, corners, width=size, height=size)
    buffer = DepthBuffer(size, size)
    buffer.draw(triangles, depth)
    return buffer.depth().reshape(size, size)
