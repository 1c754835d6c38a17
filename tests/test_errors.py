"""How a script ends: the exit status and the sentence of everything that a person can cause."""

import errno
import subprocess
import sys
import threading

import pytest

from tests.helpers import environment, signals_put_back
from utils.errors import Interrupted, UserError, is_out_of_memory, run_script


@pytest.fixture
def ended(capsys, monkeypatch):
    """Exit status and standard error of a script that raises an error."""
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # put back afterwards

    def end_with(error: BaseException) -> tuple[int, str]:
        def main() -> None:
            raise error

        with signals_put_back(), pytest.raises(SystemExit) as left:
            run_script(main)
        return left.value.code, capsys.readouterr().err

    return end_with


@pytest.mark.parametrize(
    "error, status, told",
    [
        (UserError("no faces; add some"), 2, "error: no faces; add some"),
        (Interrupted("Stopped and saved at epoch 3."), 130, "Stopped and saved at epoch 3."),
        (KeyboardInterrupt(), 130, "the same command goes on from there"),
        (OSError(errno.ENOSPC, "No space left", "last.pt"), 2, "error: the disk is full at last.pt"),
        (PermissionError(errno.EACCES, "denied", "runs"), 2, "error: permission is missing at runs"),
        (MemoryError("too much"), 2, "error: out of memory: too much. Lower the batch size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "error: out of memory"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_a_person_can_cause_ends_in_a_sentence(ended, error, status, told):
    found, message = ended(error)
    assert found == status
    assert told in message
    assert "Traceback" not in message


@pytest.mark.parametrize("error", [ValueError("a mistake of ours"), RuntimeError("shapes"), OSError(errno.EBADF, "?")])
def test_what_only_a_programmer_can_put_right_is_shown_whole(error):
    def main() -> None:
        raise error

    with signals_put_back(), pytest.raises(type(error)) as raised:
        run_script(main)
    assert raised.value is error


def test_memory_of_a_gpu_runs_out_too():
    class OutOfMemoryError(RuntimeError):
        """As PyTorch's is called."""

    assert is_out_of_memory(OutOfMemoryError("CUDA"))
    assert not is_out_of_memory(RuntimeError("something else"))


def test_a_script_whose_reader_has_left_goes_on_quietly():
    code = "import sys; from utils.errors import run_script; run_script(lambda: print('line\\n' * 100_000))"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment(), **pipes)
    assert process.stdout.readline() == "line\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(30) == 0
