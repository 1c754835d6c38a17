"""Stage 2's trainer in this process, on a small table of made-up latents: sampling, losses, evaluation, going on."""

import math
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from datasets.latents import AS_IT_IS, MIRRORED, MOVED, LatentTable
from f2p_trainer import Trainer, check_table, indices_by_kind, score
from games.parameters import Parameter
from models.regressor import Answers
from tests.helpers import same
from utils.alignment import random_misalignments
from utils.config import Config, from_dict
from utils.device import Engine
from utils.errors import Interrupted, UserError
from utils.muon import Muon
from utils.run import Run

ENGINE = Engine(torch.device("cpu"), torch.float32)

#: Two sliders and a bone.
PARAMETERS = [
    Parameter("a", "eye", "slider", 0, 1, ""),
    Parameter("b", "eye", "bone", 0, 1, ""),
    Parameter("c", "nose", "slider", 0, 1, ""),
]

#: Dimensions of the latents, and faces: renders to train on, to validate, to test, and photos.
LATENT_DIM = 16
TRAIN, VAL, TEST, PHOTOS = 96, 24, 24, 8

VIEWS = [(source, view) for source in ("images", "aug_images") for view in (AS_IT_IS, MOVED, MIRRORED)]


def table_of(*, photos: int = 0, sources: tuple[str, ...] = ("images", "aug_images")) -> LatentTable:
    """Faces whose latents, in every view, are a linear law of their labels and some noise."""
    rng = np.random.default_rng(0)
    split = np.repeat(["train", "val", "test", "photos"], [TRAIN, VAL, TEST, photos])
    labels = rng.random((len(split), len(PARAMETERS)), np.float32)
    law = rng.normal(size=(len(PARAMETERS), LATENT_DIM)).astype("f4")
    rows = {}
    for source, view in VIEWS:
        mu = labels @ law + 0.3 * rng.normal(size=(len(split), LATENT_DIM)).astype("f4")
        if source in sources:
            rows[source, view] = np.concatenate([mu, np.full_like(mu, -3.0)], 1)
    has_variant = (split != "photos") & ("aug_images" in sources)
    names = [f"face_{i:03d}" for i in range(len(split))]
    return LatentTable(names, labels, split, rows, has_variant, PARAMETERS, {"creator": None, "fingerprint": "f"})


def marked_table(*, photos: int = 0) -> LatentTable:
    """The same faces with mu that only say which source and view they are of: see `mark_of`."""
    table = table_of(photos=photos)
    rows = {key: np.zeros_like(latents) for key, latents in table.rows.items()}
    for key in rows:
        rows[key][:, :LATENT_DIM] = mark_of(*key)
    return table._replace(rows=rows)


def mark_of(source: str, view: str) -> float:
    return VIEWS.index((source, view))


def experiment(folder, *, latents=None, run=None, **f2p) -> Config:
    """A tiny stage 2: plain, without any of the extras, unless told otherwise."""
    small = {"network": "plain", "layers": 2, "width": 16, "mixer_blocks": 1, "mixer_width": 8, "batch_size": 32}
    small |= {"epochs": 4, "posterior_noise": 0.0, "variant_prob": 0.0, "weight_decay": 0.01}
    vae = {"encoder_channels": [4] * 4, "decoder_channels": [4] * 4, "bottleneck": 4, "latent_dim": LATENT_DIM}
    views = {"moved": False, "mirrored": False} | (latents or {})
    where = {"name": "tiny", "folder": str(folder)} | (run or {})
    return from_dict({"run": where, "vae": vae, "latents": views, "f2p": small | f2p}, "test")


DIGESTS = {"the encoder": "e", "labels.json of data.root": "l"}


@pytest.fixture
def trainer_with(tmp_path):
    """A trainer of the tiny stage 2 with some settings changed."""

    def make(table: LatentTable, **changes) -> Trainer:
        return Trainer(experiment(tmp_path, **changes), ENGINE, table, DIGESTS)

    return make


