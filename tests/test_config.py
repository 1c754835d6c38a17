"""Configuration: what is read is what was meant, and mistakes are named."""

import codecs
import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.vae import VAE
from tests.helpers import ROOT, TRAINING_SCRIPTS, error_of, run_here
from utils import config as config_module
from utils.config import (
    DEFAULT_CONFIG,
    Config,
    changed_settings,
    from_dict,
    load,
    of_checkpoint,
    settings_help,
    to_toml,
)
from utils.errors import UserError

CONFIGS = ROOT / "configs"
SMOKE_CONFIG = CONFIGS / "smoke.toml"

#: All settings, as "table.key".
KEYS = [
    f"{table.name}.{field.name}"
    for table in dataclasses.fields(Config)
    for field in dataclasses.fields(table.default_factory)
]

#: Settings of earlier versions that nobody set and no result supported.
GONE = (
    "run.deterministic",
    "data.use_aug",
    "vae.weight_decay",
    "vae.kl_warmup_epochs",
    "f2p.dropout",
    "f2p.use_logvar",
    "f2p.norm",
    "f2p.activation",
    "f2p.optimizer",
    "f2p.photo_share",
    "f2p.aug_prob",
)


def field_of(key: str) -> dataclasses.Field:
    """The dataclass field of a setting "table.key"."""
    table, name = key.split(".")
    kind = next(f.default_factory for f in dataclasses.fields(Config) if f.name == table)
    return next(f for f in dataclasses.fields(kind) if f.name == name)


# --- the configs of the repository ----------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_config_loads_and_survives_being_written(path, tmp_path):
    config = load(path)
    copy = tmp_path / "copy.toml"
    copy.write_text(to_toml(config), encoding="utf-8")

    assert load(copy) == config
    assert from_dict(config.as_dict(), "checkpoint") == config
    assert config.run.name == path.stem


def test_the_original_recipe_is_the_documented_one_figure_by_figure():
    config = load(CONFIGS / "hs_face_original.toml")
    vae, latents, f2p = config.vae, config.latents, config.f2p

    assert (vae.kl_weight, vae.mse_weight, vae.lpips_weight) == (0.00025, 100, 4)
    assert (vae.pyramid_weight, vae.feature_weight) == (0, 1)
    assert (vae.latent_dim, vae.bottleneck, vae.spatial) == (1024, 4, False)
    assert vae.encoder_channels == (64, 128, 256, 512, 512, 512)
    assert vae.decoder_channels == (256, 128, 128, 128, 64, 32)
    assert (vae.optimizer, vae.learning_rate, vae.batch_size) == ("adam", 1e-4, 32)
    assert (vae.schedule, vae.lr_decay, vae.warmup_steps, vae.clip_norm) == ("exponential", 0.95, 0, 0)
    assert (latents.moved, latents.mirrored) == (False, False)
    assert (f2p.network, f2p.layers, f2p.width) == ("plain", 4, 1024)
    assert (f2p.posterior_noise, f2p.variant_prob) == (0, 0)
    assert config.data.image_size == 256
    assert len(config.data.folders) == 2
    assert config.run.device == "cuda"


def test_hs_face_has_what_paid():
    config = load(CONFIGS / "hs_face.toml")
    assert config.vae.pyramid_weight > 0
    assert config.vae.feature_weight > 1
    assert config.vae.optimizer == "muon"
    assert config.vae.spatial
    assert config.latents.moved
    assert config.latents.mirrored
    assert config.f2p.network == "mixer"
    assert config.data.image_size == 256
    assert len(config.data.folders) == 2


def test_the_default_config_adds_only_its_data_and_epochs_to_the_defaults():
    """The defaults are the recommended recipe: whoever names a data set and a run gets it."""
    default = from_dict({"vae": {"epochs": 1}, "f2p": {"epochs": 8}}, "test")
    config = load(DEFAULT_CONFIG)
    for table in ("run", "vae", "latents", "f2p"):
        assert getattr(config, table) == getattr(default, table), table


