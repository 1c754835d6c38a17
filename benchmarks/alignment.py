"""How well face_alignment.py aligns photos whose landmarks are known.

    python face_alignment.py --input PHOTOS/images --output DIR --faces largest
    python -m benchmarks.alignment --photos PHOTOS --aligned DIR

Brings the true five points (of 68 iBUG landmarks in PHOTOS/landmarks.csv) to the 256-pixel frame twice:
by the transform of the detected points and by that of the true ones. Their mean distance is the error.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from utils.alignment import alignment_transform, five_points, transform_points
from utils.errors import run_script


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--aligned", type=Path, required=True)
    options = parser.parse_args()
    with open(options.photos / "landmarks.csv", newline="", encoding="utf-8") as file:
        truth = {row["name"]: np.array([[float(row[f"x{i}"]), float(row[f"y{i}"])] for i in range(68)]) for row in csv.DictReader(file)}
    with open(options.aligned / "alignment.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["file"] in truth]
    errors = []
    for row in rows:
        if row["status"] != "ok":
            continue
        points = five_points(truth[row["file"]])
        found = np.array([[float(row[f"x{i}"]), float(row[f"y{i}"])] for i in range(5)])
        errors.append(np.linalg.norm(transform_points(alignment_transform(found, 256), points)
                                     - transform_points(alignment_transform(points, 256), points), axis=1).mean())
    errors = np.array(errors)
    print(f"{len(rows)} photos, {len(errors)} aligned ({len(errors) / len(rows):.2%}); error at 256 px: mean {errors.mean():.2f}, "
          f"median {np.median(errors):.2f}, 95 % below {np.quantile(errors, 0.95):.2f}")


if __name__ == "__main__":
    run_script(main)
