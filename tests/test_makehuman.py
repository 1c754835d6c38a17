"""MakeHuman's head: the game's vertices and files, sliders that move what they name, exact landmarks, same bytes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from games.game import EmbeddedGame
from games.makehuman import MakeHuman, files, looks, parameters
from games.makehuman.build import as_bytes
from games.makehuman.data import ASSETS, HEAD_FILE, read_head, read_modifiers
from games.makehuman.hair import STYLES
from games.makehuman.model import macro_weights, target_weights, vertices
from games.makehuman.render import Renderer
from games.makehuman.rig import Rig
from utils.alignment import alignment_transform, five_points
from utils.errors import UserError

REFERENCE = Path(__file__).parent / "makehuman"
HUMANS = sorted(REFERENCE.glob("*.mhm"))


@pytest.fixture(scope="module")
def game() -> MakeHuman:
    return MakeHuman()


@pytest.fixture(scope="module")
def renderer(game: MakeHuman) -> Renderer:
    return game.make_renderer(128)


@pytest.fixture(scope="module")
def rig() -> Rig:
    return Rig()


def landmarks_of(rig: Rig, faces: np.ndarray) -> np.ndarray:
    """(N, 68, 3) landmarks in decimetres, x to the character's left, y up, z forward."""
    return rig.landmarks.fixed(rig.positions([parameters.game_values(face) for face in faces]).astype(np.float64))


def at_values(name: str, values: tuple[float, ...]) -> np.ndarray:
    faces = np.repeat(parameters.neutral()[None], len(values), axis=0)
    faces[:, parameters.NAMES.index(name)] = values
    return faces


# --- against the game itself -------------------------------------------------------------------------


def test_vertices_are_the_games():
    """Twelve characters as MakeHuman's own code computes them."""
    with np.load(REFERENCE / "vertices.npz") as reference:
        theirs = dict(reference)
    head = read_head()
    place = {int(vertex): i for i, vertex in enumerate(head.vertices)}
    ours = [place[int(vertex)] for vertex in theirs["vertex"]]
    for name, positions in zip(theirs["files"], theirs["position"], strict=True):
        human = vertices(head, files.read_mhm(REFERENCE / str(name)))
        np.testing.assert_allclose(human[ours], positions / 10_000, atol=0.001, err_msg=str(name))


@pytest.mark.parametrize("path", HUMANS, ids=lambda path: path.stem)
def test_a_human_of_the_game_survives_reading_and_writing(path: Path, tmp_path: Path):
    values = files.read_mhm(path)
    files.write_mhm(tmp_path / "again.mhm", values)
    assert files.read_mhm(tmp_path / "again.mhm") == values

    def lines(file: Path) -> list[str]:
        return [line for line in file.read_text().splitlines() if line.startswith("modifier ")]

    assert lines(tmp_path / "again.mhm") == lines(path)


@pytest.mark.parametrize("path", HUMANS, ids=lambda path: path.stem)
def test_a_human_survives_the_preset(path: Path):
    values = files.read_mhm(path)
    again = files.from_preset(json.loads(json.dumps(files.preset(values))))
    of_the_body = ("breast/", "macrodetails-height/", "macrodetails-proportions/")
    assert again == {name: value for name, value in values.items() if not name.startswith(of_the_body)}


def test_a_character_is_the_same_in_the_game(game: MakeHuman, tmp_path: Path):
    character = game.character(7, 1).parameters
    human, preset = game.character_file(character, tmp_path / "face")
    assert [human.name, preset.name] == ["face.mhm", "human.face.json"]
    assert human.read_text().splitlines()[1] == "version v1.2.0"
    np.testing.assert_allclose(game.read_character_file(human), character, atol=1e-5)

    # The game's lines, left and right apart, give the vertices that the parameters give.
    head = read_head()
    exact = vertices(head, files.read_mhm(human))
    np.testing.assert_allclose(exact, vertices(head, parameters.game_values(character)), atol=1e-4)


def test_a_character_that_is_read_back_looks_the_same(game: MakeHuman, renderer: Renderer, tmp_path: Path):
    character = game.character(7, 2)
    human, _ = game.character_file(character.parameters, tmp_path / "face")
    both = np.stack([character.parameters, game.read_character_file(human)])
    pictures, points = renderer.render_each(both, [(character.studio,)] * 2)
    assert np.abs(pictures[0].astype(int) - pictures[1]).mean() < 0.05
    np.testing.assert_allclose(points[0], points[1], atol=0.01)


