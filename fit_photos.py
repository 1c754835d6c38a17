"""Fit parameters to aligned photos, so that stages 1 and 2 can learn from the photos (data.photos).

    python face_alignment.py --input PHOTOS --output ALIGNED --faces largest
    python fit_photos.py --data data/observed --photos ALIGNED --output data/people
    python fit_photos.py … --people identity_CelebA.txt    # CelebA: who is on each photo
    python fit_photos.py … --people folders                # photos lie at ALIGNED/PERSON/photo.png
    python fit_photos.py … --landmarks landmarks.csv       # without the network: 68 landmarks of each photo, or FFHQ's

Reads   DATA         a data set of the game in the HS_FACE layout, pictures of 128 pixels or more
        ALIGNED      aligned faces
        LANDMARKS    with --landmarks: a table with columns name, x0, y0 … x67, y67, or FFHQ's ffhq-dataset-v2.json
Writes  OUTPUT/images/         these faces
        OUTPUT/parameters.csv  the game's table
        OUTPUT/photos.csv      name, status: fitted, turned (too far from the front), no_face (the observer finds none,
                               or LANDMARKS has none)
        OUTPUT/labels.json     parameters of the fitted ones; written last

One observer, a network that finds the points of a face (models/facemesh.py), looks at the game's characters and at the
photos. From the characters it is learned how parameters move its points; how well that works is printed. The embedded
game's are drawn anew, all in one look; of another game the renders in DATA are looked at. A photo's fit is
the character whose points are nearest to the photo's. Where people are told apart, a photo's label is the middle
between its own fit and the mean of its person's fits: an expression is no shape. Without, it is the photo's own fit.
Fits resemble each other more than people do, so labels lie further from their common mean: by the factor with which
they explain the photos' points best, which is printed.
With --landmarks a file says where the points of the photos are, and the game where the characters' are: the embedded
game itself, or DATA/landmarks.csv of another game. It is the second choice, for people who have landmarks and cannot
install the network: two observers mean different points by one name, and their labels carry over worse than one
observer's. The mean difference between people and characters is taken out.
With --people and --fold a fifth of the people is left out, for benchmarks.photos.
"""

import argparse
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.labels import find_parts, read_labels, read_splits
from datasets.landmarks import landmarks_of, landmarks_of_characters
from datasets.names import SPLITS
from datasets.people import FOLDERS, FOLDS, LEARNED, fold_of, is_frontal, people_of
from datasets.photos import Status, check_photos, names_of, write_photos
from games.fit import Fitter, Seen, emphasised
from games.game import EmbeddedGame, embedded_game
from games.parameters import read_parameters
from games.writer import manifest_version
from models.facemesh import POINTS, FaceMesh, Meshes
from utils.errors import UserError, run_script
from utils.pictures import UnreadablePicture, find_pictures, read_rgb
from utils.progress import progress

#: Renders that are looked at unless the person says otherwise.
COUNT = 2000

#: How much of a label is the mean over its person's fits, the rest is the photo's own. Between a share of 0, 0.5 and 1,
#: networks that learn the labels read frames with a median ρ of 0.775, 0.767 and 0.711, neutral portraits with 0.787,
#: 0.801 and 0.777, and a person's proportions from a smiling portrait with 0.713, 0.747 and 0.705 (docs/results.md).
SHARE = 0.5

#: With fewer photos their mean shape is that of some people, and no measure of what an observer means by its points.
ENOUGH = 20

#: Landmarks whose mean shape lies further than this from the characters', pixels, are no 68 iBUG landmarks.
_FARTHEST = 20.0

#: Side of the smallest renders that the observer sees well, pixels.
_SMALLEST = 128

#: Pictures in memory at a time.
_BLOCK = 64


class Photos(NamedTuple):
    """Aligned faces."""

    paths: list[Path]
    names: list[str]  #: of the files in OUTPUT/images
    people: list[str] | None  #: None where people are not told apart


class Found(NamedTuple):
    """The points of N photos, in pixels of any pictures."""

    points: np.ndarray  #: (N, K, 2), to which characters are fitted
    landmarks: np.ndarray  #: (N, 68, 2) in iBUG order; NaN where no face was found


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


