"""Phantoms for training: always the same, half of them with a lesion, all different, drawn part by part."""

from pathlib import Path

import numpy as np
import pytest

from jobs import draw_phantoms
from jobs.common import parallel, progress
from jobs.common.errors import MachineError, UserError
from jobs.common.storage import open_storage
from jobs.phantoms import learning
from jobs.phantoms.randomized import draw_randomized
from jobs.settings import DrawPhantomsSettings


def draw(folder: Path, count: int, part: int | str = "all", size: int = 32) -> None:
    draw_phantoms.run(DrawPhantomsSettings(storage=str(folder), image_size=size, phantoms=count, part=part))


def read(folder: Path, count: int, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    return learning.read_phantoms(learning.drawn(open_storage(str(folder)), size, count))


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw in this process: others take longer to start than to draw a few phantoms."""
    monkeypatch.setattr(parallel, "usable_cores", lambda: 1)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce a part to 4 phantoms: a normal one takes 20 seconds."""
    monkeypatch.setattr(learning, "PART", 4)


def test_parts_hold_every_phantom_once() -> None:
    assert learning.parts(1) == [range(1)]
    assert learning.parts(2500) == [range(1000), range(1000, 2000), range(2000, 2500)]


def test_phantoms_are_the_same_every_time_and_more_begin_with_the_same(tmp_path: Path) -> None:
    draw(tmp_path, 4)
    draw(tmp_path, 6)
    (few, lesions), (more, _) = read(tmp_path, 4), read(tmp_path, 6)
    assert (few.shape, few.dtype) == ((4, 32, 32), np.uint8)
    assert (lesions.tolist(), lesions.dtype) == ([0, 1, 0, 1], np.int64)
    np.testing.assert_array_equal(more[:4], few)
    assert len(np.unique(more.reshape(6, -1), axis=0)) == 6


def test_phantoms_drawn_by_parts_are_those_drawn_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "one", 6)
    whole = read(tmp_path / "one", 6)
    monkeypatch.setattr(learning, "PART", 4)
    draw(tmp_path / "two", 6)
    for part in (1, 0):
        draw(tmp_path / "each", 6, part=part)
    drawn = [learning.drawn(open_storage(str(tmp_path / name)), 32, 6) for name in ("two", "each")]
    digests = [[step.digest for step in steps] for steps in drawn]
    assert digests[0] == digests[1] and len(set(digests[0])) == 2
    for mine, others in zip(whole, learning.read_phantoms(drawn[0]), strict=True):
        np.testing.assert_array_equal(mine, others)


@pytest.mark.usefixtures("small_parts")
def test_what_is_drawn_is_not_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path, 6, part=0)
    began: list[range] = []
    drawing = learning.heads
    monkeypatch.setattr(learning, "heads", lambda numbers: began.append(numbers) or drawing(numbers))
    draw(tmp_path, 6)
    draw(tmp_path, 6)
    # A last part that is not full is another one in more phantoms, a full one is the same.
    draw(tmp_path, 8)
    assert began == [range(4, 6), range(4, 8)]


@pytest.mark.usefixtures("small_parts")
def test_a_part_that_is_none_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--part: 6 phantoms have the parts 0 to 1"):
        draw(tmp_path, 6, part=2)
    assert list(tmp_path.rglob("*.safetensors")) == []


@pytest.mark.usefixtures("small_parts")
def test_a_missing_part_is_asked_for_by_command(tmp_path: Path) -> None:
    draw(tmp_path, 6, part=0)
    command = f"mrigan draw-phantoms --storage {tmp_path} --image-size 32 --phantoms 6"
    with pytest.raises(UserError, match=f"no 6 phantoms of 32 pixels in {tmp_path}: run `{command}` first"):
        read(tmp_path, 6)


@pytest.mark.usefixtures("small_parts")
def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    draw(tmp_path, 6)
    [file] = (tmp_path / "phantoms/32").glob("000004-2/*.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(MachineError, match=r"000004-2/phantoms\.safetensors is damaged"):
        read(tmp_path, 6)


@pytest.mark.usefixtures("small_parts")
def test_drawing_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw_phantoms, "PIECE", 3)
    told: list[tuple[int, int]] = []
    with progress.watched(lambda done, total, _: told.append((done, total))):
        draw(tmp_path, 6)
    assert told == [(3, 6), (4, 6), (6, 6)]


def test_several_processes_draw_the_same_phantoms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw(tmp_path / "one", 6)
    monkeypatch.setattr(draw_phantoms, "PIECE", 2)
    monkeypatch.setattr(parallel, "usable_cores", lambda: 2)
    draw(tmp_path / "two", 6)
    one, two = (learning.drawn(open_storage(str(tmp_path / name)), 32, 6) for name in ("one", "two"))
    assert [step.digest for step in one] == [step.digest for step in two]


@pytest.fixture(scope="module")
def pairs() -> list[np.ndarray]:
    """Each [2, height, width]: the same head without and with lesions."""
    return [
        np.stack([draw_randomized(lesion, np.random.default_rng(seed)) for lesion in (False, True)]).astype(float)
        for seed in range(24)
    ]


def test_lesions_stand_out_and_leave_the_rest_as_it_is(pairs: list[np.ndarray]) -> None:
    changed = np.array([(np.abs(lesion - healthy) > 25).mean() for healthy, lesion in pairs])
    assert changed.min() > 0.002 and changed.max() < 0.4
    for healthy, lesion in pairs:
        rows, columns = np.nonzero(healthy != lesion)
        margin = np.array(healthy.shape) // 20
        assert (margin < (rows.min(), columns.min())).all() and len(rows) < 0.6 * healthy.size


def test_heads_are_of_many_gray_values(pairs: list[np.ndarray]) -> None:
    middles = [np.median(healthy[80:-80, 60:-60]) for healthy, _ in pairs]
    assert max(middles) - min(middles) > 100
