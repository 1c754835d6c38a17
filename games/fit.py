"""Characters after photos: the parameters whose face has a photo's landmarks, and data sets of such photos."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from games.game import EmbeddedGame
from games.parameters import write_parameters
from games.people import LEARNED, Frame, fold_of, frontal_of
from games.writer import write_labels
from utils.alignment import TEMPLATE_SIZE, alignment_transform, five_points, transform_points
from utils.errors import UserError

#: Strength of the pull to 0.5: a parameter at 0 or 1 costs (pull / 2)² squared pixels.
_PULL = 8.0

#: Steps of Gauss-Newton, and how much of each is taken.
_STEPS = 8
_DAMPING = 0.7

#: Half the way between the two values of a parameter that the Jacobian is measured at.
_DIFFERENCE = 0.25


def in_frame(landmarks: np.ndarray) -> np.ndarray:
    """68 landmarks (N, 68, 2) in photos' pixels, aligned to the 256×256 frame by their own five points."""
    return transform_points(alignment_transform(five_points(landmarks), TEMPLATE_SIZE), landmarks)


class Fitter:
    """Parameters whose character's landmarks, aligned, come nearest to given ones: the best any prediction could do.

    Gauss-Newton with the Jacobian of the average character and a pull towards it, as 136 numbers and noise do not
    decide all parameters. Every step is kept in [0, 1] and taken only where it helps.

    Args:
        game: whose characters are fitted.
        average: aligned landmarks (68, 2) of the average person, who is to be the average character. Characters and
            people differ in the mean, in style and in where annotators put a point; a fit to that would leave many
            parameters at their ends, where they tell nobody apart. None: landmarks are taken as they are.
    """

    def __init__(self, game: EmbeddedGame, average: np.ndarray | None = None) -> None:
        self.game = game
        count = len(game.parameters)

        # Jacobian (136, P) at the average character, by central differences.
        steps = _DIFFERENCE * np.eye(count)
        points = game.landmarks(np.concatenate([0.5 + steps, 0.5 - steps])).reshape(2, count, -1)
        jacobian = ((points[0] - points[1]) / (2 * _DIFFERENCE)).T

        # A step of Gauss-Newton is this matrix times [missing landmarks | way back to 0.5].
        pull = _PULL**2 * np.eye(count)
        self._solve = np.linalg.solve(jacobian.T @ jacobian + pull, np.column_stack([jacobian.T, pull]))
        self._offset = np.zeros((68, 2))
        if average is not None:
            self._offset = game.landmarks(np.full((1, count), 0.5))[0] - average

    def fit(self, landmarks: np.ndarray) -> np.ndarray:
        """Landmarks (N, 68, 2) in photos' pixels → parameters (N, P)."""
        target = in_frame(landmarks) + self._offset
        current = np.full((len(target), len(self.game.parameters)), 0.5)
        missing = self._missing(target, current)
        cost = _cost(missing, current)

        for _ in range(_STEPS):
            # Propose a step.
            move = np.column_stack([missing, 0.5 - current]) @ self._solve.T
            proposed = (current + _DAMPING * move).clip(0, 1)
            left = self._missing(target, proposed)

            # Take it where it helps.
            new = _cost(left, proposed)
            better = new < cost
            current[better], missing[better], cost[better] = proposed[better], left[better], new[better]
        return current

    def _missing(self, target: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        """What landmarks (N, 136) of characters lack to the target (N, 68, 2), pixels."""
        return (target - self.game.landmarks(parameters)).reshape(len(target), -1)


def _cost(missing: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    return np.square(missing).sum(1) + _PULL**2 * np.square(parameters - 0.5).sum(1)


def fitter_for(frames: list[Frame], *, fold: int | None, game: EmbeddedGame) -> Fitter:
    """A fitter whose average person is the average of the frontal frames of people not held out.

    Args:
        frames: frames of all people.
        fold: which fifth of the people is held out; None holds out nobody.
        game: whose characters are fitted.

    Raises:
        UserError: there are no such frames.
    """
    known = [f.landmarks for f in frontal_of(frames) if fold_of(f.person) != fold]
    if not known:
        raise UserError("no frontal frame shows a person who is not held out; expected photos of several people")
    return Fitter(game, in_frame(np.array(known)).mean(0))


def fit_photos(frames: list[Frame], aligned: Path, *, output: Path, fold: int | None, game: EmbeddedGame) -> None:
    """Write a data set of the aligned faces of people who are not held out, with labels for those hardly turned.

    Args:
        frames: frames of all people.
        aligned: what face_alignment.py made of them: STEM.png of a frame's file name.
        output: folder to write to.
        fold: which fifth of the people is held out; None holds out nobody.
        game: whose characters are fitted.

    Raises:
        UserError: no aligned face, none seen from the front, or the output folder holds other pictures.
    """
    # Choose whom to write.
    chosen = [f for f in frames if fold_of(f.person) != fold and _aligned_face(f, aligned).exists()]
    if not chosen:
        raise UserError(
            f"{aligned} holds no aligned face of these photos; run face_alignment.py --input DIR/images "
            f"--output {aligned} first"
        )
    learned = frontal_of(chosen, LEARNED)
    if not learned:
        raise UserError(
            f"all of the {len(chosen)} aligned faces in {aligned} are turned too far, and get no parameters; "
            "expected faces from the front"
        )

    # Fit the characters.
    parameters = fitter_for(frames, fold=fold, game=game).fit(np.array([f.landmarks for f in learned]))
    labels = {f.path.stem: row for f, row in zip(learned, parameters, strict=True)}
    write_photos(output, [_aligned_face(f, aligned) for f in chosen], labels=labels, game=game)

    people, of_learned = len({f.person for f in chosen}), len({f.person for f in learned})
    print(
        f"{len(chosen)} faces of {people} people in {output}, {len(learned)} of them, of {of_learned} people, "
        "with parameters"
    )


def write_photos(output: Path, pictures: list[Path], *, labels: Mapping[str, np.ndarray], game: EmbeddedGame) -> None:
    """Write a data set of aligned photos, as `data.photos` reads it.

    Args:
        output: folder for images/, parameters.csv and, last, labels.json.
        pictures: aligned faces; they are copied.
        labels: stem of a picture → parameters (P,); pictures may be left out, whose parameters then nobody learns.
        game: whose parameters they are.

    Raises:
        UserError: the folder holds other pictures already, whose labels would be lost.
    """
    images = output / "images"
    images.mkdir(parents=True, exist_ok=True)
    strangers = {p.name for p in images.iterdir()} - {p.name for p in pictures}
    if strangers:
        raise UserError(
            f"{images} already holds {min(strangers)!r}, which is none of these photos. Choose an empty folder"
        )

    # Until the pictures are there, nothing may take these for a whole data set.
    (output / "labels.json").unlink(missing_ok=True)
    for picture in pictures:
        shutil.copyfile(picture, images / picture.name)
    write_parameters(output / "parameters.csv", game.parameters)
    write_labels(output, list(labels), labels=np.array(list(labels.values())))


def _aligned_face(frame: Frame, aligned: Path) -> Path:
    return aligned / f"{frame.path.stem}.png"
