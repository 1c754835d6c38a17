"""A run's folder as one object: where things lie, who holds it, what may not change, what goes on.

runs/NAME/config.toml
runs/NAME/vae/checkpoints/{last,best}.pt   vae/tensorboard/   vae/metrics.json
runs/NAME/latents/…                                           (written and read by datasets/latents.py)
runs/NAME/f2p/checkpoints/{last,best}.pt   f2p/tensorboard/   f2p/metrics.json   f2p/report.png
"""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from utils import checkpoint
from utils.config import Config, changed_settings, to_toml
from utils.errors import UserError
from utils.files import archive, lock_folder, read_json, sweep_temporaries, write_text

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Checkpoint(NamedTuple):
    """A checkpoint that was read, and the file that it came from."""

    content: dict[str, Any]
    path: Path


class Run:
    """The folder of one run.

    Args:
        folder: runs/NAME; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.latents = folder / "latents"
        self.vae = Stage(folder / "vae", kind="vae", tables=("run", "data", "vae"))
        self.f2p = Stage(folder / "f2p", kind="f2p", tables=("run", "latents", "f2p"))

    @classmethod
    def of(cls, config: Config) -> "Run":
        """The run that a configuration describes."""
        return cls(config.run_folder)

    def lock_latents(self, script: str, is_main: bool = True) -> AbstractContextManager:
        """Lock latents/; only the main process does so. Raises UserError where another run has it."""
        return lock_folder(self.latents, script) if is_main else nullcontext()

    def describe(self, config: Config, script: str) -> None:
        """Print the resolved configuration and write it to config.toml."""
        text = to_toml(config)
        print(f"{script}: {self.folder}\n\n{text}", flush=True)
        write_text(self.folder / "config.toml", text)


class Stage:
    """The folder of one stage of a run: checkpoints, TensorBoard's events, metrics.

    Args:
        folder: runs/NAME/vae or runs/NAME/f2p.
        kind: "vae" or "f2p", as in `checkpoint.FORMATS`.
        tables: the tables of the configuration whose settings decide what the stage learns.
    """

    def __init__(self, folder: Path, *, kind: str, tables: tuple[str, ...]) -> None:
        self.folder, self.kind, self.tables = folder, kind, tables
        self.metrics, self.report = folder / "metrics.json", folder / "report.png"
        self._checkpoints = folder / "checkpoints"

    @property
    def best(self) -> Path:
        """The checkpoint that the next step uses."""
        return self._checkpoints / "best.pt"

    @property
    def last(self) -> Path:
        """The checkpoint that training goes on from."""
        return self._checkpoints / "last.pt"

    def lock(self, script: str, is_main: bool = True) -> AbstractContextManager:
        """Lock the folder; only the main process does so. Raises UserError where another run has it."""
        return lock_folder(self.folder, script) if is_main else nullcontext()

    # --- checkpoints --------------------------------------------------------------------------

    def save(self, name: str, content: dict[str, Any]) -> None:
        """Write checkpoint "best" or "last"."""
        checkpoint.save(self._checkpoints / f"{name}.pt", self.kind, content)

    def load_best(self) -> Checkpoint:
        """Read the best checkpoint. Raises UserError where there is none, or one that cannot be used."""
        if not self.best.exists():
            raise UserError(
                f"there is no checkpoint {self.best}; run {self.kind}_trainer.py with the same config first"
            )
        return Checkpoint(checkpoint.load(self.best, self.kind), self.best)

    def newest(self) -> Checkpoint | None:
        """The last checkpoint, or the best where the last is damaged, which is said; None where there is none.

        Raises:
            UserError: checkpoints are there and none can be loaded, or they are weights alone (models/release.py).
        """
        problems = []
        for path in (self.last, self.best):
            if not path.exists():
                continue
            try:
                content = checkpoint.load(path, self.kind)
            except UserError as error:
                problems.append(str(error))
                continue
            if content.get("released"):
                raise UserError(
                    f"{path} is of a release, which training cannot go on from; choose another run.name or run.folder"
                )
            if problems:
                print(f"{problems[0]}.\nGoing on from {path} instead.")
            return Checkpoint(content, path)
        if problems:
            raise UserError(
                f"{problems[0]}. No other checkpoint is left in {self._checkpoints}; start over with --restart"
            )
        return None

    def read_metrics(self) -> dict[str, Any]:
        """The content of metrics.json. Raises UserError where it is missing or damaged."""
        found = read_json(self.metrics)
        if found is None:
            raise UserError(f"{self.metrics} is missing or damaged; train the run until both stages are finished")
        return found

    # --- going on -----------------------------------------------------------------------------

    def changes(self, found: Checkpoint, config: Config, digests: dict[str, str] | None = None) -> list[str]:
        """What differs from a checkpoint and may not, by name.

        Args:
            config: every setting of the stage that is not marked free has to be the checkpoint's.
            digests: of what the stage learns from now, by name; None leaves them aside.
        """
        changed = changed_settings(found.content["config"], config, self.tables)
        if digests is not None:
            was = found.content["digests"]
            names = {**was, **digests}
            changed += [f"{name} is not what it was" for name in names if was.get(name) != digests.get(name)]
        return changed

    def refuse_changes(self, found: Checkpoint, config: Config, digests: dict[str, str] | None = None) -> None:
        """Raise UserError that names what differs from a checkpoint and may not; see `changes`."""
        changed = self.changes(found, config, digests)
        if changed:
            raise UserError(
                f"{found.path} was trained with something else ({'; '.join(changed)}). Put it back, choose another "
                "run.name, or start over with --restart"
            )

    def is_finished(self, found: Checkpoint | None, epochs: int) -> bool:
        """Whether a checkpoint has all epochs behind it and its metrics are written."""
        return found is not None and found.content["epoch"] >= epochs and self.metrics.exists()

    def start_writing(self, step: int, restart: bool) -> "SummaryWriter":
        """Open TensorBoard's events; what was written at `step` or later, before a crash, is hidden.

        Args:
            restart: keep the events of the run that is started over under another name.
        """
        from torch.utils.tensorboard import SummaryWriter  # a second to import, and predictions do without

        if restart:
            archive(self.folder / "tensorboard")
        return SummaryWriter(str(self.folder / "tensorboard"), purge_step=step)

    def sweep(self) -> None:
        """Delete what a killed process left half written (only while the folder is locked)."""
        sweep_temporaries(self._checkpoints)
