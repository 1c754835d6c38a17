"""How well photos whose landmarks are known are aligned.

    python face_alignment.py --input PHOTOS/images --output DIR --faces largest
    python -m benchmarks.alignment --photos PHOTOS --aligned DIR
    python -m benchmarks.alignment --photos PHOTOS --turned [--frame 5] [--people 60]

The true five points (of the 68 iBUG landmarks in PHOTOS/landmarks.csv) are brought to the aligned 256-pixel frame
twice: by the transform of the detected points, and by that of the true ones. Their mean distance is the error.

--aligned reads what face_alignment.py wrote. --turned searches one photo of each person in four turns, and prints how
many are found with right points, that is with an error below 25 pixels, or with wrong ones.
"""

import argparse
import csv
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from datasets.people import Frame, read_annotations, read_frames
from models.mtcnn import FaceDetector
from utils.alignment import TEMPLATE_SIZE, alignment_transform, five_points, transform_points
from utils.errors import UserError, run_script
from utils.pictures import read_rgb

#: Points with a larger error are wrong, in pixels of the aligned frame. The eyes of the template are 70 apart.
_WRONG = 25.0


class Found(NamedTuple):
    """What the detector made of one photo in one turn."""

    quarters: int  #: number of quarter turns, anticlockwise
    status: str  #: "right", "wrong", "no_face" or "several_faces"
    error: float  #: NaN where no face was chosen
    seconds: float


def error_of(found: np.ndarray, true: np.ndarray) -> float:
    """Mean distance of five points (5, 2) from where the true ones would put them, in pixels of the aligned frame."""
    by_found, by_true = (alignment_transform(points, TEMPLATE_SIZE) for points in (found, true))
    distances = np.linalg.norm(transform_points(by_found, true) - transform_points(by_true, true), axis=1)
    return float(distances.mean())


# --- what face_alignment.py wrote -----------------------------------------------------------------


def report_aligned(photos: Path, aligned: Path) -> None:
    """Print the errors of the rows of alignment.csv.

    Raises:
        UserError: a table is missing or names no photo.
    """
    truth, table = read_annotations(photos), aligned / "alignment.csv"
    try:
        with open(table, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["file"] in truth]
    except OSError as error:
        raise UserError(f"cannot read {table}: {error.strerror}; expected what face_alignment.py wrote") from None

    chosen = [row for row in rows if row["status"] == "ok"]
    errors = np.array([error_of(_points_of(row), five_points(truth[row["file"]])) for row in chosen])
    if not len(errors):
        raise UserError(f"{table} names no aligned photo of {photos}")
    print(
        f"{len(rows)} photos, {len(errors)} aligned ({len(errors) / len(rows):.2%}); error at 256 px: mean "
        f"{errors.mean():.2f}, median {np.median(errors):.2f}, 95 % below {np.quantile(errors, 0.95):.2f}"
    )


def _points_of(row: dict[str, str]) -> np.ndarray:
    return np.array([[float(row[f"x{i}"]), float(row[f"y{i}"])] for i in range(5)])


# --- photos that are turned -----------------------------------------------------------------------


def one_of_each(frames: list[Frame], index: int) -> list[Frame]:
    """Frame `index` of each person who has as many, people in the order of their names."""
    of_person: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        of_person[frame.person].append(frame)
    return [own[index] for _, own in sorted(of_person.items()) if len(own) > index]


def evenly(frames: list[Frame], count: int | None) -> list[Frame]:
    """`count` of the frames, evenly spread over them; all where that is None."""
    if count is None or count >= len(frames):
        return frames
    return [frames[i * len(frames) // count] for i in range(count)]


def turned(points: np.ndarray, quarters: int, *, width: int, height: int) -> np.ndarray:
    """Points (N, 2) of a width×height picture in that picture turned anticlockwise by quarter turns."""
    for _ in range(quarters):
        points = np.stack([points[:, 1], width - 1 - points[:, 0]], 1)
        width, height = height, width
    return points


def search(detector: FaceDetector, frame: Frame, true: np.ndarray) -> list[Found]:
    """Look for the one face of a photo, whose five points are `true` (5, 2), in its four turns."""
    upright = read_rgb(frame.path)
    height, width = upright.shape[:2]
    found = []
    for quarters in range(4):
        picture = np.ascontiguousarray(np.rot90(upright, quarters))
        begin = time.perf_counter()
        faces = detector.find(picture)
        seconds = time.perf_counter() - begin

        status, chosen = faces.choose("one")
        error = float("nan")
        if chosen is not None:
            error = error_of(faces.points[chosen], turned(true, quarters, width=width, height=height))
            status = "right" if error < _WRONG else "wrong"
        found.append(Found(quarters, status, error, seconds))
    return found


def table_of(found: list[Found]) -> str:
    """A Markdown table, a row per turn. The error is the mean of what was found right, the time the median."""
    lines = ["| Turned by | Right points | Wrong points | No face | Several faces | Error at 256 px | Time per photo |"]
    lines.append("|" + "---|" * 7)
    for quarters in range(4):
        here = [one for one in found if one.quarters == quarters]
        statuses = [one.status for one in here]
        counts = [str(statuses.count(status)) for status in ("right", "wrong", "no_face", "several_faces")]
        errors = [one.error for one in here if one.status == "right"]
        error = f"{np.mean(errors):.2f} px" if errors else "–"
        time_per_photo = f"{median(one.seconds for one in here) * 1000:.0f} ms"
        lines.append("| " + " | ".join([f"{quarters * 90}°", *counts, error, time_per_photo]) + " |")
    return "\n".join(lines)


def report_turned(photos: Path, *, frame: int, people: int | None) -> None:
    """Search photos in four turns and print the table.

    Raises:
        UserError: nobody has so many photos.
    """
    frames = evenly(one_of_each(read_frames(photos), frame), people)
    if not frames:
        raise UserError(f"--frame {frame}: no person in {photos} has {frame + 1} photos; choose a lower number")
    truth, detector = read_annotations(photos), FaceDetector()
    found: list[Found] = []
    for photo in tqdm(frames, unit="photo"):
        found += search(detector, photo, five_points(truth[photo.path.name]))
    print(f"{len(frames)} photos, each in four turns\n\n{table_of(found)}")


def parse_options() -> argparse.Namespace:
    """Read the command line. Raises UserError for what cannot be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder with images/ and landmarks.csv")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--aligned", type=Path, help="what face_alignment.py made of the photos")
    what.add_argument("--turned", action="store_true", help="search the photos themselves, in four turns")
    parser.add_argument(
        "--frame",
        type=int,
        default=5,
        help="which photo of each person is turned, counted from 0 (default 5; models/mtcnn.py was tuned on 0)",
    )
    parser.add_argument("--people", type=int, help="how many people, evenly spread (default all)")
    options = parser.parse_args()
    if options.frame < 0:
        raise UserError(f"--frame is {options.frame}; expected 0 or more")
    if options.people is not None and options.people < 1:
        raise UserError(f"--people is {options.people}; expected 1 or more")
    return options


def main() -> None:
    options = parse_options()
    if options.turned:
        report_turned(options.photos, frame=options.frame, people=options.people)
    else:
        report_aligned(options.photos, options.aligned)


if __name__ == "__main__":
    run_script(main)
