"""The VAE and the prior fitted to its latents: shapes, gradients, closed forms."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal
from torch.distributions import kl_divergence as torch_kl

from models.prior import LatentPrior
from models.vae import (
    LOGVAR_RANGE,
    VAE,
    Encoder,
    as_input,
    fold_batch_norm,
    kl_divergence,
    noise_for,
    reparameterise,
    stage_count,
)
from tests.helpers import ROOT, small_vae
from utils.config import load
from utils.device import Engine


@pytest.mark.parametrize("size", [32, 64, 128, 256])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_shapes_and_range(size, norm):
    model = VAE(size, small_vae(stage_count(size), latent_dim=12, norm=norm))
    pictures = torch.rand(2, 3, size, size)
    output = model(pictures, torch.randn(2, 12))
    assert output.reconstruction.shape == pictures.shape
    assert output.mu.shape == (2, 12)
    assert output.logvar.shape == (2, 12)
    assert output.reconstruction.min() >= 0
    assert output.reconstruction.max() <= 1


@pytest.mark.parametrize("bias, value", [(-20.0, 0.0), (20.0, 1.0)])
def test_reconstructions_reach_both_ends_of_the_range(bias, value):
    model = VAE(32, small_vae())
    with torch.no_grad():
        model.decoder.to_rgb[-1].bias.fill_(bias)
        assert model.decoder(torch.zeros(1, 6)).sub(value).abs().max() < 1e-3


def test_the_originals_vae_is_the_documented_one():
    settings = load(ROOT / "configs" / "hs_face_original.toml").vae
    model = VAE(256, settings)
    assert [stage.conv.kernel_size[0] for stage in model.encoder.stages] == [7, 5, 4, 3, 3, 3]
    assert model.encoder.head.out_features == 2048
    assert model.encoder.head.in_features == 512 * 16


@pytest.mark.parametrize("network", ["encoder_channels", "decoder_channels"])
def test_another_number_of_widths_than_halvings_is_refused(network):
    with pytest.raises(ValueError, match="expected 6"):
        VAE(256, small_vae(6, **{network: (8,) * 5}))


def test_a_spatial_latent_keeps_positions():
    model = VAE(64, small_vae(bottleneck=8, spatial=True, latent_dim=3 * 64)).eval()
    picture = torch.zeros(1, 3, 64, 64)
    changed = picture.clone()
    changed[..., :8, :8] = 1
    moved = (model(picture).mu - model(changed).mu).abs().view(3, 8, 8).sum(0) > 1e-6
    assert moved[0, 0]
    assert not moved[-1, -1]
    assert model(picture).reconstruction.shape == picture.shape


def test_a_spatial_latent_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiple of 64"):
        VAE(64, small_vae(bottleneck=8, spatial=True, latent_dim=100))


@pytest.mark.parametrize("changes", [{}, {"spatial": True, "latent_dim": 32}], ids=["vector", "spatial"])
def test_every_weight_gets_a_gradient(changes):
    model = VAE(32, small_vae(**changes))
    output = model(torch.rand(4, 3, 32, 32), torch.randn(4, model.latent_dim))
    (output.reconstruction.square().mean() + kl_divergence(output.mu, output.logvar).sum()).backward()
    without = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.abs().sum()]
    assert without == []


def test_logvar_stays_where_its_exponential_is_finite():
    encoder = Encoder(32, small_vae())
    with torch.no_grad():
        encoder.head.bias.copy_(torch.tensor([0.0] * 6 + [-1e4] * 3 + [1e4] * 3))
        _, logvar = encoder(torch.rand(1, 3, 32, 32))
    assert logvar[0].tolist() == [LOGVAR_RANGE[0]] * 3 + [LOGVAR_RANGE[1]] * 3


def test_kl_is_that_of_two_gaussians():
    mu, logvar = torch.randn(50, 7), torch.randn(50, 7)
    expected = torch_kl(Normal(mu, torch.exp(0.5 * logvar)), Normal(0.0, 1.0))
    torch.testing.assert_close(kl_divergence(mu, logvar), expected)
    assert kl_divergence(torch.zeros(1), torch.zeros(1)).item() == 0


def test_reparameterised_draws_have_the_posteriors_moments():
    mu, logvar = torch.tensor([[2.0, -1.0]]), torch.tensor([[math.log(0.25), math.log(4.0)]])
    noise = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0))
    draws = reparameterise(mu, logvar, noise)
    torch.testing.assert_close(draws.mean(0), mu[0], atol=0.02, rtol=0)
    torch.testing.assert_close(draws.std(0), torch.tensor([0.5, 2.0]), atol=0.02, rtol=0)


def test_noise_belongs_to_a_face_and_an_epoch_however_faces_are_batched():
    together = noise_for(torch.tensor([3, 7, 5]), 9, seed=1, epoch=2)
    assert torch.equal(together[1:], noise_for(torch.tensor([7, 5]), 9, seed=1, epoch=2))
    assert not torch.equal(together, noise_for(torch.tensor([3, 7, 5]), 9, seed=1, epoch=3))
    assert not torch.equal(together, noise_for(torch.tensor([3, 7, 5]), 9, seed=2, epoch=2))


def test_noise_is_standard_normal():
    noise = noise_for(torch.arange(2000), 50, seed=0, epoch=0)
    assert noise.mean().item() == pytest.approx(0, abs=0.01)
    assert noise.std().item() == pytest.approx(1, abs=0.01)


def test_pictures_become_input_from_0_to_1():
    pictures = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    torch.testing.assert_close(as_input(pictures).flatten(), torch.tensor([0.0, 0.2, 1.0]))


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_folded_encoder_computes_the_same(norm):
    encoder = Encoder(32, small_vae(encoder_channels=(8, 16, 16), latent_dim=5, norm=norm))
    for _ in range(3):
        encoder(torch.rand(16, 3, 32, 32))  # batch statistics that are not the initial ones
    encoder.eval()
    pictures = torch.rand(4, 3, 32, 32)
    for expected, found in zip(encoder(pictures), fold_batch_norm(encoder)(pictures), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


# --- the fitted prior -----------------------------------------------------------------------------

MEAN = torch.tensor([1.0, 0, -1])
MIX = torch.tensor([[1.0, 0, 0], [0.9, 0.3, 0], [0, 0, 2]])
ALONE = Engine(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def prior():
    """A prior that has seen latents with mean MEAN and covariance MIX MIXᵀ, in posteriors of variance 0.25."""
    generator, fitted = torch.Generator().manual_seed(0), LatentPrior(3)
    for _ in range(200):
        mu = torch.randn(512, 3, generator=generator) @ MIX.T + MEAN
        fitted.update(mu, torch.full_like(mu, math.log(0.25)), ALONE)
    return fitted


def test_the_fitted_prior_draws_from_the_distribution_of_the_latents(prior):
    drawn = prior.draw(torch.randn(50_000, 3, generator=torch.Generator().manual_seed(1)))
    expected = MIX @ MIX.T + 0.25 * torch.eye(3)
    torch.testing.assert_close(drawn.mean(0), MEAN, atol=0.1, rtol=0)
    torch.testing.assert_close(torch.cov(drawn.T), expected, atol=0.3, rtol=0.05)


def test_divergence_to_the_fitted_prior_is_that_of_two_gaussians(prior):
    generator = torch.Generator().manual_seed(2)
    mu, logvar = torch.randn(4, 3, generator=generator), torch.randn(4, 3, generator=generator)
    fitted = MultivariateNormal(prior.mean, prior.covariance)
    expected = torch_kl(MultivariateNormal(mu, torch.diag_embed(logvar.exp())), fitted)
    torch.testing.assert_close(prior.divergence()(mu, logvar), expected, atol=1e-3, rtol=1e-3)


def test_divergence_to_an_unfitted_prior_is_kl_to_the_standard_normal():
    mu, logvar = torch.randn(4, 3), torch.randn(4, 3)
    expected = kl_divergence(mu, logvar).sum(1)
    torch.testing.assert_close(LatentPrior(3).divergence()(mu, logvar), expected, atol=1e-4, rtol=1e-4)


class Shared(Engine):
    """One of two processes that share a batch; what the other one has comes from a list."""

    others: list[torch.Tensor]

    def mean_over_processes(self, values: torch.Tensor) -> torch.Tensor:
        return (values + self.others.pop(0)) / 2


class Noting(Engine):
    """One of two processes; it only notes what it has."""

    noted: list[torch.Tensor]

    def mean_over_processes(self, values: torch.Tensor) -> torch.Tensor:
        self.noted.append(values.clone())
        return values


def test_the_fitted_prior_does_not_depend_on_how_many_processes_share_a_batch():
    mu, logvar = torch.randn(64, 3) @ MIX.T + MEAN, torch.randn(64, 3)
    alone = LatentPrior(3)
    alone.update(mu, logvar, ALONE)

    halves = [(mu[:32], logvar[:32]), (mu[32:], logvar[32:])]
    first, second = Noting(*ALONE._replace(world=2)), Shared(*ALONE._replace(world=2))
    first.noted = second.others = []
    LatentPrior(3).update(*halves[0], first)
    together = LatentPrior(3)
    together.update(*halves[1], second)
    torch.testing.assert_close(together.mean, alone.mean)
    torch.testing.assert_close(together.covariance, alone.covariance)
