"""The embedded game: what each slider moves, on the geometry before the warp, what pictures show, and the commands."""

import json
import re
import subprocess
import sys
from collections import Counter

import cv2
import numpy as np
import pytest

from games.game import DISTRIBUTIONS, VERSION, Character, EmbeddedGame, default_game, embedded_game
from games.parameters import (
    BUILT_IN_TABLE,
    Parameter,
    mirrored_bones,
    parse_parameters,
    read_parameters,
    read_typical,
    write_parameters,
)
from games.relief import head, sliders
from games.sheets import contact_sheet, random_grid
from games.writer import DataSet, manifest_version, name_of, read_manifest, write_data_set
from tests.helpers import ROOT, command_of, environment, error_of, run_command
from utils.alignment import TEMPLATE, alignment_transform, five_points, transform_points
from utils.errors import UserError
from utils.pictures import read_rgb

STEPS = np.linspace(0, 1, 5)

#: Least travel of a landmark or of the surface from 0 to 1: 1 % of the face's width, 1.5 px at 256.
VISIBLE = 0.02

#: Most that landmarks of other groups may travel.
BYSTANDER = 0.03


@pytest.fixture(scope="module")
def game():
    return default_game()


@pytest.fixture(scope="module")
def renderer(game):
    return game.renderer(128)


def swept(renderer, name):
    """Geometry of the rest face with one slider at 0, 0.25, 0.5, 0.75, 1."""
    parameters = np.full((len(STEPS), 54), 0.5)
    parameters[:, sliders.NAMES.index(name)] = STEPS
    return renderer.geometry(parameters)


def surface_at(geometry, x, y):
    """Depth z of the surfaces at a rest point: (5,)."""
    column, row = round((x + 2.2) / (4.4 / 143)), round((y + 1.95) / (4.4 / 143))
    return geometry.face[:, 2, row, column].astype(float)


def width(a, b):
    return lambda p: p[:, b, 0] - p[:, a, 0]


def height(*points):
    return lambda p: -p[:, list(points), 1].mean(1)


#: What a slider's rise makes larger, measured on the landmarks (N, 68, 3). y points down, so heights are −y.
MEASURED = {
    "face_width": width(0, 16),
    "upper_face_height": height(19, 24),
    "lower_face_width": width(4, 12),
    "jaw_width": width(4, 12),
    "jaw_height": height(4, 12),
    "jaw_angle": lambda p: p[:, 10, 0] - p[:, 6, 0] + p[:, [6, 10], 1].sum(1),
    "jaw_base_height": height(7, 8, 9),
    "chin_width": width(7, 9),
    "chin_height": height(8),
    "lower_cheek_width": width(2, 14),
    "upper_cheek_width": width(1, 15),
    "eye_height_position": height(*range(36, 48)),
    "eye_spacing": lambda p: p[:, 42:48, 0].mean(1) - p[:, 36:42, 0].mean(1),
    "eye_width": lambda p: p[:, 45, 0] - p[:, 42, 0],
    "eye_opening": lambda p: p[:, 46:48, 1].mean(1) - p[:, 43:45, 1].mean(1),
    "eye_angle_z": lambda p: p[:, 42, 1] - p[:, 45, 1],
    "inner_eye_corner_spacing": width(39, 42),
    "outer_eye_corner_spacing": width(36, 45),
    "inner_eye_corner_height": height(39, 42),
    "outer_eye_corner_height": height(36, 45),
    "eyelid_shape_1": height(38, 43),
    "eyelid_shape_2": height(37, 44),
    "nose_height_position": height(31, 33, 35),
    "nose_width": width(31, 35),
    "nostril_width": width(31, 35),
    "nostril_height": height(31, 35),
    "nostril_angle_z": lambda p: p[:, 34, 1] - p[:, 35, 1],
    "nose_tip_height": height(30),
    "nose_tip_angle_x": height(33),
    "mouth_height_position": height(*range(48, 68)),
    "mouth_width": width(48, 54),
    "lip_thickness": lambda p: p[:, 57, 1] - p[:, 51, 1],
    "upper_lip_shape": lambda p: p[:, 51, 1] - p[:, [50, 52], 1].mean(1),
    "lower_lip_shape": lambda p: p[:, 57, 1] - p[:, [56, 58], 1].mean(1),
    "mouth_corner_shape": height(48, 54),
}

