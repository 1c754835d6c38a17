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
from PIL import Image

from datasets.labels import read_labels
from models.predictor import load_regressor
from tests.helpers import (
    ROOT,
    SMOKE,
    environment,
    error_of,
    run_command,
    run_here,
    same,
    scalars,
    setting,
    start_command,
    temporaries,
    wait_until,
)
from utils import checkpoint
from utils.arrays import GrowingArray
from utils.config import load as load_config
from utils.errors import UserError
from utils.files import atomic_write, lock_folder
from utils.pictures import read_rgb, write_picture
from utils.run import Run

LONG = os.environ.get("FAULTS") == "long"
KILLS = 30 if LONG else 1
MUTATIONS = 200 if LONG else 25
BROKEN_PICTURES = 1000 if LONG else 40


def survived(what: str, tried: str, result: str) -> None:
    """Add a row to the table of faults, where one is asked for."""
    if "FAULTS_TABLE" in os.environ:
        with open(os.environ["FAULTS_TABLE"], "a", encoding="utf-8") as file:
            file.write(f"| {what} | {tried} | {result} |\n")


# --- kills ----------------------------------------------------------------------------------------


def kill_and_go_on(
    what: str, arguments: tuple, *, cwd: Path, seed: int, results: str, check: Callable[[], None]
) -> None:
    """SIGKILL a script at random moments of its life and start it again, `KILLS` times; then let it finish.

    Whenever it finishes, `check` says whether its results (a folder in `cwd`) are those of a run that was never
    stopped; where kills are left, they are thrown away and it starts from nothing.
    """
    # How long does it live?
    rng, kills, finished = random.Random(seed), 0, 0
    shutil.rmtree(cwd / results, ignore_errors=True)
    begin = time.monotonic()
    run_command(*arguments, cwd=cwd)
    lifetime = time.monotonic() - begin
    check()

    # Kill it, again and again.
    while kills < KILLS:
        shutil.rmtree(cwd / results)
        ended = False
        while not ended:
            process = start_command(*arguments, cwd=cwd)
            patience = rng.uniform(0.3, lifetime) if kills < KILLS else 300
            ended = ends_within(process, patience)
            kills += not ended
            assert kills <= KILLS, "it hangs"
        finished += 1
        check()
    assert temporaries(cwd / results) == []
    survived(
        f"SIGKILL at random moments: {what}",
        f"{kills} kills, {finished} runs finished between them",
        "each finished run is identical to one that was never stopped, bit by bit; nothing torn is left",
    )


def ends_within(process: subprocess.Popen[str], seconds: float) -> bool:
    """Whether a process comes to a good end in time; else it is killed."""
    try:
        output = process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        assert "Traceback" not in process.communicate()[0]
        return False
    assert process.returncode == 0, output
    return True


def same_training(one: Path, other: Path, kind: str) -> None:
    """Check that two runs of a stage ended alike: checkpoints, what TensorBoard shows, metrics."""
    first, second = (checkpoint.load(run / kind / "checkpoints" / "last.pt", kind) for run in (one, other))
    differ = {key for key in first | second if not same(first.get(key), second.get(key))}
    assert differ <= {"config", "seconds", "waited"}

    shown = [scalars(run / kind / "tensorboard") for run in (one, other)]
    for values in shown:
        values.pop("train/images_per_second", None)
    assert shown[0] == shown[1]
    measured = [json.loads((run / kind / "metrics.json").read_text()) for run in (one, other)]
    assert measured[0]["test"] == measured[1]["test"]


def same_files(one: Path, other: Path, pattern: str) -> None:
    """Check that two folders hold the same files of a pattern, at least one of them, byte for byte."""
    files = sorted(path.name for path in one.glob(pattern))
    assert files
    assert files == sorted(path.name for path in other.glob(pattern))
    assert [name for name in files if (one / name).read_bytes() != (other / name).read_bytes()] == []


def test_killed_stage_1_ends_as_if_never_stopped(smoke, copy):
    def check() -> None:
        same_training(smoke / "runs" / "smoke", copy / "runs" / "smoke", "vae")

    command = ("vae_trainer.py", *SMOKE, *setting("vae.checkpoint_minutes=0.005"))
    kill_and_go_on("stage 1", command, cwd=copy, seed=1, results="runs/smoke/vae", check=check)


