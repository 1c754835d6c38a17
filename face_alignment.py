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
import json
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from models.mtcnn import FaceDetector, Faces
from utils.alignment import alignment_transform, warp
from utils.errors import Interrupted, UserError, run_script
from utils.files import hold, sweep_temporaries, write_json, write_text
from utils.pictures import (SUFFIXES, UnreadablePicture, find_pictures, list_unreadable, read_rgb, unique_stems,
                            write_picture)
from utils.progress import progress
from utils.training import StopRequest
from utils.workers import default_workers, map_unordered

STATUSES = ("ok", "no_face", "several_faces", "unreadable")
_COLUMNS = ["file", "status", "score"] + [f"{axis}{i}" for i in range(5) for axis in "xy"]
_SAVE_SECONDS = 5.0


class Job(NamedTuple):
    """What one worker does for one picture."""

    file: str           #: path relative to the input, with "/"
    source: Path
    target: Path


class Row(NamedTuple):
    """A line of alignment.csv."""

    file: str
    status: str
    score: float | None = None
    points: tuple[float, ...] = ()      #: x0, y0, … x4, y4

    def cells(self) -> list[str]:
        numbers = [f"{v:.3f}" for v in self.points] or [""] * 10
        return [self.file, self.status, "" if self.score is None else f"{self.score:.4f}", *numbers]


_detector: FaceDetector | None = None
_size, _which = 256, "one"


def _start_worker(size: int, which: str, device: str) -> None:
    global _detector, _size, _which
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _detector, _size, _which = FaceDetector().to(device), size, which


def align(jobs: list[Job]) -> list[tuple[Row, str]]:
    """Align pictures; for each its row, and for the unreadable ones why."""
    on_gpu = next(_detector.parameters()).is_cuda
    if on_gpu:  # it is fast with many frames at once, and must not wait for their decoding
        with ThreadPoolExecutor(default_workers()) as threads:
            read = list(threads.map(_read, jobs))
        found = iter(_detector.find_all([picture for picture in read if isinstance(picture, np.ndarray)]))
    else:  # one by one a picture's result cannot depend, by rounding, on which others it happened to be with
        read = map(_read, jobs)
    done = []
    for job, picture in zip(jobs, read):
        if isinstance(picture, str):
            done.append((Row(job.file, "unreadable"), picture))
        else:
            done.append((_align_one(job, picture, next(found) if on_gpu else _detector.find(picture)), ""))
    return done


def _read(job: Job) -> np.ndarray | str:
    """A job's picture, or why it cannot be read."""
    try:
        return read_rgb(job.source)
    except UnreadablePicture as error:
        return str(error)


def _align_one(job: Job, picture: np.ndarray, faces: Faces) -> Row:
    status, index = faces.choose(_which)
    if index is None:
        return Row(job.file, status, float(faces.scores[0]) if len(faces.scores) else None)
    points = faces.points[index].astype(np.float64)
    write_picture(job.target, warp(picture, alignment_transform(points, _size), _size))
    return Row(job.file, "ok", float(faces.scores[index]), tuple(points.ravel()))


