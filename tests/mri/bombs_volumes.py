"""Bombs of DICOM and NIfTI, and of what packs files."""

import gzip
import io
import struct

import imagecodecs
import nibabel
import numpy as np
import pydicom
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000, DeflatedExplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

from tests.mri.bombs import bomb, jpeg, png, slow_bomb, tiff
from tests.mri.test_read import RAMP, a_dicom, a_nifti, a_volume

# ---- DICOM -----------------------------------------------------------------------------------------------------------


def dicom(syntax: str, fragments: list[bytes], **attributes: object) -> bytes:
    """Return a DICOM file of compressed pixel data, of 40 x 60 pixels if no `attributes` say otherwise."""
    dataset = pydicom.dcmread(io.BytesIO(a_dicom(RAMP)))
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate(fragments) if fragments else b""
    dataset["PixelData"].is_undefined_length = True
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def before(elements: bytes) -> bytes:
    """Return a DICOM file that begins with `elements`, in explicit VR."""
    data = a_dicom(RAMP)
    place = 144 + int.from_bytes(data[140:144], "little")
    return data[:place] + elements + data[place:]


def jpeg_2000(side: int, tile: int = 0) -> bytes:
    """Return a JPEG 2000 codestream that declares another size than it has."""
    data = bytearray(imagecodecs.jpeg2k_encode(RAMP, level=0, codecformat="j2k", reversible=True))
    place = data.index(b"\xff\x51") + 6
    struct.pack_into(">II", data, place, side, side)
    struct.pack_into(">II", data, place + 16, tile or side, tile or side)
    return bytes(data)


RUNS = struct.pack("<16I", 1, 64, *[0] * 14)  # the header of a frame of one segment of runs


@bomb
def dicom_around_a_jpeg_of_65500_pixels() -> bytes:
    return dicom(JPEGBaseline8Bit, [jpeg(65500)])


@bomb
def dicom_around_200_jpegs_of_20000_pixels() -> bytes:
    return dicom(JPEGBaseline8Bit, 200 * [jpeg(20_000)], NumberOfFrames=200)


@bomb
def dicom_around_a_jpeg_2000_of_60000_pixels() -> bytes:
    return dicom(JPEG2000, [jpeg_2000(60_000)])


@bomb
def tiff_around_a_jpeg_2000_of_60000_pixels() -> bytes:
    return tiff(34712, jpeg_2000(60_000))


@bomb
def dicom_of_a_jpeg_2000_of_many_tiles() -> bytes:
    return dicom(JPEG2000, [jpeg_2000(2000, 8)], Rows=2000, Columns=2000)


@bomb
def dicom_whose_runs_go_on() -> bytes:
    return dicom(RLELossless, [RUNS + b"\x81\0" * 200_000])


@bomb
def dicom_of_300000_fragments() -> bytes:
    return dicom(RLELossless, [b"\0\0"] * 300_000, NumberOfFrames=1)


@bomb
def dicom_of_ten_million_compressed_frames() -> bytes:
    return dicom(JPEGBaseline8Bit, [jpeg(40)], NumberOfFrames=10**7)


@bomb
def dicom_of_50000_sequences_inside_each_other() -> bytes:
    return before(50_000 * b"\x08\0\x11\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff")


@bomb
def dicom_of_300000_empty_items() -> bytes:
    items = 300_000 * b"\xfe\xff\0\xe0\0\0\0\0"
    return before(b"\x08\0\x11\x11SQ\0\0" + len(items).to_bytes(4, "little") + items)


@bomb
def dicom_of_many_elements() -> bytes:
    return before(b"".join(struct.pack("<HH2sH", 9, 0x1000 + number, b"LO", 0) for number in range(50_000)))


@bomb
def dicom_of_4294967294_bytes_of_pixels() -> bytes:
    data = a_dicom(RAMP)
    place = data.rindex(b"\xe0\x7f\x10\0") + 8
    return data[:place] + b"\xfe\xff\xff\xff" + data[place + 4 :]


def deflated(values: np.ndarray, **attributes: object) -> bytes:
    """Return a DICOM file with a deflated data set."""
    dataset = pydicom.dcmread(io.BytesIO(a_dicom(values, **attributes)))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


@slow_bomb
def dicom_as_large_as_may_be() -> bytes:
    return deflated(np.zeros((8192, 8192), np.uint16))


@slow_bomb
def dicom_of_pixels_that_are_15_times_as_long_as_wide() -> bytes:
    frames = np.tile(np.arange(2**20, dtype=np.uint16).reshape(1024, 1024) % 1021, (128, 1, 1))
    return deflated(frames, PixelSpacing=[1, 15])


# ---- NIfTI -----------------------------------------------------------------------------------------------------------


def nifti(shape: tuple[int, ...], zooms: tuple[float, ...] = (1, 1, 1)) -> bytes:
    """Return a gzipped NIfTI volume of bytes; its values repeat."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(shape)
    header["magic"], header["vox_offset"], header["pixdim"][1:4] = b"n+1", 352, zooms
    values = np.resize(np.arange(2**16) % 253, int(np.prod(shape))).astype(np.uint8)
    return gzip.compress(header.binaryblock + bytes(4) + values.tobytes(), 1)


@bomb
def nifti_of_32767_rows_of_2() -> bytes:
    return nifti((32767, 2, 100))


@slow_bomb
def nifti_of_10000_slices() -> bytes:
    return nifti((32, 32, 10_000))


@slow_bomb
def nifti_of_pixels_that_are_15_times_as_long_as_wide() -> bytes:
    return nifti((1024, 1024, 128), (1, 15, 1))


# ---- packed ----------------------------------------------------------------------------------------------------------


@bomb
def gzip_of_100000_empty_streams() -> bytes:
    return 100_000 * gzip.compress(b"")


@bomb
def gzip_of_a_volume_in_streams_of_a_byte() -> bytes:
    return b"".join(gzip.compress(bytes([value]), 1) for value in a_nifti(a_volume())[:50_000])


@bomb
def gzip_of_a_gzip() -> bytes:
    return gzip.compress(gzip.compress(bytes(2**26)))


@bomb
def gzip_of_a_png_whose_pixels_go_on() -> bytes:
    return gzip.compress(png(40, 8, 0, b"\x78\x01" + bytes(2**20)))


@slow_bomb
def gzip_of_a_png_as_large_as_may_be() -> bytes:
    return gzip.compress(png(8192, 16, 6))
