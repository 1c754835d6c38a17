"""Stage 1's trainer in this process: steps, saving, leaving when asked, going on."""

import math
import re
from unittest.mock import Mock

import pytest
import torch

import vae_trainer
from tests.helpers import random_pictures, same
from utils.config import Config, from_dict
from utils.device import Engine
from utils.errors import Interrupted, UserError
from utils.muon import Muon
from utils.run import Run, Stage
from vae_trainer import Trainer, build_optimizer, build_trainer, learning_rate, open_pictures

ENGINE = Engine(torch.device("cpu"), torch.float32)

#: Faces of noise, and the steps of four faces in an epoch: the hash of their names leaves 63 to train on.
FACES, STEPS = 80, 15


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "faces"
    random_pictures(folder, FACES)
    return folder


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Losses are read, and requests seen, every five steps."""
    monkeypatch.setattr(vae_trainer, "_READ_EVERY", 5)


def experiment(faces, runs, *, data=None, **vae) -> Config:
    """A tiny stage 1 on a folder of faces."""
    small = {"encoder_channels": [4] * 3, "decoder_channels": [4] * 3, "latent_dim": 6, "bottleneck": 4}
    small |= {"spatial": False, "batch_size": 4, "epochs": 3, "warmup_steps": 4}
    read = {"root": "", "folders": [str(faces)], "image_size": 32, "cache": "", "workers": 0}
    run = {"name": "tiny", "folder": str(runs)}
    stage_2 = {"network": "whitened"}  # a mixer reads spatial latents alone
    return from_dict({"run": run, "data": read | (data or {}), "vae": small | vae, "f2p": stage_2}, "test")


def trainer_of(config: Config, engine: Engine = ENGINE) -> Trainer:
    """A trainer as the main process has it: with a writer, here one that shows nothing."""
    trainer = Trainer(config, engine, open_pictures(config))
    trainer.writer = Mock()
    return trainer


@pytest.fixture
def config(faces, tmp_path) -> Config:
    return experiment(faces, tmp_path)


@pytest.fixture
def saved(monkeypatch):
    """Names of the checkpoints that are written, in order."""
    names = []
    real = Stage.save

    def noted(stage, name, content):
        names.append(name)
        real(stage, name, content)

    monkeypatch.setattr(Stage, "save", noted)
    return names


def stop_at(trainer: Trainer, stop, steps: int) -> None:
    """Let somebody ask to stop while a step of the whole run is computed."""
    step_of = trainer.train_step

    def asked(batch):
        stop.requested = stop.requested or trainer.steps_done + 1 >= steps
        return step_of(batch)

    trainer.train_step = asked


# --- saving and leaving ---------------------------------------------------------------------------


def test_a_run_saves_the_best_and_the_last_of_every_epoch(config, stop, saved):
    trainer = trainer_of(config)
    trainer.run(stop)
    assert saved.count("last") == 3
    assert saved.count("best") >= 1
    assert Run.of(config).vae.newest().content["epoch"] == 3


def test_asked_to_stop_in_an_epoch_it_saves_once_and_leaves(config, stop, saved):
    trainer = trainer_of(config)
    stop_at(trainer, stop, 3)
    with pytest.raises(Interrupted, match=r"saved at epoch 1, step 5\. The same command goes on from there"):
        trainer.run(stop)
    assert saved == ["last"]
    content, _ = Run.of(config).vae.newest()
    assert content["step"] == 5
    assert content["steps_done"] == 5


def test_asked_to_stop_where_saving_was_due_anyway_it_saves_once(faces, tmp_path, stop, saved):
    trainer = trainer_of(experiment(faces, tmp_path, checkpoint_minutes=1e-9))
    stop_at(trainer, stop, 8)
    with pytest.raises(Interrupted, match="step 10"):
        trainer.run(stop)
    assert saved == ["last", "last"]  # due at step 5, due and asked at step 10


def test_asked_to_stop_in_the_last_steps_of_an_epoch_it_leaves_after_evaluating(config, stop, saved):
    trainer = trainer_of(config)
    stop_at(trainer, stop, STEPS - 1)
    with pytest.raises(Interrupted, match="saved at the end of epoch 1"):
        trainer.run(stop)
    assert saved == ["best", "last"]


def test_asked_to_stop_in_the_last_steps_of_all_it_finishes(config, stop, saved):
    trainer = trainer_of(config)
    stop_at(trainer, stop, 3 * STEPS - 1)
    trainer.run(stop)
    assert trainer.epoch == 3
    assert saved[-1] == "last"


def test_what_one_process_is_asked_all_processes_agree_on(config, stop):
    class WithAnother(Engine):
        """An engine whose other process was asked to stop."""

        def sum_over_processes(self, values):
            return values + 1

    alone, together = trainer_of(config), trainer_of(config, WithAnother(*ENGINE))
    assert not alone.agreed(stop)
    assert together.agreed(stop)
    assert stop.requested


def test_only_the_main_process_writes_checkpoints(config, saved):
    main, other = trainer_of(config), trainer_of(config)
    other.writer = None  # of several processes that work together only the main one has a writer
    other.save("last")
    assert saved == []
    main.save("last")
    assert saved == ["last"]


# --- going on -------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["muon", "adam"])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(faces, tmp_path, stop, optimizer):
    straight = trainer_of(experiment(faces, tmp_path / "straight", optimizer=optimizer))
    straight.run(stop)

    config = experiment(faces, tmp_path / "stopped", optimizer=optimizer)
    first = trainer_of(config)
    stop_at(first, stop, STEPS + 7)
    with pytest.raises(Interrupted, match="epoch 2, step 10"):
        first.run(stop)
    stop.requested = False
    again = trainer_of(config)
    again.resume(Run.of(config).vae.newest())
    assert (again.epoch, again.step) == (1, 10)
    again.run(stop)

    states = [{**trainer.state(), "config": None, "seconds": None, "waited": None} for trainer in (straight, again)]
    assert [key for key in states[0] if not same(states[0][key], states[1][key])] == []


def resumed(config: Config, now: Config) -> Trainer:
    """A trainer of today's configuration that goes on from where one of another configuration stands."""
    trainer_of(config).save("last")
    trainer = trainer_of(now)
    trainer.resume(Run.of(now).vae.newest())
    return trainer


