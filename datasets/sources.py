"""The pictures of an experiment: which each step reads, as its configuration says."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from datasets.labels import describe_layout, find_parts, read_splits
from datasets.names import split_of
from utils.config import Config, DataConfig
from utils.errors import UserError
from utils.pictures import UnreadablePicture, find_pictures, printable, read_rgb

#: How many pictures of a source are read whole for its digest, evenly spread over it.
_SAMPLED = 64

#: How many pictures of a folder are looked at to see whether it was aligned.
_LOOKED_AT = 16


class Source(NamedTuple):
    """Pictures that belong together: a part of a data set, or a folder."""

    title: str  #: for people: the folder
    paths: list[Path]
    names: list[str]  #: NAME of each
    splits: list[str]  #: "train", "val", "test" of each; "" for a picture that the split files do not list


def labelled_sources(data: DataConfig) -> dict[str, Source]:
    """Picture sources that can have labels: "images" and "aug_images" of data.root, "photos" of data.photos.

    Raises:
        UserError: a data set is missing or not in the HS_FACE layout.
    """
    sources = root_sources(Path(data.root)) if data.root else {}
    if data.photos:
        sources["photos"] = root_sources(Path(data.photos))["images"]
    return sources


def root_sources(root: Path) -> dict[str, Source]:
    """The parts of a data set in the HS_FACE layout. A render and its variant have one NAME and so one split."""
    sources = {}
    for part, files in find_parts(root).items():
        split = read_splits(root, files)
        splits = [split.get(name, "") for name in files]
        sources[part] = Source(str(root / part), list(files.values()), list(files), splits)
    return sources


def describe_data(data: DataConfig) -> str:
    """A line per data set for people: what it holds, how much of it is used, and why not the rest.

    Raises:
        UserError: a data set is missing or not in the HS_FACE layout.
    """
    return "\n".join(describe_layout(Path(root)) for root in (data.root, data.photos) if root)


def folder_source(folder: Path) -> Source:
    """A plain folder of aligned faces; NAME is the path below the folder, with "/".

    Raises:
        UserError: the folder is missing or holds no pictures.
    """
    if not folder.is_dir():
        raise UserError(f"data.folders names {folder}, which is no folder; expected a folder of aligned faces")
    paths = find_pictures(folder)
    if not paths:
        raise UserError(
            f"data.folders names {folder}, which holds no pictures; expected aligned faces as PNG, JPEG, WebP or BMP"
        )
    names = [path.relative_to(folder).as_posix() for path in paths]
    _refuse_unaligned(folder, paths)
    return Source(str(folder), paths, names, [split_of(name) for name in names])


def _refuse_unaligned(folder: Path, paths: list[Path]) -> None:
    """Look at some pictures of a folder. Raises UserError where one is not square, as aligned faces are."""
    for path in paths[:: max(1, len(paths) // _LOOKED_AT)]:
        try:
            height, width = read_rgb(path).shape[:2]
        except UnreadablePicture:
            continue
        if height != width:
            raise UserError(
                f"data.folders names {folder}, whose {printable(path.name)} has {width}×{height} pixels; expected "
                "aligned faces, which are square. Align the folder first: "
                f"face_alignment.py --input {folder} --output ALIGNED"
            )


def vae_sources(config: Config) -> dict[str, Source]:
    """All that stage 1 learns: renders, their variants if wanted, photos, further folders.

    Raises:
        UserError: a folder is missing or empty.
    """
    data = config.data
    sources = labelled_sources(data)
    if not data.use_variants:
        sources.pop("aug_images", None)
    for i, folder in enumerate(map(Path, data.folders)):
        sources[f"folder {i + 1}"] = folder_source(folder)
    return sources


def content_digest(source: Source) -> str:
    """SHA-256 of what a source holds, wherever it lies and however its path is spelt.

    All names, splits and file sizes count, and the bytes of a few dozen files: reading every file of a large data set
    would take minutes at each start.
    """
    digest = hashlib.sha256()
    step = max(1, len(source.paths) // _SAMPLED)
    rows = zip(source.paths, source.names, source.splits, strict=True)
    for i, (path, name, split) in enumerate(rows):
        try:
            size = os.stat(path).st_size
            content = path.read_bytes() if i % step == 0 else b""
        except OSError:
            size, content = -1, b""
        digest.update(f"{name}\0{split}\0{size}\0".encode("utf-8", "surrogateescape"))
        digest.update(content)
    return digest.hexdigest()


def ensure_data(config: Config, workers: int) -> None:
    """Let the embedded game write `data.root` where the configuration wants that and it is not complete.

    Raises:
        UserError: another version of the game wrote the folder, or its pictures are smaller than the networks see.
    """
    data, root = config.data, Path(config.data.root)
    if not data.root or not data.creator_count:
        return

    from games.game import VERSION  # here, as most runs bring their own data
    from games.writer import DataSet, read_manifest, write_data_set

    manifest = read_manifest(root)
    if manifest is None:
        if root.exists() and any(not p.name.startswith(".") for p in root.iterdir()):
            return  # somebody's own data set
    elif manifest["creator"] != VERSION:
        raise UserError(
            f"{root} was written by version {manifest['creator']} of the creator, this is version {VERSION}. "
            "Delete the folder to have it written again, choose another data.root, or set data.creator_count=0 to "
            "learn it as the game that it is of"
        )
    elif manifest.get("size", data.image_size) < data.image_size:
        raise UserError(
            f"{root} holds pictures of {manifest['size']} pixels, and data.image_size is {data.image_size}. Delete the "
            "folder to have it written again, choose another data.root, or set data.creator_count=0 to learn enlarged "
            "pictures"
        )

    if not (root / "labels.json").exists():
        with_variants = " with their photo-like variants" if data.use_variants else ""
        print(
            f"{root} is not there yet: the embedded creator writes {data.creator_count} faces{with_variants}.",
            flush=True,
        )
        wanted = DataSet(data.creator_count, data.creator_seed, size=data.image_size, with_variants=data.use_variants)
        write_data_set(root, wanted, workers=workers)
