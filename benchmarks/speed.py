"""How fast each step is, beside what it is measured against, in one run on one machine.

    python -m benchmarks.speed [--only NAME …] [--photos DIR] [--json FILE]

Comparisons alternate between their sides and give medians; warm-up is left out. Only whole epochs of stage 2 are
trained once on each side. Everything runs on data that the embedded game makes and on untrained networks of the real
size: speed does not depend on weights. "Full-size" networks are those of configs/hs_face_original.toml. Rows that need
a CUDA device, or photos, say "not measured" where there are none. See also benchmarks.scale.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

import face_alignment
from benchmarks.scale import command, cost_growth, run
from datasets.latents import AS_IT_IS, LatentFolder, LatentSet, LatentTable
from datasets.pictures import Batch, Pictures
from datasets.sources import Source, root_sources
from extract_latentvec import Extractor
from f2p_trainer import Trainer as RegressorTrainer
from games.game import default_game
from games.parameters import BUILT_IN_TABLE, Parameter, parse_parameters
from games.writer import DataSet, write_data_set
from models.mtcnn import FaceDetector
from models.predictor import Predictor
from models.regressor import Regressor
from models.vae import VAE, Encoder, as_input, fold_batch_norm
from utils.alignment import TEMPLATE_SIZE, alignment_transform, warp
from utils.arrays import GrowingArray
from utils.checkpoint import fingerprint
from utils.config import DEFAULT_CONFIG, Config, RunConfig, load
from utils.device import choose_dtype, start_engine
from utils.errors import UserError, run_script
from utils.files import write_json
from utils.metrics import parameter_metrics
from utils.pictures import find_pictures, read_rgb, write_picture
from utils.run import Run
from utils.stop import StopRequest
from utils.workers import default_workers, map_unordered
from vae_trainer import Trainer as VAETrainer
from vae_trainer import open_pictures

_REPEATS = 3
_FULL_SIZE = DEFAULT_CONFIG.with_name("hs_face_original.toml")

Row = dict[str, Any]


def row(what: str, against: str, ratio: float | None, *, wanted: float | None = None, **more: float | str) -> Row:
    """A row of the table.

    Args:
        what: was measured.
        against: what it is compared with.
        ratio: the higher, the better; None where it was not measured.
        wanted: the least good ratio; None where the figure is only reported.
        more: figures behind the ratio.
    """
    met = None if ratio is None or wanted is None else ratio >= wanted
    rounded = None if ratio is None else round(ratio, 3)
    behind = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in more.items()}
    return {"what": what, "against": against, "ratio": rounded, "wanted": wanted, "met": met, **behind}


def medians_of(sides: dict[str, Callable[[], float]], repeats: int = _REPEATS) -> dict[str, float]:
    """Measure every side in turn, several times over; the median of each."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, measure in sides.items():
            found[name].append(measure())
    return {name: statistics.median(values) for name, values in found.items()}


def name_of(dtype: torch.dtype) -> str:
    """ "bfloat16" for torch.bfloat16."""
    return str(dtype).removeprefix("torch.")


