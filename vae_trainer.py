"""Stage 1: train the VAE on all aligned faces, without labels.

    python vae_trainer.py                                        the default experiment, configs/creator.toml
    python vae_trainer.py --config configs/hs_face.toml          CelebA + FFHQ + HS_FACE on a GPU
    python vae_trainer.py --set vae.epochs=60                    a finished run goes on to more epochs
    torchrun --nproc_per_node 4 vae_trainer.py --config FILE     several GPUs

Reads the data sets in data.root and data.photos and the folders in data.folders (see README.md for their layout); the
embedded creator writes data.root first where the config says so. Writes runs/NAME/config.toml,
vae/checkpoints/{last,best}.pt, vae/tensorboard/ and vae/metrics.json. A run that was stopped goes on
where it was; a finished one says so and does nothing.
"""

import math
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from datasets.faces import ensure_data, vae_pictures
from datasets.pictures import Batch, Pictures
from models.build import build_vae
from models.perceptual import LPIPS, feature_weights, laplacian_pyramid_distance
from models.vae import VAE, LatentPrior, VAEOutput, kl_divergence, reparameterise
from utils import checkpoint
from utils.config import Config, VAEConfig, differences
from utils.errors import UserError, run_script
from utils.figures import picture_grid
from utils.files import hold, sweep_temporaries, write_json
from utils.metrics import psnr
from utils.muon import Muon
from utils.progress import progress
from utils.training import (Engine, StopRequest, announce, as_input, compiled, decode_workers, epoch_order, noise_for,
                            parse_arguments, put_aside, seed_everything, start_engine)

#: Settings that must not change within a run: they decide the network, the data order or the objective.
_FIXED = ("run.seed", "data.root", "data.folders", "data.photos", "data.image_size", "data.use_aug",
          *(f"vae.{key}" for key in ("encoder_channels", "decoder_channels", "latent_dim", "bottleneck", "spatial", "norm",
                                     "kl_weight", "kl_warmup_epochs", "mse_weight", "lpips_weight", "pyramid_weight", "feature_weight", "batch_size",
                                     "optimizer", "learning_rate", "weight_decay", "schedule", "lr_decay",
                                     "warmup_steps", "clip_norm")))

#: Validation noise is drawn as of an epoch that no training reaches, the same every time.
_VALIDATION_EPOCH = 2 ** 31 - 1


def loss_terms(output: VAEOutput, pictures: Tensor, settings: VAEConfig, perceptual: LPIPS | None) -> dict[str, Tensor]:
    """The terms of the objective, unweighted: KL summed over dimensions and averaged over faces, the others means.

    Squared error and pyramid weigh each place of the picture by `feature_weights`.
    """
    weights = feature_weights(pictures.shape[-1], settings.feature_weight, pictures.device)
    terms = {"kl": kl_divergence(output.mu, output.logvar).sum(1).mean(),
             "mse": ((output.reconstruction - pictures).square() * weights).mean()}
    if perceptual is not None:
        terms["lpips"] = perceptual(pictures, output.reconstruction)
    if settings.pyramid_weight:
        terms["pyramid"] = laplacian_pyramid_distance(pictures, output.reconstruction, weights)
    return terms


def total_loss(terms: dict[str, Tensor], settings: VAEConfig, kl_share: float = 1.0) -> Tensor:
    """Σ weight · term, with the KL weight at a share of its final value (warm-up)."""
    weights = {"kl": settings.kl_weight * kl_share, "mse": settings.mse_weight, "lpips": settings.lpips_weight,
               "pyramid": settings.pyramid_weight}
    return sum(weights[name] * term for name, term in terms.items())


def build_optimizer(model: nn.Module, settings: VAEConfig) -> torch.optim.Optimizer:
    if settings.optimizer == "muon":
        return Muon(model, settings.learning_rate, settings.weight_decay)
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
    fused = next(model.parameters()).device.type in ("cuda", "cpu")
    return kind(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=fused)