def many(trainer: Trainer, times: int = 200) -> torch.Tensor:
    """Every training render, many times."""
    return torch.arange(trainer.renders).repeat(times)


# --- rows of a step -------------------------------------------------------------------------------


def test_the_steps_of_an_epoch_take_every_render_once(trainer_with):
    trainer = trainer_with(table_of())
    order = torch.randperm(trainer.renders)
    rows = torch.cat([trainer.sample_rows(order, step) for step in range(trainer.steps_per_epoch)])
    assert trainer.steps_per_epoch == TRAIN // 32
    assert torch.equal(rows, order)


def test_photos_join_every_step_as_a_quarter_of_its_renders(trainer_with):
    trainer = trainer_with(table_of(photos=PHOTOS))
    order = torch.randperm(trainer.renders)
    steps = [trainer.sample_rows(order, step) for step in range(3)] * 20
    photos = torch.cat([trainer.sample_rows(order, 0)[32:] for _ in steps])
    assert {len(rows) for rows in steps} == {32 + 8}
    assert torch.equal(torch.cat([rows[:32] for rows in steps[:3]]), order)
    assert set(photos.tolist()) == set(range(TRAIN, TRAIN + PHOTOS))


def test_a_batch_is_no_larger_than_the_renders(trainer_with):
    trainer = trainer_with(table_of(photos=PHOTOS), batch_size=1000)
    assert trainer.batch_size == TRAIN
    assert trainer.steps_per_epoch == 1


# --- latents of a step ----------------------------------------------------------------------------


@pytest.mark.parametrize("probability", [0.3, 1.0])
def test_the_variants_latent_is_read_with_its_probability(trainer_with, probability):
    trainer = trainer_with(marked_table(), variant_prob=probability)
    latents = trainer.sample_latents(many(trainer), AS_IT_IS)
    is_variant = latents[:, 0] == mark_of("aug_images", AS_IT_IS)
    assert is_variant.float().mean().item() == pytest.approx(probability, abs=0.02)
    assert (latents[:, :LATENT_DIM] == latents[:, :1]).all()  # a face's latent is one or the other as a whole


def test_without_a_probability_variants_are_not_even_loaded(trainer_with):
    trainer = trainer_with(marked_table(), variant_prob=0.0)
    assert {source for source, _ in trainer.latents} == {"images"}
    assert not trainer.reads("aug_images")
    assert (trainer.sample_latents(many(trainer), AS_IT_IS)[:, 0] == mark_of("images", AS_IT_IS)).all()


def test_a_data_set_without_variants_is_read_as_it_is(trainer_with):
    trainer = trainer_with(table_of(sources=("images",)), variant_prob=0.6)
    rows = torch.arange(trainer.renders)
    assert torch.equal(trainer.sample_latents(rows, AS_IT_IS), trainer.latents["images", AS_IT_IS][rows])


def test_posterior_noise_shifts_mu_by_posterior_deviations_and_leaves_logvar(trainer_with):
    table = marked_table()
    table.rows["images", AS_IT_IS][:, LATENT_DIM:] = math.log(0.25)
    trainer = trainer_with(table, posterior_noise=0.5)
    mu, logvar = trainer.sample_latents(many(trainer), AS_IT_IS).chunk(2, 1)
    assert mu.mean().item() == pytest.approx(0, abs=0.01)
    assert mu.std().item() == pytest.approx(0.5 * 0.5, rel=0.02)
    assert (logvar == math.log(0.25)).all()


def latents_of_steps(trainer: Trainer, steps: int) -> torch.Tensor:
    """The first numbers of all latents that the network reads in some steps."""
    read = []
    hook = trainer.model.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0][:, 0]))
    for _ in range(steps):
        trainer.train_step(torch.arange(trainer.renders))
    hook.remove()
    return torch.cat(read)


