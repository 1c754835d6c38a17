"""Recipes side by side: how well parameters are recovered, on the same data with the same compute.

    python -m benchmarks.accuracy [--config configs/creator.toml] [--only NAME …] [--seeds 3] [--json FILE]

Trains every recipe through the three scripts, in runs/accuracy/. `final` is the configuration as it is; each other
recipe changes what its settings say. Its epochs are chosen so that stage 1 takes as long as that of `final`, by the
speed of a few steps measured beforehand. `original` is configs/hs_face_original.toml without LPIPS, at the
configuration's image size.

Two measurements stand beside the recipes. `ceiling` is the same encoder with a linear head, trained directly on the
labels for as long as both stages of `final` took. `pca` is ridge regression on as many principal components of the
renders' pixels as the latent has dimensions: what a linear method keeps.

It can be stopped and started again: what is finished is not done twice.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.direct import LabelledPictures, Recipe, answers, read_labelled, train_direct
from datasets.pictures import Pictures
from datasets.sources import ensure_data
from models.vae import stage_count
from utils.config import DEFAULT_CONFIG, Config, load
from utils.device import start_engine
from utils.errors import UserError, run_script
from utils.files import read_json, write_json
from utils.metrics import ridge
from utils.run import Run
from utils.workers import default_workers
from vae_trainer import Trainer, open_pictures

_ROOT = Path(__file__).resolve().parent.parent
_SCRIPTS = ("vae_trainer.py", "extract_latentvec.py", "f2p_trainer.py")
_FOLDER = Path("runs/accuracy")

#: The original project's recipe. LPIPS is left out, as its weights cannot be had everywhere.
_ORIGINAL = _ROOT / "configs" / "hs_face_original.toml"

#: Epochs of its MLP here, half of the file's: the figures in docs/relief.md are of as many.
_ORIGINAL_F2P_EPOCHS = 15

RECIPES: dict[str, tuple[str, ...]] = {
    "final": (),
    "original": (),  # see `original_settings`
    "adam": ("vae.optimizer=adam",),
    "all_places_alike": ("vae.feature_weight=1",),
    "no_pyramid": ("vae.pyramid_weight=0",),
    "group_norm": ("vae.norm=group",),
    "less_kl": ("vae.kl_weight=0.00005",),
    "more_kl": ("vae.kl_weight=0.0025",),
    "half_latent": ("vae.latent_dim=512",),
    "original_mlp": ("f2p.network=plain", "f2p.layers=4", "f2p.posterior_noise=0"),
    "whitened": ("f2p.network=whitened", "f2p.learning_rate=3e-3"),
    "no_regularisation": ("f2p.posterior_noise=0", "f2p.weight_decay=0.01"),
}

#: The others run once; these decide what the project claims.
_SEVERAL_SEEDS = ("final", "original")

#: Steps whose time is not counted, as the first ones choose kernels and fill caches, and steps in all.
_WARM_UP_STEPS, _TIMED_STEPS = 4, 12

#: Training renders whose principal components are taken, and pictures that are read at a time.
_PCA_FACES, _BLOCK = 8192, 4096


# --- recipes ----------------------------------------------------------------------------------------


def settings_of(name: str, base: Config) -> list[str]:
    """A recipe's settings, as `--set` takes them."""
    return original_settings(base) if name == "original" else list(RECIPES[name])


def original_settings(base: Config) -> list[str]:
    """What the original's recipe has otherwise than `base`: both stages' settings, and which views are encoded.

    Its widths follow from the image size, as its depth does.
    """
    tables, ours = load(_ORIGINAL).as_dict(), base.as_dict()
    vae, f2p = tables["vae"], tables["f2p"]
    stages = stage_count(base.data.image_size, vae["bottleneck"])
    vae["encoder_channels"] = vae["encoder_channels"][:stages]
    vae["decoder_channels"] = vae["decoder_channels"][-stages:]
    vae["lpips_weight"] = 0.0
    vae["epochs"] = base.vae.epochs  # `planned_epochs` counts from them
    f2p["epochs"] = _ORIGINAL_F2P_EPOCHS
    views = {key: tables["latents"][key] for key in ("moved", "mirrored")}

    settings = []
    for table, values in (("vae", vae), ("latents", views), ("f2p", f2p)):
        changed = {key: value for key, value in values.items() if value != ours[table][key]}
        settings += [f"{table}.{key}={json.dumps(value)}" for key, value in changed.items()]
    return settings


