"""One TOML file describes one experiment; it is read into frozen dataclasses and checked."""

import argparse
import codecs
import dataclasses
import json
import math
import os
import textwrap
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.errors import UserError

#: The experiment of a script that is not told another one; found from whichever folder a script is called.
DEFAULT_CONFIG = Path(__file__).resolve().parent.parent / "configs" / "creator.toml"


#: Settings that are gone, by table. Older checkpoints of the other stage still name them.
_GONE = {"f2p": ("photo_epochs",)}


def setting(default: Any, meaning: str, **limits: Any) -> Any:
    """A dataclass field with its meaning and its allowed values.

    Args:
        default: the recommended value.
        meaning: what `--help` and config.toml say.
        limits: `choices` (a tuple), `low` ≤ value ≤ `high`, value > `above`; `path`: a leading ~ is the home folder;
            `free`: the value may change within a run.
    """
    known = {"choices": (), "low": None, "high": None, "above": None, "path": False, "free": False}
    return field(default=default, metadata={"meaning": meaning, **known, **limits})


@dataclass(frozen=True)
class RunConfig:
    """Where results go, and how a script computes."""

    name: str = setting("creator", "results go to <folder>/<name>", free=True)
    folder: str = setting("runs", "where runs are kept", path=True, free=True)
    device: str = setting("auto", "auto takes CUDA where there is one", choices=("auto", "cpu", "cuda"), free=True)
    precision: str = setting(
        "auto",
        "of the networks' arithmetic; auto: bf16 where the device has it in hardware",
        choices=("auto", "fp32", "bf16", "fp16"),
        free=True,
    )
    seed: int = setting(0, "of weights, data order and noise", low=0)
    threads: int = setting(0, "CPU threads; 0: one per core", low=0, high=4096, free=True)
    compile: bool = setting(
        False, "torch.compile the networks; needs a C++ compiler on a CPU, Triton on CUDA", free=True
    )


@dataclass(frozen=True)
class DataConfig:
    """What the networks learn from."""

    root: str = setting(
        "data/creator", "data set in the HS_FACE layout; empty for none (stage 1 only)", path=True, free=True
    )
    folders: tuple[str, ...] = setting(
        (), "further folders of aligned faces for stage 1 (CelebA, FFHQ, photos)", path=True, free=True
    )
    photos: str = setting(
        "",
        "data set in the same layout whose images/ are aligned photos of people and whose labels.json has parameters "
        "for some of them: stage 1 learns the photos, stage 2 the parameters; empty for none",
        path=True,
        free=True,
    )
    image_size: int = setting(64, "side of the pictures that the networks see, in pixels", choices=(32, 64, 128, 256))
    use_variants: bool = setting(
        True, "stage 1 also learns the photo-like variants; without it the creator writes none"
    )
    creator_count: int = setting(
        0, "where root is missing, the creator writes this many faces there; 0: never", low=0, free=True
    )
    creator_seed: int = setting(0, "seed of the data set that the creator writes", low=0, free=True)
    workers: int = setting(-1, "processes that decode pictures; -1: one per core", low=-1, free=True)
    cache: str = setting(
        "cache",
        "folder of pictures decoded at image_size, built once; empty: decode every time",
        path=True,
        free=True,
    )
    max_unreadable: float = setting(
        0.05, "fraction of unreadable or unmatched pictures above which a script stops", low=0, high=1, free=True
    )


