"""Hair and beards: cards, narrow strips of strands that grow from the skin and follow it whatever the sliders do.

A style is grown once on the head without any target: roots are spread over a region, each strand goes its way under
combing, gravity and curl, and never goes into the head. In a picture each point of a card moves as the skin nearest to
it.
"""

from typing import NamedTuple

import numpy as np

from games.makehuman.data import SKIN
from games.makehuman.rig import Surface
from games.makehuman.skin import hairline_distance, smoothstep

_EYE_LEVEL = 7.325  #: decimetres

#: Instead of a card's number: lashes, which cover every other sample, and cloth, which covers all.
VEIL, SOLID = -1.0, -2.0

STRANDS = 256  #: different ones, a power of two

#: Shares of a strand's length: short near the root, where it follows the curve of the head.
_STEPS = np.array([1.0, 1.2, 1.5, 2.0, 2.6, 3.4]) / 11.7


_SHORT = 0.43  #: decimetres


class Style(NamedTuple):
    """How a style grows. Lengths and widths in decimetres."""

    seed: int
    cards: int = 640
    length: tuple[float, float, float] = (0.5, 0.4, 0.4)  #: on top, at the sides, at the back
    comb: tuple[float, float, float] = (0.0, 0.0, -1.0)  #: direction on top: to the character's left, up, forward
    outward: float = 0.0  #: how much combing also goes away from the middle
    parting: float = 0.0  #: where hair parts, x on top; it goes away from there as far as `outward` says
    lift: float = 0.35  #: how steeply strands leave the skin
    gravity: float = 0.15  #: how much of the direction turns downwards per segment
    curl: float = 0.0
    cling: float = 0.9  #: how far strands near the head lie down on it
    width: float = 0.10
    line: float = 0.0  #: how far above the hairline roots begin
    fringe: float = 0.0  #: length of hair that falls over the forehead
    tied: bool = False  #: combed to a knot behind
    beard: str = ""  #: not hair of the head: "full", "long", "goatee", "moustache"


STYLES: dict[str, Style] = {
    "crop": Style(1, 640, (0.16, 0.09, 0.1), comb=(0.3, 0, 0.8), lift=0.5, cling=0.6, width=0.08),
    "brush": Style(2, 640, (0.24, 0.10, 0.1), comb=(0, 0.4, -0.2), lift=1.0, gravity=0.0, cling=0.2, width=0.075),
    "side": Style(3, 640, (0.55, 0.14, 0.15), comb=(-1, 0, 0.15), lift=0.35, gravity=0.2, cling=0.7, width=0.10),
    "back": Style(4, 640, (0.60, 0.25, 0.3), comb=(0, 0, -1), lift=0.35, gravity=0.1, cling=0.75, width=0.10),
    "messy": Style(5, 640, (0.40, 0.22, 0.3), comb=(0.3, 0, 0.7), lift=0.5, curl=0.25, cling=0.5, width=0.085),
    "curly": Style(
        6, 780, (0.36, 0.28, 0.4), comb=(0, 0.3, 0), lift=1.2, gravity=0.05, curl=0.7, cling=0.3, width=0.11
    ),
    "afro": Style(7, 620, (0.42, 0.36, 0.4), comb=(0, 0, 0), lift=2.5, gravity=0, curl=0.6, cling=0, width=0.13),
    "bowl": Style(
        8, 460, (0.80, 0.55, 0.5), comb=(0, 0, 1), outward=0.6, lift=0.15, gravity=0.5, fringe=0.50, width=0.11
    ),
    "bob": Style(9, 300, (1.55, 1.10, 0.9), comb=(0, 0, -0.35), outward=1.2, lift=0.12, gravity=0.7, width=0.15),
    "long": Style(10, 240, (2.6, 2.1, 2.0), comb=(0, 0, -0.35), outward=1.2, lift=0.10, gravity=0.8, width=0.17),
    "waves": Style(
        11,
        240,
        (2.5, 2.0, 1.9),
        comb=(0, 0, -0.4),
        outward=1.1,
        parting=0.25,
        lift=0.2,
        gravity=0.7,
        curl=0.25,
        width=0.18,
    ),
    "fringe": Style(
        12, 340, (2.4, 1.9, 1.9), comb=(0, 0, 0.1), outward=1.0, lift=0.12, gravity=0.8, fringe=0.58, width=0.15
    ),
    "tied": Style(13, 420, (1.2, 0.9, 0.8), lift=0.05, gravity=0.0, tied=True, width=0.12),
    "swept": Style(
        14,
        400,
        (1.3, 0.8, 0.7),
        comb=(0.8, 0, -0.5),
        outward=0.3,
        parting=-0.3,
        lift=0.3,
        gravity=0.5,
        curl=0.1,
        width=0.12,
    ),
    "full beard": Style(
        21, 400, (0.13, 0.12, 0.12), lift=0.4, gravity=0.3, curl=0.25, cling=0.5, width=0.06, beard="full"
    ),
    "long beard": Style(
        22, 420, (0.40, 0.22, 0.2), lift=0.35, gravity=0.4, curl=0.2, cling=0.4, width=0.08, beard="long"
    ),
    "goatee": Style(
        23, 240, (0.16, 0.14, 0.1), lift=0.4, gravity=0.35, curl=0.2, cling=0.5, width=0.05, beard="goatee"
    ),
    "moustache": Style(24, 160, (0.11, 0.1, 0.1), lift=0.2, gravity=0.4, cling=0.6, width=0.045, beard="moustache"),
}


