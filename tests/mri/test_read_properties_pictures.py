"""A drawn head in a picture's format - PNG, TIFF, JPEG, WebP, BMP - of any depth and layout is read as that head."""

import io
from dataclasses import dataclass

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.mri.heads import TINT, a_head, check, examples, outside, slices

HEAD = a_head(0)


def layered(values: np.ndarray, layout: str, opaque: float) -> np.ndarray:
    """Return [height, width] or [height, width, channels] of `values`, of which `opaque` is the largest there may be.

    What an alpha channel hides is as bright as can be: it must not be seen.
    """
    hidden = (HEAD == 0)[..., None]
    alpha = np.where(hidden, 0, opaque)
    gray = values[..., None]
    if layout == "L":
        return values
    if layout == "LA":
        return np.concatenate([np.where(hidden, opaque, gray), alpha], 2)
    rgb = gray * TINT
    return rgb if layout == "RGB" else np.concatenate([np.where(hidden, opaque, rgb), alpha], 2)


def seen_by_pillow(data: bytes) -> np.ndarray:
    """Return what Pillow shows of an 8-bit picture, transparency on black."""
    image = Image.open(io.BytesIO(data))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    return np.array(image.convert("L"))


def check_8_bits(data: bytes) -> None:
    (shown,) = slices(data)
    check(shown.pixels, HEAD)
    assert np.abs(shown.pixels.astype(int) - seen_by_pillow(data)).max() <= 1


@pytest.mark.parametrize("layout", ["L", "LA", "RGB", "RGBA"])
def test_png_of_8_bits(layout):
    check_8_bits(saved(np.rint(layered(255 * HEAD, layout, 255)).astype(np.uint8), "PNG"))


@pytest.mark.parametrize("layout", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("top", [65535, 4095, 900])
def test_png_of_16_bits(layout, top):
    values = np.rint(layered(top * HEAD, layout, 65535)).astype(np.uint16)
    (shown,) = slices(imagecodecs.png_encode(values), "a.png")
    check(shown.pixels, HEAD)


def saved(values: np.ndarray, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_palettes(kind):
    image = Image.fromarray(255 - np.rint(255 * HEAD).astype(np.uint8))
    image.putpalette([round(share * gray) for gray in range(255, -1, -1) for share in TINT])
    buffer = io.BytesIO()
    image.save(buffer, kind)
    check_8_bits(buffer.getvalue())


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 95}),
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
    ],
)
@pytest.mark.parametrize("layout", ["L", "RGB"])
def test_other_pictures_of_8_bits(kind, options, layout):
    check_8_bits(saved(np.rint(layered(255 * HEAD, layout, 255)).astype(np.uint8), kind, **options))


@pytest.mark.parametrize("layout", ["L", "RGB"])
@pytest.mark.parametrize("top", [4095, 1000])
def test_jpeg_of_12_bits(layout, top):
    values = np.rint(layered(top * HEAD, layout, 4095)).astype(np.uint16)
    (shown,) = slices(imagecodecs.jpeg8_encode(values, 95, bitspersample=12), "a.jpg")
    check(shown.pixels, HEAD)


@dataclass(frozen=True)
class Tiff:
    """How a TIFF stores a head: 0 becomes `low`, 1 becomes `high`."""

    dtype: str
    low: float
    high: float
    layout: str = "L"
    photometric: str = "minisblack"
    compression: str | None = None
    predictor: bool = False
    tile: tuple[int, int] | None = None
    endian: str = "<"
    big: bool = False
    planar: str = "contig"
    nothing: float | None = None  # what is stored where nothing is
    everywhere: bool = True  # around the head, or in the corners only

    def encode(self) -> bytes:
        kind = np.dtype(self.dtype)
        low, high = (self.high, self.low) if self.photometric == "miniswhite" else (self.low, self.high)
        values = low + HEAD * (high - low)
        if self.nothing is not None:
            values = np.where(HEAD == 0 if self.everywhere else outside(), self.nothing, values)
        opaque = np.iinfo(kind).max if kind.kind in "iu" else 1.0
        values = layered(values, self.layout, opaque)
        if self.planar == "separate" and "RGB" in self.layout:
            values = np.moveaxis(values, -1, 0)
        buffer = io.BytesIO()
        tifffile.imwrite(
            buffer,
            (values if kind.kind == "f" else np.rint(values)).astype(kind),
            byteorder=self.endian,
            bigtiff=self.big,
            photometric="rgb" if "RGB" in self.layout else self.photometric,
            planarconfig=self.planar if "RGB" in self.layout else None,
            extrasamples=["unassalpha"] if "A" in self.layout else None,
            compression=self.compression,
            predictor=self.predictor,
            tile=self.tile,
            metadata=None,
        )
        return buffer.getvalue()


