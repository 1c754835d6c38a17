"""One TOML file describes one experiment; it is read into frozen dataclasses and checked."""

import dataclasses
import json
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.errors import UserError


def _setting(default: Any, meaning: str, *, choices: tuple = (), low: float | None = None, high: float | None = None,
             above: float | None = None) -> Any:
    """A field with its meaning and its allowed values: one of `choices`, low ≤ value ≤ high, or value > above."""
    limits = {"meaning": meaning, "choices": choices, "low": low, "high": high, "above": above}
    return field(default=default, metadata=limits)


@dataclass(frozen=True)
class RunConfig:
    name: str = _setting("creator", "results go to <folder>/<name>")
    folder: str = _setting("runs", "where runs are kept")
    device: str = _setting("auto", "auto takes CUDA where there is one", choices=("auto", "cpu", "cuda"))
    precision: str = _setting("auto", "of the networks' arithmetic; auto: bf16 where the device has it in hardware",
                              choices=("auto", "fp32", "bf16", "fp16"))
    seed: int = _setting(0, "of weights, data order and noise", low=0)
    threads: int = _setting(0, "CPU threads; 0 leaves the choice to PyTorch", low=0)
    deterministic: bool = _setting(False, "bit-identical repetition on CUDA, slower")
    compile: bool = _setting(False, "torch.compile the networks; needs a C++ compiler on CPU, Triton on CUDA")


@dataclass(frozen=True)
class DataConfig:
    root: str = _setting("data/creator", "data set in the HS_FACE layout; empty for none (stage 1 only)")
    folders: tuple[str, ...] = _setting((), "further folders of aligned faces for stage 1 (CelebA, FFHQ, photos)")
    photos: str = _setting("", "data set in the same layout whose images/ are aligned photos of people, with parameters for those in its labels.json: "
                               "stage 1 learns the pictures, stage 2 the parameters; empty for none")
    image_size: int = _setting(256, "side of the pictures that the networks see", choices=(32, 64, 128, 256))
    use_aug: bool = _setting(True, "stage 1 also learns the photo-like variants; without it the creator writes none")
    creator_count: int = _setting(0, "where root is missing, the creator writes this many faces there; 0: never", low=0)
    creator_seed: int = _setting(0, "seed of the data set that the creator writes", low=0)
    workers: int = _setting(-1, "processes that decode pictures; -1: one a core", low=-1)
    cache: str = _setting("cache", "folder of decoded pictures at image_size, built once; empty: decode every time")
    max_unreadable: float = _setting(0.05, "share of unreadable or unmatched pictures above which a script stops", low=0, high=1)


@dataclass(frozen=True)
class VAEConfig:
    encoder_channels: tuple[int, ...] = _setting((64, 128, 256, 512, 512, 512), "width of each encoder stage, from the picture on", low=1)
    decoder_channels: tuple[int, ...] = _setting((256, 128, 128, 128, 64, 32), "width of each decoder stage, towards the picture", low=1)
    latent_dim: int = _setting(1024, "dimensions of the latent", low=1)
    bottleneck: int = _setting(4, "side of the feature maps between encoder and decoder", choices=(4, 8, 16))
    spatial: bool = _setting(False, "the latent keeps the bottleneck's places: latent_dim / bottleneck² numbers for each")
    norm: str = _setting("batch", "normalisation of the feature maps", choices=("batch", "group"))
    kl_weight: float = _setting(0.00025, "weight of KL, summed over dimensions, mean over faces", low=0)
    kl_warmup_epochs: float = _setting(0.0, "epochs over which the KL weight rises from 0", low=0)
    mse_weight: float = _setting(100.0, "weight of the mean squared error of pixels in [0, 1]", low=0)
    lpips_weight: float = _setting(0.0, "weight of LPIPS (VGG); above 0 its backbone's weights are needed", low=0)
    pyramid_weight: float = _setting(0.0, "weight of the L1 distance of Laplacian pyramids", low=0)
    feature_weight: float = _setting(1.0, "mse and pyramid count places near the eyes, nose and mouth of the alignment template this much more", low=1)
    epochs: int = _setting(30, "passes over the training faces; may be raised later", low=1)
    batch_size: int = _setting(32, "faces a step, over all processes together", low=1)
    optimizer: str = _setting("adam", "muon learns faint features faster", choices=("adam", "adamw", "muon"))
    learning_rate: float = _setting(1e-4, "at its peak", above=0)
    weight_decay: float = _setting(0.0, "", low=0)
    schedule: str = _setting("exponential", "of the learning rate", choices=("exponential", "cosine"))
    lr_decay: float = _setting(0.95, "exponential: factor an epoch", above=0, high=1)
    warmup_steps: int = _setting(0, "steps over which the learning rate rises from 0", low=0)
    clip_norm: float = _setting(0.0, "gradients are scaled down to this norm; 0: never", low=0)
    checkpoint_minutes: float = _setting(10.0, "save this often within an epoch as well", above=0)


