"""A run's networks as one ONNX file: aligned faces in, parameters out, for programs without PyTorch.

onnx, onnxscript and onnxruntime are imported when they are needed: they are optional (requirements-onnx.txt).
"""

import importlib.util
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.predictor import Predictor
from models.regressor import Regressor
from models.vae import Encoder
from utils.alignment import TEMPLATE
from utils.errors import UserError

#: What the metadata of a file of ours says under "format".
FORMAT = "face2parameter onnx 1"

#: Version of ONNX's set of operators.
OPSET = 18

#: Names of the input and of the output.
INPUT, OUTPUT = "faces", "parameters"

#: Packages that the export needs.
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class FaceToParameters(nn.Module):
    """(N, 3, S, S) aligned faces in [0, 1] → (N, P) parameters in [0, 1].

    Args:
        encoder: of stage 1, for pictures of S×S pixels.
        regressor: of stage 2.
        averages_mirror_image: predict a face and its mirror image, and take the mean.
    """

    def __init__(self, encoder: Encoder, regressor: Regressor, averages_mirror_image: bool) -> None:
        super().__init__()
        self.encoder, self.regressor, self.averages_mirror_image = encoder, regressor, averages_mirror_image

    def forward(self, faces: Tensor) -> Tensor:
        parameters = self._read(faces)
        if self.averages_mirror_image:
            parameters = (parameters + self._read(faces.flip(3))) / 2
        return parameters.clamp(0, 1)

    def _read(self, faces: Tensor) -> Tensor:
        return self.regressor(torch.cat(self.encoder(faces), 1))


def require_packages() -> None:
    """Raise UserError where a package that the export needs is not installed."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"ONNX files need {', '.join(missing)}, not installed here. Run: pip install -r requirements-onnx.txt"
        )


def metadata_of(predictor: Predictor) -> dict[str, str]:
    """What a file says of itself: its format, the table of its parameters, and what its pictures have to be."""
    table = [
        {
            "name": parameter.name,
            "group": parameter.group,
            "kind": parameter.kind,
            "min": parameter.minimum,
            "max": parameter.maximum,
            "test_r2": predictor.test_r2.get(parameter.name),
        }
        for parameter in predictor.parameters
    ]
    return {
        "format": FORMAT,
        "parameters": json.dumps(table, ensure_ascii=False),
        "image_size": str(predictor.config.data.image_size),
        "template": json.dumps(TEMPLATE.tolist()),
        "creator": predictor.creator_version or "",
    }


def to_onnx(network: FaceToParameters, image_size: int, metadata: dict[str, str]) -> bytes:
    """The content of an ONNX file; the number N of faces is free.

    Args:
        image_size: S.
        metadata: of `metadata_of`.
    """
    import onnx

    # The exporter speaks of its own affairs: of packages that it does without, of what it will change one day.
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                network.eval(),
                (torch.zeros(2, 3, image_size, image_size),),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={INPUT: {0: torch.export.Dim("N")}},
            )
    finally:
        logger.setLevel(level)

    model = program.model_proto
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def largest_difference(network: FaceToParameters, content: bytes, image_size: int) -> float:
    """How far the parameters of an ONNX file are from the network's, at most, on one face and on a batch of seven."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    largest = 0.0
    for count in (1, 7):
        faces = _random_faces(rng, count, image_size)
        with torch.inference_mode():
            expected = network(torch.from_numpy(faces)).numpy()
        found = session.run([OUTPUT], {INPUT: faces})[0]
        largest = max(largest, float(np.abs(found - expected).max()))
    return largest


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file; nothing for a file that is none."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model: Any = onnx.load_model(path, load_external_data=False)
    except DecodeError:
        return {}
    return {entry.key: entry.value for entry in model.metadata_props}


def _random_faces(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """Pictures (count, 3, size, size) float32 in [0, 1] that are as smooth as faces are, in all brightnesses."""
    coarse = torch.from_numpy(rng.random((count, 3, 8, 8), np.float32))
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear").numpy()
