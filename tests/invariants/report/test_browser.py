"""The pages in a browser: headless Chromium, spoken to through a pipe, without a library between."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from repro.audit.claims import PAPER
from repro.benchmarks.miniworld import DIRECTORY as MINIWORLD
from repro.look import look
from repro.models import load_model
from repro.pytest_plugin.suite import CHROMIUM
from repro.report.audit import build_audit, entries, write_audit
from repro.report.index import write_report
from repro.report.items import Pictures, item_page
from repro.report.pages import render

pytestmark = pytest.mark.browser

WIDTHS = (1400, 390)
PAGES = ("index.html", "items-llava-1.5-pope-official.html", "audit.html", "look.html")

#: What each page must be for who cannot see it or use a mouse: a list of what is wrong.
OWN_CHECKS = r"""
(() => {
  const wrong = [], say = (what, node) => wrong.push(what + ": " + node.outerHTML.slice(0, 90));
  const all = (selector) => Array.from(document.querySelectorAll(selector));
  if (!document.documentElement.lang || !document.title) wrong.push("language or title");
  for (const n of all("input, select")) if (!n.labels.length && !n.ariaLabel) say("no label", n);
  for (const n of all("img")) if (!n.alt) say("no alternative text", n);
  for (const n of all("svg")) if (!(n.getAttribute("role") === "img" && n.getAttribute("aria-label"))
    && n.getAttribute("aria-hidden") !== "true") say("a drawing without name", n);
  for (const n of all("a, button, summary")) if (!n.textContent.trim()) say("no name", n);
  for (const n of all("thead th")) if (n.scope !== "col") say("no scope", n);
  for (const n of all("table")) if (!n.tHead) say("no heading", n);
  for (const n of all(".scroll, pre")) {
    if (n.scrollWidth > n.clientWidth + 1 && n.tabIndex < 0) say("no keyboard", n);
  }
  let level = 0;
  for (const n of all("h1, h2, h3, h4")) {
    const own = Number(n.tagName[1]);
    if (own > level + 1) say("skips", n);
    level = own;
  }
  const ids = all("[id]").map((n) => n.id);
  ids.forEach((id, i) => { if (ids.indexOf(id) !== i) wrong.push("twice: " + id); });
  const linear = (x) => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
  const light = (c) => 0.2126 * linear(c[0] / 255) + 0.7152 * linear(c[1] / 255) + 0.0722 * linear(c[2] / 255);
  const rgba = (text) => text.match(/[\d.]+/g).map(Number);
  const behind = (n) => {
    for (; n; n = n.parentElement) {
      const c = rgba(getComputedStyle(n).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const seen = new Set();
  while (walker.nextNode()) {
    const n = walker.currentNode.parentElement;
    const shown = walker.currentNode.data.trim() && n.getClientRects().length;
    if (!shown || seen.has(n) || n.closest("script, style, svg")) continue;
    seen.add(n);
    const [a, b] = [light(rgba(getComputedStyle(n).color)), light(behind(n))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) say("contrast", n);
  }
  return wrong;
})()
"""


class Browser:
    """One tab of a headless Chromium; every request and complaint of it is kept."""

    def __init__(self, profile: Path) -> None:
        to_browser, from_us = os.pipe()
        to_us, from_browser = os.pipe()
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
                   "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]  # fmt: skip
        wired = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        self.process = subprocess.Popen(
            ["bash", "-c", wired, *command],
            pass_fds=(to_browser, from_browser), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self.out, self.into = os.fdopen(from_us, "wb", 0), os.fdopen(to_us, "rb")
        self.numbers, self.session = itertools.count(1), ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def _read(self) -> dict[str, Any]:
        content = b""
        while not content.endswith(b"\0"):
            one = self.into.read(1)
            assert one, "the browser has ended"
            content += one
        return json.loads(content[:-1])

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.out.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, page: Path, width: int, scripts: bool = True) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def run(self, code: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            typed = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key if key != " " else "Space",
                      windowsVirtualKeyCode=code, **typed)  # fmt: skip

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=10)


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.fail(
            "-m browser: there is no chromium on the path: install it (Debian: apt-get install chromium)"
        )
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def pages(sample, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("report")
    results, run, measured, _ = sample.stored(directory)
    page, content = item_page(results, run, measured, Pictures(MINIWORLD))
    report = replace(sample.full_report(), runs=[run], lists=[page])
    write_report(report, directory, {page.file: content})
    write_audit(build_audit(PAPER, entries(PAPER.claims, []), "pytest -m audit"), directory)
    seen = look(
        load_model("llava-1.5"), next((MINIWORLD / "coco" / "val2014").glob("*.png")), "Is there a kite?"
    )
    (directory / "look.html").write_bytes(render("look.html.j2", report=seen))
    return directory


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("width", WIDTHS)
def test_no_page_scrolls_sideways_complains_or_asks_for_anything(browser, pages, page, width):
    browser.open(pages / page, width)
    browser.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert browser.run("document.documentElement.scrollWidth <= innerWidth"), "wider than the window"
    asked = [
        e["params"]["request"]["url"]
        for e in browser.events
        if e.get("method") == "Network.requestWillBeSent"
    ]
    assert asked and all(url.startswith("data:") or url == (pages / page).as_uri() for url in asked), asked
    complaints = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    said = [e["params"] for e in browser.events if e.get("method") in complaints]
    assert not said, said
    assert browser.run("document.documentElement.classList.contains('js')"), "the page's own script runs"


@pytest.mark.parametrize("page", PAGES)
def test_no_other_script_runs(browser, pages, page):
    browser.open(pages / page, 1400)
    add = "s.textContent = 'window.broken = 1'; document.body.append(s)"
    browser.run(f"const s = document.createElement('script'); {add}")
    browser.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.broken = 2\">')")
    assert browser.run("new Promise((r) => setTimeout(() => r(window.broken), 200))") is None


@pytest.mark.parametrize("page", PAGES)
def test_all_content_is_there_without_scripts(browser, pages, page):
    browser.open(pages / page, 1400, scripts=False)
    shown = browser.call("Runtime.evaluate", expression="document.body.innerText", returnByValue=True)
    text = shown["result"]["value"]
    cells = "getComputedStyle(document.querySelector('.cells')).display"
    forms = "Array.from(document.querySelectorAll('form, .large')).filter((n) => n.getClientRects().length).length"
    assert browser.run(forms) == 0, "nothing is offered that does not work"
    if page != "audit.html":
        assert browser.run(cells) == "flex", "the heat map of every layer"
    for words in {"index.html": "needs the image until layer", "audit.html": "contradicted"}.get(
        page, "kite"
    ).split("|"):
        assert words in text


def test_filters_work_by_keyboard_and_links_open_what_they_name(browser, pages):
    browser.open(pages / PAGES[1], 390)
    shown = "Array.from(document.querySelectorAll('article')).filter((n) => !n.hidden).length"
    assert browser.run(shown) == 4
    browser.run("document.querySelector('input[value=flipped]').focus()")
    browser.press(" ", 32, " ")
    assert (
        browser.run(shown) == 2
        and browser.run("document.querySelector('output[aria-live]').value") == "2 of 4 shown"
    )
    browser.run("location.hash = '#item-3'")
    assert browser.run(
        "new Promise((r) => setTimeout(() => r(!document.getElementById('item-3').hidden), 100))"
    )
    browser.open(pages / "audit.html", 1400)
    browser.run("document.querySelector('.filters select').focus()")
    browser.press("c", 67, "c")
    rows = "Array.from(document.querySelectorAll('#ledger-rows tr'))"
    left = browser.run(f"{rows}.filter((n) => !n.hidden).map((n) => n.dataset.words)")
    assert left and all(words.startswith("contradicted") for words in left)
    assert browser.run("document.querySelector('#ledger-rows tr').dataset.words").startswith("contradicted")


@pytest.mark.parametrize("page", ["index.html", PAGES[1], "look.html"])
def test_sliders_work_by_keyboard(browser, pages, page):
    browser.open(pages / page, 1400)
    browser.run("document.querySelector('.heat input').focus()")
    browser.press("ArrowRight", 39)
    browser.press("ArrowRight", 39)
    assert browser.run("document.querySelector('.heat output').value") == "3"
    assert browser.run("document.querySelector('.large .map').getAttribute('x')") == "-96"


def test_tables_are_sorted_by_keyboard_and_hold_their_csv(browser, pages):
    browser.open(pages / "index.html", 1400)
    first = "document.querySelector('#table-1-cells').tBodies[0].rows[0].cells[8].textContent"
    browser.run("document.querySelectorAll('#table-1-cells .sort')[8].focus()")
    browser.press("Enter", 13, "\r")
    assert browser.run(first).startswith("−1.2")
    browser.press("Enter", 13, "\r")
    assert browser.run(first).startswith("+0.8")
    link = "fetch"  # not even a page's own script may ask for anything
    refused = browser.run(f"{link}('data:text/plain,x').then(() => 'asked', () => 'refused')")
    assert refused == "refused"
    csv = browser.run("decodeURIComponent(document.querySelector('a[download=\"table-1.csv\"]').href)")
    assert csv.splitlines()[0].endswith(
        "model,benchmark,protocol,metric,n,baseline,cliff layer,at the cliff,difference"
    )


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(("width", "colours"), [(1400, "light"), (390, "light"), (390, "dark")])
def test_everyone_can_use_the_page(browser, pages, page, width, colours):
    """By checks of our own; and by axe-core, where the package ``axe_playwright_python``, which holds it, is."""
    scheme = [{"name": "prefers-color-scheme", "value": colours}]
    browser.call("Emulation.setEmulatedMedia", features=scheme)
    browser.open(pages / page, width)
    browser.run("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert browser.run(OWN_CHECKS) == []
    if axe := importlib.util.find_spec("axe_playwright_python"):
        browser.run(Path(axe.submodule_search_locations[0], "axe.min.js").read_text(encoding="utf-8") + ";0")
        found = browser.run(
            "axe.run().then((r) => r.violations.map((v) => [v.id, v.nodes.length, v.nodes[0].html]))"
        )
        assert found == []


def test_chromium_is_what_the_path_has():
    assert CHROMIUM == (shutil.which("chromium") or "")
