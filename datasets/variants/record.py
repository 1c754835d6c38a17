"""What of a data set's variants this program made: a mark in each picture, and variants.json beside the folders.

<root>/aug_images/NAME.png        variants; a text chunk of the PNG says what each was made of
<root>/variants.json              the settings of all of them, and which renders have none, with the reason
<root>/variants_left_out.txt      the same for people: NAME, tab, reason
"""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from datasets.variants.recipe import digest_of
from utils.errors import UserError
from utils.files import atomic_write, file_digest, read_json, write_json
from utils.pictures import write_listing

_FORMAT = "face2parameter variants 1"

#: Keyword of the text chunk that marks a variant as ours.
_KEYWORD = "face2parameter variant"


class Mark(NamedTuple):
    """What a variant was made of."""

    recipe: str  #: digest of the settings
    render: str  #: digest of the render's file


class Record:
    """The variants of a data set, as far as this program made them.

    Args:
        root: of the data set.
        settings: of the recipe, as `Recipe.settings` gives them.
        restart: variants of other settings may be drawn anew.

    Raises:
        UserError: variants.json is not ours, or was written with other settings.
    """

    def __init__(self, root: Path, settings: dict[str, Any], *, restart: bool) -> None:
        self.root, self.settings = root, settings
        self.recipe = digest_of(settings)
        self.file, self.listing = root / "variants.json", root / "variants_left_out.txt"
        self.left_out: dict[str, dict[str, str]] = {}  #: NAME → digest of its render, reason
        if not self.file.exists():
            return

        known = read_json(self.file)
        if known is None or not _is_ours(known):
            raise UserError(
                f"{self.file} is damaged, or no file of datasets.variants. Give it another name; variants that are "
                "there are kept"
            )
        if restart:
            return
        self._check(known)
        self.left_out = dict(known["left_out"])

    def _check(self, known: dict[str, Any]) -> None:
        before = known["settings"]
        for name, value in self.settings.items():
            if before.get(name) != value:
                raise UserError(
                    f"the variants in {self.root} were drawn with {name} = {before.get(name)!r}, now {value!r} is "
                    "asked for. Use the same settings, or draw all of them anew with --restart"
                )

    def is_done(self, name: str, render: Path, variant: Path) -> bool:
        """Whether nothing is to be drawn for a NAME: its variant is there or not ours, or it is known to be left out.

        Args:
            render: its file.
            variant: where its variant lies or would go.
        """
        if not os.path.lexists(variant):
            return name in self.left_out and self.left_out[name]["render"] == render_digest(render)
        mark = read_mark(variant)
        # Somebody else's is never touched.
        return mark is None or mark == Mark(self.recipe, render_digest(render))

    def add_variant(self, name: str, path: Path, picture: np.ndarray, *, render: str) -> None:
        """Write a variant with its mark, whole or not at all."""
        mark = {"recipe": self.recipe, "render": render}
        text = PngInfo()
        text.add_text(_KEYWORD, json.dumps(mark))
        with atomic_write(path) as file:
            Image.fromarray(picture).save(file, "PNG", pnginfo=text)
        self.left_out.pop(name, None)

    def leave_out(self, name: str, path: Path, reason: str, *, render: str) -> None:
        """Note that a render has no variant. One of ours that was drawn from another render, or otherwise, goes."""
        if read_mark(path) is not None:
            path.unlink()
        self.left_out[name] = {"render": render, "reason": reason}

    def save(self) -> None:
        """Write variants.json and the listing."""
        left_out = dict(sorted(self.left_out.items()))
        write_json(self.file, {"format": _FORMAT, "settings": self.settings, "left_out": left_out})
        write_listing(self.listing, {name: entry["reason"] for name, entry in left_out.items()})


def _is_ours(known: dict[str, Any]) -> bool:
    """Whether the content of a variants.json is what `Record.save` writes."""
    left_out = known.get("left_out")
    if known.get("format") != _FORMAT or not isinstance(known.get("settings"), dict) or not isinstance(left_out, dict):
        return False
    return all(isinstance(entry, dict) and entry.keys() >= {"render", "reason"} for entry in left_out.values())


def read_mark(path: Path) -> Mark | None:
    """What a variant was made of; None for a file that is missing, or not ours."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            mark = json.loads(image.info[_KEYWORD])
        return Mark(mark["recipe"], mark["render"])
    except Exception:  # Pillow raises nearly anything on a file that is no picture of ours
        return None


def render_digest(path: Path) -> str:
    """What a mark says of a render's file: the first 16 hexadecimal digits of its SHA-256."""
    return file_digest(path)[:16]
