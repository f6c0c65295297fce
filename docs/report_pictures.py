"""Make the README's pictures from a demo's report, with headless Chromium.

    python docs/report_pictures.py demo-workspace/report/<key>/report.html

Writes ``docs/images/report*.png``. Published pictures show phantoms only: give it the report of a demo.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

IMAGES = Path(__file__).resolve().parent / "images"
LARGEST_BYTES = 300_000
WIDTH_PX, HEIGHT_PX = 1280, 2400
_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=10000",
]
_ALONE = "nav, header, footer, .use, .skip { display: none } .frame { display: block; padding-top: 1.25rem }"
PICTURES = {
    "report.png": "section:not(#summary), footer { display: none }",
    "report-lesions.png": f"{_ALONE} section:not(#lesions), section > :not(h2, .pair) {{ display: none }}",
    "report-pseudo-ct.png": f"{_ALONE} section:not(#pseudo-ct), section > :not(h2, .case), .case ~ .case, .stills"
    " { display: none }",
}
"""Styles that leave one part of the report on the page: the summary; the lesions; one case's slice viewer."""


def photograph(report: str, style: str, folder: Path) -> Image.Image:
    """The report under a further style, without the empty paper below."""
    page, shot = folder / "page.html", folder / "page.png"
    unguarded = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", report)
    page.write_text(unguarded.replace("</head>", f"<style>{style}</style></head>"), encoding="utf-8")
    size = f"--window-size={WIDTH_PX},{HEIGHT_PX}"
    places = [f"--user-data-dir={folder / 'profile'}", f"--screenshot={shot}", page.as_uri()]
    subprocess.run(["chromium", *_FLAGS, size, *places], check=True, capture_output=True, timeout=120)  # noqa: S603, S607
    with Image.open(shot) as opened:
        image = opened.convert("RGB")
    box = ImageChops.difference(image, Image.new("RGB", image.size, image.getpixel((0, HEIGHT_PX - 1)))).getbbox()
    return image.crop((0, 0, WIDTH_PX, min(HEIGHT_PX, (box[3] if box else HEIGHT_PX) + 20)))


def save_small(image: Image.Image, path: Path) -> None:
    """Write a PNG below `LARGEST_BYTES`, as large as that allows."""
    for percent in range(80, 20, -5):
        size = (image.width * percent // 100, image.height * percent // 100)
        image.resize(size, Image.Resampling.LANCZOS).save(path, optimize=True)
        if path.stat().st_size < LARGEST_BYTES:
            return


def main() -> None:
    """Make every picture from the report named on the command line."""
    report = Path(sys.argv[1]).read_text(encoding="utf-8")
    for name, style in PICTURES.items():
        with tempfile.TemporaryDirectory() as folder:
            save_small(photograph(report, style, Path(folder)), IMAGES / name)


if __name__ == "__main__":
    main()
