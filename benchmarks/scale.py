"""What a data set's size costs: memory of every script at HS_FACE's 140,000 faces, and time per face as sets grow.

    python -m benchmarks.scale [--config FILE] [--faces 140000] [--only SCRIPT …] [--json FILE]

Measures memory on a data set of that many tiny pictures. Latents and labels have the real shape (2 × 1,024 and 205
numbers per face), the convolutions are narrow. Alignment goes on where all but the last 2,000 pictures are done, as it
knows those then. The stages are those of configs/hs_face_original.toml; with --config configs/hs_face.toml those of the
recommended recipe, which also encodes moved and mirrored faces. Needs Linux. Cost growth is a part of benchmarks.speed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from datasets.alignment_record import Outcome, Record, Row
from face_alignment import find_jobs
from games.writer import DataSet, write_data_set
from models.vae import stage_count
from utils.config import load
from utils.errors import UserError, run_script
from utils.files import write_json
from utils.identity import mark_of

_ROOT = Path(__file__).resolve().parent.parent

#: What measuring alone needs: the writer of data sets, a module and no script.
_GAMES = "games"

#: Photos that are left to align where memory is measured.
_LEFT = 2000


def command(script: str, *options: object) -> list[str]:
    """The command line of a script, or of `python -m games write`."""
    start = ["-m", "games", "write"] if script == _GAMES else [str(_ROOT / script)]
    return [sys.executable, *start, *map(str, options)]


def run(arguments: list[str], folder: Path, watch: Callable[[int], None] | None = None) -> float:
    """Run a command; the CPU seconds of it and all its processes.

    Args:
        folder: where it runs.
        watch: is shown its process a few times per second.

    Raises:
        UserError: it failed.
    """
    log = folder / "log.txt"
    environment = os.environ | {"PYTHONPATH": str(_ROOT)}
    with open(log, "w", encoding="utf-8") as file:
        before = os.times()
        process = subprocess.Popen(arguments, cwd=folder, env=environment, stdout=file, stderr=file)
        try:
            while process.poll() is None:
                if watch is not None:
                    watch(process.pid)
                time.sleep(0.1)
        finally:  # asked to stop, it leaves nothing running behind
            process.terminate()
            process.wait()
        after = os.times()
    if process.returncode:
        raise UserError(f"{' '.join(arguments)} failed:\n{log.read_text(encoding='utf-8')[-2000:]}")
    return after.children_user + after.children_system - before.children_user - before.children_system


# --- growth -----------------------------------------------------------------------------------------

#: The default's networks, which cost enough per face to be told from a script's start-up.
_DEFAULT = (
    "--config",
    _ROOT / "configs" / "creator.toml",
    "--set",
    "data.creator_count=0",
    "--set",
    "data.root=faces",
    "--set",
    "run.name=scale",
)

#: Options of each script. A later one needs what those before it make, but for alignment, which nothing needs.
_GROWING: dict[str, tuple[object, ...]] = {
    _GAMES: ("--output", "faces", "--size", 64, "--no-variants"),
    "face_alignment.py": ("--input", "faces/images", "--output", "aligned", "--size", 64),
    "vae_trainer.py": (*_DEFAULT, "--set", "vae.epochs=1"),
    "extract_latentvec.py": _DEFAULT,
    # Epochs enough to drown a start-up's noise; batches that leave few of 900 training faces over.
    "f2p_trainer.py": (*_DEFAULT, "--set", "f2p.epochs=30", "--set", "f2p.batch_size=128"),
}

#: Fewest faces, whose cost is taken for a script's start-up; few faces; many faces.
_SIZES = (200, 1000, 16_000)


class Growth(NamedTuple):
    """CPU seconds per face of a script on few and on many faces, start-up taken off."""

    script: str
    few: int  #: faces
    many: int
    seconds_at_few: float  #: per face
    seconds_at_many: float
    start_seconds: float

    @property
    def ratio(self) -> float:
        """1 where the cost per face does not grow."""
        return self.seconds_at_few / self.seconds_at_many


def cost_growth(folder: Path, *, alignment: bool, sizes: tuple[int, int, int] = _SIZES) -> list[Growth]:
    """How the cost per face grows: of face_alignment.py, or of the four other scripts.

    Medians, of one run of the most faces. Processor time, as other work on the machine distorts it less than the clock.
    """
    least, few, many = sizes
    scripts = [_GAMES, "face_alignment.py"] if alignment else [s for s in _GROWING if s != "face_alignment.py"]
    seconds: dict[tuple[str, int], list[float]] = {(script, count): [] for script in scripts for count in sizes}

    # Small sets before and after the large one: what slows the machine for a while then slows both.
    for turn, count in enumerate((least, few, least, few, many, least, few, least, few)):
        place = folder / str(turn)
        place.mkdir()
        for script in scripts:
            extra = ("--count", count) if script == _GAMES else ()
            seconds[script, count].append(run(command(script, *_GROWING[script], *extra), place))

    if alignment:
        scripts = scripts[1:]  # the other one only made the pictures
    found = []
    for script in scripts:
        start = median(seconds[script, least])
        per_face = {count: (median(seconds[script, count]) - start) / (count - least) for count in (few, many)}
        found.append(Growth(script, few, many, per_face[few], per_face[many], start))
    return found


# --- memory -----------------------------------------------------------------------------------------


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
        sizes = {}
        for line in status.splitlines():
            if line.startswith(("RssAnon", "RssShmem", "VmRSS")):
                name, size = line.split()[:2]
                sizes[name.rstrip(":")] = int(size) * 1024
        private += sizes.get("RssAnon", 0) + sizes.get("RssShmem", 0)
        resident += sizes.get("VmRSS", 0)
    return private, resident


class Peak:
    """The most memory that a process was seen with."""

    def __init__(self) -> None:
        self.private = self.resident = 0

    def watch(self, pid: int) -> None:
        """Look at the process once more."""
        private, resident = memory_of(pid)
        self.private, self.resident = max(self.private, private), max(self.resident, resident)


def options_of_stages(config: Path) -> tuple[object, ...]:
    """Options of the three training scripts: everything but the convolutions has the size of a configuration."""
    stages = stage_count(32, load(config).vae.bottleneck)
    settings = [
        "data.root=faces",
        "data.folders=[]",
        "data.image_size=32",
        f"vae.encoder_channels={[8, 16, 16][:stages]}",
        f"vae.decoder_channels={[16, 16, 8][-stages:]}",
        "vae.lpips_weight=0",
        "vae.batch_size=256",
        "vae.epochs=1",
        "f2p.epochs=1",
        "f2p.batch_size=1024",
        "run.name=scale",
        "run.device=auto",
        "run.precision=auto",
    ]
    return ("--config", config.resolve(), *(part for setting in settings for part in ("--set", setting)))


def write_shape(folder: Path, count: int) -> None:
    """A data set by shape: `count` names of a few tiny pictures, and labels of 205 values."""
    write_data_set(folder / "some", DataSet(64, size=32, with_variants=False))
    pictures = sorted((folder / "some" / "images").iterdir())
    images = folder / "faces" / "images"
    images.mkdir(parents=True)
    for i in range(count):
        os.link(pictures[i % len(pictures)], images / f"face_{i:06d}.png")

    rows = []
    for i, values in enumerate(np.random.default_rng(0).random((count, 205))):
        rows.append(f'"face_{i:06d}": [{", ".join(f"{value:.4f}" for value in values)}]')
    (folder / "faces" / "labels.json").write_text("{" + ",\n".join(rows) + "}", encoding="utf-8")


def write_photos(folder: Path, count: int) -> None:
    """Photos by shape, `count` names of a few tiny pictures, all aligned but the last ones."""
    pictures = sorted((folder / "some" / "images").iterdir())
    photos, aligned = folder / "photos", folder / "aligned"
    photos.mkdir()
    aligned.mkdir()
    for i in range(count):
        os.link(pictures[i % len(pictures)], photos / f"{i:06d}.png")

    record = Record(aligned, photos, side=256, faces="one")
    points = tuple(np.random.default_rng(0).random(10).tolist())
    faces = shutil.copytree(folder / "some" / "images", folder / "some_faces")  # a link to a photo would be that photo
    for i, job in enumerate(find_jobs(photos, aligned)[: max(0, count - _LEFT)]):
        os.link(faces / pictures[i % len(pictures)].name, job.target)
        row = Row(job.file, "ok", 0.9876, points)
        record.add(job, Outcome(row, "", mark_of(job.source), mark_of(job.target)))
    record.save()


def measure_memory(script: str, options: tuple[object, ...], *, folder: Path, faces: int) -> dict[str, Any]:
    """Run a script and watch its memory; the most that it took is printed."""
    peak = Peak()
    seconds = run(command(script, *options), folder, peak.watch)
    private, resident = peak.private / 2**30, peak.resident / 2**30
    print(
        f"{script:22s} {faces:,} faces: {private:.2f} GiB of its own, {resident:.2f} GiB with mapped files, "
        f"{seconds:.0f} CPU seconds",
        flush=True,
    )
    return {
        "script": script,
        "faces": faces,
        "private_gib": round(private, 2),
        "resident_gib": round(resident, 2),
        "cpu_seconds": round(seconds, 1),
    }


def main() -> None:
    # Parse.
    scripts = ("face_alignment.py", "vae_trainer.py", "extract_latentvec.py", "f2p_trainer.py")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config",
        type=Path,
        default=_ROOT / "configs" / "hs_face_original.toml",
        metavar="FILE",
        help="whose stages are measured (default configs/hs_face_original.toml)",
    )
    parser.add_argument("--faces", type=int, default=140_000, help="default 140000")
    parser.add_argument(
        "--only", nargs="+", choices=scripts, metavar="SCRIPT", help="the last three need those before them"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if not Path("/proc/self/status").exists():
        raise UserError("memory is read from /proc, which this system does not have; run this on Linux")

    # Measure.
    stages = options_of_stages(options.config)
    alignment = ("--input", "photos", "--output", "aligned", "--max-unreadable", 1)
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_shape(folder, options.faces)
        write_photos(folder, options.faces)
        for script in options.only or scripts:
            given = alignment if script == "face_alignment.py" else stages
            found.append(measure_memory(script, given, folder=folder, faces=options.faces))
    if options.json:
        write_json(options.json, {"memory": found})


if __name__ == "__main__":
    run_script(main)
