"""Stage 2: train the MLP that reads facial parameters off latents.

    python f2p_trainer.py                                        the default experiment, configs/creator.toml
    python f2p_trainer.py --config configs/hs_face.toml
    python f2p_trainer.py --set f2p.epochs=60                    a finished run goes on to more epochs

Reads runs/NAME/latents and the labels in data.root, and in data.photos where that is set. Writes runs/NAME/f2p/checkpoints/{last,best}.pt,
f2p/tensorboard/, f2p/metrics.json and f2p/report.png. A run that was stopped goes on where it was; a
finished one says so and does nothing. Everything fits in memory, so one process is all it takes.
"""

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from datasets.faces import creator_version
from datasets.latents import LatentSet, read_latent_set
from models.build import build_regressor, load_encoder
from utils import checkpoint
from utils.alignment import random_frames
from utils.config import Config, differences
from utils.errors import UserError, run_script
from utils.figures import recovery_report
from utils.files import hold, sweep_temporaries, write_json
from utils.metrics import active_units, parameter_metrics, ridge
from utils.muon import Muon
from utils.pictures import write_picture
from utils.progress import progress
from utils.training import Engine, StopRequest, announce, parse_arguments, put_aside, seed_everything, start_engine

_FIXED = ("run.seed", "data.root", "data.photos", "latents.moved", "latents.mirrored", *(f"f2p.{key}" for key in (
    "layers", "width", "dropout", "use_logvar", "whitening", "norm", "activation", "mixer_blocks", "mixer_width", "posterior_noise", "aug_prob",
    "photo_share", "photo_epochs", "batch_size", "optimizer", "learning_rate", "weight_decay")))

#: Muon's learning rate in units of AdamW's, which it then decays the weights as much as. Muon bears more.
_MUON_FACTOR = 3.0


