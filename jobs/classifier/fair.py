"""Predictions of a challenger and a champion on the same images, without models that were trained on the image.

The images are those of the challenger's dataset, and its predictions are out of fold. The champion's prediction for an
image is fair if it comes from models that were trained neither on the image nor on anything of its group:

- The champion's dataset contains the same image: the out-of-fold prediction.
- It contains other images of the group, or near-duplicates, all held out in one fold: the mean of that fold's models.
- It contains no image of the group: the mean of all models.
- It contains images of the group in several folds, so that each model was trained on some: no prediction is fair, and
  the image is excluded for both. This also applies to the same image if its group has become larger since then.

An ensemble is more accurate than a single model, so the champion has a small advantage on images that are new to it.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jobs.classifier.champion import Candidate
from jobs.classifier.ensemble import out_of_fold, predict, predict_by_folds
from jobs.classifier.predictions import Predictions, take
from jobs.common.errors import UserError
from jobs.common.storage import Storage
from jobs.mri.dataset import open_dataset
from jobs.mri.overlap import folds_of_kin, resized
from jobs.mri.testset import TestSet, unseen


class Comparison(NamedTuple):
    """Predictions on the same images: one or more for each side, the input of metrics.compare.

    images: numbers of images: `compared`; of these, with champion predictions `own_out_of_fold`, of `fold_models` and
    of the `ensemble`; `left_out`: excluded.
    """

    challenger: list[Predictions]
    champion: list[Predictions]
    images: dict[str, int]


def on_dataset(storage: Storage, challenger: Candidate, champion: Candidate, ready: Callable[[], object]) -> Comparison:
    """Return both sides' predictions for each seed on the images of the challenger's dataset.

    `ready` is called before a model is loaded. No model is loaded if both have the same dataset. Raises UserError if a
    dataset or predictions are missing, or fewer than two classes have images to compare.
    """
    mine = [out_of_fold(storage, challenger, seed) for seed in challenger.seeds]
    known = [out_of_fold(storage, champion, seed) for seed in champion.seeds]
    if challenger.dataset == champion.dataset:
        return Comparison(mine, known, _counted(own_out_of_fold=len(mine[0].ids)))

    dataset = open_dataset(storage, challenger.dataset)
    kin = folds_of_kin(dataset, open_dataset(storage, champion.dataset))
    left = np.flatnonzero([len(kin[id]) < 2 for id in mine[0].ids])
    lost = len(kin) - len(left)
    if len(set(mine[0].truth[left])) < 2:
        raise UserError(
            f"for {lost} of the {len(kin)} images of dataset {dataset.id}, all models of the champion were trained on "
            "images of the same group; the others are of fewer than two classes: compare on other images with --test "
            "FOLDER, or use another --name for this dataset"
        )
    mine = [take(one, left) for one in mine]

    own = set(known[0].ids)
    asked = [id for id in mine[0].ids if id not in own]
    folds = [sorted(kin[id]) or list(range(champion.folds)) for id in asked]
    theirs = []
    if asked:
        ready()
        rows = {row.id: row for row in dataset.rows}
        images = resized(dataset.pixels([rows[id] for id in asked]), champion.image_size)
    for seed, one in zip(champion.seeds, known, strict=True):
        said = dict(zip(one.ids, one.probabilities, strict=True))
        if asked:
            said |= dict(zip(asked, predict_by_folds(storage, champion, seed, images, folds), strict=True))
        theirs.append(mine[0]._replace(probabilities=np.stack([said[id] for id in mine[0].ids])))
    of_fold = sum(bool(kin[id]) for id in asked)
    return Comparison(
        mine,
        theirs,
        _counted(
            own_out_of_fold=len(left) - len(asked),
            fold_models=of_fold,
            ensemble=len(asked) - of_fold,
            left_out=lost,
        ),
    )


def on_test_set(
    storage: Storage, challenger: Candidate, champion: Candidate, test: TestSet, ready: Callable[[], object]
) -> Comparison:
    """Return both ensembles' predictions for the test images that are not near-duplicates of images in the datasets.

    `ready` is called before a model is loaded. Raises UserError if a dataset is missing, or fewer than two classes
    have images left.
    """
    datasets = [open_dataset(storage, id) for id in sorted({challenger.dataset, champion.dataset})]
    left = unseen(test, datasets)
    ready()
    labels = challenger.labels
    sides = [
        Predictions(
            ids=left.sources,
            groups=[source.partition("#")[0] for source in left.sources],
            folds=["test"] * len(left.sources),
            labels=labels,
            truth=np.array([labels.index(label) for label in left.labels]),
            probabilities=predict(storage, one, left.pixels(one.image_size)),
        )
        for one in (challenger, champion)
    ]
    lost = len(test.sources) - len(left.sources)
    return Comparison([sides[0]], [sides[1]], _counted(ensemble=len(left.sources), left_out=lost))


def _counted(own_out_of_fold: int = 0, fold_models: int = 0, ensemble: int = 0, left_out: int = 0) -> dict[str, int]:
    return {
        "compared": own_out_of_fold + fold_models + ensemble,
        "own_out_of_fold": own_out_of_fold,
        "fold_models": fold_models,
        "ensemble": ensemble,
        "left_out": left_out,
    }
