"""A report in a real browser: it loads nothing else, cells and map respond, names stay text, axe-core is content."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from stages.extract import opened_bases
from tests.conftest import command
from tests.support import browser, fakes

pytestmark = pytest.mark.skipif(browser.WHY_NOT is not None, reason=str(browser.WHY_NOT))

LABELS = ["<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "plain"]
WIDTHS = [1280, 390]
POINT = """c => {
  const { data, width } = c.getContext('2d').getImageData(0, 0, c.width, c.height);
  let i = 3;
  while (!data[i]) i += 4;
  return [((i - 3) / 4) % width, Math.floor((i - 3) / 4 / width) + 2].map(v => v / (c.width / c.clientWidth));
}"""
"""Where on a canvas something is drawn, in pixels of CSS."""

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on a head of three classes with hostile names, some images of which are under a wrong label."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "images").mkdir()
    with (folder / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for i in range(90):
            name = f"{i:02d}\"'><b onclick=alert(3)>&amp;.png"
            (folder / "images" / name).write_bytes(fakes.textured(i, i % 3 == 0))
            writer.writerow([name, LABELS[i % 3]])
    config = folder / "pipeline.yaml"
    config.write_text(
        "data: {root: images, table: t.csv, split: {method: stratified, val: 0.2, test: 0.3}}\nextract: {size: 16}\n"
        "heads: {logistic: {C: 0.1}, near: {kind: knn, k: 3}}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opened_bases, "open_embed", fakes.FakeEmbed)
        for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
            patch.setenv(name, str(folder / name))
        command("run", "-c", config, expect=0)
        command("report", "head/logistic", "-c", config, expect=0)
    return folder / "report.html"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser.browser() as opened:
        yield opened


@dataclass
class Tab:
    """An open page, and what the browser told of it."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def opened(chromium: Any, file: Path, width: int = 1280, scheme: str = "light") -> Iterator[Tab]:
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, has_touch=width < 800)
    tab = Tab(context.new_page())
    tab.page.on("console", lambda message: tab.complaints.append(f"console {message.type}: {message.text}"))
    tab.page.on("pageerror", lambda error: tab.complaints.append(f"error: {error}"))
    tab.page.on("dialog", lambda dialog: (tab.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    tab.page.on("request", lambda request: tab.requests.append(request.url))
    tab.page.goto(file.as_uri())
    try:
        yield tab
    finally:
        context.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_it_loads_without_a_complaint_and_all_pictures_are_there(chromium: Any, page_file: Path, width: int) -> None:
    with opened(chromium, page_file, width) as tab:
        images = tab.page.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth, i.alt])")
        assert len(images) > 20
        assert all(complete and pixels > 0 and alt for complete, pixels, alt in images)
        sheets = "Promise.all(JSON.parse(document.getElementById('data').textContent).sheets.map(s => " \
                 "{ const i = new Image(); i.src = s; return i.decode().then(() => i.naturalWidth) }))"  # fmt: skip
        assert tab.page.evaluate(sheets) == [32 * 64]
        wide = tab.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide == 0
        lines = "[...document.querySelectorAll('tr.this th')].map(h => { const r = document.createRange(); " \
                "r.selectNodeContents(h.firstChild); return r.getClientRects().length })"  # fmt: skip
        assert set(tab.page.evaluate(lines)) == {1}  # the model's name is on one line
        assert tab.complaints == []
        assert {url.partition(":")[0] for url in tab.requests} <= {"file", "data"}
        assert len([url for url in tab.requests if url.startswith("file")]) == 1


def test_it_may_load_nothing_even_if_it_wanted_to(chromium: Any, page_file: Path) -> None:
    with opened(chromium, page_file) as tab:
        said = tab.page.evaluate("fetch('data:text/plain,x').then(() => 'loaded', error => String(error))")
        assert "loaded" not in said
        tab.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=alert(9)>')")
        tab.page.evaluate(
            "{ const s = document.createElement('script'); s.textContent = 'alert(8)'; document.body.append(s) }"
        )
        tab.page.wait_for_timeout(100)
        assert [one for one in tab.complaints if one.startswith("dialog")] == []
        assert any("Content Security Policy" in one for one in tab.complaints)


