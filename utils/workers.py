"""Workers that use one thread each: processes that leave when their parent does, and threads."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from typing import Any

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def default_workers() -> int:
    """As many workers as this process may use cores."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_unordered(function: Callable[[Any], Any], tasks: Iterable[Any], workers: int,
                  initializer: Callable[..., None], arguments: tuple = ()) -> Iterator[Any]:
    """Yield `function(task)` for all tasks, in whatever order they finish.

    `initializer(*arguments)` runs once in each process that works. With one worker or none
    everything happens in this process. Only a few tasks wait at a time, so `tasks` may be long.
    """
    if workers <= 1:
        initializer(*arguments)
        yield from map(function, tasks)
        return
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)  # libraries read these when a worker loads them
    try:
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker, (initializer, arguments))
        try:
            tasks = iter(tasks)
            pending = set()
            exhausted = False
            while pending or not exhausted:
                while not exhausted and len(pending) < 3 * workers:
                    try:
                        pending.add(pool.submit(function, next(tasks)))
                    except StopIteration:
                        exhausted = True
                finished, pending = wait(pending, return_when=FIRST_COMPLETED) if pending else (set(), pending)
                for future in finished:
                    yield future.result()
        finally:
            _end(pool)
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def _end(pool: ProcessPoolExecutor) -> None:
    """Wait for a pool's processes to finish what they are at, undisturbed: a second Ctrl-C or SIGTERM in the middle of
    this would leave them, and so this process, waiting for ever."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)} if in_main_thread else {}
    pool.shutdown(wait=True, cancel_futures=True)
    for number, handler in before.items():
        signal.signal(number, handler or signal.SIG_DFL)


def map_in_threads(function: Callable[[Any], Any], tasks: Iterable[Any], workers: int,
                   initializer: Callable[..., None], arguments: tuple = ()) -> Iterator[Any]:
    """Yield `function(task)` for all tasks, in their order, worked out by threads of this process.

    For work that spends its time in PyTorch, OpenCV and the like, which let other threads run meanwhile.
    `initializer(*arguments)` runs once in each thread. Only a few tasks wait at a time.
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


def _start_worker(initializer: Callable[..., None], arguments: tuple) -> None:
    leave_with_parent()
    initializer(*arguments)


def leave_with_parent(*_: Any) -> None:
    """In a worker: let the parent handle Ctrl-C, and end as soon as the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    if parent is not None:
        threading.Thread(target=watch, daemon=True).start()
