"""The regressor of stage 2: networks by name, their sizes, and where an untrained one starts."""

import pytest
import torch
from torch import nn

from models.regressor import Regressor
from utils.alignment import MISALIGNMENT_SPREAD
from utils.config import Config, from_dict

#: Dimensions of the latents, two for each of 16 positions, and number of parameters.
LATENT_DIM, OUTPUTS = 32, 3


def config_for(network: str, *, moved: bool = False, **f2p) -> Config:
    """A small regressor that reads latents of a 4×4 bottleneck."""
    small = {"layers": 2, "width": 16, "mixer_blocks": 2, "mixer_width": 16} | f2p
    vae = {"encoder_channels": [4] * 4, "decoder_channels": [4] * 4, "bottleneck": 4, "latent_dim": LATENT_DIM}
    return from_dict({"vae": vae, "latents": {"moved": moved}, "f2p": {"network": network, **small}}, "test")


def regressor(network: str, **changes) -> Regressor:
    torch.manual_seed(0)
    return Regressor(LATENT_DIM, OUTPUTS, config_for(network, **changes))


def modules_of(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


@pytest.fixture
def latents():
    """Rows [mu | logvar] of which no two columns have the same scale."""
    generator = torch.Generator().manual_seed(1)
    scale = torch.linspace(0.1, 10, 2 * LATENT_DIM)
    return torch.randn(200, 2 * LATENT_DIM, generator=generator) * scale - scale


@pytest.mark.parametrize("network", ["plain", "whitened", "mixer"])
def test_every_network_gives_parameters_and_learns_with_all_its_weights(network, latents):
    model = regressor(network)
    model.standardiser.fit(latents)
    predicted = model(latents)
    assert predicted.shape == (200, OUTPUTS)
    assert torch.isfinite(predicted).all()
    predicted.square().sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize("network", ["plain", "whitened", "mixer"])
def test_a_checkpoint_holds_the_standardisation_too(network, latents):
    model = regressor(network)
    model.standardiser.fit(latents)
    clone = regressor(network)
    clone.load_state_dict(model.state_dict())
    torch.testing.assert_close(clone(latents), model(latents))


def test_the_plain_network_is_an_mlp_of_leaky_relus():
    model = regressor("plain", layers=4)
    assert modules_of(model, nn.LeakyReLU) == 3
    assert modules_of(model, nn.Linear) == 4
    assert modules_of(model, nn.LayerNorm) == 0
    assert model.standardiser.whitening == 0


def test_the_whitened_network_is_normalised_and_reads_decorrelated_latents():
    model = regressor("whitened", layers=4, whitening=0.25)
    assert modules_of(model, nn.LayerNorm) == 3
    assert modules_of(model, nn.SiLU) == 3
    assert modules_of(model, nn.LeakyReLU) == 0
    assert model.standardiser.whitening == 0.25


def test_the_mixer_network_mixes_before_normalised_layers_and_does_not_whiten():
    model = regressor("mixer", mixer_blocks=3)
    assert len(model.mixer.across_positions) == 3
    assert model.mixer.positions == 16
    assert modules_of(model.hidden, nn.LayerNorm) == 1
    assert model.standardiser.whitening == 0


def test_one_layer_is_a_linear_law_of_the_standardised_latents(latents):
    model = regressor("plain", layers=1)
    model.standardiser.fit(latents)
    expected = model.head(model.standardiser(latents))
    torch.testing.assert_close(model(latents), expected)
    assert modules_of(model.hidden, nn.Linear) == 0


def photo_reader(latents: torch.Tensor) -> Regressor:
    torch.manual_seed(0)
    model = Regressor(LATENT_DIM, OUTPUTS, config_for("whitened"), reads_photos=True)
    model.standardiser.fit(latents)
    return model


def test_a_sure_gate_gives_the_answer_of_one_head_and_an_unsure_one_their_mean(latents):
    model = photo_reader(latents)
    answers = model.answers(latents)
    assert (answers.game - answers.photo).abs().mean() > 0.1
    torch.nn.init.zeros_(model.gate.weight)
    for bias, expected in ((-40, answers.game), (40, answers.photo), (0, (answers.game + answers.photo) / 2)):
        torch.nn.init.constant_(model.gate.bias, bias)
        torch.testing.assert_close(model(latents), expected)


def test_the_gate_does_not_change_what_the_heads_read(latents):
    model = photo_reader(latents)
    model.answers(latents).photo_logit.sum().backward()
    reached = [name for name, weight in model.named_parameters() if weight.grad is not None]
    assert reached == ["gate.weight", "gate.bias"]


def test_an_untrained_network_that_starts_from_the_mean_predicts_about_it(latents):
    model, mean = photo_reader(latents), torch.tensor([5.0, -3.0, 0.5])
    model.start_from(mean)
    answers = model.answers(latents)
    for found in (answers.game, answers.photo, model(latents)):
        torch.testing.assert_close(found.mean(0), mean, atol=1, rtol=0)


def test_a_misalignment_head_is_there_where_moved_faces_are_learned(latents):
    model = regressor("whitened", moved=True)
    model.standardiser.fit(latents)
    assert model.misalignment_of(latents).shape == (200, len(MISALIGNMENT_SPREAD))
    assert model.misalignment_of(latents).abs().sum() > 0


def test_a_regressor_that_has_not_learned_misalignment_finds_none(latents):
    found = regressor("whitened").misalignment_of(latents)
    assert found.shape == (200, 4)
    assert found.abs().sum() == 0


def test_the_misalignment_head_reads_standardised_latents(latents):
    model = regressor("plain", moved=True)
    model.standardiser.fit(latents)
    torch.testing.assert_close(model.misalignment_of(latents), model.misalignment(model.standardiser(latents)))
