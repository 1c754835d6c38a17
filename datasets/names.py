"""Names of faces, and the split that follows from them."""

import hashlib
import re
import unicodedata

from utils.errors import UserError
from utils.pictures import SUFFIXES

SPLITS = ("train", "val", "test")


def name_of(file_or_label: str) -> str:
    """The NAME of a picture's file name or a label's key.

    What stands before the last "@" (HS_FACE's older form ID@NAME) and a picture's extension are
    taken off; Unicode is brought to form NFC, so that names match however a system spells them.
    """
    name = file_or_label.rsplit("@", 1)[-1]
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
            break
    return unicodedata.normalize("NFC", name)


def checked_name(text: str, where: str) -> str:
    """The NAME of an entry in a file of the data set.

    Raises:
        UserError: it is a path, so that whoever joins it to a folder could be led out of that folder.
    """
    name = name_of(text)
    if not name or name in (".", "..") or re.search(r"[/\\\0]|^[A-Za-z]:", text):
        raise UserError(f"{where} names {text[:80]!r}; expected the name of a picture, not a path")
    return name


def split_of(name: str) -> str:
    """ "train" (90 %), "val" or "test" (5 % each) by the name alone: nothing moves when data is added.

    The first 8 bytes of SHA-256 of the name as a big-endian integer, modulo 100: 0–89, 90–94, 95–99.
    """
    share = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big") % 100
    return "train" if share < 90 else "val" if share < 95 else "test"