def test_half_of_the_faces_are_read_mirrored_where_that_is_wanted(trainer_with):
    trainer = trainer_with(marked_table(), latents={"mirrored": True}, batch_size=TRAIN)
    read = latents_of_steps(trainer, 40)
    assert set(read.tolist()) == {mark_of("images", AS_IT_IS), mark_of("images", MIRRORED)}
    assert (read == mark_of("images", MIRRORED)).float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_a_mirrored_variant_is_the_variant_mirrored(trainer_with):
    trainer = trainer_with(marked_table(), latents={"mirrored": True}, variant_prob=0.25, batch_size=TRAIN)
    read = latents_of_steps(trainer, 40)
    found = {mark: (read == mark).float().mean().item() for mark in set(read.tolist())}
    expected = {
        mark_of("images", AS_IT_IS): 0.375,
        mark_of("images", MIRRORED): 0.375,
        mark_of("aug_images", AS_IT_IS): 0.125,
        mark_of("aug_images", MIRRORED): 0.125,
    }
    assert found == pytest.approx(expected, abs=0.03)


def test_without_mirrored_faces_none_is_read(trainer_with):
    trainer = trainer_with(marked_table(), batch_size=TRAIN)
    assert set(latents_of_steps(trainer, 3).tolist()) == {mark_of("images", AS_IT_IS)}


# --- losses ---------------------------------------------------------------------------------------


def test_the_loss_of_parameters_is_the_sum_of_the_kinds_means(trainer_with):
    """However many sliders there are, the bones count as much as they."""
    trainer = trainer_with(table_of())
    truth = torch.zeros(5, 3)
    assert trainer.parameter_loss(torch.tensor([[1.0, 0, 0]] * 5), truth).item() == pytest.approx(0.5)
    assert trainer.parameter_loss(torch.tensor([[0.0, 2, 0]] * 5), truth).item() == pytest.approx(4.0)
    assert trainer.parameter_loss(torch.tensor([[1.0, 2, 3]] * 5), truth).item() == pytest.approx(5.0 + 4.0)


def test_kinds_come_in_the_order_of_the_table():
    assert indices_by_kind(PARAMETERS) == [[0, 2], [1]]


@pytest.fixture
def photos_off_by_one(trainer_with):
    """A trainer of renders whose parameters are all 0 and photos whose parameters are all 1."""
    table = table_of(photos=PHOTOS)
    is_photo = table.split == "photos"
    return trainer_with(table._replace(labels=is_photo[:, None].repeat(3, 1).astype("f4")))


def loss_of(trainer: Trainer, *, game: float = 0.0, photo: float = 0.0, logit: float = 0.0) -> float:
    """The loss of a step whose faces are all answered alike."""
    rows = trainer.sample_rows(torch.arange(trainer.renders), 0)
    answers = Answers(
        torch.full((len(rows), 3), game), torch.full((len(rows), 3), photo), torch.full((len(rows), 1), logit)
    )
    return trainer.loss_with_photos(answers, trainer.labels[rows]).item()


UNDECIDED = 2 * math.log(2)  # the gate's loss where it says one half, of renders and of photos


def test_photos_count_as_much_as_renders_however_few_they_are(photos_off_by_one):
    assert photos_off_by_one.photos_per_step == 8
    assert loss_of(photos_off_by_one) - UNDECIDED == pytest.approx(2.0)  # 1 for each of two kinds
    assert loss_of(photos_off_by_one, photo=1.0) - UNDECIDED == pytest.approx(2.0)  # this head learns renders too


def test_the_head_of_the_game_does_not_learn_photos(photos_off_by_one):
    assert loss_of(photos_off_by_one, game=1.0) - loss_of(photos_off_by_one) == pytest.approx(2.0)  # renders alone


@pytest.mark.parametrize("logit", [-2.0, 3.0])
def test_the_gates_loss_is_the_cross_entropy_of_renders_and_of_photos(photos_off_by_one, logit):
    expected = math.log(1 + math.exp(logit)) + math.log(1 + math.exp(-logit))
    assert loss_of(photos_off_by_one, logit=logit) - 2.0 == pytest.approx(expected)


