"""Draws the two stages, with pictures of a trained run, for README.md.

    python -m benchmarks.architecture --run runs/creator --output assets/architecture.png

The faces are held-out ones of the run's data set. The reconstruction is the VAE's, of the front face of the inputs. The
sliders are those that the run predicts from the render beside them.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon

from datasets.labels import find_parts, read_splits
from models.predictor import Predictor
from utils.errors import UserError, run_script
from utils.pictures import read_rgb

_BLUE, _LIGHT_BLUE, _ORANGE, _GREEN, _GREY = "#4878a8", "#9db7cf", "#e08a3c", "#5a9e5a", "#555555"

#: Size of the drawing; all places below are in these units.
_WIDTH, _HEIGHT = 12.0, 5.4

#: Faces that stage 1's inputs show, and sliders that stage 2's output shows.
_INPUTS, _SLIDERS = 3, 9

Point = tuple[float, float]


class Pictures(NamedTuple):
    """What is drawn, of held-out faces; pictures are (S, S, 3) uint8."""

    inputs: list[np.ndarray]  #: of stage 1, the front one last
    captions: str  #: what they are
    reconstruction: np.ndarray  #: of the front one
    render: np.ndarray  #: input of stage 2
    parameters: np.ndarray  #: (P,) predicted from it


def pictures_of(predictor: Predictor) -> Pictures:
    """Held-out faces of a run's data set and what its networks make of them.

    Raises:
        UserError: the data set holds out too few faces.
    """
    data = predictor.config.data
    parts = find_parts(Path(data.root))
    splits = read_splits(Path(data.root), parts["images"])
    names = [name for name, split in splits.items() if split == "test"][: _INPUTS + 1]
    if len(names) <= _INPUTS:
        raise UserError(f"{data.root} holds out {len(names)} faces for testing; {_INPUTS + 1} are drawn")

    renders = [read_rgb(parts["images"][name]) for name in names]
    front, below = predictor.predict_aligned([renders[_INPUTS - 1], renders[_INPUTS]])
    inputs, captions = renders[:_INPUTS], "game renders"
    variants = parts.get("aug_images", {})
    if data.use_variants and names[1] in variants:
        inputs[1], captions = read_rgb(variants[names[1]]), "game renders and\nphoto-like variants"
    return Pictures(inputs, captions, front.reconstruction, renders[_INPUTS], below.parameters)


# --- the stages -------------------------------------------------------------------------------------


def draw_stage_1(axes: Axes, pictures: Pictures) -> None:
    """Pictures → encoder → latent → decoder → reconstruction."""
    y = 4.05
    title(axes, 5.1, "Stage 1  vae_trainer.py: all faces, no labels", colour=_BLUE)
    for i, picture in enumerate(pictures.inputs):
        show(axes, picture, (0.15 + 0.28 * i, 3.35 + 0.22 * i), side=0.95)
    caption(axes, (0.95, 3.1), pictures.captions)

    arrow(axes, 1.95, 2.65, y=y)
    trapezium(axes, 2.7, y=y, text="encoder", colour=_BLUE)
    arrow(axes, 4.3, 4.9, y=y)
    box(axes, 4.95, 1.35, y=y, text="latent\n(mu | logvar)", colour=_GREY)
    arrow(axes, 6.35, 6.95, y=y)
    trapezium(axes, 7.0, y=y, text="decoder", colour=_BLUE, mirrored=True)
    arrow(axes, 8.6, 9.3, y=y)
    show(axes, pictures.reconstruction, (9.4, 3.5), side=1.1)
    caption(axes, (9.95, 3.4), "reconstruction")


def draw_stage_2(axes: Axes, pictures: Pictures) -> None:
    """Render → frozen encoder → latent → mixer → sliders."""
    y = 1.2
    title(axes, 2.25, "Stage 2  extract_latentvec.py, f2p_trainer.py: renders with known sliders", colour=_ORANGE)
    show(axes, pictures.render, (0.4, 0.65), side=1.15)
    caption(axes, (0.97, 0.55), "game render")

    arrow(axes, 1.75, 2.65, y=y)
    trapezium(axes, 2.7, y=y, text="encoder\n(frozen)", colour=_LIGHT_BLUE)
    arrow(axes, 4.3, 4.9, y=y)
    box(axes, 4.95, 1.35, y=y, text="latent", colour=_GREY)
    arrow(axes, 6.35, 6.95, y=y)
    box(axes, 7.0, 1.1, y=y, text="mixer", colour=_ORANGE)
    arrow(axes, 8.15, 8.75, y=y)

    for i, value in enumerate(pictures.parameters[:_SLIDERS]):
        height = 1.85 - 0.155 * i
        axes.plot([8.9, 10.4], [height, height], color="0.75", linewidth=2)
        axes.plot([8.9 + 1.5 * value], [height], "o", color=_GREEN, markersize=6)
    caption(axes, (9.65, 0.48), "predicted sliders")
    axes.text(11.75, 1.5, "predict.py:\na photo goes\nthe same way", ha="right", va="top", fontsize=9, style="italic")


def draw(pictures: Pictures) -> Figure:
    """Both stages, one above the other."""
    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=100)
    axes = figure.subplots()
    axes.set_aspect("equal")
    axes.set_axis_off()
    draw_stage_1(axes, pictures)
    axes.plot([0.1, 11.9], [2.55, 2.55], color="0.8", linewidth=1)
    draw_stage_2(axes, pictures)
    axes.set_xlim(0, _WIDTH)
    axes.set_ylim(0, _HEIGHT)
    return figure


# --- shapes -----------------------------------------------------------------------------------------


def title(axes: Axes, y: float, text: str, *, colour: str) -> None:
    axes.text(0.1, y, text, fontsize=12, weight="bold", color=colour)


def caption(axes: Axes, at: Point, text: str) -> None:
    axes.text(*at, text, ha="center", va="top", fontsize=9)


def show(axes: Axes, picture: np.ndarray, corner: Point, *, side: float) -> None:
    x, y = corner
    axes.imshow(picture, extent=(x, x + side, y, y + side), zorder=3)


def box(axes: Axes, x: float, width: float, *, y: float, text: str, colour: str) -> None:
    corner = (x, y - 0.45)
    axes.add_patch(FancyBboxPatch(corner, width, 0.9, boxstyle="round,pad=0.02", facecolor=colour, edgecolor="none"))
    _label(axes, (x + width / 2, y), text)


def trapezium(axes: Axes, x: float, *, y: float, text: str, colour: str, mirrored: bool = False) -> None:
    width, left, right = 1.5, 0.85, 0.45
    if mirrored:
        left, right = right, left
    corners = [(x, y - left), (x, y + left), (x + width, y + right), (x + width, y - right)]
    axes.add_patch(Polygon(corners, facecolor=colour))
    _label(axes, (x + width / 2, y), text)


def arrow(axes: Axes, start: float, end: float, *, y: float) -> None:
    axes.add_patch(
        FancyArrowPatch((start, y), (end, y), arrowstyle="-|>", mutation_scale=14, color=_GREY, linewidth=1.5)
    )


def _label(axes: Axes, middle: Point, text: str) -> None:
    axes.text(*middle, text, ha="center", va="center", color="white", fontsize=10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="trained run, whose networks and faces are shown")
    parser.add_argument("--output", type=Path, required=True, help="picture to write: .png")
    options = parser.parse_args()

    figure = draw(pictures_of(Predictor.load(options.run)))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output, bbox_inches="tight", facecolor="white")
    print(options.output)


if __name__ == "__main__":
    run_script(main)
