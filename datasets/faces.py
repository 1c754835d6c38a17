"""The faces of an experiment: which pictures each step reads, as its configuration says."""

import json
from pathlib import Path
from typing import Any

from datasets.creator import VERSION, write_data_set
from datasets.hs_face import find_parts, read_splits
from datasets.names import split_of
from datasets.pictures import Pictures, Source, folder_source
from utils.config import Config, DataConfig
from utils.errors import UserError
from utils.pictures import find_pictures


def ensure_data(config: Config, workers: int) -> None:
    """Let the embedded creator write `data.root` where the configuration wants that and it is not complete.

    Raises:
        UserError: the folder was written by another version of the creator, or with smaller pictures than the networks see.
    """
    data, root = config.data, Path(config.data.root)
    if not data.root or not data.creator_count:
        return
    written = creator_settings(root)
    if written is None:
        if root.exists() and any(not p.name.startswith(".") for p in root.iterdir()):
            return  # somebody's own data set
    elif written["creator"] != VERSION:
        raise UserError(f"{root} was written by version {written['creator']} of the creator, this is version {VERSION}. "
                        "Delete the folder to have it written again, or choose another data.root")
    elif written.get("size", data.image_size) < data.image_size:
        raise UserError(f"{root} holds pictures of {written['size']} pixels, and data.image_size is {data.image_size}. Delete the folder to have it "
                        "written again, choose another data.root, or set data.creator_count=0 to learn enlarged pictures")
    if not (root / "labels.json").exists():
        print(f"{root} is not there yet: the embedded creator writes {data.creator_count} faces"
              f"{' with their photo-like variants' if data.use_aug else ''}.", flush=True)
        write_data_set(root, data.creator_count, data.creator_seed, data.image_size, data.use_aug, workers)


def creator_settings(root: Path) -> dict[str, Any] | None:
    """What the creator wrote a data set with: its version, seed and so on; None for a data set of another game."""
    try:
        settings = json.loads((root / "creator.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return settings if isinstance(settings, dict) and "creator" in settings else None


def creator_version(root: Path) -> str | None:
    """The version of the creator that wrote a data set; None for a data set of another game."""
    settings = creator_settings(root)
    return settings["creator"] if settings else None


def data_sources(data: DataConfig) -> dict[str, tuple[Source, list[str]]]:
    """What has, or may have, parameters: "images", "aug_images" of data.root and "photos" of data.photos, each a source and its splits."""
    sources, splits = root_sources(Path(data.root)) if data.root else ([], [])
    parts = {Path(source.title).name: (source, split) for source, split in zip(sources, splits)}
    if data.photos:
        parts["photos"] = tuple(of[0] for of in root_sources(Path(data.photos)))
    return parts


def root_sources(root: Path) -> tuple[list[Source], list[list[str]]]:
    """The parts of a data set in the HS_FACE layout as sources, with the splits of their pictures.

    A render and its variant have one NAME and so one split; pictures that the split files do not
    list have the split "".
    """
    sources, splits = [], []
    for part, files in find_parts(root).items():
        of_name = read_splits(root, files)
        sources.append(Source(f"{root / part}", list(files.values()), list(files)))
        splits.append([of_name.get(name, "") for name in files])
    return sources, splits


def vae_pictures(config: Config, workers: int) -> Pictures:
    """All that stage 1 learns: renders, their variants if wanted, photos, further folders.

    Raises:
        UserError: a folder is missing or empty.
    """
    data = config.data
    parts = data_sources(data)
    if not data.use_aug:
        parts.pop("aug_images", None)
    sources, splits = map(list, zip(*parts.values())) if parts else ([], [])
    for folder in map(Path, data.folders):
        if not folder.is_dir():
            raise UserError(f"data.folders names {folder}, which is no folder; expected a folder of aligned faces")
        paths = find_pictures(folder)
        if not paths:
            raise UserError(f"data.folders names {folder}, which holds no pictures; expected aligned faces as PNG, JPEG, WebP or BMP")
        source = folder_source(folder, paths)
        sources.append(source)
        splits.append([split_of(name) for name in source.names])
    return Pictures(sources, splits, data.image_size, Path(data.cache) if data.cache else None, workers)
