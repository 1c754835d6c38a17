"""A photo in, facial parameters out.

    python predict.py photo.jpg --run runs/creator
    python predict.py me1.jpg me2.jpg me3.jpg --run runs/creator --average --output me
    python predict.py data/creator/images/face_000007.png --run runs/creator --aligned

Aligns the photo, encodes it, reads the parameters off its latent. Writes STEM.json (for each parameter
its value from 0 to 1, its value in the game, and its R² on test faces: how far to trust it) and STEM.png
(photo, aligned face, reconstruction and, where the run learned the embedded creator, the character). What
cannot be read is listed in unreadable.txt beside them.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from datasets import creator
from datasets.creator import looks
from datasets.hs_face import Parameter
from models.build import load_regressor, load_vae
from models.mtcnn import FaceDetector
from models.regressor import Regressor
from models.vae import Encoder, fold_batch_norm
from utils import checkpoint
from utils.alignment import TEMPLATE_SIZE, alignment_transform, undo_frame, warp
from utils.config import from_dict
from utils.errors import UserError, run_script
from utils.figures import side_by_side
from utils.files import write_json
from utils.pictures import UnreadablePicture, as_uint8, list_unreadable, read_rgb, unique_stems, write_picture
from utils.training import as_input
from utils.workers import default_workers

#: Right-side bones are the left ones mirrored: these properties change sign.
_SIGN_CHANGES = ("position.x", "rotation.y", "rotation.z")

#: How often a photo's alignment is corrected by what the encoder sees of it.
_CORRECTIONS = 2

#: No correction goes further than this many standard deviations of the frames of training.
_MOST = 3.0


class NoPrediction(Exception):
    """A photo that no parameters can be predicted from; the message says why."""


class Face(NamedTuple):
    """One aligned face and what the networks make of it."""

    aligned: np.ndarray         #: (256, 256, 3) uint8
    reconstruction: np.ndarray  #: (S, S, 3) uint8
    latent: np.ndarray          #: (2·latent_dim,) float32
    parameters: np.ndarray      #: (P,) in [0, 1]
    distance: float             #: from the faces of training; above `Predictor.far` a prediction is a guess


class Predictor:
    """Both trained networks of a run.

    Raises:
        UserError: a checkpoint is missing, damaged, or the regressor was trained on another VAE's latents.
    """

    def __init__(self, run: Path) -> None:
        if not run.is_dir():
            raise UserError(f"there is no run folder {run}; train one first (python vae_trainer.py, extract_latentvec.py, "
                            "f2p_trainer.py), or name it with --run")
        self.run = run
        self.vae, self.config = load_vae(run)
        self.regressor, content = load_regressor(run)
        if content["encoder"] != checkpoint.fingerprint(self.vae.encoder):
            raise UserError(f"{run}: stage 2 was trained on the latents of another VAE than {run}/vae/checkpoints/best.pt. "
                            "Run extract_latentvec.py and f2p_trainer.py again")
        self.parameters = [Parameter(*row) for row in content["parameters"]]
        self.far, self.creator_version = content["far"], content["creator"]
        # Read off what stage 2 was trained with, as the VAE may be older than the setting.
        self.mirrored = from_dict(content["config"], str(run)).latents.mirrored
        self.encoder = fold_batch_norm(self.vae.encoder)

    def align(self, photo: np.ndarray, detector: FaceDetector, which: str) -> tuple[np.ndarray | None, str]:
        """The aligned 256×256 face of a photo and a status, as face_alignment.py would give them, its alignment corrected."""
        matrix, status = alignment_of(photo, detector, which)
        return (None if matrix is None else warp(photo, self.corrected(photo, matrix), TEMPLATE_SIZE)), status

    def corrected(self, photo: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """An alignment (2, 3) of a photo, corrected where stage 2 has learned how the run's faces lie in their frames."""
        return corrected_alignment(photo, matrix, self.encode, self.regressor)

    def encode(self, aligned: list[np.ndarray]) -> torch.Tensor:
        """(N, 2·latent_dim) latents [mu | logvar] of aligned faces, each (H, W, 3) uint8."""
        return encode_aligned(self.encoder, aligned, self.config.data.image_size)

    @torch.inference_mode()
    def predict(self, aligned: list[np.ndarray]) -> list[Face]:
        """Parameters of aligned faces, each (H, W, 3) uint8."""
        latents = self.encode(aligned)
        parameters = self.regressor(latents)
        if self.mirrored:
            parameters = (parameters + self.regressor(self.encode([face[:, ::-1] for face in aligned]))) / 2
        reconstructions = as_uint8(self.vae.decoder(latents.chunk(2, 1)[0]).permute(0, 2, 3, 1).numpy())
        distances = self.regressor.distance(latents).numpy()
        return [Face(*values[:4], float(values[4])) for values in
                zip(aligned, reconstructions, latents.numpy(), parameters.clamp(0, 1).numpy(), distances)]

    def character(self, parameters: np.ndarray, size: int = 256) -> np.ndarray | None:
        """The creator's face with these parameters; None where the run learned another game, or another version of it."""
        if self.creator_version != creator.VERSION:
            return None
        return creator.Renderer(size).render(parameters[None], [(looks.neutral(),)])[0][0, 0]

    def as_json(self, parameters: np.ndarray, photos: list[str]) -> dict[str, Any]:
        """What is written to STEM.json."""
        trust = self._test_r2()
        named = {p.name: {"normalised": round(float(v), 6), "value": round(p.in_game(float(v)), 6), "test_r2": trust.get(p.name)}
                 for p, v in zip(self.parameters, parameters)}
        mirrored = {}
        for p, v in zip(self.parameters, parameters):
            if p.kind == "bone" and "_L." in p.name:
                value = p.in_game(float(v))
                sign = -1 if p.name.endswith(_SIGN_CHANGES) else 1
                mirrored[p.name.replace("_L.", "_R.")] = {"value": round(sign * value, 6), "mirrors": p.name}
        return {"photos": photos, "run": self.run.as_posix(),
                "checkpoints": {stage: (self.run / stage / "checkpoints" / "best.pt").as_posix() for stage in ("vae", "f2p")},
                "creator": self.creator_version, "parameters": named} | ({"mirrored": mirrored} if mirrored else {})

    def _test_r2(self) -> dict[str, float | None]:
        try:
            metrics = json.loads((self.run / "f2p" / "metrics.json").read_text(encoding="utf-8"))
            return {name: values["r2"] for name, values in metrics["test"]["parameters"].items()}
        except (OSError, ValueError, KeyError, TypeError):
            return {}


