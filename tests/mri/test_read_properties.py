"""A drawn head, stored in every supported way, is read as that head, or is rejected for the correct reason."""

import dataclasses
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

from tests.mri.heads import HEIGHT, WIDTH, a_head, a_volume, check, examples, outside, slices
from tests.mri.stored import Dicom, Nifti

HEADS = np.stack([a_head(number) for number in range(3)])
HEAD, VOLUME = HEADS[0], a_volume()


RESCALES = [(None, None), (1, 0), (2.5, -400), (1, -1024), (0.00012, 0), (1e-6, -1e-3), (-1, 4095)]
WINDOWS = ["none", "LINEAR", "LINEAR_EXACT", "SIGMOID", "blanking"]


@st.composite
def depths(draw) -> Dicom:
    """Gray in any depth, rescaled and shown in any way."""
    dtype = draw(st.sampled_from(["uint8", "int8", "uint16", "int16"]))
    bits = draw(st.sampled_from([8] if dtype.endswith("8") else [8, 10, 12, 15, 16]))
    slope, intercept = draw(st.sampled_from(RESCALES))
    window = draw(st.sampled_from(WINDOWS))
    base = draw(st.sampled_from([0.0, 0.25]))
    photometric = draw(st.sampled_from(["MONOCHROME2", "MONOCHROME1"]))
    return Dicom(dtype, bits, photometric=photometric, slope=slope, intercept=intercept, window=window, base=base)


@examples(120)
@given(depths())
def test_dicom_of_any_depth(stored):
    (shown,) = slices(stored.encode(HEADS[:1]))
    check(shown.pixels, HEAD)


@examples(40)
@given(depths(), st.sampled_from(["shifted", "overlay"]))
def test_dicom_with_unused_bits(stored, high_bit):
    # Old files keep the values in the upper bits, or an overlay in the bits that the values leave.
    stored = dataclasses.replace(stored, dtype=stored.dtype.replace("t8", "t16"), bits=12, high_bit=high_bit)
    for shown in slices(stored.encode(HEADS[:1]), rejected=("unsupported",)):
        check(shown.pixels, HEAD)


@st.composite
def colours(draw) -> Dicom:
    photometric = draw(st.sampled_from(["RGB", "YBR_FULL", "PALETTE COLOR"]))
    deep = draw(st.booleans()) and photometric != "YBR_FULL"
    bits = 12 if deep and photometric == "PALETTE COLOR" else 16 if deep else 8
    planar = draw(st.sampled_from([0, 1]))
    syntax = draw(st.sampled_from(["explicit", "implicit", "big endian", "RLE"]))
    return Dicom("uint16" if deep else "uint8", bits, photometric=photometric, planar=planar, syntax=syntax)


@examples(40)
@given(colours(), st.sampled_from([1, 3]))
def test_dicom_in_colour(stored, frames):
    shown = slices(stored.encode(HEADS[:frames]))
    assert len(shown) == frames
    for piece, head in zip(shown, HEADS, strict=False):
        check(piece.pixels, head)


@st.composite
def padded(draw) -> Dicom:
    """The corners, or all pixels outside the head, have a padding value."""
    stored = dataclasses.replace(draw(depths()), dtype=draw(st.sampled_from(["uint16", "int16"])), bits=16)
    padding = draw(st.sampled_from(["value", "range", "other sign", "none"]))
    # The head takes the middle of what can be stored, so that a ring may lie far below and far above it.
    base, top = 0.45, 0.55
    background = base if (stored.photometric == "MONOCHROME2") == ((stored.slope or 1) > 0) else top
    places = [0.0, 1.0] if padding in ("none", "range") else [0.0, 1.0, background, 0.4, 0.6]
    # Nothing but a declaration tells a whole background from a picture's own.
    everywhere = draw(st.booleans()) and padding != "none"
    return dataclasses.replace(
        stored, base=base, top=top, ring=draw(st.sampled_from(places)), padding=padding, everywhere=everywhere
    )


@examples(120)
@given(padded())
def test_dicom_with_padding(stored):
    (shown,) = slices(stored.encode(HEADS[:1]))
    # Where no background is left, the darkest of the head is black; a sigmoid's background is not black.
    hidden = stored.everywhere or stored.ring in (stored.base, stored.top) or stored.window == "SIGMOID"
    check(shown.pixels, HEAD, 0.98 if hidden else 0.99)
    assert shown.pixels[outside()].max() <= max(10, shown.pixels[(HEAD == 0) & ~outside()].max())


@st.composite
def wrapped(draw) -> tuple[Dicom, int, str]:
    """Every encoding, with a number of frames that the header states, omits or contradicts."""
    syntax = draw(st.sampled_from(["explicit", "implicit", "big endian", "deflated", "RLE", "JPEG-LS", "JPEG 2000"]))
    plain = syntax in ("explicit", "implicit", "big endian")
    frames = draw(st.sampled_from([1, 3]))
    counts = [{}, {"NumberOfFrames": frames}] if frames == 1 else [{}]
    if plain:
        counts += [{"NumberOfFrames": 0}, {"NumberOfFrames": None} if frames > 1 else {"NumberOfFrames": ""}]
    signed = [] if syntax.startswith("J") else ["int8", "int16"]
    dtype = draw(st.sampled_from(["uint8", "uint16", *signed]))
    stored = Dicom(
        dtype,
        12 if dtype.endswith("16") else 8,
        syntax=syntax,
        preamble=draw(st.booleans()) if plain else True,
        gzipped=draw(st.booleans()),
        attributes=draw(st.sampled_from(counts)),
    )
    name = draw(st.sampled_from(["a.dcm", "a.IMA", "IM_0001", "1.3.12.2.1107.5.2.7", "a.MR", "a.jpg"]))
    return stored, frames, name + ".gz" * stored.gzipped


