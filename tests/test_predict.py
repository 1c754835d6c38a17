"""Prediction: the networks of a run as a library, and predict.py around it."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import predict
from games.game import VERSION, default_game
from games.parameters import BUILT_IN_TABLE, parse_parameters
from models.predictor import NoFace, Predictor, encode_aligned
from models.vae import VAE
from tests.helpers import error_of, run_command, run_here, small_vae
from utils.alignment import alignment_transform, misalignment_transform
from utils.errors import UserError
from utils.pictures import read_rgb, write_picture


@pytest.fixture(scope="module")
def run(smoke) -> Path:
    return smoke / "runs" / "smoke"


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
    assert prediction.parameters.shape == (54,)
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
    assert predictor.predict(both, "largest").parameters.shape == (54,)


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
    parameters = np.full(54, 0.5)
    np.testing.assert_array_equal(predictor.character(parameters), default_game().picture(parameters))


def test_a_run_of_another_game_has_no_character(predictor):
    other = Predictor.__new__(Predictor)
    other.creator_version = None
    assert other.character(np.full(54, 0.5)) is None


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
        return {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}

    return run_it


def test_an_aligned_picture_becomes_named_parameters(smoke, predicted, tmp_path):
    found = predicted(smoke / "data" / "smoke" / "images" / "face_000000.png", "--aligned")["face_000000"]
    assert list(found["parameters"]) == default_game().names
    assert found["creator"] == VERSION
    assert found["run"] == "runs/smoke"
    assert "mirrored" not in found  # sliders have no mirrored bones

    one = found["parameters"]["face_width"]
    assert 0 <= one["normalised"] <= 1
    assert one["value"] == pytest.approx(-1 + 3 * one["normalised"], abs=1e-4)
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


def test_an_average_is_the_mean_and_shows_the_nearest_photo():
    def seen(value: float) -> predict.Seen:
        prediction = SimpleNamespace(parameters=np.full(3, value))
        return predict.Seen(Path(f"{value}.png"), None, prediction)

    nearest, mean = predict.average([seen(0.0), seen(0.4), seen(0.5)])
    np.testing.assert_allclose(mean, 0.3)
    assert nearest.path == Path("0.4.png")


def test_what_is_predicted_from_a_photo_says_how_long_it_took(smoke, photo, tmp_path):
    write_picture(tmp_path / "a.png", photo)
    command = ("predict.py", tmp_path / "a.png", "--run", "runs/smoke", "--output", tmp_path / "out")
    told = run_command(*command, cwd=smoke).stdout
    assert "a.png: " in told
    assert " s\n" in told
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.json", "a.png"]


def test_a_face_out_of_distribution_is_warned_of(smoke, face, tmp_path, monkeypatch):
    write_picture(tmp_path / "a.png", face)
    command = ("predict.py", tmp_path / "a.png", "--aligned", "--run", "runs/smoke", "--output", tmp_path / "out")
    assert "warning" not in run_here(*command, cwd=smoke).stderr
    monkeypatch.setattr(Predictor, "is_out_of_distribution", lambda *_: True)
    assert "a.png is unlike the faces that stage 2 learned from" in run_here(*command, cwd=smoke).stderr


def test_right_side_bones_follow_from_the_left_side_ones():
    table = parse_parameters(BUILT_IN_TABLE)
    stages = {stage: SimpleNamespace(best=Path(f"{stage}.pt")) for stage in ("vae", "f2p")}
    run = SimpleNamespace(folder=Path("runs/hs"), **stages)
    predictor = SimpleNamespace(parameters=table, test_r2={}, run=run, creator_version=None)
    result = predict.as_json(predictor, np.full(205, 0.25), [Path("x.jpg")])

    left = {name: values["value"] for name, values in result["parameters"].items()}
    right = {name: values["value"] for name, values in result["mirrored"].items()}
    assert len(right) == sum("_L." in parameter.name for parameter in table)
    assert len(right) > 50
    assert right["cf_J_Eye_s_R.position.x"] == -left["cf_J_Eye_s_L.position.x"]
    assert right["cf_J_Eye_s_R.rotation.z"] == -left["cf_J_Eye_s_L.rotation.z"]
    assert right["cf_J_Eye_s_R.rotation.x"] == left["cf_J_Eye_s_L.rotation.x"]


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
