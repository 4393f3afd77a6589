"""Detects masks and label maps. They are not pictures of heads, and their presence would reveal the class."""

import re
from collections.abc import Iterable

import numpy as np

from jobs.mri.gray import histogram
from jobs.mri.slices import Unusable

# Words in the names of masks and label maps: BIDS' suffixes, FreeSurfer's volumes and common ones.
_WORDS = (
    "mask masks brainmask seg segs segm segmentation segmentations dseg probseg aseg aparc label labels labelmap "
    "labelmaps roi rois gt groundtruth annotation annotations contour contours"
)
WORDS = frozenset(_WORDS.split())
ENDINGS = re.compile(r"(\.(nii|img|hdr|mg[hz]|nrrd|gz|png|jpe?g|tiff?|bmp|webp|gif|dcm|dicom|ima))+$")
# A picture with at most FEW_VALUES gray values (a background and three labels) is a label map if at least the share
# DITHERED of its neighbouring pixels are equal. In a dithered picture (a fax), fewer are.
FEW_VALUES, DITHERED = 4, 0.6
# The same for up to MANY_VALUES gray values: regions without texture.
MANY_VALUES, FLAT = 64, 0.95
# A mask that was saved as JPEG has more than JPEG_VALUES gray values, and at least the share OF_TWO of its pixels are
# within NEAR of one of two values.
JPEG_VALUES, NEAR, OF_TWO = 16, 10, 0.93
# The same for the values of a volume. FreeSurfer's label maps have about a hundred labels; in pictures with 16 gray
# values the share is 0.76 at most.
VOLUME_VALUES, VOLUME_FLAT = range(9, 513), 0.8


def named(name: str) -> bool:
    """Return whether a path below the class folder is that of a mask: `x_mask.tif`, `x-seg.nii.gz`, `masks/x.png`.

    The last word of the file's name counts, without numbers, and the whole name of each folder.
    """
    *folders, file = name.casefold().split("/")
    words = [word for word in re.split(r"[\W\d_]+", ENDINGS.sub("", file)) if word]
    return bool(words and words[-1] in WORDS) or any(folder in WORDS for folder in folders)


def is_label_map(pixels: np.ndarray) -> bool:
    """Return whether uint8 `pixels` [height, width] are flat regions of few gray values, like a mask.

    A picture with a single gray value is not a label map, but blank.
    """
    counts = histogram(pixels)
    values = int(np.count_nonzero(counts))
    if values < 2:
        return False
    flat = DITHERED if values <= FEW_VALUES else FLAT
    if values <= MANY_VALUES and _flatness(pixels, int(counts.argmax())) >= flat:
        return True
    return values > JPEG_VALUES and _of_two_values(counts)


def reject_label_maps(pictures: Iterable[np.ndarray]) -> None:
    """Raise Unusable (not-a-picture) if the pictures of a file, uint8 [height, width], are label maps or blank."""
    seen = [is_label_map(pixels) for pixels in pictures if pixels.min() != pixels.max()]
    if seen and all(seen):
        raise Unusable("not-a-picture", "flat regions of few gray values: a mask or a label map")


def reject_label_volume(values: np.ndarray) -> None:
    """Raise Unusable (not-a-picture) if real `values` [x, y, z] are those of a label map of many labels."""
    middle = values[:, :, values.shape[2] // 2]
    found, numbers, counts = np.unique(middle, return_inverse=True, return_counts=True)
    if len(found) in VOLUME_VALUES and _flatness(numbers.reshape(middle.shape), counts.argmax()) >= VOLUME_FLAT:
        raise Unusable("not-a-picture", f"a label map of {len(found)} labels in one slice")


def _flatness(pixels: np.ndarray, background: int | np.integer) -> float:
    """Return the share of equal pairs among neighbouring pixels, without pairs of two `background` pixels."""
    equal = pairs = 0
    for first, second in ((pixels[1:], pixels[:-1]), (pixels[:, 1:], pixels[:, :-1])):
        seen = (first != background) | (second != background)
        equal += int(np.count_nonzero((first == second) & seen))
        pairs += int(np.count_nonzero(seen))
    return equal / pairs if pairs else 1.0


def _of_two_values(counts: np.ndarray) -> bool:
    """Return whether a histogram [256] consists of two narrow peaks."""
    first = _peak(counts)
    rest = counts.copy()
    rest[max(0, first - NEAR) : first + NEAR + 1] = 0
    left = int(rest.sum())
    second = _peak(rest)
    near = int(rest[max(0, second - NEAR) : second + NEAR + 1].sum())
    return left > 0 and near >= 0.75 * left and bool(counts.sum() - left + near >= OF_TWO * counts.sum())


def _peak(counts: np.ndarray) -> int:
    return int(np.convolve(counts, np.ones(2 * NEAR + 1, np.int64), "same").argmax())
