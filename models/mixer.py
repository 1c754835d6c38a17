"""Small MLPs that all positions of a spatial latent share."""

import torch
from torch import Tensor, nn


class Mixer(nn.Module):
    """MLP-Mixer: MLPs over the channels of each position, and between them MLPs that mix the positions.

    (N, k·positions), k numbers for each position, channels first → (N, positions · width / 4).

    Tolstikhin et al., "MLP-Mixer: An all-MLP Architecture for Vision", 2021, section 2. What light, colour or a fold of
    the skin does to a latent is much the same at each position, and is learned from all positions at once; a dense
    layer would have to learn it position by position.

    Args:
        inputs: k·positions.
        positions: of the latent's bottleneck.
        blocks: how often the positions, then the channels are mixed.
        width: channels per position; hidden layers are twice as wide as what they mix.
    """

    def __init__(self, inputs: int, *, positions: int, blocks: int, width: int) -> None:
        super().__init__()
        self.positions = positions
        self.outputs = positions * (width // 4)
        self.embed = nn.Linear(inputs // positions, width)
        self.position = nn.Parameter(0.02 * torch.randn(positions, width))
        self.across_positions = nn.ModuleList(_normalised_mlp(width, mixed=positions) for _ in range(blocks))
        self.across_channels = nn.ModuleList(_normalised_mlp(width, mixed=width) for _ in range(blocks))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width // 4))

    @property
    def blocks(self) -> nn.ModuleList:
        """What mixes, without the layers before and after it: the part whose matrices Muon learns."""
        return nn.ModuleList([self.across_positions, self.across_channels])

    def forward(self, latents: Tensor) -> Tensor:
        by_position = latents.unflatten(1, (-1, self.positions)).transpose(1, 2)  # (N, positions, k)
        h = self.embed(by_position) + self.position  # (N, positions, width)
        for positions, mix_channels in zip(self.across_positions, self.across_channels, strict=True):
            normalise, mix_positions = positions.children()
            h = h + mix_positions(normalise(h).transpose(1, 2)).transpose(1, 2)
            h = h + mix_channels(h)
        return self.out(h).flatten(1)


def _normalised_mlp(normalised: int, *, mixed: int) -> nn.Sequential:
    """Layer normalisation of the channels, then an MLP over `mixed` positions or channels."""
    mlp = nn.Sequential(nn.Linear(mixed, 2 * mixed), nn.SiLU(), nn.Linear(2 * mixed, mixed))
    return nn.Sequential(nn.LayerNorm(normalised), mlp)
