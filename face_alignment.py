"""Align raw photos: find the face in each and warp it to the frame that the networks know.

    python face_alignment.py --input photos --output aligned
    python face_alignment.py --input party.jpg --output aligned --faces largest
    python face_alignment.py --input data/img_celeba --output data/celeba --workers 8

Reads a picture or a folder tree of PNG, JPEG, WebP and BMP pictures. Writes the aligned faces as PNG in
the same tree, and alignment.csv: for each input its status (ok, no_face, several_faces, unreadable),
the detector's score and the five points in the input's pixels; what cannot be read is listed with its
reason in unreadable.txt. Started again it does only what is new, and tries again what could not be read.
A face is replaced or removed only by what is made of the same input; other files are never touched.
"""

import argparse
import time
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from datasets.alignment_record import STATUSES, Job, Outcome, Record, Row, files_of
from models.faces import Faces
from utils.alignment import alignment_transform, warp
from utils.errors import Interrupted, UserError, run_script
from utils.files import is_refused_name, lock_folder, sweep_temporaries
from utils.identity import Mark, mark_of, refuse_to_overwrite
from utils.pictures import (
    SUFFIXES,
    UnreadablePicture,
    check_unreadable,
    find_pictures,
    read_rgb,
    refuse_other_listing,
    unique_stems,
    write_picture,
)
from utils.progress import progress
from utils.stop import StopRequest
from utils.workers import default_workers, map_unordered

#: The record is saved this often, in seconds.
_SAVE_SECONDS = 5.0

#: Pictures that a worker takes at a time; on a GPU they are searched together.
_CHUNK = {"cpu": 8, "cuda": 32}

#: With fewer pictures than this, starting processes would take longer than the work.
_WORTH_PROCESSES = 24


class Settings(NamedTuple):
    """How pictures are aligned."""

    size: int  #: side of the aligned faces, in pixels
    faces: str  #: "one" or "largest"
    device: str  #: "cpu" or "cuda"


# --- in a worker ----------------------------------------------------------------------------------


class Seen(NamedTuple):
    """A job's picture, read."""

    job: Job
    mark: Mark  #: of the file, before it was read
    picture: np.ndarray | None  #: (H, W, 3) uint8; None where it cannot be read
    reason: str  #: why it cannot be read, or ""


class Aligner:
    """A detector that aligns pictures as the settings say."""

    def __init__(self, settings: Settings) -> None:
        from models.mtcnn import FaceDetector  # here: torchvision takes seconds to import, and workers do the work

        self.settings = settings
        self.detector = FaceDetector().to(settings.device)

    def align(self, jobs: list[Job]) -> list[Outcome]:
        """Align pictures, write the aligned faces, and say for each what was made of it."""
        if self.settings.device == "cuda":
            return self._align_together(jobs)
        # One by one a picture's result cannot depend, by rounding, on which others it happened to be with.
        done = []
        for seen in map(_read, jobs):
            faces = None if seen.picture is None else self.detector.find(seen.picture)
            done.append(self._write(seen, faces))
        return done

    def _align_together(self, jobs: list[Job]) -> list[Outcome]:
        """On a GPU: it is fast with many frames at once, and must not wait for their decoding."""
        with ThreadPoolExecutor(default_workers()) as threads:
            read = list(threads.map(_read, jobs))
        found = iter(self.detector.find_all([seen.picture for seen in read if seen.picture is not None]))
        done = []
        for seen in read:
            faces = None if seen.picture is None else next(found)
            done.append(self._write(seen, faces))
        return done

    def _write(self, seen: Seen, faces: Faces | None) -> Outcome:
        """Write the aligned face that is meant, if there is one."""
        job, size = seen.job, self.settings.size
        if seen.picture is None or faces is None:
            return Outcome(Row(job.file, "unreadable"), seen.reason, seen.mark, None)
        status, index = faces.choose(self.settings.faces)
        if index is None:
            score = float(faces.scores[0]) if len(faces.scores) else None
            return Outcome(Row(job.file, status, score), "", seen.mark, None)

        points = faces.points[index].astype(np.float64)
        try:
            write_picture(job.target, warp(seen.picture, alignment_transform(points, size), size))
        except OSError as error:
            if not is_refused_name(error):
                raise
            reason = f"the output folder cannot hold a file of its name ({error.strerror})"
            return Outcome(Row(job.file, "unreadable"), reason, seen.mark, None)
        row = Row(job.file, "ok", float(faces.scores[index]), tuple(points.ravel()))
        return Outcome(row, "", seen.mark, mark_of(job.target))


def _read(job: Job) -> Seen:
    """A job's picture, or why it cannot be read."""
    mark = mark_of(job.source)
    try:
        return Seen(job, mark, read_rgb(job.source), "")
    except UnreadablePicture as error:
        return Seen(job, mark, None, str(error))


