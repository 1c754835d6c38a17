"""Latents and their labels, as stage 2 reads them."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.faces import creator_settings
from datasets.hs_face import Labels, Parameter, read_labels, read_parameters, read_splits
from utils.errors import UserError
from utils.files import write_text

#: What a set of faces moved in their frames is called by, after the set that they come from.
MOVED = "_moved"

#: And what a set of mirrored faces is called by.
MIRRORED = "_mirrored"


class LatentSet(NamedTuple):
    """Faces whose latents and labels are both known, N of them."""

    names: list[str]
    latents: np.ndarray         #: (N, 2·latent_dim) float32, of the renders
    aug_latents: np.ndarray     #: (N, 2·latent_dim) float32, of their variants; the render's where there is none
    has_aug: np.ndarray         #: (N,) bool
    labels: np.ndarray          #: (N, P) float32
    split: np.ndarray           #: (N,) of "train", "val", "test", "photos"; "" for faces that split files do not list
    parameters: list[Parameter]
    meta: dict                  #: meta.json of the latents
    moved: np.ndarray | None = None     #: as `latents`, of the renders moved by `utils.alignment.random_frames`; None: not asked for
    aug_moved: np.ndarray | None = None     #: the same of the variants; the render's where there is none
    mirrored: np.ndarray | None = None      #: as `latents`, of the mirrored renders; None: not asked for
    aug_mirrored: np.ndarray | None = None  #: the same of the variants; the render's where there is none

    def of(self, split: str) -> np.ndarray:
        """Indices of a split's faces."""
        return np.nonzero(self.split == split)[0]


def read_latent_set(folder: Path, root: Path, encoder_fingerprint: str, most_unmatched: float, listing: Path,
                    moved: bool = False, mirrored: bool = False, photos: Path | None = None) -> LatentSet:
    """Bring latents and labels together by NAME.

    Photos with parameters come after the renders, in a split of their own: all of them are for training.

    Args:
        folder: latents of a run.
        root: data set in the HS_FACE layout.
        encoder_fingerprint: of the run's VAE checkpoint; latents of another encoder are refused.
        most_unmatched: share of faces without label, or labels without face, above which this fails.
        listing: where unmatched names are listed.
        moved, mirrored: also read the latents of moved, of mirrored faces.
        photos: data set of photos (`data.photos`); one without label is left out.

    Raises:
        UserError: latents missing, damaged, not of this encoder or of other faces, not finite; labels that do not fit.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        found = meta["fingerprint"]
    except FileNotFoundError:
        raise UserError(f"there are no latents in {folder}, or they are not finished; run extract_latentvec.py first") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder / 'meta.json'} is damaged; run extract_latentvec.py --restart") from None
    if found != encoder_fingerprint:
        raise UserError(f"the latents in {folder} belong to another encoder ({found[:12]}…) than the run's VAE checkpoint "
                        f"({encoder_fingerprint[:12]}…); run extract_latentvec.py again")
    was, now = meta.get("creator"), creator_settings(root)
    if was != now:
        changed = sorted(key for key in {*(was or {}), *(now or {})} if (was or {}).get(key) != (now or {}).get(key))
        raise UserError(f"the latents in {folder} were made of other faces than {root} holds now: the creator's "
                        f"{', '.join(changed)} differ ({was} then, {now} now); run extract_latentvec.py again")
    labels = read_labels(root)
    parameters = read_parameters(root, labels.values.shape[1])
    for wanted, name in ((moved, "moved"), (mirrored, "mirrored")):
        if wanted and not meta.get(name):
            raise UserError(f"{folder} has no latents of {name} faces, which latents.{name} asks for; run extract_latentvec.py again")
    names, latents = _read_set(folder, "images", meta)
    matched, values = _labelled(names, labels)
    _list_unmatched(names, labels.names, most_unmatched, listing)
    names = [names[i] for i in matched]
    latents = np.ascontiguousarray(latents[matched])
    in_place = lambda part, otherwise: _rows_of(names, *_read_set(folder, part, meta), otherwise)
    further = [MOVED] * moved + [MIRRORED] * mirrored
    of_renders = {kind: in_place("images" + kind, latents)[0] for kind in further}
    aug_latents, has_aug, of_variants = latents, np.zeros(len(names), bool), of_renders
    if (folder / "aug_images.npy").exists():
        aug_latents, has_aug = in_place("aug_images", latents)
        of_variants = {kind: in_place("aug_images" + kind, of_renders[kind])[0] for kind in further}
    splits = read_splits(root, names)
    faces = LatentSet(names, latents, aug_latents, has_aug, values, np.array([splits.get(n, "") for n in names]), parameters, meta,
                      of_renders.get(MOVED), of_variants.get(MOVED), of_renders.get(MIRRORED), of_variants.get(MIRRORED))
    return faces if photos is None else _with_photos(faces, folder, photos, further)


def _with_photos(faces: LatentSet, folder: Path, photos: Path, further: list[str]) -> LatentSet:
    """The faces and, after them, the photos that have a label. A photo has no variant, so it stands in for its own."""
    if "photos" not in faces.meta.get("sources", {}):
        raise UserError(f"{folder} has no latents of photos, which data.photos asks for; run extract_latentvec.py again")
    labels = read_labels(photos)
    parameters = read_parameters(photos, labels.values.shape[1])
    if parameters != faces.parameters:
        raise UserError(f"the parameter table of {photos} is not that of data.root; photos need labels in the parameters of the same game")
    found, latents = _read_set(folder, "photos", faces.meta)
    matched, values = _labelled(found, labels)
    if not matched:
        raise UserError(f"no picture in {photos / 'images'} has a label in {photos / 'labels.json'}; expected some NAME in both")
    names = [found[i] for i in matched]
    latents = latents[matched]
    sets = {kind: _rows_of(names, *_read_set(folder, "photos" + kind, faces.meta), latents)[0] for kind in further}
    after = lambda part, kind: np.concatenate([part, sets[kind]]) if kind in sets else None
    return faces._replace(
        names=faces.names + names, latents=np.concatenate([faces.latents, latents]), aug_latents=np.concatenate([faces.aug_latents, latents]),
        has_aug=np.concatenate([faces.has_aug, np.zeros(len(names), bool)]), split=np.concatenate([faces.split, np.full(len(names), "photos")]),
        labels=np.concatenate([faces.labels, values]),
        moved=after(faces.moved, MOVED), aug_moved=after(faces.aug_moved, MOVED),
        mirrored=after(faces.mirrored, MIRRORED), aug_mirrored=after(faces.aug_mirrored, MIRRORED))


def _labelled(names: list[str], labels: Labels) -> tuple[list[int], np.ndarray]:
    """Indices of the M names that have a label, and those labels, (M, P) float32."""
    row_of = {name: i for i, name in enumerate(labels.names)}
    matched = [i for i, name in enumerate(names) if name in row_of]
    return matched, labels.values[[row_of[names[i]] for i in matched]]


def _rows_of(names: list[str], found: list[str], latents: np.ndarray, otherwise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A set's rows in the order of `names`, `otherwise`'s where it has none; and where it has some, (N,) bool."""
    row_of = {name: i for i, name in enumerate(found)}
    has = np.array([name in row_of for name in names])
    rows = otherwise.copy()
    rows[has] = latents[[row_of[name] for name in names if name in row_of]]
    return rows, has


