"""The ceiling: the VAE's encoder with a linear head, trained directly on the labels.

    python -m benchmarks.direct --data data/creator --image-size 128 --epochs 20 [--json FILE]
    python -m benchmarks.direct --data data/creator_photo --image-size 64 --channels 32 64 128 --variants [--photos DIR]

Says what the pictures hold: a slider that this network cannot recover shows in no picture. With --variants it learns
from the photo-like variants as well, and is measured on them, too. With --photos it predicts photos, which is measured
as benchmarks.photos does, on the same people.
"""

import argparse
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks.photos import Annotation, Mesh, Observer, Reader, Reading, measure
from datasets.labels import find_parts, read_labels, read_splits
from datasets.people import Frame, read_frames
from datasets.pictures import Batch, Pictures, epoch_order
from datasets.sources import Source
from games.game import EmbeddedGame, default_game, embedded_game
from games.parameters import Parameter, read_parameters
from games.writer import manifest_version
from models.mtcnn import FaceDetector
from models.vae import Encoder, stage_count
from utils.alignment import TEMPLATE_SIZE, warp
from utils.config import VAEConfig
from utils.device import Engine, choose_dtype
from utils.errors import UserError, run_script
from utils.files import write_json
from utils.metrics import parameter_metrics
from utils.muon import Muon
from utils.workers import default_workers

CHANNELS = (16, 32, 64, 128, 256, 256)

#: Faces per step, learning rate at its peak, weight decay, and the norm that gradients are scaled down to.
_BATCH, _RATE, _DECAY, _CLIP = 64, 2e-3, 0.02, 1.0

#: Pictures that are answered at a time.
_BLOCK = 128


class Recipe(NamedTuple):
    """How the network is built and trained."""

    channels: tuple[int, ...]  #: width of each stage
    epochs: int
    bottleneck: int = 4  #: side of the last feature maps
    norm: str = "batch"  #: "batch" or "group"
    optimizer: str = "adamw"  #: "adamw" or "muon"
    seed: int = 0


class Direct(nn.Module):
    """(N, 3, S, S) pictures in [0, 1] → (N, P) parameters: the encoder's mu, counted from the mean face (P,)."""

    mean: Tensor

    def __init__(self, image_size: int, mean: Tensor, recipe: Recipe) -> None:
        super().__init__()
        settings = replace(
            VAEConfig(),
            encoder_channels=recipe.channels,
            latent_dim=len(mean),
            bottleneck=recipe.bottleneck,
            spatial=False,
            norm=recipe.norm,
        )
        self.encoder = Encoder(image_size, settings)
        self.register_buffer("mean", mean)

    def forward(self, pictures: Tensor) -> Tensor:
        mu, _ = self.encoder(pictures)
        return mu.float() + self.mean


