"""The page in a real browser: near duplicates, of which one photo is shown that opens in place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from indexer import build
from model import Matcher
from service.settings import Settings
from tests.browser import PHONE, Browser, run, wait, wait_for_photos
from tests.requirements import needs_browser
from tests.service.looking import axe_complaints, check_quiet, find, names, on_screen, text
from tests.service.served import Served, served
from tests.service.small_gallery import CLUSTERS, save_copy

pytestmark = needs_browser

# So many files of each picture: the same pixels in files that differ, so that each is a photo.
FILES = [1, 4, 1, 2, 3, 1, 1, 5, 2, 1, 1, 1]
PHOTOS = sum(FILES)


@pytest.fixture(scope="module")
def doubled(tmp_path_factory: pytest.TempPathFactory, settings: Settings, matcher: Matcher) -> Iterator[Served]:
    """A server whose gallery has near duplicates."""
    folder = tmp_path_factory.mktemp("doubled")
    for picture, files in enumerate(FILES):
        for number in range(files):
            save_copy(folder / "photos" / f"{picture}-{number}.png", picture, number)
    build([folder / "photos"], folder / "index", matcher, clusters=CLUSTERS, embedder="ret")
    with served(settings, index=folder / "index") as running:
        yield running


def folded(driver: Browser) -> list[dict[str, Any]]:
    """The photos that stand for several; see ``scripts/copies_shown.js``."""
    shown: list[dict[str, Any]] = run(driver, "copies_shown")
    return shown


def press_first(driver: Browser) -> None:
    """Press the button of the first photo that stands for several, by the keyboard."""
    driver.execute_script("document.querySelector('#results .times:not([hidden])').focus()")
    ActionChains(driver).send_keys(Keys.ENTER).perform()


def wait_for_copies(driver: Browser) -> dict[str, Any]:
    """Wait until the copies of the first photo that has some are shown; what is shown then."""
    wait(driver).until(lambda d: folded(d)[0]["copies"])
    return folded(driver)[0]


def picture(name: str) -> str:
    return name.split("-")[0]


def test_each_picture_is_shown_once_and_says_how_many_photos_it_stands_for(desk: Browser, doubled: Served) -> None:
    find(desk, doubled)
    shown = names(desk)
    assert text(desk, "status") == f"{len(FILES)} photos, best first"
    assert sorted(int(picture(name)) for name in shown) == list(range(len(FILES)))
    several = [f"\u00d7{FILES[int(picture(name))]}" for name in shown if FILES[int(picture(name))] > 1]
    assert [one["stands"] for one in folded(desk)] == several
    assert not any(one["open"] or one["copies"] for one in folded(desk))
    check_quiet(desk, doubled)


def test_a_picture_opens_in_place_and_is_closed_by_its_button_and_by_escape(desk: Browser, doubled: Served) -> None:
    find(desk, doubled)
    press_first(desk)
    first = wait_for_copies(desk)
    count = FILES[int(picture(first["photo"]))]
    assert first["open"]
    assert first["says"] == f"{count - 1} near duplicate{'s' if count > 2 else ''} of {first['photo']}"
    assert len({first["photo"], *first["copies"]}) == count
    assert {picture(copy) for copy in first["copies"]} == {picture(first["photo"])}
    wait_for_photos(desk)
    press_first(desk)
    assert not folded(desk)[0]["open"]
    press_first(desk)
    wait_for_copies(desk)
    ActionChains(desk).send_keys(Keys.ESCAPE).perform()
    assert not folded(desk)[0]["open"]
    assert desk.execute_script("return document.activeElement.matches('.times')")
    check_quiet(desk, doubled)


def test_a_copy_can_be_looked_at_and_liked(desk: Browser, doubled: Served) -> None:
    find(desk, doubled)
    press_first(desk)
    first = wait_for_copies(desk)
    desk.execute_script("document.querySelector('.copies .photo').click()")
    wait(desk).until(lambda d: text(d, "viewer-paths") == first["copies"][0])
    assert not desk.find_element(By.ID, "viewer-rank").is_displayed()
    desk.find_element(By.ID, "viewer").send_keys(Keys.ARROW_LEFT)
    assert text(desk, "viewer-paths") == first["photo"]
    desk.find_element(By.ID, "viewer").send_keys(Keys.ARROW_RIGHT)
    desk.find_element(By.ID, "viewer-like").click()
    wait(desk).until(lambda d: names(d)[0] == first["copies"][0])
    # The others fold into the one that was named.
    assert first["photo"] not in names(desk)
    check_quiet(desk, doubled)


def test_folding_can_be_turned_off_which_is_remembered(desk: Browser, doubled: Served) -> None:
    find(desk, doubled)
    desk.find_element(By.CSS_SELECTOR, "#count option[value='50']").click()
    desk.find_element(By.CSS_SELECTOR, "#filter summary").click()
    desk.find_element(By.ID, "fold").click()
    wait(desk).until(lambda d: text(d, "status") == f"{PHOTOS} photos, best first")
    assert folded(desk) == []
    desk.refresh()
    wait(desk).until(lambda d: text(d, "status") == "20 photos, best first")
    assert folded(desk) == []


def test_a_server_that_does_not_tell_the_copies_says_why(desk: Browser, doubled: Served) -> None:
    find(desk, doubled)
    desk.execute_script("window.fetch = async () => { throw new TypeError('away'); }")
    press_first(desk)
    wait(desk).until(
        lambda d: (
            "does not answer" in d.execute_script("return document.querySelector('.copies:not([hidden])').textContent")
        )
    )


def test_everybody_can_use_copies(opened: Browser, doubled: Served) -> None:
    with on_screen(opened, PHONE, dark=True) as driver:
        find(driver, doubled, screen=PHONE)
        driver.execute_script("document.querySelector('#results .times:not([hidden])').scrollIntoView()")
        driver.find_element(By.CSS_SELECTOR, "#results .times:not([hidden])").click()
        wait_for_copies(driver)
        wait_for_photos(driver)
        assert axe_complaints(driver) == []
        assert driver.execute_script("return document.documentElement.scrollWidth") <= PHONE.width
