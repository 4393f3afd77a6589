"""Write docs/results.md and the tables of README.md and docs/quality.md: python -m bench.quality.page."""

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
    """Return the stored results, in the order of the protocol."""
    names = dict.fromkeys(name for name, _ in protocol.STAGES)
    paths = (ROOT / STORED / f"{name}.json" for name in names)
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def ablations() -> Json:
    """Return the stored results of bench.quality.ablate; empty if there are none."""
    path = ROOT / STORED / "ablations.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write(results: Sequence[Json], found: Json, root: Path = ROOT) -> None:
    """Write docs/results.md, and the tables between BEGIN and END in README.md and docs/quality.md, in `root`."""
    (root / "docs" / "results.md").write_text(page(*results))
    _fill(root / "README.md", table.short(results[0]))
    _fill(root / "docs" / "quality.md", f"{table.ablations(found)}\n\n{table.ablated_images(found)}")


def _fill(path: Path, text: str) -> None:
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def page(result: Json, *others: Json) -> str:
    """Return docs/results.md. The images are described for the first result only."""
    data = result["dataset"]
    images = ", ".join(f"{one['images']} {one['label']}" for one in data["labels"])
    labels = ", ".join(one["label"] for one in data["labels"])
    parts = [
        "# Results",
        "Accuracy on held-out real images, by what the classifier was trained on:",
        table.answer(result),
        "What limits these figures:",
        f"- The recipe was chosen on images of all folds but fold {OUTER}: compare the accuracy on fold {OUTER} below.",
        *(f"- {_networks(one)}: {_looks(one['looks'], one['run'])}" for one in (result, *others)),
        *(f"- {_networks(one)}: intervals contain {_resampled(one)}." for one in (result, *others)),
        "- The files do not say which images are of the same person: two slices of one head may be in two folds.",
        "- Generators, pretraining and folds have one seed each: the intervals do not contain their variation.",
        "- The random forest shows that the classes come from different sources. A network may use this too.",
        "## Data and runs",
        f"{data['images']} images ({images}) in {data['groups']} groups and {data['folds']} folds; each group is in "
        f"one fold. {_start(result['recipe'])}",
        *(f"- {_networks(one)}: {_run(one)}" for one in (result, *others)),
        "## Accuracy",
        "On the held-out real images of all folds, with 95 % intervals (groups and seeds resampled within each fold).",
        table.markdown(result, *others),
        "Differences of accuracy on the same images, in points:",
        table.differences(result, *others),
        "## Details",
        f"The recipe was chosen on splits of the training images of fold {OUTER}, which are the held-out images of the "
        f"other folds. The held-out images of fold {OUTER} were not used for this choice.",
        table.closer(result, *others),
        "Within a run:",
        *words.merged(text for one in (result, *others) for text in one["selection"]),
        "## Synthetic images",
        "Means over the folds, compared with held-out real images; *real* is the same figure for training images. "
        "Features of five random networks (see [report.md](report.md)). Copies of more than 0.15 above chance are "
        "suspicious; near-duplicates are matches with training images in the search for near-duplicates (among the "
        "first 50 images of each fold and class); distance is the median distance to the nearest training image, "
        "relative to that of held-out images.",
        "![First synthetic images of each class in fold 0](images/samples.png)",
        f"The first images of each class in fold 0 ({labels}; two rows each).",
        table.generators(result),
        "## Report",
        "[The report of the run](images/results.png) as one picture, without its real images.",
        "## How this page is made",
        f"`python -m bench.quality.page` writes this page from {STORED}, the results of `make quality`. `make quality` "
        "continues only from results with the results version of the code.",
        "## Recipe",
        *(f"- {job}: {_settings(one)}" for job, one in result["recipe"].items() if one),
        *(f"- {_networks(other)}, in place of that: {_changed(result, other)}" for other in others),
    ]
    # No empty lines within lists.
    return re.sub(r"(?m)^(- .*)\n\n(?=- )", r"\1\n", "\n\n".join(parts)) + "\n"


def _start(recipe: dict[str, Json]) -> str:
    if recipe["train-classifier"].get("healthy"):
        return "Networks are pretrained on phantoms (drawn heads), not on images of persons."
    return "Networks start from random weights."


def _networks(result: Json) -> str:
    return " and ".join(words.NETWORK_NAMES[network] for network in result["settings"]["networks"])


def _run(result: Json) -> str:
    seeds = result["settings"]["seeds"]
    seconds = result["pretraining_seconds"]
    pretraining = f"{words.duration(seconds)} of them pretraining" if seconds else "pretraining not counted"
    hardware = {f"{one['device']} (threads: {one['threads']}, {one['precision']})" for one in result["hardware"]}
    return (
        f"{seeds} seed{'s' * (seeds > 1)}, run {result['run']}, trained with results version "
        f"{result['results_version']}, evaluated with commit {result['commit'][:7]}, "
        f"{words.duration(result['seconds'])} of jobs, {pretraining}, on {'; '.join(sorted(hardware))}."
    )


def _looks(runs: list[str], run: str) -> str:
    if len(runs) == 1:
        return "the only recipe that was evaluated on these folds."
    return (
        f"recipe {runs.index(run) + 1} of {len(runs)} that were evaluated on these folds, so the figures may be too "
        "good by chance."
    )


def _resampled(result: Json) -> str:
    seeds = result["settings"]["seeds"]
    return f"the variation of images and of {seeds} seeds" if seeds > 1 else "the variation of images, not of seeds"


def _changed(first: Json, other: Json) -> str:
    same, recipe = (
        {(job, name): value for job, one in result["recipe"].items() if one for name, value in one.items()}
        for result in (first, other)
    )
    # Results may be older than a setting.
    changed = (key for key in same | recipe if same.get(key) != recipe.get(key))
    return _settings({key[1]: recipe.get(key, "none") for key in changed})


def _settings(one: Json) -> str:
    values = {
        name: " ".join(map(str, value)) or "none" if isinstance(value, list) else value for name, value in one.items()
    }
    return ", ".join(f"{name} {value}" for name, value in values.items())


if __name__ == "__main__":
    write(stored(), ablations())
    shutil.copyfile(ROOT / STORED / "samples.png", ROOT / "docs" / "images" / "samples.png")
