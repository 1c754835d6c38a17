"""The training scripts as a person runs them: through configs/smoke.toml, in order, again, differently, and wrongly."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datasets.labels import read_labels
from datasets.names import split_of
from games.game import VERSION, default_game
from models.predictor import load_regressor, load_vae
from models.vae import VAE
from tests.helpers import (
    ROOT,
    SMOKE,
    TRAINING_SCRIPTS,
    error_of,
    run_command,
    run_here,
    scalars,
    setting,
    start_together,
    times_of,
    wait_until,
)
from utils import checkpoint
from utils.alignment import move_pictures, random_misalignments
from utils.config import from_dict, load
from utils.device import seed_everything
from utils.errors import UserError
from utils.pictures import read_rgb
from utils.run import Run

SETS = [f"{source}{view}" for source in ("images", "aug_images") for view in ("", "_moved", "_mirrored")]


def files_of(folder: Path) -> list[Path]:
    """All files below a folder but for locks."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")


# --- what a run leaves ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "config.toml",
        *(f"vae/{file}" for file in ("checkpoints/last.pt", "checkpoints/best.pt", "metrics.json")),
        *(f"latents/{name}.{suffix}" for name in SETS for suffix in ("npy", "txt", "json")),
        "latents/meta.json",
        *(f"f2p/{file}" for file in ("checkpoints/last.pt", "checkpoints/best.pt", "metrics.json", "report.png")),
    ],
)
def test_run_folder_is_as_documented(smoke, path):
    assert (smoke / "runs" / "smoke" / path).stat().st_size > 0


def test_the_run_folder_keeps_the_resolved_configuration(smoke):
    kept = load(smoke / "runs" / "smoke" / "config.toml")
    assert kept == load(ROOT / "configs" / "smoke.toml", ["data.workers=0", "run.threads=1"])


def test_latents_have_a_row_per_face(smoke):
    folder = smoke / "runs" / "smoke" / "latents"
    latents, meta = np.load(folder / "images.npy"), json.loads((folder / "meta.json").read_text())
    assert latents.shape == (400, 32)
    assert latents.dtype == np.float32
    assert len((folder / "images.txt").read_text().splitlines()) == 400
    assert meta["counts"] == dict.fromkeys(SETS, 400)
    assert meta["unreadable"] == {name: [] for name in SETS}


def test_latents_say_which_encoder_made_them(smoke):
    vae, _ = load_vae(Run(smoke / "runs" / "smoke"))
    meta = json.loads((smoke / "runs" / "smoke" / "latents" / "meta.json").read_text())
    assert meta["fingerprint"] == checkpoint.fingerprint(vae.encoder)


@pytest.mark.parametrize("view", ["", "_moved", "_mirrored"])
def test_row_i_is_mu_and_logvar_of_the_name_on_line_i_in_its_view(smoke, view):
    run = Run(smoke / "runs" / "smoke")
    name = (run.latents / f"images{view}.txt").read_text().splitlines()[123]
    picture = torch.from_numpy(read_rgb(smoke / "data" / "smoke" / "images" / f"{name}.png"))
    picture = picture.permute(2, 0, 1)[None] / 255
    misalignment = torch.from_numpy(random_misalignments([name]))
    shown = {"": picture, "_moved": move_pictures(picture, misalignment), "_mirrored": picture.flip(3)}

    vae, _ = load_vae(run)
    with torch.inference_mode():
        expected = {key: torch.cat(vae.encoder(seen), 1)[0].numpy() for key, seen in shown.items()}
    np.testing.assert_allclose(np.load(run.latents / f"images{view}.npy")[123], expected[view], atol=2e-3)
    others = [np.abs(expected[view] - latent).max() for key, latent in expected.items() if key != view]
    assert min(others) > 0.02


@pytest.fixture(scope="module")
def metrics(smoke):
    """metrics.json of stage 2."""
    return json.loads((smoke / "runs" / "smoke" / "f2p" / "metrics.json").read_text())


def test_metrics_have_the_documented_parts(metrics):
    assert set(metrics) == {"val", "test", "baselines", "test_aug_images", "look", "run"}
    assert set(metrics["baselines"]) == {"mean", "ridge"}


