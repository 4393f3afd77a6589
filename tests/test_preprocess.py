"""From a folder of typical files to a dataset, and the mistakes that users make."""

import csv
import errno
import gc
import io
import logging
import os
import shutil
import tempfile
import tracemalloc
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from jobs import phantom, preprocess
from jobs.common.errors import MachineError, UserError
from jobs.common.storage import open_storage
from jobs.mri import duplicates, intake, sources
from jobs.mri.dataset import Dataset, open_dataset
from jobs.mri.slices import REASONS
from jobs.phantoms.drawing import draw_head
from jobs.settings import PhantomSettings, PreprocessSettings
from tests.conftest import use_credentials


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """Return a folder of drawn heads with copies, and files that cannot be used."""
    folder = tmp_path_factory.mktemp("drawn") / "data"
    phantom.run(PhantomSettings(out=str(folder), count=12))
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "lesion" / "Thumbs.db").write_bytes(b"x")
    return folder


@pytest.fixture(scope="module")
def prepared(drawn, tmp_path_factory) -> Path:
    """Return the storage of a dataset made from `drawn`."""
    storage = tmp_path_factory.mktemp("prepared")
    prepare(drawn, storage)
    return storage


@pytest.fixture
def heads(tmp_path) -> Path:
    """Return a small folder of four different heads of each of two classes."""
    folder = tmp_path / "data"
    for number in range(8):
        label = ("no", "yes")[number % 2]
        save(folder / label / f"{number}.png", a_head(number))
    return folder


def a_head(number: int) -> np.ndarray:
    return draw_head("healthy", np.random.default_rng(number))


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def prepare(data: Path | str, storage: Path, **settings) -> preprocess.Step:
    return preprocess.run(
        PreprocessSettings(data=str(data), storage=str(storage), **{"folds": 2, "image_size": 32} | settings)
    )


def opened(step: preprocess.Step) -> Dataset:
    return open_dataset(step.storage, step.prefix.removeprefix("datasets/"))


def quarantine(step: preprocess.Step) -> dict[str, str]:
    lines = list(csv.DictReader(io.StringIO(step.read("quarantine.csv").decode())))
    assert all(line["reason"] in REASONS and line["detail"] for line in lines)
    return {line["source"]: line["reason"] for line in lines}


def content(storage: Path) -> dict[str, bytes]:
    """Return all files of datasets in `storage` but the manifest, which has the seconds."""
    return {
        path.relative_to(storage).as_posix(): path.read_bytes()
        for path in (storage / "datasets").rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }


def take(source: sources.Source, spool: intake.Spool, lines: dict[str, list[int]] | None = None) -> intake.Intake:
    return intake.read_all(source, lines or {}, spool, size=32, volume=0, step=1, ids=("patient", "study"))


def groups_of(step: preprocess.Step) -> dict[str, str]:
    return {row.source: row.group for row in opened(step).rows}


def test_what_cannot_be_used_is_quarantined_and_the_rest_goes_on(drawn, prepared):
    step = prepare(drawn, prepared)
    assert quarantine(step) == {
        "healthy/healthy-copy-of-0000-exact.png": "duplicate",
        "healthy/not-an-image.png": "not-an-image",
        "healthy/truncated.jpg": "truncated",
        "healthy/in-two-classes.png": "two-labels",
        "lesion/blank.png": "blank",
        "lesion/lesion-copy-of-0000-exact.png": "duplicate",
        "lesion/too-small.png": "too-small",
        "lesion/in-two-classes.png": "two-labels",
    }
    assert step.facts["quarantine"] == dict(Counter(quarantine(step).values()))
    assert step.facts["images"] == len(opened(step).rows) == 2 * (12 + 6)
    assert step.facts["labels"] == {"healthy": 18, "lesion": 18}


def test_near_duplicates_stand_in_one_group_and_others_do_not(drawn, prepared):
    members = defaultdict(set)
    for source, group in groups_of(prepare(drawn, prepared)).items():
        members[group].add(source)
    for kind in ("healthy", "lesion"):
        for number, way in enumerate(phantom.WAYS):
            suffix = "jpg" if number % 2 else "png"
            pair = {f"{kind}/{kind}-{number:04d}.{suffix}", f"{kind}/{kind}-copy-of-{number:04d}-{way}.jpg"}
            assert pair in members.values()
    assert Counter(len(sources) for sources in members.values()) == {1: 12, 2: 12}


