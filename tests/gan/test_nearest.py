"""Nearest images against scikit-learn, and copies against honest samples."""

import numpy as np
import pytest
import scipy.ndimage
from sklearn.neighbors import NearestNeighbors

from jobs.gan import nearest


def heads(count: int, seed: int, size: int = 32) -> np.ndarray:
    """Smooth random pictures, uint8 [count, size, size]."""
    noise = np.random.default_rng(seed).normal(size=(count, size, size))
    smooth = scipy.ndimage.gaussian_filter(noise, (0, 3, 3))
    return np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def noisy(images: np.ndarray, seed: int = 9) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 10, images.shape)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


def judged(generated: np.ndarray, training: np.ndarray, held_out: np.ndarray) -> dict:
    groups = [str(number) for number in range(len(held_out))]
    return nearest.memorization(
        (nearest.nearest(generated, [training]), nearest.nearest(generated, [held_out])),
        (nearest.nearest(held_out, [training]), nearest.nearest(held_out, [held_out], groups, groups)),
    )


def test_nearest_agrees_with_scikit_learn() -> None:
    queries, references = heads(20, 1), heads(50, 2)
    both = np.concatenate([references, references[:, :, ::-1]]).reshape(100, -1).astype(float)
    distance, index = NearestNeighbors(n_neighbors=1).fit(both).kneighbors(queries.reshape(20, -1).astype(float))
    for blocks in ([references], [references[:7], references[7:8], references[8:]]):
        near = nearest.nearest(queries, blocks)
        assert near.number.tolist() == (index[:, 0] % 50).tolist()
        assert near.mirrored.tolist() == (index[:, 0] >= 50).tolist()
        assert near.distance == pytest.approx(distance[:, 0] / 32)


def test_a_mirrored_copy_is_found_at_distance_zero() -> None:
    references = heads(30, 1)
    near = nearest.nearest(references[4:6, :, ::-1], [references])
    assert near.number.tolist() == [4, 5] and near.mirrored.all()
    assert near.distance == pytest.approx([0, 0], abs=1e-4)


def test_no_image_is_compared_with_its_own_group() -> None:
    images = heads(6, 1)
    groups = ["a", "a", "b", "b", "c", "c"]
    near = nearest.nearest(images, [images[:3], images[3:]], groups, groups)
    assert all(groups[number] != groups[i] for i, number in enumerate(near.number))
    alone = nearest.nearest(images[:2], [images[:2]], groups[:2], groups[:2])
    assert alone.number.tolist() == [-1, -1] and np.isinf(alone.distance).all()


@pytest.mark.parametrize("size", [128, 200])
def test_large_images_are_compared_shrunk(size: int) -> None:
    references = heads(10, 1, size)
    assert nearest.nearest(noisy(references), [references]).number.tolist() == list(range(10))


@pytest.mark.parametrize("disguise", ["none", "noise", "blur", "dark", "mirror"])
def test_copies_are_told_from_honest_samples_in_the_same_disguise(disguise: str) -> None:
    change = {
        "none": lambda x: x,
        "noise": noisy,
        "blur": lambda x: scipy.ndimage.gaussian_filter(x, (0, 1, 1)),
        "dark": lambda x: (x * 0.9).astype(np.uint8),
        "mirror": lambda x: x[:, :, ::-1],
    }[disguise]
    training, held_out = heads(80, 1), heads(60, 2)
    copied = judged(change(training), training, held_out)
    assert copied["suspicious"] and copied["copies"]["generated"] > 0.9
    honest = judged(change(heads(80, 3)), training, held_out)
    assert not honest["suspicious"] and abs(honest["copies"]["generated"]) < 0.1
    assert abs(honest["copies"]["real"]) < 0.1


def test_half_copied_is_half() -> None:
    training, held_out = heads(80, 1), heads(60, 2)
    mixed = np.concatenate([noisy(training[:40]), heads(40, 3)])
    assert judged(mixed, training, held_out)["copies"]["generated"] == pytest.approx(0.5, abs=0.05)


def test_copies_of_held_out_images_count_against() -> None:
    training, held_out = heads(80, 1), heads(60, 2)
    assert judged(held_out, training, held_out)["copies"]["generated"] == -1


def test_without_held_out_images_there_is_no_verdict() -> None:
    found = judged(heads(8, 3), heads(20, 1), heads(1, 2)[:0])
    assert found["copies"] == {"generated": None, "real": None}
    assert found["distance"]["generated"] > 0 and found["suspicious"] is None


def test_one_held_out_group_gives_no_real_value() -> None:
    found = judged(heads(8, 3), heads(20, 1), heads(1, 2))
    assert found["copies"]["real"] is None and found["suspicious"] is not None
