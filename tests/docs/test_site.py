"""The site in a reader's browser: headless Chromium shows the output of `python -m docs html`.

The project runs without Sphinx, Selenium and Chromium. Without them this file is skipped, but in CI, where REQUIRE_SITE
is set, they are required.
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
import tomllib
from collections import Counter
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import pytest
from conftest import needs

import backends

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = "chromium", "chromedriver"
REPOSITORY = "https://github.com/example/three-tabs"
THEMES = "light", "dark"

pytestmark = [
    pytest.mark.slow,
    needs(
        "sphinx",
        "myst_parser",
        "sphinx_copybutton",
        "sphinx_design",
        "furo",
        "selenium",
        "nbformat",
        "axe_playwright_python",
        programs=PROGRAMS,
    ),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Build the site. Warnings are errors, so this also tests that there are none."""
    assert all(map(shutil.which, PROGRAMS)), f"not installed: {' or '.join(PROGRAMS)}"
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "docs", "html", "--output", str(folder)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "SITE_REPOSITORY": REPOSITORY},
        capture_output=True,
        text=True,
        check=False,
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


@pytest.fixture(scope="module")
def chromium():
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--window-size=1280,900",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium, address):
    """Open a new tab for each test, without the memory of other tests."""
    before = chromium.current_window_handle
    chromium.switch_to.new_window("tab")
    yield chromium
    everything = {"origin": address, "storageTypes": "all"}
    chromium.execute_cdp_cmd("Storage.clearDataForOrigin", everything)
    for log in ("browser", "performance"):
        chromium.get_log(log)
    chromium.close()
    chromium.switch_to.window(before)


def visit(browser, url: str) -> None:
    """Open a page and wait until its scripts have run: Chromium's driver may return during loading."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(url)
    ready = "return document.readyState === 'complete'"
    WebDriverWait(browser, 20).until(lambda driver: driver.execute_script(ready))


def resize(browser, width: int, height: int = 900, mobile: bool = False) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def shown_tabs(browser) -> set[str]:
    """Return the frameworks whose tabs are open, in all sets of the page that have a tab for each."""
    script = """
        return [...document.querySelectorAll('.sd-tab-label[data-sync-group="framework"]')]
            .filter(label => label.parentElement.querySelectorAll(':scope > label').length === 3)
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
    visit(browser, address + "image-augmentation.html")
    assert shown_tabs(browser) == {"pytorch"}
    label(browser, "tensorflow", 1).click()
    assert shown_tabs(browser) == {"tensorflow"}


def test_the_choice_is_remembered_on_other_pages(browser, address):
    visit(browser, address + "image-augmentation.html")
    label(browser, "mxnet").click()
    visit(browser, address + "kaggle-cifar10.html")
    assert shown_tabs(browser) == {"mxnet"}


def test_tabs_are_chosen_with_the_keyboard_alone(browser, address):
    from selenium.webdriver import Keys

    visit(browser, address + "image-augmentation.html")
    for _ in range(100):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        if browser.execute_script("return document.activeElement.matches('.sd-tab-set > input')"):
            break
    outline = "return getComputedStyle(document.activeElement.nextElementSibling).outlineStyle"
    assert browser.execute_script(outline) != "none", "what has the focus does not show it"
    browser.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert shown_tabs(browser) == {"mxnet"}


def test_what_has_the_focus_is_in_sight_after_a_set_is_left_with_tab(browser, address):
    from selenium.webdriver import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    visit(browser, address + "image-augmentation.html")
    first = browser.find_element("css selector", ".sd-tab-set > input")
    browser.execute_script("arguments[0].focus()", first)
    for _ in range(3):
        browser.switch_to.active_element.send_keys(Keys.TAB)
    in_sight = """
        const focus = document.activeElement;
        const seen = focus.matches('.sd-tab-set > input') ? focus.nextElementSibling : focus;
        const {top, bottom} = seen.getBoundingClientRect();
        return top >= 0 && bottom <= innerHeight"""
    # The page scrolls smoothly, which takes a moment.
    WebDriverWait(browser, 20).until(lambda driver: driver.execute_script(in_sight))


