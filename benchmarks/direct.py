"""The ceiling: the VAE's encoder with a linear head, trained directly on the labels.

    python -m benchmarks.direct --data data/creator --image-size 128 --epochs 20 [--json FILE]
    python -m benchmarks.direct --data data/creator_photo --image-size 64 --channels 32 64 128 --variants [--photos DIR]

Says what the pictures hold: a slider that this network cannot recover shows in no picture. With --variants it learns
from the photo-like variants as well and is measured on them, too; --photos lets it predict photos and measures
that as benchmarks.photos does, on the same people.
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks.photos import measure, read_frames
from datasets.creator import NAMES
from datasets.faces import creator_version
from datasets.hs_face import Parameter, find_parts, read_labels, read_parameters, read_splits
from datasets.pictures import Pictures, Source
from models.mtcnn import FaceDetector
from models.vae import Encoder, stage_count
from predict import alignment_of
from utils.alignment import TEMPLATE_SIZE, warp
from utils.errors import UserError, run_script
from utils.files import write_json
from utils.metrics import parameter_metrics
from utils.muon import Muon
from utils.training import choose_dtype
from utils.workers import default_workers

CHANNELS = (16, 32, 64, 128, 256, 256)
_BATCH = 64


class Direct(nn.Module):
    """(N, 3, S, S) pictures in [0, 1] → (N, P) parameters: the encoder's mu, counted from the mean face (P,), is the answer."""

    def __init__(self, image_size: int, channels: tuple[int, ...], mean: torch.Tensor, norm: str = "batch", bottleneck: int = 4) -> None:
        super().__init__()
        self.encoder = Encoder(image_size, channels, len(mean), norm, bottleneck)
        self.register_buffer("mean", mean)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.encoder(pictures)[0].float() + self.mean


