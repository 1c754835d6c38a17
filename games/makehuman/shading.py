"""Light on skin, eyes, mouth and hair. Colours are linear RGB planes (3, N); the display is their square root."""

from dataclasses import dataclass
from typing import NamedTuple, Self

import cv2
import numpy as np

from games.makehuman.hair import SOLID, VEIL
from games.makehuman.looks import Look
from games.makehuman.shadow import ShadowMap, remap_list
from games.makehuman.skin import Charts, smoothstep

_STEPS = 512
_COSINES = np.linspace(-1, 1, _STEPS, dtype=np.float32)
_WRAP = (0.36, 0.20, 0.14)  #: light goes further round in red: it has been under the skin
_IRIS_RADIUS, _PUPIL_RADIUS = 0.43, 0.19  #: sines of their angles from the axis of the eye


class Attributes(NamedTuple):
    """What is interpolated at samples of the head, each (N,) float32 or (C, N)."""

    normal: np.ndarray  #: (3, N) unit, in the camera's axes
    position: np.ndarray  #: (3, N) in the camera's axes; (3, 0) where no shadow needs it
    column: np.ndarray  #: in the charts
    row: np.ndarray
    occlusion: np.ndarray  #: 1 where the whole sky is seen
    lips: np.ndarray
    mouth: np.ndarray

    def of(self, part: slice) -> "Attributes":
        """Those of a part of the samples."""
        return Attributes(*(values[..., part] for values in self))


def linear(display: np.ndarray) -> np.ndarray:
    """A display colour (3,) as (3, 1) float32 linear light."""
    return (np.asarray(display, np.float32) ** 2)[:, None]


def mix(colour: np.ndarray, other: np.ndarray, share: np.ndarray) -> None:
    """Move a colour (3, N) towards another, (3, N) or (3, 1), in place, as far as share (N,) says."""
    difference = other - colour
    difference *= share
    colour += difference


@dataclass(frozen=True, eq=False)
class Lighting:
    """A look's lights, their response tabulated over the cosine to the normal."""

    look: Look
    shadow: ShadowMap | None
    key: np.ndarray  #: (3, S)
    second: np.ndarray  #: (3, S)
    half: np.ndarray  #: (3,) between the key light and the viewer

    @classmethod
    def of(cls, look: Look, shadow: ShadowMap | None) -> Self:
        wrapped = [np.maximum((_COSINES + w) / (1 + w), 0) ** 1.25 for w in _WRAP]
        response = np.array(wrapped, np.float32)
        half = look.key.direction + np.array([0, 0, 1.0])
        return cls(
            look=look,
            shadow=shadow,
            key=response * np.asarray(look.key.colour, np.float32)[:, None],
            second=response * np.asarray(look.second.colour, np.float32)[:, None],
            half=(half / np.linalg.norm(half)).astype(np.float32),
        )

    def reaching(self, position: np.ndarray) -> np.ndarray | float:
        """How much of the key light reaches positions (3, N): (N,), or 1 where there are no shadows."""
        if self.shadow is None:
            return 1.0
        strength = np.float32(self.look.key.shadow)
        return 1 - strength + strength * self.shadow.lit(position)

    def on(self, normal: np.ndarray, occlusion: np.ndarray, reaching: np.ndarray | float) -> np.ndarray:
        """Light (3, N) on a surface with normals (3, N) of which the key light reaches a part."""
        key = _cosine_index(normal, self.look.key.direction)
        light = self.key.take(key, axis=1, mode="clip")
        light *= reaching * (np.float32(0.45) + np.float32(0.55) * occlusion)
        second = _cosine_index(normal, self.look.second.direction)
        light += self.second.take(second, axis=1, mode="clip") * occlusion
        upward = (np.float32(0.5) + np.float32(0.5) * normal[1]) * occlusion
        below = self.look.below.astype(np.float32)
        slope = (self.look.above - self.look.below).astype(np.float32)
        for channel in range(3):
            light[channel] += below[channel] * occlusion
            light[channel] += slope[channel] * upward
        return light

    def highlights(self, normal: np.ndarray, *powers: float) -> list[np.ndarray]:
        """Blinn and Phong's highlights of the key light, (N,) for each power."""
        index = _cosine_index(normal, self.half)
        return [(np.maximum(_COSINES, 0) ** np.float32(power)).take(index, mode="clip") for power in powers]


