"""Figures of quality against brute force, SciPy, scikit-learn and closed forms."""

import numpy as np
import pytest
import scipy.linalg
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from jobs.gan import quality
from jobs.gan.features import Features

Array = NDArray[np.float64]


def normal(count: int, dimensions: int, seed: int, scale: float = 1.0, shift: float = 0.0) -> Array:
    return np.random.default_rng(seed).normal(shift, scale, (count, dimensions))


def test_kid_is_the_unbiased_estimate_written_out() -> None:
    real, fake = normal(7, 3, 1), normal(5, 3, 2, shift=0.5)

    def kernel(x: Array, y: Array) -> float:
        return (float(x @ y) / 3 + 1) ** 3

    within_real = np.mean([kernel(x, y) for i, x in enumerate(real) for j, y in enumerate(real) if i != j])
    within_fake = np.mean([kernel(x, y) for i, x in enumerate(fake) for j, y in enumerate(fake) if i != j])
    between = np.mean([kernel(x, y) for x in real for y in fake])
    assert quality.kid(real, fake) == pytest.approx(within_real + within_fake - 2 * between)


def test_kid_of_equal_distributions_is_zero_on_average_whatever_the_size() -> None:
    for count in (5, 40):
        values = [quality.kid(normal(count, 4, 2 * i), normal(count, 4, 2 * i + 1)) for i in range(400)]
        assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))


@pytest.mark.parametrize(("reals", "fakes", "dimensions"), [(60, 50, 4), (9, 12, 30)])
def test_fid_is_the_formula_with_the_square_root_of_scipy(reals: int, fakes: int, dimensions: int) -> None:
    mixing = normal(dimensions, dimensions, 3)
    real, fake = normal(reals, dimensions, 1) @ mixing, normal(fakes, dimensions, 2, 1.5, 0.3)
    first, second = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    # A small ridge, as in the reference implementation: with few images the product is singular.
    ridge = 1e-9 * np.eye(dimensions)
    root = scipy.linalg.sqrtm((first + ridge) @ (second + ridge)).real
    means = np.sum((real.mean(axis=0) - fake.mean(axis=0)) ** 2)
    expected = means + np.trace(first) + np.trace(second) - 2 * np.trace(root)
    assert quality.fid(real, fake) == pytest.approx(expected, rel=1e-3)


def test_fid_of_a_scaled_and_shifted_copy_has_a_closed_form() -> None:
    real = normal(50, 6, 1)
    trace = np.trace(np.cov(real, rowvar=False))
    assert quality.fid(real, 3 * real + 2) == pytest.approx(
        np.sum((2 * real.mean(axis=0) + 2) ** 2) + (3 - 1) ** 2 * trace
    )
    assert quality.fid(real, real) == pytest.approx(0, abs=1e-9)


def test_neighbourhoods_by_hand() -> None:
    real = np.array([[0.0], [1.0], [3.0], [10.0]])  # radii with one neighbour: 1, 1, 2, 7
    fake = np.array([[0.5], [4.0], [30.0]])  # radii: 3.5, 3.5, 26
    assert quality.neighbourhoods(real, fake, 1) == {
        # 0.5 is in the balls of 0 and 1; 4 in those of 3 and 10; 30 in none.
        "precision": pytest.approx(2 / 3),
        "density": pytest.approx(4 / 3),
        "coverage": 1.0,
        # The ball of 30 begins at 4; those of 0.5 and 4 hold 0, 1 and 3.
        "recall": 1.0,
    }


def test_neighbourhoods_agree_with_scikit_learn() -> None:
    real, fake = normal(80, 3, 1), normal(60, 3, 2, 0.8, 0.4)
    for k in (1, 3, 5):
        radius = NearestNeighbors(n_neighbors=k).fit(real).kneighbors()[0][:, -1]
        fake_radius = NearestNeighbors(n_neighbors=k).fit(fake).kneighbors()[0][:, -1]
        balls = [
            set(near.tolist())
            for x, r in zip(real, radius, strict=True)
            for near in NearestNeighbors(radius=r).fit(fake).radius_neighbors([x], return_distance=False)
        ]
        fake_balls = [
            set(near.tolist())
            for x, r in zip(fake, fake_radius, strict=True)
            for near in NearestNeighbors(radius=r).fit(real).radius_neighbors([x], return_distance=False)
        ]
        assert quality.neighbourhoods(real, fake, k) == pytest.approx(
            {
                "precision": len(set().union(*balls)) / len(fake),
                "recall": len(set().union(*fake_balls)) / len(real),
                "density": sum(map(len, balls)) / (k * len(fake)),
                "coverage": sum(map(bool, balls)) / len(real),
            }
        )


def test_density_and_coverage_of_equal_distributions_are_what_the_paper_derives() -> None:
    # Naeem et al. (2020), lemmas 1 and 2: density 1; coverage 1 - (N-1)...(N-k) / ((M+N-1)...(M+N-k)).
    n = m = 50
    k = 3
    found = [quality.neighbourhoods(normal(n, 8, 2 * i), normal(m, 8, 2 * i + 1), k) for i in range(200)]
    expected = 1 - np.prod([(n - i) / (m + n - i) for i in range(1, k + 1)])
    assert np.mean([values["density"] for values in found]) == pytest.approx(1, abs=0.02)
    assert np.mean([values["coverage"] for values in found]) == pytest.approx(expected, abs=0.01)


