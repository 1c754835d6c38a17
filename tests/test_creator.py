"""The embedded creator: what each slider moves, on the geometry before the warp, and what the pictures show."""

import json

import cv2
import numpy as np
import pytest
from tests.conftest import error_of, run_script

from datasets import creator
from datasets.creator import head, looks, sliders, writer
from datasets.hs_face import BUILT_IN_TABLE, parse_parameters
from utils.alignment import TEMPLATE, five_points

STEPS = np.linspace(0, 1, 5)
VISIBLE = 0.02      # least travel of a landmark or of the surface from 0 to 1: 1 % of the face's width, 1.5 px at 256
BYSTANDER = 0.03    # most that landmarks of other groups may travel


@pytest.fixture(scope="module")
def renderer():
    return creator.Renderer(128)


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


def lips_apart(p):
    return p[:, 57, 1] - p[:, 51, 1]


#: What a slider's rise makes larger, measured on the landmarks (N, 68, 3). y points down, so heights are −y.
MEASURED = {
    "face_width": width(0, 16), "upper_face_height": height(19, 24), "lower_face_width": width(4, 12), "jaw_width": width(4, 12),
    "jaw_height": height(4, 12), "jaw_angle": lambda p: p[:, 10, 0] - p[:, 6, 0] + p[:, [6, 10], 1].sum(1),
    "jaw_base_height": height(7, 8, 9), "chin_width": width(7, 9), "chin_height": height(8),
    "lower_cheek_width": width(2, 14), "upper_cheek_width": width(1, 15),
    "eye_height_position": height(*range(36, 48)), "eye_spacing": lambda p: p[:, 42:48, 0].mean(1) - p[:, 36:42, 0].mean(1),
    "eye_width": lambda p: p[:, 45, 0] - p[:, 42, 0], "eye_opening": lambda p: p[:, 46:48, 1].mean(1) - p[:, 43:45, 1].mean(1),
    "eye_angle_z": lambda p: p[:, 42, 1] - p[:, 45, 1], "inner_eye_corner_spacing": width(39, 42),
    "outer_eye_corner_spacing": width(36, 45), "inner_eye_corner_height": height(39, 42), "outer_eye_corner_height": height(36, 45),
    "eyelid_shape_1": height(38, 43), "eyelid_shape_2": height(37, 44),
    "nose_height_position": height(31, 33, 35), "nose_width": width(31, 35), "nostril_width": width(31, 35),
    "nostril_height": height(31, 35), "nostril_angle_z": lambda p: p[:, 34, 1] - p[:, 35, 1], "nose_tip_height": height(30),
    "nose_tip_angle_x": height(33), "mouth_height_position": height(*range(48, 68)), "mouth_width": width(48, 54),
    "lip_thickness": lips_apart, "upper_lip_shape": lambda p: p[:, 51, 1] - p[:, [50, 52], 1].mean(1),
    "lower_lip_shape": lambda p: p[:, 57, 1] - p[:, [56, 58], 1].mean(1), "mouth_corner_shape": height(48, 54),
}

#: Sliders of depth and form: rest points whose z rises, and points (if any) against which it rises.
FORWARD = {
    "upper_face_depth": [(0.3, -0.7)], "lower_face_depth": [(0, 1.3)], "jaw_depth": [(0.62, 1.04)], "chin_depth": [(0, 1.43)],
    "lower_cheek_height": [(0.6, 0.62), (0.6, 0.9)], "lower_cheek_depth": [(0.6, 0.76)],
    "upper_cheek_height": [(0.68, 0.19), (0.68, 0.44)], "upper_cheek_depth": [(0.66, 0.31)], "eye_depth": [(0.46, -0.01)],
    "eye_angle_y": [(0.33, 0.0), (0.59, 0.0)], "nose_depth": [(0, 0.45)], "nose_angle_x": [(0, 0.5), (0, -0.1)],
    "nose_bridge_height": [(0, -0.06)], "nose_bridge_width": [(0.135, 0.08), (0, 0.08)], "nose_bridge_shape": [(0, 0.22)],
    "nostril_depth": [(0.185, 0.575)], "nostril_angle_x": [(0.0, 0.55), (0.105, 0.665)], "nose_tip_size": [(0, 0.49)],
    "mouth_depth": [(0, 1.01)],
}

