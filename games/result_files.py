"""The files of a result: STEM.json, STEM.png, STEM_character.png, those that the game itself opens, and a card."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from games.cards.template import Template, delete_earlier
from games.game import Appearance, EmbeddedGame
from games.listing import Entry, as_table, entries_of
from games.parameters import Parameter, mirrored_bones
from games.result_sheet import result_sheet
from utils.files import write_json
from utils.pictures import write_picture
from utils.results import describe_photos

#: What the files of a result end in: what it says, what it shows, and the character alone.
_ENDS = (".json", ".png", "_character.png")


class Result(NamedTuple):
    """A character that was predicted from a face, or from several photos of a person."""

    parameters: np.ndarray  #: (P,) in [0, 1]
    photos: list[Path]  #: that it was made of
    pictures: list[tuple[str, np.ndarray]]  #: captions and (h, w, 3) uint8 pictures that the sheet begins with
    aligned: np.ndarray  #: (256, 256, 3) uint8, or as it was given: the face alone
    note: str = ""  #: a warning on the sheet
    spread: np.ndarray | None = None  #: (P,) standard deviation over several photos
    remarks: Mapping[str, Any] | None = None  #: what else STEM.json says
    look: Appearance | None = None  #: of the pictures of the character; None draws the neutral look


class ResultFiles:
    """Writes the results of a run.

    Args:
        parameters: the run's table.
        test_r2: parameter name → R² on test faces.
        game: the embedded game that the run learned; None for another game.
        origin: what every STEM.json says of the run.
        template: a card of the game that each result is written into a copy of.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        *,
        test_r2: Mapping[str, float | None],
        game: EmbeddedGame | None,
        origin: Mapping[str, Any],
        template: Template | None = None,
    ) -> None:
        self._parameters, self._test_r2, self._game, self._origin = parameters, test_r2, game, origin
        self._template = template

    def write(self, stem: Path, result: Result) -> list[Path]:
        """Write the files of a result; `stem` is their path without what they end in. Returns the files written.

        Raises:
            UserError: a file of it would replace the template or somebody's card; nothing is written.
        """
        json_file, sheet_file, character_file = (stem.with_name(stem.name + end) for end in _ENDS)
        if self._template is not None:
            self._template.check(stem)
        content, written, pictures = self.as_json(result), [json_file, sheet_file], list(result.pictures)

        # The game's files: its picture, those that it opens, a card.
        if self._game is not None:
            look = None if result.look is None else self._game.look_of(result.look)
            character = self._game.picture(result.parameters, look=look)
            pictures.append(("predicted character", character))
            write_picture(character_file, character)
            written += [character_file, *self._game.character_file(result.parameters, stem)]
        card = None
        if self._template is not None:
            card = self._template.make(stem, content, photo=result.aligned)
            content["card"] = card.entry

        # The JSON, then the card: a card without a JSON that tells of it would be somebody else's.
        if card is None:
            delete_earlier(stem)
        write_json(json_file, content)
        if card is not None:
            card.write()
            written.append(card.path)
        write_picture(sheet_file, result_sheet(pictures, self._entries(result), result.note))
        return written

    def table(self, result: Result) -> str:
        """The sliders of a result, to type into the game by hand."""
        return as_table(self._parameters, self._entries(result))

    def as_json(self, result: Result) -> dict[str, Any]:
        """What is written to STEM.json."""
        named: dict[str, dict[str, float | None]] = {}
        for parameter, value in zip(self._parameters, result.parameters.tolist(), strict=True):
            named[parameter.name] = {
                "normalised": round(value, 6),
                "value": round(parameter.in_game(value), 6),
                "test_r2": self._test_r2.get(parameter.name),
            }
        if result.spread is not None:
            for own, spread in zip(named.values(), result.spread.tolist(), strict=True):
                own["spread"] = round(spread, 6)

        content: dict[str, Any] = dict(describe_photos(result.photos))
        content |= {**self._origin, "parameters": named, **(result.remarks or {})}
        if self._game is not None and result.look is not None:
            content["look"] = self._game.describe_look(self._game.look_of(result.look))
        mirrored = mirrored_bones(self._parameters, result.parameters)
        return content | ({"mirrored": mirrored} if mirrored else {})

    def _entries(self, result: Result) -> list[Entry]:
        return entries_of(
            self._parameters,
            result.parameters,
            test_r2=self._test_r2,
            average=None if self._game is None else self._game.average(),
            spread=result.spread,
        )