def test_a_group_is_held_out_as_a_whole(drawn, prepared):
    dataset = opened(prepare(drawn, prepared))
    folds = defaultdict(set)
    for row in dataset.rows:
        folds[row.group].add(row.fold)
    assert all(len(numbers) == 1 for numbers in folds.values())
    assert {(row.fold, row.label) for row in dataset.rows} == {(n, k) for n in (0, 1) for k in ("healthy", "lesion")}


def test_rows_describe_the_files(drawn, prepared):
    for row in opened(prepare(drawn, prepared)).rows[:8]:
        path = drawn / row.source
        image = Image.open(path)
        assert (row.format, row.bytes) == (image.format, path.stat().st_size)
        assert (row.width, row.height) == image.size
        assert row.border == pytest.approx(np.asarray(image.convert("L"))[0].mean(), abs=6)


def test_a_second_run_recomputes_nothing(drawn, prepared, monkeypatch, caplog):
    first = prepare(drawn, prepared)
    monkeypatch.setattr(intake, "read_all", None)
    caplog.set_level(logging.INFO, "mrigan")
    again = prepare(drawn, prepared)
    assert "nothing to do" in caplog.text
    assert (again.prefix, again.digest, again.facts) == (first.prefix, first.digest, first.facts)


def test_the_same_input_gives_the_same_bytes_wherever_and_whenever_it_was_written(drawn, prepared, tmp_path):
    copied = tmp_path / "copied"
    for path in sorted((path for path in drawn.rglob("*") if path.is_file()), reverse=True):
        target = copied / path.relative_to(drawn)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        os.utime(target, (1, 1))
    first, second = prepare(drawn, prepared), prepare(copied, tmp_path / "out")
    assert (first.prefix, first.digest) == (second.prefix, second.digest)
    assert content(prepared) == content(tmp_path / "out")


def test_the_id_is_that_of_content_and_settings(heads, tmp_path):
    ids = [prepare(heads, tmp_path).prefix, prepare(heads, tmp_path, seed=1).prefix]
    ids.append(prepare(heads, tmp_path, image_size=33).prefix)
    (tmp_path / "groups.csv").write_text("no/0.png,no/2.png\n")
    ids.append(prepare(heads, tmp_path, groups=str(tmp_path / "groups.csv")).prefix)
    save(heads / "no" / "more.png", a_head(99))
    ids.append(prepare(heads, tmp_path).prefix)
    (heads / "no" / "more.png").rename(heads / "yes" / "more.png")
    ids.append(prepare(heads, tmp_path).prefix)
    assert len(set(ids)) == len(ids)


def test_the_same_from_s3(heads, tmp_path, s3_url):
    bucket = open_storage(s3_url)
    for path in heads.rglob("*.png"):
        bucket.write(f"data/{path.relative_to(heads).as_posix()}", path.read_bytes())
    local, remote = prepare(heads, tmp_path / "out"), prepare(f"{s3_url}/data", f"{s3_url}/out")
    assert (local.prefix, local.digest) == (remote.prefix, remote.digest)
    assert len(opened(remote).pixels(opened(remote).rows)) == 8


def test_folders_in_a_class_folder_count_and_files_beside_it_do_not(heads, tmp_path):
    save(heads / "no" / "hospital" / "a" / "deep.png", a_head(50))
    save(heads / "stray.png", a_head(51))
    (heads / "README.md").write_text("about")
    step = prepare(heads, tmp_path)
    assert "no/hospital/a/deep.png" in groups_of(step)
    assert quarantine(step) == {"stray.png": "no-class", "README.md": "no-class"}


def test_many_classes(tmp_path):
    for number in range(20):
        save(tmp_path / "data" / f"class {number % 10}" / f"{number}.png", a_head(number))
    step = prepare(tmp_path / "data", tmp_path / "out")
    assert step.facts["folds"] == [{f"class {number}": 1 for number in range(10)}] * 2


def test_an_altered_copy_under_another_label_sets_both_aside(heads, tmp_path):
    original = Image.open(heads / "no" / "0.png")
    original.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(heads / "yes" / "flipped.jpg", quality=80)
    step = prepare(heads, tmp_path)
    assert quarantine(step) == {"no/0.png": "two-labels", "yes/flipped.jpg": "two-labels"}


