"""The chart's README has every value, from the comments in values.yaml."""

import re
from typing import Any

import pytest
import yaml

from docs.write_values import README, VALUES, readme

TEXT = VALUES.read_text()


def test_the_readme_is_written_from_the_values() -> None:
    assert README.read_text() == readme(TEXT), "run `make chart-readme`"


def test_every_value_has_a_row_with_its_default() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| \w+ \| `(.*)` \| \S", README.read_text(), re.MULTILINE)
    found: dict[str, Any] = {}
    for key, default in rows:
        *parents, last = key.split(".")
        place = found
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = yaml.safe_load(default)
    assert found == yaml.safe_load(TEXT)


def test_a_value_without_a_comment_is_refused() -> None:
    with pytest.raises(ValueError, match=r"values.yaml: s3\.bucket has no comment"):
        readme(TEXT.replace("s3:\n", "s3:\n  bucket: mrigan\n", 1))
