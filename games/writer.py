"""Writes a data set of an embedded game in the HS_FACE layout.

<root>/creator.json             what the data set was written with
<root>/images/face_000000.png   renders
<root>/aug_images/…             their photo-like variants, where they are wanted
<root>/parameters.csv           the game's parameter table
<root>/landmarks.csv            name, x0, y0 … x67, y67: the 68 landmarks (iBUG order) in the pictures' pixels
<root>/labels.json              {"face_000000": [p0, p1, …]}, written last
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from games.game import Character, EmbeddedGame, default_game
from games.parameters import write_parameters
from utils.errors import UserError
from utils.files import atomic_write, lock_folder, read_json, sweep_temporaries, write_json, write_text
from utils.progress import progress
from utils.workers import map_unordered

#: Faces of a data set at most: their landmarks are held in memory, 1 GiB for a million.
MOST_FACES = 10_000_000

#: Sides that pictures may have, pixels.
SIZES = (32, 64, 128, 256, 512)

#: Faces are rendered in blocks of this many, whoever renders them: matrix products of one size give the same bytes.
_BLOCK = 16


@dataclass(frozen=True)
class DataSet:
    """What a data set of an embedded game holds."""

    count: int  #: number of faces
    seed: int = 0  #: of the characters
    size: int = 256  #: side of the pictures, pixels, one of `SIZES`
    with_variants: bool = True  #: also write the photo-like variants
    distribution: str = "uniform"  #: how parameters are drawn, one of `games.game.DISTRIBUTIONS`

    @property
    def parts(self) -> tuple[str, ...]:
        """Folders of pictures, in the order of a character's looks."""
        return ("images", "aug_images") if self.with_variants else ("images",)

    def manifest(self, game: EmbeddedGame) -> dict[str, Any]:
        """The content of creator.json: all that must be the same for a data set to be continued."""
        return {
            "creator": game.version,
            "seed": self.seed,
            "size": self.size,
            "aug_images": self.with_variants,
            "distribution": self.distribution,
        }


def write_data_set(output: Path, wanted: DataSet, *, workers: int = 1, game: EmbeddedGame | None = None) -> None:
    """Write a data set to `output` in the HS_FACE layout; what is already there is kept.

    Pictures come first and labels last, so a folder with `labels.json` is complete. A run that was
    stopped goes on; the count may be raised.

    Args:
        output: folder to write to.
        wanted: what the data set holds.
        workers: processes that render; with 0 there is one, too. The files are the same however many there are.
        game: the embedded game if None.

    Raises:
        UserError: the folder holds something else, or a data set made with other settings.
    """
    game = game or default_game()
    _check(output, wanted, game=game)

    with lock_folder(output, "python -m games write"):
        # Prepare the folder.
        for part in wanted.parts:
            (output / part).mkdir(exist_ok=True)
            sweep_temporaries(output / part)
        sweep_temporaries(output)
        write_json(output / "creator.json", wanted.manifest(game))

        # Render the pictures that are missing.
        labels, landmarks = _write_pictures(output, wanted, workers=workers, game=game)
        if hasattr(os, "sync"):
            os.sync()  # pictures reach the disk before the labels that say they are there

        # Say what they show.
        names = [name_of(i) for i in range(wanted.count)]
        write_parameters(output / "parameters.csv", game.parameters)
        write_text(output / "landmarks.csv", _landmark_table(names, landmarks))
        write_labels(output, names, labels=labels)


def read_manifest(root: Path) -> dict[str, Any] | None:
    """What an embedded game wrote a data set with (`creator` is its version); None for a data set of another game."""
    manifest = read_json(root / "creator.json")
    return manifest if manifest is not None and "creator" in manifest else None


def manifest_version(root: Path) -> str | None:
    """The version of the embedded game that wrote a data set; None for a data set of another game."""
    manifest = read_manifest(root)
    return None if manifest is None else manifest["creator"]


def write_labels(output: Path, names: Sequence[str], *, labels: np.ndarray) -> None:
    """Write labels.json: NAME → its row of labels (N, P), in [0, 1], to six decimals."""
    rows = []
    for name, row in zip(names, np.round(labels, 6).tolist(), strict=True):
        rows.append(f" {json.dumps(name)}: {json.dumps(row)}")
    write_text(output / "labels.json", "{\n" + ",\n".join(rows) + "\n}\n")


def name_of(index: int) -> str:
    """The NAME of a character of a data set."""
    return f"face_{index:06d}"


# --- checks ---------------------------------------------------------------------------------------


