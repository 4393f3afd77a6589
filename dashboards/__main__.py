"""Write the dashboards that the chart installs: python -m dashboards."""

from pathlib import Path

from dashboards import fleet, run
from dashboards.board import written

CHART = Path(__file__).parents[1] / "helm" / "mrigan" / "dashboards"


def texts() -> dict[Path, str]:
    """Return the files' texts."""
    return {CHART / f"{name}.json": written(board) for name, board in {"fleet": fleet.BOARD, "run": run.BOARD}.items()}


if __name__ == "__main__":
    for path, text in texts().items():
        path.write_text(text)