def test_killed_extraction_ends_as_if_never_stopped(smoke, copy):
    def check() -> None:
        for pattern in ("*.npy", "*.txt", "*.json"):
            same_files(smoke / "runs" / "smoke" / "latents", copy / "runs" / "smoke" / "latents", pattern)

    command = ("extract_latentvec.py", *SMOKE)
    kill_and_go_on("extraction", command, cwd=copy, seed=2, results="runs/smoke/latents", check=check)


def test_killed_stage_2_ends_as_if_never_stopped(smoke, copy):
    def check() -> None:
        same_training(smoke / "runs" / "smoke", copy / "runs" / "smoke", "f2p")

    kill_and_go_on("stage 2", ("f2p_trainer.py", *SMOKE), cwd=copy, seed=3, results="runs/smoke/f2p", check=check)


def test_killed_creator_loses_nothing(tmp_path):
    def write(output: str, workers: int) -> tuple:
        size = ("--count", 80, "--size", 128, "--no-variants", "--workers", workers)
        return ("-m", "games", "write", "--output", output, *size)

    def check() -> None:
        same_files(tmp_path / "whole" / "images", tmp_path / "faces" / "images", "*.png")
        same_files(tmp_path / "whole", tmp_path / "faces", "*.[cj]s*")

    run_here(*write("whole", 1), cwd=tmp_path)
    kill_and_go_on("the creator's writer", write("faces", 2), cwd=tmp_path, seed=4, results="faces", check=check)


def test_killed_alignment_loses_nothing(smoke, tmp_path):
    def check() -> None:
        same_files(tmp_path / "straight", tmp_path / "aligned", "*.csv")
        same_files(tmp_path / "straight", tmp_path / "aligned", "*.png")

    faces = tmp_path / "faces"
    faces.mkdir()
    for path in sorted((smoke / "data" / "smoke" / "images").iterdir())[:40]:
        write_picture(faces / path.name, cv2.resize(read_rgb(path), (128, 128), interpolation=cv2.INTER_CUBIC))
    align = ("face_alignment.py", "--input", "faces", "--workers")
    run_here(*align, 1, "--output", "straight", cwd=tmp_path)
    command = (*align, 2, "--output", "aligned")
    kill_and_go_on("alignment", command, cwd=tmp_path, seed=5, results="aligned", check=check)


# --- being asked to stop --------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_a_training_saves_and_says_so(smoke, tmp_path, number):
    shutil.copytree(smoke / "data", tmp_path / "data")
    process = start_command("vae_trainer.py", *SMOKE, *setting("vae.epochs=400"), cwd=tmp_path)
    last = Run(tmp_path / "runs" / "smoke").vae.last
    wait_until(last.exists, process)
    os.kill(process.pid, number)

    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Stopped and saved at" in output
    assert "Traceback" not in output
    assert checkpoint.load(last, "vae")["epoch"] >= 1


WRITERS = {
    "stage 1": ("vae_trainer.py", *SMOKE, *setting("data.workers=2", "data.creator_count=20000")),
    "the game": ("-m", "games", "write", "--output", "data/smoke", "--count", 20_000, "--size", 32, "--workers", 2),
}


@pytest.mark.parametrize(
    "writer, number, times",
    [
        ("stage 1", signal.SIGTERM, 2),
        ("stage 1", signal.SIGINT, 1),
        ("the game", signal.SIGTERM, 1),
        ("the game", signal.SIGINT, 2),
    ],
)
def test_asked_to_stop_while_data_is_written_leaves_soon(tmp_path, writer, number, times):
    process = start_command(*WRITERS[writer], cwd=tmp_path)
    images = tmp_path / "data" / "smoke" / "images"
    wait_until(lambda: any(images.glob("*.png")), process)
    for _ in range(times):  # make and a person may both ask
        os.kill(process.pid, number)
        time.sleep(0.01)

    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the same command goes on from there" in output
    assert "Traceback" not in output
    assert temporaries(tmp_path) == []