def test_the_gate_comes_to_tell_photos_from_renders(trainer_with):
    """Latents of photos are 1 and of renders 0; of what the heads read, the gate changes nothing."""
    table = table_of(photos=PHOTOS)
    rows = {key: np.zeros_like(latents) for key, latents in table.rows.items()}
    rows["images", AS_IT_IS][table.of("photos")] = 1.0
    trainer = trainer_with(table._replace(rows=rows), learning_rate=0.1)
    for _ in range(60):
        trainer.train_step(trainer.sample_rows(torch.randperm(trainer.renders), 0))
    trainer.model.eval()
    is_photo = trainer.model.answers(trainer.latents["images", AS_IT_IS]).photo_logit[:, 0] > 0
    assert is_photo.tolist() == [False] * TRAIN + [True] * PHOTOS


def test_photos_train_the_misalignment_head(trainer_with):
    trainer = trainer_with(table_of(photos=PHOTOS), latents={"moved": True})
    seen = []
    trainer.misalignment_loss = lambda rows, latents: seen.append((rows, latents)) or latents.sum() * 0
    for _ in range(4):
        trainer.train_step(trainer.sample_rows(torch.randperm(trainer.renders), 0))
    assert [len(rows) for rows, _ in seen] == [40] * 4
    assert [len(latents) for _, latents in seen] == [40] * 4
    assert all((rows >= TRAIN).sum() == 8 for rows, _ in seen)


@pytest.fixture
def told_misalignment():
    """Faces whose moved latents begin with the misalignment itself, and whose other latents are 0."""
    table = table_of(photos=PHOTOS)
    rows = {key: np.zeros_like(latents) for key, latents in table.rows.items()}
    rows["images", MOVED][:, :4] = random_misalignments(table.names)
    return table._replace(rows=rows)


def test_the_misalignment_of_a_moved_face_is_learned_from_its_own_moved_latent(trainer_with, told_misalignment):
    trainer = trainer_with(told_misalignment, latents={"moved": True})
    trainer.model.misalignment_of = lambda latents: latents[:, :4]
    rows = torch.arange(TRAIN + PHOTOS)
    well_aligned = trainer.sample_latents(rows, AS_IT_IS)
    assert trainer.misalignment_loss(rows, well_aligned).item() == 0


def test_three_of_four_faces_are_moved_and_the_others_have_no_misalignment(trainer_with, told_misalignment):
    trainer = trainer_with(told_misalignment, latents={"moved": True})
    trainer.model.misalignment_of = lambda latents: torch.zeros(len(latents), 4)
    rows = many(trainer)
    loss = trainer.misalignment_loss(rows, trainer.sample_latents(rows, AS_IT_IS)).item()
    assert loss == pytest.approx(0.75 * trainer.misalignments[: trainer.renders].square().mean().item(), rel=0.02)


def test_a_network_without_a_misalignment_head_learns_parameters_alone(trainer_with):
    trainer = trainer_with(table_of())
    trainer.misalignment_loss = Mock(side_effect=AssertionError("no misalignment is to be learned"))
    assert trainer.train_step(torch.arange(trainer.renders)) > 0


def test_a_step_brings_the_loss_down(trainer_with):
    trainer = trainer_with(table_of(), learning_rate=0.01, batch_size=TRAIN)
    losses = [trainer.train_step(torch.arange(trainer.renders)).item() for _ in range(100)]
    assert losses[-1] < 0.5 * losses[0]


def test_a_loss_that_is_not_finite_stops_the_run(trainer_with):
    table = table_of()
    trainer = trainer_with(table)
    trainer.labels.fill_(math.nan)
    with pytest.raises(UserError, match="the loss of epoch 1 is nan; training stopped, the last checkpoint stands"):
        trainer.train_epoch()


