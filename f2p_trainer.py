"""Stage 2: train the regressor that reads facial parameters off latents.

    python f2p_trainer.py                                        the default experiment, configs/creator.toml
    python f2p_trainer.py --config configs/hs_face.toml
    python f2p_trainer.py --set f2p.epochs=60                    a finished run goes on to more epochs

Reads runs/NAME/latents and the labels in data.root, and in data.photos where that is set. Writes
runs/NAME/f2p/checkpoints/{last,best}.pt, f2p/tensorboard/, f2p/metrics.json and f2p/report.png. A run that was stopped
goes on where it was; a finished one says so and does nothing. More epochs for a finished run are a warm restart: the
learning rate rises again. Everything fits in memory, so one process is enough.
"""

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from datasets.latents import AS_IT_IS, MIRRORED, MOVED, LatentTable, digests_of_labels, read_table
from datasets.looks import looks_of
from datasets.sources import describe_data
from games.game import EmbeddedGame, embedded_game
from games.parameters import Parameter
from models.look import LookReader
from models.predictor import load_encoder
from models.regressor import Answers, Regressor
from utils import checkpoint
from utils.alignment import random_misalignments
from utils.config import Config, parse_arguments
from utils.device import Engine, seed_everything, start_engine
from utils.errors import UserError, run_script
from utils.figures import Recovery, recovery_report
from utils.files import write_json
from utils.metrics import active_units, parameter_metrics, ridge
from utils.muon import Muon
from utils.pictures import write_picture
from utils.progress import progress
from utils.run import Checkpoint, Run
from utils.schedule import cosine_decay
from utils.stop import StopRequest

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

#: Muon tolerates a larger learning rate than AdamW. Weight decay is divided by the same factor, so both shrink weights
#: equally per step.
_MUON_FACTOR = 3.0

#: Photos that join the renders of a step, as a fraction of the batch.
_PHOTO_FRACTION = 0.25

#: Fraction of the faces of a step that the misalignment head sees moved; the others lie as alignment put them.
_MOVED_FRACTION = 0.75

#: Training and validation faces at most whose looks are drawn again for the look reader: it needs no more, and a
#: character takes a millisecond. It takes at most half of the training faces, so that a small run stays quick.
_LOOKS, _VAL_LOOKS = 8000, 1000

#: Rows that are predicted at a time.
_BLOCK = 2048


