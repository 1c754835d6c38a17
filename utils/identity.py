"""Whether two paths lead to one file, and whether a file is still what it was."""

import os
from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from utils.errors import UserError
from utils.files import file_digest, spelling
from utils.pictures import printable

#: Digits of SHA-256 that a `Mark` keeps: enough to tell some million files apart.
_DIGITS = 16


# --- paths ----------------------------------------------------------------------------------------


class Paths:
    """Knows which of some paths lead to the same file, however they are spelt.

    By links, by `..`, by hard links, and by case or Unicode's forms where a file system does not tell these apart.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._folders: dict[Path, str] = {}
        self._known = {key: path for path in paths for key in self._keys(path)}

    def same(self, path: Path) -> Path | None:
        """The one of the paths that leads to the same file as this path, which need not exist; None where none does."""
        return next((self._known[key] for key in self._keys(path) if key in self._known), None)

    def _keys(self, path: Path) -> Iterator[Hashable]:
        folder = path.parent
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        yield spelling(os.path.join(self._folders[folder], path.name))
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return
        if status.st_ino:  # some file systems number no files
            yield status.st_dev, status.st_ino


def refuse_to_overwrite(inputs: Iterable[Path], outputs: Iterable[Path]) -> None:
    """Raise UserError, with both paths, where a file that is to be written is one of those that are to be read."""
    read = Paths(inputs)
    for output in outputs:
        found = read.same(output)
        if found is not None:
            raise UserError(
                f"the result {printable(str(output))} would be written over the input {printable(str(found))}. "
                "Choose another --output"
            )


# --- content --------------------------------------------------------------------------------------


class Mark(NamedTuple):
    """What a file was when somebody looked at it."""

    size: int  #: bytes; -1 where there was none
    time: int  #: of its last change, nanoseconds
    digest: str  #: the first digits of SHA-256; "" where it could not be read


def mark_of(path: Path) -> Mark:
    """What a file is now."""
    try:
        status = os.stat(path)
    except OSError:
        return Mark(-1, -1, "")
    return Mark(status.st_size, status.st_mtime_ns, file_digest(path)[:_DIGITS])


def is_unchanged(path: Path, mark: Mark) -> bool:
    """Whether a file is what it was: by size and time of its last change, or else by content."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == mark[:2] or has_content(path, mark)


def has_content(path: Path, mark: Mark) -> bool:
    """Whether a file, which may be another one, holds what the marked one held."""
    if not mark.digest or not os.path.isfile(path) or os.path.getsize(path) != mark.size:
        return False
    return file_digest(path)[:_DIGITS] == mark.digest