def test_a_second_ctrl_c_leaves_at_once(tmp_path):
    code = (
        "import time; from utils.stop import StopRequest; stop = StopRequest(); print('ready', flush=True)\n"
        "while not stop.requested: time.sleep(0.01)\n"
        "print('asked', flush=True); time.sleep(60)"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment(), **pipes)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGINT)
    assert "Leaving at once" in process.communicate(timeout=20)[1]
    assert process.returncode == 130


def test_two_runs_in_one_folder(smoke):
    with lock_folder(smoke / "runs" / "smoke" / "vae", "a test"):
        told = error_of(run_command("vae_trainer.py", *SMOKE, cwd=smoke, check=False))
    assert "is in use by a test (process" in told
    assert "is finished" in run_here("vae_trainer.py", *SMOKE, cwd=smoke).stdout


# --- checkpoints, latents, data that are not what they should be ----------------------------------


def test_damaged_last_checkpoint_falls_back_to_the_newest_good_one(copy):
    last = Run(copy / "runs" / "smoke").vae.last
    last.write_bytes(last.read_bytes()[:1000])
    result = run_here("vae_trainer.py", *SMOKE, *setting("vae.epochs=3"), cwd=copy)
    assert "is damaged" in result.stdout
    assert "best.pt instead" in result.stdout
    assert checkpoint.load(last, "vae")["epoch"] == 3


@pytest.mark.parametrize("script, kind", [("vae_trainer.py", "vae"), ("f2p_trainer.py", "f2p")])
def test_an_older_checkpoint_format_is_refused_by_name(copy, script, kind):
    for path in (copy / "runs" / "smoke" / kind / "checkpoints").iterdir():
        content = torch.load(path, weights_only=True)
        torch.save(content | {"format": f"face2parameter {kind} 0"}, path)
    told = error_of(run_here(script, *SMOKE, *setting(f"{kind}.epochs=9"), cwd=copy, check=False))
    assert f"has format 'face2parameter {kind} 0'; expected {checkpoint.FORMATS[kind]!r}" in told


@pytest.mark.parametrize(
    "script, change, told",
    [
        ("f2p_trainer.py", {"seed": 77}, "seed differ"),
        ("vae_trainer.py", {"creator": "0.9"}, "version 0.9 of the creator"),
        ("vae_trainer.py", {"size": 16}, "holds pictures of 16 pixels, and data.image_size is 32"),
    ],
)
def test_faces_of_another_seed_creator_or_size_are_refused(copy, script, change, told):
    manifest = copy / "data" / "smoke" / "creator.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    more = setting("vae.epochs=9", "f2p.epochs=9")
    assert told in error_of(run_here(script, *SMOKE, *more, cwd=copy, check=False))


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def save_torch(path: Path, bomb: _Bomb) -> None:
    torch.save({"format": checkpoint.FORMATS["vae"], "model": bomb}, path)


def save_pickle(path: Path, bomb: _Bomb) -> None:
    path.write_bytes(pickle.dumps(bomb))


