"""From sliders and looks to aligned pictures and landmarks.

A face is the rest relief moved by the sliders' displacement fields, turned, seen in perspective and
aligned by its own five points. For each pixel the way is followed backwards: Newton's method
finds the rest point that lands there, and everything painted on the rest head is read at it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from games.relief import head, sliders
from games.relief.camera import background, develop, skin_texture
from games.relief.looks import Look
from utils.alignment import alignment_transform, five_points, transform_points

_ORIGIN, _EXTENT = np.array([-2.2, -1.95]), 4.4  # the square of rest coordinates that is modelled
_GRID = 144  # nodes of its geometry per side
_STEP = _EXTENT / (_GRID - 1)
_CAMERA_DISTANCE = 9.0  # in rest units, about 60 cm
_PIVOT_DEPTH = 0.1  # the head turns about this depth
_SUPERSAMPLE = 2  # samples per pixel and axis


class Geometry(NamedTuple):
    """Surfaces and landmarks of B faces in rest units, before they are turned."""

    face: np.ndarray  #: (B, 3, G, G) float32 positions of the face's nodes
    back: np.ndarray  #: (B, 3, G, G) float32 positions of the nodes behind it
    landmarks: np.ndarray  #: (B, 68, 3) float64


class _FaceMasks(NamedTuple):
    """The face's painted regions and its hair as one picture shows them, each (h, w) float32; 0 … 1 but for hair."""

    face: np.ndarray
    opening: np.ndarray
    lash: np.ndarray
    brow: np.ndarray
    lip: np.ndarray
    dark: np.ndarray
    blush: np.ndarray
    shade: np.ndarray
    eye_shadow: np.ndarray
    corner: np.ndarray
    stubble: np.ndarray
    hairline: np.ndarray  #: distance below the hairline
    fringe: np.ndarray  #: distance below a fringe's edge
    strand: np.ndarray  #: −1 … 1
    reach: np.ndarray  #: distance from the crown


class _View(NamedTuple):
    """One face as its pose shows it: all that does not depend on light and colours."""

    parameters: np.ndarray  #: (54,)
    landmarks: np.ndarray  #: (68, 3) before the turn
    surface: np.ndarray  #: (3, G, G) the face before the turn
    face: np.ndarray  #: (3, G, G) the face, turned and seen
    back: np.ndarray  #: (3, G, G) what is behind it, likewise
    box: tuple[slice, slice]  #: rows and columns of the picture that the face is in
    face_points: np.ndarray  #: (h, w, 2) rest points of the pixels in the box
    back_points: np.ndarray  #: (R, R, 2) rest points behind the face
    face_masks: _FaceMasks  #: in the box
    back_masks: list[np.ndarray]  #: the same behind it
    covered: np.ndarray  #: (R, R) how much the head keeps light from what is behind it


class _Shading(NamedTuple):
    """What light needs, at the nodes of one surface."""

    normal: np.ndarray  #: (G, G, 3)
    light: np.ndarray  #: (G, G, 2): cavity occlusion and cast shadow, 1 where light comes in freely


