"""How fast each step is, beside what it is measured against, in one run on one machine.

    python -m benchmarks.speed [--only NAME …] [--photos DIR] [--json FILE]

Comparisons alternate between their sides and give medians; warm-up is left out. Only whole epochs of stage 2 are
trained once on each side. Everything runs on
data that the creator makes and on untrained networks of the real size: speed does not depend on weights.
Rows that need a CUDA device, or photos, say "not measured" where there are none. See also benchmarks.scale.
"""

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

import face_alignment
from benchmarks.scale import cost_growth
from datasets.creator import NAMES, write_data_set
from datasets.faces import root_sources, vae_pictures
from datasets.hs_face import Parameter
from datasets.latents import LatentSet
from datasets.pictures import Batch, Pictures
from extract_latentvec import encode_source
from f2p_trainer import Trainer as RegressorTrainer
from models.build import build_regressor, build_vae
from models.mtcnn import FaceDetector
from models.vae import Encoder, fold_batch_norm
from predict import corrected_alignment, encode_aligned
from utils.alignment import alignment_transform, warp
from utils.config import Config, load
from utils.errors import UserError, run_script
from utils.files import write_json
from utils.metrics import parameter_metrics
from utils.pictures import find_pictures, read_rgb, write_picture
from utils.training import StopRequest, as_input, choose_dtype, start_engine
from utils.workers import default_workers, map_unordered

_REPEATS = 3
_ROOT = Path(__file__).resolve().parent.parent


def row(what: str, against: str, ratio: float | None, wanted: float | None, medians: dict[str, float | str] | None = None,
        **more: float | str) -> dict[str, Any]:
    """A row of the table; `wanted` is the least good ratio, None where the figure is only reported."""
    return {"what": what, "against": against, "ratio": None if ratio is None else round(ratio, 3), "wanted": wanted,
            "met": None if ratio is None or wanted is None else ratio >= wanted,
            **{k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in ((medians or {}) | more).items()}}


def medians_of(sides: dict[str, Callable[[], float]], repeats: int = _REPEATS) -> dict[str, float]:
    """Measure every side in turn, several times over; the median of each."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, measure in sides.items():
            found[name].append(measure())
    return {name: statistics.median(values) for name, values in found.items()}


class Bench:
    """What the rows share: a folder for their files, the device, photos."""

    def __init__(self, folder: Path, photos: Path | None) -> None:
        self.folder, self.photos = folder, photos
        self.engine = start_engine(Config().run)
        self.device = self.engine.device
        self.full = load(_ROOT / "configs" / "hs_face.toml")

    def faces(self, count: int, size: int) -> Path:
        root = self.folder / f"faces_{size}"
        write_data_set(root, count, 0, size, False, default_workers())
        return root

    def synchronise(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


# --- extraction -----------------------------------------------------------------------------------

_original: Encoder | None = None


def _start_original(config: Config) -> None:
    global _original
    torch.set_num_threads(1)
    _original = build_vae(config).encoder.eval()


def _encode_one_by_one(job: tuple[list[str], str]) -> int:
    paths, output = job
    with torch.no_grad():
        for path in paths:
            picture = torch.from_numpy(read_rgb(Path(path))).permute(2, 0, 1)[None].float() / 255
            np.save(Path(output) / f"{Path(path).stem}.npy", torch.cat(_original(picture), 1).numpy())
    return len(paths)


class _Clock:
    """Stands in for the array on disk and notes when rows arrive."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.rows, self.note, self.times = array, 0, {}, []

    def append(self, rows: np.ndarray) -> None:
        self.array[self.rows:self.rows + len(rows)] = rows
        self.rows += len(rows)
        self.times.append((self.rows, time.perf_counter()))

    def commit(self, note: dict) -> None:
        self.array.flush()

    def rate(self) -> float:
        """Rows a second after the first batch, which waits for processes to start."""
        (first, begin), (last, end) = self.times[0], self.times[-1]
        return (last - first) / (end - begin)


