"""onnx_export.py: a run as one ONNX file, read by onnxruntime."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import onnx_export
from games.game import VERSION, default_game
from models import exported
from models.exported import FORMAT, FaceToParameters, largest_difference, to_onnx
from models.predictor import Predictor
from models.regressor import Regressor
from models.vae import Encoder, fold_batch_norm
from tests.helpers import error_of, run_here, small_vae
from utils.config import Config, F2PConfig
from utils.errors import UserError
from utils.pictures import read_rgb

PACKAGES = ("onnx", "onnxscript", "onnxruntime")

needs_packages = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in PACKAGES),
    reason="pip install -r requirements-onnx.txt",
)


@pytest.fixture(scope="module")
def file(smoke, tmp_path_factory) -> Path:
    """The ONNX file of the finished run."""
    path = tmp_path_factory.mktemp("onnx") / "smoke.onnx"
    told = run_here("onnx_export.py", "--run", "runs/smoke", "--output", path, cwd=smoke)
    assert f"faces (N, 3, 32, 32) → parameters (N, {len(default_game().parameters)})" in told.stdout
    assert told.stderr == ""
    return path


# --- the file -------------------------------------------------------------------------------------


def random_networks(network: str) -> FaceToParameters:
    """Networks of each kind with random weights and statistics, and a spatial latent."""
    torch.manual_seed(0)
    settings = small_vae(latent_dim=32, spatial=True, norm="batch")
    config = Config(vae=settings, f2p=F2PConfig(network=network, width=16, mixer_blocks=2, mixer_width=8))
    encoder, regressor = Encoder(32, settings), Regressor(32, 9, config, reads_photos=network != "plain")
    regressor.standardiser.fit(torch.randn(200, 64) * 0.1)
    regressor.start_from(torch.full((9,), 0.5))
    return FaceToParameters(fold_batch_norm(encoder), regressor, averages_mirror_image=True)


@needs_packages
@pytest.mark.parametrize("network", ["plain", "whitened", "mixer"])
def test_networks_of_each_kind_predict_the_same_in_the_file(network):
    networks = random_networks(network)
    content = to_onnx(networks, 32, {"format": FORMAT})
    assert largest_difference(networks, content, 32) < 1e-4

    # The comparison can fail: other weights differ, and faces do.
    with torch.no_grad():
        for head in (networks.regressor.head, networks.regressor.photo_head):
            if head is not None:
                head.bias += 0.01
    assert largest_difference(networks, content, 32) == pytest.approx(0.01, abs=1e-3)
    found = session_of(content).run(None, {"faces": np.random.default_rng(1).random((5, 3, 32, 32), np.float32)})[0]
    assert np.median(found.std(0)) > 1e-3


@needs_packages
def test_the_file_predicts_what_the_run_predicts(file, smoke):
    predictor = Predictor.load(smoke / "runs" / "smoke")
    paths = sorted((smoke / "data" / "smoke" / "images").iterdir())[:3]
    faces = [read_rgb(path) for path in paths]
    assert faces[0].shape == (32, 32, 3)  # what a face of 256×256 is brought to by area interpolation
    expected = np.stack([one.parameters for one in predictor.predict_aligned(faces)])

    session = session_of(file.read_bytes())
    for count in (1, 3):
        batch = np.stack(faces[:count]).transpose(0, 3, 1, 2).astype(np.float32) / 255
        np.testing.assert_allclose(session.run(None, {"faces": batch})[0], expected[:count], atol=1e-4)


@needs_packages
def test_mirror_images_are_averaged_and_values_clamped_inside(file):
    session = session_of(file.read_bytes())
    faces = np.random.default_rng(0).random((4, 3, 32, 32), np.float32)
    found = session.run(None, {"faces": faces})[0]
    np.testing.assert_allclose(session.run(None, {"faces": faces[..., ::-1].copy()})[0], found, atol=1e-5)
    found = session.run(None, {"faces": 50 * faces})[0]  # far beyond all faces
    assert found.min() == 0
    assert found.max() == 1


@needs_packages
def test_the_file_says_what_goes_in_and_what_comes_out(file):
    import onnx

    model = onnx.load(file)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", exported.OPSET)]
    session = session_of(file.read_bytes())
    (faces,), (parameters,) = session.get_inputs(), session.get_outputs()
    assert (faces.name, faces.shape, faces.type) == ("faces", ["N", 3, 32, 32], "tensor(float)")
    assert (parameters.name, parameters.shape) == ("parameters", ["N", len(default_game().parameters)])

    metadata = session.get_modelmeta().custom_metadata_map
    table = json.loads(metadata["parameters"])
    game = default_game()
    assert [row["name"] for row in table] == game.names
    assert [(row["kind"], row["min"], row["max"]) for row in table] == [
        (p.kind, p.minimum, p.maximum) for p in game.parameters
    ]
    assert all(isinstance(row["test_r2"], float) for row in table)
    assert (metadata["image_size"], metadata["creator"], metadata["format"]) == ("32", VERSION, FORMAT)
    assert len(json.loads(metadata["template"])) == 5


def session_of(content: bytes):
    import onnxruntime

    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


# --- the command ----------------------------------------------------------------------------------


@needs_packages
def test_a_file_of_ours_is_replaced_and_any_other_is_left_alone(file, tmp_path):
    import onnx

    onnx_export.check_output(file)
    foreign = onnx.load(file)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    (tmp_path / "text.onnx").write_text("notes of mine\n")
    (tmp_path / "folder.onnx").mkdir()
    for name in ("foreign.onnx", "text.onnx", "folder.onnx"):
        with pytest.raises(UserError, match="not written by this script"):
            onnx_export.check_output(tmp_path / name)


def test_an_output_of_another_kind_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"does not end in \.onnx"):
        onnx_export.check_output(tmp_path / "runs")


def test_missing_packages_are_named_with_the_command_that_installs_them(tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find_spec(name))
    told = error_of(run_here("onnx_export.py", "--output", "a.onnx", cwd=tmp_path, check=False))
    assert "onnxscript" in told
    assert "pip install -r requirements-onnx.txt" in told


@needs_packages
def test_a_file_that_predicts_something_else_is_not_written(smoke, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "to_onnx", lambda *_: b"")
    monkeypatch.setattr(onnx_export, "largest_difference", lambda *_: float("nan"))
    command = ("onnx_export.py", "--run", "runs/smoke", "--output", tmp_path / "a.onnx")
    assert "Nothing was written" in error_of(run_here(*command, cwd=smoke, check=False))
    assert list(tmp_path.iterdir()) == []
