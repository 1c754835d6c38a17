"""A sheet of people beside their predicted characters."""

from pathlib import Path

import numpy as np

from benchmarks.people import pair_of, photos_of
from datasets.people import Frame
from models.predictor import Predictor
from tests.helpers import plain_picture

PORTRAIT = Path(__file__).parent.parent / "assets" / "photos" / "portrait.jpg"


def test_people_and_their_photos_come_in_the_order_of_names():
    frames = [Frame(Path(path), person) for path, person in (("b.png", "z"), ("c.png", "a"), ("a.png", "z"))]
    assert list(photos_of(frames).items()) == [("a", [Path("c.png")]), ("z", [Path("a.png"), Path("b.png")])]


def test_a_person_stands_above_the_character_in_the_persons_colours(tmp_path):
    plain_picture(tmp_path / "nobody.png", (90, 90, 90), side=256)
    predictor = Predictor.load()
    pair = pair_of([tmp_path / "missing.png", tmp_path / "nobody.png", PORTRAIT], predictor)
    assert pair is not None and pair.shape == (256, 128, 3)
    cheeks = [half[74:78, 46:52].mean((0, 1)) for half in (pair[:128].astype(float), pair[128:].astype(float))]
    assert np.abs(cheeks[0] - cheeks[1]).max() < 30
    assert pair_of([tmp_path / "nobody.png"], predictor) is None