# --- optimizers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["plain", "whitened"])
def test_a_network_without_mixer_is_learned_by_adamw(trainer_with, network):
    trainer = trainer_with(table_of(), network=network)
    assert list(trainer.optimizers) == ["adamw"]


def test_the_matrices_of_a_mixers_blocks_are_learned_by_muon_and_every_weight_by_one(trainer_with):
    trainer = trainer_with(table_of(), network="mixer", latents={"moved": True})
    learned = {
        name: [weight for group in optimizer.param_groups for weight in group["params"]]
        for name, optimizer in trainer.optimizers.items()
    }
    ids = [id(weight) for weights in learned.values() for weight in weights]
    assert isinstance(trainer.optimizers["muon"], Muon)
    assert {id(weight) for weight in learned["muon"]} == {
        id(weight) for weight in trainer.model.mixer.blocks.parameters()
    }
    assert sorted(ids) == sorted(id(weight) for weight in trainer.model.parameters())


def test_muon_learns_three_times_as_fast_and_shrinks_weights_equally(trainer_with):
    trainer = trainer_with(table_of(), network="mixer", learning_rate=0.01, weight_decay=0.3)
    adamw, muon = (trainer.optimizers[name].defaults for name in ("adamw", "muon"))
    assert muon["lr"] == pytest.approx(3 * adamw["lr"])
    assert muon["lr"] * muon["weight_decay"] == pytest.approx(adamw["lr"] * adamw["weight_decay"])


def test_learning_rates_fall_like_a_cosine_over_the_whole_run(trainer_with):
    trainer = trainer_with(table_of(), network="mixer", learning_rate=0.01)

    def rates() -> list[float]:
        return [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers.values()]

    trainer.set_learning_rate(0)
    assert rates() == pytest.approx([0.01, 0.03])
    trainer.epoch = 2
    trainer.set_learning_rate(0)
    assert rates() == pytest.approx([0.005, 0.015])


# --- evaluation -----------------------------------------------------------------------------------


def test_an_untrained_network_starts_from_the_mean_face(trainer_with):
    trainer = trainer_with(table_of())
    mean = trainer.table.labels[:TRAIN].mean(0)
    np.testing.assert_allclose(trainer.model.head.bias.detach(), mean, rtol=1e-5)


def test_a_prediction_is_clipped_to_what_a_game_knows(trainer_with):
    trainer = trainer_with(table_of())
    trainer.model.forward = lambda latents: torch.tensor([[-1.0, 0.25, 2.0]]).expand(len(latents), 3)
    assert trainer.predict(np.arange(5)).tolist() == [[0, 0.25, 1]] * 5


@pytest.mark.parametrize("source", ["images", "aug_images"])
def test_a_prediction_is_the_mean_of_a_face_and_its_mirror_image_where_both_are_read(trainer_with, source):
    trainer = trainer_with(table_of(), latents={"mirrored": True}, variant_prob=0.5)
    rows = trainer.table.of("test")
    with torch.inference_mode():
        views = [torch.from_numpy(trainer.table.rows[source, view][rows]) for view in (AS_IT_IS, MIRRORED)]
        expected = sum(map(trainer.model, views)).div(2).clamp(0, 1)
    np.testing.assert_allclose(trainer.predict(rows, source), expected, atol=1e-6)


def test_only_faces_with_a_variant_are_measured_by_their_variants(trainer_with):
    table = table_of()
    table.has_variant[table.of("val")[5:]] = False
    trainer = trainer_with(table, variant_prob=0.5)
    measured = []
    trainer.metrics = lambda rows, predicted: measured.append((rows, predicted)) or {}
    trainer.evaluate("val", source="aug_images")
    rows, predicted = measured[0]
    assert rows.tolist() == table.of("val")[:5].tolist()
    np.testing.assert_array_equal(predicted, trainer.predict(rows, "aug_images"))


