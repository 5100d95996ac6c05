"""The report in a real browser: no error, no request, pictures and films play, tables sort."""

import contextlib
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request

import numpy as np
import pytest
from rich.console import Console

from envs_mjx.film import write_video
from experiments.arguments import ReportArgs
from experiments.report.write import report
from tests.experiments.finished_runs import result, write, write_film, write_run

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver here"),
]
LOOK = """
const done = arguments[0], media = [...document.querySelectorAll("video")];
document.querySelectorAll("details").forEach((each) => { each.open = true; });
const ready = media.map((v) => v.readyState >= 2 ? null
  : new Promise((go) => { v.onloadeddata = v.onerror = go; v.load(); }));
const pictures = [...document.images];
Promise.all([...ready, ...pictures.map((i) => i.decode().catch(() => null))]).then(() => done({
  pictures: pictures.map((i) => i.naturalWidth), films: media.map((v) => v.videoWidth),
  scrolls: document.documentElement.scrollWidth > innerWidth,
}));
"""
CLICK = """
const table = document.querySelector("#table table");
const heads = [...table.tHead.rows[0].cells];
const column = heads.findIndex((head) => head.textContent.startsWith(arguments[0]));
heads[column].querySelector("button").click();
return [heads[column].getAttribute("aria-sort"),
        [...table.tBodies[0].rows].map((row) => row.cells[column].dataset.value)];
"""


class Browser:
    """A headless Chromium, driven through chromedriver's HTTP interface (W3C WebDriver)."""

    def __init__(self, driver, profile):
        started = (re.search(r"started successfully on port (\d+)", line) for line in driver.stdout)
        self._root = f"http://127.0.0.1:{next(filter(None, started))[1]}"
        words = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
        options = {"binary": CHROMIUM, "args": [*words, f"--user-data-dir={profile}"]}
        logs = {"browser": "ALL", "performance": "ALL"}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": logs}
        made = self._ask("/session", {"capabilities": {"alwaysMatch": wanted}})
        self._root += f"/session/{made['sessionId']}"

    def open(self, path):
        """Load a file; what it returns tells (console messages, addresses requested besides)."""
        self._ask("/url", {"url": "about:blank"})
        self._log("")  # what the pages before it asked for
        self._ask("/url", {"url": path.as_uri()})
        return lambda: self._log(path.as_uri())

    def run(self, script, *arguments, kind="sync"):
        """What a script returns, or with `async` hands to its last argument."""
        return self._ask(f"/execute/{kind}", {"script": script, "args": arguments})

    def close(self):
        self._ask("", None, "DELETE")

    def _log(self, own):
        said = [entry["message"] for entry in self._ask("/se/log", {"type": "browser"})]
        events = self._ask("/se/log", {"type": "performance"})
        events = [json.loads(event["message"])["message"] for event in events]
        sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
        urls = [request["request"]["url"] for request in sent]
        return said, [url for url in urls if url != own and not url.startswith("data:")]

    def _ask(self, path, body, verb="POST"):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._root + path, data, method=verb)
        try:
            with urllib.request.urlopen(request, timeout=250) as reply:
                return json.load(reply)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()[:500]) from error


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    command = [DRIVER, "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        try:
            with contextlib.closing(Browser(driver, tmp_path_factory.mktemp("profile"))) as found:
                yield found
        finally:
            driver.terminate()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report with a film of each kind, and lines in an order that no column has."""
    root = tmp_path_factory.mktemp("report")
    for seed in (0, 1):
        for method, failures in (("uni_o4", 900), ("farl", 50), ("cpo", 1000), ("p3o", 7)):
            row = result("bounded_push", method, seed, failures, 50.0 + failures / 100)
            folder = write_run(root / f"runs/seed{seed}", row)
            if method == "farl":
                write_film(folder)
    frames = np.zeros((8, 48, 64, 3), np.uint8)
    write_video(root / "runs/seed1/cpo/film.mp4", frames, fps=4.0)
    return report(ReportArgs((root / "runs",), root / "out"), Console())


@pytest.mark.timeout(600)
def test_it_loads_without_an_error_or_a_request_and_everything_shows(browser, page):
    log = browser.open(page)
    seen = browser.run(LOOK, kind="async")
    said, requests = log()
    assert said == [] and requests == []
    assert len(seen["pictures"]) >= 7 and min(seen["pictures"]) > 0
    assert seen["films"] == [64] and not seen["scrolls"]


@pytest.mark.timeout(600)
def test_a_click_on_a_columns_title_sorts_by_it(browser, page):
    browser.open(page)
    rising = ["7.0", "50.0", "900.0", "1000.0"]
    assert browser.run(CLICK, "failure") == ["ascending", rising]
    assert browser.run(CLICK, "failure") == ["descending", rising[::-1]]
    for _ in range(2):
        assert browser.run(CLICK, "fewer")[1][-1] == ""  # the baseline's dash stays last
    order, names = browser.run(CLICK, "method")
    assert order == "ascending" and names == sorted(names, key=str.lower) and len(names) == 4


@pytest.mark.timeout(600)
def test_the_browser_would_tell_of_errors_and_requests(browser, tmp_path):
    body = '<img src="http://127.0.0.1:9/away.png"><script>console.error("oh")</script>'
    log = browser.open(write(tmp_path / "bad.html", body))
    said, requests = log()
    assert any("oh" in line for line in said) and requests == ["http://127.0.0.1:9/away.png"]
