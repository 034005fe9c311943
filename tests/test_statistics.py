"""Intervals against values worked out by hand and against their promised coverage."""

from statistics import NormalDist

import numpy as np
import pytest

from data_builders.errors import RagFtError
from rag_ft.evaluation.statistics import (
    Bootstrap,
    _weights,
    bootstrap_mean,
    detectable_difference,
    drop_from_best,
    holm,
    mcnemar,
    paired_difference,
    resample,
    sign_flip,
)


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
    _weights.cache_clear()
    again = resample(values, Bootstrap(resamples=301)).draws
    np.testing.assert_allclose(again, whole, rtol=1e-12)  # products of other shapes round otherwise on some processors


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


@pytest.mark.parametrize("interval", ["percentile", "bca"])
def test_coverage_holds_for_one_matrix_of_many_simulated_pairs(interval):
    rng, trials = np.random.default_rng(11), 400
    ease = rng.standard_normal((150, trials, 1)) * 0.6**0.5 + rng.standard_normal((150, trials, 2)) * 0.4**0.5
    scores = ease < [NormalDist().inv_cdf(accuracy) for accuracy in (0.8, 0.65)]
    resampled = resample(scores.reshape(150, -1), Bootstrap(resamples=1000, seed=3, interval=interval))
    intervals = [resampled.difference(2 * trial, 2 * trial + 1) for trial in range(trials)]
    assert 0.93 <= sum(one.low <= 0.15 <= one.high for one in intervals) / trials <= 0.97


def test_bca_agrees_with_scipy_on_skewed_data():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(2).exponential(size=40)
    ours = bootstrap_mean(values, Bootstrap(resamples=40_000, interval="bca"))
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=40_000, method="BCa", rng=np.random.default_rng(4)
    ).confidence_interval
    percentile = bootstrap_mean(values, Bootstrap(resamples=40_000))
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)
    assert ours.high > percentile.high + 0.02  # skewed to the right: both ends move up
    assert ours.low > percentile.low


def test_bca_of_a_paired_difference_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    first, second = correlated(np.random.default_rng(8), [0.93, 0.7], 120).T
    ours = paired_difference(first, second, Bootstrap(resamples=40_000, interval="bca"))
    gains = (first - second,)
    theirs = stats.bootstrap(gains, np.mean, n_resamples=40_000, method="BCa", rng=np.random.default_rng(4))
    ends = (theirs.confidence_interval.low, theirs.confidence_interval.high)
    assert (ours.low, ours.high) == pytest.approx(ends, abs=0.5 / 120)


@pytest.mark.parametrize("values", [[1.0] * 9, [0.0], [0, 0, 0, 0, 0.1 + 0.2 - 0.3]])
def test_bca_of_data_without_variation_is_the_percentile_interval(values):
    ends = [bootstrap_mean(values, Bootstrap(resamples=200, interval=kind)) for kind in ("percentile", "bca")]
    assert ends[0] == ends[1]
    assert not np.isnan(ends[1].low)


# Scores that apply to some questions only


def test_questions_a_metric_does_not_apply_to_are_left_out():
    interval = bootstrap_mean([1, 0, np.nan, np.nan], Bootstrap(resamples=40_000))
    assert (interval.mean, interval.n) == (0.5, 2)
    # Of four drawn, each is one of the two that count with 1/2; given m of them, the hits are binomial (m, 1/2).
    draws = resample([[1.0], [0.0], [np.nan], [np.nan]], Bootstrap(resamples=40_000)).draws[:, 0]
    assert np.isnan(draws).mean() == pytest.approx(1 / 16, abs=0.005)
    sure = sum(4 / 16 * 0.5 if m == 1 else [6, 4, 1][m - 2] / 16 * 0.5**m for m in (1, 2, 3, 4))
    assert (draws == 1).mean() == pytest.approx(sure, abs=0.008)


def test_a_score_that_applies_nowhere_has_no_mean_and_no_question():
    interval = bootstrap_mean([np.nan, np.nan], Bootstrap(resamples=100))
    assert interval.n == 0
    assert np.isnan([interval.mean, interval.low, interval.high]).all()


def test_a_number_made_of_several_means_is_resampled_as_a_whole():
    resampled = resample([[1, 1], [0, 1], [1, 1], [0, 1]], Bootstrap(resamples=2000))
    ratio = resampled.statistic([0, 1], lambda means: means[:, 0] / means[:, 1])
    assert (ratio.mean, ratio.n) == (0.5, 4)
    assert (ratio.low, ratio.high) == (0, 1)  # the second column is always 1: hits are binomial (4, 1/2)


def test_the_spread_is_never_below_nothing_and_chooses_anew_at_its_upper_end():
    spread = resample([[1, 0, 1], [1, 1, 1], [1, 0, 1], [1, 1, 1]], Bootstrap(resamples=2000)).spread([0, 1, 2])
    assert (spread.mean, spread.low, spread.high) == (0.5, 0, 1)
    flat = resample([[1, 0], [0, 1]] * 20, Bootstrap(resamples=500)).spread([0, 1])
    assert (flat.mean, flat.low) == (0, 0)
    assert flat.high > 0.1


