"""Writes a data set of the creator's faces in the HS_FACE layout."""

import csv
import io
import json
import os
from pathlib import Path

import cv2
import numpy as np

from datasets.creator import looks, sliders
from datasets.creator.render import VERSION, Renderer
from utils.errors import UserError
from utils.files import atomic_write, hold, sweep_temporaries, write_json, write_text
from utils.progress import progress
from utils.workers import map_unordered

#: Faces are rendered in blocks of this many, whoever renders them: matrix products of one size give the same bytes.
_BLOCK = 16


def face(seed: int, index: int, distribution: str = "uniform") -> tuple[np.ndarray, looks.Look, looks.Look]:
    """Face `index` of the data set of a seed: sliders (54,), its studio look, its photo-like look."""
    rng = np.random.default_rng([seed, index])
    parameters = sliders.draw(rng, distribution)
    studio = looks.studio(rng)
    return parameters, studio, looks.photo(rng, studio)


def write_data_set(output: Path, count: int, seed: int = 0, size: int = 256, with_aug: bool = True,
                   workers: int = 1, distribution: str = "uniform") -> None:
    """Write `count` faces to `output` in the HS_FACE layout; what is already there is kept.

    Pictures come first and labels last, so a folder with `labels.json` is complete. A run that was
    stopped goes on; `count` may be raised.

    Raises:
        UserError: the folder holds something else, or a data set made with other settings.
    """
    settings = {"creator": VERSION, "seed": seed, "size": size, "aug_images": with_aug, "distribution": distribution}
    _check_folder(output, settings, count)
    with hold(output, "datasets.creator write"):
        parts = ["images"] + ["aug_images"] * with_aug
        for part in parts:
            (output / part).mkdir(exist_ok=True)
            sweep_temporaries(output / part)
        sweep_temporaries(output)
        write_json(output / "creator.json", settings)
        labels, landmarks = np.empty((count, len(sliders.NAMES))), np.empty((count, 68, 2))
        tasks = [range(first, min(first + _BLOCK, count)) for first in range(0, count, _BLOCK)]
        with progress(total=count, desc=f"writing {output}", unit="face", smoothing=0.05) as bar:
            for block, parameters, points in map_unordered(
                    _write_block, tasks, workers, _start, (output, parts, seed, size, distribution)):
                labels[block.start:block.stop], landmarks[block.start:block.stop] = parameters, points
                bar.update(len(block))
        if hasattr(os, "sync"):
            os.sync()  # pictures reach the disk before the labels that say they are there
        names = [name_of(i) for i in range(count)]
        write_text(output / "parameters.csv", parameter_table())
        write_text(output / "landmarks.csv", _landmark_table(names, landmarks))
        write_labels(output, names, labels)


def write_labels(output: Path, names: list[str], labels: np.ndarray) -> None:
    """Write labels.json: NAME → sliders (54,), of (N, 54)."""
    rows = (f' {json.dumps(name)}: {json.dumps([round(float(v), 6) for v in row])}' for name, row in zip(names, labels))
    write_text(output / "labels.json", "{\n" + ",\n".join(rows) + "\n}\n")


def name_of(index: int) -> str:
    return f"face_{index:06d}"


def _check_folder(output: Path, settings: dict, count: int) -> None:
    if count < 1:
        raise UserError(f"--count is {count}; at least 1 face can be written")
    if settings["size"] not in (32, 64, 128, 256, 512):
        raise UserError(f"--size is {settings['size']}; expected 32, 64, 128, 256 or 512")
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; expected a folder to write the data set to")
    if not output.is_dir():
        return
    manifest = output / "creator.json"
    if not manifest.exists():
        strangers = [p.name for p in output.iterdir() if not p.name.startswith(".")]
        if strangers:
            raise UserError(f"{output} already holds {strangers[0]!r} and is no data set of the creator. Choose an empty folder.")
        return
    try:
        found = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{manifest} is damaged. Delete {output} and write it again.") from None
    for key, value in settings.items():
        if found.get(key) != value:
            raise UserError(f"{output} was written with {key} = {found.get(key)!r}, now {value!r} is asked for. "
                            "Choose another folder, or delete this one.")
    present = sum(1 for _ in (output / "images").glob("face_*.png")) if (output / "images").is_dir() else 0
    if present > count:
        raise UserError(f"{output} already holds {present} faces, more than the {count} asked for. "
                        "Ask for at least as many, choose another folder, or delete this one.")


_renderer: Renderer | None = None
_job: tuple = ()


def _start(output: Path, parts: list[str], seed: int, size: int, distribution: str) -> None:
    global _renderer, _job
    cv2.setNumThreads(1)
    _renderer, _job = Renderer(size), (output, parts, seed, distribution)


def _write_block(block: range) -> tuple[range, np.ndarray, np.ndarray]:
    output, parts, seed, distribution = _job
    faces = [face(seed, i, distribution) for i in block]
    parameters = np.array([f[0] for f in faces])
    paths = [[output / part / f"{name_of(i)}.png" for part in parts] for i in block]
    if all(path.exists() for of_face in paths for path in of_face):
        return block, parameters, _renderer.landmarks(parameters, [f[1] for f in faces])
    pictures, points = _renderer.render(parameters, [f[1:1 + len(parts)] for f in faces])
    for of_face, shown in zip(paths, pictures):
        for path, picture in zip(of_face, shown):
            _, data = cv2.imencode(".png", picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
            with atomic_write(path, sync=False) as file:
                file.write(data)
    return block, parameters, points


def parameter_table() -> str:
    """The text of the creator's parameters.csv."""
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["index", "name", "group", "kind", "min", "max", "description"])
    for i, s in enumerate(sliders.SLIDERS):
        rows.writerow([i, s.name, s.group, "slider", s.minimum, s.maximum, s.description])
    return table.getvalue()


def _landmark_table(names: list[str], landmarks: np.ndarray) -> str:
    header = "name," + ",".join(f"x{i},y{i}" for i in range(68))
    rows = (f"{name}," + ",".join(f"{v:.3f}" for v in points.ravel()) for name, points in zip(names, landmarks))
    return header + "\n" + "\n".join(rows) + "\n"
