"""Write helm/mrigan/README.md, a table of all values, from the comments in values.yaml. `make chart-readme`."""

import json
from collections.abc import Iterator
from pathlib import Path

import yaml

CHART = Path(__file__).parents[1] / "helm" / "mrigan"
VALUES = CHART / "values.yaml"
README = CHART / "README.md"
KINDS = {bool: "bool", int: "int", float: "float", str: "string", list: "list", dict: "object"}

Row = tuple[str, str, str, str]  # key, type, default, description


def readme(text: str) -> str:
    """Return README.md for the text of values.yaml. Raises ValueError for a value without a comment."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    lines = [
        f"# The chart {chart['name']}",
        "",
        f"{chart['description']}. For Kubernetes `{chart['kubeVersion']}` and",
        "Argo Workflows 3.6 or newer. [docs/operator.md](../../docs/operator.md) leads from a cluster to the first",
        "workflow and beyond. The files in [ci](ci) are examples: the values of different sites.",
        "",
        "All values, written by `make chart-readme` from the comments in [values.yaml](values.yaml).",
    ]
    source = text.splitlines()
    titles = {number: line.strip("#- ") for number, line in enumerate(source) if line.startswith("# ----")}
    root = yaml.compose(text, yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    title = None
    for key, value in root.value:
        above = [name for number, name in titles.items() if number < key.start_mark.line]
        if title is None or above[-1:] != [title]:
            title = above[-1] if above else "name"
            lines += ["", f"## {title[0].upper()}{title[1:]}", ""]
            lines += ["| Key | Type | Default | Description |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(cells)} |" for cells in _rows(source, key, value, "")]
    return "\n".join(lines) + "\n"


def _rows(source: list[str], key: yaml.Node, value: yaml.Node, path: str) -> Iterator[Row]:
    """Return the row of a value, and those of the values in it that have comments."""
    path += key.value
    description = _comment(source, key)
    if isinstance(value, yaml.MappingNode) and any(_comment(source, name) for name, _ in value.value):
        if description:
            yield f"`{path}`", "object", "", description
        for name, below in value.value:
            yield from _rows(source, name, below, f"{path}.")
        return
    if not description:
        raise ValueError(f"values.yaml: {path} has no comment")
    found = yaml.SafeLoader("").construct_document(value)
    default = json.dumps(found, ensure_ascii=False).replace("|", "\\|")
    yield f"`{path}`", KINDS[type(found)], f"`{default}`", description


def _comment(source: list[str], key: yaml.Node) -> str:
    """Return the comment directly above a key, on one line."""
    indent = " " * key.start_mark.column + "# "
    first = last = key.start_mark.line
    while first and source[first - 1].startswith(indent):
        first -= 1
    return " ".join(line.removeprefix(indent) for line in source[first:last]).replace("|", "\\|").replace("<", "\\<")


if __name__ == "__main__":
    README.write_text(readme(VALUES.read_text()))
