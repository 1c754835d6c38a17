"""A run as a small folder to give away."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from games.game import default_game
from models import release
from models.predictor import PRETRAINED, Predictor
from tests.helpers import ROOT, SMOKE, error_of, run_here
from utils.errors import UserError
from utils.pictures import read_rgb
from utils.run import Run


@pytest.fixture(scope="module")
def released(smoke, tmp_path_factory) -> Path:
    """The smoke run, released by the command."""
    folder = tmp_path_factory.mktemp("released")
    note = folder / "note.md"
    note.write_text("Learned from renders of the embedded game alone; MIT, as the code.", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(smoke)
        patch.setattr(
            sys, "argv", ["release", "--run", "runs/smoke", "--output", str(folder / "run"), "--note", str(note)]
        )
        release.main()
    return folder / "run"


def test_a_release_predicts_as_the_run_does(smoke, released):
    face = read_rgb(smoke / "data" / "smoke" / "images" / "face_000399.png")
    run, small = (Predictor.load(folder) for folder in (smoke / "runs" / "smoke", released))
    difference = run.predict_aligned([face])[0].parameters - small.predict_aligned([face])[0].parameters
    assert 0 < np.abs(difference).max() <= 0.002
    assert small.test_r2 == run.test_r2
    assert small.ood_threshold == run.ood_threshold


def test_a_release_holds_weights_alone_in_half_precision(smoke, released):
    for stage in (Run(released).vae, Run(released).f2p):
        content, _ = stage.load_best()
        assert content["optimizers"] == {}
        assert {t.dtype for t in content["model"].values() if t.ndim > 1} == {torch.float16}
    sizes = [sum(p.stat().st_size for p in (r / "f2p").rglob("best.pt")) for r in (released, smoke / "runs" / "smoke")]
    assert sizes[0] < sizes[1] / 4


def test_a_release_says_what_it_learned_from_and_its_figures(smoke, released):
    text = (released / "README.md").read_text(encoding="utf-8")
    assert "Learned from renders of the embedded game alone" in text
    r2 = np.mean([value for value in Predictor.load(released).test_r2.values() if value is not None])
    assert f"| renders | {r2:.3f} |" in text


def test_a_changed_release_is_refused(released, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in released.rglob("*"):
        if path.is_file():
            target = copy / path.relative_to(released)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    Predictor.load(copy)
    metrics = copy / "f2p" / "metrics.json"
    metrics.write_bytes(metrics.read_bytes().replace(b"0", b"1", 1))
    with pytest.raises(UserError, match=r"metrics\.json is not what .*SHA256SUMS says"):
        Predictor.load(copy)
    metrics.unlink()
    with pytest.raises(UserError, match=r"metrics\.json is not what"):
        Predictor.load(copy)


def test_training_does_not_go_on_from_a_release(smoke, released):
    place = f"--set=run.folder={released.parent}", "--set=run.name=run"
    for script in ("vae_trainer.py", "f2p_trainer.py"):
        assert "is of a release" in error_of(run_here(script, *SMOKE, *place, cwd=smoke, check=False))


def test_a_folder_with_something_else_is_not_replaced(smoke, tmp_path):
    kept = tmp_path / "kept"
    kept.write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="holds something else than a release"):
        release.release(Run(smoke / "runs" / "smoke"), tmp_path, faces=[], note="")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_release_whose_predictions_differ_is_not_written(smoke, tmp_path, monkeypatch):
    monkeypatch.setattr(release, "halved", lambda state: {name: tensor * 1.05 for name, tensor in state.items()})
    face = read_rgb(smoke / "data" / "smoke" / "images" / "face_000399.png")
    with pytest.raises(UserError, match="in half precision a parameter changes by"):
        release.release(Run(smoke / "runs" / "smoke"), tmp_path / "out", faces=[face], note="")
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_run_is_not_released(copy, tmp_path):
    run = Run(copy / "runs" / "smoke")
    run.f2p.metrics.unlink()
    with pytest.raises(UserError, match="both stages are finished"):
        release.release(run, tmp_path / "out", faces=[], note="")


# --- the pretrained run ---------------------------------------------------------------------------


def test_the_pretrained_run_is_whole_small_and_of_the_game_that_is_drawn_here():
    files = [path for path in PRETRAINED.rglob("*") if path.is_file()]
    sizes = {path.relative_to(PRETRAINED).as_posix(): path.stat().st_size for path in files}
    listed = [line.split("  ")[1] for line in (PRETRAINED / "SHA256SUMS").read_text(encoding="utf-8").splitlines()]
    assert sorted(sizes) == sorted([*listed, "SHA256SUMS"])
    assert sum(sizes.values()) <= 20e6

    predictor = Predictor.load()  # checks the sums
    assert predictor.learned_photos
    assert predictor.creator_version == default_game().version
    assert set(predictor.test_r2) == set(default_game().names)


@pytest.mark.parametrize("name", ["portrait.jpg", "portrait_smiling.jpg"])
def test_the_pretrained_run_predicts_the_photos_that_come_with_the_code(name, tmp_path):
    """As README.md begins; one face is found, and it is no stranger to a run that learned photos."""
    told = run_here("predict.py", ROOT / "assets" / "photos" / name, "--output", tmp_path, cwd=tmp_path)
    assert "pretrained run" in told.stdout
    assert "warning" not in told.stderr
    content = json.loads((tmp_path / name).with_suffix(".json").read_text(encoding="utf-8"))
    assert content["warning"] is None
    assert list(content["parameters"]) == default_game().names
    assert np.std([values["normalised"] for values in content["parameters"].values()]) > 0.05


def test_photos_that_come_with_the_code_are_small_and_say_where_they_are_from():
    folder = ROOT / "assets" / "photos"
    pictures = sorted(folder.glob("*.jpg"))
    assert [path.name for path in pictures] == ["portrait.jpg", "portrait_smiling.jpg"]
    assert sum(path.stat().st_size for path in pictures) <= 150_000
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert all(word in text for word in ("10.6084/m9.figshare.5047666.v5", "CC BY 4.0", "DeBruine"))
    assert all(path.name in text for path in pictures)
