"""fit_photos.py: what it refuses, who is on a photo, and, where the observer is installed, what it writes."""

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.photos import Mesh
from datasets.people import FOLDERS, fold_of, people_of, ratios
from datasets.photos import check_photos, names_of
from fit_photos import Characters, shared, statuses_of
from games.game import default_game
from games.parameters import parse_parameters
from games.writer import DataSet, write_data_set
from models.facemesh import IBUG, INSTALL, POINTS, FaceMesh, Meshes
from tests.helpers import error_of, plain_picture, run_here
from utils.errors import UserError
from utils.pictures import read_rgb, write_picture

needs_network = pytest.mark.skipif(
    importlib.util.find_spec("mediapipe") is None, reason=f"the face mesh is not installed; run: {INSTALL}"
)

GAME = default_game()

#: Characters that stand in for people.
PEOPLE = 12

#: Who they are: the first two are one person.
OWNERS = ["person 0", "person 0", *(f"person {i}" for i in range(2, PEOPLE))]


COMMAND = ("fit_photos.py", "--data", "renders", "--photos", "aligned")


# --- refused ----------------------------------------------------------------------------------------


def refusal(folder: Path, *arguments: object) -> str:
    return error_of(run_here("fit_photos.py", *arguments, cwd=folder, check=False))


def test_what_cannot_be_fitted_is_refused_before_anybody_looks(smoke, tmp_path):
    common = ("--data", smoke / "data" / "smoke", "--output", "known", "--photos")
    assert "holds no pictures; expected aligned faces. Run face_alignment.py" in refusal(tmp_path, *common, "aligned")

    plain_picture(tmp_path / "aligned" / "stranger.png")
    assert "expected --people TABLE or --people folders" in refusal(tmp_path, *common, "aligned", "--fold", 1)
    (tmp_path / "people.csv").write_text("name,person\na.jpg,somebody\n")
    held_out = (*common, "aligned", "--fold", 1, "--people", "people.csv")
    assert "does not say who stranger.png is" in refusal(tmp_path, *held_out)
    assert "--count is 0" in refusal(tmp_path, *common, "aligned", "--count", 0)
    assert not (tmp_path / "known").exists()


def test_renders_that_are_too_small_to_see_are_refused(smoke):
    with pytest.raises(UserError, match="holds pictures of 32 pixels; the observer needs 128 or more"):
        Characters(smoke / "data" / "smoke", 100).check_size()


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "photos.csv").write_text("my,own,table\n")
    with pytest.raises(UserError, match="photos.csv was not written by this program"):
        check_photos(tmp_path, ["a.png"])
    plain_picture(tmp_path / "images" / "b.png")
    with pytest.raises(UserError, match="already holds 'b.png'"):
        check_photos(tmp_path, ["a.png"])


# --- people -----------------------------------------------------------------------------------------


def test_people_are_told_apart_by_a_table_by_celebas_file_or_by_their_folders(tmp_path):
    pictures = [tmp_path / "anna" / "1.png", tmp_path / "ben" / "2.png", tmp_path / "ben" / "3.png"]
    (tmp_path / "people.csv").write_text("name,person\n3.jpg,ben b\n2.jpg,ben b\n1.jpg,anna\n")
    (tmp_path / "identity_CelebA.txt").write_text("1.jpg 2880\n2.jpg 17\n3.jpg 17\n\n")
    assert people_of(pictures, str(tmp_path / "people.csv"), folder=tmp_path) == ["anna", "ben b", "ben b"]
    assert people_of(pictures, str(tmp_path / "identity_CelebA.txt"), folder=tmp_path) == ["2880", "17", "17"]
    assert people_of(pictures, FOLDERS, folder=tmp_path) == ["anna", "ben", "ben"]
    assert people_of([tmp_path / "train" / "anna" / "1.png"], FOLDERS, folder=tmp_path) == ["train/anna"]


def test_people_who_cannot_be_told_apart_are_refused(tmp_path):
    table = tmp_path / "people.txt"
    table.write_text("1.jpg anna\n2.jpg\n")
    with pytest.raises(UserError, match="lacks its name or its person"):
        people_of([tmp_path / "1.png"], str(table), folder=tmp_path)
    with pytest.raises(UserError, match=r"1\.png lies in no person's folder"):
        people_of([tmp_path / "anna" / "2.png", tmp_path / "1.png"], FOLDERS, folder=tmp_path)
    table.write_text("1.jpg anna\n")
    with pytest.raises(UserError, match="cannot tell apart the photos"):
        people_of([tmp_path / "anna" / "1.png", tmp_path / "ben" / "1.png"], str(table), folder=tmp_path)


def test_photos_that_share_a_name_are_called_by_their_folders_too(tmp_path):
    assert names_of([tmp_path / "anna" / "1.png", tmp_path / "ben" / "2.png"], tmp_path) == ["1.png", "2.png"]
    alike = [tmp_path / "anna" / "1.png", tmp_path / "ben" / "1.png"]
    assert names_of(alike, tmp_path) == ["anna_1.png", "ben_1.png"]
    with pytest.raises(UserError, match="two of the photos .* have the name 'a'"):
        names_of([tmp_path / "a.png", tmp_path / "a.jpg"], tmp_path)