def _cosine_index(normal: np.ndarray, direction: np.ndarray) -> np.ndarray:
    x, y, z = (np.float32(value * (_STEPS - 1) / 2) for value in direction)
    cosine = normal[0] * x
    cosine += normal[1] * y
    cosine += normal[2] * z
    cosine += np.float32((_STEPS - 1) / 2 + 0.5)
    return cosine.astype(np.intp)


class _Painted(NamedTuple):
    """What the charts say at N samples: (N,) float32 in [0, 1] each."""

    brow_across: np.ndarray
    brow_along: np.ndarray
    above_hairline: np.ndarray
    temple: np.ndarray
    beard: np.ndarray
    moustache: np.ndarray
    redness: np.ndarray
    socket: np.ndarray
    eye_shadow: np.ndarray
    crease: np.ndarray
    fold_right: np.ndarray
    fold_up: np.ndarray
    blotch: np.ndarray
    pore: np.ndarray
    freckle: np.ndarray
    strand: np.ndarray
    pore_right: np.ndarray
    pore_up: np.ndarray
    stubble: np.ndarray
    spare: np.ndarray

    @classmethod
    def read(cls, charts: Charts, at: Attributes, *, offset: tuple[float, float]) -> Self:
        """Read the charts, those of noise shifted by `offset`."""
        column, row = at.column + np.float32(offset[0]), at.row + np.float32(offset[1])
        read = [
            *remap_list((charts.hair, charts.tones, charts.age), at.column, at.row),
            *remap_list((charts.noise, charts.relief), column, row, wrap=True),
        ]
        channels = np.array([channel for chart in read for channel in cv2.split(chart)])
        return cls(*(channels.reshape(len(channels), -1)[:, : len(column)] * np.float32(1 / 255)))


def shade_skin(at: Attributes, charts: Charts, lighting: Lighting, *, offset: tuple[float, float]) -> np.ndarray:
    """Colour (3, N) of skin, lips, brows, stubble, make-up, the hair's ground on the scalp, and cloth below the neck.

    offset: by how much the noise of the charts is shifted for this character.
    """
    look = lighting.look
    painted = _Painted.read(charts, at, offset=offset)
    colour = _bare_skin(look, painted)

    # What grows on it and is put on it.
    _paint_make_up(colour, at, look, painted)
    _paint_hair(colour, look, painted)
    inside = colour * np.float32(0.10) + np.array([[0.05], [0.008], [0.008]], np.float32)
    mix(colour, inside, smoothstep(at.mouth, 0.3, 0.7))
    cloth = (at.row > _cloth_row(charts, at.column)).astype(np.float32)
    mix(colour, linear(look.cloth) * (np.float32(0.8) + np.float32(0.4) * painted.strand), cloth)

    # Light on its relief.
    half, bump, fold = np.float32(0.5), np.float32(0.5 * look.pores), np.float32(2.2 * look.wrinkles)
    normal = at.normal.copy()
    normal[0] -= bump * (painted.pore_right - half) + fold * (painted.fold_right - half)
    normal[1] -= bump * (painted.pore_up - half) + fold * (painted.fold_up - half)
    normal = unit(normal)
    reaching = lighting.reaching(at.position)
    colour *= lighting.on(normal, at.occlusion, reaching)
    colour += _skin_gloss(at, lighting, normal, reaching)
    return colour


def _bare_skin(look: Look, painted: _Painted) -> np.ndarray:
    """Colour (3, N) of skin: blotches, pores, creases, redness, freckles."""
    tone = 1 + np.float32(0.28 * look.mottle) * (painted.blotch - np.float32(0.5))
    tone += np.float32(0.10 * look.pores) * (painted.pore - np.float32(0.5))
    tone -= np.float32(0.45 * look.wrinkles) * painted.crease
    tone -= np.float32(0.10 + 0.15 * look.wrinkles) * painted.socket
    colour = linear(look.skin) * tone
    red = np.maximum(painted.redness * np.float32(look.redness), np.float32(0.25) * painted.socket)
    colour[1] *= 1 - np.float32(0.24) * red
    colour[2] *= 1 - np.float32(0.28) * red
    if look.freckles:
        where = np.minimum(painted.redness * 2 + np.float32(0.15), 1)
        spots = painted.freckle * np.float32(look.freckles * 0.75) * where
        mix(colour, colour * np.array([[0.55], [0.42], [0.36]], np.float32), spots)
    return colour


