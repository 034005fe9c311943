"""Intervals against values worked out by hand and against their promised coverage."""

from statistics import NormalDist

import numpy as np
import pytest

from data_builders.errors import RagFtError
from rag_ft.evaluation.statistics import Bootstrap, bootstrap_mean, drop_from_best, paired_difference, resample


def test_mean_interval_has_the_quantiles_of_the_binomial():
    # Means of three draws from 0, 0, 1: 0 with 8/27, 1/3 with 12/27, 2/3 with 6/27, 1 with 1/27.
    wide = bootstrap_mean([0, 0, 1], Bootstrap(confidence=0.95, resamples=20_000))
    narrow = bootstrap_mean([0, 0, 1], Bootstrap(confidence=0.90, resamples=20_000))
    assert (wide.mean, wide.low, wide.high, wide.n) == pytest.approx((1 / 3, 0, 1, 3))
    assert (narrow.mean, narrow.low, narrow.high, narrow.n) == pytest.approx((1 / 3, 0, 2 / 3, 3))


def test_draws_have_the_frequencies_of_the_binomial():
    draws = resample([[0], [0], [1]], Bootstrap(resamples=50_000)).draws[:, 0]
    shares = [np.isclose(draws, value).mean() for value in (0, 1 / 3, 2 / 3, 1)]
    assert shares == pytest.approx([8 / 27, 12 / 27, 6 / 27, 1 / 27], abs=0.01)


def test_equal_scores_leave_no_uncertainty():
    interval = bootstrap_mean([0.5] * 8, Bootstrap(resamples=200))
    assert (interval.mean, interval.low, interval.high) == (0.5, 0.5, 0.5)


def test_difference_is_paired_question_by_question():
    baseline = np.arange(40) % 2  # varies much between questions, but the other system is always 0.1 better
    interval = paired_difference(baseline + 0.1, baseline, Bootstrap(resamples=500))
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.1, 0.1, 0.1))


def test_difference_changes_sign_with_the_order_of_systems():
    rng = np.random.default_rng(3)
    first, second = rng.random(50), rng.random(50)
    forth, back = paired_difference(first, second, Bootstrap()), paired_difference(second, first, Bootstrap())
    assert (forth.mean, forth.low, forth.high) == pytest.approx((-back.mean, -back.high, -back.low))


def test_same_seed_gives_the_same_interval_and_another_seed_another():
    values = np.random.default_rng(1).random(30)
    first, again, other = (bootstrap_mean(values, Bootstrap(resamples=300, seed=seed)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_draws_do_not_depend_on_how_many_are_held_at_once(monkeypatch):
    values = np.random.default_rng(1).random((30, 2))
    whole = resample(values, Bootstrap(resamples=301)).draws
    monkeypatch.setattr("rag_ft.evaluation.statistics._CHUNK", 30 * 7)
    assert np.array_equal(resample(values, Bootstrap(resamples=301)).draws, whole)


def test_nothing_to_score_is_an_error_that_names_the_verb():
    with pytest.raises(RagFtError, match="rag-ft evaluate"):
        bootstrap_mean([], Bootstrap())


def test_drop_is_taken_from_the_best_count_to_the_largest():
    # Means 0.5, 1, 0.25: the best is column 1, the fall 0.75.
    scores = [[1, 1, 0], [0, 1, 0], [1, 1, 1], [0, 1, 0]]
    drop = drop_from_best(scores, Bootstrap(resamples=2000))
    assert (drop.best, drop.interval.mean) == (1, 0.75)
    # Hits of the last column in a resample are binomial (4, 1/4): none 32 %, at most 2 94.9 %, at most 3 99.6 %.
    assert (drop.interval.low, drop.interval.high) == (0.25, 1)


def test_a_system_best_at_the_largest_count_has_no_drop_but_an_upper_end():
    scores = np.random.default_rng(0).random((60, 3)) < [0.5, 0.6, 0.62]
    scores[:, 2] |= scores[:, 1]  # in no resample worse than column 1
    drop = drop_from_best(scores, Bootstrap(resamples=1000))
    assert (drop.best, drop.interval.mean, drop.interval.low) == (2, 0, 0)
    assert 0 <= drop.interval.high < 0.2


def test_difference_of_drops_compares_the_falls_of_two_systems():
    # Columns: first system 1, 1 (no fall), second 1, 0 on half the questions (falls by one half).
    resampled = resample([[1, 1, 1, 0], [1, 1, 1, 1]] * 20, Bootstrap(resamples=1000))
    interval = resampled.drop_difference([0, 1], [2, 3])
    assert interval.mean == -0.5
    assert -0.7 < interval.low < -0.5 < interval.high < -0.3


def coverage(truth, interval_of, trials=1000):
    """Return how often the interval holds the truth."""
    hits = 0
    for trial in range(trials):
        interval = interval_of(np.random.default_rng([5, trial]), Bootstrap(resamples=400, seed=trial))
        hits += interval.low - 1e-9 <= truth <= interval.high + 1e-9
    return hits / trials


def correlated(rng, accuracies, questions):
    """Return 0/1 scores (questions x systems) with the given accuracies; systems agree on easy and hard questions."""
    ease = rng.standard_normal((questions, 1)) * 0.7**0.5
    own = rng.standard_normal((questions, len(accuracies))) * 0.3**0.5
    return (ease + own < [NormalDist().inv_cdf(accuracy) for accuracy in accuracies]).astype(float)


def test_mean_interval_covers_the_truth_as_often_as_it_says():
    assert 0.93 <= coverage(0.7, lambda rng, how: bootstrap_mean(rng.random(200) < 0.7, how)) <= 0.97


def test_difference_interval_covers_the_truth_as_often_as_it_says():
    def interval(rng, how):
        return paired_difference(*correlated(rng, [0.7, 0.6], 200).T, how)

    assert 0.93 <= coverage(0.1, interval) <= 0.97


@pytest.mark.parametrize("accuracies", [(0.7, 0.7, 0.7, 0.7), (0.7, 0.72, 0.7, 0.6), (0.7, 0.71, 0.69, 0.68)])
def test_drop_interval_covers_the_truth_at_least_as_often_as_it_says(accuracies):
    truth = max(accuracies) - accuracies[-1]
    assert coverage(truth, lambda rng, how: drop_from_best(correlated(rng, accuracies, 200), how).interval) >= 0.93


def test_a_flat_curve_is_seldom_called_a_drop():
    drops = [
        drop_from_best(correlated(np.random.default_rng([6, t]), [0.7] * 4, 200), Bootstrap(resamples=300, seed=t))
        for t in range(500)
    ]
    assert min(drop.interval.low for drop in drops) == 0
    assert sum(drop.interval.low > 0 for drop in drops) / len(drops) < 0.08
