"""The scripts as a person runs them: through configs/smoke.toml, in order, again, stopped, and wrongly."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.conftest import ROOT, SMOKE, error_of, run_script

from datasets import creator
from datasets.creator import writer
from datasets.creator.fit import write_photos
from datasets.hs_face import BUILT_IN_TABLE, parse_parameters, read_labels
from datasets.names import split_of
from models.build import build_vae, load_regressor, load_vae
from utils import checkpoint
from utils.alignment import random_frames
from utils.config import from_dict
from utils.errors import UserError
from utils.metrics import active_units, parameter_metrics, psnr, ridge
from utils.pictures import read_rgb, write_picture
from utils.training import move_pictures, seed_everything


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_run_folder_is_as_documented(smoke):
    run = smoke / "runs" / "smoke"
    for path in ("config.toml", "vae/checkpoints/last.pt", "vae/checkpoints/best.pt", "vae/metrics.json", "latents/images.npy", "latents/images.txt",
                 "latents/aug_images.npy", *(f"latents/{part}_{kind}.npy" for part in ("images", "aug_images") for kind in ("moved", "mirrored")),
                 "latents/meta.json", "f2p/checkpoints/last.pt", "f2p/checkpoints/best.pt", "f2p/metrics.json", "f2p/report.png"):
        assert (run / path).stat().st_size > 0, path
    latents = np.load(run / "latents" / "images.npy")
    names = (run / "latents" / "images.txt").read_text().splitlines()
    meta = json.loads((run / "latents" / "meta.json").read_text())
    assert latents.shape == (400, 32) and latents.dtype == np.float32 and len(names) == meta["counts"]["images"] == 400
    # Row i is [mu | logvar] of the NAME on line i.
    vae, _ = load_vae(run)
    assert meta["fingerprint"] == checkpoint.fingerprint(vae.encoder)
    picture = torch.from_numpy(read_rgb(smoke / "data" / "smoke" / "images" / f"{names[123]}.png")).permute(2, 0, 1)[None] / 255
    shown = {"": picture, "_moved": move_pictures(picture, torch.from_numpy(random_frames([names[123]]))), "_mirrored": picture.flip(3)}
    with torch.inference_mode():
        expected = {kind: torch.cat(vae.encoder(p), 1)[0].numpy() for kind, p in shown.items()}
    for kind, latent in expected.items():
        np.testing.assert_allclose(np.load(run / "latents" / f"images{kind}.npy")[123], latent, atol=2e-3)
        assert kind == "" or np.abs(latent - expected[""]).max() > 0.02


def test_metrics_say_everything(smoke):
    run = smoke / "runs" / "smoke"
    metrics = json.loads((run / "f2p" / "metrics.json").read_text())
    assert set(metrics) == {"val", "test", "baselines", "test_aug_images", "run"}
    for part in (metrics["val"], metrics["test"], metrics["baselines"]["mean"], metrics["baselines"]["ridge"]):
        assert {"r2", "mae", "cosine_similarity", "distance", "groups", "parameters"} <= set(part)
        assert list(part["parameters"]) == creator.NAMES and len(part["groups"]) == 6
    # A prediction is the mean of those of a face and of its mirror image.
    regressor, content = load_regressor(run)
    labels = read_labels(smoke / "data" / "smoke")
    rows = [i for i, name in enumerate(labels.names) if split_of(name) == "test"]
    for part, found in (("images", metrics["test"]), ("aug_images", metrics["test_aug_images"])):
        with torch.inference_mode():
            both = [regressor(torch.from_numpy(np.load(run / "latents" / f"{part}{kind}.npy")[rows])) for kind in ("", "_mirrored")]
        predicted = (sum(both) / 2).clamp(0, 1).numpy()
        assert found["mae"] == pytest.approx(np.abs(predicted - labels.values[rows]).mean(), rel=1e-5)
    # The best checkpoint is the best on renders and variants together, as training reads both.
    val = [dict(scalars(run / "f2p" / "tensorboard")[f"{part}/r2"]) for part in ("val", "val_aug_images")]
    assert content["epoch"] == max(val[0], key=lambda epoch: val[0][epoch] + val[1][epoch])
    run = metrics["run"]
    assert run["creator"] == creator.VERSION and run["config"]["run"]["name"] == "smoke" and run["active_units"] <= 16


def test_tensorboard_shows_losses_and_pictures(smoke):
    stage1 = scalars(smoke / "runs" / "smoke" / "vae" / "tensorboard")
    assert {"step/kl", "step/mse", "step/pyramid", "step/learning_rate", "train/images_per_second", "val/psnr", "val/loss", "val/active_units"} <= set(stage1)
    assert [step for step, _ in stage1["val/loss"]] == [22, 44]  # 704 training faces, 32 a step
    events = EventAccumulator(str(smoke / "runs" / "smoke" / "vae" / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert events.Tags()["images"] == ["input_and_reconstruction", "samples_from_prior"]
    stage2 = scalars(smoke / "runs" / "smoke" / "f2p" / "tensorboard")
    assert {"train/loss", "val/r2", "val/mae", "val/cosine_similarity", "val/distance", "val_r2_by_group/eye"} <= set(stage2)


def test_finished_steps_say_so_and_do_nothing(smoke):
    before = {p: p.stat().st_mtime_ns for p in (smoke / "runs").rglob("*") if p.is_file() and p.name not in (".lock",)}
    for script in ("vae_trainer.py", "extract_latentvec.py", "f2p_trainer.py"):
        assert "is finished" in run_script(script, *SMOKE, cwd=smoke).stdout
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_photos_with_parameters_are_learned_by_both_stages(smoke, tmp_path):
    """Ten of 12 photos have a label, always 1: stage 2 comes to predict more than from renders alone."""
    root = smoke / "data" / "smoke"
    variants = sorted((root / "aug_images").iterdir())[:12]
    write_photos(tmp_path / "photos", variants, {path.stem: np.ones(54) for path in variants[:10]})
    settings = (*SMOKE, "--set", f"data.root={root}", "--set", "data.photos=photos", "--set", "vae.epochs=1", "--set", "vae.spatial=true",
                "--set", "f2p.whitening=0", "--set", "f2p.mixer_blocks=1", "--set", "f2p.mixer_width=8", "--set", "f2p.optimizer=muon", "--set", "f2p.photo_share=1")
    for script in ("vae_trainer.py", "extract_latentvec.py", "f2p_trainer.py"):
        run_script(script, *settings, cwd=tmp_path)
    run = tmp_path / "runs" / "smoke"
    assert json.loads((run / "latents" / "meta.json").read_text())["counts"]["photos_mirrored"] == 12
    assert json.loads((run / "f2p" / "metrics.json").read_text())["run"]["faces"]["photos"] == 10
    latents = torch.from_numpy(np.load(run / "latents" / "photos.npy"))
    with torch.inference_mode():
        with_photos = load_regressor(run)[0](latents).mean()
        # Learned in the last epoch alone, they count in the best of the run, though renders are predicted worse for them.
        run_script("f2p_trainer.py", *settings, "--set", "f2p.photo_epochs=1", "--restart", cwd=tmp_path)
        assert json.loads((run / "f2p" / "metrics.json").read_text())["run"]["best_epoch"] == 3
        late = load_regressor(run)[0](latents).mean()
        run_script("f2p_trainer.py", *settings, "--set", "data.photos=", "--restart", cwd=tmp_path)
        assert late > load_regressor(run)[0](latents).mean()
        assert with_photos > load_regressor(run)[0](latents).mean() + 0.1
    # What photos add is encoded, and what got lost; the other sets are kept.
    (run / "latents" / "photos_moved.npy").unlink()
    before = {p: p.stat().st_mtime_ns for p in (run / "latents").glob("*.npy")}
    assert "photos_moved" not in run_script("extract_latentvec.py", *settings, "--set", "data.photos=", cwd=tmp_path).stdout
    assert "12 latents of photos_moved" in run_script("extract_latentvec.py", *settings, cwd=tmp_path).stdout
    assert before == {p: p.stat().st_mtime_ns for p in before} and (run / "latents" / "photos_moved.npy").exists()
    # Muon's part is kept with the checkpoint, and the run goes on with it.
    assert checkpoint.load(run / "f2p" / "checkpoints" / "last.pt", "f2p")["muon"]["state"]
    assert "epoch 4" in run_script("f2p_trainer.py", *settings, "--set", "data.photos=", "--set", "f2p.epochs=4", cwd=tmp_path).stdout
    again = lambda: error_of(run_script("f2p_trainer.py", *settings, "--restart", cwd=tmp_path, check=False))
    (tmp_path / "photos" / "labels.json").write_text(json.dumps({"somebody": [0.5] * 54}))
    assert "no picture in photos/images has a label" in again()
    table = (tmp_path / "photos" / "parameters.csv").read_text()
    (tmp_path / "photos" / "parameters.csv").write_text(table.replace("face_width", "width_of_face"))
    assert "is not that of data.root" in again()
    told = error_of(run_script("f2p_trainer.py", "--config", SMOKE[1], "--set", "data.photos=photos", cwd=smoke, check=False))
    assert "no latents of photos" in told and "extract_latentvec.py" in told


def test_prediction_of_aligned_and_raw_pictures(smoke, tmp_path):
    picture = smoke / "data" / "smoke" / "images" / "face_000000.png"
    run_script("predict.py", picture, "--aligned", "--run", "runs/smoke", "--output", tmp_path, cwd=smoke)
    result = json.loads((tmp_path / "face_000000.json").read_text())
    assert list(result["parameters"]) == creator.NAMES and result["creator"] == creator.VERSION
    one = result["parameters"]["face_width"]
    assert 0 <= one["normalised"] <= 1 and one["value"] == pytest.approx(-1 + 3 * one["normalised"], abs=1e-4) and one["test_r2"] is not None
    write_picture(tmp_path / "flipped.png", read_rgb(picture)[:, ::-1])
    run_script("predict.py", tmp_path / "flipped.png", "--aligned", "--run", "runs/smoke", "--output", tmp_path, cwd=smoke)
    flipped = json.loads((tmp_path / "flipped.json").read_text())["parameters"]
    assert all(flipped[name]["normalised"] == pytest.approx(value["normalised"], abs=1e-4) for name, value in result["parameters"].items())
    parameters, look, _ = writer.face(2, 0)
    large = creator.Renderer(256).render(parameters[None], [(look,)])[0][0, 0]
    for name in ("a.png", "b.jpg"):
        write_picture(tmp_path / name, np.pad(large, ((40, 60), (30, 80), (0, 0)), mode="edge"))
    result = run_script("predict.py", tmp_path / "a.png", tmp_path / "b.jpg", "--average", "--run", "runs/smoke", "--output", tmp_path, cwd=smoke)
    assert len(json.loads((tmp_path / "average.json").read_text())["photos"]) == 2
    assert read_rgb(tmp_path / "average.png").shape[1] > 500 and "aligned in" in result.stdout


def test_mirrored_bones_of_hs_face():
    from predict import Predictor
    predictor = Predictor.__new__(Predictor)
    predictor.parameters, predictor.run, predictor.creator_version = parse_parameters(BUILT_IN_TABLE), Path("nowhere"), None
    result = predictor.as_json(np.full(205, 0.25), ["x.jpg"])
    mirrored = result["mirrored"]
    left = {name: values["value"] for name, values in result["parameters"].items()}
    assert len(mirrored) == sum("_L." in p.name for p in predictor.parameters) > 50
    assert mirrored["cf_J_Eye_s_R.position.x"]["value"] == -left["cf_J_Eye_s_L.position.x"]
    assert mirrored["cf_J_Eye_s_R.rotation.z"]["value"] == -left["cf_J_Eye_s_L.rotation.z"]
    assert mirrored["cf_J_Eye_s_R.rotation.x"]["value"] == left["cf_J_Eye_s_L.rotation.x"]


def test_raised_epochs_go_on_and_other_settings_are_refused(smoke, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(smoke, copy)
    for script, change, told in (("vae_trainer.py", "vae.mse_weight=3", "vae.mse_weight: was 100.0, now 3.0"),
                                 ("vae_trainer.py", "vae.latent_dim=8", "vae.latent_dim: was 16, now 8"),
                                 ("extract_latentvec.py", "vae.latent_dim=8", "another network"),
                                 ("f2p_trainer.py", "f2p.width=64", "f2p.width: was 32, now 64")):
        assert told in error_of(run_script(script, *SMOKE, "--set", change, cwd=copy, check=False))
    longer = run_script("vae_trainer.py", *SMOKE, "--set", "vae.epochs=3", cwd=copy)
    assert "Going on from" in longer.stdout and "epoch 3: val" in longer.stderr + longer.stdout
    # The VAE is another one now: its old latents are refused, new ones are made, and stage 2 is told.
    if "latents of this encoder" not in run_script("extract_latentvec.py", *SMOKE, "--set", "vae.epochs=3", "--restart", cwd=copy).stdout:
        told = error_of(run_script("f2p_trainer.py", *SMOKE, "--set", "vae.epochs=3", cwd=copy, check=False))
        assert "--restart" in told
    run_script("f2p_trainer.py", *SMOKE, "--restart", cwd=copy)
    assert list((copy / "runs" / "smoke" / "f2p").glob("tensorboard.*.old"))


@pytest.mark.parametrize("arguments, told", [
    (("vae_trainer.py", "--set", "data.root=nowhere", "--set", "data.creator_count=0"), "data set folder nowhere does not exist"),
    (("vae_trainer.py", "--set", "run.device=cuda"), "no CUDA device"),
    (("vae_trainer.py", "--set", "run.precision=fp16"), "needs a GPU"),
    (("vae_trainer.py", "--set", "data.folders=[\"empty\"]", "--set", "data.creator_count=0", "--set", "data.root="), "holds no pictures"),
    (("vae_trainer.py", "--set", "data.folders=[\"missing\"]", "--set", "data.creator_count=0", "--set", "data.root="), "which is no folder"),
    (("extract_latentvec.py",), "run vae_trainer.py"),
    (("f2p_trainer.py",), "run vae_trainer.py"),
    (("predict.py", "x.jpg", "--run", "runs/none"), "no run folder"),
])
def test_mistakes_get_a_sentence(arguments, told, tmp_path):
    (tmp_path / "empty").mkdir()
    script, *rest = arguments
    options = [] if script == "predict.py" else list(SMOKE)
    assert told in error_of(run_script(script, *options, *rest, cwd=tmp_path, check=False))


def test_two_processes_train_as_one(smoke, tmp_path):
    """Two gloo processes at the same global batch end with the weights of one process."""
    settings = [*map(str, SMOKE), "--set", "vae.norm=group", "--set", "vae.epochs=1", "--set", "run.precision=fp32", "--set", "vae.optimizer=adam",
                "--set", f"data.root={smoke / 'data' / 'smoke'}"]
    weights = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        folder.mkdir()
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] if processes > 1 else []
        result = subprocess.run([sys.executable, *start, str(ROOT / "vae_trainer.py"), *settings], cwd=folder, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stderr[-3000:]
        weights.append(checkpoint.load(folder / "runs" / "smoke" / "vae" / "checkpoints" / "last.pt", "vae"))
    one, two = weights
    seed_everything(0)
    begin = build_vae(from_dict(one["config"], "checkpoint")).state_dict()
    # Muon works in bfloat16 and magnifies rounding more than could be told from a mistake, so this is with Adam.
    # Adam turns the rounding of a gradient near 0 into a step of full size: two threads in place of one already move the
    # weights by a tenth of what training moves them and the score by 0.1 %. Other batches move them by nine tenths and 5 %.
    first, second, start = (torch.cat([state[name].flatten() for name in sorted(begin)]) for state in (one["model"], two["model"], begin))
    assert (first - second).norm() < 0.3 * (first - start).norm()
    assert two["best"] == pytest.approx(one["best"], rel=1e-2) and two["scheduler"] == one["scheduler"]


# --- checkpoints and metrics ----------------------------------------------------------------------

def test_checkpoint_round_trip(smoke, tmp_path):
    run = smoke / "runs" / "smoke"
    content = checkpoint.load(run / "vae" / "checkpoints" / "last.pt", "vae")
    kind = content.pop("format")
    checkpoint.save(tmp_path / "copy.pt", "vae", content)
    again = checkpoint.load(tmp_path / "copy.pt", "vae")
    assert again.pop("format") == kind and again.keys() == content.keys()
    assert all(torch.equal(again["model"][k], v) for k, v in content["model"].items()) and again["config"] == content["config"]
    with pytest.raises(UserError, match="expected 'face2parameter f2p"):
        checkpoint.load(tmp_path / "copy.pt", "f2p")
    regressor, _ = load_regressor(run)
    with pytest.raises(UserError, match="another network"):
        checkpoint.restore(regressor, content["model"], tmp_path / "copy.pt")


def test_metrics_against_closed_forms():
    truth = np.array([[0.0, 0.5, 1], [1, 0.5, 0], [0.5, 0.5, 0.5], [0.2, 0.5, 0.9]])
    exact = parameter_metrics(truth, truth, ["a", "b", "c"], ["g", "g", "h"])
    assert exact["r2"] == 1 and exact["mae"] == 0 and exact["distance"] == 0 and exact["cosine_similarity"] == pytest.approx(1)
    assert exact["parameters"]["b"]["r2"] is None and exact["undefined_r2"] == 1 and exact["groups"]["h"]["r2"] == 1
    mean = parameter_metrics(truth, np.broadcast_to(truth.mean(0), truth.shape), ["a", "b", "c"], ["g", "g", "h"])
    assert mean["r2"] == pytest.approx(0)
    assert psnr(0.01) == pytest.approx(20) and active_units(np.array([[0, 1, 5.0], [0, 1.3, 5]])) == 1


def test_ridge_finds_a_linear_law_and_chooses_its_strength_on_val():
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(600, 20)) * np.geomspace(0.01, 100, 20), rng.normal(size=(20, 3))
    y = (x / np.geomspace(0.01, 100, 20)) @ w + 2
    weights, bias, _ = ridge((x[:300], y[:300]), (x[300:450], y[300:450]))
    np.testing.assert_allclose(x[450:] @ weights + bias, y[450:], atol=0.05)
    noise = rng.normal(size=(40, 30))
    _, _, strength = ridge((noise, rng.normal(size=(40, 2))), (rng.normal(size=(40, 30)), rng.normal(size=(40, 2))))
    assert strength >= 1  # nothing to learn: shrink as far as allowed
