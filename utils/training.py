"""Set-up that the training scripts share: device, precision, seed, several processes, being stopped."""

import argparse
import atexit
import os
import random
import signal
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from utils import config as configuration
from utils.alignment import FRAME_SPREAD, TEMPLATE_SIZE
from utils.config import Config, RunConfig
from utils.errors import Interrupted, UserError
from utils.files import write_text
from utils.workers import default_workers


class Engine(NamedTuple):
    """Where and how a script computes."""

    device: torch.device
    dtype: torch.dtype      #: of the networks' arithmetic
    rank: int               #: of this process, 0 … world − 1
    world: int              #: processes that train together

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def autocast(self) -> AbstractContextManager:
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def sum_over_processes(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values


def parse_arguments(description: str) -> tuple[Config, argparse.Namespace]:
    """The options that the three training scripts share: --config, --set, --restart."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/creator.toml"), metavar="FILE",
                        help="experiment to run (default configs/creator.toml)")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE",
                        help="change one setting; may be given several times")
    parser.add_argument("--restart", action="store_true", help="start this step over instead of going on")
    options = parser.parse_args()
    return configuration.load(options.config, options.set), options


def start_engine(run: RunConfig) -> Engine:
    """Choose device and precision, join the other processes of torchrun, seed everything.

    Raises:
        UserError: CUDA asked for and absent, or a precision that the device cannot do.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if run.device == "cuda" and not torch.cuda.is_available():
        raise UserError("run.device is \"cuda\" and no CUDA device is available. Use --set run.device=cpu, or install "
                        "a driver and a build of PyTorch that see the GPU")
    use_cuda = run.device != "cpu" and torch.cuda.is_available()
    if use_cuda:
        local = int(os.environ.get("LOCAL_RANK", 0))
        torch.cuda.set_device(local)
        device = torch.device("cuda", local)
    else:
        device = torch.device("cpu")
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if use_cuda else "gloo")
        atexit.register(dist.destroy_process_group)  # its threads, still running at the very end, can abort a process that is done
    if run.threads:
        torch.set_num_threads(run.threads)
    elif not use_cuda and world == 1:
        torch.set_num_threads(default_workers())
    seed_everything(run.seed)
    if use_cuda:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not run.deterministic
        torch.backends.cudnn.benchmark = not run.deterministic
    if run.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    return Engine(device, choose_dtype(run.precision, device), rank, world)


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of "auto", "fp32", "bf16" or "fp16" on a device. Raises UserError for what it cannot do."""
    if precision == "auto":
        fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bf16()
        return torch.bfloat16 if fast else torch.float32
    if precision == "fp16" and device.type == "cpu":
        raise UserError("run.precision is \"fp16\", which needs a GPU; on a CPU use \"bf16\" or \"fp32\"")
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def compiled(network: nn.Module, wanted: bool) -> nn.Module:
    """The network through torch.compile where that is wanted and works here; else as it is, said aloud."""
    if not wanted:
        return network
    try:
        torch.compile(lambda x: x * 2 + 1)(torch.ones(3, device=next(network.parameters()).device))
    except Exception as error:  # a missing compiler shows in many ways
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        print(f"torch.compile does not work here ({reason[:150]}); going on without it.")
        return network
    return torch.compile(network)


def _cpu_has_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2 ** 32)
    torch.manual_seed(seed)


def decode_workers(wanted: int) -> int:
    """Processes that decode pictures, for `data.workers`."""
    return default_workers() if wanted < 0 else wanted


def epoch_order(indices: np.ndarray, batch_size: int, seed: int, epoch: int) -> np.ndarray:
    """The batches of an epoch, (steps, batch_size), a function of seed and epoch alone; the rest is left for others."""
    order = np.random.default_rng([seed, epoch]).permutation(indices)
    batch_size = min(batch_size, len(order))
    return order[:len(order) // batch_size * batch_size].reshape(-1, batch_size)


def noise_for(indices: Tensor, width: int, seed: int, epoch: int) -> Tensor:
    """Standard normal noise (B, width) for faces, drawn by face and epoch.

    It depends neither on how faces are batched nor on how many processes share them.
    """
    noise = np.empty((len(indices), width), np.float32)
    for row, index in enumerate(indices.tolist()):
        noise[row] = np.random.Generator(np.random.SFC64([seed, epoch, index])).standard_normal(width, np.float32)
    return torch.from_numpy(noise)


def as_input(pictures: Tensor) -> Tensor:
    """(B, 3, S, S) uint8 → float32 in [0, 1], channels last, as the networks take it."""
    return pictures.to(torch.float32, memory_format=torch.channels_last) / 255


def move_pictures(pictures: Tensor, frames: Tensor) -> Tensor:
    """Pictures (N, 3, S, S) moved by frames (N, 4), as `utils.alignment.frame_transform` would; what comes in from outside repeats the border."""
    log_scale, degrees, right, down = (frames * frames.new_tensor(FRAME_SPREAD)).unbind(1)
    angle = torch.deg2rad(degrees)
    cos, sin = torch.exp(-log_scale) * torch.cos(angle), torch.exp(-log_scale) * torch.sin(angle)
    # affine_grid asks where each place of the result comes from, in units of half a side: p = A⁻¹ (q − shift).
    inverse = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1)
    shift = torch.stack([right, down], 1)[:, :, None] * (2 / TEMPLATE_SIZE)
    grid = F.affine_grid(torch.cat([inverse, -inverse @ shift], 2), list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid.to(pictures.dtype), padding_mode="border", align_corners=False)


def announce(config: Config, script: str) -> None:
    """Print the resolved configuration and write it to the run folder."""
    text = configuration.to_toml(config)
    print(f"{script}: {config.run_folder}\n\n{text}", flush=True)
    write_text(config.run_folder / "config.toml", text)


def put_aside(folder: Path) -> None:
    """Keep the event files of a run that is started over, under another name."""
    if folder.exists():
        folder.rename(folder.with_name(f"{folder.name}.{time.strftime('%Y%m%d-%H%M%S')}.old"))


class StopRequest:
    """SIGTERM and Ctrl-C ask a loop to save and leave; a second Ctrl-C leaves at once.

    To be made right before a loop that looks at `requested`: until then a script ends where it is.
    """

    def __init__(self) -> None:
        self.requested = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: object) -> None:
        if self.requested and number == signal.SIGINT:
            print("\nLeaving at once; the last checkpoint stands.", file=sys.stderr, flush=True)
            os._exit(130)
        self.requested = True

    def leave(self, where: str) -> None:
        """Raise `Interrupted` with the sentence that ends the run."""
        raise Interrupted(f"Stopped and saved at {where}. The same command goes on from there.")
