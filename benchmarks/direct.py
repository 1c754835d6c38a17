"""The ceiling: the VAE's encoder with a linear head, trained directly on the labels.

    python -m benchmarks.direct --data data/creator --image-size 128 --epochs 20 [--json FILE]

Says what the pictures hold: a slider that this network cannot recover shows in no picture.
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from datasets.faces import creator_version
from datasets.hs_face import Parameter, find_parts, read_labels, read_parameters, read_splits
from datasets.pictures import Pictures, Source
from models.vae import Encoder, stage_count
from utils.errors import run_script
from utils.files import write_json
from utils.metrics import parameter_metrics
from utils.muon import Muon
from utils.training import choose_dtype
from utils.workers import default_workers

CHANNELS = (16, 32, 64, 128, 256, 256)


class Direct(nn.Module):
    """(N, 3, S, S) pictures in [0, 1] → (N, outputs): the encoder's mu is the answer."""

    def __init__(self, image_size: int, channels: tuple[int, ...], outputs: int, norm: str = "batch", bottleneck: int = 4) -> None:
        super().__init__()
        self.encoder = Encoder(image_size, channels, outputs, norm, bottleneck)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.encoder(pictures)[0]


class Renders(NamedTuple):
    """The labelled renders of a data set."""

    pictures: Pictures
    targets: np.ndarray         #: (N, P), row i of picture i
    parameters: list[Parameter]

    def metrics(self, truth: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
        return parameter_metrics(truth, predicted, [p.name for p in self.parameters], [p.group for p in self.parameters])


def read_renders(root: Path, image_size: int, cache: Path) -> Renders:
    """The renders of a data set in the HS_FACE layout that have a label and a split."""
    images, labels = find_parts(root)["images"], read_labels(root)
    splits = read_splits(root, labels.names)
    names = [n for n in labels.names if n in images and n in splits]
    pictures = Pictures([Source("images", [images[n] for n in names], names)], [[splits[n] for n in names]], image_size, cache, default_workers())
    row = {n: i for i, n in enumerate(labels.names)}
    return Renders(pictures, labels.values[[row[n] for n in names]], read_parameters(root, labels.values.shape[1]))


def train_direct(pictures: Pictures, targets: np.ndarray, channels: tuple[int, ...], epochs: int, batch_size: int = 64,
                 learning_rate: float = 2e-3, norm: str = "batch", bottleneck: int = 4, seed: int = 0, device: str = "cpu",
                 optimizer: str = "adamw", log: Callable[[str], None] = print) -> tuple[np.ndarray, np.ndarray]:
    """Train on split "train" of pictures with targets (N, P); return test targets and predictions."""
    torch.manual_seed(seed)
    device = torch.device(device)
    dtype = choose_dtype("auto", device)
    autocast = lambda: torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
    mean = targets[pictures.split == "train"].mean(0)
    model = Direct(pictures.size, channels, targets.shape[1], norm, bottleneck).to(device, memory_format=torch.channels_last)
    updates = Muon(model, learning_rate, 0.02) if optimizer == "muon" else torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=0.02)
    train = pictures.indices("train")
    steps = epochs * (len(train) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(updates, learning_rate, steps, pct_start=0.1)
    labels = torch.from_numpy((targets - mean).astype(np.float32))

    def predict(split: str) -> tuple[np.ndarray, np.ndarray]:
        model.eval()
        indices, answers = pictures.indices(split), []
        with torch.inference_mode(), autocast():
            for batch in pictures.batches(np.array_split(indices, max(1, len(indices) // 128)), device):
                answers.append(model(batch.pictures.float() / 255).float().cpu().numpy())
        return targets[indices], np.concatenate(answers) + mean

    for epoch in range(epochs):
        model.train()
        order = np.random.default_rng([seed, epoch]).permutation(train)
        order = order[:len(order) // batch_size * batch_size].reshape(-1, batch_size)
        started, total = time.time(), 0.0
        for batch in tqdm(pictures.batches(order, device), total=len(order), desc=f"epoch {epoch + 1}/{epochs}", leave=False):
            flipped = torch.rand(len(batch.indices), device=device) < 0.5  # faces are symmetric, and so are their labels
            seen = torch.where(flipped[:, None, None, None], batch.pictures.flip(3), batch.pictures)
            with autocast():
                answer = model((seen.float() / 255).contiguous(memory_format=torch.channels_last))
            loss = F.mse_loss(answer.float(), labels[batch.indices].to(device))
            updates.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            updates.step()
            schedule.step()
            total += loss.item()
        truth, guess = predict("val")
        r2 = 1 - ((truth - guess) ** 2).sum(0) / ((truth - truth.mean(0)) ** 2).sum(0)
        log(f"epoch {epoch + 1}: train loss {total / len(order):.5f}, val R² {r2.mean():.4f}, {time.time() - started:.0f} s")
        if not math.isfinite(total):
            raise RuntimeError("the direct regressor diverged")
    return predict("test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/creator"))
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="muon")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(default_workers())
    faces = read_renders(options.data, options.image_size, options.cache)
    started = time.time()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    truth, predicted = train_direct(faces.pictures, faces.targets, CHANNELS[:stage_count(options.image_size)], options.epochs,
                                    seed=options.seed, device=device, optimizer=options.optimizer)
    metrics = faces.metrics(truth, predicted)
    run = {"image_size": options.image_size, "epochs": options.epochs, "faces": len(faces.targets), "test_faces": len(truth), "optimizer": options.optimizer,
           "seconds": round(time.time() - started), "device": device, "creator": creator_version(options.data)}
    for name, values in sorted(metrics["parameters"].items(), key=lambda item: item[1]["r2"]):
        print(f"{name:28s} R² {values['r2']:.3f}  MAE {values['mae']:.3f}")
    print(f"mean test R² {metrics['r2']:.4f} over {len(faces.parameters)} parameters ({run})")
    if options.json:
        write_json(options.json, {"test": metrics, "run": run})


if __name__ == "__main__":
    run_script(main)