def test_a_line_of_the_groups_file_is_one_group(heads, tmp_path):
    (tmp_path / "groups.csv").write_text('no/0.png, no/2.png\n"no/2.png",yes/1.png\nno/4.png\n')
    step = prepare(heads, tmp_path, groups=str(tmp_path / "groups.csv"))
    groups = groups_of(step)
    assert groups["no/0.png"] == groups["no/2.png"] == groups["yes/1.png"]
    assert len(set(groups.values())) == 6
    assert step.facts["patients"] == "some"


def test_an_exact_copy_ties_its_persons_to_the_one_that_is_kept(heads, tmp_path):
    shutil.copyfile(heads / "no" / "0.png", heads / "no" / "copy.png")
    (tmp_path / "groups.csv").write_text("no/copy.png,no/2.png\n")
    groups = groups_of(prepare(heads, tmp_path, groups=str(tmp_path / "groups.csv")))
    assert "no/copy.png" not in groups
    assert groups["no/0.png"] == groups["no/2.png"]


def test_a_person_is_known_who_is_named_for_the_copy_alone(heads, tmp_path):
    shutil.copyfile(heads / "no" / "0.png", heads / "no" / "copy.png")
    others = sorted({path.relative_to(heads).as_posix() for path in heads.glob("*/*")} - {"no/0.png"})
    (tmp_path / "groups.csv").write_text("\n".join(others) + "\n")
    assert prepare(heads, tmp_path, groups=str(tmp_path / "groups.csv")).facts["patients"] == "all"


def save_dicom(path: Path, pixels: np.ndarray, patient: str) -> None:
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = pydicom.uid.MRImageStorage, "1.2.3"
    dataset.PatientID, dataset.PhotometricInterpretation = patient, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = pixels.tobytes() + bytes(pixels.size % 2)
    dataset.save_as(path, enforce_file_format=True)


