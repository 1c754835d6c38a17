"""A large array on disk that is filled row by row and survives being interrupted."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from utils.files import read_json, write_json

#: Rows that are copied at a time.
_BLOCK = 4096


class GrowingArray:
    """Rows appended to `<path>.part` until `finish` renames it to `path`, a plain .npy file.

    Every `commit` notes how many rows are safely on disk, with progress of the caller's; opened again
    with the same `key`, the array goes on there. A part with another key is started over.

    Args:
        path: file that is there when all is done.
        shape: of the whole array; the first number is how many rows there may be.
        dtype: of its values.
        key: what the rows are made of.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], *, dtype: str, key: str) -> None:
        self.path, self.key = path, key
        self._part, self._notes = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows = 0
        self.progress: dict[str, Any] = {}
        if not self._go_on(shape, dtype):
            self._notes.unlink(missing_ok=True)
            self._reserve(shape, dtype)
            self._array = np.lib.format.open_memmap(self._part, mode="w+", dtype=dtype, shape=shape)

    def append(self, rows: np.ndarray) -> None:
        """Add rows behind those that are there."""
        self._array[self.rows : self.rows + len(rows)] = rows
        self.rows += len(rows)

    def commit(self, progress: dict[str, Any]) -> None:
        """Put what was appended on disk and note it."""
        self._array.flush()
        self.progress = progress
        write_json(self._notes, {"key": self.key, "rows": self.rows, "progress": progress})

    def finish(self) -> None:
        """Give the file its final name; rows never filled are cut off."""
        self._array.flush()
        trimmed = self.rows < len(self._array)
        if trimmed:
            self._copy_filled_rows(self._trim)
        del self._array  # Windows renames no file that is mapped
        if trimmed:
            os.replace(self._trim, self._part)
        os.replace(self._part, self.path)
        self._notes.unlink(missing_ok=True)

    @property
    def _trim(self) -> Path:
        return self.path.with_name(self.path.name + ".trim")

    def _go_on(self, shape: tuple[int, ...], dtype: str) -> bool:
        """Open the part of an earlier run where there is one with the same key."""
        state = read_json(self._notes)
        if state is None or state.get("key") != self.key:
            return False
        try:
            array = np.lib.format.open_memmap(self._part, mode="r+")
            rows, progress = state["rows"], state["progress"]
        except (OSError, ValueError, KeyError, EOFError):
            return False
        if array.shape != shape or array.dtype != np.dtype(dtype):
            return False
        self._array, self.rows, self.progress = array, rows, progress
        return True

    def _reserve(self, shape: tuple[int, ...], dtype: str) -> None:
        # A memory map on a full disk dies with SIGBUS; asking for the space first gives an error instead.
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize + 128
        if not hasattr(os, "posix_fallocate"):
            return
        with open(self._part, "wb") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError:
                self._part.unlink(missing_ok=True)
                raise

    def _copy_filled_rows(self, target: Path) -> None:
        shape = (self.rows, *self._array.shape[1:])
        if not self.rows:
            with open(target, "wb") as file:
                np.save(file, self._array[:0])
            return
        copy = np.lib.format.open_memmap(target, mode="w+", dtype=self._array.dtype, shape=shape)
        for first in range(0, self.rows, _BLOCK):
            copy[first : first + _BLOCK] = self._array[first : min(first + _BLOCK, self.rows)]
        copy.flush()
