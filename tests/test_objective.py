"""The objective of stage 1: what each term sees, how they are weighed, and LPIPS with and without its weights."""

from types import SimpleNamespace

import pytest
import torch
from torchvision.models.vgg import cfgs, make_layers

from models.objective import LPIPS, VAEObjective, feature_weights, laplacian_pyramid_distance
from models.vae import VAEOutput, kl_divergence
from tests.helpers import small_vae
from utils.alignment import TEMPLATE
from utils.errors import UserError


@pytest.fixture
def output():
    """What a VAE may make of pictures: reconstruction, mu, logvar."""
    generator = torch.Generator().manual_seed(0)
    reconstruction = torch.rand(2, 3, 32, 32, generator=generator)
    return VAEOutput(reconstruction, torch.randn(2, 6, generator=generator), torch.randn(2, 6, generator=generator))


PICTURES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_terms_are_kl_per_face_and_means_over_pixels(output):
    settings = small_vae(feature_weight=4.0, pyramid_weight=2.0)
    terms = VAEObjective(32, settings).terms(output, PICTURES)
    weights = feature_weights(32, 4.0)
    assert set(terms) == {"kl", "mse", "pyramid"}
    torch.testing.assert_close(terms["kl"], kl_divergence(output.mu, output.logvar).sum() / 2)
    torch.testing.assert_close(terms["mse"], (weights * (output.reconstruction - PICTURES) ** 2).mean())
    expected = laplacian_pyramid_distance(PICTURES, output.reconstruction, weights)
    torch.testing.assert_close(terms["pyramid"], expected)


def test_the_total_weighs_each_term_as_the_settings_say(output):
    settings = small_vae(kl_weight=0.5, mse_weight=3.0, pyramid_weight=2.0)
    objective = VAEObjective(32, settings)
    terms = objective.terms(output, PICTURES)
    expected = 0.5 * terms["kl"] + 3.0 * terms["mse"] + 2.0 * terms["pyramid"]
    torch.testing.assert_close(objective.total(terms), expected)


def test_a_term_without_weight_is_not_computed(output):
    terms = VAEObjective(32, small_vae(pyramid_weight=0.0)).terms(output, PICTURES)
    assert set(terms) == {"kl", "mse"}


def test_the_objective_has_nothing_to_learn_and_nothing_to_save():
    objective = VAEObjective(32, small_vae())
    assert list(objective.parameters()) == []
    assert objective.state_dict() == {}


# --- the Laplacian pyramid and the features -------------------------------------------------------


def test_pyramid_distance_of_a_picture_to_itself_is_0():
    assert laplacian_pyramid_distance(PICTURES, PICTURES, feature_weights(32, 10.0)) == 0


def test_pyramid_distance_sees_what_is_fine():
    smooth = torch.zeros(1, 3, 32, 32)
    dot = smooth.clone()
    dot[..., 16, 16] = 1
    distance = laplacian_pyramid_distance(smooth, dot, feature_weights(32, 1.0))
    assert distance > 2 * (dot - smooth).abs().mean() / 4


@pytest.mark.parametrize("weight", [1.0, 10.0])
def test_a_constant_shift_is_only_in_the_coarsest_of_four_levels_whatever_the_weights(weight):
    smooth = torch.zeros(1, 3, 32, 32)
    distance = laplacian_pyramid_distance(smooth, smooth + 0.4, feature_weights(32, weight))
    torch.testing.assert_close(distance, torch.tensor(0.1))


def test_without_a_feature_weight_all_pixels_count_alike():
    assert torch.equal(feature_weights(64, 1.0), torch.ones(1, 1, 64, 64))


def test_feature_weights_follow_the_template():
    weights = feature_weights(64, 10.0)[0, 0]
    assert weights.mean().item() == pytest.approx(1)
    assert weights[0, 0].item() == pytest.approx(weights.max().item() / 10, rel=0.1)
    for x, y in TEMPLATE / 4:
        assert weights[int(y), int(x)] > 0.95 * weights.max(), (x, y)


def test_an_objective_first_used_for_evaluation_can_be_trained_with(output):
    """Its weights are buffers, so that no inference tensor is kept for training."""
    objective = VAEObjective(32, small_vae(feature_weight=4.0, pyramid_weight=2.0))
    with torch.inference_mode():
        objective.terms(output, PICTURES)
    reconstruction = output.reconstruction.clone().requires_grad_()
    objective.total(objective.terms(output._replace(reconstruction=reconstruction), PICTURES)).backward()
    assert reconstruction.grad.abs().sum() > 0


# --- LPIPS ----------------------------------------------------------------------------------------


def test_lpips_without_its_weights_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse, raising=False)
    with pytest.raises(UserError, match=r"vae.lpips_weight=0") as caught:
        VAEObjective(64, small_vae(lpips_weight=4.0))
    assert str(tmp_path) in str(caught.value)


@pytest.fixture(scope="module")
def lpips_distance():
    """The real distance on a backbone whose weights were made up, without the layers that LPIPS leaves aside."""

    def made_up(**_):
        return SimpleNamespace(features=make_layers(cfgs["D"], batch_norm=False))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torchvision.models.vgg16", made_up)
        return LPIPS()


def test_lpips_of_a_picture_to_itself_is_0(lpips_distance):
    pictures = torch.rand(1, 3, 64, 64)
    assert lpips_distance(pictures, pictures).item() == pytest.approx(0, abs=1e-6)


def test_lpips_of_other_pictures_is_larger_and_teaches_the_reconstruction_alone(lpips_distance):
    other = torch.rand(1, 3, 64, 64, requires_grad=True)
    value = lpips_distance(torch.rand(1, 3, 64, 64), other)
    value.backward()
    assert value > 0
    assert other.grad.abs().sum() > 0
    assert not any(weight.requires_grad for weight in lpips_distance.parameters())


def test_lpips_is_a_term_of_the_objective(lpips_distance, monkeypatch, output):
    monkeypatch.setattr("models.objective.LPIPS", lambda: lpips_distance)
    objective = VAEObjective(32, small_vae(lpips_weight=4.0, pyramid_weight=0.0, kl_weight=0.0, mse_weight=0.0))
    terms = objective.terms(output, PICTURES)
    torch.testing.assert_close(terms["lpips"], lpips_distance(PICTURES, output.reconstruction))
    torch.testing.assert_close(objective.total(terms), 4 * terms["lpips"])
