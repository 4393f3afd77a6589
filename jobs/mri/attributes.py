"""Tolerant access to DICOM attributes: one that is empty, of the wrong type or too short counts as absent."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pydicom
from pydicom.multival import MultiValue
from pydicom.uid import UID


def numbers(dataset: pydicom.Dataset, name: str) -> list[float]:
    """Return the values of an attribute; none if one of them is not a finite number."""
    try:
        value = dataset.get(name)
        values = list(value) if isinstance(value, MultiValue | list | tuple) else [value]
        found = [float(part) for part in values]
    # pydicom converts values on access; for damaged values it raises many kinds of exceptions.
    except Exception:
        return []
    return found if all(map(math.isfinite, found)) else []


def first_number(dataset: pydicom.Dataset, name: str) -> float | None:
    """Return the first value of an attribute as a number, None if there is none."""
    return next(iter(numbers(dataset, name)), None)


def whole(dataset: pydicom.Dataset, name: str, default: int) -> int:
    """Return an attribute as an integer of at least 0, `default` if there is none."""
    found = first_number(dataset, name)
    return int(found) if found is not None and found >= 0 and found == int(found) else default


def text(dataset: pydicom.Dataset, name: str) -> str:
    """Return an attribute as text without blanks around it, empty if it cannot be read."""
    try:
        value = dataset.get(name)
        return "" if value is None else str(value).strip(" \0\t\r\n")
    except Exception:
        return ""


def words(dataset: pydicom.Dataset, name: str) -> list[str]:
    """Return the values of an attribute as words in capitals; none if it cannot be read."""
    try:
        value = dataset.get(name)
        values = [value] if isinstance(value, UID | str) else value or []
        return [str(part).strip(" \0").upper() for part in values]
    except Exception:
        return []


def items(dataset: pydicom.Dataset, name: str) -> Sequence[pydicom.Dataset]:
    """Return the items of a sequence; none if the attribute is not a sequence."""
    try:
        value: Any = dataset.get(name)
        return [item for item in value or [] if isinstance(item, pydicom.Dataset)]
    except Exception:
        return []


def group(dataset: pydicom.Dataset, frame: int, sequence: str) -> pydicom.Dataset:
    """Return the item with a frame's attributes of `sequence` (PS3.3 C.7.6.16), or `dataset` if there is none."""
    per_frame = items(dataset, "PerFrameFunctionalGroupsSequence")
    shared = items(dataset, "SharedFunctionalGroupsSequence")
    for group in (*per_frame[frame : frame + 1], *shared[:1]):
        for item in items(group, sequence)[:1]:
            return item
    return dataset


def lookup_table(item: pydicom.Dataset) -> tuple[np.ndarray, int, int] | None:
    """Return the entries of a lookup table, the value that the first entry is for, and the bits of one entry.

    The length of the data decides between 8 and 16 bits, because descriptors state any number from 8 to 16 (PS3.3
    C.11.1.1). None if the table is absent, empty or shorter than it declares.
    """
    described = numbers(item, "LUTDescriptor")
    if len(described) != 3:
        return None
    count, first, bits = (int(value) for value in described)
    count = count or 2**16
    try:
        data = item.get("LUTData")
        if isinstance(data, bytes):
            wide = len(data) >= 2 * count
            words = ">u2" if item.original_encoding[1] is False else "<u2"
            entries = np.frombuffer(data, words if wide else np.uint8)
        else:
            entries = np.asarray(list(data)).astype(np.int64) & 0xFFFF
    except Exception:
        return None
    if not 0 < count <= len(entries) or not 0 < bits <= 16:
        return None
    return entries[:count].astype(np.float32), first, bits
