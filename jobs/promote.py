"""Report and champion -> the champion stays or changes.

What is promoted is a recipe (network, regime and settings) with its final model. The run's best recipe challenges the
best recipe there ever was. Both are judged on the held-out images of the run's dataset, or with --test on a folder
that neither has seen, and the challenger wins unless it is worse by more than the margin. champions/<name>.json holds
the champion, the best ever and every decision with its reason.
"""

import datetime
import json
import logging
from collections.abc import Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

from jobs.classifier.champion import Candidate, Record, parse_record, stored_record, to_json
from jobs.common import activity, keys
from jobs.common.errors import MachineError, UserError
from jobs.common.settings import NAME, ExecutionSettings, ReadingSettings, StorageSettings, setting
from jobs.common.step import digest, manifest_digest, read_manifest, read_output
from jobs.common.storage import Storage, open_storage

if TYPE_CHECKING:
    from jobs.classifier.predictions import Predictions

log = logging.getLogger("mrigan.promote")

METRIC = "balanced_accuracy"
RESAMPLES = 2000
# These say which classifier it is, where it lies and on what machine it was made, not how.
PLACES = keys.PLACES | {"run", "dataset"} | ExecutionSettings.model_fields.keys()


class PromotionSettings(ReadingSettings):
    """The rules of promotion."""

    promote_margin: float = setting(
        0.02, "balanced accuracy by which a challenger may be worse than the best ever and still win", ge=0, le=1
    )
    final_model: Literal["ensemble", "refit"] = setting(
        "ensemble", "what predicts: the mean of the folds' models, or one trained on all images"
    )
    test: str = setting("", "folder of class folders to judge on, instead of the held-out folds", result=False)


class PromoteSettings(PromotionSettings, StorageSettings, ExecutionSettings):
    """What promote can be told."""

    dataset: str = setting(..., "dataset's id", result=False, pattern=NAME)
    run: str = setting(..., "run whose best classifier is the challenger", result=False, pattern=NAME)
    name: str = setting(..., "dataset's name: the record is champions/NAME.json", result=False, pattern=NAME)
    rival_run: str = setting(
        "",
        "run on this dataset by the best recipe ever, where it differs from the challenger's",
        result=False,
        pattern=f"^$|{NAME}",
    )
    seed: int = setting(0, "seed of the interval's resamples", ge=0)


