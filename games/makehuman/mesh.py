"""Quad meshes: one step of Catmull–Clark subdivision, and normals at vertices. Both work on batches."""

import numpy as np


class QuadMesh:
    """The connections of Q quads between V vertices, prepared for normals and subdivision."""

    def __init__(self, quads: np.ndarray, count: int) -> None:
        """quads: (Q, 4) corners, counter-clockwise from outside; count: V."""
        self.quads, self.count = np.asarray(quads), count
        ends = np.stack([self.quads, np.roll(self.quads, -1, 1)], 2).reshape(-1, 2)
        self.edges, edge_of_side = np.unique(np.sort(ends, 1), axis=0, return_inverse=True)
        face_of_side = np.repeat(np.arange(len(quads)), 4)

        # The two faces of each edge; a border's edge has one, named twice.
        order = np.argsort(edge_of_side, kind="stable")
        first = np.searchsorted(edge_of_side[order], np.arange(len(self.edges)))
        last = np.append(first[1:], len(order)) - 1
        self._edge_faces = np.stack([face_of_side[order[first]], face_of_side[order[last]]], 1)
        self._inner_edges = np.asarray(last > first)
        self._side_edges = edge_of_side.reshape(-1, 4)

        # Contiguous indices: numpy reads them faster.
        columns = np.ascontiguousarray(self.quads.T)
        self._diagonals = (columns[[2, 0]], columns[[3, 1]])

        # The faces and neighbours of each vertex, padded with the index behind the last.
        self._vertex_faces = _padded_lists(self.quads.ravel(), face_of_side, count, filler=len(self.quads))
        self._vertex_face_columns = np.ascontiguousarray(self._vertex_faces.T)
        both = np.concatenate([self.edges, self.edges[:, ::-1]])
        self._neighbours = _padded_lists(both[:, 0], both[:, 1], count, filler=count)
        border = self.edges[~self._inner_edges]
        both = np.concatenate([border, border[:, ::-1]])
        self._border_neighbours = _padded_lists(both[:, 0], both[:, 1], count, filler=count)
        self._valence = (self._neighbours < count).sum(1)
        self._on_border: np.ndarray = np.asarray((self._border_neighbours < count).any(1))

    def normals(self, positions: np.ndarray) -> np.ndarray:
        """Unit normals (..., V, 3) at positions (..., V, 3): the mean of the faces around, weighted by area."""
        x, y, z = np.ascontiguousarray(np.moveaxis(positions, -1, 0))
        first, second = self._diagonals
        ax, ay, az = (c.take(first[0], axis=-1) - c.take(first[1], axis=-1) for c in (x, y, z))
        bx, by, bz = (c.take(second[0], axis=-1) - c.take(second[1], axis=-1) for c in (x, y, z))
        crossed = np.zeros((3, *positions.shape[:-2], len(self.quads) + 1), positions.dtype)
        crossed[0, ..., :-1] = ay * bz - az * by
        crossed[1, ..., :-1] = az * bx - ax * bz
        crossed[2, ..., :-1] = ax * by - ay * bx
        summed = crossed.take(self._vertex_face_columns[0], axis=-1)
        for column in self._vertex_face_columns[1:]:
            summed += crossed.take(column, axis=-1)
        summed /= np.maximum(np.sqrt((summed * summed).sum(0)), 1e-12)
        return np.moveaxis(summed, 0, -1)

    def smoothed(self, values: np.ndarray) -> np.ndarray:
        """Values (..., V, C) at the vertices after one step of subdivision: Catmull and Clark's vertex points."""
        padded = np.concatenate([values, np.zeros_like(values[..., :1, :])], -2)
        faces = np.concatenate([values[..., self.quads, :].mean(-2), np.zeros_like(values[..., :1, :])], -2)
        n = np.maximum(self._valence, 1)[:, None].astype(values.dtype)
        around = _sum_lists(padded, self._neighbours)
        inner = _sum_lists(faces, self._vertex_faces) / n**2 + around / n**2 + values * (n - 2) / n
        border = 0.75 * values + 0.125 * _sum_lists(padded, self._border_neighbours)
        return np.where(self._on_border[:, None], border, inner).astype(values.dtype)

    def refined(self, values: np.ndarray) -> np.ndarray:
        """Values (..., V + E + Q, C) at the vertices of `refined_quads`: vertex, edge and face points."""
        faces = values[..., self.quads, :].mean(-2)
        middles = values[..., self.edges, :].mean(-2)
        between = faces[..., self._edge_faces, :].mean(-2)
        edges = np.where(self._inner_edges[:, None], (middles + between) / 2, middles).astype(values.dtype)
        return np.concatenate([self.smoothed(values), edges, faces], -2)

    def refined_linearly(self, values: np.ndarray) -> np.ndarray:
        """As `refined`, but the vertices keep their values and the new points take the mean: for masks."""
        return np.concatenate([values, values[..., self.edges, :].mean(-2), values[..., self.quads, :].mean(-2)], -2)

    def refined_quads(self) -> np.ndarray:
        """(4Q, 4) quads of the subdivided mesh; the four of a quad follow each other."""
        edges = self._side_edges + self.count
        centre = np.arange(len(self.quads)) + self.count + len(self.edges)
        corners = [np.stack([self.quads[:, i], edges[:, i], centre, edges[:, i - 1]], 1) for i in range(4)]
        return np.stack(corners, 1).reshape(-1, 4)


def triangles(quads: np.ndarray) -> np.ndarray:
    """(2Q, 3) triangles of (Q, 4) quads; the two of a quad follow each other."""
    return np.stack([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]], 1).reshape(-1, 3)


def _padded_lists(keys: np.ndarray, members: np.ndarray, count: int, *, filler: int) -> np.ndarray:
    """(count, longest) members of each key, padded with `filler`."""
    order = np.argsort(keys, kind="stable")
    lengths = np.bincount(keys, minlength=count)
    lists = np.full((count, max(1, lengths.max(initial=0))), filler)
    within = np.arange(len(keys)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    lists[keys[order], within] = members[order]
    return lists


def _sum_lists(values: np.ndarray, lists: np.ndarray) -> np.ndarray:
    """(..., L, C) sums of the rows (..., N, C) that each list names, in the lists' order."""
    total = values[..., lists[:, 0], :].copy()
    for column in lists.T[1:]:
        total += values[..., column, :]
    return total