@pytest.mark.parametrize("part", ["val", "test", "test_aug_images", "mean", "ridge"])
def test_metrics_say_everything_of_every_part(metrics, part):
    found = (metrics | metrics["baselines"])[part]
    assert {"r2", "mae", "cosine_similarity", "distance", "groups", "parameters"} <= set(found)
    assert list(found["parameters"]) == default_game().names
    assert set(found["groups"]) == {p.group for p in default_game().parameters}


def test_metrics_say_what_the_figures_were_made_of(metrics):
    run = metrics["run"]
    assert run["creator"] == VERSION
    assert run["config"]["run"]["name"] == "smoke"
    assert run["active_units"] <= 16
    assert run["faces"]["photos"] == 0
    assert sum(run["faces"].values()) == 400
    assert run["checkpoints"] == {stage: f"runs/smoke/{stage}/checkpoints/best.pt" for stage in ("vae", "f2p")}


@pytest.mark.parametrize("source, part", [("images", "test"), ("aug_images", "test_aug_images")])
def test_a_prediction_is_the_mean_of_those_of_a_face_and_of_its_mirror_image(smoke, metrics, source, part):
    run = Run(smoke / "runs" / "smoke")
    regressor, _ = load_regressor(run)
    labels = read_labels(smoke / "data" / "smoke")
    rows = [i for i, name in enumerate(labels.names) if split_of(name) == "test"]
    latents = [torch.from_numpy(np.load(run.latents / f"{source}{view}.npy")[rows]) for view in ("", "_mirrored")]
    with torch.inference_mode():
        predicted = (sum(map(regressor, latents)) / 2).clamp(0, 1).numpy()
    assert metrics[part]["mae"] == pytest.approx(np.abs(predicted - labels.values[rows]).mean(), rel=1e-5)


def test_the_best_checkpoint_is_the_best_on_renders_and_variants_together(smoke):
    """As training reads both."""
    run = Run(smoke / "runs" / "smoke")
    shown = scalars(run.f2p.folder / "tensorboard")
    renders, variants = (dict(shown[f"{part}/r2"]) for part in ("val", "val_aug_images"))
    assert run.f2p.load_best().content["epoch"] == max(renders, key=lambda epoch: renders[epoch] + variants[epoch])


def test_tensorboard_shows_what_stage_1_learns(smoke):
    shown = scalars(smoke / "runs" / "smoke" / "vae" / "tensorboard")
    steps = {"step/loss", "step/kl", "step/mse", "step/pyramid", "step/learning_rate"}
    epochs = {"train/loss", "train/images_per_second", "val/psnr", "val/loss", "val/active_units"}
    assert steps | epochs <= set(shown)
    assert [step for step, _ in shown["val/loss"]] == [22, 44]  # 704 training faces, 32 per step


