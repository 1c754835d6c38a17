"""From parameters and looks to aligned pictures and landmarks, in numpy and OpenCV.

A face's vertices are turned, seen in perspective and aligned by the character's own five points. A z-buffer says which
triangle each sample shows; what the samples need is interpolated, and they are shaded all at once.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from games.makehuman import camera, skin
from games.makehuman.data import EYE, SKIN, TEETH, TONGUE
from games.makehuman.hair import SOLID, STRANDS, STYLES, VEIL, Cards, grow, hat, joined, lashes, strand_reach
from games.makehuman.looks import Look
from games.makehuman.occlusion import bake_occlusion
from games.makehuman.parameters import game_values
from games.makehuman.raster import DepthBuffer, Holes, Triangles, evaluated, project
from games.makehuman.rig import Rig
from games.makehuman.shading import Attributes, Lighting, shade_eyes, shade_hair, shade_mouth, shade_skin, unit
from games.makehuman.shadow import ShadowMap
from games.makehuman.view import View, look_at

_SUBDIVIDED_FROM = 256  #: pixels
_EVEN_DEPTH = 0.08  #: decimetres between the samples of a pixel that is shaded once
_LEAST_FACING = -0.15  #: cards that turn further away are behind the head or behind others
_PRESSED = 0.35  #: decimetres
_HAT = "hat"
_STRANDS_ACROSS = 14  #: strands of a card, side by side
_TEETH_TINT, _TONGUE_TINT = (0.78, 0.72, 0.62), (0.42, 0.13, 0.12)


class _Samples(NamedTuple):
    """Places of triangles that are shaded, N of them."""

    corners: np.ndarray  #: (3, N) the vertices around
    weights: np.ndarray  #: (3, N) float32 barycentric coordinates

    def interpolated(self, table: np.ndarray) -> np.ndarray:
        """(C, N) values of a table (C, V)."""
        result = np.empty((len(table), self.weights.shape[1]), np.float32)
        for row, out in zip(table, result, strict=True):
            np.multiply(row.take(self.corners[0]), self.weights[0], out=out)
            out += row.take(self.corners[1]) * self.weights[1]
            out += row.take(self.corners[2]) * self.weights[2]
        return result


class _Grid:
    """Where the samples of a picture are: S² pixels of s² samples each, numbered row by row; R = S · s."""

    def __init__(self, size: int, supersample: int) -> None:
        resolution = size * supersample
        rows, columns = np.divmod(np.arange(resolution**2), resolution)
        self.pixel = rows // supersample * size + columns // supersample  #: (R²,) of each sample
        self.x, self.y = columns.astype(np.float32), rows.astype(np.float32)  #: (R²,) of each sample
        self.is_even = (rows + columns) % 2 == 0  #: (R²,) every other sample, as on a chess-board
        rows, columns = np.divmod(np.arange(size**2), size)
        self.first = (rows * resolution + columns) * supersample  #: (S²,) the first sample of each pixel
        middle = np.float32((supersample - 1) / 2)
        self.middle_x = self.x.take(self.first) + middle  #: (S²,) of each pixel
        self.middle_y = self.y.take(self.first) + middle


class _Layer(NamedTuple):
    """Cards before the camera."""

    cards: Cards
    colour: np.ndarray  #: (3,) display RGB
    triangles: Triangles
    numbers: range  #: of the triangles in the depth buffer

    def samples(self, owner: np.ndarray) -> np.ndarray:
        """(N,) the samples that show it."""
        return np.flatnonzero((owner >= self.numbers.start) & (owner < self.numbers.stop))


class Renderer:
    """Renders aligned pictures of `size`×`size` pixels, anti-aliased by `supersample`² samples per pixel."""

    def __init__(self, size: int = 256, supersample: int = 2) -> None:
        self.size, self.supersample = size, supersample
        self._resolution = size * supersample
        self._grid = _Grid(size, supersample)
        self._rig = Rig(subdivided=size >= _SUBDIVIDED_FROM)
        surface = self._rig.surface
        height = max(128, size * supersample)
        self._charts = skin.paint(surface, height=height)
        # One row per attribute of the vertices that does not depend on the face.
        places = skin.coordinates(surface.rest, height=height)
        occlusion = self._rig.at_drawn(bake_occlusion(self._rig.rest_surface)[:, None]).T
        lips, _, mouth, _ = surface.masks.T
        self._static = np.concatenate([places, occlusion, [lips, mouth]]).astype(np.float32)
        self._strand_reach = strand_reach()
        self._cards: dict[tuple[str, ...], Cards] = {}

    # --- geometry ---------------------------------------------------------------------------------

    def landmarks(self, parameters: np.ndarray, looks: Sequence[Look]) -> np.ndarray:
        """The (B, 68, 2) float64 landmarks that `render` gives, without the pictures; one look per character."""
        positions = self._positions(parameters, [(look,) for look in looks])
        return look_at(self._rig, positions, looks, size=self.size)[1]

    def _positions(self, parameters: np.ndarray, looks: Sequence[Sequence[Look]]) -> np.ndarray:
        """(B·L, V, 3) positions of the coarse heads, expressions included."""
        values = []
        for of_face, its_looks in zip(np.asarray(parameters), looks, strict=True):
            in_game = game_values(of_face)
            for look in its_looks:
                values.append(in_game | {f"expression/{unit}": strength for unit, strength in look.expression})
        return self._rig.positions(values)

    # --- pictures ---------------------------------------------------------------------------------

    def render(self, parameters: np.ndarray, looks: Sequence[Sequence[Look]]) -> tuple[np.ndarray, np.ndarray]:
        """Render characters, each in as many looks as wanted (the same number for all).

        Args:
            parameters: (B, P) in [0, 1].
            looks: for each character its L looks.

        Returns:
            (B, L, size, size, 3) uint8 RGB pictures and (B, 68, 2) float64 landmarks of the first look, in its pixels.
        """
        pictures, points = self.render_each(parameters, looks)
        return pictures, points[:, 0]

    def render_each(self, parameters: np.ndarray, looks: Sequence[Sequence[Look]]) -> tuple[np.ndarray, np.ndarray]:
        """As `render`, with the landmarks of every look: each has a pose and an expression of its own.

        Args:
            parameters: (B, P) in [0, 1].
            looks: for each character its L looks.

        Returns:
            (B, L, size, size, 3) uint8 RGB pictures and (B, L, 68, 2) float64 landmarks in their pixels.
        """
        positions = self._positions(parameters, looks)
        flat = [look for of_face in looks for look in of_face]
        views, points = look_at(self._rig, positions, flat, size=self.size)
        pictures = np.empty((len(flat), self.size, self.size, 3), np.uint8)
        for picture, *shown in zip(pictures, positions, flat, views, strict=True):
            picture[:] = self._picture(*shown)
        shape = (len(looks), len(flat) // max(1, len(looks)))
        return pictures.reshape(*shape, *pictures.shape[1:]), points.reshape(*shape, 68, 2)

    def _picture(self, positions: np.ndarray, look: Look, view: View) -> np.ndarray:
        """One picture (S, S, 3) uint8 of a coarse head (V, 3)."""
        drawn = self._rig.drawn(positions)
        turned = view.turned(drawn)
        lighting = Lighting.of(look, ShadowMap.cast(turned[:, : len(positions)], look, self._rig))

        # Find what each sample shows: the head, then what lies over it.
        buffer = DepthBuffer(self._resolution, self._resolution)
        head = self._projected(view, turned, self._rig.surface.solid)
        buffer.draw(head, -turned[2])
        layers = [self._draw_layer(buffer, cards, colour, view, positions) for cards, colour in self._layers_of(look)]
        owner = buffer.owner()

        # Shade it.
        pixels, apart, counts = self._places_of_head(owner, buffer.depth(), self._rig.surface.kind.take(head.which))
        samples = self._head_samples(head, owner, pixels, apart)
        of_head = self._shade_head(samples, counts, view=view, drawn=drawn, turned=turned, lighting=lighting)
        over = [layer.samples(owner) for layer in layers]
        of_layers = [self._shade_layer(*each, owner, view, lighting) for each in zip(layers, over, strict=True)]
        display = np.sqrt(np.clip(np.concatenate([of_head, *of_layers], axis=1), 0, 1))

        # Lay it over the background.
        planes = camera.background(self.size, look, supersample=self.supersample)
        self._lay(planes, np.concatenate([apart, *over]), display[:, len(pixels) :])
        planes.reshape(3, -1)[:, pixels] = display[:, : len(pixels)]
        picture = cv2.merge(list(planes))
        if look.photo_seed is not None:
            anchors = self._rig.landmarks.fixed(turned[:, : len(positions)].T)
            camera.put_before(picture, look, view=view, landmarks=anchors)
        return camera.develop(picture, look)

    def _lay(self, planes: np.ndarray, samples: np.ndarray, colours: np.ndarray) -> None:
        """Lay samples (N,) with colours (3, N) over a picture (3, S, S), in place: a pixel is its samples' mean."""
        pixels, count = self._grid.pixel.take(samples), self.size**2
        share = np.float32(1 / self.supersample**2)
        free = 1 - np.bincount(pixels, minlength=count).astype(np.float32) * share
        for plane, colour in zip(planes.reshape(3, -1), colours * share, strict=True):
            plane *= free
            plane += np.bincount(pixels, colour, count)

    # --- the head ---------------------------------------------------------------------------------

    def _places_of_head(
        self, owner: np.ndarray, depth: np.ndarray, kind: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where the head is shaded: a pixel that shows one piece of skin, and nothing over it, only once.

        Args:
            owner, depth: (R·R,) what each sample shows.
            kind: (T,) what the head's triangles are, sorted.

        Returns:
            (P,) such pixels, (N,) the other samples of the head, sorted by kind, and how many of all are of each kind.
        """
        whole = self._whole_pixels(owner, depth, skin=int(np.searchsorted(kind, EYE))).ravel()
        pixels = np.flatnonzero(whole)
        apart = np.flatnonzero((owner >= 0) & (owner < len(kind)) & ~whole.take(self._grid.pixel))
        of_kind = kind.take(owner.take(apart))
        counts = np.bincount(of_kind, minlength=TONGUE + 1)
        counts[SKIN] += len(pixels)
        return pixels, apart.take(np.argsort(of_kind, kind="stable")), counts

    def _head_samples(self, head: Triangles, owner: np.ndarray, pixels: np.ndarray, apart: np.ndarray) -> _Samples:
        """The middles of whole pixels, then the samples `apart`, as places of the head's triangles."""
        grid = self._grid
        triangle = owner.take(np.concatenate([grid.first.take(pixels), apart]))
        x = np.concatenate([grid.middle_x.take(pixels), grid.x.take(apart)])
        y = np.concatenate([grid.middle_y.take(pixels), grid.y.take(apart)])
        weights = np.clip(head.weights(triangle, x, y), 0, 1)
        weights /= weights[0] + weights[1] + weights[2]
        return _Samples(head.corners.take(triangle, axis=1), weights)

    def _projected(self, view: View, turned: np.ndarray, corners: np.ndarray, *, both_sides: bool = False) -> Triangles:
        """Triangles before the camera, in the coordinates of samples, whose centres are whole."""
        points = (view.pixels(turned) + np.float32(0.5)) * np.float32(self.supersample) - np.float32(0.5)
        return project(points, corners, width=self._resolution, height=self._resolution, both_sides=both_sides)

    def _whole_pixels(self, owner: np.ndarray, depth: np.ndarray, *, skin: int) -> np.ndarray:
        """(S, S) bool: pixels all of whose samples show skin, the first triangles, of about the same depth."""
        step = self.supersample
        is_skin = ((owner >= 0) & (owner < skin)).reshape(self._resolution, -1)
        depth = depth.reshape(self._resolution, -1)
        parts = [np.s_[i::step, j::step] for i in range(step) for j in range(step)]
        near, far, whole = depth[parts[0]], depth[parts[0]], is_skin[parts[0]]
        for part in parts[1:]:
            near, far, whole = np.minimum(near, depth[part]), np.maximum(far, depth[part]), whole & is_skin[part]
        return whole & (far - near < _EVEN_DEPTH)

    def _shade_head(
        self,
        samples: _Samples,
        counts: np.ndarray,
        *,
        view: View,
        drawn: np.ndarray,
        turned: np.ndarray,
        lighting: Lighting,
    ) -> np.ndarray:
        """Colours (3, N) of samples of the head, sorted by their kinds; counts: how many there are of each kind."""
        normals = view.rotation.astype(np.float32) @ self._rig.surface.mesh.normals(drawn).T
        values = samples.interpolated(np.concatenate([normals, turned, self._static]))
        at = Attributes(unit(values[:3]), values[3:6], *values[6:])
        ends = np.cumsum(counts)
        parts = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]

        colours = np.empty((3, ends[-1]), np.float32)
        offset = _noise_offset(lighting.look)
        colours[:, parts[SKIN]] = shade_skin(at.of(parts[SKIN]), self._charts, lighting, offset=offset)
        if counts[EYE]:
            of_eyes = at.of(parts[EYE])
            outward = self._outward(of_eyes.position, turned)
            colours[:, parts[EYE]] = shade_eyes(of_eyes, outward, _gaze(view, lighting.look), lighting)
        for kind, tint in ((TEETH, _TEETH_TINT), (TONGUE, _TONGUE_TINT)):
            if counts[kind]:
                colours[:, parts[kind]] = shade_mouth(at.of(parts[kind]), tint, lighting)
        return colours

    def _outward(self, positions: np.ndarray, turned: np.ndarray) -> np.ndarray:
        """(3, N) unit directions from the middle of the eye to positions on it (3, N), in the camera's axes."""
        right, left = (turned.take(eye, axis=1).mean(1, keepdims=True) for eye in self._rig.eyes)
        is_left = positions[0] > (right[0] + left[0]) / 2
        return unit(positions - np.where(is_left, left, right))

    # --- hair, beard and lashes -------------------------------------------------------------------

    def _layers_of(self, look: Look) -> list[tuple[Cards, np.ndarray]]:
        """What lies over the head of a look, with its colours: lashes, hair and beard, then a hat."""
        layers = [(self._grown(look.hair, look.beard), look.hair_colour)]
        if look.hat:
            layers.append((self._card(_HAT), look.cloth))
        return layers

    def _grown(self, *names: str) -> Cards:
        """The cards of the lashes and of styles of hair and beard ("" for none), made once."""
        if names not in self._cards:
            self._cards[names] = joined([self._card("lashes"), *(self._card(name) for name in names if name)])
        return self._cards[names]

    def _card(self, name: str) -> Cards:
        if (name,) not in self._cards:
            surface = self._rig.rest_surface
            if name == "lashes":
                made = lashes(surface)
            elif name == _HAT:
                made = hat(surface)
            else:
                made = grow(STYLES[name], surface, self._rig.scalp_vertices())
            self._cards[(name,)] = made
        return self._cards[(name,)]

    def _draw_layer(
        self, buffer: DepthBuffer, cards: Cards, colour: np.ndarray, view: View, positions: np.ndarray
    ) -> _Layer:
        """Draw cards before the camera where their strands are nearest."""
        moved = (positions - self._rig.neutral).take(cards.nearest, axis=0)
        turned = view.turned(cards.rest + moved)
        to_viewer = cards.normals @ view.rotation[2].astype(np.float32) > _LEAST_FACING
        first, second, third = (to_viewer.take(corner) for corner in cards.triangles.T)
        facing = np.flatnonzero(first | second | third)
        triangles = self._projected(view, turned, cards.triangles.take(facing, axis=0), both_sides=True)
        # Cloth presses down what would reach through it.
        nearer = np.float32(_PRESSED) * (cards.place[:, 2] == SOLID)
        strands = self._strands_of(cards, triangles)
        return _Layer(cards, colour, triangles, buffer.draw(triangles, -turned[2] - nearer, strands))

    def _strands_of(self, cards: Cards, triangles: Triangles) -> Holes:
        """Where triangles of cards show a strand; between strands a card is not there."""
        card = cards.place[:, 2].take(triangles.corners[0])
        across = triangles.plane_of(cards.place[:, 0] * np.float32(_STRANDS_ACROSS))
        across[2] += card * np.float32(7919)  # each card begins at a strand of its own
        along = triangles.plane_of(cards.place[:, 1])

        def is_there(triangle: np.ndarray, sample: np.ndarray) -> np.ndarray:
            x, y = self._grid.x.take(sample), self._grid.y.take(sample)
            strand = evaluated(across, triangle, x, y).astype(np.intp) & (STRANDS - 1)
            there = evaluated(along, triangle, x, y) < self._strand_reach.take(strand)
            of_card = card.take(triangle)
            there |= of_card == SOLID
            return np.where(of_card == VEIL, self._grid.is_even.take(sample), there)

        return is_there

    def _shade_layer(
        self, layer: _Layer, samples: np.ndarray, owner: np.ndarray, view: View, lighting: Lighting
    ) -> np.ndarray:
        """Colours (3, N) of the samples (N,) that show a layer."""
        cards, rotation = layer.cards, view.rotation.astype(np.float32)
        triangle = owner.take(samples) - layer.numbers.start
        weights = layer.triangles.weights(triangle, self._grid.x.take(samples), self._grid.y.take(samples))
        values = _Samples(layer.triangles.corners.take(triangle, axis=1), weights).interpolated(
            np.concatenate([rotation @ cards.normals.T, rotation @ cards.tangents.T, cards.place.T])
        )
        return shade_hair(values[:3], values[3:6], values[6:9], layer.colour, lighting)


def _gaze(view: View, look: Look) -> np.ndarray:
    """(3,) where the eyes look, in the camera's axes: some of the way back to the camera of a head that is turned."""
    ahead = view.rotation @ np.array([0.0, 0.0, 1.0])
    gaze = 0.6 * ahead + 0.4 * np.array([0.0, 0.0, 1.0]) + np.array([*look.gaze, 0.0])
    return gaze / np.linalg.norm(gaze)


def _noise_offset(look: Look) -> tuple[float, float]:
    """By how much the noise of the skin is shifted: by the look's own colours, so no two characters share it."""
    mark = np.floor(np.asarray(look.skin) * 1e6)
    return float(mark[0] % 509), float(mark[1] % 251)
