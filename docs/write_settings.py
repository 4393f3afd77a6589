"""Write what follows from jobs/settings.py: docs/settings.md, and the parameters of the workflow. `make settings`."""

import json
import re
from pathlib import Path

from jobs.common import fields
from jobs.common.fields import Settings
from jobs.settings import JOBS, MAIN, PRESET_COSTS, PRESETS, PipelineSettings, ProcessSettings, RunOfTasksSettings

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "settings.md"
WORKFLOW = ROOT / "workflows" / "workflowtemplate.yaml"
# What a workflow sets by itself.
VALUES = {"storage": "s3://mrigan", "data": "s3://mrigan/data", "gpus": "0"}
OWN = {
    "gpus": "GPUs of each pod that trains or draws",
    "preset": f"settings that go together: {', '.join(PRESETS)}",
    "settings": "all other settings, as YAML text, such as gan_epochs: 200",
}


def table() -> str:
    """Return docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "A setting is a flag (`--image-size 64`), an environment variable (`MRIGAN_IMAGE_SIZE=64`) and a line of the",
        "YAML file that `--settings` names (`image_size: 64`), in this order of precedence. In a workflow, those of",
        "the first table are parameters (`image-size=64`); the parameter `settings` takes all others, as YAML text.",
        "",
        "Presets (`--preset`): " + "; ".join(f"`{name}` ({cost})" for name, cost in PRESET_COSTS.items()) + ".",
    ]
    # Rows, not names: a name may have another default or text in another job.
    seen: set[str] = set()
    kinds = {job: JOBS[job].settings for job in ("pipeline", *JOBS)}
    for job, kind in {**kinds, "every job": ProcessSettings}.items():
        for title, names in fields.grouped(kind, MAIN if issubclass(kind, RunOfTasksSettings) else ()).items():
            rows = [f"| `{name}` | {_default(kind, name)} | {_meaning(kind, name)} |" for name in names]
            new = [row for row in rows if row not in seen]
            seen |= set(new)
            if new:
                title = f"only {job}" if title == "only this job" else title
                lines += ["", f"## {title[0].upper()}{title[1:]}", "", "| setting | default | |", "|---|---|---|"]
                lines += new
    return "\n".join(lines) + "\n"


def _default(kind: type[Settings], name: str) -> str:
    field = kind.model_fields[name]
    text = "" if field.is_required() else fields.spell(field.default)
    return f"`{text}`" if text else ""


def _meaning(kind: type[Settings], name: str) -> str:
    field = kind.model_fields[name]
    unit = (field.json_schema_extra or {}).get("unit")  # type: ignore[union-attr]
    choices = fields.choices(field.annotation)
    return f"{field.description}{f' [{unit}]' if unit else ''}{f' ({chr(44).join(choices)})' if choices else ''}"


def workflow(text: str) -> str:
    """Return the workflow's text with its parameters and variables written anew."""
    names = [*(name.replace("_", "-") for name in MAIN), *OWN]
    parameters = []
    for name in names:
        description = OWN.get(name) or PipelineSettings.model_fields[name.replace("-", "_")].description
        value = json.dumps(VALUES.get(name, ""))
        parameters += [f"      - name: {name}", f"        value: {value}"]
        parameters += [f"        description: {json.dumps(description)}"]
    variables = [
        f'          - {{name: MRIGAN_{name.upper().replace("-", "_")}, value: "{{{{workflow.parameters.{name}}}}}"}}'
        for name in names
        if name not in ("gpus", "settings")
    ]
    for title, lines in (("parameters", parameters), ("variables", variables)):
        pattern = rf"( *# ---- {title}: [^\n]*\n).*?( *# ---- end)"
        text = re.sub(pattern, lambda found: found[1] + "\n".join(lines) + "\n" + found[2], text, flags=re.DOTALL)  # noqa: B023
    return text


if __name__ == "__main__":
    TABLE.write_text(table())
    WORKFLOW.write_text(workflow(WORKFLOW.read_text()))
