"""A game of two parameters, in a module of its own: the processes that draw it import nothing else of the tests."""

import json

import cv2
import numpy as np

from games.game import Character, EmbeddedGame
from games.parameters import Parameter
from utils.alignment import alignment_transform, five_points, transform_points


class Discs(EmbeddedGame):
    """A disc's size and its grey: stands in for a second game beside MakeHuman."""

    def __init__(self):
        table = [
            Parameter("size", "disc", "slider", 0, 1, "larger"),
            Parameter("grey", "disc", "slider", 0, 1, "lighter"),
        ]
        super().__init__("game of discs", "discs 1", parameters=table)

    def character(self, seed, index, distribution="uniform"):
        return Character(np.random.default_rng([seed, index]).random(2), "studio", "photo")

    def neutral_look(self):
        return "studio"

    def make_renderer(self, size):
        return DiscRenderer(size)

    def character_file(self, parameters, stem):
        path = stem.with_suffix(".disc")
        path.write_text(json.dumps(parameters.tolist()))
        return [path]


class DiscRenderer:
    def __init__(self, size):
        self.size = size

    def render(self, parameters, looks):
        pictures = np.zeros((len(looks), len(looks[0]), self.size, self.size, 3), np.uint8)
        for i, (radius, grey) in enumerate(parameters):
            for k, look in enumerate(looks[i]):
                colour = (100 + 155 * grey if look == "studio" else 255,) * 3
                cv2.circle(pictures[i, k], (self.size // 2,) * 2, 1 + int(radius * self.size / 3), colour, -1)
        return pictures, self.landmarks(parameters, [of_face[0] for of_face in looks])

    def landmarks(self, parameters, looks):
        rng = np.random.default_rng(0)
        mean, way = 200 * rng.random((68, 2)), rng.normal(0, 20, (2, 68, 2))
        points = mean + np.einsum("np,pld->nld", np.asarray(parameters) - 0.5, way)
        return transform_points(alignment_transform(five_points(points), self.size), points)
