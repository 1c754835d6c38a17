"""Fit parameters to aligned photos, so that stages 1 and 2 can learn from the photos (data.photos).

    python face_alignment.py --input PHOTOS --output ALIGNED --faces largest
    python fit_photos.py --data data/observed --photos ALIGNED --output data/people

Reads   DATA         a data set of the game in the HS_FACE layout, pictures of 128 pixels or more
        ALIGNED      aligned faces
Writes  OUTPUT/images/         these faces
        OUTPUT/labels.json     parameters of the faces seen from the front; written last
        OUTPUT/parameters.csv  the game's table

One observer, a network that finds the points of a face (models/facemesh.py), looks at the game's renders and at the
photos. From the renders it is learned how parameters move its points; how well that works is printed. A photo gets the
parameters of the character whose points are nearest to the photo's. Parameters that do not show in the points
stay at the average character's. With --people and --fold a fifth of the people is left out, for benchmarks.photos.
"""

import argparse
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.labels import find_parts, read_labels, read_splits
from datasets.names import SPLITS
from datasets.people import FOLDS, LEARNED, check_photos, fold_of, is_frontal, people_of, write_photos
from games.fit import Fitter, Seen
from games.game import embedded_game
from games.parameters import read_parameters
from games.writer import manifest_version
from models.facemesh import IBUG, POINTS, FaceMesh, Meshes
from utils.errors import UserError, run_script
from utils.pictures import UnreadablePicture, find_pictures, read_rgb
from utils.progress import progress

#: Renders that are looked at unless the person says otherwise.
COUNT = 2000

#: Side of the smallest renders that the observer sees well, pixels.
_SMALLEST = 128

#: Pictures in memory at a time.
_BLOCK = 64


class Renders(NamedTuple):
    """A data set as the observer sees it, by split; pictures in which it finds no face are left out."""

    images: dict[str, Seen]
    aug_images: dict[str, Seen]  #: empty without variants


# --- observing ------------------------------------------------------------------------------------


def look_at(mesh: FaceMesh, paths: Sequence[Path], title: str) -> Meshes:
    """The meshes of aligned faces in files; in a picture that cannot be read there is no face."""
    points, presence = np.zeros((len(paths), POINTS, 2)), np.zeros(len(paths))
    remaining = iter(progress(iterable=enumerate(paths), total=len(paths), desc=title, unit="picture"))
    while block := list(islice(remaining, _BLOCK)):
        faces = {i: face for i, path in block if (face := _read(path)) is not None}
        found = mesh.find_aligned(list(faces.values()))
        points[list(faces)], presence[list(faces)] = found
    return Meshes(points, presence)


def _read(path: Path) -> np.ndarray | None:
    try:
        return read_rgb(path)
    except UnreadablePicture:
        return None


