"""What a data set's size costs: memory of every script at HS_FACE's 140,000 faces, and time a face as sets grow.

    python -m benchmarks.scale [--faces 140000] [--only SCRIPT …] [--json FILE]

Measures memory on a data set of that many tiny pictures, with latents and labels of the real shape (2 × 1,024
and 205 numbers a face) and narrow convolutions. Alignment goes on where all but the last 2,000 pictures are done,
as it knows those then. Needs Linux. Cost growth is a part of benchmarks.speed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from datasets.creator import write_data_set
from face_alignment import Record, Row, find_jobs
from utils.errors import UserError, run_script
from utils.files import write_json

_ROOT = Path(__file__).resolve().parent.parent

#: The networks of a run in which everything but the convolutions has the size of the full recipe.
_SHAPE = ("--config", _ROOT / "configs" / "hs_face.toml", "--set", "data.root=faces", "--set", "data.folders=[]", "--set", "data.image_size=32",
          "--set", "vae.encoder_channels=[8,16,16]", "--set", "vae.decoder_channels=[16,16,8]", "--set", "vae.lpips_weight=0",
          "--set", "vae.batch_size=256", "--set", "vae.epochs=1", "--set", "f2p.epochs=1", "--set", "f2p.batch_size=1024",
          "--set", "run.name=scale", "--set", "run.device=auto", "--set", "run.precision=auto")

#: The default's networks, which cost enough a face to be told from a script's start-up.
_DEFAULT = ("--config", _ROOT / "configs" / "creator.toml", "--set", "data.creator_count=0", "--set", "data.root=faces", "--set", "run.name=scale")


def command(script: str, *options: object) -> list[str]:
    start = ["-m", "datasets.creator", "write"] if script == "datasets.creator" else [str(_ROOT / script)]
    return [sys.executable, *start, *map(str, options)]


def run(arguments: list[str], folder: Path, watch: Callable[[int], None] | None = None) -> float:
    """Run a script; the CPU seconds of it and all its processes. `watch` is shown its process a few times a second."""
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    with open(folder / "log.txt", "w", encoding="utf-8") as log:
        before = os.times()
        process = subprocess.Popen(arguments, cwd=folder, env=environment, stdout=log, stderr=log)
        while process.poll() is None:
            if watch is not None:
                watch(process.pid)
            time.sleep(0.1)
        after = os.times()
    if process.returncode:
        raise UserError(f"{' '.join(arguments)} failed:\n{(folder / 'log.txt').read_text(encoding='utf-8')[-2000:]}")
    return after.children_user + after.children_system - before.children_user - before.children_system


# --- growth ---------------------------------------------------------------------------------------

#: What each script is measured with. A later one needs what those before it make, but for alignment, which nothing needs.
_GROWING = {"datasets.creator": ("--output", "faces", "--size", 64, "--no-aug"),
            "face_alignment.py": ("--input", "faces/images", "--output", "aligned", "--size", 64),
            "vae_trainer.py": (*_DEFAULT, "--set", "vae.epochs=1"), "extract_latentvec.py": _DEFAULT,
            # Epochs enough to drown a start-up's noise; batches that leave few of 900 training faces over.
            "f2p_trainer.py": (*_DEFAULT, "--set", "f2p.epochs=30", "--set", "f2p.batch_size=128")}


def cost_growth(folder: Path, row: Callable[..., dict[str, Any]], alignment: bool,
                sizes: tuple[int, int, int] = (200, 1000, 16_000)) -> list[dict[str, Any]]:
    """CPU seconds a face on 1,000 faces over those on 16,000, start-up taken off: of alignment, or of the four other scripts.

    What a script costs on the least faces is taken for its start-up. Medians, of one run of the most faces. Processor time,
    as other work on the machine distorts it less than the clock.
    """
    options = {script: given for script, given in _GROWING.items() if script == "datasets.creator" or (script == "face_alignment.py") == alignment}
    least, few, many = sizes
    runs: dict[str, dict[int, list[float]]] = {script: {count: [] for count in sizes} for script in options}
    # Small sets before and after the large one: a machine that is faster at one time than at another is then so for both.
    for turn, count in enumerate((least, few, least, few, many, least, few, least, few)):
        place = folder / str(turn)
        place.mkdir()
        for script, given in options.items():
            extra = ("--count", count) if script == "datasets.creator" else ()
            runs[script][count].append(run(command(script, *given, *extra), place))
    seconds = {script: {count: median(values) for count, values in of.items()} for script, of in runs.items()}
    rows = []
    for script, of in seconds.items():
        if alignment and script == "datasets.creator":
            continue  # it only made the pictures
        a_face = {count: (of[count] - of[least]) / (count - least) for count in (few, many)}
        rows.append(row(f"cost growth of {script}: CPU seconds a face at {few:,} faces", f"at {many:,} faces", a_face[few] / a_face[many], 0.9,
                        milliseconds_at_few=1000 * a_face[few], milliseconds_at_many=1000 * a_face[many], start_seconds=of[least]))
    return rows


# --- memory ---------------------------------------------------------------------------------------

def memory_of(pid: int) -> tuple[int, int]:
    """Bytes of a process and all its descendants: private memory, and all that is resident, mapped files included."""
    private = resident = 0
    waiting = [pid]
    while waiting:
        current = waiting.pop()
        try:
            status = Path(f"/proc/{current}/status").read_text(encoding="utf-8")
            waiting += map(int, Path(f"/proc/{current}/task/{current}/children").read_text(encoding="utf-8").split())
        except (OSError, ValueError):
            continue  # it has just ended
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(("RssAnon", "RssShmem", "VmRSS"))}
        private += sizes.get("RssAnon", 0) + sizes.get("RssShmem", 0)
        resident += sizes.get("VmRSS", 0)
    return private, resident


def write_shape(folder: Path, count: int) -> None:
    """A data set by shape: `count` names of a few tiny pictures, and labels of 205 values."""
    write_data_set(folder / "some", 64, 0, 32, False, 1)
    pictures = sorted((folder / "some" / "images").iterdir())
    images = folder / "faces" / "images"
    images.mkdir(parents=True)
    for i in range(count):
        os.link(pictures[i % len(pictures)], images / f"face_{i:06d}.png")
    values = np.random.default_rng(0).random((count, 205))
    with open(folder / "faces" / "labels.json", "w", encoding="utf-8") as file:
        file.write("{" + ",\n".join(f'"face_{i:06d}": [{", ".join(f"{v:.4f}" for v in row)}]' for i, row in enumerate(values)) + "}")


def write_photos(folder: Path, count: int, left: int = 2000) -> None:
    """Photos by shape, `count` names of a few tiny pictures, all aligned but the last ones."""
    pictures = sorted((folder / "some" / "images").iterdir())
    photos, aligned = folder / "photos", folder / "aligned"
    photos.mkdir(), aligned.mkdir()
    for i in range(count):
        os.link(pictures[i % len(pictures)], photos / f"{i:06d}.png")
    record = Record(aligned, 256, "one")
    for job in find_jobs(photos, aligned)[:count - left]:
        os.link(job.source, job.target)
        record.add(job, Row(job.file, "ok", 0.9876, tuple(np.random.default_rng(0).random(10))))
    record.save()


def main() -> None:
    scripts = {"face_alignment.py": ("--input", "photos", "--output", "aligned", "--max-unreadable", 1), "vae_trainer.py": _SHAPE,
               "extract_latentvec.py": _SHAPE, "f2p_trainer.py": _SHAPE}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=int, default=140_000)
    parser.add_argument("--only", nargs="+", choices=scripts, metavar="SCRIPT", help="the last three need those before them")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not Path("/proc/self/status").exists():
        raise UserError("memory is read from /proc, which this system does not have; run this on Linux")
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shape(folder, options.faces)
        write_photos(folder, options.faces)
        for script in options.only or scripts:
            peak = [0, 0]

            def watch(pid: int) -> None:
                peak[:] = map(max, peak, memory_of(pid))

            seconds = run(command(script, *scripts[script]), folder, watch)
            found.append({"script": script, "faces": options.faces, "private_gib": round(peak[0] / 2 ** 30, 2),
                          "resident_gib": round(peak[1] / 2 ** 30, 2), "cpu_seconds": round(seconds, 1)})
            print(f"{script:22s} {options.faces:,} faces: {found[-1]['private_gib']:.2f} GiB of its own, {found[-1]['resident_gib']:.2f} GiB "
                  f"with mapped files, {seconds:.0f} CPU seconds", flush=True)
    if options.json:
        write_json(options.json, {"memory": found})


if __name__ == "__main__":
    run_script(main)
