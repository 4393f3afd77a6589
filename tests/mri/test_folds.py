"""Groups are transitive and never split; folds are even; the same seed gives the same folds."""

import itertools
from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest

from jobs.common.errors import UserError
from jobs.mri.folds import assign_folds, connected_groups


class Image(NamedTuple):
    """The properties of an image that a split needs."""

    label: str
    group: str


def test_chains_over_pairs_and_marks_connect():
    marks = [["a"], [], ["a", "b"], ["b"], [], [7], [7]]
    groups = connected_groups(7, [(1, 4)], marks)
    assert groups[0] == groups[2] == groups[3]
    assert groups[1] == groups[4]
    assert groups[5] == groups[6]
    assert len(set(groups)) == 3


def test_connect_agrees_with_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(20):
        pairs = [tuple(pair) for pair in rng.integers(0, 30, (14, 2)).tolist()]
        reach = np.eye(30, dtype=bool)
        for one, other in pairs:
            reach[one, other] = reach[other, one] = True
        for _ in range(5):
            reach = (reach.astype(int) @ reach) > 0
        groups = connected_groups(30, pairs, [()] * 30)
        np.testing.assert_array_equal(groups[:, None] == groups[None], reach)


def test_nothing_to_connect():
    assert len(connected_groups(0, [], [])) == 0
    assert connected_groups(3, [], [()] * 3).tolist() == [0, 1, 2]


def a_collection(seed: int, mixed: bool = False) -> list[Image]:
    rng = np.random.default_rng(seed)
    images = []
    for group in range(60):
        label = "aaaabbbbcc"[group % 10]
        for _ in range(int(rng.integers(1, 6))):
            images.append(Image("abc"[rng.integers(3)] if mixed else label, f"g{group}"))
    return images


@pytest.mark.parametrize("folds", [2, 3, 5])
@pytest.mark.parametrize("mixed", [False, True])
def test_folds_keep_groups_whole_and_classes_even(folds, mixed):
    for seed in range(3):
        images = a_collection(seed, mixed)
        fold = assign_folds([image.label for image in images], [image.group for image in images], folds, seed)
        where = {}
        for image, number in zip(images, fold, strict=True):
            assert where.setdefault(image.group, number) == number
        counts = Counter((image.label, number) for image, number in zip(images, fold, strict=True))
        for label in "abc":
            total = sum(counts[label, number] for number in range(folds))
            for number in range(folds):
                # No closer than a group allows: the largest has five images.
                assert abs(counts[label, number] - total / folds) <= 5
                assert counts[label, number] > 0


def test_single_images_are_spread_to_within_one():
    labels = ["no"] * 87 + ["yes"] * 141
    fold = assign_folds(labels, list(range(228)), 5, 0)
    for label, held_out in itertools.product(("no", "yes"), range(5)):
        count = sum(1 for one, number in zip(labels, fold, strict=True) if (one, number) == (label, held_out))
        assert abs(count - labels.count(label) / 5) < 1


def test_the_seed_decides():
    images = a_collection(0)
    labels, groups = zip(*images, strict=True)
    one, same, other = (assign_folds(labels, groups, 3, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_as_many_groups_as_folds_is_enough():
    labels = ["a"] * 6 + ["b"] * 3
    fold = assign_folds(labels, [0, 0, 0, 0, 1, 2, 3, 4, 5], 3, 0)
    assert set(fold[:6]) == set(fold[6:]) == {0, 1, 2}


def test_fewer_groups_than_folds_is_the_callers_mistake():
    with pytest.raises(UserError, match=r"class b has 2 groups .* too few for 3 folds"):
        assign_folds(["a", "a", "a", "b", "b", "b"], [0, 1, 2, 3, 3, 4], 3, 0)


def test_groups_that_cannot_be_spread_are_the_callers_mistake():
    # Every group that has an `a` has a `b` and a `c` too, but one of two groups holds the only other `c`.
    labels, groups = ["a", "b", "a", "b"], [0, 0, 1, 2]
    fold = assign_folds(labels, groups, 2, 0)
    assert fold[2] == fold[3] != fold[0]
    with pytest.raises(UserError, match="fewer --folds"):
        assign_folds(["a", "b", "b", "c", "c", "a"], [0, 0, 1, 1, 2, 2], 2, 0)