def _read_set(folder: Path, part: str, meta: dict) -> tuple[list[str], np.ndarray]:
    path = folder / f"{part}.npy"
    try:
        latents = np.load(path, mmap_mode="r", allow_pickle=False)
        names = path.with_suffix(".txt").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"cannot read the latents {path}: {error}. Run extract_latentvec.py --restart") from None
    expected = (len(names), 2 * meta.get("latent_dim", -1))
    if latents.shape != expected or latents.dtype != np.float32:
        raise UserError(f"{path} holds {latents.dtype} {latents.shape}; expected float32 {expected}, a row for each line of "
                        f"{part}.txt. Run extract_latentvec.py --restart")
    bad = np.nonzero(~np.isfinite(latents).all(1))[0]
    if len(bad):
        raise UserError(f"{path}, row {bad[0]} ({names[bad[0]]}): not a finite number ({len(bad)} rows are concerned). "
                        "Run extract_latentvec.py --restart; if that does not help, the VAE's training diverged")
    return names, latents


def _list_unmatched(pictures: list[str], labels: list[str], most: float, listing: Path) -> None:
    have_picture, have_label = set(pictures), set(labels)
    lines = ([f"{name}\tpicture without label" for name in pictures if name not in have_label]
             + [f"{name}\tlabel without readable picture" for name in labels if name not in have_picture])
    if not lines:
        return
    write_text(listing, "\n".join(lines) + "\n")
    total = len(have_picture | have_label)
    if len(lines) > most * total:
        raise UserError(f"{len(lines)} of {total} names have a picture or a label but not both (data.max_unreadable allows "
                        f"{most:.1%}). They are listed in {listing}. Are data.root's images/ and labels.json of one data set?")
    print(f"{len(lines)} of {total} names have a picture or a label but not both and are left out; listed in {listing}")
