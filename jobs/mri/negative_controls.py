"""Intentionally wrong datasets: the results of classifiers trained on them validate the evaluation."""

from dataclasses import replace

import numpy as np
from sklearn.model_selection import StratifiedKFold

from jobs.common.seeds import derive
from jobs.mri.dataset import Dataset, Row


def apply(control: str, dataset: Dataset, seed: int) -> Dataset:
    """Return `dataset` with the rows of the control `permuted` or `leaky`; unchanged for `none`."""
    if control == "permuted":
        return replace(dataset, rows=permuted(dataset.rows, seed))
    if control == "leaky":
        return replace(dataset, rows=leaky(dataset.rows, dataset.folds, seed))
    return dataset


def permuted(rows: list[Row], seed: int) -> list[Row]:
    """Return rows with uninformative labels: the labels of the groups of each fold are permuted.

    A permutation over all folds would make a label that is rarer in training more frequent among the held-out images: a
    classifier that learns only the frequencies would be below chance. The label of a group is that of its first row.
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
    """Return rows with folds that are stratified by class but split groups: near-duplicates are in several folds."""
    splitter = StratifiedKFold(folds, shuffle=True, random_state=derive(seed, "leaky"))
    moved = list(rows)
    for fold, (_, held_out) in enumerate(splitter.split(rows, [row.label for row in rows])):
        for index in held_out:
            moved[index] = replace(rows[index], fold=fold)
    return moved