def alignment_of(photo: np.ndarray, detector: FaceDetector, which: str) -> tuple[np.ndarray | None, str]:
    """The alignment (2, 3) of a photo's face by the detector's points, None where none is chosen, and a status."""
    faces = detector.find(photo)
    status, index = faces.choose(which)
    return (None if index is None else alignment_transform(faces.points[index].astype(np.float64), TEMPLATE_SIZE)), status


@torch.inference_mode()
def encode_aligned(encoder: Encoder, aligned: list[np.ndarray], size: int) -> torch.Tensor:
    """(N, 2·latent_dim) latents [mu | logvar] of aligned faces, each (H, W, 3) uint8, by an encoder of pictures size×size."""
    small = np.stack([cv2.resize(a, (size, size), interpolation=cv2.INTER_AREA) if a.shape[0] != size else a for a in aligned])
    return torch.cat(encoder(as_input(torch.from_numpy(small).permute(0, 3, 1, 2))), 1)


@torch.inference_mode()
def corrected_alignment(photo: np.ndarray, matrix: np.ndarray, encode: Callable[[list[np.ndarray]], torch.Tensor], regressor: Regressor) -> np.ndarray:
    """An alignment (2, 3) of a photo such that the face lies in its frame as the faces of training do.

    A detector's points are some pixels off, and what moves with them is not the face's shape.

    Args:
        encode: aligned faces (256, 256, 3) uint8 → latents (N, 2·latent_dim).
        regressor: one that has not learned frames leaves the alignment as it is.
    """
    for _ in range(_CORRECTIONS if regressor.frame is not None else 0):
        frame = regressor.frame_of(encode([warp(photo, matrix, TEMPLATE_SIZE)]))[0]
        matrix = undo_frame(matrix, frame.clamp(-_MOST, _MOST).numpy())
    return matrix