RANGES = {
    "uint8": [(0, 255)],
    "int8": [(0, 127), (-128, 127)],
    "uint16": [(0, 65535), (0, 4095), (1000, 1900)],
    "int16": [(0, 4095), (-1000, 900), (-32768, 32767)],
    "uint32": [(0, 2**32 - 1), (0, 900), (10**6, 10**7)],
    "int32": [(0, 2**31 - 1), (-1000, 900)],
    "uint64": [(0, 900), (0, 2**40)],
    "int64": [(-1000, 900), (0, 2**40)],
    "float16": [(0, 1), (-2, -1), (0, 3500)],
    "float32": [(0, 1), (-2, -1), (0, 3500), (0, 1e-6), (0, 1e12)],
    "float64": [(0, 1), (-2, -1), (0, 3500), (0, 1e-6), (0, 1e12)],
}


@st.composite
def tiffs(draw) -> Tiff:
    dtype = draw(st.sampled_from(list(RANGES)))
    low, high = draw(st.sampled_from(RANGES[dtype]))
    # In colour, and with what alpha hides, black is 0.
    layouts = ["L"] if low else ["L", "RGB"] if dtype not in ("uint8", "uint16") else ["L", "RGB", "LA", "RGBA"]
    layout = draw(st.sampled_from(layouts))
    compression = draw(st.sampled_from([None, "lzw", "zlib"] + ["jpeg", "packbits"] * (dtype == "uint8")))
    if compression == "jpeg" and "A" in layout:
        compression = None
    # tifffile writes no differences of 64-bit integers.
    predictor = compression in ("lzw", "zlib") and dtype not in ("int64", "uint64") and draw(st.booleans())
    nothing = draw(st.sampled_from([None, np.nan, np.inf, -np.inf])) if dtype[0] == "f" and layout == "L" else None
    return Tiff(
        dtype,
        low,
        high,
        layout,
        draw(st.sampled_from(["minisblack", "miniswhite"])) if layout == "L" else "minisblack",
        compression,
        predictor,
        draw(st.sampled_from([None, (32, 48)])),
        draw(st.sampled_from("<>")),
        draw(st.booleans()),
        draw(st.sampled_from(["contig", "separate"])) if compression != "jpeg" else "contig",
        nothing,
    )


@examples(200)
@given(tiffs())
def test_tiff_of_any_kind(stored):
    (shown,) = slices(stored.encode(), "a.tif")
    check(shown.pixels, HEAD, 0.99 if stored.nothing is None else 0.98)


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize(
    ("dtype", "nothing"),
    [
        ("int16", -32768),
        ("int16", 32767),
        ("uint16", 65535),
        ("float32", -1e30),
        ("float32", 1e30),
        ("float32", np.nan),
    ],
)
def test_tiff_with_padded_corners(dtype, nothing, photometric):
    stored = Tiff(dtype, 0, 900, nothing=nothing, everywhere=False, photometric=photometric)
    (shown,) = slices(stored.encode(), "a.tif")
    check(shown.pixels, HEAD)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_tiff_of_several_pages(dtype):
    heads = [a_head(number) for number in range(3)]
    buffer = io.BytesIO()
    top = 255 if dtype == "uint8" else 900
    with tifffile.TiffWriter(buffer) as writer:
        for head in heads:
            writer.write(np.rint(top * head).astype(dtype), photometric="minisblack", metadata=None, contiguous=False)
    shown = slices(buffer.getvalue(), "a.tif")
    assert [piece.number for piece in shown] == [0, 1, 2]
    for piece, head in zip(shown, heads, strict=True):
        check(piece.pixels, head)
