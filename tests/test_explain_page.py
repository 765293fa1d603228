"""EXPLAIN (FORMAT html): one file that asks for nothing from elsewhere, and that works in a browser.

The tests of the page need Chromium and Selenium, and are skipped where they are not. With SCREENSHOTS set to a folder
pictures of the page are left there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import mlsql

VOID = {"meta", "link", "br", "hr", "img", "input"}
LONG = ", ".join(f"LINEAR({'v' if i == 0 else f'h{i - 1}'}, 4) AS h{i}" for i in range(24))


@pytest.fixture(scope="module")
def connection() -> Iterator[mlsql.Connection]:
    connection = mlsql.connect(progress=False)
    connection.execute(
        "CREATE TABLE t AS SELECT [i, 1, 2, 3]::FLOAT[4] AS v, (i % 3)::INTEGER AS k FROM range(60) r(i)"
    )
    for name, layers, last in (("net", "RELU(LINEAR(v / 2, 8)) AS hidden", "hidden"), ("long", LONG, "h23")):
        connection.execute(
            f"CREATE MODEL {name} INPUT (v FLOAT[4]) TARGET (k INTEGER) AS SELECT {layers}, "
            f"LINEAR({last}, 3) AS scores MINIMIZE AVG(CROSS_ENTROPY(scores, k))"
        )
    yield connection
    connection.close()


def page(connection: mlsql.Connection, statement: str) -> str:
    [(text,)] = connection.execute(statement).fetchall()
    return text


class Tags(HTMLParser):
    """Checks that tags close in the order in which they open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_asks_for_nothing(connection):
    text = page(connection, "EXPLAIN (FORMAT html) TRAIN net ON t")
    assert text.startswith("<!DOCTYPE html>")
    tags = Tags()
    tags.feed(text)
    assert not tags.open
    assert not {"src", "href"} & {name for name, _ in tags.attributes}
    assert not re.search(r"https?:|//\w+\.\w|@import|url\(|fetch\(|XMLHttp", text)


def test_what_a_statement_says_cannot_end_the_script(connection):
    text = page(connection, 'EXPLAIN (FORMAT html) CREATE MODEL m INPUT (x FLOAT) AS SELECT x * 1 AS "</script><b>"')
    assert text.count("</script>") == 1
    assert "\\u003c/script\\u003e" in text


def test_the_page_has_every_step_and_graph(connection):
    text = page(connection, "EXPLAIN (FORMAT html) TRAIN net ON t")
    [data] = re.findall(r"^const PLANS = (.*);$", text, re.MULTILINE)
    [plan] = json.loads(data)
    steps = connection.execute("EXPLAIN (STEPS) TRAIN net ON t").fetchall()
    assert [s["rule"] for s in plan["steps"]] == [s[1] for s in steps]
    assert len(plan["changes"]) == len(steps)
    assert replayed(plan) == len(steps)


def replayed(plan: dict[str, Any]) -> int:
    """Follow the changes as the page does: every operator's inputs are there after each. How many there were."""
    starts, graph = dict(plan["starts"]), {}
    for i, change in enumerate(plan["changes"]):
        for places, gone, *_ in [starts[i]] if i in starts else []:
            graph = {place: inputs for place, _, inputs in places}
            assert not gone or i
        places, gone, before, after = change
        assert before is None or before in graph
        for place in gone:
            graph.pop(place)
        graph |= {place: inputs for place, _, inputs in places}
        assert after is None or after in graph
        assert {n for inputs in graph.values() for n in inputs} <= graph.keys()
    return len(plan["changes"])