def test_the_packed_head_is_the_same_bytes_whenever_it_is_packed():
    with np.load(HEAD_FILE) as file:
        arrays = {name: file[name] for name in file.files}
    assert as_bytes(arrays) == HEAD_FILE.read_bytes()
    assert sum(path.stat().st_size for path in ASSETS.iterdir()) < 1_500_000


def test_what_is_no_human_is_said(tmp_path: Path):
    with pytest.raises(UserError, match="cannot be read"):
        files.read_mhm(tmp_path / "missing.mhm")
    path = tmp_path / "bad.mhm"
    path.write_text("version v1.2.0\nmodifier nose/nose-hump-decr|incr much\n")
    with pytest.raises(UserError, match="line 2"):
        files.read_mhm(path)
    path.write_text("hello\n")
    with pytest.raises(UserError, match="no modifier"):
        files.read_mhm(path)


def test_macros_are_shares():
    for values in ({}, {"macrodetails/Age": 0.9}, {"macrodetails/African": 3.0, "macrodetails/Gender": 1.0}):
        weights = macro_weights(values)
        assert sum(w for name, w in weights.items() if not name.startswith("universal")) == pytest.approx(1)
        assert sum(w for name, w in weights.items() if name.startswith("universal")) == pytest.approx(1)
    assert set(target_weights({"nose/nose-hump-decr|incr": -0.5})) > {"nose/nose-hump-decr"}


# --- parameters --------------------------------------------------------------------------------------


def test_the_table(game: MakeHuman):
    assert isinstance(game, EmbeddedGame)
    assert game.version == "2.2"
    assert len(set(game.names)) == len(game.names) == len(parameters.neutral())
    assert {p.kind for p in game.parameters} == {"slider", "macro"}
    assert sum(p.kind == "macro" for p in game.parameters) == 5
    for modifier in read_modifiers():
        assert bool(modifier.reason) != modifier.offered, modifier.name
        assert modifier.description
    targets = set(read_head().names)
    assert all(set(modifier.targets) <= targets for modifier in read_modifiers())


def test_random_characters_are_within_the_games_limits(game: MakeHuman):
    drawn = np.array([game.character(0, i).parameters for i in range(200)])
    assert drawn.min() >= 0 and drawn.max() <= 1
    origins = [i for i, name in enumerate(game.names) if name.rpartition("/")[2] in ("African", "Asian", "Caucasian")]
    np.testing.assert_allclose(drawn[:, origins].sum(1), 1)
    shapes = [i for i, p in enumerate(game.parameters) if p.kind == "slider" and p.minimum == 0]
    assert (drawn[:, shapes] > 0).sum(1).max() == 1
    assert (drawn.std(0) > 0.03).all()
    with pytest.raises(UserError, match="'odd'"):
        game.character(0, 0, "odd")


def test_parameters_and_game_values_are_inverse(game: MakeHuman):
    character = game.character(3, 3).parameters
    np.testing.assert_allclose(parameters.from_game_values(parameters.game_values(character)), character)
    with pytest.raises(UserError, match="shape"):
        parameters.game_values(character[:-1])


# --- sliders move what they name ---------------------------------------------------------------------


def _at(point: int, axis: int = 0):
    return lambda p: p[..., point, axis]


def _between(high: int, low: int, axis: int):
    return lambda p: p[..., high, axis] - p[..., low, axis]


def _mean(points: slice, axis: int):
    return lambda p: p[..., points, axis].mean(-1)