def test_networks_follow_from_the_config():
    widths = {"encoder_channels": [4, 6, 8, 10], "decoder_channels": [9, 7, 5, 3]}
    vae = widths | {"latent_dim": 48, "bottleneck": 4}
    config = from_dict({"data": {"image_size": 64}, "vae": vae}, "test")
    model = VAE(config.data.image_size, config.vae)

    assert [stage.conv.out_channels for stage in model.encoder.stages] == [4, 6, 8, 10]
    assert [stage.conv.out_channels for stage in model.decoder.stages] == [9, 7, 5, 3]
    assert model.latent_dim == 48


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, told",
    [
        ("[vae]\nepoch = 3", "unknown key vae.epoch"),
        ("[vea]\nepochs = 3", "unknown table [vea]"),
        ("vae = 3", "expected a table [vae]"),
        ('[vae]\nepochs = "3"', "vae.epochs is '3'; expected a whole number"),
        ("[vae]\nepochs = true", "expected a whole number"),
        ("[vae]\nepochs = 0", "expected at least 1"),
        ("[vae]\nlearning_rate = -1", "expected above 0"),
        ("[vae]\nlearning_rate = nan", "above 0"),
        ('[run]\nprecision = "fp8"', "expected one of 'auto'"),
        ("[data]\nimage_size = 100", "expected one of 32"),
        ("[data]\nfolders = [3]", "data.folders[0] is 3; expected text"),
        ("[data]\nimage_size = 128", "needs 4"),
        ("[vae]\nlatent_dim = 100", "multiple of 64"),
        ('[f2p]\nnetwork = "deep"', "expected one of 'plain', 'whitened', 'mixer'"),
        ('[vae]\nspatial = false\n[f2p]\nnetwork = "mixer"', "no positions to mix"),
        ("[f2p]\nwhitening = 0.0", "expected above 0 and at most 0.5"),
        ('[run]\nname = "../x"', "plain folder name"),
        ('[data]\nroot = ""', "at least one folder"),
        ("[vae", "is not TOML"),
        ('[data]\nroot = "C:\\games"', "A Windows path goes in single quotes"),
    ],
)
def test_mistakes_are_named(text, told, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load(path)
    assert told in str(caught.value)
    assert "mine.toml" in str(caught.value)


@pytest.mark.parametrize("key", GONE)
def test_settings_that_are_gone_are_refused_by_name(key):
    table, name = key.split(".")
    with pytest.raises(UserError, match=f"unknown key {re.escape(key)}"):
        from_dict({table: {name: 0}}, "an old config")


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(KEYS), json_like, max_size=4))
def test_anything_gives_a_config_or_a_sentence(values):
    content: dict = {}
    for key, value in values.items():
        table, name = key.split(".")
        content.setdefault(table, {})[name] = value
    try:
        assert isinstance(from_dict(content, "fuzz"), Config)
    except UserError as error:
        assert str(error).startswith("fuzz")


# --- overrides ------------------------------------------------------------------------------------


def test_overrides_are_read_as_toml_and_text_needs_no_quotes():
    changes = ["vae.epochs=7", "run.name=other", 'data.folders=["a b"]', "vae.mse_weight=5"]
    config = load(SMOKE_CONFIG, changes)
    assert config.vae.epochs == 7
    assert config.run.name == "other"
    assert config.data.folders == ("a b",)
    assert config.vae.mse_weight == 5.0


def test_a_name_of_digits_stays_a_name():
    assert load(SMOKE_CONFIG, ["run.name=2024"]).run.name == "2024"


@pytest.mark.parametrize("wrong", ["vae.epochs", "epochs=3", "vae.=3", "vae.nothing=3"])
def test_wrong_overrides_are_refused(wrong):
    with pytest.raises(UserError):
        load(SMOKE_CONFIG, [wrong])


@pytest.mark.parametrize("overrides", [None, ["vae.epochs=7"]])
def test_a_configuration_is_built_once(monkeypatch, overrides):
    built = []

    def counted(**tables):
        built.append(tables)
        return Config(**tables)

    monkeypatch.setattr(config_module, "Config", counted)
    load(SMOKE_CONFIG, overrides)
    assert len(built) == 1