def look_at_renders(mesh: FaceMesh, root: Path, count: int) -> Renders:
    """Look at `count` characters of a data set, evenly spread over it.

    Raises:
        UserError: no data set, no labels, or its pictures are too small.
    """
    labels, parts = read_labels(root), find_parts(root)
    parameters = dict(zip(labels.names, labels.values.astype(np.float64), strict=True))
    names = [name for name in parts["images"] if name in parameters]
    names = names[:: max(1, len(names) // count)][:count]
    split = read_splits(root, names)
    _check_size(root, [parts["images"][name] for name in names])

    seen = {}
    for part, files in parts.items():
        of_part = [name for name in names if name in files and name in split]
        found = look_at(mesh, [files[name] for name in of_part], f"looking at {root / part}")
        print(f"a face was found in {found.present.mean():.1%} of {len(of_part)} pictures of {root / part}")
        seen[part] = {
            which: _seen(found, parameters, [name if split[name] == which else "" for name in of_part])
            for which in SPLITS
        }
    return Renders(seen["images"], seen.get("aug_images", {}))


def _seen(found: Meshes, parameters: dict[str, np.ndarray], names: list[str]) -> Seen:
    """Those of the pictures that show a face and have a name."""
    rows = [i for i, name in enumerate(names) if name and found.present[i]]
    known = np.array([parameters[names[i]] for i in rows])
    return Seen(found.points[rows], known.reshape(len(rows), len(next(iter(parameters.values())))))


def _check_size(root: Path, paths: list[Path]) -> None:
    """Raises UserError where the first picture that can be read is too small, or there is none."""
    first = next((picture for path in paths if (picture := _read(path)) is not None), None)
    if first is None:
        raise UserError(f"none of the labelled pictures in {root / 'images'} can be read")
    if len(first) < _SMALLEST:
        raise UserError(
            f"{root} holds pictures of {len(first)} pixels; the observer needs {_SMALLEST} or more. Choose another "
            "--data; the embedded game writes one with python -m games write --count 2000 --size 256 --output DATA"
        )


# --- fitting --------------------------------------------------------------------------------------


def learn_fitter(mesh: FaceMesh, root: Path, *, count: int = COUNT) -> Fitter:
    """What parameters do to the points that the observer sees, learned from a data set; how well is printed.

    Raises:
        UserError: as `look_at_renders`, or too few faces.
    """
    renders = look_at_renders(mesh, root, count)
    game = embedded_game(manifest_version(root))
    variants = renders.aug_images.get("train")
    average = None if game is None else game.average()
    fitter = Fitter(renders.images["train"], renders.images["val"], variants=variants, average=average)
    for title, part in (("renders", renders.images), ("variants", renders.aug_images)):
        if part and len(part["test"].points):
            print(describe(fitter, part["test"], title))
    return fitter


def describe(fitter: Fitter, test: Seen, title: str) -> str:
    """How well held-out pictures of a kind are explained, for people."""
    report = fitter.report(test)
    shown = report.rho[fitter.shown]
    rho = float(shown.mean()) if len(shown) else 0.0
    return (
        f"{len(test.points)} held-out {title}: points are {report.error:.2f} px from where the parameters put them "
        f"({report.error_of_mean:.2f} px from the mean face's); {len(shown)} of {len(report.rho)} parameters show in "
        f"the points and are recovered with a mean ρ of {rho:.2f}, the others stay average"
    )


def chosen_photos(options: argparse.Namespace) -> list[Path]:
    """The aligned faces of people who are not held out.

    Raises:
        UserError: there are none, or one has no person where people are held out.
    """
    paths = find_pictures(options.photos) if options.photos.is_dir() else []
    if not paths:
        raise UserError(
            f"{options.photos} holds no pictures; expected aligned faces. Run face_alignment.py --input PHOTOS "
            f"--output {options.photos} --faces largest first"
        )
    if options.fold is None:
        return paths
    people = people_of(paths, options.people)
    return [path for path, person in zip(paths, people, strict=True) if fold_of(person) != options.fold]


# --- the script -----------------------------------------------------------------------------------


def parse_options() -> argparse.Namespace:
    """Read the command line. Raises UserError where people are held out whom nobody knows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data set of the game, pictures of 128 px or more")
    parser.add_argument("--photos", type=Path, required=True, help="folder of aligned faces, of face_alignment.py")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--count", type=int, default=COUNT, help=f"characters that are looked at (default {COUNT})")
    parser.add_argument("--people", type=Path, help="table with columns name (of the photo's file) and person")
    parser.add_argument(
        "--fold", type=int, choices=range(FOLDS), help="leave out this fifth of the people (default: none)"
    )
    options = parser.parse_args()
    if options.fold is not None and options.people is None:
        raise UserError("--fold leaves out people by name; expected --people TABLE with columns name and person")
    if options.count < 1:
        raise UserError(f"--count is {options.count}; at least 1 character can be looked at")
    return options


def main() -> None:
    options = parse_options()
    paths = chosen_photos(options)
    check_photos(options.output, paths)
    table = read_parameters(options.data, read_labels(options.data).values.shape[1])

    # Learn what the observer sees of the game's characters.
    mesh = FaceMesh()
    fitter = learn_fitter(mesh, options.data, count=options.count)

    # Look at the photos.
    found = look_at(mesh, paths, f"looking at {options.photos}")
    learned = np.flatnonzero(found.present & is_frontal(found.points[:, IBUG], LEARNED))
    if not len(learned):
        raise UserError(
            f"of the {len(paths)} aligned faces in {options.photos} the observer finds {int(found.present.sum())}, and "
            "none from the front; expected faces from the front"
        )

    # Fit the characters, write.
    parameters = fitter.fit(found.points[learned])
    labels = {paths[i].stem: row for i, row in zip(learned, parameters, strict=True)}
    write_photos(options.output, paths, labels=labels, parameters=table)
    print(f"{len(paths)} faces in {options.output}, {len(learned)} of them with parameters")


if __name__ == "__main__":
    run_script(main)