TOP = "return arguments[0].getBoundingClientRect().top"


def test_the_tabs_that_are_used_stay_where_they_are_while_others_grow(browser, address):
    visit(browser, address + "image-augmentation.html")
    for framework in ("tensorflow", "mxnet", "pytorch"):
        chosen = label(browser, framework, -1)
        before = browser.execute_script(TOP, chosen)
        browser.execute_script("arguments[0].click()", chosen)
        after = browser.execute_async_script(
            "const [label, done] = arguments;"
            "setTimeout(() => done(label.getBoundingClientRect().top), 300)",
            chosen,
        )
        assert abs(after - before) <= 1, framework


def put_side_by_side(browser, address) -> None:
    """Press the button, which is remembered on every page."""
    visit(browser, address + "index.html")
    browser.find_element("css selector", ".side-by-side-button").click()


def columns(browser) -> list[dict[str, float]]:
    """Return the positions of the three contents of the page's last set."""
    script = """
        const set = [...document.querySelectorAll('.sd-tab-set')].at(-1);
        return [...set.querySelectorAll(':scope > .sd-tab-content')].map(content => {
            const {left, right, top, width} = content.getBoundingClientRect();
            return {left, right, top, width};
        })"""
    return browser.execute_script(script)


def test_three_columns_stand_beside_each_other_at_1600_pixels(browser, address):
    resize(browser, 1600)
    put_side_by_side(browser, address)
    visit(browser, address + "image-augmentation.html")
    found = columns(browser)
    assert len(found) == 3
    assert len({column["top"] for column in found}) == 1
    assert all(column["width"] > 500 for column in found)
    assert all(a["right"] <= b["left"] for a, b in itertools.pairwise(found))
    assert found[-1]["right"] <= 1600
    assert shown_tabs(browser) == {"pytorch", "mxnet", "tensorflow"}
    visit(browser, address + "kaggle-cifar10.html")
    assert shown_tabs(browser) == {"pytorch", "mxnet", "tensorflow"}, "not remembered"
    button = browser.find_element("css selector", ".side-by-side-button")
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert len(shown_tabs(browser)) == 1


def test_what_three_columns_show_begins_in_the_same_rows(browser, address, site):
    """This also holds for the open tab, which has other styles."""
    resize(browser, 1600)
    put_side_by_side(browser, address)
    sets = []
    for page in pages(site):
        visit(browser, address + page)
        sets += browser.execute_script("""
            return [...document.querySelectorAll('.three-columns')].filter(set => set.checkVisibility()).map(set =>
                [...set.querySelectorAll(':scope > .sd-tab-content')].map(content =>
                    [...content.children].map(child => child.getBoundingClientRect().top)))""")
    assert len(sets) > 20
    assert max(len(set[0]) for set in sets) > 2
    for set in sets:
        for row in itertools.zip_longest(*set):
            tops = [top for top in row if top is not None]
            assert max(tops) - min(tops) <= 1


def test_the_text_is_in_the_middle_while_three_columns_are_shown(browser, address):
    resize(browser, 1600)
    put_side_by_side(browser, address)
    visit(browser, address + "image-augmentation.html")
    left, right = browser.execute_script("""
        const {left, right} = document.querySelector('article section > p').getBoundingClientRect();
        return [left, document.documentElement.clientWidth - right]""")
    assert abs(left - right) <= 2


