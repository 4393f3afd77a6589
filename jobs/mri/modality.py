"""Checks whether a DICOM object is an MR image, by its SOP class, modality and image type."""

import pydicom
from pydicom.uid import UID_dictionary

from jobs.mri.attributes import words
from jobs.mri.slices import Unusable

# SOP classes of MR images, and of images of any modality (secondary captures).
MR_CLASSES = ("MR Image", "Enhanced MR Image", "Enhanced MR Color Image", "Legacy Converted Enhanced MR Image")
CAPTURES = "Secondary Capture Image"
# Other imaging modalities (PS3.3 C.7.3.1.1.1).
_OTHER_MODALITIES = (
    "CT PT NM US IVUS BDUS CR DX DR MG XA XRF RF RG IO PX ES XC GM SM OP OPT OCT IVOCT OAM SRF LS LEN KER AR BMD TG "
    "DG EC DS CF DF VF CP LP FA FS MA MS AS BI"
)
OTHER_MODALITIES = frozenset(_OTHER_MODALITIES.split())
# Modalities of objects that are not images.
_NO_PICTURES = (
    "SEG RTDOSE RTSTRUCT RTPLAN RTRECORD RTINTENT RTRAD RTSEGANN SR KO PR REG FID DOC RWV M3D ANN AU ECG EEG EMG "
    "EOG EPS HD RESP SMR PLAN ASMT CTPROTOCOL OPM OPV IOL STAIN TEXTUREMAP"
)
NO_PICTURES = frozenset(_NO_PICTURES.split())
# Values of ImageType (PS3.3 C.7.6.1.1.2, and those of vendors) of objects that are not the picture of one slice.
IMAGE_TYPES = {
    "MOSAIC": "several slices as a mosaic: convert it with dcm2niix",
    "CSA REPORT": "a page of a report",
    "CSA PARALLEL": "a graphic",
    "SCREEN SAVE": "a picture of a screen",
    "SCREENSAVE": "a picture of a screen",
    "PHASE MAP": "a phase map",
    "PHASE": "a phase map",
    "P": "a phase map",
    "VELOCITY": "a velocity map",
    "VELOCITY MAP": "a velocity map",
}


def require_mr(dataset: pydicom.Dataset) -> None:
    """Raise Unusable if `dataset` is certainly no MR image.

    The reason is not-a-picture for masks, doses, reports, mosaics and phase maps, not-mr for images of other
    modalities. Absent attributes and non-standard terms are ignored, since old exports are incomplete.
    """
    meta = getattr(dataset, "file_meta", None) or pydicom.Dataset()
    modality, sop_class, media_class = (
        next(iter(words(where, name)), "")
        for where, name in ((dataset, "Modality"), (dataset, "SOPClassUID"), (meta, "MediaStorageSOPClassUID"))
    )
    name = UID_dictionary.get(sop_class or media_class, ("",))[0]
    kind = name.removesuffix(" Storage")
    if modality in NO_PICTURES:
        raise Unusable("not-a-picture", f"DICOM of modality {modality}, which is no picture")
    if name and kind not in MR_CLASSES and CAPTURES not in kind:
        raise Unusable("not-mr" if "Image" in kind.split() else "not-a-picture", f"DICOM of the class {name}")
    if modality in OTHER_MODALITIES:
        raise Unusable("not-mr", f"DICOM of modality {modality}")
    for value in words(dataset, "ImageType"):
        if value in IMAGE_TYPES:
            raise Unusable("not-a-picture", f"DICOM whose ImageType says {IMAGE_TYPES[value]}")
