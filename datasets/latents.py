"""The table of latents between the stages: (source, view) → a row per face.

extract_latentvec.py writes it, stage 2 reads it.

    runs/NAME/latents/SET.npy    float32 (N, 2·latent_dim), row i = [mu | logvar] of the NAME on line i of SET.txt
    runs/NAME/latents/SET.json   what the set was made of
    runs/NAME/latents/meta.json  the encoder's fingerprint, image size, counts; there once all sets are whole

SET is a source ("images", "aug_images", "photos") and a view, how its pictures were shown to the encoder: as they are
(""), moved a little ("_moved"), mirrored ("_mirrored").
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.labels import Labels, read_labels, read_splits
from datasets.sources import Source
from games.parameters import Parameter, read_parameters
from games.writer import read_manifest
from utils.alignment import MISALIGNMENT_SPREAD
from utils.arrays import GrowingArray
from utils.config import Config, LatentsConfig
from utils.errors import UserError
from utils.files import atomic_write, read_json, write_json, write_text
from utils.pictures import printable

#: How pictures are shown to the encoder: as they are, moved by a small misalignment, mirrored.
AS_IT_IS, MOVED, MIRRORED = "", "_moved", "_mirrored"

#: In which precision the encoder may compute.
PRECISIONS = ("bf16", "fp32")


class LatentSet(NamedTuple):
    """One set of latents that a run wants: the faces of a source in one view."""

    source: str  #: "images", "aug_images" or "photos"
    view: str  #: `AS_IT_IS`, `MOVED` or `MIRRORED`
    key: str  #: what it is made of: encoder, precision, pictures; JSON

    @property
    def name(self) -> str:
        return self.source + self.view


def views_of(settings: LatentsConfig) -> list[str]:
    """The views that a configuration asks for."""
    return [AS_IT_IS] + [MOVED] * settings.moved + [MIRRORED] * settings.mirrored


def plan(digests: dict[str, str], trained: Config, settings: LatentsConfig, fingerprint: str) -> list[LatentSet]:
    """Every latent set that a configuration asks for.

    Args:
        digests: source → `datasets.sources.content_digest` of its pictures.
        trained: the configuration that the encoder was trained with.
        settings: which views, in which precision; that is one of `PRECISIONS`.
        fingerprint: of the encoder.
    """
    sets = []
    for source, digest in digests.items():
        made_of = [fingerprint, trained.data.image_size, settings.precision, digest]
        for view in views_of(settings):
            spread = MISALIGNMENT_SPREAD if view == MOVED else None
            sets.append(LatentSet(source, view, json.dumps([*made_of, spread])))
    return sets


class LatentFolder:
    """runs/NAME/latents: writes and reads the sets.

    Args:
        folder: it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.meta = folder, folder / "meta.json"

    # --- writing ------------------------------------------------------------------------------

    def note_of(self, latents: LatentSet) -> dict[str, Any] | None:
        """Count and unreadable names of a set that is whole; None where it is not there, or made of something else."""
        note = read_json(self._file(latents.name, "json"))
        if note is None or note.get("key") != latents.key or not {"count", "unreadable"} <= note.keys():
            return None
        whole = all(self._file(latents.name, suffix).exists() for suffix in ("npy", "txt"))
        return note if whole else None

    def has_begun(self, latents: LatentSet) -> bool:
        """Whether a set is whole, or some of its faces are encoded."""
        if self.note_of(latents) is not None:
            return True
        part = read_json(self._file(f"{latents.name}.rank0.npy.part", "json")) or {}
        return part.get("key", "").startswith(json.dumps([latents.key])[:-1])  # the numbers of its faces follow

    def start(self, sets: list[LatentSet]) -> None:
        """Forget what is to be made anew: until all sets are whole, nothing may take these latents for finished."""
        self.meta.unlink(missing_ok=True)
        for latents in sets:
            self._file(latents.name, "json").unlink(missing_ok=True)

    def shard(self, latents: LatentSet, latent_dim: int, *, rank: int, faces: range) -> GrowingArray:
        """The array that one of several processes fills with its faces' latents."""
        key = json.dumps([latents.key, faces.start, faces.stop])
        path = self._file(f"{latents.name}.rank{rank}", "npy")
        return GrowingArray(path, (len(faces), 2 * latent_dim), dtype="f4", key=key)

    def finish_shard(self, growing: GrowingArray, unreadable: list[str]) -> None:
        """Close one process's shard and list the names it could not read beside it."""
        growing.finish()
        write_json(growing.path.with_suffix(".json"), {"unreadable": unreadable})

    def join(self, latents: LatentSet, source: Source, world: int) -> None:
        """Put the shards of all processes together as SET.npy and SET.txt, and say in SET.json what they are."""
        shards = [self._file(f"{latents.name}.rank{rank}", "npy") for rank in range(world)]
        notes = [read_json(shard.with_suffix(".json")) or {} for shard in shards]
        unreadable = [name for note in notes for name in note.get("unreadable", [])]

        if world == 1:
            shards[0].replace(self._file(latents.name, "npy"))
        else:
            with atomic_write(self._file(latents.name, "npy")) as file:
                np.save(file, np.concatenate([np.load(shard) for shard in shards]), allow_pickle=False)

        left_out = set(unreadable)
        names = [name for name in source.names if name not in left_out]
        write_text(self._file(latents.name, "txt"), "".join(f"{name}\n" for name in names))
        note = {"key": latents.key, "count": len(names), "unreadable": unreadable}
        write_json(self._file(latents.name, "json"), note)
        for shard in shards:
            shard.unlink(missing_ok=True)
            shard.with_suffix(".json").unlink(missing_ok=True)

    # --- reading ------------------------------------------------------------------------------

    def read_meta(self, fingerprint: str) -> dict[str, Any]:
        """meta.json. Raises UserError where it is missing, damaged, or of another encoder."""
        meta = read_json(self.meta)
        if meta is None and not self.meta.exists():
            raise UserError(
                f"there are no latents in {self.folder}, or they are not finished; run extract_latentvec.py first"
            )
        if meta is None or not isinstance(meta.get("fingerprint"), str):
            raise UserError(f"{self.meta} is damaged; run extract_latentvec.py --restart")
        found = meta["fingerprint"]
        if found != fingerprint:
            raise UserError(
                f"the latents in {self.folder} belong to another encoder ({found[:12]}…) than the run's VAE checkpoint "
                f"({fingerprint[:12]}…); run extract_latentvec.py again"
            )
        return meta

    def has(self, source: str) -> bool:
        """Whether latents of a source are there."""
        return self._file(source, "npy").exists()

    def read(self, name: str, latent_dim: int) -> tuple[list[str], np.ndarray]:
        """Names and latents (N, 2·latent_dim), memory-mapped, of a set.

        Raises:
            UserError: missing, damaged, of another shape, not finite.
        """
        path = self._file(name, "npy")
        try:
            latents = np.load(path, mmap_mode="r", allow_pickle=False)
            names = path.with_suffix(".txt").read_bytes().decode("utf-8", "surrogateescape").split("\n")[:-1]
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"cannot read the latents {path}: {error}. Run extract_latentvec.py --restart") from None

        expected = (len(names), 2 * latent_dim)
        if latents.shape != expected or latents.dtype != np.float32:
            raise UserError(
                f"{path} holds {latents.dtype} {latents.shape}; expected float32 {expected}, a row for each line of "
                f"{name}.txt. Run extract_latentvec.py --restart"
            )
        bad = np.nonzero(~np.isfinite(latents).all(1))[0]
        if len(bad):
            raise UserError(
                f"{path}, row {bad[0]} ({names[bad[0]]}): not a finite number ({len(bad)} rows are concerned). "
                "Run extract_latentvec.py --restart; if that does not help, the VAE's training diverged"
            )
        return names, latents

    def _file(self, name: str, suffix: str) -> Path:
        return self.folder / f"{name}.{suffix}"


