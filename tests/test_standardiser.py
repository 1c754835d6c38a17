"""Latents on one scale: what the statistics of training make of them."""

import pytest
import torch

from models.standardiser import Standardiser
from models.vae import reparameterise


@pytest.fixture
def latents():
    """500 rows [mu | logvar] of four dimensions on scales from 0 to 10; the last logvar is constant."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([10.0, 0.1, 1, 1, 1, 1, 1, 0])
    return torch.randn(500, 8, generator=generator) * scale + torch.tensor([3.0, 3, 3, 3, -9, -9, -9, -9])


@pytest.fixture
def fitted(latents):
    standardiser = Standardiser(4)
    standardiser.fit(latents)
    return standardiser


def test_standardised_latents_have_mean_0_and_deviation_1(latents, fitted):
    standardised = fitted(latents)
    torch.testing.assert_close(standardised.mean(0), torch.zeros(8), atol=1e-4, rtol=0)
    torch.testing.assert_close(standardised.std(0)[:7], torch.ones(7), atol=0.05, rtol=0)


def test_a_constant_column_is_not_blown_up(latents, fitted):
    assert fitted(latents)[:, 7].abs().max() < 1e-5


def test_faces_of_training_lie_at_a_distance_of_about_1(latents, fitted):
    assert 0.8 < fitted.distance(latents).mean() < 1.1


def test_faces_unlike_those_of_training_lie_far_away(latents, fitted):
    unlike = latents.clone()
    unlike[:, :4] += 5 * fitted.std[:4]
    assert fitted.distance(unlike).min() > 2


def test_a_dimension_that_the_vae_does_not_use_stays_small(latents):
    unused = latents.clone()
    unused[:, 0] *= 1e-4  # a mu that hardly varies …
    unused[:, 4] = 0  # … in a posterior as wide as the prior
    standardiser = Standardiser(4)
    standardiser.fit(unused)
    assert standardiser.std[0].item() == pytest.approx(1, rel=0.01)
    assert standardiser.std[1].item() == pytest.approx(latents[:, 1].std().item(), rel=0.05)


@pytest.mark.parametrize("whitening", [0.0, 0.3])
def test_several_sets_count_as_one(latents, whitening):
    one, several = Standardiser(4, whitening), Standardiser(4, whitening)
    one.fit(latents)
    several.fit(latents[:123], latents[123:])
    torch.testing.assert_close(several.distance(latents), one.distance(latents))
    torch.testing.assert_close(several(latents).abs(), one(latents).abs(), atol=1e-4, rtol=1e-4)  # up to an axis' sign


@pytest.mark.parametrize("power", [0.0, 0.25, 0.5])
def test_whitening_levels_the_principal_axes_of_drawn_latents(power):
    torch.manual_seed(0)
    shared, own, scale = torch.randn(20000, 1), torch.randn(20000, 2), torch.tensor([4.0, 0.5])
    mu = (shared * 0.9**0.5 + own * 0.05**0.5) * scale  # draws from their posteriors have correlation 0.9
    logvar = (0.05 * scale**2).log().expand(20000, 2)
    standardiser = Standardiser(2, power)
    standardiser.fit(torch.cat([mu, logvar], 1))

    drawn = torch.cat([reparameterise(mu, logvar, torch.randn_like(mu)), logvar], 1)
    seen = standardiser(drawn)[:, :2]
    variances = torch.linalg.eigvalsh(torch.cov(seen.T)).tolist()
    assert variances == pytest.approx([0.1 ** (1 - 2 * power), 1.9 ** (1 - 2 * power)], rel=0.05)


def test_whitening_leaves_distances_as_they_are(latents):
    plain, whitened = Standardiser(4), Standardiser(4, 0.5)
    plain.fit(latents)
    whitened.fit(latents)
    torch.testing.assert_close(whitened.distance(latents), plain.distance(latents))
