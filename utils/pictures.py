"""Pictures in and out of files."""

import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from utils.errors import UserError
from utils.files import atomic_write, write_text

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

#: A larger picture is refused as a decompression bomb: no camera makes one, and it would fill the memory.
MAX_PIXELS = 300_000_000
Image.MAX_IMAGE_PIXELS = MAX_PIXELS


class UnreadablePicture(Exception):
    """A file that is no whole picture; the message says why."""


def read_rgb(path: Path, at_least: int | None = None) -> np.ndarray:
    """Read a picture as people see it: (H, W, 3) uint8 RGB, EXIF orientation applied.

    Grey, palette, CMYK and 16-bit pictures are converted, an alpha channel is laid over mid-grey,
    of an animation the first frame is taken.

    Args:
        path: PNG, JPEG, WebP or BMP.
        at_least: a JPEG may be decoded at a half, a quarter or an eighth of its size, as long as
            both its sides stay at least this long.

    Raises:
        UnreadablePicture: missing, empty, truncated, damaged, not a picture, too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning)
            with Image.open(path) as image:
                if at_least is not None:
                    image.draft("RGB", (at_least, at_least))
                image.load()
                image = ImageOps.exif_transpose(image)
                return _as_rgb(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnreadablePicture(f"more than {MAX_PIXELS // 1_000_000} million pixels") from None
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError,
            ZeroDivisionError, AttributeError, MemoryError, RuntimeError) as error:
        # Pillow's decoders raise nearly anything on damaged files.
        reason = str(error).replace(str(path), "the file") or type(error).__name__
        raise UnreadablePicture(" ".join(reason.split())[:200]) from None
    except Exception as error:  # struct.error, zlib.error
        if type(error).__module__ in ("struct", "zlib"):
            raise UnreadablePicture(str(error)) from None
        raise


def _as_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith(("I;16", "I")):
        return np.repeat((np.asarray(image, np.int64).clip(0, 65535) >> 8).astype(np.uint8)[..., None], 3, -1)
    if image.mode == "F":
        return np.repeat(np.nan_to_num(np.asarray(image)).clip(0, 255).astype(np.uint8)[..., None], 3, -1)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (127, 127, 127, 255))
        image = Image.alpha_composite(ground, image)
    return np.array(image.convert("RGB"))


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a (H, W, 3) uint8 RGB picture as its suffix says (PNG or JPEG), whole or not at all."""
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
    """A stem for each file's results: its path without the extension, or with it where two would be the same.

    Compared without regard to case, as some file systems do.
    """
    full = [False] * len(files)
    while True:
        stems = [file if keep else file.rsplit(".", 1)[0] for file, keep in zip(files, full)]
        taken: dict[str, list[int]] = {}
        for i, stem in enumerate(stems):
            taken.setdefault(stem.casefold(), []).append(i)
        clashing = [i for group in taken.values() if len(group) > 1 for i in group if not full[i]]
        if not clashing:
            return stems
        for i in clashing:
            full[i] = True


def list_unreadable(listing: Path, reasons: dict[str, str], total: int, most: float, setting: str) -> None:
    """Write down which of `total` pictures cannot be read, and why; without any, take an earlier list away.

    Args:
        listing: file to write: a line "picture, tab, reason" each.
        reasons: picture → why.
        most: share of pictures that may be unreadable.
        setting: what this share is called where the person sets it.

    Raises:
        UserError: more than that are unreadable.
    """
    if not reasons:
        listing.unlink(missing_ok=True)
        return
    write_text(listing, "".join(f"{picture}\t{reason}\n" for picture, reason in reasons.items()))
    share = f"{len(reasons)} of {total} pictures cannot be read"
    if len(reasons) > most * total:
        raise UserError(f"{share} ({len(reasons) / total:.1%}; {setting} allows {most:.1%}). They are listed in {listing}. "
                        "Repair or remove them, or allow more")
    print(f"{share} and are left out; listed in {listing}", file=sys.stderr)


def as_uint8(batch: np.ndarray) -> np.ndarray:
    """Floats in [0, 1] → uint8, rounded."""
    return (np.clip(batch, 0, 1) * 255 + 0.5).astype(np.uint8)
