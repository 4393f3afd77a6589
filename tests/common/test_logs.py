"""Logs: text for people, JSON for machines, and no secret in either."""

import json
import logging

import pytest

from jobs.common import logs
from jobs.train_gan import TrainGanSettings


@pytest.fixture(autouse=True)
def restored() -> object:
    """Put the loggers back: pytest has handlers of its own."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_an_event_is_one_line_of_json_with_where_the_work_stands(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("json")
    settings = TrainGanSettings(dataset="d", run="r", fold=3, label="yes", storage="s")
    with logs.about("train-gan", settings):
        logs.event(logs.EPOCHS, "epoch 1 of 2", epoch=1, generator_loss=float("nan"))
        logging.getLogger("some.library").warning("two\nlines")
    first, second = map(json.loads, lines(capsys))
    assert {name: first[name] for name in ("job", "dataset", "run", "fold", "label", "epoch", "seed")} == {
        "job": "train-gan",
        "dataset": "d",
        "run": "r",
        "fold": 3,
        "label": "yes",
        "epoch": 1,
        "seed": 0,
    }
    assert first["generator_loss"] == "nan" and first["level"] == "info" and first["time"].endswith("+00:00")
    assert second["message"] == "two\nlines" and second["level"] == "warning"


def test_text_is_the_message_alone_and_has_no_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("text")
    logs.event(logs.EPOCHS, "epoch 1 of 800", epoch=1)
    logs.event(logging.getLogger("mrigan.any"), "said", epoch=1)
    assert lines(capsys) == ["said"]


@pytest.mark.parametrize("style", ["text", "json"])
def test_the_password_in_an_address_is_left_out(style: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup(style)
    logging.getLogger("mrigan.any").warning("no answer from %s", "http://user:pass%40word@proxy:3128/x")
    assert "pass" not in (said := lines(capsys)[0]) and "proxy:3128/x" in said


def test_a_bug_is_one_line_of_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    logs.setup("json")
    try:
        raise ZeroDivisionError("why")
    except ZeroDivisionError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        sys.excepthook = sys.__excepthook__
    event = json.loads(lines(capsys)[0])
    assert event["level"] == "critical" and "ZeroDivisionError" in event["traceback"]