# Related questions


def test_questions_of_a_document_are_drawn_together():
    # Two documents, all right or all wrong: only 0, 1/2 and 1 can be drawn, with 1/4, 1/2, 1/4.
    draws = resample([[1]] * 3 + [[0]] * 3, Bootstrap(resamples=20_000), clusters=list("aaabbb")).draws[:, 0]
    assert [np.mean(draws == value) for value in (0, 0.5, 1)] == pytest.approx([0.25, 0.5, 0.25], abs=0.02)


def test_documents_of_different_sizes_weigh_by_their_questions():
    resampled = resample([[1], [1], [1], [0]], Bootstrap(resamples=500), clusters=list("aaab"))
    assert resampled.means[0] == 0.75
    assert set(resampled.draws[:, 0]) == {0, 0.75, 1}


def test_single_questions_as_clusters_change_nothing():
    scores = np.random.default_rng(0).random((20, 2))
    alone = resample(scores, Bootstrap(resamples=200, interval="bca"))
    clustered = resample(scores, Bootstrap(resamples=200, interval="bca"), [f"{number:02d}" for number in range(20)])
    assert alone.difference(0, 1) == clustered.difference(0, 1)


# Tests of pairs


def test_flips_of_single_questions_are_mcnemars_test():
    gains = [1.0] * 9 + [-1.0] * 2 + [0.0] * 9
    alone = [str(number) for number in range(20)]
    assert sign_flip(gains, alone, Bootstrap(resamples=20_000)) == pytest.approx(mcnemar(9, 2), abs=0.01)


def test_flips_of_documents_count_documents():
    # Eight gains of one document are one throw of a coin, of which half go either way.
    assert sign_flip([1.0] * 8, ["a"] * 8, Bootstrap(resamples=500)) == 1
    # Two documents: both the same way in half of the throws, whatever the questions.
    assert sign_flip([1.0] * 8, list("aaaabbbb"), Bootstrap(resamples=20_000)) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    [
        (0, 0, 1),
        (5, 0, 2 / 2**5),
        (1, 4, 2 * (1 + 5) / 2**5),
        (3, 3, 1),  # twice the tail is above 1
        (10, 2, 2 * (1 + 12 + 66) / 2**12),
    ],
)
def test_mcnemar_is_exact(wins, losses, p):
    assert mcnemar(wins, losses) == mcnemar(losses, wins) == pytest.approx(p)


def test_mcnemar_agrees_with_scipy_for_thousands_of_questions():
    stats = pytest.importorskip("scipy.stats")
    for wins, losses in [(1000, 900), (1500, 1500), (3000, 2500), (40, 4000)]:
        assert mcnemar(wins, losses) == pytest.approx(stats.binomtest(wins, wins + losses).pvalue, rel=1e-6)


def test_holm_multiplies_by_what_is_left_and_never_falls():
    # In order: 0.01 x 4, 0.02 x 3, 0.03 x 2 (not below the one before), 0.9 x 1.
    assert holm([0.02, 0.01, 0.9, 0.03]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert holm([0.5, 0.6]) == [1, 1]
    assert holm([]) == []


def test_detectable_difference_solves_its_equation_worked_out_by_hand():
    # n = 400, 25 % discordant: (1.95996 x 0.5 + 0.84162 x sqrt(0.25 - 0.0698^2)) / 20 = 0.0698.
    assert detectable_difference(400) == pytest.approx(0.0698, abs=2e-4)
    # 100 questions, 10 % discordant: (1.95996 x 0.31623 + 0.84162 x sqrt(0.1 - 0.0868^2)) / 10 = 0.0876, which gives
    # 0.0876 back when put in again.
    assert detectable_difference(100, discordant=0.1) == pytest.approx(0.0876, abs=2e-4)


def test_detectable_difference_shrinks_with_questions_and_never_exceeds_one():
    sizes = [detectable_difference(n) for n in (1, 3, 20, 100, 1000, 10_000)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 1
    assert sizes[2] > 0.25  # above the discordant share that was assumed: that is raised to it


def test_a_difference_of_the_detectable_size_is_found_four_times_in_five():
    n, discordant = 400, 0.25
    gain = detectable_difference(n, discordant=discordant)
    rng = np.random.default_rng(9)
    wins, losses, _ = rng.multinomial(
        n, [(discordant + gain) / 2, (discordant - gain) / 2, 1 - discordant], size=2000
    ).T
    found = np.mean([mcnemar(int(w), int(lost)) < 0.05 for w, lost in zip(wins, losses, strict=True)])
    assert 0.74 <= found <= 0.84  # the exact test is a little more careful than its approximation