def test_a_label_lies_between_the_photos_fit_and_the_mean_of_its_persons_fits():
    fits = np.array([[0.0, 0.2], [0.9, 0.9], [1.0, 0.6]])
    np.testing.assert_allclose(shared(fits, ["b", "a", "b"]), [[0.25, 0.3], [0.9, 0.9], [0.75, 0.5]])


def test_a_face_is_fitted_unless_it_is_turned_or_not_found():
    points = np.zeros((3, POINTS, 2))
    points[:, IBUG[[0, 16, 30]], 0] = [(0, 100, 55), (0, 100, 80), (0, 100, 50)]
    assert statuses_of(Meshes(points, np.array([0.9, 0.9, 0.1])).landmarks) == ["fitted", "turned", "no_face"]


# --- fitted -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Renders to learn from; other characters' renders as aligned photos; who they are."""
    folder = tmp_path_factory.mktemp("fit")
    write_data_set(folder / "renders", DataSet(160, 1, size=128, with_variants=False), game=GAME)
    characters = [GAME.character(2, i) for i in range(PEOPLE)]
    parameters = np.array([character.parameters for character in characters])
    pictures, _ = GAME.renderer(256).render(parameters, [(character.studio,) for character in characters])
    rows = ["name,person"]
    for i in range(PEOPLE):
        write_picture(folder / "aligned" / f"p{i}.png", pictures[i, 0])
        rows.append(f"p{i}.jpg,{OWNERS[i]}")
    plain_picture(folder / "aligned" / "grey.png", (128, 128, 128), side=256)
    (folder / "people.csv").write_text("\n".join([*rows, "grey.jpg,nobody"]))
    return folder


@pytest.fixture(scope="module")
def told(folder: Path) -> str:
    """What is said while the photos are fitted, of people who are not told apart.

    160 renders are few for 73 parameters, but they take seconds.
    """
    return run_here(*COMMAND, "--output", "known", cwd=folder).stdout


def labels_in(root: Path) -> dict[str, np.ndarray]:
    return {name: np.array(row) for name, row in json.loads((root / "labels.json").read_text()).items()}


@needs_network
def test_photos_get_the_parameters_of_the_character_that_looks_like_them(folder, told):
    assert f"{PEOPLE + 1} faces in known: {PEOPLE} have parameters, 0 are turned too far, in 1 the observer" in told
    assert "people are not told apart" in told
    for title in ("characters in the neutral look", "renders"):
        assert f"held-out {title}: points are" in told
    assert "times as far from their mean as fits do" in told
    labels = labels_in(folder / "known")
    assert set(labels) == {f"p{i}" for i in range(PEOPLE)}  # in the grey picture there is no face
    assert (folder / "known" / "images" / "grey.png").exists()
    assert parse_parameters(folder / "known" / "parameters.csv") == GAME.parameters
    with open(folder / "known" / "photos.csv", newline="") as file:
        statuses = {row["name"]: row["status"] for row in csv.DictReader(file)}
    assert statuses == {f"p{i}.png": "fitted" for i in range(PEOPLE)} | {"grey.png": "no_face"}

    # The observer sees the fitted characters as it sees the photos.
    values = np.array([labels[f"p{i}"] for i in range(PEOPLE)])
    assert ((values >= 0) & (values <= 1)).all()
    photos = [read_rgb(folder / "aligned" / f"p{i}.png") for i in range(PEOPLE)]
    wanted, reached, average = (
        np.array(list(ratios(landmarks).values()))
        for landmarks in (
            Mesh().people([], photos),
            Mesh().characters(GAME, values),
            Mesh().characters(GAME, GAME.average()[None]),
        )
    )
    left, at_first = (np.abs(wanted - of).mean(1) for of in (reached, average))
    assert np.median(left / at_first) < 0.8


@needs_network
def test_one_persons_photos_share_their_labels_and_a_fifth_of_the_people_is_left_out(folder, told):
    command = (*COMMAND, "--people", "people.csv", "--output")
    said = run_here(*command, "four", "--fold", 2, cwd=folder).stdout
    assert f"{PEOPLE + 1} photos of {PEOPLE} people (people.csv)" in said
    labels, own = labels_in(folder / "four"), labels_in(folder / "known")
    assert set(labels) == {f"p{i}" for i in range(PEOPLE) if fold_of(OWNERS[i]) != 2} < set(own)

    # Photos 0 and 1 show one person, half of whose labels is the mean fit.
    apart, own_apart = (np.abs(of["p0"] - of["p1"]).mean() for of in (labels, own))
    assert 0.3 < apart / own_apart < 0.7

    # Not over somebody else's pictures.
    refused = error_of(run_here(*command, "renders", cwd=folder, check=False))
    assert "already holds 'face_000000.png'" in refused


@needs_network
def test_a_character_is_measured_as_its_own_picture_is(folder):
    parameters = np.array([GAME.character(2, i).parameters for i in range(2)])
    drawn = FaceMesh().find_aligned([GAME.picture(row) for row in parameters])
    seen = Mesh().characters(GAME, parameters)
    assert drawn.present.all()
    assert seen.shape == (2, 68, 2)
    assert np.abs(Mesh().people([], [GAME.picture(parameters[1])])[0] - seen[1]).max() < 1e-6