def extraction(bench: Bench) -> list[dict[str, Any]]:
    config, count = bench.full, 320
    source, split = (of[0] for of in root_sources(bench.faces(count, config.data.image_size)))
    encoder = fold_batch_norm(build_vae(config).encoder.eval()).to(memory_format=torch.channels_last)
    cpu = bench.engine._replace(device=torch.device("cpu"))
    dtype = choose_dtype("auto", cpu.device)
    stop = StopRequest()

    def original() -> float:
        output = bench.folder / "one_by_one"
        output.mkdir(exist_ok=True)
        jobs = [([str(p) for p in source.paths[i:i + 4]], str(output)) for i in range(0, 96, 4)]
        times = [time.perf_counter() for _ in map_unordered(_encode_one_by_one, jobs, 2, _start_original, (config,))]
        return 4 * (len(times) - 3) / (times[-1] - times[2])

    def ours() -> float:
        clock = _Clock(np.lib.format.open_memmap(bench.folder / "rows.npy", "w+", np.float32, (count, 2 * config.vae.latent_dim)))
        encode_source(encoder.to(dtype), Pictures([source], [split], config.data.image_size, None, 0), range(count), clock, cpu, batch_size,
                      stop, "speed")
        return clock.rate()

    @torch.inference_mode()
    def alone(size: int, precision: torch.dtype) -> float:
        ready = torch.randint(0, 256, (size, 3, config.data.image_size, config.data.image_size), dtype=torch.uint8)
        encoder.to(precision)(as_input(ready))
        begin, done = time.perf_counter(), 0
        while time.perf_counter() - begin < 4:
            encoder(as_input(ready))
            done += size
        return done / (time.perf_counter() - begin)

    rates = {(size, kind): alone(size, kind) for size in (1, 8, 32) for kind in {torch.float32, dtype}}
    best = max(rates, key=rates.get)
    batch_size, dtype = best  # latents.batch_size and latents.precision, as a person would set them
    found = medians_of({"original": original, "ours": ours, "alone": lambda: alone(*best)})
    about = {"pictures_per_second": found["ours"], "precision": str(dtype).removeprefix("torch."), "batch": batch_size}
    return [row("extraction at 256 px, full-size encoder, PNG files, CPU", "batch 1, fp32, two processes of one thread",
                found["ours"] / found["original"], 2.0, **about, against_per_second=found["original"]),
            row("extraction at 256 px, full-size encoder, PNG files, CPU", "the encoder alone on ready tensors, at its best",
                found["ours"] / found["alone"], 0.9, **about, against_per_second=found["alone"])]


def extraction_on_cuda(bench: Bench) -> list[dict[str, Any]]:
    what = ("extraction at 256 px, full-size encoder, from the cache, CUDA", "pictures a second")
    if bench.device.type != "cuda":
        return [row(*what, None, 20_000)]
    config, count = bench.full, 2048
    source, split = (of[0] for of in root_sources(bench.faces(count, config.data.image_size)))
    pictures = Pictures([source], [split], config.data.image_size, bench.folder / "cache", default_workers())
    encoder = fold_batch_norm(build_vae(config).encoder.eval()).to(bench.device, memory_format=torch.channels_last)
    many = np.resize(np.arange(count), 16 * count)

    @torch.inference_mode()
    def rate() -> float:
        chunks = [many[i:i + 512] for i in range(0, len(many), 512)]
        begin = bench.synchronise()
        for batch in pictures.batches(chunks, bench.device):
            with bench.engine.autocast():
                torch.cat(encoder(as_input(batch.pictures)), 1).float().cpu()
        return len(many) / (bench.synchronise() - begin)

    rate()
    found = statistics.median(rate() for _ in range(_REPEATS))
    return [row(*what, found, 20_000, pictures_per_second=found)]


# --- stage 1 --------------------------------------------------------------------------------------

