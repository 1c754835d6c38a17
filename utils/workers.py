"""Workers that use one thread each: processes that leave when their parent does, and threads."""

import math
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def default_workers() -> int:
    """As many workers as this process may use cores: by affinity, a container's limit and OMP_NUM_THREADS."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [allowed, _container_cores()]
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        limits.append(int(asked))
    return max(1, min(limit for limit in limits if limit is not None))


def decode_workers(wanted: int) -> int:
    """Processes that decode pictures, for the setting `data.workers`: below 0 one per core."""
    return default_workers() if wanted < 0 else wanted


def map_unordered(
    function: Callable[[Any], Any],
    tasks: Iterable[Any],
    *,
    workers: int,
    initializer: Callable[..., None],
    arguments: tuple = (),
) -> Generator[Any, None, None]:
    """Yield `function(task)` for all tasks, in whatever order they finish.

    Only a few tasks wait at a time, so `tasks` may be long.

    Args:
        workers: processes of one thread each; with 0 everything happens in this process.
        initializer: called with `arguments` once in each process that works.
    """
    if workers <= 0:
        initializer(*arguments)
        yield from map(function, tasks)
        return

    with _one_thread_each():
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, context, _start_worker, (initializer, arguments))
        try:
            remaining = iter(tasks)
            pending = {pool.submit(function, task) for task in islice(remaining, 3 * workers)}
            while pending:
                # Take what is done, and hand out as many new tasks.
                finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                pending |= {pool.submit(function, task) for task in islice(remaining, len(finished))}
                for future in finished:
                    yield future.result()
        finally:
            _end(pool)


def map_in_threads(
    function: Callable[[Any], Any],
    tasks: Iterable[Any],
    *,
    workers: int,
    initializer: Callable[..., object] | None = None,
    arguments: tuple = (),
) -> Generator[Any, None, None]:
    """Yield `function(task)` for all tasks, in their order, computed by threads of this process.

    For work that spends its time in PyTorch, OpenCV and the like, which let other threads run meanwhile. Only a few
    tasks are taken ahead of their use.

    Args:
        workers: threads.
        initializer: called with `arguments` once in each thread.
    """
    pending: deque[Future] = deque()
    with ThreadPoolExecutor(workers, initializer=initializer, initargs=arguments) as pool:
        try:
            for task in tasks:
                pending.append(pool.submit(function, task))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def leave_with_parent(*_: Any) -> None:
    """In a worker: let the parent handle Ctrl-C, and end as soon as the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _start_worker(initializer: Callable[..., None], arguments: tuple) -> None:
    leave_with_parent()
    initializer(*arguments)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Libraries read these variables when a worker loads them."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _end(pool: ProcessPoolExecutor) -> None:
    """Wait for a pool's processes to finish what they are at, undisturbed.

    A second Ctrl-C or SIGTERM in the middle of this would leave them, and so this process, waiting for ever.
    """
    if threading.current_thread() is not threading.main_thread():
        pool.shutdown(wait=True, cancel_futures=True)
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    pool.shutdown(wait=True, cancel_futures=True)
    for number, handler in before.items():
        signal.signal(number, handler or signal.SIG_DFL)


def _container_cores() -> int | None:
    """Cores that a container's CPU limit amounts to, rounded up; None where there is no limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        return None