def _paint_make_up(colour: np.ndarray, at: Attributes, look: Look, painted: _Painted) -> None:
    """Lips, lipstick and eye shadow."""
    lips = smoothstep(at.lips, 0.25, 0.75)
    skin = linear(look.skin)
    tint = skin * (1 - np.float32(look.lips) * np.array([[0.12], [0.52], [0.50]], np.float32)) * np.float32(0.95)
    stick, strength = look.lipstick
    tint = tint * np.float32(1 - strength) + linear(stick) * np.float32(strength)
    mix(colour, tint * (np.float32(0.85) + np.float32(0.3) * painted.strand), lips)
    shade, strength = look.eye_shadow
    if strength > 0:
        mix(colour, linear(shade), painted.eye_shadow * np.float32(0.8 * strength))


def _paint_hair(colour: np.ndarray, look: Look, painted: _Painted) -> None:
    """Brows, stubble and the ground of the hair on the scalp."""
    tint, strand = linear(look.hair_colour), painted.strand

    # Brows: strands around a line that the arch bends.
    thickness, arch, density = look.brow
    along = painted.brow_along
    across = painted.brow_across * np.float32(0.2) - np.float32(0.1)
    across = across - np.float32(0.035 * arch) * np.sin(along * np.float32(2.6)) + np.float32(0.006)
    width = np.float32(0.018 + 0.024 * thickness) * (np.float32(1.1) - np.float32(0.75) * along * along)
    brow = (
        smoothstep(np.abs(across) / width, 1.25, 0.55) * smoothstep(along, 0.02, 0.10) * smoothstep(along, 0.99, 0.85)
    )
    brow *= np.float32(density) * (np.float32(0.70) + np.float32(0.55) * strand)
    mix(colour, tint * np.float32(0.7) + np.float32(0.002), np.minimum(brow, np.float32(0.96)))

    # Stubble, and the ground of a beard.
    covered = np.maximum(painted.beard, painted.moustache) * np.float32(max(look.stubble, 1.1 * bool(look.beard)))
    covered *= np.float32(0.35) + np.float32(0.9) * painted.stubble
    mix(colour, tint * np.float32(0.8) + np.float32(0.15) * colour, np.clip(covered, 0, 1))

    # The scalp.
    above = (painted.above_hairline - np.float32(0.5)) * np.float32(0.8) + np.float32(0.10) * (strand - np.float32(0.5))
    above = above - np.float32(look.hairline) * (1 + painted.temple)
    ground = smoothstep(above, -0.02, 0.07)
    if look.bald:
        ground = ground * np.float32(0.25)
    mix(colour, tint * (np.float32(0.35) + np.float32(0.9) * strand), ground)


def _cloth_row(charts: Charts, column: np.ndarray) -> np.ndarray:
    """The row below which cloth covers the neck: lower in front."""
    height = charts.hair.shape[0]
    middle = np.abs(column / height - 1)  # 0 in front, 1 behind
    return np.float32(height) * (np.float32(0.925) - np.float32(0.05) * smoothstep(middle, 0.05, 0.35))


def _skin_gloss(at: Attributes, lighting: Lighting, normal: np.ndarray, reaching: np.ndarray | float) -> np.ndarray:
    """Highlights (3, N) of oily skin and moist lips, and the sheen of skin seen at a grazing angle."""
    look = lighting.look
    lips = smoothstep(at.lips, 0.3, 0.8)
    broad, sharp = lighting.highlights(normal, 14, 60)
    broad *= np.float32(0.16 * look.gloss)
    sharp *= np.float32(0.14 * look.gloss) + np.float32(0.16) * lips
    shine = (broad + sharp) * at.occlusion * reaching
    grazing = 1 - np.clip(normal[2], 0, 1)
    grazing = grazing * grazing * grazing * at.occlusion * np.float32(0.05)
    light = np.asarray(look.key.colour, np.float32)[:, None] * shine
    return light + np.asarray(look.above, np.float32)[:, None] * grazing


