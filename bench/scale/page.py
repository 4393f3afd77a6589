"""The figures as JSON, one file for each kind of hardware, and as tables, sentences and pictures in docs/scale.md."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.scale import devices, figures, growth
from bench.scale.growth import Law
from bench.scale.recipes import Recipe, by_job, recipe, seconds
from bench.speed.measuring import ROOT
from jobs.argo import size
from jobs.common.progress import in_words

STORED = Path("bench/results/scale")
WORKFLOW = "workflow.json"  # of tests/cluster/test_size.py
PAGE, IMAGES = Path("docs/scale.md"), Path("docs/images")
BEGIN, END = f"<!-- from {STORED} -->", "<!-- to here -->"
NOTHING = "Nothing is measured yet."
COUNTS, SIDES = (1000, 10_000, 100_000), (64, 128)  # of the forecast: images, pixels
NEEDED = (
    *("preprocess", "draw-phantoms", "generate", "evaluate", "promote", "predict"),
    *("train-gan step", "mobilenetv2 step"),
)
Json = dict[str, Any]


# ---- the files -------------------------------------------------------------------------------------------------------


def store(root: Path, hardware: Json, runs: Json, series: Json) -> Path:
    """Write series of this hardware to its file, where others stay, and the whole page; return the file."""
    path = root / STORED / f"{_slug(hardware)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(path.read_text()) if path.exists() else {"runs": {}, "series": {}}
    found = {"schema": 1, "hardware": hardware, "runs": kept["runs"] | runs, "series": kept["series"] | series}
    path.write_text(json.dumps(found, indent=1) + "\n")
    write(root)
    return path


def store_workflow(root: Path, found: Json) -> None:
    """Write what tests/cluster/test_size.py measured, and the whole page."""
    path = root / STORED / WORKFLOW
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schema": 1} | found, indent=1) + "\n")
    write(root)


def write(root: Path = ROOT) -> None:
    """Write pictures, and the tables and sentences of all stored files into the page, between BEGIN and END."""
    files = [path for path in sorted((root / STORED).glob("*.json")) if path.name != WORKFLOW]
    parts = [section(json.loads(path.read_text()), root) for path in files] or [NOTHING]
    path = root / STORED / WORKFLOW
    parts.append(workflow(json.loads(path.read_text()) if path.exists() else None))
    page = root / PAGE
    before, _, rest = page.read_text().partition(BEGIN)
    text = "\n\n".join(parts)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")


def _called(hardware: Json) -> str:
    device = " ".join(hardware["device"].replace("(R)", "").split())
    return f"{device}, {hardware['cores']} cores{', with a GPU' if hardware['kind'] == 'gpu' else ''}"


def _slug(hardware: Json) -> str:
    return re.sub(r"\W+", "-", _called(hardware).lower())


# ---- one kind of hardware --------------------------------------------------------------------------------------------


def section(found: Json, root: Path) -> str:
    """Return everything about one kind of hardware; its pictures are written to IMAGES."""
    parts = [f"### {_called(found['hardware'])}", about(found)]
    laws = growth.laws(found, "seconds")
    if all(job in laws for job in NEEDED):
        parts += forecast(laws, growth.laws(found, "mib"))
        parts += many_devices(laws, found["hardware"], root)
    pictures = figures.write(found, root / IMAGES, f"scale-{_slug(found['hardware'])}")
    parts += ["#### What was measured", " ".join(f"![{text}](images/{name})" for name, text in pictures)]
    return "\n\n".join([*parts, measured_table(found)])


def about(found: Json) -> str:
    """Return with what the series were measured; series of other commits or versions have lines of their own."""
    lines: dict[str, list[str]] = {}
    for name, run in found["runs"].items():
        packages = ", ".join(f"{package} {version}" for package, version in run["versions"].items())
        lines.setdefault(f"commit {run['commit'][:12]}; {packages}.", []).append(name)
    if len(lines) == 1:
        return f"All series: {next(iter(lines))}"
    return "\n".join(f"- {', '.join(names)}: {text}" for text, names in lines.items())


def measured_table(found: Json) -> str:
    """Return the measured points and the slopes of their laws as a table in Markdown."""
    lines = [("job", "against", "points", "seconds", "grows as", "peak memory, MiB"), ("---",) * 6]
    laws = growth.laws(found, "seconds")
    for one in found["series"].values():
        points, dimension = one["points"], one["dimension"]
        columns = [" · ".join(f"{point[name]:.3g}" for point in points) for name in ("seconds", "mib")]
        law = f"{dimension}^{laws[one['job']].exponents[dimension]:.2f}"
        x = " · ".join(f"{point['x']:g}" for point in points)
        lines.append((one["job"], dimension, x, columns[0], law, columns[1]))
    return table(lines)


def table(lines: Sequence[tuple[str, ...]]) -> str:
    """Return lines of cells as a table in Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# ---- the forecast ----------------------------------------------------------------------------------------------------


def forecast(laws: dict[str, Law], memory: dict[str, Law]) -> list[str]:
    """Return sentences and a table: the default recipe on one core, by images and pixels."""
    recipes = [recipe("", images, image_size=pixels) for pixels in SIDES for images in COUNTS]
    jobs = list(by_job(recipes[0], seconds(recipes[0], laws)))
    lines: list[tuple[str, ...]] = [("images", "pixels", *jobs, "all", "largest process"), ("---",) * (len(jobs) + 4)]
    sentences = []
    for one in recipes:
        times = by_job(one, seconds(one, laws))
        peak = peak_memory(one, memory)
        sure = within(one, laws)
        cells = (f"{one.images:,}", str(one.settings.image_size), *(in_days(times[job]) for job in jobs))
        cells += (in_days(sum(times.values())), f"{peak / 1024:.1f} GiB")
        lines.append(cells if sure else tuple(f"*{cell}*" for cell in cells))
        if one.images == COUNTS[1]:
            sentences.append(sentence(one, times, peak, sure))
    return [
        "#### How long on one core",
        "\n".join(f"- {text}" for text in sentences),
        "The default recipe: 5 folds, one GAN for all classes in each, MobileNetV2 in three regimes, 8000 phantoms. "
        "All tasks of a job together. *Italics*: more images or pixels than were measured, a forecast by the laws "
        "below.",
        table(lines),
    ]


