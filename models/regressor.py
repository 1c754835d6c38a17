"""The regressor of stage 2: latents → facial parameters."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.mixer import Mixer
from models.standardiser import Standardiser
from utils.config import Config

#: Neurons of the misalignment head's hidden layer.
_HEAD_WIDTH = 256


class Answers(NamedTuple):
    """What a regressor that learned from photos says of N faces."""

    game: Tensor  #: (N, P) parameters, where the faces are pictures of the game
    photo: Tensor  #: (N, P) parameters, where they are photos
    photo_logit: Tensor  #: (N, 1) logit of the probability that they are photos

    @property
    def mixed(self) -> Tensor:
        """(N, P) parameters: both answers, weighed by how probable each kind of picture is."""
        return torch.lerp(self.game, self.photo, self.photo_logit.sigmoid())


class Regressor(nn.Module):
    """(N, 2·D) rows [mu | logvar] → (N, P) normalised parameters, not clipped: clip them when they are used.

    Renders have exact labels and photos fitted ones, and one linear layer that serves both reads renders badly. So a
    regressor of photos has two: a head for the game's pictures, a head for photos, and a gate that tells which kind of
    picture a face is (Jacobs et al., "Adaptive Mixtures of Local Experts", 1991; here the gate is told the answer).

    Args:
        latent_dim: D.
        outputs: number P of parameters.
        config: `f2p.network` names the network, the other settings of [f2p] its size; `latents.moved` adds a
            misalignment head.
        reads_photos: whether it has a head for photos and the gate.
    """

    def __init__(self, latent_dim: int, outputs: int, config: Config, *, reads_photos: bool = False) -> None:
        super().__init__()
        settings, inputs = config.f2p, 2 * latent_dim
        self.standardiser = Standardiser(latent_dim, settings.whitening if settings.network == "whitened" else 0.0)

        self.mixer: Mixer | None = None
        if settings.network == "mixer":
            positions = config.vae.bottleneck**2
            self.mixer = Mixer(inputs, positions=positions, blocks=settings.mixer_blocks, width=settings.mixer_width)
            inputs = self.mixer.outputs

        hidden: list[nn.Module] = []
        for _ in range(settings.layers - 1):
            hidden += _hidden_layer(inputs, settings.width, normalised=settings.network != "plain")
            inputs = settings.width
        self.hidden = nn.Sequential(*hidden)
        self.head = nn.Linear(inputs, outputs)
        self.photo_head = nn.Linear(inputs, outputs) if reads_photos else None
        self.gate = nn.Linear(inputs, 1) if reads_photos else None
        self.misalignment = MisalignmentHead(2 * latent_dim) if config.latents.moved else None

    def forward(self, latents: Tensor) -> Tensor:
        if self.gate is None:
            return self.head(self.features(latents))
        return self.answers(latents).mixed

    def features(self, latents: Tensor) -> Tensor:
        """What the heads read: (N, 2·D) → (N, width)."""
        features = self.standardiser(latents)
        if self.mixer is not None:
            features = self.mixer(features)
        return self.hidden(features)

    def answers(self, latents: Tensor) -> Answers:
        """Both heads' parameters of faces (N, 2·D), and the gate, which does not change what the heads read.

        Raises:
            ValueError: the regressor does not read photos.
        """
        if self.photo_head is None or self.gate is None:
            raise ValueError("this regressor has no head for photos")
        features = self.features(latents)
        return Answers(self.head(features), self.photo_head(features), self.gate(features.detach()))

    def misalignment_of(self, latents: Tensor) -> Tensor:
        """How far faces lie from where alignment should have put them: (N, 2·D) → (N, 4).

        Returns:
            Log scale, rotation, shift right and down in units of `utils.alignment.MISALIGNMENT_SPREAD`. Zeros for a
            face that lies as the renders of training do, and for a regressor that has not learned misalignment.
        """
        if self.misalignment is None:
            return latents.new_zeros(len(latents), 4)
        return self.misalignment(self.standardiser(latents))

    @torch.no_grad()
    def start_from(self, mean: Tensor) -> None:
        """Let an untrained network predict the mean face (P,), which is what ignorance predicts."""
        for head in (self.head, self.photo_head):
            if head is not None:
                head.bias.copy_(mean)


class MisalignmentHead(nn.Sequential):
    """Standardised latents (N, inputs) → misalignment (N, 4); see `Regressor.misalignment_of`."""

    def __init__(self, inputs: int) -> None:
        super().__init__(
            nn.Linear(inputs, _HEAD_WIDTH), nn.LayerNorm(_HEAD_WIDTH), nn.SiLU(), nn.Linear(_HEAD_WIDTH, 4)
        )


def _hidden_layer(inputs: int, width: int, *, normalised: bool) -> list[nn.Module]:
    linear = nn.Linear(inputs, width)
    if normalised:  # Ba et al., "Layer Normalization", 2016
        return [linear, nn.LayerNorm(width), nn.SiLU()]
    return [linear, nn.LeakyReLU()]
