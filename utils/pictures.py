"""Pictures in and out of files."""

import io
import os
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from utils.errors import UserError
from utils.files import atomic_write, spelling, write_text

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

#: What is opened, by a file's content: a PostScript file named .jpg is no picture here.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")

#: A larger picture is refused as a decompression bomb: no camera makes one, and it would fill the memory.
MAX_PIXELS = 300_000_000
Image.MAX_IMAGE_PIXELS = MAX_PIXELS

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

#: Categories of characters that no line of text can hold: control characters, surrogates, line and paragraph ends.
_ESCAPED = {"Cc", "Cs", "Zl", "Zp"}

#: Chunks of a PNG file that its pixels need; the others are metadata.
_PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}


class UnreadablePicture(Exception):
    """A file that is no whole picture; the message says why."""


def read_rgb(path: Path, at_least: int | None = None) -> np.ndarray:
    """Read a picture as people see it: (H, W, 3) uint8 RGB, EXIF orientation applied.

    Grey, palette, CMYK and 16-bit pictures are converted, an alpha channel is laid over mid-grey,
    of an animation the first frame is taken. Metadata that cannot be read is left aside: pixels count.

    Args:
        path: PNG, JPEG, WebP or BMP, by its content.
        at_least: a JPEG may be decoded at a half, a quarter or an eighth of its size, as long as
            both its sides stay at least this long.

    Raises:
        UnreadablePicture: missing, empty, truncated, damaged, not a picture, too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning)
            return _decode(path, at_least)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadablePicture(f"more than {MAX_PIXELS // 1_000_000} million pixels") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files
        reason = str(error).replace(str(path), "the file") or type(error).__name__
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror
        reason = reason.encode("utf-8", "replace").decode("utf-8")
        raise UnreadablePicture(" ".join(reason.split())[:200]) from None


def _decode(path: Path, at_least: int | None) -> np.ndarray:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            return _pixels(image, at_least)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise
    except Exception:
        # What failed may be metadata alone.
        stripped = _without_metadata(path.read_bytes())
        if stripped is None:
            raise
    with Image.open(io.BytesIO(stripped), formats=_FORMATS) as image:
        return _pixels(image, at_least)


def _pixels(image: Image.Image, at_least: int | None) -> np.ndarray:
    if at_least is not None:
        image.draft("RGB", (at_least, at_least))
    image.load()
    try:
        image = ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF says nothing of the pixels
        image.info.pop("exif", None)
    return _as_rgb(image)


def _without_metadata(data: bytes) -> bytes | None:
    """A PNG file reduced to what its pixels need; None for another format, or where nothing could be left out."""
    if not data.startswith(_PNG_SIGNATURE):
        return None
    kept, at, left_out = [_PNG_SIGNATURE], len(_PNG_SIGNATURE), False
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, end = data[at + 4 : at + 8], at + 12 + length
        if kind in _PIXEL_CHUNKS:
            kept.append(data[at:end])
        else:
            left_out = True
        at = end
    return b"".join(kept) if left_out else None


def _as_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):
        grey = (np.asarray(image, np.int64).clip(0, 65535) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, -1)
    if image.mode == "F":
        grey = np.nan_to_num(np.asarray(image)).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, -1)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (127, 127, 127, 255))
        image = Image.alpha_composite(ground, image)
    return np.array(image.convert("RGB"))


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a (H, W, 3) uint8 RGB picture as its suffix says (PNG or JPEG), whole or not at all.

    Raises:
        UserError: another suffix.
    """
    suffix = path.suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise UserError(f"{path} should end in .png or .jpg, the formats that pictures are written in")
    with atomic_write(path) as file:
        if suffix == ".png":
            Image.fromarray(picture).save(file, "PNG")
        else:
            Image.fromarray(picture).save(file, "JPEG", quality=88)


def find_pictures(folder: Path) -> list[Path]:
    """All picture files below `folder`, sorted; symbolic links are followed, loops are not."""
    return sorted(_walk(folder, set()))


