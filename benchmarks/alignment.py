"""How well face_alignment.py aligns photos whose landmarks are known.

    python face_alignment.py --input PHOTOS/images --output DIR --faces largest
    python -m benchmarks.alignment --photos PHOTOS --aligned DIR

Brings the true five points (of 68 iBUG landmarks in PHOTOS/landmarks.csv) to the 256-pixel frame twice:
by the transform of the detected points and by that of the true ones. Their mean distance is the error.
"""

import argparse
import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.alignment import alignment_transform, five_points, transform_points
from utils.errors import UserError, run_script


class Annotation(NamedTuple):
    """A row of landmarks.csv."""

    person: str | None      #: None where the table has no such column
    landmarks: np.ndarray   #: (68, 2) in the picture's pixels


def read_annotations(photos: Path) -> dict[str, Annotation]:
    """Picture name → annotation, of PHOTOS/landmarks.csv. Raises UserError where that is missing or something else."""
    table = photos / "landmarks.csv"
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            return {row["name"]: Annotation(row.get("person"), np.array([[float(row[f"{axis}{i}"]) for axis in "xy"] for i in range(68)]))
                    for row in csv.DictReader(file)}
    except OSError as error:
        raise UserError(f"cannot read {table}: {error.strerror}; expected images/ and landmarks.csv in --photos") from None
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{table} is not as expected (name, person, x0, y0 … x67, y67): {error}") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--aligned", type=Path, required=True)
    options = parser.parse_args()
    truth = read_annotations(options.photos)
    with open(options.aligned / "alignment.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["file"] in truth]
    errors = []
    for row in rows:
        if row["status"] != "ok":
            continue
        points = five_points(truth[row["file"]].landmarks)
        found = np.array([[float(row[f"x{i}"]), float(row[f"y{i}"])] for i in range(5)])
        errors.append(np.linalg.norm(transform_points(alignment_transform(found, 256), points)
                                     - transform_points(alignment_transform(points, 256), points), axis=1).mean())
    errors = np.array(errors)
    print(f"{len(rows)} photos, {len(errors)} aligned ({len(errors) / len(rows):.2%}); error at 256 px: mean {errors.mean():.2f}, "
          f"median {np.median(errors):.2f}, 95 % below {np.quantile(errors, 0.95):.2f}")


if __name__ == "__main__":
    run_script(main)
