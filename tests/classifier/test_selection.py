"""The figure of the best of several, without the luck of the choice, against simulation and the plain algorithm."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from jobs.classifier.metrics import bootstrap, estimate, score
from jobs.classifier.predictions import Predictions
from jobs.classifier.selection import METRIC, best, without_luck


def said(truth: np.ndarray, right: np.ndarray, each: int = 1, folds: int = 2) -> Predictions:
    """Predictions that are right where `right` says so, on groups of `each` images."""
    p = np.where(right, truth, 1 - truth).astype(float)
    n = len(truth)
    return Predictions(
        ids=[f"{i:04d}" for i in range(n)],
        groups=[f"{i // each:04d}" for i in range(n)],
        folds=[str(i // each % folds) for i in range(n)],
        labels=["no", "yes"],
        truth=truth,
        probabilities=np.stack([1 - p, p], axis=1),
    )


def test_the_best_of_six_that_know_nothing_is_too_good_and_comes_out_at_chance() -> None:
    """Balanced accuracy one half by construction. Errors come in groups of two."""
    rng = np.random.default_rng(0)
    truth = np.arange(200) % 2
    plain, corrected, covered = [], [], 0
    for _ in range(60):
        six = [[said(truth, np.repeat(rng.random(100) < 0.5, 2), each=2)] for _ in range(6)]
        found = without_luck(six, 200, 1)
        plain.append(score(six[best(six)][0], METRIC))
        corrected.append(found.value)
        covered += found.low <= 0.5 <= found.high
    assert np.mean(plain) > 0.55
    assert np.mean(corrected) == pytest.approx(0.5, abs=0.015)
    assert covered >= 54


def test_a_clear_winner_keeps_its_figure() -> None:
    rng = np.random.default_rng(1)
    truth = np.arange(400) % 2
    several = [[said(truth, rng.random(400) < share)] for share in (0.6, 0.9, 0.6)]
    assert best(several) == 1
    assert without_luck(several, 500, 1).value == pytest.approx(score(several[1][0], METRIC), abs=0.003)


def test_it_agrees_with_the_algorithm_written_plainly() -> None:
    """Draw groups within folds, choose on what was drawn, score on the rest, with scikit-learn; of two seeds each."""
    rng = np.random.default_rng(2)
    truth = (rng.random(90) < 0.4).astype(int)
    several = [[said(truth, rng.random(90) < share, each=3, folds=3) for _ in range(2)] for share in (0.7, 0.72, 0.68)]
    groups, folds = np.array(several[0][0].groups), np.array(several[0][0].folds)

    def mean(seeds: list[Predictions], chosen: np.ndarray) -> float:
        return float(np.mean([balanced_accuracy_score(x.truth[chosen], x.predicted[chosen]) for x in seeds]))

    scores = []
    for _ in range(400):
        images: list[int] = []
        for fold in "012":
            members = sorted(set(groups[folds == fold]))
            for group in rng.choice(members, len(members)):
                images.extend(np.flatnonzero(groups == group))
        rest = np.setdiff1d(np.arange(90), images)
        winner = max(several, key=lambda seeds: mean(seeds, np.array(images)))
        scores.append(mean(winner, rest))
    found = without_luck(several, 4000, 3)
    spread = np.std(scores)
    assert found.value == pytest.approx(np.mean(scores), abs=0.25 * spread)
    assert (found.low, found.high) == pytest.approx(np.quantile(scores, [0.025, 0.975]), abs=0.5 * spread)
    assert found.n == 90


def test_of_one_nothing_was_chosen() -> None:
    rng = np.random.default_rng(3)
    only = [[said(np.arange(40) % 2, rng.random(40) < 0.7)]]
    assert best(only) == 0
    assert without_luck(only, 200, 1) == estimate(bootstrap(only[0], 200, 1), METRIC)


def test_draws_that_leave_one_class_are_counted() -> None:
    truth = np.array([0, 0, 0, 1])
    several = [[said(truth, np.array([True] * 4), folds=1)], [said(truth, np.array([False] * 4), folds=1)]]
    found = without_luck(several, 300, 1)
    # The one image of the second class is on one side only: nothing can be chosen or scored.
    assert found.undefined == 300 and np.isnan([found.value, found.low, found.high]).all()
