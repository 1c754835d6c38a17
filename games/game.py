"""What a game is, and the embedded game: MakeHuman's head, which this project draws itself.

    from games.game import default_game

    game = default_game()
    character = game.character(seed=0, index=7)     # parameters, and how its render and its variant look
    face = game.picture(character.parameters)       # (256, 256, 3) uint8

Whatever draws or writes characters takes any `EmbeddedGame`: a second game is another subclass, and changes this file
alone. Nothing here imports a renderer until somebody asks for the game, so a program that needs a version stays light.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from games.parameters import Parameter
from utils.alignment import TEMPLATE_SIZE

#: Version of the embedded game. It changes whenever the picture of a given seed changes; data sets, metrics and tables
#: name it.
VERSION = "2.2"

#: How the parameters of random characters are drawn: spread as widely as people are ("uniform"), or nearer to the
#: average ("typical").
DISTRIBUTIONS = ("uniform", "typical")

#: All that a picture shows besides the parameters: pose, colours, light, background. Each game has a class of its own.
Look = Any


class Character(NamedTuple):
    """A random character: its labels, and how it looks in its two pictures."""

    parameters: np.ndarray  #: (P,) float64 in [0, 1]
    studio: Look  #: of the render
    photo: Look  #: of the photo-like variant


class LookNumber(NamedTuple):
    """One of the numbers that describe a look."""

    name: str
    is_colour: bool = False  #: a channel of a colour; otherwise an amount, or from 0 to 1 how sure a class is (bald)


class Appearance(NamedTuple):
    """What of a look belongs to the person, and not to the picture: no light, no pose, no expression."""

    skin: np.ndarray  #: (3,) display RGB in [0, 1]
    numbers: np.ndarray  #: (L,), what `EmbeddedGame.look_table` lists


class Renderer(Protocol):
    """Draws aligned faces of one size."""

    size: int  #: side of the pictures, pixels

    def render(self, parameters: np.ndarray, looks: Sequence[Sequence[Look]]) -> tuple[np.ndarray, np.ndarray]:
        """Render B faces, each in as many looks of one pose as wanted.

        Args:
            parameters: (B, P) in [0, 1].
            looks: for each face its L looks.

        Returns:
            (B, L, size, size, 3) uint8 RGB pictures, and (B, 68, 2) float64 landmarks (iBUG order) of the first look in
            its pixels.
        """

    def landmarks(self, parameters: np.ndarray, looks: Sequence[Look]) -> np.ndarray:
        """The (B, 68, 2) landmarks that `render` gives, without the pictures; one look per face."""


class Game:
    """A game with a character creator.

    Attributes:
        name: for people.
        version: changes whenever the game's pictures do.
        parameters: the table of its P parameters.
    """

    def __init__(self, name: str, version: str, *, parameters: Sequence[Parameter]) -> None:
        self.name, self.version = name, version
        self.parameters = list(parameters)

    @property
    def names(self) -> list[str]:
        """Names of the P parameters, in the order of the label vector."""
        return [p.name for p in self.parameters]


class EmbeddedGame(Game, ABC):
    """A game whose characters this project draws itself, so that every picture's parameters are known exactly."""

    def __init__(self, name: str, version: str, *, parameters: Sequence[Parameter]) -> None:
        super().__init__(name, version, parameters=parameters)
        self._renderers: dict[int, Renderer] = {}

    def __getstate__(self) -> dict[str, Any]:
        """What a worker process is sent: all but the renderers, which it makes itself."""
        return self.__dict__ | {"_renderers": {}}

    @abstractmethod
    def character(self, seed: int, index: int, distribution: str = "uniform") -> Character:
        """Character `index` of the data set of a seed; `distribution` is one of `DISTRIBUTIONS`.

        The size of pictures and the number of characters have no influence on it.
        """

    @abstractmethod
    def neutral_look(self) -> Look:
        """The look of single pictures: seen from the front, average colours, studio light."""

    @property
    def look_table(self) -> Sequence[LookNumber]:
        """The L numbers that describe a look; none for a game whose characters differ in their parameters alone."""
        return ()

    def appearance_of(self, look: Look) -> Appearance:
        """What of a look belongs to the person: the skin's colour, and numbers that a network can learn."""
        return Appearance(np.zeros(3), np.zeros(0))

    def look_of(self, appearance: Appearance) -> Look:
        """The look of an appearance in a single picture, as `neutral_look` is one: from the front, in studio light.

        Its numbers may be a regression's: what is not sure is drawn plainly, what the game does not draw is clipped.
        """
        return self.neutral_look()

    def describe_look(self, look: Look) -> dict[str, str]:
        """A look in words, for people; nothing for a game without a `look_table`."""
        return {}

    @abstractmethod
    def make_renderer(self, size: int) -> Renderer:
        """A new renderer of pictures of size×size pixels; `renderer` keeps it."""

    def average(self) -> np.ndarray:
        """The parameters (P,) of the average character."""
        return np.full(len(self.parameters), 0.5)

    def character_file(self, parameters: np.ndarray, stem: Path) -> list[Path]:
        """Write a character (P,) as a file that the game opens, where it has such files.

        Args:
            parameters: (P,) in [0, 1].
            stem: path of the file without its extension.

        Returns:
            The files written; none for a game without files of its own.
        """
        return []

    def renderer(self, size: int) -> Renderer:
        """The renderer of pictures of size×size pixels, made once per size."""
        if size not in self._renderers:
            self._renderers[size] = self.make_renderer(size)
        return self._renderers[size]

    def picture(self, parameters: np.ndarray, size: int = TEMPLATE_SIZE, *, look: Look | None = None) -> np.ndarray:
        """The face of a character (P,): (size, size, 3) uint8 RGB, aligned; the look is `neutral_look` if None."""
        pictures, _ = self.renderer(size).render(parameters[None], [(self.neutral_look() if look is None else look,)])
        return pictures[0, 0]

    def landmarks(self, parameters: np.ndarray) -> np.ndarray:
        """The 68 landmarks of characters (N, P) in the aligned 256×256 frame, seen from the front: (N, 68, 2)."""
        return self.renderer(TEMPLATE_SIZE).landmarks(parameters, [self.neutral_look()] * len(parameters))


def embedded_game(version: str | None) -> EmbeddedGame | None:
    """The embedded game of a version; None for a game, or a version, that this project cannot draw."""
    return default_game() if version == VERSION else None


@cache
def default_game() -> EmbeddedGame:
    """The embedded game. Its renderer is imported here and not before."""
    game: EmbeddedGame = importlib.import_module("games.makehuman").MakeHuman()
    return game