@dataclass(frozen=True)
class VAEConfig:
    """Stage 1: the networks, their objective, their training."""

    encoder_channels: tuple[int, ...] = setting(
        (32, 64, 128), "width of each encoder stage, from the picture on; one stage per halving of the side", low=1
    )
    decoder_channels: tuple[int, ...] = setting((64, 32, 16), "width of each decoder stage, towards the picture", low=1)
    latent_dim: int = setting(1024, "dimensions of the latent", low=1)
    bottleneck: int = setting(8, "side of the feature maps between encoder and decoder", choices=(4, 8, 16))
    spatial: bool = setting(
        True, "the latent keeps the positions of the bottleneck: latent_dim / bottleneck² numbers for each"
    )
    norm: str = setting(
        "batch",
        "normalisation of the feature maps; group does not depend on how many processes share a batch",
        choices=("batch", "group"),
    )
    kl_weight: float = setting(0.0001, "weight of KL, summed over dimensions, mean over faces", low=0)
    mse_weight: float = setting(100.0, "weight of the mean squared error of pixels in [0, 1]", low=0)
    lpips_weight: float = setting(0.0, "weight of LPIPS (VGG); above 0 its backbone's weights are needed", low=0)
    pyramid_weight: float = setting(60.0, "weight of the L1 distance of Laplacian pyramids", low=0)
    feature_weight: float = setting(
        10.0,
        "mean squared error and pyramid count pixels near the eyes, nose and mouth of the alignment template "
        "this many times as much",
        low=1,
    )
    epochs: int = setting(10, "passes over the training faces; may be raised later", low=1, free=True)
    batch_size: int = setting(64, "faces per step, over all processes together", low=1)
    optimizer: str = setting("muon", "muon learns faint features faster", choices=("muon", "adam"))
    learning_rate: float = setting(0.004, "at its peak", above=0)
    schedule: str = setting("cosine", "of the learning rate", choices=("cosine", "exponential"))
    lr_decay: float = setting(0.95, "exponential schedule: factor per epoch", above=0, high=1)
    warmup_steps: int = setting(100, "steps over which the learning rate rises from 0", low=0)
    clip_norm: float = setting(5.0, "gradients are scaled down to this norm; 0: never", low=0)
    checkpoint_minutes: float = setting(10.0, "save this often within an epoch as well", above=0, free=True)


@dataclass(frozen=True)
class LatentsConfig:
    """Between the stages: which latents are made of the faces."""

    batch_size: int = setting(64, "faces per step", low=1, free=True)
    precision: str = setting(
        "auto",
        "of the encoder; auto: that of the latents which are there, else bf16 where the device has it in hardware",
        choices=("auto", "fp32", "bf16"),
        free=True,
    )
    moved: bool = setting(
        True,
        "every face is also encoded turned, scaled and shifted a little: stage 2 learns to detect misalignment from "
        "these latents, and predict.py corrects it",
    )
    mirrored: bool = setting(
        False,
        "every face is also encoded mirrored: stage 2 learns from both, and a prediction is the mean of both; "
        "for parameters that are the same in the mirror",
    )


@dataclass(frozen=True)
class F2PConfig:
    """Stage 2: the regressor and its training."""

    network: str = setting(
        "mixer",
        "mixer: an MLP-Mixer over the positions of a spatial latent, its blocks learned by Muon, before an MLP of "
        "normalised SiLU layers; whitened: such an MLP alone, of decorrelated latents: quicker and less accurate; "
        "plain: an MLP of LeakyReLU layers",
        choices=("plain", "whitened", "mixer"),
    )
    layers: int = setting(3, "linear layers, the last one included", low=1)
    width: int = setting(1024, "neurons of a hidden layer", low=1)
    whitening: float = setting(
        0.35,
        "whitened network: principal axes of mu are divided by their variances to this power; 0.5 is PCA whitening",
        above=0,
        high=0.5,
    )
    mixer_blocks: int = setting(2, "mixer network: how often positions and channels are mixed", low=1)
    mixer_width: int = setting(128, "mixer network: channels per position", low=4)
    posterior_noise: float = setting(
        0.75, "in training mu is shifted by this many posterior standard deviations of noise", low=0
    )
    variant_prob: float = setting(
        0.6,
        "where a render has a photo-like variant: probability of reading the variant's latent instead",
        low=0,
        high=1,
    )
    epochs: int = setting(30, "passes over the training faces; may be raised later", low=1, free=True)
    batch_size: int = setting(128, "faces per step", low=1)
    learning_rate: float = setting(0.0015, "at the start; cosine decay to 0", above=0)
    weight_decay: float = setting(0.3, "of AdamW, multiplied by the learning rate at every step", low=0)


@dataclass(frozen=True)
class Config:
    """One experiment: `config.run.name` and so on. Each table says what its settings mean."""

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
        tables = dataclasses.asdict(self)
        return {table: {key: _plain(value) for key, value in values.items()} for table, values in tables.items()}


# --- reading --------------------------------------------------------------------------------------


def load(path: Path, overrides: list[str] | None = None) -> Config:
    """Read a TOML file and apply `table.key=value` overrides.

    Raises:
        UserError: no such file, not TOML, an unknown table or key, a wrong type, an impossible value.
    """
    content = _read_toml(path)

    for text in overrides or []:
        key, equals, value = text.partition("=")
        table, dot, name = key.strip().partition(".")
        if not (equals and dot and table and name):
            raise UserError(f"--set {text}: expected table.key=value, for example --set vae.epochs=20")
        values = content.setdefault(table, {})
        if not isinstance(values, dict):
            raise UserError(f"{path}: {table} is {values!r}; expected a table [{table}] with settings below it")
        values[name] = _parse_value(value.strip(), is_text=_is_text(table, name))

    return from_dict(content, _source_of(path, overrides))