def seconds_per_epoch(config: Config) -> float:
    """What an epoch of stage 1 takes, by a few steps of an untrained network."""
    config = replace(config, run=replace(config.run, folder=str(_FOLDER), name="speed"))
    trainer = Trainer(config, start_engine(config.run), open_pictures(config))
    trainer.model.train()
    chunks = np.resize(trainer.train, (_TIMED_STEPS, config.vae.batch_size))

    begin = 0.0
    for i, batch in enumerate(trainer.pictures.batches(chunks, trainer.engine.device)):
        if i == _WARM_UP_STEPS:
            begin = time.perf_counter()
        trainer.train_step(batch)
    float(next(trainer.model.parameters()).sum())  # waits for the device
    per_step = (time.perf_counter() - begin) / (_TIMED_STEPS - _WARM_UP_STEPS)
    return per_step * trainer.steps_per_epoch


def planned_epochs(name: str, base: Config, config: Config, settings: list[str]) -> int:
    """Epochs of stage 1 that take a recipe as long as those of `final`."""
    epochs = config.vae.epochs
    changes_stage_1 = any(setting.startswith(("vae.", "data.")) for setting in settings)
    if name == "final" or not changes_stage_1:
        return epochs
    return max(1, round(epochs * seconds_per_epoch(base) / seconds_per_epoch(config)))


def train_recipe(name: str, seed: int, *, path: Path, base: Config) -> dict[str, Any]:
    """Train one recipe with one seed, or find it finished; what it reached.

    Args:
        path: the configuration that recipes change.
        base: what is in it.

    Raises:
        UserError: a script failed.
    """
    # Plan. The plan is kept: another measurement of speed would give other epochs.
    folder = _FOLDER / f"{name}_{seed}"
    settings = settings_of(name, base)
    settings += [f"run.seed={seed}", f"run.name={folder.name}", f"run.folder={_FOLDER.as_posix()}"]
    plan = read_json(folder / "plan.json")
    if plan is None:
        plan = {"epochs": planned_epochs(name, base, load(path, settings), settings)}
        write_json(folder / "plan.json", plan)
    settings.append(f"vae.epochs={plan['epochs']}")

    # Train.
    options = [part for setting in settings for part in ("--set", setting)]
    for script in _SCRIPTS:
        if subprocess.run([sys.executable, str(_ROOT / script), "--config", str(path), *options]).returncode:
            raise UserError(
                f"recipe {name} with seed {seed} stopped in {script}; what it said stands above. "
                "The same command goes on"
            )
    return result_of(name, seed, Run(folder))


def result_of(name: str, seed: int, run: Run) -> dict[str, Any]:
    """What a finished run reached. Raises UserError where its metrics are missing."""
    stage_1, stage_2 = read_json(run.vae.metrics), read_json(run.f2p.metrics)
    if stage_1 is None or stage_2 is None:
        raise UserError(f"{run.folder} has no metrics; delete the folder to have the recipe trained again")
    return {
        "recipe": name,
        "seed": seed,
        "epochs": stage_1["run"]["config"]["vae"]["epochs"],
        "test": stage_2["test"],
        "ridge": stage_2["baselines"]["ridge"],
        "mean": stage_2["baselines"]["mean"],
        "test_aug_images": stage_2.get("test_aug_images"),
        "psnr": stage_1["test"]["psnr"],
        "kl_per_face": stage_2["run"]["kl_per_face"],
        "active_units": stage_2["run"]["active_units"],
        "seconds": {"stage_1": stage_1["run"]["seconds"], "stage_2": stage_2["run"]["seconds"]},
    }


