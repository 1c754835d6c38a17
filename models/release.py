"""A trained run as a small folder to give away: its networks alone, in half precision, with their figures.

    python -m models.release --run runs/creator_photo --output assets/pretrained --note NOTE.md

Reads   RUN            a finished run
        FACES          aligned faces to compare predictions on; default: images/ of the data set that RUN learned from
        NOTE.md        what the run learned from, and the licence that follows
Writes  OUTPUT/config.toml, vae/ and f2p/ with checkpoints/best.pt and metrics.json
        OUTPUT/README.md     the note, the figures, and the command that makes the run anew
        OUTPUT/SHA256SUMS    checked whenever the folder is loaded; written last

Half precision rounds weights, so the predictions of both are compared on up to 100 faces before anything is written.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch

from models.predictor import Predictor
from models.vae import VAE
from utils import checkpoint
from utils.config import Config, load, of_checkpoint, to_toml
from utils.errors import UserError, run_script
from utils.files import SUMS, write_json, write_sums, write_text
from utils.pictures import UnreadablePicture, find_pictures, read_rgb
from utils.run import Run

#: Faces that predictions are compared on.
_FACES = 100

#: How far a parameter may lie from where it was, from 0 to 1.
_TOLERANCE = 0.002

_README = """# A pretrained run

{note}

It predicts {parameters} parameters of {game} from pictures of {size} px. Faces: {faces}.

| Held-out faces | R² | Mean absolute error |
|---|---|---|
{rows}

Reconstructions have a PSNR of {psnr:.1f} dB. Weights are in half precision, without what training needs to go on. This
makes the run anew:
```
for script in vae_trainer.py extract_latentvec.py f2p_trainer.py; do
    python $script --config assets/pretrained/config.toml --set run.folder=runs
done
```
"""


def release(run: Run, output: Path, *, faces: list[np.ndarray], note: str) -> float:
    """Write a finished run as a small folder.

    Args:
        output: a folder that is not there, is empty, or holds an earlier release.
        faces: aligned, (S, S, 3) uint8 each, to compare predictions on.
        note: what the run learned from and its licence, Markdown.

    Returns:
        The largest difference of a parameter between the run's predictions and the release's.

    Raises:
        UserError: the run is not finished, predictions differ, or OUTPUT holds something else.
    """
    if output.exists() and (not output.is_dir() or (any(output.iterdir()) and not (output / SUMS).exists())):
        raise UserError(f"{output} holds something else than a release; choose another --output")
    before = Predictor.load(run.folder)

    # Write beside the output, compare, and put it in place.
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as scratch:
        folder = Path(scratch) / output.name
        write_networks(run, folder)
        config = load(run.folder / "config.toml")
        write_text(folder / "config.toml", to_toml(config))
        write_text(folder / "README.md", readme(run, config, note))
        write_sums(folder)
        difference = largest_difference(before, Predictor.load(folder), faces)
        if difference > _TOLERANCE:
            raise UserError(
                f"in half precision a parameter changes by {difference:.4f}; at most {_TOLERANCE} is allowed. "
                "Nothing was written"
            )
        if output.exists():
            shutil.rmtree(output)
        folder.rename(output)
    return difference


def write_networks(run: Run, folder: Path) -> None:
    """Write both checkpoints in half precision, and the metrics beside them."""
    released = Run(folder)

    # Stage 1.
    vae, path = run.vae.load_best()
    config = of_checkpoint(vae, path)
    vae["model"] = halved(vae["model"])
    released.vae.save("best", vae | {"optimizers": {}, "scaler": {}, "prior": {}, "released": True})

    # Stage 2, which knows its encoder by fingerprint.
    model = VAE(config.data.image_size, config.vae)
    checkpoint.restore(model, vae["model"], path)
    f2p, _ = run.f2p.load_best()
    f2p["digests"] = f2p["digests"] | {"the encoder": checkpoint.fingerprint(model.encoder)}
    f2p["model"] = halved(f2p["model"])
    if f2p.get("look") is not None:
        f2p["look"] = f2p["look"] | {"weights": f2p["look"]["weights"].half()}
    released.f2p.save("best", f2p | {"optimizers": {}, "released": True})

    for stage, copied in ((run.vae, released.vae), (run.f2p, released.f2p)):
        write_json(copied.metrics, stage.read_metrics())


def halved(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A network's tensors, its matrices and kernels in half precision; vectors are small and stay as they are."""
    return {name: tensor.half() if _is_large(tensor) else tensor for name, tensor in state.items()}


def _is_large(tensor: torch.Tensor) -> bool:
    return tensor.ndim > 1 and tensor.is_floating_point()


def largest_difference(before: Predictor, after: Predictor, faces: list[np.ndarray]) -> float:
    """The largest difference of a parameter between two predictors, over faces."""
    largest = 0.0
    for face in faces:
        old, new = (predictor.predict_aligned([face])[0].parameters for predictor in (before, after))
        largest = max(largest, float(np.abs(old - new).max()))
    return largest


def readme(run: Run, config: Config, note: str) -> str:
    """README.md of a release: the note, the figures, the commands."""
    f2p, vae = run.f2p.read_metrics(), run.vae.read_metrics()
    measured = {"renders": f2p["test"], "photo-like variants": f2p.get("test_aug_images")}
    rows = [f"| {name} | {m['r2']:.3f} | {m['mae']:.3f} |" for name, m in measured.items() if m]
    made = f2p["run"]
    return _README.format(
        note=note.strip(),
        parameters=len(f2p["test"]["parameters"]),
        game=f"the embedded game {made['creator']}" if made["creator"] else "the game",
        size=config.data.image_size,
        faces=", ".join(f"{count:,} for {split}" for split, count in made["faces"].items() if count),
        rows="\n".join(rows),
        psnr=vae["test"]["psnr"],
    )


def read_faces(folder: Path) -> list[np.ndarray]:
    """The first aligned faces of a folder. Raises UserError where there are none."""
    faces: list[np.ndarray] = []
    for path in find_pictures(folder) if folder.is_dir() else []:
        try:
            faces.append(read_rgb(path))
        except UnreadablePicture:
            continue
        if len(faces) == _FACES:
            break
    if not faces:
        raise UserError(f"{folder} holds no faces to compare predictions on; name a folder of aligned faces by --faces")
    return faces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="finished run")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--note", type=Path, required=True, help="Markdown: what the run learned from, and the licence")
    parser.add_argument("--faces", type=Path, help="aligned faces to compare predictions on")
    options = parser.parse_args()

    try:
        note = options.note.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the note {options.note} cannot be read: {error}") from None
    run = Run(options.run)
    folder = options.faces
    if folder is None:
        content, path = run.vae.load_best()
        folder = Path(of_checkpoint(content, path).data.root) / "images"
    faces = read_faces(folder)

    difference = release(run, options.output, faces=faces, note=note)
    size = sum(path.stat().st_size for path in options.output.rglob("*") if path.is_file())
    print(f"{options.output}: {size / 1e6:.1f} MB")
    print(f"on {len(faces)} faces no parameter changes by more than {difference:.5f}")


if __name__ == "__main__":
    run_script(main)