def look_at_characters(mesh: FaceMesh, game: EmbeddedGame, parameters: np.ndarray) -> Meshes:
    """The meshes of characters (N, P), drawn in the neutral look."""
    found = [Meshes(np.empty((0, POINTS, 2)), np.empty(0))]
    for block in _blocks(parameters, "drawing characters"):
        found.append(mesh.find_aligned([game.picture(row) for row in block]))
    return Meshes(*(np.concatenate(column) for column in zip(*found, strict=True)))


def landmarks_in_game(game: EmbeddedGame, parameters: np.ndarray) -> np.ndarray:
    """The 68 landmarks (N, 68, 2) of characters (N, P) in the neutral look."""
    found = [np.empty((0, 68, 2))]
    for block in _blocks(parameters, "placing landmarks"):
        found.append(game.landmarks(block))
    return np.concatenate(found)


def _blocks(parameters: np.ndarray, title: str) -> Iterator[np.ndarray]:
    """Parameters (N, P) in blocks that fit into memory as pictures, with a progress bar."""
    for first in progress(iterable=range(0, len(parameters), _BLOCK), desc=title, unit="block"):
        yield parameters[first : first + _BLOCK]


class Characters:
    """Some characters of a data set, evenly spread over it.

    Args:
        root: in the HS_FACE layout.
        count: how many of them.

    Raises:
        UserError: no data set, or no labels.
    """

    def __init__(self, root: Path, count: int) -> None:
        self.root, self.game = root, embedded_game(manifest_version(root))
        labels, self.parts = read_labels(root), find_parts(root)
        self._parameters = dict(zip(labels.names, labels.values.astype(np.float64), strict=True))

        names = [name for name in self.parts["images"] if name in self._parameters]
        names = names[:: max(1, len(names) // count)][:count]
        split = read_splits(root, names)
        self._names = {which: [name for name in names if split.get(name) == which] for which in SPLITS}

    @property
    def average(self) -> np.ndarray | None:
        """The parameters (P,) of the average character; None where the game does not say."""
        return None if self.game is None else self.game.average()

    def check_size(self) -> None:
        """Raises UserError where the observer cannot see the renders: they are too small, or none can be read."""
        _check_size(self.root, [self.parts["images"][name] for names in self._names.values() for name in names])

    def see(self, mesh: FaceMesh, split: str) -> Seen:
        """The characters of a split, for learning what parameters do to points.

        Characters of the embedded game are drawn anew in its neutral look, so that nothing but the parameters moves
        their points. Of another game the renders are looked at as they are.
        """
        if self.game is None:
            return self.see_pictures(mesh, "images", split)
        names = self._names[split]
        return self._seen(names, look_at_characters(mesh, self.game, self._rows(names)))

    def see_pictures(self, mesh: FaceMesh, part: str, split: str) -> Seen:
        """The pictures of a split in a part of the data set; in how many there is a face is printed."""
        files = {name: path for name in self._names[split] if (path := self.parts[part].get(name)) is not None}
        found = look_at(mesh, list(files.values()), f"looking at {self.root / part}")
        if files:
            print(f"a face was found in {found.present.mean():.1%} of {len(files)} pictures of {self.root / part}")
        return self._seen(list(files), found)

    def see_landmarks(self, split: str) -> Seen:
        """The characters of a split by the game's own 68 landmarks, those that have any.

        Those of the embedded game are in its neutral look, those of another game are in DATA/landmarks.csv.

        Raises:
            UserError: another game's table is missing or something else.
        """
        names = self._names[split]
        parameters = self._rows(names)
        if self.game is None:
            points = landmarks_of_characters(self.root, names)
        else:
            points = landmarks_in_game(self.game, parameters)
        present = ~np.isnan(points).any((1, 2))
        return Seen(points[present], parameters[present])

    def _seen(self, names: list[str], found: Meshes) -> Seen:
        """Those that show a face."""
        return Seen(found.points[found.present], self._rows(names)[found.present])

    def _rows(self, names: list[str]) -> np.ndarray:
        width = len(next(iter(self._parameters.values())))
        return np.array([self._parameters[name] for name in names]).reshape(len(names), width)


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
        UserError: as `Characters`, too small pictures, or too few faces.
    """
    characters = Characters(root, count)
    characters.check_size()
    fitter = Fitter(characters.see(mesh, "train"), characters.see(mesh, "val"), average=characters.average)

    if characters.game is not None:
        print(describe(fitter, characters.see(mesh, "test"), "characters in the neutral look"))
    for part, title in (("images", "renders"), ("aug_images", "variants")):
        if part in characters.parts:
            print(describe(fitter, characters.see_pictures(mesh, part, "test"), title))
    return fitter


def learn_fitter_of_landmarks(root: Path, *, count: int = COUNT) -> Fitter:
    """What parameters do to the game's own 68 landmarks, learned from a data set; how well is printed.

    Raises:
        UserError: as `Characters`, another game without landmarks.csv, or too few characters.
    """
    characters = Characters(root, count)
    train, val, test = (characters.see_landmarks(split) for split in SPLITS)
    fitter = Fitter(train, val, average=characters.average)
    print(describe(fitter, test, "characters by the game's own landmarks"))
    return fitter


def describe(fitter: Fitter, test: Seen, title: str) -> str:
    """How well held-out pictures of a kind are explained, for people."""
    if not len(test.points):
        return f"no held-out {title}"
    report = fitter.report(test)
    shown = report.rho[fitter.shown]
    rho = float(shown.mean()) if len(shown) else 0.0
    return (
        f"{len(test.points)} held-out {title}: points are {report.error:.2f} px from where the parameters put them "
        f"({report.error_of_mean:.2f} px from the mean face's); {len(shown)} of {len(report.rho)} parameters show in "
        f"the points one by one and are recovered with a mean ρ of {rho:.2f}; the others move points together"
    )


def chosen_photos(options: argparse.Namespace) -> Photos:
    """The aligned faces of people who are not held out; how people are told apart is printed.

    Raises:
        UserError: there are none; one has no person where people are told apart; or two would have the same name.
    """
    paths = find_pictures(options.photos) if options.photos.is_dir() else []
    if not paths:
        raise UserError(
            f"{options.photos} holds no pictures; expected aligned faces. Run face_alignment.py --input PHOTOS "
            f"--output {options.photos} --faces largest first"
        )
    names = names_of(paths, options.photos)
    if options.people is None:
        print("people are not told apart (--people): a photo's label is its own fit")
        return Photos(paths, names, None)

    people = people_of(paths, options.people, folder=options.photos)
    print(
        f"{len(paths)} photos of {len(set(people))} people ({options.people}): a photo's label is the middle between "
        "its own fit and the mean of its person's fits"
    )
    kept = [i for i, person in enumerate(people) if fold_of(person) != options.fold]
    return Photos([paths[i] for i in kept], [names[i] for i in kept], [people[i] for i in kept])


def found_by_mesh(options: argparse.Namespace, photos: Photos) -> tuple[Fitter, Found]:
    """The face mesh looks at the characters and at the photos. Raises UserError as `FaceMesh` and `learn_fitter`."""
    mesh = FaceMesh()
    fitter = learn_fitter(mesh, options.data, count=options.count)
    found = look_at(mesh, photos.paths, f"looking at {options.photos}")
    return fitter, Found(found.points, found.landmarks)


def found_in_file(options: argparse.Namespace, photos: Photos) -> tuple[Fitter, Found]:
    """A file says where the photos' landmarks are, the game where the characters' are.

    Raises:
        UserError: as `landmarks_of` and `learn_fitter_of_landmarks`.
    """
    landmarks = landmarks_of(photos.paths, options.landmarks, folder=options.photos)
    return learn_fitter_of_landmarks(options.data, count=options.count), Found(landmarks, landmarks)


def statuses_of(landmarks: np.ndarray) -> list[Status]:
    """What becomes of photos with these landmarks (N, 68, 2); NaN where no face was found."""
    statuses: list[Status] = ["no_face"] * len(landmarks)
    present = np.flatnonzero(~np.isnan(landmarks).any((1, 2)))
    for i, frontal in zip(present, is_frontal(landmarks[present], LEARNED), strict=True):
        statuses[i] = "fitted" if frontal else "turned"
    return statuses


def without_offset(fitter: Fitter, points: np.ndarray, file: Path) -> np.ndarray:
    """Landmarks (N, 68, 2) of people as the game places its characters': without the mean difference.

    With fewer than ENOUGH photos they are left as they are. Which it is, and how large the difference, is printed.

    Raises:
        UserError: they are so different that they cannot be landmarks of the same names.
    """
    offset = fitter.offset(points)
    distance = float(np.linalg.norm(offset, axis=-1).mean())
    if distance > _FARTHEST:
        raise UserError(
            f"the landmarks in {file} lie {distance:.0f} px from the game's on average; expected at most "
            f"{_FARTHEST:.0f}: 68 landmarks in iBUG order, the picture's left eye first, x to the right and y down"
        )
    found = f"the photos' landmarks lie {distance:.1f} px from the characters' on average"
    if len(points) < ENOUGH:
        print(f"{found}; this is not taken out, as {len(points)} photos are too few to tell it from the people's shape")
        return points
    print(f"{found}; this is taken out, so that the mean of the people is the mean character")
    return fitter.moved(points, offset)


def labels_of(fitter: Fitter, points: np.ndarray, people: Sequence[str] | None) -> np.ndarray:
    """Labels (N, P) of photos with these points (N, K, 2) of these people; how far they are moved apart is printed."""
    labels = fitter.fit(points)
    if people is not None:
        labels = shared(labels, people)
    factor = fitter.emphasis(labels, points)
    print(f"labels lie {factor:.2f} times as far from their mean as fits do, so that they differ as much as the people")
    return emphasised(labels, factor)


def shared(fits: np.ndarray, people: Sequence[str]) -> np.ndarray:
    """Labels (N, P): fits (N, P) moved by SHARE towards the mean over all fits of the same person."""
    _, person, counts = np.unique(people, return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), fits.shape[1]))
    np.add.at(means, person, fits / counts[person, None])
    return (1 - SHARE) * fits + SHARE * means[person]


# --- the script -----------------------------------------------------------------------------------


def parse_options() -> argparse.Namespace:
    """Read the command line. Raises UserError where people are held out whom nobody knows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data set of the game, pictures of 128 px or more")
    parser.add_argument("--photos", type=Path, required=True, help="folder of aligned faces, of face_alignment.py")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--count", type=int, default=COUNT, help=f"characters that are looked at (default {COUNT})")
    parser.add_argument(
        "--people",
        metavar=f"TABLE|{FOLDERS}",
        help="who is on each photo: a table with columns name (of the photo's file) and person; lines NAME PERSON, as "
        f"CelebA's identity_CelebA.txt; or the word {FOLDERS}: the folder that a photo lies in is its person",
    )
    parser.add_argument(
        "--landmarks",
        type=Path,
        metavar="FILE",
        help="take the photos' points from this file: a table with columns name, x0, y0 … x67, y67 (68 landmarks in "
        "iBUG order), or FFHQ's JSON. The second choice: labels are better where the network can be installed",
    )
    parser.add_argument(
        "--fold", type=int, choices=range(FOLDS), help="leave out this fifth of the people (default: none)"
    )
    options = parser.parse_args()
    if options.fold is not None and options.people is None:
        raise UserError(f"--fold leaves out people by name; expected --people TABLE or --people {FOLDERS}")
    if options.count < 1:
        raise UserError(f"--count is {options.count}; at least 1 character can be looked at")
    return options


def main() -> None:
    options = parse_options()
    photos = chosen_photos(options)
    check_photos(options.output, photos.names)
    table = read_parameters(options.data, read_labels(options.data).values.shape[1])

    # Learn what parameters do to the points of characters, and find those of the photos.
    find = found_by_mesh if options.landmarks is None else found_in_file
    fitter, found = find(options, photos)

    # Choose the photos that can be fitted.
    statuses = statuses_of(found.landmarks)
    counts = f"{statuses.count('turned')} are turned too far, in {statuses.count('no_face')} the observer finds no face"
    if options.landmarks is not None:
        counts = f"{statuses.count('turned')} are turned too far, {statuses.count('no_face')} have no landmarks"
    fitted = [i for i, status in enumerate(statuses) if status == "fitted"]
    if not fitted:
        raise UserError(
            f"none of the {len(photos.paths)} aligned faces in {options.photos} can be fitted: {counts}; expected "
            "faces from the front"
        )

    # Fit the characters, write.
    points = found.points[fitted]
    if options.landmarks is not None:
        points = without_offset(fitter, points, options.landmarks)
    people = None if photos.people is None else [photos.people[i] for i in fitted]
    labels = labels_of(fitter, points, people)
    write_photos(
        options.output,
        dict(zip(photos.names, photos.paths, strict=True)),
        statuses=dict(zip(photos.names, statuses, strict=True)),
        labels={Path(photos.names[i]).stem: label for i, label in zip(fitted, labels, strict=True)},
        parameters=table,
    )
    print(f"{len(statuses)} faces in {options.output}: {len(fitted)} have parameters, {counts} (photos.csv)")


if __name__ == "__main__":
    run_script(main)
