"""Fitted parameters: what is learned from renders, and recovered from points."""

import numpy as np
import pytest

from games.fit import SHOWN, Fitter, Seen, emphasised, shrunk_covariance
from utils.errors import UserError

POINTS, SLIDERS, HIDDEN = 40, 6, 5

RNG = np.random.default_rng(0)
FACE = RNG.uniform(60, 200, (POINTS, 2))

#: What each slider moves, pixels over its range; the last one moves nothing.
WAYS = RNG.normal(0, 12, (SLIDERS, POINTS, 2)) * (np.arange(SLIDERS) != HIDDEN)[:, None, None]


def observe(parameters: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """What an observer sees of toy characters, each somewhere else in its picture."""
    points = (
        FACE + np.einsum("np,pld->nld", parameters - 0.5, WAYS) + rng.normal(0, noise, (len(parameters), POINTS, 2))
    )
    turn = rng.normal(0, 0.1, len(points))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]).transpose(2, 0, 1)
    return rng.uniform(0.9, 1.1, (len(points), 1, 1)) * points @ rotation + rng.normal(0, 5, (len(points), 1, 2))


def characters(count: int, noise: float, seed: int = 0) -> Seen:
    rng = np.random.default_rng(seed)
    parameters = rng.random((count, SLIDERS))
    return Seen(observe(parameters, noise, rng), parameters)


@pytest.mark.parametrize("noise, most", [(0.0, 0.02), (2.0, 0.1)])
def test_known_parameters_are_recovered(noise, most):
    fitter = Fitter(characters(300, noise), characters(50, noise, 1))
    held_out = characters(50, noise, 2)
    found = fitter.fit(held_out.points)
    shown = np.arange(SLIDERS) != HIDDEN
    assert np.abs(found - held_out.parameters)[:, shown].mean() < most
    assert fitter.shown.tolist() == shown.tolist()


def test_points_are_expected_where_they_are_seen_and_the_error_is_said():
    fitter = Fitter(characters(300, 2.0), characters(50, 2.0, 1))
    report = fitter.report(characters(200, 2.0, 2))
    noise = 2 * np.sqrt(np.pi / 2)  # the mean length of a normal step in the plane
    assert report.error == pytest.approx(noise, rel=0.15)
    assert report.error_of_mean > 2 * noise
    assert abs(report.rho[HIDDEN]) < SHOWN
    assert (np.delete(report.rho, HIDDEN) > 0.9).all()


def test_a_parameter_that_moves_no_point_lies_about_the_average():
    average = np.linspace(0.2, 0.7, SLIDERS)
    found = Fitter(characters(300, 1.0), characters(50, 1.0, 1), average=average).fit(characters(200, 1.0, 2).points)
    assert found[:, HIDDEN].mean() == pytest.approx(average[HIDDEN], abs=0.1)
    assert found[:, HIDDEN].std() < 0.8 * np.delete(found, HIDDEN, 1).std(0).min()


def test_parameters_that_show_only_together_are_fitted_together():
    """Of twenty that move the points one way, none can be told from the others; their sum can."""
    way, rng = WAYS[0] / 4, np.random.default_rng(6)

    def alike(count: int) -> Seen:
        parameters = rng.random((count, 20))
        return Seen(FACE + (parameters - 0.5).sum(1)[:, None, None] * way + rng.normal(0, 0.5, way.shape), parameters)

    fitter, held_out = Fitter(alike(500), alike(400)), alike(100)
    assert not fitter.shown.all()
    found = fitter.fit(held_out.points)
    assert np.corrcoef(found.sum(1), held_out.parameters.sum(1))[0, 1] > 0.95
    assert np.abs(found.sum(1) - held_out.parameters.sum(1)).mean() < 0.3


def test_what_two_observers_mean_by_their_points_is_told_apart_from_the_face():
    fitter = Fitter(characters(300, 0.5), characters(50, 0.5, 1))
    people = characters(100, 0.5, 2)
    otherwise = people.points + np.random.default_rng(7).normal(0, 4, (POINTS, 2))  # nearly constant on the mean face
    errors = [
        np.abs(fitter.fit(points) - people.parameters)[:, :HIDDEN].mean()
        for points in (people.points, otherwise, fitter.moved(otherwise, fitter.offset(otherwise)))
    ]
    assert errors[1] > 2 * errors[0]
    assert errors[2] < 1.3 * errors[0] + 0.02


def test_what_lies_beyond_the_sliders_is_held_at_their_ends():
    fitter = Fitter(characters(300, 1.0), characters(50, 1.0, 1))
    beyond = np.full((1, SLIDERS), 0.5)
    beyond[0, :2] = (3.0, -2.0)
    found = fitter.fit(observe(beyond, 0, np.random.default_rng(3)))[0]
    assert (found[0], found[1]) == (pytest.approx(1), pytest.approx(0))
    assert ((found >= 0) & (found <= 1)).all()


def test_too_few_renders_are_refused():
    with pytest.raises(UserError, match="write more renders"):
        Fitter(characters(SLIDERS, 1.0), characters(5, 1.0, 1))
    with pytest.raises(UserError, match="write more renders"):
        Fitter(characters(50, 1.0), characters(0, 1.0, 1))


def test_a_covariance_of_few_rows_can_be_inverted_and_that_of_many_is_the_samples():
    rng = np.random.default_rng(0)
    deviations = np.linspace(0.5, 3, 12)
    few, many = (shrunk_covariance(rng.normal(0, deviations, (count, 12))) for count in (6, 20_000))
    assert np.linalg.eigvalsh(few)[0] > 0.01
    np.testing.assert_allclose(many, np.diag(deviations**2), atol=0.3)


def test_emphasised_fits_differ_as_much_as_the_people_do():
    fitter = Fitter(characters(300, 20.0), characters(50, 20.0, 1))
    held_out = characters(400, 20.0, 2)
    fits = fitter.fit(held_out.points)
    factor = fitter.emphasis(fits, held_out.points)
    assert factor > 1.3
    shown = np.delete(np.arange(SLIDERS), HIDDEN)
    for of, low, high in ((fits, 0, 0.8), (emphasised(fits, factor), 0.9, 1.1)):
        slopes = [np.polyfit(held_out.parameters[:, i], of[:, i], 1)[0] for i in shown]
        assert low < np.mean(slopes) < high
    same = np.full((3, SLIDERS), 0.4)
    assert fitter.emphasis(same, held_out.points[:3]) == 1
    np.testing.assert_array_equal(emphasised(np.array([[0.1], [0.5], [0.9]]), 2.0), [[0], [0.5], [1]])
