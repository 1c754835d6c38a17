"""Errors that speak to the person who can put them right."""

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn, TextIO

#: What the operating system says when the person, not the program, has to act.
_PERSONS_ERRNOS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "permission is missing",
    errno.EPERM: "permission is missing",
    errno.EROFS: "the file system is read-only",
    errno.EFBIG: "the file is larger than allowed here",
    errno.ENAMETOOLONG: "the name is too long for this file system",
    errno.ENOTDIR: "a file stands where a folder is expected",
    errno.EISDIR: "a folder stands where a file is expected",
    errno.EEXIST: "something else of that name is already there",
    errno.ENOENT: "no such file or folder",
    errno.EIO: "the device reported an input/output error",
    errno.ELOOP: "too many levels of symbolic links",
}


class UserError(Exception):
    """What was found, what was expected and what to do, in one message."""


class Interrupted(Exception):
    """The run was asked to stop (Ctrl-C or SIGTERM) and has saved its state."""


def run_script(main: Callable[[], None]) -> None:
    """Run a script's `main` so that nothing a person can cause ends in a traceback.

    Exit status: 0 done, 2 a `UserError`, a refusal of the operating system or too little memory, 130 interrupted.
    """
    sys.stdout, sys.stderr = _Output.over(sys.stdout), _Output.over(sys.stderr)
    threading.excepthook = _told_by_the_main_thread
    # Asked to end, a script leaves as with Ctrl-C: what is half done is taken away, and workers end.
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP, and nohup ignores it
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        _leave(f"error: {error}", 2)
    except Interrupted as stop:
        _leave(str(stop), 130)
    except KeyboardInterrupt:
        _leave("Stopped. What was finished is kept; the same command goes on from there.", 130)
    except OSError as error:
        reason = _PERSONS_ERRNOS.get(error.errno or 0)
        if reason is None:
            raise
        where = f" at {error.filename}" if error.filename else ""
        _leave(
            f"error: {reason}{where} ({error.strerror}). What was finished before is untouched; "
            "put it right and run the same command again.",
            2,
        )
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        first_line = (str(error).splitlines() or [""])[0][:200]
        _leave(f"error: out of memory: {first_line}. Lower the batch size or use a smaller data set.", 2)


class _Output(io.TextIOWrapper):
    """A stream that prints what its encoding knows, and whose reader may leave (`… | head`).

    What the encoding cannot show, as in a file name or in R², is replaced. What nobody reads any more goes nowhere, and
    the work goes on.
    """

    @classmethod
    def over(cls, stream: TextIO | None) -> TextIO:
        """The same stream, made tolerant; something else that catches the output, as a test does, is left alone.

        Where the shell closed the stream (`>&-`), or pythonw has none, there is None: what is printed goes nowhere.
        """
        if stream is None:
            return open(os.devnull, "w", encoding="utf-8")
        if stream not in (sys.__stdout__, sys.__stderr__) or not isinstance(stream, io.TextIOWrapper):
            return stream
        encoding, line_buffering = stream.encoding, stream.line_buffering
        return cls(stream.detach(), encoding=encoding, errors="replace", line_buffering=line_buffering)

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            return self._give_up(text)

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            self._give_up("")

    def _give_up(self, text: str) -> int:
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
        return len(text)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's, or PyTorch's on a CPU or a GPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)


def _told_by_the_main_thread(what: threading.ExceptHookArgs) -> None:
    """TensorBoard writes its events in a thread; a full disk there reaches the main thread at the next flush."""
    if not (isinstance(what.exc_value, OSError) and what.exc_value.errno in _PERSONS_ERRNOS):
        threading.__excepthook__(what)


def _leave(message: str, status: int) -> NoReturn:
    # tqdm may have left the cursor in the middle of its bar.
    sys.stdout.flush()
    print(f"\n{message}", file=sys.stderr, flush=True)
    sys.exit(status)
