"""How photo-like variants are drawn: the settings that decide what a variant shows."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from utils.errors import UserError

#: What the diffusion is held to, by the name of the option → the ControlNet that was trained for it.
#: The edges are those of cv2.Canny; both networks belong to Stable Diffusion 1.5.
CONTROLNETS = {
    "edges": "lllyasviel/control_v11p_sd15_canny",
    "depth": "lllyasviel/control_v11f1p_sd15_depth",
}

#: The depth estimator that transformers takes unless told otherwise. Near must be bright, as ControlNet learned it.
DEPTH_MODEL = "Intel/dpt-large"

#: One of them is drawn for each variant, so that light and background differ. They were not tuned.
PROMPTS = (
    "photo of a person's face, daylight, outdoors",
    "photo of a person's face, window light, at home",
    "photo of a person's face, overcast sky, in a street",
    "photo of a person's face, warm evening light",
    "photo of a person's face, studio light, plain background",
    "photo of a person's face, taken with a phone, indoors, lamp light",
)
NEGATIVE_PROMPT = "drawing, painting, cartoon, 3d render, video game, doll, plastic skin, blurry, deformed, text"

#: How far the five points may have moved on average, in pixels of a 256×256 picture: the detector's own noise, the
#: 97.5th percentile of what small changes of a picture do to its points (`python -m benchmarks.detector_noise`).
TOLERANCE = 3.7

#: Bytes at the end of each file of a model that its fingerprint reads; weights of one shape differ in them.
_SAMPLED = 1 << 16


@dataclass(frozen=True)
class Recipe:
    """All that decides what the variant of a render shows.

    The defaults of strength, steps, guidance and control are those of diffusers' documentation.
    """

    model: str  #: folder of a diffusion model, or its name on the Hugging Face hub
    controlnet: str  #: folder or name of the ControlNet that belongs to model and condition
    condition: str = "edges"  #: a key of `CONTROLNETS`
    depth_model: str = DEPTH_MODEL  #: folder or name of the depth estimator; used where condition is "depth"
    size: int = 0  #: side of the pictures that the diffusion sees, pixels; 0: what the model was trained with
    strength: float = 0.8  #: how far the diffusion may leave the render, above 0 to 1
    steps: int = 50  #: of the diffusion, of which the fraction `strength` is taken
    guidance: float = 7.5  #: how much the prompt counts
    control: float = 0.8  #: how much the condition counts
    prompts: tuple[str, ...] = PROMPTS  #: one is drawn for each variant
    negative_prompt: str = NEGATIVE_PROMPT
    tolerance: float = TOLERANCE  #: how far the five points may have moved on average, pixels of a 256×256 picture
    seed: int = 0  #: from which, with its NAME, a variant's own seed follows
    precision: str = "fp32"  #: of the networks' arithmetic: "fp32", "fp16" or "bf16"

    def check(self) -> None:
        """Raise UserError for a value that nothing can be drawn with."""
        limits = {
            "--strength": (self.strength, 0 < self.strength <= 1, "above 0 to 1"),
            "--steps": (self.steps, 1 <= self.steps <= 1000, "1 to 1000"),
            "--guidance": (self.guidance, 0 <= self.guidance <= 100, "0 to 100"),
            "--control": (self.control, 0 <= self.control <= 10, "0 to 10"),
            "--tolerance": (self.tolerance, 0 < self.tolerance <= 256, "above 0 to 256 pixels"),
            "--seed": (self.seed, self.seed >= 0, "0 or more"),
            "--size": (self.size, self.size >= 0 and self.size % 64 == 0, "a multiple of 64 pixels"),
        }
        for option, (value, allowed, expected) in limits.items():
            if not allowed:
                raise UserError(f"{option} is {value}; expected {expected}")
        if int(self.strength * self.steps) < 1:
            raise UserError(
                f"--strength {self.strength} of --steps {self.steps} is less than one step; expected at least one"
            )

    def settings(self) -> dict[str, Any]:
        """The recipe as plain values, models by what they are and not by where they lie."""
        values = asdict(self) | {"prompts": list(self.prompts)}
        networks = ("model", "controlnet", "depth_model") if self.condition == "depth" else ("model", "controlnet")
        if self.condition != "depth":
            del values["depth_model"]
        return values | {name: fingerprint(values[name]) for name in networks}


def digest_of(settings: dict[str, Any]) -> str:
    """The first 16 hexadecimal digits of SHA-256 of a recipe's settings."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def fingerprint(model: str) -> str:
    """What tells a model from another one: the digest of a folder wherever it lies, or a name on the hub as it is.

    Names and sizes of all files count, and the end of each: to read all weights would take minutes.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return model
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}\0{size}\0".encode("utf-8", "surrogateescape"))
        with open(path, "rb") as file:
            file.seek(max(0, size - _SAMPLED))
            digest.update(file.read())
    return f"folder {digest.hexdigest()[:16]}"


def seed_of(name: str, *, seed: int, attempt: int) -> int:
    """The seed, 0 to 2⁶³ − 1, of one attempt at the variant of a NAME; nothing else has an influence on it."""
    text = f"variant {seed} {attempt} {name}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1
