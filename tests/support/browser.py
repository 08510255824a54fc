"""A real browser without a window: Debian's chromium, driven by playwright. Not what is looked for in a page."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

WHY_NOT = "no chromium here (apt-get install chromium)" if CHROMIUM is None else None
if WHY_NOT is None and find_spec("playwright") is None:
    WHY_NOT = "playwright is not installed (extra test)"


@contextmanager
def browser() -> Iterator[Any]:
    """A playwright Browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield opened
        finally:
            opened.close()


def axe_source() -> str:
    """axe-core, as its package ships it."""
    (found,) = find_spec("axe_playwright_python").submodule_search_locations  # type: ignore[union-attr]
    return (Path(found) / "axe.min.js").read_text("utf-8")


def screenshot(page: Path, picture: Path, width: int = 1280, height: int = 1000) -> None:
    """Confusions and worst mistakes of a report as a PNG, for README.md."""
    with browser() as opened:
        tab = opened.new_page(viewport={"width": width, "height": height})
        tab.goto(f"{page.absolute().as_uri()}#confusion")
        tab.screenshot(path=picture)


if __name__ == "__main__":  # python -m tests.support.browser demo/report.html docs/report.png
    screenshot(Path(sys.argv[1]), Path(sys.argv[2]))
