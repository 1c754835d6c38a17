"""Recipes side by side: how well parameters are recovered, on the same data with the same compute.

    python -m benchmarks.accuracy [--config configs/creator.toml] [--only NAME …] [--seeds 3] [--json FILE]

Trains every recipe through the three scripts, in runs/accuracy/. `final` is the configuration as it is; each other
recipe changes what its settings say, and its epochs are chosen so that stage 1 takes as long as that of `final`,
by the speed of a few steps measured beforehand. `ceiling` is the same encoder with a linear head, trained directly
on the labels for as long as both stages of `final` took; `pca` ridge regression on as many principal components of the renders' pixels as the
latent has dimensions: what a linear method keeps. Can be stopped and started again: what is finished is not done twice.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.direct import LabelledPictures, answers, read_labelled, train_direct
from datasets.faces import ensure_data, vae_pictures
from utils.config import Config, load
from utils.errors import UserError, run_script
from utils.files import write_json
from utils.metrics import ridge
from utils.training import start_engine
from utils.workers import default_workers
from vae_trainer import Trainer

_ROOT = Path(__file__).resolve().parent.parent
_FOLDER = "runs/accuracy"

#: Settings of the original's recipe at any image size; LPIPS is left out, as its weights cannot be had everywhere.
_ORIGINAL = ("vae.latent_dim=1024", "vae.spatial=false", "vae.bottleneck=4", "vae.kl_weight=0.00025", "vae.mse_weight=100", "vae.pyramid_weight=0",
             "vae.feature_weight=1", "vae.optimizer=adam", "vae.learning_rate=1e-4", "vae.schedule=exponential", "vae.lr_decay=0.95", "vae.warmup_steps=0",
             "vae.clip_norm=0", "vae.batch_size=32", "latents.moved=false", "f2p.layers=4", "f2p.width=1024", "f2p.whitening=0", "f2p.norm=none",
             "f2p.activation=leaky_relu", "f2p.dropout=0", "f2p.posterior_noise=0", "f2p.aug_prob=0", "f2p.epochs=15", "f2p.batch_size=32",
             "f2p.learning_rate=1e-4", "f2p.weight_decay=0.01")

RECIPES: dict[str, tuple[str, ...]] = {
    "final": (),
    "original": _ORIGINAL,
    "adamw": ("vae.optimizer=adamw",),
    "all_places_alike": ("vae.feature_weight=1",),
    "no_pyramid": ("vae.pyramid_weight=0",),
    "group_norm": ("vae.norm=group",),
    "less_kl": ("vae.kl_weight=0.00005",),
    "more_kl": ("vae.kl_weight=0.0025",),
    "kl_warmup": ("vae.kl_weight=0.0025", "vae.kl_warmup_epochs=3"),
    "half_latent": ("vae.latent_dim=512",),
    "original_mlp": ("f2p.layers=4", "f2p.whitening=0", "f2p.norm=none", "f2p.activation=leaky_relu", "f2p.dropout=0", "f2p.posterior_noise=0"),
    "not_whitened": ("f2p.whitening=0",),
    "mixer": ("f2p.whitening=0", "f2p.mixer_blocks=2", "f2p.learning_rate=1.5e-3"),
    "mu_only": ("f2p.use_logvar=false",),
    "no_regularisation": ("f2p.dropout=0", "f2p.posterior_noise=0", "f2p.weight_decay=0.01"),
}

#: The others run once; these decide what the project claims.
_SEVERAL_SEEDS = ("final", "original")


def settings_of(name: str, base: Config) -> list[str]:
    """A recipe's settings; the original's widths follow from the image size, as its depth does."""
    settings = list(RECIPES[name])
    if name == "original":
        stages = (base.data.image_size // 4).bit_length() - 1
        settings += [f"vae.encoder_channels={[64, 128, 256, 512, 512, 512][:stages]}",
                     f"vae.decoder_channels={[256, 128, 128, 128, 64, 32][-stages:]}"]
    return settings


def seconds_an_epoch(config: Config, steps: int = 12) -> float:
    """What an epoch of stage 1 takes, by a few steps of an untrained network."""
    trainer = Trainer(config, start_engine(config.run), vae_pictures(config, default_workers()))
    trainer.model.train()
    size = config.vae.batch_size
    begin = None
    for i, batch in enumerate(trainer.pictures.batches([trainer.train[j * size:(j + 1) * size] for j in range(steps)], trainer.engine.device)):
        trainer.train_step(batch)
        if i == 3:  # the first ones choose kernels and fill caches
            begin = time.perf_counter()
    float(next(trainer.model.parameters()).sum())  # waits for the device
    return (time.perf_counter() - begin) / (steps - 4) * trainer.steps_an_epoch


def run(name: str, seed: int, path: Path, base: Config) -> dict[str, Any]:
    """Train one recipe with one seed, or find it finished; what it reached."""
    folder = Path(_FOLDER) / f"{name}_{seed}"
    plan = folder / "plan.json"
    settings = settings_of(name, base) + [f"run.seed={seed}", f"run.name={name}_{seed}", f"run.folder={_FOLDER}"]
    if not plan.exists():
        config = load(path, settings)
        epochs = config.vae.epochs
        if name != "final":
            stage_1 = [key for key in settings if key.startswith(("vae.", "data."))]
            epochs = max(1, round(epochs * seconds_an_epoch(base) / seconds_an_epoch(config))) if stage_1 else epochs
        write_json(plan, {"epochs": epochs})
    settings.append(f"vae.epochs={json.loads(plan.read_text(encoding='utf-8'))['epochs']}")
    for script in ("vae_trainer.py", "extract_latentvec.py", "f2p_trainer.py"):
        options = [part for setting in settings for part in ("--set", setting)]
        if subprocess.run([sys.executable, str(_ROOT / script), "--config", str(path), *options]).returncode:
            raise UserError(f"recipe {name} with seed {seed} stopped in {script}; what it said stands above. The same command goes on")
    stage_1, stage_2 = (json.loads((folder / part / "metrics.json").read_text(encoding="utf-8")) for part in ("vae", "f2p"))
    return {"recipe": name, "seed": seed, "epochs": stage_1["run"]["config"]["vae"]["epochs"], "test": stage_2["test"],
            "ridge": stage_2["baselines"]["ridge"], "mean": stage_2["baselines"]["mean"], "test_aug_images": stage_2.get("test_aug_images"),
            "psnr": stage_1["test"]["psnr"], "kl_per_face": stage_2["run"]["kl_per_face"], "active_units": stage_2["run"]["active_units"],
            "seconds": {"stage_1": stage_1["run"]["seconds"], "stage_2": stage_2["run"]["seconds"]}}


def renders(base: Config) -> LabelledPictures:
    return read_labelled(Path(base.data.root), base.data.image_size, Path(base.data.cache or "cache"))


def ceiling(base: Config) -> dict[str, Any]:
    """The same encoder with a linear head, trained directly on the labels of the renders for as long as both stages of `final`."""
    stages = [Path(_FOLDER) / "final_0" / stage / "metrics.json" for stage in ("vae", "f2p")]
    if not all(path.exists() for path in stages):
        raise UserError("the ceiling gets as much time as `final` took, which has not run yet: name it too")
    budget = sum(json.loads(path.read_text(encoding="utf-8"))["run"]["seconds"] for path in stages)
    faces = renders(base)
    train = {"channels": base.vae.encoder_channels, "norm": base.vae.norm, "bottleneck": base.vae.bottleneck,
             "optimizer": "muon" if base.vae.optimizer == "muon" else "adamw", "device": str(start_engine(base.run).device)}
    begin = time.perf_counter()
    train_direct(faces, epochs=1, log=lambda _: None, **train)
    epochs = max(1, round(budget / (time.perf_counter() - begin)))
    begin = time.perf_counter()
    model = train_direct(faces, epochs=epochs, **train)
    seconds, test = round(time.perf_counter() - begin, 1), faces.pictures.indices("test")
    return {"recipe": "ceiling", "seed": 0, "epochs": epochs, "seconds": {"stage_1": seconds},
            "test": faces.metrics(faces.targets[test], answers(model, faces.pictures, test))}


def pca(base: Config) -> dict[str, Any]:
    """Ridge regression on principal components, found by randomised SVD of 8,192 training renders."""
    faces = renders(base)
    begin = time.perf_counter()
    torch.manual_seed(0)
    train, val, test = (faces.pictures.indices(split) for split in ("train", "val", "test"))

    def pixels(indices: np.ndarray) -> np.ndarray:
        parts = faces.pictures.batches(np.array_split(indices, -(-len(indices) // 1024)), torch.device("cpu"))
        return np.concatenate([batch.pictures.flatten(1).numpy() for batch in parts]).astype(np.float32) / 255

    some = torch.from_numpy(pixels(train[:8192]))
    mean = some.mean(0)
    components = torch.svd_lowrank(some - mean, q=min(base.vae.latent_dim, len(some)), niter=2)[2].numpy()
    project = lambda indices: np.concatenate([(pixels(part) - mean.numpy()) @ components
                                              for part in np.array_split(indices, -(-len(indices) // 4096))])
    weights, bias, _ = ridge((project(train), faces.targets[train]), (project(val), faces.targets[val]))
    predicted = np.clip(project(test) @ weights + bias, 0, 1)
    return {"recipe": "pca", "seed": 0, "epochs": 0, "test": faces.metrics(faces.targets[test], predicted),
            "seconds": {"stage_1": round(time.perf_counter() - begin, 1)}}


#: What is measured beside the recipes.
BESIDE: dict[str, Callable[[Config], dict[str, Any]]] = {"pca": pca, "ceiling": ceiling}


def once(name: str, base: Config) -> dict[str, Any]:
    """A measurement beside the recipes, from its file where it was made before."""
    stored = Path(_FOLDER) / f"{name}.json"
    if not stored.exists():
        write_json(stored, BESIDE[name](base))
    return json.loads(stored.read_text(encoding="utf-8"))


def table(results: list[dict[str, Any]]) -> str:
    """A Markdown table: the median over seeds of each recipe, their number and range."""
    lines = ["| recipe | epochs | R² | range of seeds | MAE | ridge | aug_images | PSNR | KL | active | stage 1, minutes |", "|" + "---|" * 11]
    for name in dict.fromkeys(r["recipe"] for r in results):
        of = [r for r in results if r["recipe"] == name]

        def middle(get, digits: int = 3) -> str:
            values = [get(r) for r in of]
            return "–" if any(v is None for v in values) else f"{median(values):.{digits}f}"

        r2 = [r["test"]["r2"] for r in of]
        lines.append(f"| {name} | {of[0]['epochs']} | {median(r2):.3f} | {f'{min(r2):.3f}–{max(r2):.3f}' if len(r2) > 1 else '–'} | "
                     + " | ".join((middle(lambda r: r["test"]["mae"]), middle(lambda r: (r.get("ridge") or {}).get("r2")),
                                   middle(lambda r: (r.get("test_aug_images") or {}).get("r2")), middle(lambda r: r.get("psnr"), 1),
                                   middle(lambda r: r.get("kl_per_face"), 0), middle(lambda r: r.get("active_units"), 0),
                                   middle(lambda r: r["seconds"]["stage_1"] / 60, 1))) + " |")
    return "\n".join(lines)


def against_the_ceiling(results: list[dict[str, Any]]) -> str:
    """The share of the ceiling that the final recipe reaches, and the sliders that it alone leaves behind."""
    best = next((r for r in results if r["recipe"] == "ceiling"), None)
    final = [r for r in results if r["recipe"] == "final"]
    if best is None or not final:
        return ""
    r2 = {name: median(r["test"]["parameters"][name]["r2"] for r in final) for name in best["test"]["parameters"]}
    lost = [f"{name} {r2[name]:.2f}" for name, values in best["test"]["parameters"].items() if values["r2"] >= 0.8 and r2[name] < 0.6]
    share = median(r["test"]["r2"] for r in final) / best["test"]["r2"]
    return (f"\nThe final recipe reaches {share:.2f} of the ceiling. {len(lost)} sliders that the ceiling recovers (R² 0.8 or more) are below 0.6: "
            f"{', '.join(lost) or 'none'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=_ROOT / "configs" / "creator.toml", metavar="FILE")
    parser.add_argument("--only", nargs="+", choices=(*RECIPES, *BESIDE), metavar="NAME", help=f"of {', '.join((*RECIPES, *BESIDE))}")
    parser.add_argument("--seeds", type=int, default=3, help=f"seeds of {' and '.join(_SEVERAL_SEEDS)} (default 3); the others run once")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.seeds < 1:
        raise UserError(f"--seeds is {options.seeds}; expected at least 1")
    base = load(options.config)
    ensure_data(base, default_workers())
    results = []
    for name in options.only or (*RECIPES, *BESIDE):
        if name in BESIDE:
            results.append(once(name, base))
        else:
            results += [run(name, seed, options.config, base) for seed in range(options.seeds if name in _SEVERAL_SEEDS else 1)]
        if options.json:
            write_json(options.json, {"config": options.config.name, "results": results})
    print(f"\n{table(results)}\n{against_the_ceiling(results)}")


if __name__ == "__main__":
    run_script(main)
