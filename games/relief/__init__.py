"""The relief: a small parametric face whose 54 sliders are those of HS_FACE's table."""

import numpy as np

from games.game import VERSIONS, Character, EmbeddedGame
from games.relief import looks, sliders
from games.relief.render import Renderer

__all__ = ["Relief"]


class Relief(EmbeddedGame):
    """The relief as an embedded game."""

    def __init__(self) -> None:
        super().__init__("embedded creator", VERSIONS["relief"], parameters=sliders.SLIDERS)

    def character(self, seed: int, index: int, distribution: str = "uniform") -> Character:
        rng = np.random.default_rng([seed, index])
        parameters = sliders.draw(rng, distribution)
        studio = looks.studio(rng)
        return Character(parameters, studio, looks.photo(rng, studio))

    def neutral_look(self) -> looks.Look:
        return looks.neutral()

    def make_renderer(self, size: int) -> Renderer:
        return Renderer(size)
