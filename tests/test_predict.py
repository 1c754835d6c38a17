"""Prediction: the networks of a run as a library, and predict.py around it."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import models.predictor
import predict
from games.game import VERSION, default_game
from games.listing import Entry, as_table, entries_of
from games.parameters import BUILT_IN_TABLE, Parameter, parse_parameters
from games.result_files import Result, ResultFiles
from games.result_sheet import result_sheet, thumbnail
from models.predictor import NoFace, Predictor, encode_aligned
from models.release import release
from models.vae import VAE
from tests.helpers import ROOT, error_of, run_command, run_here, small_vae
from utils.alignment import alignment_transform, misalignment_transform
from utils.consensus import consensus
from utils.errors import UserError
from utils.pictures import read_rgb, write_picture
from utils.run import Run

#: A parameter of the embedded game, which goes from −1 to 1 there.
PAIR = next(p.name for p in default_game().parameters if p.minimum == -1)


@pytest.fixture(scope="module")
def run(smoke) -> Path:
    return smoke / "runs" / "smoke"


@pytest.fixture(scope="module")
def released(run, tmp_path_factory) -> Path:
    """The run as a small folder, as the pretrained run is one."""
    folder = tmp_path_factory.mktemp("released") / "pretrained"
    release(Run(run), folder, faces=[], note="Learned from renders alone.")
    return folder


@pytest.fixture
def pretrained(released, monkeypatch) -> Path:
    """The small folder stands for the pretrained run."""
    monkeypatch.setattr(models.predictor, "PRETRAINED", released)
    return released


@pytest.fixture(scope="module")
def predictor(run) -> Predictor:
    return Predictor.load(run)


@pytest.fixture(scope="module")
def face(smoke) -> np.ndarray:
    """An aligned face that stage 2 knows."""
    return read_rgb(smoke / "data" / "smoke" / "images" / "face_000000.png")


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """A character on a larger canvas."""
    game = default_game()
    character = game.character(2, 0)
    pictures, _ = game.renderer(256).render(character.parameters[None], [(character.studio,)])
    return np.pad(pictures[0, 0], ((40, 60), (30, 80), (0, 0)), mode="edge")


# --- the library ----------------------------------------------------------------------------------


def test_a_photo_becomes_parameters_in_one_call(predictor, photo):
    prediction = predictor.predict(photo)
    assert prediction.aligned.shape == (256, 256, 3)
    assert prediction.reconstruction.shape == (32, 32, 3)
    assert prediction.parameters.shape == (len(default_game().parameters),)
    assert prediction.parameters.min() >= 0
    assert prediction.parameters.max() <= 1


def test_several_aligned_faces_are_predicted_as_each_alone(predictor, smoke):
    paths = sorted((smoke / "data" / "smoke" / "images").iterdir())[:3]
    faces = [read_rgb(path) for path in paths]
    for together, one in zip(predictor.predict_aligned(faces), faces, strict=True):
        alone = predictor.predict_aligned([one])[0]
        np.testing.assert_allclose(together.parameters, alone.parameters, atol=1e-5)
        assert together.distance == pytest.approx(alone.distance, rel=1e-4)


def test_a_photo_without_a_face_is_refused(predictor):
    with pytest.raises(NoFace, match="no face was found"):
        predictor.predict(np.full((200, 200, 3), 128, np.uint8))


def test_a_photo_with_two_faces_is_refused_unless_the_largest_is_asked_for(predictor, photo):
    both = np.concatenate([photo, photo], 1)
    with pytest.raises(NoFace, match="several faces were found"):
        predictor.predict(both)
    assert predictor.predict(both, "largest").parameters.shape == (len(default_game().parameters),)


def test_all_faces_of_a_photo_are_predicted_from_left_to_right(predictor, photo, monkeypatch):
    """Three characters, the middle one small; the detector finds them in another order."""
    small = np.ascontiguousarray(photo[::2, ::2])
    middle = np.pad(small, ((0, len(photo) - len(small)), (0, 0), (0, 0)), mode="edge")
    alone = predictor.predict(photo)
    find = predictor.detector.find
    shuffled = [1, 2, 0]
    monkeypatch.setattr(
        predictor.detector, "find", lambda picture: SimpleNamespace(points=find(picture).points[shuffled])
    )
    found = predictor.predict_all(np.concatenate([photo, middle, photo[:, ::-1]], 1))

    centre = np.array([127.5, 127.5])
    x = [float(np.linalg.solve(one.alignment[:, :2], centre - one.alignment[:, 2])[0]) for one in found]
    width = photo.shape[1]
    assert len(found) == 3
    assert x[0] < width < x[1] < 1.5 * width < x[2]
    # A face is what its own part of the photo gives alone.
    assert np.abs(found[0].aligned.astype(int) - alone.aligned).mean() < 6
    assert np.abs(found[0].aligned.astype(int) - found[2].aligned).mean() > 6


def test_a_photo_without_a_face_has_no_faces_at_all(predictor):
    with pytest.raises(NoFace, match="no face was found"):
        predictor.predict_all(np.full((200, 200, 3), 128, np.uint8))


@pytest.mark.parametrize(
    "photo", [np.zeros((50, 50), np.uint8), np.zeros((50, 50, 3), np.float32), np.zeros((50, 50, 4), np.uint8), "a.jpg"]
)
def test_what_is_no_photo_is_refused_by_name(predictor, photo):
    for predict_it in (predictor.predict, predictor.predict_all):
        with pytest.raises(ValueError, match="expected a .H, W, 3. uint8 RGB array"):
            predict_it(photo)


def test_the_readmes_lines_of_python_run_as_they_stand(pretrained, photo, tmp_path, monkeypatch, capsys):
    write_picture(tmp_path / "photo.jpg", photo)
    monkeypatch.chdir(tmp_path)
    block = re.search(r"From Python:\n```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert block is not None
    exec(compile(block[1], "README.md", "exec"), {})
    first, *told = capsys.readouterr().out.splitlines()
    assert "pretrained run" in first
    assert [line.split()[0] for line in told[:-1]] == default_game().names
    assert told[-1] in ("a guess", "like the faces of training")


def test_a_face_like_those_of_training_is_in_distribution_and_one_beyond_the_threshold_is_not(predictor, face):
    known = predictor.predict_aligned([face])[0]
    beyond = known._replace(distance=1.01 * predictor.ood_threshold)
    assert known.distance > 0
    assert not predictor.is_out_of_distribution(known)
    assert predictor.is_out_of_distribution(beyond)


def test_a_predictor_knows_the_table_and_how_far_to_trust_it(predictor):
    assert [parameter.name for parameter in predictor.parameters] == default_game().names
    assert set(predictor.test_r2) == set(default_game().names)
    assert predictor.creator_version == VERSION


def test_the_character_of_the_run_is_drawn_by_its_game(predictor):
    parameters = default_game().character(2, 1).parameters
    np.testing.assert_array_equal(predictor.character(parameters), default_game().picture(parameters))


def test_a_run_of_another_game_has_no_character(predictor):
    for version in (None, "1.0"):
        other = Predictor.__new__(Predictor)
        other.creator_version = version
        assert other.character(default_game().average()) is None


def test_a_photos_alignment_is_corrected_by_the_misalignment_found_in_it(predictor, photo, monkeypatch):
    """A head that always finds the same misalignment is believed twice, and no further than three deviations."""
    found = torch.tensor([[0.5, -1.0, 0.25, 99.0]])
    monkeypatch.setattr(predictor.regressor, "misalignment_of", lambda latents: found)
    right = alignment_transform(np.random.default_rng(0).uniform(50, 200, (5, 2)), 256)
    corrected = predictor.correct(photo, right)

    step = np.vstack([misalignment_transform(np.array([0.5, -1.0, 0.25, 3.0])), (0, 0, 1)])
    expected = np.linalg.inv(step) @ np.linalg.inv(step) @ np.vstack([right, (0, 0, 1)])
    np.testing.assert_allclose(corrected, expected[:2], atol=1e-6)


def test_without_a_misalignment_head_an_alignment_is_left_as_it_is(run, photo):
    predictor = Predictor.load(run)
    predictor.regressor.misalignment = None
    matrix = alignment_transform(np.random.default_rng(0).uniform(50, 200, (5, 2)), 256)
    assert predictor.correct(photo, matrix) is matrix


def test_faces_of_another_size_are_brought_to_the_encoders():
    encoder = VAE(32, small_vae()).eval().encoder
    smooth = np.tile(np.linspace(0, 255, 256).astype(np.uint8)[None, :, None], (256, 1, 3))
    small = np.tile(smooth[:32, 3::8], (1, 1, 1))
    large = encode_aligned(encoder, [smooth], 32)
    assert large.shape == (1, 12)
    torch.testing.assert_close(large, encode_aligned(encoder, [small], 32), atol=0.02, rtol=0.02)


# --- loading --------------------------------------------------------------------------------------


def test_the_pretrained_run_is_found_from_any_folder_and_is_said(pretrained, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert Predictor.load().run.folder == pretrained
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert f"pretrained run {pretrained.as_posix()}" in told
    assert f"renders of {default_game().name} {VERSION} and no photos" in told
    assert "--run runs/NAME" in told

    monkeypatch.chdir(pretrained.parent)
    assert Predictor.load().run.folder == Path("pretrained")
    capsys.readouterr()
    assert Predictor.load(run).run.folder == run
    assert capsys.readouterr().out == ""


def test_a_pretrained_run_that_is_gone_gets_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(models.predictor, "PRETRAINED", tmp_path / "gone")
    (tmp_path / "x.jpg").write_bytes(b"")
    told = error_of(run_here("predict.py", "x.jpg", cwd=tmp_path, check=False))
    assert "the pretrained run is not there" in told
    assert "git checkout" in told
    assert "--run" in told


def test_a_missing_run_folder_names_the_steps_that_make_one(tmp_path):
    with pytest.raises(UserError, match="no run folder .*vae_trainer.py, extract_latentvec.py, f2p_trainer.py"):
        Predictor.load(tmp_path / "none")


def test_stages_that_do_not_belong_together_are_refused(copy):
    run = copy / "runs" / "smoke"
    content = torch.load(run / "vae" / "checkpoints" / "best.pt", weights_only=True)
    content["model"]["encoder.head.bias"] += 1
    torch.save(content, run / "vae" / "checkpoints" / "best.pt")
    with pytest.raises(UserError, match="stage 2 was trained on the latents of another VAE"):
        Predictor.load(run)


def test_without_metrics_nobody_says_how_far_to_trust_a_parameter(copy):
    run = copy / "runs" / "smoke"
    (run / "f2p" / "metrics.json").write_text("{")
    assert Predictor.load(run).test_r2 == {}


# --- predict.py -----------------------------------------------------------------------------------


@pytest.fixture
def predicted(smoke, tmp_path):
    """What predict.py writes for pictures: their JSON, by stem."""

    def run_it(*arguments: object) -> dict[str, dict]:
        command = ("predict.py", *arguments, "--run", "runs/smoke", "--output", tmp_path)
        run_here(*command, cwd=smoke)
        results = [path for path in tmp_path.glob("*.json") if not path.name.startswith("human.")]
        return {path.stem: json.loads(path.read_text()) for path in results}

    return run_it


def test_an_aligned_picture_becomes_named_parameters(smoke, predicted, tmp_path):
    found = predicted(smoke / "data" / "smoke" / "images" / "face_000000.png", "--aligned")["face_000000"]
    assert list(found["parameters"]) == default_game().names
    assert found["creator"] == VERSION
    assert found["run"] == "runs/smoke"
    assert "mirrored" not in found  # sliders have no mirrored bones

    one = found["parameters"][PAIR]
    assert 0 <= one["normalised"] <= 1
    assert one["value"] == pytest.approx(-1 + 2 * one["normalised"], abs=1e-4)
    assert isinstance(one["test_r2"], float)
    assert read_rgb(tmp_path / "face_000000.png").shape[1] > 500


def test_a_mirrored_face_has_the_same_parameters(predicted, face, tmp_path):
    photos = tmp_path / "photos"
    write_picture(photos / "straight.png", face)
    write_picture(photos / "flipped.png", face[:, ::-1])
    found = predicted(photos / "straight.png", photos / "flipped.png", "--aligned")
    one, other = (
        {name: values["normalised"] for name, values in found[stem]["parameters"].items()}
        for stem in ("straight", "flipped")
    )
    assert other == pytest.approx(one, abs=1e-4)


def test_several_photos_of_a_person_are_averaged(predicted, photo, tmp_path):
    for name in ("a.png", "b.jpg"):
        write_picture(tmp_path / name, photo)
    found = predicted(tmp_path / "a.png", tmp_path / "b.jpg", "--average")
    assert list(found) == ["average"]
    assert len(found["average"]["photos"]) == 2
    assert read_rgb(tmp_path / "average.png").shape[1] > 500


def seen_with(parameters: np.ndarray, path: str) -> predict.Seen:
    return predict.Seen(Path(path), None, SimpleNamespace(parameters=parameters))


def test_an_average_shows_the_nearest_photo_and_names_one_that_is_unlike_the_others(capsys):
    photos = [seen_with(np.full(3, value), f"{value}.png") for value in (0.9, 0.40, 0.5, 0.43)]
    nearest, found = predict.average(photos)
    assert nearest.path == Path("0.43.png")
    np.testing.assert_allclose(found.parameters, 0.43)
    told = capsys.readouterr().err
    assert "0.9.png is unlike the other photos" in told
    assert "0.5.png is" not in told


def test_an_average_says_what_it_left_out_and_how_far_photos_spread(smoke, predicted, monkeypatch):
    """The networks find three vectors that agree, and one that does not."""
    values = iter([0.5, 0.52, 0.54, 0.1])
    predict_aligned = Predictor.predict_aligned

    def made_up(self, faces):
        value = next(values)
        return [
            one._replace(parameters=np.full(len(one.parameters), value, np.float32))
            for one in predict_aligned(self, faces)
        ]

    monkeypatch.setattr(Predictor, "predict_aligned", made_up)
    paths = sorted((smoke / "data" / "smoke" / "images").iterdir())[:4]
    found = predicted(*paths, "--aligned", "--average")["average"]
    assert found["photos"] == list(map(str, paths[:3]))
    assert list(found["left_out"]) == [str(paths[3])]
    assert found["parameters"][PAIR]["normalised"] == pytest.approx(0.52)
    assert found["parameters"][PAIR]["spread"] == pytest.approx(0.02)


def test_one_readable_photo_makes_an_average_without_a_spread(smoke, predicted):
    one = smoke / "data" / "smoke" / "images" / "face_000000.png"
    found = predicted(one, "--aligned", "--average")["average"]
    assert found["parameters"][PAIR]["spread"] is None
    assert found["left_out"] == {}


def test_every_face_of_a_photo_has_a_result_of_its_own(predicted, photo, tmp_path):
    write_picture(tmp_path / "us.png", np.concatenate([photo, photo[:, ::-1]], 1))
    found = predicted(tmp_path / "us.png", "--faces", "all")
    assert {stem: content["face"] for stem, content in found.items()} == {"us_1": 1, "us_2": 2}
    assert (tmp_path / "us_2_character.png").exists()


@pytest.mark.parametrize("other", ["--average", "--aligned"])
def test_all_faces_of_photos_of_one_person_are_refused(tmp_path, other):
    result = run_here("predict.py", "x.jpg", "--faces", "all", other, cwd=tmp_path, check=False)
    assert f"{other} " in error_of(result)


def test_the_character_alone_is_the_games_own_picture(smoke, predictor, face, predicted, tmp_path):
    found = predicted(smoke / "data" / "smoke" / "images" / "face_000000.png", "--aligned")["face_000000"]
    values = np.array([values["normalised"] for values in found["parameters"].values()])
    picture = read_rgb(tmp_path / "face_000000_character.png").astype(int)
    assert picture.shape == (256, 256, 3)
    look = predictor.predict_aligned([face])[0].look
    assert np.abs(picture - predictor.character(values, look)).mean() < 0.1  # values are rounded in the JSON


def test_a_table_of_the_sliders_is_printed_where_it_is_asked_for(smoke, tmp_path):
    one = smoke / "data" / "smoke" / "images" / "face_000000.png"
    command = ("predict.py", one, "--aligned", "--run", "runs/smoke", "--output", tmp_path)
    told = run_here(*command, "--table", cwd=smoke).stdout
    assert all(re.search(rf"^  {re.escape(name)} +-?\d", told, re.M) for name in default_game().names)
    assert PAIR not in run_here(*command, cwd=smoke).stdout


def test_what_is_predicted_from_a_photo_says_how_long_it_took(smoke, photo, tmp_path):
    write_picture(tmp_path / "a.png", photo)
    command = ("predict.py", tmp_path / "a.png", "--run", "runs/smoke", "--output", tmp_path / "out")
    told = run_command(*command, cwd=smoke).stdout
    assert "a.png: " in told
    assert " s\n" in told
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("a.json", "a.png", "a_character.png"),
        *("a.mhm", "human.a.json"),  # the character for the game
    }


def test_a_face_out_of_distribution_is_warned_of(smoke, face, tmp_path, monkeypatch):
    write_picture(tmp_path / "a.png", face)
    command = ("predict.py", tmp_path / "a.png", "--aligned", "--run", "runs/smoke", "--output", tmp_path / "out")
    assert "warning" not in run_here(*command, cwd=smoke).stderr
    monkeypatch.setattr(Predictor, "is_out_of_distribution", lambda *_: True)
    told = run_here(*command, "--table", cwd=smoke)
    assert "a.png is unlike the faces that stage 2 learned from" in told.stderr

    # Nothing of its result claims that a slider can be trusted.
    assert "No slider can be trusted here" in told.stdout
    assert not any(level in told.stdout for level in ("trust it", "roughly right", "R²"))
    content = json.loads((tmp_path / "out" / "a.json").read_text())
    assert "unlike those of training" in content["warning"]
    assert {values["test_r2"] for values in content["parameters"].values()} == {None}


def seen_as(photo: np.ndarray | None) -> predict.Seen:
    return predict.Seen(Path("a.jpg"), photo, SimpleNamespace())


@pytest.mark.parametrize(
    ("is_unlike", "learned_photos", "is_photo", "is_measured", "words"),
    [
        (True, True, True, False, "unlike those of training"),
        (True, False, False, False, "unlike those of training"),
        (False, True, True, True, ""),
        (False, False, True, False, "learned from no photos"),
        (False, False, False, True, "R² holds for renders"),
    ],
)
def test_how_far_sliders_can_be_trusted(is_unlike, learned_photos, is_photo, is_measured, words):
    predictor = SimpleNamespace(is_out_of_distribution=lambda _: is_unlike, learned_photos=learned_photos)
    found = predict.trust_of(seen_as(np.zeros((8, 8, 3), np.uint8) if is_photo else None), predictor)
    assert found.is_measured == is_measured
    assert words in found.note
    assert bool(words) == bool(found.note)


def test_a_run_that_learned_no_photos_knows_it(smoke):
    assert not Predictor.load(smoke / "runs" / "smoke").learned_photos


def test_right_side_bones_follow_from_the_left_side_ones():
    table = parse_parameters(BUILT_IN_TABLE)
    files = ResultFiles(table, test_r2={}, game=None, origin={})
    result = files.as_json(Result(np.full(205, 0.25), [Path("x.jpg")], [], aligned=np.zeros((8, 8, 3), np.uint8)))

    left = {name: values["value"] for name, values in result["parameters"].items()}
    right = {name: values["value"] for name, values in result["mirrored"].items()}
    assert len(right) == sum("_L." in parameter.name for parameter in table)
    assert len(right) > 50
    assert right["cf_J_Eye_s_R.position.x"] == -left["cf_J_Eye_s_L.position.x"]
    assert right["cf_J_Eye_s_R.rotation.z"] == -left["cf_J_Eye_s_L.rotation.z"]
    assert right["cf_J_Eye_s_R.rotation.x"] == left["cf_J_Eye_s_L.rotation.x"]


# --- what several photos agree on -----------------------------------------------------------------


def test_of_three_photos_the_middle_value_of_each_parameter_counts():
    found = consensus(np.array([[0.1, 0.5], [0.2, 0.7], [0.25, 0.6]]))
    assert found.outliers == []
    np.testing.assert_allclose(found.parameters, [0.2, 0.6])


def test_macros_stay_neutral_where_a_person_asks_for_it(predictor, face):
    one = predict.Seen(Path("a.png"), None, predictor.predict_aligned([face])[0])
    neutral = predict.neutral_macros(predictor)
    macros = list(neutral)
    assert [predictor.parameters[i].name for i in macros[:2]] == ["macrodetails/Gender", "macrodetails/Age"]
    kept = predict.with_values(one, neutral).prediction.parameters
    np.testing.assert_allclose(kept[macros], predictor.game.average()[macros], atol=1e-6)
    np.testing.assert_array_equal(np.delete(kept, macros), np.delete(one.prediction.parameters, macros))
    assert not np.allclose(kept, one.prediction.parameters)

    another = SimpleNamespace(parameters=parse_parameters(BUILT_IN_TABLE), game=None, run=SimpleNamespace(folder="r"))
    with pytest.raises(UserError, match="--no-macros .* r learned a game without them"):
        predict.neutral_macros(another)


def test_of_two_photos_the_mean_counts_as_nothing_tells_which_is_wrong():
    found = consensus(np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert found.outliers == []
    np.testing.assert_allclose(found.parameters, 0.5)
    np.testing.assert_allclose(found.spread, np.sqrt(0.5))


def test_a_quarter_at_either_end_of_each_parameter_is_left_out():
    rng = np.random.default_rng(0)
    vectors = 0.5 + 0.1 * rng.standard_normal((8, 40))
    plain = consensus(vectors)
    vectors[[0, 3], [7, 7]] = 1.0  # two photos are wrong in one parameter
    found = consensus(vectors)
    assert found.outliers == []
    np.testing.assert_allclose(np.delete(found.parameters, 7), np.delete(plain.parameters, 7))
    assert abs(found.parameters[7] - plain.parameters[7]) < 0.1 < abs(vectors[:, 7].mean() - plain.parameters[7])


def test_a_photo_that_is_wrong_as_a_whole_does_not_count():
    rng = np.random.default_rng(1)
    vectors = 0.5 + 0.05 * rng.standard_normal((5, 54))
    vectors[2] = rng.random(54)
    found = consensus(vectors)
    assert found.outliers == [2]
    expected = consensus(np.delete(vectors, 2, axis=0))
    np.testing.assert_allclose(found.parameters, expected.parameters)
    np.testing.assert_allclose(found.spread, np.delete(vectors, 2, axis=0).std(0, ddof=1))
    assert found.nearest != 2


def test_photos_that_differ_as_photos_do_all_count():
    rng = np.random.default_rng(2)
    for count in (3, 4, 6, 12):
        assert consensus(0.5 + 0.1 * rng.standard_normal((count, 54))).outliers == []


# --- what people read -----------------------------------------------------------------------------


def test_values_have_the_decimals_that_a_hundredth_of_their_range_needs():
    wide, narrow = Parameter("wide", "g", "bone", -90, 360, ""), Parameter("narrow", "g", "bone", -0.04, 0.05, "")
    entries = entries_of([wide, narrow], np.array([0.5, 0.25]), test_r2={"wide": 0.81, "narrow": 0.2})
    assert [entry.shown for entry in entries] == ["135", "-0.0175"]
    assert [entry.trust for entry in entries] == ["trust it", "a guess"]


def test_a_table_lists_right_side_bones_below_their_group():
    table = parse_parameters(BUILT_IN_TABLE)
    entries = entries_of(table, np.full(205, 0.25), test_r2={})
    lines = as_table(table, entries).splitlines()
    groups = [line.rstrip(":") for line in lines if not line.startswith(" ")]
    assert groups == ["whole", "chin", "cheek", "eye", "nose", "mouth"]
    right = next(i for i, line in enumerate(lines) if line.startswith("  cf_J_Eye_s_R.position.x"))
    assert lines.index("eye:") < right < lines.index("nose:")
    assert "mirrors cf_J_Eye_s_L.position.x" in lines[right]
    assert sum(not line.endswith(":") for line in lines) == 205 + sum("_L." in parameter.name for parameter in table)


def bars_of(*entries: Entry) -> np.ndarray:
    """The part of a sheet that shows the sliders: a heading and a line."""
    return result_sheet([("face", np.full((256, 256, 3), 255, np.uint8))], entries)[285:322].astype(int)


def coloured(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    """How many pixels have a colour."""
    return int((np.abs(picture - colour).max(-1) < 3).sum())


def test_a_bar_is_as_long_as_a_slider_is_far_from_the_average_and_its_look_says_how_far_to_trust_it():
    dark, hatch = (0x1D, 0x5F, 0xA6), (0xB4, 0xB4, 0xB4)
    short = Entry("jaw", "chin", 0.6, 0.5, "0.6", r2=0.9, spread=None)
    long = short._replace(value=0.9)
    assert coloured(bars_of(long), dark) > 2.5 * coloured(bars_of(short), dark)
    assert coloured(bars_of(long), hatch) < 20  # where letters fade out
    guess = bars_of(long._replace(r2=0.1))
    assert coloured(guess, dark) == 0
    assert coloured(guess, hatch) > 100
    unknown = bars_of(long._replace(r2=None))
    assert coloured(unknown, dark) == 0
    assert coloured(unknown, (0xCF, 0xCF, 0xCF)) > 200
    assert coloured(bars_of(long._replace(spread=0.2)), (0, 0, 0)) > coloured(bars_of(long), (0, 0, 0)) + 20


def test_what_a_sheet_warns_of_stands_on_it_however_long_it_is():
    entries = [Entry("jaw", "chin", 0.6, 0.5, "0.6", r2=0.9, spread=None)]
    face, red = ("face", np.full((256, 256, 3), 255, np.uint8)), (0xB0, 0x2A, 0x1E)
    plain, short, long = (result_sheet([face], entries, note) for note in ("", "Beware.", "Beware of this. " * 40))
    assert coloured(plain.astype(int), red) == 0 < coloured(short.astype(int), red)
    assert coloured(long.astype(int), red) > 100 * coloured(short.astype(int), red) / 5
    assert coloured(long[:, -10:].astype(int), (255, 255, 255)) == 10 * len(long)  # nothing runs off the sheet


@pytest.mark.parametrize("count", [1, 3, 54, 205])
def test_a_sheet_has_room_for_any_number_of_sliders(count):
    """Every slider draws one track; none runs into the next column or off the sheet."""
    entries = [Entry(f"slider_{i}" * (1 + i % 4), f"group {i // 20}", 0.5, 0.5, "0.5", 0.9, None) for i in range(count)]
    sheet = result_sheet([("face", np.zeros((80, 60, 3), np.uint8))], entries)
    # A track's upper edge, left and right of the tick at the average: 50 pixels or more of its colour, none above.
    track = (sheet == 0xED).all(-1)
    edge = track & ~np.roll(track, 1, axis=0)
    begins = (
        edge
        & ~np.roll(edge, 1, axis=1)
        & np.lib.stride_tricks.sliding_window_view(np.pad(edge, ((0, 0), (0, 49))), 50, axis=1).all(-1)
    )
    assert begins.sum() == 2 * count
    assert max(sheet.shape[:2]) < 1500


def test_the_frame_about_a_face_lies_where_the_face_does():
    photo = np.full((512, 512, 3), 128, np.uint8)
    alignment = np.array([[1.0, 0, -100], [0, 1.0, -200]])  # the face's corner is at 100, 200
    changed = (thumbnail(photo, alignment) != 128).any(-1)
    rows, columns = np.nonzero(changed)
    assert changed.shape == (256, 256)
    assert (columns.min(), rows.min()) == pytest.approx((50, 100), abs=3)
    assert (columns.max(), rows.max()) == pytest.approx((178, 228), abs=3)


# --- what is refused ------------------------------------------------------------------------------


def test_an_output_that_is_a_file_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    (tmp_path / "out").write_text("a file")
    monkeypatch.setattr(predict.Predictor, "load", lambda _: pytest.fail("networks were loaded"))
    monkeypatch.setattr(sys, "argv", ["predict.py", "x.jpg", "--output", str(tmp_path / "out")])
    with pytest.raises(UserError, match="is a file; expected a folder"):
        predict.main()


def test_a_missing_run_gets_a_sentence(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"")
    result = run_here("predict.py", "x.jpg", "--run", "runs/none", cwd=tmp_path, check=False)
    assert "no run folder" in error_of(result)