@pytest.mark.parametrize("photos", [0, PHOTOS])
def test_a_face_is_out_of_distribution_beyond_99_percent_of_those_validated_or_of_the_photos(trainer_with, photos):
    table = table_of(photos=photos)
    table.rows["images", AS_IT_IS][table.of("photos")] *= 5
    trainer = trainer_with(table, variant_prob=0.5)

    def distances(source: str, split: str) -> np.ndarray:
        latents = torch.from_numpy(table.rows[source, AS_IT_IS][table.of(split)])
        return trainer.model.standardiser.distance(latents).numpy()

    validated = np.quantile(np.concatenate([distances("images", "val"), distances("aug_images", "val")]), 0.99)
    of_photos = np.quantile(distances("images", "photos"), 0.99) if photos else 0.0
    assert trainer.ood_threshold == pytest.approx(max(validated, of_photos), rel=1e-5)
    assert (of_photos > validated) == bool(photos)


def test_statistics_are_those_of_training_faces_and_what_they_are_read_as(trainer_with):
    table = table_of(photos=PHOTOS)
    trainer = trainer_with(table, variant_prob=0.5)
    learned = np.concatenate([table.of("train"), table.of("photos")])
    read = np.concatenate([table.rows[source, AS_IT_IS][learned] for source in ("images", "aug_images")])
    np.testing.assert_allclose(trainer.model.standardiser.mean, read.mean(0), atol=1e-5)


def test_the_best_is_chosen_by_what_training_reads(trainer_with):
    assert trainer_with(table_of(), variant_prob=0.5).scores_variants
    assert not trainer_with(table_of(), variant_prob=0.0).scores_variants
    assert not trainer_with(table_of(sources=("images",)), variant_prob=0.5).scores_variants


def test_the_score_is_mean_r2_or_minus_the_error_where_nothing_varies():
    assert score({"val": {"r2": 0.5, "mae": 9}, "val_aug_images": {"r2": 0.1, "mae": 9}}) == pytest.approx(0.3)
    assert score({"val": {"r2": math.nan, "mae": 0.2}}) == pytest.approx(-0.2)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_with_too_few_faces_is_named(split):
    table = table_of()
    table.split[table.of(split)[1:]] = ""
    with pytest.raises(UserError, match=f"1 of 144 faces belong to split '{split}'; at least 2 are needed"):
        check_table(table)


def test_parameters_that_cannot_be_learned_are_said(capsys):
    table = table_of()
    table.labels[:, 1] = 0.5
    check_table(table)
    assert "1 parameters have the same value in all training faces and cannot be learned: b" in capsys.readouterr().out


# --- a run ----------------------------------------------------------------------------------------

#: What a run may read beside plain latents.
EVERYTHING = {"latents": {"moved": True, "mirrored": True}, "variant_prob": 0.5, "posterior_noise": 0.5}


def stop_after(trainer: Trainer, stop, epochs: int) -> None:
    """Let somebody ask to stop while an epoch is computed."""
    train_epoch = trainer.train_epoch

    def asked() -> float:
        stop.requested = trainer.epoch + 1 >= epochs
        return train_epoch()

    trainer.train_epoch = asked


@pytest.mark.parametrize("network", ["plain", "whitened", "mixer"])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path, stop, network):
    def trainer_in(folder: str) -> Trainer:
        config = experiment(tmp_path / folder, network=network, **EVERYTHING)
        return Trainer(config, ENGINE, table_of(photos=PHOTOS), DIGESTS)

    straight = trainer_in("straight")
    straight.run(Mock(), stop)

    first = trainer_in("stopped")
    stop_after(first, stop, 3)
    with pytest.raises(Interrupted, match="saved at the end of epoch 3"):
        first.run(Mock(), stop)
    stop.requested = False
    again = trainer_in("stopped")
    again.resume(again.stage.newest())
    assert again.epoch == 3
    again.run(Mock(), stop)

    states = [{**trainer.state(), "config": None, "seconds": None} for trainer in (straight, again)]
    assert [key for key in states[0] if not same(states[0][key], states[1][key])] == []
    best = [trainer.stage.load_best().content for trainer in (straight, again)]
    assert same(best[0]["model"], best[1]["model"])