def run(settings: PromoteSettings) -> None:
    """Decide, store the decision with its reason, and say it.

    A decision that was made before is not made again. Raises UserError if there is nothing to judge by, MachineError
    if another promotion wrote the record meanwhile (then the same command judges anew).
    """
    storage = open_storage(settings.storage)
    challenger = best_candidate(storage, settings.dataset, settings.run)
    stored = stored_record(storage, settings.name)
    record = parse_record(stored, settings.name) if stored else None
    question = _question(storage, settings, challenger)
    if record and record.answered(question):
        log.info("champion %s: this run was judged before, nothing changes", settings.name)
        activity.note(storage, settings.name, "succeeded")
        return
    check(storage, settings.name, challenger.labels, settings.test)
    challenger = challenger._replace(models=final_models(storage, challenger, settings.final_model))
    decision: dict[str, Any] = {
        "question": question,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    decision |= _judge(storage, settings, challenger, record.best if record else None)
    if record is None:
        record = Record(challenger, challenger, [])
    changed = Record(
        champion=challenger if decision["won"] else record.champion,
        best=challenger if decision["difference"] >= 0 else record.best,
        decisions=[*record.decisions, decision],
    )
    if not storage.write_if(keys.champion(settings.name), to_json(changed), stored):
        raise MachineError(f"another promotion changed champion {settings.name} meanwhile: run promote again")
    log.info("champion %s: %s", settings.name, decision["reason"])
    activity.note(storage, settings.name, "succeeded")


def judged(settings: PromoteSettings) -> bool:
    """Return whether this very promotion was decided before. Raises UserError if the run has no report."""
    storage = open_storage(settings.storage)
    stored = stored_record(storage, settings.name)
    if stored is None:
        return False
    challenger = best_candidate(storage, settings.dataset, settings.run)
    return parse_record(stored, settings.name).answered(_question(storage, settings, challenger))


def best_candidate(storage: Storage, dataset: str, run: str) -> Candidate:
    """Return the network and regime of highest balanced accuracy in the run's report.

    Raises UserError if the run has no report.
    """
    manifest = read_manifest(storage, keys.report(run))
    if manifest is None:
        raise UserError(f"run {run} has no report: run mrigan evaluate first")
    report = json.loads(read_output(storage, keys.report(run), manifest, "report.json"))
    asked = manifest["settings"]
    values = {(row["network"], row["regime"]): row["value"] for row in report["results"] if row["metric"] == METRIC}
    pairs = [(network, regime) for network in asked["networks"] for regime in asked["regimes"]]
    network, regime = max(pairs, key=lambda pair: values[pair])
    data = _manifest(storage, keys.dataset(dataset))
    folds, labels = data["settings"]["folds"], sorted(data["facts"]["labels"])
    seeds = [asked["seed"] + number for number in range(asked["seeds"])]
    recipe = _recipe_settings(storage, dataset, run, network, regime, seeds[0])
    return Candidate(network, regime, recipe, labels, dataset, run, folds, seeds, [])


def check(storage: Storage, name: str, labels: Sequence[str], test: str) -> None:
    """Raise UserError if promoting a classifier of `labels` is bound to fail: better known before training."""
    stored = stored_record(storage, name)
    known = parse_record(stored, name).champion.labels if stored else list(labels)
    if known != list(labels):
        raise UserError(
            f"champion {name} tells {', '.join(known)} apart, this dataset {', '.join(labels)}: "
            "give this dataset another --name"
        )
    if test:
        from jobs.mri.testset import read_test_set

        read_test_set(test, labels)


def rival(settings: PromoteSettings) -> Candidate | None:
    """Return the best recipe ever if it has yet to be trained on the challenger's dataset, to be compared there."""
    storage = open_storage(settings.storage)
    stored = stored_record(storage, settings.name)
    if stored is None or settings.test:
        return None
    record = parse_record(stored, settings.name)
    challenger = best_candidate(storage, settings.dataset, settings.run)
    if record.answered(_question(storage, settings, challenger)) or record.best.recipe == challenger.recipe:
        return None
    return None if record.best.dataset == challenger.dataset else record.best


def _question(storage: Storage, settings: PromoteSettings, challenger: Candidate) -> dict[str, Any]:
    """Return what a decision answers: asked again, it is not decided again."""
    question = settings.result() | {"challenger": [challenger.run, *challenger.recipe], "seeds": challenger.seeds}
    # A run's name does not tell that its classifiers were trained anew.
    trained = _classifiers(challenger, range(challenger.folds), challenger.seeds)
    question["classifiers"] = digest([manifest_digest(_manifest(storage, prefix)) for prefix in trained])
    if settings.test:
        from jobs.mri.testset import fingerprint

        question["test"] = fingerprint(settings.test)
    return json.loads(json.dumps(question))


def final_models(storage: Storage, candidate: Candidate, final_model: str) -> list[str]:
    """Return the prefixes of the classifiers that predict for a candidate: each fold's, or those of all images.

    Raises UserError if one of them is not there.
    """
    folds = range(candidate.folds) if final_model == "ensemble" else ["all"]
    prefixes = _classifiers(candidate, folds, candidate.seeds)
    for prefix in prefixes:
        _manifest(storage, prefix)
    return prefixes


def _classifiers(candidate: Candidate, folds: Iterable[int | str], seeds: Iterable[int]) -> list[str]:
    """Return the prefixes of a candidate's classifiers, fold by fold."""
    return [
        keys.classifier(candidate.run, fold, candidate.network, candidate.regime, seed)
        for fold, seed in product(folds, seeds)
    ]


def _manifest(storage: Storage, prefix: str) -> dict[str, Any]:
    manifest = read_manifest(storage, prefix)
    if manifest is None:
        raise UserError(
            f"{storage.url.rstrip('/')}/{prefix} is not finished: run the pipeline with these settings first"
        )
    return manifest


def _recipe_settings(storage: Storage, dataset: str, run: str, network: str, regime: str, seed: int) -> dict[str, Any]:
    """Return the settings that made a classifier, gathered from the manifests of the steps behind it."""
    made_of = [keys.dataset(dataset), keys.classifier(run, 0, network, regime, seed)]
    if regime != "real":
        label = next(iter(_manifest(storage, keys.dataset(dataset))["facts"]["labels"]))
        synthetic = keys.synthetic(run, 0, label)
        gan = keys.gan(run, 0, label)
        if read_manifest(storage, gan) is None:
            gan = keys.gan(run, 0, keys.CLASS_CONDITIONAL)
        made_of += [gan, synthetic]
    settings: dict[str, Any] = {}
    for prefix in made_of[1:]:
        settings |= _manifest(storage, prefix)["settings"]
    settings["image_size"] = _manifest(storage, made_of[0])["settings"]["image_size"]
    return {name: value for name, value in sorted(settings.items()) if name not in PLACES}


def _judge(
    storage: Storage, settings: PromoteSettings, challenger: Candidate, best: Candidate | None
) -> dict[str, Any]:
    """Return the decision: won or not, why, and the figures behind it."""
    from jobs.classifier import metrics

    if best is None:
        return {"won": True, "difference": 0.0, "reason": f"{_called(challenger)} is the first champion"}
    if settings.test:
        mine, theirs, images = _on_test_set(storage, settings, challenger, best)
        where = f"{images} test images that neither has seen"
    else:
        mine = [pooled(storage, challenger, seed) for seed in challenger.seeds]
        rival = _on_dataset(settings, challenger, best)
        theirs = [pooled(storage, rival, seed) for seed in rival.seeds]
        where = f"the {len(mine[0].ids)} held-out images of dataset {challenger.dataset}"
    difference, low, high = metrics.compare(mine, theirs, METRIC, RESAMPLES, settings.seed)
    scores = [sum(metrics.score(one, METRIC) for one in several) / len(several) for several in (mine, theirs)]
    won = difference >= -settings.promote_margin
    anew = best.recipe == challenger.recipe and best.dataset != challenger.dataset
    again = ", the same recipe trained anew" if anew else ""
    reason = (
        f"{_called(challenger)} of run {challenger.run} {'wins' if won else 'loses'}: balanced accuracy "
        f"{scores[0]:.3f} against {scores[1]:.3f} of the best ever, {_called(best)}{again}, on {where}; difference "
        f"{difference:+.3f} [{low:+.3f}, {high:+.3f}], margin {settings.promote_margin}"
    )
    figures = {"difference": difference, "low": low, "high": high, "challenger": scores[0], "best": scores[1]}
    return {"won": won, "reason": reason, "judged_on": where} | figures


def _called(candidate: Candidate) -> str:
    return f"{candidate.network} {candidate.regime}"


def _on_dataset(settings: PromoteSettings, challenger: Candidate, best: Candidate) -> Candidate:
    """Return the best recipe as carried out on the challenger's dataset."""
    if best.dataset == challenger.dataset:
        return best
    if best.recipe == challenger.recipe:
        return challenger
    if settings.rival_run:
        return best._replace(
            dataset=challenger.dataset, run=settings.rival_run, folds=challenger.folds, seeds=challenger.seeds
        )
    raise UserError(
        f"the best recipe ever ({_called(best)}) was never trained on dataset {challenger.dataset}: "
        "mrigan pipeline does so, or name that run with --rival-run"
    )


def pooled(storage: Storage, candidate: Candidate, seed: int) -> "Predictions":
    """Return a candidate's predictions on all held-out images, the folds pooled. Raises UserError if some lack."""
    from jobs.classifier.predictions import join_predictions, read_predictions

    prefixes = _classifiers(candidate, range(candidate.folds), [seed])
    return join_predictions(
        [
            read_predictions(read_output(storage, prefix, _manifest(storage, prefix), "predictions.csv"))
            for prefix in prefixes
        ]
    )


def _on_test_set(
    storage: Storage, settings: PromoteSettings, challenger: Candidate, best: Candidate
) -> tuple[list["Predictions"], list["Predictions"], int]:
    """Return what both candidates' models say about the test images that neither was trained on, and how many."""
    from jobs.common.hardware import configure
    from jobs.mri.dataset import open_dataset
    from jobs.mri.testset import read_test_set, unseen

    datasets = [open_dataset(storage, id) for id in sorted({challenger.dataset, best.dataset})]
    labels = datasets[0].labels
    test = read_test_set(settings.test, labels, settings.volume)
    left = unseen(test, datasets)
    log.info(
        "test set: %d images, %d of them left out as near-duplicates",
        len(test.labels),
        len(test.labels) - len(left.labels),
    )
    configure(settings)

    import numpy as np

    from jobs.classifier.champion import predict
    from jobs.classifier.predictions import Predictions

    truth = np.array([labels.index(label) for label in left.labels])
    groups = [source.partition("#")[0] for source in left.sources]
    mine, theirs = (
        Predictions(
            left.sources,
            groups,
            ["test"] * len(groups),
            list(labels),
            truth,
            predict(storage, one, left.pixels(one.settings["image_size"])),
        )
        for one in (challenger, best)
    )
    return [mine], [theirs], len(truth)
