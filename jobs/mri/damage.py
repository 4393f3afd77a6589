"""Detects truncated and damaged files by the lengths and checksums in them, without a decoder."""

import io
import struct
import zlib

import tifffile


def found(data: bytes) -> str | None:
    """Return how `data`, a PNG, JPEG, BMP, WebP or TIFF, is truncated or damaged; None if no damage is found."""
    try:
        if data.startswith(b"\x89PNG"):
            return _png(data)
        if data.startswith(b"\xff\xd8"):
            return None if b"\xff\xd9" in data[data.rfind(b"\xff\xda") :] else "the JPEG has no end"
        if data.startswith(b"BM"):
            return _beyond(data, struct.unpack_from("<I", data, 2)[0])
        if data.startswith(b"RIFF"):
            return _beyond(data, struct.unpack_from("<I", data, 4)[0] + 8)
        if data.startswith((b"II", b"MM")):
            return _tiff(data)
    except struct.error:
        return "the file ends in its header"
    return None


def _beyond(data: bytes, declared: int) -> str | None:
    return f"{len(data)} bytes of {declared} that its header declares" if len(data) < declared else None


def _png(data: bytes) -> str | None:
    place = 8
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind, end = data[place + 4 : place + 8], place + 12 + length
        if end > len(data):
            break
        if zlib.crc32(data[place + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            return "a checksum of the PNG is wrong"
        if kind == b"IEND":
            return None
        place = end
    return "the PNG has no end"


def of_page(data: bytes, page: tifffile.TiffPage) -> str | None:
    """Return how many bytes `data` lacks for the values of a TIFF's `page`, as a sentence; None if it lacks none."""
    ends = (start + size for start, size in zip(page.dataoffsets, page.databytecounts, strict=False))
    return _beyond(data, max(ends, default=0))


def _tiff(data: bytes) -> str | None:
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            return of_page(data, file.pages.first)
    # tifffile raises many kinds of exceptions for damaged files.
    except Exception:
        return "the TIFF has no readable page"