def test_images_of_a_patient_are_one_group_and_the_patient_is_written_nowhere(tmp_path):
    for number in range(12):
        label = ("no", "yes")[number % 2]
        (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
        save_dicom(tmp_path / "data" / label / f"{number}.dcm", a_head(number), f"SECRET-{number // 3}")
    step = prepare(tmp_path / "data", tmp_path / "out")
    members = defaultdict(set)
    for source, group in groups_of(step).items():
        members[group].add(int(Path(source).stem))
    assert sorted(map(sorted, members.values())) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert step.facts["patients"] == "all"
    for path in (tmp_path / "out").rglob("*"):
        assert not path.is_file() or b"SECRET" not in path.read_bytes()


def test_pages_of_a_volume_are_one_group(heads, tmp_path):
    pages = [Image.fromarray(a_head(number)) for number in (60, 61, 62)]
    pages[0].save(heads / "yes" / "volume.tif", save_all=True, append_images=pages[1:])
    step = prepare(heads, tmp_path)
    groups = groups_of(step)
    assert groups["yes/volume.tif#0"] == groups["yes/volume.tif#1"] == groups["yes/volume.tif#2"]
    assert step.facts["patients"] == "none"


@pytest.mark.parametrize(("step", "numbers", "said"), [(1, "01345", "5 slices of 1 volumes"), (2, "035", "3 slices")])
def test_every_nth_slice_with_a_head_is_used(step, numbers, said, heads, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    pages = [Image.fromarray(a_head(number)) for number in (60, 61, 62, 63, 64, 65)]
    pages[2] = Image.new("L", pages[2].size)
    pages[0].save(heads / "yes" / "volume.tif", save_all=True, append_images=pages[1:])
    found = prepare(heads, tmp_path, slice_step=step)
    used = [source for source in groups_of(found) if "volume" in source]
    assert sorted(used) == [f"yes/volume.tif#{number}" for number in numbers]
    assert quarantine(found)["yes/volume.tif#2"] == "blank"
    assert said in caplog.text and "--slice-step" in caplog.text
    assert len([source for source in groups_of(found) if "volume" not in source]) == 8, "single images are all used"


def test_any_file_name_comes_back_from_the_index_and_the_quarantine(heads, tmp_path):
    strange = ['"quoted", and more.png', " leading\rreturn.png", "line\nfeed\r\n.png", "\u2028\x85.png"]
    for number, name in enumerate(strange):
        save(heads / "no" / name, a_head(50 + number))
        (heads / "no" / f"broken {name}").write_bytes(b"x")
    step = prepare(heads, tmp_path)
    assert {row.source for row in opened(step).rows} >= {f"no/{name}" for name in strange}
    assert quarantine(step) == {f"no/broken {name}": "not-an-image" for name in strange}


def test_a_large_group_is_a_warning(heads, tmp_path, caplog):
    for number in range(4):
        save(heads / "no" / f"more-{number}.png", a_head(70 + number))
    (tmp_path / "groups.csv").write_text(",".join(f"no/{n}.png" for n in (0, 2, "more-0", "more-1", "more-2")))
    step = prepare(heads, tmp_path, groups=str(tmp_path / "groups.csv"))
    assert "the largest group has 5 of 12 images" in caplog.text
    assert (step.facts["largest_group"], step.facts["large_groups"]) == (5, 1)


def test_what_is_kept_in_memory_is_under_a_kilobyte_an_image(tmp_path):
    folder = tmp_path / "data"
    rng = np.random.default_rng(0)
    found = [f"no/a name as long as names of files are, {number:04d}.png" for number in range(200)]
    for key in found:
        save(folder / key, rng.integers(0, 256, (40, 40)).astype(np.uint8))
    save(folder / "yes" / "1.png", a_head(1))
    (tmp_path / "first").mkdir()
    source = sources.find_source(str(folder))
    few = sources.Source(source.storage, dict(list(source.files.items())[:5]))
    take(few, intake.Spool(32))  # what is loaded once
    tracemalloc.start()
    taken = take(source, intake.Spool(32), {key: [1] for key in found})
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(taken.entries) == len(found) + 1
    assert kept < 1024 * len(found)


@pytest.mark.parametrize(
    ("arrange", "message"),
    [
        (lambda data: shutil.rmtree(data), "there is no folder"),
        (lambda data: [shutil.rmtree(data / "no"), shutil.rmtree(data / "yes")], "contains nothing"),
        (lambda data: shutil.rmtree(data / "no"), "only the class yes"),
        (lambda data: (data / "maybe").mkdir(), "the class maybe is empty"),
        (lambda data: (data / "no").rename(data / "classifiers"), "cannot be called classifiers"),
        (lambda data: save(data / "few" / "1.png", a_head(80)), "class few has 1 groups .* too few for 2 folds"),
        (lambda data: [path.write_bytes(b"x") for path in (data / "no").iterdir()], r"class no .*4 not-an-image"),
    ],
)
def test_mistakes_end_with_one_clear_line(heads, tmp_path, arrange, message):
    arrange(heads)
    with pytest.raises(UserError, match=message) as caught:
        prepare(heads, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("manifest.json"))


def test_a_file_that_goes_away_meanwhile_is_the_machines_failure(heads, tmp_path, monkeypatch):
    found = sources.find_source(str(heads))
    (heads / "no" / "0.png").unlink()
    monkeypatch.setattr(sources, "find_source", lambda *_, **__: found)
    with pytest.raises(MachineError, match=r"no/0\.png was deleted while the job was running: run the job again"):
        prepare(heads, tmp_path / "out")
    assert not list(tmp_path.rglob("manifest.json"))


def counted(monkeypatch) -> list[str]:
    """Return a list to which the key of each file of data that is read from now on is added."""
    keys: list[str] = []
    contents = sources.contents

    def counting(source: sources.Source):
        for key, data in contents(source):
            keys.append(key)
            yield key, data

    monkeypatch.setattr(intake, "contents", counting)
    return keys


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_unchanged_files_are_not_read_again_and_new_ones_once(heads, tmp_path, monkeypatch, where, request):
    data = str(heads)
    if where == "s3":
        server = request.getfixturevalue("s3_server")
        use_credentials(monkeypatch, server, server.owner)
        data = f"s3://tests/{tmp_path.name}/data"
        for path in sorted(heads.rglob("*.png")):
            open_storage(data).write(path.relative_to(heads).as_posix(), path.read_bytes())
    read = counted(monkeypatch)
    first = prepare(data, tmp_path / "out")
    assert len(read) == len(set(read)) == 8
    read.clear()
    assert prepare(data, tmp_path / "out").digest == first.digest
    assert read == []
    # Other bytes of the same length under an old name: the version tells.
    old, new = ((heads / "no" / name).read_bytes() for name in ("0.png", "2.png"))
    open_storage(data).write("no/0.png", new + bytes(len(old) - len(new)) if len(old) > len(new) else new)
    changed = prepare(data, tmp_path / "out")
    assert len(read) == len(set(read)) == 8
    assert changed.prefix != first.prefix


def test_a_damaged_record_of_what_was_read_is_not_believed(heads, tmp_path):
    first = prepare(heads, tmp_path / "out")
    (record,) = (tmp_path / "out" / "sources").iterdir()
    record.write_text(record.read_text().replace('"no/0.png"', '"no/9.png"'))
    assert prepare(heads, tmp_path / "out").digest == first.digest


def test_a_folder_that_may_not_be_read_is_not_left_out(heads, tmp_path, monkeypatch):
    scan = os.scandir

    # Root, who runs tests in a container, may read everything.
    def refuse(path: str) -> object:
        if str(path).endswith(f"/{closed}"):
            raise OSError(code, os.strerror(code), str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (heads / ".Trash").mkdir()
    closed, code = ".Trash", errno.EACCES
    prepare(heads, tmp_path / "out")
    closed = "no"
    with pytest.raises(UserError, match=f"no permission for {heads / 'no'}: change its permissions"):
        prepare(heads, tmp_path / "out")
    code = errno.EIO
    with pytest.raises(MachineError, match="Input/output error"):
        prepare(heads, tmp_path / "out")


@pytest.mark.parametrize("place", ["/proc/mrigan", f"{'long' * 100}", "file/out"])
def test_storage_that_cannot_be_written_is_noticed_before_the_data_are_read(heads, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setattr(intake, "read_all", lambda *_, **__: pytest.fail("the data were read"))
    with pytest.raises(UserError, match="use another folder"):
        prepare(heads, Path(place))
    assert {path.name for path in tmp_path.iterdir()} == {"data", "file"}


def test_a_bucket_that_may_only_be_read_is_noticed_before_the_data_are_read(heads, s3_url, s3_server, monkeypatch):
    use_credentials(monkeypatch, s3_server, s3_server.reader)
    monkeypatch.setattr(intake, "read_all", lambda *_, **__: pytest.fail("the data were read"))
    with pytest.raises(UserError, match=r"AccessDenied|denies|permission"):
        prepare(heads, s3_url)


def test_an_unclosed_quote_in_the_groups_file_is_refused(heads, tmp_path):
    (tmp_path / "groups.csv").write_text('no/0.png,"no/2.png\nno/4.png\n')
    with pytest.raises(UserError, match=r"groups\.csv is not a CSV file in UTF-8: unexpected end of data"):
        prepare(heads, tmp_path / "out", groups=str(tmp_path / "groups.csv"))


def test_storage_in_the_data(heads):
    with pytest.raises(UserError, match="is inside the data folder"):
        prepare(heads, heads / "out")


def test_no_pixels_are_left_behind_by_a_killed_process(heads, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    seen = []
    search = duplicates.near_duplicates

    def looked(*given):
        seen.append(list(scratch.iterdir()))
        return search(*given)

    monkeypatch.setattr(duplicates, "near_duplicates", looked)
    prepare(heads, tmp_path / "out")
    assert seen == [[]]


def test_a_full_disk_is_the_machines_failure(heads, monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Path("/dev/full").open("w+b"))  # noqa: SIM115
    with pytest.raises(MachineError, match="No space left on device: make room"):
        take(sources.find_source(str(heads)), intake.Spool(32))


def test_images_without_class_folders(heads, tmp_path):
    with pytest.raises(UserError, match="no class folders"):
        prepare(heads / "no", tmp_path / "out")


def test_groups_file_that_is_missing_or_names_a_file_that_is_not_there(heads, tmp_path):
    with pytest.raises(UserError, match="there is no file"):
        prepare(heads, tmp_path, groups=str(tmp_path / "groups.csv"))
    (tmp_path / "groups.csv").write_text("no/0.png\nno/2.png,no/nothing.png\n")
    with pytest.raises(UserError, match=r"line 2 of .* names no/nothing\.png"):
        prepare(heads, tmp_path, groups=str(tmp_path / "groups.csv"))


def test_a_bucket_that_forbids_writing_or_is_not_there(heads, s3_server, monkeypatch):
    use_credentials(monkeypatch, s3_server, s3_server.reader)
    with pytest.raises(UserError, match="access is denied"):
        prepare(heads, "s3://tests/forbidden")
    use_credentials(monkeypatch, s3_server, s3_server.owner)
    with pytest.raises(UserError, match="bucket"):
        prepare("s3://no-such-bucket/data", "s3://tests/out")