class Bench:
    """What the rows share: a folder for their files, the device, photos.

    Args:
        folder: empty.
        photos: folder of photos; None leaves out the rows that need some.
    """

    def __init__(self, folder: Path, photos: Path | None) -> None:
        self.folder, self.photos = folder, photos
        self.engine = start_engine(RunConfig())
        self.device = self.engine.device
        self.full = load(_FULL_SIZE)

    def faces(self, count: int, size: int) -> Path:
        """A data set of renders of size×size pixels, without variants."""
        root = self.folder / f"faces_{size}"
        write_data_set(root, DataSet(count, size=size, with_variants=False), workers=default_workers())
        return root

    def source(self, count: int, size: int) -> Source:
        """The renders of such a data set."""
        return root_sources(self.faces(count, size))["images"]

    def learning(self, config: Config, count: int) -> Config:
        """A configuration whose stage 1 learns such renders, from a cache, and nothing else."""
        root, cache = self.faces(count, config.data.image_size), self.folder / "cache"
        data = replace(config.data, root=str(root), folders=(), cache=str(cache))
        return replace(config, run=replace(config.run, folder=str(self.folder)), data=data)

    def now(self) -> float:
        """The time in seconds, when the device has done all that it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def write_untrained_run(folder: Path, config: Config) -> Config:
    """Write a run of untrained networks that predicts HS_FACE's 205 parameters; the configuration that names it."""
    config = replace(config, run=replace(config.run, folder=str(folder), name="untrained"))
    run, parameters = Run.of(config), parse_parameters(BUILT_IN_TABLE)
    vae = VAE(config.data.image_size, config.vae)
    regressor = Regressor(config.vae.latent_dim, len(parameters), config)

    both = {"config": config.as_dict(), "optimizers": {}, "epoch": 0, "best": 0.0, "seconds": 0.0}
    of_vae = {
        "digests": {},
        "model": vae.state_dict(),
        "prior": {},
        "scaler": {},
        "step": 0,
        "steps_done": 0,
        "sums": {},
    }
    of_f2p = {
        "digests": {"the encoder": fingerprint(vae.encoder)},
        "model": regressor.state_dict(),
        "reads_photos": False,
        "latent_dim": config.vae.latent_dim,
        "parameters": [list(parameter) for parameter in parameters],
        "ood_threshold": 0.0,
        "creator": None,
    }
    run.vae.save("best", both | of_vae)
    run.f2p.save("best", both | of_f2p)
    return config


# --- extraction -------------------------------------------------------------------------------------

#: Faces that are encoded, and how many of them one by one.
_ENCODED, _ONE_BY_ONE = 320, 96

#: How long the encoder alone is measured, seconds.
_ALONE_SECONDS = 4.0

_original: Encoder


def _start_original(config: Config) -> None:
    global _original
    torch.set_num_threads(1)
    _original = VAE(config.data.image_size, config.vae).encoder.eval()


@torch.no_grad()
def _encode_one_by_one(job: tuple[list[Path], Path]) -> int:
    paths, output = job
    for path in paths:
        picture = torch.from_numpy(read_rgb(path)).permute(2, 0, 1)[None].float() / 255
        np.save(output / f"{path.stem}.npy", torch.cat(_original(picture), 1).numpy())
    return len(paths)


def rate_one_by_one(bench: Bench, source: Source) -> float:
    """Faces per second of the original's way: one picture at a time, a file per face, in two processes."""
    output = bench.folder / "one_by_one"
    output.mkdir(exist_ok=True)
    jobs = [(source.paths[i : i + 4], output) for i in range(0, _ONE_BY_ONE, 4)]
    done = map_unordered(_encode_one_by_one, jobs, workers=2, initializer=_start_original, arguments=(bench.full,))
    times = [time.perf_counter() for _ in done]
    return 4 * (len(times) - 3) / (times[-1] - times[2])  # both processes have started by then


class _TimedArray(GrowingArray):
    """Notes when rows arrive."""

    times: list[tuple[int, float]]

    def append(self, rows: np.ndarray) -> None:
        super().append(rows)
        self.times.append((self.rows, time.perf_counter()))

    def rate(self) -> float:
        """Rows per second after the first batch, which waits for threads to start."""
        (first, begin), (last, end) = self.times[0], self.times[-1]
        return (last - first) / (end - begin)


class _TimedFolder(LatentFolder):
    """Hands out an array that notes when rows arrive."""

    array: _TimedArray

    def shard(self, latents: LatentSet, latent_dim: int, *, rank: int, faces: range) -> GrowingArray:
        path = self.folder / f"{latents.name}.{rank}.npy"
        self.array = _TimedArray(path, (len(faces), 2 * latent_dim), dtype="f4", key=latents.key)
        self.array.times = []
        return self.array


def rate_of_extraction(bench: Bench, source: Source, config: Config, stop: StopRequest) -> float:
    """Faces per second of extract_latentvec.py, on a CPU, from PNG files."""
    cpu = bench.engine._replace(device=torch.device("cpu"))
    extractor, folder = Extractor(config, cpu), _TimedFolder(bench.folder / "latents")
    extractor.compute_in(config.latents.precision)
    pictures = Pictures({"images": source}, size=config.data.image_size, cache=None, workers=0)
    extractor.encode_set(LatentSet("images", AS_IT_IS, "speed"), pictures, folder, stop)
    return folder.array.rate()


