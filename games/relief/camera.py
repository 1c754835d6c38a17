"""What makes a render look like a photo: backgrounds, skin texture, lens, sensor, compression."""

import cv2
import numpy as np

from games.relief.looks import Look


def background(resolution: int, look: Look) -> np.ndarray:
    """A (3, R, R) float32 background in linear light: a studio's plain one, or something like a place."""
    if look.photo_seed is None:
        rise = np.linspace(0.52, 0.36, resolution, dtype=np.float32)[:, None]
        return np.array([0.94, 0.97, 1.0], np.float32)[:, None, None] * np.repeat(rise, resolution, 1)
    rng = np.random.default_rng([look.photo_seed, 1])
    # Blurred colour fields of several scales, with a few hard shapes: walls, foliage, windows. Out of
    # focus, so a quarter of the resolution holds it.
    full, resolution = resolution, max(resolution // 4, 32)
    scene = np.broadcast_to(rng.uniform(0.02, 0.75, 3).astype(np.float32), (resolution, resolution, 3)).copy()
    tint = rng.uniform(0.6, 1.4, 3).astype(np.float32)
    for cells in (2, 5, 13):
        noise = rng.standard_normal((cells, cells, 3)).astype(np.float32)
        noise = noise.mean(-1, keepdims=True) * 0.8 + noise * 0.35
        scene += (
            rng.uniform(0.02, 0.16) * tint * cv2.resize(noise, (resolution, resolution), interpolation=cv2.INTER_CUBIC)
        )
    for _ in range(rng.integers(0, 7)):
        colour = tuple(float(c) for c in rng.uniform(0, 0.9, 3))
        corner = rng.integers(-resolution // 4, resolution, 2)
        extent = rng.integers(resolution // 20, resolution // 2, 2)
        if rng.random() < 0.6:
            cv2.rectangle(scene, corner.tolist(), (corner + extent).tolist(), colour, -1)
        else:
            cv2.circle(scene, corner.tolist(), int(extent[0]) // 2, colour, -1, cv2.LINE_AA)
    blurred = cv2.GaussianBlur(np.clip(scene, 0.003, 1), (0, 0), resolution * rng.uniform(0.01, 0.03))
    return np.stack(cv2.split(cv2.resize(blurred, (full, full), interpolation=cv2.INTER_CUBIC).clip(0, 1)))


def skin_texture(points: np.ndarray, seed: int) -> np.ndarray:
    """(3, H, W) factors on the skin's colour at rest points (H, W, 2): blotches, pores, freckles and moles."""
    rng = np.random.default_rng([seed, 2])
    side = 160
    texture = np.ones((side, side, 3), np.float32)
    blotch = cv2.resize(rng.standard_normal((14, 14)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    texture *= 1 + rng.uniform(0.01, 0.06) * blotch[..., None] * np.array([0.5, 1.0, 1.0], np.float32)
    texture += rng.uniform(0.0, 0.05) * rng.standard_normal((side, side, 1), np.float32)
    spots = rng.integers(0, 50) if rng.random() < 0.3 else rng.integers(0, 4)
    for _ in range(spots):
        dark = rng.uniform(0.45, 0.85)
        cv2.circle(
            texture,
            rng.integers(0, side * 8, 2).tolist(),
            int(rng.integers(3, 10)),
            (dark, dark * 0.85, dark * 0.8),
            -1,
            cv2.LINE_AA,
            3,
        )
    # The texture spans the face, x from −1.1 to 1.1 and y from −0.6 to 1.6.
    at = (points - np.array([-1.1, -0.6], np.float32)) * np.float32(side / 2.2)
    read = cv2.remap(texture, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)  # type: ignore[call-overload]
    return np.stack(cv2.split(read))


def develop(display: np.ndarray, look: Look) -> np.ndarray:
    """A (S, S, 3) display picture in [0, 1] as it comes out of its camera: uint8."""
    if look.photo_seed is None:
        return (display * 255 + 0.5).astype(np.uint8)
    rng = np.random.default_rng([look.photo_seed, 3])
    size = display.shape[0]
    grey = display.mean(-1, keepdims=True)
    picture = grey + (display - grey) * np.float32(rng.uniform(0.65, 1.25))
    picture = picture * (1 + 0.05 * rng.standard_normal(3)).astype(np.float32) * np.float32(rng.uniform(0.85, 1.15))
    picture = np.clip(picture, 0, 1) ** np.float32(rng.uniform(0.8, 1.25))
    picture = 0.5 + (picture - 0.5) * np.float32(rng.uniform(0.8, 1.15))
    if rng.random() < 0.6:
        picture = cv2.GaussianBlur(picture, (0, 0), max(0.05, rng.uniform(0.2, 1.3) * size / 256))
    noise = rng.standard_normal(picture.shape, np.float32) * np.float32(rng.uniform(0.0, 0.035))
    result = (np.clip(picture + noise, 0, 1) * 255 + 0.5).astype(np.uint8)
    if rng.random() < 0.7:
        quality = int(rng.integers(35, 96))
        _, data = cv2.imencode(".jpg", result[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        result = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]  # type: ignore[index]
    return np.ascontiguousarray(result)
