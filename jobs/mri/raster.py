"""Reads pictures of any bit depth: 8 bits with Pillow, more with tifffile and imagecodecs (Pillow truncates them)."""

import contextlib
import io
import math
from collections.abc import Callable, Iterator
from typing import cast

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageOps

from jobs.mri import damage, masks
from jobs.mri.gray import histogram, luminance, percentiles, to_gray
from jobs.mri.slices import BUDGET, Picture, Slice, Unusable, check_size, decoder_error

SIGNATURES = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG",),
    "BMP": (b"BM",),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "WebP": (b"RIFF",),
}
MAX_SCANS = 100  # of a JPEG: a progressive one has about ten; each takes as long as a whole picture
DARK = 64  # an 8-bit picture with all gray values below this is almost black, and is scaled like a deeper one
# How to turn a picture upright, by the value of TIFF's orientation tag.
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}
ALPHA = (1, 2)  # values of TIFF's ExtraSamples


def kind_of(data: bytes) -> str | None:
    """Return the name of the format from the first bytes of `data`, None if it is none of SIGNATURES."""
    found = next((kind for kind, starts in SIGNATURES.items() if data.startswith(starts)), None)
    return None if found == "WebP" and data[8:12] != b"WEBP" else found


def read(data: bytes, kind: str) -> Picture:
    """Return the picture in `data`, a file of `kind`; a TIFF of several pages is a volume.

    EXIF orientation is applied, transparent pixels become black, colour becomes luminance. 8-bit values do not change
    unless the picture is almost black; deeper values are scaled by `to_gray`.

    Raises Unusable: truncated, unsupported, decoder-error, decompression-bomb, not-a-picture or blank.
    """
    try:
        slices = list(_tiff_pages(data)) if kind == "TIFF" else [Slice(_single(data, kind))]
    except (Unusable, Image.DecompressionBombError, MemoryError):
        raise
    # Decoders raise many kinds of exceptions for damaged data: SyntaxError, struct.error, ValueError, zlib.error.
    except Exception as error:
        if "too large" in str(error):
            raise Unusable("decompression-bomb", f"a text in the {kind} unpacks to too much") from None
        detail = damage.found(data)
        words = ("truncated", "broken", "unrecognized data stream", "corrupt")
        if isinstance(error, OSError | SyntaxError) and any(word in str(error).lower() for word in words):
            detail = detail or "its data end early or are broken"
        if detail:
            raise Unusable("truncated", detail) from None
        raise decoder_error(error, f"the {kind}", "save it as PNG") from None
    if not slices:
        raise Unusable("unsupported", "a TIFF of reduced copies of another picture alone: save that picture")
    masks.reject_label_maps(piece.pixels for piece in slices)
    return Picture(slices, kind)


def _single(data: bytes, kind: str) -> np.ndarray:
    """Return uint8 [height, width] of a file with one picture."""
    if kind == "JPEG":
        scans = data.count(b"\xff\xda")
        if scans > MAX_SCANS:
            raise Unusable("decompression-bomb", f"a JPEG of {scans} scans, more than {MAX_SCANS}")
        process, precision, height, width = _jpeg_frame(data)
        if process not in (0xC0, 0xC1, 0xC2):
            raise Unusable("unsupported", "JPEG that is lossless, hierarchical or arithmetic: save it as PNG")
        if precision != 8:
            check_size(height * width, BUDGET.pixels, "pixels")
            return _flat_gray(imagecodecs.jpeg8_decode(data))
    with Image.open(io.BytesIO(data), formats=(kind,)) as image:
        check_size(image.width * image.height, BUDGET.pixels, "pixels")
        if kind == "PNG" and data[24] == 16 and data[25] in (2, 4, 6):
            values = imagecodecs.png_decode(data)
            return TURNS.get(_orientation(image), lambda a: a)(_flat_gray(values))
        return _gray(image)


