"""One result of several photos of a person, which a bad photo among them does not spoil."""

from typing import NamedTuple

import numpy as np

#: An outlier lies this many times as far from the consensus as half of the photos do, and at least this far, in
#: fractions of the parameters' ranges.
_TIMES_AS_FAR, _AT_LEAST = 2.0, 0.05


class Consensus(NamedTuple):
    """What N vectors of P parameters agree on; see `consensus`."""

    parameters: np.ndarray  #: (P,)
    spread: np.ndarray  #: (P,) standard deviation over the vectors that count; NaN where only one does
    distances: np.ndarray  #: (N,) of each vector from the parameters, root mean square over the P
    outliers: list[int]  #: vectors that do not count

    @property
    def nearest(self) -> int:
        """Index of the vector that lies nearest."""
        return int(np.argmin(self.distances))

    @property
    def typical_distance(self) -> float:
        """The distance that half of the vectors that count do not exceed."""
        return float(np.median(np.delete(self.distances, self.outliers)))


def consensus(vectors: np.ndarray) -> Consensus:
    """The trimmed mean of each parameter, over the vectors that are no outliers.

    Photos go wrong in two ways. In some all is wrong: another person, a covered face, a grimace. Such a vector lies far
    from all others as a whole, is an outlier, and does not count. In any photo some parameters are wrong: a fringe
    hides the forehead, a smile widens the mouth. So the highest and the lowest quarter of each parameter's values, and
    at least one of each, are left out of its mean: of three values the one in the middle counts. The mean of the middle
    half varies less from photo to photo than the median does, as it does not hang on one or two values.

    Args:
        vectors: (N, P), N ≥ 1. Of one or two vectors the mean is taken: nothing tells which of two is wrong.
    """
    vectors = np.asarray(vectors, np.float64)
    first_distances = _distances(vectors, _trimmed_mean(vectors))
    outliers = _outliers(first_distances)

    kept = np.delete(vectors, outliers, axis=0)
    parameters = _trimmed_mean(kept)
    spread = np.full(vectors.shape[1], np.nan)
    if len(kept) > 1:
        spread = kept.std(axis=0, ddof=1)
    return Consensus(parameters, spread, _distances(vectors, parameters), outliers)


def _trimmed_mean(vectors: np.ndarray) -> np.ndarray:
    """The mean of the middle values of each column of (N, P): a quarter at either end, at least one, is left out."""
    count = len(vectors)
    if count < 3:
        return vectors.mean(axis=0)
    cut = max(1, count // 4)
    return np.sort(vectors, axis=0)[cut : count - cut].mean(axis=0)


def _distances(vectors: np.ndarray, middle: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(vectors - middle).mean(axis=1))


def _outliers(distances: np.ndarray) -> list[int]:
    if len(distances) < 3:
        return []
    limit = max(_TIMES_AS_FAR * float(np.median(distances)), _AT_LEAST)
    return [int(i) for i in np.flatnonzero(distances > limit)]