#: Sliders of depth and form: rest points whose z rises, and points (if any) against which it rises.
FORWARD = {
    "upper_face_depth": [(0.3, -0.7)],
    "lower_face_depth": [(0, 1.3)],
    "jaw_depth": [(0.62, 1.04)],
    "chin_depth": [(0, 1.43)],
    "lower_cheek_height": [(0.6, 0.62), (0.6, 0.9)],
    "lower_cheek_depth": [(0.6, 0.76)],
    "upper_cheek_height": [(0.68, 0.19), (0.68, 0.44)],
    "upper_cheek_depth": [(0.66, 0.31)],
    "eye_depth": [(0.46, -0.01)],
    "eye_angle_y": [(0.33, 0.0), (0.59, 0.0)],
    "nose_depth": [(0, 0.45)],
    "nose_angle_x": [(0, 0.5), (0, -0.1)],
    "nose_bridge_height": [(0, -0.06)],
    "nose_bridge_width": [(0.135, 0.08), (0, 0.08)],
    "nose_bridge_shape": [(0, 0.22)],
    "nostril_depth": [(0.185, 0.575)],
    "nostril_angle_x": [(0.0, 0.55), (0.105, 0.665)],
    "nose_tip_size": [(0, 0.49)],
    "mouth_depth": [(0, 1.01)],
}

#: Landmarks that a slider of a group may move: the group's own and, for "whole" and the outline, the outline's.
MAY_MOVE = {
    "whole": {*range(27), *range(48, 68)},
    "chin": {*range(17)},
    "cheek": {*range(17)},
    "eye": {*range(36, 48), *range(17, 28)},
    "nose": {*range(27, 36)},
    "mouth": {*range(48, 68), 32, 33, 34},
}

#: Where a group's sliders move the surface most, on the right half: least and most x, least and most y.
REGIONS = {
    "whole": (0, 1.01, -1.3, 1.7),
    "chin": (0, 1, 0.8, 1.7),
    "cheek": (0.4, 1.01, 0, 1.1),
    "eye": (0.15, 0.85, -0.3, 0.25),
    "nose": (0, 0.4, -0.3, 0.8),
    "mouth": (0, 0.7, 0.8, 1.3),
}

#: Sliders that change at least 3 % of the face's pixels; the others change 1 %.
LARGE = ("face_width", "lower_face_width", "jaw_width", "upper_face_height", "upper_cheek_width")


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


def test_typical_faces_lie_within_the_table():
    """Within the range of each parameter but for a standard deviation or two, in the game's units."""
    table = parse_parameters(BUILT_IN_TABLE)
    mean, std = read_typical(BUILT_IN_TABLE)
    assert mean.shape == std.shape == (205,)
    assert (std > 0).all()
    for p, value in zip(table, mean, strict=True):
        assert p.minimum <= value <= p.maximum, p


def test_a_written_table_is_read_as_it_was(tmp_path):
    table = [*parse_parameters(BUILT_IN_TABLE), Parameter("x", "own", "slider", -0.125, 1e-7, 'a, "quoted" text')]
    write_parameters(tmp_path / "parameters.csv", table)
    assert parse_parameters(tmp_path / "parameters.csv") == table
    assert read_parameters(tmp_path, 206) == table
    with pytest.raises(UserError, match="has 206 rows, the labels of .* have 54 values"):
        read_parameters(tmp_path, 54)
    with pytest.raises(UserError, match="does not say what is typical"):
        read_typical(tmp_path / "parameters.csv")


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


def test_embedded_games_are_found_by_version():
    game = embedded_game(VERSION)
    assert game is default_game()
    assert game.version == VERSION
    assert [p.name for p in game.parameters] == game.names == sliders.NAMES
    for other in ("0.9", "", None):
        assert embedded_game(other) is None


def test_a_version_is_known_without_a_renderer():
    """Stage 2 asks for a version, and whether this project can draw another game, and loads no renderer for that."""
    code = """
import sys
from games.game import VERSION, embedded_game
from games.writer import manifest_version, read_manifest
assert embedded_game(None) is None and embedded_game("another") is None
print(VERSION, *[name for name in sys.modules if name.startswith("games.relief")])
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


class Discs(EmbeddedGame):
    """A game of two parameters, a disc's size and its grey, to stand in for a second game beside the relief."""

    def __init__(self):
        table = [
            Parameter("size", "disc", "slider", 0, 1, "larger"),
            Parameter("grey", "disc", "slider", 0, 1, "lighter"),
        ]
        super().__init__("game of discs", "discs 1", parameters=table)

    def character(self, seed, index, distribution="uniform"):
        return Character(np.random.default_rng([seed, index]).random(2), "studio", "photo")

    def neutral_look(self):
        return "studio"

    def make_renderer(self, size):
        return DiscRenderer(size)

    def character_file(self, parameters, stem):
        path = stem.with_suffix(".disc")
        path.write_text(json.dumps(parameters.tolist()))
        return [path]


