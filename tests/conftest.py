"""One small finished run, for all tests that need one, and what tests do to it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import SMOKE, TRAINING_SCRIPTS, run_here, signals_put_back
from utils.stop import StopRequest


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the three training scripts have run through configs/smoke.toml."""
    folder = tmp_path_factory.mktemp("smoke")
    for script in TRAINING_SCRIPTS:
        run_here(script, *SMOKE, cwd=folder)
    return folder


@pytest.fixture
def copy(smoke: Path, tmp_path: Path) -> Path:
    """The finished run, its data and its cache, to do as one likes with."""
    shutil.copytree(smoke, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def stop() -> Iterator[StopRequest]:
    """A request to stop, as a script makes it; what signals do to the tests is put back afterwards."""
    with signals_put_back():
        yield StopRequest()
