"""Metrics against closed forms, ridge regression, and how a learning rate falls."""

import numpy as np
import pytest

from utils.metrics import active_units, parameter_metrics, psnr, ridge, slopes
from utils.schedule import cosine_decay

TRUTH = np.array([[0.0, 0.5, 1], [1, 0.5, 0], [0.5, 0.5, 0.5], [0.2, 0.5, 0.9]])


def metrics_of(predicted):
    return parameter_metrics(TRUTH, predicted, names=["a", "b", "c"], groups=["g", "g", "h"])


def test_an_exact_prediction_is_perfect():
    exact = metrics_of(TRUTH)
    assert exact["r2"] == 1
    assert exact["mae"] == 0
    assert exact["distance"] == 0
    assert exact["cosine_similarity"] == pytest.approx(1)
    assert exact["groups"]["h"]["r2"] == 1


def test_a_slope_is_the_share_of_a_difference_that_is_kept():
    predicted = np.stack([9 + 0.5 * TRUTH[:, 0], TRUTH[:, 0], -TRUTH[:, 2]], 1)
    np.testing.assert_allclose(slopes(TRUTH, predicted), [0.5, 0, -1])


def test_a_parameter_that_does_not_vary_has_no_r2_and_is_left_out_of_means():
    exact = metrics_of(TRUTH)
    assert np.isnan(exact["parameters"]["b"]["r2"])
    assert exact["undefined_r2"] == 1
    assert exact["groups"]["g"]["r2"] == 1


def test_predicting_the_mean_has_an_r2_of_0():
    assert metrics_of(np.broadcast_to(TRUTH.mean(0), TRUTH.shape))["r2"] == pytest.approx(0)


def test_r2_and_mae_are_those_of_their_formulas():
    predicted = TRUTH + np.array([0.1, 0.0, -0.2])
    found = metrics_of(predicted)
    sst = ((TRUTH[:, 2] - TRUTH[:, 2].mean()) ** 2).sum()
    assert found["parameters"]["c"]["r2"] == pytest.approx(1 - 4 * 0.2**2 / sst)
    assert found["parameters"]["c"]["mae"] == pytest.approx(0.2)
    assert found["distance"] == pytest.approx(np.hypot(0.1, 0.2))
    assert found["groups"]["g"]["mae"] == pytest.approx(0.05)


def test_psnr_of_a_hundredth_is_20_decibels():
    assert psnr(0.01) == pytest.approx(20)


def test_a_unit_is_active_whose_mu_varies():
    assert active_units(np.array([[0, 1, 5.0], [0, 1.3, 5]])) == 1


def test_ridge_finds_a_linear_law():
    rng = np.random.default_rng(0)
    scale = np.geomspace(0.01, 100, 20)
    x, law = rng.normal(size=(600, 20)) * scale, rng.normal(size=(20, 3))
    y = (x / scale) @ law + 2
    weights, bias, _ = ridge((x[:300], y[:300]), (x[300:450], y[300:450]))
    np.testing.assert_allclose(x[450:] @ weights + bias, y[450:], atol=0.05)


def test_ridge_shrinks_as_far_as_allowed_where_there_is_nothing_to_learn():
    rng = np.random.default_rng(0)
    train = rng.normal(size=(40, 30)), rng.normal(size=(40, 2))
    val = rng.normal(size=(40, 30)), rng.normal(size=(40, 2))
    _, _, strength = ridge(train, val)
    assert strength >= 1


@pytest.mark.parametrize("fraction, rate", [(0, 1), (0.5, 0.5), (1, 0), (1.5, 0), (1 / 3, 0.75)])
def test_a_cosine_falls_from_1_to_0_and_stays_there(fraction, rate):
    assert cosine_decay(fraction) == pytest.approx(rate)
