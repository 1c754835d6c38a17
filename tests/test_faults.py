"""Faults that really happen: kills, full disks, broken files, two runs at once.

FAULTS=long does many more of each; with FAULTS_TABLE=FILE what was tried and survived is added to that file.
"""

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
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tests.conftest import ROOT, SMOKE, error_of, run_script
from tests.test_scripts import scalars

from utils import checkpoint
from utils.arrays import GrowingArray
from utils.errors import UserError
from utils.files import atomic_write, hold
from utils.pictures import read_rgb, write_picture

LONG = os.environ.get("FAULTS") == "long"
KILLS = 100 if LONG else 1
MUTATIONS = 200 if LONG else 25
BROKEN_PICTURES = 1000 if LONG else 40


def survived(what: str, tried: str, result: str) -> None:
    """Add a row to the table of faults, where one is asked for."""
    if "FAULTS_TABLE" in os.environ:
        with open(os.environ["FAULTS_TABLE"], "a", encoding="utf-8") as file:
            file.write(f"| {what} | {tried} | {result} |\n")


def start(*arguments: object, cwd: Path) -> subprocess.Popen:
    first, *rest = map(str, arguments)
    command = [sys.executable, "-m", *rest] if first == "-m" else [sys.executable, str(ROOT / first), *rest]
    return subprocess.Popen(command, cwd=cwd, env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def kill_and_go_on(what: str, arguments: tuple, cwd: Path, seed: int, results: str, check: Callable[[], None]) -> None:
    """SIGKILL a script at random moments of its life and start it again, `KILLS` times; then let it finish.

    Whenever it finishes, `check` says whether its results (a folder in `cwd`) are those of a run that was never
    stopped; where kills are left, they are thrown away and it starts from nothing.
    """
    rng, kills, finished = random.Random(seed), 0, 0
    shutil.rmtree(cwd / results, ignore_errors=True)
    begin = time.monotonic()
    run_script(*arguments, cwd=cwd)
    lifetime = time.monotonic() - begin
    while True:
        check()
        if kills == KILLS:
            break
        shutil.rmtree(cwd / results)
        while True:
            process = start(*arguments, cwd=cwd)
            try:
                output = process.communicate(timeout=rng.uniform(0.3, lifetime) if kills < KILLS else 300)[0]
                assert process.returncode == 0, output
                finished += 1
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                assert "Traceback" not in process.communicate()[0]
                kills += 1
                assert kills <= KILLS, "it hangs"
    assert not list((cwd / results).rglob("*.tmp"))
    survived(f"SIGKILL at random moments: {what}", f"{kills} kills, {finished} runs finished between them",
             "each finished run is identical to one that was never stopped, bit by bit; nothing torn is left")


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


@pytest.fixture
def copy(smoke, tmp_path):
    """The finished run, its data and its cache, to do as one likes with."""
    shutil.copytree(smoke, tmp_path / "copy")
    return tmp_path / "copy"


def test_killed_stage_1_ends_as_if_never_stopped(smoke, copy):
    settings = (*SMOKE, "--set", "vae.checkpoint_minutes=0.005")
    kill_and_go_on("stage 1", ("vae_trainer.py", *settings), copy, 1, "runs/smoke/vae",
                   lambda: same_training(smoke / "runs" / "smoke", copy / "runs" / "smoke", "vae"))


def test_killed_extraction_ends_as_if_never_stopped(smoke, copy):
    def check() -> None:
        for file in ("images.npy", "images.txt", "aug_images.npy", "aug_images.txt"):
            assert (smoke / "runs" / "smoke" / "latents" / file).read_bytes() == (copy / "runs" / "smoke" / "latents" / file).read_bytes()
    kill_and_go_on("extraction", ("extract_latentvec.py", *SMOKE), copy, 2, "runs/smoke/latents", check)


def test_killed_stage_2_ends_as_if_never_stopped(smoke, copy):
    kill_and_go_on("stage 2", ("f2p_trainer.py", *SMOKE), copy, 3, "runs/smoke/f2p",
                   lambda: same_training(smoke / "runs" / "smoke", copy / "runs" / "smoke", "f2p"))


def same_files(one: Path, other: Path, pattern: str) -> None:
    files = sorted(p.name for p in one.glob(pattern))
    assert files and files == sorted(p.name for p in other.glob(pattern))
    assert all((one / name).read_bytes() == (other / name).read_bytes() for name in files)


def test_killed_creator_loses_nothing(tmp_path):
    def write(output: str, workers: int) -> tuple:
        return ("-m", "datasets.creator", "write", "--output", output, "--count", 80, "--size", 128, "--no-aug", "--workers", workers)
    run_script(*write("whole", 1), cwd=tmp_path)
    def check() -> None:
        same_files(tmp_path / "whole" / "images", tmp_path / "faces" / "images", "*.png")
        same_files(tmp_path / "whole", tmp_path / "faces", "*.[cj]s*")
    kill_and_go_on("the creator's writer", write("faces", 2), tmp_path, 4, "faces", check)


def test_killed_alignment_loses_nothing(smoke, tmp_path):
    faces = tmp_path / "faces"
    faces.mkdir()
    for path in sorted((smoke / "data" / "smoke" / "images").iterdir())[:40]:
        write_picture(faces / path.name, cv2.resize(read_rgb(path), (128, 128), interpolation=cv2.INTER_CUBIC))
    align = ("face_alignment.py", "--input", "faces", "--workers", 2, "--output")
    run_script(*align, "straight", cwd=tmp_path)
    def check() -> None:
        same_files(tmp_path / "straight", tmp_path / "aligned", "*.csv")
        same_files(tmp_path / "straight", tmp_path / "aligned", "*.png")
    kill_and_go_on("alignment", (*align, "aligned"), tmp_path, 5, "aligned", check)


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


@pytest.mark.parametrize("number, times", [(signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGTERM, 2), (signal.SIGINT, 2)])
def test_asked_to_stop_while_data_is_written_leaves_soon(tmp_path, number, times):
    process = start("vae_trainer.py", *SMOKE, "--set", "data.workers=2", "--set", "data.creator_count=20000", cwd=tmp_path)
    for _ in range(600):
        time.sleep(0.1)
        if any((tmp_path / "data" / "smoke" / "images").glob("*.png")):
            break
    for _ in range(times):  # make and a person may both ask
        os.kill(process.pid, number)
        time.sleep(0.01)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130 and "the same command goes on from there" in output and "Traceback" not in output
    assert not list(tmp_path.rglob(".*.tmp"))


def test_a_second_ctrl_c_leaves_at_once(tmp_path):
    code = ("import time; from utils.training import StopRequest; stop = StopRequest(); print('ready', flush=True)\n"
            "while not stop.requested: time.sleep(0.01)\nprint('asked', flush=True); time.sleep(60)")
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGINT)
    assert "Leaving at once" in process.communicate(timeout=20)[1] and process.returncode == 130