class Cards(NamedTuple):
    """A grown style: M points of cards and the triangles between them."""

    rest: np.ndarray  #: (M, 3) float32 positions on the head without any target
    nearest: np.ndarray  #: (M,) coarse vertex of the skin that a point moves with
    normals: np.ndarray  #: (M, 3) float32 outward
    tangents: np.ndarray  #: (M, 3) float32 along the strand
    place: np.ndarray  #: (M, 3) float32 across the card in [0, 1], along it in [0, 1], the card's own number in [0, 1]
    triangles: np.ndarray  #: (T, 3)


def grow(style: Style, surface: Surface, skin: np.ndarray) -> Cards:
    """Grow a style on a coarse surface; skin: its coarse vertices."""
    rng = np.random.default_rng(style.seed)
    normals = surface.mesh.normals(surface.rest)
    roots, root_normals = _roots(style, surface, normals, rng)
    strands = [roots]
    direction = _first_direction(style, roots, root_normals)
    length = _lengths(style, roots, rng)[:, None]
    phase = rng.uniform(0, 2 * np.pi, (len(roots), 3))

    # Each segment turns a little, lies down on the head where it is near, and never goes into it.
    obstacle = skin[surface.masks[skin, 3] < 0.5][::2]
    margin = 0.015 + 0.035 * rng.random((len(roots), 1))
    for segment, share in enumerate(_STEPS):
        wind = np.sin(phase + 1.9 * segment) * style.curl
        moved = strands[-1] + length * share * _unit(direction + wind)
        near = _nearest(moved, surface.rest[obstacle])
        away = normals[obstacle][near]
        height = ((moved - surface.rest[obstacle][near]) * away).sum(1, keepdims=True)
        moved = moved + away * np.maximum(margin - height, 0)
        direction = _unit(_unit(moved - strands[-1]) + style.gravity * 3 * share * np.array([0, -1.0, 0]))
        if style.tied:
            direction = _unit(np.array([0, 7.45, -0.75]) - moved)
        rising = np.maximum((direction * away).sum(1, keepdims=True), 0)
        direction = _unit(direction - style.cling * rising * away * np.exp(-((height / 0.25) ** 2)))
        strands.append(moved)
    if max(style.length) < _SHORT:
        strands = strands[::2]  # short strands hardly bend
    return _as_cards(style, np.stack(strands, 1), surface, skin, rng)