@pytest.mark.parametrize(
    ("page", "width", "pixels"),
    [
        ("image-augmentation.html", 1600, 10),
        ("kaggle-cifar10.html", 1600, 10),
        ("differences.html", 1600, 10),
        ("image-augmentation.html", 1440, 9.5),  # where the button is first offered
        ("kaggle-cifar10.html", 1440, 9.5),
    ],
)
def test_no_line_of_the_three_columns_is_cut_off_or_broken(browser, address, page, width, pixels):
    resize(browser, width)
    put_side_by_side(browser, address)
    visit(browser, address + page)
    found = browser.execute_script("""
        document.querySelectorAll('details').forEach(details => details.open = true);
        return [...document.querySelectorAll('.three-columns :not(.output) > .highlight pre')].map(pre => {
            const {fontSize, lineHeight, paddingTop} = getComputedStyle(pre);
            const height = pre.clientHeight - 2 * parseFloat(paddingTop);
            return {
                text: pre.textContent.trimEnd(),
                cut: pre.scrollWidth > pre.clientWidth,
                lines: Math.round(height / parseFloat(lineHeight)),
                size: parseFloat(fontSize),
            };
        })""")
    assert len(found) > 10
    assert [each["text"] for each in found if each["cut"]] == []
    assert [each["text"] for each in found if each["lines"] > each["text"].count("\n") + 1] == []
    assert all(each["size"] >= pixels for each in found)


ROWS = """
    const around = element => {
        const {left, right, top, bottom} = element.getBoundingClientRect();
        return {left, right, top, bottom};
    };
    return [...document.querySelectorAll('table.columns tbody tr')].map(row =>
        [...row.cells].map(cell => ({cell: around(cell), code: cell.firstChild && around(cell.firstChild)})))"""


@pytest.mark.parametrize("width", [1440, 1920])
def test_the_three_columns_line_up_row_by_row_and_fit_the_window(browser, address, width):
    resize(browser, width)
    visit(browser, address + "three-columns.html")
    rows = browser.execute_script(ROWS)
    assert len(rows) > 50
    for row in rows:
        assert len(row) == 3
        assert len({place["cell"]["top"] for place in row}) == 1
        assert len({place["code"]["top"] for place in row if place["code"]}) == 1
        for place in row:
            if place["code"]:
                assert place["code"]["right"] <= place["cell"]["right"]
    for place in range(3):
        assert len({(row[place]["cell"]["left"], row[place]["cell"]["right"]) for row in rows}) == 1
    assert rows[0][2]["cell"]["right"] <= width
    assert rows[0][2]["cell"]["right"] - rows[0][0]["cell"]["left"] > width - 50
    overflow, size, contents = browser.execute_script("""
        return [
            [document.documentElement, ...document.querySelectorAll('.table-wrapper')]
                .map(element => element.scrollWidth - element.clientWidth),
            parseFloat(getComputedStyle(document.querySelector('table.columns code')).fontSize),
            document.querySelector('.toc-drawer').checkVisibility()]""")
    assert max(overflow) <= 0
    assert 11 <= size <= 12
    assert not contents


def test_the_three_columns_scroll_by_themselves_on_a_telephone(browser, address):
    resize(browser, 390, mobile=True)
    visit(browser, address + "three-columns.html")
    script = """
        return [...document.querySelectorAll('.table-wrapper')].map(wrapper =>
            [wrapper.clientWidth, wrapper.querySelector('td').clientWidth])"""
    for wrapper, column in browser.execute_script(script):
        assert wrapper < 390
        assert column > 290


def contrast(one: str, other: str) -> float:
    """Return how WCAG 2 compares two colours, from 1 to 21."""

    def luminance(colour: str) -> float:
        levels = [int(level) / 255 for level in re.findall(r"\d+", colour)[:3]]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in levels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_that_differ_can_be_read_and_told_apart_without_colour(browser, address, theme):
    visit(browser, address + "three-columns.html")
    browser.execute_script("document.body.dataset.theme = arguments[0]", theme)
    marks = browser.execute_script("""
        return [...document.querySelectorAll('table.columns mark')].map(mark => {
            const {backgroundColor, borderBottomStyle, borderBottomColor} = getComputedStyle(mark);
            const colours = [...mark.children].map(word => getComputedStyle(word).color);
            return {backgroundColor, borderBottomStyle, borderBottomColor, colours};
        })""")
    assert len(marks) > 30
    for mark in marks:
        assert mark["borderBottomStyle"] == "solid"
        assert contrast(mark["borderBottomColor"], mark["backgroundColor"]) >= 3
        assert all(contrast(colour, mark["backgroundColor"]) >= 4.5 for colour in mark["colours"])