def _check(output: Path, wanted: DataSet, *, game: EmbeddedGame) -> None:
    """Refuse what cannot be written, and a folder that cannot be continued."""
    if not 1 <= wanted.count <= MOST_FACES:
        raise UserError(f"--count is {wanted.count}; expected 1 to {MOST_FACES:,} faces")
    if wanted.seed < 0:
        raise UserError(f"--seed is {wanted.seed}; expected 0 or more")
    if wanted.size not in SIZES:
        expected = ", ".join(map(str, SIZES[:-1]))
        raise UserError(f"--size is {wanted.size}; expected {expected} or {SIZES[-1]}")
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; expected a folder to write the data set to")
    if not output.is_dir():
        return

    if (output / "creator.json").exists():
        _check_manifest(output, wanted.manifest(game))
        _check_count(output, wanted.count)
        return
    strangers = [p.name for p in output.iterdir() if not p.name.startswith(".")]
    if strangers:
        raise UserError(
            f"{output} already holds {strangers[0]!r} and is no data set of the creator. Choose an empty folder."
        )


def _check_manifest(output: Path, expected: dict[str, Any]) -> None:
    found = read_manifest(output)
    if found is None:
        raise UserError(f"{output / 'creator.json'} is damaged. Delete {output} and write it again.")
    for key, value in expected.items():
        if found.get(key) != value:
            raise UserError(
                f"{output} was written with {key} = {found.get(key)!r}, now {value!r} is asked for. "
                "Choose another folder, or delete this one."
            )


def _check_count(output: Path, count: int) -> None:
    images = output / "images"
    present = sum(1 for _ in images.glob("face_*.png")) if images.is_dir() else 0
    if present > count:
        raise UserError(
            f"{output} already holds {present} faces, more than the {count} asked for. "
            "Ask for at least as many, choose another folder, or delete this one."
        )


# --- pictures -------------------------------------------------------------------------------------


class _Job(NamedTuple):
    """What a worker needs to know."""

    output: Path
    wanted: DataSet
    game: EmbeddedGame


_job: _Job


def _start(job: _Job) -> None:
    global _job
    cv2.setNumThreads(1)
    _job = job


def _write_pictures(
    output: Path, wanted: DataSet, *, workers: int, game: EmbeddedGame
) -> tuple[np.ndarray, np.ndarray]:
    """Write all pictures that are not there yet: labels (N, P) and landmarks (N, 68, 2) of all."""
    labels = np.empty((wanted.count, len(game.parameters)))
    landmarks = np.empty((wanted.count, 68, 2))
    blocks = [range(first, min(first + _BLOCK, wanted.count)) for first in range(0, wanted.count, _BLOCK)]

    # Not in this process: its BLAS may use several threads, which round otherwise than one.
    job = _Job(output, wanted, game)
    written = map_unordered(_write_block, blocks, workers=max(1, workers), initializer=_start, arguments=(job,))
    with progress(total=wanted.count, desc=f"writing {output}", unit="face", smoothing=0.05) as bar:
        for block, parameters, points in written:
            labels[block.start : block.stop] = parameters
            landmarks[block.start : block.stop] = points
            bar.update(len(block))
    return labels, landmarks


def _write_block(block: range) -> tuple[range, np.ndarray, np.ndarray]:
    """Write the pictures of a block of characters: the block, labels (B, P), landmarks (B, 68, 2)."""
    output, wanted, game = _job
    renderer = game.renderer(wanted.size)
    characters = [game.character(wanted.seed, i, wanted.distribution) for i in block]
    parameters = np.array([c.parameters for c in characters])
    paths = [[output / part / f"{name_of(i)}.png" for part in wanted.parts] for i in block]

    # A block whose pictures are all there only lacks its rows.
    if all(path.exists() for of_face in paths for path in of_face):
        return block, parameters, renderer.landmarks(parameters, [c.studio for c in characters])

    looks = [_looks(c, with_variant=wanted.with_variants) for c in characters]
    pictures, points = renderer.render(parameters, looks)
    for of_face, shown in zip(paths, pictures, strict=True):
        for path, picture in zip(of_face, shown, strict=True):
            _write_png(path, picture)
    return block, parameters, points


def _looks(character: Character, *, with_variant: bool) -> tuple[Any, ...]:
    return (character.studio, character.photo) if with_variant else (character.studio,)


def _write_png(path: Path, picture: np.ndarray) -> None:
    _, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    with atomic_write(path, sync=False) as file:
        file.write(data.tobytes())


def _landmark_table(names: list[str], landmarks: np.ndarray) -> str:
    lines = ["name," + ",".join(f"x{i},y{i}" for i in range(68))]
    numbers = ",%.3f" * (2 * 68)  # all at once: a format per number takes three times as long
    for name, points in zip(names, landmarks.reshape(-1, 2 * 68).tolist(), strict=True):
        lines.append(name + numbers % tuple(points))
    return "\n".join(lines) + "\n"
