"""A real browser for pages that smpo writes. Where one must be there, SMPO_BROWSER=required makes skips fail."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
REQUIRED = os.environ.get("SMPO_BROWSER") == "required"
in_browser = pytest.mark.skipif(
    CHROMIUM is None and not REQUIRED,
    reason="no Chromium here to open the page in (`apt-get install chromium`; SMPO_BROWSER=required insists)",
)


def browse(text: str, folder: Path, *flags: str, anchor: str = "") -> str:
    """The page's DOM after its script has run, headless."""
    assert CHROMIUM is not None, "SMPO_BROWSER=required, and no Chromium is on the PATH"
    file = folder / "page.html"
    file.write_text(text, encoding="utf-8")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", f"--user-data-dir={folder / 'profile'}", *flags, "--dump-dom",
        f"{file.as_uri()}{anchor}",
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
