"""How much of a person a fitted character keeps: what fit_photos.py finds, drawn, and seen by the same observer.

    python face_alignment.py --input DIR/images --output ALIGNED --faces largest
    python -m benchmarks.fit --data DATA --photos ALIGNED [--people TABLE|folders] [--json FILE]

Reads DATA, a data set of an embedded game, pictures of 128 pixels or more; ALIGNED, aligned faces; who is on each, as
fit_photos.py, without which every photo is of another person. Says in how many pictures the observer finds a face, how
far its points are explained on held-out renders and variants, how well parameters are recovered there; and of twelve
facial ratios Spearman's ρ over people between photos and fitted characters, both measured by the observer, as
benchmarks.photos does. Each photo has its own fit, without a part of its person's. Nothing is learned from the photos.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.photos import FEWEST, Mesh, compare_all, print_table
from datasets.people import FOLDERS, is_frontal, people_of, ratios
from fit_photos import COUNT, learn_fitter, look_at
from games.fit import emphasised
from games.game import embedded_game
from games.writer import manifest_version
from models.facemesh import IBUG
from utils.errors import UserError, run_script
from utils.files import write_json
from utils.pictures import find_pictures


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data set of an embedded game")
    parser.add_argument("--photos", type=Path, required=True, help="folder of aligned faces, of face_alignment.py")
    parser.add_argument("--people", metavar=f"TABLE|{FOLDERS}", help="who is on each photo, as fit_photos.py")
    parser.add_argument("--count", type=int, default=COUNT, help=f"characters that are looked at (default {COUNT})")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


def main() -> None:
    # Parse, check.
    options = parse_options()
    game = embedded_game(manifest_version(options.data))
    if game is None:
        raise UserError(f"{options.data} is of a game that cannot be drawn here; expected one of an embedded game")
    paths = find_pictures(options.photos) if options.photos.is_dir() else []
    people = np.array([str(path) for path in paths])
    if options.people:
        people = np.array(people_of(paths, options.people, folder=options.photos))

    # Fit, draw, look again.
    observer = Mesh()
    fitter = learn_fitter(observer.network, options.data, count=options.count)
    found = look_at(observer.network, paths, f"looking at {options.photos}")
    kept = np.flatnonzero(found.present & is_frontal(found.points[:, IBUG]))
    fits = fitter.fit(found.points[kept])
    fits = emphasised(fits, fitter.emphasis(fits, found.points[kept]))
    drawn = observer.characters(game, fits)
    seen = np.isfinite(drawn).all((1, 2))
    if len(set(people[kept[seen]])) < FEWEST:
        raise UserError(
            f"{options.photos} shows fewer than {FEWEST} people from the front; there is nothing to correlate"
        )

    # Compare.
    photos, people = ratios(found.points[kept[seen]][:, IBUG]), people[kept[seen]]
    by_frame = {"photo": np.array(list(photos.values())), "rho": np.array(list(ratios(drawn[seen]).values()))}
    rows, summary = compare_all(by_frame, people)
    result = {
        "people": len(set(people)),
        "frames": len(people),
        "ratios": dict(zip(photos, rows, strict=True)),
    } | summary
    print_table(result)
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    run_script(main)