def test_asked_to_stop_in_the_last_epoch_it_finishes(trainer_with, stop):
    trainer = trainer_with(table_of())
    stop_after(trainer, stop, 4)
    trainer.run(Mock(), stop)
    assert trainer.epoch == 4


def test_an_epoch_is_a_function_of_seed_and_epoch(tmp_path):
    def losses(seed: int) -> list[float]:
        config = experiment(tmp_path, run={"seed": seed}, **EVERYTHING)
        trainer = Trainer(config, ENGINE, table_of(), DIGESTS)
        torch.rand(7)  # what else drew random numbers has no influence
        return [trainer.train_epoch()]

    assert losses(0) == losses(0)
    assert losses(0) != losses(1)


def test_every_epoch_takes_the_renders_in_another_order(trainer_with):
    trainer = trainer_with(table_of())
    taken = []
    trainer.train_step = lambda rows: taken.append(rows) or torch.zeros(())
    for trainer.epoch in range(2):
        trainer.train_epoch()
    first, second = torch.cat(taken).chunk(2)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(TRAIN))
    assert not torch.equal(first, second)


def scored(trainer: Trainer) -> None:
    """Let validation find every epoch worse than the one before."""
    of_epoch = {"mae": 0.1, "cosine_similarity": 0.9, "distance": 1.0, "groups": {}}
    trainer.evaluate = lambda split, source="images": of_epoch | {"r2": 1 / trainer.epoch}


def test_the_best_of_a_run_is_its_best_epoch_on_val(trainer_with, stop):
    trainer = trainer_with(table_of())
    scored(trainer)
    trainer.run(Mock(), stop)
    assert trainer.stage.load_best().content["epoch"] == 1


def test_a_checkpoint_alone_says_what_a_prediction_needs(trainer_with, stop):
    trainer = trainer_with(table_of())
    trainer.run(Mock(), stop)
    content = trainer.stage.load_best().content
    assert content["latent_dim"] == LATENT_DIM
    assert [Parameter(*row) for row in content["parameters"]] == PARAMETERS
    assert content["ood_threshold"] == trainer.ood_threshold
    assert content["digests"] == DIGESTS
    assert content["creator"] is None


def saved_then_resumed(table: LatentTable, digests: dict[str, str], before: Config, now: Config) -> Trainer:
    """A trainer of today's configuration that goes on from where one of another configuration stands."""
    first = Trainer(before, ENGINE, table, DIGESTS)
    first.stage.save("last", first.state())
    trainer = Trainer(now, ENGINE, table, digests)
    trainer.resume(Run.of(now).f2p.newest())
    return trainer


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"width": 8}, "f2p.width: was 16, now 8"),
        ({"variant_prob": 0.5}, "f2p.variant_prob: was 0.0, now 0.5"),
        ({"latents": {"moved": True}}, "latents.moved: was False, now True"),
        ({"run": {"seed": 3}}, "run.seed: was 0, now 3"),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, changes, told):
    with pytest.raises(UserError, match=told):
        saved_then_resumed(table_of(), DIGESTS, experiment(tmp_path), experiment(tmp_path, **changes))


def test_other_labels_are_refused_by_name(tmp_path):
    config = experiment(tmp_path)
    with pytest.raises(UserError, match=r"\(labels.json of data.root is not what it was\)"):
        saved_then_resumed(table_of(), DIGESTS | {"labels.json of data.root": "x"}, config, config)


def test_more_epochs_are_gone_on_with(tmp_path):
    trainer = saved_then_resumed(table_of(), DIGESTS, experiment(tmp_path), experiment(tmp_path, epochs=9))
    assert trainer.settings.epochs == 9
