"""The MLP of stage 2: latents → facial parameters."""

import torch
from torch import Tensor, nn

from models.mixer import Mixer
from models.standardiser import Standardiser
from utils.config import Config

#: Neurons of the misalignment head's hidden layer.
_HEAD_WIDTH = 256


class Regressor(nn.Module):
    """(N, 2·D) rows [mu | logvar] → (N, P) normalised parameters, not clipped: clip them when they are used.

    Args:
        latent_dim: D.
        outputs: number P of parameters.
        config: `f2p.network` names the network, the other settings of [f2p] its size; `latents.moved` adds a
            misalignment head.
    """

    def __init__(self, latent_dim: int, outputs: int, config: Config) -> None:
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
        self.mlp = nn.Sequential(*hidden, nn.Linear(inputs, outputs))
        self.misalignment = MisalignmentHead(2 * latent_dim) if config.latents.moved else None

    def forward(self, latents: Tensor) -> Tensor:
        features = self.standardiser(latents)
        if self.mixer is not None:
            features = self.mixer(features)
        return self.mlp(features)

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
        self.mlp[-1].bias.copy_(mean)  # type: ignore[operator]


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
