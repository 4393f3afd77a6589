"""The report of a made-up run: its numbers against scikit-learn, its page as a reader gets it."""

import base64
import html.parser
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics as sk

from jobs import evaluate
from jobs.classifier import metrics
from jobs.classifier.predictions import Predictions, join_predictions, read_predictions, write_predictions
from jobs.common import keys
from jobs.common.errors import MachineError, UserError
from jobs.common.step import MANIFEST, Step, read_manifest
from jobs.common.storage import Storage, open_storage
from jobs.gan import grid
from jobs.report import exhibits
from jobs.report.page import caveats, headline
from tests import fake_run

TWO_NETWORKS = ("mobilenetv2", "resnet152v2")


def settings(storage: Storage, **more: Any) -> evaluate.EvaluateSettings:
    asked = {"networks": ("mobilenetv2",), "resamples": 100} | more
    return evaluate.EvaluateSettings(storage=storage.url, dataset=fake_run.DATASET, run=fake_run.RUN, **asked)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Storage, Step]:
    """Two classes, two networks, two seeds, with controls."""
    storage = open_storage(str(tmp_path_factory.mktemp("run")))
    fake_run.make(storage, images=24, networks=TWO_NETWORKS, seeds=2, controls=True)
    return storage, evaluate.run(settings(storage, networks=TWO_NETWORKS, seeds=2, controls=True))


@pytest.fixture(scope="module")
def report(made: tuple[Storage, Step]) -> Any:
    return json.loads(made[1].read("report.json"))


@pytest.fixture(scope="module")
def page(made: tuple[Storage, Step]) -> str:
    return made[1].read("report.html").decode()


def pooled(storage: Storage, network: str, regime: str, seed: int) -> Predictions:
    names = [keys.classifier(fake_run.RUN, fold, network, regime, seed) for fold in (0, 1)]
    return join_predictions([read_predictions(storage.read(f"{name}/predictions.csv")) for name in names])


def found(report: Any, metric: str, network: str = "mobilenetv2", regime: str = "real") -> Any:
    asked = {"metric": metric, "network": network, "regime": regime}
    return next(row for row in report["results"] if asked.items() <= row.items())