@examples(120)
@given(wrapped())
def test_dicom_in_any_encoding(case):
    stored, frames, name = case
    rejected = ("unsupported",) if stored.syntax in ("deflated", "JPEG-LS", "JPEG 2000") else ()
    shown = slices(stored.encode(HEADS[:frames]), name, rejected)
    if not shown and rejected:
        return
    assert len(shown) == frames
    for piece, head in zip(shown, HEADS, strict=False):
        check(piece.pixels, head)


def emptied(name: str) -> dict[str, Any]:
    """Return a sequence of one item in which the descriptor of a table is empty."""
    item = Dataset()
    item.LUTDescriptor = None
    return {name: [item]}


BROKEN = [
    {"RescaleSlope": "", "RescaleIntercept": ""},
    {"RescaleSlope": "0", "RescaleIntercept": "0"},
    {"RescaleIntercept": ""},
    {"WindowCenter": "", "WindowWidth": ""},
    {"WindowCenter": ["", ""], "WindowWidth": ["", ""]},
    {"WindowWidth": "0"},
    {"WindowWidth": "-5"},
    {"WindowCenter": "2000", "WindowWidth": "0.5"},
    {"WindowCenter": None},
    {"VOILUTFunction": "CURVED"},
    {"VOILUTSequence": []},
    emptied("VOILUTSequence"),
    emptied("ModalityLUTSequence"),
    {"PixelSpacing": ""},
    {"PixelSpacing": "0.9"},
    {"PixelSpacing": ["0", "0"]},
    {"PixelAspectRatio": ""},
    {"PlanarConfiguration": 1},
]


@pytest.mark.parametrize("attributes", BROKEN, ids=lambda attributes: " ".join(attributes))
@pytest.mark.parametrize("window", ["none", "LINEAR"])
def test_a_broken_optional_attribute_is_as_if_absent(attributes, window):
    stored = Dicom(bits=12, slope=1, intercept=0, window=window)
    if stored.window == "none" and attributes == {"WindowCenter": None}:
        attributes = {"WindowWidth": "10"}
    (shown,) = slices(dataclasses.replace(stored, attributes=attributes).encode(HEADS[:1]))
    check(shown.pixels, HEAD)


@pytest.mark.parametrize(("spacing", "shape"), [([1, 1.25], (HEIGHT, 100)), ([1.5, 1], (144, WIDTH))])
def test_pixels_that_are_not_square_become_square(spacing, shape):
    (shown,) = slices(Dicom(attributes={"PixelSpacing": spacing}).encode(HEADS[:1]))
    check(shown.pixels, HEAD, 0.98, shape)


AXES = ["RAS", "LPS", "LAS", "RPI", "PIR", "SRA", "ASL", "IPL"]


def affine(axes: str, zooms=(1.0, 1.0, 2.0), degrees: float = 0.0) -> np.ndarray:
    """Return the affine of an array whose axes run as `axes` says, its plane turned by `degrees`."""
    turn = np.deg2rad(degrees)
    turned = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    rows = nibabel.orientations.axcodes2ornt(axes)
    result = np.eye(4)
    for axis, (place, sign) in enumerate(rows):
        result[:3, axis] = turned[:, int(place)] * sign * zooms[int(place)]
    result[:3, 3] = -10, 5, 3
    return result


@st.composite
def volumes(draw) -> tuple[Nifti, np.ndarray, np.ndarray]:
    """Return how a volume is stored, the volume as its file holds it, and where the file says it lies."""
    kinds = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
    dtype = draw(st.sampled_from(kinds))
    true, other = draw(st.permutations(AXES))[:2]
    place, elsewhere = affine(true, degrees=draw(st.sampled_from([0, 20]))), affine(other)
    form = draw(st.sampled_from(["sform", "qform", "both", "no sform", "empty sform"]))
    sform, qform = {
        "sform": ((1, place), (0, None)),
        "qform": ((0, None), (1, place)),
        "both": ((2, place), (1, elsewhere)),
        # Its rows are there, and its code says that they mean nothing.
        "no sform": ((0, elsewhere), (1, place)),
        "empty sform": ((1, None), (1, place)),
    }[form]
    scalings = [None, (0, 0), (np.nan, np.nan), (1, 0), (2.5, -400), (1e-6, 0), (np.inf, 0), (3, np.nan)]
    backgrounds = [None, np.nan, np.inf, -np.inf] if dtype[0] == "f" else [None]
    stored = Nifti(
        dtype,
        draw(st.sampled_from("<>")),
        draw(st.sampled_from([1, 2])),
        draw(st.sampled_from(scalings)),
        sform,
        qform,
        draw(st.sampled_from(backgrounds)),
        draw(st.sampled_from([(), (1,), (2,), (1, 2)])),
        draw(st.booleans()),
    )
    # The drawn volume lies along RAS; the file's array is the same volume along the file's axes.
    turn = nibabel.orientations.axcodes2ornt(true)
    array = nibabel.apply_orientation(
        VOLUME, nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt("RAS"), turn)
    )
    return stored, array, place


@examples(120)
@given(volumes())
def test_nifti_of_any_kind(case):
    stored, array, place = case
    canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(array, place)).get_fdata()
    shown = slices(stored.encode(array), "a.nii.gz" if stored.gzipped else "a.nii")
    assert len(shown) >= VOLUME.shape[2] - 2
    for piece in shown:
        check(piece.pixels, canonical[::-1, ::-1, piece.number].T)


def test_nifti_with_a_far_background():
    stored = Nifti("float32", background=-1000, qform=(1, affine("RAS")))
    for piece in slices(stored.encode(VOLUME), "a.nii"):
        check(piece.pixels, VOLUME[::-1, ::-1, piece.number].T, 0.98)
