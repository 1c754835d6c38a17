"""Held-out faces beside the characters that runs predict of them, as a picture; and what the runs reached.

    python -m benchmarks.demo                                 # the pretrained run, predictions/demo.png
    python -m benchmarks.demo --run runs/creator              # runs/creator/demo.png
    python -m benchmarks.demo --run assets/pretrained --run runs/quick --photo assets/photos/portrait.jpg

Reads the best networks of each RUN. Held-out faces are characters that no data set holds; runs of a game that cannot be
drawn here show test faces of their data set. Several runs have learned one game, and stand side by side. With --photo
the first run's prediction of a photo stands above. Writes the picture to demo.png in the folder of the last RUN, or to
--output, and with --picture a smaller one of the first faces, as README.md shows it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from datasets.labels import find_parts, read_labels, read_splits
from games.game import Appearance, EmbeddedGame
from games.result_sheet import thumbnail
from models.predictor import RUN_HELP, NoFace, Prediction, Predictor
from utils.alignment import TEMPLATE_SIZE
from utils.errors import UserError, run_script
from utils.figures import side_by_side
from utils.pictures import UnreadablePicture, grid, read_rgb, write_picture

#: Of the smaller picture: rows at most; side of a face, white about it and height of the titles, pixels.
_ROWS, _SIDE, _GAP, _TITLE = 5, 220, 2, 22

#: Seed of the held-out characters; no data set is written with it.
_SEED = 98_127

#: Captioned pictures that stand side by side.
Row = list[tuple[str, np.ndarray]]


class HeldOut(NamedTuple):
    """A face that no run has learned."""

    name: str
    render: np.ndarray  #: (S, S, 3) uint8, aligned
    truth: np.ndarray  #: (P,) parameters
    look: Appearance | None = None  #: of the render; None for a game that cannot be drawn here


# --- held-out faces -------------------------------------------------------------------------------


def held_out(predictor: Predictor, count: int) -> list[HeldOut]:
    """Faces that a run has not learned: new characters of an embedded game, else test faces of its data set.

    Raises:
        UserError: there is no test face.
    """
    if predictor.game is not None:
        return [new_character(predictor.game, index) for index in range(count)]
    return test_faces(Path(predictor.config.data.root), count)


def new_character(game: EmbeddedGame, index: int) -> HeldOut:
    """A character of a game that no data set holds."""
    character = game.character(_SEED, index)
    pictures, _ = game.renderer(TEMPLATE_SIZE).render(character.parameters[None], [(character.studio,)])
    return HeldOut(f"character {index + 1}", pictures[0, 0], character.parameters, game.appearance_of(character.studio))


def test_faces(root: Path, count: int) -> list[HeldOut]:
    """The first test faces of a data set. Raises UserError where there are none."""
    labels, images = read_labels(root), find_parts(root)["images"]
    truth = dict(zip(labels.names, labels.values, strict=True))
    splits = read_splits(root, images)
    names = [name for name in labels.names if splits.get(name) == "test" and name in images][:count]
    if not names:
        raise UserError(f"no face of {root} is held out for testing; --count {count} asked for some")
    return [HeldOut(name, read_rgb(images[name]), truth[name]) for name in names]


def check_one_game(predictors: Sequence[Predictor]) -> None:
    """Raise UserError where runs have learned different games: no face can be shown to both."""
    first, *others = predictors
    for other in others:
        if other.creator_version is None or other.creator_version != first.creator_version:
            raise UserError(
                f"{first.run.folder} learned the embedded game {first.creator_version}, {other.run.folder} learned "
                f"{other.creator_version}; expected runs of one embedded game. Show each alone"
            )


# --- pictures -------------------------------------------------------------------------------------


def row_of(face: HeldOut, predictors: Sequence[Predictor]) -> Row:
    """A face's render, what the runs predict of it and, of an embedded game, the character of the true sliders."""
    row: Row = [(f"{face.name} (held out)", face.render)]
    for predictor in predictors:
        row += predicted_of(face, predictor, with_reconstruction=len(predictors) == 1)
    true = predictors[0].character(face.truth, face.look)
    if true is not None:
        row.append(("character of the true sliders", true))
    return row


def predicted_of(face: HeldOut, predictor: Predictor, *, with_reconstruction: bool) -> Row:
    """What a run makes of a face: its reconstruction, if that is wanted, and the predicted character."""
    found = predictor.predict_aligned([face.render])[0]
    error = float(np.abs(face.truth - found.parameters).mean())
    row: Row = []
    if with_reconstruction:
        row.append(("reconstruction", found.reconstruction))
    character = predictor.character(found.parameters, found.look)
    if character is not None:
        row.append((f"{predictor.run.folder.as_posix()}: mean slider error {error:.3f}", character))
    return row


