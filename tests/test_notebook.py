"""The notebook of docs/, run as it is written on a run of phantoms."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

import mrigan
from jobs import evaluate
from jobs.common.seeds import derive
from jobs.common.storage import open_storage
from jobs.mri.crop import fit
from jobs.phantoms.drawing import draw_head
from jobs.settings import EvaluateSettings
from tests import fake_run

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def phantom(label: int, number: int, size: int) -> np.ndarray:
    head = draw_head(("healthy", "lesion")[label], np.random.default_rng(derive(number, "phantom", label)))
    return fit(head, 0, size)


def test_it_shows_the_tables_and_images_of_a_run(tmp_path: Path) -> None:
    fake_run.make(
        open_storage(str(tmp_path)), ("healthy", "lesion"), images=6, regimes=("synthetic", "real"), draw=phantom
    )
    evaluate.run(
        EvaluateSettings(
            storage=str(tmp_path),
            dataset=fake_run.DATASET,
            run=fake_run.RUN,
            networks=("mobilenetv2",),
            regimes=("synthetic", "real"),
            resamples=100,
        )
    )
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    grids = "print([sum(bool(axes.images) for axes in plt.figure(i).axes) for i in plt.get_fignums()])"
    shown = subprocess.run(
        [sys.executable, "-c", f"{code}\n{grids}"],
        env=os.environ | {"STORAGE": str(tmp_path), "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    for label in ("healthy", "lesion"):
        assert re.search(rf"^{label} +6 +\d", shown.stdout, re.M)
        assert f"{label}: uint8 (8, 32, 32)" in lines
    for row in mrigan.report(tmp_path, fake_run.RUN)["results"]:
        if row["metric"] == "accuracy":
            line = f"mobilenetv2, trained on {row['regime']}".ljust(40) + f" {row['value']:.3f} ["
            assert any(found.startswith(line) for found in lines)
    # Two grids of synthetic images, and the least certain of the real images.
    assert lines[-1] == "[8, 8, 8]"


def test_it_is_stored_without_outputs() -> None:
    """Outputs may show images of persons."""
    assert not any(cell.get("outputs") for cell in json.loads(NOTEBOOK.read_text())["cells"])