def test_hostile_names_are_shown_as_they_are(chromium: Any, page_file: Path) -> None:
    with opened(chromium, page_file) as tab:
        shown = tab.page.inner_text("#confusion")
        assert all(label in shown for label in LABELS)
        assert tab.page.locator("main b").count() == 0
        assert tab.page.locator("script").count() == 2
        assert tab.complaints == []


@pytest.mark.parametrize("width", WIDTHS)
def test_cells_open_as_many_pictures_as_they_count(chromium: Any, page_file: Path, width: int) -> None:
    with opened(chromium, page_file, width) as tab:
        cells = tab.page.locator("button[data-set]")
        assert cells.count() >= 4
        for i in range(cells.count()):
            cells.nth(i).click()
            assert tab.page.locator("#cell-panel li").count() == min(
                60, int(cells.nth(i).inner_text().replace(",", ""))
            )
            assert cells.nth(i).get_attribute("aria-pressed") == "true"
        first = tab.page.locator("#cell-panel .sprite").first
        assert first.get_attribute("aria-label")
        assert "data:image/webp" in first.evaluate("one => getComputedStyle(one).backgroundImage")
        assert tab.complaints == []


def test_the_map_answers_mouse_and_keys(chromium: Any, page_file: Path) -> None:
    with opened(chromium, page_file) as tab:
        canvas, tip, said = (tab.page.locator(f"#map-{name}") for name in ("canvas", "tip", "said"))
        canvas.scroll_into_view_if_needed()
        assert not tip.is_visible()
        canvas.focus()
        tab.page.keyboard.press("ArrowRight")
        assert tip.is_visible()
        assert ".png" in said.inner_text()
        seen = {said.inner_text()}
        for way in ("ArrowLeft", "ArrowUp", "ArrowRight", "ArrowDown") * 3:
            tab.page.keyboard.press(way)
            seen.add(said.inner_text())
        assert len(seen) > 3
        tab.page.keyboard.press("Escape")
        assert not tip.is_visible()
        box = canvas.bounding_box()
        assert box is not None
        x, y = canvas.evaluate(POINT)
        tab.page.mouse.move(box["x"] + x, box["y"] + y)
        assert tip.is_visible()
        assert "data:image/webp" in tip.locator(".sprite").evaluate("one => getComputedStyle(one).backgroundImage")
        assert tip.inner_text().splitlines()[0] in said.inner_text()
        assert tab.complaints == []


def test_the_map_is_coloured_anew_and_a_touch_shows_a_picture(chromium: Any, page_file: Path) -> None:
    with opened(chromium, page_file, 390) as tab:
        legend = tab.page.locator("#map-legend")
        pixels = "canvas => canvas.toDataURL()"
        found = set()
        for kind in ("t-SNE", "PCA"):
            tab.page.select_option("#map-kind", kind)
            for colour in ("label", "split", "mistake"):
                tab.page.select_option("#map-colour", label=colour)
                found.add((legend.inner_text(), tab.page.locator("#map-canvas").evaluate(pixels)))
        assert len({words for words, _ in found}) == 3
        assert len({drawn for _, drawn in found}) == 6
        assert "mistake (" in legend.inner_text()
        tab.page.locator("#map-canvas").scroll_into_view_if_needed()
        x, y = tab.page.locator("#map-canvas").evaluate(POINT)
        tab.page.locator("#map-canvas").tap(position={"x": x, "y": y})
        assert tab.page.locator("#map-tip .sprite").is_visible()
        assert tab.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_core_finds_nothing(chromium: Any, page_file: Path, width: int, scheme: str) -> None:
    with opened(chromium, page_file, width, scheme) as tab:
        tab.page.locator("button[data-set]").first.click()
        tab.page.locator("#map-canvas").focus()
        tab.page.keyboard.press("ArrowRight")
        tab.page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        tab.page.evaluate(browser.axe_source())
        found = tab.page.evaluate("rules => axe.run({runOnly: rules})", RULES)
        assert len(found["passes"]) > 30
        assert [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in found["violations"]] == []


def test_it_prints(chromium: Any, page_file: Path) -> None:
    with opened(chromium, page_file, scheme="dark") as tab:
        assert tab.page.pdf(format="A4").startswith(b"%PDF")
        tab.page.emulate_media(media="print", color_scheme="dark")
        assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not tab.page.locator("nav").is_visible()