#: Landmarks of each group. A slider may move its own group's and, for "whole" and the outline, the outline's.
GROUPS = {"chin": list(range(3, 14)), "cheek": list(range(0, 5)) + list(range(12, 17)), "eye": list(range(36, 48)),
          "nose": list(range(27, 36)), "mouth": list(range(48, 68))}
MAY_MOVE = {"whole": set(range(27)) | set(range(48, 68)), "chin": set(range(17)), "cheek": set(range(17)), "eye": set(GROUPS["eye"]) | {17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27},
            "nose": set(GROUPS["nose"]), "mouth": set(GROUPS["mouth"]) | {33, 32, 34}}


def test_sliders_are_those_of_the_table():
    table = parse_parameters(BUILT_IN_TABLE)[:54]
    assert [(s.name, s.group, s.minimum, s.maximum) for s in sliders.SLIDERS] == [(p.name, p.group, p.minimum, p.maximum) for p in table]
    assert all(s.description for s in sliders.SLIDERS)
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
    moving = [n for n, f in zip(sliders.NAMES, fields) if np.abs(f[:2]).max() > 1e-9]
    assert sorted(used) == sorted(moving)
    for stage in sliders.STAGES:
        members = fields[[sliders.NAMES.index(n) for n in stage], :2]
        along_x, along_y = (0.5 * np.abs(np.gradient(members, step, axis=axis)).sum(0) for axis in (3, 2))
        least = (1 - along_x[0]) * (1 - along_y[1]) - along_y[0] * along_x[1]
        assert min((1 - along_x[0])[inside].min(), (1 - along_y[1])[inside].min(), least[inside].min()) > 0.1, stage


@pytest.fixture(scope="module")
def extremes():
    """Pictures of the rest face with each slider at 0 and at 1, at 256 px: (54, 2, 256, 256, 3), and landmarks."""
    renderer = creator.Renderer(256)
    parameters = np.full((54, 2, 54), 0.5)
    parameters[np.arange(54), 0, np.arange(54)], parameters[np.arange(54), 1, np.arange(54)] = 0, 1
    pictures, points = renderer.render(parameters.reshape(-1, 54), [(looks.neutral(),)] * 108)
    return pictures.reshape(54, 2, 256, 256, 3), points.reshape(54, 2, 68, 2)


@pytest.mark.parametrize("name", sliders.NAMES)
def test_slider_changes_the_picture_in_its_own_region(extremes, name):
    index = sliders.NAMES.index(name)
    pictures, points = extremes[0][index].astype(int), extremes[1][index]
    changed = np.abs(pictures[0] - pictures[1]).max(-1) >= 8
    outline = cv2.convexHull(np.concatenate([points[0, :27], points[1, :27]]).astype(np.float32))
    face = np.zeros(changed.shape, np.uint8)
    cv2.fillPoly(face, [outline.astype(np.int32)], 1)
    least = 0.03 if name in ("face_width", "lower_face_width", "jaw_width", "upper_face_height", "upper_cheek_width") else 0.01
    assert changed.sum() >= least * face.sum()
    # Before alignment: where the surface or the paint on it moves most belongs to the slider's group.
    x, y = np.meshgrid(np.linspace(-1, 1, 81), np.linspace(-1.2, 1.6, 113))
    moved = np.abs(sliders.fields(x, y)[index]).max(0)
    at_x, at_y = abs(x.flat[moved.argmax()]), y.flat[moved.argmax()]
    region = {"whole": (0, 1.01, -1.3, 1.7), "chin": (0, 1, 0.8, 1.7), "cheek": (0.4, 1.01, 0, 1.1), "eye": (0.15, 0.85, -0.3, 0.25),
              "nose": (0, 0.4, -0.3, 0.8), "mouth": (0, 0.7, 0.8, 1.3)}[sliders.SLIDERS[index].group]
    assert region[0] <= at_x <= region[1] and region[2] <= at_y <= region[3], (at_x, at_y)


