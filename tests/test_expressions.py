"""What an expression does to a prediction."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.expressions import find_pairs, measure_characters
from datasets.people import FOLDS, Frame, fold_of
from models.predictor import Predictor
from utils.errors import UserError

PEOPLE = [Frame(Path(f"{name}_{look}.jpg"), name) for name in "abcdefgh" for look in ("neutral", "smiling")]


def test_pairs_are_of_one_person_and_of_the_wanted_folds():
    pairs = find_pairs(PEOPLE, range(FOLDS))
    assert [(pair.neutral.path.stem, pair.smiling.path.stem) for pair in pairs] == [
        (f"{name}_neutral", f"{name}_smiling") for name in "abcdefgh"
    ]
    held_out = {fold_of(name) for name in "abcdefg"}
    assert {pair.neutral.person for pair in find_pairs(PEOPLE[:14], sorted(held_out))} == set("abcdefg")


def test_people_of_one_photo_are_no_pairs():
    alone = [frame for frame in PEOPLE if frame.path.stem.endswith("_neutral") or frame.person in "abcd"]
    with pytest.raises(UserError, match="4 of the people have a photo NAME_neutral and a photo NAME_smiling"):
        find_pairs(alone, range(FOLDS))


def test_an_expression_moves_what_is_read():
    """The pretrained run takes an expression for shape in part: more than rounding, less than another character."""
    predictor = Predictor.load()
    assert predictor.game is not None
    found = measure_characters(predictor, predictor.game, count=6)
    assert list(found["changes"]) == predictor.game.names
    assert 0.01 < found["mean_change"] < 1
    assert np.isfinite(list(found["changes"].values())).all()
