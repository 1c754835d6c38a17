"""Checkpoints: whole or absent, loaded without running anything that they contain."""

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.errors import UserError
from utils.files import atomic_write

#: What a checkpoint is of, and in which format: both must match when one is loaded. CHANGELOG.md lists the formats.
FORMATS = {"vae": "face2parameter vae 3", "f2p": "face2parameter f2p 4"}

#: What every checkpoint of a kind holds beside its format.
_SHARED_KEYS = {"config", "digests", "model", "optimizers", "epoch", "best", "seconds"}
_KEYS = {
    "vae": _SHARED_KEYS | {"prior", "scaler", "step", "steps_done", "sums"},
    "f2p": _SHARED_KEYS | {"latent_dim", "reads_photos", "parameters", "ood_threshold", "creator"},
}


def save(path: Path, kind: str, content: dict[str, Any]) -> None:
    """Write a checkpoint of tensors and plain values, whole or not at all.

    Args:
        kind: "vae" or "f2p".
    """
    buffer = io.BytesIO()  # torch's own file writer turns a full disk into a RuntimeError
    torch.save({"format": FORMATS[kind], **content}, buffer)
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())


def load(path: Path, kind: str) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        UserError: missing, damaged, not a checkpoint, of another kind or format. Nothing in the file is run.
    """
    try:
        data = io.BytesIO(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"there is no checkpoint {path}") from None

    try:
        content = torch.load(data, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is no checkpoint of this project: it holds more than tensors and plain values, "
            f"and nothing in it was run ({_first_line(error)})"
        ) from None
    except Exception as error:  # a damaged file fails in many ways
        raise UserError(f"{path} is damaged or no checkpoint ({type(error).__name__}: {_first_line(error)})") from None

    if not isinstance(content, dict) or not isinstance(content.get("format"), str):
        raise UserError(f"{path} is no checkpoint of this project")
    if content["format"] != FORMATS[kind]:
        raise UserError(
            f"{path} has format {content['format']!r}; expected {FORMATS[kind]!r}. "
            "It was written by another script or version: choose another run.name, or train again with --restart"
        )
    missing = _KEYS[kind] - content.keys()
    if missing:
        raise UserError(
            f"{path} lacks {', '.join(sorted(missing))}; it was written by another version. "
            "Choose another run.name, or train again with --restart"
        )
    return content


def restore(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load weights strictly. Raises UserError where they are another network's."""
    try:
        module.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        detail = " ".join(str(error).split())[:300]
        raise UserError(f"{path} holds the weights of another network: {detail}") from None


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over a module's tensors: names, dtypes, shapes and bytes, in the order of names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        if tensor.numel():
            digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:120]
