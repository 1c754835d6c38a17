"""How well face_alignment.py aligns photos whose landmarks are known.

    python face_alignment.py --input PHOTOS/images --output DIR --faces largest
    python -m benchmarks.alignment --photos PHOTOS --aligned DIR

The true five points (of the 68 iBUG landmarks in PHOTOS/landmarks.csv) are brought to the aligned 256-pixel frame
twice: by the transform of the detected points, and by that of the true ones. Their mean distance is the error.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from datasets.people import read_annotations
from utils.alignment import TEMPLATE_SIZE, alignment_transform, five_points, transform_points
from utils.errors import UserError, run_script


def error_of(row: dict[str, str], landmarks: np.ndarray) -> float:
    """The error of a row of alignment.csv, in pixels of the aligned frame; landmarks (68, 2) are the true ones."""
    true = five_points(landmarks)
    found = np.array([[float(row[f"x{i}"]), float(row[f"y{i}"])] for i in range(5)])
    by_found, by_true = (alignment_transform(points, TEMPLATE_SIZE) for points in (found, true))
    distances = np.linalg.norm(transform_points(by_found, true) - transform_points(by_true, true), axis=1)
    return float(distances.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder with landmarks.csv")
    parser.add_argument("--aligned", type=Path, required=True, help="what face_alignment.py made of the photos")
    options = parser.parse_args()

    truth = read_annotations(options.photos)
    with open(options.aligned / "alignment.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["file"] in truth]
    errors = np.array([error_of(row, truth[row["file"]]) for row in rows if row["status"] == "ok"])
    if not len(errors):
        raise UserError(f"{options.aligned / 'alignment.csv'} names no aligned photo of {options.photos}")

    print(
        f"{len(rows)} photos, {len(errors)} aligned ({len(errors) / len(rows):.2%}); error at 256 px: mean "
        f"{errors.mean():.2f}, median {np.median(errors):.2f}, 95 % below {np.quantile(errors, 0.95):.2f}"
    )


if __name__ == "__main__":
    run_script(main)
