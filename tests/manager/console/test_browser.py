"""The console in a real browser."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests.manager.console.conftest import running_operator
from tests.manager.console.scene import MARKUP, SECRET

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.browser

DESKTOP: dict[str, Any] = {"viewport": {"width": 1200, "height": 780}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 780}, "device_scale_factor": 2}
PAGES = ("/", "/keys", "/process", "/key?controller=database&namespace=team-a&name=orders")
PROBLEMS: list[str] = []


@pytest.fixture
def context(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Opens contexts that record what a page must not do: errors, dialogs, and requests to other servers."""
    contexts: list[BrowserContext] = []

    def make(**options: Any) -> BrowserContext:
        made = browser.new_context(**(DESKTOP | options))
        made.set_default_timeout(15_000)
        made.on("console", lambda message: PROBLEMS.append(message.text) if message.type == "error" else None)
        made.on("weberror", lambda error: PROBLEMS.append(str(error.error)))
        made.on("dialog", lambda dialog: PROBLEMS.append(dialog.message))
        made.on("request", lambda request: _check_address(request.url))
        contexts.append(made)
        return made

    PROBLEMS.clear()
    yield make
    for each in contexts:
        each.close()
    assert PROBLEMS == []


def _check_address(url: str) -> None:
    if not re.match(r"http://127\.0\.0\.1:\d+/", url):
        PROBLEMS.append(f"a request to {url}")


@pytest.fixture
def page(context: Callable[..., BrowserContext]) -> Page:
    return context().new_page()


def visit(page: Page, address: str) -> None:
    """Open an address and wait until its page is live."""
    page.goto(address)
    page.locator("html[data-live=live]").wait_for()


def test_what_fails_comes_first_and_the_page_moves_without_being_loaded_again(page: Page, operator: str) -> None:
    visit(page, operator)
    page.evaluate("window.kept = true")
    first = page.locator(".attention li", has_text="team-a/orders")
    first.get_by_text("LookupError: no disk of 400 GB").wait_for()
    before = first.inner_text()
    page.wait_for_function("before => document.querySelector('.attention').innerText !== before", arg=before)
    first.get_by_text(re.compile(r"[3-9] failures in a row")).wait_for()
    assert page.evaluate("window.kept") is True
    assert page.locator(".card").count() == 2
    page.wait_for_function("() => document.querySelectorAll('.card svg polyline').length === 8")


def test_markup_in_an_error_is_text(page: Page, operator: str) -> None:
    visit(page, operator)
    page.locator(".attention").get_by_text(MARKUP).wait_for()
    assert page.locator("main img").count() == 0


def test_keys_are_searched_while_typing_and_the_keyboard_does_all(page: Page, operator: str) -> None:
    visit(page, operator)
    page.keyboard.press("2")
    page.wait_for_url("**/keys")
    page.locator("html[data-live=live]").wait_for()
    page.keyboard.press("/")
    page.keyboard.type("Cache-1")
    page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 11")  # 1, and 10 to 19
    assert page.evaluate("document.activeElement.name") == "q"
    assert page.url.endswith("/keys?q=Cache-1")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    name = page.evaluate("document.activeElement.innerText")
    assert name == page.locator("tbody tr a").first.inner_text()
    page.wait_for_timeout(1500)  # an update must not take the focus
    assert page.evaluate("document.activeElement.innerText") == name
    page.keyboard.press("Enter")
    page.locator("h1", has_text=name).wait_for()
    page.go_back()
    assert page.locator("input[name=q]").input_value() == "Cache-1"
    page.keyboard.press("?")
    page.get_by_role("heading", name="Keyboard").wait_for()
    page.keyboard.press("Escape")
    page.locator("dialog[open]").wait_for(state="detached")


def test_states_select_keys(page: Page, operator: str) -> None:
    visit(page, f"{operator}/keys")
    page.get_by_role("link", name="failing", exact=True).click()
    page.wait_for_function("() => document.querySelectorAll('tbody tr').length === 2")
    page.get_by_role("link", name="in progress", exact=True).click()
    page.get_by_role("row", name="team-a/hangs").wait_for()
    page.get_by_role("link", name="ready", exact=True).click()
    page.get_by_text("No key matches.").wait_for()


def test_the_page_of_a_key_answers_and_draws_what_happened(page: Page, operator: str) -> None:
    visit(page, f"{operator}/key?controller=database&namespace=team-a&name=orders")
    page.locator(".answer", has_text="LookupError").get_by_text("scene.py").wait_for()
    page.locator(".answer").get_by_text(re.compile(r"It runs next in .* It waits for the backoff after \d")).wait_for()
    page.wait_for_function("() => document.querySelectorAll('rect.error').length >= 3")
    page.wait_for_function("() => document.querySelectorAll('rect.retry').length >= 3")
    assert page.locator("circle.change").count() == 1
    assert page.locator("circle.next").count() == 1
    page.locator("rect.error").first.click(force=True)
    assert re.search(r"#run-\d+$", page.url)
    assert page.locator("tr:target").count() == 1


def test_the_change_that_woke_a_key_is_shown_with_its_writer_and_without_secrets(page: Page, operator: str) -> None:
    visit(page, f"{operator}/key?controller=database&namespace=team-a&name=customers")
    # The scene edits the object again and again: a reconcile that comes late answers for several edits at once.
    change = page.locator(".answer .diff", has_text="Database team-a/customers was updated by kubectl-edit").first
    size = change.locator("li", has_text="spec.size")
    before, after = size.evaluate("size => ['del', 'ins'].map(tag => Number(size.querySelector(tag).innerText))")
    assert after == before + 1
    change.get_by_text("spec.password was changed").wait_for()
    page.wait_for_function("() => document.querySelectorAll('.runs .diff').length >= 3")
    page.wait_for_function("() => document.querySelectorAll('circle.change').length >= 3")