def photo_row(path: Path, predictor: Predictor) -> Row:
    """A photo, the face in it, and its predicted character. Raises UserError where there is no face to predict."""
    try:
        photo = read_rgb(path)
        found = predictor.predict(photo)
    except (UnreadablePicture, NoFace) as error:
        raise UserError(f"no prediction of {path}: {error}") from None
    row = [(path.name, thumbnail(photo, found.alignment)), ("aligned face", found.aligned)]
    character = predictor.character(found.parameters, found.look)
    if character is not None:
        row.append((_caption_of(found, predictor), character))
    return row


def _caption_of(found: Prediction, predictor: Predictor) -> str:
    folder = predictor.run.folder.as_posix()
    if predictor.is_out_of_distribution(found) or not predictor.learned_photos:
        return f"{folder}: predicted character, a guess"
    return f"{folder}: predicted character"


def titles_of(predictors: Sequence[Predictor]) -> list[str]:
    """A title for each column of `row_of`."""
    titles = ["held-out render"]
    is_drawn = predictors[0].game is not None
    if len(predictors) == 1:
        titles += ["reconstruction", "predicted character"] if is_drawn else ["reconstruction"]
    else:
        titles += [predictor.run.folder.name for predictor in predictors]
    return [*titles, "character of the true sliders"] if is_drawn else titles


def small_picture(rows: list[Row], titles: list[str]) -> np.ndarray:
    """The first rows as one smaller picture, a title above each column: (H, W, 3) uint8."""
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


# --- figures --------------------------------------------------------------------------------------


def print_summary(predictors: Sequence[Predictor]) -> None:
    """What the runs reached on test faces of their own, as their metrics.json says; of the last run more."""
    heading = "held-out renders"
    width = max(len(heading), *(len(predictor.run.folder.as_posix()) for predictor in predictors))
    print(f"\n{heading:{width}}  mean R²  ridge   MAE    learned from")
    for predictor in predictors:
        metrics, name = predictor.run.f2p.read_metrics(), predictor.run.folder.as_posix()
        test, ridge = metrics["test"], metrics["baselines"]["ridge"]
        origin = f"{predictor.origin}, {predictor.config.data.image_size} px"
        print(f"{name:{width}}  {test['r2']:7.3f}  {ridge['r2']:.3f}  {test['mae']:.3f}  {origin}")
    print("ridge: the R² of ridge regression on the same latents. The default, make train: docs/results.md#the-default")

    run = predictors[-1].run
    groups, vae = run.f2p.read_metrics()["test"]["groups"], run.vae.read_metrics()["test"]
    print(f"\n{run.folder.as_posix()}:")
    print("R² by group: " + ", ".join(f"{group} {values['r2']:.2f}" for group, values in groups.items()))
    print(f"VAE: PSNR {vae['psnr']:.2f} dB, KL {vae['kl']:.0f} nats per face, {vae['active_units']:.0f} active units")
    if run.f2p.report.exists():
        print(f"every slider: {run.f2p.report.as_posix()}")


def parse_options() -> argparse.Namespace:
    """Read the command line. Raises UserError for what cannot be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, action="append", help=f"{RUN_HELP}; may be given several times")
    parser.add_argument("--photo", type=Path, help="photo that stands above, predicted by the first run")
    parser.add_argument("--count", type=int, default=5, help="held-out faces to show (default 5)")
    parser.add_argument(
        "--output", type=Path, help="picture to write (default: demo.png in the last RUN, or in predictions/)"
    )
    parser.add_argument("--picture", type=Path, help=f"also write a smaller picture of at most {_ROWS} faces")
    options = parser.parse_args()
    if options.count < 1:
        raise UserError(f"--count is {options.count}; at least 1 face can be shown")
    if options.output is None:
        options.output = (options.run[-1] if options.run else Path("predictions")) / "demo.png"
    return options


def main() -> None:
    # Parse, load.
    options = parse_options()
    predictors = [Predictor.load(folder) for folder in options.run or [None]]
    check_one_game(predictors)

    # Predict.
    above = [photo_row(options.photo, predictors[0])] if options.photo is not None else []
    rows = [row_of(face, predictors) for face in held_out(predictors[0], options.count)]

    # Write.
    write_picture(options.output, side_by_side([*above, *rows]))
    if options.picture is not None:
        write_picture(options.picture, small_picture(rows, titles_of(predictors)))

    # Report.
    print_summary(predictors)
    print(f"look at: {options.output}")


if __name__ == "__main__":
    run_script(main)
