"""Uninformative labels, and a split that divides groups."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from jobs.mri import negative_controls
from jobs.mri.dataset import Row


def test_permuted_labels_go_by_group_and_say_nothing() -> None:
    rows = [
        Row(f"{i:03d}", "", "ab"[i % 3 > 0], f"g{i // 2}", i // 2 % 2, "PNG", 1, 1, 1, 0.0)
        for i in range(600)
        if i % 6 < 4 or i % 2
    ]
    of_group = {row.group: row.label for row in reversed(rows)}
    agreeing = []
    for seed in range(20):
        other = negative_controls.permuted(rows, seed)
        changed = {row.group: row.label for row in other}
        assert [replace(row, label="") for row in other] == [replace(row, label="") for row in rows]
        assert {(row.group, row.label) for row in other} == set(changed.items())
        folds = {row.group: row.fold for row in rows}
        assert Counter((folds[group], label) for group, label in changed.items()) == Counter(
            (folds[group], label) for group, label in of_group.items()
        )
        agreeing.append(np.mean([changed[group] == label for group, label in of_group.items()]))
    share = np.mean([label == "a" for label in of_group.values()])
    assert np.mean(agreeing) == pytest.approx(share**2 + (1 - share) ** 2, abs=0.03)


def test_a_leaky_split_tears_groups_apart_and_holds_each_image_out_once() -> None:
    rows = [Row(f"{i:03d}", "", "ab"[i % 2], f"g{i // 4}-{i % 2}", i // 4 % 2, "PNG", 1, 1, 1, 0.0) for i in range(100)]
    leaky = negative_controls.leaky(rows, 2, seed=0)
    assert [replace(row, fold=0) for row in leaky] == [replace(row, fold=0) for row in rows]
    folds_of: dict[str, set[int]] = {}
    for row in leaky:
        folds_of.setdefault(row.group, set()).add(row.fold)
    assert sum(len(folds) > 1 for folds in folds_of.values()) > len(folds_of) / 3
    counts = Counter((row.label, row.fold) for row in leaky)
    assert max(counts.values()) - min(counts.values()) <= 1
