"""Games: their tables, what the embedded game owes to whoever draws, writes and learns it, and the commands."""

import json
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from games.game import DISTRIBUTIONS, VERSION, Character, EmbeddedGame, default_game, embedded_game
from games.parameters import (
    BUILT_IN_TABLE,
    Parameter,
    mirrored_bones,
    parse_parameters,
    read_parameters,
    write_parameters,
)
from games.sheets import contact_sheet, random_grid
from games.writer import DataSet, manifest_version, name_of, read_manifest, write_data_set
from tests.discs import Discs
from tests.helpers import ROOT, command_of, environment, error_of, run_command
from utils.alignment import alignment_transform, five_points
from utils.errors import UserError
from utils.pictures import read_rgb


@pytest.fixture(scope="module")
def game():
    return default_game()


@pytest.fixture(scope="module")
def renderer(game):
    return game.renderer(128)


# --- the parameter table --------------------------------------------------------------------------


def test_the_table_describes_every_parameter():
    table = parse_parameters(BUILT_IN_TABLE)
    assert Counter(p.kind for p in table) == {"slider": 54, "bone": 151}
    assert all(p.kind == "slider" for p in table[:54])
    assert len({p.description for p in table}) == 205
    assert all(p.description for p in table)
    eye = next(p for p in table if p.name == "cf_J_Eye_s_L.position.x")
    assert eye.description == "left eye bone, position along x"
    for p in table[54:]:
        assert ("left" in p.description) == ("_L." in p.name), p
        assert p.description.endswith(p.name.rsplit(".", 1)[1]), p


def test_a_written_table_is_read_as_it_was(tmp_path):
    table = [*parse_parameters(BUILT_IN_TABLE), Parameter("x", "own", "slider", -0.125, 1e-7, 'a, "quoted" text')]
    write_parameters(tmp_path / "parameters.csv", table)
    assert parse_parameters(tmp_path / "parameters.csv") == table
    assert read_parameters(tmp_path, 206) == table
    with pytest.raises(UserError, match="has 206 rows, the labels of .* have 54 values"):
        read_parameters(tmp_path, 54)


def test_without_a_table_only_hs_faces_vectors_are_known(tmp_path):
    assert read_parameters(tmp_path, 205) == parse_parameters(BUILT_IN_TABLE)
    with pytest.raises(UserError, match="no parameters.csv and its labels have 54 values"):
        read_parameters(tmp_path, 54)


@pytest.mark.parametrize(
    "row, told",
    [
        ("1,b,g,slider,0,1,", "row 3"),
        ("0,a,g,slider,1,1,", "row 2"),
        ("0,a,g,slider,0,inf,", "row 2"),
        ("0,,g,slider,0,1,", "row 2"),
        ("0,a,g,slider,low,1,", "row 2"),
    ],
)
def test_a_damaged_table_is_named_by_its_row(tmp_path, row, told):
    rows = ["0,a,g,slider,0,1,", "2,b,g,slider,0,1,"] if row.startswith("1") else [row]
    (tmp_path / "t.csv").write_text("\n".join(["index,name,group,kind,min,max,description", *rows]) + "\n")
    with pytest.raises(UserError, match=f"{told}: found .* expected index"):
        parse_parameters(tmp_path / "t.csv")


def test_a_name_twice_in_a_table_is_refused(tmp_path):
    rows = ["index,name,group,kind,min,max", "0,a,g,slider,0,1", "1,a,g,slider,0,1"]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    with pytest.raises(UserError, match="names 'a' twice"):
        parse_parameters(tmp_path / "t.csv")


def test_mirrored_bones_of_hs_face():
    table = parse_parameters(BUILT_IN_TABLE)
    values = np.linspace(0, 1, 205)
    mirrored = mirrored_bones(table, values)
    left = {p.name: p.in_game(v) for p, v in zip(table, values, strict=True)}
    assert len(mirrored) == sum("_L." in p.name for p in table) > 50
    for name, bone in mirrored.items():
        assert bone["mirrors"] == name.replace("_R.", "_L.")
        sign = -1 if re.search(r"position\.x|rotation\.[yz]", name) else 1
        assert bone["value"] == pytest.approx(sign * left[bone["mirrors"]], abs=1e-6), name
    assert mirrored["cf_J_Eye_s_R.position.x"]["value"] * left["cf_J_Eye_s_L.position.x"] < 0
    assert mirrored_bones(table[:54], values[:54]) == {}


