"""Faults that really happen: kills, full disks, broken files, two runs at once. FAULTS=long does many more of each."""

import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import ROOT, SMOKE, error_of, run_script
from tests.test_scripts import scalars

from utils import checkpoint
from utils.arrays import GrowingArray
from utils.errors import UserError
from utils.files import atomic_write, hold

LONG = os.environ.get("FAULTS") == "long"
KILLS = 100 if LONG else 2
MUTATIONS = 200 if LONG else 25


def start(*arguments: object, cwd: Path) -> subprocess.Popen:
    first, *rest = map(str, arguments)
    command = [sys.executable, "-m", *rest] if first == "-m" else [sys.executable, str(ROOT / first), *rest]
    return subprocess.Popen(command, cwd=cwd, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def kill_and_go_on(arguments: tuple, cwd: Path, kills: int, seed: int, results: str) -> None:
    """SIGKILL a script at random moments of its life, starting it again each time.

    Where it finishes before the shot, its results (a folder in `cwd`) are put away and it starts over.
    """
    rng, lifetime, done = random.Random(seed), 9.0, 0
    while done < kills:
        process = start(*arguments, cwd=cwd)
        try:
            output = process.communicate(timeout=rng.uniform(0.3, lifetime))[0]
            assert process.returncode == 0, output
            shutil.rmtree(cwd / results)
            lifetime = max(3.0, lifetime * 0.9)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            assert "Traceback" not in process.communicate()[0]
            done += 1


def same_training(one: Path, other: Path, kind: str) -> None:
    a, b = (checkpoint.load(run / kind / "checkpoints" / "last.pt", kind) for run in (one, other))
    for key in ("model", "optimizer", "scheduler", "epoch", "best", "random"):
        assert _equal(a[key], b[key]), f"{kind}: {key} differs"
    first, second = scalars(one / kind / "tensorboard"), scalars(other / kind / "tensorboard")
    for values in (first, second):
        values.pop("train/images_per_second", None)
    assert first == second
    measured = [json.loads((run / kind / "metrics.json").read_text()) for run in (one, other)]
    assert measured[0]["test"] == measured[1]["test"]


def _equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_equal, a, b))
    return a == b


def test_killed_trainings_end_as_if_never_stopped(smoke, tmp_path):
    shutil.copytree(smoke / "data", tmp_path / "data")
    shutil.copytree(smoke / "cache", tmp_path / "cache")
    settings = (*SMOKE, "--set", "vae.checkpoint_minutes=0.005", "--set", "vae.epochs=2")
    kill_and_go_on(("vae_trainer.py", *settings), tmp_path, KILLS, 1, "runs/smoke/vae")
    run_script("vae_trainer.py", *settings, cwd=tmp_path)
    same_training(smoke / "runs" / "smoke", tmp_path / "runs" / "smoke", "vae")
    kill_and_go_on(("extract_latentvec.py", *SMOKE), tmp_path, KILLS, 2, "runs/smoke/latents")
    run_script("extract_latentvec.py", *SMOKE, cwd=tmp_path)
    for part in ("images", "aug_images"):
        assert np.array_equal(*(np.load(run / "runs" / "smoke" / "latents" / f"{part}.npy") for run in (smoke, tmp_path)))
    kill_and_go_on(("f2p_trainer.py", *SMOKE), tmp_path, KILLS, 3, "runs/smoke/f2p")
    run_script("f2p_trainer.py", *SMOKE, cwd=tmp_path)
    same_training(smoke / "runs" / "smoke", tmp_path / "runs" / "smoke", "f2p")
    assert not list((tmp_path / "runs").rglob("*.tmp"))


