"""Configuration: what is read is what was meant, and mistakes are named."""

import dataclasses

import pytest
from tests.conftest import ROOT, error_of, run_script
from hypothesis import HealthCheck, given, settings, strategies as st

from models.build import build_vae
from utils.config import Config, differences, from_dict, load, to_toml
from utils.errors import UserError


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda p: p.stem)
def test_every_config_loads_and_survives_being_written(path, tmp_path):
    config = load(path)
    copy = tmp_path / "copy.toml"
    copy.write_text(to_toml(config), encoding="utf-8")
    assert load(copy) == config == from_dict(config.as_dict(), "checkpoint")
    assert config.run.name == path.stem


def test_hs_face_is_the_documented_recipe():
    config = load(ROOT / "configs" / "hs_face.toml")
    vae, f2p = config.vae, config.f2p
    assert (vae.kl_weight, vae.mse_weight, vae.lpips_weight, vae.latent_dim) == (0.00025, 100, 4, 1024)
    assert vae.encoder_channels == (64, 128, 256, 512, 512, 512) and vae.decoder_channels == (256, 128, 128, 128, 64, 32)
    assert (vae.learning_rate, vae.lr_decay, vae.batch_size, f2p.layers, f2p.width) == (1e-4, 0.95, 32, 4, 1024)
    assert config.data.image_size == 256 and len(config.data.folders) == 2 and config.run.device == "cuda"


def test_networks_follow_from_the_config():
    model = build_vae(from_dict({"data": {"image_size": 64}, "vae": {"encoder_channels": [4, 6, 8, 10], "decoder_channels":
                                [9, 7, 5, 3], "latent_dim": 11}}, "test"))
    assert [s.conv.out_channels for s in model.encoder.stages] == [4, 6, 8, 10]
    assert [s.conv.out_channels for s in model.decoder.stages] == [9, 7, 5, 3] and model.latent_dim == 11


@pytest.mark.parametrize("text, told", [
    ("[vae]\nepoch = 3", "unknown key vae.epoch"),
    ("[vea]\nepochs = 3", "unknown table [vea]"),
    ("vae = 3", "expected a table [vae]"),
    ("[vae]\nepochs = \"3\"", "vae.epochs is '3'; expected a whole number"),
    ("[vae]\nepochs = true", "expected a whole number"),
    ("[vae]\nepochs = 0", "expected at least 1"),
    ("[vae]\nlearning_rate = -1", "expected above 0"),
    ("[vae]\nlearning_rate = nan", "above 0"),
    ("[run]\nprecision = \"fp8\"", "expected one of 'auto'"),
    ("[data]\nimage_size = 100", "expected one of 32"),
    ("[data]\nfolders = [3]", "data.folders[0] is 3; expected text"),
    ("[data]\nimage_size = 64", "needs 4"),
    ("[f2p]\nmixer_blocks = 2", "no places to mix"),
    ("[vae]\nspatial = true\n[f2p]\nmixer_blocks = 2\nwhitening = 0.3", "Set one of them to 0"),
    ("[f2p]\noptimizer = 'muon'", "f2p.mixer_blocks is 0"),
    ("[run]\nname = \"../x\"", "plain folder name"),
    ("[data]\nroot = \"\"", "at least one folder"),
    ("[vae", "is not TOML"),
])
def test_mistakes_are_named(text, told, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load(path)
    assert told in str(caught.value) and "mine.toml" in str(caught.value)


def test_overrides():
    config = load(ROOT / "configs" / "smoke.toml", ["vae.epochs=7", "run.name=other", "data.folders=[\"a b\"]", "vae.mse_weight=5"])
    assert (config.vae.epochs, config.run.name, config.data.folders, config.vae.mse_weight) == (7, "other", ("a b",), 5.0)
    for wrong in ("vae.epochs", "epochs=3", "vae.=3", "vae.nothing=3"):
        with pytest.raises(UserError):
            load(ROOT / "configs" / "smoke.toml", [wrong])
    assert differences(config.as_dict(), load(ROOT / "configs" / "smoke.toml"), ("vae.epochs", "vae.norm")) == ["vae.epochs: was 7, now 2"]
    older = config.as_dict()
    del older["vae"]["feature_weight"]  # as of a version that did not know it: it stands for its default
    assert differences(older, config, ("vae.feature_weight",)) == ["vae.feature_weight: was 1.0, now 4.0"]


json_like = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner:
                         st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8)
tables = st.sampled_from([f.name for f in dataclasses.fields(Config)])
keys = st.sampled_from([f"{t.name}.{f.name}" for t in dataclasses.fields(Config) for f in dataclasses.fields(t.default_factory)])


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(keys, json_like, max_size=4))
def test_anything_gives_a_config_or_a_sentence(values):
    content: dict = {}
    for key, value in values.items():
        table, name = key.split(".")
        content.setdefault(table, {})[name] = value
    try:
        assert isinstance(from_dict(content, "fuzz"), Config)
    except UserError as error:
        assert str(error).startswith("fuzz")


@pytest.mark.parametrize("script", ["vae_trainer.py", "extract_latentvec.py", "f2p_trainer.py"])
def test_scripts_refuse_a_missing_config(script, tmp_path):
    assert "there is no config" in error_of(run_script(script, "--config", "nowhere.toml", cwd=tmp_path, check=False))


@pytest.mark.parametrize("script", ["vae_trainer.py", "extract_latentvec.py", "f2p_trainer.py", "face_alignment.py", "predict.py"])
def test_help_shows_what_is_read_and_written(script, tmp_path):
    text = run_script(script, "--help", cwd=tmp_path).stdout
    assert "rite" in text and f"python {script}" in text
