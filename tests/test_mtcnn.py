"""The face detector: its networks, its weights, and what it finds where there is no face."""

import numpy as np
import pytest
import torch

from models.faces import Faces
from models.mtcnn import FaceDetector, ONet, PNet, RNet, _load_known
from utils.alignment import TEMPLATE
from utils.errors import UserError


@pytest.mark.parametrize(
    "kind, side, shapes",
    [
        (PNet, 12, [(2, 2, 1, 1), (2, 4, 1, 1)]),
        (RNet, 24, [(2, 2), (2, 4)]),
        (ONet, 48, [(2, 2), (2, 4), (2, 10)]),
    ],
)
def test_networks_shapes_and_gradients(kind, side, shapes):
    network = kind()
    outputs = network(torch.randn(2, 3, side, side))
    assert [tuple(output.shape) for output in outputs] == shapes
    sum(output.square().sum() for output in outputs).backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []


def test_changed_detector_weights_are_not_opened():
    with pytest.raises(UserError, match="not the known ones"):
        _load_known(b"cos\nsystem\n(S'false'\ntR.", "pnet.lz4")


NOISE = np.random.default_rng(0).integers(0, 255, (120, 90, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "picture", [NOISE, np.full((40, 300, 3), 128, np.uint8), NOISE[:5, :5]], ids=["noise", "grey", "tiny"]
)
def test_nothing_is_found_in_noise_and_grey(picture):
    detector = FaceDetector()
    assert detector.find(picture).choose("one") == ("no_face", None)
    assert detector.align(picture, "one") == (None, "no_face")


def faces_with(points: np.ndarray, boxes: np.ndarray) -> Faces:
    """Faces with points (K, 5, 2) and boxes (K, 4), the better ones first."""
    values = np.linspace(0.99, 0.9, len(boxes)).astype(np.float32)
    return Faces(boxes.astype(np.float32), values, points.astype(np.float32), values * 10)


def test_one_of_several_faces_is_chosen_only_where_that_is_asked_for():
    faces = faces_with(np.stack([TEMPLATE] * 2), np.array([(0, 0, 20, 20), (30, 0, 90, 60)]))
    assert faces.choose("one") == ("several_faces", None)
    assert faces.choose("largest") == ("ok", 1)
    assert faces.most_evidence == pytest.approx(9.9)


def test_without_faces_there_is_no_evidence():
    assert faces_with(np.zeros((0, 5, 2)), np.zeros((0, 4))).most_evidence == -np.inf


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_faces_of_a_turned_copy_come_back_to_the_pixels_they_were_found_in(quarters):
    height, width = 30, 50
    numbers = np.arange(height * width).reshape(height, width)
    copy = np.rot90(numbers, quarters)
    rows, columns = np.random.default_rng(0).integers(0, 30, (2, 5))
    points = np.stack([columns, rows], 1)
    box = np.concatenate([points.min(0), points.max(0)])

    back = faces_with(points[None], box[None]).turned_back(quarters, width=width, height=height)
    x, y = back.points[0].astype(int).T
    np.testing.assert_array_equal(numbers[y, x], copy[rows, columns])
    np.testing.assert_array_equal(back.boxes[0], np.concatenate([back.points[0].min(0), back.points[0].max(0)]))


def test_faces_of_a_resized_picture_are_those_of_its_corners():
    """The corner of pixel 0 lies at −0.5, in every size."""
    corners = np.array([(-0.5, -0.5), (9.5, -0.5), (4.5, 4.5), (-0.5, 9.5), (9.5, 9.5)])
    scaled = faces_with(corners[None], np.array([(-0.5, -0.5, 9.5, 9.5)])).scaled(np.array([2.0, 3.0]))
    expected = [(-0.5, -0.5), (19.5, -0.5), (9.5, 14.5), (-0.5, 29.5), (19.5, 29.5)]
    np.testing.assert_allclose(scaled.points[0], expected)
    np.testing.assert_allclose(scaled.boxes[0], (-0.5, -0.5, 19.5, 29.5))