class Renderer:
    """Renders pictures of `size`×`size` pixels, anti-aliased."""

    def __init__(self, size: int) -> None:
        self.size = size
        axis = np.arange(_GRID) * _STEP
        x, y = np.meshgrid(_ORIGIN[0] + axis, _ORIGIN[1] + axis)
        self._rest = np.stack([x, y], -1).astype(np.float32)
        self._face_height, self._back_height = (f(x, y).astype(np.float32) for f in (head.surface, head.back_surface))
        fields = sliders.fields(x, y).astype(np.float32)
        self._height_fields = fields[:, 2].reshape(len(fields), -1)
        # Each stage: which sliders, and their (dx, dy) at the nodes, one row a slider.
        self._stages = []
        for names in sliders.STAGES:
            members = [sliders.NAMES.index(name) for name in names]
            self._stages.append((members, fields[members, :2].transpose(0, 2, 3, 1).reshape(len(members), -1)))
        self._back_fields = (
            sliders.back_fields(x, y).astype(np.float32)[:, :2].transpose(0, 2, 3, 1).reshape(len(fields), -1)
        )
        self._landmark_rest = head.landmarks().astype(np.float32)[None]
        self._paint_textures()

    def _paint_textures(self) -> None:
        """Paint the rest head's regions once, at about the resolution they are seen at."""
        side = round(self.size * _SUPERSAMPLE * _EXTENT / 3.34)
        self._texel = _EXTENT / side
        axis = (np.arange(side) + 0.5) * self._texel
        x, y = np.meshgrid(_ORIGIN[0] + axis, _ORIGIN[1] + axis)
        face = head.paint(x, y, self._texel * 0.75)
        back = head.paint_back(x, y, self._texel * 0.75)
        s = np.abs(x)

        def pack(masks: dict[str, np.ndarray], *names: str) -> np.ndarray:
            return np.stack([(masks[n] * 255 + 0.5).astype(np.uint8) for n in names], -1)

        self._face_masks = (
            pack(face, "face", "opening", "lash", "brow"),
            pack(face, "lip", "dark", "blush", "shade"),
            pack(face, "eye_shadow", "corner", "stubble"),
        )
        self._back_masks = (
            pack(back, "cap", "curtain", "ear", "ear_shade"),
            pack(back, "neck", "clothes", "collar", "height"),
        )
        # Hair: distances below the hairline and below a fringe's edge, and strands that fan out from the crown.
        line = -1.13 + 0.34 * s**2 + 0.9 * np.maximum(s - 0.70, 0) ** 1.2 + 30 * np.maximum(s - 0.9, 0) ** 2.2
        angle = np.arctan2(x, y + 2.3)
        rng = np.random.default_rng(5)
        fine = np.convolve(rng.standard_normal(4096), np.ones(3) / 3**0.5, "same")
        coarse = np.convolve(rng.standard_normal(4096), np.ones(25) / 5, "same")
        reach = np.hypot(x, y + 2.3)
        at = (angle + np.pi) * 620 + 6 * np.sin(reach * 3)
        strand = 0.6 * np.interp(at, np.arange(4096), fine) + 0.8 * np.interp(at, np.arange(4096), coarse)
        fringe = -0.52 - 0.10 * s**2 + 0.9 * np.maximum(s - 0.62, 0) + 30 * np.maximum(s - 0.9, 0) ** 2.2
        self._hair = np.stack([y - line, y - fringe, np.clip(strand * 0.3, -1, 1), reach], -1).astype(np.float32)

    # --- geometry ---------------------------------------------------------------------------------

    def geometry(self, parameters: np.ndarray) -> Geometry:
        """Surfaces and landmarks at zero pose: parameters (B, 54) in [0, 1] → `Geometry`."""
        offset = np.asarray(parameters, np.float32) - np.float32(0.5)
        count, plane = len(offset), (_GRID, _GRID, 2)
        height = self._face_height + (offset @ self._height_fields).reshape(count, _GRID, _GRID)
        stages = [(offset[:, members] @ field).reshape(count, *plane) for members, field in self._stages]
        back_plane = self._rest + (offset @ self._back_fields).reshape(count, *plane)
        face = np.empty((count, 3, _GRID, _GRID), np.float32)
        back = np.empty_like(face)
        landmarks = np.empty((count, 68, 3))
        for i in range(count):
            nodes, points = self._rest, self._landmark_rest
            for stage in stages:
                nodes = nodes + _sample(stage[i], nodes)
                points = points + _sample(stage[i], points)
            face[i, :2], face[i, 2] = nodes.transpose(2, 0, 1), height[i]
            back[i, :2], back[i, 2] = back_plane[i].transpose(2, 0, 1), self._back_height
            landmarks[i, :, :2], landmarks[i, :, 2] = points[0], _sample(height[i], self._landmark_rest)[0]
        return Geometry(face, back, landmarks)

    def project(self, landmarks: np.ndarray, look: Look) -> tuple[np.ndarray, np.ndarray]:
        """Landmarks (68, 3) as a look's pose shows them, in pixels of the aligned picture.

        Returns:
            (68, 2) pixels and the (2, 3) transform from the camera's plane to pixels.
        """
        seen = _see(landmarks.T, look)[:2].T
        transform = alignment_transform(five_points(seen), self.size)
        return transform_points(transform, seen), transform

    def landmarks(self, parameters: np.ndarray, looks: Sequence[Look]) -> np.ndarray:
        """The (B, 68, 2) landmarks that `render` gives, without the pictures."""
        of_faces = self.geometry(parameters).landmarks
        return np.array([self.project(points, look)[0] for points, look in zip(of_faces, looks, strict=True)])

    # --- pictures ---------------------------------------------------------------------------------

    def render(self, parameters: np.ndarray, looks: Sequence[Sequence[Look]]) -> tuple[np.ndarray, np.ndarray]:
        """Render faces, each in as many looks of one pose as wanted.

        Args:
            parameters: (B, 54) in [0, 1].
            looks: for each face L looks that differ in light and colours but not in pose.

        Returns:
            (B, L, size, size, 3) uint8 RGB pictures and (B, 68, 2) float64 landmarks in their pixels.
        """
        geometry = self.geometry(parameters)
        pictures = np.empty((len(looks), len(looks[0]), self.size, self.size, 3), np.uint8)
        points = np.empty((len(looks), 68, 2))
        for i, of_face in enumerate(looks):
            points[i], transform = self.project(geometry.landmarks[i], of_face[0])
            view = self._view(
                np.asarray(parameters[i]), Geometry(*(part[i] for part in geometry)), of_face[0], transform
            )
            for k, look in enumerate(of_face):
                pictures[i, k] = self._picture(view, look)
        return pictures, points

    def _view(self, parameters: np.ndarray, geometry: Geometry, pose: Look, transform: np.ndarray) -> _View:
        face, back = _see(geometry.face, pose), _see(geometry.back, pose)
        face_points, back_points = self._rest_points(face, transform), self._rest_points(back, transform)
        # Where the face is, at half the resolution, which is enough for its box and its soft shadow.
        inside = self._read(self._face_masks[:1], np.ascontiguousarray(face_points[::2, ::2]))[0]
        side = len(inside) // 10 * 2 + 1
        shadow = cv2.resize(
            np.minimum(1.3 * cv2.blur(inside, (side, side)), 1), face_points.shape[:2], interpolation=cv2.INTER_LINEAR
        )
        rows, columns = (slice(max(2 * part.start - 2, 0), 2 * part.stop + 2) for part in _bounding_box(inside))
        box = rows, columns
        in_box = np.ascontiguousarray(face_points[box])
        return _View(
            parameters,
            geometry.landmarks,
            geometry.face,
            face,
            back,
            box,
            in_box,
            back_points,
            _FaceMasks(*self._read(self._face_masks + (self._hair,), in_box)),
            self._read(self._back_masks + (self._hair[..., 2:],), back_points),
            shadow,
        )

    def _picture(self, view: _View, look: Look) -> np.ndarray:
        canvas = background(self.size * _SUPERSAMPLE, look)
        self._draw_back(canvas, view, look)
        self._draw_face(canvas[(slice(None),) + view.box], view, look)
        # Averaged in linear light, then given the display's gamma (2, for its cheap root).
        linear = cv2.resize(cv2.merge(list(canvas)), (self.size, self.size), interpolation=cv2.INTER_AREA)
        display = np.sqrt(np.clip(linear, 0, 1, out=linear), out=linear)
        return develop(display, look)

    def _rest_points(self, seen: np.ndarray, transform: np.ndarray) -> np.ndarray:
        """For each pixel the rest point that lands on it: (R, R, 2) float32.

        Newton's method, on a quarter of the resolution first, as the map is smooth, then on half of it.
        """
        resolution = self.size * _SUPERSAMPLE
        inverse = cv2.invertAffineTransform(transform)
        landing = cv2.merge(list(seen[:2]))
        down, right = np.gradient(landing, _STEP, axis=(0, 1))
        jacobian = np.concatenate([right, down], -1)  # du/dx, dv/dx, du/dy, dv/dy
        point: np.ndarray | None = None
        for divisor, iterations in ((4, 3), (2, 1)):
            count = resolution // divisor
            axis = (np.arange(count, dtype=np.float32) + 0.5) * np.float32(self.size / count) - np.float32(0.5)
            target = np.empty((count, count, 2), np.float32)
            for k in range(2):
                target[..., k] = (
                    np.float32(inverse[k, 0]) * axis
                    + np.float32(inverse[k, 2])
                    + np.float32(inverse[k, 1]) * axis[:, None]
                )
            if point is None:
                point = target + (target - _sample(landing, target))
            else:
                point = cv2.resize(point, (count, count), interpolation=cv2.INTER_LINEAR)
            for _ in range(iterations):
                u, v = cv2.split(target - _sample(landing, point))
                ux, vx, uy, vy = cv2.split(_sample(jacobian, point))
                determinant = np.maximum(ux * vy - uy * vx, 0.08)
                step = cv2.merge([(vy * u - uy * v) / determinant, (ux * v - vx * u) / determinant])
                point += np.clip(step, -0.12, 0.12, out=step)
        return cv2.resize(point, (resolution, resolution), interpolation=cv2.INTER_LINEAR)  # type: ignore[arg-type]

    def _read(self, textures: tuple[np.ndarray, ...], points: np.ndarray) -> list[np.ndarray]:
        """Channels of rest-space textures at rest points, uint8 as [0, 1] floats."""
        at = (points - _ORIGIN.astype(np.float32)) / np.float32(self._texel) - np.float32(0.5)
        # Positions to 1/32 of a texel, worked out once for all textures.
        whole, fraction = cv2.convertMaps(at, None, cv2.CV_16SC2)  # type: ignore[call-overload]
        channels: list[np.ndarray] = []
        for texture in textures:
            values = cv2.remap(texture, whole, fraction, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            if texture.dtype == np.uint8:
                values = values * np.float32(1 / 255)
            channels += cv2.split(values)
        return channels

    def _draw_back(self, canvas: np.ndarray, view: _View, look: Look) -> None:
        cap, curtain, ear, ear_shade, neck, clothes, collar, height, strand, reach = view.back_masks
        lit = _light(_shade(view.back, look), view.back_points, look)
        fall = (np.float32(look.hair_length + 2) - 5 * height + np.float32(0.12) * strand) * 12
        hair_mask = np.maximum(cap, curtain * np.clip(fall, 0, 1))
        _mix(canvas, _hair_colour(strand, reach, lit, look) * np.float32(0.7), hair_mask)
        skin = _linear(look.skin)
        _mix(canvas, skin * lit * (1 - np.float32(0.80) * view.covered), neck)
        _mix(canvas, _linear(look.cloth) * lit * (1 - 0.25 * collar), clothes)
        _mix(canvas, skin * _rgb(1.0, 0.86, 0.82) * lit * (1 - 0.55 * ear_shade), ear)

    def _draw_face(self, canvas: np.ndarray, view: _View, look: Look) -> None:
        masks, points, shading = view.face_masks, view.face_points, _shade(view.face, look)
        hair = _linear(look.hair)
        albedo = _face_albedo(masks, points, look)
        lit = _light(shading, points, look)

        # Light on the skin. Hair keeps light from the forehead below it.
        under_hair = _hair_mask(
            masks.hairline - np.float32(0.10), masks.fringe - np.float32(0.10), masks.strand, look, 6
        )
        colour = np.multiply(albedo, lit, out=albedo)
        colour *= 1 - np.float32(0.35) * under_hair
        colour += _rgb(*look.key) * self._highlight(shading, points, look, masks.lip)

        # Eyes and lashes, then the hair that hangs over them.
        self._draw_eyes(colour, view, lit, masks.opening, look)
        _mix(colour, hair * np.float32(0.06) + np.float32(0.004), masks.lash * np.float32(0.95))
        hair_mask = _hair_mask(masks.hairline, masks.fringe, masks.strand, look, 0.35 / self._texel)
        _mix(colour, _hair_colour(masks.strand, masks.reach, lit, look), hair_mask)
        _mix(canvas, colour, masks.face)

    def _highlight(self, shading: _Shading, points: np.ndarray, look: Look, lip: np.ndarray) -> np.ndarray:
        """Blinn–Phong highlights of oily skin and moist lips, at the nodes, then read at the pixels."""
        half = look.key_direction + (0, 0, 1)
        cosine = np.clip(shading.normal @ (half / np.linalg.norm(half)).astype(np.float32), 0, 1)
        power = cosine**16
        at_nodes = np.stack([power, power**2], -1) * shading.light[..., 1:]
        soft, sharp = cv2.split(_sample(at_nodes, points))
        return np.float32(look.gloss) * (soft * (1 - lip) + np.float32(1.6) * sharp * lip)

    def _draw_eyes(self, colour: np.ndarray, view: _View, lit: np.ndarray, opening: np.ndarray, look: Look) -> None:
        """Eyeballs behind the openings: their irises keep their shape whatever the lids do."""
        turned = sliders.GAZE_OF_EYE_ANGLE_Y * (view.parameters[sliders.NAMES.index("eye_angle_y")] - 0.5)
        sharpness = np.float32(0.5 / self._texel)
        for first, sign in ((36, -1), (42, 1)):
            half = np.zeros_like(opening)
            middle = opening.shape[1] // 2
            columns = slice(0, middle) if sign < 0 else slice(middle, None)
            half[:, columns] = opening[:, columns]
            if not half.any():
                continue
            box = _bounding_box(half)
            here = _sample(cv2.merge(list(view.surface[:2])), np.ascontiguousarray(view.face_points[box]))
            lids = view.landmarks[first : first + 6, :2]
            centre, top = lids.mean(0), lids[[1, 2], 1].mean()
            x, y = here[..., 0] - np.float32(centre[0]), here[..., 1] - np.float32(centre[1])
            ball = _rgb(0.78, 0.74, 0.72) * (1 - np.float32(5.5) * (x * x + np.float32(0.5) * y * y))
            # The iris goes a part of the way back to the viewer of a face that is turned.
            gaze_x = sign * turned + look.gaze[0] - 0.10 * look.yaw
            gaze_y = look.gaze[1] - 0.012 - 0.10 * look.pitch
            ix, iy = x - np.float32(gaze_x), y - np.float32(gaze_y)
            radius = np.sqrt(ix * ix + iy * iy)
            rim = head.IRIS_RADIUS
            rays = 0.85 + 0.15 * np.sin(np.arctan2(iy, ix) * 23)
            iris = (
                rays
                * (0.75 + 0.9 * np.clip(iy * 8 + 0.3, 0, 1))
                * (1 - 0.75 * head.smoothstep(radius, 0.72 * rim, rim))
            )
            _mix(ball, _linear(look.iris) * iris.astype(np.float32), np.clip((rim - radius) * sharpness + 0.5, 0, 1))
            _mix(ball, np.float32(0.006), np.clip((0.46 * rim - radius) * sharpness + 0.5, 0, 1))
            ball *= 0.42 + 0.58 * np.clip((here[..., 1] - np.float32(top)) / np.float32(0.11), 0, 1)
            ball *= 0.35 + 0.65 * np.clip(lit[(slice(None),) + box], 0, 1.4)
            spot = (gaze_x + 0.045 * (1 if look.key_direction[0] >= 0 else -1), gaze_y - 0.043)
            glint = np.hypot(x - np.float32(spot[0]), y - np.float32(spot[1]))
            _mix(ball, np.float32(1.0), np.float32(0.9) * np.clip((0.026 - glint) * sharpness + 0.5, 0, 1))
            _mix(colour[(slice(None),) + box], ball, half[box])


def _see(positions: np.ndarray, look: Look) -> np.ndarray:
    """Positions (3, …) turned by a look's pose and projected: u, v in rest units and depth z, (3, …)."""
    x, y, z = positions[0], positions[1], positions[2] - _PIVOT_DEPTH
    cos_yaw, sin_yaw = np.cos(look.yaw), np.sin(look.yaw)
    cos_pitch, sin_pitch = np.cos(look.pitch), np.sin(look.pitch)
    x, z = cos_yaw * x + sin_yaw * z, cos_yaw * z - sin_yaw * x
    y, z = cos_pitch * y + sin_pitch * z, cos_pitch * z - sin_pitch * y
    nearness = _CAMERA_DISTANCE / (_CAMERA_DISTANCE - z)
    return np.stack([x * nearness, y * nearness, z]).astype(positions.dtype)


def _sample(nodes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Read a (G, G) or (G, G, C) float32 array of nodes at rest points (H, W, 2), linearly."""
    at = (points - _ORIGIN.astype(np.float32)) / np.float32(_STEP)
    return cv2.remap(nodes, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]


def _shade(seen: np.ndarray, look: Look) -> _Shading:
    """Normals, cavities and cast shadows of a surface (3, G, G) as it is seen."""
    light = np.stack([_open_to_light(seen[2]), _cast_shadow(seen[2], look)], -1)
    return _Shading(_normals(seen).astype(np.float32), light.astype(np.float32))


def _normals(seen: np.ndarray) -> np.ndarray:
    """Unit normals (G, G, 3) of a surface (3, G, G)."""
    right = np.gradient(seen, axis=2)
    down = np.gradient(seen, axis=1)
    normal = np.stack(
        [
            right[1] * down[2] - right[2] * down[1],
            right[2] * down[0] - right[0] * down[2],
            right[0] * down[1] - right[1] * down[0],
        ],
        -1,
    )
    normal /= np.maximum(np.sqrt((normal * normal).sum(-1, keepdims=True)), 1e-9)
    return normal


def _open_to_light(depth: np.ndarray) -> np.ndarray:
    """How freely light from all around reaches a surface of depth (G, G): 1 in the open, less in hollows."""
    hollow = np.zeros_like(depth)
    for sigma, weight in ((0.07, 3.0), (0.20, 1.3)):
        hollow += weight * np.maximum(cv2.GaussianBlur(depth, (0, 0), sigma / _STEP) - depth, 0)
    return np.exp(-1.5 * hollow)


def _cast_shadow(depth: np.ndarray, look: Look) -> np.ndarray:
    """How much of the key light reaches a surface of depth (G, G): 1 all of it.

    What stands higher than the ray to the light, a few steps along it, casts a shadow.
    """
    direction = look.key_direction
    across = max(float(np.hypot(direction[0], direction[1])), 1e-3)
    slope = direction[2] / across
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    covered = np.zeros_like(depth)
    for distance in (0.06, 0.12, 0.19, 0.27, 0.36, 0.48):
        shift = np.array(
            [[1, 0, direction[0] / across * distance / _STEP], [0, 1, direction[1] / across * distance / _STEP]]
        )
        there = cv2.warpAffine(depth, shift, depth.shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
        higher = there - depth - np.float32(distance * slope)
        np.maximum(covered, higher / np.float32(0.05 + 0.25 * distance), out=covered)
    return 1 - look.shadow * cv2.GaussianBlur(np.minimum(covered, 1), (0, 0), 0.8)


def _face_albedo(masks: _FaceMasks, points: np.ndarray, look: Look) -> np.ndarray:
    """What share of the light the face throws back, linear RGB (3, h, w): skin and all that is painted on it."""
    skin = _linear(look.skin)
    albedo = np.empty((3, *masks.face.shape), np.float32)
    albedo[:] = skin
    if look.photo_seed is not None:
        albedo *= skin_texture(points, look.photo_seed)

    # Blush, stubble, make-up.
    albedo *= 1 - _rgb(0.0, 0.28, 0.30) * np.float32(look.blush) * masks.blush
    if look.stubble:
        stubble = masks.stubble * np.float32(look.stubble) * (0.7 + 0.6 * masks.strand)
        _mix(albedo, skin * _rgb(0.45, 0.45, 0.48), stubble)
    if look.eye_shadow[3]:
        _mix(albedo, _linear(look.eye_shadow[:3]), masks.eye_shadow * np.float32(look.eye_shadow[3]))
    _mix(albedo, _lip_colour(skin, look), masks.lip)

    # Folds, corners of the eyes, nostrils and the line between the lips; brows.
    albedo *= 1 - np.float32(0.62) * masks.shade
    _mix(albedo, skin * _rgb(0.75, 0.40, 0.38), masks.corner * np.float32(0.8))
    _mix(albedo, skin * np.float32(0.07) + _rgb(0.010, 0.002, 0.002), masks.dark)
    brow = _linear(look.hair) * np.float32(0.5) + skin * np.float32(0.04)
    _mix(albedo, brow, masks.brow * np.float32(0.92))
    return albedo


def _lip_colour(skin: np.ndarray, look: Look) -> np.ndarray:
    """The colour of lips on a skin (3, 1, 1), under lipstick as far as the look has it."""
    lips = skin * (_rgb(1.0, 0.55, 0.55) * np.float32(look.lip_tint) + np.float32(1 - look.lip_tint))
    return lips * np.float32(1 - look.lipstick[3]) + _linear(look.lipstick[:3]) * np.float32(look.lipstick[3])


def _light(shading: _Shading, points: np.ndarray, look: Look) -> np.ndarray:
    """Linear RGB light (3, H, W) that falls on each pixel's surface."""
    cosine = shading.normal @ look.key_direction.astype(np.float32)
    upward = 0.5 - 0.5 * shading.normal[..., 1]
    open_to_light, shadow = shading.light[..., 0], shading.light[..., 1]
    at_nodes = []
    for channel, wrap in enumerate((0.34, 0.20, 0.14)):  # light wraps further in red: it has been under the skin
        key = np.maximum((cosine + np.float32(wrap)) / np.float32(1 + wrap), 0) ** np.float32(1.25) * shadow
        ambient = np.float32(look.bounce[channel]) + np.float32(look.fill[channel] - look.bounce[channel]) * upward
        at_nodes.append(
            np.float32(look.key[channel]) * key * (np.float32(0.35) + np.float32(0.65) * open_to_light)
            + ambient * open_to_light
        )
    return np.stack(cv2.split(_sample(cv2.merge(at_nodes), points)))


def _hair_mask(
    hairline: np.ndarray, fringe: np.ndarray, strand: np.ndarray, look: Look, sharpness: float
) -> np.ndarray:
    below = hairline * np.float32(1 - look.fringe) + fringe * np.float32(look.fringe)
    below -= np.float32(0.03 + 0.10 * look.fringe) * strand
    below *= np.float32(-sharpness)
    below += np.float32(0.5)
    return np.clip(below, 0, 1, out=below)


def _hair_colour(strand: np.ndarray, reach: np.ndarray, lit: np.ndarray, look: Look) -> np.ndarray:
    hair = _linear(look.hair)
    off = (reach - np.float32(0.95) + np.float32(0.12) * strand) / np.float32(0.16)
    band = np.exp(-off * off) * (np.float32(0.5) + strand)
    return lit * (
        hair * (np.float32(0.85) + np.float32(0.75) * strand) + (hair * np.float32(0.7) + np.float32(0.03)) * band
    )


def _mix(canvas: np.ndarray, colour: np.ndarray | np.floating, mask: np.ndarray) -> None:
    """Lay a colour over a canvas (3, H, W), in place, as far as the mask (H, W) says."""
    difference = colour - canvas
    difference *= mask
    canvas += difference


def _rgb(*values: float) -> np.ndarray:
    """A (3, 1, 1) float32 colour, as the planes of a canvas want it."""
    return np.array(values, np.float32)[:, None, None]


def _linear(display: np.ndarray) -> np.ndarray:
    """A display colour as (3, 1, 1) float32 linear light (gamma 2, as the pictures are developed)."""
    return _rgb(*(np.asarray(display) ** 2))


def _bounding_box(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns outside which a mask (H, W) is 0; all of it where it is 0 everywhere."""
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    if not len(rows):
        return slice(0, mask.shape[0]), slice(0, mask.shape[1])
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
