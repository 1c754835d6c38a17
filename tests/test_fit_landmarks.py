"""fit_photos.py --landmarks: what is recovered from landmarks in a file, what is said of others, what is refused.

The photos and the renders are plain pictures: only names and landmarks count.
"""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.names import split_of
from fit_photos import ENOUGH
from games.game import default_game
from games.parameters import write_parameters
from games.writer import name_of, write_labels
from tests.helpers import error_of, plain_picture, run_here
from utils.files import write_json
from utils.pictures import write_picture

#: Characters to learn from, and others who stand in for people.
CHARACTERS, PEOPLE = 110, 24

GAME = default_game()
RNG = np.random.default_rng(0)
LABELS = RNG.random((CHARACTERS, len(GAME.parameters)))
TRUTH = RNG.uniform(0.1, 0.9, (PEOPLE, len(GAME.parameters)))

#: What the annotators of the photos mean by the 68 points: always so far from where the game has them.
OFFSET = RNG.normal(0, 5, (68, 2))

HEADER = ["name", *(f"{axis}{i}" for i in range(68) for axis in "xy")]

Rows = dict[str, Any]


def write_table(path: Path, rows: Rows) -> None:
    """Names and their landmarks (68, 2); None leaves the cells empty."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(HEADER)
        table.writerows([name, *(np.ravel(row) if row is not None else [""] * 136)] for name, row in rows.items())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Characters of the embedded game; the same as another game's; photos of people, of one turned, of nobody."""
    folder = tmp_path_factory.mktemp("landmarks")
    names = [name_of(i) for i in range(CHARACTERS)]
    for game in ("embedded", "other"):
        plain_picture(folder / game / "images" / f"{names[0]}.png", side=8)
        picture = (folder / game / "images" / f"{names[0]}.png").read_bytes()
        for name in names:
            (folder / game / "images" / f"{name}.png").write_bytes(picture)
        write_labels(folder / game, names, labels=LABELS)
        write_parameters(folder / game / "parameters.csv", GAME.parameters)
    write_json(folder / "embedded" / "creator.json", {"creator": GAME.version})
    for i in range(PEOPLE + 2):
        write_picture(folder / "aligned" / "00000" / f"{i:05d}.png", np.zeros((8, 8, 3), np.uint8))
    return folder


@pytest.fixture(scope="module")
def annotated(folder: Path) -> np.ndarray:
    """Landmarks of the people and of somebody turned, (PEOPLE + 1, 68, 2), in pictures of all sizes and angles."""
    points = GAME.landmarks(TRUTH) + OFFSET
    turned = points[:1].copy()
    turned[:, 30] += 0.3 * (turned[:, 16] - turned[:, 0])
    angles = RNG.normal(0, 0.2, PEOPLE + 1)
    turns = np.array([[np.cos(angles), np.sin(angles)], [-np.sin(angles), np.cos(angles)]]).transpose(2, 0, 1)
    scales, shifts = RNG.uniform(0.5, 4, (PEOPLE + 1, 1, 1)), RNG.uniform(0, 900, (PEOPLE + 1, 1, 2))
    return scales * np.concatenate([points, turned]) @ turns + shifts


def fit(folder: Path, *arguments: object, data: str = "embedded") -> tuple[str, dict[str, np.ndarray], dict[str, str]]:
    """What is printed, the labels, and what became of each photo."""
    output = folder / f"known{len(list(folder.glob('known*')))}"
    command = ("fit_photos.py", "--data", data, "--photos", "aligned", "--output", output, "--landmarks")
    said = run_here(*command, *arguments, cwd=folder).stdout
    labels = {name: np.array(row) for name, row in json.loads((output / "labels.json").read_text()).items()}
    with open(output / "photos.csv", newline="") as file:
        return said, labels, {row["name"]: row["status"] for row in csv.DictReader(file)}


def error(labels: dict[str, np.ndarray]) -> float:
    """Mean distance of recovered from true landmarks, as a share of that of the average character's.

    Some parameters move no landmark, and several move the same ones: what is recovered is where they bring them.
    """
    found = GAME.landmarks(np.array([labels[name] for name in sorted(labels)]))
    truth, average = GAME.landmarks(TRUTH[: len(labels)]), GAME.landmarks(GAME.average()[None])
    left, at_first = (np.linalg.norm(truth - points, axis=-1).mean() for points in (found, average))
    return float(left / at_first)


