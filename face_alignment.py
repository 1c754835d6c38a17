"""Align raw photos: find the face in each and warp it to the frame that the networks know.

    python face_alignment.py --input photos --output aligned
    python face_alignment.py --input party.jpg --output aligned --faces largest
    python face_alignment.py --input data/img_celeba --output data/celeba --workers 8

Reads a picture or a folder tree of PNG, JPEG, WebP and BMP pictures. Writes the aligned faces as PNG in
the same tree, and alignment.csv: for each input its status (ok, no_face, several_faces, unreadable),
the detector's score and the five points in the input's pixels; what cannot be read is listed with its
reason in unreadable.txt. Started again it does only what is new, and tries again what could not be read.
"""

import argparse
import csv
import io
import os
import time
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import torch

from utils.alignment import alignment_transform, warp
from utils.errors import Interrupted, UserError, run_script
from utils.files import lock_folder, read_json, sweep_temporaries, write_json, write_text
from utils.pictures import (
    SUFFIXES,
    UnreadablePicture,
    check_unreadable,
    find_pictures,
    read_rgb,
    unique_stems,
    write_picture,
)
from utils.progress import progress
from utils.stop import StopRequest
from utils.workers import default_workers, map_unordered

if TYPE_CHECKING:
    from models.mtcnn import Faces

STATUSES = ("ok", "no_face", "several_faces", "unreadable")
_COLUMNS = ["file", "status", "score", *(f"{axis}{i}" for i in range(5) for axis in "xy")]

#: The record is saved this often, in seconds.
_SAVE_SECONDS = 5.0

#: Pictures that a worker takes at a time; on a GPU they are searched together.
_CHUNK = {"cpu": 8, "cuda": 32}

#: With fewer pictures than this, starting processes would take longer than the work.
_WORTH_PROCESSES = 24


class Job(NamedTuple):
    """What one worker does for one picture."""

    file: str  #: path relative to the input, with "/"
    source: Path
    target: Path


class Row(NamedTuple):
    """A line of alignment.csv."""

    file: str
    status: str  #: one of `STATUSES`
    score: float | None = None
    points: tuple[float, ...] = ()  #: x0, y0, … x4, y4

    def cells(self) -> list[str]:
        """The text of the columns of alignment.csv."""
        numbers = [f"{v:.3f}" for v in self.points] or [""] * 10
        score = "" if self.score is None else f"{self.score:.4f}"
        return [self.file, self.status, score, *numbers]


class Settings(NamedTuple):
    """How pictures are aligned."""

    size: int  #: side of the aligned faces, in pixels
    faces: str  #: "one" or "largest"
    device: str  #: "cpu" or "cuda"


# --- in a worker ----------------------------------------------------------------------------------


class Aligner:
    """A detector that aligns pictures as the settings say."""

    def __init__(self, settings: Settings) -> None:
        from models.mtcnn import FaceDetector  # here: torchvision takes seconds to import, and workers do the work

        self.settings = settings
        self.detector = FaceDetector().to(settings.device)

    def align(self, jobs: list[Job]) -> list[tuple[Row, str]]:
        """Align pictures; for each its row, and for the unreadable ones why."""
        if self.settings.device == "cuda":
            return self._align_together(jobs)
        # One by one a picture's result cannot depend, by rounding, on which others it happened to be with.
        done = []
        for job in jobs:
            picture = _read(job)
            if isinstance(picture, str):
                done.append((Row(job.file, "unreadable"), picture))
            else:
                done.append((self._write(job, picture, self.detector.find(picture)), ""))
        return done

    def _align_together(self, jobs: list[Job]) -> list[tuple[Row, str]]:
        """On a GPU: it is fast with many frames at once, and must not wait for their decoding."""
        with ThreadPoolExecutor(default_workers()) as threads:
            read = list(threads.map(_read, jobs))
        found = iter(self.detector.find_all([picture for picture in read if not isinstance(picture, str)]))
        done = []
        for job, picture in zip(jobs, read, strict=True):
            if isinstance(picture, str):
                done.append((Row(job.file, "unreadable"), picture))
            else:
                done.append((self._write(job, picture, next(found)), ""))
        return done

    def _write(self, job: Job, picture: np.ndarray, faces: "Faces") -> Row:
        """Write the aligned face that is meant, if there is one; the picture's row."""
        status, index = faces.choose(self.settings.faces)
        if index is None:
            score = float(faces.scores[0]) if len(faces.scores) else None
            return Row(job.file, status, score)
        points, size = faces.points[index].astype(np.float64), self.settings.size
        write_picture(job.target, warp(picture, alignment_transform(points, size), size))
        return Row(job.file, "ok", float(faces.scores[index]), tuple(points.ravel()))