@torch.inference_mode()
def rate_of_encoder(encoder: Encoder, *, size: int, batch: int, precision: str) -> float:
    """Faces per second of an encoder alone on a CPU, on one batch of ready pictures size×size."""
    ready = torch.randint(0, 256, (batch, 3, size, size), dtype=torch.uint8)
    encoder.to(choose_dtype(precision, ready.device))(as_input(ready))
    begin, done = time.perf_counter(), 0
    while time.perf_counter() - begin < _ALONE_SECONDS:
        encoder(as_input(ready))
        done += batch
    return done / (time.perf_counter() - begin)


def fastest_setting(encoder: Encoder, size: int) -> tuple[int, str]:
    """latents.batch_size and latents.precision as a person would set them: what is fastest here."""
    precisions = ["fp32"]
    if choose_dtype("auto", torch.device("cpu")) == torch.bfloat16:
        precisions.append("bf16")
    rates = {}
    for batch in (1, 8, 32):
        for precision in precisions:
            rates[batch, precision] = rate_of_encoder(encoder, size=size, batch=batch, precision=precision)
    return max(rates, key=lambda setting: rates[setting])


def extraction(bench: Bench) -> list[Row]:
    """Extraction against the original's way, and against the encoder alone."""
    size = bench.full.data.image_size
    source, config = bench.source(_ENCODED, size), write_untrained_run(bench.folder, bench.full)
    encoder = fold_batch_norm(VAE(size, config.vae).encoder).to(memory_format=torch.channels_last)
    batch, precision = fastest_setting(encoder, size)
    config = replace(config, latents=replace(config.latents, batch_size=batch, precision=precision))

    stop = StopRequest()
    found = medians_of(
        {
            "original": lambda: rate_one_by_one(bench, source),
            "ours": lambda: rate_of_extraction(bench, source, config, stop),
            "alone": lambda: rate_of_encoder(encoder, size=size, batch=batch, precision=precision),
        }
    )

    what = "extraction at 256 px, full-size encoder, PNG files, CPU"
    rows = []
    for side, against, wanted in (
        ("original", "batch 1, fp32, two processes of one thread", 2.0),
        ("alone", "the encoder alone on ready tensors, at its best", 0.9),
    ):
        rows.append(
            row(
                what,
                against,
                found["ours"] / found[side],
                wanted=wanted,
                pictures_per_second=found["ours"],
                precision=name_of(choose_dtype(precision, torch.device("cpu"))),
                batch=batch,
                against_per_second=found[side],
            )
        )
    return rows


def extraction_on_cuda(bench: Bench) -> list[Row]:
    """Extraction from the cache of decoded pictures."""
    what, against, wanted = (
        "extraction at 256 px, full-size encoder, from the cache, CUDA",
        "pictures per second",
        20_000,
    )
    if bench.device.type != "cuda":
        return [row(what, against, None, wanted=wanted)]

    config, count = bench.full, 2048
    size, cache = config.data.image_size, bench.folder / "cache"
    pictures = Pictures({"images": bench.source(count, size)}, size=size, cache=cache, workers=default_workers())
    encoder = fold_batch_norm(VAE(size, config.vae).encoder).to(bench.device).to(memory_format=torch.channels_last)
    many = np.resize(np.arange(count), 16 * count)

    @torch.inference_mode()
    def rate() -> float:
        chunks = [many[i : i + 512] for i in range(0, len(many), 512)]
        begin = bench.now()
        for batch in pictures.batches(chunks, bench.device):
            with bench.engine.autocast():
                torch.cat(encoder(as_input(batch.pictures)), 1).float().cpu()
        return len(many) / (bench.now() - begin)

    rate()
    found = statistics.median(rate() for _ in range(_REPEATS))
    return [row(what, against, found, wanted=wanted, pictures_per_second=found)]


# --- stage 1 ----------------------------------------------------------------------------------------

#: Rounds of the comparison of stage 1, and faces per step.
_STAGE_1_REPEATS, _STAGE_1_BATCH = 5, 64


