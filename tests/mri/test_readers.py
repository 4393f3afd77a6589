"""A file cannot end the job that reads it, or use more of the machine than its budget."""

import gzip
import io
import os
import resource
import signal
import time
import zlib

import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image

from jobs.mri import dicom, nifti, raster, readers
from jobs.mri import read as reading
from jobs.mri.slices import BUDGET, Unusable
from tests.mri.test_read import a_dicom, a_nifti, a_volume, encoded

SMALL = BUDGET._replace(memory_bytes=2**28, cpu_seconds=1)
MODEST = BUDGET._replace(file_bytes=2**26)


def work(data: bytes, name: str) -> bytes:
    """Do what `name` says, in the reader's process."""
    if name == "sleep":
        time.sleep(0.05)
    elif name == "allocate":
        return bytes(2**30)
    elif name == "loop":
        while True:
            pass
    elif name == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif name == "chatter":
        os.write(2, b"libtiff says something of a file that nobody knows\n")
    return data


@pytest.fixture
def some():
    """Return two readers with a small budget."""
    found = readers.Readers(SMALL, 2)
    yield found
    found.stop()


def test_results_come_in_order_and_a_reader_that_dies_is_replaced(some, capfd):
    names = ["sleep", "crash", "", "allocate", "loop", "killed", "chatter", "sleep", ""]
    files = [(name, f"{number}".encode()) for number, name in enumerate(names)]
    found = [(data, getattr(result, "reason", result)) for data, result in some.map(work, files)]
    assert found == [
        (b"0", b"0"),
        (b"1", "decoder-error"),
        (b"2", b"2"),
        (b"3", "decompression-bomb"),
        (b"4", "too-slow"),
        (b"5", "decompression-bomb"),
        (b"6", b"6"),
        (b"7", b"7"),
        (b"8", b"8"),
    ]
    assert capfd.readouterr().err == ""


def test_a_caller_that_has_enough_ends_the_processes(some):
    results = some.map(work, [("", b"1"), ("loop", b""), ("loop", b""), ("", b"2"), ("", b"3"), ("", b"4")])
    assert next(results) == (b"1", b"1")
    results.close()
    assert list(some.map(work, [("", b"5")])) == [(b"5", b"5")]


def test_files_are_read_ahead_by_a_few_only(some):
    given: list[int] = []

    def files():
        for number in range(100):
            given.append(number)
            yield "", b"x"

    results = some.map(work, files())
    next(results)
    assert len(given) <= 2 * some.count + 2
    results.close()


def nifti_far_behind_its_header() -> bytes:
    data = bytearray(a_nifti(a_volume()))
    data[108:112] = np.float32(3e9).tobytes()  # vox_offset
    return gzip.compress(bytes(data) + bytes(2**20))


def deflated_dicom(inflated: int) -> bytes:
    """Return a DICOM file with the transfer syntax beyond the first kilobyte, and with a deflated data set."""
    data = pydicom.dcmread(io.BytesIO(a_dicom(np.zeros((8, 8), np.uint8))))
    data.file_meta.PrivateInformationCreatorUID, data.file_meta.PrivateInformation = "1.2.3", bytes(2000)
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    buffer = io.BytesIO()
    data.save_as(buffer, enforce_file_format=True)
    head = buffer.getvalue()
    meta = head[: 144 + int.from_bytes(head[140:144], "little")]
    stream = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = [stream.compress(b"\x09\x00\x01\x10UN\0\0" + inflated.to_bytes(4, "little"))]
    body += [stream.compress(bytes(2**20)) for _ in range(inflated // 2**20)]
    return meta + b"".join(body) + stream.flush()


def many_frames() -> bytes:
    return a_dicom(np.zeros((1_000_000, 1, 1), np.uint8))


def many_scans() -> bytes:
    """Return a JPEG with the header of a valid picture and 400 scans."""
    data = encoded(Image.fromarray(np.zeros((2000, 2000), np.uint8)), "JPEG", progressive=True)
    start = data.index(b"\xff\xda")
    scan = data[start : data.index(b"\xff\xda", start + 2)]
    return data[:start] + 400 * scan + b"\xff\xd9"


def many_pages() -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        for _ in range(30_000):
            file.write(np.zeros((1, 1), np.uint8), contiguous=False, metadata=None)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("bomb", "words"),
    [
        (nifti_far_behind_its_header, "3000"),
        (lambda: deflated_dicom(2**28), str(MODEST.file_bytes)),
        (many_frames, "1000000 frames"),
        (many_scans, "400 scans"),
        (many_pages, "30000 pages"),
        (lambda: gzip.compress(b"\x89PNG" + bytes(2**28), 1), str(MODEST.file_bytes)),
    ],
)
def test_bombs_are_rejected_with_the_number_before_they_cost_anything(bomb, words, monkeypatch):
    for reader in (reading, dicom, nifti, raster):
        monkeypatch.setattr(reader, "BUDGET", MODEST)
    data = bomb()
    assert len(data) < 8 * 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Unusable) as caught:
        reading.read(data, "a")
    assert caught.value.reason == "decompression-bomb"
    assert words in caught.value.detail
    # In kilobytes; the bombs are four times as large as what may be inflated.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 3 * MODEST.file_bytes / 1024
