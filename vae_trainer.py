"""Stage 1: train the VAE on all aligned faces, without labels.

    python vae_trainer.py                                        the default experiment, configs/creator.toml
    python vae_trainer.py --config configs/hs_face.toml          CelebA + FFHQ + HS_FACE on a GPU
    python vae_trainer.py --set vae.epochs=60                    a finished run goes on to more epochs
    torchrun --nproc_per_node 4 vae_trainer.py --config FILE     several GPUs

Reads the data sets in data.root and data.photos and the folders in data.folders (README.md shows their layout). Where
the config says so, the embedded game writes data.root first. Writes runs/NAME/config.toml,
vae/checkpoints/{last,best}.pt, vae/tensorboard/ and vae/metrics.json. A run that was stopped goes on where it was; a
finished one says so and does nothing. More epochs for a finished run are a warm restart: the learning rate rises again.
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from datasets.pictures import Batch, Pictures, epoch_order
from datasets.sources import content_digest, describe_data, ensure_data, vae_sources
from models.objective import VAEObjective
from models.prior import LatentPrior
from models.vae import VAE, VAEOutput, as_input, noise_for, reparameterise
from utils import checkpoint
from utils.config import Config, VAEConfig, parse_arguments
from utils.device import Engine, compiled, seed_everything, start_engine
from utils.errors import UserError, run_script
from utils.files import write_json
from utils.metrics import psnr
from utils.muon import Muon
from utils.pictures import as_uint8, grid
from utils.progress import progress
from utils.run import Checkpoint, Run
from utils.schedule import cosine_decay
from utils.stop import StopRequest
from utils.workers import decode_workers

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

#: Epoch number used to seed validation noise; never reached by training.
_VALIDATION_EPOCH = 2**31 - 1

#: Losses are read every so many steps only, so that the device is not waited for in each.
_READ_EVERY = 20

#: Pictures that TensorBoard shows, and faces drawn from the prior.
_SHOWN, _DRAWN = 8, 16


class Trainer:
    """A stage-1 run from step to step: its networks, where it stands, and what it has measured.

    Args:
        config: the experiment.
        engine: device, precision, processes.
        pictures: what is learned.
    """

    def __init__(self, config: Config, engine: Engine, pictures: Pictures) -> None:
        self.config, self.settings, self.engine, self.pictures = config, config.vae, engine, pictures
        self.stage = Run.of(config).vae
        self.digests = {f"data ({name})": content_digest(source) for name, source in pictures.sources.items()}
        self.writer: SummaryWriter | None = None

        # Networks. Seeded here, as loading pictures may draw random numbers, and how many depends on what is cached.
        seed_everything(config.run.seed)
        self.model = VAE(config.data.image_size, config.vae).to(engine.device).to(memory_format=torch.channels_last)
        self.prior = LatentPrior(config.vae.latent_dim).to(engine.device)
        self.objective = VAEObjective(config.data.image_size, config.vae).to(engine.device)
        self.network = compiled(self._distributed(), config.run.compile)
        self.optimizer = build_optimizer(self.model, config.vae)
        self.scaler = torch.amp.GradScaler(engine.device.type, enabled=engine.dtype == torch.float16)

        # Where the run stands: `step` of `epoch` comes next.
        self.train, self.val = pictures.indices("train"), pictures.indices("val")
        self.steps_per_epoch = len(epoch_order(self.train, self.settings.batch_size, seed=0, epoch=0))
        self.epoch, self.step = 0, 0
        self.sums: dict[str, float] = {}
        self.best = math.inf
        self.seconds, self.waited = 0.0, 0.0

    def _distributed(self) -> nn.Module:
        """The network as several processes train it together; alone, the model itself."""
        if self.engine.world == 1:
            return self.model
        if self.engine.device.type == "cuda":
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
            return DistributedDataParallel(self.model, device_ids=[self.engine.device.index])
        return DistributedDataParallel(self.model)

    # --- state ------------------------------------------------------------------------------------

    @property
    def steps_done(self) -> int:
        """Steps of the whole run so far: the axis of everything in TensorBoard."""
        return self.epoch * self.steps_per_epoch + self.step

    def state(self) -> dict[str, Any]:
        """The content of a checkpoint."""
        return {
            "config": self.config.as_dict(),
            "digests": self.digests,
            "model": self.model.state_dict(),
            "prior": self.prior.state_dict(),
            "optimizers": {"all": self.optimizer.state_dict()},
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "steps_done": self.steps_done,
            "sums": self.sums,
            "best": self.best,
            "seconds": self.seconds,
            "waited": self.waited,
        }

    def save(self, name: str) -> None:
        """Write checkpoint "best" or "last"."""
        if self.writer is not None:
            self.writer.flush()  # what a checkpoint knows of, TensorBoard must not lose
            self.stage.save(name, self.state())

    def resume(self, found: Checkpoint) -> None:
        """Go on from a checkpoint. Raises UserError where it was trained with something else."""
        content, path = found
        self.stage.refuse_changes(found, self.config, self.digests)
        checkpoint.restore(self.model, content["model"], path)
        checkpoint.restore(self.prior, content["prior"], path)
        self.optimizer.load_state_dict(content["optimizers"]["all"])
        self.scaler.load_state_dict(content["scaler"])
        self.epoch, self.step, self.sums = content["epoch"], content["step"], content["sums"]
        self.best, self.seconds = content["best"], content["seconds"]
        self.waited = content.get("waited", 0.0)
        if content["steps_done"] != self.steps_done:
            raise UserError(
                f"{path} was trained on another number of readable faces: {content['steps_done']} steps were done, "
                f"which are {self.steps_done} now. Put the faces back, choose another run.name, or start over with "
                "--restart"
            )

    # --- training ---------------------------------------------------------------------------------

    def run(self, stop: StopRequest) -> None:
        """Train to the last epoch, evaluating and saving after each."""
        while self.epoch < self.settings.epochs:
            self.train_epoch(stop)
            self.epoch, self.step, self.sums = self.epoch + 1, 0, {}

            metrics = self.evaluate("val")
            self.log_epoch(metrics)
            if metrics["loss"] < self.best:
                self.best = metrics["loss"]
                self.save("best")
            self.save("last")
            if self.agreed(stop) and self.epoch < self.settings.epochs:
                stop.leave(f"the end of epoch {self.epoch}")

    def train_epoch(self, stop: StopRequest) -> None:
        """One pass over the training faces, from `step` on."""
        engine, first = self.engine, self.step
        self.network.train()
        order = epoch_order(self.train, self.settings.batch_size, seed=self.config.run.seed, epoch=self.epoch)
        shard = order[first:, engine.rank :: engine.world]
        begin = counted = saved = time.monotonic()
        losses: list[dict[str, Tensor]] = []
        latest: Batch | None = None
        title = f"epoch {self.epoch + 1}/{self.settings.epochs}"
        with progress(total=order.size, initial=first * order.shape[1], desc=title, disable=not engine.is_main) as bar:
            for batch in self.timed(self.pictures.batches(shard, engine.device)):
                # A batch whose pictures are all unreadable teaches nothing. Several processes must step together,
                # so they take the batch before once more.
                if not len(batch.indices) and engine.world > 1 and latest is not None:
                    batch = latest
                if len(batch.indices):
                    latest = batch
                    losses.append(self.train_step(batch))
                self.step += 1
                bar.update(order.shape[1])
                if self.step % _READ_EVERY and self.step < len(order):
                    continue

                # Read the losses, save now and then, leave when asked.
                self.read_losses(losses, batch, bar)
                asked = self.agreed(stop)
                due = time.monotonic() - saved >= 60 * self.settings.checkpoint_minutes
                if (asked or due) and self.step < len(order):
                    saved = time.monotonic()
                    self.seconds, counted = self.seconds + saved - counted, saved
                    self.save("last")
                if asked and self.step < len(order):
                    stop.leave(f"epoch {self.epoch + 1}, step {self.step}")

        end = time.monotonic()
        self.seconds += end - counted
        self.close_epoch(order, first, end - begin)

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches, the time spent waiting for them added to `waited`."""
        while True:
            waiting = time.monotonic()
            batch = next(batches, None)
            self.waited += time.monotonic() - waiting
            if batch is None:
                return
            yield batch

    def train_step(self, batch: Batch) -> dict[str, Tensor]:
        """One step of the optimizer; the loss and its terms."""
        settings = self.settings
        rate = learning_rate(self.steps_done, self.steps_per_epoch, settings)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

        # Forward, in lower precision where that is fast.
        pictures = as_input(batch.pictures)
        noise = noise_for(batch.indices, settings.latent_dim, seed=self.config.run.seed, epoch=self.epoch)
        with self.engine.autocast():
            output = self.network(pictures, noise.to(self.engine.device))
        self.prior.update(output.mu, output.logvar, self.engine)
        terms = self.objective.terms(output, pictures)
        loss = self.objective.total(terms)

        # Backward.
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        if settings.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), settings.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return {name: term.detach().float() for name, term in {"loss": loss, **terms}.items()}

    def agreed(self, stop: StopRequest) -> bool:
        """Whether any of the processes was asked to stop: all of them leave at the same step."""
        flag = torch.tensor([float(stop.requested)], device=self.engine.device)
        stop.requested = bool(self.engine.sum_over_processes(flag).item())
        return stop.requested

    def read_losses(self, losses: list[dict[str, Tensor]], batch: Batch, bar: tqdm) -> None:
        """Read the losses of the last steps and add them up. Raises UserError where one is not finite."""
        if not losses:
            return
        names = list(losses[0])
        stacked = torch.stack([torch.stack(list(step.values())) for step in losses])
        values = self.engine.sum_over_processes(stacked).cpu().double() / self.engine.world
        self.check_finite(names, values, batch)
        losses.clear()

        for name, value in zip(names, values.sum(0).tolist(), strict=True):
            self.sums[name] = self.sums.get(name, 0.0) + value
        means = dict(zip(names, values.mean(0).tolist(), strict=True))
        bar.set_postfix({name: f"{mean:.4g}" for name, mean in means.items()}, refresh=False)
        if self.writer is not None:
            for name, mean in means.items():
                self.writer.add_scalar(f"step/{name}", mean, self.steps_done)
            self.writer.add_scalar("step/learning_rate", self.optimizer.param_groups[0]["lr"], self.steps_done)

    def check_finite(self, names: list[str], values: Tensor, batch: Batch) -> None:
        """Stop a run whose losses (steps, names) are not all finite. Raises UserError."""
        broken = torch.nonzero(~torch.isfinite(values))
        if not len(broken):
            return
        row, column = broken[0].tolist()
        files = ", ".join(str(self.pictures.paths[i]) for i in batch.indices[:4].tolist())
        raise UserError(
            f"the {names[column]} of step {self.step - len(values) + row + 1} in epoch {self.epoch + 1} is "
            f"{values[row, column]:g}; training stopped, the last checkpoint stands. The latest batch held {files}, … "
            "A lower vae.learning_rate, vae.clip_norm above 0 or run.precision=fp32 usually helps"
        )

    def close_epoch(self, order: np.ndarray, first: int, seconds: float) -> None:
        """List unreadable pictures; show the epoch's mean losses and its speed."""
        listing = Run.of(self.config).folder / "unreadable.txt"
        self.pictures.check_unreadable(self.config.data.max_unreadable, listing)
        if self.writer is None:
            return
        for name, total in self.sums.items():
            self.writer.add_scalar(f"train/{name}", total / len(order), self.steps_done)
        speed = (len(order) - first) * order.shape[1] / max(seconds, 1e-9)
        self.writer.add_scalar("train/images_per_second", speed, self.steps_done)

    # --- evaluation -------------------------------------------------------------------------------

    @torch.inference_mode()
    def evaluate(self, split: str) -> dict[str, float]:
        """The objective, PSNR of reconstructions from mu, and what the latents hold, over a split.

        Raises:
            UserError: no face belongs to the split.
        """
        self.model.eval()
        engine, dim = self.engine, self.settings.latent_dim
        indices = self.pictures.indices(split)[engine.rank :: engine.world]
        chunks = [indices[i : i + self.settings.batch_size] for i in range(0, len(indices), self.settings.batch_size)]

        # Sum over faces.
        divergence = self.prior.divergence()
        totals: dict[str, float] = dict.fromkeys(self.evaluated_terms(), 0.0)
        moments = torch.zeros(2, dim, dtype=torch.float64, device=engine.device)
        count = 0
        for batch in self.pictures.batches(chunks, engine.device):
            if not len(batch.indices):
                continue
            mu, terms = self.evaluate_batch(batch)
            terms["kl_to_fitted_prior"] = divergence(mu, terms.pop("logvar")).mean()
            for name, term in terms.items():
                totals[name] += term.item() * len(mu)
            moments += torch.stack([mu.double().sum(0), mu.double().square().sum(0)])
            count += len(mu)

        # Over all processes.
        packed = torch.tensor([*totals.values(), float(count)], dtype=torch.float64, device=engine.device)
        *sums, total = engine.sum_over_processes(packed).tolist()
        moments = engine.sum_over_processes(moments)
        if not total:
            raise UserError(
                f"no face belongs to split {split!r}; more faces are needed (5 % go to val and 5 % to test)"
            )
        result = {name: value / total for name, value in zip(totals, sums, strict=True)}
        variance = moments[1] / total - (moments[0] / total) ** 2
        result["psnr"] = psnr(result.pop("mse_of_mu"))
        result["active_units"] = float((variance > 0.01).sum())
        return result

    def evaluated_terms(self) -> list[str]:
        """Names of what is summed over the faces of a split."""
        terms = [name for name, weight in self.objective.weights.items() if weight or name in ("kl", "mse")]
        return ["loss", *terms, "mse_of_mu", "kl_to_fitted_prior"]

    def evaluate_batch(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """mu (B, latent_dim) of a batch; its terms, means over faces, and its logvar."""
        pictures = as_input(batch.pictures)
        seed, dim = self.config.run.seed, self.settings.latent_dim
        noise = noise_for(batch.indices, dim, seed=seed, epoch=_VALIDATION_EPOCH).to(self.engine.device)
        with self.engine.autocast():
            mu, logvar = self.model.encoder(pictures)
            drawn = self.model.decoder(reparameterise(mu, logvar, noise))
            mean = self.model.decoder(mu)
        terms = self.objective.terms(VAEOutput(drawn, mu, logvar), pictures)
        loss = self.objective.total(terms)
        return mu, {"loss": loss, **terms, "mse_of_mu": F.mse_loss(mean, pictures), "logvar": logvar}

    def log_epoch(self, metrics: dict[str, float]) -> None:
        """Show validation metrics and pictures."""
        if self.writer is None:
            return
        for name, value in metrics.items():
            self.writer.add_scalar(f"val/{name}", value, self.steps_done)
        self.show_pictures(self.writer)
        line = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        tqdm.write(f"epoch {self.epoch}: val {line}")

    @torch.inference_mode()
    def show_pictures(self, writer: "SummaryWriter") -> None:
        """Inputs above their reconstructions, and faces drawn from the fitted prior, for TensorBoard."""
        self.model.eval()
        device = self.engine.device
        spread = self.val[np.linspace(0, len(self.val) - 1, min(_SHOWN, len(self.val))).astype(int)]
        pictures = as_input(next(self.pictures.batches([spread], device)).pictures)
        generator = torch.Generator().manual_seed(self.config.run.seed)
        noise = torch.randn(_DRAWN, self.settings.latent_dim, generator=generator).to(device)
        with self.engine.autocast():
            reconstructions = self.model(pictures).reconstruction
            drawn = self.model.decoder(self.prior.draw(noise))

        pairs = torch.cat([pictures, reconstructions])
        for name, shown, columns in (
            ("input_and_reconstruction", pairs, len(pictures)),
            ("samples_from_prior", drawn, _DRAWN // 2),
        ):
            sheet = grid(as_uint8(shown.float().permute(0, 2, 3, 1).cpu().numpy()), columns)
            writer.add_image(name, sheet, self.steps_done, dataformats="HWC")


def build_optimizer(model: nn.Module, settings: VAEConfig) -> torch.optim.Optimizer:
    """Muon or Adam, as the settings say."""
    if settings.optimizer == "muon":
        return Muon(model, settings.learning_rate)
    return torch.optim.Adam(model.parameters(), settings.learning_rate, fused=True)


def learning_rate(step: int, steps_per_epoch: int, settings: VAEConfig) -> float:
    """The learning rate of a step: linear warm-up, then a cosine to 0 or an exponential decay by epoch."""
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    if settings.schedule == "exponential":
        return settings.learning_rate * settings.lr_decay ** (step // steps_per_epoch)
    return settings.learning_rate * cosine_decay(step / (steps_per_epoch * settings.epochs))


def open_pictures(config: Config) -> Pictures:
    """All pictures that stage 1 learns. Raises UserError where too many cannot be read."""
    sources = vae_sources(config)
    cache = Path(config.data.cache) if config.data.cache else None
    workers = decode_workers(config.data.workers)
    pictures = Pictures(sources, size=config.data.image_size, cache=cache, workers=workers)
    pictures.check_unreadable(config.data.max_unreadable, config.run_folder / "unreadable.txt")
    return pictures


def write_results(trainer: Trainer) -> None:
    """Measure the best checkpoint on `test` and write metrics.json."""
    trainer.engine.barrier()  # until the main process has written it
    content, path = trainer.stage.load_best()
    checkpoint.restore(trainer.model, content["model"], path)
    checkpoint.restore(trainer.prior, content["prior"], path)
    metrics = trainer.evaluate("test")
    if trainer.writer is None:
        return

    trainer.writer.close()
    settings, seconds = trainer.settings, max(trainer.seconds, 1e-9)
    images = trainer.steps_per_epoch * settings.batch_size * settings.epochs
    run = {
        "config": trainer.config.as_dict(),
        "seconds": round(trainer.seconds, 1),
        "images_per_second": round(images / seconds, 1),
        "waited_for_data": round(trainer.waited / seconds, 4),
    }
    write_json(trainer.stage.metrics, {"test": metrics, "run": run})
    print(
        f"best checkpoint on test: PSNR {metrics['psnr']:.2f} dB, KL {metrics['kl']:.1f} nats per face "
        f"({metrics['kl_to_fitted_prior']:.1f} to the fitted prior), "
        f"{metrics['active_units']:.0f} of {settings.latent_dim} units active"
    )
    print(f"next: python extract_latentvec.py (checkpoint {path})")


def main() -> None:
    # Parse.
    config, options = parse_arguments(__doc__)
    engine = start_engine(config.run)
    if config.vae.batch_size % engine.world:
        raise UserError(
            f"vae.batch_size {config.vae.batch_size} cannot be shared by {engine.world} processes; "
            f"use a multiple of {engine.world}"
        )

    run = Run.of(config)
    with run.vae.lock("vae_trainer.py", engine.is_main):
        # Look for an earlier run.
        found = None if options.restart else run.vae.newest()
        if found and run.vae.is_finished(found, config.vae.epochs) and not run.vae.changes(found, config):
            print(
                f"{run.vae.folder} is finished: {found.content['epoch']} epochs. "
                "Raise vae.epochs to go on, or use --restart to start over."
            )
            return

        # Build. A run that is refused keeps its config.toml.
        if found:
            run.vae.refuse_changes(found, config)
        if engine.is_main:
            run.vae.sweep()
            run.describe(config, "vae_trainer.py")
            ensure_data(config, decode_workers(config.data.workers))
            print(describe_data(config.data))
        engine.barrier()
        trainer = build_trainer(config, engine)
        if found:
            trainer.resume(found)
            print(f"Going on from {found.path}: epoch {trainer.epoch + 1}, step {trainer.step}.")
        if engine.is_main:
            trainer.writer = run.vae.start_writing(trainer.steps_done + 1, options.restart)

        # Loop, report.
        trainer.run(StopRequest())
        write_results(trainer)


def build_trainer(config: Config, engine: Engine) -> Trainer:
    """Open the pictures and build the networks. Raises UserError where there are too few faces."""
    pictures = open_pictures(config)
    trainer = Trainer(config, engine, pictures)
    if not len(trainer.train) or not len(trainer.val):
        raise UserError(
            f"{len(pictures.paths)} faces give {len(trainer.train)} for training and {len(trainer.val)} for "
            "validation; at least one of each is needed: add faces"
        )
    weights = sum(p.numel() for p in trainer.model.parameters()) / 1e6
    precision = str(engine.dtype).removeprefix("torch.")
    print(
        f"{len(trainer.train)} faces to train on, {len(trainer.val)} to validate, {weights:.1f} million weights, "
        f"{engine.world} × {engine.device} in {precision}"
    )
    return trainer


if __name__ == "__main__":
    run_script(main)