def stage_1(bench: Bench) -> list[Row]:
    """A step of the default with its data, against the same step on a batch that is there."""
    config = bench.learning(load(DEFAULT_CONFIG), 1600)
    trainer = VAETrainer(config, bench.engine, open_pictures(config))
    whole = len(trainer.train) // _STAGE_1_BATCH * _STAGE_1_BATCH
    order = trainer.train[:whole].reshape(-1, _STAGE_1_BATCH)
    trainer.model.train()
    held: list[Batch] = list(trainer.pictures.batches(order[:1], bench.device))

    def with_files() -> float:
        begin = bench.now()
        for batch in trainer.pictures.batches(order, bench.device):
            trainer.train_step(batch)
        return order.size / (bench.now() - begin)

    def on_one_batch() -> float:
        begin = bench.now()
        for _ in order:
            trainer.train_step(held[0])
        return order.size / (bench.now() - begin)

    with_files()
    found = medians_of({"files": with_files, "ready": on_one_batch}, _STAGE_1_REPEATS)
    return [
        row(
            f"stage 1 step with real files, configs/creator.toml, {bench.device.type}",
            "the same step on one ready batch",
            found["files"] / found["ready"],
            wanted=0.95,
            images_per_second=found["files"],
            against_per_second=found["ready"],
            precision=name_of(bench.engine.dtype),
        )
    ]


#: Side of the matrices whose product gives the peak rate of arithmetic, and steps that are timed.
_MATRIX, _STEPS = 8192, 20


def stage_1_on_cuda(bench: Bench) -> list[Row]:
    """How near a training step comes to what its arithmetic and its memory traffic allow at least.

    The arithmetic is counted operation by operation, forward and backward, against the rate of one large matrix
    product. The traffic counts each layer's inputs, outputs and weights once forward and twice backward, against the
    rate of a large copy.
    """
    what, against, wanted = (
        "stage 1 at 256 px, full-size networks, CUDA",
        "the nearer of its matrix and memory bounds",
        0.4,
    )
    if bench.device.type != "cuda":
        return [row(what, against, None, wanted=wanted)]

    plain, trainer, batch = full_size_trainers(bench)
    flops, traffic = work_of_step(plain, batch)
    peak, bandwidth = peak_rates(bench)
    by_matrix, by_memory = flops / peak, traffic / bandwidth
    step = seconds_of(bench, lambda: trainer.train_step(batch))
    return [
        row(
            what,
            against,
            max(by_matrix, by_memory) / step,
            wanted=wanted,
            step_seconds=step,
            images_per_second=len(batch.indices) / step,
            matrix_bound_seconds=by_matrix,
            memory_bound_seconds=by_memory,
            peak_flops=peak,
            bytes_per_second=bandwidth,
        )
    ]


def full_size_trainers(bench: Bench) -> tuple[VAETrainer, VAETrainer, Batch]:
    """The full-size networks without LPIPS, as they are and compiled, and a batch for them."""
    vae, run = replace(bench.full.vae, lpips_weight=0.0, batch_size=128), replace(bench.full.run, compile=True)
    config = bench.learning(replace(bench.full, vae=vae, run=run), 256)
    trainer = VAETrainer(config, bench.engine, open_pictures(config))
    plain = VAETrainer(replace(config, run=replace(config.run, compile=False)), bench.engine, trainer.pictures)
    trainer.model.train()
    plain.model.train()
    rows = np.resize(trainer.train, vae.batch_size)
    return plain, trainer, next(trainer.pictures.batches([rows], bench.device))


def work_of_step(trainer: VAETrainer, batch: Batch) -> tuple[int, int]:
    """Floating-point operations of a training step, and the bytes that its layers read and write at least."""
    traffic, bytes_each = 0, trainer.engine.dtype.itemsize

    def count(module: nn.Module, inputs: tuple, output: Any) -> None:
        nonlocal traffic
        outputs = output if isinstance(output, tuple) else (output,)
        tensors = [t for t in (*inputs, *outputs, *module.parameters()) if isinstance(t, Tensor)]
        traffic += sum(t.numel() for t in tensors) * bytes_each

    hooks = [m.register_forward_hook(count) for m in trainer.model.modules() if not list(m.children())]
    with FlopCounterMode(display=False) as counter:
        trainer.train_step(batch)
    for hook in hooks:
        hook.remove()
    return counter.get_total_flops(), 3 * traffic


