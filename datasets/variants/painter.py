"""Draws photo-like variants of renders: image-to-image diffusion, held to the render by a ControlNet.

Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022. Zhang et al., "Adding Conditional
Control to Text-to-Image Diffusion Models", 2023. The packages it needs are optional (requirements-variants.txt), so
they are imported inside functions.
"""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from datasets.variants.recipe import Recipe
from utils.errors import UserError, is_out_of_memory

#: Packages of requirements-variants.txt, by the names that they are imported by.
PACKAGES = ("diffusers", "transformers", "accelerate")

#: Thresholds of cv2.Canny: those of diffusers' documentation.
_CANNY = (100, 200)

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Painter:
    """Networks that draw the variant of a render as a recipe says.

    Raises:
        UserError: a package is missing, or a model cannot be loaded.
    """

    def __init__(self, recipe: Recipe, device: str) -> None:
        self.recipe = recipe
        self.pipeline = load_pipeline(recipe, device)
        self.depth = load_depth(recipe.depth_model, device) if recipe.condition == "depth" else None
        self.size = recipe.size or _native_size(self.pipeline)

    def draw(self, render: np.ndarray, seed: int, after_step: Callable[[], None]) -> np.ndarray:
        """Draw a variant of a render.

        Args:
            render: (S, S, 3) uint8 RGB.
            seed: of the prompt and of the noise; the same one gives the same variant.
            after_step: called after each step of the diffusion; what it raises ends the work.

        Returns:
            (S, S, 3) uint8 RGB.
        """
        # The diffusion sees the size that it was trained with.
        shown = _resized(render, self.size)
        recipe, prompts = self.recipe, self.recipe.prompts

        def step_ended(pipeline: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            after_step()
            return tensors

        # A generator of the CPU gives the same noise on every device.
        drawn = self.pipeline(
            prompt=prompts[seed % len(prompts)],
            negative_prompt=recipe.negative_prompt,
            image=Image.fromarray(shown),
            control_image=Image.fromarray(self.condition(shown)),
            strength=recipe.strength,
            num_inference_steps=recipe.steps,
            guidance_scale=recipe.guidance,
            controlnet_conditioning_scale=recipe.control,
            generator=torch.Generator("cpu").manual_seed(seed),
            callback_on_step_end=step_ended,
        )
        return _resized(np.asarray(drawn.images[0].convert("RGB")), len(render))

    def condition(self, picture: np.ndarray) -> np.ndarray:
        """What the ControlNet sees of a picture, (S, S, 3) uint8 both: edges in white, or depth, near bright."""
        if self.depth is not None:
            depth = np.asarray(self.depth(Image.fromarray(picture))["depth"].convert("L"))
            return np.repeat(depth[..., None], 3, -1)
        edges = cv2.Canny(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), *_CANNY)
        return np.repeat(edges[..., None], 3, -1)


# --- models ---------------------------------------------------------------------------------------


def load_pipeline(recipe: Recipe, device: str) -> Any:
    """The image-to-image pipeline of diffusers that belongs to the recipe's model and ControlNet, on a device.

    Raises:
        UserError: a package is missing, or a model cannot be loaded.
    """
    check_packages()
    if device == "cuda":
        _make_deterministic()
    from diffusers import AutoPipelineForImage2Image, ControlNetModel

    controlnet = _loaded(ControlNetModel.from_pretrained, recipe.controlnet, what="a ControlNet of diffusers")
    pipeline = _loaded(
        AutoPipelineForImage2Image.from_pretrained,
        recipe.model,
        what="a diffusion model that diffusers can use with a ControlNet",
        controlnet=controlnet,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device, _DTYPES[recipe.precision])


def load_depth(model: str, device: str) -> Any:
    """The depth estimator of transformers: a function of a PIL picture. Raises UserError where it cannot be loaded."""
    check_packages()
    from transformers import pipeline

    return _loaded(
        lambda name: pipeline("depth-estimation", model=name, device=device), model, what="a depth estimator"
    )


def check_packages() -> None:
    """Raise UserError, with the command that installs them, where a package is missing."""
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(
            f"photo-like variants need {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
            "installed. Run: pip install -r requirements-variants.txt"
        )


def _loaded(load: Callable[..., Any], model: str, *, what: str, **options: Any) -> Any:
    """Load a network from a folder or from the hub. Raises UserError where that fails, whatever the library raised."""
    folder = Path(model).expanduser()
    if folder.is_file():
        raise UserError(f"{model} is a file; expected the folder of {what}, or its name on the Hugging Face hub")
    try:
        return load(str(folder) if folder.is_dir() else model, **options)
    except Exception as error:  # the libraries, and the network behind them, raise nearly anything
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(
            f"cannot load {what} from {model}: {reason}. Expected a folder as its library saves it, or a name on the "
            "Hugging Face hub and a connection to it"
        ) from None


def _make_deterministic() -> None:
    """On a GPU the same seed gives the same bytes only with these settings, which PyTorch's documentation names."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)


def _native_size(pipeline: Any) -> int:
    """Side of the pictures that a model was trained with, pixels."""
    return int(pipeline.unet.config.sample_size) * int(pipeline.vae_scale_factor)


def _resized(picture: np.ndarray, size: int) -> np.ndarray:
    if picture.shape[:2] == (size, size):
        return picture
    shrinks = size < min(picture.shape[:2])
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