def shade_eyes(at: Attributes, outward: np.ndarray, gaze: np.ndarray, lighting: Lighting) -> np.ndarray:
    """Colour (3, N) of eyeballs.

    Args:
        outward: (3, N) unit, from the middle of the eye, in the camera's axes.
        gaze: (3,) unit, where the eye looks.
    """
    look = lighting.look
    facing = gaze.astype(np.float32) @ outward
    away = np.where(facing > 0, np.sqrt(np.clip(1 - facing * facing, 0, 1)), np.float32(1))
    colour = np.empty_like(outward)
    colour[:] = np.array([[0.72], [0.68], [0.66]], np.float32)
    colour *= 1 - np.float32(0.22) * smoothstep(away, 0.5, 0.95)

    # The iris: rays, a dark rim, brighter opposite the light; the pupil.
    across = outward[0] - facing * np.float32(gaze[0])
    up = outward[1] - facing * np.float32(gaze[1])
    rays = np.float32(0.9) + np.float32(0.25) * np.sin(np.arctan2(up, across) * np.float32(21))
    bright = (
        rays * (np.float32(1.25) - np.float32(1.6) * up) * (1 - np.float32(0.7) * smoothstep(away, 0.34, _IRIS_RADIUS))
    )
    mix(
        colour, linear(look.iris) * bright * np.float32(1.5), smoothstep(away, _IRIS_RADIUS + 0.03, _IRIS_RADIUS - 0.04)
    )
    mix(colour, np.full((3, 1), 0.004, np.float32), smoothstep(away, _PUPIL_RADIUS + 0.03, _PUPIL_RADIUS - 0.03))

    # The upper lid keeps light from the upper part.
    shade = np.float32(0.38) + np.float32(0.62) * smoothstep(outward[1], 0.42, 0.02)
    reaching = lighting.reaching(at.position)
    light = lighting.on(outward, np.float32(0.5) + np.float32(0.5) * at.occlusion, reaching)
    colour *= np.minimum(light * np.float32(0.75) + np.float32(0.12), 1.2) * shade
    (glint,) = lighting.highlights(unit(outward + np.float32(0.35) * gaze.astype(np.float32)[:, None]), 500)
    colour += np.minimum(glint * np.float32(1.6), 1) * np.float32(0.8) * np.mean(look.key.colour)
    return colour


def shade_mouth(at: Attributes, tint: tuple[float, float, float], lighting: Lighting) -> np.ndarray:
    """Colour (3, N) of teeth or tongue: they lie in the dark of the mouth."""
    light = lighting.on(at.normal, np.float32(0.35) * np.ones_like(at.occlusion), 0.6)
    colour = np.array(tint, np.float32)[:, None] * light
    (shine,) = lighting.highlights(at.normal, 40)
    colour += shine * np.float32(0.05)
    return colour


def shade_hair(
    normal: np.ndarray, tangent: np.ndarray, place: np.ndarray, colour: np.ndarray, lighting: Lighting
) -> np.ndarray:
    """Colour (3, N) of strands: normals and tangents (3, N) in the camera's axes; place (3, N) as in `hair.Cards`.

    The highlight is Kajiya and Kay's (1989): it depends on the angle between the half vector and the strand.
    """
    across, along, card = place
    cloth, veil = (card == SOLID).astype(np.float32), (card == VEIL).astype(np.float32)
    card = np.maximum(card, 0) + np.float32(0.5) * cloth
    streak = np.sin(across * np.float32(19) + card * np.float32(50)) * np.float32(0.20)
    shade = (np.float32(0.55) + np.float32(0.75) * card + streak) * (np.float32(0.55) + np.float32(0.5) * along)
    shade *= 1 - np.float32(0.8) * veil
    light = lighting.on(unit(normal), np.float32(0.35) + np.float32(0.65) * along, 1.0)
    cosine = lighting.half @ unit(tangent)
    shine = np.maximum(1 - cosine * cosine, 0)  # squared sine
    shine *= shine * shine
    shine *= shine
    shine *= shine
    shine *= (1 - cloth - veil) * np.clip(normal[2] + np.float32(0.3), 0, 1) * (np.float32(0.3) + card)
    tint = linear(colour)
    result = tint * shade * light
    result += (tint * np.float32(0.55) + np.float32(0.018)) * shine * np.float32(np.mean(lighting.look.key.colour))
    return result


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (3, N) of length 1."""
    x, y, z = vectors
    length = np.sqrt(x * x + y * y + z * z)
    return vectors / np.maximum(length, np.float32(1e-6))
