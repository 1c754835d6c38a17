"""Figures that a person reads."""

import io
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#4878a8", "#e08a3c", "#5a9e5a", "#b55a5a", "#8a6fb0", "#8c7058", "#c27ba0", "#7f7f7f")


class Recovery(NamedTuple):
    """How well the parameters of some faces are recovered."""

    metrics: dict[str, Any]  #: of `utils.metrics.parameter_metrics`
    ridge: dict[str, Any]  #: the same of ridge regression
    truth: np.ndarray  #: (N, P)
    predicted: np.ndarray  #: (N, P)
    names: list[str]  #: of the P parameters
    groups: list[str]


def recovery_report(recovery: Recovery, title: str) -> np.ndarray:
    """Bars of R² by group beside ridge regression, and truth against prediction of twelve parameters.

    Returns:
        (H, W, 3) uint8.
    """
    names, groups = recovery.names, recovery.groups
    order = [i for group in dict.fromkeys(groups) for i, own in enumerate(groups) if own == group]
    of_group = dict(zip(dict.fromkeys(groups), _COLOURS * 9, strict=False))
    colours = [of_group[group] for group in groups]

    height = max(8, 0.19 * len(names) + 2)
    figure = _new_figure(15, height, dpi=90)
    columns = figure.add_gridspec(
        6, 3, left=0.17, right=0.98, top=0.94, bottom=0.05, wspace=0.3, hspace=0.55, width_ratios=(2.2, 1, 1)
    )
    _draw_bars(figure.add_subplot(columns[:, 0]), recovery, order=order, colours=colours)

    r2 = np.array([recovery.metrics["parameters"][name]["r2"] for name in names])
    shown = _spread_by_r2(r2, 12)
    for position, i in enumerate(shown):
        axes = figure.add_subplot(columns[position // 2, 1 + position % 2])
        _draw_scatter(axes, recovery, parameter=i, colour=colours[i])
        if position >= len(shown) - 2:
            axes.set_xlabel("truth", fontsize=7)
        if position % 2 == 0:
            axes.set_ylabel("prediction", fontsize=7)

    figure.suptitle(title, fontsize=11)
    return _as_array(figure)


def _draw_bars(axes: "Axes", recovery: Recovery, *, order: list[int], colours: list[str]) -> None:
    names = recovery.names
    r2, ridge = (
        np.array([metrics["parameters"][names[i]]["r2"] for i in order])
        for metrics in (recovery.metrics, recovery.ridge)
    )
    at = np.arange(len(order))
    axes.barh(at, np.clip(r2, -0.2, 1), color=[colours[i] for i in order], height=0.8)
    axes.plot(np.clip(ridge, -0.2, 1), at, "k|", markersize=5, label="ridge regression")

    axes.set_yticks(at, [names[i] for i in order], fontsize=7 if len(names) < 100 else 5)
    for tick, i in zip(axes.get_yticklabels(), order, strict=True):
        tick.set_color(colours[i])
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xlim(-0.2, 1)
    axes.axvline(0, color="0.5", linewidth=0.8)
    axes.grid(axis="x", alpha=0.3)
    axes.set_xlabel("R² on test faces (below −0.2 drawn at −0.2)")
    axes.legend(loc="lower left", fontsize=8)


def _draw_scatter(axes: "Axes", recovery: Recovery, *, parameter: int, colour: str) -> None:
    name = recovery.names[parameter]
    truth, predicted = recovery.truth[:1000, parameter], recovery.predicted[:1000, parameter]
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    axes.plot(truth, predicted, ".", markersize=2, color=colour, alpha=0.5)

    axes.set_title(f"{name}  R² {recovery.metrics['parameters'][name]['r2']:.2f}", fontsize=7.5)
    axes.set_xlim(-0.05, 1.05)
    axes.set_ylim(-0.05, 1.05)
    axes.tick_params(labelsize=6)


def _spread_by_r2(r2: np.ndarray, count: int) -> list[int]:
    """Indices of parameters from the best recovered to the worst, evenly; those without R² are left out."""
    known = np.nonzero(~np.isnan(r2))[0]
    ranked = known[np.argsort(-r2[known])]
    if not len(ranked):
        ranked = np.arange(len(r2))
    positions = np.unique(np.linspace(0, len(ranked) - 1, min(count, len(ranked))).astype(int))
    return [int(i) for i in ranked[positions]]


def side_by_side(rows: list[list[tuple[str, np.ndarray]]]) -> np.ndarray:
    """Rows of captioned (H, W, 3) uint8 pictures, brought to a height of 256 pixels: (H, W, 3) uint8."""
    height, caption_height, gap = 256, 26, 8
    widths = [[picture.shape[1] * height / picture.shape[0] for _, picture in row] for row in rows]
    total_width = max(sum(row) + gap * len(row) for row in widths) + 10
    total_height = len(rows) * (height + caption_height)
    figure = _new_figure(total_width / 100, total_height / 100, dpi=100)

    for r, row in enumerate(rows):
        x = 5.0
        y = total_height - (r + 1) * (height + caption_height) + 2
        for (caption, picture), width in zip(row, widths[r], strict=True):
            box = (x / total_width, y / total_height, width / total_width, height / total_height)
            axes = figure.add_axes(box)
            axes.imshow(picture, interpolation="lanczos" if picture.shape[0] < height else "antialiased")
            axes.set_axis_off()
            axes.set_title(caption, fontsize=9, pad=3)
            x += width + gap
    return _as_array(figure)


def _new_figure(width: float, height: float, *, dpi: int) -> "Figure":
    """An empty figure of a size in inches. It has no window, wherever this runs: pyplot knows nothing of it."""
    from matplotlib.figure import Figure  # here, as it takes long to import and is needed at a script's end

    return Figure(figsize=(width, height), dpi=dpi)


def _as_array(figure: "Figure") -> np.ndarray:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    buffer.seek(0)
    return np.array(Image.open(buffer).convert("RGB"))
