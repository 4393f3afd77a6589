"""Inner splits: the training images of one outer fold as a dataset of their own, to choose a recipe on.

The outer fold's held-out images are not in it, and a generator trained on an inner split sees none of that split's
validation groups.
"""

import dataclasses
from collections import Counter

from jobs.common import keys
from jobs.common.seeds import derive
from jobs.common.step import Step
from jobs.mri import dataset
from jobs.mri.dataset import Dataset
from jobs.mri.folds import assign_folds

OUTER = 0  # fold whose training images are split again
FOLDS = 3  # parts they are split into: few, so that each has many images to judge by


def inner_dataset(outer: Dataset, seed: int = 0) -> Step:
    """Return the step of the inner dataset of `outer`, made unless it is in storage.

    Raises UserError if a class has too few groups for FOLDS parts.
    """
    rows = outer.training(OUTER)
    id = f"{outer.id}-inner"
    settings = {"image_size": outer.image_size, "folds": FOLDS, "outer": OUTER, "seed": seed}
    step = Step(outer.storage, keys.dataset(id), job="inner-split", settings=settings, inputs={"dataset": outer.digest})
    if step.finished():
        return step
    step.forget()
    folds = assign_folds([row.label for row in rows], [row.group for row in rows], FOLDS, derive(seed, "inner"))
    split = [dataclasses.replace(row, fold=int(fold)) for row, fold in zip(rows, folds, strict=True)]
    names = (f"images/{row.id}.png" for row in split)
    step.write_many(zip(names, outer.files(split), strict=True))
    step.write("index.csv", dataset.to_csv(split))
    counts = Counter(row.label for row in split)
    step.finish(images=len(split), labels={label: counts[label] for label in outer.labels}, quarantine={})
    return step