def figure(face: Face, photo: np.ndarray | None, character: np.ndarray | None) -> np.ndarray:
    """Photo, aligned face, reconstruction and character in a row."""
    row = [("photo", photo)] if photo is not None else []
    row += [("aligned", face.aligned), ("reconstruction", face.reconstruction)]
    if character is not None:
        row.append(("predicted character", character))
    return side_by_side([row])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTO")
    parser.add_argument("--run", type=Path, default=Path("runs/creator"), help="trained run (default runs/creator)")
    parser.add_argument("--output", type=Path, default=Path("predictions"), help="folder for the results (default predictions)")
    parser.add_argument("--aligned", action="store_true", help="the pictures are aligned already")
    parser.add_argument("--faces", choices=("one", "largest"), default="one",
                        help="one: refuse photos with several faces (default); largest: take the largest of several")
    parser.add_argument("--average", action="store_true", help="the photos show one person: average their parameters")
    options = parser.parse_args()
    torch.set_num_threads(default_workers())
    predictor = Predictor(options.run)
    detector = None if options.aligned else FaceDetector()
    if options.output.is_file():
        raise UserError(f"--output {options.output} is a file; expected a folder")
    stems = unique_stems([p.name for p in options.photos])
    if len({s.casefold() for s in stems}) < len(stems):
        stems = [f"{i + 1}_{stem}" for i, stem in enumerate(stems)]
    faces: list[tuple[Path, Face]] = []
    unreadable, failed = {}, {}
    for path, stem in zip(options.photos, stems):
        try:
            face, photo = look_at(path, predictor, detector, options)
        except (UnreadablePicture, NoPrediction) as error:
            print(f"no prediction of {path}: {error}", file=sys.stderr)
            (unreadable if isinstance(error, UnreadablePicture) else failed)[str(path)] = str(error)
            continue
        faces.append((path, face))
        if face.distance > predictor.far:
            print(f"warning: {path} is unlike the faces that stage 2 learned from (distance {face.distance:.2f}; 99 % of its "
                  f"validation faces lie below {predictor.far:.2f}); take the result for a guess", file=sys.stderr)
        if not options.average:
            finish(options.output / stem, predictor, face, photo, face.parameters, [str(path)])
    if options.average and faces:
        mean = np.mean([face.parameters for _, face in faces], axis=0)
        middle = min((face for _, face in faces), key=lambda f: float(np.abs(f.parameters - mean).sum()))
        finish(options.output / "average", predictor, middle, None, mean, [str(path) for path, _ in faces])
    list_unreadable(options.output / "unreadable.txt", unreadable, len(options.photos),
                    predictor.config.data.max_unreadable, "data.max_unreadable of the run")
    if not faces:
        raise UserError("no photo gave a prediction; the reasons stand above")
    if failed:
        print(f"{len(failed)} of {len(options.photos)} photos gave no prediction: {', '.join(failed)}", file=sys.stderr)


def look_at(path: Path, predictor: Predictor, detector: FaceDetector | None, options: argparse.Namespace) -> tuple[Face, np.ndarray | None]:
    """Read, align and predict one photo, and print how long each took.

    Raises:
        UnreadablePicture: the file is no whole picture.
        NoPrediction: no face in it, several, or not the square one that --aligned promises.
    """
    picture = read_rgb(path)
    times = [time.perf_counter()]
    if detector is None:
        if picture.shape[0] != picture.shape[1]:
            raise NoPrediction(f"it is {picture.shape[1]}×{picture.shape[0]} pixels; --aligned expects square aligned faces. "
                               "Leave --aligned out to have it aligned")
        aligned, photo = picture, None
    else:
        photo = picture
        aligned, status = predictor.align(picture, detector, options.faces)
        if aligned is None:
            raise NoPrediction({"no_face": "no face was found in it",
                                "several_faces": "several faces were found in it; use --faces largest, or crop it"}[status])
    times.append(time.perf_counter())
    face = predictor.predict([aligned])[0]
    times.append(time.perf_counter())
    print(f"{path}: aligned in {times[1] - times[0]:.3f} s, encoded and regressed in {times[2] - times[1]:.3f} s")
    return face, photo


def finish(stem: Path, predictor: Predictor, face: Face, photo: np.ndarray | None, parameters: np.ndarray, photos: list[str]) -> None:
    """Write STEM.json and STEM.png."""
    write_json(stem.with_name(stem.name + ".json"), predictor.as_json(parameters, photos))
    write_picture(stem.with_name(stem.name + ".png"), figure(face, photo, predictor.character(parameters)))
    print(f"{stem.with_name(stem.name + '.json')}\n{stem.with_name(stem.name + '.png')}")


if __name__ == "__main__":
    run_script(main)
