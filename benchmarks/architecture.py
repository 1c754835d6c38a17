"""Draws the two stages for the README: python -m benchmarks.architecture --output assets/architecture.png"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon

from datasets.creator import Renderer, writer
from utils.errors import run_script

_BLUE, _ORANGE, _GREEN, _GREY = "#4878a8", "#e08a3c", "#5a9e5a", "#555555"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    faces = [writer.face(4, i) for i in (1, 5, 8)]
    pictures = Renderer(128).render(np.array([f[0] for f in faces]), [f[1:] for f in faces])[0]
    figure, axes = plt.subplots(figsize=(12, 5.4), dpi=100)
    axes.set_xlim(0, 12), axes.set_ylim(0, 5.4), axes.set_aspect("equal"), axes.set_axis_off()

    axes.text(0.1, 5.1, "Stage 1  vae_trainer.py: all faces, no labels", fontsize=12, weight="bold", color=_BLUE)
    for i in range(3):
        show(axes, pictures[i, i % 2], 0.15 + 0.28 * i, 3.35 + 0.22 * i, 0.95)
    axes.text(0.95, 3.1, "photos, renders,\nphoto-like variants", ha="center", va="top", fontsize=9)
    arrow(axes, (1.95, 4.05), (2.65, 4.05))
    trapezium(axes, 2.7, 4.05, 1.5, "encoder", _BLUE)
    arrow(axes, (4.3, 4.05), (4.9, 4.05))
    box(axes, 4.95, 3.6, 1.35, 0.9, "latent\n(mu | logvar)", _GREY)
    arrow(axes, (6.35, 4.05), (6.95, 4.05))
    trapezium(axes, 7.0, 4.05, 1.5, "decoder", _BLUE, mirrored=True)
    arrow(axes, (8.6, 4.05), (9.3, 4.05))
    show(axes, pictures[1, 1], 9.4, 3.5, 1.1)
    axes.text(9.95, 3.4, "reconstruction", ha="center", va="top", fontsize=9)

    axes.plot([0.1, 11.9], [2.55, 2.55], color="0.8", linewidth=1)
    axes.text(0.1, 2.25, "Stage 2  extract_latentvec.py, f2p_trainer.py: renders with known sliders", fontsize=12, weight="bold", color=_ORANGE)
    show(axes, pictures[2, 0], 0.4, 0.65, 1.15)
    axes.text(0.97, 0.55, "game render", ha="center", va="top", fontsize=9)
    arrow(axes, (1.75, 1.2), (2.65, 1.2))
    trapezium(axes, 2.7, 1.2, 1.5, "encoder\n(frozen)", "#9db7cf")
    arrow(axes, (4.3, 1.2), (4.9, 1.2))
    box(axes, 4.95, 0.75, 1.35, 0.9, "latent", _GREY)
    arrow(axes, (6.35, 1.2), (6.95, 1.2))
    box(axes, 7.0, 0.75, 1.1, 0.9, "MLP", _ORANGE)
    arrow(axes, (8.15, 1.2), (8.75, 1.2))
    values = faces[2][0][:9]
    for i, value in enumerate(values):
        y = 1.85 - 0.155 * i
        axes.plot([8.95, 10.55], [y, y], color="0.75", linewidth=2)
        axes.plot([8.95 + 1.6 * value], [y], "o", color=_GREEN, markersize=6)
    axes.text(9.75, 0.48, "sliders of the character", ha="center", va="top", fontsize=9)
    axes.text(11.75, 1.5, "predict.py:\na photo goes\nthe same way", ha="right", va="top", fontsize=9, style="italic")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output, bbox_inches="tight", facecolor="white")
    print(options.output)


def show(axes: plt.Axes, picture: np.ndarray, x: float, y: float, side: float) -> None:
    axes.imshow(picture, extent=(x, x + side, y, y + side), zorder=3)
    axes.set_xlim(0, 12), axes.set_ylim(0, 5.4)


def box(axes: plt.Axes, x: float, y: float, width: float, height: float, text: str, colour: str) -> None:
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.02", facecolor=colour, edgecolor="none"))
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", color="white", fontsize=10)


def trapezium(axes: plt.Axes, x: float, y: float, width: float, text: str, colour: str, mirrored: bool = False) -> None:
    wide, narrow = (0.45, 0.85) if mirrored else (0.85, 0.45)
    axes.add_patch(Polygon([(x, y - wide), (x, y + wide), (x + width, y + narrow), (x + width, y - narrow)], facecolor=colour))
    axes.text(x + width / 2, y, text, ha="center", va="center", color="white", fontsize=10)


def arrow(axes: plt.Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=14, color=_GREY, linewidth=1.5))


if __name__ == "__main__":
    run_script(main)
