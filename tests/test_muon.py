"""Muon: every direction of a weight matrix learns at the same pace."""

import copy

import pytest
import torch
from torch import nn

from utils.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(24, 60), (60, 24)])
def test_orthogonalised_matrices_have_equal_singular_values(shape):
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = u * torch.logspace(0, -1.5, 24) @ v  # the faintest direction 30 times fainter than the strongest
    found = orthogonalise(matrix)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6
    assert values.max() < 1.3
    assert (found * (u @ v)).sum() > 0.95 * 24**0.5 * found.norm()


@pytest.fixture(params=[nn.Conv2d, nn.ConvTranspose2d])
def one_step(request):
    """What one step does to a linear law whose input directions, not the coordinates, differ 100 times in variance.

    Returns how far each direction's weights moved, how long each direction's gradient is, and the update.
    """
    torch.manual_seed(0)
    layer = request.param(8, 8, 1, bias=False)
    nn.init.zeros_(layer.weight)
    directions, law = (torch.linalg.qr(torch.randn(8, 8)).Q for _ in range(2))
    inputs = (torch.randn(512, 8) * torch.logspace(0, -1, 8)) @ directions.T
    optimizer, before = Muon(layer, lr=0.01), layer.weight.detach().clone()
    (layer(inputs[..., None, None])[..., 0, 0] - inputs @ law).square().mean().backward()
    optimizer.step()

    def reach(change: torch.Tensor) -> torch.Tensor:
        matrix = change[..., 0, 0]
        by_input = matrix if isinstance(layer, nn.ConvTranspose2d) else matrix.T
        return (directions.T @ by_input).norm(dim=1)

    update = layer.weight.detach() - before
    return reach(update), reach(layer.weight.grad), update


def test_faint_directions_move_as_far_as_strong_ones(one_step):
    moved, gradient, _ = one_step
    assert gradient.max() > 50 * gradient.min()
    assert moved.max() < 2 * moved.min()


def test_an_update_is_as_large_as_adamws(one_step):
    """0.2 of the learning rate, root mean square."""
    _, _, update = one_step
    assert update.square().mean().sqrt().item() == pytest.approx(0.2 * 0.01, rel=0.3)


def test_what_is_no_matrix_is_learned_as_adamw_does():
    torch.manual_seed(0)
    one = nn.LayerNorm(6)
    other = copy.deepcopy(one)
    optimizers = Muon(one, lr=0.01, weight_decay=0.1), torch.optim.AdamW(other.parameters(), 0.01, weight_decay=0.1)
    for _ in range(5):
        inputs = torch.randn(4, 6)
        for norm, optimizer in zip((one, other), optimizers, strict=True):
            optimizer.zero_grad()
            norm(inputs).pow(3).sum().backward()
            optimizer.step()
    torch.testing.assert_close(one.weight, other.weight, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(one.bias, other.bias, atol=1e-6, rtol=1e-5)


def test_a_weight_without_gradient_stays_as_it_is():
    layer = nn.Linear(3, 3)
    before = layer.weight.detach().clone()
    Muon(layer, lr=0.1, weight_decay=0.1).step()
    assert torch.equal(layer.weight, before)
