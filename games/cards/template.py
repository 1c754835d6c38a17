"""A template card and the faces that predict.py writes into copies of it.

    template = Template.of(options, stems)                      # read and checked before anything is computed
    template.fit(parameters, heads=(0, 1, 2), creator=None)     # a run's table has the card's sliders
    template.check(stem)                                        # before anything of a result is written
    card = template.make(stem, result, photo=…)
    …                                                           # write card.entry to STEM.json
    card.write()

The template itself is never written to, by whatever name an output would reach it.
"""

import argparse
import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from games.cards.abmx import Bone, as_seen, bone_of, bones_of, other_side
from games.cards.card import Card
from games.cards.fields import CardError
from games.game import VERSION
from games.parameters import Parameter
from utils.errors import UserError
from utils.files import atomic_write, file_digest, read_json
from utils.identity import Paths
from utils.pictures import printable
from utils.results import files_of

#: What becomes of a card's picture.
PREVIEWS = ("keep", "photo")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add predict.py's options for cards."""
    group = parser.add_argument_group("a card of your game (docs/cards.md)")
    group.add_argument(
        "--card", type=Path, metavar="TEMPLATE.png", help="also write STEM_card.png: this card, new face"
    )
    group.add_argument("--no-bones", action="store_true", help="leave the bones of the plug-in ABMX as they are")
    group.add_argument("--clamp", action="store_true", help="keep sliders in 0 to 1, for a game without SliderUnlocker")
    group.add_argument(
        "--preview",
        choices=PREVIEWS,
        help="what becomes of the card's picture: it is kept (default), or becomes the aligned photo",
    )


