"""Folders of aligned faces as what a network is fed: batches of uint8 pictures of one size."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datasets.sources import Source, content_digest
from utils.arrays import GrowingArray
from utils.errors import UserError
from utils.files import lock_folder, read_json, write_json
from utils.pictures import UnreadablePicture, check_unreadable, read_rgb
from utils.progress import progress
from utils.workers import leave_with_parent, map_in_threads

_CACHE_FORMAT = "picture cache 2"

#: Pictures that a worker decodes at a time for a cache, and pictures between two notes of how far a cache has got.
_BLOCK, _COMMIT_EVERY = 64, 2048


class Batch(NamedTuple):
    """Some pictures of a `Pictures`."""

    pictures: Tensor  #: (B, 3, S, S) uint8
    indices: Tensor  #: (B,) int64: which pictures these are; unreadable ones are left out
    unreadable: list[tuple[int, str]]  #: index and reason of each that was left out


class Decoded(NamedTuple):
    """The same as a worker hands it over.

    NumPy's arrays travel through a pipe. PyTorch's tensors would lie in /dev/shm, which is small in a container.
    """

    pictures: np.ndarray  #: (B, S, S, 3) uint8
    indices: list[int]
    unreadable: list[tuple[int, str]]

    def as_batch(self) -> Batch:
        channels_first = torch.from_numpy(self.pictures).permute(0, 3, 1, 2)
        return Batch(channels_first, torch.tensor(self.indices, dtype=torch.int64), self.unreadable)


class Pictures:
    """All pictures of some sources, one source after the other, at one size.

    Args:
        sources: what to read, by name.
        size: side S of the pictures handed out, in pixels.
        cache: folder for the decoded pictures, or None to decode every time.
        workers: processes that decode; 0 decodes in this process.
    """

    def __init__(self, sources: dict[str, Source], *, size: int, cache: Path | None, workers: int) -> None:
        self.sources, self.size, self.workers = sources, size, workers
        self.paths = [path for source in sources.values() for path in source.paths]
        self.split = np.array([split for source in sources.values() for split in source.splits])
        self.unreadable: dict[int, str] = {}
        self.dataset: PictureFiles | CachedPictures
        if cache is None:
            self.dataset = PictureFiles(self.paths, size)
        else:
            self.dataset = self._open_caches(cache)
            self.workers = 0

    def indices(self, split: str) -> np.ndarray:
        """Indices (N,) of a split's pictures; known unreadable ones are left out."""
        found = np.nonzero(self.split == split)[0]
        if not self.unreadable:
            return found
        return found[[i not in self.unreadable for i in found.tolist()]]

    def batches(
        self, batches: Sequence[Sequence[int] | np.ndarray] | np.ndarray, device: torch.device
    ) -> Iterator[Batch]:
        """Load batches of indices in order, a few ahead of their use; pictures arrive on the device.

        What turns out to be unreadable is noted in `unreadable`.
        """
        wanted = [[int(i) for i in batch] for batch in batches]
        if self.workers:
            cv2.setNumThreads(1)  # here: a forked process that ends threads which it has not waits for ever
            loader = DataLoader(
                self.dataset,
                batch_sampler=wanted,
                num_workers=self.workers,
                collate_fn=_as_is,
                worker_init_fn=_start_worker,
                prefetch_factor=4,
            )
            decoded = _watched(loader)
            ready = map_in_threads(lambda batch: _to_device(batch.as_batch(), device), decoded, workers=1)
        else:
            ready = map_in_threads(lambda indices: _to_device(self.read(indices), device), wanted, workers=1)
        for batch in ready:
            self.unreadable.update(batch.unreadable)
            yield batch

    def read(self, indices: Sequence[int]) -> Batch:
        """One batch, decoded here and now; may be called by several threads at once."""
        batch = self.dataset.__getitems__(list(indices)).as_batch()
        self.unreadable.update(batch.unreadable)
        return batch

    def check_unreadable(self, most: float, listing: Path) -> None:
        """List unreadable pictures in a file; raise UserError where they are more than a fraction `most`."""
        reasons = {str(self.paths[i]): reason for i, reason in sorted(self.unreadable.items())}
        setting = "data.max_unreadable"
        check_unreadable(reasons, total=len(self.paths), most=most, setting=setting, listing=listing)

    def _open_caches(self, folder: Path) -> "CachedPictures":
        arrays, start = [], 0
        for source in self.sources.values():
            array, unreadable = _open_cache(source, self.size, folder=folder, workers=self.workers)
            arrays.append(array)
            self.unreadable.update({start + i: reason for i, reason in unreadable.items()})
            start += len(source.paths)
        return CachedPictures(arrays, self.unreadable)


