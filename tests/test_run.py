"""A run's folder: where things lie, what goes on, what is refused, what is kept."""

import multiprocessing
from pathlib import Path

import pytest
import torch

from tests.helpers import scalars
from utils import checkpoint
from utils.config import Config, from_dict, load
from utils.errors import UserError
from utils.run import Checkpoint, Run, Stage


def config_in(folder: Path, **tables) -> Config:
    run = {"name": "mine", "folder": str(folder)} | tables.pop("run", {})
    return from_dict({"run": run, **tables}, "test")


def content_of(config: Config, **changes) -> dict:
    """The content of a stage-2 checkpoint, as small as can be."""
    small = {"config": config.as_dict(), "digests": {"labels": "abc"}, "model": {}, "optimizers": {}, "epoch": 3}
    small |= {
        "best": 0.5,
        "seconds": 1.0,
        "latent_dim": 4,
        "reads_photos": False,
        "parameters": [],
        "ood_threshold": 1.0,
        "creator": None,
    }
    return small | changes


@pytest.fixture
def config(tmp_path) -> Config:
    return config_in(tmp_path)


@pytest.fixture
def stage(config) -> Stage:
    return Run.of(config).f2p


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def as_old_format(path: Path) -> None:
    """What an earlier version left: another format, optimizers under other names."""
    content = torch.load(path, weights_only=True)
    del content["optimizers"], content["digests"]
    torch.save(content | {"format": "face2parameter f2p 2", "optimizer": {}, "scheduler": {}}, path)


# --- where things lie -----------------------------------------------------------------------------


def test_the_folder_is_as_documented(config, tmp_path):
    run = Run.of(config)
    folder = tmp_path / "mine"
    assert run.folder == folder
    assert run.latents == folder / "latents"
    for stage, name in ((run.vae, "vae"), (run.f2p, "f2p")):
        assert stage.best == folder / name / "checkpoints" / "best.pt"
        assert stage.last == folder / name / "checkpoints" / "last.pt"
        assert stage.metrics == folder / name / "metrics.json"
    assert run.f2p.report == folder / "f2p" / "report.png"


def test_a_run_that_is_described_writes_its_whole_configuration(config, capsys):
    run = Run.of(config)
    run.describe(config, "a script")
    assert load(run.folder / "config.toml") == config
    told = capsys.readouterr().out
    assert told.startswith("a script: ")
    assert "latent_dim = 1024  # dimensions of the latent" in told


# --- checkpoints ----------------------------------------------------------------------------------


def test_there_is_no_newest_checkpoint_before_one_was_saved(stage):
    assert stage.newest() is None


def test_the_last_checkpoint_is_the_newest(stage, config):
    stage.save("best", content_of(config, epoch=2))
    stage.save("last", content_of(config, epoch=3))
    content, path = stage.newest()
    assert content["epoch"] == 3
    assert path == stage.last


def test_a_damaged_last_checkpoint_falls_back_to_the_best_and_that_is_said(stage, config, capsys):
    stage.save("best", content_of(config, epoch=2))
    stage.save("last", content_of(config, epoch=3))
    truncate(stage.last)
    content, path = stage.newest()
    assert content["epoch"] == 2
    assert path == stage.best
    told = capsys.readouterr().out
    assert f"{stage.last} is damaged" in told
    assert f"Going on from {stage.best} instead." in told


def test_where_no_checkpoint_can_be_read_the_run_is_refused(stage, config):
    for name in ("best", "last"):
        stage.save(name, content_of(config))
    truncate(stage.best)
    truncate(stage.last)
    with pytest.raises(UserError, match="No other checkpoint is left in .*; start over with --restart"):
        stage.newest()


def test_a_missing_best_checkpoint_names_the_script_that_makes_it(stage):
    with pytest.raises(UserError, match=r"there is no checkpoint .*best\.pt; run f2p_trainer\.py"):
        stage.load_best()


def test_a_checkpoint_of_an_earlier_version_is_refused_by_name_with_one_sentence(stage, config):
    stage.save("best", content_of(config))
    as_old_format(stage.best)
    for read in (stage.load_best, stage.newest):
        with pytest.raises(UserError) as caught:
            read()
        told = str(caught.value)
        assert told.startswith(f"{stage.best} has format 'face2parameter f2p 2'; expected 'face2parameter f2p 4'")
        assert "--restart" in told
        assert "\n" not in told


def test_a_checkpoint_that_lacks_something_is_refused_by_its_name(stage, config):
    content = content_of(config)
    del content["ood_threshold"]
    stage.save("best", content)
    with pytest.raises(UserError, match="lacks ood_threshold; it was written by another version"):
        stage.load_best()


def test_a_checkpoint_of_the_other_stage_is_refused(stage, config):
    stage.save("best", content_of(config))
    with pytest.raises(UserError, match="has format 'face2parameter f2p 4'; expected 'face2parameter vae 3'"):
        checkpoint.load(stage.best, "vae")