@dataclass(frozen=True)
class LatentsConfig:
    batch_size: int = _setting(64, "faces a step", low=1)
    precision: str = _setting("fp32", "of the encoder", choices=("fp32", "bf16"))
    moved: bool = _setting(False, "every face is also encoded turned, scaled and shifted a little: of these stage 2 learns to see, and "
                                  "predict.py to undo, what a detector's points put wrong")
    mirrored: bool = _setting(False, "every face is also encoded mirrored: stage 2 learns from both, and predictions are the mean of both. For "
                                     "parameters that are the same in the mirror")


@dataclass(frozen=True)
class F2PConfig:
    layers: int = _setting(4, "linear layers", low=1)
    width: int = _setting(1024, "neurons of a hidden layer", low=1)
    dropout: float = _setting(0.0, "share of hidden neurons left out in training", low=0, high=0.95)
    use_logvar: bool = _setting(True, "read logvar beside mu")
    whitening: float = _setting(0.0, "0: each mu is divided by its deviation; above: the mu are turned to their principal axes as well and "
                                     "divided by their variances there to this power; 0.5 is PCA whitening", low=0, high=0.5)
    norm: str = _setting("none", "normalisation of the hidden layers", choices=("none", "layer"))
    activation: str = _setting("leaky_relu", "of the hidden layers", choices=("leaky_relu", "silu"))
    mixer_blocks: int = _setting(0, "with vae.spatial: this many MLP-Mixer blocks, whose MLPs all places of the latent share, come before the hidden "
                                    "layers; 0: none", low=0)
    mixer_width: int = _setting(64, "channels of the mixer", low=4)
    posterior_noise: float = _setting(0.0, "in training mu is moved by this many posterior standard deviations of noise", low=0)
    aug_prob: float = _setting(0.0, "probability of reading the photo-like variant's latent instead of the render's", low=0, high=1)
    photo_share: float = _setting(0.25, "with data.photos: this many photos join the renders of a step, as a share of batch_size; their loss counts "
                                        "as much as that of the renders", above=0, high=1)
    photo_epochs: int = _setting(10, "with data.photos: their parameters are learned in this many last epochs, where they cost the renders least", low=1)
    epochs: int = _setting(30, "passes over the training faces; may be raised later", low=1)
    batch_size: int = _setting(32, "faces a step", low=1)
    optimizer: str = _setting("adamw", "muon: for the matrices of the mixer's blocks, AdamW for everything else", choices=("adamw", "muon"))
    learning_rate: float = _setting(1e-4, "at the start; cosine decay to 0", above=0)
    weight_decay: float = _setting(0.01, "of AdamW", low=0)


@dataclass(frozen=True)
class Config:
    """One experiment. `Config.run.name` and so on; see each table for its settings."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    latents: LatentsConfig = field(default_factory=LatentsConfig)
    f2p: F2PConfig = field(default_factory=F2PConfig)

    @property
    def run_folder(self) -> Path:
        return Path(self.run.folder) / self.run.name

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """Tables of plain values (lists for tuples), as `from_dict` reads them."""
        return {table: {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
                for table, values in dataclasses.asdict(self).items()}


def load(path: Path, overrides: list[str] | None = None) -> Config:
    """Read a TOML file and apply `table.key=value` overrides.

    Raises:
        UserError: no such file, not TOML, an unknown table or key, a wrong type, an impossible value.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = ", ".join(sorted(str(p) for p in path.parent.glob("*.toml"))) or "none"
        raise UserError(f"there is no config {path}. In that folder: {near}") from None
    except OSError as error:
        raise UserError(f"cannot read the config {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not TOML: {error}") from None
    config = from_dict(content, str(path))
    given: dict[str, dict[str, Any]] = {}
    for text in overrides or []:
        key, equals, value = text.partition("=")
        table, dot, name = key.strip().partition(".")
        if not (equals and dot and table and name):
            raise UserError(f"--set {text}: expected table.key=value, for example --set vae.epochs=20")
        given.setdefault(table, {})[name] = _parse_value(value.strip())
    merged = config.as_dict()
    for table, values in given.items():
        merged.setdefault(table, {}).update(values)
    return from_dict(merged, "--set" if given else str(path))


def from_dict(content: dict[str, Any], source: str) -> Config:
    """Build a `Config` of tables of plain values; what is not given takes its default.

    Raises:
        UserError: names the source, the key, what was found and what is allowed.
    """
    tables = {f.name: f.default_factory for f in dataclasses.fields(Config)}
    built = {}
    for table, values in content.items():
        if table not in tables:
            raise UserError(f"{source}: unknown table [{table}]; the tables are {', '.join(f'[{t}]' for t in tables)}")
        if not isinstance(values, dict):
            raise UserError(f"{source}: {table} is {values!r}; expected a table [{table}] with settings below it")
        built[table] = _build(tables[table], table, values, source)
    config = Config(**built)
    _check_together(config, source)
    return config


