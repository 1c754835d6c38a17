"""The embedded character creator: a small parametric face "game" whose sliders are known exactly."""

from datasets.creator.render import VERSION, Renderer
from datasets.creator.sliders import NAMES, SLIDERS
from datasets.creator.writer import write_data_set

__all__ = ["NAMES", "SLIDERS", "VERSION", "Renderer", "write_data_set"]