def test_parameters_are_recovered_from_a_table_and_from_ffhqs_file_alike(folder, annotated):
    table = {f"{i:05d}.jpg": points for i, points in enumerate(annotated)}
    write_table(folder / "points.csv", table | {f"{PEOPLE + 1:05d}.jpg": None, "99999.jpg": annotated[0]})
    entries = {str(i): {"image": {"face_landmarks": row.tolist()}} for i, row in enumerate(annotated)}
    entries["3"] = {"in_the_wild": entries["3"]["image"], "metadata": {"license": "none"}}
    write_json(folder / "ffhq-dataset-v2.json", entries)

    said, labels, statuses = fit(folder, "points.csv")
    assert f"{PEOPLE + 2} faces in" in said and "1 are turned too far, 1 have no landmarks" in said
    assert "px from the characters' on average; this is taken out" in said
    expected = {f"{i:05d}.png": "fitted" for i in range(PEOPLE)}
    assert statuses == expected | {f"{PEOPLE:05d}.png": "turned", f"{PEOPLE + 1:05d}.png": "no_face"}
    assert set(labels) == {f"{i:05d}" for i in range(PEOPLE)}
    assert error(labels) < 0.45

    _, of_ffhq, same_statuses = fit(folder, "ffhq-dataset-v2.json")
    assert same_statuses == statuses
    for name, row in labels.items():
        np.testing.assert_allclose(of_ffhq[name], row, atol=2e-6)

    # What another game writes of its renders serves as well, in pixels of whatever size.
    renders = GAME.landmarks(LABELS) / 2
    write_table(folder / "other" / "landmarks.csv", {name_of(i): row for i, row in enumerate(renders)})
    _, of_table, _ = fit(folder, "points.csv", data="other")
    assert error(of_table) < 0.45


def test_of_few_photos_the_mean_difference_is_not_taken_out(folder, annotated):
    write_table(folder / "few.csv", {f"{i:05d}.png": row for i, row in enumerate(annotated[: ENOUGH - 1])})
    said, labels, _ = fit(folder, "few.csv")
    assert f"not taken out, as {ENOUGH - 1} photos are too few" in said
    assert len(labels) == ENOUGH - 1
    assert error(labels) > 0.5


def test_landmarks_that_are_something_else_are_refused(folder, annotated, tmp_path):
    def refusal(file: Path, data: Path = folder / "embedded") -> str:
        command = ("fit_photos.py", "--data", data, "--photos", folder / "aligned", "--output", "known", "--landmarks")
        return error_of(run_here(*command, file, cwd=tmp_path, check=False))

    table, ffhq = tmp_path / "points.csv", tmp_path / "FFHQ.JSON"
    assert "cannot read" in (refused := refusal(table)) and "x67, y67" in refused
    assert "cannot read" in refusal(ffhq)
    table.write_text("name,x0,y0\n00000.png,1,2\n")
    assert "it has no column 'x1'" in refusal(table)
    write_table(table, {"somebody.png": annotated[0]})
    assert f"none of the {PEOPLE + 2} photos" in (refused := refusal(table)) and "it names somebody.png" in refused
    write_table(table, {f"{i:05d}.png": np.full((68, 2), 7.0) for i in range(PEOPLE)})  # all points at one place
    assert "none of the" in refusal(table)

    for content in ("[]", "{", '{"a": {}}', '{"0": {}}', '{"0": {"image": {"face_landmarks": [[1, 2], [3]]}}}'):
        ffhq.write_text(content)
        assert "is not as expected" in refusal(ffhq), content

    # Right as a table: but y goes up, or nobody knows where the game's landmarks are.
    write_table(table, {f"{i:05d}.png": row * (1, -1) for i, row in enumerate(annotated[:-1])})
    assert "x to the right and y down" in refusal(table)
    (folder / "other" / "landmarks.csv").unlink(missing_ok=True)
    assert "has no landmarks.csv; with --landmarks this table" in refusal(table, folder / "other")
    assert not (tmp_path / "known").exists()


def test_the_splits_of_the_characters_are_all_there():
    """Otherwise nothing could be learned from them."""
    splits = [split_of(name_of(i)) for i in range(CHARACTERS)]
    assert splits.count("train") > len(GAME.parameters) and splits.count("val") and splits.count("test")
