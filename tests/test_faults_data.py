"""What people's folders, files and machines do to training: a refusal in a sentence, or work that goes on."""

import json
import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.labels import describe_layout, find_parts, read_labels, read_splits
from datasets.pictures import PictureFiles, Pictures
from datasets.sources import Source, content_digest, folder_source, root_sources
from games.game import VERSION
from games.parameters import BUILT_IN_TABLE, parse_parameters, write_parameters
from games.writer import write_labels
from tests.helpers import (
    ROOT,
    SMOKE,
    TRAINING_SCRIPTS,
    command_of,
    environment,
    error_of,
    run_command,
    run_here,
    setting,
)
from utils import config as configuration
from utils.errors import UserError, is_out_of_memory
from utils.pictures import write_picture
from utils.workers import default_workers


def write_faces(folder: Path, names: list[str], side: int = 8) -> None:
    """Small grey pictures of these names."""
    for i, name in enumerate(names):
        write_picture(folder / name, np.full((side, side, 3), i % 256, np.uint8))


def write_game(root: Path, names: list[str], labels: list[str] | None = None) -> None:
    """A data set of two parameters in the HS_FACE layout."""
    write_faces(root / "images", [f"{name}.png" for name in names])
    rows = {name: [0.25, 0.75] for name in (names if labels is None else labels)}
    (root / "labels.json").write_text(json.dumps(rows))
    table = "index,name,group,kind,min,max,description\n0,a,g,slider,0,1,\n1,b,g,slider,0,1,\n"
    (root / "parameters.csv").write_text(table)


# --- names ----------------------------------------------------------------------------------------


def test_a_name_keeps_its_at_sign_where_a_label_has_it(tmp_path):
    names = [f"face_{i}@2x" for i in range(5)]
    write_game(tmp_path, names)
    assert list(find_parts(tmp_path)["images"]) == names


def test_an_id_before_the_at_sign_is_taken_off_where_only_the_rest_is_known(tmp_path):
    write_game(tmp_path, ["0007@anna", "0008@bert"], labels=["anna", "bert"])
    assert list(find_parts(tmp_path)["images"]) == ["anna", "bert"]


def test_pictures_that_come_to_one_name_are_said_and_the_later_one_is_left_out(tmp_path):
    write_game(tmp_path, ["a@x", "b@x", "c"], labels=["x", "c"])
    assert find_parts(tmp_path)["images"]["x"].name == "a@x.png"
    assert "1 images that share their NAME with another (b@x.png (as a@x.png))" in describe_layout(tmp_path)