def test_writes_and_own_events_are_drawn(page: Page, operator: str) -> None:
    visit(page, f"{operator}/key?controller=backup&namespace=team-a&name=nightly-0")
    page.locator("rect.success").first.wait_for(state="attached")
    page.locator("rect.delay").first.wait_for(state="attached")
    page.goto(f"{operator}/key?controller=database&namespace=team-b&name=cache-3")
    assert page.locator("circle.write").count() == 1
    assert page.locator("circle.echo").count() == 1


def test_leadership_and_informers_are_shown(page: Page, operator: str) -> None:
    visit(page, f"{operator}/process")
    page.get_by_text("ops/database-operator").wait_for()
    page.locator("dd", has_text="leads").wait_for()
    page.locator("header").get_by_text("leader").wait_for()
    row = page.get_by_role("row", name="example.com/v1/Database")
    assert "synced" in row.inner_text()
    assert re.search(r"heard .* ago", row.inner_text())


def test_no_value_of_an_object_appears(page: Page, operator: str) -> None:
    for path in (*PAGES, "/key?controller=database&namespace=team-a&name=customers"):
        visit(page, operator + path)
        assert SECRET not in page.content()


def test_it_follows_the_color_scheme(context: Callable[..., BrowserContext], operator: str) -> None:
    light, dark = (context(color_scheme=scheme).new_page() for scheme in ("light", "dark"))
    colors = []
    for page in (light, dark):
        visit(page, operator)
        colors.append(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))
    assert [sum(map(int, re.findall(r"\d+", color))) > 384 for color in colors] == [True, False]


@pytest.mark.parametrize("path", PAGES)
def test_a_phone_needs_no_sideways_scrolling(context: Callable[..., BrowserContext], operator: str, path: str) -> None:
    page = context(**PHONE).new_page()
    visit(page, operator + path)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_enough_contrast(context: Callable[..., BrowserContext], operator: str, scheme: str) -> None:
    page = context(color_scheme=scheme).new_page()
    for path in PAGES:
        visit(page, operator + path)
        found = page.evaluate(CONTRASTS)
        assert found, path
        assert {text: ratio for text, ratio in found.items() if ratio < 4.5} == {}  # WCAG 2.2, level AA


CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (color, ground) => {
    canvas.fillStyle = ground; canvas.fillRect(0, 0, 1, 1);
    canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (parts) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = parts.map((part) => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (let each = node; each !== null; each = each.parentElement) {
      const color = getComputedStyle(each).backgroundColor;
      if (!/, 0\\)$/.test(color)) return color;
    }
    return "white";
  };
  const found = {};
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((each) => each.nodeType === 3 && each.nodeValue.trim());
    if (!own || !node.checkVisibility() || node.closest("svg, .skip, dialog")) continue;
    const behind = ground(node);
    const [one, other] = [light(rgb(getComputedStyle(node).color, behind)), light(rgb(behind, "white"))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    found[node.innerText.slice(0, 40)] = Math.round(ratio * 10) / 10;
  }
  return found;
}"""


def test_it_works_without_a_script(context: Callable[..., BrowserContext], operator: str) -> None:
    page = context(java_script_enabled=False).new_page()
    page.goto(f"{operator}/keys")
    page.locator("input[name=q]").fill("orders")
    page.get_by_role("button", name="Search").click()
    assert page.locator("tbody tr").count() == 1
    page.get_by_role("link", name="team-a/orders").click()
    assert page.locator(".timeline svg").count() == 1


@pytest.mark.timeout(180)
def test_a_page_can_be_paused_and_says_when_the_process_hangs_or_is_gone(
    context: Callable[..., BrowserContext],
) -> None:
    page = context().new_page()
    page.set_default_timeout(40_000)  # the page waits three times as long as the latest update took
    with running_operator() as (address, process):
        visit(page, address)
        page.keyboard.press("p")
        page.locator("#live", has_text="paused").wait_for()
        page.keyboard.press("p")
        page.locator("#live", has_text="live").wait_for()
        process.send_signal(signal.SIGSTOP)
        page.locator("#live", has_text="not responding").wait_for()
        process.send_signal(signal.SIGCONT)
        page.locator("#live", has_text="live").wait_for()
        process.kill()
        page.locator("#live", has_text="reconnecting").wait_for()
    PROBLEMS.clear()  # the browser reports the lost connection


def test_a_hidden_tab_gives_its_connection_back(page: Page, operator: str) -> None:
    visit(page, operator)
    with page.expect_event("requestfailed"):  # the stream
        page.evaluate(HIDE, True)
    with page.expect_request(operator + "/"):
        page.evaluate(HIDE, False)
    page.locator("html[data-live=live]").wait_for()


HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_the_pictures_of_the_docs(context: Callable[..., BrowserContext], operator: str, pictures: Path) -> None:
    for name, path, options in (
        ("now", "/", {}),
        ("key-dark", PAGES[3], {"color_scheme": "dark"}),
        ("change", "/key?controller=database&namespace=team-a&name=customers", {}),
        ("keys-phone", "/keys?q=team-a", PHONE),
    ):
        page = context(**options).new_page()
        visit(page, operator + path)
        if name == "key-dark":
            page.wait_for_function("() => document.querySelectorAll('rect.error').length >= 6", timeout=40_000)
        file = pictures / f"{name}.png"
        page.screenshot(path=file)
        Image.open(file).quantize(220).save(file, optimize=True)  # a third of the size
        assert file.stat().st_size < 100_000