@pytest.mark.parametrize("chapter", ["image-augmentation", "kaggle-cifar10"])
def test_what_a_cell_draws_is_shown_below_its_code_in_its_tab(browser, address, chapter):
    visit(browser, address + f"{chapter}.html")
    for framework in backends.FRAMEWORKS:
        browser.execute_script("arguments[0].click()", label(browser, framework))
        pictures = browser.execute_script("""
            return [...document.querySelectorAll('.sd-tab-content img.output')]
                .filter(picture => picture.checkVisibility())
                .map(picture => {
                    const code = picture.closest('.sd-tab-content').querySelector('.highlight');
                    const below = !code || code.getBoundingClientRect().bottom <= picture.getBoundingClientRect().top;
                    return [picture.src, below];
                })""")
        assert pictures
        assert all(f"/{chapter}-{framework}-" in source and below for source, below in pictures)


def test_what_scrolls_sideways_and_nothing_else_is_reached_with_the_keyboard(browser, address):
    script = """
        const done = arguments[0];
        setTimeout(() => done([...document.querySelectorAll('.highlight pre, .table-wrapper')]
            .filter(each => each.checkVisibility())
            .map(each => [each.scrollWidth > each.clientWidth, each.hasAttribute('tabindex')])), 300)"""
    found = []
    for width in (390, 1280):
        resize(browser, width)
        visit(browser, address + "image-augmentation.html")
        found += browser.execute_async_script(script)
    assert {scrolls for scrolls, _ in found} == {True, False}
    assert [pair for pair in found if pair[0] != pair[1]] == []


@pytest.mark.parametrize("width", [1024, 1280, 1600])
def test_all_columns_of_the_porting_tables_are_in_sight_and_no_word_is_broken(
    browser, address, width
):
    resize(browser, width)
    visit(browser, address + "porting.html")
    hidden, words = browser.execute_script("""
        const lines = node => {
            const range = document.createRange();
            return [...node.data.matchAll(/\\w+/g)].map(({0: word, index}) => {
                range.setStart(node, index);
                range.setEnd(node, index + word.length);
                return [word, range.getClientRects().length];
            });
        };
        const code = [...document.querySelectorAll('.table-wrapper .pre')];
        return [
            [...document.querySelectorAll('.table-wrapper')].map(each => each.scrollWidth - each.clientWidth),
            code.flatMap(each => [...each.childNodes].filter(node => node.data).flatMap(lines))]""")
    assert max(hidden) <= 0
    assert len(words) > 300
    assert [word for word, lines in words if lines > 1] == []


def test_lines_of_100_characters_fit_at_1600_pixels(browser, address, site):
    resize(browser, 1600)
    cut = []
    for page in pages(site):
        visit(browser, address + page)
        cut += browser.execute_script("""
            document.querySelectorAll('details').forEach(details => details.open = true);
            return [...document.querySelectorAll('.highlight pre')]
                .filter(pre => pre.scrollWidth > pre.clientWidth && !pre.closest('li, .trap'))
                .map(pre => pre.textContent)""")
    assert [text for text in cut if max(map(len, text.splitlines())) <= 100] == []


def test_commands_are_whole_and_icons_apart_on_a_telephone(browser, address, site):
    resize(browser, 390, mobile=True)
    for page in pages(site):
        visit(browser, address + page)
        cut, icons = browser.execute_script("""
            const icons = [...document.querySelectorAll('.header-right svg')].filter(svg => svg.checkVisibility());
            return [
                [...document.querySelectorAll('.highlight-sh pre')]
                    .filter(pre => pre.scrollWidth > pre.clientWidth).map(pre => pre.textContent),
                icons.map(svg => svg.getBoundingClientRect()).map(({left, right}) => [left, right])]""")
        assert cut == []
        assert all(b[0] - a[1] >= 12 for a, b in itertools.pairwise(icons)), page