class Template:
    """A user's own card, and how faces are written into copies of it."""

    def __init__(self, path: Path, options: argparse.Namespace) -> None:
        """Read a card. Raises UserError where it is none."""
        self.path = path
        try:
            self.card = Card.read(path)
        except CardError as error:
            raise UserError(f"--card {path}: {error}. Give the card of a character that your game saved") from None
        self.preview: str = options.preview or PREVIEWS[0]
        self.clamp: bool = options.clamp
        self.with_bones = not options.no_bones
        self._sliders: list[str] = []
        self._bones: list[str] = []

    @classmethod
    def of(cls, options: argparse.Namespace, stems: Sequence[str]) -> "Template | None":
        """The template that was asked for; None without --card.

        Args:
            options: of predict.py: those of `add_options`, and `output`.
            stems: of the results: what is written to `output` is STEM_card.png and other files of that stem.

        Raises:
            UserError: no card; an output that would be the template, another result, or a file that this program did
                not write; other options without --card.
        """
        if options.card is None:
            for name in ("no_bones", "clamp", "preview"):
                if getattr(options, name):
                    raise UserError(f"--{name.replace('_', '-')} is for cards; give --card TEMPLATE.png with it")
            return None
        template = cls(options.card, options)
        _check_outputs(options.card, [options.output / stem for stem in stems])
        return template

    # --- which values ---------------------------------------------------------------------------

    def fit(self, parameters: Sequence[Parameter], *, heads: Sequence[int] | None, creator: str | None) -> None:
        """Find the card's sliders and bones in a run's parameter table, and warn of what will not look as predicted.

        Args:
            parameters: the run's table.
            heads: values of headId in the run's data; None: those that the game's table was made for.
            creator: version of the embedded game that the run learned; None for another game.

        Raises:
            UserError: the table lacks sliders of the card.
        """
        wanted, names = self.card.creator, {p.name for p in parameters}
        self._sliders = [slider.name for slider in wanted.sliders if slider.name in names]
        missing = [slider.name for slider in wanted.sliders if slider.name not in names]
        if missing:
            raise UserError(
                f"--card {self.path} is a card of {self.card.game}, and the run predicts {len(self._sliders)} of the "
                f"{len(wanted.sliders)} sliders that it needs; {', '.join(missing[:3])} … are missing. "
                + _advice(creator)
            )
        if self.with_bones:
            self._bones = [bone.name for bone in wanted.bones if bone.name in names]
        if creator is not None:
            _warn(
                f"the run learned version {creator} of the embedded game, whose sliders have the names of "
                f"{self.card.game}'s and act otherwise: the card will not look like the predicted character. For one "
                "that does, train on renders of your game (docs/your_own_game.md)"
            )
        self._warn_of_head(heads)
        self._warn_of_bones()

    def _warn_of_head(self, heads: Sequence[int] | None) -> None:
        known = self.card.creator.heads if heads is None else tuple(heads)
        if known is not None and self.card.head_id not in known:
            _warn(
                f"{self.path} has headId {self.card.head_id}, and the run's data has {', '.join(map(str, known))}; "
                "sliders act differently on each head. headId is kept"
            )

    def _warn_of_bones(self) -> None:
        """Bones of the template that no value of the run takes the place of bend the predicted face."""
        creator, written = self.card.creator, {bone_of(name) for name in self._bones}
        written |= {other_side(name) for name in written}
        if not creator.bones:
            return
        try:
            bones = {name: as_seen(name, bone) for name, bone in self.card.bones.items()}
            own = [n for n, bone in bones.items() if creator.shapes_face(n) and n not in written and bone != Bone()]
        except CardError as error:
            if self._bones:
                raise UserError(f"--card {self.path}: {error}. With --no-bones plug-ins are left alone") from None
            _warn(f"{self.path}: {error}. It is copied as it is")
            return
        if own:
            _warn(
                f"{self.path} has {len(own)} bones of its own in the face ({own[0]} …); they stay and bend it further"
            )

    # --- a face -----------------------------------------------------------------------------------

    def check(self, stem: Path) -> None:
        """Raise UserError where the files of a result would replace the template or somebody's card.

        `of` asks this of results that are planned. Each result asks it again right before it is written: with --faces
        all there may be more of them, and meanwhile files may have come.
        """
        _check_outputs(self.path, [stem])

    def make(self, stem: Path, result: Mapping[str, Any], *, photo: np.ndarray) -> "NewCard":
        """The template with a face, to be written as STEM_card.png.

        Args:
            stem: path of the results without their extension.
            result: what STEM.json says: `parameters` and, where left bones have right ones, `mirrored`, each by name
                with its `value` in the game's units. The card gets these values; with --clamp it gets 0 or 1 for the
                sliders that the card's entry lists as `clamped`.
            photo: (H, W, 3) uint8 RGB, the aligned face, for --preview photo.

        Raises:
            UserError: the template's plug-in data cannot be used.
        """
        path, named = card_file(stem), result["parameters"] | result.get("mirrored", {})
        values = {name: entry["value"] for name, entry in named.items()}
        sliders = {name: values[name] for name in self._sliders}
        beyond = {name: value for name, value in sliders.items() if not 0 <= value <= 1}
        self._say_beyond(path, beyond)
        if self.clamp:
            sliders |= {name: min(max(value, 0.0), 1.0) for name, value in beyond.items()}
        try:
            made = self.card.with_sliders(sliders)
            if self._bones:
                made = made.with_bones(self._new_bones(values))
            if self.preview == "photo":
                made = made.with_preview(as_preview(photo, self.card.preview_size))
        except CardError as error:
            raise UserError(f"--card {self.path}: {error}") from None

        digest = hashlib.sha256(made.data).hexdigest()
        entry: dict[str, Any] = {"file": path.name, "template": str(self.path), "sha256": digest}
        if self.clamp and beyond:
            entry["clamped"] = list(beyond)
        if (replaced := file_digest(path)) not in ("", digest):
            entry["replaces"] = replaced
        return NewCard(path, made.data, entry)

    def _say_beyond(self, path: Path, beyond: Mapping[str, float]) -> None:
        if not beyond:
            return
        first = ", ".join(f"{name} {value:g}" for name, value in list(beyond.items())[:3])
        which = f"{len(beyond)} sliders beyond 0 to 1 ({first}{', …' if len(beyond) > 3 else ''})"
        if self.clamp:
            print(f"{path.name}: {which} were clamped")
        else:
            _warn(f"{path.name} has {which}: the game shows them with SliderUnlocker only; --clamp does without")

    def _new_bones(self, values: Mapping[str, float]) -> dict[str, Bone]:
        bones = {bone_of(name) for name in self._bones}
        wanted = bones | {other_side(bone) for bone in bones}
        return bones_of({name: value for name, value in values.items() if name.partition(".")[0] in wanted})


