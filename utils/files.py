"""Files that are either whole or absent, and folders that one run holds at a time."""

import errno
import hashlib
import json
import os
import secrets
import socket
import sys
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from utils.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt

#: What the names of this program's temporary files end in; nothing else is ever swept away.
_TEMPORARY = ".f2p-tmp"

#: Bytes of a file's name that its temporary file keeps: file systems allow 255 in all.
_NAME_BYTES = 80

#: The file of a folder that lists the SHA-256 of the others, as the command sha256sum writes and checks it.
SUMS = "SHA256SUMS"

#: What a file system answers that knows no locks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}

#: What it answers to a name that it cannot hold: too long, or with bytes or characters that it does not know.
_REFUSED_NAMES = {errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}

#: What it answers where another process holds the lock.
_LOCKED = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}


@contextmanager
def atomic_write(path: Path, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; flush it to disk and rename it to `path` on success.

    Whoever reads `path`, at any moment and after any crash, sees the old file or the new one.

    Args:
        path: file to write; its folder is made where it is missing.
        sync: False leaves the flush to the caller, for many small files that can be made again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    short = os.fsencode(path.name)[:_NAME_BYTES].decode("utf-8", "ignore")  # the cut may part a character
    temporary = path.parent / f".{short}.{secrets.token_hex(6)}{_TEMPORARY}"
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8, whole or not at all. File names that are not UTF-8 keep their bytes."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8", "surrogateescape"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, whole or not at all. NaN becomes null; infinities raise ValueError.

    Bytes of file names that are not UTF-8 become JSON's escapes, so that everybody can read the file.
    """
    text = json.dumps(_nan_to_null(value), indent=1, ensure_ascii=False, allow_nan=False)
    with atomic_write(path) as file:
        file.write((text + "\n").encode("utf-8", "backslashreplace"))


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file of ours; None where the file is missing or damaged."""
    try:
        found = json.loads(path.read_bytes().decode("utf-8", "surrogateescape"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def write_sums(folder: Path) -> None:
    """Write the SHA-256 of every file below `folder` to its SHA256SUMS."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    lines = [f"{file_digest(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    write_text(folder / SUMS, "".join(lines))


def check_sums(folder: Path) -> None:
    """Compare a folder with its SHA256SUMS; one without such a file is left alone.

    Raises:
        UserError: a file is missing or not what it was.
    """
    listing = folder / SUMS
    if not listing.exists():
        return
    for line in listing.read_text(encoding="utf-8").splitlines():
        expected, _, name = line.partition("  ")
        path = folder / name
        if file_digest(path) != expected:
            raise UserError(f"{path} is not what {listing} says; it is damaged or was changed. Get {folder} anew")


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits; "" for what is no file or cannot be read."""
    try:
        if not os.path.isfile(path):
            return ""
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def is_refused_name(error: OSError) -> bool:
    """Whether a file could not be written because of its name alone: its file system cannot hold it."""
    return error.errno in _REFUSED_NAMES


def spelling(name: str) -> str:
    """A name or path as file systems compare it that tell neither case nor Unicode's forms apart."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def sweep_temporaries(folder: Path) -> None:
    """Delete what a killed `atomic_write` left in `folder` (only call while holding its lock)."""
    for temporary in folder.glob(f".*{_TEMPORARY}"):
        temporary.unlink(missing_ok=True)


def archive(folder: Path) -> None:
    """Give a folder that is to be written anew another name, so that what it holds is kept."""
    if folder.exists():
        folder.rename(folder.with_name(f"{folder.name}.{time.strftime('%Y%m%d-%H%M%S')}.old"))


@contextmanager
def lock_folder(folder: Path, what: str, wait: bool = False) -> Iterator[None]:
    """Lock `folder` for this process, so that two runs never write the same files.

    The lock is the operating system's and ends with the process, however that ends, so a lock
    file left by a dead process is no obstacle. Child processes do not inherit it. Where the file system
    knows no locks, that is said and work goes on.

    Args:
        folder: made where it is missing.
        what: name of the holder, for whoever finds the folder locked.
        wait: wait for a folder that another process holds.

    Raises:
        UserError: another living process holds the folder; the message says which. Or `.lock` is somebody else's file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    # Opened for appending so that the holder's line survives our attempt.
    with open(path, "a+", encoding="utf-8", errors="replace") as file:
        _acquire(file, folder=folder, wait=wait)
        file.seek(0)
        holder = file.read(1000)
        if holder.strip() and " (process " not in holder:
            raise UserError(f"{path} was not written by this program. Move it away, or choose another folder")
        try:
            file.truncate(0)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            file.write(f"{what} (process {os.getpid()} on {socket.gethostname()}, since {since})\n")
            file.flush()
            yield
        finally:
            with suppress(OSError):  # a full disk must not hide the error that is on its way
                file.truncate(0)


def _acquire(file: TextIO, *, folder: Path, wait: bool) -> None:
    while True:
        try:
            return _lock(file)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                print(
                    f"warning: the file system of {folder} knows no locks ({error.strerror}); "
                    "make sure that no other run writes there",
                    file=sys.stderr,
                )
                return
            if error.errno not in _LOCKED:
                raise
        if not wait:
            holder = Path(file.name).read_text(encoding="utf-8").strip() or "another process"
            raise UserError(
                f"{folder} is in use by {holder}. Wait until it has finished, stop it, or choose another folder."
            )
        time.sleep(0.2)


def _lock(file: TextIO) -> None:
    if fcntl is not None:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        # Far beyond the holder's line: on Windows a locked byte cannot be read by others.
        os.lseek(file.fileno(), 1 << 20, os.SEEK_SET)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)


def _nan_to_null(value: Any) -> Any:
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, dict):
        return {key: _nan_to_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_nan_to_null(item) for item in value]
    return value
