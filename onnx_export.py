"""A trained run as one ONNX file, for programs without PyTorch.

    pip install -r requirements-onnx.txt
    python onnx_export.py --output pretrained.onnx
    python onnx_export.py --run runs/creator --output creator.onnx

Reads the best networks of the run, or of the pretrained run where none is named. Writes one ONNX file, opset 18, with
one input and one output:

    faces       (N, 3, S, S) float32, RGB in [0, 1]: aligned faces; any N; S is the run's data.image_size. An aligned
                face of 256×256 pixels (face_alignment.py) is brought to S×S by area interpolation
    parameters  (N, P) float32 in [0, 1]; the value in the game is min + p·(max − min)

A run that averages a face with its mirror image does so in the file, too. Its metadata names the parameters, their
groups, kinds, min and max, S, the points of the alignment and the embedded game's version (docs/formats.md#onnx).
Before the file is written, onnxruntime predicts with it what PyTorch predicts, to 0.0001.
"""

import argparse
from pathlib import Path

import torch

from models.exported import (
    FORMAT,
    FaceToParameters,
    largest_difference,
    metadata_of,
    read_metadata,
    require_packages,
    to_onnx,
)
from models.predictor import RUN_HELP, Predictor
from utils.errors import UserError, run_script
from utils.files import atomic_write
from utils.pictures import printable
from utils.workers import default_workers

#: How far a prediction of the file may be from PyTorch's.
_TOLERANCE = 1e-4


def parse_options() -> argparse.Namespace:
    """Read the command line. Raises UserError for what cannot be, before anything is loaded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help=RUN_HELP)
    parser.add_argument("--output", type=Path, required=True, help="file to write; its name ends in .onnx")
    options = parser.parse_args()
    require_packages()
    check_output(options.output)
    return options


def check_output(path: Path) -> None:
    """Raise UserError unless a file of ours can be written there without replacing anything else."""
    name = printable(str(path))
    if path.suffix.lower() != ".onnx":
        raise UserError(f"--output {name} does not end in .onnx; expected a file like {printable(path.stem)}.onnx")
    if path.exists() and (not path.is_file() or read_metadata(path).get("format") != FORMAT):
        raise UserError(
            f"--output {name} is there already and was not written by this script; it is left alone. "
            "Choose another name, or move it away"
        )


def main() -> None:
    # Parse, load.
    options = parse_options()
    torch.set_num_threads(default_workers())
    predictor = Predictor.load(options.run)
    size = predictor.config.data.image_size

    # Export, and compare what the file predicts with what the run predicts.
    network = FaceToParameters(predictor.encoder, predictor.regressor, predictor.averages_mirror_image)
    content = to_onnx(network, size, metadata_of(predictor))
    difference = largest_difference(network, content, size)
    if not difference <= _TOLERANCE:
        raise UserError(
            f"onnxruntime predicts other parameters from the file than PyTorch does (difference {difference:.2g}; "
            f"expected at most {_TOLERANCE:g}). Nothing was written; try other versions of the packages in "
            "requirements-onnx.txt"
        )

    # Write.
    with atomic_write(options.output) as file:
        file.write(content)
    print(
        f"{printable(str(options.output))}: {len(content) / 1e6:.1f} MB, faces (N, 3, {size}, {size}) → parameters "
        f"(N, {len(predictor.parameters)}), as PyTorch to {difference:.1g}"
    )


if __name__ == "__main__":
    run_script(main)