def _read(job: Job) -> np.ndarray | str:
    """A job's picture, or why it cannot be read."""
    try:
        return read_rgb(job.source)
    except UnreadablePicture as error:
        return str(error)


_aligner: Aligner | None = None


def start_worker(settings: Settings) -> None:
    """Prepare this process for `align_chunk`."""
    global _aligner
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _aligner = Aligner(settings)


def align_chunk(jobs: list[Job]) -> list[tuple[Row, str]]:
    """`Aligner.align` with the aligner of this process."""
    if _aligner is None:
        raise RuntimeError("start_worker has not been called in this process")
    return _aligner.align(jobs)


# --- the record -----------------------------------------------------------------------------------


class Record:
    """alignment.csv, and beside it, hidden, which input each row was made of."""

    def __init__(self, output: Path, settings: Settings) -> None:
        self.table, self.state = output / "alignment.csv", output / ".alignment.json"
        self.settings: dict[str, Any] = {"size": settings.size, "faces": settings.faces}
        self.rows: dict[str, Row] = {}
        self.inputs: dict[str, list[int]] = {}
        if not self.table.exists():
            return
        try:
            self._read(read_json(self.state) or {})
        except (OSError, ValueError, KeyError, TypeError, csv.Error):
            print(f"{self.table} or {self.state} is damaged; all pictures are looked at again.")
            self.rows, self.inputs = {}, {}

    def _read(self, known: dict[str, Any]) -> None:
        with open(self.table, newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                numbers = tuple(float(line[c]) for c in _COLUMNS[3:] if line[c])
                score = float(line["score"]) if line["score"] else None
                row = Row(line["file"], line["status"], score, numbers)
                if self._still_holds(row, known):
                    self.rows[row.file], self.inputs[row.file] = row, known["inputs"][row.file]

    def _still_holds(self, row: Row, known: dict[str, Any]) -> bool:
        was = known["settings"]
        if row.file not in known["inputs"] or row.status not in STATUSES or was["size"] != self.settings["size"]:
            return False
        # Which face is meant matters only where there were several, or none was asked for.
        return row.status in ("no_face", "unreadable") or was["faces"] == self.settings["faces"]

    def is_done(self, job: Job) -> bool:
        """Whether a picture was aligned before and has not changed since.

        A picture that could not be read may be readable now: a missing permission changes neither size nor time.
        """
        row = self.rows.get(job.file)
        if row is None or row.status == "unreadable" or self.inputs[job.file] != _signature(job.source):
            return False
        return row.status != "ok" or job.target.exists()

    def add(self, job: Job, row: Row) -> None:
        """Note what was made of a picture."""
        self.rows[row.file], self.inputs[row.file] = row, _signature(job.source)

    def save(self) -> None:
        """Write both files."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(self.rows[file].cells() for file in sorted(self.rows))
        write_text(self.table, text.getvalue())
        write_json(self.state, {"settings": self.settings, "inputs": self.inputs})


def _signature(path: Path) -> list[int]:
    try:
        status = os.stat(path)
        return [status.st_size, status.st_mtime_ns]
    except OSError:
        return [-1, -1]


# --- the script -----------------------------------------------------------------------------------


def find_jobs(source: Path, output: Path) -> list[Job]:
    """Inputs and where their aligned faces go; inputs that would write the same output keep their extension in it.

    Raises:
        UserError: the input is missing, no picture, or a folder without pictures.
    """
    if source.is_file():
        if not source.name.lower().endswith(SUFFIXES):
            raise UserError(f"{source} is not a picture that can be read; expected {', '.join(SUFFIXES)}")
        folder, paths = source.parent, [source]
    elif source.is_dir():
        folder, inside = source, output.resolve()
        paths = [path for path in find_pictures(source) if inside not in path.resolve().parents]
        if not paths:
            raise UserError(f"{source} holds no pictures; expected {', '.join(SUFFIXES)}, in it or in folders below it")
    else:
        raise UserError(f"there is no file or folder {source}; expected a picture or a folder of pictures")
    files = [path.relative_to(folder).as_posix() for path in paths]
    stems = unique_stems(files)
    rows = zip(files, paths, stems, strict=True)
    return [Job(file, path, output / f"{stem}.png") for file, path, stem in rows]


def parse_options() -> argparse.Namespace:
    """Read the command line. Raises UserError for what cannot be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="a picture or a folder of pictures")
    parser.add_argument("--output", type=Path, required=True, help="folder for the aligned faces and alignment.csv")
    parser.add_argument("--size", type=int, default=256, help="side of the aligned faces, pixels (default 256)")
    parser.add_argument("--workers", type=int, help="processes (default: one per core; one with --device cuda)")
    parser.add_argument(
        "--faces",
        choices=("one", "largest"),
        default="one",
        help="one: skip pictures with several faces (default); largest: take the largest of several",
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where the detector runs (default cpu)"
    )
    parser.add_argument(
        "--max-unreadable",
        type=float,
        default=0.05,
        metavar="FRACTION",
        help="exit with status 2 where more than this fraction of the pictures cannot be read (default 0.05)",
    )
    options = parser.parse_args()

    if not 16 <= options.size <= 4096:
        raise UserError(f"--size is {options.size}; expected 16 to 4096 pixels")
    if not 0 <= options.max_unreadable <= 1:
        raise UserError(f"--max-unreadable is {options.max_unreadable}; expected a fraction from 0 to 1")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is available; leave the option out to use the CPU")
    if options.output.is_file():
        raise UserError(f"--output {options.output} is a file; expected a folder")
    if options.workers is None:
        options.workers = 1 if options.device == "cuda" else default_workers()
    return options