def _roots(
    style: Style, surface: Surface, normals: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Where strands begin: (N, 3) positions spread evenly over the style's region, and the normals there."""
    corners = surface.solid[surface.kind == SKIN]
    a, b, c = (surface.rest[corners[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    middle = (a + b + c) / 3
    density = area * _region(style, middle) * (surface.masks[corners, 3].max(1) < 0.3)

    # Evenly spaced places along the cumulated area, then a random point of the triangle there.
    places = (np.arange(style.cards) + rng.random(style.cards)) / style.cards * density.sum()
    chosen = np.searchsorted(np.cumsum(density), places).clip(0, len(corners) - 1)
    weight = rng.dirichlet((1, 1, 1), style.cards)
    return (
        np.einsum("nk,nkc->nc", weight, surface.rest[corners[chosen]]),
        _unit(np.einsum("nk,nkc->nc", weight, normals[corners[chosen]])),
    )


def _region(style: Style, points: np.ndarray) -> np.ndarray:
    """How densely a style grows at rest points (N, 3)."""
    x, y, z = points.T
    s = np.abs(x)
    if not style.beard:
        # What a picture never shows needs fewer strands.
        seen = 0.25 + 0.75 * smoothstep(z, -0.5, 0.1)
        return smoothstep(hairline_distance(x, y, z), style.line, style.line + 0.05) * seen
    upper = np.interp(s, (0.0, 0.2, 0.35, 0.55, 0.70), (6.59, 6.60, 6.65, 6.80, 7.10))
    jaw = (y < upper) & (y > 6.12) & (z > 0.45)
    moustache = (s < 0.27) & (y > np.interp(s, (0, 0.2, 0.27), (6.80, 6.73, 6.60))) & (z > 1)
    moustache &= y < np.interp(s, (0, 0.2, 0.27), (6.89, 6.82, 6.70))
    region = {
        "full": jaw | moustache,
        "long": jaw | moustache,
        "goatee": ((s < 0.26) & (y < 6.56) & (y > 6.2) & (z > 0.9)) | moustache,
        "moustache": moustache,
    }[style.beard]
    return region.astype(float) * (1 - 0.6 * ((s < 0.16) & (y > 6.45) & (y < 6.6)))


def _lengths(style: Style, roots: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N,) length of each strand."""
    top, side, back = style.length
    x, y, z = roots.T
    if style.beard:
        length = side + (top - side) * smoothstep(y, 6.6, 6.3)
        length = np.where(y > 6.6, np.minimum(length, 0.13), length)
    else:
        above = smoothstep(y, 7.55, 7.9)
        behind = smoothstep(z, 0.2, -0.3) * (1 - above)
        length = top * above + (1 - above) * (side + (back - side) * behind)
        if style.fringe:
            front = (z > 0.72) & (np.abs(x) < 0.5) & (y > 7.7)
            length = np.where(front, style.fringe, length)
    return length * rng.uniform(0.8, 1.15, len(roots))


def _first_direction(style: Style, roots: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """(N, 3) the way each strand leaves the skin."""
    x, y, z = roots.T
    if style.beard:
        comb = np.stack([0.3 * np.sign(x) * (y > 6.65), np.full_like(x, -1.0), np.full_like(x, 0.1)], 1)
    elif style.tied:
        comb = np.array([0, 7.45, -0.75]) - roots
    else:
        above = smoothstep(y, 7.5, 7.9)[:, None]
        away = np.tanh((x - style.parting) / 0.08) * style.outward
        top = np.array(style.comb) + np.stack([away, np.zeros_like(x), np.zeros_like(x)], 1)
        comb = top * above + np.array([0, -1.0, -0.25]) * (1 - above)
        if style.fringe:
            front = ((z > 0.72) & (np.abs(x) < 0.5) & (y > 7.7))[:, None]
            comb = np.where(front, np.stack([0.3 * x, -0.6 * np.ones_like(x), np.ones_like(x)], 1), comb)
    along = comb - normals * (comb * normals).sum(1, keepdims=True)
    return _unit(along + normals * style.lift + 1e-6)


def _nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) index of the nearest of others (K, 3) to each point (N, 3)."""
    others = others.astype(np.float32)
    return np.argmin((others**2).sum(1) - 2 * points.astype(np.float32) @ others.T, axis=1)


def _as_cards(style: Style, strands: np.ndarray, surface: Surface, skin: np.ndarray, rng: np.random.Generator) -> Cards:
    """Strands (N, S + 1, 3) as cards of two rows of points."""
    count, points = strands.shape[:2]
    tangents = _unit(np.gradient(strands, axis=1))
    flat = strands.reshape(-1, 3)
    near = skin[_nearest(flat, surface.rest[skin])]
    outward = flat - np.array([0, 7.35, 0.25]) * np.array([1, 1, 1.0])
    outward[:, 1] = np.maximum(outward[:, 1], -0.1) * 0.8
    outward = _unit(outward).reshape(strands.shape)

    # A card lies flat on the head, a little turned, and narrows to its tip.
    across = _unit(np.cross(tangents, outward) + 0.35 * rng.standard_normal((count, 1, 3)))
    along = np.linspace(0, 1, points)
    width = style.width * (1 - 0.55 * along**2) / 2
    sides = np.stack([strands - across * width[:, None], strands + across * width[:, None]], 2)
    lean = np.stack([outward - 0.45 * across, outward + 0.45 * across], 2)
    place = np.empty((count, points, 2, 3))
    place[..., 0] = (0, 1)
    place[..., 1] = along[:, None]
    place[..., 2] = rng.random((count, 1, 1))

    first = np.arange(count)[:, None] * points * 2 + np.arange(points - 1) * 2
    quads = np.stack([first, first + 1, first + 3, first + 2], -1).reshape(-1, 4)
    corners = np.stack([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]], 1).reshape(-1, 3)
    return Cards(
        rest=sides.reshape(-1, 3).astype(np.float32),
        nearest=np.repeat(near, 2),
        normals=_unit(lean).reshape(-1, 3).astype(np.float32),
        tangents=np.repeat(tangents.reshape(-1, 3), 2, axis=0).astype(np.float32),
        place=place.reshape(-1, 3).astype(np.float32),
        triangles=corners,
    )


def lashes(surface: Surface) -> Cards:
    """The upper lashes of the mesh as cards; the lower ones are too coarse for a picture."""
    upper = surface.lashes[surface.rest[surface.lashes, 1].mean(1) > _EYE_LEVEL]
    points, corners = np.unique(upper, return_inverse=True)
    rest = surface.rest[points]
    forward = np.repeat(np.array([[0, 0, 1]], np.float32), len(points), axis=0)
    place = np.zeros((len(rest), 3), np.float32)
    place[:, 2] = VEIL
    return Cards(rest, points, forward, forward, place, corners.reshape(-1, 3))


def hat(surface: Surface) -> Cards:
    """A knitted cap: the scalp, raised."""
    points, corners = np.unique(surface.solid[surface.kind == SKIN], return_inverse=True)
    corners = corners.reshape(-1, 3)
    rest, normals = surface.rest[points], surface.mesh.normals(surface.rest)[points]
    x, y, z = rest.T
    above = y - (7.50 + 0.24 * smoothstep(z, 0.0, 1.0))
    raised = rest + normals * (0.13 + 0.04 * smoothstep(above, 0.12, 0.0))[:, None]
    inside = (above[corners] > 0).all(1)
    sideways = np.cross(normals, (0, 1, 0)).astype(np.float32)
    place = np.stack([np.arctan2(x, z - 0.25) * 2, np.full(len(x), 1.0), np.full(len(x), SOLID)], 1)
    return Cards(
        raised.astype(np.float32),
        points,
        normals.astype(np.float32),
        sideways,
        place.astype(np.float32),
        corners[inside],
    )


def joined(parts: list[Cards]) -> Cards:
    """Several sets of cards as one."""
    first = np.cumsum([0] + [len(part.rest) for part in parts])
    corners = [part.triangles + start for part, start in zip(parts, first, strict=False)]
    fields = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in Cards._fields if name != "triangles"
    }
    return Cards(**fields, triangles=np.concatenate(corners))


def strand_reach() -> np.ndarray:
    """(STRANDS,) float32: at which share of a card's length each of its strands ends."""
    rng = np.random.default_rng(7)
    length = rng.random(STRANDS) * 0.42 + 0.58
    length = np.maximum(length, np.roll(length, 1) * 0.8)
    return (np.floor(length * 255 + 9.83) / 256).astype(np.float32)  # whole 256ths, for strands end bluntly


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