def from_dict(content: dict[str, Any], source: str) -> Config:
    """Build a `Config` of tables of plain values; what is not given takes its default.

    Raises:
        UserError: names the source, the key, what was found and what is allowed.
    """
    built = {}
    for table, values in content.items():
        if table not in _TABLES:
            raise UserError(f"{source}: unknown table [{table}]; the tables are {', '.join(f'[{t}]' for t in _TABLES)}")
        if not isinstance(values, dict):
            raise UserError(f"{source}: {table} is {values!r}; expected a table [{table}] with settings below it")
        built[table] = _build(_TABLES[table], table=table, values=values, source=source)
    config = Config(**built)
    _check_together(config, source)
    return config


def of_checkpoint(content: dict[str, Any], path: Path) -> Config:
    """The configuration that a checkpoint's content says it was trained with; settings that are gone are left out.

    Raises:
        UserError: as `from_dict`.
    """
    known = dict(content["config"])
    for table, gone in _GONE.items():
        if isinstance(known.get(table), dict):
            known[table] = {key: value for key, value in known[table].items() if key not in gone}
    return from_dict(known, str(path))


def parse_arguments(description: str) -> tuple[Config, argparse.Namespace]:
    """Read the options that the three training scripts share: --config, --set, --restart.

    Args:
        description: docstring of the script, shown by --help above the list of all settings.
    """
    parser = argparse.ArgumentParser(
        description=description, epilog=settings_help(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="experiment to run (default: configs/creator.toml)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="change one setting; may be repeated"
    )
    parser.add_argument("--restart", action="store_true", help="start this step over instead of going on")
    options = parser.parse_args()
    return load(options.config or DEFAULT_CONFIG, options.set), options


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        data = path.expanduser().read_bytes()
    except FileNotFoundError:
        near = ", ".join(sorted(str(p) for p in path.parent.glob("*.toml"))) or "none"
        raise UserError(f"there is no config {path}. In that folder: {near}") from None
    except OSError as error:
        raise UserError(f"cannot read the config {path}: {error.strerror}") from None

    # Editors on Windows write a mark of the encoding first, some of them UTF-16.
    is_utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return tomllib.loads(data.decode("utf-16" if is_utf_16 else "utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error}. Save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        hint = ""
        if b"\\" in data:
            hint = ". A Windows path goes in single quotes ('C:\\faces') or with / (\"C:/faces\")"
        raise UserError(f"{path} is not TOML: {error}{hint}") from None


def _source_of(path: Path, overrides: list[str] | None) -> str:
    return f"{path} with --set" if overrides else str(path)


def _is_text(table: str, name: str) -> bool:
    """Whether a setting is text, so that `run.name=2024` on a command line is a name and no number."""
    kind = _TABLES.get(table)
    return kind is not None and typing.get_type_hints(kind).get(name) is str


def _parse_value(text: str, *, is_text: bool) -> Any:
    """A TOML value. What is none is taken as text, so that quotes can be left out in a shell."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return text if is_text and not isinstance(value, str) else value


# --- checking -------------------------------------------------------------------------------------


def _build(kind: type, *, table: str, values: dict[str, Any], source: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(kind)}
    types_of = typing.get_type_hints(kind)
    checked = {}
    for key, value in values.items():
        if key not in fields:
            raise UserError(f"{source}: unknown key {table}.{key}; the keys of [{table}] are {', '.join(fields)}")
        where = f"{source}: {table}.{key}"
        checked[key] = _checked(where, value, expected=types_of[key], limits=fields[key].metadata)
    return kind(**checked)


def _checked(where: str, value: Any, *, expected: Any, limits: types.MappingProxyType) -> Any:
    """A value as its setting's type. Raises UserError where it is of another type or not allowed."""
    if typing.get_origin(expected) is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{where} is {value!r}; expected a list")
        item = typing.get_args(expected)[0]
        return tuple(_checked(f"{where}[{i}]", v, expected=item, limits=limits) for i, v in enumerate(value))

    if isinstance(value, int) and abs(value) >= 1 << 63:
        raise UserError(f"{where} is {value!r}; expected a whole number below 2^63")
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not expected:
        names = {str: "text in quotes", int: "a whole number", float: "a number", bool: "true or false"}
        raise UserError(f"{where} is {value!r}; expected {names[expected]}")

    if limits["choices"] and value not in limits["choices"]:
        raise UserError(f"{where} is {value!r}; expected one of {', '.join(repr(c) for c in limits['choices'])}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        _check_range(where, value, limits)
    if limits["path"]:
        value = os.path.expanduser(value)
    return value


def _check_range(where: str, value: float, limits: types.MappingProxyType) -> None:
    low, high, above = limits["low"], limits["high"], limits["above"]
    too_low = (low is not None and value < low) or (above is not None and value <= above)
    too_high = high is not None and value > high
    if not math.isfinite(value) or too_low or too_high:
        bounds = [("at least", low), ("above", above), ("at most", high)]
        expected = " and ".join(f"{words} {bound:g}" for words, bound in bounds if bound is not None)
        raise UserError(f"{where} is {value!r}; expected {expected or 'a finite number'}")


def _check_together(config: Config, source: str) -> None:
    """Raise UserError where settings that are fine one by one do not go together."""
    side, size = config.vae.bottleneck, config.data.image_size
    stages = (size // side).bit_length() - 1
    for key in ("encoder_channels", "decoder_channels"):
        found = getattr(config.vae, key)
        if len(found) != stages:
            raise UserError(
                f"{source}: vae.{key} has {len(found)} widths; data.image_size = {size} with vae.bottleneck = {side} "
                f"needs {stages}, one for each halving down to {side}×{side}"
            )

    if config.vae.spatial and config.vae.latent_dim % side**2:
        raise UserError(
            f"{source}: vae.latent_dim is {config.vae.latent_dim}; with vae.spatial it is a multiple of {side**2}, "
            "the positions of the bottleneck"
        )
    if config.f2p.network == "mixer" and not config.vae.spatial:
        raise UserError(
            f"{source}: f2p.network is 'mixer', but without vae.spatial a latent has no positions to mix. "
            'Set vae.spatial = true or f2p.network = "whitened"'
        )

    name = config.run.name
    if not name or name != Path(name).name or name in (".", "..") or "\\" in name:
        raise UserError(f"{source}: run.name is {name!r}; expected a plain folder name")
    if not config.data.root and not config.data.folders and not config.data.photos:
        raise UserError(
            f"{source}: data.root, data.folders and data.photos are all empty; expected at least one folder of faces"
        )


# --- writing --------------------------------------------------------------------------------------


def to_toml(config: Config) -> str:
    """The whole configuration as TOML, each setting with its meaning."""
    lines = []
    for table in dataclasses.fields(config):
        lines.append(f"[{table.name}]")
        settings = getattr(config, table.name)
        for f in dataclasses.fields(settings):
            lines.append(f"{f.name} = {_as_toml(getattr(settings, f.name))}  # {f.metadata['meaning']}")
        lines.append("")
    return "\n".join(lines)


def settings_help() -> str:
    """Every setting with its default and its meaning, wrapped for a terminal."""
    lines = ["settings (in a config file, or with --set TABLE.KEY=VALUE), their defaults and meanings:"]
    for table, kind in _TABLES.items():
        lines += ["", f"  [{table}]  {kind.__doc__ or ''}"]
        for f in dataclasses.fields(kind):
            choices = " | ".join(map(str, f.metadata["choices"]))
            meaning = f.metadata["meaning"] + (f" ({choices})" if choices else "")
            text = f"{f.name} = {_as_toml(f.default)}: {meaning}"
            lines.append(textwrap.fill(text, width=110, initial_indent="    ", subsequent_indent="        "))
    return "\n".join(lines)


def changed_settings(before: dict[str, dict[str, Any]], now: Config, tables: tuple[str, ...]) -> list[str]:
    """Settings of some tables that differ from a stored configuration and may not, as "key: was a, now b".

    A setting younger than the stored configuration counts as its default.
    """
    found = []
    for table in tables:
        settings = getattr(now, table)
        for f in dataclasses.fields(settings):
            if f.metadata["free"]:
                continue
            was = before.get(table, {}).get(f.name, _plain(f.default))
            value = _plain(getattr(settings, f.name))
            if was != value:
                found.append(f"{table}.{f.name}: was {was!r}, now {value!r}")
    return found


def _as_toml(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


_TABLES: dict[str, type] = {
    "run": RunConfig,
    "data": DataConfig,
    "vae": VAEConfig,
    "latents": LatentsConfig,
    "f2p": F2PConfig,
}