class NewCard(NamedTuple):
    """A card that is to be written beside STEM.json."""

    path: Path
    data: bytes
    #: What STEM.json says of it: `file`, `template`, `sha256`, `clamped` where sliders were, and `replaces`, the
    #: SHA-256 of the card in whose place it comes. STEM.json is written first and knows both cards.
    entry: dict[str, Any]

    def write(self) -> None:
        """Write the card, whole or not at all."""
        with atomic_write(self.path) as file:
            file.write(self.data)


def delete_earlier(stem: Path) -> None:
    """Delete the card of an earlier result that is written anew without one; a card that is not ours stays."""
    path = card_file(stem)
    if os.path.lexists(path) and _is_ours(path, stem.with_name(f"{stem.name}.json")):
        path.unlink()
        print(f"{printable(str(path))} was the card of the earlier result and is deleted; --card writes a new one")


def card_file(stem: Path) -> Path:
    """Where the card of a result is written."""
    return stem.with_name(f"{stem.name}_card.png")


def as_preview(picture: np.ndarray, size: tuple[int, int]) -> bytes:
    """A picture (H, W, 3) uint8 RGB as PNG of another size (width, height): scaled to cover it, its middle cut out."""
    width, height = size
    scale = max(width / picture.shape[1], height / picture.shape[0])
    across, down = max(width, round(picture.shape[1] * scale)), max(height, round(picture.shape[0] * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = cv2.resize(picture, (across, down), interpolation=how)
    x, y = (across - width) // 2, (down - height) // 2
    _, encoded = cv2.imencode(".png", scaled[y : y + height, x : x + width, ::-1])
    return bytes(encoded)


def _advice(creator: str | None) -> str:
    if creator == VERSION:
        return (
            "It learned the embedded game, whose own files predict.py writes without --card: .mhm for MakeHuman and a "
            "preset for Blender (docs/makehuman.md)"
        )
    return "Give a card of the game that the run learned, or a run that learned this one"


# --- outputs --------------------------------------------------------------------------------------


def _check_outputs(template: Path, stems: Sequence[Path]) -> None:
    """Refuse outputs that would take the place of the template or of somebody's card."""
    known = Paths([template])
    for stem in stems:
        for path in (*files_of(stem), stem.with_name("unreadable.txt")):
            if known.same(path) is not None:
                raise UserError(
                    f"{path} would be written, and it is the template --card {template}. Choose another --output"
                )
        _check_ours(card_file(stem), stem.with_name(f"{stem.name}.json"))


def _check_ours(path: Path, result: Path) -> None:
    """Refuse to replace a card that the JSON beside it does not know."""
    if os.path.lexists(path) and not _is_ours(path, result):
        raise UserError(
            f"{path} is there already, and it is not the card that {result.name} tells of. Move it away, or choose "
            "another --output"
        )


def _is_ours(path: Path, result: Path) -> bool:
    """Whether a card is the one that the JSON beside it tells of, or the one that this was to replace."""
    entry = (read_json(result) or {}).get("card")
    if not isinstance(entry, dict) or path.is_symlink() or not path.is_file():
        return False
    return file_digest(path) in (entry.get("sha256"), entry.get("replaces"))


def _warn(message: str) -> None:
    print(f"warning: {printable(message)}", file=sys.stderr)
