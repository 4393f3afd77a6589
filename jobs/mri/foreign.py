"""Recognizes unsupported file formats by their signatures, and suggests a conversion."""

from jobs.mri.slices import Unusable

PNG, NIFTI, UNPACK = "save it as PNG", "convert it to NIfTI (.nii.gz)", "unpack it"
PAIR = "convert the pair to one .nii.gz file"

# Name, offset and bytes of the signature, and what the user can do.
FORMATS = (
    ("GIF", 0, b"GIF8", PNG),
    ("JPEG 2000", 4, b"jP  \r\n\x87\n", PNG),
    ("a JPEG 2000 codestream", 0, b"\xff\x4f\xff\x51", PNG),
    ("JPEG XL", 0, b"\0\0\0\x0cJXL \r\n\x87\n", PNG),
    ("JPEG XL", 0, b"\xff\x0a", PNG),
    ("HEIF or AVIF", 4, b"ftyp", PNG),
    ("Photoshop", 0, b"8BPS", PNG),
    ("PDF", 0, b"%PDF", "export its pictures as PNG"),
    ("a NIfTI header whose values are in another file", 344, b"ni1\0", PAIR),
    ("a NIfTI-2 header whose values are in another file", 4, b"ni2\0", PAIR),
    ("NRRD", 0, b"NRRD", NIFTI),
    ("MetaImage", 0, b"ObjectType", NIFTI),
    ("HDF5 (also MINC 2, MATLAB 7.3)", 0, b"\x89HDF\r\n\x1a\n", f"{NIFTI} or save its pictures as PNG"),
    ("MINC 1 (netCDF)", 0, b"CDF\x01", NIFTI),
    ("MATLAB", 0, b"MATLAB 5.0", "save its pictures as PNG"),
    ("NumPy", 0, b"\x93NUMPY", "save its pictures as PNG"),
    ("Philips PAR", 0, b"# === DATA DESCRIPTION FILE", f"{NIFTI} with dcm2niix"),
    ("MGH", 0, b"\0\0\0\x01\0\0", f"{NIFTI} with mri_convert"),
    ("a ZIP archive", 0, b"PK\x03\x04", UNPACK),
    ("a 7z archive", 0, b"7z\xbc\xaf\x27\x1c", UNPACK),
    ("a RAR archive", 0, b"Rar!\x1a\x07", UNPACK),
    ("an xz archive", 0, b"\xfd7zXZ\0", UNPACK),
    ("a bzip2 archive", 0, b"BZh", UNPACK),
    ("a Zstandard archive", 0, b"\x28\xb5\x2f\xfd", UNPACK),
    ("a tar archive", 257, b"ustar", UNPACK),
)
ANALYZE_HEADER = (348).to_bytes(4, "little"), (348).to_bytes(4, "big")


def identify(data: bytes, name: str) -> Unusable:
    """Return the reason why the file `name`, whose content `data` is in no supported format, cannot be used."""
    for format, offset, signature, remedy in FORMATS:
        if data.startswith(signature, offset):
            return Unusable("unsupported", f"{format} is not read: {remedy}")
    if data[:4] in ANALYZE_HEADER and len(data) == 348:
        return Unusable("unsupported", f"an Analyze header is not read: {PAIR}")
    if name.lower().removesuffix(".gz").endswith(".img"):
        return Unusable("unsupported", f"values without their header (of an Analyze or NIfTI pair): {PAIR}")
    return Unusable("not-an-image", "no JPEG, PNG, BMP, TIFF, WebP, DICOM or NIfTI")