# --- games ----------------------------------------------------------------------------------------


def test_the_embedded_game_is_found_by_its_version():
    game = embedded_game(VERSION)
    assert game is default_game()
    assert game.version == VERSION
    assert [p.name for p in game.parameters] == game.names
    for other in ("1.0", "", None):
        assert embedded_game(other) is None


def test_a_version_is_known_without_a_renderer():
    """Stage 2 asks for a version, and whether this project can draw another game, and loads no renderer for that."""
    code = """
import sys
from games.game import VERSION, embedded_game
from games.writer import manifest_version, read_manifest
assert embedded_game(None) is None and embedded_game("another") is None
print(VERSION, *[name for name in sys.modules if name.startswith("games.makehuman")])
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert result.stdout.split() == [VERSION], result.stderr


def test_the_manifest_tells_games_apart(tmp_path):
    assert read_manifest(tmp_path) is None
    for content in ("{", "[]", '{"seed": 0}'):
        (tmp_path / "creator.json").write_text(content)
        assert read_manifest(tmp_path) is None
        assert manifest_version(tmp_path) is None
    (tmp_path / "creator.json").write_text('{"creator": "0.7", "size": 32}')
    assert read_manifest(tmp_path) == {"creator": "0.7", "size": 32}
    assert manifest_version(tmp_path) == "0.7"


def test_a_second_game_needs_no_change_elsewhere(tmp_path):
    game = Discs()
    for workers, folder in ((1, "a"), (2, "b")):
        write_data_set(tmp_path / folder, DataSet(20, 3, size=32), workers=workers, game=game)
    labels = json.loads((tmp_path / "a" / "labels.json").read_text())
    assert len(labels) == 20
    np.testing.assert_allclose(labels[name_of(4)], game.character(3, 4).parameters, atol=1e-6)
    assert parse_parameters(tmp_path / "a" / "parameters.csv") == game.parameters
    assert manifest_version(tmp_path / "a") == "discs 1"
    assert (read_rgb(tmp_path / "b" / "aug_images" / "face_000007.png") == 255).any()
    assert (tmp_path / "a" / "labels.json").read_bytes() == (tmp_path / "b" / "labels.json").read_bytes()
    truth = np.array([[0.4, 0.6], [0.55, 0.35]])
    assert contact_sheet(game).shape[2] == 3
    assert random_grid(game, 3, size=32).shape == (64, 64, 3)
    assert game.picture(truth[0], 32).shape == (32, 32, 3)
    with pytest.raises(UserError, match=f"creator = 'discs 1', now '{VERSION}' is asked for"):
        write_data_set(tmp_path / "a", DataSet(20, 3, size=32))


# --- what the embedded game owes ------------------------------------------------------------------


def drawn(game: EmbeddedGame, seed: int, count: int) -> tuple[list[Character], np.ndarray]:
    """The first characters of a seed, and their parameters (N, P)."""
    characters = [game.character(seed, i) for i in range(count)]
    return characters, np.array([c.parameters for c in characters])


def test_faces_are_aligned_by_their_own_points(game, renderer):
    characters, parameters = drawn(game, 4, 6)
    pictures, points = renderer.render(parameters, [(c.studio, c.photo) for c in characters])
    assert pictures.shape == (6, 2, 128, 128, 3) and pictures.dtype == np.uint8
    assert np.abs(pictures[:, 0].astype(int) - pictures[:, 1]).mean() > 10
    for look in ("studio", "photo"):
        landmarks = renderer.landmarks(parameters, [getattr(c, look) for c in characters])
        still = alignment_transform(five_points(landmarks), 128)
        np.testing.assert_allclose(still, np.broadcast_to(np.eye(2, 3), still.shape), atol=1e-6)
        if look == "studio":
            np.testing.assert_array_equal(points, landmarks)


def test_same_seed_same_bytes_alone_and_among_others(game, renderer):
    characters, parameters = drawn(game, 11, 18)
    looks = [(c.studio, c.photo) for c in characters]
    pictures, points = renderer.render(parameters, looks)
    for i in (0, 5, 17):
        again = game.character(11, i)
        alone, alone_points = game.make_renderer(128).render(again.parameters[None], [(again.studio, again.photo)])
        assert (alone[0] == pictures[i]).all()
        assert (alone_points[0] == points[i]).all()
    turned, _ = renderer.render(parameters[::-1], looks[::-1])
    assert (turned[::-1] == pictures).all()
    assert np.abs(pictures[0, 0].astype(int) - pictures[1, 0]).mean() > 1


def test_landmarks_do_not_depend_on_the_pictures_size(game, renderer):
    characters, parameters = drawn(game, 6, 2)
    looks = [c.photo for c in characters]
    large, small = renderer.landmarks(parameters, looks), game.renderer(64).landmarks(parameters, looks)
    np.testing.assert_allclose(large, small * 2 + 0.5, atol=1e-4)  # a pixel's centre is at whole coordinates


def test_nothing_but_sliders_decides_the_labels(game, tmp_path):
    """Same seed and index: same labels, whatever the size, the variants, the number of faces and who writes them."""
    for folder, wanted, workers in (
        ("a", DataSet(18, 6, size=32), 1),
        ("b", DataSet(20, 6, size=64, with_variants=False), 2),
    ):
        write_data_set(tmp_path / folder, wanted, workers=workers)
    small, large = (json.loads((tmp_path / folder / "labels.json").read_text()) for folder in "ab")
    assert len(small) == 18 and len(large) == 20
    assert small == {name: large[name] for name in small}
    assert len({tuple(row) for row in large.values()}) == 20
    assert not np.array_equal(game.character(6, 0).parameters, game.character(7, 0).parameters)


def test_a_game_gives_pictures_and_landmarks_of_parameters(game, renderer):
    parameters = drawn(game, 1, 3)[1]
    points = game.landmarks(parameters)
    assert points.shape == (3, 68, 2)
    assert game.renderer(256) is game.renderer(256)
    picture = game.picture(parameters[0])
    assert picture.shape == (256, 256, 3) and picture.dtype == np.uint8
    small, _ = renderer.render(parameters[:1], [(game.neutral_look(),)])
    assert np.array_equal(game.picture(parameters[0], 128), small[0, 0])
    # Seen from the front: eyes and corners of the mouth lie as high on the left as on the right.
    for left, right in ((36, 45), (39, 42), (48, 54)):
        assert np.abs(points[:, left, 1] - points[:, right, 1]).max() < 2


def test_draws(game):
    spread = {}
    for distribution in DISTRIBUTIONS:
        characters = np.array([game.character(0, i, distribution).parameters for i in range(300)])
        assert characters.min() >= 0 and characters.max() <= 1
        spread[distribution] = characters.std(0)
        pairs = [i for i, p in enumerate(game.parameters) if p.minimum == -1]
        np.testing.assert_allclose(characters.mean(0)[pairs], game.average()[pairs], atol=0.06)
    assert (spread["uniform"] > 0.03).all()
    assert (spread["typical"] <= spread["uniform"] + 0.05).all()
    assert spread["typical"].mean() < 0.8 * spread["uniform"].mean()
    with pytest.raises(UserError, match="'odd'"):
        game.character(0, 0, "odd")


# --- commands ---------------------------------------------------------------------------------------


def files_of(folder):
    return sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and p.name != ".lock")


def test_threads_of_blas_change_no_picture(tmp_path):
    """Two threads round otherwise than one: some pictures differed where this process rendered, not workers."""
    write = ("-m", "games", "write", "--size", 64, "--count", 18, "--no-variants")
    for workers in (0, 2):
        command = command_of(*write, "--output", f"with_{workers}", "--workers", workers)
        subprocess.run(command, cwd=tmp_path, env=environment() | {"OMP_NUM_THREADS": "2"}, check=True)
    for picture in sorted((tmp_path / "with_0" / "images").iterdir()):
        assert picture.read_bytes() == (tmp_path / "with_2" / "images" / picture.name).read_bytes(), picture.name


def test_written_data_set_is_the_same_however_it_is_written(game, tmp_path):
    write = ("-m", "games", "write", "--size", 32)
    run_command(*write, "--output", "a", "--count", 20, "--workers", 1, cwd=tmp_path)
    run_command(*write, "--output", "b", "--count", 9, "--workers", 2, cwd=tmp_path)
    (tmp_path / "b" / "labels.json").unlink()  # as if stopped: labels are written last
    (tmp_path / "b" / "images" / "face_000003.png").unlink()
    run_command(*write, "--output", "b", "--count", 20, "--workers", 2, cwd=tmp_path)

    files = files_of(tmp_path / "a")
    assert len(files) == 2 * 20 + 4
    assert files == files_of(tmp_path / "b")
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file

    labels = json.loads((tmp_path / "a" / "labels.json").read_text())
    np.testing.assert_allclose(labels["face_000007"], game.character(0, 7).parameters, atol=1e-6)
    header, *rows = (tmp_path / "a" / "landmarks.csv").read_text().splitlines()
    assert header.startswith("name,x0,y0,")
    assert header.endswith("x67,y67")
    assert len(rows) == 20
    manifest = json.loads((tmp_path / "a" / "creator.json").read_text())
    expected = {"creator": VERSION, "seed": 0, "size": 32, "aug_images": True, "distribution": "uniform"}
    assert manifest == expected and list(manifest) == list(expected)
    other_size = run_command(*write[:3], "--size", 64, "--output", "a", "--count", 20, cwd=tmp_path, check=False)
    assert "size = 32, now 64" in error_of(other_size)


def test_what_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "holiday.jpg").write_bytes(b"")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "creator.json").write_text("{")
    (tmp_path / "file").write_text("")
    write_data_set(tmp_path / "two", DataSet(2, size=32))
    for folder, wanted, told in (
        ("new", DataSet(0), "--count is 0"),
        ("new", DataSet(10**20), "expected 1 to 10,000,000 faces"),
        ("new", DataSet(4, -1), "--seed is -1"),
        ("new", DataSet(4, size=48), "--size is 48; expected 32, 64, 128, 256 or 512"),
        ("own", DataSet(4), "already holds 'holiday.jpg'"),
        ("damaged", DataSet(4), "creator.json is damaged"),
        ("file", DataSet(4), "is a file"),
        ("two", DataSet(1, size=32), "already holds 2 faces, more than the 1 asked for"),
    ):
        with pytest.raises(UserError, match=re.escape(told)):
            write_data_set(tmp_path / folder, wanted)
    assert not (tmp_path / "new").exists()


def test_commands_for_people(tmp_path):
    game, name = default_game(), default_game().names[3]
    (tmp_path / "p.json").write_text(json.dumps({"parameters": {name: {"normalised": 0.9}}}))
    told = run_command("-m", "games", "render", "p.json", "--size", 64, cwd=tmp_path).stdout
    assert told.split() == ["p.face.png", "p.face.mhm", "human.p.face.json"]
    parameters = game.average()
    parameters[3] = 0.9
    assert np.abs(read_rgb(tmp_path / "p.face.png").astype(int) - game.picture(parameters, 64)).max() <= 1

    run_command("-m", "games", "random", "--count", 3, "--size", 64, "--output", "grid.jpg", cwd=tmp_path)
    assert read_rgb(tmp_path / "grid.jpg").shape == (128, 128, 3)
    for content, told in (("{", "not JSON"), ('{"noze": 1}', "no slider"), (json.dumps({name: 3}), "from 0 to 1")):
        (tmp_path / "p.json").write_text(content)
        assert told in error_of(run_command("-m", "games", "render", "p.json", cwd=tmp_path, check=False))
    for option, value in (("--size", 0), ("--seed", -1), ("--count", 0), ("--count", 10**14)):
        refused = run_command("-m", "games", "random", "--output", "g.png", option, value, cwd=tmp_path, check=False)
        assert f"{option} is {value}" in error_of(refused)


@pytest.mark.parametrize("command", ["write", "sheet", "random", "render"])
def test_help_says_what_a_command_reads_and_writes(tmp_path, command):
    text = run_command("-m", "games", command, "--help", cwd=tmp_path).stdout
    assert re.search(r"^Reads  ", text, re.MULTILINE)
    assert re.search(r"^Writes  ", text, re.MULTILINE)
