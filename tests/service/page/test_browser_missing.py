"""The page in a real browser: a collection in several parts, some of which do not answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver.common.by import By

from indexer import Index
from model import Matcher
from service.settings import Settings
from tests.browser import DESKTOP, PHONE, Browser, Screen, draw, run, wait, wait_for_photos
from tests.pictures import strokes
from tests.requirements import needs_browser
from tests.service.looking import axe_complaints, check_quiet, names, on_screen, text
from tests.service.served import Served
from tests.service.sharding.served_here import Sharded, sharded
from tests.service.small_gallery import PHOTOS

pytestmark = needs_browser

SHARDS = 8
ONE = "1 of 8 parts of this collection did not answer; photos there are missing."


@pytest.fixture(scope="module")
def running(settings: Settings, index: Index, matcher: Matcher) -> Iterator[Sharded]:
    with sharded(settings, index, matcher, [photo % SHARDS for photo in range(PHOTOS)]) as server:
        yield server


@pytest.fixture
def many(running: Sharded) -> Iterator[Sharded]:
    running.answers(SHARDS)
    yield running
    for link in running.links:
        link.broken = False


def find(driver: Browser, server: Served, screen: Screen = DESKTOP) -> None:
    driver.get(server.url)
    wait(driver).until(lambda d: text(d, "about-open") == "23 photos")
    draw(driver, screen, strokes("star"))
    wait_for_photos(driver)


def search_again(driver: Browser, told: str) -> None:
    """Search once more, and wait until this is told of the answer; the photos of the one before stay until then."""
    driver.find_element(By.ID, "search").click()
    wait(driver).until(lambda d: text(d, "missing") == told)
    wait_for_photos(driver)


def test_the_page_says_how_many_parts_did_not_answer_until_all_do_again(desk: Browser, many: Sharded) -> None:
    find(desk, many.served)
    assert text(desk, "missing") == ""
    # Later the browser may complain of a picture that a broken part has not sent.
    check_quiet(desk, many.served)
    many.links[3].broken = True
    search_again(desk, ONE)
    assert names(desk)
    many.links[5].broken = True
    search_again(desk, "2 of 8 parts of this collection did not answer; photos there are missing.")
    for link in many.links:
        link.broken = False
    many.answers(SHARDS)
    search_again(desk, "")


def test_the_page_says_so_of_a_later_page_of_photos_too(desk: Browser, many: Sharded) -> None:
    find(desk, many.served)
    many.links[0].broken = True
    wait(desk).until(lambda d: run(d, "scroll_to_the_end") == "These are all the photos.")
    wait(desk).until(lambda d: text(d, "missing") == ONE)
    desk.find_element(By.ID, "clear").click()
    wait(desk).until(lambda d: text(d, "missing") == "")


def test_everybody_can_read_it(opened: Browser, many: Sharded) -> None:
    with on_screen(opened, PHONE, dark=True) as driver:
        find(driver, many.served, PHONE)
        many.links[1].broken = True
        search_again(driver, ONE)
        line = driver.find_element(By.ID, "missing")
        assert line.is_displayed()
        assert line.rect["y"] < driver.find_element(By.ID, "results").rect["y"]
        assert axe_complaints(driver) == []
        assert driver.execute_script("return document.documentElement.scrollWidth") <= PHONE.width
