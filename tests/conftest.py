"""What several tests use: the scripts as subprocesses, and one small finished run."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A shell that puts the tests in the background has them, and all that they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


def run_script(*arguments: object, cwd: Path, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess:
    """Run `python ARGUMENTS` of the repository in a folder of its own; with `check` it must succeed."""
    first, *rest = map(str, arguments)
    command = [sys.executable, "-m", *rest] if first == "-m" else [sys.executable, str(ROOT / first), *rest]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)
    if check:
        assert result.returncode == 0, result.stderr[-3000:]
    return result


def error_of(result: subprocess.CompletedProcess) -> str:
    """The sentence of a script that refused: exit status 2 and no traceback."""
    assert result.returncode == 2, (result.returncode, result.stdout[-500:], result.stderr[-2000:])
    assert "Traceback" not in result.stderr
    return result.stderr


SMOKE = ("--config", ROOT / "configs" / "smoke.toml", "--set", "data.workers=0", "--set", "run.threads=1")


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the three training scripts have run through configs/smoke.toml."""
    folder = tmp_path_factory.mktemp("smoke")
    for script in ("vae_trainer.py", "extract_latentvec.py", "f2p_trainer.py"):
        run_script(script, *SMOKE, cwd=folder)
    return folder
