"""Where and how a script computes: device, precision, several processes, seeds."""

import atexit
import os
import random
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from utils.config import RunConfig
from utils.errors import UserError
from utils.workers import default_workers


class Engine(NamedTuple):
    """Where and how a script computes."""

    device: torch.device
    dtype: torch.dtype  #: of the networks' arithmetic
    rank: int = 0  #: of this process, 0 … world − 1
    world: int = 1  #: processes that work together

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def autocast(self) -> AbstractContextManager:
        """A context in which networks compute in `dtype`."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def sum_over_processes(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def mean_over_processes(self, values: Tensor) -> Tensor:
        """The mean of a tensor over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(values)
            values /= self.world
        return values

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.world > 1:
            dist.barrier()


def start_engine(run: RunConfig) -> Engine:
    """Choose device and precision, join the other processes of torchrun, seed everything.

    Raises:
        UserError: CUDA asked for and absent, a precision that the device cannot do, a broken environment of torchrun.
    """
    rank, world, local = (_environment_number(name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    world = max(1, world)
    if world > 1 and not all(os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT", "RANK")):
        raise UserError(
            f"WORLD_SIZE is {world}, but MASTER_ADDR, MASTER_PORT or RANK is not set: several processes are started "
            "with torchrun. Use it, or unset WORLD_SIZE"
        )

    device = _choose_device(run.device, local)
    dtype = choose_dtype(run.precision, device)
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        # Otherwise its threads can abort the interpreter at exit.
        atexit.register(dist.destroy_process_group)

    if run.threads:
        torch.set_num_threads(run.threads)
    elif device.type == "cpu" and world == 1:
        torch.set_num_threads(default_workers())
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    seed_everything(run.seed)
    return Engine(device, dtype, rank, world)


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of "auto", "fp32", "bf16" or "fp16" on a device. Raises UserError for what it cannot do."""
    if precision == "auto":
        fast = _gpu_has_bf16(device) if device.type == "cuda" else _cpu_has_bf16()
        return torch.bfloat16 if fast else torch.float32
    if precision == "fp16" and device.type == "cpu":
        raise UserError('run.precision is "fp16", which needs a GPU; on a CPU use "bf16" or "fp32"')
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def compiled(network: nn.Module, wanted: bool) -> nn.Module:
    """The network through torch.compile where that is wanted and works here; else as it is, and that is said."""
    if not wanted:
        return network
    try:
        torch.compile(_double)(torch.ones(3, device=next(network.parameters()).device))
    except Exception as error:  # a missing compiler shows in many ways
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        print(f"torch.compile does not work here ({reason[:150]}); going on without it.")
        return network
    return torch.compile(network)  # type: ignore[return-value]


def seed_everything(seed: int) -> None:
    """Seed the generators of Python, NumPy and PyTorch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _environment_number(name: str) -> int:
    text = os.environ.get(name, "0")
    try:
        return int(text)
    except ValueError:
        raise UserError(
            f"the environment variable {name} is {text!r}; expected a number as torchrun sets it. "
            "Unset it, or start the script with torchrun"
        ) from None


def _choose_device(wanted: str, local_rank: int) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError(
            'run.device is "cuda" and no CUDA device is available. Use --set run.device=cpu, or install '
            "a driver and a build of PyTorch that see the GPU"
        )
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise UserError(f"LOCAL_RANK is {local_rank}, but {count} GPUs are here; start at most {count} processes")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def _gpu_has_bf16(device: torch.device) -> bool:
    # torch.cuda.is_bf16_supported() also says so of older ones, which emulate it.
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _cpu_has_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _double(x: Tensor) -> Tensor:
    return 2 * x + 1
