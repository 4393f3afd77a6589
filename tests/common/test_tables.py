"""Whatever text stands in a cell comes back, through any reader of RFC 4180."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.common.tables import from_csv, to_csv

# No file's name has a NUL, and a lone surrogate in one stands for a byte that is no UTF-8.
CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")) | st.text('\r\n",; \tab\u2028\x85')
TABLES = st.integers(1, 4).flatmap(lambda width: st.lists(st.lists(CELL, min_size=width, max_size=width), min_size=1))


def rfc_4180(text: str) -> list[list[str]]:
    """Return the rows of a CSV file by the grammar of RFC 4180, but for lines that end with a line feed alone."""
    rows: list[list[str]] = [[]]
    place = 0
    while place < len(text):
        cell = re.compile(r'(?:"((?:[^"]|"")*)"|([^",\r\n]*))([,\n])').match(text, place)
        assert cell, f"no cell at {text[place:]!r}"
        rows[-1].append(cell[2] if cell[1] is None else cell[1].replace('""', '"'))
        if cell[3] == "\n":
            rows.append([])
        place = cell.end()
    assert rows.pop() == [], "the last line has no end"
    return rows


@given(TABLES)
def test_any_text_comes_back(table: list[list[str]]) -> None:
    header, *rows = table
    data = to_csv(header, rows)
    assert from_csv(data) == (header, rows)
    assert list(csv.reader(io.StringIO(data.decode(), newline=""))) == table
    assert list(csv.reader(io.StringIO(data.decode()))) == table
    assert rfc_4180(data.decode()) == table


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\0")), min_size=1), min_size=1))
def test_without_carriage_returns_the_bytes_are_those_of_pythons_writer(table: list[list[str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(table)
    assert to_csv(table[0], table[1:]) == text.getvalue().encode()


def test_numbers_and_bytes_of_file_names_are_written_as_text() -> None:
    assert to_csv(["a", "b", "c"], [(1, 0.25, "\udcff.png")]) == b"a,b,c\n1,0.25,\\udcff.png\n"


def test_an_empty_file_has_no_header() -> None:
    assert from_csv(b"") == ([], [])


@pytest.mark.parametrize("data", [b"\xff", b'a\n"b', b'a\n"b"c'])
def test_what_is_no_csv_file_is_told(data: bytes) -> None:
    with pytest.raises(ValueError):
        from_csv(data)