# --- beside the recipes -----------------------------------------------------------------------------


def renders_of(base: Config) -> LabelledPictures:
    """The renders of a configuration's data set."""
    return read_labelled(Path(base.data.root), base.data.image_size, cache=Path(base.data.cache or "cache"))


def ceiling(base: Config) -> dict[str, Any]:
    """The encoder with a linear head, trained directly on the renders' labels for as long as both stages of `final`.

    Raises:
        UserError: `final` has not run.
    """
    final = Run(_FOLDER / "final_0")
    metrics = [read_json(stage.metrics) for stage in (final.vae, final.f2p)]
    known = [found for found in metrics if found is not None]
    if len(known) < len(metrics):
        raise UserError("the ceiling gets as much time as `final` took, which has not run yet: name it too")
    budget = sum(found["run"]["seconds"] for found in known)

    # One epoch tells how many the time allows.
    faces, device = renders_of(base), start_engine(base.run).device
    optimizer = "muon" if base.vae.optimizer == "muon" else "adamw"
    recipe = Recipe(base.vae.encoder_channels, 1, base.vae.bottleneck, base.vae.norm, optimizer)
    begin = time.perf_counter()
    train_direct(faces, recipe, device=device, log=_say_nothing)
    recipe = recipe._replace(epochs=max(1, round(budget / (time.perf_counter() - begin))))

    begin = time.perf_counter()
    model = train_direct(faces, recipe, device=device)
    seconds, test = round(time.perf_counter() - begin, 1), faces.pictures.indices("test")
    return {
        "recipe": "ceiling",
        "seed": 0,
        "epochs": recipe.epochs,
        "seconds": {"stage_1": seconds},
        "test": faces.metrics(test, answers(model, faces.pictures, test)),
    }


