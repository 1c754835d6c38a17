"""Characters after photos: the parameters of the character that an observer sees as it sees a person.

An observer is whoever finds points in a picture of a face; it is a network, and what it means by a point is its own
affair. So a photo and a character are compared by one observer on both, and what parameters do to its points is learned
from the game's own renders. That takes no geometry of the game: any game with labelled renders will do.
"""

from typing import NamedTuple

import numpy as np

from utils.alignment import similarity_transform, transform_points
from utils.errors import UserError
from utils.metrics import ridge

#: A parameter shows in the points if what is recovered of unknown characters correlates with the truth at least so far
#: (Spearman's ρ).
SHOWN = 0.3

#: Standard deviation that no parameter falls below: one that never varied stays where it was.
_LEAST_DEVIATION = 1e-4

#: Standard deviation, pixels, of the noise that every point has at least.
_LEAST_NOISE = 0.05


class Seen(NamedTuple):
    """Pictures of characters with known parameters, as an observer sees them."""

    points: np.ndarray  #: (N, K, 2) in the pixels of aligned 256×256 pictures
    parameters: np.ndarray  #: (N, P) in [0, 1]


class Report(NamedTuple):
    """How far the points of characters that were not learned from are explained."""

    error: float  #: mean distance of the expected points from the seen ones, pixels at 256
    error_of_mean: float  #: the same if the mean face is expected of everybody
    rho: np.ndarray  #: (P,) Spearman's ρ of recovered parameters with the true ones; 0 where nothing is recovered


