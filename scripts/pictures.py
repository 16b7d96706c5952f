"""Takes README's pictures anew: what the newcomer of tests/e2e/test_newcomer.py sees, with few colours to be small."""

import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
JOURNEY = "tests/e2e/test_newcomer.py::test_a_newcomer_signs_their_own_pdf_by_the_readme"
COLOURS = 64


def main() -> int:
    """Play the journey, then put its pictures into docs/images/."""
    status = subprocess.run([sys.executable, "-m", "pytest", "-q", JOURNEY], cwd=ROOT, check=False).returncode
    if status:
        return status
    target = ROOT / "docs" / "images"
    target.mkdir(exist_ok=True)
    for path in sorted((ROOT / "var" / "screenshots").glob("newcomer-*.png")):
        with Image.open(path) as picture:
            picture.convert("RGB").quantize(COLOURS).save(target / path.name, optimize=True)
        print(f"{(target / path.name).stat().st_size:>8} {path.name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