def test_faces_are_aligned_by_their_own_points(renderer):
    parameters, studio, photo = writer.face(3, 0)
    pictures, points = renderer.render(parameters[None], [(studio, photo)])
    np.testing.assert_allclose(points, renderer.landmarks(parameters[None], [studio]))
    # The least-squares residual is small, and no further similarity brings the points nearer to the template.
    five = five_points(points[0])
    template = (TEMPLATE + 0.5) / 2 - 0.5
    assert np.linalg.norm(five - template, axis=1).mean() < 8
    offset = five - template
    assert np.abs(offset.mean(0)).max() < 1e-6 and abs((offset * (template - template.mean(0))).sum()) < abs(offset).sum() * 20
    assert pictures.dtype == np.uint8 and np.abs(pictures[0, 0].astype(int) - pictures[0, 1]).mean() > 10


def test_nothing_but_sliders_decides_the_labels(renderer):
    one, other = writer.face(3, 1), writer.face(3, 2)
    look = looks.neutral()
    same = renderer.render(np.array([one[0]]), [(look,)])[0]
    assert np.array_equal(same, renderer.render(np.array([one[0], other[0]]), [(look,)] * 2)[0][:1]) or \
        np.abs(same.astype(int) - renderer.render(np.array([one[0], other[0]]), [(look,)] * 2)[0][:1]).max() <= 1
    assert not np.array_equal(one[0], other[0])


def test_draws():
    uniform = np.array([sliders.draw(np.random.default_rng(i)) for i in range(2000)])
    assert 0 <= uniform.min() and uniform.max() <= 1 and np.abs(uniform.mean(0) - 0.5).max() < 0.05
    typical = np.array([sliders.draw(np.random.default_rng(i), "typical") for i in range(2000)])
    expected = np.array([(s.mean - s.minimum) / (s.maximum - s.minimum) for s in sliders.SLIDERS])
    assert np.abs(typical.mean(0) - expected).max() < 0.02 and typical.std(0).max() < 0.15


def test_written_data_set_is_the_same_however_it_is_written(tmp_path):
    run_script("-m", "datasets.creator", "write", "--output", "a", "--count", 40, "--size", 32, "--workers", 1, cwd=tmp_path)
    run_script("-m", "datasets.creator", "write", "--output", "b", "--count", 18, "--size", 32, "--workers", 2, cwd=tmp_path)
    (tmp_path / "b" / "labels.json").unlink()       # as if stopped: labels are written last
    (tmp_path / "b" / "images" / "face_000003.png").unlink()
    run_script("-m", "datasets.creator", "write", "--output", "b", "--count", 40, "--size", 32, "--workers", 2, cwd=tmp_path)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file() and p.name != ".lock")
    assert len(files) == 84 and files == sorted(p.relative_to(tmp_path / "b") for p in (tmp_path / "b").rglob("*")
                                                 if p.is_file() and p.name != ".lock")
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    labels = json.loads((tmp_path / "a" / "labels.json").read_text())
    np.testing.assert_allclose(labels["face_000007"], writer.face(0, 7)[0], atol=1e-6)
    header, *rows = (tmp_path / "a" / "landmarks.csv").read_text().splitlines()
    assert header.startswith("name,x0,y0,") and header.endswith("x67,y67") and len(rows) == 40
    told = error_of(run_script("-m", "datasets.creator", "write", "--output", "a", "--count", 40, "--size", 64, cwd=tmp_path, check=False))
    assert "size = 32, now 64" in told


def test_commands_for_people(tmp_path):
    (tmp_path / "p.json").write_text(json.dumps({"parameters": {"nose_width": {"normalised": 0.9}}}))
    run_script("-m", "datasets.creator", "render", "p.json", "--size", 64, cwd=tmp_path)
    assert (tmp_path / "p.face.png").exists()
    run_script("-m", "datasets.creator", "random", "--count", 3, "--size", 64, "--output", "grid.jpg", cwd=tmp_path)
    for content, told in (("{", "not JSON"), ('{"noze": 1}', "no slider"), ('{"nose_width": 3}', "from 0 to 1")):
        (tmp_path / "p.json").write_text(content)
        assert told in error_of(run_script("-m", "datasets.creator", "render", "p.json", cwd=tmp_path, check=False))