def test_code_has_a_copy_button_and_output_has_none(browser, address):
    visit(browser, address + "image-augmentation.html")
    found = browser.execute_script("""
        return [...document.querySelectorAll('.highlight:has(> pre)')].map(block =>
            [block.parentElement.matches('.output'), block.querySelector('.copybtn') !== null])""")
    assert {(is_output, has_button) for is_output, has_button in found} == {
        (True, False),
        (False, True),
    }


def violations(browser, theme: str) -> list[str]:
    """Return axe's violations on a page: all rules in the light theme, only the colour rules in the dark one."""
    # A colour that is still changing from one theme to the other has the contrast of neither.
    browser.execute_script(
        """
        const still = document.createElement('style');
        still.textContent = '* { transition: none !important; animation: none !important; }';
        document.head.append(still);
        document.body.dataset.theme = arguments[0]""",
        theme,
    )
    browser.execute_script(files("axe_playwright_python").joinpath("axe.min.js").read_text())
    rules = {} if theme == "light" else {"runOnly": ["color-contrast"]}
    # The colours of code are those of one style, so the first blocks of a page have them all.
    script = """
        const [rules, done] = arguments;
        const exclude = [...document.querySelectorAll('.highlight')].slice(10);
        axe.run({exclude}, {...rules, resultTypes: ['violations']}).then(found => done(found.violations.flatMap(rule =>
            rule.nodes.map(node => `${rule.id}: ${node.target}`))), error => done([String(error)]))"""
    return browser.execute_async_script(script, rules)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_that_keeps_a_reader_out(browser, address, site, theme):
    browser.set_script_timeout(120)
    resize(browser, 1600)
    found = {}
    for page in (*pages(site), "search.html?q=train_ch13"):
        visit(browser, address + page)
        found[page] = violations(browser, theme)
    assert {page: said for page, said in found.items() if said} == {}


@pytest.mark.parametrize("theme", THEMES)
def test_axe_would_find_pale_text_and_headings_out_of_order(browser, address, theme):
    visit(browser, address + "index.html")
    browser.execute_script("""
        document.querySelector('article p').style.color = 'rgb(128 128 128 / 0.4)';
        document.querySelector('article').insertAdjacentHTML('beforeend', '<h6>Deep</h6>');""")
    found = Counter(said.split(":")[0] for said in violations(browser, theme))
    assert found["color-contrast"] >= 1
    assert found["heading-order"] == (theme == "light")


def test_what_has_the_focus_shows_it(browser, address):
    from selenium.webdriver import Keys

    visit(browser, address + "porting.html")
    seen = Counter()
    for _ in range(60):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        name, outline = browser.execute_script("""
            const focus = document.activeElement;
            const seen = focus.matches('.sd-tab-set > input') ? focus.nextElementSibling : focus;
            return [focus.localName, getComputedStyle(seen).outlineStyle]""")
        seen[name, outline != "none"] += 1
    assert {name for name, shown in seen if not shown} == set()
    assert {"a", "button", "input"} <= {name for name, _ in seen}


@pytest.mark.parametrize("theme", ["light", "dark", "auto"])
def test_code_and_its_caption_stand_out_from_the_page(browser, address, theme):
    visit(browser, address + "image-augmentation.html")
    browser.execute_script("document.body.dataset.theme = arguments[0]", theme)
    page, code, caption = browser.execute_script("""
        return ['body', '.highlight', '.code-block-caption'].map(
            selector => getComputedStyle(document.querySelector(selector)).backgroundColor)""")
    assert code == caption
    distance = zip(re.findall(r"\d+", page), re.findall(r"\d+", code), strict=True)
    assert max(abs(int(a) - int(b)) for a, b in distance) >= 5


def test_the_search_can_be_reached_while_three_columns_are_shown(browser, address):
    from selenium.webdriver import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    resize(browser, 1600)
    put_side_by_side(browser, address)
    visit(browser, address + "kaggle-cifar10.html")
    browser.find_element("css selector", ".mobile-header .nav-overlay-icon").click()
    field = browser.find_element("css selector", ".sidebar-search")
    field.send_keys("train_ch13" + Keys.ENTER)
    WebDriverWait(browser, 20).until(
        lambda driver: "search.html?q=train_ch13" in driver.current_url
    )