class PictureFiles(Dataset):
    """Pictures decoded from their files whenever they are asked for, a batch at a time."""

    def __init__(self, paths: Sequence[Path], size: int) -> None:
        self.paths, self.size = [str(p) for p in paths], size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitems__(self, indices: list[int]) -> Decoded:
        pictures, kept, unreadable = [], [], []
        for i in indices:
            try:
                pictures.append(decode(Path(self.paths[i]), self.size))
                kept.append(i)
            except UnreadablePicture as error:
                unreadable.append((i, str(error)))
        stacked = np.stack(pictures) if pictures else np.empty((0, self.size, self.size, 3), np.uint8)
        return Decoded(stacked, kept, unreadable)


class CachedPictures(Dataset):
    """The same pictures from memory-mapped caches, one after another; unreadable ones are marked."""

    def __init__(self, arrays: list[np.ndarray], unreadable: dict[int, str]) -> None:
        self.arrays, self.unreadable = arrays, unreadable
        self._starts = np.cumsum([0] + [len(a) for a in arrays])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitems__(self, indices: list[int]) -> Decoded:
        kept = [i for i in indices if i not in self.unreadable]
        size = self.arrays[0].shape[1]
        pictures = np.empty((len(kept), size, size, 3), np.uint8)
        of_array = np.searchsorted(self._starts, kept, "right") - 1
        for row, (index, array) in enumerate(zip(kept, of_array, strict=True)):
            pictures[row] = self.arrays[array][index - self._starts[array]]
        unreadable = [(i, self.unreadable[i]) for i in indices if i in self.unreadable]
        return Decoded(pictures, kept, unreadable)