def test_tensorboard_shows_pictures(smoke):
    events = EventAccumulator(str(smoke / "runs" / "smoke" / "vae" / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert events.Tags()["images"] == ["input_and_reconstruction", "samples_from_prior"]


def test_tensorboard_shows_what_stage_2_learns(smoke):
    shown = scalars(smoke / "runs" / "smoke" / "f2p" / "tensorboard")
    measured = {f"val/{key}" for key in ("r2", "mae", "cosine_similarity", "distance")}
    assert measured | {"train/loss", "val_r2_by_group/eyes", "val_aug_images/r2"} <= set(shown)
    assert [step for step, _ in shown["val/r2"]] == [1, 2, 3]


# --- going on, or not -----------------------------------------------------------------------------


@pytest.mark.parametrize("script", TRAINING_SCRIPTS)
def test_a_finished_step_says_so_and_does_nothing(smoke, script):
    before = times_of(files_of(smoke))
    assert "is finished" in run_here(script, *SMOKE, cwd=smoke).stdout
    assert times_of(files_of(smoke)) == before


@pytest.mark.parametrize(
    "script, change, told",
    [
        ("vae_trainer.py", "vae.mse_weight=3", "vae.mse_weight: was 100.0, now 3.0"),
        ("vae_trainer.py", "vae.latent_dim=8", "vae.latent_dim: was 16, now 8"),
        ("extract_latentvec.py", "vae.latent_dim=8", "another network"),
        ("f2p_trainer.py", "f2p.width=64", "f2p.width: was 32, now 64"),
    ],
)
def test_other_settings_than_the_runs_are_refused_by_name(smoke, script, change, told):
    before = times_of(files_of(smoke / "runs" / "smoke"))
    assert told in error_of(run_here(script, *SMOKE, *setting(change), cwd=smoke, check=False))
    assert times_of(files_of(smoke / "runs" / "smoke")) == before


@pytest.fixture(scope="module")
def longer(smoke, tmp_path_factory):
    """A copy of the finished run whose stage 1 went on to a third epoch; what that said."""
    folder = tmp_path_factory.mktemp("longer") / "copy"
    shutil.copytree(smoke, folder)
    told = run_here("vae_trainer.py", *SMOKE, *setting("vae.epochs=3"), cwd=folder)
    return folder, told.stdout + told.stderr


def test_more_epochs_go_on_from_the_last(longer):
    folder, told = longer
    assert "Going on from" in told
    assert "epoch 3: val" in told
    assert Run(folder / "runs" / "smoke").vae.newest().content["epoch"] == 3


def test_stage_2_of_a_vae_that_changed_is_started_over_when_asked(longer):
    """The VAE is another one now: new latents are made, stage 2 refuses its checkpoint and starts over when told to."""
    folder, _ = longer
    before = Run(folder / "runs" / "smoke").f2p.load_best().content["digests"]
    # Should the third epoch not be better than the second, the encoder would be the same; here it is another one.
    vae, _ = load_vae(Run(folder / "runs" / "smoke"))
    assert checkpoint.fingerprint(vae.encoder) != before["the encoder"]

    told = error_of(run_here("f2p_trainer.py", *SMOKE, cwd=folder, check=False))
    assert "the encoder is not what it was" in told
    assert "--restart" in told
    more = (*SMOKE, *setting("f2p.epochs=4"))
    assert "belong to another encoder" in error_of(run_here("f2p_trainer.py", *more, cwd=folder, check=False))

    run_here("extract_latentvec.py", *SMOKE, cwd=folder)
    told = error_of(run_here("f2p_trainer.py", *more, cwd=folder, check=False))
    assert "the encoder is not what it was" in told
    run_here("f2p_trainer.py", *SMOKE, "--restart", cwd=folder)
    assert len(list((folder / "runs" / "smoke" / "f2p").glob("tensorboard.*.old"))) == 1


def test_a_data_folder_that_moved_is_the_same_data(copy):
    (copy / "data" / "smoke").rename(copy / "elsewhere")
    moved = (*SMOKE, *setting("data.root=elsewhere"))
    for script in TRAINING_SCRIPTS:
        assert "is finished" in run_here(script, *moved, cwd=copy).stdout, script
    longer = run_here("f2p_trainer.py", *moved, *setting("f2p.epochs=4"), cwd=copy)
    assert "Going on from" in longer.stdout


def replace_labels(root: Path) -> None:
    labels = json.loads((root / "labels.json").read_text())
    (root / "labels.json").write_text(json.dumps({name: values[::-1] for name, values in labels.items()}))


def replace_table(root: Path) -> None:
    table = (root / "parameters.csv").read_text()
    (root / "parameters.csv").write_text(table.replace("macrodetails/Age", "macrodetails/Years"))


@pytest.mark.parametrize(
    "replace, told",
    [
        (replace_labels, "labels.json of data.root is not what it was"),
        (replace_table, "the parameter table of data.root is not what it was"),
    ],
)
@pytest.mark.parametrize("epochs", [3, 4], ids=["finished", "to go on"])
def test_stage_2_of_labels_that_were_replaced_is_refused_by_name(copy, replace, told, epochs):
    replace(copy / "data" / "smoke")
    settings = (*SMOKE, *setting(f"f2p.epochs={epochs}"))
    assert told in error_of(run_here("f2p_trainer.py", *settings, cwd=copy, check=False))


def test_latents_that_are_there_decide_their_precision_on_another_machine(copy, monkeypatch):
    """Those of configs/smoke.toml are fp32. This machine is made one whose hardware has bf16."""
    folder, auto = copy / "runs" / "smoke" / "latents", (*SMOKE, *setting("latents.precision=auto"))
    monkeypatch.setattr("utils.device._cpu_has_bf16", lambda: True)
    assert "is finished" in run_here("extract_latentvec.py", *auto, cwd=copy).stdout

    # What is missing is made as the others are.
    before = (folder / "images_moved.npy").read_bytes()
    (folder / "images_moved.json").unlink()
    told = run_here("extract_latentvec.py", *auto, cwd=copy).stdout
    assert "were made in fp32, so all are, though bf16 is faster here" in told
    assert (folder / "images_moved.npy").read_bytes() == before
    assert json.loads((folder / "meta.json").read_text())["precision"] == "fp32"

    # Made anew they are as this machine makes them, and stage 2 takes them for no others.
    run_here("extract_latentvec.py", *auto, "--restart", cwd=copy)
    assert (folder / "images_moved.npy").read_bytes() != before
    assert json.loads((folder / "meta.json").read_text())["precision"] == "bf16"
    more = setting("f2p.epochs=4")
    told = error_of(run_here("f2p_trainer.py", *auto, *more, cwd=copy, check=False))
    assert "the precision of the latents is not what it was" in told
    told = error_of(run_here("f2p_trainer.py", *SMOKE, *more, cwd=copy, check=False))
    assert "were made in bf16, and latents.precision is 'fp32'" in told


def test_faces_that_were_replaced_are_encoded_anew(copy):
    first, second = sorted((copy / "data" / "smoke" / "images").iterdir())[:2]
    first.write_bytes(second.read_bytes())
    told = run_here("extract_latentvec.py", *SMOKE, cwd=copy)
    latents = np.load(copy / "runs" / "smoke" / "latents" / "images.npy")
    assert "is finished" not in told.stdout
    np.testing.assert_allclose(latents[0], latents[1], atol=1e-5)


@pytest.mark.parametrize(
    "arguments, told",
    [
        (("vae_trainer.py", "data.root=nowhere", "data.creator_count=0"), "data set folder nowhere does not exist"),
        (("vae_trainer.py", "run.device=cuda"), "no CUDA device"),
        (("vae_trainer.py", "run.precision=fp16"), "needs a GPU"),
        (("vae_trainer.py", 'data.folders=["empty"]', "data.creator_count=0", "data.root="), "holds no pictures"),
        (("vae_trainer.py", 'data.folders=["missing"]', "data.creator_count=0", "data.root="), "which is no folder"),
        (("extract_latentvec.py",), "run vae_trainer.py"),
        (("extract_latentvec.py", "data.root=", 'data.folders=["empty"]'), "Set data.root"),
        (("f2p_trainer.py",), "run vae_trainer.py"),
        (("f2p_trainer.py", "data.root=", 'data.folders=["empty"]'), "Set data.root"),
    ],
)
def test_mistakes_get_a_sentence(arguments, told, tmp_path):
    (tmp_path / "empty").mkdir()
    script, *changes = arguments
    no_faces = setting("data.creator_count=2") if script != "vae_trainer.py" else ()
    result = run_here(script, *SMOKE, *no_faces, *setting(*changes), cwd=tmp_path, check=False)
    assert told in error_of(result)


def test_stage_2_is_not_for_several_processes(tmp_path):
    variables = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        result = run_here("vae_trainer.py", *SMOKE, cwd=tmp_path, check=False)
        assert "several processes are started with torchrun" in error_of(result)  # there is no MASTER_PORT
        patch.setenv("MASTER_PORT", "1")
        patch.setattr("utils.device.dist.init_process_group", lambda *_: None)
        patch.setattr("utils.device.dist.destroy_process_group", lambda: None)
        result = run_here("f2p_trainer.py", *SMOKE, cwd=tmp_path, check=False)
        assert "runs in one process; start it with python" in error_of(result)


# --- several processes ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(smoke):
    """Settings with which several runs share the data set and its cache."""
    return (*SMOKE, *setting(f"data.root={smoke / 'data' / 'smoke'}", f"data.cache={smoke / 'cache'}"))


def test_two_processes_train_as_one(shared, tmp_path):
    """Two gloo processes at the same global batch end with the weights of one process.

    Muon works in bfloat16 and magnifies rounding more than could be told from a mistake, so this is with Adam.
    """
    alike = setting("vae.norm=group", "vae.epochs=1", "run.precision=fp32", "vae.optimizer=adam")
    together = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", 2)
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    run_here("vae_trainer.py", *shared, *alike, cwd=folders[0])
    run_command(*together, ROOT / "vae_trainer.py", *shared, *alike, cwd=folders[1])
    one, two = (Run(folder / "runs" / "smoke").vae.newest().content for folder in folders)
    config = from_dict(one["config"], "checkpoint")
    seed_everything(0)
    begin = VAE(config.data.image_size, config.vae).state_dict()

    # Adam turns the rounding of a gradient near 0 into a step of full size: two threads in place of one already move
    # the weights by a tenth of what training moves them and the score by 0.1 %. Other batches move them by nine tenths
    # and 5 %.
    states = (one["model"], two["model"], begin)
    first, second, start = (torch.cat([state[name].flatten() for name in sorted(begin)]) for state in states)
    assert (first - second).norm() < 0.3 * (first - start).norm()
    assert two["best"] == pytest.approx(one["best"], rel=1e-2)
    assert two["steps_done"] == one["steps_done"]


def test_of_two_processes_one_is_asked_to_stop_and_both_leave_with_a_checkpoint(shared, tmp_path):
    """The one that is asked is not the one that saves."""
    settings = (*shared, *setting("vae.epochs=400", "vae.checkpoint_minutes=0.001"))
    processes = start_together("vae_trainer.py", *settings, cwd=tmp_path, processes=2)
    last = tmp_path / "runs" / "smoke" / "vae" / "checkpoints" / "last.pt"
    wait_until(last.exists, processes[0])
    os.kill(processes[1].pid, signal.SIGTERM)

    told = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [130, 130], told
    left = [text[text.index("Stopped and saved at") :].splitlines()[0] for text in told]
    assert left[0] == left[1]
    assert checkpoint.load(last, "vae")["steps_done"] > 0


def test_latents_of_two_processes_are_those_of_one(smoke, tmp_path):
    shutil.copytree(smoke, tmp_path / "copy")
    processes = start_together("extract_latentvec.py", *SMOKE, "--restart", cwd=tmp_path / "copy", processes=2)
    told = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    one, two = (folder / "runs" / "smoke" / "latents" for folder in (smoke, tmp_path / "copy"))
    for name in SETS:
        for suffix in ("npy", "txt"):
            file = f"{name}.{suffix}"
            assert (one / file).read_bytes() == (two / file).read_bytes(), file


# --- checkpoints ----------------------------------------------------------------------------------


def test_checkpoint_round_trip(smoke, tmp_path):
    content = Run(smoke / "runs" / "smoke").vae.load_best().content
    kind = content.pop("format")
    checkpoint.save(tmp_path / "copy.pt", "vae", content)
    again = checkpoint.load(tmp_path / "copy.pt", "vae")
    assert again.pop("format") == kind
    assert again.keys() == content.keys()
    assert again["config"] == content["config"]
    assert [name for name, weight in content["model"].items() if not torch.equal(again["model"][name], weight)] == []


def test_a_checkpoint_of_the_other_stage_is_refused(smoke):
    path = Run(smoke / "runs" / "smoke").vae.best
    with pytest.raises(UserError, match="expected 'face2parameter f2p"):
        checkpoint.load(path, "f2p")


def test_weights_of_another_network_are_refused(smoke):
    run = Run(smoke / "runs" / "smoke")
    regressor, _ = load_regressor(run)
    content, path = run.vae.load_best()
    with pytest.raises(UserError, match="another network"):
        checkpoint.restore(regressor, content["model"], path)


def test_scripts_run_from_any_folder(tmp_path):
    """Their default config is found wherever they are called."""
    result = run_here("f2p_trainer.py", cwd=tmp_path, check=False)
    assert "there is no checkpoint runs/creator/vae/checkpoints/best.pt" in error_of(result)