def test_other_settings_are_refused_by_name(faces, config, tmp_path):
    with pytest.raises(UserError, match="vae.mse_weight: was 100.0, now 3.0"):
        resumed(config, experiment(faces, tmp_path, mse_weight=3))


def test_other_faces_are_refused_by_name(tmp_path):
    random_pictures(tmp_path / "faces", FACES)
    config = experiment(tmp_path / "faces", tmp_path)
    trainer_of(config).save("last")
    random_pictures(tmp_path / "faces", FACES + 1)  # another face, and the others look different
    with pytest.raises(UserError, match=r"trained with something else \(data \(folder 1\) is not what it was\)"):
        trainer_of(config).resume(Run.of(config).vae.newest())


def test_a_data_folder_that_moved_is_gone_on_with(tmp_path):
    random_pictures(tmp_path / "faces", FACES)
    config = experiment(tmp_path / "faces", tmp_path)
    trainer_of(config).save("last")
    (tmp_path / "faces").rename(tmp_path / "elsewhere")
    trainer = trainer_of(experiment(tmp_path / "elsewhere", tmp_path))
    trainer.resume(Run.of(config).vae.newest())
    assert trainer.epoch == 0


def test_more_epochs_are_gone_on_with(faces, config, tmp_path):
    assert resumed(config, experiment(faces, tmp_path, epochs=9)).settings.epochs == 9


def test_faces_that_can_no_longer_be_read_are_told(config):
    """The steps of an epoch are counted in readable faces."""
    trainer = trainer_of(config)
    trainer.epoch = 1
    trainer.save("last")
    fewer = trainer_of(config)
    fewer.steps_per_epoch = STEPS - 1
    with pytest.raises(UserError, match="another number of readable faces: 15 steps were done, which are 14 now"):
        fewer.resume(Run.of(config).vae.newest())


