"""Every file that pydicom, nibabel and Pillow ship for their tests is read, or rejected for the correct reason."""

from collections import Counter
from pathlib import Path

import pytest

from jobs.mri.slices import REASONS
from tests.mri.corpora import NAMES, NotAtHand, files, outcomes, table

SLOW = 20.0  # seconds for one file: the largest take one, on a busy machine a few

# What must become of files whose content is known. "whole" ones are in a format that is read here and lack nothing:
# whatever else may be said of them, they are neither truncated nor no images.
KNOWN = {
    "pydicom": {
        "kept": ["MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "zipMR.gz", "examples_overlay.dcm"],
        "truncated": ["MR_truncated.dcm"],
        "not-mr": ["CT_small.dcm", "693_J2KI.dcm", "examples_palette.dcm", "examples_rgb_color.dcm"],
        "not-a-picture": ["liver_1frame.dcm", "rtdose.dcm", "rtplan.dcm", "rtstruct.dcm", "test-SR.dcm"],
        "whole": ["JPEG-lossy.dcm", "JPEG2000-embedded-sequence-delimiter.dcm", "JPGExtended.dcm"],
    },
    "pydicom-data": {
        "kept": ["MR-SIEMENS-DICOM-WithOverlays.dcm", "MR2_J2KR.dcm", "MR2_UNCI.dcm", "emri_small.dcm"],
        "not-mr": ["US1_UNCR.dcm", "eCT_Supplemental.dcm"],
        "not-a-picture": ["liver.dcm"],
        "whole": ["JPEG-LL.dcm", "JPGLosslessP14SV1_1s_1f_8b.dcm", "emri_small_jpeg_ls_lossless.dcm"],
    },
    "nibabel": {
        "kept": ["anatomical.nii", "example4d.nii.gz", "example_nifti2.nii.gz", "functional.nii"],
        "not-a-picture": ["0.dcm", "siemens_dwi_0.dcm.gz", "siemens_dwi_1000.dcm.gz"],
        "unsupported": ["analyze.hdr", "nifti1.hdr", "nifti2.hdr"],
        "whole": ["philips_mprage.dcm.gz", "csa_slice_norm.dcm"],
    },
    "pillow": {
        "kept": ["hopper.jpg", "hopper.bmp", "hopper.tif", "hopper.webp", "12bit.cropped.tif", "tiff_16bit_RGB.tiff"],
        "truncated": ["shortfile.bmp", "truncated_image.png", "truncated_jpeg.jpg"],
        "not-an-image": ["test-ole-file.doc"],
        "unsupported": ["hdf5.h5"],
        "whole": ["chunk_no_fctl.png", "rgb32bf.bmp", "pal2.bmp", "rgb24png.bmp", "hopper_webp.tif"],
    },
}


@pytest.fixture(scope="module")
def downloads(request, tmp_path_factory) -> Path:
    """Return where archives are kept from one run of the tests to the next."""
    cache = getattr(request.config, "cache", None)
    return cache.mkdir("corpora") if cache else tmp_path_factory.mktemp("corpora")


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_read_or_rejected(name, downloads):
    try:
        root, paths = files(name, downloads)
    except NotAtHand as why:
        pytest.skip(str(why))
    found = list(outcomes(root, paths))
    print(table({name: Counter(outcome.verdict for outcome in found)}))

    assert len(found) == len(paths) > 50
    assert [outcome for outcome in found if outcome.verdict not in ("kept", *REASONS)] == []
    assert [outcome for outcome in found if outcome.seconds > SLOW] == []
    assert [outcome for outcome in found if outcome.leaked] == []
    assert [outcome for outcome in found if not outcome.detail or "\n" in outcome.detail] == []
    by_name = {Path(outcome.file).name: outcome for outcome in found}
    wrong = [
        f"{verdict} expected: {by_name[file]}"
        for verdict, known in KNOWN[name].items()
        for file in known
        if not _holds(verdict, by_name[file].verdict)
    ]
    assert not wrong, "\n".join(wrong)


def _holds(wanted: str, verdict: str) -> bool:
    return verdict not in ("truncated", "not-an-image") if wanted == "whole" else verdict == wanted