def sentence(one: Recipe, times: dict[str, float], peak: float, sure: bool) -> str:
    """Return what a person needs: how long each job takes, and how much memory."""
    all_jobs = ", ".join(f"{job} {in_days(amount)}" for job, amount in times.items())
    return (
        f"{one.images:,} images at {one.settings.image_size} px on one core: {all_jobs}; "
        f"all {in_days(sum(times.values()))}. The largest process has {peak / 1024:.1f} GiB."
        + ("" if sure else " This is a forecast: so many images or pixels were not measured.")
    )


def within(one: Recipe, laws: dict[str, Law]) -> bool:
    """Return whether images and pixels of a recipe are within what was measured."""
    where = {"images": one.images, "pixels": one.settings.image_size}
    return all(laws[job].reaches(**where) for job in NEEDED if job != "promote")


def peak_memory(one: Recipe, laws: dict[str, Law]) -> float:
    """Return the MiB of the largest process of a run."""
    pixels, images = one.settings.image_size, float(one.images)
    of_steps = (law.at(pixels=pixels) for job, law in laws.items() if job in ("train-gan step", "mobilenetv2 step"))
    whole = ("preprocess", "evaluate", "generate", "train-gan", "train-classifier")
    return max(*of_steps, *(laws[job].at(images=images, pixels=pixels) for job in whole if job in laws))


def in_days(amount: float) -> str:
    """Return seconds as text, in days from 100 hours."""
    return in_words(amount) if amount < 360_000 else f"{amount / 86_400:,.0f} days"


# ---- many devices ----------------------------------------------------------------------------------------------------


def many_devices(laws: dict[str, Law], hardware: Json, root: Path) -> list[str]:
    """Return sentences, a picture and a table: how long a workflow takes with N cores or GPUs."""
    gpu = hardware["kind"] == "gpu"
    kinds, called = (("cpu", "gpu"), "GPUs") if gpu else (("cpu",), "cores")
    recipes = [recipe("the default recipe, 250 images at 64 px", 250)]
    large = {"folds": 10, "networks": ("mobilenetv2", "resnet152v2"), "seeds": 3}
    if "resnet152v2 step" in laws:
        name = "20 classes, 10 folds, 2 networks, 3 seeds, 10,000 images at 64 px"
        recipes.append(recipe(name, 10_000, 20, **large))
    columns, sentences = [], []
    for one in recipes:
        times = seconds(one, laws)
        tasks = devices.timed(devices.as_workflow(one.tasks()), times, gpu)
        spans = [
            times["preprocess"] + devices.makespan(tasks, dict.fromkeys(kinds, count)) for count in devices.counts()
        ]
        chain = devices.critical_path(tasks)
        shortest = times["preprocess"] + sum(task.seconds for task in chain)
        jobs = {task.place: task.job for task in one.tasks()}
        path = " → ".join(dict.fromkeys(("preprocess", *(jobs[task.place] for task in chain))))
        sentences.append(
            f"- {one.name}: {len(tasks) + 1} tasks. The critical path takes {in_days(shortest)} ({path}). Beyond "
            f"{devices.enough(tasks, kinds)} {called} nothing is gained."
        )
        columns.append(spans)
    picture = f"scale-{_slug(hardware)}-devices.svg"
    series = {one.name: (devices.counts(), spans) for one, spans in zip(recipes, columns, strict=True)}
    figures.lines(series, called, "hours", root / IMAGES / picture, 1 / 3600)
    head = (called, *(one.name for one in recipes))
    rows = [(str(count), *(in_days(spans[row]) for spans in columns)) for row, count in enumerate(devices.counts())]
    return [
        f"#### How many {called} help",
        "Simulated from the times of the tasks: each starts as soon as its inputs and a device are there, with the "
        "waits of the workflow. The workflow's `parallelism` must be as large, 8 by default.",
        "\n".join(sentences),
        f"![Time by number of {called}](images/{picture})",
        table([head, ("---",) * len(head), *rows]),
    ]


# ---- the workflow ----------------------------------------------------------------------------------------------------


def workflow(found: Json | None) -> str:
    """Return how large the object of a workflow becomes, as it was measured and as `mrigan plan` says before."""
    heading = "### A workflow in etcd"
    if found is None:
        return f"{heading}\n\n{NOTHING}"
    measured, estimated = (size.Size(**found[name]) for name in ("measured", "estimated"))
    lines: list[tuple[str, ...]] = [("", "measured", "as `mrigan plan` says before"), ("---",) * 3]
    for name, text in (
        ("pods", "pods"),
        ("nodes", "status of all nodes, bytes of JSON"),
        ("compressed", "the same compressed"),
        ("rest", "all else in the object"),
        ("stored", "the object at its end"),
    ):
        lines.append((text, *(f"{getattr(one, name):,}" for one in (measured, estimated))))
    return (
        f"{heading}\n\n20 classes, 10 folds, 2 networks, 3 seeds, a GAN for each class, in pods that do nothing, on "
        f"Argo {found['argo']}: {in_words(found['seconds'])}, no offloading, and at most {found['largest']:,} bytes at "
        f"any time; Argo stores {size.LIMIT:,}.\n\n{table(lines)}"
    )


if __name__ == "__main__":
    write()