class LabelledPictures(NamedTuple):
    """The labelled pictures of a data set."""

    pictures: Pictures
    targets: np.ndarray  #: (N, P) float32, row i of picture i
    parts: np.ndarray  #: (N,) which part of the data set each is of: "images" or "aug_images"
    parameters: list[Parameter]

    def metrics(self, indices: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
        """Metrics of predicted parameters (N, P) of pictures (N,)."""
        names, groups = [p.name for p in self.parameters], [p.group for p in self.parameters]
        return parameter_metrics(self.targets[indices], predicted, names=names, groups=groups)


def read_labelled(
    root: Path, image_size: int, *, cache: Path, parts: tuple[str, ...] = ("images",)
) -> LabelledPictures:
    """The pictures of a data set in the HS_FACE layout that have a label and a split.

    Raises:
        UserError: the data set has none of a part.
    """
    found, labels = find_parts(root), read_labels(root)
    splits = read_splits(root, labels.names)
    row_of = {name: i for i, name in enumerate(labels.names)}

    sources: dict[str, Source] = {}
    for part in parts:
        files = found.get(part, {})
        names = [name for name in labels.names if name in files and name in splits]
        if not names:
            raise UserError(f"{root} holds no {part} with labels, which are wanted here")
        paths, of_names = [files[name] for name in names], [splits[name] for name in names]
        sources[part] = Source(str(root / part), paths, names, of_names)

    pictures = Pictures(sources, size=image_size, cache=cache, workers=default_workers())
    rows = [row_of[name] for source in sources.values() for name in source.names]
    of_parts = np.repeat(parts, [len(source.names) for source in sources.values()])
    return LabelledPictures(pictures, labels.values[rows], of_parts, read_parameters(root, labels.values.shape[1]))


def _autocast(device: torch.device) -> AbstractContextManager:
    return Engine(device, choose_dtype("auto", device)).autocast()


@torch.inference_mode()
def answers(model: Direct, pictures: Pictures, indices: np.ndarray) -> np.ndarray:
    """Parameters (N, P) of pictures, by a trained network."""
    model.eval()
    device = model.mean.device
    chunks = np.array_split(indices, max(1, len(indices) // _BLOCK))
    with _autocast(device):
        found = [model(batch.pictures.float() / 255).cpu().numpy() for batch in pictures.batches(chunks, device)]
    return np.concatenate(found)


class Training:
    """A network on its way.

    Args:
        faces: what is learned.
        recipe: how.
        device: where.
    """

    def __init__(self, faces: LabelledPictures, recipe: Recipe, device: torch.device) -> None:
        torch.manual_seed(recipe.seed)
        self.faces, self.recipe, self.device = faces, recipe, device
        self.train, self.val = faces.pictures.indices("train"), faces.pictures.indices("val")
        self.labels = torch.from_numpy(faces.targets.astype(np.float32))
        model = Direct(faces.pictures.size, self.labels[self.train].mean(0), recipe)
        self.model = model.to(device).to(memory_format=torch.channels_last)

        self.optimizer: torch.optim.Optimizer
        is_muon = recipe.optimizer == "muon"  # its momentum is fixed
        if is_muon:
            self.optimizer = Muon(self.model, _RATE, _DECAY)
        else:
            self.optimizer = torch.optim.AdamW(self.model.parameters(), _RATE, weight_decay=_DECAY)
        steps = recipe.epochs * (len(self.train) // _BATCH)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, _RATE, steps, pct_start=0.1, cycle_momentum=not is_muon
        )

    def train_epoch(self, epoch: int) -> float:
        """One pass over split "train"; the mean loss per step. Raises UserError where it is not finite."""
        self.model.train()
        order = epoch_order(self.train, _BATCH, seed=self.recipe.seed, epoch=epoch)
        title, total = f"epoch {epoch + 1}/{self.recipe.epochs}", 0.0
        batches = self.faces.pictures.batches(order, self.device)
        for batch in tqdm(batches, total=len(order), desc=title, leave=False):
            total += self.train_step(batch)
        if not math.isfinite(total):
            raise UserError(f"the loss of epoch {epoch + 1} is {total}; the network diverged. Try another --optimizer")
        return total / len(order)

    def train_step(self, batch: Batch) -> float:
        """One step of the optimizer; the loss."""
        # Faces are symmetric, and so are their labels.
        is_flipped = torch.rand(len(batch.indices), device=self.device) < 0.5
        pictures = torch.where(is_flipped[:, None, None, None], batch.pictures.flip(3), batch.pictures)
        with _autocast(self.device):
            answer = self.model((pictures.float() / 255).contiguous(memory_format=torch.channels_last))
        loss = F.mse_loss(answer, self.labels[batch.indices].to(self.device))

        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), _CLIP)
        self.optimizer.step()
        self.schedule.step()
        return loss.item()


def train_direct(
    faces: LabelledPictures, recipe: Recipe, *, device: torch.device, log: Callable[[str], None] = print
) -> Direct:
    """Train on split "train" of labelled pictures; R² on "val" is logged after each epoch."""
    training = Training(faces, recipe, device)
    for epoch in range(recipe.epochs):
        started = time.time()
        loss = training.train_epoch(epoch)
        r2 = faces.metrics(training.val, answers(training.model, faces.pictures, training.val))["r2"]
        log(f"epoch {epoch + 1}: train loss {loss:.5f}, val R² {r2:.4f}, {time.time() - started:.0f} s")
    return training.model


def reader_of(model: Direct, size: int) -> Reader:
    """What reads parameters off photos, aligned by the detector's points, with a network of pictures size×size."""
    detector = FaceDetector()
    model.eval()

    @torch.inference_mode()
    def read(photo: np.ndarray) -> Reading | None:
        matrix, _ = detector.align(photo, "largest")
        if matrix is None:
            return None
        aligned = warp(photo, matrix, TEMPLATE_SIZE)
        face = cv2.resize(aligned, (size, size), interpolation=cv2.INTER_AREA)
        pictures = torch.from_numpy(face).to(model.mean.device).permute(2, 0, 1)[None].float() / 255
        return Reading(aligned, model(pictures)[0].clamp(0, 1).cpu().numpy())

    return read


# --- the script -------------------------------------------------------------------------------------


def parse_options() -> argparse.Namespace:
    """Read the command line; `channels` becomes a tuple. Raises UserError for what cannot be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/creator"), help="data set (default data/creator)")
    parser.add_argument("--image-size", type=int, default=128, help="side of the pictures, pixels (default 128)")
    parser.add_argument(
        "--channels",
        type=int,
        nargs="+",
        help="width of each stage; as many as halve the side down to 8 or 4 "
        f"(default the first of {' '.join(map(str, CHANNELS))})",
    )
    parser.add_argument("--epochs", type=int, default=20, help="passes over the training faces (default 20)")
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="muon", help="default muon")
    parser.add_argument("--variants", action="store_true", help="train on aug_images, too")
    parser.add_argument("--photos", type=Path, help="predict these photos, too: a folder with images/, landmarks.csv")
    parser.add_argument("--annotated", action="store_true", help="measure photos by landmarks.csv, not by the observer")
    parser.add_argument("--seed", type=int, default=0, help="of weights and order (default 0)")
    parser.add_argument("--cache", type=Path, default=Path("cache"), help="folder of decoded pictures (default cache)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()

    if options.image_size not in (32, 64, 128, 256):
        raise UserError(f"--image-size is {options.image_size}; expected 32, 64, 128 or 256")
    stages = stage_count(options.image_size)
    options.channels = tuple(options.channels or CHANNELS[:stages])
    if len(options.channels) not in (stages - 1, stages) or min(options.channels) < 1:
        raise UserError(
            f"--channels is {' '.join(map(str, options.channels))}; expected {stages - 1} or {stages} widths above 0 "
            f"at {options.image_size} pixels"
        )
    if options.epochs < 1:
        raise UserError(f"--epochs is {options.epochs}; expected at least 1")
    return options


def read_data(options: argparse.Namespace) -> LabelledPictures:
    """The pictures that the options name.

    Raises:
        UserError: they are too few, or of another game than photos are compared with.
    """
    parts = ("images", "aug_images") if options.variants else ("images",)
    faces = read_labelled(options.data, options.image_size, cache=options.cache, parts=parts)
    if options.photos and embedded_game(manifest_version(options.data)) is None:
        raise UserError(
            f"--photos compares characters of the embedded creator; {options.data} is of another game, or of another "
            "version of it"
        )

    counts = {split: len(faces.pictures.indices(split)) for split in ("train", "val", "test")}
    if counts["train"] < _BATCH or not counts["val"] or not counts["test"]:
        raise UserError(
            f"{options.data} gives {counts['train']} pictures for training, {counts['val']} for validation and "
            f"{counts['test']} for testing; at least {_BATCH}, 1 and 1 are needed"
        )
    return faces


def measure_part(model: Direct, faces: LabelledPictures, part: str) -> dict[str, Any]:
    """Metrics over the test pictures of a part, printed; of renders those of each parameter, the worst first."""
    test = faces.pictures.indices("test")
    rows = test[faces.parts[test] == part]
    metrics = faces.metrics(rows, answers(model, faces.pictures, rows))
    if part == "images":
        for name, values in sorted(metrics["parameters"].items(), key=lambda item: item[1]["r2"]):
            print(f"{name:28s} R² {values['r2']:.3f}  MAE {values['mae']:.3f}")
    print(f"{part}: mean R² {metrics['r2']:.4f} over {len(faces.parameters)} parameters of {len(rows)} test faces")
    return metrics


def measure_photos(
    model: Direct, frames: list[Frame], *, size: int, observer: Observer, game: EmbeddedGame
) -> dict[str, Any]:
    """What benchmarks.photos measures, of the people of fold 0."""
    found = measure(frames, {0: reader_of(model, size)}, observer=observer, game=game)
    print(f"photos: median ρ {found['median_rho']:.2f} over {len(found['ratios'])} ratios of {found['people']} people")
    return found


def main() -> None:
    # Parse, read.
    options = parse_options()
    torch.set_num_threads(default_workers())
    frames: list[Frame] = []
    if options.photos:
        frames = read_frames(options.photos)
        observer: Observer = Annotation(options.photos) if options.annotated else Mesh()
    faces = read_data(options)

    # Train.
    started = time.time()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bottleneck = options.image_size >> len(options.channels)
    recipe = Recipe(options.channels, options.epochs, bottleneck, optimizer=options.optimizer, seed=options.seed)
    model = train_direct(faces, recipe, device=device)
    run = {
        "image_size": options.image_size,
        "channels": options.channels,
        "epochs": options.epochs,
        "parts": list(faces.pictures.sources),
        "pictures": len(faces.targets),
        "optimizer": options.optimizer,
        "seconds": round(time.time() - started),
        "device": device.type,
        "creator": manifest_version(options.data),
    }

    # Measure.
    result: dict[str, Any] = {"run": run}
    for part in faces.pictures.sources:
        result["test" if part == "images" else f"test_{part}"] = measure_part(model, faces, part)
    print(run)
    if frames:
        result["photos"] = measure_photos(
            model, frames, size=options.image_size, observer=observer, game=default_game()
        )
    if options.json:
        write_json(options.json, result)


if __name__ == "__main__":
    run_script(main)