@pytest.mark.parametrize(
    ("width", "side_by_side"), [(390, False), (1280, False), (1600, False), (1600, True)]
)
def test_no_page_is_wider_than_its_window(browser, address, site, width, side_by_side):
    resize(browser, width, mobile=width < 600)
    if side_by_side:
        put_side_by_side(browser, address)
    wide = {}
    for page in pages(site):
        visit(browser, address + page)
        wide[page] = browser.execute_script("return document.documentElement.scrollWidth")
    assert {page: pixels for page, pixels in wide.items() if pixels > width} == {}


@pytest.mark.parametrize("page", ["image-augmentation.html", "kaggle-cifar10.html", "parity.html"])
def test_all_numbers_of_a_run_are_in_sight_on_a_telephone(browser, address, page):
    resize(browser, 390, mobile=True)
    visit(browser, address + page)
    script = """
        return [...document.querySelectorAll('table.figures')].map(table =>
            [table.rows.length, table.parentElement.scrollWidth - table.parentElement.clientWidth])"""
    tables = browser.execute_script(script)
    assert tables
    assert all(rows > 2 and hidden <= 0 for rows, hidden in tables), tables


def test_the_search_finds_train_ch13(browser, address):
    from selenium.webdriver.support.ui import WebDriverWait

    visit(browser, address + "search.html?q=train_ch13")
    chapter = "ul.search li a[href*='image-augmentation']"  # the list grows entry by entry
    WebDriverWait(browser, 60).until(lambda driver: driver.find_elements("css selector", chapter))


def test_dark_and_light_can_be_chosen(browser, address):
    visit(browser, address + "index.html")
    script = "return getComputedStyle(document.body).backgroundColor"
    seen = set()
    for _ in range(3):  # light, dark and the system's
        browser.execute_script(
            "document.querySelector('.content-icon-container .theme-toggle').click()"
        )
        seen.add(browser.execute_script(script))
    assert len(seen) == 2


USE = """
    for (const label of document.querySelectorAll('.sd-tab-label')) label.click();
    for (const button of document.querySelectorAll('.side-by-side-button, .theme-toggle')) button.click();"""


def test_no_page_logs_an_error_when_it_is_used_and_no_request_leaves_the_machine(
    browser, address, site
):
    for page in pages(site):
        visit(browser, address + page)
        browser.execute_script(USE)
        told = [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"]
        assert [entry["message"] for entry in told] == [], page
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }
    assert len(asked) > len(pages(site))
    assert {url for url in asked if not url.startswith((address, "data:"))} == set()


class Links(HTMLParser):
    """The links, anchors and pictures of a page."""

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


@pytest.mark.parametrize("chapter", ["image-augmentation", "kaggle-cifar10"])
def test_a_chapter_offers_the_notebook_of_each_framework(site, parsed, chapter):
    links = [link for link in parsed[f"{chapter}.html"].links if link.endswith(".ipynb")]
    assert [Path(link).name for link in links] == [
        f"{chapter}-{name}.ipynb" for name in backends.FRAMEWORKS
    ]
    for link in links:
        book = json.loads((site / link).read_text(encoding="utf-8"))
        assert book["nbformat"] == 4
        assert len(book["cells"]) > 20


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


def test_each_page_says_its_version_and_date_and_where_its_source_is(site, parsed):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "version"
    ]
    for page, found in parsed.items():
        text = (site / page).read_text(encoding="utf-8")
        assert f"three-tabs {version}" in text
        assert re.search(r"Last updated on \d{4}-\d\d-\d\d", text)
        assert REPOSITORY in found.links
        if page != "search.html":
            edit = f"{REPOSITORY}/edit/main/docs/{page.removesuffix('.html')}.md"
            assert edit in found.links


def test_every_picture_says_what_it_shows(parsed):
    silent = [
        (page, picture["src"])
        for page, found in parsed.items()
        for picture in found.pictures
        if not re.search(r"\w+ \w+", picture.get("alt") or "")
    ]
    assert silent == []
