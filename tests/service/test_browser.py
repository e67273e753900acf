"""The page in a real browser."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from pydantic import SecretStr

from service.settings import Settings
from tests.pictures import encoded, strokes
from tests.service.conftest import Served, draw_sketch, served

pytest.importorskip("selenium", reason="selenium is not installed")

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.interaction import POINTER_PEN
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests import browser
from tests.browser import DESKTOP, PHONE, Browser, Screen, draw, stroke, wait, wait_for_photos

pytestmark = pytest.mark.skipif(browser.missing() is not None, reason=browser.missing() or "")


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    with browser.browser(DESKTOP) as driver:
        yield driver


@pytest.fixture
def desk(opened: Browser) -> Browser:
    """A browser that has forgotten the test before."""
    opened.get("about:blank")
    browser.complaints(opened)
    browser.requested(opened)
    return opened


def text(driver: Browser, name: str) -> str:
    return driver.find_element(By.ID, name).text


def ends_with(driver: Browser, name: str, end: str) -> bool:
    return text(driver, name).endswith(end)


def wait_for_notice(driver: Browser, title: str) -> None:
    wait(driver).until(lambda d: text(d, "notice-title") == title)


def ink(driver: Browser) -> float:
    """How much of the paper is black, 0 to 1."""
    url = driver.execute_script("return document.getElementById('paper').toDataURL()")
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        return float((np.asarray(image.convert("L")) < 128).mean())


def live_search(driver: Browser, steps: str) -> Any:
    """What a script hands to done(): it has a LiveSearch, the searches asked for, and what has been shown."""
    return driver.execute_async_script(
        """
        const [done] = arguments;
        import("/page/search.js").then(({ LiveSearch }) => {
          const asked = [], shown = [];
          const ask = (signal) => new Promise((answer, fail) => asked.push({ signal, answer, fail }));
          const found = (answer) => shown.push(answer), trouble = (error) => shown.push(error.message);
          const search = new LiveSearch(ask, { busy: () => {}, found, trouble });
          STEPS
        });
        """.replace("STEPS", f"(async () => {{ {steps} }})();")
    )


def check_quiet(driver: Browser, server: Served) -> None:
    """Nothing was said in the console, and no other host was asked for anything."""
    assert browser.complaints(driver) == []
    asked = [urlsplit(url) for url in browser.requested(driver)]
    # The rest is the browser's own first tab, and images that are in memory already.
    network = {address.netloc for address in asked if address.scheme not in ("chrome", "data", "blob")}
    assert network == {urlsplit(server.url).netloc}


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=lambda screen: screen.name)
def test_a_drawing_finds_photos_and_a_click_shows_one(server: Served, screen: Screen) -> None:
    with browser.browser(screen) as driver:
        driver.get(server.url)
        wait_for_notice(driver, "What are you looking for?")
        draw(driver, screen, strokes("star"))
        wait_for_photos(driver)
        assert text(driver, "status") == "20 photos, best first"
        assert " ms: prepare " in text(driver, "timings")
        assert "[Ret] stand-in, not CLIP" in text(driver, "info")
        first, second, *_ = driver.find_elements(By.CSS_SELECTOR, "#results button")
        assert first.get_attribute("aria-label") == "1: {}, score {}".format(*first.text.split("\n")[1:])

        first.click()
        dialog = driver.find_element(By.ID, "viewer")
        wait(driver).until(lambda _: dialog.is_displayed() and "loading" not in str(dialog.get_attribute("class")))
        assert driver.find_element(By.ID, "viewer-image").get_property("naturalWidth") == 96
        assert text(driver, "viewer-rank") == "1 of 20"
        assert text(driver, "viewer-paths").split("\n") == str(first.get_attribute("title")).split("\n")
        dialog.send_keys(Keys.ARROW_RIGHT)
        assert text(driver, "viewer-rank") == "2 of 20"
        assert text(driver, "viewer-paths").split("\n") == str(second.get_attribute("title")).split("\n")
        driver.find_element(By.ID, "viewer-close").click()
        assert not dialog.is_displayed()

        width = driver.execute_script("return document.documentElement.scrollWidth")
        assert width <= screen.width
        check_quiet(driver, server)


def test_undo_and_redo_work_by_keyboard(desk: Browser, server: Served) -> None:
    desk.get(server.url)
    draw(desk, DESKTOP, strokes("cross"))
    wait_for_photos(desk)
    drawn = ink(desk)
    for _ in strokes("cross"):
        ActionChains(desk).key_down(Keys.CONTROL).send_keys("z").key_up(Keys.CONTROL).perform()
    wait_for_notice(desk, "What are you looking for?")
    assert ink(desk) == 0
    assert not desk.find_elements(By.CSS_SELECTOR, "#results li")
    for _ in strokes("cross"):
        ActionChains(desk).key_down(Keys.CONTROL).key_down(Keys.SHIFT).send_keys("z").perform()
        ActionChains(desk).key_up(Keys.SHIFT).key_up(Keys.CONTROL).perform()
    wait_for_photos(desk)
    assert ink(desk) == drawn
    check_quiet(desk, server)


def test_clearing_can_be_undone(desk: Browser, server: Served) -> None:
    desk.get(server.url)
    draw(desk, DESKTOP, strokes("zigzag"))
    drawn = ink(desk)
    desk.find_element(By.ID, "clear").click()
    assert ink(desk) == 0
    desk.find_element(By.ID, "undo").click()
    assert ink(desk) == drawn > 0


def test_the_eraser_takes_ink_away(desk: Browser, server: Served) -> None:
    desk.get(server.url)
    draw(desk, DESKTOP, [[(-0.8, 0), (0.8, 0)]])
    drawn = ink(desk)
    desk.find_element(By.CSS_SELECTOR, "[value=eraser]").send_keys(Keys.SPACE)
    draw(desk, DESKTOP, [[(0, 0), (1, 0)]])
    assert 0.3 * drawn < ink(desk) < 0.7 * drawn


def test_a_pen_that_is_pressed_harder_draws_a_broader_line(desk: Browser, server: Served) -> None:
    drawn = []
    for pressure in (0.1, 0.5, 1.0):
        desk.get(server.url)
        stroke(desk, POINTER_PEN, [(0, -0.7), (0, 0.7)], pressure)
        drawn.append(ink(desk))
    assert 0 < drawn[0] < drawn[1] < drawn[2]


def test_an_image_file_is_searched_with_in_place_of_the_drawing(desk: Browser, server: Served, tmp_path: Path) -> None:
    file = tmp_path / "a sketch.png"
    file.write_bytes(encoded(draw_sketch()))
    desk.get(server.url)
    desk.find_element(By.ID, "file").send_keys(str(file))
    wait_for_photos(desk)
    assert text(desk, "picture-name") == "a sketch.png"
    desk.find_element(By.ID, "picture-remove").click()
    wait_for_notice(desk, "What are you looking for?")
    check_quiet(desk, server)


def test_a_file_that_is_no_image_is_told_in_words(desk: Browser, server: Served, tmp_path: Path) -> None:
    file = tmp_path / "letter.txt"
    file.write_text("Dear all,")
    desk.get(server.url)
    desk.find_element(By.ID, "file").send_keys(str(file))
    wait_for_notice(desk, "That did not work")
    assert text(desk, "notice-text")


def test_how_many_photos_and_by_what_can_be_chosen(desk: Browser, server: Served) -> None:
    desk.get(server.url)
    draw(desk, DESKTOP, strokes("circle"))
    wait_for_photos(desk)
    for select, wanted, where, said in [
        ("count", "10", "status", "10 photos, best first"),
        ("method", "ret", "timings", "by [Ret]"),
        ("method", "rn", "timings", "by relation network"),
    ]:
        desk.find_element(By.CSS_SELECTOR, f"#{select} option[value='{wanted}']").click()
        wait(desk).until(partial(ends_with, name=where, end=said))
    check_quiet(desk, server)


def test_the_page_asks_for_the_api_key_and_fetches_photos_with_it(desk: Browser, settings: Settings) -> None:
    with served(settings.model_copy(update={"api_key": SecretStr("secret")})) as server:
        desk.get(server.url)
        wait_for_notice(desk, "This server asks for a key")
        desk.find_element(By.ID, "key").send_keys("secret", Keys.ENTER)
        wait_for_notice(desk, "What are you looking for?")
        draw(desk, DESKTOP, strokes("house"))
        wait_for_photos(desk)
        desk.find_element(By.CSS_SELECTOR, "#results button").click()
        wait(desk).until(lambda d: not d.find_elements(By.CSS_SELECTOR, "dialog.loading"))
        assert desk.find_element(By.ID, "viewer-image").get_property("naturalWidth") == 96
        assert text(desk, "viewer-note") == ""


def test_without_an_index_the_page_says_what_to_do(desk: Browser, settings: Settings, tmp_path: Path) -> None:
    with served(settings.model_copy(update={"index": tmp_path / "nowhere"})) as server:
        desk.get(server.url)
        wait_for_notice(desk, "Not ready yet")
        assert "python -m indexer build" in text(desk, "notice-text")
        draw(desk, DESKTOP, strokes("house"))
        wait(desk).until(lambda d: "503" in "".join(browser.complaints(d)))
        wait_for_notice(desk, "Not ready yet")


def test_a_server_that_has_gone_is_told_in_words(desk: Browser, settings: Settings) -> None:
    with served(settings) as server:
        desk.get(server.url)
        wait(desk).until(lambda d: text(d, "info"))
    draw(desk, DESKTOP, strokes("house"))
    wait_for_notice(desk, "The server is away")


def test_an_older_search_is_given_up_and_never_shown(desk: Browser, server: Served) -> None:
    desk.get(server.url)
    said = live_search(
        desk,
        """
        const searches = [search.now(), search.now(), search.now()];
        asked[2].answer("third");
        asked[1].fail(new Error("second"));
        asked[0].answer("first");
        await Promise.all(searches);
        done([asked.map(({ signal }) => signal.aborted), shown]);
        """,
    )
    assert said == [[True, True, False], ["third"]]


def test_a_busy_server_is_asked_again_when_it_said(desk: Browser, server: Served) -> None:
    desk.get(server.url)
    said = live_search(
        desk,
        """
        const first = search.now();
        asked[0].fail(Object.assign(new Error("busy"), { retryAfter: 0.01 }));
        await first;
        const look = setInterval(() => {
          if (asked.length === 2) {
            clearInterval(look);
            asked[1].answer("found");
            setTimeout(() => done(shown));
          }
        });
        """,
    )
    assert said == ["busy", "found"]
