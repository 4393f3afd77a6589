"""Detects masks and label maps. They are no pictures of heads, and their presence would reveal the class."""

import re
from collections.abc import Iterable

import numpy as np

from jobs.mri.slices import Unusable

# The words that name a mask or a label map: BIDS' suffixes, FreeSurfer's volumes and the usual ones.
_WORDS = (
    "mask masks brainmask seg segs segm segmentation segmentations dseg probseg aseg aparc label labels labelmap "
    "labelmaps roi rois gt groundtruth annotation annotations contour contours"
)
WORDS = frozenset(_WORDS.split())
ENDINGS = re.compile(r"(\.(nii|img|hdr|mg[hz]|nrrd|gz|png|jpe?g|tiff?|bmp|webp|gif|dcm|dicom|ima))+$")
# A picture of at most this many gray values is a label map: a background and three labels.
FEW_VALUES = 4
# A picture of more values is a label map if this share of neighbouring pixels are equal: regions without texture.
MANY_VALUES, FLAT = 64, 0.95
# A mask that was saved as JPEG has more values than this, and this share of its pixels is near one of two.
JPEG_VALUES, NEAR, OF_TWO = 16, 10, 0.93
# A volume of up to this many values is a label map (FreeSurfer's have a hundred labels) if this share is equal; one of
# 16 gray values that is a picture has 0.76 at most.
VOLUME_VALUES, VOLUME_FLAT = range(9, 513), 0.8
# Dots that imitate gray (a fax, a dithered scan) are a picture: fewer of its neighbouring pixels are equal.
DITHERED = 0.6


def named(name: str) -> bool:
    """Return whether a path below the class folder names a mask: `x_mask.tif`, `x-seg.nii.gz`, `masks/x.png`.

    The last word of the file's name counts, numbers left out, and the whole name of a folder.
    """
    *folders, file = name.casefold().split("/")
    words = [word for word in re.split(r"[\W\d_]+", ENDINGS.sub("", file)) if word]
    return bool(words and words[-1] in WORDS) or any(folder in WORDS for folder in folders)


def is_label_map(pixels: np.ndarray) -> bool:
    """Return whether uint8 `pixels` [height, width] are flat regions of few gray values, as of a mask.

    A picture with one gray value alone is none: it is blank.
    """
    counts = np.bincount(pixels.ravel(), minlength=256)
    values = int(np.count_nonzero(counts))
    if values < 2:
        return False
    if values <= MANY_VALUES:
        flat = _flatness(pixels, int(counts.argmax()))
        if flat >= (DITHERED if values <= FEW_VALUES else FLAT):
            return True
    return values > JPEG_VALUES and _of_two_values(counts)


def refuse_label_maps(pictures: Iterable[np.ndarray]) -> None:
    """Raise Unusable (not-a-picture) if the pictures of a file, uint8 [height, width], are label maps or blank."""
    seen = [is_label_map(pixels) for pixels in pictures if pixels.min() != pixels.max()]
    if seen and all(seen):
        raise Unusable("not-a-picture", "flat regions of few gray values: a mask or a label map")


def refuse_label_volume(values: np.ndarray) -> None:
    """Raise Unusable (not-a-picture) if real `values` [x, y, z] are those of a label map of many labels."""
    middle = values[:, :, values.shape[2] // 2]
    found, numbers, counts = np.unique(middle, return_inverse=True, return_counts=True)
    flat = len(found) in VOLUME_VALUES and _flatness(numbers.reshape(middle.shape), counts.argmax()) >= VOLUME_FLAT
    if flat:
        raise Unusable("not-a-picture", f"a label map of {len(found)} labels in one slice")


def _flatness(pixels: np.ndarray, background: int | np.integer) -> float:
    """Return the share of equal pairs among neighbouring pixels, pairs of two `background` pixels left out."""
    equal = pairs = 0
    for first, second in ((pixels[1:], pixels[:-1]), (pixels[:, 1:], pixels[:, :-1])):
        seen = (first != background) | (second != background)
        equal += int(np.count_nonzero((first == second) & seen))
        pairs += int(np.count_nonzero(seen))
    return equal / pairs if pairs else 1.0


def _of_two_values(counts: np.ndarray) -> bool:
    """Return whether a histogram [256] is two narrow peaks, of which none is all but a little of the picture."""
    first = _peak(counts)
    rest = counts.copy()
    rest[max(0, first - NEAR) : first + NEAR + 1] = 0
    left = int(rest.sum())
    second = _peak(rest)
    near = int(rest[max(0, second - NEAR) : second + NEAR + 1].sum())
    return left > 0 and near >= 0.75 * left and bool(counts.sum() - left + near >= OF_TWO * counts.sum())


def _peak(counts: np.ndarray) -> int:
    return int(np.convolve(counts, np.ones(2 * NEAR + 1, np.int64), "same").argmax())
