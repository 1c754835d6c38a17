"""Characters after photos: the sliders whose face has a photo's landmarks, and data sets of such photos."""

import shutil
from pathlib import Path

import numpy as np

from datasets.creator import looks
from datasets.creator.render import Renderer
from datasets.creator.sliders import NAMES
from datasets.creator.writer import parameter_table, write_labels
from utils.alignment import TEMPLATE_SIZE, alignment_transform, five_points, transform_points
from utils.errors import UserError
from utils.files import write_text


def in_frame(landmarks: np.ndarray) -> np.ndarray:
    """68 iBUG landmarks (N, 68, 2) in pictures' pixels, brought to the aligned frame of 256 pixels by their own five points."""
    return transform_points(alignment_transform(five_points(landmarks), TEMPLATE_SIZE), landmarks)


class Fitter:
    """Sliders whose character's landmarks, aligned, come nearest to given ones: the best any prediction could do.

    Gauss-Newton with the Jacobian of the average character and a pull towards it, as 136 numbers and noise do not
    decide 54 sliders. Every step is kept in [0, 1] and taken only where it helps.

    Args:
        average: aligned landmarks (68, 2) of the average person, who is to be the average character. Characters and people
            differ in the mean, in style and in where annotators put a point; a fit to that would leave many sliders at
            their ends, where they tell nobody apart. None: landmarks are taken as they are.
        pull: a slider at its end costs as much as this many half pixels.
        steps: of Gauss-Newton.
    """

    def __init__(self, average: np.ndarray | None = None, pull: float = 8.0, steps: int = 8) -> None:
        self.renderer, self.pull, self.steps = Renderer(TEMPLATE_SIZE), pull, steps
        count = len(NAMES)
        around = np.full((2 * count, count), 0.5)
        around[np.arange(count), np.arange(count)] += 0.25
        around[count + np.arange(count), np.arange(count)] -= 0.25
        points = self.landmarks(around).reshape(2, count, -1)
        jacobian = ((points[0] - points[1]) / 0.5).T
        self._solve = np.linalg.solve(jacobian.T @ jacobian + pull ** 2 * np.eye(count), np.column_stack([jacobian.T, pull ** 2 * np.eye(count)]))
        self._offset = 0.0 if average is None else self.landmarks(np.full((1, count), 0.5))[0] - average

    def landmarks(self, parameters: np.ndarray) -> np.ndarray:
        """(N, 68, 2) of characters seen from the front, in the aligned frame of 256 pixels."""
        return self.renderer.landmarks(parameters, [looks.neutral()] * len(parameters))

    def fit(self, landmarks: np.ndarray) -> np.ndarray:
        """(N, 68, 2) landmarks in pictures' pixels → (N, 54) sliders."""
        target = in_frame(landmarks) + self._offset
        current = np.full((len(target), len(NAMES)), 0.5)
        missing = (target - self.landmarks(current)).reshape(len(target), -1)
        cost = self._cost(missing, current)
        for _ in range(self.steps):
            move = np.column_stack([missing, 0.5 - current]) @ self._solve.T
            proposed = (current + 0.7 * move).clip(0, 1)
            left = (target - self.landmarks(proposed)).reshape(len(target), -1)
            better = (new := self._cost(left, proposed)) < cost
            current[better], missing[better], cost[better] = proposed[better], left[better], new[better]
        return current

    def _cost(self, missing: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        return np.square(missing).sum(1) + self.pull ** 2 * np.square(parameters - 0.5).sum(1)


def write_photos(output: Path, pictures: list[Path], sliders: dict[str, np.ndarray]) -> None:
    """Write a data set of aligned photos, as `data.photos` reads it.

    Args:
        output: folder for images/, parameters.csv and, last, labels.json.
        pictures: aligned faces; they are copied.
        sliders: stem of a picture → (54,); pictures may be left out, whose parameters then nobody learns.

    Raises:
        UserError: the folder holds other pictures already, whose labels would be lost.
    """
    images = output / "images"
    images.mkdir(parents=True, exist_ok=True)
    strangers = {p.name for p in images.iterdir()} - {p.name for p in pictures}
    if strangers:
        raise UserError(f"{images} already holds {min(strangers)!r}, which is none of these photos. Choose an empty folder")
    (output / "labels.json").unlink(missing_ok=True)  # until the pictures are there, nothing may take these for a whole data set
    for picture in pictures:
        shutil.copyfile(picture, images / picture.name)
    write_text(output / "parameters.csv", parameter_table())
    write_labels(output, list(sliders), np.array(list(sliders.values())))
