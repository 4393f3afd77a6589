"""Recognizes unsupported file formats by their first bytes, and suggests a conversion."""

from typing import NamedTuple

from jobs.mri.slices import Unusable


class Foreign(NamedTuple):
    """A format: `signature` at byte `offset` of the file; `convert` completes a sentence that tells what to do."""

    name: str
    offset: int
    signature: bytes
    convert: str


PNG = "save it as PNG"
NIFTI = "convert it to NIfTI (.nii.gz)"
UNPACK = "unpack it"

FORMATS = (
    Foreign("GIF", 0, b"GIF8", PNG),
    Foreign("JPEG 2000", 4, b"jP  \r\n\x87\n", PNG),
    Foreign("a JPEG 2000 codestream", 0, b"\xff\x4f\xff\x51", PNG),
    Foreign("JPEG XL", 0, b"\0\0\0\x0cJXL \r\n\x87\n", PNG),
    Foreign("JPEG XL", 0, b"\xff\x0a", PNG),
    Foreign("HEIF or AVIF", 4, b"ftyp", PNG),
    Foreign("Photoshop", 0, b"8BPS", PNG),
    Foreign("PDF", 0, b"%PDF", "export its pictures as PNG"),
    Foreign("a NIfTI header whose values are in another file", 344, b"ni1\0", "convert the pair to one .nii.gz file"),
    Foreign("a NIfTI-2 header whose values are in another file", 4, b"ni2\0", "convert the pair to one .nii.gz file"),
    Foreign("NRRD", 0, b"NRRD", NIFTI),
    Foreign("MetaImage", 0, b"ObjectType", NIFTI),
    Foreign("HDF5 (also MINC 2, MATLAB 7.3)", 0, b"\x89HDF\r\n\x1a\n", f"{NIFTI} or save its pictures as PNG"),
    Foreign("MINC 1 (netCDF)", 0, b"CDF\x01", NIFTI),
    Foreign("MATLAB", 0, b"MATLAB 5.0", "save its pictures as PNG"),
    Foreign("NumPy", 0, b"\x93NUMPY", "save its pictures as PNG"),
    Foreign("Philips PAR", 0, b"# === DATA DESCRIPTION FILE", f"{NIFTI} with dcm2niix"),
    Foreign("MGH", 0, b"\0\0\0\x01\0\0", f"{NIFTI} with mri_convert"),
    Foreign("a ZIP archive", 0, b"PK\x03\x04", UNPACK),
    Foreign("a 7z archive", 0, b"7z\xbc\xaf\x27\x1c", UNPACK),
    Foreign("a RAR archive", 0, b"Rar!\x1a\x07", UNPACK),
    Foreign("an xz archive", 0, b"\xfd7zXZ\0", UNPACK),
    Foreign("a bzip2 archive", 0, b"BZh", UNPACK),
    Foreign("a Zstandard archive", 0, b"\x28\xb5\x2f\xfd", UNPACK),
    Foreign("a tar archive", 257, b"ustar", UNPACK),
)
ANALYZE_HEADER = (348).to_bytes(4, "little"), (348).to_bytes(4, "big")


def refuse(data: bytes, name: str) -> Unusable:
    """Return the finding for a file `name` whose content `data` is in none of the formats that are read."""
    for known in FORMATS:
        if data.startswith(known.signature, known.offset):
            return Unusable("unsupported", f"{known.name} is not read: {known.convert}")
    if data[:4] in ANALYZE_HEADER and len(data) == 348:
        return Unusable("unsupported", "an Analyze header is not read: convert the pair to one .nii.gz file")
    if name.lower().removesuffix(".gz").endswith(".img"):
        return Unusable(
            "unsupported",
            "values without their header (of an Analyze or NIfTI pair): convert the pair to one .nii.gz file",
        )
    return Unusable("not-an-image", "no JPEG, PNG, BMP, TIFF, WebP, DICOM or NIfTI")
