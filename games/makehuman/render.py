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
    kind: np.ndarray  #: (N,) skin, eye, teeth or tongue

    def chosen(self, index: np.ndarray) -> "_Samples":
        """The samples of an index only."""
        return _Samples(self.corners.take(index, axis=1), self.weights.take(index, axis=1), self.kind.take(index))

    def interpolated(self, table: np.ndarray) -> np.ndarray:
        """(C, N) values of a table (C, V)."""
        result = np.empty((len(table), len(self.kind)), np.float32)
        for row, out in zip(table, result, strict=True):
            np.multiply(row.take(self.corners[0]), self.weights[0], out=out)
            out += row.take(self.corners[1]) * self.weights[1]
            out += row.take(self.corners[2]) * self.weights[2]
        return result


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
        self._pixel_of_sample = self._spread(np.arange(size**2).reshape(size, size)).ravel()
        self._rig = Rig(subdivided=size >= _SUBDIVIDED_FROM)
        surface = self._rig.surface
        height = max(128, size * supersample)
        self._charts = skin.paint(surface, height=height)
        # One row per attribute of the vertices that does not depend on the face.
        places = skin.coordinates(surface.rest, height=height)
        occlusion = self._rig.at_drawn(bake_occlusion(self._rig.rest_surface)[:, None]).T
        self._static = np.concatenate([places, occlusion, surface.masks.T]).astype(np.float32)
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

        # Shade it. A pixel that shows one piece of skin and nothing over it is shaded once.
        whole = self._whole_pixels(owner, buffer.depth(), self._rig.surface.kind[head.which])
        rows, columns = np.nonzero(whole)
        apart = np.flatnonzero((owner >= 0) & (owner < len(head.which)) & ~self._spread(whole).ravel())
        over = [layer.samples(owner) for layer in layers]
        of_head = self._shade_head(
            self._head_samples(head, owner, rows, columns, apart),
            view=view,
            drawn=drawn,
            turned=turned,
            lighting=lighting,
        )
        of_layers = [self._shade_layer(*each, owner, view, lighting) for each in zip(layers, over, strict=True)]
        display = np.sqrt(np.clip(np.concatenate([of_head, *of_layers], axis=1), 0, 1))

        # Lay it over the background.
        planes = camera.background(self.size, look, supersample=self.supersample)
        self._lay(planes, np.concatenate([apart, *over]), display[:, len(rows) :])
        _put(planes, rows * self.size + columns, display[:, : len(rows)])
        picture = cv2.merge(list(planes))
        if look.photo_seed is not None:
            anchors = self._rig.landmarks.fixed(turned[:, : len(positions)].T)
            camera.put_before(picture, look, view=view, landmarks=anchors)
        return camera.develop(picture, look)

    def _lay(self, planes: np.ndarray, samples: np.ndarray, colours: np.ndarray) -> None:
        """Lay samples (N,) with colours (3, N) over a picture (3, S, S), in place: a pixel is the mean of its samples."""
        pixels, count = self._pixel_of_sample.take(samples), self.size**2
        share = np.float32(1 / self.supersample**2)
        free = 1 - np.bincount(pixels, minlength=count).astype(np.float32) * share
        for plane, colour in zip(planes.reshape(3, -1), colours * share, strict=True):
            plane *= free
            plane += np.bincount(pixels, colour, count)

    # --- the head ---------------------------------------------------------------------------------

    def _head_samples(
        self, head: Triangles, owner: np.ndarray, rows: np.ndarray, columns: np.ndarray, apart: np.ndarray
    ) -> _Samples:
        """The middles of whole pixels (rows, columns), then the samples `apart`, as places of the head's triangles."""
        step = self.supersample
        sample_rows, sample_columns = np.divmod(apart, self._resolution)
        triangle = owner.take(np.concatenate([rows * (step * self._resolution) + columns * step, apart]))
        middle = (step - 1) / 2
        x = np.concatenate([columns * step + middle, sample_columns]).astype(np.float32)
        y = np.concatenate([rows * step + middle, sample_rows]).astype(np.float32)
        weights = np.clip(head.weights(triangle, x, y), 0, 1)
        weights /= weights[0] + weights[1] + weights[2]
        corners = np.stack([corner.take(triangle) for corner in head.corners])
        return _Samples(corners, weights, self._rig.surface.kind.take(head.which).take(triangle))

    def _projected(self, view: View, turned: np.ndarray, corners: np.ndarray, *, both_sides: bool = False) -> Triangles:
        """Triangles before the camera, in the coordinates of samples, whose centres are whole."""
        points = (view.pixels(turned) + np.float32(0.5)) * np.float32(self.supersample) - np.float32(0.5)
        return project(points, corners, width=self._resolution, height=self._resolution, both_sides=both_sides)

    def _whole_pixels(self, owner: np.ndarray, depth: np.ndarray, kind: np.ndarray) -> np.ndarray:
        """(S, S) bool: pixels all of whose samples show skin of about the same depth."""
        step = self.supersample
        is_skin = ((owner >= 0) & (owner < np.searchsorted(kind, SKIN, "right"))).reshape(self._resolution, -1)
        depth = depth.reshape(self._resolution, -1)
        parts = [np.s_[i::step, j::step] for i in range(step) for j in range(step)]
        near, far, whole = depth[parts[0]], depth[parts[0]], is_skin[parts[0]]
        for part in parts[1:]:
            near, far, whole = np.minimum(near, depth[part]), np.maximum(far, depth[part]), whole & is_skin[part]
        return whole & (far - near < _EVEN_DEPTH)

    def _spread(self, pixels: np.ndarray) -> np.ndarray:
        """(S, S) values of pixels at their samples, (R, R)."""
        return pixels.repeat(self.supersample, 0).repeat(self.supersample, 1)

    def _shade_head(
        self, samples: _Samples, *, view: View, drawn: np.ndarray, turned: np.ndarray, lighting: Lighting
    ) -> np.ndarray:
        """Colours (3, N) of samples of the head."""
        normals = view.rotation.astype(np.float32) @ self._rig.surface.mesh.normals(drawn).T
        tables = [normals, self._static]
        if lighting.shadow is not None:
            tables.append(turned)
        values = samples.interpolated(np.concatenate(tables))
        at = Attributes(unit(values[:3]), values[10:], *values[3:10])

        colours = np.empty((3, len(samples.kind)), np.float32)
        of_skin = np.flatnonzero(samples.kind == SKIN)
        offset = _noise_offset(lighting.look)
        _put(colours, of_skin, shade_skin(_chosen(at, of_skin), self._charts, lighting, offset=offset))
        of_eyes = np.flatnonzero(samples.kind == EYE)
        if len(of_eyes):
            outward = self._outward(drawn, samples.chosen(of_eyes), view)
            _put(colours, of_eyes, shade_eyes(_chosen(at, of_eyes), outward, _gaze(view, lighting.look), lighting))
        for part, tint in ((TEETH, _TEETH_TINT), (TONGUE, _TONGUE_TINT)):
            of_part = np.flatnonzero(samples.kind == part)
            if len(of_part):
                _put(colours, of_part, shade_mouth(_chosen(at, of_part), tint, lighting))
        return colours

    def _outward(self, drawn: np.ndarray, samples: _Samples, view: View) -> np.ndarray:
        """(3, N) unit directions from the middle of the eye, in the camera's axes."""
        middles = np.stack([drawn[eye].mean(0) for eye in self._rig.eyes])
        side = (drawn[samples.corners[0], 0] > middles.mean(0)[0]).astype(int)
        outward = view.rotation.astype(np.float32) @ (
            samples.interpolated(drawn.T.astype(np.float32)) - middles[side].T
        )
        return outward / np.sqrt((outward * outward).sum(0))

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

        def is_there(triangle: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
            x, y = column.astype(np.float32), row.astype(np.float32)
            strand = evaluated(across, triangle, x, y).astype(np.intp) & (STRANDS - 1)
            there = evaluated(along, triangle, x, y) < self._strand_reach.take(strand)
            of_card = card.take(triangle)
            there |= of_card == SOLID
            return np.where(of_card == VEIL, (row + column) & 1 == 0, there)

        return is_there

    def _shade_layer(
        self, layer: _Layer, samples: np.ndarray, owner: np.ndarray, view: View, lighting: Lighting
    ) -> np.ndarray:
        """Colours (3, N) of the samples (N,) that show a layer."""
        cards, rotation = layer.cards, view.rotation.astype(np.float32)
        triangle = owner.take(samples) - layer.numbers.start
        row, column = np.divmod(samples, self._resolution)
        weights = layer.triangles.weights(triangle, column.astype(np.float32), row.astype(np.float32))
        corners = np.stack([corner.take(triangle) for corner in layer.triangles.corners])
        values = _Samples(corners, weights, triangle).interpolated(
            np.concatenate([rotation @ cards.normals.T, rotation @ cards.tangents.T, cards.place.T])
        )
        return shade_hair(values[:3], values[3:6], values[6:9], layer.colour, lighting)


def _put(planes: np.ndarray, index: np.ndarray, values: np.ndarray) -> None:
    """Write values (C, N) at places (N,) of C contiguous planes, in place."""
    for plane, of_plane in zip(planes, values, strict=True):
        plane.reshape(-1)[index] = of_plane


def _chosen(at: Attributes, index: np.ndarray) -> Attributes:
    return Attributes(*(part.take(index, axis=-1) if part.size else part for part in at))


def _gaze(view: View, look: Look) -> np.ndarray:
    """(3,) where the eyes look, in the camera's axes: some of the way back to the camera of a head that is turned."""
    ahead = view.rotation @ np.array([0.0, 0.0, 1.0])
    gaze = 0.6 * ahead + 0.4 * np.array([0.0, 0.0, 1.0]) + np.array([*look.gaze, 0.0])
    return gaze / np.linalg.norm(gaze)


def _noise_offset(look: Look) -> tuple[float, float]:
    """By how much the noise of the skin is shifted: by the look's own colours, so no two characters share it."""
    mark = np.floor(np.asarray(look.skin) * 1e6)
    return float(mark[0] % 509), float(mark[1] % 251)
