"""What `make demo` ends with: held-out faces beside their predicted characters, and the metrics.

    python -m benchmarks.demo [--run runs/creator] [--count 5]
"""

import argparse
import json
from pathlib import Path

import numpy as np

from datasets.hs_face import find_parts, read_labels, read_splits
from predict import Predictor
from utils.errors import run_script
from utils.figures import side_by_side
from utils.pictures import read_rgb, write_picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/creator"))
    parser.add_argument("--count", type=int, default=5, help="held-out faces to show (default 5)")
    options = parser.parse_args()
    predictor = Predictor(options.run)
    root = Path(predictor.config.data.root)
    labels, images = read_labels(root), find_parts(root)["images"]
    splits = read_splits(root, images)
    names = [n for n in labels.names if splits.get(n) == "test" and n in images][:options.count]
    faces = predictor.predict([read_rgb(images[n]) for n in names])
    rows = []
    for name, face in zip(names, faces):
        truth = labels.values[labels.names.index(name)]
        error = float(np.abs(truth - face.parameters).mean())
        row = [(f"{name} (held out)", face.aligned), ("reconstruction", face.reconstruction)]
        if predictor.creator_version is not None:
            row += [("predicted character", predictor.character(face.parameters)), ("character of the true sliders", predictor.character(truth))]
        row[1] = (f"reconstruction, mean slider error {error:.3f}", face.reconstruction)
        rows.append(row)
    path = options.run / "demo.png"
    write_picture(path, side_by_side(rows))
    metrics = json.loads((options.run / "f2p" / "metrics.json").read_text(encoding="utf-8"))
    vae = json.loads((options.run / "vae" / "metrics.json").read_text(encoding="utf-8"))["test"]
    test, reference = metrics["test"], metrics["baselines"]
    print(f"\n{len(test['parameters'])} sliders, {metrics['run']['faces']['test']} held-out faces, creator {metrics['run']['creator']}")
    print(f"mean R² {test['r2']:.3f}  (ridge on the same latents {reference['ridge']['r2']:.3f}, training mean {reference['mean']['r2']:.3f})")
    print(f"MAE {test['mae']:.3f}, cosine similarity {test['cosine_similarity']:.4f}, distance {test['distance']:.3f}")
    print("by group: " + ", ".join(f"{group} {values['r2']:.2f}" for group, values in test["groups"].items()))
    print(f"VAE: PSNR {vae['psnr']:.2f} dB, KL {vae['kl']:.0f} nats a face, {vae['active_units']:.0f} active units")
    print(f"every slider: {options.run / 'f2p' / 'report.png'}\nlook at: {path}")


if __name__ == "__main__":
    run_script(main)
