"""Names of faces, and the split that follows from them."""

import hashlib
import re
import unicodedata
from collections.abc import Container, Iterable

from utils.errors import UserError
from utils.files import spelling
from utils.pictures import SUFFIXES

SPLITS = ("train", "val", "test")


def name_of(file_or_label: str) -> str:
    """The NAME of a picture's file name, or of an entry in a file of the data set.

    A picture's extension is taken off, and Unicode is brought to form NFC, so that names match however a system spells
    them.
    """
    name = file_or_label
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
            break
    return unicodedata.normalize("NFC", name)


def known_name(name: str, known: Container[str]) -> str:
    """The NAME under which a name is known: without what stands before its last "@", where only that is known.

    HS_FACE's older form of a file is ID@NAME. A name that has an "@" of its own, as face@2x, is left alone.

    Args:
        known: names of the labels.
    """
    if name in known or "@" not in name:
        return name
    return name.rsplit("@", 1)[1]


def checked_name(text: str, where: str) -> str:
    """The NAME of an entry in a file of the data set.

    Raises:
        UserError: it is a path, so that whoever joins it to a folder could be led out of that folder; or it holds a
            control character, which no list of names could keep.
    """
    name = name_of(text)
    if not name or name in (".", "..") or re.search(r"[/\\\0]|^[A-Za-z]:", text):
        raise UserError(f"{where} names {text[:80]!r}; expected the name of a picture, not a path")
    if not is_listable(name):
        raise UserError(f"{where} names {text[:80]!r}; expected a name without line breaks")
    return name


def is_listable(name: str) -> bool:
    """Whether a name can stand on a line of its own in a list of names."""
    return "\n" not in name and "\r" not in name and name == name.strip()


def split_of(name: str) -> str:
    """The split of a name by the name alone, "train" (90 %), "val" or "test" (5 % each): nothing moves with new data.

    The first 8 bytes of SHA-256 of the name as a big-endian integer, modulo 100: 0–89, 90–94, 95–99.
    """
    share = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big") % 100
    return "train" if share < 90 else "val" if share < 95 else "test"


def first_alike(names: Iterable[str]) -> str | None:
    """The first of some names that a file system may take for one before it; None where all differ."""
    seen = set[str]()
    for name in names:
        if spelling(name) in seen:
            return name
        seen.add(spelling(name))
    return None