def test_killed_alignment_and_creator_lose_nothing(smoke, tmp_path):
    write = ("-m", "datasets.creator", "write", "--output", "faces", "--count", 80, "--size", 128, "--no-aug", "--workers", 2)
    kill_and_go_on(write, tmp_path, KILLS, 4, "faces")
    run_script(*write, cwd=tmp_path)
    whole = tmp_path / "whole"
    run_script("-m", "datasets.creator", "write", "--output", whole, "--count", 80, "--size", 128, "--no-aug", "--workers", 1, cwd=tmp_path)
    for file in (whole / "images").iterdir():
        assert file.read_bytes() == (tmp_path / "faces" / "images" / file.name).read_bytes()
    align = ("face_alignment.py", "--input", "faces/images", "--output", "aligned", "--workers", 2)
    kill_and_go_on(align, tmp_path, KILLS, 5, "aligned")
    run_script(*align, cwd=tmp_path)
    run_script("face_alignment.py", "--input", "faces/images", "--output", "straight", cwd=tmp_path)
    assert (tmp_path / "aligned" / "alignment.csv").read_text() == (tmp_path / "straight" / "alignment.csv").read_text()
    for file in (tmp_path / "straight").glob("*.png"):
        assert file.read_bytes() == (tmp_path / "aligned" / file.name).read_bytes()
    assert not list(tmp_path.rglob(".*.tmp"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_a_training_saves_and_says_so(smoke, tmp_path, number):
    shutil.copytree(smoke / "data", tmp_path / "data")
    settings = (*SMOKE, "--set", "vae.epochs=400")
    process = start("vae_trainer.py", *settings, cwd=tmp_path)
    last = tmp_path / "runs" / "smoke" / "vae" / "checkpoints" / "last.pt"
    for _ in range(600):
        time.sleep(0.1)
        if last.exists():
            break
    os.kill(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "Stopped and saved at" in output and "Traceback" not in output
    content = checkpoint.load(last, "vae")
    assert content["epoch"] >= 1


def test_two_runs_in_one_folder(smoke, tmp_path):
    folder = smoke / "runs" / "smoke" / "vae"
    with hold(folder, "a test"):
        told = error_of(run_script("vae_trainer.py", *SMOKE, cwd=smoke, check=False))
        assert "is in use by a test (process" in told
    assert "is finished" in run_script("vae_trainer.py", *SMOKE, cwd=smoke).stdout
    # A dead process's line in the lock file is no lock.
    (folder / ".lock").write_text("somebody (process 1 on nowhere, since long ago)\n")
    assert "is finished" in run_script("vae_trainer.py", *SMOKE, cwd=smoke).stdout


def test_damaged_last_checkpoint_falls_back_to_the_newest_good_one(smoke, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(smoke, copy)
    last = copy / "runs" / "smoke" / "vae" / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    result = run_script("vae_trainer.py", *SMOKE, "--set", "vae.epochs=3", cwd=copy)
    assert "is damaged" in result.stdout and "best.pt instead" in result.stdout
    assert checkpoint.load(last, "vae")["epoch"] == 3


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_pickle_with_code_is_refused_and_nothing_runs(smoke, tmp_path):
    mark = tmp_path / "ran"
    for name, write in (("torch.pt", lambda p: torch.save({"format": "face2parameter vae 1", "model": _Bomb(mark)}, p)),
                        ("plain.pt", lambda p: p.write_bytes(pickle.dumps(_Bomb(mark))))):
        write(tmp_path / name)
        with pytest.raises(UserError, match="no checkpoint"):
            checkpoint.load(tmp_path / name, "vae")
    assert not mark.exists()


def test_mutated_checkpoints_configs_and_labels_give_sentences(smoke, tmp_path):
    """Bytes changed at random: what is read is valid, or a UserError says what is wrong. Never another error."""
    from datasets.hs_face import read_labels
    from models.build import load_regressor
    from utils.config import load as load_config
    rng = np.random.default_rng(0)
    run = tmp_path / "run"
    good = (smoke / "runs" / "smoke" / "f2p" / "checkpoints" / "best.pt").read_bytes()
    labels = (smoke / "data" / "smoke" / "labels.json").read_bytes()[:20_000].rsplit(b",\n", 1)[0] + b"\n}"
    config = (ROOT / "configs" / "smoke.toml").read_bytes()
    (run / "f2p" / "checkpoints").mkdir(parents=True)
    targets = ((good, run / "f2p" / "checkpoints" / "best.pt", lambda: load_regressor(run)), (labels, tmp_path / "labels.json", lambda: read_labels(tmp_path)),
               (config, tmp_path / "mutated.toml", lambda: load_config(tmp_path / "mutated.toml")))
    refused = 0
    for content, path, read in targets:
        for _ in range(MUTATIONS):
            broken = bytearray(content)
            for at in rng.integers(0, len(broken), rng.integers(1, 20)):
                broken[at] = rng.integers(256)
            if rng.random() < 0.3:
                del broken[rng.integers(len(broken)):]
            path.write_bytes(broken)
            try:
                read()
            except UserError:
                refused += 1
    assert refused > MUTATIONS


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_unwritable_folder_gets_a_sentence(smoke):
    """As an unprivileged user: a forked child gives up root (the interpreter itself may be closed to others)."""
    import face_alignment
    from utils.errors import run_script as as_script
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chmod(folder, 0o755)
        shutil.copy(smoke / "data" / "smoke" / "images" / "face_000000.png", folder / "a.png")
        (folder / "closed").mkdir(mode=0o555)
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            sys.stderr = os.fdopen(writer, "w")
            if os.geteuid() == 0:
                os.setgid(65534), os.setuid(65534)
            sys.argv = ["face_alignment.py", "--input", str(folder / "a.png"), "--output", str(folder / "closed" / "out")]
            try:
                as_script(face_alignment.main)
            except SystemExit as leave:
                sys.stderr.flush()
                os._exit(int(leave.code or 0))
            except BaseException:
                os._exit(99)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            told = pipe.read()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2 and "permission is missing" in told


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 6 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)])


def test_full_disk_gets_a_sentence_and_earlier_results_stand(smoke, small_disk):
    result = run_script("-m", "datasets.creator", "write", "--output", small_disk / "faces", "--count", 400, "--size", 256, "--workers", 2, cwd=small_disk, check=False)
    assert "the disk is full" in error_of(result)
    assert not (small_disk / "faces" / "labels.json").exists()
    shutil.rmtree(small_disk / "faces")
    shutil.copytree(smoke / "runs" / "smoke" / "vae", small_disk / "runs" / "smoke" / "vae")
    for folder in ("data", "cache"):
        (small_disk / folder).symlink_to(smoke / folder)
    last = small_disk / "runs" / "smoke" / "vae" / "checkpoints" / "last.pt"
    before = last.read_bytes()
    (small_disk / "ballast").write_bytes(b"x" * max(0, shutil.disk_usage(small_disk).free - 100_000))
    result = run_script("vae_trainer.py", *SMOKE, "--set", "vae.epochs=4", cwd=small_disk, check=False)
    assert "the disk is full" in error_of(result) and last.read_bytes() == before
    with pytest.raises(OSError):
        with atomic_write(small_disk / "large.bin") as file:
            file.write(b"y" * 4_000_000)
    with pytest.raises(OSError):
        GrowingArray(small_disk / "rows.npy", 10_000, (512,), "f4", "key")
    assert not (small_disk / "large.bin").exists() and not list(small_disk.glob(".large*"))


def test_growing_array_goes_on_where_it_was(tmp_path):
    rows = np.random.default_rng(0).normal(size=(10, 3)).astype("f4")
    first = GrowingArray(tmp_path / "a.npy", 12, (3,), "f4", "key")
    first.append(rows[:4]), first.commit({"n": 1}), first.append(rows[4:6])
    del first  # killed: two rows were never noted
    again = GrowingArray(tmp_path / "a.npy", 12, (3,), "f4", "key")
    assert again.rows == 4 and again.note == {"n": 1}
    again.append(rows[4:]), again.finish()
    assert np.array_equal(np.load(tmp_path / "a.npy"), rows) and len(list(tmp_path.iterdir())) == 1
    assert GrowingArray(tmp_path / "b.npy", 12, (3,), "f4", "key").rows == 0


def test_a_loss_that_is_not_finite_stops_the_run(smoke, tmp_path):
    settings = (*SMOKE, "--set", f"data.root={smoke / 'data' / 'smoke'}", "--set", "vae.learning_rate=1e30", "--set", "run.precision=fp32")
    told = error_of(run_script("vae_trainer.py", *settings, cwd=tmp_path, check=False))
    assert "training stopped" in told and "face_" in told


def test_unreadable_pictures_in_training_are_listed_or_fatal(smoke, tmp_path):
    shutil.copytree(smoke / "data", tmp_path / "data")
    images = sorted((tmp_path / "data" / "smoke" / "images").iterdir())
    for path in images[:10]:
        path.write_bytes(path.read_bytes()[:100])
    quick = (*SMOKE, "--set", "vae.epochs=1")
    for cache in ("cache", ""):
        run_script("vae_trainer.py", *quick, "--set", f"data.cache={cache}", "--restart", cwd=tmp_path)
        assert len((tmp_path / "runs" / "smoke" / "unreadable.txt").read_text().splitlines()) == 10
    result = run_script("extract_latentvec.py", *quick, cwd=tmp_path)
    assert "390 latents of images, 400 latents of aug_images" in result.stdout
    assert "10 of 400 names" in run_script("f2p_trainer.py", *quick, cwd=tmp_path).stdout
    told = error_of(run_script("vae_trainer.py", *quick, "--restart", "--set", "data.max_unreadable=0.001", cwd=tmp_path, check=False))
    assert "10 of 800 pictures cannot be read" in told


@pytest.mark.skipif(not LONG, reason="make faults")
def test_many_mutated_pictures(tmp_path):
    from PIL import Image
    from utils.pictures import UnreadablePicture, read_rgb
    rng = np.random.default_rng(1)
    noise = Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8))
    for suffix in ("png", "jpg", "webp", "bmp"):
        path = tmp_path / f"a.{suffix}"
        noise.save(path)
        good = path.read_bytes()
        for _ in range(400):
            broken = bytearray(good)
            for at in rng.integers(0, len(broken), rng.integers(1, 12)):
                broken[at] = rng.integers(256)
            path.write_bytes(broken[:rng.integers(len(broken))] if rng.random() < 0.3 else broken)
            try:
                read_rgb(path)
            except UnreadablePicture:
                pass
