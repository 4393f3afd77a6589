"""Logs: text for people, JSON for machines, and no secret in either."""

import io
import json
import logging
import sys
import warnings

import pytest

from jobs.common import logs
from jobs.settings import TrainGanSettings


@pytest.fixture(autouse=True)
def restored() -> object:
    """Put the loggers back: pytest has handlers of its own."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level
    logging.captureWarnings(False)


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


def test_lines_go_to_who_asked_for_them(capsys: pytest.CaptureFixture[str]) -> None:
    kept: list[str] = []
    logs.setup("json", kept.append)
    assert logs.style() == "json"
    logging.getLogger("mrigan.any").info("said to %s", "http://user:secret@proxy:3128")
    assert lines(capsys) == []
    [line] = kept
    assert json.loads(line)["message"] == "said to http://…@proxy:3128"
    logs.setup("text")
    assert logs.style() == "text"


def test_lines_go_to_standard_error_as_it_is_when_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    # A progress display takes it over while it is shown.
    logs.setup("text")
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    logging.getLogger("mrigan.any").info("said")
    assert shown.getvalue() == "said\n"


def test_a_warning_is_one_line_of_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    # A job that another test ran may have them already, with a handler that is gone.
    logging.captureWarnings(False)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logs.setup("json")
        warnings.warn("take heed", UserWarning, stacklevel=1)
        logging.captureWarnings(False)
    (line,) = lines(capsys)
    event = json.loads(line)
    assert event["level"] == "warning" and "UserWarning: take heed" in event["message"]


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize(
    "address",
    [
        "http://user:pass%40word@proxy:3128/x",
        "http://user:p@ss@proxy:3128/x",
        "http://user:pa/ss@proxy:3128/x",
        "http://user@corp:p@s/s@proxy:3128/x",
        "http://pass@proxy:3128/x",
    ],
)
def test_the_password_in_an_address_is_left_out(style: str, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup(style)
    logging.getLogger("mrigan.any").warning("no answer from %s", address)
    assert "http://…@proxy:3128/x" in lines(capsys)[0]


@pytest.mark.parametrize("address", ["http://s3:8333/bucket", "s3://bucket/a@b.png", "https://host/a:b@c"])
def test_an_address_without_a_password_is_left_as_it_is(address: str) -> None:
    assert logs.redacted(f"no answer from {address}: try again") == f"no answer from {address}: try again"


def test_a_bug_is_one_line_of_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("json")
    try:
        raise ZeroDivisionError("why")
    except ZeroDivisionError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        sys.excepthook = sys.__excepthook__
    event = json.loads(lines(capsys)[0])
    assert event["level"] == "critical" and "ZeroDivisionError" in event["traceback"]
