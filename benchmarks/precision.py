"""What bfloat16 in extraction (latents.precision) costs: latents and R² of test faces beside those of float32.

python -m benchmarks.precision [--run runs/creator] [--json FILE]
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.labels import read_labels
from datasets.pictures import Pictures
from datasets.sources import root_sources
from extract_latentvec import encode_batches
from games.parameters import Parameter
from models.predictor import load_regressor, load_vae
from models.vae import fold_batch_norm
from utils.errors import run_script
from utils.files import write_json
from utils.metrics import parameter_metrics
from utils.run import Run
from utils.workers import default_workers

_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}

#: Faces that are encoded at a time.
_BLOCK = 64


@torch.inference_mode()
def measure(folder: Path) -> dict[str, Any]:
    """Encode the test faces of a run in both precisions, and predict their parameters.

    Args:
        folder: of the run.
    """
    # Networks.
    torch.set_num_threads(default_workers())
    run = Run(folder)
    vae, config = load_vae(run)
    regressor, content = load_regressor(run)
    parameters = [Parameter(*row) for row in content["parameters"]]
    names, groups = [p.name for p in parameters], [p.group for p in parameters]

    # Test faces.
    source, labels = root_sources(Path(config.data.root))["images"], read_labels(Path(config.data.root))
    pictures = Pictures({"images": source}, size=config.data.image_size, cache=None, workers=0)
    row_of = {name: i for i, name in enumerate(labels.names)}
    test = pictures.indices("test")
    truth = labels.values[[row_of[source.names[i]] for i in test]]
    chunks = [chunk.tolist() for chunk in np.array_split(test, max(1, len(test) // _BLOCK))]

    # Encode, predict.
    mu, r2 = {}, {}
    for name, dtype in _PRECISIONS.items():
        encoder = fold_batch_norm(vae.encoder).to(dtype=dtype).to(memory_format=torch.channels_last)
        encoded = encode_batches(encoder, pictures, chunks, device=torch.device("cpu"))
        latents = np.concatenate([rows for rows, _ in encoded])
        mu[name] = latents[:, : config.vae.latent_dim]
        predicted = regressor(torch.from_numpy(latents)).clamp(0, 1).numpy()
        r2[name] = parameter_metrics(truth, predicted, names=names, groups=groups)["r2"]

    relative = float(np.sqrt(np.square(mu["bf16"] - mu["fp32"]).mean() / mu["fp32"].var(0).mean()))
    return {"run": folder.as_posix(), "test_faces": len(test), "relative_difference_of_mu": relative, "test_r2": r2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/creator"), help="trained run (default runs/creator)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()

    found = measure(options.run)
    print(
        f"{found['test_faces']} test faces of {found['run']}: mu in bfloat16 differs by "
        f"{found['relative_difference_of_mu']:.4f} of its standard deviation over faces (root mean square); "
        f"test R² {found['test_r2']['bf16']:.4f}, in float32 {found['test_r2']['fp32']:.4f}"
    )
    if options.json:
        write_json(options.json, found)


if __name__ == "__main__":
    run_script(main)
