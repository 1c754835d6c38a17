"""What makes a render look like a photo: backgrounds, things worn, lens, sensor, compression."""

import cv2
import numpy as np

from games.makehuman.looks import Look
from games.makehuman.view import View

_GREY = np.array([0.299, 0.587, 0.114])  #: how bright red, green and blue look


def background(size: int, look: Look, *, supersample: int) -> np.ndarray:
    """A (3, S, S) float32 display picture of a studio's plain background, or of something like a place.

    supersample: a place has a fourth of the details that so many samples per pixel's side would show.
    """
    if look.photo_seed is None:
        rise = np.sqrt(np.linspace(0.40, 0.24, size, dtype=np.float32))[:, None]
        return np.sqrt(np.array([0.94, 0.97, 1.0], np.float32))[:, None, None] * np.repeat(rise, size, 1)
    rng = np.random.default_rng([look.photo_seed, 1])

    # Blurred fields of colour of several scales, out of focus.
    side = max(size * supersample // 4, 32)
    scene: np.ndarray = np.broadcast_to(rng.uniform(0.02, 0.7, 3).astype(np.float32), (side, side, 3)).copy()
    tint = rng.uniform(0.6, 1.4, 3).astype(np.float32)
    for cells in (2, 5, 13):
        noise = rng.standard_normal((cells, cells, 3)).astype(np.float32)
        noise = noise.mean(-1, keepdims=True) * 0.8 + noise * 0.35
        noise = noise * tint * np.float32(rng.uniform(0.02, 0.16))
        scene += cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)

    # A few hard shapes: walls, windows, lamps.
    for _ in range(rng.integers(0, 7)):
        colour = tuple(float(c) for c in rng.uniform(0, 0.9, 3))
        corner = rng.integers(-side // 4, side, 2)
        extent = rng.integers(side // 20, side // 2, 2)
        if rng.random() < 0.6:
            cv2.rectangle(scene, corner.tolist(), (corner + extent).tolist(), colour, -1)
        else:
            cv2.circle(scene, corner.tolist(), int(extent[0]) // 2, colour, -1, cv2.LINE_AA)
    scene = cv2.transform(scene, _saturation(rng.uniform(0.15, 0.8), grey=np.full(3, 1 / 3)))
    scene = cv2.GaussianBlur(np.clip(scene, 0.003, 1), (0, 0), side * rng.uniform(0.01, 0.04))
    return np.sqrt(np.stack(cv2.split(cv2.resize(scene, (size, size), interpolation=cv2.INTER_LINEAR))))


def _saturation(factor: float, *, grey: np.ndarray) -> np.ndarray:
    """(3, 3): moves a colour away from its grey; grey: (3,) the weights of the channels in it."""
    return factor * np.eye(3) + (1 - factor) * grey


def put_before(display: np.ndarray, look: Look, *, view: View, landmarks: np.ndarray) -> None:
    """Draw glasses and a hand over a display picture (S, S, 3), in place.

    landmarks: (68, 3) fixed landmarks in the camera's axes, in decimetres.
    """
    if not (look.glasses or look.hand):
        return
    rng = np.random.default_rng([look.photo_seed or 0, 4])
    if look.glasses:
        _draw_glasses(display, rng, view=view, landmarks=landmarks)
    if look.hand:
        _draw_hand(display, rng, look)


def _draw_glasses(display: np.ndarray, rng: np.random.Generator, *, view: View, landmarks: np.ndarray) -> None:
    """Rims before the eyes, a bridge, and the temple on the side that is seen."""
    size = display.shape[0]
    eyes = np.stack([landmarks[36:42].mean(0), landmarks[42:48].mean(0)])
    right = (eyes[1] - eyes[0]) / np.linalg.norm(eyes[1] - eyes[0])
    forward = view.rotation @ np.array([0.0, 0.0, 1.0])
    up = np.cross(forward, right)
    width, height = rng.uniform(0.20, 0.27), rng.uniform(0.14, 0.22)
    power = rng.uniform(2, 4.5)  # of a superellipse: rounder or squarer rims
    colour = rng.uniform(0.02, 0.35, 3) * rng.uniform(0.3, 1.6)
    thickness = max(1, round(rng.uniform(0.012, 0.045) * size * 0.35))

    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    across = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** (2 / power) * width
    above = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** (2 / power) * height
    rims = [eye + forward * 0.20 - up * 0.03 + np.outer(across, right) + np.outer(above, up) for eye in eyes]
    lines = [*rims, np.stack([rims[0][0] + up * 0.03, rims[1][24] + up * 0.03])]
    lines += [
        np.stack([rim[at], landmarks[jaw] + up * 0.05]) for rim, at, jaw in zip(rims, (24, 0), (0, 16), strict=True)
    ]

    # A lens takes a little light and mirrors a little.
    shine = rng.uniform(0.0, 0.16)
    pixels = [np.round(view.pixels(line.T).T * 8).astype(np.int32) for line in lines]
    for rim in pixels[:2]:
        lens = np.zeros(display.shape[:2], np.float32)
        cv2.fillPoly(lens, [rim], 1.0, cv2.LINE_AA, 3)
        display += lens[..., None] * (np.float32(shine * 0.5) - np.float32(0.08) * display)
    for i, line in enumerate(pixels[:3] + [pixels[3 + int(view.rotation[0, 2] < 0)]]):
        cv2.polylines(display, [line], i < 2, colour.tolist(), thickness, cv2.LINE_AA, 3)


def _draw_hand(display: np.ndarray, rng: np.random.Generator, look: Look) -> None:
    """Fingers that reach into the picture from a lower corner."""
    size = display.shape[0]
    layer: np.ndarray = np.zeros_like(display)
    cover: np.ndarray = np.zeros(display.shape[:2], np.float32)
    left = rng.random() < 0.5
    root = np.array([-0.05 if left else 1.05, rng.uniform(0.8, 1.05)]) * size
    heading = np.radians(rng.uniform(-75, -40))
    skin = np.asarray(look.skin) * rng.uniform(0.75, 1.0)
    for finger in range(4):
        spread = heading + np.radians(9 * finger)
        reach = size * (0.30 - 0.025 * abs(finger - 1.5))
        start = root + np.array([0, finger * 0.075 * size])
        tip = start + np.array([np.cos(spread) * (1 if left else -1), np.sin(spread)]) * reach
        begin, end = np.round(start).astype(int).tolist(), np.round(tip).astype(int).tolist()
        for shrink, shade in ((1.0, 0.62), (0.72, 0.85), (0.42, 1.0)):
            cv2.line(layer, begin, end, (skin * shade).tolist(), max(1, round(0.075 * size * shrink)), cv2.LINE_AA)
        cv2.line(cover, begin, end, 1.0, max(1, round(0.075 * size)), cv2.LINE_AA)
    layer, cover = cv2.GaussianBlur(layer, (0, 0), 0.008 * size), cv2.GaussianBlur(cover, (0, 0), 0.004 * size)
    display += (layer - display) * np.minimum(cover, 1)[..., None]


def develop(display: np.ndarray, look: Look) -> np.ndarray:
    """A (S, S, 3) float32 display picture in [0, 1] as it comes out of its camera: uint8."""
    if look.photo_seed is None:
        return (display * 255 + 0.5).astype(np.uint8)
    rng = np.random.default_rng([look.photo_seed, 3])
    size = display.shape[0]

    # Colours and contrast.
    saturation = _saturation(rng.uniform(0.65, 1.25), grey=_GREY)
    gain = (1 + 0.04 * rng.standard_normal(3)) * rng.uniform(0.85, 1.2)
    picture = cv2.transform(display, gain[:, None] * saturation)
    picture = cv2.pow(np.clip(picture, 0, 1, out=picture), rng.uniform(0.8, 1.25))
    contrast = rng.uniform(0.85, 1.15)

    # Blur, noise and compression.
    if rng.random() < 0.6:
        picture = cv2.GaussianBlur(picture, (0, 0), max(0.05, rng.uniform(0.2, 1.3) * size / 256))
    noise = np.asarray(rng.standard_normal(picture.shape, np.float32))
    strength, middle = rng.uniform(0.0, 0.035), 127.5 * (1 - contrast)
    result = cv2.addWeighted(picture, 255 * contrast, noise, 255 * strength, middle, dtype=cv2.CV_8U)
    if rng.random() < 0.7:
        quality = int(rng.integers(35, 96))
        bgr = cv2.cvtColor(result, cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
        result = cv2.cvtColor(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB)
    return result
