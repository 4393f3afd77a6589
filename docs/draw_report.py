"""Draw a run's report as the documentation's pictures, without the real images that it shows; needs Debian's chromium.

.venv/bin/python docs/draw_report.py out/quality/runs/RUN/report/report.html
"""

import argparse
import re
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).parent / "images"
WIDTH, FIRST = 780, 1555  # pixels: of the page, and the height of its first screen
# Held-out images beside the synthetic ones, and the training images nearest to these.
REAL = (
    r"(?s)<figure><figcaption>real</figcaption>.*?</figure>"
    r'|<details[^>]*>(?:(?!</details>).)*class="nearest".*?</details>'
)
CHROMIUM = (
    "chromium",
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--disable-background-networking",
)
POLICY = "default-src 'none'; "  # which forbids scripts
MEASURE = "<script>document.title = 'height ' + document.documentElement.scrollHeight</script>"


def main() -> None:
    """Write results.png, the whole page, and report.png, its top."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("report", type=Path)
    html, left_out = re.subn(REAL, "", parser.parse_args().report.read_text())
    if not left_out:
        parser.error("found no real images to leave out: has the page changed?")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "page.html")
        page.write_text(html.replace(POLICY, "").replace("</body>", f"{MEASURE}</body>"))
        [height] = re.findall(r"<title>height (\d+)", _chromium("--dump-dom", f"--window-size={WIDTH},{FIRST}", page))
        page.write_text(html)
        _chromium(f"--screenshot={IMAGES / 'results.png'}", f"--window-size={WIDTH},{height}", page)
    with Image.open(IMAGES / "results.png") as whole:
        whole.quantize(256).save(IMAGES / "results.png", optimize=True)
        whole.crop((0, 0, WIDTH, FIRST)).quantize(256).save(IMAGES / "report.png", optimize=True)


def _chromium(*arguments: str | Path) -> str:
    return subprocess.run([*CHROMIUM, *arguments], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
