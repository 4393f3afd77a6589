"""Controls against scikit-learn and against data whose answer is known."""

import itertools

import numpy as np
from sklearn.neighbors import KNeighborsClassifier

from jobs.classifier import controls


def images(n: int, seed: int, size: int = 40) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size), dtype=np.uint8)


def test_the_nearest_image_is_scikit_learns_by_correlation() -> None:
    training, query = images(60, 1), images(40, 2)
    truth = np.arange(60) % 3
    a, b = controls.thumbnails(training), controls.thumbnails(query)
    neighbour, similarity = controls.most_similar(a, b)
    oracle = KNeighborsClassifier(1, metric="correlation").fit(a, truth)
    distance, index = oracle.kneighbors(b)
    assert np.array_equal(neighbour, index[:, 0])
    assert np.allclose(similarity, 1 - distance[:, 0], atol=1e-5)
    assert np.array_equal(truth[neighbour], oracle.predict(b))


def test_a_brighter_copy_is_the_nearest_and_a_blank_image_is_like_none() -> None:
    training = images(20, 3) // 2
    query = np.stack([training[7] + 50, np.full((40, 40), 9, np.uint8)])
    neighbour, similarity = controls.most_similar(controls.thumbnails(training), controls.thumbnails(query))
    assert neighbour[0] == 7
    assert similarity[0] > 0.99
    assert similarity[1] == 0


def test_blocks_leave_no_seam() -> None:
    a, b = controls.thumbnails(images(5, 4)), controls.thumbnails(images(2100, 5, size=32))
    assert np.array_equal(controls.most_similar(a, b)[0], (b @ a.T).argmax(1))


def test_majority_answers_the_shares_of_training() -> None:
    assert np.allclose(controls.majority(np.array([0, 1, 1, 1]), 3, 2), [[0.25, 0.75, 0]] * 2)


def test_the_file_only_classifier_finds_a_leak_in_the_files_and_nothing_in_noise() -> None:
    rng = np.random.default_rng(6)
    truth = np.arange(200) % 2
    noise = rng.normal(size=(200, 5))
    leak = noise.copy()
    leak[:, 1] = 300 + 50 * truth + rng.normal(size=200)
    scores = {}
    for name, features in {"noise": noise, "leak": leak}.items():
        p = controls.file_only(features[:100], truth[:100], features[100:], 2, seed=0)
        assert np.array_equal(p, controls.file_only(features[:100], truth[:100], features[100:], 2, seed=0))
        scores[name] = np.mean(p.argmax(1) == truth[100:])
    assert scores["leak"] > 0.95
    assert 0.3 < scores["noise"] < 0.7


def test_a_class_without_training_images_gets_no_probability() -> None:
    p = controls.file_only(np.eye(5), np.array([0, 2, 0, 2, 0]), np.eye(5), 4, seed=0)
    assert p.shape == (5, 4)
    assert np.all(p[:, [1, 3]] == 0)
    assert np.allclose(p.sum(1), 1)


def test_similarity_bins_hold_every_image_once_in_order() -> None:
    similarity = np.random.default_rng(7).random(103)
    bins = controls.similarity_bins(similarity, 4)
    assert sorted(np.concatenate(bins)) == list(range(103))
    assert max(map(len, bins)) - min(map(len, bins)) <= 1
    assert all(similarity[a].max() < similarity[b].min() for a, b in itertools.pairwise(bins))
    assert len(controls.similarity_bins(np.ones(10), 4)) == 1