#: What rises with a slider, measured on the landmarks: x to the character's left, y up, z forward.
RISES = {
    "head/head-fat-decr|incr": _between(13, 3, 0),
    "head/head-scale-horiz-decr|incr": _between(16, 0, 0),
    "head/head-scale-vert-decr|incr": _between(27, 8, 1),
    "head/head-triangular": _between(13, 3, 0),
    "eyebrows/eyebrows-trans-down|up": _mean(slice(17, 27), 1),
    "eyebrows/eyebrows-angle-down|up": lambda p: p[..., 22, 1] - p[..., 26, 1],
    "eyes/eye-trans-in|out": lambda p: p[..., 42:48, 0].mean(-1) - p[..., 36:42, 0].mean(-1),
    "eyes/eye-trans-down|up": _mean(slice(36, 48), 1),
    "eyes/eye-scale-decr|incr": _between(45, 42, 0),
    "eyes/eye-height2-decr|incr": lambda p: p[..., [43, 44], 1].mean(-1) - p[..., [46, 47], 1].mean(-1),
    "eyes/eye-corner1-down|up": _at(45, 1),
    "eyes/eye-corner2-down|up": _at(42, 1),
    "eyes/eye-push1-in|out": _at(45, 0),
    "eyes/eye-push2-in|out": lambda p: -p[..., 42, 0],
    "nose/nose-trans-down|up": _mean(slice(27, 36), 1),
    "nose/nose-scale-vert-decr|incr": _between(27, 33, 1),
    "nose/nose-scale-horiz-decr|incr": _between(35, 31, 0),
    "nose/nose-width3-decr|incr": _between(35, 31, 0),
    "nose/nose-point-down|up": _at(30, 1),
    "mouth/mouth-scale-horiz-decr|incr": _between(54, 48, 0),
    "mouth/mouth-scale-vert-decr|incr": _between(51, 57, 1),
    "mouth/mouth-trans-down|up": _mean(slice(48, 68), 1),
    "mouth/mouth-lowerlip-height-decr|incr": _between(66, 57, 1),
    "mouth/mouth-upperlip-height-decr|incr": _between(51, 62, 1),
    "mouth/mouth-angles-down|up": _at(54, 1),
    "mouth/mouth-lowerlip-middle-down|up": lambda p: -p[..., 57, 1],
    "chin/chin-jaw-drop-decr|incr": lambda p: -p[..., 10, 1],
    "chin/chin-width-decr|incr": _between(10, 6, 0),
    "chin/chin-height-decr|incr": _between(57, 8, 1),
    "chin/chin-prominent-decr|incr": _at(8, 2),
}


@pytest.mark.parametrize("name", RISES)
def test_a_slider_moves_what_it_names(rig: Rig, name: str):
    measured = RISES[name](landmarks_of(rig, at_values(name, (0.0, 0.25, 0.5, 0.75, 1.0))))
    steps = np.diff(measured)
    assert (steps > 0).all(), steps
    assert measured[-1] - measured[0] > 0.02, "less than two pixels of an aligned picture"


def test_every_slider_changes_the_picture_monotonically(game: MakeHuman, renderer: Renderer):
    """The further a slider is from neutral the more it moves the vertices; at its ends the picture shows it."""
    look = replace(game.neutral_look(), hair="", bald=True)
    plain = renderer.render_each(parameters.neutral()[None], [(look,)])[0][0, 0].astype(float)
    rig = renderer._rig
    start = rig.positions([parameters.game_values(parameters.neutral())])[0]
    for parameter in game.parameters:
        middle = parameters.neutral()[game.names.index(parameter.name)]
        faces = at_values(parameter.name, (middle + 0.5 * (1 - middle), 1.0))
        near, far = rig.positions([parameters.game_values(face) for face in faces])
        distances = [np.abs(moved - start).max() for moved in (near, far)]
        assert 0.004 < distances[0] < distances[1], parameter.name
        picture = renderer.render_each(faces[1:], [(look,)])[0][0, 0]
        assert np.abs(picture - plain).mean() > 0.02, parameter.name


def test_left_and_right_mirror(rig: Rig, game: MakeHuman):
    """A tied slider moves both sides alike."""
    head = rig.head
    start = rig.positions([parameters.game_values(parameters.neutral())])[0]
    for name in game.names:
        moved = rig.positions([parameters.game_values(at_values(name, (0.9,))[0])])[0] - start
        mirrored = moved[head.mirror] * np.array([-1, 1, 1])
        assert np.abs(mirrored - moved).max() < max(0.012, 0.2 * np.abs(moved).max()), name


# --- pictures ----------------------------------------------------------------------------------------


def test_same_seed_same_bytes_whatever_the_batch(game: MakeHuman, renderer: Renderer):
    drawn = [game.character(11, i) for i in range(18)]
    faces = np.array([c.parameters for c in drawn])
    pictures, points = renderer.render_each(faces, [(c.studio, c.photo) for c in drawn])
    for i in (0, 5, 17):
        again = game.character(11, i)
        alone, alone_points = game.make_renderer(128).render_each(again.parameters[None], [(again.studio, again.photo)])
        assert (alone[0] == pictures[i]).all()
        assert (alone_points[0] == points[i]).all()
    order = np.arange(18)[::-1]
    reversed_, _ = renderer.render_each(faces[order], [(drawn[i].studio, drawn[i].photo) for i in order])
    assert (reversed_[::-1] == pictures).all()


