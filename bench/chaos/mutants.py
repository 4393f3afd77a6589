"""Small valid files of every format that is read, and seeded damage to them."""

import dataclasses
import gzip
import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from itertools import product

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from tests.mri.heads import a_head, a_volume
from tests.mri.stored import Dicom, Nifti
from tests.mri.test_read_properties_pictures import Tiff

HEADER = 400  # bytes, in which half of the damage is done
# What lengths, counts and offsets become.
EXTREMES = (0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, 2**63, 2**64 - 1)


def samples() -> dict[str, bytes]:
    """Return files by names, the part before the first blank of which is the format."""
    head = a_head(0)
    deep, plain = np.rint(4000 * head).astype(np.uint16), np.rint(255 * head).astype(np.uint8)
    image = Image.fromarray(plain)
    colours = Image.merge("RGBA", [image, image, image, Image.new("L", image.size, 255)])
    found: dict[str, bytes | bytearray] = {
        "PNG": _saved(image, "PNG"),
        "PNG of 16 bits": imagecodecs.png_encode(deep),
        "PNG with alpha": _saved(colours, "PNG"),
        "PNG with a palette": _saved(image.convert("P"), "PNG", transparency=0),
        "BMP": _saved(image, "BMP"),
        "BMP in colour": _saved(colours.convert("RGB"), "BMP"),
        "JPEG": _saved(image, "JPEG", quality=90),
        "JPEG in colour": _saved(colours.convert("RGB"), "JPEG", progressive=True, exif=_turned()),
        "JPEG of 12 bits": imagecodecs.jpeg8_encode(deep, bitspersample=12),
        "WebP": _saved(image, "WEBP", quality=90),
        "WebP without loss": _saved(colours, "WEBP", lossless=True),
        "TIFF of pages": _pages(),
    }
    for kind, compression in product(("uint8", "uint16", "float32"), (None, "lzw", "zlib")):
        top = {"uint8": 255, "uint16": 4000, "float32": 1}[kind]
        more = Tiff(kind, 0, top, compression=compression, predictor=compression == "lzw", big=compression == "zlib")
        found[f"TIFF of {kind}, {compression}"] = more.encode()
        found[f"TIFF of {kind}, {compression}, tiles"] = dataclasses.replace(more, tile=(32, 48), endian=">").encode()
    found["TIFF of uint8, packbits"] = Tiff("uint8", 0, 255, compression="packbits").encode()
    found["TIFF of uint8, jpeg"] = Tiff("uint8", 0, 255, "RGB", compression="jpeg").encode()
    for syntax in ("explicit", "implicit", "big endian", "deflated", "RLE", "JPEG 2000"):
        found[f"DICOM, {syntax}"] = Dicom(bits=12, syntax=syntax, window="LINEAR", slope=2, intercept=-9).encode(
            head[None]
        )
    found["DICOM of frames"] = Dicom("uint8", 8, syntax="RLE").encode(np.stack([head, head[::-1]]))
    found["DICOM with a palette"] = Dicom("uint8", 8, photometric="PALETTE COLOR").encode(head[None])
    found["DICOM without preamble"] = Dicom(bits=12, preamble=False).encode(head[None])
    volume = a_volume((40, 48, 4))
    for version, endian, kind in product((1, 2), "<>", ("int16", "float32")):
        form = (1, np.diag([1.0, 1.0, 2.0, 1.0]))
        found[f"NIfTI {version} of {kind} {endian}"] = Nifti(kind, endian, version, (2, 1), qform=form).encode(volume)
    return {name: bytes(data) for name, data in found.items()}


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _pages() -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for seed in range(3):
            writer.write(np.rint(900 * a_head(seed)).astype(np.uint16), metadata=None, contiguous=False)
    return buffer.getvalue()


# ---- damage ----------------------------------------------------------------------------------------------------------


def mutants(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield (name of the sample, file) of `count` damaged files, the same for each `seed`."""
    generator, valid = random.Random(seed), samples()
    names = sorted(valid)
    for _ in range(count):
        name = generator.choice(names)
        data = bytearray(valid[name])
        for _ in range(generator.choice((1, 1, 1, 2, 4))):
            generator.choice(DAMAGE)(data, generator, valid[generator.choice(names)])
        # A decoder sees what is behind a checksum only if that is right.
        if name.startswith("PNG") and generator.random() < 0.7:
            _sum_up(data)
        yield name, gzip.compress(bytes(data), 1, mtime=0) if generator.random() < 0.1 else bytes(data)


def _place(data: bytearray, generator: random.Random) -> int:
    return generator.randrange(max(1, min(len(data), HEADER) if generator.random() < 0.5 else len(data)))


def _flip(data: bytearray, generator: random.Random, other: bytes) -> None:
    for _ in range(generator.choice((1, 1, 2, 8, 64))):
        if data:
            data[_place(data, generator)] ^= 1 << generator.randrange(8)


def _extreme(data: bytearray, generator: random.Random, other: bytes) -> None:
    size, order = generator.choice((1, 2, 2, 4, 4, 8)), generator.choice("<>")
    place = _place(data, generator) // min(size, 2) * min(size, 2)
    value = generator.choice(EXTREMES) % 2 ** (8 * size)
    data[place : place + size] = value.to_bytes(size, "little" if order == "<" else "big")


def _float(data: bytearray, generator: random.Random, other: bytes) -> None:
    place = _place(data, generator) // 4 * 4
    value = generator.choice((0.0, -1.0, 1e-40, 1e38, float("inf"), float("nan")))
    data[place : place + 4] = struct.pack(generator.choice("<>") + "f", value)


def _cut(data: bytearray, generator: random.Random, other: bytes) -> None:
    del data[_place(data, generator) :]


def _remove(data: bytearray, generator: random.Random, other: bytes) -> None:
    place = _place(data, generator)
    del data[place : place + generator.choice((1, 2, 4, 100, 3000))]


def _repeat(data: bytearray, generator: random.Random, other: bytes) -> None:
    place = _place(data, generator)
    data[place:place] = data[place : place + generator.choice((1, 4, 12, 64, 500))] * generator.choice((1, 2, 50))


def _splice(data: bytearray, generator: random.Random, other: bytes) -> None:
    place, start = _place(data, generator), generator.randrange(len(other))
    end = None if generator.random() < 0.3 else place + generator.choice((4, 16, 200, 2000))
    data[place:end] = other[start : start + generator.choice((4, 16, 200, 2000))]


DAMAGE: tuple[Callable[[bytearray, random.Random, bytes], None], ...] = (
    *(_flip, _flip, _extreme, _extreme, _extreme),
    *(_float, _cut, _remove, _repeat, _splice),
)


def _sum_up(data: bytearray) -> None:
    """Correct the checksums of the chunks of a PNG, as far as its lengths lead."""
    place = 8
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if end > len(data):
            return
        data[end - 4 : end] = zlib.crc32(data[place + 4 : end - 4]).to_bytes(4, "big")
        place = end
