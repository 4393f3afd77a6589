"""The metrics against scikit-learn, the vectorised bootstrap against a loop, and the interval's coverage."""

import itertools
import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from jobs.classifier.metrics import (
    METRICS,
    bootstrap,
    confusion_matrix,
    difference,
    estimate,
    measure,
    paired_difference,
    reliability,
    score,
)
from jobs.classifier.predictions import Predictions, join_predictions, read_predictions, write_predictions
from jobs.common.errors import UserError


def draw(seed: int, labels: list[str], n: int = 120, folds: int = 2, skill: float = 1.5) -> Predictions:
    """Predictions with ties, groups of one to three images, and every class in every fold."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n), rng.integers(1, 4, n))[:n]
    truth = np.where(np.arange(n) < 2 * len(labels) * folds, np.arange(n) // folds, rng.integers(0, 99, n)) % len(
        labels
    )
    logits = rng.normal(size=(n, len(labels))) + skill * np.eye(len(labels))[truth]
    p = np.round(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), 2) + 1e-3
    return Predictions(
        ids=[f"{i:05d}" for i in range(n)],
        groups=[f"g{x}" for x in groups],
        folds=[str(x % folds) for x in groups],
        labels=labels,
        truth=truth,
        probabilities=p / p.sum(1, keepdims=True),
    )


TWO = ["no", "yes"]
MANY = ["a", "b", "c", "d"]


def by_sklearn(x: Predictions, w: np.ndarray) -> dict[str, float]:
    """The same metrics by scikit-learn, with the weights as sample weights."""
    y, p, k = x.truth, x.probabilities, len(x.labels)
    hard, folds = np.argmax(p, axis=1), np.array(x.folds)
    aucs = []
    for fold in sorted(set(x.folds)):
        f = folds == fold
        if k == 2:
            aucs.append(sk.roc_auc_score(y[f], p[f, 1], sample_weight=w[f]))
        else:
            one = [sk.roc_auc_score(y[f] == c, p[f, c], sample_weight=w[f]) for c in range(k)]
            aucs.append(np.mean(one))
    sensitivity = [sk.recall_score(y == c, hard == c, sample_weight=w) for c in range(k)]
    specificity = [sk.recall_score(y != c, hard != c, sample_weight=w) for c in range(k)]
    brier = sk.brier_score_loss(y, p[:, 1] if k == 2 else p, sample_weight=w, labels=list(range(k)))
    confidence, right = p.max(1), (hard == y).astype(float)
    edges, gap = np.linspace(0, 1, 16), 0.0
    for low, high in itertools.pairwise(edges):
        b = (confidence > low) & (confidence <= high) & (w > 0)
        if b.any():
            share, sure = np.average(right[b], weights=w[b]), np.average(confidence[b], weights=w[b])
            gap += w[b].sum() / w.sum() * abs(share - sure)
    return {
        "accuracy": sk.accuracy_score(y, hard, sample_weight=w),
        "balanced_accuracy": sk.balanced_accuracy_score(y, hard, sample_weight=w),
        "roc_auc": float(np.mean(aucs)),
        "sensitivity": sensitivity[1] if k == 2 else float(np.mean(sensitivity)),
        "specificity": specificity[1] if k == 2 else float(np.mean(specificity)),
        "f1": sk.f1_score(y, hard, sample_weight=w, average="binary" if k == 2 else "macro"),
        "brier": brier,
        "calibration_error": gap,
    }


@pytest.mark.parametrize("labels", [TWO, MANY])
def test_every_metric_is_scikit_learns_with_and_without_weights(labels: list[str]) -> None:
    x = draw(1, labels)
    weights = np.stack([np.ones(120), np.random.default_rng(2).integers(0, 3, 120).astype(float)])
    ours = measure(x, weights)
    for row, w in enumerate(weights):
        for name, value in by_sklearn(x, w).items():
            assert ours[name][row] == pytest.approx(value, abs=1e-9), name
    assert set(ours) == set(METRICS) == set(by_sklearn(x, weights[0]))
    assert score(x, "f1") == pytest.approx(by_sklearn(x, weights[0])["f1"])


def test_macro_auc_is_scikit_learns_one_vs_rest() -> None:
    x = draw(3, MANY, folds=1)
    assert score(x, "roc_auc") == pytest.approx(sk.roc_auc_score(x.truth, x.probabilities, multi_class="ovr"))


def test_confusion_and_reliability() -> None:
    x = draw(4, MANY)
    assert np.array_equal(confusion_matrix(x), sk.confusion_matrix(x.truth, x.predicted))
    bins = reliability([x])
    gap = sum(n * abs(share - confidence) for confidence, share, n in bins) / 120
    assert gap == pytest.approx(score(x, "calibration_error"))


def test_the_vectorised_bootstrap_agrees_with_a_loop_over_draws_of_groups_and_seeds() -> None:
    """Written the naive way, over groups within folds, with scikit-learn; the two are of different random streams."""
    seeds = [draw(5, TWO), draw(5, TWO)._replace(probabilities=draw(6, TWO).probabilities)]
    rng = np.random.default_rng(0)
    folds, groups = np.array(seeds[0].folds), np.array(seeds[0].groups)
    naive: dict[str, list[float]] = {"accuracy": [], "balanced_accuracy": [], "roc_auc": []}
    for _ in range(150):
        w = np.zeros(120)
        for fold in "01":
            members = sorted(set(groups[folds == fold]))
            for group in rng.choice(members, len(members)):
                w[(groups == group) & (folds == fold)] += 1
        drawn = [seeds[s] for s in rng.integers(0, 2, 2)]
        naive["accuracy"].append(np.mean([np.average(x.predicted == x.truth, weights=w) for x in drawn]))
        naive["balanced_accuracy"].append(
            np.mean([sk.balanced_accuracy_score(x.truth, x.predicted, sample_weight=w) for x in drawn])
        )
        aucs = [
            sk.roc_auc_score(x.truth[f], x.probabilities[f, 1], sample_weight=w[f])
            for x in drawn
            for f in (folds == "0", folds == "1")
        ]
        naive["roc_auc"].append(np.mean(aucs))
    ours = bootstrap(seeds, 4000, seed=7)
    for name in naive:
        spread = np.std(naive[name])
        assert np.nanmean(ours.draws[name]) == pytest.approx(np.mean(naive[name]), abs=0.25 * spread), name
        assert np.nanstd(ours.draws[name]) == pytest.approx(spread, rel=0.2), name


def test_the_same_seed_gives_the_same_draws() -> None:
    x = draw(8, MANY)
    a, b = bootstrap([x], 300, 1), bootstrap([x], 300, 1)
    assert all(np.array_equal(a.draws[m], b.draws[m], equal_nan=True) for m in METRICS)
    assert not np.array_equal(a.draws["accuracy"], bootstrap([x], 300, 2).draws["accuracy"])
    assert len(a.draws["roc_auc"]) == 300
    assert [image[0] for image in a.images] == x.ids


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Accuracy 0.8 whose errors come in whole groups of two: drawing images would cover far less."""
    rng = np.random.default_rng(9)
    hits = {"groups": 0, "images": 0}
    for _ in range(150):
        right = np.repeat(rng.random(60) < 0.8, 2)
        truth = np.arange(120) % 2
        p = np.where(right, truth, 1 - truth)
        x = Predictions(
            ids=[f"{i:03d}" for i in range(120)],
            groups=[f"{i // 2}" for i in range(120)],
            folds=[str(i // 2 % 2) for i in range(120)],
            labels=TWO,
            truth=truth,
            probabilities=np.stack([1 - p, p], axis=1).astype(float),
        )
        for unit, y in {"groups": x, "images": x._replace(groups=x.ids)}.items():
            low, high = estimate(bootstrap([y], 200, 1), "accuracy")[1:3]
            hits[unit] += low <= 0.8 <= high
    assert 0.88 <= hits["groups"] / 150 <= 1.0
    assert hits["images"] < hits["groups"] - 10


def test_seeds_that_disagree_widen_the_interval() -> None:
    x = draw(10, TWO, n=240, skill=3)
    wrong = x._replace(probabilities=x.probabilities[:, ::-1])
    one, two = bootstrap([x, x], 500, 1), bootstrap([x, wrong], 500, 1)
    assert one.value["accuracy"] == pytest.approx(bootstrap([x], 500, 1).value["accuracy"])
    assert np.ptp(estimate(two, "accuracy")[1:3]) > 3 * np.ptp(estimate(one, "accuracy")[1:3])


def test_a_paired_difference_is_narrower_than_two_intervals() -> None:
    a = draw(11, TWO, n=240)
    worse = a.probabilities.copy()
    worse[:10] = worse[:10, ::-1]
    b = a._replace(probabilities=worse)
    for metric in ("accuracy", "balanced_accuracy", "roc_auc"):
        found = paired_difference([a], [b], metric, 500, 1)
        apart = [np.ptp(estimate(bootstrap([x], 500, 1), metric)[1:3]) for x in (a, b)]
        assert found.difference == pytest.approx(score(a, metric) - score(b, metric))
        assert found.low <= found.difference <= found.high
        assert found.high - found.low < 0.9 * np.hypot(*apart)
        assert difference(bootstrap([a], 500, 1), bootstrap([b], 500, 1), metric) == found
    assert paired_difference([a], [a], "roc_auc", 100, 1) == (0, 0, 0)


def test_draws_that_lose_a_class_are_counted_and_left_out() -> None:
    x = draw(12, TWO, n=24, folds=1)
    truth = np.zeros(24, dtype=int)
    truth[0] = 1
    x = x._replace(truth=truth, groups=x.ids)
    result = bootstrap([x], 1000, 1)
    without = np.isnan(result.draws["roc_auc"]).sum()
    assert estimate(result, "roc_auc").undefined == without
    assert without / 1000 == pytest.approx((23 / 24) ** 24, abs=0.06)
    assert estimate(result, "accuracy").undefined == 0
    assert np.isfinite(estimate(result, "roc_auc").low)
    one_class = bootstrap([x._replace(truth=np.zeros(24, dtype=int))], 50, 1)
    assert np.isnan(one_class.value["roc_auc"])
    assert np.isnan(estimate(one_class, "balanced_accuracy").low)


def test_two_thousand_draws_of_twenty_classes_warn_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = bootstrap([draw(13, [f"class {i:02d}" for i in range(20)], n=600)], 2000, 1)
    for metric in METRICS:
        found = estimate(result, metric)
        assert found.low < found.high


def test_predictions_survive_writing_and_reading() -> None:
    x = draw(14, ['a,"b"', "b\nc", "ü"])
    order = np.random.default_rng(0).permutation(120)
    shuffled = Predictions(
        [x.ids[i] for i in order], [x.groups[i] for i in order], [x.folds[i] for i in order], x.labels,
        x.truth[order], x.probabilities[order],
    )  # fmt: skip
    data = write_predictions(x)
    assert data == write_predictions(shuffled)
    y = read_predictions(data)
    assert y[:4] == x[:4]
    assert np.array_equal(y.truth, x.truth)
    assert np.allclose(y.probabilities, x.probabilities, atol=1e-8)
    halves = [[i for i in range(120) if x.folds[i] == f] for f in "01"]
    parts = [
        Predictions([x.ids[i] for i in h], [x.groups[i] for i in h], [x.folds[i] for i in h], x.labels,
                    x.truth[h], x.probabilities[h])
        for h in halves
    ]  # fmt: skip
    joined = join_predictions(parts)
    assert joined[:4] == x[:4]
    assert np.array_equal(joined.probabilities, x.probabilities)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "columns"),
        ("id,group,fold,label,prediction,p:a,q\n", "columns"),
        ("id,group,fold,label,prediction,p:a\n1,g,0,a,a,1\n", "two or more classes"),
        ("id,group,fold,label,prediction,p:a,p:b\n1,g,0,c,a,1,0\n", "damaged row"),
        ("id,group,fold,label,prediction,p:a,p:b\n1,g,0,a,a,1,0\n1,g,0,a,a,0,1\n", "twice"),
        ("id,group,fold,label,prediction,p:a,p:b\n1,g,0,a,a,x,0\n", "could not convert"),
        ("id,group,fold,label,prediction,p:a,p:b\n1,g,0,a,a,nan,0\n", "probabilities"),
        ("id,group,fold,label,prediction,p:a,p:b\n1,g,0,a,a,0.9,0.9\n", "probabilities"),
    ],
)
def test_damaged_predictions_are_refused(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        read_predictions(text.encode())


def test_what_cannot_be_compared_is_refused() -> None:
    a, b = draw(15, TWO), draw(15, TWO, n=60)
    with pytest.raises(UserError, match="no metric 'auc'; choose one of accuracy"):
        score(a, "auc")
    with pytest.raises(UserError, match="same images"):
        paired_difference([a], [b], "accuracy", 10, 1)
    with pytest.raises(UserError, match="same images"):
        paired_difference([a], [a._replace(folds=a.folds[::-1])], "accuracy", 10, 1)
    with pytest.raises(UserError, match="different images"):
        bootstrap([a, b], 10, 1)
    with pytest.raises(UserError, match="two folds"):
        join_predictions([a, a])
    with pytest.raises(UserError, match="different classes"):
        join_predictions([a, draw(15, MANY)])