def learning_rate(step: int, steps_an_epoch: int, settings: VAEConfig) -> float:
    """The learning rate of a step: warm-up, then exponential decay by epoch or a cosine to 0."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.schedule == "exponential":
        return settings.learning_rate * settings.lr_decay ** (step // steps_an_epoch)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, step / (steps_an_epoch * settings.epochs))))


class Trainer:
    """Everything of a stage-1 run that lasts from step to step."""

    def __init__(self, config: Config, engine: Engine, pictures: Pictures) -> None:
        self.config, self.settings, self.engine, self.pictures = config, config.vae, engine, pictures
        self.writer: SummaryWriter | None = None
        self.folder = config.run_folder / "vae"
        # Here, as loading pictures draws random numbers too, and how many depends on what is cached.
        seed_everything(config.run.seed)
        self.model: VAE = build_vae(config).to(engine.device, memory_format=torch.channels_last)
        self.prior = LatentPrior(self.settings.latent_dim).to(engine.device)
        self.network: nn.Module = self.model
        if engine.world > 1:
            if engine.device.type == "cuda":
                self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
            self.network = DistributedDataParallel(
                self.model, device_ids=[engine.device.index] if engine.device.type == "cuda" else None)
        self.network = compiled(self.network, config.run.compile)
        self.optimizer = build_optimizer(self.model, self.settings)
        self.scaler = torch.amp.GradScaler(engine.device.type, enabled=engine.dtype == torch.float16)
        self.perceptual = LPIPS().to(engine.device) if self.settings.lpips_weight else None
        self.train, self.val = pictures.indices("train"), pictures.indices("val")
        self.steps_an_epoch = len(epoch_order(self.train, self.settings.batch_size, 0, 0))
        # Where the run stands: `step` of `epoch` comes next.
        self.epoch, self.step = 0, 0
        self.sums: dict[str, float] = {}
        self.best = math.inf
        self.seconds, self.waited = 0.0, 0.0

    # --- state ------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        return {"config": self.config.as_dict(), "model": self.model.state_dict(), "prior": self.prior.state_dict(), "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(), "scheduler": {"step": self.steps_done},
                "random": {"seed": self.config.run.seed, "epoch": self.epoch, "step": self.step},
                "epoch": self.epoch, "step": self.step, "sums": self.sums, "best": self.best, "seconds": self.seconds}

    @property
    def steps_done(self) -> int:
        """Steps of the whole run so far: the axis of everything in TensorBoard."""
        return self.epoch * self.steps_an_epoch + self.step

    def save(self, name: str) -> None:
        if self.engine.is_main:
            self.writer.flush()  # what a checkpoint knows of, TensorBoard must not lose
            checkpoint.save(self.folder / "checkpoints" / f"{name}.pt", "vae", self.state())

    def resume(self, content: dict[str, Any], path: Path) -> None:
        changed = differences(content["config"], self.config, _FIXED)
        if changed:
            raise UserError(f"{path} was trained with other settings ({'; '.join(changed)}). Put them back, choose another "
                            "run.name, or start over with --restart")
        checkpoint.restore(self.model, content["model"], path)
        checkpoint.restore(self.prior, content["prior"], path)
        self.optimizer.load_state_dict(content["optimizer"])
        self.scaler.load_state_dict(content["scaler"])
        self.epoch, self.step, self.sums = content["epoch"], content["step"], content["sums"]
        self.best, self.seconds = content["best"], content["seconds"]
        if content["scheduler"]["step"] != self.steps_done:
            raise UserError(f"{path} was trained on {content['scheduler']['step'] - self.step} steps' worth of other data: "
                            "faces were added or removed. Choose another run.name, or start over with --restart")

    # --- training ---------------------------------------------------------------------------------

    def run(self, stop: StopRequest) -> None:
        while self.epoch < self.settings.epochs:
            self.train_epoch(stop)
            self.epoch, self.step, self.sums = self.epoch + 1, 0, {}
            metrics = self.evaluate("val")
            if self.writer is not None:
                for name, value in metrics.items():
                    self.writer.add_scalar(f"val/{name}", value, self.steps_done)
                self.show(self.writer)
                tqdm.write(f"epoch {self.epoch}: val " + ", ".join(f"{k} {v:.4g}" for k, v in metrics.items()))
            if metrics["loss"] < self.best:
                self.best = metrics["loss"]
                self.save("best")
            self.save("last")
            if stop.requested and self.epoch < self.settings.epochs:
                stop.leave(f"the end of epoch {self.epoch}")

    def train_epoch(self, stop: StopRequest) -> None:
        engine, first = self.engine, self.step
        self.network.train()
        order = epoch_order(self.train, self.settings.batch_size, self.config.run.seed, self.epoch)
        share = order[first:, engine.rank::engine.world]
        started = saved = time.monotonic()
        pending: list[Tensor] = []
        names: list[str] = []
        with progress(total=len(order) * order.shape[1], initial=first * order.shape[1], unit="image", smoothing=0.05,
                  desc=f"epoch {self.epoch + 1}/{self.settings.epochs}", disable=not engine.is_main) as bar:
            waiting = time.monotonic()
            for batch in self.pictures.batches(share, engine.device):
                self.waited += time.monotonic() - waiting
                terms = self.train_step(batch)
                names = list(terms)
                pending.append(torch.stack([t.detach().float() for t in terms.values()]))
                self.step += 1
                bar.update(order.shape[1])
                # Losses are read every few steps only, so that the device is not waited for in each.
                if self.step % 20 == 0 or self.step == len(order):
                    self.note(names, pending, batch, bar)
                    if stop.requested or (time.monotonic() - saved) / 60 >= self.settings.checkpoint_minutes:
                        saved = time.monotonic()
                        if self.step < len(order):
                            self.save("last")
                    if stop.requested and self.step < len(order):
                        self.seconds += time.monotonic() - started
                        self.save("last")
                        stop.leave(f"epoch {self.epoch + 1}, step {self.step}")
                waiting = time.monotonic()
        self.seconds += time.monotonic() - started
        self.pictures.check_unreadable(self.config.data.max_unreadable, self.config.run_folder / "unreadable.txt")
        if self.writer is not None:
            for name in names:
                self.writer.add_scalar(f"train/{name}", self.sums[name] / len(order), self.steps_done)
            self.writer.add_scalar("train/images_per_second", (len(order) - first) * order.shape[1] / (time.monotonic() - started),
                                   self.steps_done)

    def train_step(self, batch: Batch) -> dict[str, Tensor]:
        settings, step = self.settings, self.steps_done
        rate = learning_rate(step, self.steps_an_epoch, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        warmup = settings.kl_warmup_epochs * self.steps_an_epoch
        kl_share = min(1.0, (step + 1) / warmup) if warmup else 1.0
        pictures = as_input(batch.pictures)
        noise = noise_for(batch.indices, settings.latent_dim, self.config.run.seed, self.epoch).to(self.engine.device)
        with self.engine.autocast():
            output = self.network(pictures, noise)
        self.prior.update(output.mu, output.logvar)
        terms = loss_terms(output, pictures, settings, self.perceptual)
        loss = total_loss(terms, settings, kl_share)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if settings.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return {"loss": loss, **terms}

    def note(self, names: list[str], pending: list[Tensor], batch: Batch, bar: tqdm) -> None:
        """Read the losses of the last steps, add them up, and stop the run where one is not finite."""
        losses = self.engine.sum_over_processes(torch.stack(pending)).cpu().double() / self.engine.world
        if not torch.isfinite(losses).all():
            row, column = (int(v) for v in torch.nonzero(~torch.isfinite(losses))[0])
            files = ", ".join(str(self.pictures.paths[i]) for i in batch.indices[:4].tolist())
            raise UserError(f"the {names[column]} of step {self.step - len(pending) + row + 1} in epoch {self.epoch + 1} is "
                            f"{losses[row, column]:g}; training stopped, the last checkpoint stands. The latest batch held "
                            f"{files}, … A lower vae.learning_rate, vae.clip_norm above 0 or run.precision=fp32 usually helps")
        for name, value in zip(names, losses.sum(0).tolist()):
            self.sums[name] = self.sums.get(name, 0.0) + value
        mean = dict(zip(names, losses.mean(0).tolist()))
        pending.clear()
        bar.set_postfix({k: f"{v:.4g}" for k, v in mean.items()}, refresh=False)
        if self.writer is not None:
            for name, value in mean.items():
                self.writer.add_scalar(f"step/{name}", value, self.steps_done)
            self.writer.add_scalar("step/learning_rate", self.optimizer.param_groups[0]["lr"], self.steps_done)

    # --- evaluation -------------------------------------------------------------------------------

    @torch.inference_mode()
    def evaluate(self, split: str) -> dict[str, float]:
        """The objective at its final weights, PSNR of reconstructions from mu, and what the latents hold."""
        self.model.eval()
        engine, settings = self.engine, self.settings
        indices = self.pictures.indices(split)[engine.rank::engine.world]
        totals: dict[str, float] = {}
        moments = torch.zeros(2, settings.latent_dim, dtype=torch.float64)
        count = 0
        kl_to_fitted = self.prior.divergence()
        for batch in self.pictures.batches(_chunks(indices, settings.batch_size), engine.device):
            pictures, size = as_input(batch.pictures), len(batch.indices)
            if not size:
                continue
            noise = noise_for(batch.indices, settings.latent_dim, self.config.run.seed, _VALIDATION_EPOCH).to(engine.device)
            with engine.autocast():
                mu, logvar = self.model.encoder(pictures)
                drawn = self.model.decoder(reparameterise(mu, logvar, noise))
                mean = self.model.decoder(mu)
            terms = loss_terms(VAEOutput(drawn, mu, logvar), pictures, settings, self.perceptual)
            terms = {"loss": total_loss(terms, settings), **terms, "mse_of_mu": F.mse_loss(mean, pictures),
                     "kl_to_fitted_prior": kl_to_fitted(mu, logvar).mean()}
            for name, term in terms.items():
                totals[name] = totals.get(name, 0.0) + term.item() * size
            moments += torch.stack([mu.double().sum(0), mu.double().square().sum(0)]).cpu()
            count += size
        names = list(totals) or ["loss"]
        packed = torch.tensor([totals.get(n, 0.0) for n in names] + [float(count)], dtype=torch.float64, device=engine.device)
        packed, moments = engine.sum_over_processes(packed).cpu(), engine.sum_over_processes(moments.to(engine.device)).cpu()
        count = int(packed[-1])
        if not count:
            raise UserError(f"no face belongs to split {split!r}; more faces are needed (5 % go to val and to test each)")
        result = {name: float(value) / count for name, value in zip(names, packed[:-1])}
        variance = moments[1] / count - (moments[0] / count) ** 2
        result["psnr"] = psnr(result.pop("mse_of_mu"))
        result["active_units"] = float((variance > 0.01).sum())
        return result

    @torch.inference_mode()
    def show(self, writer: SummaryWriter) -> None:
        """Inputs above their reconstructions, and draws from the fitted prior, for TensorBoard."""
        self.model.eval()
        spread = self.val[np.linspace(0, len(self.val) - 1, min(8, len(self.val))).astype(int)]
        batch = next(self.pictures.batches([spread], self.engine.device))
        pictures = as_input(batch.pictures)
        generator = torch.Generator().manual_seed(self.config.run.seed)
        drawn = self.prior.draw(torch.randn(16, self.settings.latent_dim, generator=generator).to(self.engine.device))
        with self.engine.autocast():
            reconstructions, samples = self.model(pictures).reconstruction, self.model.decoder(drawn)
        writer.add_image("input_and_reconstruction", picture_grid(torch.cat([pictures, reconstructions]), len(pictures)),
                         self.steps_done, dataformats="HWC")
        writer.add_image("samples_from_prior", picture_grid(samples, 8), self.steps_done, dataformats="HWC")


def _chunks(indices: np.ndarray, size: int) -> list[np.ndarray]:
    return [indices[i:i + size] for i in range(0, len(indices), size)]


def main() -> None:
    config, options = parse_arguments(__doc__)
    engine = start_engine(config.run)
    if config.vae.batch_size % engine.world:
        raise UserError(f"vae.batch_size {config.vae.batch_size} cannot be shared by {engine.world} processes; "
                        f"use a multiple of {engine.world}")
    folder = config.run_folder / "vae"
    with hold(folder, "vae_trainer.py") if engine.is_main else nullcontext():
        found = None if options.restart else checkpoint.load_newest(folder / "checkpoints", "vae")
        finished = folder / "metrics.json"
        if found and found[0]["epoch"] >= config.vae.epochs and finished.exists() and not differences(found[0]["config"], config, _FIXED):
            print(f"{folder} is finished: {found[0]['epoch']} epochs. Raise vae.epochs to go on, or use --restart to start over.")
            return
        if engine.is_main:
            sweep_temporaries(folder / "checkpoints")
            announce(config, "vae_trainer.py")
            ensure_data(config, decode_workers(config.data.workers))
        if engine.world > 1:
            torch.distributed.barrier()
        pictures = vae_pictures(config, decode_workers(config.data.workers))
        pictures.check_unreadable(config.data.max_unreadable, config.run_folder / "unreadable.txt")
        trainer = Trainer(config, engine, pictures)
        if not len(trainer.train) or not len(trainer.val):
            raise UserError(f"{len(pictures.paths)} faces give {len(trainer.train)} for training and {len(trainer.val)} for "
                            "validation; at least one of each is needed: add faces")
        print(f"{len(trainer.train)} faces to train on, {len(trainer.val)} to validate, "
              f"{sum(p.numel() for p in trainer.model.parameters()) / 1e6:.1f} million weights, "
              f"{engine.world} × {engine.device} in {str(engine.dtype).removeprefix('torch.')}")
        if found:
            trainer.resume(*found)
            print(f"Going on from {found[1]}: epoch {trainer.epoch + 1}, step {trainer.step}.")
        if engine.is_main:
            if options.restart:
                put_aside(folder / "tensorboard")
            trainer.writer = SummaryWriter(folder / "tensorboard", purge_step=trainer.steps_done + 1)
        trainer.run(StopRequest())
        report(trainer)


def report(trainer: Trainer) -> None:
    """Measure the best checkpoint on `test` and write it down."""
    best = trainer.folder / "checkpoints" / "best.pt"
    if trainer.engine.world > 1:
        torch.distributed.barrier()
    content = checkpoint.load(best, "vae")
    checkpoint.restore(trainer.model, content["model"], best)
    checkpoint.restore(trainer.prior, content["prior"], best)
    metrics = trainer.evaluate("test")
    if trainer.writer is None:
        return
    trainer.writer.close()
    images = trainer.steps_an_epoch * trainer.settings.batch_size * trainer.settings.epochs
    write_json(trainer.folder / "metrics.json", {
        "test": metrics, "run": {"config": trainer.config.as_dict(), "seconds": round(trainer.seconds, 1),
                                 "images_per_second": round(images / max(trainer.seconds, 1e-9), 1),
                                 "waited_for_data": round(trainer.waited / max(trainer.seconds, 1e-9), 4)}})
    print(f"best checkpoint on test: PSNR {metrics['psnr']:.2f} dB, KL {metrics['kl']:.1f} nats a face "
          f"({metrics['kl_to_fitted_prior']:.1f} to the fitted prior), "
          f"{metrics['active_units']:.0f} of {trainer.settings.latent_dim} units active")
    print(f"next: python extract_latentvec.py (checkpoint {best})")


if __name__ == "__main__":
    run_script(main)