def peak_rates(bench: Bench) -> tuple[float, float]:
    """Floating-point operations per second of a large matrix product, and bytes per second of a large copy."""
    matrix = torch.randn(_MATRIX, _MATRIX, device=bench.device, dtype=bench.engine.dtype)
    large = torch.empty(_MATRIX * _MATRIX * 8, device=bench.device, dtype=torch.uint8)
    target = torch.empty_like(large)
    peak = 2 * _MATRIX**3 / seconds_of(bench, lambda: matrix @ matrix)
    return peak, 2 * large.numel() / seconds_of(bench, lambda: target.copy_(large))


def seconds_of(bench: Bench, work: Callable[[], object]) -> float:
    """Seconds per call, after three calls to warm up."""
    for _ in range(3):
        work()
    begin = bench.now()
    for _ in range(_STEPS):
        work()
    return (bench.now() - begin) / _STEPS


# --- stage 2 ----------------------------------------------------------------------------------------

#: Training faces, dimensions of their latents, passes over them.
_FACES, _DIMENSIONS, _EPOCHS = 20_000, 1024, 4

#: Faces per step of ours and of the original's loop, and the learning rates that go with them.
_OUR_BATCH, _FILE_BATCH = 256, 32
_OUR_RATE, _FILE_RATE = 4e-4, 1e-4


class _OneFilePerFace(Dataset):
    def __init__(self, folder: Path, labels: np.ndarray) -> None:
        self.paths, self.labels = sorted(folder.glob("*.npy")), torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(np.load(self.paths[i])), self.labels[i]


def faces_by_law() -> LatentTable:
    """Faces with latents of 2,048 numbers, whose parameters follow from them by a fixed nonlinear law and noise."""
    rng, names = np.random.default_rng(0), default_game().names
    latents = rng.standard_normal((_FACES + 2000, 2 * _DIMENSIONS), np.float32)
    weights = rng.standard_normal((2 * _DIMENSIONS, len(names)), np.float32)
    law = weights * (rng.random((2 * _DIMENSIONS, 1)) < 0.05) / 8  # few numbers of a latent decide
    noise = 0.05 * rng.standard_normal((len(latents), len(names)))
    labels = (1 / (1 + np.exp(-latents @ law)) + noise).clip(0, 1).astype(np.float32)

    split = np.array(["train"] * _FACES + ["val"] * 1000 + ["test"] * 1000)
    parameters = [Parameter(name, "all", "slider", 0.0, 1.0, "") for name in names]
    faces, none = [str(i) for i in range(len(latents))], np.zeros(len(latents), bool)
    meta = {"fingerprint": "", "creator": None}
    return LatentTable(faces, labels, split, {("images", AS_IT_IS): latents}, none, parameters, meta)