class Record:
    """alignment.csv, and beside it, hidden, which input each row was made of."""

    def __init__(self, output: Path, size: int, which: str) -> None:
        self.table, self.state = output / "alignment.csv", output / ".alignment.json"
        self.settings = {"size": size, "faces": which}
        self.rows: dict[str, Row] = {}
        self.inputs: dict[str, list[int]] = {}
        try:
            known = json.loads(self.state.read_text(encoding="utf-8"))
            with open(self.table, newline="", encoding="utf-8") as file:
                for line in csv.DictReader(file):
                    numbers = tuple(float(line[c]) for c in _COLUMNS[3:] if line[c])
                    row = Row(line["file"], line["status"], float(line["score"]) if line["score"] else None, numbers)
                    if self._still_holds(row, known):
                        self.rows[row.file], self.inputs[row.file] = row, known["inputs"][row.file]
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, csv.Error):
            print(f"{self.table} or {self.state} is damaged; all pictures are looked at again.")
            self.rows, self.inputs = {}, {}

    def _still_holds(self, row: Row, known: dict) -> bool:
        if row.file not in known["inputs"] or row.status not in STATUSES or known["settings"]["size"] != self.settings["size"]:
            return False
        # Which face is meant matters only where there were several, or none was asked for.
        return row.status in ("no_face", "unreadable") or known["settings"]["faces"] == self.settings["faces"]

    def is_done(self, job: Job) -> bool:
        row = self.rows.get(job.file)
        # A picture that could not be read may be readable now: a missing permission changes neither size nor time.
        return (row is not None and row.status != "unreadable" and self.inputs[job.file] == _signature(job.source)
                and (row.status != "ok" or job.target.exists()))

    def add(self, job: Job, row: Row) -> None:
        self.rows[row.file], self.inputs[row.file] = row, _signature(job.source)

    def save(self) -> None:
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
        folder = source
        inside = output.resolve()
        paths = [p for p in find_pictures(source) if inside not in p.resolve().parents]
        if not paths:
            raise UserError(f"{source} holds no pictures; expected {', '.join(SUFFIXES)}, in it or in folders below it")
    else:
        raise UserError(f"there is no file or folder {source}; expected a picture or a folder of pictures")
    files = [p.relative_to(folder).as_posix() for p in paths]
    return [Job(file, path, output / f"{stem}.png") for file, path, stem in zip(files, paths, unique_stems(files))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="a picture or a folder of pictures")
    parser.add_argument("--output", type=Path, required=True, help="folder for the aligned faces and alignment.csv")
    parser.add_argument("--size", type=int, default=256, help="side of the aligned faces, pixels (default 256)")
    parser.add_argument("--workers", type=int, default=None, help="processes (default: one a core; one with --device cuda)")
    parser.add_argument("--faces", choices=("one", "largest"), default="one",
                        help="one: skip pictures with several faces (default); largest: take the largest of several")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the detector runs (default cpu)")
    parser.add_argument("--max-unreadable", type=float, default=0.05, metavar="SHARE",
                        help="exit with status 2 where more than this share of the pictures cannot be read (default 0.05)")
    options = parser.parse_args()
    if not 16 <= options.size <= 4096:
        raise UserError(f"--size is {options.size}; expected 16 to 4096 pixels")
    if not 0 <= options.max_unreadable <= 1:
        raise UserError(f"--max-unreadable is {options.max_unreadable}; expected a share from 0 to 1")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is available; leave the option out to use the CPU")
    if options.output.is_file():
        raise UserError(f"--output {options.output} is a file; expected a folder")
    workers = options.workers if options.workers is not None else 1 if options.device == "cuda" else default_workers()
    jobs = find_jobs(options.input, options.output)
    with hold(options.output, "face_alignment.py"):
        run(jobs, options, workers)


def run(jobs: list[Job], options: argparse.Namespace, workers: int) -> None:
    record = Record(options.output, options.size, options.faces)
    for folder in {options.output, *(job.target.parent for job in jobs)}:
        if folder.exists():
            sweep_temporaries(folder)
    todo = [job for job in jobs if not record.is_done(job)]
    # Rows of inputs that are gone stay: their aligned faces are still there.
    by_file = {job.file: job for job in todo}
    length = 32 if options.device == "cuda" else 8
    chunks = [todo[i:i + length] for i in range(0, len(todo), length)]
    reasons: dict[str, str] = {}
    started = saved = time.monotonic()
    stop = StopRequest()
    if len(todo) < 24:
        workers = 1  # starting processes would take longer than the work
    with progress(total=len(jobs), initial=len(jobs) - len(todo), unit="picture", desc="aligning") as bar:
        results = map_unordered(align, chunks, workers, _start_worker, (options.size, options.faces, options.device))
        try:
            for done in results:
                for row, reason in done:
                    record.add(by_file[row.file], row)
                    if reason:
                        reasons[row.file] = reason
                bar.update(len(done))
                if time.monotonic() - saved > _SAVE_SECONDS:
                    record.save()
                    saved = time.monotonic()
                if stop.requested:
                    break
        finally:
            results.close()
            record.save()
    if stop.requested:
        raise Interrupted(f"Stopped; {len(record.rows)} pictures are done and kept. The same command does the rest.")
    counts = Counter(record.rows[job.file].status for job in jobs)
    seconds = time.monotonic() - started
    print(f"{len(jobs)} pictures: " + ", ".join(f"{counts[s]} {s}" for s in STATUSES)
          + f"; {len(jobs) - len(todo)} were done before; {seconds:.1f} s"
          + (f", {seconds / len(todo) * 1000:.0f} ms a picture" if todo else "") + f"; {record.table}")
    list_unreadable(options.output / "unreadable.txt", reasons, len(jobs), options.max_unreadable, "--max-unreadable")


if __name__ == "__main__":
    run_script(main)
