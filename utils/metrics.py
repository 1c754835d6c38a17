"""How well parameters are recovered, and what a latent space holds."""

from typing import Any

import numpy as np

#: Rows that are brought to double precision at a time: a whole set would be twice its size.
_BLOCK = 8192

#: Penalties that ridge regression tries, as multiples of the number of training faces.
_STRENGTHS = np.logspace(-4, 1, 16)


def parameter_metrics(
    truth: np.ndarray, predicted: np.ndarray, *, names: list[str], groups: list[str]
) -> dict[str, Any]:
    """Metrics of predicted parameters, in normalised units.

    R² of a parameter is 1 − SSE / SST about its mean over these faces; where SST is 0 it is NaN (null in JSON) and
    left out of means. Cosine similarity and Euclidean distance are of a face's whole vector, averaged.

    Args:
        truth, predicted: (N, P).
        names, groups: of the P parameters.

    Returns:
        {"r2", "mae", "cosine_similarity", "distance", "undefined_r2", "groups": {group: {"r2", "mae"}},
        "parameters": {name: {"r2", "mae"}}}.
    """
    truth, predicted = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    error = predicted - truth
    mae = np.abs(error).mean(0)

    # R² per parameter; a constant column leaves rounding behind instead of 0.
    sst = ((truth - truth.mean(0)) ** 2).sum(0)
    defined = sst > 1e-12 * len(truth)
    r2 = np.where(defined, 1 - (error**2).sum(0) / np.where(defined, sst, 1), np.nan)

    # Cosine similarity per face.
    norms = np.linalg.norm(truth, axis=1) * np.linalg.norm(predicted, axis=1)
    cosine = (truth * predicted).sum(1) / np.maximum(norms, 1e-12)

    group_of = np.array(groups)
    of_group = {group: group_of == group for group in dict.fromkeys(groups)}
    return {
        **_means(r2, mae),
        "cosine_similarity": float(cosine.mean()),
        "distance": float(np.linalg.norm(error, axis=1).mean()),
        "undefined_r2": int((~defined).sum()),
        "groups": {group: _means(r2[mask], mae[mask]) for group, mask in of_group.items()},
        "parameters": {name: {"r2": float(r2[i]), "mae": float(mae[i])} for i, name in enumerate(names)},
    }


def _means(r2: np.ndarray, mae: np.ndarray) -> dict[str, float]:
    """Means over parameters; an R² that is not defined is left out."""
    defined = r2[~np.isnan(r2)]
    return {"r2": float(defined.mean()) if len(defined) else float("nan"), "mae": float(mae.mean())}


def slopes(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Slopes (K,) of K predicted numbers of N faces over the true ones, (N, K) each, by least squares.

    They say which share of a difference between two faces is kept. 0 where the truth does not vary.
    """
    truth = truth - truth.mean(0)
    return (truth * (predicted - predicted.mean(0))).sum(0) / np.maximum(np.square(truth).sum(0), 1e-12)


def psnr(mse: float) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [0, 1]."""
    return float(-10 * np.log10(max(mse, 1e-12)))


def active_units(mu: np.ndarray) -> int:
    """Dimensions of mu (N, D) whose variance over faces exceeds 0.01 (Burda et al., 2016, section 4)."""
    return int((np.var(np.asarray(mu, np.float64), axis=0) > 0.01).sum())


def ridge(
    train: tuple[np.ndarray, np.ndarray], val: tuple[np.ndarray, np.ndarray], strengths: np.ndarray = _STRENGTHS
) -> tuple[np.ndarray, np.ndarray, float]:
    """Ridge regression on standardised inputs, its strength the one with the least squared error on `val`.

    Args:
        train, val: inputs (N, D) and targets (N, P).
        strengths: penalties tried, as multiples of the number of training faces.

    Returns:
        Weights (D, P) and bias (P,) for inputs as given, and the strength chosen.
    """
    x, y = train
    blocks = [slice(i, i + _BLOCK) for i in range(0, len(x), _BLOCK)]

    # Standardise.
    mean, centre = x.mean(0, dtype=np.float64), y.mean(0, dtype=np.float64)
    variance = sum(np.square(x[b] - mean).sum(0) for b in blocks) / len(x)
    std = np.sqrt(variance)
    std = np.where(std < 1e-6 * (1 + np.abs(mean)), 1.0, std)

    # The normal equations, once for all strengths.
    gram, cross = np.zeros((x.shape[1],) * 2), np.zeros((x.shape[1], y.shape[1]))
    for b in blocks:
        z = (x[b] - mean) / std
        gram += z.T @ z
        cross += z.T @ (y[b] - centre)
    values, vectors = np.linalg.eigh(gram)
    projected = vectors.T @ cross

    def shrunk(strength: float) -> np.ndarray:
        return projected / (np.maximum(values, 0) + strength * len(x))[:, None]

    # Choose on val.
    rotated, val_y = (val[0] - mean) / std @ vectors, val[1] - centre
    errors = [np.square(rotated @ shrunk(strength) - val_y).mean() for strength in strengths]
    best = float(strengths[int(np.argmin(errors))])
    weights = vectors @ shrunk(best) / std[:, None]
    return weights, centre - mean @ weights, best
