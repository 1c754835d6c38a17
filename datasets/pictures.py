"""Folders of aligned faces as what a network is fed: batches of uint8 pictures of one size."""

import hashlib
import json
import os
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from utils.arrays import GrowingArray
from utils.files import hold, write_json
from utils.pictures import UnreadablePicture, list_unreadable, read_rgb
from utils.progress import progress
from utils.workers import leave_with_parent

_CACHE_FORMAT = "picture cache 1"
_COMMIT_EVERY = 2048  # pictures between two notes of how far a cache has got


class Source(NamedTuple):
    """Pictures that belong together: a part of a data set, or a folder."""

    title: str
    paths: list[Path]
    names: list[str]    #: NAME of each, which decides its split


class Batch(NamedTuple):
    pictures: Tensor    #: (B, S, S, 3) uint8
    indices: Tensor     #: (B,) int64: which pictures these are; unreadable ones are left out
    unreadable: list[tuple[int, str]]   #: index and reason of each that was left out


def decode(path: Path, size: int) -> np.ndarray:
    """A picture file as (size, size, 3) uint8 RGB, resized with area interpolation.

    Raises:
        UnreadablePicture: see `utils.pictures.read_rgb`.
    """
    picture = read_rgb(path, at_least=size)
    if picture.shape[:2] != (size, size):
        shrinks = min(picture.shape[:2]) >= size
        picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return picture


class PictureFiles(Dataset):
    """Pictures decoded from their files whenever they are asked for, a batch at a time."""

    def __init__(self, paths: Sequence[Path], size: int) -> None:
        self.paths, self.size = [str(p) for p in paths], size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitems__(self, indices: list[int]) -> Batch:
        pictures, kept, unreadable = [], [], []
        for i in indices:
            try:
                pictures.append(decode(Path(self.paths[i]), self.size))
                kept.append(i)
            except UnreadablePicture as error:
                unreadable.append((i, str(error)))
        stacked = np.stack(pictures) if pictures else np.empty((0, self.size, self.size, 3), np.uint8)
        return Batch(torch.from_numpy(stacked), torch.tensor(kept, dtype=torch.int64), unreadable)


class CachedPictures(Dataset):
    """The same pictures from memory-mapped caches: one after another, unreadable ones marked."""

    def __init__(self, arrays: list[np.ndarray], unreadable: dict[int, str]) -> None:
        self.arrays, self.unreadable = arrays, unreadable
        self._starts = np.cumsum([0] + [len(a) for a in arrays])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitems__(self, indices: list[int]) -> Batch:
        kept = [i for i in indices if i not in self.unreadable]
        size = self.arrays[0].shape[1]
        pictures = np.empty((len(kept), size, size, 3), np.uint8)
        of = np.searchsorted(self._starts, kept, "right") - 1
        for row, (index, array) in enumerate(zip(kept, of)):
            pictures[row] = self.arrays[array][index - self._starts[array]]
        return Batch(torch.from_numpy(pictures), torch.tensor(kept, dtype=torch.int64),
                     [(i, self.unreadable[i]) for i in indices if i in self.unreadable])


class Pictures:
    """All pictures of some sources, with their splits.

    Args:
        sources: what to read.
        splits: for each source its pictures' splits.
        size: side of the pictures handed out.
        cache: folder for the decoded pictures, or None to decode every time.
        workers: processes that decode.
    """

    def __init__(self, sources: list[Source], splits: list[list[str]], size: int, cache: Path | None, workers: int) -> None:
        self.sources, self.size, self.workers = sources, size, workers
        self.paths = [p for source in sources for p in source.paths]
        self.split = np.array([s for of_source in splits for s in of_source])
        if cache is None:
            self.dataset: Dataset = PictureFiles(self.paths, size)
            self.unreadable: dict[int, str] = {}
        else:
            arrays, self.unreadable, start = [], {}, 0
            for source in sources:
                array, bad = _open_cache(source, size, cache, workers)
                arrays.append(array)
                self.unreadable.update({start + i: reason for i, reason in bad.items()})
                start += len(source.paths)
            self.dataset = CachedPictures(arrays, self.unreadable)
            self.workers = 0

    def indices(self, split: str) -> np.ndarray:
        """Indices of a split's pictures; known unreadable ones are left out."""
        found = np.nonzero(self.split == split)[0]
        return found[[i not in self.unreadable for i in found.tolist()]] if self.unreadable else found

    def batches(self, batches: Iterable[Sequence[int]], device: torch.device) -> Iterator[Batch]:
        """Load batches of indices in order; pictures arrive as (B, 3, S, S) uint8 on the device.

        What turns out to be unreadable is noted in `unreadable`.
        """
        loader = DataLoader(self.dataset, batch_sampler=[list(map(int, b)) for b in batches], num_workers=self.workers,
                            collate_fn=_as_is, pin_memory=False, worker_init_fn=_start_worker,
                            prefetch_factor=4 if self.workers else None)
        for batch in _ahead(loader, device):
            self.unreadable.update(batch.unreadable)
            yield batch

    def read(self, indices: Sequence[int]) -> Batch:
        """One batch, decoded here and now, its pictures (B, 3, S, S) uint8; may be called by several threads at once."""
        batch = self.dataset.__getitems__(list(indices))
        self.unreadable.update(batch.unreadable)
        return batch._replace(pictures=batch.pictures.permute(0, 3, 1, 2))

    def check_unreadable(self, most: float, listing: Path) -> None:
        """List unreadable pictures in a file; raise UserError where they are more than a share `most`."""
        reasons = {str(self.paths[i]): reason for i, reason in sorted(self.unreadable.items())}
        list_unreadable(listing, reasons, len(self.paths), most, "data.max_unreadable")


