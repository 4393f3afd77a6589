"""Inner splits: a dataset of the training images of one outer fold, for the choice of a recipe.

It does not contain the held-out images of the outer fold. As in any dataset, no group is in two splits.
"""

import dataclasses
from collections import Counter

from jobs.common import keys, shards
from jobs.common.seeds import derive
from jobs.common.step import Step
from jobs.mri import dataset
from jobs.mri.dataset import Dataset
from jobs.mri.folds import assign_folds

OUTER = 0  # the fold whose training images are split
FOLDS = 3  # the number of splits: few, so that each has many held-out images


def inner_dataset(outer: Dataset, seed: int = 0) -> Step:
    """Return the step of the inner dataset of `outer`, which is made unless it is in storage.

    Raises UserError if a class has too few groups for FOLDS splits.
    """
    rows = outer.training(OUTER)
    id = f"{outer.id}-inner"
    settings = {"image_size": outer.image_size, "folds": FOLDS, "outer": OUTER, "seed": seed}
    step = Step(outer.storage, keys.dataset(id), job="inner-split", settings=settings, inputs={"dataset": outer.digest})
    if step.finished():
        return step
    if not step.take():
        return step
    folds = assign_folds([row.label for row in rows], [row.group for row in rows], FOLDS, derive(seed, "inner"))
    split = [dataclasses.replace(row, fold=int(fold)) for row, fold in zip(rows, folds, strict=True)]
    shards.write(step, "images", outer.images.read(keys.image(row.id) for row in split))
    step.write("index.csv", dataset.rows_to_csv(split))
    counts = Counter(row.label for row in split)
    step.finish(images=len(split), labels={label: counts[label] for label in outer.labels}, quarantine={})
    return step
