"""The look of a person in a picture: the skin's colour is measured, the rest is read off the latent.

The numbers of a look (`games.game.LookNumber`) are known of every character of the embedded game. A linear regression
learns them: skin, hair and beard fill many pixels, so latents hold them in plain sight.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from games.game import LookNumber
from utils.metrics import parameter_metrics, ridge, slopes

#: Where skin is bare on an aligned face, as shares of its side: left, right, top, bottom of both cheeks, and forehead.
_BARE = ((0.34, 0.42, 0.55, 0.62), (0.58, 0.66, 0.55, 0.62), (0.42, 0.58, 0.26, 0.32))

#: A colour's contrast is restored by this factor at most: beyond it noise would be magnified.
_MOST_CONTRAST = 1.6


class LookReader:
    """Standardised latents (N, 2·D) → the numbers of looks (N, L).

    Args:
        names: of the L numbers.
        weights: (2·D, L).
        bias: (L,).
        r2: source ("images", "aug_images") → name → R² on val; what metrics.json says.
    """

    def __init__(
        self, names: Sequence[str], weights: Tensor, bias: Tensor, r2: dict[str, dict[str, float | None]] | None = None
    ) -> None:
        self.names, self.weights, self.bias, self.r2 = list(names), weights.float(), bias.float(), r2 or {}

    def __call__(self, standardised: Tensor) -> Tensor:
        return standardised @ self.weights.to(standardised.device) + self.bias.to(standardised.device)

    @classmethod
    def fit(
        cls,
        table: Sequence[LookNumber],
        train: dict[str, tuple[np.ndarray, np.ndarray]],
        val: dict[str, tuple[np.ndarray, np.ndarray]],
    ) -> "LookReader":
        """Learn from characters by ridge regression; its strength is the one with the least squared error on `val`.

        A regression draws what it is not sure of towards the mean, and nobody would be blond. So colours are spread
        about their mean until a character of a colour is read as that colour on average. Other numbers stay unchanged.

        Args:
            table: of the L numbers.
            train, val: source → standardised latents (N, 2·D) and numbers (N, L).
        """
        (own, truth), (x, y) = _joined(train), _joined(val)
        weights, bias, _ = ridge((own, truth), (x, y))
        names = [number.name for number in table]
        r2 = {}
        for source, (latents, expected) in val.items():
            found = parameter_metrics(expected, latents @ weights + bias, names=names, groups=names)["parameters"]
            r2[source] = {name: _rounded(metrics["r2"]) for name, metrics in found.items()}

        # Contrast: the inverse of the slope of what is read over what is true. Photos are more like variants.
        mean = truth.mean(0)
        contrast = np.ones(len(table))
        colours = [number.is_colour for number in table]
        x, y = val.get("aug_images", (x, y))
        contrast[colours] = _contrast(y[:, colours], x @ weights[:, colours])
        weights, bias = weights * contrast, mean + (bias - mean) * contrast
        return cls(names, torch.from_numpy(weights), torch.from_numpy(bias), r2)

    def summary(self) -> str:
        """Its R², in a line for people."""
        figures = []
        for source, words in (("images", "renders"), ("aug_images", "variants")):
            if source in self.r2:
                known = [value for value in self.r2[source].values() if value is not None]
                figures.append(f"{np.mean(known):.2f} on {words}")
        return f"look (hair, beard, eyes; of pictures, no parameters): mean R² {', '.join(figures)} of val"

    # --- in a checkpoint --------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"names": self.names, "weights": self.weights, "bias": self.bias, "r2": self.r2}

    @classmethod
    def of(cls, state: dict[str, Any] | None) -> "LookReader | None":
        """The reader of a checkpoint's entry; None for a checkpoint without one."""
        return None if state is None else cls(**state)


def _joined(pairs: dict[str, tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    latents, numbers = zip(*pairs.values(), strict=True)
    return np.concatenate(latents), np.concatenate(numbers)


def _contrast(truth: np.ndarray, read: np.ndarray) -> np.ndarray:
    """The factor (K,) by which numbers (N, K) that were read have to be spread, from 1 to `_MOST_CONTRAST`."""
    return np.clip(1 / np.maximum(slopes(truth, read), 1e-6), 1, _MOST_CONTRAST)


def _rounded(r2: float) -> float | None:
    """R² to four decimals, so that the order of sums does not show; None for a number that does not vary."""
    return None if math.isnan(r2) else round(r2, 4)


def skin_colour(face: np.ndarray) -> np.ndarray:
    """The skin's colour on an aligned face (S, S, 3) uint8 RGB: (3,) display RGB in [0, 1].

    The median over cheeks and forehead, so that a spot, a strand of hair or a highlight does not count.
    """
    side = len(face)
    patches = []
    for left, right, top, bottom in _BARE:
        patch = face[int(top * side) : int(bottom * side) + 1, int(left * side) : int(right * side) + 1]
        patches.append(patch.reshape(-1, 3))
    return np.median(np.concatenate(patches), axis=0) / 255
