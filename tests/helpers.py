"""What several tests use: the scripts in processes of their own or in this one, what a run left, small things."""

import importlib
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from utils.config import VAEConfig
from utils.errors import run_script
from utils.pictures import write_picture

ROOT = Path(__file__).resolve().parent.parent

SMOKE = ("--config", ROOT / "configs" / "smoke.toml", "--set", "data.workers=0", "--set", "run.threads=1")

TRAINING_SCRIPTS = ("vae_trainer.py", "extract_latentvec.py", "f2p_trainer.py")

# A shell that puts the tests in the background has them, and all that they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


# --- scripts --------------------------------------------------------------------------------------


def command_of(*arguments: object) -> list[str]:
    """`python ARGUMENTS` of the repository; the first argument is a script, or "-m"."""
    first, *rest = map(str, arguments)
    if first == "-m":
        return [sys.executable, "-m", *rest]
    return [sys.executable, str(ROOT / first), *rest]


def setting(*pairs: str) -> tuple[str, ...]:
    """Arguments that change settings, each given as TABLE.KEY=VALUE."""
    return tuple(word for pair in pairs for word in ("--set", pair))


def environment() -> dict[str, str]:
    """The environment of the scripts: modules of the repository, one thread."""
    return os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}


def run_command(
    *arguments: object, cwd: Path, check: bool = True, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS` of the repository in a folder of its own; with `check` it must succeed."""
    result = subprocess.run(
        command_of(*arguments), cwd=cwd, env=environment(), capture_output=True, text=True, timeout=timeout
    )
    if check:
        assert result.returncode == 0, result.stderr[-3000:]
    return result


def run_here(*arguments: object, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """What `run_command` does, in this process: to start Python and import PyTorch takes seconds."""
    first, *rest = map(str, arguments)
    name = rest.pop(0) if first == "-m" else first.removesuffix(".py")
    main = importlib.import_module(f"{name}.__main__" if name in ("games", "games.cards") else name).main
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    with _as_a_script([first, *rest], cwd), redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        try:
            run_script(main)
            status = 0
        except SystemExit as left:
            status = int(left.code or 0)
    out, err = (stream.buffer.getvalue().decode() for stream in streams)
    if check:
        assert status == 0, err[-3000:]
    return subprocess.CompletedProcess([first, *rest], status, out, err)


@contextmanager
def signals_put_back() -> Iterator[None]:
    """What signals do afterwards is what they did before."""
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _as_a_script(arguments: list[str], cwd: Path) -> Iterator[None]:
    """The command line, the folder and the environment of a script; everything is put back afterwards."""
    folder, before, threads, hook = Path.cwd(), sys.argv, torch.get_num_threads(), threading.excepthook
    variables = dict(os.environ)
    try:
        with signals_put_back():
            os.chdir(cwd)
            os.environ |= {"MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
            sys.argv = arguments
            yield
    finally:
        os.chdir(folder)
        os.environ.clear()
        os.environ |= variables
        sys.argv, threading.excepthook = before, hook
        torch.set_num_threads(threads)


def start_command(*arguments: object, cwd: Path, variables: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start `python ARGUMENTS` of the repository in a process group of its own; its output is piped.

    Args:
        variables: of the environment, beside `environment()`.
    """
    return subprocess.Popen(
        command_of(*arguments),
        cwd=cwd,
        env=environment() | (variables or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def start_together(*arguments: object, cwd: Path, processes: int) -> list[subprocess.Popen[str]]:
    """Start `python ARGUMENTS` as several processes that work together, as torchrun would, in the order of ranks."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in map(str, range(processes)):
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": str(processes)}
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        started.append(start_command(*arguments, cwd=cwd, variables=variables))
    return started


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120) -> None:
    """Wait for a condition that a running process brings about; the process must not end before."""
    begin = time.monotonic()
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() - begin < seconds, "it hangs"
        time.sleep(0.05)


def error_of(result: subprocess.CompletedProcess[str]) -> str:
    """The sentence of a script that refused: exit status 2 and no traceback."""
    assert result.returncode == 2, (result.returncode, result.stdout[-500:], result.stderr[-2000:])
    assert "Traceback" not in result.stderr
    return result.stderr


# --- what a run left behind -----------------------------------------------------------------------


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a folder: tag → (step, value)."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def temporaries(folder: Path) -> list[Path]:
    """What killed writers left half written, in a folder and below it."""
    return list(folder.rglob(".*.f2p-tmp"))


def times_of(paths: list[Path]) -> dict[Path, int]:
    """When files were changed last, in nanoseconds."""
    return {path: path.stat().st_mtime_ns for path in paths}


def same(a: Any, b: Any) -> bool:
    """Whether two values of a checkpoint are equal, tensors bit by bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


# --- small things ---------------------------------------------------------------------------------


def small_vae(stages: int = 3, **changes: Any) -> VAEConfig:
    """Settings of a VAE with eight channels per stage and a vector of six numbers, unless `changes` say otherwise."""
    widths = (8,) * stages
    small = {"encoder_channels": widths, "decoder_channels": widths, "latent_dim": 6, "bottleneck": 4, "spatial": False}
    return VAEConfig(**(small | changes))


def plain_picture(path: Path, colour: tuple[int, int, int] = (200, 100, 50), side: int = 40) -> None:
    """Write a square picture of one colour."""
    write_picture(path, np.full((side, side, 3), colour, np.uint8))


def random_pictures(folder: Path, count: int, side: int = 32) -> None:
    """Write pictures of noise, the same ones for the same count: 0000.png and so on."""
    rng = np.random.default_rng(count)
    for i in range(count):
        write_picture(folder / f"{i:04d}.png", rng.integers(0, 255, (side, side, 3), dtype=np.uint8))