@pytest.mark.parametrize("write", [save_torch, save_pickle])
def test_a_pickle_with_code_is_refused_and_nothing_runs(tmp_path, write):
    mark = tmp_path / "ran"
    write(tmp_path / "bomb.pt", _Bomb(mark))
    with pytest.raises(UserError, match="no checkpoint"):
        checkpoint.load(tmp_path / "bomb.pt", "vae")
    assert not mark.exists()


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Content with a few random bytes changed, and now and then its end cut off."""
    broken = bytearray(content)
    for at in rng.integers(0, len(broken), rng.integers(1, 20)):
        broken[at] = rng.integers(256)
    return bytes(broken[: rng.integers(len(broken))] if rng.random() < 0.3 else broken)


def test_mutated_checkpoints_configs_and_labels_give_sentences(smoke, tmp_path):
    """What is read is valid, or a UserError says what is wrong. Never another error."""
    rng = np.random.default_rng(0)
    run = Run(tmp_path / "run")
    run.f2p.best.parent.mkdir(parents=True)
    labels = (smoke / "data" / "smoke" / "labels.json").read_bytes()[:20_000].rsplit(b",\n", 1)[0] + b"\n}"
    config = (ROOT / "configs" / "smoke.toml").read_bytes()
    targets: list[tuple[bytes, Path, Callable[[], object]]] = [
        (Run(smoke / "runs" / "smoke").f2p.best.read_bytes(), run.f2p.best, lambda: load_regressor(run)),
        (labels, tmp_path / "labels.json", lambda: read_labels(tmp_path)),
        (config, tmp_path / "mutated.toml", lambda: load_config(tmp_path / "mutated.toml")),
    ]
    refused = 0
    for content, path, read in targets:
        for _ in range(MUTATIONS):
            path.write_bytes(mutated(content, rng))
            try:
                read()
            except UserError:
                refused += 1
    assert refused > MUTATIONS
    survived(
        "label, config and checkpoint files with random bytes changed or cut off",
        f"{len(targets) * MUTATIONS} files",
        f"{refused} refused with a sentence, the others still valid; no other error",
    )


# --- permissions ----------------------------------------------------------------------------------

#: Imports and reads as root what lies where others may not look (the interpreter, weights), then gives root up.
_AS_NOBODY = """
import encodings.utf_8_sig, os, sys, torch
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


