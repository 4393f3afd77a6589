"""Predictions of a challenger and a champion on the same images, without models that were trained on the image.

The images are those of the challenger's dataset, and its predictions are out of fold. The champion's prediction for an
image is fair if it comes from models that were trained neither on the image nor on any image of its group:

- The champion's dataset contains the same image: the out-of-fold prediction.
- It contains other images of the group, or near-duplicates, all held out in one fold: the mean of that fold's models.
- It contains no image of the group: the mean of all models.
- It contains images of the group in several folds, so that each model was trained on some: no prediction is fair, and
  the image is excluded for both. This also applies to the same image if its group has become larger since then.

An ensemble is more accurate than a single model, so the champion has a small advantage on images that are new to it.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from typing import NamedTuple

import numpy as np

from jobs.classifier.champion import Candidate
from jobs.classifier.ensemble import mean_prediction, out_of_fold, predict_by_folds
from jobs.classifier.predictions import Predictions, take
from jobs.common.errors import UserError
from jobs.common.storage import Storage


class Comparison(NamedTuple):
    """Predictions on the same images: one or more for each side, the input of metrics.paired_difference.

    images: numbers of images: `compared`; of these, with champion predictions `own_out_of_fold`, of `fold_models` and
    of the `ensemble`; `left_out`: excluded.
    """

    challenger: list[Predictions]
    champion: list[Predictions]
    images: dict[str, int]


def on_dataset(
    storage: Storage,
    challenger: Candidate,
    champion: Candidate,
    kin: Mapping[str, Set[int]],
    pixels: Callable[[list[str]], np.ndarray],
) -> Comparison:
    """Return the predictions of both for each seed on the images of the challenger's dataset.

    kin: for each image id, the folds of the champion's dataset in which images of the same group are held out.
    pixels: returns the images of some ids at the champion's image size, uint8 [n, size, size]. It is called before a
        model is loaded, if one is needed.

    Raises UserError if predictions are missing, or fewer than two classes have images to compare.
    """
    mine = [out_of_fold(storage, challenger, seed) for seed in challenger.seeds]
    known = [out_of_fold(storage, champion, seed) for seed in champion.seeds]
    left = np.flatnonzero([len(kin[id]) < 2 for id in mine[0].ids])
    lost = len(kin) - len(left)
    if len(set(mine[0].truth[left])) < 2:
        raise UserError(
            f"for {lost} of the {len(kin)} images of dataset {challenger.dataset}, all models of the champion were "
            "trained on images of the same group; the others are of fewer than two classes: compare on other images "
            "with --test FOLDER, or use another --name for this dataset"
        )
    mine = [take(one, left) for one in mine]
    own = set(known[0].ids)
    new = [id for id in mine[0].ids if id not in own]
    folds = [sorted(kin[id]) or range(champion.folds) for id in new]
    images = pixels(new) if new else None
    theirs = []
    for seed, one in zip(champion.seeds, known, strict=True):
        by_id = dict(zip(one.ids, one.probabilities, strict=True))
        if images is not None:
            by_id |= dict(zip(new, predict_by_folds(storage, champion, seed, images, folds), strict=True))
        theirs.append(mine[0]._replace(probabilities=np.stack([by_id[id] for id in mine[0].ids])))
    of_fold = sum(bool(kin[id]) for id in new)
    return Comparison(mine, theirs, _counts(len(left) - len(new), of_fold, len(new) - of_fold, lost))


def on_test_set(
    storage: Storage,
    challenger: Candidate,
    champion: Candidate,
    sources: Sequence[str],
    truth: Sequence[str],
    pixels: Callable[[int], np.ndarray],
    left_out: int,
) -> Comparison:
    """Return the predictions of both ensembles for images that neither was trained on.

    sources, truth: file and class of each image; a slice of a volume is `file#number`.
    pixels: returns the images at a size, uint8 [n, size, size].
    left_out: images of the test set that are not among these.
    """
    labels = challenger.labels
    about = Predictions(
        ids=list(sources),
        groups=[source.partition("#")[0] for source in sources],
        folds=["test"] * len(sources),
        labels=labels,
        truth=np.array([labels.index(label) for label in truth]),
        probabilities=np.empty((0, len(labels))),
    )
    mine, theirs = (
        about._replace(probabilities=mean_prediction(storage, one, pixels(one.image_size)))
        for one in (challenger, champion)
    )
    return Comparison([mine], [theirs], _counts(0, 0, len(sources), left_out))


def _counts(own_out_of_fold: int, fold_models: int, ensemble: int, left_out: int) -> dict[str, int]:
    return {
        "compared": own_out_of_fold + fold_models + ensemble,
        "own_out_of_fold": own_out_of_fold,
        "fold_models": fold_models,
        "ensemble": ensemble,
        "left_out": left_out,
    }