_aligner: Aligner | None = None


def start_worker(settings: Settings) -> None:
    """Prepare this process for `align_chunk`."""
    global _aligner
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _aligner = Aligner(settings)


def align_chunk(jobs: list[Job]) -> list[Outcome]:
    """`Aligner.align` with the aligner of this process."""
    if _aligner is None:
        raise RuntimeError("start_worker has not been called in this process")
    return _aligner.align(jobs)


# --- the script -----------------------------------------------------------------------------------


def find_jobs(source: Path, output: Path) -> list[Job]:
    """Inputs and where their aligned faces go; inputs that would write the same output keep their extension in it.

    Raises:
        UserError: the input is missing, no picture, or a folder without pictures; input and output are one folder.
    """
    if source.is_file():
        if not source.name.lower().endswith(SUFFIXES):
            raise UserError(f"{source} is not a picture that can be read; expected {', '.join(SUFFIXES)}")
        paths = [source]
    elif source.is_dir():
        paths = find_inputs(source, output)
    else:
        raise UserError(f"there is no file or folder {source}; expected a picture or a folder of pictures")
    files = [path.relative_to(folder_of(source)).as_posix() for path in paths]
    stems = unique_stems(files)
    rows = zip(files, paths, stems, strict=True)
    return [Job(file, path, output / f"{stem}.png") for file, path, stem in rows]


def folder_of(source: Path) -> Path:
    """The input folder of an input, which may be one picture."""
    return source if source.is_dir() else source.parent


def find_inputs(source: Path, output: Path) -> list[Path]:
    """The pictures of a folder, but for those in an output folder below it.

    Raises:
        UserError: there are none; or the folder is the output folder.
    """
    if output.is_dir() and output.samefile(source):
        raise UserError(
            f"--input and --output are the same folder, {source}: photos and aligned faces would be mixed. Choose "
            "another --output"
        )
    found, inside = find_pictures(source), output.resolve()
    if not found:
        raise UserError(f"{source} holds no pictures; expected {', '.join(SUFFIXES)}, in it or in folders below it")
    if inside in source.resolve().parents:
        return found
    paths = [path for path in found if inside not in path.resolve().parents]
    if not paths:
        raise UserError(
            f"all {len(found)} pictures in {source} lie in the output folder, {output}, and are taken for aligned "
            "faces. Choose another --output, or an --input that holds photos"
        )
    return paths


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


def align_all(todo: list[Job], record: Record, options: argparse.Namespace) -> Generator[list[Outcome], None, None]:
    """Align pictures, a chunk at a time, and note each in the record, which is saved now and then and at the end.

    Yields:
        After each chunk: what was made of its pictures.
    """
    settings = Settings(options.size, options.faces, options.device)
    by_file = {job.file: job for job in todo}
    length = _CHUNK[options.device]
    chunks = [todo[i : i + length] for i in range(0, len(todo), length)]
    workers = options.workers if options.workers > 1 and len(todo) >= _WORTH_PROCESSES else 0
    results = map_unordered(align_chunk, chunks, workers=workers, initializer=start_worker, arguments=(settings,))
    saved = time.monotonic()
    try:
        record.begin(todo)
        for done in results:
            for outcome in done:
                record.add(by_file[outcome.row.file], outcome)
            yield done
            if time.monotonic() - saved > _SAVE_SECONDS:
                record.save()
                saved = time.monotonic()
    finally:
        results.close()
        record.finish()


def run(jobs: list[Job], options: argparse.Namespace) -> None:
    """Align what is new, and say what was found."""
    # Plan. Rows of inputs that are gone stay: their aligned faces are still there.
    record = Record(options.output, folder_of(options.input), side=options.size, faces=options.faces)
    record.adopt(jobs)
    todo = [job for job in jobs if not record.is_done(job)]
    record.refuse_conflicts(todo, jobs)
    for folder in {options.output, *(job.target.parent for job in jobs)}:
        if folder.exists():
            sweep_temporaries(folder)

    # Align.
    started, before = time.monotonic(), len(jobs) - len(todo)
    reasons: dict[str, str] = {}
    stop = StopRequest()
    with progress(total=len(jobs), initial=before, unit="picture", desc="aligning") as bar:
        aligned = align_all(todo, record, options)
        for done in aligned:
            reasons |= {outcome.row.file: outcome.reason for outcome in done if outcome.reason}
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
    jobs, listing = find_jobs(options.input, options.output), options.output / "unreadable.txt"
    beside = [*files_of(options.output), listing, options.output / ".lock"]
    refuse_to_overwrite([job.source for job in jobs], [*(job.target for job in jobs), *beside])
    refuse_other_listing(listing)
    with lock_folder(options.output, "face_alignment.py"):
        run(jobs, options)


if __name__ == "__main__":
    run_script(main)