@pytest.mark.parametrize("mark", [codecs.BOM_UTF8, b""])
def test_a_mark_of_the_encoding_and_windows_line_ends_are_no_obstacle(mark, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(mark + '[run]\r\nname = "Zoë"\r\n'.encode())
    assert load(path).run.name == "Zoë"


def test_utf_16_is_read_too(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[run]\nname = "Zoë"\n', encoding="utf-16")
    assert load(path).run.name == "Zoë"


# --- what may change within a run -----------------------------------------------------------------


def test_changed_settings_are_named_and_free_ones_are_not():
    before = load(SMOKE_CONFIG, ["vae.mse_weight=5", "vae.epochs=7", "vae.checkpoint_minutes=1"]).as_dict()
    assert changed_settings(before, load(SMOKE_CONFIG), ("vae",)) == ["vae.mse_weight: was 5.0, now 100.0"]


def test_only_the_tables_asked_for_are_compared():
    before = load(SMOKE_CONFIG, ["vae.mse_weight=5"]).as_dict()
    assert changed_settings(before, load(SMOKE_CONFIG), ("run", "data", "latents", "f2p")) == []


def test_a_setting_younger_than_a_stored_configuration_counts_as_its_default():
    config = load(SMOKE_CONFIG)
    older = config.as_dict()
    del older["vae"]["feature_weight"]
    assert changed_settings(older, config, ("vae",)) == ["vae.feature_weight: was 10.0, now 4.0"]


def test_free_settings_are_those_that_cannot_change_what_is_learned():
    free = {key for key in KEYS if field_of(key).metadata["free"]}
    assert free == {
        *("run.name", "run.folder", "run.device", "run.precision", "run.threads", "run.compile"),
        *("data.root", "data.folders", "data.photos", "data.creator_count", "data.creator_seed"),
        *("data.workers", "data.cache", "data.max_unreadable"),
        *("vae.epochs", "vae.checkpoint_minutes", "latents.batch_size", "latents.precision", "f2p.epochs"),
    }


# --- help -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", TRAINING_SCRIPTS)
def test_scripts_refuse_a_missing_config(script, tmp_path):
    result = run_here(script, "--config", "nowhere.toml", cwd=tmp_path, check=False)
    assert "there is no config" in error_of(result)


@pytest.mark.parametrize(
    "script, read, written",
    [
        ("vae_trainer.py", "data.root", "vae/checkpoints/{last,best}.pt"),
        ("extract_latentvec.py", "vae/checkpoints/best.pt", "meta.json"),
        ("f2p_trainer.py", "runs/NAME/latents", "f2p/metrics.json"),
        ("face_alignment.py", "folder tree of PNG", "alignment.csv"),
        ("predict.py", "PHOTO", "STEM.json"),
        ("onnx_export.py", "networks of the run", "ONNX file"),
    ],
)
def test_help_says_what_is_read_and_written(script, read, written, tmp_path):
    text = run_here(script, "--help", cwd=tmp_path).stdout
    sections = re.search(r"\bReads\s(?P<reads>.*?)\bWrites\s(?P<writes>.*?)(\n\n|$)", text, re.DOTALL)
    assert sections is not None
    assert read in sections["reads"]
    assert written in sections["writes"]
    assert f"python {script}" in text


@pytest.mark.parametrize("script", TRAINING_SCRIPTS)
def test_help_of_the_training_scripts_lists_every_setting_with_its_meaning(script, tmp_path):
    words = " ".join(run_here(script, "--help", cwd=tmp_path).stdout.split())
    for key in KEYS:
        field = field_of(key)
        assert f" {field.name} = " in words, key
        assert " ".join(field.metadata["meaning"].split()) in words, key


def test_settings_help_fits_a_terminal_and_shows_defaults_and_choices():
    text = settings_help()
    assert max(map(len, text.splitlines())) <= 110
    words = " ".join(text.split())
    assert "epochs = 30: passes over the training faces" in words
    assert "(plain | whitened | mixer)" in words


def test_a_checkpoint_may_name_a_setting_that_is_gone_and_a_config_may_not():
    tables = Config().as_dict()
    tables["f2p"]["photo_epochs"] = 10
    assert of_checkpoint({"config": tables}, Path("best.pt")) == Config()
    with pytest.raises(UserError, match=r"best.pt: unknown key f2p.photo_epoch;"):
        of_checkpoint({"config": {"f2p": {"photo_epoch": 10}}}, Path("best.pt"))
    with pytest.raises(UserError, match=r"my.toml: unknown key f2p.photo_epochs;"):
        from_dict(tables, "my.toml")
