"""The site as a reader's browser shows it: Chromium, headless, on what `python -m docs html` builds.

Sphinx, Selenium and Chromium are not what the project runs on: without them this file is skipped, but in CI, where
REQUIRE_SITE is set, they must be there.
"""

import functools
import http.server
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("sphinx", "myst_parser", "sphinx_design", "furo", "selenium", "nbformat")
MISSING = [name for name in NEEDED if find_spec(name) is None]
MISSING += [] if shutil.which("chromium") and shutil.which("chromedriver") else ["chromium"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING) and not os.environ.get("REQUIRE_SITE"),
        reason=f"not here: {', '.join(MISSING)}",
    ),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site: a warning is an error, so this is also the test that there is none."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    done = subprocess.run(
        [*command, "docs", str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def pages(site: Path) -> list[str]:
    return sorted(path.relative_to(site).as_posix() for path in site.glob("*.html"))


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def address(site):
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def browser():
    """A fresh profile for each test: nothing is remembered from another."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


def resize(browser, width: int, height: int = 900, mobile: bool = False) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def shown_tabs(browser) -> set[str]:
    """Which frameworks' tabs are open, over all sets of the page."""
    script = """
        return [...document.querySelectorAll('.sd-tab-label[data-sync-group="framework"]')]
            .filter(label => label.nextElementSibling.checkVisibility())
            .map(label => label.dataset.syncId)"""
    return set(browser.execute_script(script))


def label(browser, framework: str, number: int = 0):
    selector = f'.sd-tab-label[data-sync-id="{framework}"]'
    found = browser.find_elements("css selector", selector)[number]
    browser.execute_script(
        "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", found
    )
    return found


def test_choosing_a_framework_switches_every_tab_of_the_page(browser, address):
    browser.get(address + "image-augmentation.html")
    assert shown_tabs(browser) == {"pytorch"}
    label(browser, "tensorflow", 1).click()
    assert shown_tabs(browser) == {"tensorflow"}


def test_the_choice_is_remembered_on_other_pages(browser, address):
    browser.get(address + "image-augmentation.html")
    label(browser, "mxnet").click()
    browser.get(address + "kaggle-cifar10.html")
    assert shown_tabs(browser) == {"mxnet"}


def test_tabs_are_chosen_with_the_keyboard_alone(browser, address):
    from selenium.webdriver import Keys

    browser.get(address + "image-augmentation.html")
    first = browser.find_element("css selector", ".sd-tab-set > input")
    browser.execute_script("arguments[0].focus()", first)
    browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert shown_tabs(browser) == {"mxnet"}


def columns(browser) -> list[dict[str, float]]:
    """Where the three contents of the first set with code of some length lie."""
    script = """
        const set = [...document.querySelectorAll('.sd-tab-set')].at(-1);
        return [...set.querySelectorAll(':scope > .sd-tab-content')].map(content => {
            const {left, right, top, width} = content.getBoundingClientRect();
            return {left, right, top, width};
        })"""
    return browser.execute_script(script)


def test_three_columns_stand_beside_each_other_at_1600_pixels(browser, address):
    resize(browser, 1600)
    browser.get(address + "image-augmentation.html")
    button = browser.find_element("css selector", ".side-by-side-button")
    button.click()
    found = columns(browser)
    assert len(found) == 3
    assert len({column["top"] for column in found}) == 1
    assert all(column["width"] > 450 for column in found)
    assert all(a["right"] <= b["left"] for a, b in itertools.pairwise(found))
    assert found[-1]["right"] <= 1600
    assert shown_tabs(browser) == {"pytorch", "mxnet", "tensorflow"}
    browser.get(address + "kaggle-cifar10.html")
    assert shown_tabs(browser) == {"pytorch", "mxnet", "tensorflow"}, "not remembered"
    browser.find_element("css selector", ".side-by-side-button").click()
    assert len(shown_tabs(browser)) == 1


@pytest.mark.parametrize("width", [390, 1280, 1600])
def test_no_page_is_wider_than_its_window(browser, address, site, width):
    resize(browser, width, mobile=width < 600)
    wide = {}
    for page in pages(site):
        browser.get(address + page)
        wide[page] = browser.execute_script("return document.documentElement.scrollWidth")
    assert {page: pixels for page, pixels in wide.items() if pixels > width} == {}


def test_the_search_finds_train_ch13(browser, address):
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(address + "search.html?q=train_ch13")
    found = WebDriverWait(browser, 20).until(
        lambda driver: driver.find_elements("css selector", "ul.search li a")
    )
    assert any("image-augmentation" in link.get_attribute("href") for link in found)


def test_dark_and_light_can_be_chosen(browser, address):
    browser.get(address + "index.html")
    script = "return getComputedStyle(document.body).backgroundColor"
    seen = set()
    for _ in range(3):  # light, dark and the system's
        browser.execute_script(
            "document.querySelector('.content-icon-container .theme-toggle').click()"
        )
        seen.add(browser.execute_script(script))
    assert len(seen) == 2


def test_no_page_logs_an_error_and_no_request_leaves_the_machine(browser, address, site):
    for page in pages(site):
        browser.get(address + page)
        assert [entry["message"] for entry in browser.get_log("browser")] == [], page
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }
    assert len(asked) > len(pages(site))
    assert {url for url in asked if not url.startswith((address, "data:"))} == set()


class Links(HTMLParser):
    """The links, the anchors and the pictures of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.pictures: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.anchors |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if tag in ("img", "script") and found.get("src"):
            self.links.append(found["src"])
        if tag == "link" and found.get("href"):
            self.links.append(found["href"])
        if tag == "img":
            self.pictures.append(found)


@pytest.fixture(scope="module")
def parsed(site) -> dict[str, Links]:
    return {page: Links((site / page).read_text(encoding="utf-8")) for page in pages(site)}


def test_no_link_and_no_anchor_is_broken(site, parsed):
    broken = []
    for page, found in parsed.items():
        for link in found.links:
            target, anchor = urldefrag(urljoin(page, link))
            if urlsplit(target).scheme or target.startswith("//"):
                continue
            path = unquote(urlsplit(target).path)
            anchors = parsed[path].anchors if path in parsed else set()
            lost = bool(anchor) and path in parsed and unquote(anchor) not in anchors
            if lost or not (site / path).exists():
                broken.append((page, link))
    assert broken == []


def test_every_picture_says_what_it_shows(parsed):
    silent = [
        (page, picture["src"])
        for page, found in parsed.items()
        for picture in found.pictures
        if not re.search(r"\w+ \w+", picture.get("alt") or "")
    ]
    assert silent == []