def pca(base: Config) -> dict[str, Any]:
    """Ridge regression on principal components, found by randomised SVD of 8,192 training renders."""
    # Components.
    faces = renders_of(base)
    begin = time.perf_counter()
    torch.manual_seed(0)
    train, val, test = (faces.pictures.indices(split) for split in ("train", "val", "test"))
    some = torch.from_numpy(pixels(faces.pictures, train[:_PCA_FACES]))
    mean = some.mean(0)
    count = min(base.vae.latent_dim, len(some))
    components = torch.svd_lowrank(some - mean, q=count, niter=2)[2].numpy()

    def project(indices: np.ndarray) -> np.ndarray:
        blocks = np.array_split(indices, -(-len(indices) // _BLOCK))
        return np.concatenate([(pixels(faces.pictures, block) - mean.numpy()) @ components for block in blocks])

    # Regression.
    weights, bias, _ = ridge((project(train), faces.targets[train]), (project(val), faces.targets[val]))
    predicted = np.clip(project(test) @ weights + bias, 0, 1)
    return {
        "recipe": "pca",
        "seed": 0,
        "epochs": 0,
        "test": faces.metrics(test, predicted),
        "seconds": {"stage_1": round(time.perf_counter() - begin, 1)},
    }


def pixels(pictures: Pictures, indices: np.ndarray) -> np.ndarray:
    """Pictures as rows of pixels (N, 3·S·S), float32 in [0, 1]."""
    chunks = np.array_split(indices, -(-len(indices) // 1024))
    batches = pictures.batches(chunks, torch.device("cpu"))
    return np.concatenate([batch.pictures.flatten(1).numpy() for batch in batches]).astype(np.float32) / 255


def _say_nothing(_: str) -> None:
    pass


#: What is measured beside the recipes.
BESIDE: dict[str, Callable[[Config], dict[str, Any]]] = {"pca": pca, "ceiling": ceiling}


def once(name: str, base: Config) -> dict[str, Any]:
    """A measurement beside the recipes, from its file where it was made before."""
    stored = _FOLDER / f"{name}.json"
    found = read_json(stored)
    if found is None:
        found = BESIDE[name](base)
        write_json(stored, found)
    return found


# --- the table --------------------------------------------------------------------------------------


class Column(NamedTuple):
    """A figure of a result."""

    title: str
    keys: tuple[str, ...]  #: where it stands in a result
    digits: int
    unit: float = 1.0  #: it is divided by


_COLUMNS = (
    Column("MAE", ("test", "mae"), 3),
    Column("ridge", ("ridge", "r2"), 3),
    Column("aug_images", ("test_aug_images", "r2"), 3),
    Column("PSNR", ("psnr",), 1),
    Column("KL", ("kl_per_face",), 0),
    Column("active", ("active_units",), 0),
    Column("stage 1, minutes", ("seconds", "stage_1"), 1, 60),
)


def table(results: list[dict[str, Any]]) -> str:
    """A Markdown table: the median over seeds of each recipe, and their range."""
    titles = ["recipe", "epochs", "R²", "range of seeds", *(column.title for column in _COLUMNS)]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for name in dict.fromkeys(result["recipe"] for result in results):
        of_recipe = [result for result in results if result["recipe"] == name]
        r2 = [result["test"]["r2"] for result in of_recipe]
        spread = f"{min(r2):.3f}–{max(r2):.3f}" if len(r2) > 1 else "–"
        cells = [name, str(of_recipe[0]["epochs"]), f"{median(r2):.3f}", spread]
        cells += [cell(column, of_recipe) for column in _COLUMNS]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(column: Column, results: list[dict[str, Any]]) -> str:
    """The median over the seeds of a recipe, or a dash where a seed has no such figure."""
    values = []
    for result in results:
        value: Any = result
        for key in column.keys:
            value = (value or {}).get(key)
        if value is None:
            return "–"
        values.append(value / column.unit)
    return f"{median(values):.{column.digits}f}"


def against_the_ceiling(results: list[dict[str, Any]]) -> str:
    """How near the final recipe comes to the ceiling, and the sliders that it alone leaves behind."""
    best = next((result for result in results if result["recipe"] == "ceiling"), None)
    final = [result for result in results if result["recipe"] == "final"]
    if best is None or not final:
        return ""

    lost = []
    for name, values in best["test"]["parameters"].items():
        r2 = median(result["test"]["parameters"][name]["r2"] for result in final)
        if values["r2"] >= 0.8 and r2 < 0.6:
            lost.append(f"{name} {r2:.2f}")
    fraction = median(result["test"]["r2"] for result in final) / best["test"]["r2"]
    return (
        f"\nThe final recipe reaches {fraction:.2f} of the ceiling. {len(lost)} sliders that the ceiling recovers "
        f"(R² 0.8 or more) are below 0.6: {', '.join(lost) or 'none'}"
    )


# --- the script -------------------------------------------------------------------------------------


def parse_options() -> argparse.Namespace:
    """Read the command line. Raises UserError for what cannot be."""
    names = (*RECIPES, *BESIDE)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG, metavar="FILE", help="`final` (default configs/creator.toml)"
    )
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument(
        "--seeds",
        type=int,
        default=3,
        help=f"seeds of {' and '.join(_SEVERAL_SEEDS)} (default 3); the others run once",
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if options.seeds < 1:
        raise UserError(f"--seeds is {options.seeds}; expected at least 1")
    return options


def main() -> None:
    options = parse_options()
    base = load(options.config)
    ensure_data(base, default_workers())

    results = []
    for name in options.only or (*RECIPES, *BESIDE):
        if name in BESIDE:
            results.append(once(name, base))
        else:
            seeds = range(options.seeds if name in _SEVERAL_SEEDS else 1)
            results += [train_recipe(name, seed, path=options.config, base=base) for seed in seeds]
        if options.json:
            write_json(options.json, {"config": options.config.name, "results": results})
    print(f"\n{table(results)}\n{against_the_ceiling(results)}")


if __name__ == "__main__":
    run_script(main)
