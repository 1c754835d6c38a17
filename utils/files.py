"""Files that are either whole or absent, and folders that one run holds at a time."""

import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from utils.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt


@contextmanager
def atomic_write(path: Path, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; flush it to disk and rename it to `path` on success.

    Whoever reads `path`, at any moment and after any crash, sees the old file or the new one.
    `sync=False` leaves the flush to the caller, for many small files that can be made again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:80]}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        if os.name == "posix":  # mkstemp makes private files; a result is as readable as any other
            os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON. Infinities and NaN raise ValueError: they are not JSON."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def sweep_temporaries(folder: Path) -> None:
    """Delete what a killed `atomic_write` left in `folder` (only call while holding its lock)."""
    for temporary in folder.glob(".*.tmp"):
        temporary.unlink(missing_ok=True)


@contextmanager
def hold(folder: Path, what: str, wait: bool = False) -> Iterator[None]:
    """Hold `folder` for this process, so that two runs never write the same files.

    The lock is the operating system's and ends with the process, however that ends, so a lock
    file left by a dead process is no obstacle. It is not inherited by child processes.

    With `wait`, a folder that another process holds is waited for.

    Raises:
        UserError: another living process holds the folder; the message says which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    # Opened for appending so that the holder's line survives our attempt.
    file = open(path, "a+", encoding="utf-8")
    while True:
        try:
            _lock(file)
            break
        except OSError:
            if wait:
                time.sleep(0.2)
                continue
            holder = path.read_text(encoding="utf-8").strip() or "another process"
            file.close()
            raise UserError(f"{folder} is in use by {holder}. Wait until it has finished, stop it, "
                            "or choose another folder.") from None
    try:
        file.truncate(0)
        file.write(f"{what} (process {os.getpid()} on {socket.gethostname()}, "
                   f"since {time.strftime('%Y-%m-%d %H:%M:%S')})\n")
        file.flush()
        yield
    finally:
        try:
            file.truncate(0)
        except OSError:
            pass  # a full disk must not hide the error that is on its way
        file.close()


def _lock(file) -> None:
    if fcntl is not None:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        # Far beyond the holder's line: on Windows a locked byte cannot be read by others.
        os.lseek(file.fileno(), 1 << 20, os.SEEK_SET)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)


def _umask() -> int:
    if sys.platform.startswith("linux"):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
