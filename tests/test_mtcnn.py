"""The face detector: its networks, its weights, and what it finds where there is no face."""

import numpy as np
import pytest
import torch

from models.mtcnn import FaceDetector, Faces, ONet, PNet, RNet, _load_known
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


def test_one_of_several_faces_is_chosen_only_where_that_is_asked_for():
    boxes = np.array([(0, 0, 20, 20), (30, 0, 90, 60)], np.float32)
    faces = Faces(boxes, np.array([0.99, 0.9], np.float32), np.stack([TEMPLATE] * 2).astype(np.float32))
    assert faces.choose("one") == ("several_faces", None)
    assert faces.choose("largest") == ("ok", 1)
