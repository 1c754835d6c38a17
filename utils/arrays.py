"""A large array on disk that is filled row by row and survives being interrupted."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from utils.files import write_json


class GrowingArray:
    """Rows appended to `<path>.part` until `finish` renames it to `path`, a plain .npy file.

    Every `commit` notes how many rows are safely on disk, with a note of the caller's; opened again
    with the same `key`, the array goes on there. A part with another key is started over.
    """

    def __init__(self, path: Path, capacity: int, row_shape: tuple[int, ...], dtype: str, key: str) -> None:
        self.path, self.key = path, key
        self._part, self._notes = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows, self.note = 0, {}
        shape = (capacity, *row_shape)
        try:
            state = json.loads(self._notes.read_text(encoding="utf-8"))
            self._array = np.lib.format.open_memmap(self._part, mode="r+")
            if state["key"] != key or self._array.shape != shape or self._array.dtype != np.dtype(dtype):
                raise ValueError("another array")
            self.rows, self.note = state["rows"], state["note"]
        except (OSError, ValueError, KeyError, TypeError):
            self._notes.unlink(missing_ok=True)
            self._reserve(shape, dtype)
            self._array = np.lib.format.open_memmap(self._part, mode="w+", dtype=dtype, shape=shape)

    def _reserve(self, shape: tuple[int, ...], dtype: str) -> None:
        # A memory map on a full disk dies with SIGBUS; asking for the space first gives an error instead.
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize + 128
        if hasattr(os, "posix_fallocate"):
            with open(self._part, "wb") as file:
                try:
                    os.posix_fallocate(file.fileno(), 0, size)
                except OSError:
                    self._part.unlink(missing_ok=True)
                    raise

    def append(self, rows: np.ndarray) -> None:
        self._array[self.rows:self.rows + len(rows)] = rows
        self.rows += len(rows)

    def commit(self, note: dict[str, Any]) -> None:
        """Put what was appended on disk and note it."""
        self._array.flush()
        self.note = note
        write_json(self._notes, {"key": self.key, "rows": self.rows, "note": note})

    def finish(self) -> None:
        """Give the file its final name; rows never filled are cut off."""
        self._array.flush()
        if self.rows < len(self._array):
            trimmed = self.path.with_name(self.path.name + ".trim")
            copy = np.lib.format.open_memmap(trimmed, mode="w+", dtype=self._array.dtype,
                                             shape=(self.rows, *self._array.shape[1:])) if self.rows else None
            if copy is None:
                np.save(trimmed.open("wb"), self._array[:0])
            else:
                for first in range(0, self.rows, 4096):
                    copy[first:first + 4096] = self._array[first:min(first + 4096, self.rows)]
                copy.flush()
            os.replace(trimmed, self._part)
        self._array = None
        os.replace(self._part, self.path)
        self._notes.unlink(missing_ok=True)
