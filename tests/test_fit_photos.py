"""fit_photos.py: what it refuses, whom it leaves out, and, where the observer is installed, what it writes."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.photos import Mesh
from datasets.people import fold_of, ratios
from fit_photos import look_at_renders
from games.game import default_game
from games.parameters import parse_parameters
from games.writer import DataSet, write_data_set
from models.facemesh import INSTALL, FaceMesh
from tests.helpers import error_of, plain_picture, run_here
from utils.errors import UserError
from utils.pictures import read_rgb, write_picture

needs_network = pytest.mark.skipif(
    importlib.util.find_spec("mediapipe") is None, reason=f"the face mesh is not installed; run: {INSTALL}"
)

GAME = default_game()

#: Characters that stand in for people.
PEOPLE = 12


# --- refused ----------------------------------------------------------------------------------------


def refusal(folder: Path, *arguments: object) -> str:
    return error_of(run_here("fit_photos.py", *arguments, cwd=folder, check=False))


def test_what_cannot_be_fitted_is_refused_before_anybody_looks(smoke, tmp_path):
    common = ("--data", smoke / "data" / "smoke", "--output", "known", "--photos")
    assert "holds no pictures; expected aligned faces. Run face_alignment.py" in refusal(tmp_path, *common, "aligned")

    plain_picture(tmp_path / "aligned" / "stranger.png")
    assert "expected --people TABLE" in refusal(tmp_path, *common, "aligned", "--fold", 1)
    (tmp_path / "people.csv").write_text("name,person\na.jpg,somebody\n")
    held_out = (*common, "aligned", "--fold", 1, "--people", "people.csv")
    assert "does not say who stranger.png is" in refusal(tmp_path, *held_out)
    assert "--count is 0" in refusal(tmp_path, *common, "aligned", "--count", 0)
    assert not (tmp_path / "known").exists()


def test_renders_that_are_too_small_to_see_are_refused(smoke):
    with pytest.raises(UserError, match="holds pictures of 32 pixels; the observer needs 128 or more"):
        look_at_renders(None, smoke / "data" / "smoke", 100)


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
        rows.append(f"p{i}.jpg,person {i}")
    plain_picture(folder / "aligned" / "grey.png", (128, 128, 128), side=256)
    (folder / "people.csv").write_text("\n".join([*rows, "grey.jpg,nobody"]))
    return folder


@needs_network
def test_photos_get_the_parameters_of_the_character_that_looks_like_them(folder):
    """160 renders are few for 73 parameters, but they take seconds."""
    command = ("fit_photos.py", "--data", "renders", "--photos", "aligned", "--output")
    told = run_here(*command, "known", cwd=folder).stdout
    assert f"{PEOPLE + 1} faces in known, {PEOPLE} of them with parameters" in told
    assert "held-out renders: points are" in told
    labels = json.loads((folder / "known" / "labels.json").read_text())
    assert set(labels) == {f"p{i}" for i in range(PEOPLE)}  # in the grey picture there is no face
    assert (folder / "known" / "images" / "grey.png").exists()
    assert parse_parameters(folder / "known" / "parameters.csv") == GAME.parameters

    # The observer sees the fitted characters as it sees the photos; what does not show is average.
    values = np.array([labels[f"p{i}"] for i in range(PEOPLE)])
    assert ((values >= 0) & (values <= 1)).all()
    still = np.ptp(values, axis=0) == 0
    np.testing.assert_allclose(values[:, still], np.tile(GAME.average()[still], (PEOPLE, 1)), atol=1e-6)
    assert 5 < still.sum() < len(still) - 5
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

    # Without a fifth of the people; not over somebody else's pictures.
    run_here(*command, "four", "--people", "people.csv", "--fold", 1, cwd=folder)
    written = {path.stem for path in (folder / "four" / "images").iterdir()}
    assert written - {"grey"} == {f"p{i}" for i in range(PEOPLE) if fold_of(f"person {i}") != 1}
    told = error_of(run_here(*command, "renders", cwd=folder, check=False))
    assert "already holds 'face_000000.png'" in told


@needs_network
def test_a_character_is_measured_as_its_own_picture_is(folder):
    parameters = np.array([GAME.character(2, i).parameters for i in range(2)])
    drawn = FaceMesh().find_aligned([GAME.picture(row) for row in parameters])
    seen = Mesh().characters(GAME, parameters)
    assert drawn.present.all()
    assert seen.shape == (2, 68, 2)
    assert np.abs(Mesh().people([], [GAME.picture(parameters[1])])[0] - seen[1]).max() < 1e-6