class Reader(html.parser.HTMLParser):
    """Collects tags and checks that they are closed in order."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


# ---- report.json ----------------------------------------------------------------------------------------------------


def test_results_are_the_means_over_seeds_of_scikit_learns_values(made: tuple[Storage, Step], report: Any) -> None:
    several = [pooled(made[0], "mobilenetv2", "real", seed) for seed in (0, 1)]
    accuracy = np.mean([sk.accuracy_score(x.truth, x.predicted) for x in several])
    aucs = []
    for x in several:
        for fold in "01":
            inside = np.array(x.folds) == fold
            aucs.append(sk.roc_auc_score(x.truth[inside], x.probabilities[inside, 1]))
    assert found(report, "accuracy")["value"] == pytest.approx(accuracy, abs=1e-6)
    assert found(report, "roc_auc")["value"] == pytest.approx(np.mean(aucs), abs=1e-6)
    assert len(report["results"]) == 2 * 3 * len(metrics.METRICS)
    for row in report["results"]:
        assert set(row) == {"regime", "network", "metric", "value", "low", "high", "n", "undefined"}
        assert row["n"] == 48
        assert row["low"] <= row["high"]


def test_comparisons_are_paired_and_each_pair_stands_once(made: tuple[Storage, Step], report: Any) -> None:
    pairs = {(*row["first"].values(), *row["second"].values()) for row in report["comparisons"]}
    assert len(pairs) == 2 * 3 + 3
    assert len(report["comparisons"]) == 3 * len(pairs)
    row = next(
        x
        for x in report["comparisons"]
        if x["first"] == {"network": "resnet152v2", "regime": "synthetic"}
        and x["second"] == {"network": "resnet152v2", "regime": "real"}
        and x["metric"] == "balanced_accuracy"
    )
    first, second = ([pooled(made[0], "resnet152v2", regime, s) for s in (0, 1)] for regime in ("synthetic", "real"))
    expected = metrics.paired_difference(second, first, "balanced_accuracy", 100, 0)
    assert (row["difference"], row["low"], row["high"]) == pytest.approx(expected, abs=1e-6)


def test_the_best_is_named_with_and_without_the_luck_of_the_choice(report: Any, page: str) -> None:
    selected = report["selected"]
    rows = [row for row in report["results"] if row["metric"] == "balanced_accuracy"]
    best = max(rows, key=lambda row: row["value"])
    assert {name: selected[name] for name in ("network", "regime", "value")} == {
        name: best[name] for name in ("network", "regime", "value")
    }
    assert (selected["candidates"], selected["n"]) == (6, 48)
    assert selected["low"] <= selected["corrected"] <= selected["high"]
    assert selected["luck"] == pytest.approx(selected["value"] - selected["corrected"], abs=2e-6)
    assert f"highest balanced accuracy of 6 classifiers, {100 * best['value']:.1f}" in Reader(page).words()


def test_cheap_controls_and_similarity_are_always_there(report: Any) -> None:
    controls = {(row["control"], row["metric"]): row for row in report["controls"]["results"]}
    assert controls["majority", "balanced_accuracy"]["value"] == 0.5
    assert controls["majority", "roc_auc"]["value"] == 0.5
    # The class can be seen from where the disc's spot lies, but not from the file.
    assert controls["nearest-pixels", "accuracy"]["value"] > 0.75
    assert controls["file-only", "accuracy"]["low"] < 0.5 < controls["file-only", "accuracy"]["high"]
    assert len(report["controls"]["beyond"]) == 6 * 3
    for curve in report["controls"]["similarity"]:
        assert [x["similarity"] for x in curve["bins"]] == sorted(x["similarity"] for x in curve["bins"])
        assert sum(x["n"] for x in curve["bins"]) == 48


def test_controls_are_checked_on_request(made: tuple[Storage, Step], report: Any) -> None:
    *permuted, leaky = report["controls"]["checks"]
    assert [check["metric"] for check in permuted] == ["balanced_accuracy", "roc_auc"]
    for check in permuted:
        assert (check["check"], check["network"], check["passed"]) == ("permuted", "mobilenetv2", True)
        assert check["low"] <= 0.5 <= check["high"]
        assert check["learned"] == pytest.approx(0.96)
    # So few images in groups of two are too few for so small a difference.
    assert (leaky["check"], leaky["metric"], leaky["passed"]) == ("leaky", "accuracy", None)
    honest = [pooled(made[0], "mobilenetv2", "real", seed) for seed in (0, 1)]
    shared = [honest[0].groups.count(group) > 1 for group in honest[0].groups]
    assert 0 < leaky["n"] == sum(shared) < 48
    assert leaky["expected"] == pytest.approx(np.mean([(x.truth == x.predicted)[shared] for x in honest]))


def test_without_two_images_of_a_group_no_split_leaks(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    fake_run.make(storage, images=4, regimes=("real",), controls=True)
    for key in storage.list(f"runs/{fake_run.RUN}"):
        prefix, _, name = key.rpartition("/")
        if name == "predictions.csv":
            said = read_predictions(storage.read(key))
            fake_run.replace_output(storage, prefix, name, write_predictions(said._replace(groups=said.ids)))
    step = evaluate.run(settings(storage, regimes=("real",), controls=True))
    assert {x["check"] for x in json.loads(step.read("report.json"))["controls"]["checks"]} == {"permuted"}
    assert "A leaky split could not be tested" in step.read("report.html").decode()


def test_nothing_follows_from_permuted_labels_that_were_not_learned(
    tmp_path: Path,
) -> None:
    storage = open_storage(str(tmp_path))
    fake_run.make(storage, images=20, regimes=("real",), controls=True)
    for fold in range(2):
        prefix = keys.classifier(fake_run.RUN, fold, "mobilenetv2", "real-permuted", 0)
        facts = (read_manifest(storage, prefix) or {})["facts"]
        fake_run.replace_manifest(storage, prefix, facts=facts | {"learned": 0.74})
    step = evaluate.run(settings(storage, regimes=("real",), controls=True))
    *permuted, _ = json.loads(step.read("report.json"))["controls"]["checks"]
    assert [check["passed"] for check in permuted] == [None, None]
    text = " ".join(step.read("report.html").decode().split())
    assert "permuted training labels is 74.0 %, less than the 75.0 % needed to detect a leak" in text


@pytest.mark.parametrize(
    ("permuted", "real", "leaky", "passed", "said"),
    [(0.0, 1.0, 9.0, True, 'class="tag pass">pass<'), (3.0, 3.0, 0.2, False, 'class="tag fail">fail<')],
)
def test_a_check_passes_or_fails_plainly(
    permuted: float,
    real: float,
    leaky: float,
    passed: bool,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    storage = open_storage(str(tmp_path))
    for regime, skill in (("real", real), ("real-permuted", permuted), ("real-leaky", leaky)):
        monkeypatch.setitem(fake_run.SKILL, regime, skill)
    fake_run.make(storage, images=20, regimes=("real",), controls=True)
    step = evaluate.run(settings(storage, regimes=("real",), controls=True))
    assert [x["passed"] for x in json.loads(step.read("report.json"))["controls"]["checks"]] == [passed] * 3
    assert step.read("report.html").decode().count(said) == 3


def test_the_documentation_names_every_field(report: Any) -> None:
    text = (Path(__file__).parents[1] / "docs" / "report.md").read_text()
    names = set(report) | set(report["dataset"]) | set(report["controls"])
    for rows in (report["results"], report["comparisons"], report["controls"]["checks"], report["quality"]):
        names |= {name for row in rows for name in row}
    names |= set(report["selected"])
    assert {name for name in names if f"`{name}`" not in text} == set()


def test_sentences_about_the_selection_are_merged(report: Any) -> None:
    assert report["selection"] == ["No image chose anything in 20 to 21 epochs. Real images changed no weight."]


# ---- report.html ----------------------------------------------------------------------------------------------------


def test_the_page_is_whole_and_asks_for_nothing_from_outside(page: str) -> None:
    tags = Reader(page).tags
    # A browser refuses all that would be loaded, run or sent, but pictures and styles inside the page.
    assert [attrs["content"] for tag, attrs in tags if "Content-Security-Policy" in attrs.values()] == [
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src 'unsafe-inline'"
    ]
    assert "http" not in page.replace("http-equiv", "")
    assert "@import" not in page
    assert "url(" not in re.sub(r"url\(#\w+\)", "", page)
    assert not {tag for tag, _ in tags} & {"script", "link", "iframe", "object", "base", "form"}
    assert all(attrs["src"].startswith("data:image/png;base64,") for tag, attrs in tags if tag == "img")  # type: ignore[union-attr]
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {attrs["href"] for tag, attrs in tags if tag == "a"}
    assert links <= {f"#{name}" for name in ids}


def test_the_example_in_docs_has_the_sections_of_a_report_and_is_small(page: str) -> None:
    example = Path(__file__).parents[1] / "docs" / "example-report.html"
    Reader(text := example.read_text())
    assert re.findall("<h2>.*</h2>", text) == re.findall("<h2>.*</h2>", page)
    assert example.stat().st_size < 1_500_000


def test_what_is_drawn_is_also_said(page: str) -> None:
    tags = Reader(page).tags
    assert all(attrs.get("aria-label") for tag, attrs in tags if tag == "svg")
    assert all("alt" in attrs for tag, attrs in tags if tag == "img")
    assert sum(tag == "svg" for tag, _ in tags) == 2 * 4 + 2 + 6
    assert sum(attrs.get("role") == "img" for tag, attrs in tags if tag == "div") == 4


def test_the_headline_says_the_result_in_a_sentence(made: tuple[Storage, Step], report: Any, page: str) -> None:
    text = Reader(page).words()
    row = found(report, "accuracy", regime="synthetic")
    assert "MobileNetV2, trained on synthetic images alone: accuracy " in text
    assert f"{100 * row['value']:.1f} % [{100 * row['low']:.1f}\N{EN DASH}{100 * row['high']:.1f}]" in text
    assert "on 48 held-out real images; trained on real images: " in text
    assert "Always predicting the larger class gives an accuracy of 50.0 %." in text
    assert made[1].facts["headline"][0].startswith("MobileNetV2")


def test_what_phantoms_taught_is_not_said_to_come_of_images(report: Any) -> None:
    phantoms = {"healthy": "no", "phantom_epochs": 1, "classifier_weights": "none"}
    recipe = report["recipe"] | {"train-classifier": report["recipe"]["train-classifier"] | phantoms}
    pretraining = {"job": "pretrain", "network": "mobilenetv2", "seconds": 9.0}
    drawn = report | {"recipe": recipe, "cost": [*report["cost"], pretraining]}
    assert "MobileNetV2, trained on phantoms and synthetic images alone: accuracy " in headline(drawn)[0]
    assert "another generator, pretraining, split" in " ".join(caveats(drawn))
    assert "another generator, split" in " ".join(caveats(report))


def test_the_page_tells_what_a_reader_must_know(page: str) -> None:
    text = Reader(page).words()
    for part in (
        "The files do not identify the patient",
        "No image chose anything in 20 to 21 epochs",
        "features of random, untrained networks",
        "“Positive” is yes",
        "no/notes<1>.png",
        "exact duplicate of yes/Y0.jpg",
        "suspicious",
        "not a medical device",
        "512.5 s",
        *("Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data"),
        *("Quantitative analyses", "Ethical considerations", "Caveats and recommendations"),
    ):
        assert part in text, part


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_progress_shows_every_class_of_a_class_conditional_generator(classes: int) -> None:
    cells = np.repeat(np.arange(1, classes + 1), 64 // classes).astype(np.uint8)
    images = np.broadcast_to(cells[:, None, None] * 50, (64, 8, 8))
    [(_, shown)] = exhibits.gan_training("all classes", [], [(1, grid.grid_png(images, 8))]).progress
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown.partition(",")[2]))))
    assert pixels.shape == (35, 35)
    assert set(np.unique(pixels)) == {0, *(50 * np.arange(1, classes + 1))}


def test_many_strange_classes_stay_whole(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    labels = sorted(["$x_1$", "<b>bold</b>", 'say "hi"', "größe", *(f"class {i:02d}" for i in range(8))])
    fake_run.make(storage, labels, images=6, regimes=("synthetic",))
    step = evaluate.run(settings(storage, regimes=("synthetic",)))
    page = step.read("report.html").decode()
    text = Reader(page).words()
    assert all(label in text for label in labels)
    assert "<b>bold</b>" not in page
    assert "Few independent groups (under 10) in" in text
    report = json.loads(step.read("report.json"))
    assert report["positive"] is None
    assert len(report["confusion"][0]["matrix"]) == len(labels)
    sensitivity, balanced = (
        found(report, metric, regime="synthetic")["value"] for metric in ("sensitivity", "balanced_accuracy")
    )
    assert sensitivity == balanced


@pytest.mark.parametrize(
    ("skill", "says"),
    [
        (30.0, "With 16 groups the true error rate may still be 18.8"),
        (None, "MobileNetV2 (real) predicted the same class for every image"),
    ],
)
def test_intervals_without_width_are_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skill: float | None, says: str
) -> None:
    storage = open_storage(str(tmp_path))
    monkeypatch.setitem(fake_run.SKILL, "real", skill or 0.0)
    fake_run.make(storage, images=12, regimes=("real",))
    for fold in (0, 1) if skill is None else ():
        cell = keys.classifier(fake_run.RUN, fold, "mobilenetv2", "real", 0)
        predictions = read_predictions(storage.read(f"{cell}/predictions.csv"))
        always = np.tile([0.4, 0.6], (len(predictions.ids), 1))
        changed = write_predictions(predictions._replace(probabilities=always))
        fake_run.replace_output(storage, cell, "predictions.csv", changed)
    step = evaluate.run(settings(storage, regimes=("real",)))
    assert says in Reader(step.read("report.html").decode()).words()


def test_real_images_alone_need_no_generators(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    fake_run.make(storage, images=12, regimes=("real",))
    step = evaluate.run(settings(storage, regimes=("real",)))
    page = step.read("report.html").decode()
    Reader(page)
    assert "Synthetic and real images" not in page
    assert json.loads(step.read("report.json"))["quality"] == []


# ---- the step -------------------------------------------------------------------------------------------------------


def test_a_second_run_does_nothing_and_a_repeated_one_gives_the_same_bytes(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    fake_run.make(storage, images=8, regimes=("synthetic",))
    asked = settings(storage, regimes=("synthetic",))
    step = evaluate.run(asked)
    first = [step.read(name) for name in ("report.json", "report.html")]
    assert evaluate.run(asked).reused
    storage.delete(f"{step.prefix}/{MANIFEST}")
    again = evaluate.run(asked)
    assert not again.reused
    assert [again.read(name) for name in ("report.json", "report.html")] == first


def test_what_is_missing_or_does_not_belong_is_named(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    with pytest.raises(UserError, match="no dataset d1"):
        evaluate.run(settings(storage))
    fake_run.make(storage, images=8)
    with pytest.raises(UserError, match="fold-0/classifiers/mobilenetv2-real-permuted-seed-0 is missing: run train-"):
        evaluate.run(settings(storage, controls=True))
    cell = keys.classifier(fake_run.RUN, 1, "mobilenetv2", "real", 0)
    kept = {name: storage.read(f"{cell}/{name}") for name in (MANIFEST, "predictions.csv")}
    fake_run.replace_manifest(storage, cell, inputs={"dataset": "0"})
    with pytest.raises(UserError, match="seed-0 was trained on another dataset than d1"):
        evaluate.run(settings(storage))
    storage.write(f"{cell}/{MANIFEST}", kept[MANIFEST])
    fewer = b"\n".join(kept["predictions.csv"].splitlines()[:-1]) + b"\n"
    fake_run.replace_output(storage, cell, "predictions.csv", fewer)
    with pytest.raises(UserError, match="for other images"):
        evaluate.run(settings(storage))
    storage.write(f"{cell}/{MANIFEST}", kept[MANIFEST])
    with pytest.raises(MachineError, match=r"predictions\.csv is damaged: delete .*-real-seed-0 and run its job again"):
        evaluate.run(settings(storage))
    storage.delete(f"{cell}/predictions.csv")
    with pytest.raises(MachineError, match=r"predictions\.csv is missing: delete .*-real-seed-0 and run its job again"):
        evaluate.run(settings(storage))
    storage.write(f"{cell}/predictions.csv", kept["predictions.csv"])
    storage.write(f"{keys.synthetic(fake_run.RUN, 0, 'no')}/quality.json", b"{")
    with pytest.raises(MachineError, match=r"quality\.json is damaged"):
        evaluate.run(settings(storage))
    assert not storage.exists(f"{keys.report(fake_run.RUN)}/{MANIFEST}")


def test_a_folder_gets_the_report_too_whether_it_was_there_or_not(made: tuple[Storage, Step], tmp_path: Path) -> None:
    storage, step = made
    asked = settings(storage, networks=TWO_NETWORKS, seeds=2, controls=True, report_folder=str(tmp_path / "here"))
    assert evaluate.run(asked).reused
    assert {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()} == {
        name: step.read(name) for name in ("report.json", "report.html")
    }