class Trainer:
    """Everything of a stage-2 run that lasts from epoch to epoch. All faces live on the device."""

    def __init__(self, config: Config, engine: Engine, faces: LatentSet) -> None:
        self.config, self.settings, self.engine, self.faces = config, config.f2p, engine, faces
        self.folder = config.run_folder / "f2p"
        self.names, self.groups = [p.name for p in faces.parameters], [p.group for p in faces.parameters]
        self.latent_dim = faces.latents.shape[1] // 2
        seed_everything(config.run.seed)
        self.model = build_regressor(config, self.latent_dim, len(self.names)).to(engine.device)
        renders, photos = faces.of("train"), faces.of("photos")
        self.renders, self.photos = len(renders), len(photos)   # in the order of the rows below
        train = np.concatenate([renders, photos])
        put = lambda array: torch.from_numpy(np.ascontiguousarray(array)).to(engine.device)
        self.latents, self.labels = put(faces.latents[train]), put(faces.labels[train])
        # The variants' latents take as much memory again, and only aug_prob above 0 asks for them.
        self.aug_latents = put(faces.aug_latents[train]) if self.settings.aug_prob else None
        self.moved = self.aug_moved = None
        if config.latents.moved:
            self.moved, self.frames = put(faces.moved[train]), put(random_frames([faces.names[i] for i in train]))
            self.aug_moved = put(faces.aug_moved[train]) if self.settings.aug_prob else None
        self.mirrored = self.aug_mirrored = None
        if config.latents.mirrored:
            self.mirrored = put(faces.mirrored[train])
            self.aug_mirrored = put(faces.aug_mirrored[train]) if self.settings.aug_prob else None
        # What training reads, the best checkpoint is chosen by.
        self.validates_variants = bool(self.settings.aug_prob and faces.has_aug[faces.of("val")].any())
        self.model.fit_standardisation(*(part for part in (self.latents, self.aug_latents) if part is not None))
        self.far = self.distance_of_far_faces()
        with torch.no_grad():  # start from the mean face, which is what ignorance predicts
            self.model.network[-1].bias.copy_(self.labels.mean(0))
        kinds = [p.kind for p in faces.parameters]
        self.kinds = [torch.tensor([i for i, k in enumerate(kinds) if k == kind], device=engine.device)
                      for kind in dict.fromkeys(kinds)]
        self.optimizers = self.make_optimizers()
        self.batch_size = min(self.settings.batch_size, self.renders)
        self.photos_a_step = max(1, round(self.settings.photo_share * self.batch_size)) if self.photos else 0
        self.steps_an_epoch = self.renders // self.batch_size
        self.epoch, self.best, self.seconds = 0, -math.inf, 0.0

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """AdamW, "optimizer", for the weights; with f2p.optimizer = "muon" that, "muon", for those of the mixer's blocks.

        To orthogonalise the hidden layers' large matrices as well would take a CPU longer than everything else of a step.
        """
        settings, blocks = self.settings, nn.ModuleList()
        if settings.optimizer == "muon":
            mixer = self.model.network[0]
            blocks = nn.ModuleList([mixer.across_places, mixer.across_channels])
        theirs = {id(weight) for weight in blocks.parameters()}
        found: dict[str, torch.optim.Optimizer] = {"optimizer": torch.optim.AdamW(
            [weight for weight in self.model.parameters() if id(weight) not in theirs], settings.learning_rate,
            weight_decay=settings.weight_decay, fused=self.engine.device.type in ("cpu", "cuda"))}
        if theirs:
            found["muon"] = Muon(blocks, _MUON_FACTOR * settings.learning_rate, settings.weight_decay / _MUON_FACTOR)
        return found

    # --- state ------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        return {"config": self.config.as_dict(), "model": self.model.state_dict(),
                **{name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
                "scheduler": {"step": self.epoch * self.steps_an_epoch}, "epoch": self.epoch,
                "random": {"seed": self.config.run.seed, "epoch": self.epoch}, "best": self.best, "seconds": self.seconds,
                "encoder": self.faces.meta["fingerprint"], "latent_dim": self.latent_dim,
                "parameters": [list(p) for p in self.faces.parameters], "faces": len(self.labels), "far": self.far,
                "creator": creator_version(Path(self.config.data.root))}

    def resume(self, content: dict[str, Any], path: Path) -> None:
        changed = differences(content["config"], self.config, _FIXED)
        if content["encoder"] != self.faces.meta["fingerprint"]:
            changed.append("the VAE: the latents come from another encoder now")
        if content["faces"] != len(self.labels):
            changed.append(f"training faces: were {content['faces']}, now {len(self.labels)}")
        if content["parameters"] != [list(p) for p in self.faces.parameters]:
            changed.append("the parameter table")
        if content["creator"] != creator_version(Path(self.config.data.root)):
            changed.append("the version of the creator")
        if changed:
            raise UserError(f"{path} was trained with something else ({'; '.join(changed)}). Put it back, choose another "
                            "run.name, or start over with --restart")
        checkpoint.restore(self.model, content["model"], path)
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(content[name])
        self.epoch, self.best, self.seconds = content["epoch"], content["best"], content["seconds"]

    # --- training ---------------------------------------------------------------------------------

    def run(self, writer: SummaryWriter, stop: StopRequest) -> None:
        with progress(total=self.settings.epochs, initial=self.epoch, unit="epoch", desc="training") as bar:
            while self.epoch < self.settings.epochs:
                if self.photos and self.epoch == self.settings.epochs - self.settings.photo_epochs:
                    self.best = -math.inf  # the best of the run knows photos
                started = time.monotonic()
                train_loss = self.train_epoch()
                self.epoch += 1
                self.seconds += time.monotonic() - started
                val = {"val": self.evaluate("val")}
                if self.validates_variants:
                    val["val_aug_images"] = self.evaluate("val", aug=True)
                self.log(writer, train_loss, val)
                bar.update()
                bar.set_postfix(loss=f"{train_loss:.5f}", **{f"{name}_r2": _number(metrics["r2"]) for name, metrics in val.items()})
                score = np.mean([metrics["r2"] if metrics["r2"] is not None else -metrics["mae"] for metrics in val.values()]).item()
                if score > self.best:
                    self.best = score
                    checkpoint.save(self.folder / "checkpoints" / "best.pt", "f2p", self.state())
                checkpoint.save(self.folder / "checkpoints" / "last.pt", "f2p", self.state())
                if stop.requested and self.epoch < self.settings.epochs:
                    stop.leave(f"the end of epoch {self.epoch}")

    def train_epoch(self) -> float:
        """One pass over the training renders, photos beside them; the mean loss. All chance follows from seed and epoch.

        Of photos it is learned all along how they lie in their frames, and in the last epochs their parameters.
        """
        settings, device = self.settings, self.engine.device
        self.model.train()
        torch.manual_seed(self.config.run.seed * 1_000_003 + self.epoch)  # dropout, noise, variants, order
        last = self.photos and self.epoch >= settings.epochs - settings.photo_epochs
        parts = [self.batch_size, self.photos_a_step] if last else [self.batch_size]
        order = torch.randperm(self.renders, device=device)
        losses = torch.zeros((), device=device)
        for step in range(self.steps_an_epoch):
            rate = 0.5 * (1 + math.cos(math.pi * (self.epoch * self.steps_an_epoch + step) / (self.steps_an_epoch * settings.epochs)))
            for optimizer in self.optimizers.values():
                for group in optimizer.param_groups:
                    group["lr"] = optimizer.defaults["lr"] * rate
            rows = order[step * self.batch_size:(step + 1) * self.batch_size]
            if self.photos:
                rows = torch.cat([rows, torch.randint(self.renders, self.renders + self.photos, (self.photos_a_step,), device=device)])
            latents, labels = self.draw_latents(rows, self.latents, self.aug_latents), self.labels.index_select(0, rows)
            if self.mirrored is not None:
                mirrored = torch.rand(len(rows), 1, device=device) < 0.5
                latents = torch.where(mirrored, self.draw_latents(rows, self.mirrored, self.aug_mirrored), latents)
            with self.engine.autocast():
                predicted = self.model(latents[:sum(parts)])
            # Renders and photos count alike, however few photos a step has.
            loss = sum(map(self.loss, predicted.float().split(parts), labels[:sum(parts)].split(parts)))
            if self.moved is not None:
                loss = loss + self.frame_loss(rows, latents)
            self.model.zero_grad(set_to_none=True)
            loss.backward()
            for optimizer in self.optimizers.values():
                optimizer.step()
            losses += loss.detach()
        mean = losses.item() / self.steps_an_epoch
        if not math.isfinite(mean):
            raise UserError(f"the loss of epoch {self.epoch + 1} is {mean}; training stopped, the last checkpoint stands. "
                            "A lower f2p.learning_rate usually helps")
        return mean

    def draw_latents(self, rows: Tensor, renders: Tensor, variants: Tensor | None) -> Tensor:
        """Latents (B, 2·D) of faces: now and then the variant's, mu moved within its posterior."""
        settings = self.settings
        latents = renders.index_select(0, rows)  # faster than indexing
        if variants is not None:
            variant = torch.rand(len(rows), 1, device=rows.device) < settings.aug_prob
            latents = torch.where(variant, variants.index_select(0, rows), latents)
        if settings.posterior_noise:
            mu, logvar = latents.chunk(2, 1)
            mu = mu + settings.posterior_noise * torch.exp(0.5 * logvar) * torch.randn_like(mu)
            latents = torch.cat([mu, logvar], 1)
        return latents

    def frame_loss(self, rows: Tensor, in_place: Tensor) -> Tensor:
        """Mean squared error of how faces lie in their frames: moved ones, and one in four as it is."""
        moved = torch.rand(len(rows), 1, device=rows.device) < 0.75
        latents = torch.where(moved, self.draw_latents(rows, self.moved, self.aug_moved), in_place)
        with self.engine.autocast():
            found = self.model.frame_of(latents)
        return (found.float() - self.frames.index_select(0, rows) * moved).square().mean()

    def loss(self, predicted: Tensor, truth: Tensor) -> Tensor:
        """Sum over the kinds of parameters (sliders, bones) of their mean squared errors."""
        square = (predicted - truth).square()
        return sum(square[:, kind].mean() for kind in self.kinds)

    # --- evaluation -------------------------------------------------------------------------------

    @torch.inference_mode()
    def predict(self, *views: np.ndarray) -> np.ndarray:
        """Parameters (N, P) of latents (N, 2·D), clipped to [0, 1] as they would be used; of several views of the faces their mean."""
        self.model.eval()
        block = lambda view, i: torch.from_numpy(view[i:i + 2048]).to(self.engine.device)
        parts = [(sum(self.model(block(view, i)) for view in views) / len(views)).clamp(0, 1).cpu().numpy()
                 for i in range(0, len(views[0]), 2048)]
        return np.concatenate(parts)

    def distance_of_far_faces(self) -> float:
        """The latent distance that 1 % of the validation faces exceed, or of the photos; a face beyond it is unlike those of training."""
        rows = self.faces.of("val")
        latents = self.faces.latents[rows]
        if self.aug_latents is not None:
            latents = np.concatenate([latents, self.faces.aug_latents[rows]])
        exceeded = lambda part: float(np.quantile(self.model.distance(torch.from_numpy(part).to(self.engine.device)).cpu().numpy(), 0.99))
        return max(exceeded(latents), exceeded(self.faces.latents[self.faces.of("photos")])) if self.photos else exceeded(latents)

    def evaluate(self, split: str, aug: bool = False) -> dict[str, Any]:
        rows = self.faces.of(split)
        if aug:
            rows = rows[self.faces.has_aug[rows]]
        return parameter_metrics(self.faces.labels[rows], self.predict(*self.views(rows, aug)), self.names, self.groups)

    def views(self, rows: np.ndarray, aug: bool = False) -> list[np.ndarray]:
        """What faces are predicted from: their latents or their variants', and with latents.mirrored those of their mirror images."""
        faces = self.faces
        views = (faces.aug_latents, faces.aug_mirrored) if aug else (faces.latents, faces.mirrored)
        return [view[rows] for view in views if view is not None]

    def log(self, writer: SummaryWriter, train_loss: float, val: dict[str, dict[str, Any]]) -> None:
        writer.add_scalar("train/loss", train_loss, self.epoch)
        writer.add_scalar("train/learning_rate", self.optimizers["optimizer"].param_groups[0]["lr"], self.epoch)
        for name, metrics in val.items():
            for key in ("r2", "mae", "cosine_similarity", "distance"):
                if metrics[key] is not None:
                    writer.add_scalar(f"{name}/{key}", metrics[key], self.epoch)
        for group, values in val["val"]["groups"].items():
            for key, value in values.items():
                if value is not None:
                    writer.add_scalar(f"val_{key}_by_group/{group}", value, self.epoch)
        writer.flush()