class DiscRenderer:
    def __init__(self, size):
        self.size = size

    def render(self, parameters, looks):
        pictures = np.zeros((len(looks), len(looks[0]), self.size, self.size, 3), np.uint8)
        for i, (radius, grey) in enumerate(parameters):
            for k, look in enumerate(looks[i]):
                colour = (100 + 155 * grey if look == "studio" else 255,) * 3
                cv2.circle(pictures[i, k], (self.size // 2,) * 2, 1 + int(radius * self.size / 3), colour, -1)
        return pictures, self.landmarks(parameters, [of_face[0] for of_face in looks])

    def landmarks(self, parameters, looks):
        rng = np.random.default_rng(0)
        mean, way = 200 * rng.random((68, 2)), rng.normal(0, 20, (2, 68, 2))
        points = mean + np.einsum("np,pld->nld", np.asarray(parameters) - 0.5, way)
        return transform_points(alignment_transform(five_points(points), self.size), points)


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
    with pytest.raises(UserError, match="creator = 'discs 1', now '1.0' is asked for"):
        write_data_set(tmp_path / "a", DataSet(20, 3, size=32))


# --- what the sliders of the relief move -----------------------------------------------------------


def test_sliders_are_those_of_the_table(game):
    assert game.parameters == sliders.SLIDERS == parse_parameters(BUILT_IN_TABLE)[:54]
    assert set(MEASURED) | set(FORWARD) == set(sliders.NAMES)


@pytest.mark.parametrize("name", sliders.NAMES)
def test_slider_moves_the_right_thing_in_its_direction(renderer, name):
    geometry = swept(renderer, name)
    if name in MEASURED:
        values = MEASURED[name](geometry.landmarks)
    else:
        up, *against = FORWARD[name]
        values = surface_at(geometry, *up) - sum((surface_at(geometry, *p) for p in against), start=np.zeros(5))
    assert np.all(np.diff(values) > 0), values
    assert values[-1] - values[0] > VISIBLE

    group = sliders.SLIDERS[sliders.NAMES.index(name)].group
    others = [i for i in range(68) if i not in MAY_MOVE[group]]
    travel = np.abs(geometry.landmarks[-1, others, :2] - geometry.landmarks[0, others, :2]).max()
    assert travel < BYSTANDER


def test_left_and_right_mirror(renderer):
    rng = np.random.default_rng(0)
    geometry = renderer.geometry(rng.random((4, 54)))
    mirrored = geometry.face[..., ::-1] * np.array([-1, 1, 1])[:, None, None]
    np.testing.assert_allclose(geometry.face, mirrored, atol=1e-4)
    for left, right in head.MIRRORED:
        np.testing.assert_allclose(geometry.landmarks[:, left] * (-1, 1, 1), geometry.landmarks[:, right], atol=1e-4)


def test_no_combination_of_sliders_tears_the_face():
    """Every stage keeps the plane's orientation for all sliders in [0, 1], so their chain does.

    With |slider − ½| ≤ ½ each entry of a stage's Jacobian lies within ½ Σ|∂field| of the identity's.
    """
    step = 0.02
    x, y = np.meshgrid(np.arange(-1.2, 1.2, step), np.arange(-1.8, 1.8, step))
    distance, radius = head.outline_radius(x, y)
    inside = distance < radius
    fields = sliders.fields(x, y)
    used = [name for stage in sliders.STAGES for name in stage]
    moving = [n for n, f in zip(sliders.NAMES, fields, strict=True) if np.abs(f[:2]).max() > 1e-9]
    assert sorted(used) == sorted(moving)

    for stage in sliders.STAGES:
        members = fields[[sliders.NAMES.index(n) for n in stage], :2]
        along_x, along_y = (0.5 * np.abs(np.gradient(members, step, axis=axis)).sum(0) for axis in (3, 2))
        least = (1 - along_x[0]) * (1 - along_y[1]) - along_y[0] * along_x[1]
        assert (1 - along_x[0])[inside].min() > 0.1, stage
        assert (1 - along_y[1])[inside].min() > 0.1, stage
        assert least[inside].min() > 0.1, stage


# --- what the pictures show -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def extremes(game):
    """Pictures of the rest face with each slider at 0 and at 1, at 256 px: (54, 2, 256, 256, 3), and landmarks."""
    parameters = np.full((54, 2, 54), 0.5)
    for i in range(54):
        parameters[i, :, i] = 0, 1
    pictures, points = game.renderer(256).render(parameters.reshape(-1, 54), [(game.neutral_look(),)] * 108)
    return pictures.reshape(54, 2, 256, 256, 3), points.reshape(54, 2, 68, 2)


@pytest.mark.parametrize("name", sliders.NAMES)
def test_slider_changes_the_picture_in_its_own_region(extremes, name):
    index = sliders.NAMES.index(name)
    pictures, points = extremes[0][index].astype(int), extremes[1][index]
    changed = np.abs(pictures[0] - pictures[1]).max(-1) >= 8
    outline = cv2.convexHull(np.concatenate([points[0, :27], points[1, :27]]).astype(np.float32))
    face = np.zeros(changed.shape, np.uint8)
    cv2.fillPoly(face, [outline.astype(np.int32)], 1)
    least = 0.03 if name in LARGE else 0.01
    assert changed.sum() >= least * face.sum()

    # Before alignment: where the surface or the paint on it moves most belongs to the slider's group.
    x, y = np.meshgrid(np.linspace(-1, 1, 81), np.linspace(-1.2, 1.6, 113))
    moved = np.abs(sliders.fields(x, y)[index]).max(0)
    at_x, at_y = abs(x.flat[moved.argmax()]), y.flat[moved.argmax()]
    left, right, top, bottom = REGIONS[sliders.SLIDERS[index].group]
    assert left <= at_x <= right, (at_x, at_y)
    assert top <= at_y <= bottom, (at_x, at_y)


def as_complex(points):
    return points[..., 0] + 1j * points[..., 1]


def test_faces_are_aligned_by_their_own_points(game, renderer):
    characters = [game.character(3, i) for i in range(4)]
    parameters = np.array([c.parameters for c in characters])
    pictures, points = renderer.render(parameters, [(c.studio, c.photo) for c in characters])
    np.testing.assert_allclose(points, renderer.landmarks(parameters, [c.studio for c in characters]))
    assert pictures.dtype == np.uint8
    assert np.abs(pictures[:, 0].astype(int) - pictures[:, 1]).mean() > 10

    template = (TEMPLATE + 0.5) / 2 - 0.5  # at 128 pixels; a pixel's centre is at whole coordinates
    for five in five_points(points):
        offset = five - template
        assert np.linalg.norm(offset, axis=1).mean() < 8
        # No further similarity brings the points nearer to the template: at the least-squares one the sum of the
        # offsets vanishes and so does Σ conj(five − mean) · offset (real part: scale, imaginary part: rotation).
        assert np.abs(offset.sum(0)).max() < 1e-6
        assert abs((np.conj(as_complex(five - five.mean(0))) * as_complex(offset)).sum()) < 1e-6


def test_the_condition_of_least_squares_sees_a_wrong_scale_and_turn():
    """What the test before this one asserts fails where a similarity is off by a thousandth."""
    five = TEMPLATE + np.random.default_rng(0).normal(0, 2, (5, 2))
    centred = as_complex(five - five.mean(0))
    target = as_complex(TEMPLATE - TEMPLATE.mean(0))
    best = (np.conj(centred) * target).sum() / np.square(np.abs(centred)).sum()
    for error, least in ((1, 0), (1.001, 1), (1 / 1.001, 1), (np.exp(0.001j), 1)):
        shown = best * error * centred
        condition = abs((np.conj(shown) * (shown - target)).sum())
        assert condition > least if least else condition < 1e-6


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


def test_a_face_looks_the_same_alone_and_among_others(game, renderer):
    one, other = (game.character(3, i).parameters for i in (1, 2))
    look = game.neutral_look()
    alone, _ = renderer.render(np.array([one]), [(look,)])
    among, _ = renderer.render(np.array([one, other]), [(look,)] * 2)
    assert np.abs(alone[0].astype(int) - among[0]).max() <= 1
    assert np.abs(among[0].astype(int) - among[1]).mean() > 1
    assert np.array_equal(game.picture(one, 128), alone[0, 0])


def test_a_game_gives_pictures_and_landmarks_of_parameters(game):
    parameters = np.array([game.character(1, i).parameters for i in range(3)])
    points = game.landmarks(parameters)
    assert points.shape == (3, 68, 2)
    assert game.renderer(256) is game.renderer(256)
    picture = game.picture(parameters[0])
    assert picture.shape == (256, 256, 3) and picture.dtype == np.uint8
    # Seen from the front: the nose tip lies in the middle, and left mirrors right.
    for left, right in head.MIRRORED:
        assert np.abs(points[:, left, 1] - points[:, right, 1]).max() < 2
    assert game.character_file(parameters[0], BUILT_IN_TABLE) == []


def test_draws():
    uniform = np.array([sliders.draw(np.random.default_rng(i)) for i in range(2000)])
    assert uniform.min() >= 0
    assert uniform.max() <= 1
    assert np.abs(uniform.mean(0) - 0.5).max() < 0.05

    assert "typical" in DISTRIBUTIONS
    typical = np.array([sliders.draw(np.random.default_rng(i), "typical") for i in range(2000)])
    mean = read_typical(BUILT_IN_TABLE)[0][:54]
    expected = np.array([(m - s.minimum) / (s.maximum - s.minimum) for m, s in zip(mean, sliders.SLIDERS, strict=True)])
    assert np.abs(typical.mean(0) - expected).max() < 0.02
    assert typical.std(0).max() < 0.15


# --- commands ---------------------------------------------------------------------------------------


def files_of(folder):
    return sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and p.name != ".lock")


def test_threads_of_blas_change_no_picture(tmp_path):
    """Two threads round otherwise than one: some pictures differed where this process rendered, not workers."""
    write = ("-m", "games", "write", "--size", 64, "--count", 33, "--no-variants")
    for workers in (0, 2):
        command = command_of(*write, "--output", f"with_{workers}", "--workers", workers)
        subprocess.run(command, cwd=tmp_path, env=environment() | {"OMP_NUM_THREADS": "2"}, check=True)
    for picture in sorted((tmp_path / "with_0" / "images").iterdir()):
        assert picture.read_bytes() == (tmp_path / "with_2" / "images" / picture.name).read_bytes(), picture.name


def test_written_data_set_is_the_same_however_it_is_written(game, tmp_path):
    write = ("-m", "games", "write", "--size", 32)
    run_command(*write, "--output", "a", "--count", 40, "--workers", 1, cwd=tmp_path)
    run_command(*write, "--output", "b", "--count", 18, "--workers", 2, cwd=tmp_path)
    (tmp_path / "b" / "labels.json").unlink()  # as if stopped: labels are written last
    (tmp_path / "b" / "images" / "face_000003.png").unlink()
    run_command(*write, "--output", "b", "--count", 40, "--workers", 2, cwd=tmp_path)

    files = files_of(tmp_path / "a")
    assert len(files) == 84
    assert files == files_of(tmp_path / "b")
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file

    labels = json.loads((tmp_path / "a" / "labels.json").read_text())
    np.testing.assert_allclose(labels["face_000007"], game.character(0, 7).parameters, atol=1e-6)
    header, *rows = (tmp_path / "a" / "landmarks.csv").read_text().splitlines()
    assert header.startswith("name,x0,y0,")
    assert header.endswith("x67,y67")
    assert len(rows) == 40
    manifest = json.loads((tmp_path / "a" / "creator.json").read_text())
    expected = {"creator": VERSION, "seed": 0, "size": 32, "aug_images": True, "distribution": "uniform"}
    assert manifest == expected and list(manifest) == list(expected)
    other_size = run_command(*write[:3], "--size", 64, "--output", "a", "--count", 40, cwd=tmp_path, check=False)
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
    (tmp_path / "p.json").write_text(json.dumps({"parameters": {"nose_width": {"normalised": 0.9}}}))
    run_command("-m", "games", "render", "p.json", "--size", 64, cwd=tmp_path)
    wide = read_rgb(tmp_path / "p.face.png")
    parameters = np.full(54, 0.5)
    parameters[sliders.NAMES.index("nose_width")] = 0.9
    assert np.abs(wide.astype(int) - default_game().picture(parameters, 64)).max() <= 1

    run_command("-m", "games", "random", "--count", 3, "--size", 64, "--output", "grid.jpg", cwd=tmp_path)
    assert read_rgb(tmp_path / "grid.jpg").shape == (128, 128, 3)
    for content, told in (("{", "not JSON"), ('{"noze": 1}', "no slider"), ('{"nose_width": 3}', "from 0 to 1")):
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
