"""The whole way through the scripts: cards → data set → three scripts → photo → card."""

import json
from pathlib import Path

import numpy as np

from datasets.labels import read_labels
from games.game import default_game
from games.parameters import BUILT_IN_TABLE, parse_parameters
from tests.card_builder import PLANS, Plan, as_float32, changed, characters, write_card
from tests.card_reader import read_card
from tests.helpers import SMOKE, TRAINING_SCRIPTS, error_of, plain_picture, run_here, setting
from utils.alignment import TEMPLATE_SIZE
from utils.pictures import read_rgb, write_picture

SLIDERS = parse_parameters(BUILT_IN_TABLE)[:54]


def test_what_is_no_card_is_refused_before_anything_is_computed(tmp_path):
    plain_picture(tmp_path / "x.png")
    command = ("predict.py", tmp_path / "x.png", "--run", tmp_path / "none", "--output", tmp_path / "out")
    told = error_of(run_here(*command, "--card", tmp_path / "x.png", cwd=tmp_path, check=False))
    assert "x.png: it is a picture without a character" in told
    assert not (tmp_path / "out").exists()


def render(root: Path) -> None:
    """Write a picture for each label of a data set, drawn by the embedded game, whose parameters stand in by order."""
    game, labels = default_game(), read_labels(root)
    shown = np.tile(game.average(), (len(labels.names), 1))
    known = min(shown.shape[1], labels.values.shape[1])
    shown[:, :known] = labels.values[:, :known]
    pictures, _ = game.renderer(32).render(shown, [(game.neutral_look(),)] * len(shown))
    for name, picture in zip(labels.names, pictures[:, 0], strict=True):
        write_picture(root / "images" / f"{name}.png", picture)


def test_from_cards_to_a_card(tmp_path):
    """The embedded game draws what the real one would; all else is as people do it."""
    # Cards → data set → renders → run.
    for i, sliders in enumerate(characters(160, SLIDERS)):
        write_card(tmp_path / "cards" / f"{i:03d}.png", Plan(sliders=sliders, head_id=i % 2))
    run_here("-m", "games.cards", "data-set", "--cards", "cards", "--output", "set", cwd=tmp_path)
    render(tmp_path / "set")
    small = setting("data.root=set", "data.creator_count=0", "run.name=mine", "vae.epochs=1", "f2p.epochs=1")
    for script in TRAINING_SCRIPTS:
        run_here(script, *SMOKE, *small, cwd=tmp_path)

    # Photo → card.
    face = default_game().picture(default_game().average(), TEMPLATE_SIZE)
    write_picture(tmp_path / "me.png", np.pad(face, ((40, 60), (30, 80), (0, 0)), mode="edge"))
    card = write_card(tmp_path / "mine.png", changed(PLANS["KKEx first"], size=(25, 35), head_id=2))
    before = card.read_bytes()
    predict = ("predict.py", "me.png", "--run", "runs/mine", "--output", "out", "--card", card, "--preview", "photo")
    told = run_here(*predict, cwd=tmp_path)
    assert "has headId 2, and the run's data has 0, 1" in told.stderr
    assert "me_card.png" in told.stdout

    # The card holds what the JSON says, and for the rest what it held.
    result = json.loads((tmp_path / "out" / "me.json").read_text())
    made, template = (read_card(data) for data in ((tmp_path / "out" / "me_card.png").read_bytes(), before))
    assert list(result["parameters"]) == [slider.name for slider in SLIDERS]
    assert made.sliders[:54] == [as_float32(entry["value"]) for entry in result["parameters"].values()]
    assert made.sliders[54:] == template.sliders[54:]
    assert made.blocks["KKEx"] == template.blocks["KKEx"]
    assert read_rgb(tmp_path / "out" / "me_card.png").shape == (35, 25, 3)
    assert card.read_bytes() == before

    # Once more: its own card may be replaced; without a card it goes.
    run_here(*predict, cwd=tmp_path)
    without = predict[: predict.index("--card")]
    assert "me_card.png was the card of the earlier result" in run_here(*without, cwd=tmp_path).stdout
    assert not (tmp_path / "out" / "me_card.png").exists()
    run_here(*predict, cwd=tmp_path)