class Trainer:
    """A stage-2 run from epoch to epoch. All latents live on the device.

    Args:
        config: the experiment.
        engine: device and precision.
        table: latents and labels of all faces.
        digests: what is learned from, by name; see `Stage.changes`.
    """

    def __init__(self, config: Config, engine: Engine, table: LatentTable, digests: dict[str, str]) -> None:
        self.config, self.settings, self.engine, self.table = config, config.f2p, engine, table
        self.stage, self.digests = Run.of(config).f2p, digests
        self.names, self.groups = [p.name for p in table.parameters], [p.group for p in table.parameters]
        self.kinds = [torch.tensor(kind, device=engine.device) for kind in indices_by_kind(table.parameters)]

        # Training faces on the device: the renders' rows first, then the photos'.
        renders, photos = table.of("train"), table.of("photos")
        self.renders, self.photos = len(renders), len(photos)
        train = np.concatenate([renders, photos])
        reads_variants = self.settings.variant_prob > 0
        self.latents: dict[tuple[str, str], Tensor] = {}
        for (source, view), rows in table.rows.items():
            if source == "images" or reads_variants:
                self.latents[source, view] = self.to_device(rows[train])
        self.labels = self.to_device(table.labels[train])
        self.misalignments = self.to_device(random_misalignments([table.names[i] for i in train]))

        # The network, from the mean face on.
        seed_everything(config.run.seed)
        model = Regressor(table.latent_dim, len(self.names), config, reads_photos=bool(self.photos))
        self.model = model.to(engine.device)
        self.model.standardiser.fit(*(rows for (_, view), rows in self.latents.items() if view == AS_IT_IS))
        self.model.start_from(self.labels.mean(0))
        self.ood_threshold = self.find_ood_threshold()
        self.optimizers = self.make_optimizers()

        # Steps, and where the run stands.
        self.batch_size = min(self.settings.batch_size, self.renders)
        self.photos_per_step = max(1, round(_PHOTO_FRACTION * self.batch_size)) if self.photos else 0
        self.steps_per_epoch = self.renders // self.batch_size
        self.epoch, self.best, self.seconds = 0, -math.inf, 0.0
        self.look: LookReader | None = None

    @property
    def scores_variants(self) -> bool:
        """Whether the best checkpoint is chosen by variants too: what training reads, it is chosen by."""
        has_variant = self.table.has_variant[self.table.of("val")]
        return self.settings.variant_prob > 0 and bool(has_variant.any())

    @property
    def views(self) -> list[str]:
        """The views that a prediction is the mean of."""
        return [AS_IT_IS, MIRRORED] if self.config.latents.mirrored else [AS_IT_IS]

    def to_device(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.engine.device)

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Optimizers by checkpoint key: "adamw" for most weights, and "muon" for the matrices of a mixer's blocks.

        To orthogonalise the hidden layers' large matrices as well would take a CPU longer than everything else of a
        step.
        """
        settings, mixer = self.settings, self.model.mixer
        blocks = [] if mixer is None else list(mixer.blocks.parameters())
        mixed = {id(weight) for weight in blocks}
        others = [weight for weight in self.model.parameters() if id(weight) not in mixed]

        found: dict[str, torch.optim.Optimizer] = {
            "adamw": torch.optim.AdamW(others, settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
        }
        if mixer is not None:
            rate, decay = _MUON_FACTOR * settings.learning_rate, settings.weight_decay / _MUON_FACTOR
            found["muon"] = Muon(mixer.blocks, rate, decay)
        return found

    # --- state ------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The content of a checkpoint."""
        return {
            "config": self.config.as_dict(),
            "digests": self.digests,
            "model": self.model.state_dict(),
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "epoch": self.epoch,
            "best": self.best,
            "seconds": self.seconds,
            "latent_dim": self.table.latent_dim,
            "reads_photos": bool(self.photos),
            "parameters": [list(p) for p in self.table.parameters],
            "ood_threshold": self.ood_threshold,
            "creator": (self.table.meta["creator"] or {}).get("creator"),
            "look": None if self.look is None else self.look.state(),
        }

    def resume(self, found: Checkpoint) -> None:
        """Go on from a checkpoint. Raises UserError where it was trained with something else."""
        content, path = found
        self.stage.refuse_changes(found, self.config, self.digests)
        checkpoint.restore(self.model, content["model"], path)
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(content["optimizers"][name])
        self.epoch, self.best, self.seconds = content["epoch"], content["best"], content["seconds"]
        self.look = LookReader.of(content.get("look"))

    # --- training ---------------------------------------------------------------------------------

    def run(self, writer: "SummaryWriter", stop: StopRequest) -> None:
        """Train to the last epoch, evaluating and saving after each."""
        with progress(total=self.settings.epochs, initial=self.epoch, unit="epoch", desc="training") as bar:
            while self.epoch < self.settings.epochs:
                # Train.
                started = time.monotonic()
                loss = self.train_epoch()
                self.epoch += 1
                self.seconds += time.monotonic() - started

                # Evaluate.
                val = {"val": self.evaluate("val")}
                if self.scores_variants:
                    val["val_aug_images"] = self.evaluate("val", source="aug_images")
                self.log(writer, loss, val)
                bar.update()
                bar.set_postfix({"loss": f"{loss:.5f}", **{f"{n}_r2": f"{m['r2']:.4f}" for n, m in val.items()}})

                # Save; leave when asked.
                if score(val) > self.best:
                    self.best = score(val)
                    self.stage.save("best", self.state())
                self.stage.save("last", self.state())
                if stop.requested and self.epoch < self.settings.epochs:
                    stop.leave(f"the end of epoch {self.epoch}")

    def train_epoch(self) -> float:
        """One pass over the training renders, photos beside them; the mean loss per step.

        All chance follows from seed and epoch. Raises UserError where the loss is not finite.
        """
        self.model.train()
        torch.manual_seed(self.config.run.seed * 1_000_003 + self.epoch)  # order, views, variants, noise
        order = torch.randperm(self.renders, device=self.engine.device)
        total = torch.zeros((), device=self.engine.device)
        for step in range(self.steps_per_epoch):
            self.set_learning_rate(step)
            total += self.train_step(self.sample_rows(order, step))
        mean = total.item() / self.steps_per_epoch
        if not math.isfinite(mean):
            raise UserError(
                f"the loss of epoch {self.epoch + 1} is {mean}; training stopped, the last checkpoint stands. "
                "A lower f2p.learning_rate usually helps"
            )
        return mean

    def set_learning_rate(self, step: int) -> None:
        """A cosine from the optimizers' own rates to 0 over the whole run."""
        done = self.epoch * self.steps_per_epoch + step
        decay = cosine_decay(done / (self.steps_per_epoch * self.settings.epochs))
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = optimizer.defaults["lr"] * decay

    def sample_rows(self, order: Tensor, step: int) -> Tensor:
        """Rows (B,) of a step's faces: the renders whose turn it is in `order`, then some photos at random."""
        rows = order[step * self.batch_size : (step + 1) * self.batch_size]
        if not self.photos:
            return rows
        end = self.renders + self.photos
        photos = torch.randint(self.renders, end, (self.photos_per_step,), device=rows.device)
        return torch.cat([rows, photos])

    def train_step(self, rows: Tensor) -> Tensor:
        """One step of the optimizers on faces (B,); the loss, a scalar."""
        # Draw the latents: of the face, or in half of the cases of its mirror image.
        latents = self.sample_latents(rows, AS_IT_IS)
        if self.config.latents.mirrored:
            is_mirrored = torch.rand(len(rows), 1, device=rows.device) < 0.5
            latents = torch.where(is_mirrored, self.sample_latents(rows, MIRRORED), latents)

        # Parameters.
        truth = self.labels.index_select(0, rows)
        with self.engine.autocast():
            if self.photos:
                loss = self.loss_with_photos(self.model.answers(latents), truth)
            else:
                loss = self.parameter_loss(self.model(latents), truth)

        # Misalignment.
        if self.model.misalignment is not None:
            loss = loss + self.misalignment_loss(rows, latents)

        # Backward.
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in self.optimizers.values():
            optimizer.step()
        return loss.detach()

    def loss_with_photos(self, answers: Answers, truth: Tensor) -> Tensor:
        """The loss of both heads and of the gate, on renders and then photos; truth (B, P).

        The head for photos learns renders too, as photos are few. Photos count as much as renders there.
        """
        renders, photos = slice(self.batch_size), slice(self.batch_size, None)
        loss = self.parameter_loss(answers.game[renders], truth[renders])
        for part in (renders, photos):
            loss = loss + self.parameter_loss(answers.photo[part], truth[part])
        logit = answers.photo_logit.float()
        is_render = F.softplus(logit[renders]).mean()  # cross-entropy, the truth being 0
        is_photo = F.softplus(-logit[photos]).mean()  # and 1
        return loss + is_render + is_photo

    def sample_latents(self, rows: Tensor, view: str) -> Tensor:
        """Latents (B, 2·D) of faces (B,) in a view.

        With probability `f2p.variant_prob` they are the variant's instead of the render's. Then posterior noise is
        added to mu.
        """
        settings = self.settings
        latents = self.latents["images", view].index_select(0, rows)  # faster than indexing
        if ("aug_images", view) in self.latents:
            is_variant = torch.rand(len(rows), 1, device=rows.device) < settings.variant_prob
            latents = torch.where(is_variant, self.latents["aug_images", view].index_select(0, rows), latents)
        if settings.posterior_noise:
            mu, logvar = latents.chunk(2, 1)
            mu = mu + settings.posterior_noise * torch.exp(0.5 * logvar) * torch.randn_like(mu)
            latents = torch.cat([mu, logvar], 1)
        return latents

    def parameter_loss(self, predicted: Tensor, truth: Tensor) -> Tensor:
        """Sum over the kinds of parameters (sliders, bones) of their mean squared errors; both (B, P)."""
        square = (predicted.float() - truth).square()
        total = torch.zeros((), device=square.device)
        for kind in self.kinds:
            total = total + square[:, kind].mean()
        return total

    def misalignment_loss(self, rows: Tensor, well_aligned: Tensor) -> Tensor:
        """Mean squared error of the misalignment, on moved faces (three of four) and on well-aligned ones (target 0).

        Args:
            rows: (B,) faces.
            well_aligned: latents (B, 2·D) of these faces as alignment put them.
        """
        is_moved = torch.rand(len(rows), 1, device=rows.device) < _MOVED_FRACTION
        latents = torch.where(is_moved, self.sample_latents(rows, MOVED), well_aligned)
        with self.engine.autocast():
            found = self.model.misalignment_of(latents).float()
        truth = self.misalignments.index_select(0, rows) * is_moved
        return (found - truth).square().mean()

    # --- look -------------------------------------------------------------------------------------

    def fit_look(self) -> None:
        """Learn to read looks off latents, once, where the embedded game drew the faces.

        Looks are no parameters; the pictures of predicted characters show them. The standardiser is all of the network
        that is needed, so this comes before training.
        """
        manifest = self.table.meta["creator"] or {}
        game = embedded_game(manifest.get("creator"))
        if self.look is not None or game is None or not {"seed", "distribution"} <= manifest.keys():
            return
        train = self.look_pairs("train", min(_LOOKS, self.renders // 2), game)
        val = self.look_pairs("val", _VAL_LOOKS, game)
        if train and val:
            self.look = LookReader.fit(game.look_table, train, val)

    def look_pairs(self, split: str, most: int, game: EmbeddedGame) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Standardised latents and the numbers of looks, by source, of up to `most` faces of a split.

        Variants are there where training reads them.
        """
        looks = looks_of(self.table, self.table.of(split)[:most], game)
        pairs = {}
        for source, numbers in looks.numbers.items():
            own = self.table.has_variant[looks.rows] | (source == "images")
            if self.reads(source) and own.any():
                pairs[source] = (self.standardised(looks.rows[own], source), numbers[own])
        return pairs

    @torch.inference_mode()
    def standardised(self, rows: np.ndarray, source: str) -> np.ndarray:
        """Standardised latents (N, 2·D) of faces (N,); with `latents.mirrored` the mean with their mirror images'.

        A linear reader reads off this mean what it reads off both and averages.
        """
        blocks = []
        for first in range(0, len(rows), _BLOCK):
            block = rows[first : first + _BLOCK]
            views = [self.table.rows[source, view][block] for view in self.views]
            latents = [self.model.standardiser(self.to_device(rows_of_view)) for rows_of_view in views]
            blocks.append(torch.stack(latents).mean(0).cpu().numpy())
        return np.concatenate(blocks)

    # --- evaluation -------------------------------------------------------------------------------

    @torch.inference_mode()
    def predict(self, rows: np.ndarray, source: str = "images") -> np.ndarray:
        """Parameters (N, P) of faces (N,), clipped to [0, 1] as they would be used.

        With `latents.mirrored` they are the mean of the face's and of its mirror image's.

        Args:
            rows: of the table.
            source: "images", or "aug_images" for the variants.
        """
        self.model.eval()
        blocks = []
        for first in range(0, len(rows), _BLOCK):
            block = rows[first : first + _BLOCK]
            predicted = [self.model(self.to_device(self.table.rows[source, view][block])) for view in self.views]
            mean = torch.stack(predicted).sum(0) / len(self.views)
            blocks.append(mean.clamp(0, 1).cpu().numpy())
        return np.concatenate(blocks)

    def evaluate(self, split: str, source: str = "images") -> dict[str, Any]:
        """Metrics over the faces of a split; with source "aug_images" over their variants."""
        rows = self.table.of(split)
        if source == "aug_images":
            rows = rows[self.table.has_variant[rows]]
        return self.metrics(rows, self.predict(rows, source))

    def metrics(self, rows: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
        """Metrics of predicted parameters (N, P) of faces (N,)."""
        return parameter_metrics(self.table.labels[rows], predicted, names=self.names, groups=self.groups)

    @torch.inference_mode()
    def find_ood_threshold(self) -> float:
        """The 99th percentile of distance over validation faces, or over photos if that is larger."""
        table, val = self.table, self.table.of("val")
        sets = [np.concatenate([rows[val] for (s, v), rows in table.rows.items() if v == AS_IT_IS and self.reads(s)])]
        if self.photos:
            sets.append(table.rows["images", AS_IT_IS][table.of("photos")])
        distances = [self.model.standardiser.distance(self.to_device(latents)).cpu().numpy() for latents in sets]
        return max(float(np.quantile(of_set, 0.99)) for of_set in distances)

    def reads(self, source: str) -> bool:
        """Whether training reads the latents of a source."""
        return (source, AS_IT_IS) in self.latents

    def log(self, writer: "SummaryWriter", loss: float, val: dict[str, dict[str, Any]]) -> None:
        """Show an epoch in TensorBoard; what is not defined (a constant parameter's R²) is left out."""
        values = {"train/loss": loss, "train/learning_rate": self.optimizers["adamw"].param_groups[0]["lr"]}
        for name, metrics in val.items():
            for key in ("r2", "mae", "cosine_similarity", "distance"):
                values[f"{name}/{key}"] = metrics[key]
        for group, metrics in val["val"]["groups"].items():
            for key, value in metrics.items():
                values[f"val_{key}_by_group/{group}"] = value
        for name, value in values.items():
            if not math.isnan(value):
                writer.add_scalar(name, value, self.epoch)
        writer.flush()


def score(val: dict[str, dict[str, Any]]) -> float:
    """What the best checkpoint is chosen by: mean R², or minus the error where no parameter varies."""
    scores = []
    for metrics in val.values():
        scores.append(-metrics["mae"] if math.isnan(metrics["r2"]) else metrics["r2"])
    return float(np.mean(scores))


def indices_by_kind(parameters: list[Parameter]) -> list[list[int]]:
    """Indices of the parameters of each kind, kinds in the order of the table."""
    kinds: dict[str, list[int]] = {}
    for i, parameter in enumerate(parameters):
        kinds.setdefault(parameter.kind, []).append(i)
    return list(kinds.values())


def baselines(trainer: Trainer) -> tuple[dict[str, Any], float]:
    """Metrics on test faces of the training mean and of ridge regression on the same latents, and ridge's strength.

    The strength is chosen on `val`.
    """
    table, latents = trainer.table, trainer.table.rows["images", AS_IT_IS]
    train, val, test = (table.of(split) for split in ("train", "val", "test"))
    mean = np.broadcast_to(table.labels[train].mean(0), (len(test), len(trainer.names)))
    weights, bias, strength = ridge((latents[train], table.labels[train]), (latents[val], table.labels[val]))
    linear = np.clip(latents[test] @ weights + bias, 0, 1)
    return {"mean": trainer.metrics(test, mean), "ridge": trainer.metrics(test, linear)}, strength


def write_results(trainer: Trainer) -> None:
    """Measure the best checkpoint, write metrics.json and report.png, print what a person asks first."""
    # Measure.
    content, path = trainer.stage.load_best()
    checkpoint.restore(trainer.model, content["model"], path)
    table, test = trainer.table, trainer.table.of("test")
    predicted = trainer.predict(test)
    found = {"val": trainer.evaluate("val"), "test": trainer.metrics(test, predicted)}
    if table.has_variant[test].any():
        found["test_aug_images"] = trainer.evaluate("test", source="aug_images")
    reference, strength = baselines(trainer)
    reader = LookReader.of(content.get("look"))
    look = {} if reader is None else {"look": reader.r2}

    # Write.
    run = describe_run(trainer) | {"best_epoch": content["epoch"], "ridge_strength": strength}
    write_json(trainer.stage.metrics, found | look | {"baselines": reference, "run": run})
    recovery = Recovery(found["test"], reference["ridge"], table.labels[test], predicted, trainer.names, trainer.groups)
    title = (
        f"{trainer.config.run.name}: mean R² {found['test']['r2']:.4f} on {len(test)} test faces "
        f"(ridge {reference['ridge']['r2']:.4f})"
    )
    write_picture(trainer.stage.report, recovery_report(recovery, title))
    print_results(found, reference)
    if reader is not None:
        print(reader.summary())
    folder = Run.of(trainer.config).folder
    print(f"{trainer.stage.metrics}\n{trainer.stage.report}\nnext: python predict.py PHOTO --run {folder}")


def describe_run(trainer: Trainer) -> dict[str, Any]:
    """The "run" of metrics.json: what the figures were made of."""
    table, run = trainer.table, Run.of(trainer.config)
    latents = table.rows["images", AS_IT_IS][table.of("test")].astype(np.float64)
    mu, logvar = np.split(latents, 2, axis=1)
    return {
        "config": trainer.config.as_dict(),
        "creator": trainer.state()["creator"],
        "vae_fingerprint": table.meta["fingerprint"],
        "checkpoints": {"vae": run.vae.best.as_posix(), "f2p": run.f2p.best.as_posix()},
        "faces": {split: len(table.of(split)) for split in ("train", "val", "test", "photos")},
        "kl_per_face": float((0.5 * (mu**2 + np.exp(logvar) - 1 - logvar)).sum(1).mean()),
        "active_units": active_units(mu),
        "seconds": round(trainer.seconds, 2),
    }


def print_results(found: dict[str, dict[str, Any]], reference: dict[str, dict[str, Any]]) -> None:
    """The metrics of the test faces beside those of the baselines."""
    rows = {
        "regressor": found["test"],
        "ridge on the same latents": reference["ridge"],
        "training mean": reference["mean"],
    }
    if "test_aug_images" in found:
        rows["regressor on variants"] = found["test_aug_images"]
    print("\ntest faces                      R²      MAE     cosine  distance")
    for title, m in rows.items():
        print(f"{title:28s}  {m['r2']:7.4f}  {m['mae']:.4f}  {m['cosine_similarity']:.4f}  {m['distance']:.4f}")


def check_table(table: LatentTable) -> None:
    """Say which parameters cannot be learned. Raises UserError where a split has too few faces."""
    for split in ("train", "val", "test"):
        if len(table.of(split)) < 2:
            raise UserError(
                f"{len(table.of(split))} of {len(table.names)} faces belong to split {split!r}; at least 2 are needed: "
                "add faces or change the split files"
            )
    spread = np.ptp(table.labels[table.of("train")], axis=0)
    constant = [p.name for p, width in zip(table.parameters, spread, strict=True) if width == 0]
    if constant:
        print(
            f"{len(constant)} parameters have the same value in all training faces and cannot be learned: "
            f"{', '.join(constant)}"
        )


def start_alone(config: Config) -> Engine:
    """Device and precision of one process. Raises UserError where several were started."""
    engine = start_engine(config.run)
    if engine.world > 1:
        raise UserError("stage 2 takes seconds to minutes and runs in one process; start it with python, not torchrun")
    if engine.dtype == torch.float16:  # its gradients would have to be scaled, and stage 2 is small
        return engine._replace(dtype=torch.float32)
    return engine


def main() -> None:
    # Parse.
    config, options = parse_arguments(__doc__)
    if not config.data.root:
        raise UserError("data.root is empty: stage 2 needs a data set with labels. Set data.root")
    engine = start_alone(config)
    run = Run.of(config)
    with run.f2p.lock("f2p_trainer.py"):
        # Look for an earlier run.
        found = None if options.restart else run.f2p.newest()
        fingerprint = checkpoint.fingerprint(load_encoder(config)[0])
        digests = {"the encoder": fingerprint, **digests_of_labels(config)}
        if found and run.f2p.is_finished(found, config.f2p.epochs):
            run.f2p.refuse_changes(found, config, found.content["digests"] | digests)
            print(
                f"{run.f2p.folder} is finished: {found.content['epoch']} epochs. "
                "Raise f2p.epochs to go on, or use --restart to start over."
            )
            return

        # Build. A run that is refused keeps its config.toml.
        if found:
            run.f2p.refuse_changes(found, config)
        run.f2p.sweep()
        run.describe(config, "f2p_trainer.py")
        print(describe_data(config.data))
        table = read_table(config, fingerprint)
        check_table(table)
        of_table = {"the faces": table.digest, "the precision of the latents": str(table.meta.get("precision"))}
        trainer = Trainer(config, engine, table, digests | of_table)
        if found:
            trainer.resume(found)
            print(f"Going on from {found.path}: epoch {trainer.epoch + 1}.")
        trainer.fit_look()
        writer = run.f2p.start_writing(trainer.epoch + 1, options.restart)

        # Loop, report.
        trainer.run(writer, StopRequest())
        writer.close()
        write_results(trainer)


if __name__ == "__main__":
    run_script(main)