class StageTwo:
    """Both sides of the comparison: our loop, and the original's from a file per face.

    Args:
        bench: folder and device.
        table: what both learn.
    """

    def __init__(self, bench: Bench, table: LatentTable) -> None:
        self.bench, self.table = bench, table
        folder = bench.folder / "one_file_per_face"
        folder.mkdir()
        latents = table.rows["images", AS_IT_IS]
        for i in range(_FACES):
            np.save(folder / f"{i:06d}.npy", latents[i])
        files = _OneFilePerFace(folder, table.labels[:_FACES])
        self.loader = DataLoader(files, _FILE_BATCH, shuffle=True, num_workers=2)
        self.ours = self.trainer()

    def trainer(self) -> RegressorTrainer:
        """Ours, untrained."""
        config = self.bench.full
        f2p = replace(config.f2p, batch_size=_OUR_BATCH, learning_rate=_OUR_RATE, epochs=_EPOCHS)
        return RegressorTrainer(replace(config, f2p=f2p), self.bench.engine, self.table, {})

    def batches_of_files(self) -> float:
        """Seconds for the batches of an epoch, from files."""
        begin = self.bench.now()
        for latents, labels in self.loader:
            latents.to(self.bench.device)
            labels.to(self.bench.device)
        return self.bench.now() - begin

    def batches_of_ours(self) -> float:
        """Seconds for the batches of an epoch, from memory."""
        begin = self.bench.now()
        order = torch.randperm(_FACES, device=self.bench.device)
        for rows in order.split(self.ours.batch_size):
            self.ours.sample_latents(rows, AS_IT_IS)
            self.ours.labels.index_select(0, rows)
        return self.bench.now() - begin

    def train_from_files(self) -> tuple[float, float]:
        """Seconds per epoch and final test R² of the original's loop: a file per face, batches of 32."""
        device = self.bench.device
        model = Regressor(_DIMENSIONS, len(self.table.parameters), self.bench.full).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), _FILE_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _EPOCHS * len(self.loader))
        begin = self.bench.now()
        for _ in range(_EPOCHS):
            for latents, labels in self.loader:
                loss = F.mse_loss(model(latents.to(device)), labels.to(device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        seconds = (self.bench.now() - begin) / _EPOCHS
        return seconds, self.test_r2(model)

    def train_ours(self) -> tuple[float, float]:
        """Seconds per epoch and final test R² of our loop."""
        trainer = self.trainer()
        begin = self.bench.now()
        for epoch in range(_EPOCHS):
            trainer.epoch = epoch
            trainer.train_epoch()
        return (self.bench.now() - begin) / _EPOCHS, trainer.evaluate("test")["r2"]

    @torch.inference_mode()
    def test_r2(self, model: Regressor) -> float:
        """Mean R² over test faces."""
        test, parameters = self.table.of("test"), self.table.parameters
        latents = torch.from_numpy(self.table.rows["images", AS_IT_IS][test]).to(self.bench.device)
        predicted = model.eval()(latents).cpu().numpy()
        names, groups = [p.name for p in parameters], [p.group for p in parameters]
        return parameter_metrics(self.table.labels[test], predicted, names=names, groups=groups)["r2"]


def stage_2(bench: Bench) -> list[Row]:
    """Getting batches, and whole epochs, against one file per face."""
    sides = StageTwo(bench, faces_by_law())
    got = medians_of({"files": sides.batches_of_files, "ours": sides.batches_of_ours})
    torch.manual_seed(0)
    file_seconds, file_r2 = sides.train_from_files()
    our_seconds, our_r2 = sides.train_ours()

    device = bench.device.type
    return [
        row(
            f"stage 2, getting the batches of an epoch of 20,000 faces, {device}",
            "one file per face, DataLoader of 2 workers, batch 32",
            got["files"] / got["ours"],
            wanted=100.0,
            seconds=got["ours"],
            against_seconds=got["files"],
        ),
        row(
            f"stage 2, whole epoch, batch 256, {device}",
            "the same from files, batch 32",
            file_seconds / our_seconds,
            wanted=30.0 if device == "cuda" else None,
            seconds=our_seconds,
            against_seconds=file_seconds,
            test_r2=our_r2,
            against_test_r2=file_r2,
        ),
    ]


# --- photos -----------------------------------------------------------------------------------------

#: Photos that are aligned, how many of them one by one, and how many a worker takes at a time.
_ALIGNED, _ALIGNED_ALONE, _CHUNK = 240, 120, 8


def alignment(bench: Bench) -> list[Row]:
    """face_alignment.py's workers against one picture at a time."""
    what, against, wanted = "alignment of photos, CPU", "one picture at a time, one process of two threads", 1.6
    if bench.photos is None:
        return [row(what, against, None, wanted=wanted)]
    paths = find_pictures(bench.photos)
    paths = paths[:: max(1, len(paths) // _ALIGNED)][:_ALIGNED]
    output = bench.folder / "aligned"
    jobs = [face_alignment.Job(path.name, path, output / f"{i}.png") for i, path in enumerate(paths)]

    detector = FaceDetector()
    found = medians_of(
        {"ours": lambda: rate_of_workers(jobs), "one": lambda: rate_alone(jobs[:_ALIGNED_ALONE], detector)}
    )
    return [
        row(
            what,
            against,
            found["ours"] / found["one"],
            wanted=wanted,
            pictures_per_second=found["ours"],
            against_per_second=found["one"],
        )
    ]


def rate_of_workers(jobs: list[face_alignment.Job]) -> float:
    """Pictures per second of face_alignment.py, after each worker's first chunk."""
    chunks = [jobs[i : i + _CHUNK] for i in range(0, len(jobs), _CHUNK)]
    workers = default_workers()
    settings = face_alignment.Settings(TEMPLATE_SIZE, "largest", "cpu")
    done = map_unordered(
        face_alignment.align_chunk,
        chunks,
        workers=workers,
        initializer=face_alignment.start_worker,
        arguments=(settings,),
    )
    times = [time.perf_counter() for _ in done]
    return _CHUNK * (len(times) - 1 - workers) / (times[-1] - times[workers])


def rate_alone(jobs: list[face_alignment.Job], detector: FaceDetector) -> float:
    """Pictures per second of one process of two threads."""
    torch.set_num_threads(2)
    begin = time.perf_counter()
    for job in jobs:
        picture = read_rgb(job.source)
        matrix, _ = detector.align(picture, "largest")
        if matrix is not None:
            write_picture(job.target, warp(picture, matrix, TEMPLATE_SIZE))
    return len(jobs) / (time.perf_counter() - begin)


class Parts(NamedTuple):
    """Seconds that the parts of a prediction take."""

    align: float
    correct: float
    encode: float
    regress: float


@torch.inference_mode()
def predict_timed(predictor: Predictor, photo: np.ndarray) -> Parts:
    """Predict a photo as `Predictor.predict` does, but for the reconstruction."""
    times = [time.perf_counter()]
    matrix, _ = predictor.detector.align(photo, "largest")
    if matrix is None:
        matrix = alignment_transform(np.full((5, 2), 9.0) * np.arange(5)[:, None], TEMPLATE_SIZE)  # somewhere
    times.append(time.perf_counter())
    matrix = predictor.correct(photo, matrix)
    times.append(time.perf_counter())
    latent = predictor.encode([warp(photo, matrix, TEMPLATE_SIZE)])
    times.append(time.perf_counter())
    predictor.regressor(latent)
    times.append(time.perf_counter())
    return Parts(*np.diff(times).tolist())


def prediction(bench: Bench) -> list[Row]:
    """The time from a photo to its parameters."""
    against = "0.15 s"
    if bench.photos is None:
        return [row("prediction of one photo, CPU: 0.15 s over its time", against, None, wanted=1.0)]
    torch.set_num_threads(default_workers())
    photos = [read_rgb(path) for path in find_pictures(bench.photos)[:400:40]]

    rows = []
    for path in (DEFAULT_CONFIG, _FULL_SIZE):
        config = write_untrained_run(bench.folder / path.stem, load(path))
        predictor = Predictor.load(config.run_folder)
        measured = [predict_timed(predictor, photo) for photo in photos * _REPEATS]
        total = statistics.median(sum(parts) for parts in measured)
        seconds = {}
        for i, part in enumerate(Parts._fields):
            seconds[f"{part}_seconds"] = statistics.median(parts[i] for parts in measured)
        what = f"prediction of one photo, networks of configs/{path.name}, CPU: 0.15 s over its time"
        rows.append(row(what, against, 0.15 / total, wanted=1.0, seconds=total, **seconds))
    return rows


# --- writing ----------------------------------------------------------------------------------------

#: Faces of a small and of a large data set: the small one's cost is taken for start-up, hair of all styles included.
_WRITTEN_FEW, _WRITTEN_MANY = 160, 640


def faces_per_cpu_second(bench: Bench, *options: str) -> float:
    """Faces of MakeHuman per CPU second of `python -m games write`, at 128 px, files included, start-up left out."""

    def seconds(count: int) -> float:
        with tempfile.TemporaryDirectory(dir=bench.folder) as place:
            written = ("--output", "faces", "--count", count, "--size", 128, *options)
            return run(command("games", *written), Path(place))

    found = medians_of({"few": lambda: seconds(_WRITTEN_FEW), "many": lambda: seconds(_WRITTEN_MANY)})
    return (_WRITTEN_MANY - _WRITTEN_FEW) / (found["many"] - found["few"])


def writing(bench: Bench) -> list[Row]:
    """The writer of data sets: renders, and renders with their variants."""
    rows = []
    for what, options, wanted in (("renders", ["--no-variants"], 50.0), ("renders and their variants", [], 22.0)):
        rate = faces_per_cpu_second(bench, *options)
        rows.append(
            row(f"writing {what} of MakeHuman at 128 px", "faces per CPU second of one core", rate, wanted=wanted)
        )
    return rows


# --- growth -----------------------------------------------------------------------------------------


def growth_of(bench: Bench, *, alignment: bool) -> list[Row]:
    """Whether the cost per face grows with a data set."""
    rows = []
    for growth in cost_growth(bench.folder, alignment=alignment):
        rows.append(
            row(
                f"cost growth of {growth.script}: CPU seconds per face at {growth.few:,} faces",
                f"at {growth.many:,} faces",
                growth.ratio,
                wanted=0.9,
                milliseconds_at_few=1000 * growth.seconds_at_few,
                milliseconds_at_many=1000 * growth.seconds_at_many,
                start_seconds=growth.start_seconds,
            )
        )
    return rows


def growth(bench: Bench) -> list[Row]:
    """Of the four scripts that data sets go through."""
    return growth_of(bench, alignment=False)


def growth_of_alignment(bench: Bench) -> list[Row]:
    """Of face_alignment.py."""
    return growth_of(bench, alignment=True)


# --- the script -------------------------------------------------------------------------------------

ROWS: dict[str, Callable[[Bench], list[Row]]] = {
    "extraction": extraction,
    "stage_1": stage_1,
    "stage_2": stage_2,
    "alignment": alignment,
    "prediction": prediction,
    "stage_1_cuda": stage_1_on_cuda,
    "extraction_cuda": extraction_on_cuda,
    "writing": writing,
    "growth": growth,
    "growth_alignment": growth_of_alignment,
}

#: What of a processor decides how fast it computes.
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def processor() -> str:
    """The processor in words."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return name
    facts = dict(line.replace("\t", "").split(": ", 1) for line in lines if ": " in line)
    flags = [flag for flag in _FLAGS if flag in facts.get("flags", "").split()]
    model = f"(family {facts.get('cpu family')}, model {facts.get('model')})"
    return f"{facts.get('model name', name)} {model}, {' '.join(flags)}"


def machine() -> str:
    """The machine in words."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{default_workers()} cores of {processor()}; {gpu}; torch {torch.__version__}; "
        f"{torch.get_num_threads()} threads; {platform.system()}"
    )


def as_markdown(rows: list[Row]) -> str:
    """A Markdown table of the rows."""
    lines = ["| what | against | wanted | measured | behind it |", "|---|---|---|---|---|"]
    known = {"what", "against", "ratio", "wanted", "met"}
    for r in rows:
        measured = "not measured" if r["ratio"] is None else f"{r['ratio']:g}"
        if r["met"] is False:
            measured += " (missed)"
        wanted = "–" if r["wanted"] is None else r["wanted"]
        behind = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in r.items() if key not in known)
        lines.append(f"| {r['what']} | {r['against']} | {wanted} | {measured} | {behind} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=ROWS, metavar="NAME", help=f"measure these alone: {', '.join(ROWS)}"
    )
    parser.add_argument("--photos", type=Path, help="folder of photos for alignment and prediction")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    if options.photos is not None and not (options.photos.is_dir() and find_pictures(options.photos)):
        raise UserError(f"--photos {options.photos} is no folder with pictures")

    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only or ROWS:
            place = Path(folder) / name
            place.mkdir()
            rows += ROWS[name](Bench(place, options.photos))
            print(as_markdown(rows).splitlines()[-1], flush=True)

    today = time.strftime("%Y-%m-%d")
    print(f"\n{machine()}, {today}\n\n{as_markdown(rows)}")
    if options.json:
        write_json(options.json, {"machine": machine(), "date": today, "rows": rows})


if __name__ == "__main__":
    run_script(main)
