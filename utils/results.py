"""Which results in a folder are of which photos, so that no photo's result takes the place of another's."""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from utils.files import file_digest, read_json, spelling
from utils.identity import Paths

#: The files of a result called {}: what it says, what it shows, and the files that a game makes of it.
_FILES = ("{}.json", "{}.png", "{}_character.png", "{}_card.png", "{}.mhm", "human.{}.json")


class Plan(NamedTuple):
    """A result that is to be written."""

    name: str  #: what its photo is called, without the extension
    photos: list[Path]


def files_of(stem: Path) -> list[Path]:
    """All files that a result may have; `stem` is their path without extensions."""
    return [stem.with_name(file.format(stem.name)) for file in _FILES]


def name_of(photo: Path) -> str:
    """What a photo's result is called: the photo's file name without its extension."""
    return photo.stem if photo.stem.strip(".") else photo.name


def describe_photos(photos: Sequence[Path]) -> dict[str, list[str]]:
    """What STEM.json says of the photos of a result: their full paths, and SHA-256 of each ("" where it is gone)."""
    return {"photos": [os.path.abspath(path) for path in photos], "sha256": [file_digest(path) for path in photos]}


def choose_stems(output: Path, plans: Sequence[Plan]) -> list[Path]:
    """The path of each result's files, without extensions: OUTPUT/NAME, or OUTPUT/NAME_2 and so on.

    A name is passed over where another of these has it, or where a file of it is there that is no earlier
    result of the same photos.
    """
    taken: set[str] = set()
    of_paths: dict[tuple[Path, ...], _Photos] = {}  # several results may be of one photo, which is read once
    stems = []
    for plan in plans:
        photos = of_paths.setdefault(tuple(plan.photos), _Photos(plan.photos))
        stem, number = output / plan.name, 1
        while taken & _spellings(stem) or not _is_free(stem, photos):
            number += 1
            stem = output / f"{plan.name}_{number}"
        taken |= _spellings(stem)
        stems.append(stem)
    return stems


class _Photos:
    """Photos that are known again by their path, however it is spelt, or by their content."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._photos, self._paths = paths, Paths(paths)

    @cached_property
    def _digests(self) -> set[str]:
        return {file_digest(path) for path in self._photos} - {""}

    def made(self, json_file: Path) -> bool:
        """Whether a result was made of some of these photos and no others."""
        content = read_json(json_file) or {}
        photos, digests = content.get("photos"), content.get("sha256")
        if not isinstance(photos, list) or not photos or not all(isinstance(path, str) for path in photos):
            return False
        if not isinstance(digests, list) or len(digests) != len(photos):
            digests = [""] * len(photos)
        return all(
            digest in self._digests or self._paths.same(Path(path)) is not None
            for path, digest in zip(photos, digests, strict=True)
        )


def _is_free(stem: Path, photos: _Photos) -> bool:
    """Whether nothing is there that the files of a result would replace, but an earlier result of the same photos."""
    there = [path for path in files_of(stem) if os.path.lexists(path)]
    if not there:
        return True
    first, *others = files_of(stem)
    if not photos.made(first):
        return False
    # A game's file may have the name of another photo's result.
    return not any("photos" in (read_json(path) or {}) and not photos.made(path) for path in others)


def _spellings(stem: Path) -> set[str]:
    return {spelling(path.name) for path in files_of(stem)}
