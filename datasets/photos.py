"""Data sets of aligned photos with parameters, as `data.photos` reads them: written.

<root>/images/NAME.png   the photos
<root>/labels.json       parameters of those that were fitted
<root>/parameters.csv    the game's table
<root>/photos.csv        name, status: what became of each photo
"""

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from datasets.names import first_alike
from games.parameters import Parameter, write_parameters
from games.writer import write_labels
from utils.errors import UserError
from utils.files import write_text

#: What becomes of a photo: it has parameters; its face is turned too far; the observer finds no face in it.
Status = Literal["fitted", "turned", "no_face"]

_HEADER = ("name", "status")


def names_of(pictures: Sequence[Path], folder: Path) -> list[str]:
    """File names that the pictures of a folder tree have in one folder.

    They are the pictures' own; where two are alike, the names of their folders stand before all: `PERSON_photo.png`.

    Raises:
        UserError: two come to the same name even so.
    """
    names = [path.name for path in pictures]
    if _first_alike(names) is not None:
        names = ["_".join(path.relative_to(folder).parts) for path in pictures]
    alike = _first_alike(names)
    if alike is not None:
        raise UserError(f"two of the photos in {folder} would have the name {alike!r}; rename one of them")
    return names


def _first_alike(names: Sequence[str]) -> str | None:
    """The first stem that a file name before has, too: a label belongs to a stem."""
    return first_alike(Path(name).stem for name in names)


def check_photos(output: Path, names: Sequence[str]) -> None:
    """See that a data set of pictures with these file names can be written to a folder.

    Raises:
        UserError: the folder holds other pictures already, whose labels would be lost, or somebody else's photos.csv.
    """
    images, table = output / "images", output / "photos.csv"
    strangers = {p.name for p in images.iterdir()} - set(names) if images.is_dir() else set()
    if strangers:
        raise UserError(
            f"{images} already holds {min(strangers)!r}, which is none of these photos. Choose an empty folder"
        )
    if table.exists() and not table.read_bytes().startswith(",".join(_HEADER).encode() + b"\n"):
        raise UserError(f"{table} was not written by this program. Move it away, or choose an empty folder")


def write_photos(
    output: Path,
    pictures: Mapping[str, Path],
    *,
    statuses: Mapping[str, Status],
    labels: Mapping[str, np.ndarray],
    parameters: Sequence[Parameter],
) -> None:
    """Write a data set of aligned photos.

    Args:
        output: folder for images/, parameters.csv, photos.csv and, last, labels.json.
        pictures: file name → aligned face; they are copied.
        statuses: file name → what became of the photo.
        labels: stem of a file name → parameters (P,); pictures may be left out, whose parameters then nobody learns.
        parameters: the game's table of parameters.

    Raises:
        UserError: as `check_photos`.
    """
    check_photos(output, list(pictures))
    images = output / "images"
    images.mkdir(parents=True, exist_ok=True)

    # Until the pictures are there, nothing may take these for a whole data set.
    (output / "labels.json").unlink(missing_ok=True)
    for name, picture in pictures.items():
        shutil.copyfile(picture, images / name)

    # The tables, labels last.
    write_parameters(output / "parameters.csv", parameters)
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([_HEADER, *statuses.items()])
    write_text(output / "photos.csv", table.getvalue())
    write_labels(output, list(labels), labels=np.array(list(labels.values())))
