"""Groups of images that must be in one fold, and the split into folds."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from jobs.common.errors import UserError
from jobs.common.seeds import derive

# The splitter is greedy in a random order; if a fold has no images of a class, another order may work.
ORDERS = 10


def connected_groups(count: int, pairs: Iterable[tuple[int, int]], marks: Sequence[Iterable[Hashable]]) -> np.ndarray:
    """Return int [count]: the group of each of `count` images, numbered in the order of the first members.

    Two images are in one group if a pair in `pairs` or a common mark (a patient, a volume, a line of the user's list)
    connects them, directly or through other images. `marks` are the marks of each image.
    """
    first: dict[Hashable, int] = {}
    edges = list(pairs)
    for image, own in enumerate(marks):
        edges.extend((first.setdefault(mark, image), image) for mark in own)
    ends = np.array(edges, np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), (count, count))
    return connected_components(graph, directed=False)[1]


def assign_folds(labels: Sequence[str], groups: Sequence[Hashable], folds: int, seed: int) -> np.ndarray:
    """Return int [n]: the fold, 0 to `folds` - 1, in which each image is held out.

    No group is split, each fold contains each class, and each class is spread about as evenly as its groups allow.
    After scikit-learn's StratifiedGroupKFold, single groups are moved as long as that makes the folds more even, which
    helps if a group has images of several classes. Raises UserError if a class has fewer groups than there are folds,
    or no such split was found.
    """
    check_groups(labels, groups, folds)
    classes, y = np.unique(np.array(labels), return_inverse=True)
    numbers: dict[Hashable, int] = {}
    bundle = np.array([numbers.setdefault(group, len(numbers)) for group in groups])
    held = np.zeros((len(numbers), len(classes)))  # images of each class in each group
    np.add.at(held, (bundle, y), 1)
    for order in range(ORDERS):
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=derive(seed, "folds", order))
        fold = np.zeros(len(numbers), np.int64)
        for number, (_, chosen) in enumerate(splitter.split(y, y, bundle)):
            fold[bundle[chosen]] = number
        counts = _even_out(fold, held, folds)
        if counts.min() > 0:
            return fold[bundle]
    raise UserError(f"the groups cannot be spread so that each of {folds} folds contains each class: use fewer --folds")


def _even_out(fold: np.ndarray, held: np.ndarray, folds: int) -> np.ndarray:
    """Move groups between folds as long as the classes become more even; return the counts [fold, class].

    `fold` int [groups] is changed; `held` [groups, classes] counts images. The measure is the sum of the squared
    differences between the share of each class in a fold and its mean share.
    """
    shares = held / held.sum(axis=0)
    load = np.zeros((folds, held.shape[1]))
    np.add.at(load, fold, shares)
    moved = True
    while moved:
        moved = False
        for group, share in enumerate(shares):
            here = fold[group]
            # Half the change of the sum if this group moves from `here` to each fold.
            gain = (share * (load - load[here] + share)).sum(axis=1)
            gain[here] = 0
            best = int(gain.argmin())
            if gain[best] < -1e-9:
                load[here] -= share
                load[best] += share
                fold[group] = best
                moved = True
    counts = np.zeros((folds, held.shape[1]))
    np.add.at(counts, fold, held)
    return counts


def check_groups(labels: Sequence[str], groups: Sequence[Hashable], folds: int) -> None:
    """Raise UserError if some class has fewer groups than there are `folds`."""
    members = defaultdict(set)
    for label, group in zip(labels, groups, strict=True):
        members[label].add(group)
    for label in sorted(members):
        if len(members[label]) < folds:
            fewer = " or use fewer --folds" if folds > 2 else ""
            raise UserError(
                f"class {label} has {len(members[label])} groups of independent images, too few for {folds} folds: "
                f"add images of other people{fewer}"
            )