def _walk(folder: Path, seen: set[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link that leads nowhere but to itself
                continue
            if is_folder:
                yield from _walk(Path(entry.path), seen)
            elif entry.name.lower().endswith(SUFFIXES):
                yield Path(entry.path)


def unique_stems(files: list[str]) -> list[str]:
    """A stem for the PNG made of each file: its path without the extension, or with it where two would be the same.

    No two are the same to a file system that tells neither case nor Unicode's forms apart: where the extension does
    not help, a number follows. Nor does STEM.png stand where the files have a folder.
    """
    folders = {spelling(parent) for file in files for parent in _parents(file)}
    keeps_suffix = [False] * len(files)
    while True:
        stems = []
        for file, keep in zip(files, keeps_suffix, strict=True):
            stems.append(file if keep else file.rsplit(".", 1)[0])

        # Files whose stems clash keep their extension, until none do.
        taken: dict[str, list[int]] = {}
        for i, stem in enumerate(stems):
            taken.setdefault(spelling(stem), []).append(i)
        groups = [group for stem, group in taken.items() if len(group) > 1 or f"{stem}.png" in folders]
        clashing = [i for group in groups for i in group if not keeps_suffix[i]]
        if not clashing:
            return _numbered(stems, folders) if groups else stems
        for i in clashing:
            keeps_suffix[i] = True


def _parents(file: str) -> list[str]:
    """The folders above a file, of its path with "/"."""
    parts = file.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]


def _numbered(stems: list[str], folders: set[str]) -> list[str]:
    """The same stems, with a number where another has the same spelling or STEM.png is one of some folders."""
    wanted, taken, numbered = {spelling(stem) for stem in stems}, set[str](), []
    for stem in stems:
        unique, number = stem, 1
        while _is_taken(unique, taken, folders) or (number > 1 and spelling(unique) in wanted):
            number += 1
            unique = f"{stem}_{number}"
        taken.add(spelling(unique))
        numbered.append(unique)
    return numbered


def _is_taken(stem: str, taken: set[str], folders: set[str]) -> bool:
    return spelling(stem) in taken or f"{spelling(stem)}.png" in folders


def write_listing(listing: Path, reasons: dict[str, str]) -> None:
    """Write which pictures cannot be used, a line "picture, tab, reason" each; without any, remove the listing."""
    if reasons:
        lines = [f"{printable(picture)}\t{reason}\n" for picture, reason in reasons.items()]
        write_text(listing, "".join(lines))
    else:
        listing.unlink(missing_ok=True)


def refuse_other_listing(listing: Path) -> None:
    """Raise UserError where the file that `write_listing` would replace or remove holds something else."""
    try:
        lines = listing.read_bytes().split(b"\n")
    except OSError:  # there is none; what else it may be is said where it is written
        return
    if not all(b"\t" in line for line in lines if line):
        raise UserError(
            f"{listing} was not written by this program, which lists unreadable pictures there. Move it away, or "
            "choose another --output"
        )


def check_unreadable(reasons: dict[str, str], *, total: int, most: float, setting: str, listing: Path) -> None:
    """List unreadable pictures, and stop where they are too many.

    Args:
        reasons: picture → why it cannot be read.
        total: pictures that were looked at.
        most: fraction of them that may be unreadable.
        setting: what this fraction is called where the person sets it.
        listing: file for `write_listing`.

    Raises:
        UserError: more than that are unreadable.
    """
    write_listing(listing, reasons)
    if not reasons:
        return
    summary = f"{len(reasons)} of {total} pictures cannot be read"
    if len(reasons) > most * total:
        raise UserError(
            f"{summary} ({len(reasons) / total:.1%}; {setting} allows {most:.1%}). They are listed in {listing}. "
            "Repair or remove them, or allow more"
        )
    print(f"{summary} and are left out; listed in {listing}", file=sys.stderr)


def printable(name: str) -> str:
    """A file's name on one line, whatever bytes it has: control characters, line ends and broken UTF-8 are escaped."""
    if name.isprintable():
        return name
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in _ESCAPED else c for c in name)


def as_uint8(batch: np.ndarray) -> np.ndarray:
    """Floats in [0, 1] → uint8, rounded."""
    return (np.clip(batch, 0, 1) * 255 + 0.5).astype(np.uint8)


def grid(pictures: np.ndarray, columns: int) -> np.ndarray:
    """(N, H, W, 3) uint8 pictures as one (rows·H, columns·W, 3), filled row by row, white where none is left."""
    count, height, width = pictures.shape[:3]
    rows = -(-count // columns)
    filled = np.full((rows * columns, height, width, 3), 255, np.uint8)
    filled[:count] = pictures
    sheet = filled.reshape(rows, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    return sheet.reshape(rows * height, columns * width, 3)