# --- steps ----------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_is_named_with_its_step_and_faces(config, stop):
    trainer = trainer_of(config)
    objective = trainer.objective.terms

    def broken(output, pictures):
        terms = objective(output, pictures)
        scale = math.nan if trainer.step == 7 else 1.0
        return terms | {"pyramid": scale * terms["pyramid"]}

    trainer.objective.terms = broken
    with pytest.raises(UserError, match="the loss of step 8 in epoch 1 is nan; training stopped") as caught:
        trainer.run(stop)
    assert re.search(r"The latest batch held .*\d{4}\.png", str(caught.value))
    assert Run.of(config).vae.newest() is None


def test_a_batch_without_a_readable_picture_teaches_nothing(tmp_path, stop):
    random_pictures(tmp_path / "faces", FACES)
    for name in ("0003.png", "0007.png"):
        (tmp_path / "faces" / name).write_bytes(b"no picture")
    config = experiment(tmp_path / "faces", tmp_path, batch_size=1, data={"max_unreadable": 1.0})
    trainer = trainer_of(config)
    taught = []
    step_of = trainer.train_step
    trainer.train_step = lambda batch: taught.append(len(batch.indices)) or step_of(batch)
    trainer.train_epoch(stop)
    broken = {trainer.pictures.paths[i].name for i in trainer.pictures.unreadable}
    assert broken <= {"0003.png", "0007.png"}
    assert taught == [1] * (trainer.steps_per_epoch - len(broken))


def test_validation_measures_every_term_and_the_latents(config):
    metrics = trainer_of(config).evaluate("val")
    assert set(metrics) == {"loss", "kl", "mse", "pyramid", "psnr", "kl_to_fitted_prior", "active_units"}
    assert all(map(math.isfinite, metrics.values()))


def test_validation_is_the_same_every_time(config):
    trainer = trainer_of(config)
    assert trainer.evaluate("val") == trainer.evaluate("val")


def test_a_split_without_faces_is_named(tmp_path):
    random_pictures(tmp_path / "faces", 10)
    trainer = trainer_of(experiment(tmp_path / "faces", tmp_path))
    with pytest.raises(UserError, match="no face belongs to split 'nowhere'"):
        trainer.evaluate("nowhere")


def test_too_few_faces_are_told(tmp_path):
    random_pictures(tmp_path / "faces", 1)
    with pytest.raises(UserError, match="at least one of each is needed: add faces"):
        build_trainer(experiment(tmp_path / "faces", tmp_path), ENGINE)


@pytest.mark.parametrize("name, kind", [("muon", Muon), ("adam", torch.optim.Adam)])
def test_the_optimizer_is_the_one_named(faces, tmp_path, name, kind):
    trainer = trainer_of(experiment(faces, tmp_path, optimizer=name))
    assert type(build_optimizer(trainer.model, trainer.settings)) is kind


def rates(faces, tmp_path, **vae) -> list[float]:
    settings = experiment(faces, tmp_path, learning_rate=1.0, **vae).vae
    return [learning_rate(step, 10, settings) for step in range(10 * settings.epochs)]


def test_the_learning_rate_rises_and_falls_like_a_cosine(faces, tmp_path):
    found = rates(faces, tmp_path, warmup_steps=4, epochs=2)
    assert found[:4] == [0.25, 0.5, 0.75, 1.0]
    assert found[10] == pytest.approx(0.5)
    assert found[4:] == sorted(found[4:], reverse=True)
    assert 0 < found[-1] < 0.01


def test_the_learning_rate_falls_by_epochs_where_that_is_wanted(faces, tmp_path):
    found = rates(faces, tmp_path, schedule="exponential", lr_decay=0.5, warmup_steps=0, epochs=3)
    assert found == [1.0] * 10 + [0.5] * 10 + [0.25] * 10