def test_labels_are_independent_of_looks(game: MakeHuman):
    """What is drawn for the looks comes after the parameters, and nothing of it reaches them."""
    character = game.character(2, 9)
    again = parameters.draw(np.random.default_rng([2, 9]))
    np.testing.assert_array_equal(character.parameters, again)
    skins = np.array([game.character(2, i).studio.skin.mean() for i in range(150)])
    african = np.array([game.character(2, i).parameters[game.names.index("macrodetails/African")] for i in range(150)])
    assert abs(np.corrcoef(skins, african)[0, 1]) < 0.25


def test_pictures_are_aligned_by_their_own_landmarks(game: MakeHuman, renderer: Renderer):
    drawn = [game.character(4, i) for i in range(6)]
    faces = np.array([c.parameters for c in drawn])
    _, points = renderer.render_each(faces, [(c.studio, c.photo) for c in drawn])
    assert points.shape == (6, 2, 68, 2)
    still = alignment_transform(five_points(points), 128)
    np.testing.assert_allclose(still, np.broadcast_to(np.eye(2, 3), still.shape), atol=1e-6)
    np.testing.assert_array_equal(points[:, 1], renderer.landmarks(faces, [c.photo for c in drawn]))


def test_landmarks_lie_on_the_lips_that_are_drawn(game: MakeHuman, renderer: Renderer):
    """Lips of two colours differ exactly where the mouth's landmarks are."""
    for yaw in (-0.3, 0.0, 0.3):
        face = game.character(6, 1)
        look = replace(face.studio, yaw=yaw, beard="", stubble=0.0)
        colours = [replace(look, lipstick=(np.array(c), 1.0)) for c in ((0.9, 0.1, 0.1), (0.1, 0.1, 0.9))]
        pictures, points = renderer.render_each(face.parameters[None], [colours])
        different = np.abs(pictures[0, 0].astype(int) - pictures[0, 1]).sum(-1) > 60
        rows, columns = np.nonzero(different)
        mouth = points[0, 0, 48:68]
        assert columns.min() == pytest.approx(mouth[:, 0].min(), abs=2.0)
        assert columns.max() == pytest.approx(mouth[:, 0].max(), abs=2.0)
        assert rows.min() == pytest.approx(mouth[:, 1].min(), abs=2.0)
        assert rows.max() == pytest.approx(mouth[:, 1].max(), abs=2.5)


def test_landmarks_do_not_depend_on_the_pictures_size(game: MakeHuman, renderer: Renderer):
    face = game.character(6, 2)
    small = renderer.landmarks(face.parameters[None], [face.photo])[0]
    large = Renderer(64).landmarks(face.parameters[None], [face.photo])[0]
    np.testing.assert_allclose(small, large * 2 + 0.5, atol=1e-4)


def test_the_jaw_of_a_turned_head_is_its_outline(game: MakeHuman, renderer: Renderer):
    """On the side that turns away nothing of the head lies further out than the jaw's landmarks."""
    face = parameters.neutral()
    look = replace(game.neutral_look(), hair="", bald=True, yaw=float(np.radians(28)))
    pictures, points = renderer.render_each(face[None], [(look,)])
    nothing = renderer.render_each(face[None], [(replace(look, skin=np.array([1.0, 0.0, 0.0])),)])[0]
    head = np.abs(pictures[0, 0].astype(int) - nothing[0, 0]).sum(-1) > 40
    for x, y in points[0, 0, 12:16]:
        row = np.flatnonzero(head[int(round(y))])
        assert x == pytest.approx(row.max(), abs=2.5)


@pytest.mark.parametrize("style", STYLES)
def test_hair_and_beards_stay_off_the_eyes(game: MakeHuman, renderer: Renderer, style: str):
    field = "beard" if STYLES[style].beard else "hair"
    bare = replace(game.neutral_look(), hair="", bald=False)
    face = parameters.neutral()[None]
    pictures, points = renderer.render_each(face, [(bare, replace(bare, **{field: style}))])
    changed = np.abs(pictures[0, 0].astype(int) - pictures[0, 1]).sum(-1) > 30
    assert changed.mean() > 0.003
    left, top = points[0, 0, 36:48].min(0).astype(int) - 1
    right, bottom = points[0, 0, 36:48].max(0).astype(int) + 1
    assert changed[top:bottom, left:right].mean() < 0.02


def test_expressions_name_units_that_exist():
    names = set(read_head().names)
    for units in looks.EXPRESSIONS.values():
        assert all(f"expression/{unit}" in names for unit, _ in units)
    assert {*looks._WOMENS, *looks._MENS, *looks._BEARDS} == set(STYLES)