# --- what stage 2 reads ---------------------------------------------------------------------------


class LatentTable(NamedTuple):
    """N faces whose latents and labels are both known: renders, and after them photos with parameters."""

    names: list[str]
    labels: np.ndarray  #: (N, P) float32
    split: np.ndarray  #: (N,) of "train", "val", "test", "photos"; "" for faces that split files do not list
    #: (source, view) → (N, 2·latent_dim) float32. Source "images" is the face itself. Source "aug_images", there where
    #: the data set has variants, is its variant, and the face itself where it has none.
    rows: dict[tuple[str, str], np.ndarray]
    has_variant: np.ndarray  #: (N,) bool
    parameters: list[Parameter]
    meta: dict[str, Any]  #: meta.json of the latents

    def of(self, split: str) -> np.ndarray:
        """Indices of a split's faces."""
        return np.nonzero(self.split == split)[0]

    @property
    def latent_dim(self) -> int:
        return self.rows["images", AS_IT_IS].shape[1] // 2

    @property
    def digest(self) -> str:
        """SHA-256 of the faces' names and splits."""
        digest = hashlib.sha256()
        for name, split in zip(self.names, self.split, strict=True):
            digest.update(f"{name}\0{split}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def digests_of_labels(config: Config) -> dict[str, str]:
    """What stage 2 learns from beside latents, by name: SHA-256 of labels and parameter tables, the creator's version.

    Raises:
        UserError: labels.json or parameters.csv is missing or damaged.
    """
    found = {}
    for setting, root in (("data.root", config.data.root), ("data.photos", config.data.photos)):
        labels_digest = table_digest = "none"
        if root:
            labels = read_labels(Path(root))
            table = repr(read_parameters(Path(root), labels.values.shape[1]))
            labels_digest, table_digest = labels.digest, hashlib.sha256(table.encode()).hexdigest()
        found[f"labels.json of {setting}"] = labels_digest
        found[f"the parameter table of {setting}"] = table_digest
    manifest = read_manifest(Path(config.data.root)) or {}
    found["the version of the creator"] = str(manifest.get("creator"))
    return found


def read_table(config: Config, fingerprint: str) -> LatentTable:
    """Bring the latents of a run and the labels of its data together by NAME.

    Photos with parameters come after the renders, in a split of their own: all of them are for training.

    Args:
        config: names the run, the data, and the views that are wanted.
        fingerprint: of the run's encoder; latents of another one are refused.

    Raises:
        UserError: latents missing, damaged, not of this encoder or of other faces, not finite; labels that do not fit.
    """
    root, folder = Path(config.data.root), LatentFolder(config.run_folder / "latents")
    meta = folder.read_meta(fingerprint)
    _refuse_other_faces(folder.folder, root, meta)
    _refuse_other_precision(folder.folder, config.latents.precision, meta)
    for view in views_of(config.latents)[1:]:
        if not meta.get(view[1:]):
            raise UserError(
                f"{folder.folder} has no latents of {view[1:]} faces, which latents.{view[1:]} asks for; "
                "run extract_latentvec.py again"
            )

    labels = read_labels(root)
    names, _ = folder.read("images", meta["latent_dim"])
    _report_unmatched(names, labels.names, config)
    faces = _renders(folder, config, meta, labels)
    if config.data.photos:
        faces = _joined(faces, _photos(folder, config, faces))
    return faces


def _renders(folder: LatentFolder, config: Config, meta: dict[str, Any], labels: Labels) -> LatentTable:
    """The renders that have a label, and their variants."""
    root = Path(config.data.root)
    parameters = read_parameters(root, labels.values.shape[1])
    names, values, views = _labelled_views(folder, "images", config, meta=meta, labels=labels)

    has_variant = np.zeros(len(names), bool)
    if folder.has("aug_images"):
        for view in views_of(config.latents):
            found, latents = folder.read("aug_images" + view, meta["latent_dim"])
            rows, has_variant = _in_order(names, found, latents, instead=views["images", view])
            views["aug_images", view] = rows

    splits = read_splits(root, names)
    split = np.array([splits.get(name, "") for name in names])
    return LatentTable(names, values, split, views, has_variant, parameters, meta)


def _photos(folder: LatentFolder, config: Config, faces: LatentTable) -> LatentTable:
    """The photos that have a label. They have no variants."""
    root = Path(config.data.photos)
    if "photos" not in faces.meta.get("sources", {}):
        raise UserError(
            f"{folder.folder} has no latents of photos, which data.photos asks for; run extract_latentvec.py again"
        )
    labels = read_labels(root)
    parameters = read_parameters(root, labels.values.shape[1])
    if parameters != faces.parameters:
        raise UserError(
            f"the parameter table of {root} is not that of data.root; "
            "photos need labels in the parameters of the same game"
        )

    names, values, views = _labelled_views(folder, "photos", config, meta=faces.meta, labels=labels)
    if not names:
        raise UserError(
            f"no picture in {root / 'images'} has a label in {root / 'labels.json'}; expected some NAME in both"
        )
    split = np.full(len(names), "photos")
    return LatentTable(names, values, split, views, np.zeros(len(names), bool), parameters, faces.meta)


def _joined(faces: LatentTable, photos: LatentTable) -> LatentTable:
    """The faces and, after them, the photos; a photo's own latents are used in place of its variant's."""
    rows = {}
    for (source, view), latents in faces.rows.items():
        rows[source, view] = np.concatenate([latents, photos.rows["images", view]])
    return faces._replace(
        names=faces.names + photos.names,
        labels=np.concatenate([faces.labels, photos.labels]),
        split=np.concatenate([faces.split, photos.split]),
        rows=rows,
        has_variant=np.concatenate([faces.has_variant, photos.has_variant]),
    )


def _labelled_views(
    folder: LatentFolder, source: str, config: Config, *, meta: dict[str, Any], labels: Labels
) -> tuple[list[str], np.ndarray, dict[tuple[str, str], np.ndarray]]:
    """The M names of a source that have a label, the labels (M, P), and the views of these faces, source "images"."""
    found, latents = folder.read(source, meta["latent_dim"])
    row_of = {name: i for i, name in enumerate(labels.names)}
    matched = [i for i, name in enumerate(found) if name in row_of]
    names = [found[i] for i in matched]
    values = labels.values[[row_of[name] for name in names]]

    views = {("images", AS_IT_IS): np.ascontiguousarray(latents[matched])}
    for view in views_of(config.latents)[1:]:
        own = views["images", AS_IT_IS]
        found, latents = folder.read(source + view, meta["latent_dim"])
        views["images", view], _ = _in_order(names, found, latents, instead=own)
    return names, values, views


def _in_order(
    names: list[str], found: list[str], latents: np.ndarray, *, instead: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A set's rows reordered to `names`, filled from `instead` where missing, and a mask (N,) of those found."""
    row_of = {name: i for i, name in enumerate(found)}
    has = np.array([name in row_of for name in names], bool)
    rows = instead.copy()
    rows[has] = latents[[row_of[name] for name in names if name in row_of]]
    return rows, has


def _refuse_other_faces(folder: Path, root: Path, meta: dict[str, Any]) -> None:
    was, now = meta.get("creator"), read_manifest(root)
    if was == now:
        return
    keys = {*(was or {}), *(now or {})}
    changed = sorted(key for key in keys if (was or {}).get(key) != (now or {}).get(key))
    raise UserError(
        f"the latents in {folder} were made of other faces than {root} holds now: the creator's "
        f"{', '.join(changed)} differ ({was} then, {now} now); run extract_latentvec.py again"
    )


def _refuse_other_precision(folder: Path, asked: str, meta: dict[str, Any]) -> None:
    if asked not in ("auto", meta.get("precision")):
        raise UserError(
            f"the latents in {folder} were made in {meta.get('precision')}, and latents.precision is {asked!r}; "
            "run extract_latentvec.py again, or use auto"
        )


def _report_unmatched(pictures: list[str], labels: list[str], config: Config) -> None:
    """List names that have a picture or a label but not both. Raises UserError where they are too many."""
    have_picture, have_label = set(pictures), set(labels)
    lines = [f"{printable(name)}\tpicture without label\n" for name in pictures if name not in have_label]
    lines += [f"{printable(name)}\tlabel without readable picture\n" for name in labels if name not in have_picture]
    listing = config.run_folder / "unmatched.txt"
    if not lines:
        listing.unlink(missing_ok=True)
        return

    write_text(listing, "".join(lines))
    total = len(have_picture | have_label)
    summary = f"{len(lines)} of {total} names have a picture or a label but not both"
    if len(lines) > config.data.max_unreadable * total:
        raise UserError(
            f"{summary} (data.max_unreadable allows {config.data.max_unreadable:.1%}). They are listed in {listing}. "
            "Are data.root's images/ and labels.json of one data set?"
        )
    print(f"{summary} and are left out; listed in {listing}")