class LabelledPictures(NamedTuple):
    """The labelled pictures of a data set."""

    pictures: Pictures
    targets: np.ndarray         #: (N, P), row i of picture i
    parts: np.ndarray           #: (N,) which part of the data set each is of: "images" or "aug_images"
    parameters: list[Parameter]

    def metrics(self, truth: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
        return parameter_metrics(truth, predicted, [p.name for p in self.parameters], [p.group for p in self.parameters])


def read_labelled(root: Path, image_size: int, cache: Path, parts: tuple[str, ...] = ("images",)) -> LabelledPictures:
    """The pictures of a data set in the HS_FACE layout that have a label and a split.

    Raises:
        UserError: the data set has none of a part.
    """
    found, labels = find_parts(root), read_labels(root)
    splits = read_splits(root, labels.names)
    row = {n: i for i, n in enumerate(labels.names)}
    names = {part: [n for n in labels.names if n in found.get(part, {}) and n in splits] for part in parts}
    if missing := [part for part in parts if not names[part]]:
        raise UserError(f"{root} holds no {missing[0]} with labels, which are wanted here")
    pictures = Pictures([Source(part, [found[part][n] for n in of_part], of_part) for part, of_part in names.items()],
                        [[splits[n] for n in of_part] for of_part in names.values()], image_size, cache, default_workers())
    return LabelledPictures(pictures, labels.values[[row[n] for of_part in names.values() for n in of_part]],
                            np.repeat(parts, [len(of_part) for of_part in names.values()]), read_parameters(root, labels.values.shape[1]))


def _autocast(device: torch.device) -> torch.autocast:
    dtype = choose_dtype("auto", device)
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


@torch.inference_mode()
def answers(model: Direct, pictures: Pictures, indices: np.ndarray) -> np.ndarray:
    """Parameters (N, P) of pictures, by a trained network."""
    model.eval()
    device = model.mean.device
    with _autocast(device):
        return np.concatenate([model(batch.pictures.float() / 255).cpu().numpy()
                               for batch in pictures.batches(np.array_split(indices, max(1, len(indices) // 128)), device)])


def train_direct(faces: LabelledPictures, channels: tuple[int, ...], epochs: int, batch_size: int = _BATCH,
                 learning_rate: float = 2e-3, norm: str = "batch", bottleneck: int = 4, seed: int = 0, device: str = "cpu",
                 optimizer: str = "adamw", log: Callable[[str], None] = print) -> Direct:
    """Train on split "train" of labelled pictures."""
    torch.manual_seed(seed)
    device, pictures = torch.device(device), faces.pictures
    train, val = pictures.indices("train"), pictures.indices("val")
    labels = torch.from_numpy(faces.targets.astype(np.float32))
    model = Direct(pictures.size, channels, labels[train].mean(0), norm, bottleneck).to(device, memory_format=torch.channels_last)
    updates = Muon(model, learning_rate, 0.02) if optimizer == "muon" else torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=0.02)
    steps = epochs * (len(train) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(updates, learning_rate, steps, pct_start=0.1)
    for epoch in range(epochs):
        model.train()
        order = np.random.default_rng([seed, epoch]).permutation(train)
        order = order[:len(order) // batch_size * batch_size].reshape(-1, batch_size)
        started, total = time.time(), 0.0
        for batch in tqdm(pictures.batches(order, device), total=len(order), desc=f"epoch {epoch + 1}/{epochs}", leave=False):
            flipped = torch.rand(len(batch.indices), device=device) < 0.5  # faces are symmetric, and so are their labels
            seen = torch.where(flipped[:, None, None, None], batch.pictures.flip(3), batch.pictures)
            with _autocast(device):
                answer = model((seen.float() / 255).contiguous(memory_format=torch.channels_last))
            loss = F.mse_loss(answer, labels[batch.indices].to(device))
            updates.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            updates.step()
            schedule.step()
            total += loss.item()
        r2 = faces.metrics(faces.targets[val], answers(model, pictures, val))["r2"]
        log(f"epoch {epoch + 1}: train loss {total / len(order):.5f}, val R² {r2:.4f}, {time.time() - started:.0f} s")
        if not math.isfinite(total):
            raise RuntimeError("the direct regressor diverged")
    return model


def of_photo(model: Direct, detector: FaceDetector, size: int) -> Callable[[np.ndarray], np.ndarray | None]:
    """What reads the largest face's parameters (P,) off a photo, aligned by the detector's points; None where there is no face."""
    @torch.inference_mode()
    def predict(photo: np.ndarray) -> np.ndarray | None:
        matrix, _ = alignment_of(photo, detector, "largest")
        if matrix is None:
            return None
        aligned = warp(photo, matrix, TEMPLATE_SIZE)
        small = torch.from_numpy(cv2.resize(aligned, (size, size), interpolation=cv2.INTER_AREA)).to(model.mean.device)
        return model(small.permute(2, 0, 1)[None].float() / 255)[0].clamp(0, 1).cpu().numpy()

    model.eval()
    return predict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/creator"))
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--channels", type=int, nargs="+", help=f"width of each stage; as many as halve the side down to 8 or 4 "
                                                                f"(default the first of {' '.join(map(str, CHANNELS))})")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="muon")
    parser.add_argument("--variants", action="store_true", help="train on aug_images, too")
    parser.add_argument("--photos", type=Path, help="predict these photos as well: a folder with images/ and landmarks.csv")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    stages = stage_count(options.image_size) if options.image_size in (32, 64, 128, 256) else None
    if stages is None:
        raise UserError(f"--image-size is {options.image_size}; expected 32, 64, 128 or 256")
    channels = tuple(options.channels or CHANNELS[:stages])
    if len(channels) not in (stages - 1, stages) or min(channels) < 1:
        raise UserError(f"--channels is {' '.join(map(str, channels))}; expected {stages - 1} or {stages} widths above 0 at {options.image_size} pixels")
    if options.epochs < 1:
        raise UserError(f"--epochs is {options.epochs}; expected at least 1")
    torch.set_num_threads(default_workers())
    frames = read_frames(options.photos) if options.photos else []
    parts = ("images", "aug_images") if options.variants else ("images",)
    faces = read_labelled(options.data, options.image_size, options.cache, parts)
    if frames and [p.name for p in faces.parameters] != list(NAMES):
        raise UserError(f"--photos compares characters of the embedded creator; {options.data} is of another game")
    counts = {split: len(faces.pictures.indices(split)) for split in ("train", "val", "test")}
    if counts["train"] < _BATCH or not counts["val"] or not counts["test"]:
        raise UserError(f"{options.data} gives {counts['train']} pictures for training, {counts['val']} for validation and {counts['test']} for testing; "
                        f"at least {_BATCH}, 1 and 1 are needed")
    started = time.time()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = train_direct(faces, channels, options.epochs, bottleneck=options.image_size >> len(channels),
                         seed=options.seed, device=device, optimizer=options.optimizer)
    run = {"image_size": options.image_size, "channels": channels, "epochs": options.epochs, "parts": parts, "pictures": len(faces.targets),
           "optimizer": options.optimizer, "seconds": round(time.time() - started), "device": device, "creator": creator_version(options.data)}
    test, result = faces.pictures.indices("test"), {"run": run}
    for part in parts:
        rows = test[faces.parts[test] == part]
        metrics = result["test" if part == "images" else f"test_{part}"] = faces.metrics(faces.targets[rows], answers(model, faces.pictures, rows))
        if part == "images":
            for name, values in sorted(metrics["parameters"].items(), key=lambda item: item[1]["r2"]):
                print(f"{name:28s} R² {values['r2']:.3f}  MAE {values['mae']:.3f}")
        print(f"{part}: mean R² {metrics['r2']:.4f} over {len(faces.parameters)} parameters of {len(rows)} test faces")
    print(run)
    if frames:
        result["photos"] = measure(frames, {0: of_photo(model, FaceDetector(), options.image_size)})
        print(f"photos: median ρ {result['photos']['median_rho']:.2f} over {len(result['photos']['ratios'])} ratios of "
              f"{result['photos']['people']} people (sliders fitted to landmarks: {result['photos']['median_ceiling']:.2f})")
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    run_script(main)