def test_two_runs_in_one_folder(smoke, tmp_path):
    folder = smoke / "runs" / "smoke" / "vae"
    with hold(folder, "a test"):
        told = error_of(run_script("vae_trainer.py", *SMOKE, cwd=smoke, check=False))
        assert "is in use by a test (process" in told
    assert "is finished" in run_script("vae_trainer.py", *SMOKE, cwd=smoke).stdout
    # A dead process's line in the lock file is no lock.
    (folder / ".lock").write_text("somebody (process 1 on nowhere, since long ago)\n")
    assert "is finished" in run_script("vae_trainer.py", *SMOKE, cwd=smoke).stdout


def test_damaged_last_checkpoint_falls_back_to_the_newest_good_one(copy):
    last = copy / "runs" / "smoke" / "vae" / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    result = run_script("vae_trainer.py", *SMOKE, "--set", "vae.epochs=3", cwd=copy)
    assert "is damaged" in result.stdout and "best.pt instead" in result.stdout
    assert checkpoint.load(last, "vae")["epoch"] == 3


def test_an_older_checkpoint_format_is_refused_by_name(copy):
    for script, kind in (("vae_trainer.py", "vae"), ("f2p_trainer.py", "f2p")):
        for path in (copy / "runs" / "smoke" / kind / "checkpoints").iterdir():
            content = torch.load(path, weights_only=True)
            torch.save(content | {"format": f"face2parameter {kind} 0"}, path)
        told = error_of(run_script(script, *SMOKE, "--set", f"{kind}.epochs=9", cwd=copy, check=False))
        assert f"has format 'face2parameter {kind} 0'; expected {checkpoint.FORMATS[kind]!r}" in told
        for path in (copy / "runs" / "smoke" / kind / "checkpoints").iterdir():  # put back for the next
            torch.save(torch.load(path, weights_only=True) | {"format": checkpoint.FORMATS[kind]}, path)


