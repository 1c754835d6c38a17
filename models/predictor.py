"""A run's trained networks: loaded from its folder, and as one object that turns a photo into parameters.

from models.predictor import Predictor
from utils.pictures import read_rgb

predictor = Predictor.load()  # the pretrained run; one of your own: Predictor.load(Path("runs/NAME"))
prediction = predictor.predict(read_rgb(Path("photo.jpg")))
for parameter, value in zip(predictor.parameters, prediction.parameters):
    print(parameter.name, parameter.in_game(value))

`Predictor.predict_all` predicts every face of a photo.
"""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from games.game import Appearance, EmbeddedGame, embedded_game
from games.parameters import Parameter
from models.look import LookReader, skin_colour
from models.regressor import Regressor
from models.vae import VAE, Encoder, as_input, fold_batch_norm
from utils import checkpoint
from utils.alignment import TEMPLATE_SIZE, alignment_transform, undo_misalignment, warp
from utils.config import Config, changed_settings, of_checkpoint
from utils.errors import UserError
from utils.files import check_sums, read_json
from utils.pictures import as_uint8
from utils.run import Run

if TYPE_CHECKING:
    from models.mtcnn import FaceDetector

#: The run that comes with the code, and is loaded where none is named.
PRETRAINED = Path(__file__).resolve().parent.parent / "assets" / "pretrained"

#: What --help says of an option that names a run.
RUN_HELP = "trained run (default: the pretrained run, assets/pretrained)"

#: How often a photo's alignment is corrected by the misalignment found in it.
_CORRECTIONS = 2

#: No correction goes further than this many standard deviations of the misalignments of training.
_LARGEST_CORRECTION = 3.0

#: Settings that the encoder was built with; those of the configuration must agree.
_ENCODER_SETTINGS = (
    "data.image_size:",
    "vae.encoder_channels:",
    "vae.latent_dim:",
    "vae.bottleneck:",
    "vae.spatial:",
    "vae.norm:",
)

_NO_FACE = {
    "no_face": "no face was found in it",
    "several_faces": "several faces were found in it; use --faces largest or all, or crop it",
}


class NoFace(Exception):
    """A photo that no parameters can be predicted from; the message says why."""


class Prediction(NamedTuple):
    """One aligned face and what the networks make of it."""

    aligned: np.ndarray  #: (256, 256, 3) uint8, or as it was given
    reconstruction: np.ndarray  #: (S, S, 3) uint8
    latent: np.ndarray  #: (2·latent_dim,) float32, [mu | logvar]
    parameters: np.ndarray  #: (P,) float32 in [0, 1]
    distance: float  #: from the faces of training; above `Predictor.ood_threshold` a prediction is a guess
    alignment: np.ndarray | None = None  #: (2, 3) transform from the photo to the aligned face; None where it came so
    look: Appearance | None = None  #: for pictures of the character; None where the run reads no looks


