"""Figures that a person reads."""

import io
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no window, wherever this runs

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from utils.pictures import as_uint8

_COLOURS = ("#4878a8", "#e08a3c", "#5a9e5a", "#b55a5a", "#8a6fb0", "#8c7058", "#c27ba0", "#7f7f7f")


def picture_grid(pictures: Tensor, columns: int) -> np.ndarray:
    """(N, 3, S, S) pictures in [0, 1] as a (H, W, 3) uint8 grid, filled row by row."""
    array = as_uint8(pictures.float().cpu().numpy()).transpose(0, 2, 3, 1)
    rows = -(-len(array) // columns)
    size = array.shape[1]
    grid = np.zeros((rows * columns, size, size, 3), np.uint8)
    grid[:len(array)] = array
    return grid.reshape(rows, columns, size, size, 3).transpose(0, 2, 1, 3, 4).reshape(rows * size, columns * size, 3)


def recovery_report(metrics: dict[str, Any], baselines: dict[str, dict[str, Any]], truth: np.ndarray, predicted: np.ndarray,
                    names: list[str], groups: list[str], title: str) -> np.ndarray:
    """How well each parameter is recovered: bars of R² by group beside ridge, and truth against prediction.

    Args:
        metrics, baselines: of `utils.metrics.parameter_metrics`, on the same faces; baselines holds "ridge".
        truth, predicted: (N, P) of these faces.

    Returns:
        (H, W, 3) uint8.
    """
    order = [i for group in dict.fromkeys(groups) for i in range(len(names)) if groups[i] == group]
    colour = dict(zip(dict.fromkeys(groups), _COLOURS * 9))
    r2 = np.array([metrics["parameters"][names[i]]["r2"] if metrics["parameters"][names[i]]["r2"] is not None else np.nan
                   for i in order])
    ridge = np.array([baselines["ridge"]["parameters"][names[i]]["r2"] if baselines["ridge"]["parameters"][names[i]]["r2"]
                      is not None else np.nan for i in order])
    chosen = _spread_by_r2(order, r2, 12)
    figure = plt.figure(figsize=(15, max(8, 0.19 * len(names) + 2)), dpi=90)
    grid = figure.add_gridspec(6, 3, left=0.17, right=0.98, top=0.94, bottom=0.05, wspace=0.3, hspace=0.55, width_ratios=(2.2, 1, 1))
    bars = figure.add_subplot(grid[:, 0])
    at = np.arange(len(order))
    bars.barh(at, np.clip(r2, -0.2, 1), color=[colour[groups[i]] for i in order], height=0.8)
    bars.plot(np.clip(ridge, -0.2, 1), at, "k|", markersize=5, label="ridge regression")
    bars.set_yticks(at, [names[i] for i in order], fontsize=7 if len(names) < 100 else 5)
    for tick, i in zip(bars.get_yticklabels(), order):
        tick.set_color(colour[groups[i]])
    bars.set_ylim(len(order) - 0.4, -0.6)
    bars.set_xlim(-0.2, 1)
    bars.axvline(0, color="0.5", linewidth=0.8)
    bars.grid(axis="x", alpha=0.3)
    bars.set_xlabel("R² on test faces (below −0.2 drawn at −0.2)")
    bars.legend(loc="lower left", fontsize=8)
    for place, i in enumerate(chosen):
        axes = figure.add_subplot(grid[place // 2, 1 + place % 2])
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
        axes.plot(truth[:1000, i], predicted[:1000, i], ".", markersize=2, color=colour[groups[i]], alpha=0.5)
        value = metrics["parameters"][names[i]]["r2"]
        axes.set_title(f"{names[i]}  R² {value:.2f}" if value is not None else names[i], fontsize=7.5)
        axes.set_xlim(-0.05, 1.05)
        axes.set_ylim(-0.05, 1.05)
        axes.tick_params(labelsize=6)
        if place >= len(chosen) - 2:
            axes.set_xlabel("truth", fontsize=7)
        if place % 2 == 0:
            axes.set_ylabel("prediction", fontsize=7)
    figure.suptitle(title, fontsize=11)
    return _as_array(figure)


def _spread_by_r2(order: list[int], r2: np.ndarray, count: int) -> list[int]:
    """Parameters from the best recovered to the worst, evenly."""
    known = np.nonzero(~np.isnan(r2))[0]
    ranked = known[np.argsort(-r2[known])] if len(known) else np.arange(len(order))
    places = np.unique(np.linspace(0, len(ranked) - 1, min(count, len(ranked))).astype(int))
    return [order[i] for i in ranked[places]]


def side_by_side(rows: list[list[tuple[str, np.ndarray]]], height: int = 256) -> np.ndarray:
    """Rows of captioned (H, W, 3) uint8 pictures, brought to one height: (H, W, 3) uint8."""
    widths = [[p.shape[1] * height / p.shape[0] for _, p in row] for row in rows]
    figure = plt.figure(figsize=(max(map(sum, widths)) / 100 + 0.1 * max(map(len, rows)), len(rows) * (height + 26) / 100), dpi=100)
    total_width, total_height = figure.get_size_inches() * 100
    for r, row in enumerate(rows):
        x = 5.0
        for (caption, picture), width in zip(row, widths[r]):
            y = total_height - (r + 1) * (height + 26) + 2
            axes = figure.add_axes((x / total_width, y / total_height, width / total_width, height / total_height))
            axes.imshow(picture, interpolation="lanczos" if picture.shape[0] < height else "antialiased")
            axes.set_axis_off()
            axes.set_title(caption, fontsize=9, pad=3)
            x += width + 8
    return _as_array(figure)


def _as_array(figure: Figure) -> np.ndarray:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    buffer.seek(0)
    return np.array(Image.open(buffer).convert("RGB"))
