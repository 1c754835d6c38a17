"""MakeHuman's head: the game's vertices and files, sliders that move what they name, landmarks where they are drawn."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from games.game import VERSION, EmbeddedGame, default_game
from games.makehuman import MakeHuman, files, looks, parameters
from games.makehuman.build import as_bytes
from games.makehuman.data import ASSETS, HEAD_FILE, SKIN, read_head, read_modifiers
from games.makehuman.hair import STYLES
from games.makehuman.mesh import triangles
from games.makehuman.model import macro_weights, target_weights, vertices
from games.makehuman.render import Renderer
from games.makehuman.rig import Rig
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
    assert game.version == VERSION
    assert len(set(game.names)) == len(game.names) == len(parameters.neutral())
    assert {p.kind for p in game.parameters} == {"slider", "macro"}
    for modifier in read_modifiers():
        assert bool(modifier.reason) != modifier.offered, modifier.name
        assert modifier.description
    targets = set(read_head().names)
    assert all(set(modifier.targets) <= targets for modifier in read_modifiers())


def test_random_characters_are_within_the_games_limits(game: MakeHuman):
    drawn = np.array([game.character(0, i).parameters for i in range(200)])
    origins = [i for i, name in enumerate(game.names) if name.rpartition("/")[2] in ("African", "Asian", "Caucasian")]
    np.testing.assert_allclose(drawn[:, origins].sum(1), 1)
    shapes = [i for i, p in enumerate(game.parameters) if p.kind == "slider" and p.minimum == 0]
    assert shapes
    assert (drawn[:, shapes] > 0).sum(1).max() == 1


def test_parameters_and_game_values_are_inverse(game: MakeHuman):
    character = game.character(3, 3).parameters
    np.testing.assert_allclose(parameters.from_game_values(parameters.game_values(character)), character)
    with pytest.raises(UserError, match="shape"):
        parameters.game_values(character[:-1])


# --- sliders move what they name ---------------------------------------------------------------------

#: Least that what a slider names travels from 0 to 1: more than two pixels of an aligned picture. Decimetres.
VISIBLE = 0.02

#: Most that landmarks of other parts of the face may travel, as the front shows them. Decimetres.
BYSTANDER = 0.03


class Heads:
    """The same head with one parameter at several values; positions in decimetres."""

    def __init__(self, rig: Rig, name: str, values: tuple[float, ...]) -> None:
        self._rest = rig.neutral
        self._ears = rig.head.masks[:, 3] > 0.5
        self.positions = rig.positions([parameters.game_values(face) for face in at_values(name, values)])
        #: (K, 68, 3), x to the character's left, y up, z forward
        self.p = rig.landmarks.fixed(self.positions.astype(np.float64))

    def at(self, *place: float) -> np.ndarray:
        """(K, 3) where the vertex that lies nearest to a place of the rest head went."""
        vertex = np.linalg.norm(self._rest - np.array(place, np.float32), axis=1).argmin()
        return self.positions[:, vertex].astype(np.float64)

    def ear(self) -> np.ndarray:
        """(K, E, 3) the left ear."""
        return self.positions[:, self._ears & (self._rest[:, 0] > 0)].astype(np.float64)

    def per_eye_distance(self, lengths: np.ndarray) -> np.ndarray:
        """Lengths (K,) as fractions of the distance of the eyes: macros change the size of the whole head."""
        return lengths / np.linalg.norm(self.p[:, 42:48].mean(1) - self.p[:, 36:42].mean(1), axis=-1)


def _at(point: int, axis: int = 0):
    return lambda h: h.p[:, point, axis]


def _between(high: int, low: int, axis: int):
    return lambda h: h.p[:, high, axis] - h.p[:, low, axis]


def _mean(points: slice, axis: int):
    return lambda h: h.p[:, points, axis].mean(-1)


def _spot(x: float, y: float, z: float, axis: int):
    return lambda h: h.at(x, y, z)[:, axis]


#: What rises with a parameter, by its name: on the landmarks where they show it, else at a spot of the rest head.
RISES = {
    "head/head-angle-in|out": _at(8, 2),
    "head/head-fat-decr|incr": _between(13, 3, 0),
    "head/head-triangular": lambda h: h.p[:, 12, 0] - h.p[:, 16, 0],
    "head/head-scale-horiz-decr|incr": _between(16, 0, 0),
    "head/head-scale-vert-decr|incr": _between(27, 8, 1),
    "forehead/forehead-temple-decr|incr": _spot(0.63, 7.59, 0.85, 0),
    "eyebrows/eyebrows-trans-backward|forward": _mean(slice(17, 27), 2),
    "eyebrows/eyebrows-trans-down|up": _mean(slice(17, 27), 1),
    "eyebrows/eyebrows-angle-down|up": _between(22, 26, 1),
    "eyes/eye-bag-height-decr|incr": lambda h: -h.at(0.39, 7.13, 1.3)[:, 1],
    "eyes/eye-epicanthus-in|out": _spot(0.11, 7.34, 1.34, 0),
    "eyes/eye-height1-decr|incr": _between(43, 47, 1),
    "eyes/eye-height2-decr|incr": lambda h: h.p[:, [43, 44], 1].mean(-1) - h.p[:, [46, 47], 1].mean(-1),
    "eyes/eye-height3-decr|incr": _between(44, 46, 1),
    "eyes/eye-trans-in|out": lambda h: h.p[:, 42:48, 0].mean(-1) - h.p[:, 36:42, 0].mean(-1),
    "eyes/eye-trans-down|up": _mean(slice(36, 48), 1),
    "eyes/eye-scale-decr|incr": _between(45, 42, 0),
    "eyes/eye-corner1-down|up": _at(45, 1),
    "eyes/eye-corner2-down|up": _at(42, 1),
    "eyes/eye-push1-in|out": _at(45, 0),
    "eyes/eye-push2-in|out": lambda h: -h.p[:, 42, 0],
    "nose/nose-trans-down|up": _mean(slice(27, 36), 1),
    "nose/nose-trans-backward|forward": _mean(slice(27, 36), 2),
    "nose/nose-scale-vert-decr|incr": _between(27, 33, 1),
    "nose/nose-scale-depth-decr|incr": _between(30, 31, 2),
    "nose/nose-septumangle-decr|incr": _between(31, 30, 1),
    "nose/nose-scale-horiz-decr|incr": _between(35, 31, 0),
    "nose/nose-width1-decr|incr": _spot(0.07, 7.33, 1.38, 0),
    "nose/nose-width2-decr|incr": _spot(0.08, 7.17, 1.46, 0),
    "nose/nose-width3-decr|incr": _between(35, 31, 0),
    "nose/nose-compression-compress|uncompress": _at(28, 1),
    "nose/nose-curve-concave|convex": _spot(0, 7.18, 1.49, 2),
    "nose/nose-greek-decr|incr": _spot(0, 7.33, 1.42, 2),
    # Blunter: a wider ball for how far the tip stands out. Its two targets are no opposites, so no point tells it.
    "nose/nose-volume-decr|incr": lambda h: h.at(0.06, 7.04, 1.56)[:, 0] / (h.p[:, 30, 2] - h.p[:, 31, 2]),
    "nose/nose-nostrils-angle-down|up": _at(35, 1),
    "nose/nose-point-down|up": _at(30, 1),
    "mouth/mouth-scale-horiz-decr|incr": _between(54, 48, 0),
    "mouth/mouth-scale-vert-decr|incr": _between(51, 57, 1),
    "mouth/mouth-scale-depth-decr|incr": _between(51, 48, 2),
    "mouth/mouth-trans-down|up": _mean(slice(48, 68), 1),
    "mouth/mouth-trans-backward|forward": _mean(slice(48, 68), 2),
    "mouth/mouth-lowerlip-height-decr|incr": _between(66, 57, 1),
    "mouth/mouth-lowerlip-width-decr|incr": _between(55, 59, 0),
    "mouth/mouth-upperlip-height-decr|incr": _between(51, 62, 1),
    "mouth/mouth-lowerlip-ext-down|up": lambda h: -h.p[:, 55, 1],
    "mouth/mouth-angles-down|up": _at(54, 1),
    "mouth/mouth-lowerlip-middle-down|up": lambda h: -h.p[:, 57, 1],
    "mouth/mouth-lowerlip-volume-decr|incr": _spot(0.06, 6.63, 1.49, 2),
    "ears/ear-trans-down|up": lambda h: h.ear()[..., 1].mean(1),
    "ears/ear-wing-decr|incr": lambda h: h.ear()[..., 0].mean(1),
    "ears/ear-flap-decr|incr": _spot(0.81, 7.2, 0.3, 0),
    "chin/chin-jaw-drop-decr|incr": lambda h: -h.p[:, 10, 1],
    "chin/chin-width-decr|incr": _between(10, 6, 0),
    "chin/chin-height-decr|incr": _between(57, 8, 1),
    "chin/chin-prominent-decr|incr": _at(8, 2),
    "cheek/cheek-volume-decr|incr": _spot(0.46, 6.81, 1.21, 0),
    "cheek/cheek-bones-decr|incr": _spot(0.58, 7.01, 1.12, 0),
    "cheek/cheek-inner-decr|incr": _spot(0.31, 6.97, 1.34, 2),
    "cheek/cheek-trans-down|up": _spot(0.36, 7.07, 1.32, 1),
    # What the game's macros say of a face: a longer chin, a longer nose, a wider one, a flatter one, a further one.
    "macrodetails/Gender": lambda h: h.per_eye_distance(h.p[:, 57, 1] - h.p[:, 8, 1]),
    "macrodetails/Age": lambda h: h.per_eye_distance(h.p[:, 27, 1] - h.p[:, 33, 1]),
    "macrodetails/African": lambda h: h.per_eye_distance(h.p[:, 35, 0] - h.p[:, 31, 0]),
    "macrodetails/Asian": lambda h: h.per_eye_distance(h.p[:, 42, 2] - h.p[:, 27, 2]),
    "macrodetails/Caucasian": lambda h: h.per_eye_distance(h.p[:, 30, 2] - h.p[:, 8, 2]),
}

#: Landmarks that a group's sliders may move; those of the whole head, and macros, move all.
MAY_MOVE = {
    "forehead": set(),
    "eyebrows": {*range(17, 27)},
    "eyes": {*range(17, 27), *range(36, 48)},
    "nose": {*range(27, 36)},
    "mouth": {*range(48, 68), *range(31, 36)},
    "ears": {0, 1, 2, 14, 15, 16},
    "chin": {*range(17)},
    "cheek": {*range(17)},
}

#: Where a group's sliders move the skin most, on the left half: least and most x, least and most y. Decimetres.
REGIONS = {
    "forehead": (0, 0.8, 7.5, 8.5),
    "eyebrows": (0.1, 0.6, 7.4, 7.8),
    "eyes": (0.1, 0.5, 7.1, 7.5),
    "nose": (0, 0.2, 6.85, 7.4),
    "mouth": (0, 0.3, 6.5, 6.8),
    "ears": (0.5, 0.9, 6.7, 7.6),
    "chin": (0, 0.45, 6.2, 6.5),
    "cheek": (0.25, 0.65, 6.7, 7.15),
}

NAMES = default_game().names


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_moves_what_it_names_and_nothing_else(rig: Rig, game: MakeHuman, name: str):
    heads = Heads(rig, name, (0.0, 0.25, 0.5, 0.75, 1.0))
    measured = RISES[name](heads)
    assert (np.diff(measured) > 0).all(), measured
    assert measured[-1] - measured[0] > VISIBLE

    group = game.parameters[game.names.index(name)].group
    if group in MAY_MOVE:
        others = [i for i in range(68) if i not in MAY_MOVE[group]]
        assert np.abs(heads.p[-1, others, :2] - heads.p[0, others, :2]).max() < BYSTANDER
        skin = np.unique(rig.head.quads[rig.head.parts == SKIN])
        travel = np.linalg.norm(heads.positions[-1, skin] - heads.positions[0, skin], axis=-1)
        x, y, _ = rig.neutral[skin[travel.argmax()]]
        left, right, bottom, top = REGIONS[group]
        assert left <= abs(x) <= right and bottom <= y <= top, (x, y)


@pytest.fixture(scope="module")
def extremes(game: MakeHuman, renderer: Renderer) -> np.ndarray:
    """(P, 2, 128, 128, 3) int pictures of the neutral head, without hair, with each parameter at 0 and at 1."""
    look = replace(game.neutral_look(), hair="", bald=True)
    pictures = [renderer.render(at_values(name, (0.0, 1.0)), [(look,)] * 2)[0][:, 0] for name in game.names]
    return np.array(pictures).astype(int)


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_changes_the_picture_visibly(extremes: np.ndarray, name: str):
    """By 8 of 255 levels in 1 of 250 pixels, 65 of them, or more."""
    low, high = extremes[NAMES.index(name)]
    assert (np.abs(low - high).max(-1) >= 8).mean() > 0.004


def test_drawn_characters_are_neither_folded_nor_torn(rig: Rig, game: MakeHuman):
    """The skin that the front shows, but for the rims of lids, nostrils and lips, which fold by nature.

    The mesh is one piece, so skin is torn where a triangle is out of proportion, and folded where one turns over.
    """
    corners = triangles(rig.head.quads[rig.head.parts == SKIN])
    middles = rig.neutral[corners].mean(1)

    def normals(positions: np.ndarray) -> np.ndarray:
        a, b, c = (positions[..., corners[:, k], :] for k in range(3))
        return np.cross(b - a, c - a)

    rest = normals(rig.neutral)
    area = np.linalg.norm(rest, axis=-1)
    features = rig.landmarks.fixed(rig.neutral.astype(np.float64))[31:]
    apart = np.linalg.norm(middles[:, None] - features, axis=-1).min(1) > 0.16
    is_ear = rig.head.masks[corners, 3].max(1) > 0.02
    chosen = apart & ~is_ear & (rest[:, 2] > 0.3 * area) & (middles[:, 2] > 0.5) & (middles[:, 1] > 6.2)
    assert chosen.sum() > 1000

    drawn = [parameters.game_values(game.character(0, i).parameters) for i in range(200)]
    found = normals(rig.positions(drawn))[:, chosen]
    sizes = np.linalg.norm(found, axis=-1)
    turned = (found * rest[chosen]).sum(-1) / (sizes * area[chosen])
    grown = sizes / area[chosen]
    whole = (turned.min(1) > 0) & (grown.min(1) > 0.05) & (grown.max(1) < 8)
    assert whole.mean() >= 0.99  # a draw far out on several sliders of one spot may pinch it


def test_left_and_right_mirror(rig: Rig, game: MakeHuman):
    """A tied slider moves both sides alike."""
    head = rig.head
    start = rig.positions([parameters.game_values(parameters.neutral())])[0]
    for name in game.names:
        moved = rig.positions([parameters.game_values(at_values(name, (0.9,))[0])])[0] - start
        mirrored = moved[head.mirror] * np.array([-1, 1, 1])
        assert np.abs(mirrored - moved).max() < max(0.012, 0.2 * np.abs(moved).max()), name


# --- pictures ----------------------------------------------------------------------------------------


def test_labels_are_independent_of_looks(game: MakeHuman):
    """What is drawn for the looks comes after the parameters, and nothing of it reaches them."""
    character = game.character(2, 9)
    again = parameters.draw(np.random.default_rng([2, 9]))
    np.testing.assert_array_equal(character.parameters, again)
    skins = np.array([game.character(2, i).studio.skin.mean() for i in range(150)])
    african = np.array([game.character(2, i).parameters[game.names.index("macrodetails/African")] for i in range(150)])
    assert abs(np.corrcoef(skins, african)[0, 1]) < 0.25


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