def folder_source(folder: Path, paths: list[Path]) -> Source:
    """A plain folder of faces; NAME is the path below the folder, with "/"."""
    return Source(str(folder), paths, [p.relative_to(folder).as_posix() for p in paths])


def _as_is(batch: Batch) -> Batch:
    return batch


def _start_worker(_: int) -> None:
    cv2.setNumThreads(1)
    leave_with_parent()


def _ahead(loader: Iterable[Batch], device: torch.device, depth: int = 3) -> Iterator[Batch]:
    """Bring batches to the device in a thread of their own, a few ahead of their use."""
    ready: queue.Queue = queue.Queue(depth)
    stop = threading.Event()

    def put(item: object) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def bring() -> None:
        try:
            for batch in loader:
                pictures = batch.pictures.permute(0, 3, 1, 2)
                if device.type == "cuda":
                    pictures = pictures.pin_memory().to(device, non_blocking=True)
                if not put(batch._replace(pictures=pictures)):
                    return
            put(None)
        except BaseException as error:  # handed on to whoever reads
            put(error)

    thread = threading.Thread(target=bring, daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join(timeout=10)


# --- cache ----------------------------------------------------------------------------------------

def _open_cache(source: Source, size: int, folder: Path, workers: int) -> tuple[np.ndarray, dict[int, str]]:
    """The decoded pictures of a source as a memory-mapped array, made first where they are not there yet."""
    key = hashlib.sha256(f"{_CACHE_FORMAT} {size} {source_fingerprint(source)}".encode()).hexdigest()
    path = folder / f"{key[:20]}_{size}px.npy"
    listing = path.with_suffix(".json")
    found = _read_cache(path, listing, key, len(source.paths), size)
    if found is None:
        with hold(folder, "decoding pictures", wait=True):  # other processes may want the same
            found = _read_cache(path, listing, key, len(source.paths), size)
            if found is None:
                _fill_cache(source, size, path, listing, key, workers)
                found = _read_cache(path, listing, key, len(source.paths), size)
    return found


def _read_cache(path: Path, listing: Path, key: str, count: int, size: int) -> tuple[np.ndarray, dict[int, str]] | None:
    try:
        state = json.loads(listing.read_text(encoding="utf-8"))
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if state["format"] == _CACHE_FORMAT and state["key"] == key and array.shape == (count, size, size, 3):
            return array, {int(i): reason for i, reason in state["unreadable"].items()}
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        pass
    return None


def source_fingerprint(source: Source) -> str:
    """SHA-256 over a source's files: their paths, sizes and times of change."""
    digest = hashlib.sha256()
    for path in source.paths:
        try:
            status = os.stat(path)
            digest.update(f"\n{path.absolute()}\t{status.st_size}\t{status.st_mtime_ns}".encode("utf-8", "surrogateescape"))
        except OSError:
            digest.update(f"\n{path.absolute()}\tmissing".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _fill_cache(source: Source, size: int, path: Path, listing: Path, key: str, workers: int) -> None:
    growing = GrowingArray(path, len(source.paths), (size, size, 3), "u1", key)
    unreadable = {int(i): reason for i, reason in growing.note.get("unreadable", {}).items()}
    first = growing.rows
    blocks = [list(range(i, min(i + 64, len(source.paths)))) for i in range(first, len(source.paths), 64)]
    loader = DataLoader(PictureFiles(source.paths, size), batch_sampler=blocks, num_workers=workers,
                        collate_fn=_as_is, worker_init_fn=_start_worker)
    committed = first
    with progress(total=len(source.paths), initial=first, desc=f"decoding {source.title} at {size} px", unit="picture") as bar:
        for block, batch in zip(blocks, loader):
            rows = np.zeros((len(block), size, size, 3), np.uint8)
            rows[batch.indices.numpy() - block[0]] = batch.pictures.numpy()
            unreadable.update(batch.unreadable)
            growing.append(rows)
            if growing.rows - committed >= _COMMIT_EVERY:
                growing.commit({"unreadable": unreadable})
                committed = growing.rows
            bar.update(len(block))
    write_json(listing, {"format": _CACHE_FORMAT, "key": key, "source": source.title, "unreadable": unreadable})
    growing.finish()
