"""Drawn heads: the same settings draw the same files, and all heads differ."""

import numpy as np
import pytest
from PIL import Image

from jobs import phantom
from jobs.common import parallel, progress
from jobs.common.errors import UserError
from jobs.common.storage import open_storage
from jobs.mri.crop import crop_to_head
from jobs.phantoms.drawing import KINDS, draw_head
from jobs.settings import PhantomSettings


def drawn(folder, **settings) -> dict[str, bytes]:
    phantom.run(PhantomSettings(out=str(folder), **settings))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    return drawn(tmp_path_factory.mktemp("phantom"), count=3)


def test_the_same_settings_draw_the_same_files(files, tmp_path):
    assert drawn(tmp_path, count=3) == files
    assert drawn(tmp_path, count=3) == files  # over an earlier run


def test_several_processes_draw_the_same_files_and_tell_how_far_they_are(files, tmp_path, monkeypatch):
    monkeypatch.setattr(phantom, "PIECE", 8)
    monkeypatch.setattr(parallel, "usable_cores", lambda: 2)
    told = []
    with progress.watched(lambda done, total, _: told.append((done, total))):
        assert drawn(tmp_path, count=3) == files
    assert told == [(done, len(files)) for done in range(1, len(files) + 1)]


def test_the_seed_draws_other_heads(files, tmp_path):
    other = drawn(tmp_path, count=3, seed=1)
    assert other.keys() == files.keys()
    assert other["lesion/lesion-0000.png"] != files["lesion/lesion-0000.png"]


def test_more_heads_leave_the_first_as_they_are(files, tmp_path):
    more = drawn(tmp_path, count=4)
    assert all(more[name] == data for name, data in files.items() if "-000" in name and "copy" not in name)


@pytest.mark.parametrize("classes", [2, 6])
def test_a_folder_for_each_class(tmp_path, classes):
    names = drawn(tmp_path, count=2, classes=classes)
    assert {name.split("/")[0] for name in names} == set(KINDS[:classes])
    for kind in KINDS[:classes]:
        assert sum(name.startswith(f"{kind}/{kind}-0") for name in names) == 2


def test_other_peoples_files_are_left_alone(tmp_path):
    (tmp_path / "mine.png").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"contains other files, such as mine\.png"):
        drawn(tmp_path, count=2)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.png"]
    with pytest.raises(UserError, match="is a file"):
        phantom.run(PhantomSettings(out=str(tmp_path / "mine.png")))


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_is_a_bright_ellipse_on_black_that_fills_its_crop(kind):
    head = draw_head(kind, np.random.default_rng(1))
    assert head.dtype == np.uint8
    assert max(head[0, 0], head[-1, -1]) < 40
    shown = crop_to_head(head, 64)
    assert shown[28:36, 12:52].mean() > 40
    assert (shown.max(axis=1) > 60).mean() > 0.9


def test_a_lesion_makes_a_head_asymmetric():
    def asymmetry(kind: str, seed: int) -> float:
        shown = crop_to_head(draw_head(kind, np.random.default_rng(seed)), 32)[6:26, 6:26].astype(float)
        return np.abs(shown - shown[:, ::-1]).mean() / shown.mean()

    healthy, lesion = (np.median([asymmetry(kind, seed) for seed in range(12)]) for kind in ("healthy", "lesion"))
    assert lesion > 1.15 * healthy


def test_jpeg_and_png_are_both_there(files, tmp_path):
    assert {name.rsplit(".")[-1] for name in files} == {"png", "jpg"}
    (tmp_path / "a.jpg").write_bytes(files["lesion/lesion-0001.jpg"])
    assert Image.open(tmp_path / "a.jpg").format == "JPEG"


def test_storage_in_s3_gets_the_same_files(files, s3_url):
    storage = open_storage(s3_url)
    phantom.run(PhantomSettings(out=s3_url, count=3))
    assert {key: storage.read(key) for key in storage.list("")} == files