class Predictor:
    """Both networks of a run and the face detector, as one.

    Use `Predictor.load`. Attributes: `parameters` (the table of the P parameters), `config` (of stage 1),
    `ood_threshold` (out-of-distribution threshold: 99 % of the validation faces have a smaller `Prediction.distance`),
    `test_r2` (parameter name → R² on test faces: how far to trust it), `learned_photos` (whether stage 2 learned from
    photos, and not from the game's pictures alone).
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.vae, self.config = load_vae(run)
        self.regressor, content = load_regressor(run)
        if content["digests"].get("the encoder") != checkpoint.fingerprint(self.vae.encoder):
            raise UserError(
                f"{run.folder}: stage 2 was trained on the latents of another VAE than {run.vae.best}. "
                "Run extract_latentvec.py and f2p_trainer.py again"
            )
        self.encoder = fold_batch_norm(self.vae.encoder)
        self.parameters = [Parameter(*row) for row in content["parameters"]]
        self.ood_threshold: float = content["ood_threshold"]
        self.creator_version: str | None = content["creator"]
        self._look_reader = LookReader.of(content.get("look"))
        # Of stage 2: the VAE may be older than its settings.
        trained = of_checkpoint(content, run.f2p.best)
        self.averages_mirror_image = trained.latents.mirrored
        self.learned_photos: bool = content["reads_photos"]

    @classmethod
    def load(cls, folder: Path | None = None) -> "Predictor":
        """Load the best networks of a run folder.

        Args:
            folder: None takes the pretrained run, and says so in a line on standard output.

        Raises:
            UserError: no such folder; a checkpoint is missing or damaged; the stages do not belong together; a
                release is not what its SHA256SUMS says.
        """
        if folder is None:
            predictor = cls.load(pretrained_folder())
            print(
                f"pretrained run {predictor.run.folder.as_posix()}, which learned from {predictor.origin}; "
                "for a run of your own: --run runs/NAME"
            )
            return predictor
        if not folder.is_dir():
            raise UserError(
                f"there is no run folder {folder}; train one first (python vae_trainer.py, extract_latentvec.py, "
                "f2p_trainer.py), or name it with --run"
            )
        check_sums(folder)
        return cls(Run(folder))

    # --- prediction ---------------------------------------------------------------------------

    def predict(self, photo: np.ndarray, faces: str = "one") -> Prediction:
        """Find the face in a photo, align it and predict its parameters.

        Args:
            photo: (H, W, 3) uint8 RGB.
            faces: "one" refuses a photo with several faces, "largest" takes the largest of several.

        Raises:
            NoFace: no face in it, or several.
            ValueError: the photo is no such array.
        """
        _check_photo(photo)
        matrix, status = self.detector.align(photo, faces)
        if matrix is None:
            raise NoFace(_NO_FACE[status])
        return self._predict_at(photo, [matrix])[0]

    def predict_all(self, photo: np.ndarray) -> list[Prediction]:
        """Find all faces in a photo, align each and predict its parameters; from left to right.

        Args:
            photo: (H, W, 3) uint8 RGB.

        Raises:
            NoFace: no face in it.
            ValueError: the photo is no such array.
        """
        _check_photo(photo)
        points = self.detector.find(photo).points
        if not len(points):
            raise NoFace(_NO_FACE["no_face"])
        left_to_right = points[np.argsort(points[:, :, 0].mean(1))]
        return self._predict_at(photo, list(alignment_transform(left_to_right, TEMPLATE_SIZE)))

    @torch.inference_mode()
    def predict_aligned(self, faces: list[np.ndarray]) -> list[Prediction]:
        """Predict the parameters of aligned faces, each (S, S, 3) uint8 RGB."""
        latents = self.encode(faces)
        views = [latents]
        if self.averages_mirror_image:
            views.append(self.encode([face[:, ::-1] for face in faces]))
        parameters = torch.stack([self.regressor(view) for view in views]).mean(0)

        mu = latents.chunk(2, 1)[0]
        reconstructions = as_uint8(self.vae.decoder(mu).permute(0, 2, 3, 1).numpy())
        distances = self.regressor.standardiser.distance(latents).tolist()
        columns = (faces, reconstructions, latents.numpy(), parameters.clamp(0, 1).numpy(), distances)
        predictions = [Prediction(*row) for row in zip(*columns, strict=True)]
        if self.look_reader is None:
            return predictions
        standardised = torch.stack([self.regressor.standardiser(view) for view in views]).mean(0)
        looks = self.look_reader(standardised).numpy()
        return [
            one._replace(look=Appearance(skin_colour(one.aligned), numbers))
            for one, numbers in zip(predictions, looks, strict=True)
        ]

    @torch.inference_mode()
    def correct(self, photo: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """An alignment of a photo, corrected so that the face lies in its frame as the faces of training do.

        A detector's points are some pixels off, and a shift of the face is no shape of the face. A regressor that has
        not learned misalignment leaves the alignment as it is.

        Args:
            photo: (H, W, 3) uint8 RGB.
            matrix: (2, 3) transform from the photo to the 256×256 frame.
        """
        if self.regressor.misalignment is None:
            return matrix
        for _ in range(_CORRECTIONS):
            latent = self.encode([warp(photo, matrix, TEMPLATE_SIZE)])
            found = self.regressor.misalignment_of(latent)[0].clamp(-_LARGEST_CORRECTION, _LARGEST_CORRECTION)
            matrix = undo_misalignment(matrix, found.numpy())
        return matrix

    def _predict_at(self, photo: np.ndarray, matrices: list[np.ndarray]) -> list[Prediction]:
        """Predict the faces of a photo that (2, 3) transforms align, after correcting these."""
        matrices = [self.correct(photo, matrix) for matrix in matrices]
        predictions = self.predict_aligned([warp(photo, matrix, TEMPLATE_SIZE) for matrix in matrices])
        return [found._replace(alignment=matrix) for found, matrix in zip(predictions, matrices, strict=True)]

    def encode(self, faces: list[np.ndarray]) -> Tensor:
        """(N, 2·latent_dim) latents [mu | logvar] of aligned faces, each (S, S, 3) uint8."""
        return encode_aligned(self.encoder, faces, self.config.data.image_size)

    def is_out_of_distribution(self, prediction: Prediction) -> bool:
        """Whether a face is so unlike those of training that its prediction is a guess."""
        return prediction.distance > self.ood_threshold

    @cached_property
    def detector(self) -> "FaceDetector":
        from models.mtcnn import FaceDetector  # here, as torchvision takes seconds to import and training does without

        return FaceDetector()

    # --- the game -----------------------------------------------------------------------------

    @cached_property
    def game(self) -> EmbeddedGame | None:
        """The embedded game, in the version that the run learned; None for another game or another version."""
        return embedded_game(self.creator_version)

    @cached_property
    def look_reader(self) -> LookReader | None:
        """Reads looks off latents; None where the run has not learned it, or learned numbers that the game has not."""
        if self._look_reader is None or self.game is None:
            return None
        known = [number.name for number in self.game.look_table]
        return self._look_reader if self._look_reader.names == known else None

    @cached_property
    def test_r2(self) -> dict[str, float | None]:
        metrics = read_json(self.run.f2p.metrics) or {}
        try:
            return {name: values["r2"] for name, values in metrics["test"]["parameters"].items()}
        except (KeyError, TypeError, AttributeError):
            return {}

    @property
    def origin(self) -> str:
        """What stage 2 learned from, in words: "12,000 renders of MakeHuman 2.1 and 250 photos"."""
        faces = (read_json(self.run.f2p.metrics) or {}).get("run", {}).get("faces", {})
        renders = f"{faces['train']:,} renders" if "train" in faces else "renders"
        photos = "no photos"
        if self.learned_photos:
            photos = f"{faces['photos']:,} photos" if "photos" in faces else "photos"
        game = "a game" if self.creator_version is None else f"the embedded game {self.creator_version}"
        if self.game is not None:
            game = f"{self.game.name} {self.game.version}"
        return f"{renders} of {game} and {photos}"

    def character(self, parameters: np.ndarray, look: Appearance | None = None) -> np.ndarray | None:
        """The embedded game's face with parameters (P,), (256, 256, 3) uint8; None for another game.

        Args:
            look: colours, hair and beard, as `Prediction.look` has them; None draws the neutral look.
        """
        if self.game is None:
            return None
        return self.game.picture(parameters, look=None if look is None else self.game.look_of(look))


@torch.inference_mode()
def encode_aligned(encoder: Encoder, faces: list[np.ndarray], size: int) -> Tensor:
    """(N, 2·latent_dim) latents of aligned faces, each (S, S, 3) uint8, by an encoder of pictures size×size."""
    resized = []
    for face in faces:
        if face.shape[0] != size:
            face = cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA)
        resized.append(face)
    pictures = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2)
    return torch.cat(encoder(as_input(pictures)), 1)


def _check_photo(photo: np.ndarray) -> None:
    if not isinstance(photo, np.ndarray) or photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
        found = f"{photo.dtype} {photo.shape}" if isinstance(photo, np.ndarray) else type(photo).__name__
        raise ValueError(
            f"the photo is {found}; expected a (H, W, 3) uint8 RGB array, as utils.pictures.read_rgb returns it"
        )


# --- loading --------------------------------------------------------------------------------------


def pretrained_folder() -> Path:
    """The folder of the pretrained run, as seen from the current folder where it lies below that.

    Raises:
        UserError: it is not there.
    """
    if not PRETRAINED.is_dir():
        raise UserError(
            f"the pretrained run is not there: {PRETRAINED} is missing. It comes with the code: get it back with "
            "git checkout -- assets/pretrained, or name a run of your own with --run runs/NAME"
        )
    here = Path.cwd()
    return PRETRAINED.relative_to(here) if PRETRAINED.is_relative_to(here) else PRETRAINED


def load_vae(run: Run) -> tuple[VAE, Config]:
    """The best VAE of a run, rebuilt from its checkpoint alone, and the configuration it was trained with.

    Raises:
        UserError: no checkpoint, or one that cannot be used.
    """
    content, path = run.vae.load_best()
    trained = of_checkpoint(content, path)
    model = VAE(trained.data.image_size, trained.vae)
    checkpoint.restore(model, content["model"], path)
    return model.eval(), trained


def load_encoder(config: Config) -> tuple[Encoder, Config]:
    """The trained encoder of a configuration's run, and the configuration it was trained with.

    Raises:
        UserError: as `load_vae`, or the checkpoint is of another network than the configuration describes.
    """
    run = Run.of(config)
    model, trained = load_vae(run)
    changed = changed_settings(trained.as_dict(), config, ("data", "vae"))
    changed = [change for change in changed if change.startswith(_ENCODER_SETTINGS)]
    if changed:
        raise UserError(
            f"the VAE in {run.folder} is another network than the config describes ({'; '.join(changed)}). "
            "Use the config that it was trained with"
        )
    return model.encoder, trained


def load_regressor(run: Run) -> tuple[Regressor, dict[str, Any]]:
    """The best regressor of a run, rebuilt from its checkpoint alone, and the checkpoint's content.

    Raises:
        UserError: no checkpoint, or one that cannot be used.
    """
    content, path = run.f2p.load_best()
    try:
        config = of_checkpoint(content, path)
        model = Regressor(
            content["latent_dim"], len(content["parameters"]), config, reads_photos=content["reads_photos"]
        )
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    checkpoint.restore(model, content["model"], path)
    return model.eval(), content
