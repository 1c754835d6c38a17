"""The mixer: one set of small MLPs for all positions of a spatial latent."""

import pytest
import torch
from torch import nn

from models.mixer import Mixer

#: Six numbers at each of nine positions.
NUMBERS, POSITIONS = 6, 9


@pytest.fixture
def mixer():
    torch.manual_seed(0)
    return Mixer(NUMBERS * POSITIONS, positions=POSITIONS, blocks=2, width=16)


@pytest.fixture
def alike(mixer):
    """A mixer without anything that tells positions apart."""
    with torch.no_grad():
        mixer.position.zero_()
        for block in mixer.across_positions:
            mix_positions = block[1]
            mix_positions[2].weight.zero_()
            mix_positions[2].bias.zero_()
    return mixer


@pytest.fixture
def latents():
    return torch.randn(5, NUMBERS * POSITIONS, generator=torch.Generator().manual_seed(1))


def by_position(features: torch.Tensor) -> torch.Tensor:
    """Features (N, positions, 4) of what a mixer of width 16 gives."""
    return features.view(len(features), POSITIONS, 4)


def test_shapes_and_gradients(mixer, latents):
    features = mixer(latents)
    assert features.shape == (5, POSITIONS * 4)
    assert features.shape[1] == mixer.outputs
    features.square().sum().backward()
    assert [name for name, weight in mixer.named_parameters() if weight.grad is None] == []


def test_positions_that_change_places_take_their_features_along(alike, latents):
    order = torch.randperm(POSITIONS, generator=torch.Generator().manual_seed(2))
    swapped = latents.view(5, NUMBERS, POSITIONS)[:, :, order].flatten(1)
    torch.testing.assert_close(by_position(alike(swapped)), by_position(alike(latents))[:, order])


def test_without_mixing_no_position_sees_another(alike, latents):
    changed = latents.view(5, NUMBERS, POSITIONS).clone()
    changed[:, :, 2] += 1
    apart = by_position(alike(changed.flatten(1)) - alike(latents)).abs().sum((0, 2))
    assert (apart > 1e-3).nonzero().flatten().tolist() == [2]


def test_mixing_lets_every_position_see_every_other(mixer, latents):
    changed = latents.view(5, NUMBERS, POSITIONS).clone()
    changed[:, :, 2] += 1
    apart = by_position(mixer(changed.flatten(1)) - mixer(latents)).abs().sum((0, 2))
    assert (apart > 1e-3).all()


def test_blocks_are_what_mixes_without_the_layers_before_and_after(mixer):
    blocks = set(mixer.blocks.parameters())
    others = {*mixer.embed.parameters(), mixer.position, *mixer.out.parameters()}
    assert blocks | others == set(mixer.parameters())
    assert blocks.isdisjoint(others)
    assert sum(isinstance(module, nn.Linear) for module in mixer.blocks.modules()) == 8