def test_outliers_do_not_inflate_density_as_they_do_precision() -> None:
    real = np.concatenate([normal(99, 2, 1), [[50.0, 0.0]]])
    fake = normal(100, 2, 2, shift=20)
    found = quality.neighbourhoods(real, fake)
    assert found["precision"] == 1 and found["density"] < 0.3 and found["coverage"] < 0.3


# -- compare ---------------------------------------------------------------------------------------------------


def brightness(images: np.ndarray) -> Array:
    """Two numbers for an image: the means of its halves."""
    half = images.shape[1] // 2
    return np.stack([images[:, :half].mean(axis=(1, 2)), images[:, half:].mean(axis=(1, 2))], axis=1)


SIMPLE = Features("simple", "0", True, (brightness,))


def images(count: int, seed: int, level: float = 100) -> np.ndarray:
    random = np.random.default_rng(seed)
    levels = random.normal(level, 20, (count, 2, 1)).repeat(4, axis=1)
    return np.clip(levels + np.zeros((1, 1, 8)), 0, 255).astype(np.uint8)


def figures(result: dict, which: str = "generated") -> dict[str, float]:
    return {figure["metric"]: figure[which]["value"] for figure in result["figures"]}


def test_every_set_is_cut_to_the_smallest() -> None:
    result = quality.compare(SIMPLE, images(200, 1), images(90, 2), images(40, 3), 0)
    assert result["images"] == {"generated": 200, "training": 90, "held_out": 40, "compared": 40}
    assert result["reference"] == "held-out"
    assert [figure["metric"] for figure in result["figures"]] == [
        "kid",
        "precision",
        "recall",
        "density",
        "coverage",
        "fid",
    ]


def test_good_samples_stand_where_reals_do_and_bad_ones_do_not() -> None:
    training, held_out = images(60, 2), images(50, 3)
    good = quality.compare(SIMPLE, images(300, 1), training, held_out, 0)
    bad = quality.compare(SIMPLE, images(300, 1, level=160), training, held_out, 0)
    for metric, value in figures(good).items():
        error = next(figure for figure in good["figures"] if figure["metric"] == metric)["generated"]["error"]
        assert abs(value - figures(good, "real")[metric]) < 6 * error
    assert figures(bad, "real") == figures(good, "real")
    for metric, better in quality.BETTER.items():
        worse = figures(bad)[metric] - figures(good)[metric]
        assert (worse > 0) == (better == "lower")


def test_the_error_is_that_of_fresh_data() -> None:
    results = [
        quality.compare(SIMPLE, images(60, 3 * i), images(60, 3 * i + 1), images(60, 3 * i + 2), 0) for i in range(30)
    ]
    for number, metric in enumerate(quality.BETTER):
        if metric == "fid":
            continue  # its bias at half the size is another
        fresh = np.std([figures(result)[metric] for result in results], ddof=1)
        estimated = np.mean([result["figures"][number]["generated"]["error"] for result in results])
        assert 0.5 < estimated / fresh < 2, metric


def test_a_collapsed_generator_has_no_recall_and_little_coverage() -> None:
    collapsed = np.tile(images(3, 1), (40, 1, 1))
    result = quality.compare(SIMPLE, collapsed, images(60, 2), images(50, 3), 0)
    assert figures(result)["recall"] < 0.1 and figures(result)["coverage"] < 0.6
    assert figures(result, "real")["recall"] > 0.8 and figures(result, "real")["coverage"] > 0.8


def test_without_held_out_images_it_compares_with_training() -> None:
    result = quality.compare(SIMPLE, images(50, 1), images(40, 2), images(0, 3), 0)
    assert result["reference"] == "training"
    assert result["images"]["compared"] == 40
    assert all(figure["real"] is None and figure["generated"] for figure in result["figures"])


def test_few_images() -> None:
    three = quality.compare(SIMPLE, images(50, 1), images(40, 2), images(3, 3), 0)
    assert three["neighbours"] == 2
    assert all(figure["generated"]["error"] is None for figure in three["figures"])
    assert quality.compare(SIMPLE, images(50, 1), images(40, 2), images(1, 3), 0)["figures"] == []


def test_same_input_same_figures() -> None:
    sets = images(50, 1), images(40, 2), images(30, 3)
    assert quality.compare(SIMPLE, *sets, seed=1) == quality.compare(SIMPLE, *sets, seed=1)
    assert quality.compare(SIMPLE, *sets, seed=1) != quality.compare(SIMPLE, *sets, seed=2)


def test_a_feature_that_never_varies_in_training_does_no_harm() -> None:
    black = np.zeros((20, 8, 8), np.uint8)
    assert np.isfinite(list(figures(quality.compare(SIMPLE, images(20, 1), black, images(20, 2), 0)).values())).all()


def test_subset() -> None:
    assert list(quality.subset(5, seed=0, most=9)) == [0, 1, 2, 3, 4]
    drawn = list(quality.subset(1000, seed=0, most=50))
    assert drawn == sorted(set(drawn)) and len(drawn) == 50 and max(drawn) > 900