# --- what may not change --------------------------------------------------------------------------


def found_in(stage: Stage, config: Config) -> Checkpoint:
    return Checkpoint(content_of(config), stage.last)


def test_nothing_has_changed_where_nothing_did(stage, config):
    assert stage.changes(found_in(stage, config), config, {"labels": "abc"}) == []


def test_changed_settings_and_digests_are_named_together(stage, config, tmp_path):
    now = config_in(tmp_path, run={"seed": 5}, f2p={"width": 64})
    with pytest.raises(UserError) as caught:
        stage.refuse_changes(found_in(stage, config), now, {"labels": "xyz"})
    told = str(caught.value)
    assert "run.seed: was 0, now 5" in told
    assert "f2p.width: was 1024, now 64" in told
    assert "labels is not what it was" in told
    assert "--restart" in told


@pytest.mark.parametrize(
    "now, told",
    [({}, "labels is not what it was"), ({"labels": "abc", "photos": "new"}, "photos is not what it was")],
    ids=["gone", "new"],
)
def test_what_is_no_longer_learned_from_and_what_is_new_is_named(stage, config, now, told):
    assert stage.changes(found_in(stage, config), config, now) == [told]


def test_free_settings_may_change(stage, config, tmp_path):
    free = {"name": "other", "device": "cpu", "precision": "fp32", "threads": 1}
    now = config_in(tmp_path, run=free, f2p={"epochs": 99}, latents={"batch_size": 1})
    assert stage.changes(found_in(stage, config), now) == []


def test_a_stage_does_not_mind_the_settings_of_the_other(config, tmp_path):
    run, now = Run.of(config), config_in(tmp_path, f2p={"width": 64})
    assert run.vae.changes(found_in(run.vae, config), now) == []
    now = config_in(tmp_path, vae={"mse_weight": 3.0})
    assert run.f2p.changes(found_in(run.f2p, config), now) == []
    assert run.vae.changes(found_in(run.vae, config), now) == ["vae.mse_weight: was 100.0, now 3.0"]


# --- finished or not ------------------------------------------------------------------------------


def test_a_stage_is_finished_with_all_epochs_and_its_metrics(stage, config):
    found = found_in(stage, config)
    assert not stage.is_finished(None, 3)
    assert not stage.is_finished(found, 3)  # its metrics are not written yet
    stage.metrics.parent.mkdir(parents=True)
    stage.metrics.write_text("{}")
    assert stage.is_finished(found, 3)
    assert not stage.is_finished(found, 4)


# --- TensorBoard, locks, temporaries --------------------------------------------------------------


def test_what_was_shown_after_the_checkpoint_is_hidden_when_a_run_goes_on(stage):
    first = stage.start_writing(1, restart=False)
    for step in (1, 2, 3):
        first.add_scalar("loss", step, step)
    first.close()
    again = stage.start_writing(2, restart=False)
    again.add_scalar("loss", 20, 2)
    again.close()
    assert scalars(stage.folder / "tensorboard")["loss"] == [(1, 1.0), (2, 20.0)]
    assert list(stage.folder.glob("tensorboard.*.old")) == []


def test_what_was_shown_is_kept_under_another_name_when_a_run_starts_over(stage):
    first = stage.start_writing(1, restart=False)
    first.add_scalar("loss", 7, 1)
    first.close()
    stage.start_writing(1, restart=True).close()
    kept = list(stage.folder.glob("tensorboard.*.old"))
    assert len(kept) == 1
    assert scalars(kept[0])["loss"] == [(1, 7.0)]
    assert "loss" not in scalars(stage.folder / "tensorboard")


def hold_until_told(stage: Stage, held, done) -> None:
    with stage.lock("another run"):
        held.set()
        done.wait(60)


def test_only_one_process_holds_a_stage(stage):
    context = multiprocessing.get_context("spawn")
    held, done = context.Event(), context.Event()
    other = context.Process(target=hold_until_told, args=(stage, held, done))
    other.start()
    try:
        assert held.wait(60)
        with pytest.raises(UserError, match="is in use by another run"), stage.lock("this run"):
            pass
        with stage.lock("this run", is_main=False):  # of several processes that work together only the main one locks
            pass
    finally:
        done.set()
        other.join()
    with stage.lock("this run"):
        pass


def test_latents_are_locked_apart_from_the_stages(config):
    run = Run.of(config)
    with run.lock_latents("extraction"), run.vae.lock("stage 1"):
        assert (run.latents / ".lock").read_text().startswith("extraction")
        assert (run.vae.folder / ".lock").read_text().startswith("stage 1")


def test_what_a_killed_process_left_half_written_is_swept_away(stage, config):
    stage.save("last", content_of(config))
    left = stage.last.parent / ".last.pt.0123.f2p-tmp"
    left.write_bytes(b"half")
    stage.sweep()
    assert [path.name for path in stage.last.parent.iterdir()] == ["last.pt"]