def _build(kind: type, table: str, values: dict[str, Any], source: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(kind)}
    types_of = typing.get_type_hints(kind)
    checked = {}
    for key, value in values.items():
        if key not in fields:
            raise UserError(f"{source}: unknown key {table}.{key}; the keys of [{table}] are {', '.join(fields)}")
        checked[key] = _check(f"{source}: {table}.{key}", value, types_of[key], fields[key].metadata)
    return kind(**checked)


def _check(where: str, value: Any, expected: Any, limits: types.MappingProxyType) -> Any:
    if typing.get_origin(expected) is tuple:
        if not isinstance(value, (list, tuple)):
            raise UserError(f"{where} is {value!r}; expected a list")
        return tuple(_check(f"{where}[{i}]", v, typing.get_args(expected)[0], limits) for i, v in enumerate(value))
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not expected:
        names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
        raise UserError(f"{where} is {value!r}; expected {names[expected]}")
    if limits["choices"] and value not in limits["choices"]:
        raise UserError(f"{where} is {value!r}; expected one of {', '.join(repr(c) for c in limits['choices'])}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high, above = limits["low"], limits["high"], limits["above"]
        if value != value or value in (float("inf"), float("-inf")) or (low is not None and value < low) \
                or (high is not None and value > high) or (above is not None and value <= above):
            bounds = [f"at least {low:g}" if low is not None else "", f"above {above:g}" if above is not None else "",
                      f"at most {high:g}" if high is not None else ""]
            raise UserError(f"{where} is {value!r}; expected {' and '.join(b for b in bounds if b) or 'a finite number'}")
    return value


def _check_together(config: Config, source: str) -> None:
    side = config.vae.bottleneck
    stages = (config.data.image_size // side).bit_length() - 1
    for key in ("encoder_channels", "decoder_channels"):
        found = getattr(config.vae, key)
        if len(found) != stages:
            raise UserError(f"{source}: vae.{key} has {len(found)} widths; data.image_size = {config.data.image_size} "
                            f"needs {stages}, one for each halving down to {side}×{side}")
    if config.vae.spatial and config.vae.latent_dim % side ** 2:
        raise UserError(f"{source}: vae.latent_dim is {config.vae.latent_dim}; with vae.spatial it is a multiple of {side ** 2}, "
                        "the places of the bottleneck")
    if config.f2p.mixer_blocks and not config.vae.spatial:
        raise UserError(f"{source}: f2p.mixer_blocks is {config.f2p.mixer_blocks}, but without vae.spatial a latent has no places to mix. "
                        "Set vae.spatial = true or f2p.mixer_blocks = 0")
    if config.f2p.mixer_blocks and config.f2p.whitening:
        raise UserError(f"{source}: f2p.mixer_blocks is {config.f2p.mixer_blocks} and f2p.whitening {config.f2p.whitening:g}; whitening mixes "
                        "the places that the mixer is to tell apart. Set one of them to 0")
    if config.f2p.optimizer == "muon" and not config.f2p.mixer_blocks:
        raise UserError(f"{source}: f2p.optimizer is 'muon', which is for the mixer's blocks, but f2p.mixer_blocks is 0. "
                        "Set f2p.optimizer = \"adamw\" or f2p.mixer_blocks above 0")
    name = config.run.name
    if not name or name != Path(name).name or name in (".", "..") or "\\" in name:
        raise UserError(f"{source}: run.name is {name!r}; expected a plain folder name")
    if not config.data.root and not config.data.folders and not config.data.photos:
        raise UserError(f"{source}: data.root, data.folders and data.photos are all empty; expected at least one folder of faces")


def _parse_value(text: str) -> Any:
    """A TOML value; what is none is taken as text, so that quotes can be left out in a shell."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def to_toml(config: Config) -> str:
    """The whole configuration as TOML, each setting with its meaning."""
    lines = []
    for table in dataclasses.fields(config):
        lines.append(f"[{table.name}]")
        part = getattr(config, table.name)
        for f in dataclasses.fields(part):
            value = getattr(part, f.name)
            text = json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
            meaning = f.metadata["meaning"]
            lines.append(f"{f.name} = {text}" + (f"  # {meaning}" if meaning else ""))
        lines.append("")
    return "\n".join(lines)


def differences(before: dict[str, dict[str, Any]], now: Config, keys: tuple[str, ...]) -> list[str]:
    """Those of the settings `keys` ("table.key") that differ from a stored configuration, as "key: was a, now b".

    A setting younger than the stored configuration counts as its default, which is what it was before it existed.
    """
    current, default = now.as_dict(), Config().as_dict()
    found = []
    for key in keys:
        table, name = key.split(".")
        was, value = before.get(table, {}).get(name, default[table][name]), current[table][name]
        if was != value:
            found.append(f"{key}: was {was!r}, now {value!r}")
    return found
