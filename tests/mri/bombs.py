"""Small files that ask for much: memory, time, or another size than they declare. `BOMBS` makes each by its name."""

import functools
import struct
import zlib
from collections.abc import Callable

import imagecodecs
from PIL import Image

from tests.mri.test_read import RAMP, encoded

DEEP = (257 * RAMP.astype("<u2")).tobytes()
BOMBS: dict[str, Callable[[], bytes]] = {}
SLOW: dict[str, Callable[[], bytes]] = {}  # seconds of a processor each, or all that a file may take


def bomb(make: Callable[[], bytes]) -> Callable[[], bytes]:
    """Add a bomb under the name of the function that makes it."""
    BOMBS[make.__name__] = make
    return make


def slow_bomb(make: Callable[[], bytes]) -> Callable[[], bytes]:
    """Add a bomb that takes long."""
    SLOW[make.__name__] = make
    return make


@functools.cache
def zeros(count: int) -> bytes:
    """Return `count` zeros as a zlib stream."""
    stream, block = zlib.compressobj(1), bytes(2**20)
    parts = [stream.compress(block) for _ in range(count // 2**20)]
    return b"".join([*parts, stream.compress(bytes(count % 2**20)), stream.flush()])


# ---- PNG -------------------------------------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(side: int, bits: int, colour: int, pixels: bytes = b"", extra: bytes = b"", interlaced: int = 0) -> bytes:
    """Return a black square PNG of a colour type, or one with other `pixels`, a zlib stream; `extra` are chunks."""
    channels = {0: 1, 2: 3, 6: 4}[colour]
    header = struct.pack(">IIBBBBB", side, side, bits, colour, 0, 0, interlaced)
    pixels = pixels or zeros(side * (1 + side * channels * bits // 8))
    parts = chunk(b"IHDR", header), extra, chunk(b"IDAT", pixels), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@bomb
def png_whose_pixels_go_on() -> bytes:
    return png(40, 8, 0, zeros(2**28))


@bomb
def png_with_an_endless_text() -> bytes:
    return png(40, 8, 0, extra=chunk(b"zTXt", b"a\0\0" + zeros(2**28)))


@bomb
def png_with_many_texts() -> bytes:
    return png(40, 8, 0, extra=100 * chunk(b"zTXt", b"a\0\0" + zeros(10**6)))


@bomb
def png_with_an_endless_profile() -> bytes:
    return png(40, 16, 2, extra=chunk(b"iCCP", b"a\0\0" + zeros(2**28)))


@bomb
def png_of_a_hundred_thousand_chunks() -> bytes:
    return png(40, 8, 0, extra=100_000 * chunk(b"tEXt", b"a\0b"))


@slow_bomb
def png_as_large_as_may_be() -> bytes:
    return png(8192, 16, 6)


# ---- JPEG ------------------------------------------------------------------------------------------------------------


def jpeg(side: int, scans: int = 0) -> bytes:
    """Return a JPEG that declares another size than it has; `scans` times its first scan."""
    data = encoded(Image.fromarray(RAMP), "JPEG", progressive=bool(scans))
    frame, start = data.index(b"\xff\xc2" if scans else b"\xff\xc0"), data.index(b"\xff\xda")
    end = data.index(b"\xff\xda", start + 2) if scans else len(data)
    head = data[: frame + 5] + struct.pack(">HH", side, side) + data[frame + 9 : start]
    return head + (scans or 1) * data[start:end] + b"\xff\xd9" * bool(scans)


@bomb
def jpeg_larger_than_its_data() -> bytes:
    return jpeg(8000)


@slow_bomb
def jpeg_of_as_many_scans_as_may_be() -> bytes:
    return jpeg(8192, 100)


# ---- TIFF ------------------------------------------------------------------------------------------------------------

Tag = tuple[int, int, int, int | bytes]  # number, type, count, value: bytes are put behind the page


def tiff(compression: int, data: bytes, *more: Tag, width: int = 60, height: int = 40, bits: int = 16) -> bytes:
    """Return a TIFF of one gray page of one strip, `data`; `more` tags replace those of the same number."""
    tags: dict[int, Tag] = {tag[0]: tag for tag in [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits)]}
    tags |= {259: (259, 3, 1, compression), 262: (262, 3, 1, 1), 277: (277, 3, 1, 1), 278: (278, 4, 1, height)}
    tags |= {273: (273, 4, 1, 8), 279: (279, 4, 1, len(data))} | {tag[0]: tag for tag in more}
    directory = 8 + len(data) + len(data) % 2
    behind, listed, end = b"", b"", directory + 2 + 12 * len(tags) + 4
    for number, kind, count, value in (tags[number] for number in sorted(tags)):
        if isinstance(value, bytes):
            value, behind = end + len(behind), behind + value
        listed += struct.pack("<HHII", number, kind, count, value)
    start = b"II*\0" + struct.pack("<I", directory) + data + bytes(len(data) % 2)
    return start + struct.pack("<H", len(tags)) + listed + bytes(4) + behind


def described(text: bytes) -> bytes:
    """Return a TIFF with a description."""
    return tiff(1, DEEP, (270, 2, len(text) + 1, text + b"\0"))


@bomb
def tiff_whose_deflated_strip_goes_on() -> bytes:
    return tiff(8, zeros(2**28))


@bomb
def tiff_whose_zstandard_strip_goes_on() -> bytes:
    return tiff(50000, imagecodecs.zstd_encode(bytes(2**28)))


@bomb
def tiff_whose_packed_strip_goes_on() -> bytes:
    return tiff(32773, b"\x81\0" * 10**6)


@bomb
def tiff_around_a_jpeg_of_65500_pixels() -> bytes:
    return tiff(7, jpeg(65500), bits=8)


@bomb
def tiff_of_signed_values_around_a_jpeg_of_65500_pixels() -> bytes:
    return tiff(7, jpeg(65500), (339, 3, 1, 2), bits=8)


@bomb
def tiff_around_a_png_of_other_pixels() -> bytes:
    return tiff(34933, png(4000, 16, 0))


@bomb
def tiff_around_a_webp_of_other_pixels() -> bytes:
    inner = encoded(Image.new("RGB", (4000, 4000)), "WEBP", lossless=True, method=0, quality=0)
    return tiff(50001, inner, (262, 3, 1, 2), (277, 3, 1, 3), (339, 3, 1, 2), bits=8)


@bomb
def tiff_of_65536_strips_in_one_place() -> bytes:
    same = zeros(2**16)
    ends = (279, 4, 2**16, struct.pack("<I", len(same)) * 2**16), (278, 4, 1, 1)
    return tiff(8, same, (273, 4, 2**16, struct.pack("<I", 8) * 2**16), *ends, width=1024, height=2**16)


@bomb
def tiff_of_a_tile_beyond_all_memory() -> bytes:
    return tiff(8, zeros(1000), (322, 4, 1, 2**30), (323, 4, 1, 2**30), (324, 4, 1, 8), (325, 4, 1, 1000))


@bomb
def tiff_of_60000_samples_a_pixel() -> bytes:
    return tiff(8, zeros(1000), (262, 3, 1, 2), (277, 3, 1, 60_000), width=2000, height=2000)


@bomb
def tiff_whose_pages_are_a_circle() -> bytes:
    data = tiff(1, DEEP)
    return data[:-4] + struct.pack("<I", 8 + len(DEEP))


@bomb
def tiff_whose_tag_has_4294967295_values() -> bytes:
    return tiff(1, DEEP, (65000, 3, 2**32 - 1, 8))


@bomb
def tiff_of_frames_that_only_xml_declares() -> bytes:
    size = 'SizeX="60" SizeY="40" SizeC="1000" SizeZ="10000" SizeT="100000" DimensionOrder="XYCZT" Type="uint16"'
    name = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    pixels = f'{name}<Image ID="Image:0"><Pixels ID="P" {size}><TiffData/></Pixels></Image></OME>'
    return described(f'<?xml version="1.0"?>{pixels}'.encode())


@bomb
def tiff_whose_xml_unfolds() -> bytes:
    entities = "".join(f'<!ENTITY a{n} "{10 * f"&a{n - 1};"}">' for n in range(1, 12))
    start = f'<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY a0 "a">{entities}]>'
    return described(f'{start}<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">&a11;</OME>'.encode())


@bomb
def tiff_whose_shape_is_nested() -> bytes:
    return described(b'{"shape": ' + b"[" * 200_000)


@slow_bomb
def tiff_around_a_jpeg_of_2000_scans() -> bytes:
    return tiff(7, jpeg(8000, 2000), (339, 3, 1, 2), width=8000, height=8000, bits=8)


# ---- WebP and BMP ----------------------------------------------------------------------------------------------------


@bomb
def webp_of_many_frames_larger_than_they_are() -> bytes:
    frames = [Image.new("L", (500, 500), number) for number in range(20)]
    data = bytearray(encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True, method=0))
    place = data.index(b"VP8X") + 12
    data[place : place + 6] = b"\xff\x1f\0\xff\x1f\0"
    return bytes(data)


def bmp(width: int, height: int, compression: int, data: bytes, colours: int = 256, header: int = 40) -> bytes:
    """Return a BMP of 8 bits."""
    fields = (header, width, height, 1, 8, compression, 0, 0, 0, colours, 0)
    return struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 0, 0, 0, 1078, *fields) + bytes(1024) + data


@bomb
def bmp_of_runs() -> bytes:
    return bmp(8192, 8192, 1, (b"\xff\0" * 33 + b"\0\0") * 8192 + b"\0\1")


@bomb
def bmp_of_jumps() -> bytes:
    return bmp(8192, 8192, 1, b"\0\2\xff\xff" * 200_000)


@bomb
def bmp_of_2147483648_rows() -> bytes:
    return bmp(60, -(2**31), 0, bytes(2400))


@bomb
def bmp_of_2147483647_colours() -> bytes:
    return bmp(60, 40, 0, bytes(2400), 2**31 - 1)


@bomb
def bmp_of_a_header_of_4294967295_bytes() -> bytes:
    return bmp(60, 40, 0, bytes(2400), header=2**32 - 1)