def stage_1(bench: Bench) -> list[dict[str, Any]]:
    from vae_trainer import Trainer
    config = load(_ROOT / "configs" / "creator.toml")
    root = bench.faces(1600, config.data.image_size)
    config = replace(config, data=replace(config.data, root=str(root), cache=str(bench.folder / "cache")))
    trainer = Trainer(config, bench.engine, vae_pictures(config, default_workers()))
    order = trainer.train[:len(trainer.train) // 64 * 64].reshape(-1, 64)
    trainer.model.train()
    held: list[Batch] = list(trainer.pictures.batches(order[:1], bench.device))

    def with_files() -> float:
        begin = bench.synchronise()
        for batch in trainer.pictures.batches(order, bench.device):
            trainer.train_step(batch)
        return order.size / (bench.synchronise() - begin)

    def on_one_batch() -> float:
        begin = bench.synchronise()
        for _ in order:
            trainer.train_step(held[0])
        return order.size / (bench.synchronise() - begin)

    with_files()
    found = medians_of({"files": with_files, "ready": on_one_batch}, 5)
    return [row(f"stage 1 step with real files, configs/creator.toml, {bench.device.type}", "the same step on one ready batch",
                found["files"] / found["ready"], 0.95, images_per_second=found["files"], against_per_second=found["ready"],
                precision=str(bench.engine.dtype).removeprefix("torch."))]


def stage_1_on_cuda(bench: Bench) -> list[dict[str, Any]]:
    what = ("stage 1 at 256 px, full-size networks, CUDA", "the nearer of its matrix and memory bounds")
    if bench.device.type != "cuda":
        return [row(*what, None, 0.4)]
    config = replace(bench.full, vae=replace(bench.full.vae, lpips_weight=0.0, batch_size=128), run=replace(bench.full.run, compile=True))
    root = bench.faces(256, config.data.image_size)
    config = replace(config, data=replace(config.data, root=str(root), folders=(), cache=str(bench.folder / "cache")))
    return [row(*what, *share_of_bound(bench, config))]


def share_of_bound(bench: Bench, config: Config, size: int = 8192, steps: int = 20) -> tuple[float, float, dict[str, float]]:
    """How near a training step comes to what its arithmetic and its memory traffic allow at least.

    The arithmetic is counted operation by operation, forward and backward, against the rate of one large matrix
    product. The traffic counts each layer's inputs, outputs and weights once forward and twice backward, against
    the rate of a large copy.

    Args:
        size: side of the matrices.
    """
    from vae_trainer import Trainer
    trainer = Trainer(config, bench.engine, vae_pictures(config, default_workers()))
    trainer.model.train()
    batch = next(trainer.pictures.batches([np.resize(trainer.train, config.vae.batch_size)], bench.device))
    matrix = torch.randn(size, size, device=bench.device, dtype=bench.engine.dtype)
    large = torch.empty(size * size * 8, device=bench.device, dtype=torch.uint8)
    target = torch.empty_like(large)

    def seconds(work: Callable[[], object]) -> float:
        for _ in range(3):
            work()
        begin = bench.synchronise()
        for _ in range(steps):
            work()
        return (bench.synchronise() - begin) / steps

    traffic = [0]

    def count(module: nn.Module, inputs: tuple, output: Any) -> None:
        tensors = [t for t in (*inputs, *(output if isinstance(output, tuple) else (output,)), *module.parameters()) if isinstance(t, Tensor)]
        traffic[0] += sum(t.numel() for t in tensors) * bench.engine.dtype.itemsize

    plain = Trainer(replace(config, run=replace(config.run, compile=False)), bench.engine, trainer.pictures)
    plain.model.train()
    hooks = [m.register_forward_hook(count) for m in plain.model.modules() if not list(m.children())]
    with FlopCounterMode(display=False) as counter:
        plain.train_step(batch)
    for hook in hooks:
        hook.remove()
    peak = 2 * size ** 3 / seconds(lambda: matrix @ matrix)
    bandwidth = 2 * large.numel() / seconds(lambda: target.copy_(large))
    step = seconds(lambda: trainer.train_step(batch))
    by_matrix, by_memory = counter.get_total_flops() / peak, 3 * traffic[0] / bandwidth
    return max(by_matrix, by_memory) / step, 0.4, {
        "step_seconds": step, "images_per_second": config.vae.batch_size / step, "matrix_bound_seconds": by_matrix, "memory_bound_seconds": by_memory,
        "peak_flops": peak, "bytes_per_second": bandwidth}


# --- stage 2 --------------------------------------------------------------------------------------

class _OneFileAFace(Dataset):
    def __init__(self, folder: Path, labels: np.ndarray) -> None:
        self.paths, self.labels = sorted(folder.glob("*.npy")), torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(np.load(self.paths[i])), self.labels[i]


def stage_2(bench: Bench) -> list[dict[str, Any]]:
    """20,000 faces with latents of 2,048 numbers, whose parameters follow from them by a fixed nonlinear law and noise."""
    count, dimensions, epochs = 20_000, 1024, 4
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((count + 2000, 2 * dimensions), np.float32)
    law = rng.standard_normal((2 * dimensions, len(NAMES)), np.float32) * (rng.random((2 * dimensions, 1)) < 0.05) / 8
    labels = (1 / (1 + np.exp(-latents @ law)) + 0.05 * rng.standard_normal((len(latents), len(NAMES)))).clip(0, 1).astype(np.float32)
    split = np.array(["train"] * count + ["val"] * 1000 + ["test"] * 1000)
    parameters = [Parameter(name, "all", "slider", 0.0, 1.0, "") for name in NAMES]
    faces = LatentSet([str(i) for i in range(len(latents))], latents, latents, np.zeros(len(latents), bool), labels, split, parameters,
                      {"fingerprint": ""})
    folder = bench.folder / "one_file_a_face"
    folder.mkdir()
    for i in range(count):
        np.save(folder / f"{i:06d}.npy", latents[i])
    loader = DataLoader(_OneFileAFace(folder, labels[:count]), 32, shuffle=True, num_workers=2)
    base = Config()
    names, groups = [p.name for p in parameters], [p.group for p in parameters]

    def trainer(batch_size: int, rate: float) -> RegressorTrainer:
        return RegressorTrainer(replace(base, f2p=replace(base.f2p, batch_size=batch_size, learning_rate=rate, epochs=epochs)), bench.engine, faces)

    ours = trainer(256, 4e-4)

    def batches_of_files() -> float:
        begin = bench.synchronise()
        for x, y in loader:
            x.to(bench.device), y.to(bench.device)
        return bench.synchronise() - begin

    def batches_of_ours() -> float:
        begin = bench.synchronise()
        order = torch.randperm(count, device=bench.device)
        for rows in order.split(ours.batch_size):
            ours.draw_latents(rows, ours.latents, None), ours.labels.index_select(0, rows)
        return bench.synchronise() - begin

    got = medians_of({"files": batches_of_files, "ours": batches_of_ours})

    def train_from_files() -> tuple[float, float]:
        """Seconds an epoch and the final R² of the original's loop: a file a face, batches of 32."""
        model = build_regressor(base, dimensions, len(NAMES)).to(bench.device)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader))
        begin = bench.synchronise()
        for _ in range(epochs):
            for x, y in loader:
                loss = F.mse_loss(model(x.to(bench.device)), y.to(bench.device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        seconds = (bench.synchronise() - begin) / epochs
        with torch.inference_mode():
            predicted = model.eval()(torch.from_numpy(latents[split == "test"]).to(bench.device)).cpu().numpy()
        return seconds, parameter_metrics(labels[split == "test"], predicted, names, groups)["r2"]

    def train_ours() -> tuple[float, float]:
        model = trainer(256, 4e-4)
        begin = bench.synchronise()
        for model.epoch in range(epochs):
            model.train_epoch()
        return (bench.synchronise() - begin) / epochs, model.evaluate("test")["r2"]

    torch.manual_seed(0)
    file_seconds, file_r2 = train_from_files()
    our_seconds, our_r2 = train_ours()
    device = bench.device.type
    return [row(f"stage 2, getting the batches of an epoch of 20,000 faces, {device}", "a file a face, DataLoader of 2 workers, batch 32",
                got["files"] / got["ours"], 100.0, seconds=got["ours"], against_seconds=got["files"]),
            row(f"stage 2, whole epoch, batch 256, {device}", "the same from files, batch 32", file_seconds / our_seconds,
                30.0 if device == "cuda" else None, seconds=our_seconds, against_seconds=file_seconds, test_r2=our_r2, against_test_r2=file_r2)]


# --- photos ---------------------------------------------------------------------------------------

def alignment(bench: Bench) -> list[dict[str, Any]]:
    what = ("alignment of photos, CPU", "one picture at a time, one process of two threads")
    if bench.photos is None:
        return [row(*what, None, 1.6)]
    paths = find_pictures(bench.photos)
    paths = paths[::max(1, len(paths) // 240)][:240]
    output = bench.folder / "aligned"
    jobs = [face_alignment.Job(p.name, p, output / f"{i}.png") for i, p in enumerate(paths)]

    def ours() -> float:
        chunks = [jobs[i:i + 8] for i in range(0, len(jobs), 8)]
        times = []
        for _ in map_unordered(face_alignment.align, chunks, default_workers(), face_alignment._start_worker, (256, "largest", "cpu")):
            times.append(time.perf_counter())
        return 8 * (len(times) - 1 - default_workers()) / (times[-1] - times[default_workers()])

    detector = FaceDetector()

    def one_by_one() -> float:
        torch.set_num_threads(2)
        begin = time.perf_counter()
        for job in jobs[:120]:
            picture = read_rgb(job.source)
            faces = detector.find(picture)
            if len(faces.scores):
                write_picture(job.target, warp(picture, alignment_transform(faces.points[faces.largest].astype(np.float64), 256), 256))
        return 120 / (time.perf_counter() - begin)

    found = medians_of({"ours": ours, "one": one_by_one})
    return [row(*what, found["ours"] / found["one"], 1.6, pictures_per_second=found["ours"], against_per_second=found["one"])]


def prediction(bench: Bench) -> list[dict[str, Any]]:
    if bench.photos is None:
        return [row("prediction of one photo, CPU: 0.15 s over its time", "0.15 s", None, 1.0)]
    torch.set_num_threads(default_workers())
    detector = FaceDetector()
    pictures = [read_rgb(p) for p in find_pictures(bench.photos)[:400:40]]
    rows = []
    for title, config in (("configs/creator.toml", load(_ROOT / "configs" / "creator.toml")), ("configs/hs_face.toml", bench.full)):
        encoder = fold_batch_norm(build_vae(config).encoder.eval())
        regressor = build_regressor(config, config.vae.latent_dim, 205).eval()
        size, parts = config.data.image_size, {"align": [], "correct": [], "encode": [], "regress": []}
        encode = lambda aligned: encode_aligned(encoder, aligned, size)
        for picture in pictures * _REPEATS:
            times = [time.perf_counter()]
            faces = detector.find(picture)
            points = faces.points[faces.largest] if len(faces.scores) else np.full((5, 2), 9.0) * np.arange(5)[:, None]
            matrix = alignment_transform(points.astype(np.float64), 256)
            times.append(time.perf_counter())
            matrix = corrected_alignment(picture, matrix, encode, regressor)
            times.append(time.perf_counter())
            with torch.inference_mode():
                latent = encode([warp(picture, matrix, 256)])
                times.append(time.perf_counter())
                regressor(latent)
            times.append(time.perf_counter())
            for part, begin, end in zip(parts, times, times[1:]):
                parts[part].append(end - begin)
        seconds = {part: statistics.median(values) for part, values in parts.items()}
        total = statistics.median(map(sum, zip(*parts.values())))
        rows.append(row(f"prediction of one photo, networks of {title}, CPU: 0.15 s over its time", "0.15 s", 0.15 / total, 1.0,
                        seconds=total, **{f"{part}_seconds": value for part, value in seconds.items()}))
    return rows


ROWS: dict[str, Callable[[Bench], list[dict[str, Any]]]] = {
    "extraction": extraction, "stage_1": stage_1, "stage_2": stage_2, "alignment": alignment, "prediction": prediction,
    "stage_1_cuda": stage_1_on_cuda, "extraction_cuda": extraction_on_cuda, "growth": lambda bench: cost_growth(bench.folder, row, False),
    "growth_alignment": lambda bench: cost_growth(bench.folder, row, True)}


def machine() -> str:
    """The machine in words."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        facts = dict(line.replace("\t", "").split(": ", 1) for line in lines if ": " in line)
        name = f"{facts.get('model name', name)} (family {facts.get('cpu family')}, model {facts.get('model')})"
        flags = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in facts.get("flags", "").split()]
        name += f", {' '.join(flags)}"
    except OSError:
        pass
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{default_workers()} cores of {name}; {gpu}; torch {torch.__version__}; {torch.get_num_threads()} threads; {platform.system()}"


def as_markdown(rows: list[dict[str, Any]]) -> str:
    lines = ["| what | against | wanted | measured | behind it |", "|---|---|---|---|---|"]
    known = {"what", "against", "ratio", "wanted", "met"}
    for r in rows:
        measured = "not measured" if r["ratio"] is None else f"{r['ratio']:g}" + {True: "", False: " (missed)", None: ""}[r["met"]]
        behind = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in r.items() if k not in known)
        lines.append(f"| {r['what']} | {r['against']} | {'–' if r['wanted'] is None else r['wanted']} | {measured} | {behind} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="NAME", help=f"measure these alone: {', '.join(ROWS)}")
    parser.add_argument("--photos", type=Path, help="folder of photos for alignment and prediction")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    if options.photos is not None and not (options.photos.is_dir() and find_pictures(options.photos)):
        raise UserError(f"--photos {options.photos} is no folder with pictures")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only or ROWS:
            sub = Path(folder) / name
            sub.mkdir()
            rows += ROWS[name](Bench(sub, options.photos))
            print(as_markdown(rows).splitlines()[-1], flush=True)
    print(f"\n{machine()}, {time.strftime('%Y-%m-%d')}\n\n{as_markdown(rows)}")
    if options.json:
        write_json(options.json, {"machine": machine(), "date": time.strftime("%Y-%m-%d"), "rows": rows})


if __name__ == "__main__":
    run_script(main)
