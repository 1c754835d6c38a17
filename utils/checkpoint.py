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

#: What a checkpoint is of, and in which format: both must match when one is loaded.
FORMATS = {"vae": "face2parameter vae 2", "f2p": "face2parameter f2p 2"}

#: What every checkpoint of a kind holds beside its format.
_KEYS = {"vae": {"config", "model", "prior", "optimizer", "scaler", "scheduler", "random", "epoch", "step", "sums", "best", "seconds"},
         "f2p": {"config", "model", "optimizer", "scheduler", "random", "epoch", "best", "seconds", "encoder", "latent_dim",
                 "parameters", "faces", "far", "creator"}}


def save(path: Path, kind: str, content: dict[str, Any]) -> None:
    """Write a checkpoint of tensors and plain values."""
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
        reason = (str(error).splitlines() or [""])[0][:120]
        raise UserError(f"{path} is no checkpoint of this project: it holds more than tensors and plain values, "
                        f"and nothing in it was run ({reason})") from None
    except (RuntimeError, ValueError, EOFError, KeyError, AttributeError, TypeError, IndexError, OSError,
            UnicodeDecodeError, AssertionError, NotImplementedError, OverflowError, MemoryError, SyntaxError) as error:
        reason = (str(error).splitlines() or [""])[0][:120]
        raise UserError(f"{path} is damaged or no checkpoint ({type(error).__name__}: {reason})") from None
    if not isinstance(content, dict) or not isinstance(content.get("format"), str):
        raise UserError(f"{path} is no checkpoint of this project")
    if content["format"] != FORMATS[kind]:
        raise UserError(f"{path} has format {content['format']!r}; expected {FORMATS[kind]!r}. "
                        "It was written by another script or version: train again with --restart")
    missing = _KEYS[kind] - content.keys()
    if missing:
        raise UserError(f"{path} lacks {', '.join(sorted(missing))}; it was written by another version. Train again with --restart")
    return content


def load_newest(folder: Path, kind: str) -> tuple[dict[str, Any], Path] | None:
    """`last.pt` of a folder, or `best.pt` where that is damaged, said aloud; None where there is none.

    Raises:
        UserError: checkpoints are there and none can be loaded.
    """
    problems = []
    for name in ("last.pt", "best.pt"):
        path = folder / name
        if not path.exists():
            continue
        try:
            content = load(path, kind)
        except UserError as error:
            problems.append(str(error))
            continue
        if problems:
            print(f"{problems[0]}.\nGoing on from {path} instead.")
        return content, path
    if problems:
        raise UserError(f"{problems[0]}. No other checkpoint is left in {folder}; start over with --restart")
    return None


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
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()
