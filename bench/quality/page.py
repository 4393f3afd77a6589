"""docs/results.md, the README's and docs/quality.md's tables, from what is stored: python -m bench.quality.page."""

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.quality import protocol, table
from bench.quality.inner import OUTER
from jobs.report import words

ROOT = Path(__file__).parents[2]
STORED = Path("bench/results/quality/brain_tumor_dataset")
BEGIN, END = f"<!-- from {STORED} -->", "<!-- to here -->"
Json = dict[str, Any]


def stored() -> list[Json]:
    """Return the results in the order of the protocol, those that are there."""
    names = dict.fromkeys(name for name, _ in protocol.STAGES)
    paths = (ROOT / STORED / f"{name}.json" for name in names)
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def ablations() -> Json:
    """Return what bench.quality.ablate found; empty if nothing was tried."""
    path = ROOT / STORED / "ablations.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write(results: Sequence[Json], found: Json, root: Path = ROOT) -> None:
    """Write docs/results.md whole, and what is between BEGIN and END in README.md and docs/quality.md, in `root`."""
    (root / "docs" / "results.md").write_text(page(*results))
    _fill(root / "README.md", table.markdown(*results))
    _fill(root / "docs" / "quality.md", f"{table.ablations(found)}\n\n{table.ablated_images(found)}")


def _fill(path: Path, text: str) -> None:
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def page(result: Json, *others: Json) -> str:
    """Return docs/results.md; what is said of the images is of the first result alone."""
    data = result["dataset"]
    images = ", ".join(f"{one['images']} {one['label']}" for one in data["labels"])
    parts = [
        "# Results",
        f"Written by `python -m bench.quality.page` from {STORED}, the results of `make quality`, which goes on "
        "only from those of the code's own results version.",
        f"{data['images']} images ({images}) in {data['groups']} groups, {data['folds']} folds that no group "
        f"straddles. {_start(result['recipe'])}",
        *(f"- {_networks(one)}: {_run(one)}" for one in (result, *others)),
        "## Accuracy",
        "Of the held-out real images of all folds, with 95 % intervals (whole groups and seeds drawn again within each "
        "fold).",
        table.markdown(result, *others),
        "Differences of accuracy on the same images, in points:",
        table.differences(result, *others),
        "## Looked at closely",
        f"The recipe was chosen on splits of fold {OUTER}'s training images, which are the held-out images of the "
        f"other folds: no trial was judged on those of fold {OUTER} itself.",
        table.closer(result, *others),
        "Within a run:",
        *words.merged(text for one in (result, *others) for text in one["selection"]),
        "## Synthetic images",
        "Means of all folds, against held-out real images; *real* is what training images reach in the same place. "
        "Features of five random networks (see [report.md](report.md)). Copies over 0.15 above chance are suspicious; "
        "near-duplicates are images that the search for near-duplicates takes for a training image (of the first 50 of "
        "each fold and class); distance "
        "is the median to the nearest training image, relative to that of held-out images.",
        "![Synthetic heads of fold 0, the first ones of each class](images/samples.png)",
        "The first ones of each class in fold 0 ("
        + ", ".join(one["label"] for one in data["labels"])
        + "; two rows each).",
        table.generators(result),
        "## Report",
        "[The run's report](images/results.png), the whole page as one picture, without the real images that it shows.",
        "## Recipe",
        *(f"- {job}: {_settings(one)}" for job, one in result["recipe"].items() if one),
        *(f"- {_networks(other)}, in place of that: {_changed(result, other)}" for other in others),
    ]
    # A list is one paragraph.
    return re.sub(r"(?m)^(- .*)\n\n(?=- )", r"\1\n", "\n\n".join(parts)) + "\n"


def _start(recipe: dict[str, Json]) -> str:
    if recipe["train-classifier"].get("healthy"):
        return "Networks start from what phantoms, drawn heads, taught them: from no image of a person."
    return "Networks start from random weights."


def _networks(result: Json) -> str:
    return " and ".join(words.NETWORKS[network] for network in result["settings"]["networks"])


def _run(result: Json) -> str:
    seeds = result["settings"]["seeds"]
    seconds = result["pretraining_seconds"]
    pretraining = f"{words.duration(seconds)} of them pretraining" if seconds else "pretraining not counted"
    return (
        f"{seeds} seed{'s' * (seeds > 1)}, run {result['run']}, measured with results version "
        f"{result['results_version']}, judged by commit {result['commit'][:7]}, "
        f"{words.duration(result['seconds'])} of jobs, {pretraining}, on {_hardware(result['hardware'])}. "
        f"{_looks(result['looks'], result['run'])}"
    )


def _looks(runs: list[str], run: str) -> str:
    if len(runs) == 1:
        return "The only recipe that was judged on these folds."
    return (
        f"Recipe {runs.index(run) + 1} of {len(runs)} that were judged on these folds: it knew what those before it "
        "gave, and may owe something to chance."
    )


def _changed(first: Json, other: Json) -> str:
    same, recipe = (
        {(job, name): value for job, one in result["recipe"].items() if one for name, value in one.items()}
        for result in (first, other)
    )
    # What is judged may be older than a setting.
    changed = (key for key in same | recipe if same.get(key) != recipe.get(key))
    return _settings({key[1]: recipe.get(key, "none") for key in changed})


def _hardware(found: list[Json]) -> str:
    return "; ".join(sorted({f"{one['device']} (threads: {one['threads']}, {one['precision']})" for one in found}))


def _settings(one: Json) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in one.items())


def _value(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


if __name__ == "__main__":
    write(stored(), ablations())
    shutil.copyfile(ROOT / STORED / "samples.png", ROOT / "docs" / "images" / "samples.png")
