"""Ways in which DICOM and NIfTI files store a drawn head."""

import gzip
import io
from dataclasses import dataclass, field
from typing import Any

import imagecodecs
import nibabel
import numpy as np
import pydicom
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
)

from tests.mri.heads import TINT, outside

SYNTAXES = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
}


@dataclass(frozen=True)
class Dicom:
    """How a DICOM file stores a head; `attributes` are set last and may contradict the others."""

    dtype: str = "uint16"
    bits: int = 16  # BitsStored
    high_bit: str = "low"  # "low": as usual; "shifted": values in the upper bits; "overlay": something above them
    photometric: str = "MONOCHROME2"
    planar: int = 0
    slope: float | None = None
    intercept: float | None = None
    window: str = "none"  # a VOI LUT function, "blanking" or "none"
    syntax: str = "explicit"
    preamble: bool = True
    gzipped: bool = False
    base: float = 0.0  # stored value of the background, as a share of the values there are
    top: float = 1.0  # and of the brightest
    ring: float | None = None  # what is stored outside the ellipse, as such a share, or as a number of ranges
    padding: str = "none"  # how the ring is declared: "value", "range", "other sign" or "none"
    everywhere: bool = False  # the ring is all that is not head
    attributes: dict[str, Any] = field(default_factory=dict)

    def limits(self) -> tuple[int, int]:
        """Return the least and the largest value that can be stored."""
        return (-(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1) if self.dtype[0] == "i" else (0, 2**self.bits - 1)

    def stored(self, heads: np.ndarray) -> tuple[np.ndarray, float, float]:
        """Return the stored values of `heads` (float [frames, height, width]), and those of 0 and of 1."""
        least, largest = self.limits()
        if self.dtype[0] == "i" and self.base == 0:
            least = 0
        black, white = (least + share * (largest - least) for share in (self.base, self.top))
        if self.photometric == "MONOCHROME1":
            black, white = white, black
        if self.slope is not None and self.slope < 0:
            black, white = white, black
        values = np.rint(black + heads * (white - black))
        if self.ring is not None:
            place = heads == 0 if self.everywhere else np.broadcast_to(outside(*heads.shape[1:]), heads.shape)
            # A range that is declared is used: its limit lies 2 % nearer to the head.
            spread = round(0.02 * 2**self.bits) * (1 if self.ring < self.base else -1) * (self.padding == "range")
            values = np.where(place, self.ring_value() + spread * (np.indices(heads.shape).sum(0) % 7 / 6), values)
        return values.astype(np.int64), round(black), round(white)

    def ring_value(self) -> int:
        """Return what is stored outside the ellipse."""
        assert self.ring is not None
        least, largest = self.limits()
        return round(least + self.ring * (largest - least))

    def encode(self, heads: np.ndarray) -> bytes:
        """Return the file that shows `heads` (float [frames, height, width])."""
        dataset = pydicom.Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = MRImageStorage, "1.2.3", "MR"
        dataset.Rows, dataset.Columns = heads.shape[1:]
        dataset.PhotometricInterpretation = self.photometric
        dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, int(self.dtype[0] == "i")
        dataset.BitsAllocated, dataset.BitsStored = 8 * np.dtype(self.dtype).itemsize, self.bits
        dataset.HighBit = dataset.BitsAllocated - 1 if self.high_bit == "shifted" else self.bits - 1
        if len(heads) > 1:
            dataset.NumberOfFrames = len(heads)
        values, black, white = self.stored(heads)
        if self.photometric in ("RGB", "YBR_FULL"):
            values = self._colour(dataset, heads)
        elif self.photometric == "PALETTE COLOR":
            values = self._palette(dataset, heads)
        else:
            self._gray(dataset, black, white)
        unused = dataset.BitsAllocated - self.bits
        values = values & (2**self.bits - 1)
        if self.high_bit == "shifted":
            values = values << unused
        elif self.high_bit == "overlay" and unused:
            values = values | (np.indices(values.shape).sum(0) // 9 % 2 << self.bits)
        elif self.dtype[0] == "i":
            values = np.where(values >> (self.bits - 1), values | -(2**self.bits), values)
        bits = values.astype(np.int64) & (2**dataset.BitsAllocated - 1)
        self._put(dataset, bits.astype(f"uint{dataset.BitsAllocated}"))
        for name, value in self.attributes.items():
            if value is None:
                delattr(dataset, name)
            else:
                setattr(dataset, name, value)
        return self._save(dataset)

    def _gray(self, dataset: pydicom.Dataset, black: float, white: float) -> None:
        slope, intercept = self.slope, self.intercept
        if slope is not None:
            dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = (
                f"{slope:.8g}",
                f"{intercept:.8g}",
                "US",
            )
        real = sorted(value * (slope or 1) + (intercept or 0) for value in (black, white))
        if self.window == "blanking":
            dataset.WindowCenter, dataset.WindowWidth = f"{real[1] + 1e6:.8g}", "10"
        elif self.window != "none":
            # LINEAR means whole numbers: its black is the centre - 0.5 - (width - 1) / 2 (PS3.3 C.11.2.1.2.1).
            # Such a window cannot show real values that lie closer together; files declare one that says nothing.
            more = int(self.window == "LINEAR" and real[1] - real[0] > 1)
            dataset.WindowCenter = f"{(sum(real) + more) / 2:.8g}"
            dataset.WindowWidth = f"{real[1] - real[0] + more:.8g}"
            dataset.VOILUTFunction = self.window
        if self.padding == "none":
            return
        value = self.ring_value()
        kind = "SS" if dataset.PixelRepresentation else "US"
        if self.padding == "other sign":
            kind, value = ("US", value % 2**16) if kind == "SS" else ("SS", value - 2**16 * (value >= 2**15))
        dataset.add_new("PixelPaddingValue", kind, value)
        if self.padding == "range":
            spread = round(0.02 * 2**self.bits)
            dataset.add_new("PixelPaddingRangeLimit", kind, value + (spread if self.ring < self.base else -spread))

    def _colour(self, dataset: pydicom.Dataset, heads: np.ndarray) -> np.ndarray:
        largest = self.limits()[1]
        dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, self.planar
        rgb = np.stack([share * largest * heads for share in TINT], -1)
        if self.photometric == "YBR_FULL":
            to_ybr = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
            rgb = rgb @ to_ybr.T + np.array([0, 128, 128])
        return np.clip(np.rint(rgb), 0, largest).astype(np.int64)

    def _palette(self, dataset: pydicom.Dataset, heads: np.ndarray) -> np.ndarray:
        # The indices run against the gray values: shown without its palette, the head is a negative.
        count = 2**self.bits
        for share, colour in zip(TINT, ("Red", "Green", "Blue"), strict=True):
            entries = np.rint(share * 65535 * np.linspace(1, 0, count)).astype("<u2")
            setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [count % 2**16, 0, 16])
            setattr(dataset, f"{colour}PaletteColorLookupTableData", entries.tobytes())
        return np.rint((count - 1) * (1 - heads)).astype(np.int64)

    def _put(self, dataset: pydicom.Dataset, values: np.ndarray) -> None:
        """Set the pixel data: `values` is [frames, height, width] or [frames, height, width, 3]."""
        syntax = SYNTAXES[self.syntax]
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian if self.syntax == "RLE" else syntax
        if self.syntax in ("JPEG-LS", "JPEG 2000"):
            encode = imagecodecs.jpegls_encode if self.syntax == "JPEG-LS" else imagecodecs.jpeg2k_encode
            options = {} if self.syntax == "JPEG-LS" else {"level": 0, "codecformat": "j2k", "reversible": True}
            options |= {"bitspersample": self.bits} if options else {}
            dataset.PixelData = encapsulate([encode(frame, **options) for frame in values])
            return
        if values.ndim == 4 and self.planar and self.syntax != "RLE":
            values = np.moveaxis(values, -1, 1)
        elif self.syntax == "RLE" and values.ndim == 4:
            dataset.PlanarConfiguration = 0
        order = ">" if self.syntax == "big endian" else "<"
        raw = values.astype(values.dtype.newbyteorder(order)).tobytes()
        dataset.PixelData = raw + bytes(len(raw) % 2)
        if self.syntax == "RLE":
            dataset.compress(RLELossless, generate_instance_uid=False)

    def _save(self, dataset: pydicom.Dataset) -> bytes:
        buffer = io.BytesIO()
        if self.preamble:
            dataset.save_as(buffer, enforce_file_format=True)
        else:
            del dataset.file_meta
            dataset.save_as(buffer, implicit_vr=self.syntax == "implicit", little_endian=self.syntax != "big endian")
        return gzip.compress(buffer.getvalue()) if self.gzipped else buffer.getvalue()


@dataclass(frozen=True)
class Nifti:
    """How a NIfTI file stores a volume; `sform` and `qform` are (code, affine)."""

    dtype: str = "int16"
    endian: str = "<"
    version: int = 1
    scaling: tuple[float, float] | None = None  # scl_slope and scl_inter as the header has them
    sform: tuple[int, Any] = (0, None)
    qform: tuple[int, Any] = (1, None)
    background: float | None = None  # what is stored where nothing is
    more: tuple[int, ...] = ()  # lengths of the axes after the third
    gzipped: bool = False

    def encode(self, volume: np.ndarray) -> bytes:
        """Return the file of `volume`, float [x, y, z], 0 to 1."""
        kind = np.dtype(self.dtype).newbyteorder(self.endian)
        top = 1.0 if kind.kind == "f" else float(min(np.iinfo(kind).max, 30_000))
        values = volume * top if kind.kind == "f" else np.rint(volume * top)
        if self.background is not None:
            values = np.where(volume == 0, self.background, values)
        if self.more:
            # What comes after the first volume is another picture.
            others = [values] + [values[::-1] for _ in range(int(np.prod(self.more)) - 1)]
            values = np.stack(others, -1).reshape(*values.shape, *self.more, order="F")
        header = (nibabel.Nifti1Header, nibabel.Nifti2Header)[self.version - 1](endianness=self.endian)
        header.set_data_dtype(kind)
        header.set_data_shape(values.shape)
        header["magic"] = header.single_magic
        header["vox_offset"] = header.single_vox_offset
        for (code, affine), setter in ((self.qform, header.set_qform), (self.sform, header.set_sform)):
            if affine is not None:
                setter(affine, code)
        header["qform_code"], header["sform_code"] = self.qform[0], self.sform[0]
        header["scl_slope"], header["scl_inter"] = self.scaling or (np.nan, np.nan)
        data = header.binaryblock
        data += bytes(int(header["vox_offset"]) - len(data)) + values.astype(kind).tobytes(order="F")
        return gzip.compress(data, 1) if self.gzipped else data
