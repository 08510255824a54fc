"""The documents as a site (mkdocs.yml): it builds without a warning, and in a real browser needs no network."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import REPOSITORY, browser

pytestmark = pytest.mark.skipif(browser.WHY_NOT is not None, reason=str(browser.WHY_NOT))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(place)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(words, cwd=REPOSITORY, env=quiet, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return place


@pytest.fixture(scope="module")
def visited(site: Path) -> Iterator[tuple[Any, list[str]]]:
    """A tab, and what it asked for that is not a file of this machine."""
    leaving: list[str] = []
    with browser.browser() as opened:
        tab = opened.new_page(viewport={"width": 1280, "height": 900})
        tab.on("request", lambda request: leaving.append(request.url))
        yield tab, leaving


def local(urls: list[str]) -> bool:
    return all(url.startswith(("file:", "data:", "blob:")) for url in urls)


def test_pages_ask_for_nothing_from_elsewhere_and_fit_a_phone(site: Path, visited: tuple[Any, list[str]]) -> None:
    tab, asked = visited
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        for width in (1280, 390):
            tab.set_viewport_size({"width": width, "height": 900})
            tab.goto(page.as_uri())
            assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, (page.name, width)
    assert len(asked) > len(pages)
    assert local(asked)


def test_search_works_in_a_page_that_is_opened_as_a_file(site: Path, visited: tuple[Any, list[str]]) -> None:
    tab, asked = visited
    tab.set_viewport_size({"width": 1280, "height": 900})
    tab.goto((site / "index.html").as_uri())
    tab.locator("label.md-header__button[for=__search], .md-search__input").first.wait_for(state="attached")
    tab.evaluate("document.querySelector('#__search').click()")
    tab.keyboard.type("unfreeze_from")
    found = tab.locator(".md-search-result__meta", has_text="matching document")
    found.wait_for(timeout=30_000)
    assert local(asked)
