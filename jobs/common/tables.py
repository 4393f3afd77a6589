"""CSV files with arbitrary text in cells, as in RFC 4180, but with lines that end with a line feed only."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any


def to_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Return a CSV file of a header and its rows.

    Bytes of file names that are not UTF-8, which Python reads as lone surrogates, are written as backslash escapes.
    """
    return "".join(map(_line, [header, *rows])).encode(errors="backslashreplace")


def from_csv(data: bytes) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of a CSV file, empty for an empty file. Raises ValueError for invalid CSV."""
    try:
        header, *rows = list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True)) or [[]]
    except csv.Error as error:
        raise ValueError(str(error)) from error
    return header, rows


def _line(cells: Sequence[Any]) -> str:
    # Not csv.writer: with line feeds as line ends it does not quote carriage returns, which readers then reject.
    line = ",".join(_cell(str(cell)) for cell in cells)
    return (line or '""') + "\n"


def _cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text