def test_a_shell_redirected_to_a_file_gives_the_page(tmp_path, capsys):
    from mlsql.shell.main import main

    assert main(["-c", "EXPLAIN (FORMAT html) CREATE MODEL m INPUT (x FLOAT) AS SELECT x * 1 AS p"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("<!DOCTYPE html>") and text.rstrip().endswith("</html>")


# -- in a browser ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("Chromium and its driver are not here")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    size = {"width": 1920, "height": 1080, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    yield browser
    browser.quit()


@pytest.fixture
def opened(browser, connection, tmp_path):
    """Opens the page of a statement."""

    def opened(statement: str, dark: bool = False) -> Any:
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        file = tmp_path / "plan.html"
        file.write_text(page(connection, statement), encoding="utf-8")
        browser.get(file.as_uri())
        return browser

    yield opened
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def press(browser: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def text_of(browser: Any, selector: str) -> str:
    return browser.execute_script(f"return document.querySelector({selector!r}).textContent")


def count(browser: Any, selector: str) -> int:
    return browser.execute_script(f"return document.querySelectorAll({selector!r}).length")


def picture(browser: Any, name: str) -> None:
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def test_arrow_keys_step_through_the_rewritings(opened, connection):
    from selenium.webdriver.common.keys import Keys

    browser = opened("EXPLAIN (FORMAT html) TRAIN net ON t")
    steps = connection.execute("EXPLAIN (STEPS) TRAIN net ON t").fetchall()
    assert text_of(browser, "#count") == f"0 of {len(steps)}"
    picture(browser, "start")
    for i, step in enumerate(steps, 1):
        press(browser, Keys.ARROW_RIGHT)
        assert text_of(browser, "#count") == f"{i} of {len(steps)}"
        assert text_of(browser, "#panel h3") == step[1]
        assert step[2] in text_of(browser, "#panel")
        changed = count(browser, ".node.new, .node.old, .node.touched, path.new, path.old")
        assert changed > 0, f"step {i}, {step[1]}, marks nothing"
        picture(browser, f"step{i}-{step[1]}")
    press(browser, Keys.ARROW_RIGHT)
    assert text_of(browser, "#count") == f"{len(steps)} of {len(steps)}"
    press(browser, Keys.HOME, Keys.ARROW_LEFT)
    assert text_of(browser, "#count") == f"0 of {len(steps)}"


def test_a_click_shows_an_operator_and_its_figures(opened):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser = opened("EXPLAIN ANALYZE (FORMAT html) TRAIN net ON t WITH SGD (epochs = 2)", dark=True)
    press(browser, Keys.END, "g")
    picture(browser, "whole-dark")
    nodes = browser.find_elements(By.CSS_SELECTOR, ".node")
    assert len(nodes) > 30
    hidden = next(n for n in nodes if n.text.startswith("hidden = maximum"))
    hidden.find_element(By.TAG_NAME, "text").click()
    panel = text_of(browser, "#panel")
    assert "elementwise function" in panel and "measured" in panel and "estimate" in panel
    picture(browser, "operator-dark")


@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark_follow_the_system_and_a_key(opened, dark):
    browser = opened("EXPLAIN (FORMAT html) TRAIN net ON t", dark)
    shade = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).reduce((a, b) => a + +b, 0)"
    assert (browser.execute_script(shade) < 380) == dark
    press(browser, "t")
    assert (browser.execute_script(shade) < 380) != dark


def test_a_large_plan_is_shown_in_parts(opened):
    from selenium.webdriver.common.keys import Keys

    browser = opened("EXPLAIN (FORMAT html) TRAIN long ON t")
    press(browser, Keys.ARROW_RIGHT)
    assert 0 < count(browser, ".node") <= 300
    press(browser, "g")
    assert 0 < count(browser, ".node") <= 300


def test_boxes_do_not_overlap(opened):
    from selenium.webdriver.common.keys import Keys

    browser = opened("EXPLAIN (FORMAT html) TRAIN net ON t")
    press(browser, Keys.END, "g")
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('.node rect')].map(r => { const b = r.getBoundingClientRect();"
        " return [b.left, b.top, b.right, b.bottom] })"
    )
    for i, (left, top, right, bottom) in enumerate(boxes):
        for other in boxes[:i]:
            apart = right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
            assert apart


def test_several_models_are_chosen_from_a_list(opened, connection):
    for name in ("net", "long"):
        connection.execute(f"TRAIN {name} ON t WITH SGD (epochs = 1)")
    browser = opened("EXPLAIN (FORMAT html) SELECT PREDICT(net, v), PREDICT(long, v) FROM t")
    assert count(browser, "#plan option") == 2
    browser.execute_script("const s = document.querySelector('#plan'); s.value = 1; s.onchange({ target: s })")
    assert text_of(browser, "#title").startswith("PREDICT long")