def epoch_order(indices: np.ndarray, batch_size: int, *, seed: int, epoch: int) -> np.ndarray:
    """The batches of an epoch, (steps, batch_size), a function of seed and epoch alone.

    What does not fill a batch is left out in this epoch.
    """
    order = np.random.default_rng([seed, epoch]).permutation(indices)
    batch_size = min(batch_size, len(order))
    if not batch_size:
        return order.reshape(0, 0)
    return order[: len(order) // batch_size * batch_size].reshape(-1, batch_size)


def decode(path: Path, size: int) -> np.ndarray:
    """A picture file as (size, size, 3) uint8 RGB, resized with area interpolation.

    Raises:
        UnreadablePicture: see `utils.pictures.read_rgb`.
    """
    picture = read_rgb(path, at_least=size)
    if picture.shape[:2] != (size, size):
        shrinks = min(picture.shape[:2]) >= size
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        picture = cv2.resize(picture, (size, size), interpolation=interpolation)
    return picture


def _watched(loader: Iterable[Decoded]) -> Iterator[Decoded]:
    """What workers hand over. Raises UserError where one of them died."""
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        first_line = str(error).splitlines()[0]
        raise UserError(
            f"a process that decodes pictures has ended ({first_line}). Mostly its memory ran out: use fewer processes "
            "(data.workers), or in a container give it more memory"
        ) from None


def _to_device(batch: Batch, device: torch.device) -> Batch:
    if device.type != "cuda":
        return batch
    return batch._replace(pictures=batch.pictures.pin_memory().to(device, non_blocking=True))


def _as_is(batch: Any) -> Any:
    return batch


def _start_worker(_: int) -> None:
    if cv2.getNumThreads() > 1:  # in a spawned process
        cv2.setNumThreads(1)
    leave_with_parent()


# --- cache ----------------------------------------------------------------------------------------


class _Cache(NamedTuple):
    """Where the decoded pictures of a source lie, and what they are made of."""

    array: Path
    listing: Path
    key: str
    shape: tuple[int, ...]

    def read(self) -> tuple[np.ndarray, dict[int, str]] | None:
        """The pictures (N, S, S, 3) uint8, memory-mapped, and the unreadable ones; None where there is no cache."""
        state = read_json(self.listing)
        if state is None or state.get("format") != _CACHE_FORMAT or state.get("key") != self.key:
            return None
        try:
            array = np.load(self.array, mmap_mode="r", allow_pickle=False)
            unreadable = {int(i): reason for i, reason in state["unreadable"].items()}
        except (OSError, ValueError, KeyError, AttributeError, EOFError):
            return None
        return (array, unreadable) if array.shape == self.shape else None


def _open_cache(source: Source, size: int, *, folder: Path, workers: int) -> tuple[np.ndarray, dict[int, str]]:
    """The decoded pictures of a source, decoded first where that has not been done, and the unreadable ones."""
    key = hashlib.sha256(f"{_CACHE_FORMAT} {size} {_fingerprint(source)}".encode()).hexdigest()
    path = folder / f"{key[:20]}_{size}px.npy"
    cache = _Cache(path, path.with_suffix(".json"), key, (len(source.paths), size, size, 3))
    found = cache.read()
    while found is None:
        with lock_folder(folder, "decoding pictures", wait=True):  # other processes may want the same
            if cache.read() is None:
                _fill_cache(source, cache, workers)
        found = cache.read()
    return found


def _fingerprint(source: Source) -> str:
    """SHA-256 of what a source holds and when its files were changed."""
    digest = hashlib.sha256(content_digest(source).encode())
    for path in source.paths:
        try:
            digest.update(b"%d\n" % os.stat(path).st_mtime_ns)
        except OSError:
            digest.update(b"missing\n")
    return digest.hexdigest()


def _fill_cache(source: Source, cache: _Cache, workers: int) -> None:
    """Decode all pictures of a source into a cache, going on where an earlier attempt stopped."""
    size, total = cache.shape[1], len(source.paths)
    growing = GrowingArray(cache.array, cache.shape, dtype="u1", key=cache.key)
    unreadable: dict[int, str] = {int(i): r for i, r in growing.progress.get("unreadable", {}).items()}

    committed = first = growing.rows
    blocks = [list(range(i, min(i + _BLOCK, total))) for i in range(first, total, _BLOCK)]
    loader: Any = DataLoader(
        PictureFiles(source.paths, size),
        batch_sampler=blocks,
        num_workers=workers,
        collate_fn=_as_is,
        worker_init_fn=_start_worker,
    )
    title = f"decoding {source.title} at {size} px"
    with progress(total=total, initial=first, desc=title, unit="picture") as bar:
        for block, decoded in zip(blocks, _watched(loader), strict=True):
            rows = np.zeros((len(block), size, size, 3), np.uint8)
            rows[np.array(decoded.indices, int) - block[0]] = decoded.pictures
            unreadable.update(decoded.unreadable)
            growing.append(rows)
            if growing.rows - committed >= _COMMIT_EVERY:
                growing.commit({"unreadable": unreadable})
                committed = growing.rows
            bar.update(len(block))

    listing = {"format": _CACHE_FORMAT, "key": cache.key, "source": source.title, "unreadable": unreadable}
    write_json(cache.listing, listing)
    growing.finish()
