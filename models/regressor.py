"""The MLP of stage 2: latents → facial parameters."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

ACTIVATIONS = {"leaky_relu": nn.LeakyReLU, "silu": nn.SiLU}

#: Neurons of the hidden layer that sees how a face lies in its frame.
_FRAME_WIDTH = 256


class Mixer(nn.Module):
    """Small MLPs that all places of a spatial latent share, between them ones that mix the places: MLP-Mixer.

    Tolstikhin et al., "MLP-Mixer: An all-MLP Architecture for Vision", 2021, 2. What light, colour or a fold of the skin
    does to a latent is much the same at each place, and is learned from all of them at once; a dense layer
    would have to learn it place by place.

    (N, k·places), k numbers for each place, channels first → (N, places·width / 4).

    Args:
        inputs: k·places.
        places: of the latent's bottleneck.
        blocks: how often the places, then the channels are mixed.
        width: channels of a place; hidden layers are twice as wide as what they mix.
    """

    def __init__(self, inputs: int, places: int, blocks: int, width: int) -> None:
        super().__init__()
        self.places = places
        self.embed = nn.Linear(inputs // places, width)
        self.position = nn.Parameter(0.02 * torch.randn(places, width))
        self.across_places = nn.ModuleList(_normalised_mlp(width, places) for _ in range(blocks))
        self.across_channels = nn.ModuleList(_normalised_mlp(width, width) for _ in range(blocks))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width // 4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x.unflatten(1, (-1, self.places)).transpose(1, 2)) + self.position
        for (normalise, mix_places), mix_channels in zip(self.across_places, self.across_channels):
            h = h + mix_places(normalise(h).transpose(1, 2)).transpose(1, 2)
            h = h + mix_channels(h)
        return self.out(h).flatten(1)


def _normalised_mlp(normalised: int, mixed: int) -> nn.Sequential:
    """Layer normalisation of the channels, then an MLP over `mixed` places or channels."""
    return nn.Sequential(nn.LayerNorm(normalised),
                         nn.Sequential(nn.Linear(mixed, 2 * mixed), nn.SiLU(), nn.Linear(2 * mixed, mixed)))


class Regressor(nn.Module):
    """(N, 2·latent_dim) rows [mu | logvar] → (N, parameters).

    Inputs are standardised by statistics that are kept inside the module, so a checkpoint is
    self-contained. Outputs are normalised parameters, not clipped: clip when they are used.

    Args:
        latent_dim: D; the input has 2·D columns.
        outputs: number of parameters.
        layers: number of linear layers.
        width: neurons of each hidden layer.
        dropout: share of hidden neurons left out in training.
        use_logvar: False reads mu alone.
        norm: "layer" normalises each hidden layer before its activation (Ba et al., 2016), "none" does not.
        activation: of the hidden layers, one of `ACTIVATIONS`.
        frame: also learn where alignment put the face; see `frame_of`.
        whitening: how far the mu are decorrelated before they are read; see `fit_standardisation`.
        places: of a spatial latent, for `mixer_blocks`.
        mixer_blocks: blocks of a `Mixer` in front of the hidden layers; 0: none.
        mixer_width: its channels.
    """

    def __init__(self, latent_dim: int, outputs: int, layers: int, width: int, dropout: float = 0.0, use_logvar: bool = True,
                 norm: str = "none", activation: str = "leaky_relu", frame: bool = False, whitening: float = 0.0,
                 places: int = 1, mixer_blocks: int = 0, mixer_width: int = 64) -> None:
        super().__init__()
        self.latent_dim, self.use_logvar, self.whitening = latent_dim, use_logvar, whitening
        inputs = 2 * latent_dim if use_logvar else latent_dim
        self.register_buffer("mean", torch.zeros(2 * latent_dim))
        self.register_buffer("std", torch.ones(2 * latent_dim))
        self.register_buffer("decorrelation", torch.eye(latent_dim) if whitening else None)
        hidden: list[nn.Module] = [Mixer(inputs, places, mixer_blocks, mixer_width)] if mixer_blocks else []
        sizes = [places * (mixer_width // 4) if mixer_blocks else inputs] + [width] * (layers - 1)
        for size_in, size_out in zip(sizes, sizes[1:]):
            hidden.append(nn.Linear(size_in, size_out))
            if norm == "layer":
                hidden.append(nn.LayerNorm(size_out))
            hidden += [ACTIVATIONS[activation](), nn.Dropout(dropout)]
        self.network = nn.Sequential(*hidden, nn.Linear(sizes[-1], outputs))
        self.frame = nn.Sequential(nn.Linear(inputs, _FRAME_WIDTH), nn.LayerNorm(_FRAME_WIDTH), nn.SiLU(),
                                   nn.Linear(_FRAME_WIDTH, 4)) if frame else None

    def fit_standardisation(self, *sets: Tensor) -> None:
        """Take mean and standard deviation (2·D,) from the training latents, one or more sets (N, 2·D).

        A mu is divided by the deviation of the latents drawn from it, √(var(mu) + mean(exp(logvar))): a dimension that the
        VAE does not use, whose mu hardly varies in its wide posterior, stays small instead of being blown up to noise.

        With `whitening` p above 0 the standardised mu are then turned to the principal axes of these drawn latents and
        divided by their variances there to the power p: 0.5 is PCA whitening, less leaves strong axes the stronger ones.
        Gradient descent learns such inputs faster (LeCun et al., "Efficient BackProp", 1998, 4.3).
        """
        count = sum(map(len, sets))
        mean = sum(latents.sum(0, dtype=torch.float64) for latents in sets) / count
        variance = torch.zeros_like(mean)
        for block in _blocks(sets):
            variance += (block - mean).square().sum(0) / count
            variance[:self.latent_dim] += block[:, self.latent_dim:].exp().sum(0, dtype=torch.float64) / count
        std = variance.sqrt()
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std < 1e-6 * (1 + mean.abs()), torch.ones_like(std), std))
        if self.whitening:
            covariance = torch.zeros(self.latent_dim, self.latent_dim, dtype=torch.float64, device=mean.device)
            for block in _blocks(sets):
                mu = ((block - self.mean) / self.std)[:, :self.latent_dim]
                covariance += mu.T @ mu / count
                covariance.diagonal().add_((block[:, self.latent_dim:].exp().mean(0) * len(block) / count) / self.std[:self.latent_dim].square())
            variances, axes = torch.linalg.eigh(covariance)
            self.decorrelation.copy_(axes * variances.clamp(min=1e-4) ** -self.whitening)

    def distance(self, latents: Tensor) -> Tensor:
        """How far faces lie from those of training: (N, 2·D) → (N,), root mean square of standardised mu.

        About 1 or below for a face like those of training.
        """
        z = ((latents - self.mean) / self.std)[:, :self.latent_dim]
        return z.square().mean(1).sqrt()

    def forward(self, latents: Tensor) -> Tensor:
        return self.network(self._standardised(latents))

    def frame_of(self, latents: Tensor) -> Tensor:
        """How faces lie in their frames: (N, 2·D) → (N, 4) in units of `utils.alignment.FRAME_SPREAD`.

        Zeros for a face that lies as the renders of training do.
        """
        return self.frame(self._standardised(latents))

    def _standardised(self, latents: Tensor) -> Tensor:
        x = (latents - self.mean) / self.std
        if self.whitening:
            mu, logvar = x.chunk(2, 1)
            x = torch.cat([(mu @ self.decorrelation).to(x.dtype), logvar], 1)  # autocast multiplies in lower precision
        return x if self.use_logvar else x[:, :self.latent_dim]


def _blocks(sets: tuple[Tensor, ...]) -> Iterator[Tensor]:
    """Blocks of the sets' rows: a whole set in double precision would be twice its size."""
    return (block for latents in sets for block in latents.split(8192))
