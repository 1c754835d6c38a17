"""What `make demo` and `make train` end with: held-out faces beside their predicted characters, and the metrics.

    python -m benchmarks.demo [--run runs/creator] [--count 5] [--picture assets/demo.jpg]

Writes RUN/demo.png, and with --picture a smaller picture of the first faces, as README.md shows it.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datasets.labels import find_parts, read_labels, read_splits
from models.predictor import Prediction, Predictor
from utils.errors import UserError, run_script
from utils.figures import side_by_side
from utils.pictures import grid, read_rgb, write_picture
from utils.run import Run

#: Of the smaller picture: rows at most; side of a face, white about it and height of the titles, pixels.
_ROWS, _SIDE, _GAP, _TITLE = 5, 220, 2, 22


class HeldOut(NamedTuple):
    """A test face and what was predicted from its render."""

    name: str
    truth: np.ndarray  #: (P,) parameters
    prediction: Prediction


def predict_held_out(predictor: Predictor, count: int) -> list[HeldOut]:
    """Predict the first test faces of the data set that a run learned from. Raises UserError where there are none."""
    root = Path(predictor.config.data.root)
    labels, images = read_labels(root), find_parts(root)["images"]
    truth = dict(zip(labels.names, labels.values, strict=True))
    splits = read_splits(root, images)
    names = [name for name in labels.names if splits.get(name) == "test" and name in images][:count]
    if not names:
        raise UserError(f"no face of {root} is held out for testing; --count {count} asked for some")

    predictions = predictor.predict_aligned([read_rgb(images[name]) for name in names])
    return [HeldOut(name, truth[name], found) for name, found in zip(names, predictions, strict=True)]


def captioned_row(face: HeldOut, predictor: Predictor) -> list[tuple[str, np.ndarray]]:
    """The pictures of a face with their captions: render, reconstruction and, of the embedded game, characters."""
    found = face.prediction
    error = float(np.abs(face.truth - found.parameters).mean())
    row = [
        (f"{face.name} (held out)", found.aligned),
        (f"reconstruction, mean slider error {error:.3f}", found.reconstruction),
    ]
    characters = {"predicted character": found.parameters, "character of the true sliders": face.truth}
    for caption, parameters in characters.items():
        picture = predictor.character(parameters)
        if picture is not None:
            row.append((caption, picture))
    return row


def small_picture(rows: list[list[tuple[str, np.ndarray]]]) -> np.ndarray:
    """The first rows as one smaller picture, a title above each column: (H, W, 3) uint8."""
    titles = ["held-out render", "reconstruction", *(caption for caption, _ in rows[0][2:])]
    faces = [_tile(picture) for row in rows[:_ROWS] for _, picture in row]
    shown = grid(np.stack(faces), columns=len(titles))

    sheet = Image.new("RGB", (shown.shape[1], shown.shape[0] + _TITLE), "white")
    sheet.paste(Image.fromarray(shown), (0, _TITLE))
    draw = ImageDraw.Draw(sheet)
    width = shown.shape[1] // len(titles)
    for column, title in enumerate(titles):
        middle = (column * width + width // 2, _TITLE // 2)
        draw.text(middle, title, "black", ImageFont.load_default(14), anchor="mm")
    return np.asarray(sheet)


def _tile(picture: np.ndarray) -> np.ndarray:
    shrinks = picture.shape[0] > _SIDE
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    face = cv2.resize(picture, (_SIDE, _SIDE), interpolation=interpolation)
    return np.pad(face, ((_GAP, _GAP), (_GAP, _GAP), (0, 0)), constant_values=255)


def print_summary(run: Run) -> None:
    """What the run reached on test faces."""
    metrics, vae = run.f2p.read_metrics(), run.vae.read_metrics()["test"]
    test, reference, made_of = metrics["test"], metrics["baselines"], metrics["run"]
    print(
        f"\n{len(test['parameters'])} sliders, {made_of['faces']['test']} held-out faces, creator {made_of['creator']}"
    )
    print(
        f"mean R² {test['r2']:.3f}  (ridge on the same latents {reference['ridge']['r2']:.3f}, "
        f"training mean {reference['mean']['r2']:.3f})"
    )
    print(f"MAE {test['mae']:.3f}, cosine similarity {test['cosine_similarity']:.4f}, distance {test['distance']:.3f}")
    print("by group: " + ", ".join(f"{group} {values['r2']:.2f}" for group, values in test["groups"].items()))
    print(f"VAE: PSNR {vae['psnr']:.2f} dB, KL {vae['kl']:.0f} nats per face, {vae['active_units']:.0f} active units")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/creator"), help="trained run (default runs/creator)")
    parser.add_argument("--count", type=int, default=5, help="held-out faces to show (default 5)")
    parser.add_argument("--picture", type=Path, help=f"also write a smaller picture of at most {_ROWS} faces")
    options = parser.parse_args()
    if options.count < 1:
        raise UserError(f"--count is {options.count}; at least 1 face can be shown")

    # Predict.
    predictor = Predictor.load(options.run)
    rows = [captioned_row(face, predictor) for face in predict_held_out(predictor, options.count)]

    # Write.
    path = options.run / "demo.png"
    write_picture(path, side_by_side(rows))
    if options.picture is not None:
        write_picture(options.picture, small_picture(rows))

    # Report.
    print_summary(predictor.run)
    print(f"every slider: {predictor.run.f2p.report}\nlook at: {path}")


if __name__ == "__main__":
    run_script(main)