class Fitter:
    """Parameters whose character an observer sees as it sees given points.

    Points are brought onto the mean face by a least-squares similarity. They are modelled as A·p + b + noise, where A
    and b come from ridge regression and the noise's covariance is that of what they leave unexplained. Parameters p are
    normal about the average character. The most probable p in [0, 1] is a bounded least-squares problem.

    All parameters are fitted, those that cannot be recovered one by one too: several of them move the same points, and
    together they bring these to where they are. One that moves no point is scattered about the average character.

    Args:
        train: what A, b, the noise and the spread of parameters are learned from.
        val: other characters, by which the strength of the ridge is chosen, and which parameters show in the points
            (`shown`, (P,) bool): it serves reports alone.
        average: (P,) the average character; None: the mean of `train`.

    Raises:
        UserError: fewer characters than there are parameters.
    """

    def __init__(self, train: Seen, val: Seen, *, average: np.ndarray | None = None) -> None:
        count, parameters = train.parameters.shape
        if count <= parameters or not len(val.points):
            raise UserError(
                f"{count} characters to learn from and {len(val.points)} to choose by have a face that was found; "
                f"expected more than {parameters}, the number of parameters, and some more: write more renders"
            )
        self.average = train.parameters.mean(0) if average is None else average
        self._mean_face = train.points.mean(0)
        self._mean_shape = self._shapes(train.points).mean(0).reshape(-1, 2)

        # What parameters do to the points.
        learned, chooses = ((part.parameters, self._shapes(part.points)) for part in (train, val))
        self._map, self._constant, _ = ridge(learned, chooses)

        # What they leave unexplained, and how far parameters spread.
        unexplained = self._shapes(train.points) - self.expected(train.parameters).reshape(count, -1)
        noise = shrunk_covariance(_as_if_left_out(unexplained, parameters=train.parameters))
        noise += _LEAST_NOISE**2 * np.eye(len(noise))
        spread = np.cov(train.parameters.T) + _LEAST_DEVIATION**2 * np.eye(parameters)

        # Minus the logarithm of the posterior is half of p·H·p − 2·p·(H_noise·points + H_prior·average), and H = RᵀR.
        self._weighted = np.linalg.solve(noise, self._map.T)  # (2K, P)
        self._prior = np.linalg.inv(spread)
        self._root = np.linalg.cholesky(self._map @ self._weighted + self._prior).T
        self.shown = self.report(val).rho >= SHOWN

    def fit(self, points: np.ndarray) -> np.ndarray:
        """Points (N, K, 2) in pixels of any pictures → parameters (N, P) in [0, 1]."""
        from scipy.optimize import lsq_linear  # here: scipy takes a second to import, and only fitting needs it

        wanted = (self._shapes(points) - self._constant) @ self._weighted + self._prior @ self.average
        targets = np.linalg.solve(self._root.T, wanted.T).T
        found = np.array([lsq_linear(self._root, target, (0, 1), method="bvls").x for target in targets])
        return found.reshape(-1, len(self.average))

    def offset(self, points: np.ndarray) -> np.ndarray:
        """How far the mean shape of people lies from the mean shape of characters, (K, 2) pixels on the mean face.

        Where two observers see them, it is mostly what these mean by their points; see `moved`.

        Args:
            points: (N, K, 2) of people, in pixels of any pictures.
        """
        return self._shapes(points).mean(0).reshape(-1, 2) - self._mean_shape

    def moved(self, points: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """Points (N, K, 2) brought onto the mean face, without an offset (K, 2): as the characters' observer sees them.

        Two observers mean different points by the same name. A constant difference is taken out with the offset; what
        differs between people and characters on average is taken out with it, and cannot be told from it.
        """
        return self._shapes(points).reshape(points.shape) - offset

    def emphasis(self, parameters: np.ndarray, points: np.ndarray) -> float:
        """How many times as far from their mean fitted characters must lie to differ as much as the people do.

        A fit stays near the average where points say little, so fitted characters resemble each other more than people
        do. The order of people is kept, the amount is lost. The factor is the one with which the expected points
        explain the seen ones best (least squares, both about their means).

        Args:
            parameters: (N, P) fitted to the points, or shared among the fits of a person.
            points: (N, K, 2) of these photos.

        Returns:
            A factor from 1 on; 1 where all characters are the same.
        """
        expected = (parameters - parameters.mean(0)) @ self._map
        seen = self._shapes(points)
        seen -= seen.mean(0)
        size = float(np.square(expected).sum())
        return max(1.0, float((expected * seen).sum()) / size) if size else 1.0

    def expected(self, parameters: np.ndarray) -> np.ndarray:
        """Points (N, K, 2) that the observer should see of characters (N, P), brought onto the mean face."""
        return (parameters @ self._map + self._constant).reshape(len(parameters), -1, 2)

    def report(self, held_out: Seen) -> Report:
        """What the map says of characters that it was not learned from."""
        seen = self._shapes(held_out.points).reshape(held_out.points.shape)
        error, error_of_mean = (
            float(np.linalg.norm(seen - expected, axis=-1).mean())
            for expected in (self.expected(held_out.parameters), self._mean_face)
        )
        found = self.fit(held_out.points)
        rho = [_rank_correlation(a, b) for a, b in zip(found.T, held_out.parameters.T, strict=True)]
        return Report(error, error_of_mean, np.array(rho))

    def _shapes(self, points: np.ndarray) -> np.ndarray:
        """Points (N, K, 2) brought onto the mean face, as rows (N, 2K)."""
        moved = transform_points(similarity_transform(points, self._mean_face), points)
        return moved.reshape(len(points), -1)


def emphasised(parameters: np.ndarray, factor: float) -> np.ndarray:
    """Parameters (N, P) in [0, 1], `factor` times as far from their mean, and no further than the range goes."""
    mean = parameters.mean(0)
    return np.clip(mean + factor * (parameters - mean), 0, 1)


def _as_if_left_out(residuals: np.ndarray, *, parameters: np.ndarray) -> np.ndarray:
    """Residuals (N, D) of a linear regression on parameters (N, P), as large as of rows that it was not fitted to.

    A row's own share in its prediction is its leverage h, and its residual is too small by a factor of √(1 − h).
    """
    inputs = np.column_stack([np.ones(len(parameters)), parameters])
    leverage = np.square(np.linalg.svd(inputs, full_matrices=False)[0]).sum(1)
    return residuals / np.sqrt(np.maximum(1 - leverage, 1e-6))[:, None]


def shrunk_covariance(rows: np.ndarray) -> np.ndarray:
    """The covariance (D, D) about 0 of rows (N, D), which may be fewer than D, drawn to a multiple of the identity.

    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004, lemma 3.3.
    """
    count, size = rows.shape
    sample = rows.T @ rows / count
    level = np.trace(sample) / size
    apart = np.square(sample - level * np.eye(size)).sum()
    unsure = (np.square(np.square(rows).sum(1)).sum() / count - np.square(sample).sum()) / count
    share = min(unsure / apart, 1) if apart else 1.0
    return (1 - share) * sample + share * level * np.eye(size)


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's ρ of (N,) and (N,); 0 where one of them is constant."""
    from scipy.stats import spearmanr

    return 0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else float(spearmanr(a, b).statistic)
