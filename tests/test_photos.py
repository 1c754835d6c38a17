"""Photos with parameters, of which both stages learn: learned, kept, refused.

Ten of twelve photos have a label, always 1: stage 2 comes to predict more than from renders alone.
"""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from datasets.photos import write_photos
from games.game import default_game
from models.predictor import load_regressor
from tests.helpers import SMOKE, error_of, run_here, setting, times_of
from utils.run import Run

WITHOUT_PHOTOS = setting("data.photos=")


class Trained(NamedTuple):
    """A folder in which all three steps ran with photos, and stage 2 also without photos."""

    folder: Path
    settings: tuple
    means: dict[str, float]  #: "learned", "without" → mean of what is predicted of the photos
    metrics: dict[str, dict]  #: the same → metrics.json

    @property
    def run(self) -> Run:
        return Run(self.folder / "runs" / "smoke")


@pytest.fixture(scope="module")
def trained(smoke, tmp_path_factory) -> Trained:
    folder, root = tmp_path_factory.mktemp("photos"), smoke / "data" / "smoke"
    variants = sorted((root / "aug_images").iterdir())[:12]
    parameters = default_game().parameters
    labels = {path.stem: np.ones(len(parameters)) for path in variants[:10]}
    pictures = {path.name: path for path in variants}
    write_photos(folder / "photos", pictures, statuses={}, labels=labels, parameters=parameters)

    data = (f"data.root={root}", "data.photos=photos", f"data.cache={smoke / 'cache'}")
    networks = ("vae.epochs=1", "vae.spatial=true", "f2p.network=mixer", "f2p.mixer_blocks=1", "f2p.mixer_width=8")
    settings = (*SMOKE, *setting(*data, *networks))
    found = Trained(folder, settings, {}, {})
    for script in ("vae_trainer.py", "extract_latentvec.py"):
        run_here(script, *settings, cwd=folder)

    latents = torch.from_numpy(np.load(found.run.latents / "photos.npy"))
    ways = {"learned": (), "without": WITHOUT_PHOTOS}
    for name, changes in ways.items():
        run_here("f2p_trainer.py", *settings, *changes, "--restart", cwd=folder)
        found.metrics[name] = json.loads(found.run.f2p.metrics.read_text())
        with torch.inference_mode():
            found.means[name] = load_regressor(found.run)[0](latents).mean().item()
    return found


@pytest.fixture
def again(trained, tmp_path):
    """A copy of that folder, to do as one likes with."""
    shutil.copytree(trained.folder, tmp_path / "again")
    return trained._replace(folder=tmp_path / "again")


# --- learned --------------------------------------------------------------------------------------


def test_photos_are_encoded_in_every_view(trained):
    counts = json.loads((trained.run.latents / "meta.json").read_text())["counts"]
    for view in ("", "_moved", "_mirrored"):
        assert counts[f"photos{view}"] == 12, view


def test_photos_with_a_label_are_learned(trained):
    assert trained.metrics["learned"]["run"]["faces"]["photos"] == 10
    assert trained.metrics["without"]["run"]["faces"]["photos"] == 0
    assert trained.means["learned"] > trained.means["without"] + 0.1


# --- kept -----------------------------------------------------------------------------------------


def test_latents_that_got_lost_are_encoded_and_the_others_kept(again):
    lost = again.run.latents / "photos_moved.npy"
    lost.unlink()
    before = times_of(list(again.run.latents.glob("*.npy")))

    without = run_here("extract_latentvec.py", *again.settings, *WITHOUT_PHOTOS, cwd=again.folder)
    assert "photos_moved" not in without.stdout
    with_photos = run_here("extract_latentvec.py", *again.settings, cwd=again.folder)
    assert "12 latents of photos_moved" in with_photos.stdout
    assert lost.exists()
    assert times_of(list(before)) == before


def test_what_muon_learned_is_kept_with_the_checkpoint_and_gone_on_with(again):
    assert again.run.f2p.newest().content["optimizers"]["muon"]["state"]
    longer = setting("f2p.epochs=4")
    told = run_here("f2p_trainer.py", *again.settings, *WITHOUT_PHOTOS, *longer, cwd=again.folder)
    assert "epoch 4" in told.stdout
    assert again.run.f2p.newest().content["epoch"] == 4


# --- refused --------------------------------------------------------------------------------------


def refusal(trained: Trained, *changes: str) -> str:
    command = ("f2p_trainer.py", *trained.settings, *changes)
    return error_of(run_here(*command, cwd=trained.folder, check=False))


def test_photos_none_of_which_has_a_label_are_refused(again):
    (again.folder / "photos" / "labels.json").write_text(
        json.dumps({"somebody": [0.5] * len(default_game().parameters)})
    )
    assert "no picture in photos/images has a label" in refusal(again, "--restart")


def test_photos_in_the_parameters_of_another_game_are_refused(again):
    path = again.folder / "photos" / "parameters.csv"
    path.write_text(path.read_text().replace("macrodetails/Age", "macrodetails/Years"))
    assert "is not that of data.root" in refusal(again, "--restart")


def test_a_run_that_learned_no_photos_does_not_go_on_with_some(again):
    """The last training was without photos."""
    told = refusal(again)
    assert "labels.json of data.photos is not what it was" in told
    assert "the parameter table of data.photos is not what it was" in told


def test_photos_that_were_not_encoded_are_refused(trained, copy):
    settings = (*SMOKE, *setting(f"data.photos={trained.folder / 'photos'}"), "--restart")
    told = error_of(run_here("f2p_trainer.py", *settings, cwd=copy, check=False))
    assert "no latents of photos" in told
    assert "extract_latentvec.py" in told