def _jpeg_frame(data: bytes) -> tuple[int, int, int, int]:
    """Return the SOF marker of a JPEG, the bits of a sample, height and width. Raises Unusable: truncated."""
    place = 2
    while place + 9 < len(data):
        if data[place] != 0xFF:
            break
        marker = data[place + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:
            place += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = (int.from_bytes(data[place + at : place + at + 2], "big") for at in (5, 7))
            return marker, data[place + 4], height, width
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    raise Unusable("truncated", "the JPEG has no frame header")


def _orientation(image: Image.Image) -> int:
    # Damaged EXIF data do not affect the picture.
    with contextlib.suppress(Exception):
        return int(image.getexif().get(0x0112, 1))
    return 1


def _gray(image: Image.Image) -> np.ndarray:
    """Return uint8 [height, width] of a picture opened by Pillow."""
    image.load()
    with contextlib.suppress(Exception):
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return to_gray(np.asarray(image)[np.newaxis])[0]
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    if image.mode in ("LAB", "HSV", "YCbCr", "CMYK"):
        image = image.convert("RGB")
    return _visible(np.array(image.convert("L")))


def _visible(pixels: np.ndarray) -> np.ndarray:
    """Return uint8 `pixels`, scaled by `to_gray` if nearly all are dark, even beside a few bright ones."""
    counts = histogram(pixels)
    counts[counts.argmax()] = 0
    if np.count_nonzero(counts) < 8 or percentiles(counts, (99.5,))[0] >= DARK:
        return pixels
    return to_gray(pixels[np.newaxis])[0]


def _flat_gray(values: np.ndarray, *, alpha: bool = True, inverted: bool = False) -> np.ndarray:
    """Return uint8 [height, width] of [height, width] or [height, width, channels]: gray or RGB, perhaps alpha."""
    values = values[..., np.newaxis] if values.ndim == 2 else values
    channels = values.shape[-1]
    gray = values[..., 0] if channels < 3 else luminance(values)
    if alpha and channels in (2, 4):
        opaque = np.iinfo(values.dtype).max if values.dtype.kind in "iu" else 1
        gray = gray.astype(np.float32) * (values[..., -1].astype(np.float32) / opaque)
    if values.dtype == np.uint8:
        shown = np.rint(gray).astype(np.uint8)
        return _visible(255 - shown if inverted else shown)
    return to_gray(gray[np.newaxis], inverted=inverted)[0]


def _tiff_pages(data: bytes) -> Iterator[Slice]:
    """Yield each page of a TIFF except thumbnails."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        count = len(file.pages)
        check_size(count, BUDGET.slices, "pages")
        total = 0
        for number in range(count):
            page = cast(tifffile.TiffPage, file.pages[number])
            if count > 1 and page.subfiletype & tifffile.FILETYPE.REDUCEDIMAGE:
                continue
            samples = page.imagewidth * page.imagelength * page.imagedepth
            check_size(samples, BUDGET.pixels, "pixels")
            total += samples
            check_size(total, BUDGET.voxels, "pixels")
            yield Slice(_tiff_page(data, page, number), number if count > 1 else None)
        # ImageJ and others store all frames in one page, and only a text in the file tells so.
        if count == 1 and math.prod(file.series[0].shape) > samples * page.samplesperpixel:
            raise Unusable("unsupported", "TIFF with several frames behind one page: save each frame as a page")


def _tiff_page(data: bytes, page: tifffile.TiffPage, number: int) -> np.ndarray:
    photometric = tifffile.PHOTOMETRIC(page.photometric)
    bits = max(page.bitspersample) if isinstance(page.bitspersample, tuple) else page.bitspersample
    if photometric == tifffile.PHOTOMETRIC.MASK:
        raise Unusable("not-a-picture", "a TIFF page that is a transparency mask")
    if bits <= 8 and page.sampleformat == tifffile.SAMPLEFORMAT.UINT:
        # Pillow supports more colour spaces, tifffile more layouts and compressions.
        with contextlib.suppress(OSError), Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
            image.seek(number)
            return _gray(image)
    kinds = (tifffile.PHOTOMETRIC.MINISWHITE, tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
    colours = 3 if photometric == tifffile.PHOTOMETRIC.RGB else 1
    extra = page.samplesperpixel - colours
    if page.imagedepth != 1:
        raise Unusable("unsupported", "TIFF whose tiles are volumes: save each slice as a page")
    if photometric not in kinds or extra < 0 or (colours == 1 and extra > 1):
        raise Unusable("unsupported", f"TIFF of {bits} bits that is neither gray nor RGB: save it as gray TIFF or PNG")
    if page.dtype is None or page.dtype.kind not in "iuf":
        raise Unusable("unsupported", f"TIFF of {bits} bits whose values are not real numbers: save it as gray PNG")
    if short := damage.of_page(data, page):
        raise Unusable("truncated", short)
    separate, _, height, width, together = page.shaped
    stored = page.asarray().reshape(separate, height, width, together)
    values = stored.transpose(1, 2, 0, 3).reshape(height, width, separate * together)
    alpha = bool(extra) and page.extrasamples[0] in ALPHA
    kept = values if alpha else values[..., :colours]
    orientation = page.tags.valueof(274, 1)
    turned = TURNS.get(orientation, lambda a: a)(kept[..., 0] if kept.shape[-1] == 1 else kept)
    return _flat_gray(turned, alpha=alpha, inverted=photometric == tifffile.PHOTOMETRIC.MINISWHITE)