def test_latents_of_other_faces_or_another_creator_are_refused(copy):
    manifest = copy / "data" / "smoke" / "creator.json"
    settings = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(settings | {"seed": 77}))
    told = error_of(run_script("f2p_trainer.py", *SMOKE, "--set", "f2p.epochs=9", cwd=copy, check=False))
    assert "made of other faces" in told and "seed" in told
    manifest.write_text(json.dumps(settings | {"creator": "0.9"}))
    told = error_of(run_script("vae_trainer.py", *SMOKE, "--set", "vae.epochs=9", cwd=copy, check=False))
    assert "version 0.9 of the creator" in told
    manifest.write_text(json.dumps(settings | {"size": 16}))
    told = error_of(run_script("vae_trainer.py", *SMOKE, "--set", "vae.epochs=9", cwd=copy, check=False))
    assert "holds pictures of 16 pixels, and data.image_size is 32" in told


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_pickle_with_code_is_refused_and_nothing_runs(smoke, tmp_path):
    mark = tmp_path / "ran"
    for name, write in (("torch.pt", lambda p: torch.save({"format": checkpoint.FORMATS["vae"], "model": _Bomb(mark)}, p)),
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
    survived("label, config and checkpoint files with random bytes changed or cut off", f"{len(targets) * MUTATIONS} files",
             f"{refused} refused with a sentence, the others still valid; no other error")


#: Imports and reads as root what lies where others may not look (the interpreter, weights), then gives root up.
_AS_NOBODY = """
import os, sys, torch
torch.set_num_threads(1)
import face_alignment, vae_trainer
from models.mtcnn import FaceDetector
from utils.errors import run_script
FaceDetector()
if os.geteuid() == 0:
    os.setgid(65534), os.setuid(65534)
sys.argv = sys.argv[1:]
run_script({"face_alignment.py": face_alignment, "vae_trainer.py": vae_trainer}[sys.argv[0]].main)
"""


def as_nobody(*arguments: object, cwd: Path) -> tuple[int, str]:
    """Exit status and standard error of a script that an unprivileged user runs."""
    result = subprocess.run([sys.executable, "-c", _AS_NOBODY, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=120,
                            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    return result.returncode, result.stderr


@pytest.fixture
def open_folder(smoke):
    """A folder that everybody may enter, with two pictures and a folder in it that nobody may write to."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chmod(folder, 0o777)
        for picture in ("a.png", "b.png"):
            shutil.copy(smoke / "data" / "smoke" / "images" / "face_000000.png", folder / picture)
        (folder / "closed").mkdir(mode=0o555)
        yield folder


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs users")
def test_unwritable_folders_and_unreadable_files_get_a_sentence(open_folder):
    closed = open_folder / "closed"
    align = ["face_alignment.py", "--workers", 1, "--input", open_folder / "a.png", "--output"]
    train = ["vae_trainer.py", *SMOKE, "--set", "data.creator_count=0", "--set", "data.root=", "--set", f"data.folders=[\"{open_folder}\"]"]
    for arguments in ([*align, closed / "out"], [*train, "--set", f"run.folder={closed}"]):
        status, told = as_nobody(*arguments, cwd=open_folder)
        assert status == 2 and "permission is missing" in told and "Traceback" not in told
    os.chmod(open_folder / "b.png", 0)
    several = ["face_alignment.py", "--workers", 1, "--input", open_folder, "--output", open_folder / "out"]
    status, told = as_nobody(*several, cwd=open_folder)
    assert status == 2 and "1 of 2 pictures cannot be read (50.0%" in told
    assert "b.png" in (open_folder / "out" / "unreadable.txt").read_text()
    os.chmod(open_folder / "b.png", 0o644)  # what could not be read is tried again
    status, told = as_nobody(*several, cwd=open_folder)
    assert status == 0 and not (open_folder / "out" / "unreadable.txt").exists()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 6 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)])


def test_full_disk_stops_the_writer_before_labels(small_disk):
    result = run_script("-m", "datasets.creator", "write", "--output", small_disk / "faces", "--count", 400, "--size", 256, "--workers", 2, cwd=small_disk, check=False)
    assert "the disk is full" in error_of(result)
    assert not (small_disk / "faces" / "labels.json").exists()


@pytest.mark.parametrize("script", ["vae_trainer.py", "extract_latentvec.py", "f2p_trainer.py", "face_alignment.py", "predict.py"][:None if LONG else 2])
def test_full_disk_gets_a_sentence_and_earlier_results_stand(smoke, small_disk, script):
    """With some kilobytes left a script stops with a sentence; with room again the same command finishes."""
    shutil.copytree(smoke / "runs", small_disk / "runs")
    for folder in ("data", "cache"):
        (small_disk / folder).symlink_to(smoke / folder)
    images = sorted((smoke / "data" / "smoke" / "images").iterdir())[:30]
    (small_disk / "faces").mkdir()
    for path in images:
        shutil.copy(path, small_disk / "faces")
    command = {"vae_trainer.py": (*SMOKE, "--set", "vae.epochs=3"), "extract_latentvec.py": (*SMOKE, "--restart"),
               "f2p_trainer.py": (*SMOKE, "--set", "f2p.epochs=5"), "face_alignment.py": ("--input", "faces", "--output", "aligned", "--size", 64),
               "predict.py": (images[0], "--aligned", "--run", "runs/smoke")}[script]
    before = {path: path.read_bytes() for path in small_disk.rglob("*.pt")}
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * max(0, shutil.disk_usage(small_disk).free - 16_384))
    assert "the disk is full" in error_of(run_script(script, *command, cwd=small_disk, check=False))
    assert before == {path: path.read_bytes() for path in small_disk.rglob("*.pt")}
    assert not [p for p in small_disk.rglob(".*.tmp")]
    ballast.unlink()
    run_script(script, *command, cwd=small_disk)
    survived(f"full disk: {script}", "a file system with 16 KiB left, then with room", "a sentence and exit status 2, earlier files untouched; then it finishes")


def test_full_disk_leaves_no_half_file(small_disk):
    (small_disk / "ballast").write_bytes(b"x" * max(0, shutil.disk_usage(small_disk).free - 100_000))
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


def test_unreadable_pictures_in_training_are_listed_or_fatal(copy):
    images = sorted((copy / "data" / "smoke" / "images").iterdir())
    for path in images[:10]:
        path.write_bytes(path.read_bytes()[:100])
    quick = (*SMOKE, "--set", "vae.epochs=1")
    run = copy / "runs" / "smoke"
    for cache in ("cache", ""):
        run_script("vae_trainer.py", *quick, "--set", f"data.cache={cache}", "--restart", cwd=copy)
        assert len((run / "unreadable.txt").read_text().splitlines()) == 10
    result = run_script("extract_latentvec.py", *quick, cwd=copy)
    assert ("390 latents of images, 390 latents of images_moved, 390 latents of images_mirrored, 400 latents of aug_images, "
            "400 latents of aug_images_moved, 400 latents of aug_images_mirrored") in result.stdout
    assert len((run / "latents" / "images.unreadable.txt").read_text().splitlines()) == 10
    assert "10 of 400 names" in run_script("f2p_trainer.py", *quick, "--restart", cwd=copy).stdout
    told = error_of(run_script("vae_trainer.py", *quick, "--restart", "--set", "data.max_unreadable=0.001", cwd=copy, check=False))
    assert "10 of 800 pictures cannot be read" in told


def test_broken_photos_in_prediction_are_told(smoke, tmp_path):
    good = smoke / "data" / "smoke" / "images" / "face_000000.png"
    (tmp_path / "torn.png").write_bytes(good.read_bytes()[:100])
    write_picture(tmp_path / "wide.png", np.zeros((40, 80, 3), np.uint8))
    command = ("predict.py", "--aligned", "--run", smoke / "runs" / "smoke", "--output", tmp_path / "out")
    told = error_of(run_script(*command, good, tmp_path / "torn.png", cwd=tmp_path, check=False))
    assert "1 of 2 pictures cannot be read (50.0%" in told and (tmp_path / "out" / "face_000000.json").exists()
    assert "torn.png" in (tmp_path / "out" / "unreadable.txt").read_text()
    few = run_script(*command, good, tmp_path / "wide.png", cwd=tmp_path)
    assert "1 of 2 photos gave no prediction" in few.stderr and "80×40" in few.stderr
    assert "no photo gave a prediction" in error_of(run_script(*command, tmp_path / "wide.png", cwd=tmp_path, check=False))


@pytest.fixture
def broken_pictures(smoke, tmp_path):
    """Pictures of every format in which bytes were changed or cut off at random."""
    from PIL import Image
    folder = tmp_path / "broken"
    folder.mkdir()
    rng = np.random.default_rng(1)
    with Image.open(smoke / "data" / "smoke" / "images" / "face_000001.png") as face:
        large = face.convert("RGB").resize((96, 96))
    for i in range(BROKEN_PICTURES):
        path = folder / f"{i:04d}.{('png', 'jpg', 'webp', 'bmp')[i % 4]}"
        large.save(path)
        broken = bytearray(path.read_bytes())
        for at in rng.integers(0, len(broken), rng.integers(1, 12)):
            broken[at] = rng.integers(256)
        path.write_bytes(broken[:rng.integers(len(broken))] if rng.random() < 0.3 else broken)
    return folder


def test_broken_pictures_go_through_every_script(smoke, broken_pictures, copy):
    """Each picture is used or listed with a reason; no traceback, no hang, and exit status 2 above the limit."""
    total = BROKEN_PICTURES
    align = ("face_alignment.py", "--input", broken_pictures, "--output", "aligned")
    told = error_of(run_script(*align, "--max-unreadable", 0.01, cwd=copy, check=False))
    assert f"of {total} pictures cannot be read" in told
    run_script(*align, "--max-unreadable", 1, cwd=copy)
    statuses = [line.split(",")[1] for line in (copy / "aligned" / "alignment.csv").read_text().splitlines()[1:]]
    assert len(statuses) == total
    unreadable = statuses.count("unreadable")
    assert 0 < unreadable < total and len((copy / "aligned" / "unreadable.txt").read_text().splitlines()) == unreadable

    folders = ("--set", f"data.folders=[\"{broken_pictures}\"]", "--set", "data.max_unreadable=1")
    run_script("vae_trainer.py", *SMOKE, *folders, "--set", "vae.epochs=1", "--restart", cwd=copy)
    listed = (copy / "runs" / "smoke" / "unreadable.txt").read_text().splitlines()
    assert len(listed) == unreadable

    images = copy / "data" / "smoke" / "images"
    for i, path in enumerate(sorted(broken_pictures.iterdir())):
        shutil.copy(path, images / f"broken_{i:04d}{path.suffix}")
    run_script("extract_latentvec.py", *SMOKE, "--set", "data.max_unreadable=1", cwd=copy)
    meta = json.loads((copy / "runs" / "smoke" / "latents" / "meta.json").read_text())
    assert len(meta["unreadable"]["images"]) == unreadable and meta["counts"]["images"] == 400 + total - unreadable

    photos = sorted(broken_pictures.iterdir())[:200]
    result = run_script("predict.py", *photos, "--aligned", "--run", smoke / "runs" / "smoke", "--average", cwd=copy, check=False)
    assert result.returncode in (0, 2) and "Traceback" not in result.stderr
    without = result.stderr.count("no prediction of") - result.stderr.count("--aligned expects square")
    assert len((copy / "predictions" / "unreadable.txt").read_text().splitlines()) == without > 0
    survived("pictures (PNG, JPEG, WebP, BMP) with random bytes changed or cut off", f"{total} pictures through alignment, stage 1 and extraction, {len(photos)} through prediction",
             f"{unreadable} listed as unreadable by each script, the others used; exit status 2 above max_unreadable")
