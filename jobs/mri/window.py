"""Converts stored DICOM values to gray: padding, rescaling, lookup tables and windows (PS3.3 C.11)."""

import numpy as np
import pydicom

from jobs.mri import attributes, masks
from jobs.mri.gray import scale_of, stretch

# A window is used only if at least this share of the visible pixels are between black and white.
BETWEEN = 0.02


def padding(values: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray | None:
    """Return bool [same shape as stored `values`]: padding by PixelPaddingValue and its range limit."""
    kind = next((kind for kind in ("", "Float", "DoubleFloat") if f"{kind}PixelPaddingValue" in dataset), "")
    first, last = (attributes.first_number(dataset, f"{kind}PixelPadding{end}") for end in ("Value", "RangeLimit"))
    if first is None:
        return None
    ends = [first, first if last is None else last]
    if values.dtype.kind in "iu":
        # The value should be signed or unsigned as PixelRepresentation says, but often is not; the bits are the same.
        size = 2 ** (8 * values.dtype.itemsize)
        info = np.iinfo(values.dtype)
        ends = [end + size if end < info.min else end - size if end > info.max else end for end in ends]
    return (values >= min(ends)) & (values <= max(ends))


def shown(values: np.ndarray, hidden: np.ndarray | None, dataset: pydicom.Dataset, remarks: list[str]) -> np.ndarray:
    """Return uint8 [frames, rows, columns]: stored `values` as a viewer shows them, black where they are `hidden`.

    If a window is not used, a sentence about it is added to `remarks`. Raises Unusable: blank or not-a-picture.
    """
    inverted = attributes.text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
    groups = (attributes.group(dataset, n, "PixelValueTransformationSequence") for n in range(len(values)))
    real = np.stack([_rescaled(frame, group) for frame, group in zip(values, groups, strict=True)])
    scale = scale_of(real, hidden, inverted=inverted)
    unwindowed = scale.gray(real)
    masks.reject_label_maps(unwindowed)
    gray = np.empty(real.shape, np.uint8)
    for number, frame in enumerate(real):
        windowed = _windowed(frame, attributes.group(dataset, number, "FrameVOILUTSequence"))
        if windowed is None:
            return unwindowed
        seen = windowed if hidden is None else windowed[~hidden[number]]
        if seen.size and ((seen > 0) & (seen < 255)).mean() < BETWEEN and len(np.unique(frame)) > masks.FEW_VALUES:
            remarks.append("the window of the DICOM file leaves nothing to see: its range of values was shown instead")
            return unwindowed
        gray[number] = 255 - windowed if inverted else windowed
    # A surrounding value that is too far from all others to be air is padding.
    if scale.ring is not None and not scale.low <= scale.ring <= scale.high:
        scale.blacken(gray, real)
    else:
        gray[scale.hidden] = 0
    return gray


def _rescaled(frame: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    """Return float32: stored values through the modality table, else slope and intercept; a slope of 0 is ignored."""
    for item in attributes.items(dataset, "ModalityLUTSequence")[:1]:
        table = attributes.lookup_table(item)
        if table:
            return _looked_up(frame, table)
    slope, intercept = (attributes.first_number(dataset, f"Rescale{part}") for part in ("Slope", "Intercept"))
    real = frame.astype(np.float32)
    return real * np.float32(slope or 1) + np.float32(intercept or 0) if slope or intercept else real


def _looked_up(values: np.ndarray, table: tuple[np.ndarray, int, int]) -> np.ndarray:
    entries, first, _ = table
    return entries[np.clip(np.rint(values).astype(np.int64) - first, 0, len(entries) - 1)]


def _windowed(real: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray | None:
    """Return uint8: rescaled values through the first VOI table or window of `dataset`; None if it has none."""
    for item in attributes.items(dataset, "VOILUTSequence")[:1]:
        table = attributes.lookup_table(item)
        if table:
            return stretch(_looked_up(real, table), 0, 2 ** table[2] - 1)
    centre, width = (attributes.first_number(dataset, f"Window{part}") for part in ("Center", "Width"))
    if centre is None or width is None or width <= 0:
        return None
    function = attributes.text(dataset, "VOILUTFunction").upper()
    if function == "SIGMOID":
        return stretch(1 / (1 + np.exp(np.clip(-4 * (real - centre) / width, -50, 50))), 0, 1)
    if function != "LINEAR_EXACT":
        centre, width = centre - 0.5, max(width - 1, 1e-3)
    return stretch(real, centre - width / 2, centre + width / 2)
