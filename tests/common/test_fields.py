"""Flags, environment and settings file spell the same names; mistakes are named with a remedy."""

import argparse
from pathlib import Path
from typing import Annotated, Literal

import pytest

from jobs.common import fields as common
from jobs.common.errors import UserError
from jobs.settings import PipelineSettings


class Example(common.Settings):
    """Settings of each type."""

    image_size: int = common.setting(64, "side of an image", unit="px", ge=32, le=256)
    gan_conditional: bool = common.setting(False, "one generator for all classes")
    regimes: Annotated[tuple[Literal["real", "synthetic"], ...], common.Several] = common.setting(("real",), "regimes")
    storage: str = common.setting("out", "folder", result=False)


NAMES = tuple(Example.model_fields)


def flags(*words: str) -> dict:
    parser = argparse.ArgumentParser()
    common.add_flags(parser, Example)
    return vars(parser.parse_args(words))


def test_three_spellings_of_one_name(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("image_size: 128\ngan_conditional: true\nregimes: [real, synthetic]\n")
    environment = {"MRIGAN_IMAGE_SIZE": "128", "MRIGAN_GAN_CONDITIONAL": "true", "MRIGAN_REGIMES": "real,synthetic"}
    spelled = [
        flags("--image-size", "128", "--gan-conditional", "--regimes", "real,synthetic"),
        common.from_environment(Example, NAMES, environment),
        common.from_file(str(file), Example, NAMES),
    ]
    expected = Example(image_size=128, gan_conditional=True, regimes=("real", "synthetic"))
    assert [common.validate(Example, values) for values in spelled] == [expected] * 3


def test_words_of_a_file_stay_words(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("healthy: no\nlabel: 007\nvolume: 1\ngan_conditional: no\n")
    found = common.from_file(str(file), PipelineSettings, (*PipelineSettings.model_fields, "label"))
    settings = common.validate(PipelineSettings, found | {"data": "x"})
    assert (settings.healthy, settings.volume, settings.gan_conditional) == ("no", 1, False)


def test_paths_stay_out_of_results() -> None:
    assert Example().result() == {"image_size": 64, "gan_conditional": False, "regimes": ["real"]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_size": "12"}, "--image-size: input should be greater than or equal to 32, not '12'"),
        ({"image_size": "big"}, "--image-size: must be a whole number, not 'big'"),
        ({"regimes": "reel"}, "--regimes: input should be 'real' or 'synthetic', not 'reel'"),
    ],
)
def test_wrong_values_are_named(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        common.validate(Example, values)


def test_unknown_names_get_a_hint(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("image_sise: 64\n")
    with pytest.raises(UserError, match="unknown setting image_sise: did you mean image_size"):
        common.from_file(str(file), Example, NAMES)
    file.write_text("preset: quick\n")
    with pytest.raises(UserError, match="a preset is not a setting: use --preset quick"):
        common.from_file(str(file), Example, NAMES)
    with pytest.raises(UserError, match="unknown setting MRIGAN_IMAGE_SISE: did you mean MRIGAN_IMAGE_SIZE"):
        common.from_environment(Example, NAMES, {"MRIGAN_IMAGE_SISE": "64"})
    assert "did you mean --image-size" in common.unknown_flag("--image-sise=64", Example)


@pytest.mark.parametrize("text", ["- a list", "a: [", "\xff"])
def test_an_unreadable_settings_file_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"settings\.yaml"):
        common.from_file(str(file), Example, NAMES)
    with pytest.raises(UserError, match="cannot read"):
        common.from_file(str(tmp_path / "absent.yaml"), Example, NAMES)


def test_an_empty_variable_counts_as_not_set() -> None:
    """A workflow passes every parameter on, whether it was given or not."""
    assert common.from_environment(Example, NAMES, {"MRIGAN_IMAGE_SIZE": "", "MRIGAN_STORAGE": "there"}) == {
        "storage": "there"
    }


def test_white_space_around_a_variables_value_is_none_of_it() -> None:
    """A file's last line has an end."""
    environment = {"MRIGAN_IMAGE_SIZE": " 128\n", "MRIGAN_STORAGE": "a folder\r\n", "MRIGAN_REGIMES": "\n"}
    assert common.from_environment(Example, NAMES, environment) == {"image_size": "128", "storage": "a folder"}


OF_SERVICES = {
    "MRIGAN_SERVICE_HOST": "10.0.0.1",
    "MRIGAN_SERVICE_PORT": "80",
    "MRIGAN_SERVICE_PORT_METRICS": "80",
    "MRIGAN_PORT": "tcp://10.0.0.1:80",
    "MRIGAN_PORT_80_TCP": "tcp://10.0.0.1:80",
    "MRIGAN_PORT_80_TCP_PROTO": "tcp",
    "MRIGAN_PORT_80_TCP_PORT": "80",
    "MRIGAN_PORT_80_TCP_ADDR": "10.0.0.1",
    "MRIGAN_IMAGE_SIZE_SERVICE_HOST": "10.0.0.1",
    "MRIGAN_IMAGE_SIZE_SERVICE_PORT_HTTP": "80",
    "MRIGAN_IMAGE_SIZE_PORT": "udp://10.0.0.1:80",
    "MRIGAN_IMAGE_SIZE_PORT_80_UDP_ADDR": "10.0.0.1",
    "MRIGAN_METRICS_PORT": "sctp://10.0.0.1:80",
}


@pytest.mark.parametrize("name", OF_SERVICES)
def test_what_kubernetes_says_of_a_service_is_no_setting(name: str) -> None:
    known = (*NAMES, "metrics_port")
    assert common.from_environment(Example, known, {name: OF_SERVICES[name], "MRIGAN_STORAGE": "s"}) == {"storage": "s"}


def test_a_port_that_is_misspelled_is_still_a_mistake() -> None:
    with pytest.raises(UserError, match="unknown setting MRIGAN_METRIC_PORT: did you mean MRIGAN_METRICS_PORT"):
        common.from_environment(Example, (*NAMES, "metrics_port"), {"MRIGAN_METRIC_PORT": "9090"})


class Paths(common.Settings):
    """Settings with paths."""

    storage: str = common.setting("out", "folder", result=False)
    images: Annotated[tuple[str, ...], common.Several] = common.setting((), "files")


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "settings.yaml"
    file.write_text("storage: ~/deep/out\nimages: [~/a.png, ~]\n")
    names = tuple(Paths.model_fields)
    environment = {"MRIGAN_STORAGE": "~/deep/out", "MRIGAN_IMAGES": "~/a.png,~"}
    spelled = [
        common.from_file("~/settings.yaml", Paths, names),
        common.from_environment(Paths, names, environment),
        {"storage": "~/deep/out", "images": ["~/a.png", "~"]},
    ]
    expected = Paths(storage=str(tmp_path / "deep" / "out"), images=(str(tmp_path / "a.png"), str(tmp_path)))
    assert [common.validate(Paths, values) for values in spelled] == [expected] * 3
    for other in ("a/~/b", "~other/x", "s3://bucket/~/x", "./~"):
        assert common.validate(Paths, {"storage": other}).storage == other
