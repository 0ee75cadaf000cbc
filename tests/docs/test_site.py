"""The built site, as a reader has it: nothing is cut or overflows, links lead somewhere, the search finds pages."""

from __future__ import annotations

import importlib
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest

from docs._extensions import reference

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]  # the site is built first, from all pages

ROOT = Path(__file__).parents[2]
WIDTHS = (390, 1280)
"""A phone, and a laptop, in CSS pixels."""

OVERFLOWING = """() => {
    const scrolls = element => ["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(element).overflowX);
    const found = document.documentElement.scrollWidth > innerWidth ? ["the page"] : [];
    for (const element of document.querySelectorAll("article *")) {
        const box = element.getBoundingClientRect();
        if (box.width === 0 || (box.right <= innerWidth + 1 && box.left >= -1)) continue;
        let above = element;
        while (above && above.tagName !== "ARTICLE" && !scrolls(above)) above = above.parentElement;
        if (!above || above.tagName === "ARTICLE") found.push(element.outerHTML.slice(0, 120));
    }
    return found;
}"""

CUT = """() => [...document.querySelectorAll("article pre, article img, article .table-wrapper")]
    .filter(element => element.scrollWidth > element.clientWidth + 1)
    .map(element => element.textContent.split("\\n").toSorted((a, b) => b.length - a.length)[0] || element.src)"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the built site."""
    out = tmp_path_factory.mktemp("site")
    sphinx = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", str(out / ".doctrees")]
    done = subprocess.run([*sphinx, "docs", str(out)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def pages(site: Path) -> list[Path]:
    """Return the pages that are written by people or from the code; not the index and the search."""
    return [page for page in sorted(site.rglob("*.html")) if page.stem not in {"genindex", "py-modindex", "search"}]


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_overflows_the_page(site: Path, browser: Browser, width: int) -> None:
    tab = browser.new_page(viewport={"width": width, "height": 900})
    found = {}
    for page in pages(site):
        tab.goto(page.as_uri())
        if overflowing := tab.evaluate(OVERFLOWING):
            found[str(page.relative_to(site))] = overflowing[:3]
    assert found == {}


def test_no_code_table_or_picture_is_cut_on_a_laptop(site: Path, browser: Browser) -> None:
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    found = {}
    for page in pages(site):
        tab.goto(page.as_uri())
        if cut := tab.evaluate(CUT):
            found[str(page.relative_to(site))] = cut
    assert found == {}


def test_the_landing_page_shows_problem_and_ways_on_one_screen_and_then_the_demo(site: Path, browser: Browser) -> None:
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.goto((site / "index.html").as_uri())
    table = tab.locator("article table").first.bounding_box()
    picture = tab.locator("article img").first.bounding_box()
    assert picture is not None
    assert table is not None
    assert picture["width"] > 600
    assert table["y"] + table["height"] <= min(picture["y"], 900)


def test_the_search_finds_pages_and_names(site: Path, browser: Browser) -> None:
    tab = browser.new_page()
    for words, page in {"finalizer": "controller.html", "set_condition": "status.html"}.items():
        tab.goto(f"{(site / 'search.html').as_uri()}?q={words}")
        tab.wait_for_selector("ul.search li")
        assert any(page in (link.get_attribute("href") or "") for link in tab.locator("ul.search a").all()), words


def test_every_link_within_the_site_leads_to_a_page_and_a_place_on_it(site: Path) -> None:
    read = {page: Anchors.of(page) for page in site.rglob("*.html")}
    dead = set()
    for page, anchors in read.items():
        for link in anchors.links:
            path, _, place = unquote(link).partition("#")
            target = (page.parent / path.partition("?")[0]).resolve() if path else page
            if not target.exists() or (place and target in read and place not in read[target].ids):
                dead.add(f"{page.relative_to(site)}: {link}")
    assert dead == set()


def test_every_page_has_a_link_to_it_and_every_public_name_an_entry(site: Path) -> None:
    read = {page: Anchors.of(page) for page in pages(site)}
    linked = {(page.parent / link.partition("#")[0]).resolve() for page, each in read.items() for link in each.links}
    assert {page.name for page in read if page.resolve() not in linked} == set()
    for package in set(reference.public_packages()) - {"reconciler"}:
        names = {each for each in importlib.import_module(package).__all__ if not each.startswith("__")}
        text = (site / "api" / f"{package}.html").read_text()
        above = set() if package.count(".") == 1 else set(importlib.import_module(package.rpartition(".")[0]).__all__)
        missing = {each for each in names - above if f'id="{package}.{each}"' not in text}
        assert missing == set(), package


class Anchors(HTMLParser):
    """The links within the site, and the ids of a document."""

    def __init__(self) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.ids: set[str] = set()

    @classmethod
    def of(cls, page: Path) -> Anchors:
        """Return those of a page."""
        found = cls()
        found.feed(page.read_text())
        return found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of an element."""
        given = dict(attrs)
        self.ids |= {value for key in ("id", "name") if (value := given.get(key))}
        link = given.get("href" if tag == "a" else "src")
        if link and not link.startswith(("http:", "https:", "mailto:", "data:")):
            self.links.add(link)
