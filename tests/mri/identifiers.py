"""DICOM files with an unmistakable word in one place of the header, and how such a word may be spelled elsewhere."""

import base64
import functools
import hashlib
import random
import string
import struct
from collections.abc import Callable

import numpy as np
import pydicom
from pydicom.datadict import DicomDictionary, dictionary_VR, tag_for_keyword
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

# Representations with a length of four bytes (PS3.5 7.1.2).
LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
VRS = "AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SS ST SV TM UC UI UL UN UR US UT UV"
# What a reader looks at, and so may complain of.
LOOKED_AT = (
    "TransferSyntaxUID MediaStorageSOPClassUID SpecificCharacterSet SOPClassUID SOPInstanceUID StudyInstanceUID "
    "SeriesInstanceUID Modality ImageType PatientID PatientName Rows Columns NumberOfFrames SamplesPerPixel "
    "PhotometricInterpretation PlanarConfiguration BitsAllocated BitsStored HighBit PixelRepresentation "
    "PixelPaddingValue PixelPaddingRangeLimit PixelSpacing PixelAspectRatio ImagerPixelSpacing RescaleSlope "
    "RescaleIntercept RescaleType WindowCenter WindowWidth VOILUTFunction VOILUTSequence ModalityLUTSequence "
    "PresentationLUTShape SmallestImagePixelValue LargestImagePixelValue SharedFunctionalGroupsSequence "
    "PerFrameFunctionalGroupsSequence BurnedInAnnotation LossyImageCompression FrameIncrementPointer "
    "RedPaletteColorLookupTableDescriptor RedPaletteColorLookupTableData"
)
PRIVATE, MAKER = 0x00091002, 0x00090010

Plant = tuple[int, str, bytes]  # a tag, its representation and its value


def words(seed: int) -> Callable[[], str]:
    """Return a source of words of 16 letters and digits, all different, and none of which occurs by chance."""
    rng = random.Random(seed)
    return lambda: "".join(rng.choices(string.ascii_uppercase + string.digits, k=16))


@functools.cache
def spellings(word: str) -> frozenset[bytes]:
    """Return, in lower case, the forms in which a word may occur: a half of it, encoded, hashed, or read as numbers.

    Each has eight bytes or more.
    """
    raw = word.encode()
    texts = [word[:8], word[8:], raw.hex(), base64.b64encode(raw).decode().rstrip("=")]
    texts += [hashlib.new(kind, raw).hexdigest()[:12] for kind in ("md5", "sha1", "sha256")]
    for order in "<>":
        shorts, floats = struct.unpack(order + "8H", raw), struct.unpack(order + "2d", raw)
        texts += [", ".join(map(str, shorts[:2])), str(struct.unpack(order + "4I", raw)[0])]
        texts += [repr(floats[0]), str(struct.unpack(order + "2Q", raw)[0])]
    return frozenset(text.lower().encode() for text in texts)


def told(words: list[str], *places: bytes | str) -> list[str]:
    """Return those of `words` that occur in one of `places`, in any form."""
    whole = b"\n".join(place.encode(errors="replace") if isinstance(place, str) else place for place in places).lower()
    # Thousands of spellings are looked for in megabytes: first by their first eight bytes, all at once.
    ends = (len(whole) - start for start in range(8))
    eights = [np.frombuffer(whole, "<u8", end // 8, start) for start, end in enumerate(ends) if end >= 8]
    there = {number.tobytes() for number in np.intersect1d(np.concatenate(eights or [[]]), _starts(words))}
    return [word for word in words if any(text[:8] in there and text in whole for text in spellings(word))]


def _starts(words: list[str]) -> np.ndarray:
    return np.array([int.from_bytes(text[:8], "little") for word in words for text in spellings(word)], "<u8")


def dicom_with(pixels: np.ndarray, who: Callable[[], str], plant: Plant) -> tuple[bytes, list[str]]:
    """Return an MR file of `pixels` (uint16) with `plant` in it, and the words by which it names its patient."""
    dataset = pydicom.Dataset()
    named = []
    for name in ("PatientID", "PatientName", "StudyID", "AccessionNumber", "InstitutionName", "SeriesDescription"):
        named.append(who())
        setattr(dataset, name, named[-1])
    dataset.StudyInstanceUID = "1.2.3." + str(int.from_bytes(who().encode()) % 10**20)
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = MRImageStorage, "1.2.3", "MR"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.add_new("PixelData", "OW", pixels.astype("<u2").tobytes())
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, MRImageStorage
    parts = {int(one.tag): _pydicoms(one) for part in (meta, dataset) for one in part}
    parts[MAKER] = element(MAKER, "LO", b"A MAKER ")
    parts[plant[0]] = element(*plant)
    header = b"".join(parts[tag] for tag in sorted(parts) if tag >> 16 == 2)
    body = b"".join(parts[tag] for tag in sorted(parts) if tag >> 16 != 2)
    return bytes(128) + b"DICM" + element(0x00020000, "UL", struct.pack("<I", len(header))) + header + body, named


def _pydicoms(one: pydicom.DataElement) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, one)
    return buffer.getvalue()


def element(tag: int, vr: str, value: bytes) -> bytes:
    """Return a data element, explicit and little endian, whatever its representation should have been."""
    start = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode()
    length = struct.pack("<HI", 0, len(value)) if vr in LONG else struct.pack("<H", len(value))
    return start + length + value


def item(*elements: bytes) -> bytes:
    """Return an item of a sequence."""
    content = b"".join(elements)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(content)) + content


def all_plants(word: Callable[[], str]) -> dict[str, tuple[str, Plant]]:
    """Return, by name, each place in a header where a word may be: the word, and the element that contains it."""
    found: dict[str, tuple[str, Plant]] = {}

    def plant(vr: str, *path: str | int) -> None:
        """Plant a word as `vr` in the last of `path`, tags or keywords, which the ones before contain."""
        tags = [tag if isinstance(tag, int) else tag_for_keyword(tag) or 0 for tag in path]
        one = word()
        held: Plant = (tags[-1], vr, one.encode())
        for tag in reversed(tags[:-1]):
            held = (tag, "SQ", item(element(*held)))
        names = (f"{tag:08x}" if isinstance(tag, int) else tag for tag in path)
        found[" ".join((*names, "as", vr))] = one, held

    for vr in VRS.split():
        # Group 2 is the file's own header, 0028 the picture's.
        known = [tag for tag, entry in DicomDictionary.items() if entry[0] == vr and tag >> 16 not in (0, 2, 0x28)]
        if known:
            plant(vr, min(known))
        plant(vr, PRIVATE)
    for keyword in LOOKED_AT.split():
        right = dictionary_VR(keyword).split(" or ")[0]
        for vr in (right, "LO"):
            plant(vr, keyword)
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID"):
        for vr in ("US", "SQ", "OB", "UN", "LO", "FD", "AT"):
            plant(vr, keyword)
    plant("LO", "OtherPatientIDsSequence", "PatientID")
    plant("UI", "ReferencedImageSequence", "ReferencedSOPInstanceUID")
    plant("US", "VOILUTSequence", "LUTDescriptor")
    plant("LO", "VOILUTSequence", "LUTExplanation")
    plant("LO", "ModalityLUTSequence", "LUTDescriptor")
    plant("OW", "ModalityLUTSequence", "LUTData")
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        plant("DS", groups, "PixelMeasuresSequence", "PixelSpacing")
        plant("DS", groups, "FrameVOILUTSequence", "WindowCenter")
        plant("DS", groups, "PixelValueTransformationSequence", "RescaleSlope")
        plant("LO", groups, PRIVATE)
    return found