def as_nobody(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A script that an unprivileged user runs."""
    command = [sys.executable, "-c", _AS_NOBODY, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=120)


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


needs_users = pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs users")


@needs_users
def test_an_output_that_nobody_may_write_to_gets_a_sentence(open_folder):
    output = open_folder / "closed" / "out"
    align = ("face_alignment.py", "--workers", 1, "--input", open_folder / "a.png", "--output", output)
    assert "permission is missing" in error_of(as_nobody(*align, cwd=open_folder))


@needs_users
def test_a_run_folder_that_nobody_may_write_to_gets_a_sentence(open_folder):
    data = ("data.creator_count=0", "data.root=", f'data.folders=["{open_folder}"]')
    train = ("vae_trainer.py", *SMOKE, *setting(*data, f"run.folder={open_folder / 'closed'}"))
    assert "permission is missing" in error_of(as_nobody(*train, cwd=open_folder))


@needs_users
def test_a_picture_that_nobody_may_read_is_listed_and_tried_again(open_folder):
    output = open_folder / "out"
    align = ("face_alignment.py", "--workers", 1, "--input", open_folder, "--output", output)
    os.chmod(open_folder / "b.png", 0)
    assert "1 of 2 pictures cannot be read (50.0%" in error_of(as_nobody(*align, cwd=open_folder))
    assert "b.png" in (output / "unreadable.txt").read_text()

    os.chmod(open_folder / "b.png", 0o644)
    assert as_nobody(*align, cwd=open_folder).returncode == 0
    assert not (output / "unreadable.txt").exists()


# --- full disks -----------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 6 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)])


def fill(disk: Path, left: int) -> Path:
    """Leave that many bytes free; the file that takes the others."""
    ballast = disk / "ballast"
    ballast.write_bytes(b"x" * max(0, shutil.disk_usage(disk).free - left))
    return ballast


def test_full_disk_stops_the_writer_before_labels(small_disk):
    size = ("--count", 400, "--size", 256, "--workers", 2)
    result = run_command("-m", "games", "write", "--output", "faces", *size, cwd=small_disk, check=False)
    assert "the disk is full" in error_of(result)
    assert not (small_disk / "faces" / "labels.json").exists()


_COMMANDS = {
    "vae_trainer.py": (*SMOKE, *setting("vae.epochs=3")),
    "extract_latentvec.py": (*SMOKE, "--restart"),
    "f2p_trainer.py": (*SMOKE, *setting("f2p.epochs=5")),
    "face_alignment.py": ("--input", "faces", "--output", "aligned", "--size", 64),
    "predict.py": ("faces/face_000000.png", "--aligned", "--run", "runs/smoke"),
}


@pytest.mark.parametrize("script", list(_COMMANDS)[: None if LONG else 2])
def test_full_disk_gets_a_sentence_and_earlier_results_stand(smoke, small_disk, script):
    """With some kilobytes left a script stops with a sentence; with room again the same command finishes."""
    shutil.copytree(smoke / "runs", small_disk / "runs")
    for folder in ("data", "cache"):
        (small_disk / folder).symlink_to(smoke / folder)
    (small_disk / "faces").mkdir()
    for path in sorted((smoke / "data" / "smoke" / "images").iterdir())[:30]:
        shutil.copy(path, small_disk / "faces")

    before = {path: path.read_bytes() for path in small_disk.rglob("*.pt")}
    ballast = fill(small_disk, 16_384)
    told = error_of(run_command(script, *_COMMANDS[script], cwd=small_disk, check=False))
    assert "the disk is full" in told
    assert {path: path.read_bytes() for path in small_disk.rglob("*.pt")} == before
    assert temporaries(small_disk) == []

    ballast.unlink()
    run_command(script, *_COMMANDS[script], cwd=small_disk)
    survived(
        f"full disk: {script}",
        "a file system with 16 KiB left, then with room",
        "a sentence and exit status 2, earlier files untouched; then it finishes",
    )


def test_full_disk_leaves_no_half_file(small_disk):
    fill(small_disk, 100_000)
    with pytest.raises(OSError), atomic_write(small_disk / "large.bin") as file:
        file.write(b"y" * 4_000_000)
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


def test_full_disk_refuses_a_growing_array_at_once(small_disk):
    fill(small_disk, 100_000)
    with pytest.raises(OSError):
        GrowingArray(small_disk / "rows.npy", (10_000, 512), dtype="f4", key="key")
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


# --- broken pictures, broken losses ---------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_run(smoke, tmp_path):
    data = (f"data.root={smoke / 'data' / 'smoke'}", f"data.cache={smoke / 'cache'}")
    settings = (*SMOKE, *setting(*data, "vae.learning_rate=1e30", "run.precision=fp32"))
    told = error_of(run_here("vae_trainer.py", *settings, cwd=tmp_path, check=False))
    assert "training stopped" in told
    assert "face_" in told


@pytest.fixture
def torn(copy):
    """A copy of the run in which ten renders were torn."""
    for path in sorted((copy / "data" / "smoke" / "images").iterdir())[:10]:
        path.write_bytes(path.read_bytes()[:100])
    return copy


QUICK = (*SMOKE, *setting("vae.epochs=1"))


@pytest.mark.parametrize("cache", ["cache", ""], ids=["with cache", "without cache"])
def test_unreadable_pictures_in_training_are_listed(torn, cache):
    run_here("vae_trainer.py", *QUICK, *setting(f"data.cache={cache}"), "--restart", cwd=torn)
    assert len((torn / "runs" / "smoke" / "unreadable.txt").read_text().splitlines()) == 10


def test_too_many_unreadable_pictures_in_training_are_fatal(torn):
    strict = setting("data.max_unreadable=0.001")
    told = error_of(run_here("vae_trainer.py", *QUICK, *strict, "--restart", cwd=torn, check=False))
    assert "10 of 800 pictures cannot be read" in told


def test_unreadable_pictures_have_no_latents_and_are_not_learned(torn):
    latents = torn / "runs" / "smoke" / "latents"
    told = run_here("extract_latentvec.py", *SMOKE, cwd=torn).stdout
    for view in ("", "_moved", "_mirrored"):
        assert f"390 latents of images{view}" in told, view
        assert f"400 latents of aug_images{view}" in told, view
    assert len((latents / "images.unreadable.txt").read_text().splitlines()) == 10
    assert "10 of 400 names" in run_here("f2p_trainer.py", *SMOKE, "--restart", cwd=torn).stdout


@pytest.fixture
def prediction(smoke, tmp_path):
    """predict.py on a good, a torn and a wide picture, by name."""
    good = smoke / "data" / "smoke" / "images" / "face_000000.png"
    shutil.copy(good, tmp_path / "good.png")
    (tmp_path / "torn.png").write_bytes(good.read_bytes()[:100])
    write_picture(tmp_path / "wide.png", np.zeros((40, 80, 3), np.uint8))
    options = ("--aligned", "--run", smoke / "runs" / "smoke", "--output", tmp_path / "out")

    def predict(*pictures: str) -> subprocess.CompletedProcess[str]:
        return run_here("predict.py", *options, *pictures, cwd=tmp_path, check=False)

    return predict


def test_unreadable_photos_are_listed_and_the_others_predicted(prediction, tmp_path):
    told = error_of(prediction("good.png", "torn.png"))
    assert "1 of 2 pictures cannot be read (50.0%" in told
    assert (tmp_path / "out" / "good.json").exists()
    assert "torn.png" in (tmp_path / "out" / "unreadable.txt").read_text()


def test_photos_that_are_not_square_are_told(prediction):
    few = prediction("good.png", "wide.png")
    assert few.returncode == 0
    assert "1 of 2 photos gave no prediction" in few.stderr
    assert "80×40" in few.stderr


def test_where_no_photo_gives_a_prediction_that_is_said(prediction):
    assert "no photo gave a prediction" in error_of(prediction("wide.png"))


@pytest.fixture(scope="module")
def broken_pictures(smoke, tmp_path_factory):
    """Pictures of every format in which bytes were changed or cut off at random."""
    folder = tmp_path_factory.mktemp("broken") / "broken"
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
        path.write_bytes(broken[: rng.integers(len(broken))] if rng.random() < 0.3 else broken)
    return folder


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


@pytest.fixture(scope="module")
def unreadable(broken_pictures) -> int:
    """How many of the broken pictures cannot be read; some can and some cannot."""
    output = broken_pictures.parent / "aligned"
    align = ("face_alignment.py", "--input", broken_pictures, "--output", output)
    told = error_of(run_here(*align, "--max-unreadable", 0.01, cwd=output.parent, check=False))
    assert f"of {BROKEN_PICTURES} pictures cannot be read" in told
    run_here(*align, "--max-unreadable", 1, cwd=output.parent)

    statuses = [line.split(",")[1] for line in lines_of(output / "alignment.csv")[1:]]
    assert len(statuses) == BROKEN_PICTURES
    assert 0 < statuses.count("unreadable") < BROKEN_PICTURES
    assert len(lines_of(output / "unreadable.txt")) == statuses.count("unreadable")
    return statuses.count("unreadable")


def test_broken_pictures_go_through_stage_1(broken_pictures, unreadable, copy):
    folders = setting(f'data.folders=["{broken_pictures}"]', "data.max_unreadable=1", "vae.epochs=1")
    run_here("vae_trainer.py", *SMOKE, *folders, "--restart", cwd=copy)
    assert len(lines_of(copy / "runs" / "smoke" / "unreadable.txt")) == unreadable


def test_broken_pictures_go_through_extraction(broken_pictures, unreadable, copy):
    images = copy / "data" / "smoke" / "images"
    for i, path in enumerate(sorted(broken_pictures.iterdir())):
        shutil.copy(path, images / f"broken_{i:04d}{path.suffix}")
    run_here("extract_latentvec.py", *SMOKE, *setting("data.max_unreadable=1"), cwd=copy)
    meta = json.loads((copy / "runs" / "smoke" / "latents" / "meta.json").read_text())
    assert len(meta["unreadable"]["images"]) == unreadable
    assert meta["counts"]["images"] == 400 + BROKEN_PICTURES - unreadable


def test_broken_pictures_go_through_prediction(smoke, broken_pictures, unreadable, tmp_path):
    photos = sorted(broken_pictures.iterdir())[:200]
    options = ("--aligned", "--run", smoke / "runs" / "smoke", "--average")
    result = run_here("predict.py", *photos, *options, cwd=tmp_path, check=False)
    assert result.returncode in (0, 2)
    assert "Traceback" not in result.stderr
    without = result.stderr.count("no prediction of") - result.stderr.count("--aligned expects square")
    assert without > 0
    assert len(lines_of(tmp_path / "predictions" / "unreadable.txt")) == without
    survived(
        "pictures (PNG, JPEG, WebP, BMP) with random bytes changed or cut off",
        f"{BROKEN_PICTURES} pictures through alignment, stage 1 and extraction, {len(photos)} through prediction",
        f"{unreadable} listed as unreadable by each script, the others used; exit status 2 above max_unreadable",
    )
