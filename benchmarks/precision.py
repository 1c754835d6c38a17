"""What bfloat16 in extraction (latents.precision) costs: latents and R² of a run's test faces beside those of float32.

    python -m benchmarks.precision --run RUN [--json FILE]
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.faces import root_sources
from datasets.hs_face import read_labels
from datasets.pictures import Pictures
from extract_latentvec import encode_batches
from models.build import load_regressor, load_vae
from models.vae import fold_batch_norm
from utils.errors import run_script
from utils.files import write_json
from utils.metrics import parameter_metrics
from utils.workers import default_workers


def measure(run: Path) -> dict[str, Any]:
    torch.set_num_threads(default_workers())
    vae, config = load_vae(run)
    regressor, content = load_regressor(run)
    sources, splits = root_sources(Path(config.data.root))
    pictures = Pictures(sources[:1], splits[:1], config.data.image_size, None, 0)
    labels = read_labels(Path(config.data.root))
    row = {name: i for i, name in enumerate(labels.names)}
    test = pictures.indices("test")
    truth = labels.values[[row[sources[0].names[i]] for i in test]]
    chunks = np.array_split(test, max(1, len(test) // 64))
    latents, r2 = {}, {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        encoder = fold_batch_norm(vae.encoder).to(dtype=dtype, memory_format=torch.channels_last)
        latents[name] = np.concatenate([rows for rows, _ in encode_batches(encoder, pictures, chunks, torch.device("cpu"))])
        with torch.inference_mode():
            predicted = regressor(torch.from_numpy(latents[name])).clamp(0, 1).numpy()
        names, groups = zip(*((p[0], p[1]) for p in content["parameters"]))
        r2[name] = parameter_metrics(truth, predicted, list(names), list(groups))["r2"]
    mu = {name: values[:, :config.vae.latent_dim] for name, values in latents.items()}
    relative = np.sqrt(np.square(mu["bf16"] - mu["fp32"]).mean() / mu["fp32"].var(0).mean())
    return {"run": run.as_posix(), "test_faces": len(test), "relative_difference_of_mu": float(relative), "test_r2": r2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/creator"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = measure(options.run)
    print(f"{found['test_faces']} test faces of {found['run']}: mu in bfloat16 differs by {found['relative_difference_of_mu']:.4f} of its standard "
          f"deviation over faces (root mean square); test R² {found['test_r2']['bf16']:.4f}, in float32 {found['test_r2']['fp32']:.4f}")
    if options.json:
        write_json(options.json, found)


if __name__ == "__main__":
    run_script(main)
