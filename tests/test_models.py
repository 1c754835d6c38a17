"""Networks: shapes, gradients, closed forms."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence as torch_kl

from models.mtcnn import FaceDetector, ONet, PNet, RNet, _load_known
from models.perceptual import LPIPS, feature_weights, laplacian_pyramid_distance
from models.regressor import Mixer, Regressor
from models.vae import VAE, Encoder, LatentPrior, fold_batch_norm, kl_divergence, reparameterise, stage_count
from utils.alignment import TEMPLATE
from utils.errors import UserError
from utils.muon import Muon, orthogonalise

FULL = ((64, 128, 256, 512, 512, 512), (256, 128, 128, 128, 64, 32))


@pytest.mark.parametrize("size", [32, 64, 128, 256])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_vae_shapes_and_range(size, norm):
    stages = stage_count(size)
    model = VAE(size, (8,) * stages, (8,) * stages, 12, norm)
    pictures = torch.rand(2, 3, size, size)
    output = model(pictures, torch.randn(2, 12))
    assert output.reconstruction.shape == pictures.shape and output.mu.shape == output.logvar.shape == (2, 12)
    assert 0 <= output.reconstruction.min() and output.reconstruction.max() <= 1


def test_vae_reaches_both_ends_of_the_image_range():
    model = VAE(32, (8, 8, 8), (8, 8, 8), 4)
    with torch.no_grad():
        for bias, value in ((-20.0, 0.0), (20.0, 1.0)):
            model.decoder.to_rgb[-1].bias.fill_(bias)
            assert model.decoder(torch.zeros(1, 4)).sub(value).abs().max() < 1e-3


def test_full_size_vae_is_the_documented_one():
    model = VAE(256, *FULL, 1024)
    assert [s.conv.kernel_size[0] for s in model.encoder.stages] == [7, 5, 4, 3, 3, 3]
    assert model.encoder.head.out_features == 2048 and model.encoder.head.in_features == 512 * 16
    with pytest.raises(ValueError, match="expected 6"):
        VAE(256, FULL[0][:5], FULL[1], 1024)


def test_spatial_latent_keeps_places():
    model = VAE(64, (8, 8, 8), (8, 8, 8), 3 * 64, bottleneck=8, spatial=True).eval()
    picture = torch.zeros(1, 3, 64, 64)
    changed = picture.clone()
    changed[..., :8, :8] = 1
    moved = (model(picture).mu - model(changed).mu).abs().view(3, 8, 8).sum(0) > 1e-6
    assert moved[0, 0] and not moved[-1, -1] and model(picture).reconstruction.shape == picture.shape
    with pytest.raises(ValueError, match="multiple of 64"):
        VAE(64, (8, 8, 8), (8, 8, 8), 100, bottleneck=8, spatial=True)


def test_every_weight_of_the_vae_gets_a_gradient():
    model = VAE(32, (8, 8, 8), (8, 8, 8), 6)
    output = model(torch.rand(4, 3, 32, 32), torch.randn(4, 6))
    (output.reconstruction.square().mean() + kl_divergence(output.mu, output.logvar).sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_kl_is_that_of_two_gaussians():
    mu, logvar = torch.randn(50, 7), torch.randn(50, 7)
    expected = torch_kl(Normal(mu, torch.exp(0.5 * logvar)), Normal(0.0, 1.0))
    torch.testing.assert_close(kl_divergence(mu, logvar), expected)
    assert kl_divergence(torch.zeros(1), torch.zeros(1)).item() == 0


def test_reparameterised_draws_have_the_posteriors_moments():
    mu, logvar = torch.tensor([[2.0, -1.0]]), torch.tensor([[math.log(0.25), math.log(4.0)]])
    draws = reparameterise(mu, logvar, torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(draws.mean(0), mu[0], atol=0.02, rtol=0)
    torch.testing.assert_close(draws.std(0), torch.tensor([0.5, 2.0]), atol=0.02, rtol=0)


def test_the_fitted_prior_is_the_distribution_of_the_latents():
    generator = torch.Generator().manual_seed(0)
    prior, mix = LatentPrior(3), torch.tensor([[1.0, 0, 0], [0.9, 0.3, 0], [0, 0, 2]])
    for _ in range(200):
        mu = torch.randn(512, 3, generator=generator) @ mix.T + torch.tensor([1.0, 0, -1])
        prior.update(mu, torch.full_like(mu, math.log(0.25)))
    expected = mix @ mix.T + 0.25 * torch.eye(3)
    drawn = prior.draw(torch.randn(50_000, 3, generator=generator))
    torch.testing.assert_close(drawn.mean(0), torch.tensor([1.0, 0, -1]), atol=0.1, rtol=0)
    torch.testing.assert_close(torch.cov(drawn.T), expected, atol=0.3, rtol=0.05)
    mu, logvar = torch.randn(4, 3, generator=generator), torch.randn(4, 3, generator=generator)
    fitted = MultivariateNormal(prior.mean, prior.covariance)
    expected = torch_kl(MultivariateNormal(mu, torch.diag_embed(logvar.exp())), fitted)
    torch.testing.assert_close(prior.divergence()(mu, logvar), expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(LatentPrior(3).divergence()(mu, logvar), kl_divergence(mu, logvar).sum(1), atol=1e-4, rtol=1e-4)


def test_folded_encoder_computes_the_same():
    encoder = Encoder(32, (8, 16, 16), 5)
    for _ in range(3):
        encoder(torch.rand(16, 3, 32, 32))  # batch statistics that are not the initial ones
    encoder.eval()
    pictures = torch.rand(4, 3, 32, 32)
    for a, b in zip(encoder(pictures), fold_batch_norm(encoder)(pictures)):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_regressor_standardises_inside():
    latents = torch.randn(500, 8) * torch.tensor([10.0, 0.1, 1, 1, 1, 1, 1, 0]) + torch.tensor([3.0, 3, 3, 3, -9, -9, -9, -9])
    model = Regressor(4, 3, layers=2, width=16)
    model.fit_standardisation(latents)
    clone = Regressor(4, 3, layers=2, width=16)
    clone.load_state_dict(model.state_dict())
    torch.testing.assert_close(clone(latents), model(latents))
    assert torch.isfinite(model(latents)).all() and model(latents).shape == (500, 3)
    assert 0.8 < model.distance(latents).mean() < 1.1
    model(latents).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    unused = latents.clone()
    unused[:, 0] *= 1e-4  # a mu that hardly varies …
    unused[:, 4] = 0      # … in a posterior as wide as the prior
    model.fit_standardisation(unused)
    assert model.std[0] == pytest.approx(1, rel=0.01) and model.std[1] == pytest.approx(latents[:, 1].std().item(), rel=0.05)
    only_mu = Regressor(4, 3, 2, 16, use_logvar=False)
    moved = latents.clone()
    moved[:, 4:] += 5
    torch.testing.assert_close(only_mu(latents), only_mu(moved))


def test_mixer_shares_its_weights_between_the_places():
    torch.manual_seed(0)
    mixer, latents = Mixer(inputs=6 * 9, places=9, blocks=2, width=16), torch.randn(5, 6 * 9)
    assert mixer(latents).shape == (5, 9 * 4)
    model = Regressor(27, 3, layers=2, width=16, places=9, mixer_blocks=2, mixer_width=16)
    model(latents).sum().backward()
    assert model(latents).shape == (5, 3) and all(p.grad is not None for p in model.parameters())
    # Without anything that tells places apart, places that change theirs take their features along, …
    with torch.no_grad():
        mixer.position.zero_()
        for block in mixer.across_places:
            block[1][2].weight.zero_()
            block[1][2].bias.zero_()
    order = torch.randperm(9)
    swapped = latents.view(5, 6, 9)[:, :, order].flatten(1)
    torch.testing.assert_close(mixer(swapped).view(5, 9, 4), mixer(latents).view(5, 9, 4)[:, order])
    # … and none sees another.
    changed = latents.view(5, 6, 9).clone()
    changed[:, :, 2] += 1
    apart = (mixer(changed.flatten(1)) - mixer(latents)).view(5, 9, 4).abs().sum((0, 2))
    assert (apart > 1e-3).nonzero().flatten().tolist() == [2]


@pytest.mark.parametrize("power", [0.0, 0.25, 0.5])
def test_whitening_levels_the_principal_axes_of_drawn_latents(power):
    torch.manual_seed(0)
    shared, own, scale = torch.randn(20000, 1), torch.randn(20000, 2), torch.tensor([4.0, 0.5])
    mu = (shared * 0.9 ** 0.5 + own * 0.05 ** 0.5) * scale  # draws from their posteriors have correlation 0.9
    logvar = (0.05 * scale ** 2).log().expand(20000, 2)
    model = Regressor(2, 1, 2, 8, whitening=power)
    model.fit_standardisation(torch.cat([mu, logvar], 1))
    drawn = torch.cat([reparameterise(mu, logvar, torch.randn_like(mu)), logvar], 1)
    seen = model._standardised(drawn)[:, :2]
    variances = torch.linalg.eigvalsh(torch.cov(seen.T)).tolist()
    assert variances == pytest.approx([0.1 ** (1 - 2 * power), 1.9 ** (1 - 2 * power)], rel=0.05)


def test_pyramid_distance_sees_what_is_fine():
    alike = feature_weights(32, 1.0)
    smooth = torch.zeros(1, 3, 32, 32)
    assert laplacian_pyramid_distance(smooth, smooth, alike) == 0
    dot = smooth.clone()
    dot[..., 16, 16] = 1
    assert laplacian_pyramid_distance(smooth, dot, alike) > 2 * (dot - smooth).abs().mean() / 4
    # A constant shift is only in the coarsest of four levels, whatever the weights.
    for weights in (alike, feature_weights(32, 10.0)):
        torch.testing.assert_close(laplacian_pyramid_distance(smooth, smooth + 0.4, weights), torch.tensor(0.1))


def test_feature_weights_follow_the_template():
    assert torch.equal(feature_weights(64, 1.0), torch.ones(1, 1, 64, 64))
    with torch.inference_mode():
        assert not feature_weights(64, 2.0).is_inference()
    weights = feature_weights(64, 10.0)[0, 0]
    assert weights.mean() == pytest.approx(1) and weights[0, 0] == pytest.approx(weights.max().item() / 10, rel=0.1)
    for x, y in TEMPLATE / 4:
        assert weights[int(y), int(x)] > 0.95 * weights.max()


def test_orthogonalised_matrices_have_equal_singular_values():
    torch.manual_seed(0)
    for shape in ((24, 60), (60, 24)):
        u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
        matrix = u * torch.logspace(0, -1.5, 24) @ v  # the faintest direction 30 times fainter than the strongest
        values = torch.linalg.svdvals(orthogonalise(matrix))
        assert 0.6 < values.min() and values.max() < 1.3
        assert (orthogonalise(matrix) * (u @ v)).sum() > 0.95 * 24 ** 0.5 * orthogonalise(matrix).norm()


@pytest.mark.parametrize("layer", [torch.nn.Conv2d(8, 8, 1, bias=False), torch.nn.ConvTranspose2d(8, 8, 1, bias=False)])
def test_muon_moves_faint_directions_as_far_as_strong_ones(layer):
    """A linear law whose input directions, not the coordinates, differ 100 times in variance."""
    torch.manual_seed(0)
    torch.nn.init.zeros_(layer.weight)
    directions, law = (torch.linalg.qr(torch.randn(8, 8)).Q for _ in range(2))
    inputs = (torch.randn(512, 8) * torch.logspace(0, -1, 8)) @ directions.T
    optimizer, before = Muon(layer, lr=0.01), layer.weight.detach().clone()
    (layer(inputs[..., None, None])[..., 0, 0] - inputs @ law).square().mean().backward()
    optimizer.step()

    def reach(change: torch.Tensor) -> torch.Tensor:
        matrix = change[..., 0, 0] if isinstance(layer, torch.nn.ConvTranspose2d) else change[..., 0, 0].T  # (in, out)
        return (directions.T @ matrix).norm(dim=1)

    strong_to_faint, of_gradient = reach(layer.weight.detach() - before), reach(layer.weight.grad)
    assert of_gradient.max() > 50 * of_gradient.min() and strong_to_faint.max() < 2 * strong_to_faint.min()
    # An update is as large as AdamW's: 0.2 of the learning rate, root mean square.
    assert (layer.weight.detach() - before).square().mean().sqrt() == pytest.approx(0.2 * 0.01, rel=0.3)


def test_lpips_without_its_weights_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse, raising=False)
    with pytest.raises(UserError, match="vae.lpips_weight=0"):
        LPIPS()


def test_lpips_with_weights_is_a_distance(monkeypatch, tmp_path):
    from torchvision.models import vgg16
    made = vgg16(weights=None).state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: made)
    distance = LPIPS()
    pictures = torch.rand(1, 3, 64, 64)
    other = torch.rand(1, 3, 64, 64, requires_grad=True)
    assert distance(pictures, pictures).item() == pytest.approx(0, abs=1e-6)
    value = distance(pictures, other)
    value.backward()
    assert value > 0 and other.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in distance.parameters())


def test_mtcnn_networks_shapes_and_gradients():
    for network, side, shapes in ((PNet(), 12, [(2, 2, 1, 1), (2, 4, 1, 1)]), (RNet(), 24, [(2, 2), (2, 4)]),
                                  (ONet(), 48, [(2, 2), (2, 4), (2, 10)])):
        outputs = network(torch.randn(2, 3, side, side))
        assert [tuple(o.shape) for o in outputs] == shapes
        sum(o.square().sum() for o in outputs).backward()
        assert all(p.grad is not None for p in network.parameters())


def test_changed_detector_weights_are_not_opened():
    with pytest.raises(UserError, match="not the known ones"):
        _load_known(b"cos\nsystem\n(S'false'\ntR.", "pnet.lz4")


def test_detector_finds_nothing_in_noise_and_grey():
    noise = np.random.default_rng(0).integers(0, 255, (120, 90, 3), dtype=np.uint8)
    for picture in (noise, np.full((40, 300, 3), 128, np.uint8), noise[:5, :5]):
        assert FaceDetector().find(picture).choose("one") == ("no_face", None)
