"""The head as the renderer needs it: smoothed, in single precision, for many faces at once."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from games.makehuman.data import EYE, LASH, SKIN, TARGET_SCALE, read_head
from games.makehuman.landmarks import Landmarks
from games.makehuman.mesh import QuadMesh, triangles
from games.makehuman.model import offered_modifiers, target_weights

# Weights and displacements are whole multiples of these. Their products and sums then have fewer than 53 bits, so a
# matrix product is exact: the same bytes in whatever order it is summed, whatever is in the batch, on any machine.
_WEIGHT_STEP, _MOVE_STEP = 2.0**-20, 2.0**-18


class Surface(NamedTuple):
    """A mesh of N vertices at one level of detail, with what belongs to its vertices."""

    mesh: QuadMesh
    solid: np.ndarray  #: (T, 3) triangles of skin, eyes, teeth and tongue
    kind: np.ndarray  #: (T,) uint8 which of them
    lashes: np.ndarray  #: (L, 3) triangles
    rest: np.ndarray  #: (N, 3) float32 positions of the head without any target
    masks: np.ndarray  #: (N, 4) float32 lips, eyelids, inside of the mouth, ears


class Rig:
    """Turns values of modifiers and expressions into positions of the smoothed head.

    The surface that pictures show is one step of Catmull–Clark subdivision. The coarse mesh is its vertices, which are
    linear in the targets' weights, so a landmark lies at the same place at either level of detail.
    """

    def __init__(self, *, subdivided: bool = False) -> None:
        head = read_head()
        self.head, self.subdivided = head, subdivided
        coarse = QuadMesh(head.quads, len(head.base))

        # Keep the rows that a parameter, a macro or an expression may weigh, smoothed.
        offered = {target for modifier in offered_modifiers() for target in modifier.targets}
        macros = {name for name in head.names if "/" not in name}
        used = [i for i, name in enumerate(head.names) if name in offered | macros or name.startswith("expression/")]
        self._row = {head.names[i]: row for row, i in enumerate(used)}
        eyes = np.unique(head.quads[head.parts == EYE])
        base = head.base.astype(np.float32)
        self._base = coarse.smoothed(base)
        self._base[eyes] = base[eyes]
        self._matrix = np.empty((len(used), base.size))
        for first in range(0, len(used), 32):
            rows = used[first : first + 32]
            moved = head.targets[rows].reshape(len(rows), -1, 3).astype(np.float32) / np.float32(TARGET_SCALE)
            smooth = coarse.smoothed(moved)
            smooth[:, eyes] = moved[:, eyes]
            self._matrix[first : first + 32] = np.round(smooth.reshape(len(rows), -1) / _MOVE_STEP) * _MOVE_STEP

        # Describe the surface that is drawn.
        self._coarse = coarse
        self.neutral = self.positions([{}])[0]
        self.landmarks = Landmarks(head, self.neutral)
        self.surface = self._surface(subdivided=subdivided, shown_only=True)
        self.rest_surface = self._surface(subdivided=False, shown_only=False)  #: the coarse one
        shown = _is_shown(self.neutral[head.quads], head.parts) & (head.parts == SKIN)
        self.coarse_skin = np.asfortranarray(triangles(head.quads[shown]))  #: what casts shadows
        middle = head.base[eyes, 0] > 0
        self.eyes = (eyes[~middle], eyes[middle])  #: vertices of the right and of the left eyeball

    def _surface(self, *, subdivided: bool, shown_only: bool) -> Surface:
        mesh, rest, masks, parts = self._coarse, self.neutral, self.head.masks, self.head.parts
        if subdivided:
            rest, masks = mesh.refined(self._unsmoothed(rest)), mesh.refined_linearly(masks)
            mesh = QuadMesh(mesh.refined_quads(), len(rest))
            parts = np.repeat(parts, 4)
        if shown_only:
            shown = _is_shown(rest[mesh.quads], parts)
            mesh, parts = QuadMesh(mesh.quads[shown], len(rest)), parts[shown]
        corners, kinds = triangles(mesh.quads), np.repeat(parts, 2)
        lash = kinds == LASH
        # Column by column, as a picture reads them.
        return Surface(mesh, np.asfortranarray(corners[~lash]), kinds[~lash], corners[lash], rest, masks)

    def _unsmoothed(self, positions: np.ndarray) -> np.ndarray:
        """Positions whose vertex points under subdivision are about the given ones: one fixed-point step."""
        return positions + (positions - self._coarse.smoothed(positions))

    def weights(self, values: Sequence[Mapping[str, float]]) -> np.ndarray:
        """(B, K) float64 weights of the rig's rows; a key "expression/…" of the values weighs an expression unit."""
        weights = np.zeros((len(values), len(self._row)))
        for row, of_face in zip(weights, values, strict=True):
            for name, weight in target_weights(of_face).items():
                row[self._row[name]] = weight
            for name, value in of_face.items():
                if name.startswith("expression/"):
                    row[self._row[name]] = value
        return np.round(weights / _WEIGHT_STEP) * _WEIGHT_STEP

    def positions(self, values: Sequence[Mapping[str, float]]) -> np.ndarray:
        """(B, V, 3) float32 positions of the coarse mesh in decimetres: x to the character's left, y up, z forward."""
        moved = (self.weights(values) @ self._matrix).astype(np.float32)
        return moved.reshape(len(values), -1, 3) + self._base

    def drawn(self, positions: np.ndarray) -> np.ndarray:
        """(N, 3) positions of the surface that is drawn, of one face's (V, 3) positions."""
        if not self.subdivided:
            return positions
        fine = self._coarse.refined(self._unsmoothed(positions))
        fine[: len(positions)] = positions
        return fine

    def at_drawn(self, values: np.ndarray) -> np.ndarray:
        """(N, C) values at the vertices that are drawn of values (V, C) at the coarse ones, between them the mean."""
        if not self.subdivided:
            return values
        return self._coarse.refined_linearly(values)

    def scalp_vertices(self) -> np.ndarray:
        """Coarse vertices of the skin."""
        return np.unique(self.head.quads[self.head.parts == SKIN])


def _is_shown(corners: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """(Q,) which quads, with corners (Q, 4, 3) at rest, a head turned by up to 30° may show: none behind or below."""
    y, z = corners[..., 1].max(1), corners[..., 2].max(1)
    skin = (y > 5.25) & (z > -0.35)
    eye = z > 1.18
    return np.where(parts == EYE, eye, skin)
