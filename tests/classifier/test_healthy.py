"""The class without lesions is found by its name, or said not to be."""

import logging

import pytest

from jobs.classifier.healthy import by_name, resolve, resolved
from jobs.common.errors import UserError
from jobs.settings import TrainClassifierSettings


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (["no", "yes"], "no"),
        (["glioma", "meningioma", "notumor", "pituitary"], "notumor"),
        (["glioma_tumor", "no_tumor"], "no_tumor"),
        (["Tumour", "No Tumour"], "No Tumour"),
        (["NORMAL", "stroke"], "NORMAL"),
        (["lesion", "no-lesion"], "no-lesion"),
        (["healthy", "lesion"], "healthy"),
        (["Controls", "patients"], "Controls"),
        (["negative", "positive"], "negative"),
        # None of them, or more than one.
        (["a", "b"], None),
        (["abnormal", "unhealthy", "nothing"], None),
        (["no", "normal", "yes"], None),
        ([], None),
    ],
)
def test_the_class_without_lesions_is_found_by_its_name(labels: list[str], found: str | None) -> None:
    assert by_name(labels) == found


def test_what_auto_means_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert resolve("auto", ["no", "yes"]) == "no"
    assert caplog.messages == ["class without lesions: no (from its name; --healthy sets another class)"]


def test_where_no_name_tells_a_warning_names_the_setting(caplog: pytest.LogCaptureFixture) -> None:
    assert resolve("auto", ["a", "b"]) == ""
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "(of a, b)" in record.message and "--healthy" in record.message


def test_what_is_named_wins_and_must_be_a_class(caplog: pytest.LogCaptureFixture) -> None:
    assert resolve("yes", ["no", "yes"]) == "yes"
    assert resolve("auto", ["auto", "no"]) == "auto"
    assert resolve("", ["no", "yes"]) == resolve("off", ["no", "yes"]) == ""
    assert resolve("off", ["on", "off"]) == "off"
    assert caplog.messages == []


@pytest.mark.parametrize("asked", ["no", "fine"])
def test_what_is_no_class_is_refused_with_the_way_to_switch_phantoms_off(asked: str) -> None:
    with pytest.raises(
        UserError, match=f"there is no class '{asked}': use one of a, b, or off to train without phantoms$"
    ):
        resolve(asked, ["a", "b"])


def test_what_yaml_makes_of_no_and_off_is_refused_unless_it_is_a_class() -> None:
    with pytest.raises(
        UserError, match=r"no class 'false' \(YAML reads no and off without quotes as false: write them in"
    ):
        resolve("false", ["no", "yes"])
    assert resolve("false", ["false", "true"]) == "false"


@pytest.mark.parametrize(
    ("given", "epochs", "rate"),
    [
        ({"healthy": "no"}, 8, 1e-3),
        ({"healthy": "off"}, 12, 3e-3),
        ({"healthy": "no", "phantom_epochs": 0}, 12, 1e-3),
        ({"healthy": "no", "classifier_weights": "imagenet"}, 12, 1e-3),
        ({"healthy": "off", "classifier_learning_rate": 0.1}, 12, 0.1),
        ({"healthy": "off", "classifier_epochs": 4, "classifier_learning_rate": 1e-3}, 4, 1e-3),
    ],
)
def test_epochs_and_learning_rate_fit_the_initial_weights_unless_they_are_given(
    given: dict, epochs: int, rate: float
) -> None:
    found = resolved(TrainClassifierSettings(dataset="d", run="r", fold=0, **given), ["no", "yes"])
    assert (found.classifier_epochs, found.classifier_learning_rate) == (epochs, rate)
    assert resolved(found, ["no", "yes"]) == found