def align_all(
    todo: list[Job], record: Record, options: argparse.Namespace
) -> Generator[list[tuple[Row, str]], None, None]:
    """Align pictures, a chunk at a time, and note each in the record, which is saved now and then and at the end.

    Yields:
        After each chunk: the rows of its pictures, and why those that could not be read could not.
    """
    settings = Settings(options.size, options.faces, options.device)
    by_file = {job.file: job for job in todo}
    length = _CHUNK[options.device]
    chunks = [todo[i : i + length] for i in range(0, len(todo), length)]
    workers = options.workers if options.workers > 1 and len(todo) >= _WORTH_PROCESSES else 0
    results = map_unordered(align_chunk, chunks, workers=workers, initializer=start_worker, arguments=(settings,))
    saved = time.monotonic()
    try:
        for done in results:
            for row, _ in done:
                record.add(by_file[row.file], row)
            yield done
            if time.monotonic() - saved > _SAVE_SECONDS:
                record.save()
                saved = time.monotonic()
    finally:
        results.close()
        record.save()


def run(jobs: list[Job], options: argparse.Namespace) -> None:
    """Align what is new, and say what was found."""
    record = Record(options.output, Settings(options.size, options.faces, options.device))
    for folder in {options.output, *(job.target.parent for job in jobs)}:
        if folder.exists():
            sweep_temporaries(folder)

    # Rows of inputs that are gone stay: their aligned faces are still there.
    todo = [job for job in jobs if not record.is_done(job)]
    started, before = time.monotonic(), len(jobs) - len(todo)
    reasons: dict[str, str] = {}
    stop = StopRequest()
    with progress(total=len(jobs), initial=before, unit="picture", desc="aligning") as bar:
        aligned = align_all(todo, record, options)
        for done in aligned:
            reasons |= {row.file: reason for row, reason in done if reason}
            bar.update(len(done))
            if stop.requested:
                break
        aligned.close()
    if stop.requested:
        raise Interrupted(f"Stopped; {len(record.rows)} pictures are done and kept. The same command does the rest.")

    # Report.
    counts = Counter(record.rows[job.file].status for job in jobs)
    seconds = time.monotonic() - started
    found = ", ".join(f"{counts[status]} {status}" for status in STATUSES)
    each = f", {seconds / len(todo) * 1000:.0f} ms per picture" if todo else ""
    print(f"{len(jobs)} pictures: {found}; {before} were done before; {seconds:.1f} s{each}; {record.table}")
    check_unreadable(
        reasons,
        total=len(jobs),
        most=options.max_unreadable,
        setting="--max-unreadable",
        listing=options.output / "unreadable.txt",
    )


def main() -> None:
    options = parse_options()
    jobs = find_jobs(options.input, options.output)
    with lock_folder(options.output, "face_alignment.py"):
        run(jobs, options)


if __name__ == "__main__":
    run_script(main)
