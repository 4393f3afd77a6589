"""Intentionally wrong datasets: the results of classifiers trained on them validate the evaluation."""

from dataclasses import replace

import numpy as np
from sklearn.model_selection import StratifiedKFold

from jobs.common.seeds import derive
from jobs.mri.dataset import Dataset, Row


def apply(control: str, dataset: Dataset, seed: int) -> Dataset:
    """The dataset of the control `permuted` or `leaky`; only the rows change. For `none` the unchanged dataset."""
    if control == "permuted":
        return replace(dataset, rows=permuted(dataset.rows, seed))
    if control == "leaky":
        return replace(dataset, rows=leaky(dataset.rows, dataset.folds, seed))
    return dataset


def permuted(rows: list[Row], seed: int) -> list[Row]:
    """Rows with uninformative labels: each group gets the label of another group of its fold.

    The labels are permuted within folds. Otherwise a label that is rarer in training would be more frequent among the
    held-out images, and a classifier that learns only the frequencies would be below chance. A group with several
    labels counts as the first of them.
    """
    first: dict[tuple[int, str], str] = {}
    for row in rows:
        first.setdefault((row.fold, row.group), row.label)
    labels: dict[tuple[int, str], str] = {}
    for fold in sorted({row.fold for row in rows}):
        groups = sorted(group for group in first if group[0] == fold)
        order = np.random.default_rng(derive(seed, "permuted", fold)).permutation(len(groups))
        labels |= {group: first[groups[other]] for group, other in zip(groups, order, strict=True)}
    return [replace(row, label=labels[row.fold, row.group]) for row in rows]


def leaky(rows: list[Row], folds: int, seed: int) -> list[Row]:
    """Rows whose folds are stratified by class but ignore groups, so that near-duplicates are in different folds."""
    splitter = StratifiedKFold(folds, shuffle=True, random_state=derive(seed, "leaky"))
    moved = list(rows)
    for fold, (_, held_out) in enumerate(splitter.split(rows, [row.label for row in rows])):
        for index in held_out:
            moved[index] = replace(rows[index], fold=fold)
    return moved