def baselines(faces: LatentSet, names: list[str], groups: list[str]) -> tuple[dict[str, Any], float]:
    """On test faces: the training mean, and ridge regression on the same latents with its strength chosen on val."""
    train, val, test = (faces.of(split) for split in ("train", "val", "test"))
    truth = faces.labels[test]
    mean = np.broadcast_to(faces.labels[train].mean(0), truth.shape)
    weights, bias, strength = ridge((faces.latents[train], faces.labels[train]), (faces.latents[val], faces.labels[val]))
    linear = np.clip(faces.latents[test] @ weights + bias, 0, 1)
    return {"mean": parameter_metrics(truth, mean, names, groups), "ridge": parameter_metrics(truth, linear, names, groups)}, strength


def report(trainer: Trainer, config: Config) -> None:
    """Measure the best checkpoint, write metrics.json and report.png, print what a person asks first."""
    best = trainer.folder / "checkpoints" / "best.pt"
    content = checkpoint.load(best, "f2p")
    checkpoint.restore(trainer.model, content["model"], best)
    faces = trainer.faces
    val, test = trainer.evaluate("val"), trainer.evaluate("test")
    reference, strength = baselines(faces, trainer.names, trainer.groups)
    rows = faces.of("test")
    extra: dict[str, Any] = {}
    if faces.has_aug[rows].any():
        extra["test_aug_images"] = trainer.evaluate("test", aug=True)
    mu, logvar = np.split(faces.latents[rows].astype(np.float64), 2, 1)
    run = {"config": config.as_dict(), "creator": creator_version(Path(config.data.root)), "best_epoch": content["epoch"],
           "vae_fingerprint": faces.meta["fingerprint"], "checkpoints": {
               "vae": (config.run_folder / "vae" / "checkpoints" / "best.pt").as_posix(), "f2p": best.as_posix()},
           "faces": {split: len(faces.of(split)) for split in ("train", "val", "test", "photos")}, "ridge_strength": strength,
           "kl_per_face": float((0.5 * (mu ** 2 + np.exp(logvar) - 1 - logvar)).sum(1).mean()),
           "active_units": active_units(mu), "seconds": round(trainer.seconds, 2)}
    write_json(trainer.folder / "metrics.json", {"val": val, "test": test, "baselines": reference, **extra, "run": run})
    predicted = trainer.predict(*trainer.views(rows))
    write_picture(trainer.folder / "report.png", recovery_report(
        test, reference, faces.labels[rows], predicted, trainer.names, trainer.groups,
        f"{config.run.name}: mean R² {_number(test['r2'])} on {len(rows)} test faces (ridge {_number(reference['ridge']['r2'])})"))
    print(f"\ntest faces                  R²      MAE     cosine  distance")
    lines = [("MLP", test), ("ridge on the same latents", reference["ridge"]), ("training mean", reference["mean"])]
    if extra:
        lines.append(("MLP on photo-like variants", extra["test_aug_images"]))
    for title, m in lines:
        print(f"{title:26s}  {_number(m['r2']):6s}  {m['mae']:.4f}  {m['cosine_similarity']:.4f}  {m['distance']:.4f}")
    print(f"{trainer.folder / 'metrics.json'}\n{trainer.folder / 'report.png'}\nnext: python predict.py PHOTO --run {config.run_folder}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def main() -> None:
    config, options = parse_arguments(__doc__)
    if not config.data.root:
        raise UserError("data.root is empty: stage 2 needs a data set with labels. Set data.root")
    engine = start_engine(config.run)
    if engine.world > 1:
        raise UserError("stage 2 takes seconds to minutes and runs in one process; start it with python, not torchrun")
    if engine.dtype == torch.float16:  # its gradients would have to be scaled, and stage 2 is small
        engine = engine._replace(dtype=torch.float32)
    folder = config.run_folder / "f2p"
    with hold(folder, "f2p_trainer.py"):
        found = None if options.restart else checkpoint.load_newest(folder / "checkpoints", "f2p")
        encoder_fingerprint = load_encoder(config)[2]
        if found and found[0]["epoch"] >= config.f2p.epochs and (folder / "metrics.json").exists() \
                and found[0]["encoder"] == encoder_fingerprint and not differences(found[0]["config"], config, _FIXED):
            print(f"{folder} is finished: {found[0]['epoch']} epochs. Raise f2p.epochs to go on, or use --restart to start over.")
            return
        sweep_temporaries(folder / "checkpoints")
        announce(config, "f2p_trainer.py")
        faces = read_latent_set(config.run_folder / "latents", Path(config.data.root), encoder_fingerprint,
                                config.data.max_unreadable, config.run_folder / "unmatched.txt", config.latents.moved, config.latents.mirrored,
                                Path(config.data.photos) if config.data.photos else None)
        for split in ("train", "val", "test"):
            if len(faces.of(split)) < 2:
                raise UserError(f"{len(faces.of(split))} of {len(faces.names)} faces belong to split {split!r}; at least 2 are "
                                "needed: add faces or change the split files")
        constant = [p.name for p, spread in zip(faces.parameters, np.ptp(faces.labels[faces.of("train")], axis=0)) if spread == 0]
        if constant:
            print(f"{len(constant)} parameters have the same value in all training faces and cannot be learned: {', '.join(constant)}")
        trainer = Trainer(config, engine, faces)
        if found:
            trainer.resume(*found)
            print(f"Going on from {found[1]}: epoch {trainer.epoch + 1}.")
        if options.restart:
            put_aside(folder / "tensorboard")
        writer = SummaryWriter(folder / "tensorboard", purge_step=trainer.epoch + 1)
        trainer.run(writer, StopRequest())
        writer.close()
        report(trainer, config)


if __name__ == "__main__":
    run_script(main)