def test_two_spellings_of_one_name_are_said(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Zoë") for form in ("NFC", "NFD"))
    write_game(tmp_path, [composed, decomposed], labels=[composed])
    assert list(find_parts(tmp_path)["images"]) == [composed]
    assert "share their NAME" in describe_layout(tmp_path)


def test_the_line_about_a_data_set_counts_what_is_found_used_and_left_out(tmp_path):
    write_game(tmp_path, ["a", "b", "c", "d"], labels=["a", "b", "c", "lost"])
    (tmp_path / "images" / "notes.txt").write_text("x")
    for split, names in (("train", "a\nb\nnobody"), ("val", "c"), ("test", "d")):
        (tmp_path / f"{split}.txt").write_text(names)
    line = describe_layout(tmp_path)
    assert "4 images, 4 labels, 5 names in split files; 3 faces have all that they need" in line
    for reason in (
        "1 files in images that are no pictures (notes.txt)",
        "1 images without label (d)",
        "1 labels without image (lost)",
        "1 names in split files without image (nobody)",
    ):
        assert reason in line


def test_labels_that_contradict_each_other_are_refused_by_name(tmp_path):
    write_game(tmp_path, ["a"])
    (tmp_path / "labels.json").write_text('{"a": [0, 1], "a": [1, 0]}')
    with pytest.raises(UserError, match="names 'a' twice, with different values"):
        read_labels(tmp_path)
    (tmp_path / "labels.json").write_text('{"a": [0, 1], "a.png": [1, 0]}')
    with pytest.raises(UserError, match="names 'a' twice"):
        read_labels(tmp_path)
    (tmp_path / "labels.json").write_text('{"a": [0, 1], "a": [0, 1]}')
    assert read_labels(tmp_path).names == ["a"]


def test_a_split_file_parts_names_at_line_ends_only(tmp_path):
    odd = ["a\u2028b", "c\x0cd", "e\x85f"]
    for split, name in zip(("train", "val", "test"), odd, strict=True):
        (tmp_path / f"{split}.txt").write_text(name + "\r\n", encoding="utf-8", newline="")
    assert read_splits(tmp_path, odd) == dict(zip(odd, ("train", "val", "test"), strict=True))


def test_names_that_no_list_can_hold_are_left_out_and_said(tmp_path):
    write_game(tmp_path, ["good"])
    for odd in ("line\nbreak", "return\r"):
        write_faces(tmp_path / "images", [f"{odd}.png"])
    assert list(find_parts(tmp_path)["images"]) == ["good"]
    assert "2 images whose names have line breaks" in describe_layout(tmp_path)


def test_a_file_name_that_is_not_utf8_stops_no_script(smoke, tmp_path):
    shutil.copytree(smoke / "data", tmp_path / "data")
    images = tmp_path / "data" / "smoke" / "images"
    shutil.copy(images / "face_000000.png", os.fsencode(images) + b"/caf\xe9.png")
    for script in ("vae_trainer.py", "extract_latentvec.py", "f2p_trainer.py"):
        assert "1 images without label (caf\\udce9)" in run_command(script, *SMOKE, cwd=tmp_path).stdout


# --- the same data, and other data ------------------------------------------------------------------


def test_a_digest_knows_the_same_data_elsewhere_and_other_data_here(tmp_path):
    write_game(tmp_path / "a", ["x", "y", "z"])
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    digests = [content_digest(root_sources(tmp_path / root)["images"]) for root in ("a", "b", "a/../b")]
    assert len(set(digests)) == 1
    write_faces(tmp_path / "b" / "images", ["y.png"], side=9)
    assert content_digest(root_sources(tmp_path / "b")["images"]) != digests[0]


def test_a_run_goes_on_where_its_data_has_moved(smoke, tmp_path):
    shutil.copytree(smoke / "runs", tmp_path / "runs")
    shutil.copytree(smoke / "data" / "smoke", tmp_path / "elsewhere")
    moved = (*SMOKE, "--set", f"data.root={tmp_path / 'elsewhere'}")
    assert "Going on from" in run_command("vae_trainer.py", *moved, "--set", "vae.epochs=3", cwd=tmp_path).stdout


def test_other_labels_or_another_table_are_refused_by_name(smoke, tmp_path):
    for folder in ("runs", "data"):
        shutil.copytree(smoke / folder, tmp_path / folder)
    root = tmp_path / "data" / "smoke"
    table = (root / "parameters.csv").read_text()
    row = "macrodetails/Age,macro,macro,0,"
    assert f"{row}1," in table
    (root / "parameters.csv").write_text(table.replace(f"{row}1,", f"{row}2,"))
    told = error_of(run_command("f2p_trainer.py", *SMOKE, cwd=tmp_path, check=False))
    assert "the parameter table of data.root is not what it was" in told
    (root / "parameters.csv").write_text(table)

    labels = json.loads((root / "labels.json").read_text())
    labels["face_000000"][0] = 0.123
    (root / "labels.json").write_text(json.dumps(labels))
    for epochs in (3, 4):  # finished, and to go on
        options = (*SMOKE, "--set", f"f2p.epochs={epochs}")
        told = error_of(run_command("f2p_trainer.py", *options, cwd=tmp_path, check=False))
        assert "labels.json of data.root is not what it was" in told


# --- data of the embedded game before this one ------------------------------------------------------


@pytest.fixture
def outdated(copy) -> Path:
    """A folder with a data set that version 1.0 of the creator wrote: other sliders, other labels. No run."""
    root = copy / "data" / "smoke"
    manifest = json.loads((root / "creator.json").read_text()) | {"creator": "1.0"}
    (root / "creator.json").write_text(json.dumps(manifest))
    write_parameters(root / "parameters.csv", parse_parameters(BUILT_IN_TABLE)[:54])
    names = list(json.loads((root / "labels.json").read_text()))
    write_labels(root, names, labels=np.random.default_rng(0).random((len(names), 54)))
    for cache in root.glob("labels.*.npy"):
        cache.unlink()
    shutil.rmtree(copy / "runs")
    return copy


def content_of(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of every file of a data set."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def test_faces_of_an_older_version_are_refused_with_a_way_out_and_left_as_they_are(outdated):
    before = content_of(outdated / "data")
    for script in ("vae_trainer.py", "extract_latentvec.py"):
        told = error_of(run_here(script, *SMOKE, cwd=outdated, check=False))
        assert f"was written by version 1.0 of the creator, this is version {VERSION}" in told
        for way in ("Delete the folder", "another data.root", "data.creator_count=0"):
            assert way in told
    write = ("-m", "games", "write", "--output", "data/smoke", "--count", 500, "--size", 32)
    told = error_of(run_here(*write, cwd=outdated, check=False))
    assert f"written with creator = '1.0', now {VERSION!r} is asked for. Choose another folder" in told
    assert content_of(outdated / "data") == before


def test_faces_of_an_older_version_are_learned_as_those_of_another_game(outdated):
    """Nothing is drawn: this version's head has other sliders."""
    before = content_of(outdated / "data")
    few = setting("data.creator_count=0", "vae.epochs=1", "f2p.epochs=1", "latents.mirrored=false")
    for script in TRAINING_SCRIPTS:
        run_here(script, *SMOKE, *few, cwd=outdated)
    metrics = json.loads((outdated / "runs" / "smoke" / "f2p" / "metrics.json").read_text())
    assert metrics["run"]["creator"] == "1.0"
    assert len(metrics["test"]["parameters"]) == 54
    assert {path: found for path, found in content_of(outdated / "data").items() if path in before} == before

    face = ("data/smoke/images/face_000000.png", "--aligned", "--run", "runs/smoke")
    run_here("predict.py", *face, cwd=outdated)
    assert {path.name for path in (outdated / "predictions").iterdir()} == {"face_000000.json", "face_000000.png"}
    found = json.loads((outdated / "predictions" / "face_000000.json").read_text())
    assert found["creator"] == "1.0" and "face_width" in found["parameters"]
    run_here("-m", "benchmarks.demo", "--run", "runs/smoke", cwd=outdated)


def test_a_folder_that_was_not_aligned_is_refused(tmp_path):
    write_picture(tmp_path / "photos" / "wide.png", np.zeros((10, 20, 3), np.uint8))
    with pytest.raises(UserError, match="20×10 pixels; expected aligned faces"):
        folder_source(tmp_path / "photos")


# --- machines -------------------------------------------------------------------------------------


def pictures_of(folder: Path, names: list[str], workers: int) -> Pictures:
    source = Source("faces", [folder / name for name in names], names, ["train"] * len(names))
    return Pictures({"faces": source}, size=32, cache=None, workers=workers)


def test_workers_hand_pictures_over_without_shared_memory(tmp_path):
    write_faces(tmp_path, ["a.png", "b.png"])
    decoded = PictureFiles([tmp_path / "a.png", tmp_path / "b.png"], 32).__getitems__([0, 1])
    assert isinstance(decoded.pictures, np.ndarray)
    batches = list(pictures_of(tmp_path, ["a.png", "b.png"], workers=1).batches([[0, 1]], torch.device("cpu")))
    assert batches[0].pictures.shape == (2, 3, 32, 32)
    assert not batches[0].pictures.is_shared()


def test_workers_start_from_a_process_whose_opencv_has_threads(tmp_path):
    """As a training's has once it drew a large picture."""
    write_faces(tmp_path, ["a.png", "b.png"])
    code = (
        "import sys, cv2, numpy as np, torch; from pathlib import Path\n"
        "from tests.test_faults_data import pictures_of\n"
        "cv2.setNumThreads(4); cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.float32), (0, 0), 9)\n"
        "pictures = pictures_of(Path(sys.argv[1]), ['a.png', 'b.png'], workers=1)\n"
        "print([len(batch.pictures) for batch in pictures.batches([[0, 1]], torch.device('cpu'))])"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    told = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert told.stdout.strip() == "[2]", told.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.geteuid() != 0, reason="mounts a file system")
def test_a_cache_is_built_with_next_to_no_shared_memory(smoke, tmp_path):
    shutil.copytree(smoke / "data", tmp_path / "data")
    options = ("--set", "data.workers=2", "--set", "vae.epochs=1", "--set", "data.image_size=32")
    command = command_of("vae_trainer.py", *SMOKE, *options)
    script = 'mount -t tmpfs -o size=256k tmpfs /dev/shm && exec "$@"'
    unshared = ["unshare", "--mount", "sh", "-c", script, "sh", *command]
    probe = subprocess.run([*unshared[:5], "sh", "true"], capture_output=True)
    if probe.returncode:
        pytest.skip("this machine does not let us mount")
    done = subprocess.run(unshared, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_batch_without_a_readable_picture_is_left_out(smoke, tmp_path):
    """Two of 24 batches hold nothing readable: training ends with finite losses, and the listing names them."""
    shutil.copytree(smoke / "data", tmp_path / "data")
    for path in sorted((tmp_path / "data" / "smoke" / "images").iterdir())[:4]:
        path.write_bytes(b"")
    options = ("--set", "data.cache=", "--set", "vae.batch_size=1", "--set", "vae.epochs=1", "--set", "vae.norm=group")
    done = run_command("vae_trainer.py", *SMOKE, *options, cwd=tmp_path)
    assert "4 of 800 pictures cannot be read" in done.stderr
    metrics = json.loads((tmp_path / "runs" / "smoke" / "vae" / "metrics.json").read_text())
    assert np.isfinite(metrics["test"]["loss"])


@pytest.mark.parametrize("encoding", ["gbk", "cp1251", "ascii"])
def test_output_that_is_not_utf8_is_printed_all_the_same(encoding, tmp_path):
    for script in ("vae_trainer.py", "face_alignment.py", "predict.py"):
        started = subprocess.run(
            command_of(script, "--help"), env=environment() | {"PYTHONIOENCODING": encoding}, capture_output=True
        )
        assert started.returncode == 0, started.stderr[-500:]
        assert b"Reads" in started.stdout or b"Writes" in started.stdout


def test_a_reader_that_leaves_does_not_end_a_training(smoke, tmp_path):
    shutil.copytree(smoke / "data", tmp_path / "data")
    command = command_of("vae_trainer.py", *SMOKE, "--set", "vae.epochs=1")
    started = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    started.stdout.readline()
    started.stdout.close()
    assert started.wait(timeout=120) == 0
    assert (tmp_path / "runs" / "smoke" / "vae" / "metrics.json").exists()


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell closes streams")
def test_streams_that_the_shell_closed_take_nothing_away(tmp_path):
    picture = tmp_path / "faces.png"
    for arguments, status in ((("random", "--count", "1", "--output", picture), 0), (("render", "missing.json"), 2)):
        command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command_of("-m", "games", *arguments)]
        assert subprocess.run(command, cwd=tmp_path, env=environment()).returncode == status
    assert picture.exists()


def test_memory_that_runs_out_is_known_by_its_errors():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(RuntimeError) as told:
        torch.empty(1 << 50, dtype=torch.uint8)
    assert is_out_of_memory(told.value)
    assert not is_out_of_memory(RuntimeError("sizes do not match"))


def test_too_little_memory_is_a_sentence(tmp_path):
    code = "from utils.errors import run_script; import torch; run_script(lambda: torch.empty(1 << 50))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "out of memory" in error_of(done)


def test_workers_respect_what_the_machine_was_told(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert default_workers() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "no number")
    assert default_workers() >= 1


@pytest.mark.parametrize("variables", [{"WORLD_SIZE": ""}, {"WORLD_SIZE": "2"}, {"WORLD_SIZE": "2", "RANK": "x"}])
def test_a_broken_environment_of_torchrun_is_a_sentence(variables, tmp_path):
    started = subprocess.run(
        command_of("vae_trainer.py", *SMOKE),
        cwd=tmp_path,
        env=environment() | variables,
        capture_output=True,
        text=True,
    )
    assert "torchrun" in error_of(started)


# --- configs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_config_may_be_written_by_an_editor_on_windows(encoding, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes('[run]\r\nname = "mine"\r\n'.encode(encoding))
    assert configuration.load(path).run.name == "mine"


def test_a_windows_path_in_double_quotes_is_told_how_to_be_written(tmp_path):
    (tmp_path / "mine.toml").write_text('[data]\nroot = "C:\\Users\\me\\faces"\n')
    with pytest.raises(UserError, match="single quotes"):
        configuration.load(tmp_path / "mine.toml")


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.toml").write_text('[data]\nroot = "~/faces"\nfolders = ["~/more"]\n')
    config = configuration.load(tmp_path / "mine.toml", ["run.folder=~/runs"])
    assert config.data.root == f"{tmp_path}/faces"
    assert config.data.folders == (f"{tmp_path}/more",)
    assert config.run.folder == f"{tmp_path}/runs"


def test_a_name_that_looks_like_a_number_is_a_name(tmp_path):
    (tmp_path / "mine.toml").write_text("")
    assert configuration.load(tmp_path / "mine.toml", ["run.name=2024"]).run.name == "2024"
    (tmp_path / "mine.toml").write_text("[run]\nname = 2024\n")
    with pytest.raises(UserError, match="expected text in quotes"):
        configuration.load(tmp_path / "mine.toml")


@pytest.mark.parametrize(
    "number", ["run.seed=1" + "0" * 20, "vae.learning_rate=1" + "0" * 400, "run.threads=9999999999"]
)
def test_a_number_too_large_for_the_machine_is_a_sentence(number, tmp_path):
    (tmp_path / "mine.toml").write_text("")
    with pytest.raises(UserError, match="expected"):
        configuration.load(tmp_path / "mine.toml", [number])
