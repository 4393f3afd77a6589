"""Quality of generated images: comparison of their distribution with that of held-out real images."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.spatial.distance

from jobs.common.seeds import derive
from jobs.gan.features import Features

# Number of nearest neighbours in precision, recall, density and coverage (Naeem et al., 2020).
NEIGHBOURS = 5
# Sufficient to describe a distribution; memory and time grow with the square of the number.
MOST_IMAGES = 500
DRAWS = 10
HIGHER = ("precision", "recall", "density", "coverage")
BETTER = {"kid": "lower", **dict.fromkeys(HIGHER, "higher"), "fid": "lower"}


def kid(real: np.ndarray, fake: np.ndarray) -> float:
    """Return the kernel inception distance of features [n, d] and [m, d], n and m at least 2; 0 is best.

    The unbiased squared maximum mean discrepancy with the kernel (x·y / d + 1)^3; of equal distributions it is 0 on
    average and may be negative. Binkowski et al., "Demystifying MMD GANs", ICLR 2018. https://arxiv.org/abs/1801.01401
    """

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def mean_of_others(x: np.ndarray) -> float:
        values = kernel(x, x)
        return (values.sum() - np.trace(values)) / (len(x) * (len(x) - 1))

    return float(mean_of_others(real) + mean_of_others(fake) - 2 * kernel(real, fake).mean())


def fid(real: np.ndarray, fake: np.ndarray) -> float:
    """Return the Fréchet inception distance of features [n, d] and [m, d], n and m at least 2; 0 is best.

    The Fréchet distance of two normal distributions with the sets' means and covariances. Far too large for small
    sets: only values for equal numbers of images can be compared. Heusel et al., "GANs trained by a two time-scale
    update rule converge to a local Nash equilibrium", NeurIPS 2017. https://arxiv.org/abs/1706.08500
    """
    roots = [(x - x.mean(axis=0)) / np.sqrt(len(x) - 1) for x in (real, fake)]
    # With covariances A'A and B'B, the trace of the root of their product is the sum of the singular values of AB'.
    trace = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    means = np.sum((real.mean(axis=0) - fake.mean(axis=0)) ** 2)
    return float(max(0.0, means + np.sum(roots[0] ** 2) + np.sum(roots[1] ** 2) - 2 * trace))


def neighbourhoods(real: np.ndarray, fake: np.ndarray, neighbours: int = NEIGHBOURS) -> dict[str, float]:
    """Return precision, recall, density and coverage of features [n, d] and [m, d]; n and m above `neighbours`.

    The ball of an image has the radius of the distance to its k-th nearest neighbour in its own set. Precision: share
    of fakes in the ball of a real image. Recall: share of reals in the ball of a fake. Density: mean number of real
    balls that contain a fake, divided by k; 1 for equal distributions, larger values are possible. Coverage: share of
    real balls that contain a fake; 1 - 1/2^k for equal distributions.

    Kynkäänniemi et al., "Improved precision and recall metric for assessing generative models", NeurIPS 2019,
    https://arxiv.org/abs/1904.06991; Naeem et al., 2020, https://arxiv.org/abs/2002.09797 (density and coverage).
    """
    real_radius = _radius(real, neighbours)
    fake_radius = _radius(fake, neighbours)
    distance = scipy.spatial.distance.cdist(real, fake)
    in_real_ball = distance <= real_radius[:, np.newaxis]
    return {
        "precision": float(in_real_ball.any(axis=0).mean()),
        "recall": float((distance <= fake_radius).any(axis=1).mean()),
        "density": float(in_real_ball.sum(axis=0).mean() / neighbours),
        "coverage": float(in_real_ball.any(axis=1).mean()),
    }


def _radius(x: np.ndarray, neighbours: int) -> np.ndarray:
    # The nearest is the image itself.
    return np.partition(scipy.spatial.distance.cdist(x, x), neighbours, axis=1)[:, neighbours]


def compare(
    features: Features, generated: np.ndarray, training: np.ndarray, held_out: np.ndarray, seed: int
) -> dict[str, Any]:
    """Return how `generated` and, beside it, `training` compare with `held_out`, each uint8 [n, size, size].

    All sets are reduced to the same number of images, because the metrics depend on it. Without held-out images (fold
    'all') `generated` is compared with `training`, without values for real images.

    Returns:
        reference: 'held-out' or 'training': the set that the other sets are compared with.
        images: number of images in each set; `compared`: number of images of each set that are compared.
        features: name, SHA-256 of the weights, number of networks, dimensions of each.
        neighbours, draws: k of the neighbourhoods; number of random draws.
        figures: a list of metric, better ('lower' or 'higher'), generated, real: the latter two are null (nothing to
            compare with) or {value, error}. `value` is the mean over networks and draws of `compared` images from each
            set; `error` the standard deviation over draws of half as many, which estimates the standard error of
            `value` (Shao & Wu, "A general theory for jackknife variance estimation", Annals of Statistics, 1989);
            null with fewer than 4 images. The list is empty with fewer than 2.
    """
    alone = len(held_out) == 0
    sets = {"generated": generated, "training": training, "held_out": held_out}
    used = [generated, training] if alone else [held_out, generated, training]
    compared = min(MOST_IMAGES, *map(len, used))
    result: dict[str, Any] = {
        "reference": "training" if alone else "held-out",
        "images": {name: len(images) for name, images in sets.items()} | {"compared": compared},
        "features": {"name": features.name, "digest": features.digest, "networks": len(features.networks)},
        "neighbours": min(NEIGHBOURS, max(compared - 1, 0)),
        "draws": DRAWS,
        "figures": [],
    }
    if compared < 2:
        return result
    reference = training if alone else held_out
    candidates = {"generated": generated} if alone else {"generated": generated, "real": training}
    values: dict[str, list[np.ndarray]] = {which: [] for which in candidates}
    halves: dict[str, list[np.ndarray]] = {which: [] for which in candidates}
    for network in features.networks:
        rescale = _standardizer(network(training)) if features.standardized else (lambda x: x)
        real = rescale(network(reference))
        result["features"]["dimensions"] = real.shape[1]
        for which, images in candidates.items():
            fake = rescale(network(images))
            values[which].append(_draws(real, fake, compared, derive(seed, "whole")))
            if compared >= 4:
                halves[which].append(_draws(real, fake, compared // 2, derive(seed, "half")))
    for column, (metric, better) in enumerate(BETTER.items()):
        figure: dict[str, Any] = {"metric": metric, "better": better, "generated": None, "real": None}
        for which in candidates:
            # The mean over networks first, so that only the variance due to the images remains.
            error = np.std(np.mean(halves[which], axis=0)[:, column], ddof=1) if halves[which] else None
            figure[which] = {
                "value": _rounded(np.mean(values[which], axis=(0, 1))[column]),
                "error": None if error is None else _rounded(error),
            }
        result["figures"].append(figure)
    return result


def _draws(real: np.ndarray, fake: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the figures [draws, metrics] of `count` random images of each set.

    The same seed selects the same images for every network, and the same reals for every `fake`.
    """
    found = []
    # If all images of both sets are drawn, a second draw gives the same images.
    for draw in range(1 if count == len(real) == len(fake) else DRAWS):
        random = np.random.default_rng(derive(seed, draw))
        reals, fakes = (x[random.choice(len(x), count, replace=False)] for x in (real, fake))
        figures = {"kid": kid(reals, fakes), "fid": fid(reals, fakes)}
        figures |= neighbourhoods(reals, fakes, min(NEIGHBOURS, count - 1))
        found.append([figures[metric] for metric in BETTER])
    return np.array(found)


def _standardizer(training: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    mean, variance = training.mean(axis=0), training.var(axis=0)
    # A feature with very small variance over the training images must not dominate after scaling.
    scale = np.sqrt(variance + 0.01 * variance.mean()) if variance.any() else 1.0
    return lambda x: (x - mean) / scale


def subset(count: int, seed: int, most: int = MOST_IMAGES) -> Sequence[int]:
    """Return a random subset of the numbers below `count`, at most `most`, in ascending order."""
    if count <= most:
        return range(count)
    return sorted(np.random.default_rng(seed).choice(count, most, replace=False).tolist())


def _rounded(value: float) -> float:
    # The last digits depend on the summation order of the processor.
    return float(f"{value:.5g}")
